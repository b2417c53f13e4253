//! One request, from its announcement to the last frame of its reply.
//!
//! Whatever happens on the way, an error or a panic or the end of the process, the backend hears of
//! it and the streams are given back: the reader and the writer own their holds, the outcome goes
//! through one place ([`run`]), and a writer that is dropped without an outcome fails its stream.

use crate::arrow_types::scan_schema;
use crate::engine::{Engine, Feed, Turn, Usage};
use crate::io::{Answer, Io};
use crate::runtime::panic_error;
use crate::transport::{
    Hold, MessageReader, ResultWriter, Streams, feed_reader, ring_code, ring_error,
};
use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use pg_lake_plan::PROTOCOL_VERSION;
use pg_lake_plan::message::{
    Envelope, ErrorCode, Execute, Reply, Request, ScanStats, StreamId, WireError, kind,
};
use pg_lake_plan::store::Store;
use pg_lake_plan::types::LakeType;
use pg_lake_ring::{Phase, Progress, Region, Report, StreamRef};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A request longer than this is refused: it names files and deleted rows, but carries no rows.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// What this process does.
pub(crate) enum Role {
    Engine(Engine),
    Io(Io),
}

/// What all requests of this process share.
pub(crate) struct Context {
    pub streams: Arc<Streams>,
    pub region: Region,
    pub role: Role,
}

impl Context {
    /// Publishes how much memory is in use.
    pub fn count_memory(&self) {
        // The I/O role counts by itself, where it changes.
        if let Role::Engine(engine) = &self.role {
            let used = engine.memory_used();
            let counters = self.streams.slot().counters();
            counters.memory_bytes.store(used, Ordering::Relaxed);
            counters.memory_peak.fetch_max(used, Ordering::Relaxed);
        }
    }

    /// Begins to say how far a request is that was announced to the engine.
    pub fn report(&self, reference: StreamRef) -> Option<Report> {
        match &self.role {
            Role::Engine(_) => self.region.report(reference),
            Role::Io(_) => None,
        }
    }
}

/// A request whose streams are held.
struct Received {
    stores: Vec<Store>,
    request: Request,
    /// In the order in which the request names them.
    feeds: Vec<MessageReader>,
    /// The proc number of whose request it is.
    proc: u32,
}

/// Serves the request that was announced on a stream.
pub(crate) async fn run(context: Arc<Context>, reference: StreamRef, report: Option<Report>) {
    let counters = context.streams.slot().counters();
    counters.requests.fetch_add(1, Ordering::Relaxed);
    counters.tasks.fetch_add(1, Ordering::Relaxed);
    let _task = TaskCount(context.clone());

    let cancel = CancellationToken::new();
    let mut reader = match open(&context, reference, &cancel) {
        Ok(reader) => reader,
        Err(error) => {
            tracing::debug!(target: "pg_lake", "a request was gone before it was read: {error}");
            return;
        }
    };
    let message = match first_message(&context, &mut reader, &cancel).await {
        Ok(message) => message,
        Err(error) => return refuse(&context, &reader, &error),
    };
    let mut writer = match result_writer(&context, &reader, &message, &cancel) {
        Ok(writer) => writer,
        Err(error) => return refuse(&context, &reader, &error),
    };

    let work = async {
        let received = receive(&context, &reader, &message)?;
        dispatch(&context, received, &mut writer, report.as_ref(), &cancel).await
    };
    // The writer outlives a panic within: only its `partial` mark matters then, and that is kept.
    let outcome = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(payload) => Err(panic_error("a lake worker", &*payload)),
    };
    let answer = match outcome {
        // A task that was told to stop may report what stopping broke.
        Err(error) if cancel.is_cancelled() => {
            tracing::debug!(target: "pg_lake", "a request was cancelled: {error}");
            Err(context.streams.cancelled())
        }
        other => other,
    };
    if let Err(error) = &answer {
        counters.errors.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: "pg_lake", code = ?error.code, "a request failed: {error}");
    }
    // Who hears of the end finds it gone.
    drop(report);
    let (reply, files, hint) = match answer {
        Ok(Answer { reply, files, hint }) => (Ok(reply), files, hint),
        Err(error) => (Err(error), None, None),
    };
    match writer.end(&reply).await {
        // The backend has been told of the files: they are its own from now on.
        Ok(()) => files.into_iter().for_each(|files| files.keep()),
        Err(error) => {
            tracing::debug!(target: "pg_lake", "a reply was not delivered: {error}");
            if let Some(hint) = hint {
                hint.restore().await;
            }
        }
    }
    context.count_memory();
}

struct TaskCount(Arc<Context>);

impl Drop for TaskCount {
    fn drop(&mut self) {
        self.0
            .streams
            .slot()
            .counters()
            .tasks
            .fetch_sub(1, Ordering::Relaxed);
    }
}

fn open(
    context: &Context,
    reference: StreamRef,
    cancel: &CancellationToken,
) -> Result<MessageReader, WireError> {
    let hold = context.streams.attach(reference)?;
    hold.cancels(cancel);
    MessageReader::new(hold, REQUEST_BYTES_MAX)
}

/// Without a result stream all that can be said is a code on the request's own.
fn refuse(context: &Context, reader: &MessageReader, error: &WireError) {
    context
        .streams
        .slot()
        .counters()
        .errors
        .fetch_add(1, Ordering::Relaxed);
    tracing::debug!(target: "pg_lake", "a request was refused: {error}");
    reader.hold().fail(ring_code(error.code));
}

async fn first_message(
    context: &Context,
    reader: &mut MessageReader,
    cancel: &CancellationToken,
) -> Result<Vec<u8>, WireError> {
    match cancel.run_until_cancelled(reader.next_message()).await {
        None => Err(context.streams.cancelled()),
        Some(Err(error)) => Err(error),
        Some(Ok(Some((kind::REQUEST, message)))) => Ok(message),
        Some(Ok(_)) => Err(protocol("a request stream without a request")),
    }
}

/// Opens the stream that the reply goes to. An envelope begins with its version and that stream,
/// whatever the version.
fn result_writer(
    context: &Context,
    reader: &MessageReader,
    message: &[u8],
    cancel: &CancellationToken,
) -> Result<ResultWriter, WireError> {
    let ((_, result), _) = postcard::take_from_bytes::<(u16, StreamId)>(message)
        .map_err(|e| protocol("malformed request").detail(e.to_string()))?;
    let hold = attach_sibling(context, reader.hold(), result)?;
    hold.cancels(cancel);
    ResultWriter::new(hold)
}

/// A backend can only name streams of its own.
fn attach_sibling(context: &Context, request: &Hold, id: StreamId) -> Result<Hold, WireError> {
    let reference = StreamRef::from_u64(id);
    let stream = context.region.stream(reference).map_err(ring_error)?;
    if stream.proc() != request.stream().proc() {
        return Err(protocol("a request named a stream of another backend"));
    }
    context.streams.attach(reference)
}

fn receive(
    context: &Context,
    reader: &MessageReader,
    message: &[u8],
) -> Result<Received, WireError> {
    let (version, _) = postcard::take_from_bytes::<u16>(message)
        .map_err(|e| protocol("malformed request").detail(e.to_string()))?;
    if version != PROTOCOL_VERSION {
        return Err(protocol(format!(
            "a request of protocol version {version} reached a worker of version {PROTOCOL_VERSION}"
        ))
        .hint("Restart the server: the library was replaced while it was running."));
    }
    let envelope: Envelope = pg_lake_plan::decode(message)
        .map_err(|e| protocol("malformed request").detail(e.to_string()))?;
    pg_lake_crash::adopt(envelope.crash);
    let named: Vec<StreamId> = match &envelope.request {
        Request::Execute(execute) => execute.tables.iter().filter_map(|t| t.feed).collect(),
        Request::Write(write) => vec![write.feed],
        _ => vec![],
    };
    let feeds = named
        .into_iter()
        .map(|id| feed_reader(attach_sibling(context, reader.hold(), id)?))
        .collect::<Result<Vec<_>, WireError>>()?;
    Ok(Received {
        stores: envelope.stores,
        request: envelope.request,
        feeds,
        proc: reader.hold().stream().proc(),
    })
}

async fn dispatch(
    context: &Context,
    received: Received,
    writer: &mut ResultWriter,
    report: Option<&Report>,
    cancel: &CancellationToken,
) -> Result<Answer, WireError> {
    let Received {
        stores,
        request,
        feeds,
        proc,
    } = received;
    match (&context.role, request) {
        (_, Request::Ping) => Ok(Answer::from(Reply::Pong)),
        (Role::Engine(engine), Request::Execute(execute)) => cancel
            .run_until_cancelled(run_fragment(
                context, engine, execute, stores, feeds, proc, writer, report, cancel,
            ))
            .await
            .unwrap_or_else(|| Err(context.streams.cancelled()))
            .map(Answer::from),
        (Role::Engine(engine), Request::Covered(execute)) => engine
            .covered(&execute, stores, cancel)
            .await
            .map(|covered| Answer::from(Reply::Covered(covered))),
        (Role::Io(io), Request::Fetch(fetch)) => cancel
            .run_until_cancelled(io.fetch(&stores, fetch, writer))
            .await
            .unwrap_or_else(|| Err(context.streams.cancelled()))
            .map(Answer::from),
        (Role::Io(io), request) => io.serve(&stores, request, feeds, cancel).await,
        (Role::Engine(_), _) => Err(protocol("the engine was sent a request for a worker")),
    }
}

/// Runs a fragment and sends its rows.
#[allow(clippy::too_many_arguments)]
async fn run_fragment(
    context: &Context,
    engine: &Engine,
    execute: Execute,
    stores: Vec<Store>,
    feeds: Vec<MessageReader>,
    proc: u32,
    writer: &mut ResultWriter,
    report: Option<&Report>,
    cancel: &CancellationToken,
) -> Result<Reply, WireError> {
    if let Some(few) = engine.read_few(&execute, &stores, cancel) {
        let mut few = few?;
        let types = execute.fragment.root.output();
        let mut sent = false;
        // Not all at once: rows may be wide.
        while let Some(batch) = few.next().await.map_err(|e| too_late(e, sent))? {
            if let Some(report) = report {
                let read = few.stats().rows_cold;
                report.store(&Progress {
                    rows_read: read,
                    rows_cold: read,
                    ..Progress::default()
                });
            }
            writer.send_batch(&batch, &types).await?;
            sent |= batch.num_rows() > 0;
        }
        return Ok(Reply::Executed(few.stats()));
    }
    // Before anything is there that takes memory, and to the end of what does.
    let turn = engine.turn(&execute, proc).await.map(Arc::new);
    let feeds = feed_streams(&execute, feeds, turn.as_ref())?;
    let mut running = engine
        .execute(execute, stores, feeds, cancel.clone())
        .await?;
    let mut watch = Watch {
        context,
        report,
        usage: running.usage(),
        rows_delivered: 0,
        told: Instant::now(),
    };
    loop {
        let sent = watch.rows_delivered > 0;
        let next = watch.over(Phase::Running, running.next()).await;
        let Some(batch) = next.map_err(|e| too_late(e, sent))? else {
            break;
        };
        if !sent {
            // Whoever wants no more than the first rows learns what it took to find them.
            watch.tell();
        }
        let sending = writer.send_batch(&batch, &running.types);
        let sending = lending(turn.as_deref(), sending);
        watch.over(Phase::Delivering, sending).await?;
        watch.rows_delivered += batch.num_rows() as u64;
        context.count_memory();
    }
    watch.tell();
    let waited = turn.as_ref().map_or(Duration::ZERO, |turn| turn.waited());
    Ok(Reply::Executed(ScanStats {
        queued_us: u64::try_from(waited.as_micros()).unwrap_or(u64::MAX),
        ..running.stats()
    }))
}

/// Waits for something that the backend is to do, while others may have the turn.
async fn lending<T>(turn: Option<&Turn>, step: impl Future<Output = T>) -> T {
    match turn {
        Some(turn) => turn.lent_for(step).await,
        None => step.await,
    }
}

/// How often a fragment says how far it is.
const REPORT_INTERVAL: Duration = Duration::from_millis(50);

/// What is told of a fragment while it runs.
struct Watch<'a> {
    context: &'a Context,
    report: Option<&'a Report>,
    usage: Usage,
    rows_delivered: u64,
    told: Instant,
}

impl Watch<'_> {
    /// Waits for a step of the fragment, and tells how far it is meanwhile.
    async fn over<T>(&mut self, phase: Phase, step: impl Future<Output = T>) -> T {
        if let Some(report) = self.report {
            report.phase(phase);
        }
        let mut step = pin!(step);
        loop {
            let left = REPORT_INTERVAL.saturating_sub(self.told.elapsed());
            let done = tokio::time::timeout(left, step.as_mut()).await;
            if self.told.elapsed() >= REPORT_INTERVAL {
                self.tell();
            }
            if let Ok(done) = done {
                return done;
            }
        }
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        self.context.count_memory();
        if let Some(report) = self.report {
            report.store(&Progress {
                rows_delivered: self.rows_delivered,
                ..self.usage.progress()
            });
        }
    }
}

/// The backend can run the plan itself only if it has returned nothing yet.
fn too_late(error: WireError, sent: bool) -> WireError {
    if !sent || error.code != ErrorCode::NotExact {
        return error;
    }
    let detail = error.detail.unwrap_or(error.message);
    WireError::new(
        ErrorCode::OutOfRange,
        "a value is outside the lake engine's exact range",
    )
    .detail(detail)
    .hint("SET lake.engine = off to run the query without the engine.")
}

/// One stream of rows for each table that has a feed.
fn feed_streams(
    execute: &Execute,
    feeds: Vec<MessageReader>,
    turn: Option<&Arc<Turn>>,
) -> Result<Vec<Option<Feed>>, WireError> {
    let scans = execute.fragment.root.scans();
    let mut feeds = feeds.into_iter();
    let mut streams = Vec::with_capacity(execute.tables.len());
    for (index, table) in execute.tables.iter().enumerate() {
        let Some(reader) = table.feed.and_then(|_| feeds.next()) else {
            streams.push(None);
            continue;
        };
        let scan = scans
            .iter()
            .find(|scan| scan.table as usize == index)
            .ok_or_else(|| protocol("a table that is not scanned has a feed"))?;
        let types: Vec<LakeType> = scan.columns.iter().map(|c| c.ty.lake.clone()).collect();
        let schema = scan_schema(&scan.columns);
        streams.push(Some(rows_of(reader, types, schema, turn.cloned())));
    }
    Ok(streams)
}

fn rows_of(
    reader: MessageReader,
    types: Vec<LakeType>,
    schema: SchemaRef,
    turn: Option<Arc<Turn>>,
) -> Feed {
    stream::try_unfold(
        (reader, types, schema, turn),
        |(mut reader, types, schema, turn)| async move {
            let batch = lending(turn.as_deref(), reader.next_batch(&types, &schema)).await?;
            Ok(batch.map(|batch| (batch, (reader, types, schema, turn))))
        },
    )
    .boxed()
}

fn protocol(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Protocol, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_error_sends_the_backend_back_to_its_own_plan() {
        let error = WireError::new(ErrorCode::NotExact, "sum beyond 38 digits");
        assert_eq!(too_late(error.clone(), false), error);
        let late = too_late(error, true);
        assert_eq!(late.code, ErrorCode::OutOfRange);
        assert_eq!(late.detail.as_deref(), Some("sum beyond 38 digits"));
    }
}
