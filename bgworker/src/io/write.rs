//! `Write`: a feed's rows become data files.
//!
//! ```text
//! feed ring ──► async task: copy, check, Arrow ──► bounded channel ──► encoder thread: Parquet
//! ```
//!
//! Encoding takes a core and blocks on the disk, so it has a thread of its own. The channel is
//! crossbeam's; as its sender must not block a runtime thread, a semaphore of the channel's size
//! counts the free places.

use super::encoder::{Encoder, Job};
use super::error::iceberg_error;
use super::places::Places;
use super::{Answer, Budget, NewFiles};
use crate::arrow_types::table_schema;
use crate::runtime::blocking;
use crate::transport::{Fed, MessageReader};
use arrow::datatypes::SchemaRef;
use crossbeam_channel::{Receiver, Sender, bounded};
use pg_lake_plan::message::{ErrorCode, Reply, WireError, Write, WrittenFile};
use pg_lake_plan::types::LakeType;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Batches between the feed and the encoder.
const QUEUED_BATCHES: usize = 4;

/// Writes all rows of the feed. Without the feed's end mark nothing is kept.
pub(crate) async fn write(
    budget: &Arc<Budget>,
    places: &Places,
    request: Write,
    feed: MessageReader,
    cancel: &CancellationToken,
) -> Result<Answer, WireError> {
    let schema = table_schema(&request.columns)
        .to_arrow()
        .map_err(|e| iceberg_error(&e, &request.directory))?;
    let types: Vec<LakeType> = request.columns.iter().map(|c| c.ty.clone()).collect();
    let encoder = Encoder::new(&request, schema.clone(), budget.encoder(), places, cancel)?;
    let (sender, receiver) = bounded(QUEUED_BATCHES);
    let room = Arc::new(Semaphore::new(QUEUED_BATCHES));
    let closer = CloseOnDrop(room.clone());
    let encoding = blocking("writing data files", move || {
        let _closer = closer;
        encode(encoder, &receiver)
    });

    let fed = cancel
        .run_until_cancelled(pump(feed, &types, &schema, sender, &room))
        .await
        .unwrap_or_else(|| Err(Stop::Feed(unfinished())));
    // The encoder ends by itself: the sender is gone. Waiting for it means that after an error its
    // files are gone before the backend hears of it.
    let encoded = encoding.await;
    let (written, files) = match (fed, encoded) {
        // Why the feed broke off says more than that the encoder saw it do so.
        (Err(Stop::Feed(error)), _) => return Err(error),
        (_, Err(error)) => return Err(error),
        (Err(Stop::Encoder), Ok(_)) => return Err(unfinished()),
        (Ok(()), Ok(done)) => done,
    };
    Ok(Answer {
        files: Some(files),
        ..Reply::Written(written).into()
    })
}

/// Why not all rows were passed on.
enum Stop {
    Feed(WireError),
    /// The encoder is gone and knows why.
    Encoder,
}

async fn pump(
    mut feed: MessageReader,
    types: &[LakeType],
    schema: &SchemaRef,
    sender: Sender<Job>,
    room: &Arc<Semaphore>,
) -> Result<(), Stop> {
    loop {
        let fed = feed.next_fed(types, schema).await.map_err(Stop::Feed)?;
        let place = room
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Stop::Encoder)?;
        let job = match fed {
            None => Job::Finish,
            Some(Fed::Rows(batch)) => Job::Rows(batch, place),
            Some(Fed::Partition(values)) => Job::Partition(values, place),
        };
        let last = matches!(job, Job::Finish);
        // Does not block: a permit is a place in the channel.
        sender.send(job).map_err(|_| Stop::Encoder)?;
        if last {
            return Ok(());
        }
    }
}

fn encode(
    mut encoder: Encoder,
    jobs: &Receiver<Job>,
) -> Result<(Vec<WrittenFile>, NewFiles), WireError> {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Rows(batch, place) => {
                drop(place);
                encoder.write(&batch)?;
            }
            Job::Partition(values, place) => {
                drop(place);
                encoder.begin_partition(values)?;
            }
            Job::Finish => return encoder.finish(),
        }
    }
    Err(unfinished())
}

fn unfinished() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the rows to write broke off")
}

/// Tells whoever waits for a place that none will come.
struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
