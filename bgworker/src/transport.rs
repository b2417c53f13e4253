//! Streams of the rings as seen from async tasks.
//!
//! [`Streams`] is the table of the streams that this process holds. The main thread passes stream
//! events to it; tasks wait in it. A [`Hold`] is the worker's hold of one stream: dropping it gives
//! the stream back, so that a stream is freed after the last access to its ring and not before,
//! however its task ends. [`MessageReader`] and [`ResultWriter`] own the hold of what they use.
//!
//! No wake-up is lost: `Notify::notify_one` leaves a permit if nobody waits yet, a stream is in the
//! table before its ring is looked at, and the ring asks for a wake-up before it says "nothing now".

use crate::convert::{WireBatch, batch_from_wire};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use pg_lake_plan::batch::MAX_BATCH_BYTES;
use pg_lake_plan::message::{ErrorCode, Reply, WireError, kind};
use pg_lake_plan::types::{LakeType, Value};
use pg_lake_ring::{
    Consumer, ErrorKind, PEER_GONE, Peek, Producer, Region, RingError, Stream, StreamRef,
    WorkerSlot,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Sets the latch of a backend by its proc number; callable from any thread.
pub type WakeProc = fn(u32);

/// Looks at a ring again even without a wake-up.
const RECHECK: Duration = Duration::from_secs(1);

/// Rows of a result message.
const RESULT_ROWS_MAX: usize = 8192;

/// The error code that a stream carries ([`Stream::fail`]) when no error message could be sent.
pub fn ring_code(code: ErrorCode) -> u32 {
    code as u32 + 1
}

/// The streams that this process holds.
pub struct Streams {
    region: Region,
    slot: WorkerSlot,
    incarnation: u64,
    wake: WakeProc,
    held: Mutex<HashMap<u32, Held>>,
    stopping: AtomicBool,
}

struct Held {
    stream: Stream,
    notify: Arc<Notify>,
    /// Fired when the backend cancels the stream.
    cancel: Option<CancellationToken>,
}

impl Streams {
    pub fn new(region: Region, slot: WorkerSlot, incarnation: u64, wake: WakeProc) -> Arc<Self> {
        Arc::new(Streams {
            region,
            slot,
            incarnation,
            wake,
            held: Mutex::new(HashMap::new()),
            stopping: AtomicBool::new(false),
        })
    }

    pub fn slot(&self) -> &WorkerSlot {
        &self.slot
    }

    /// Takes the worker's hold. A stream can be held once.
    pub fn attach(self: &Arc<Self>, reference: StreamRef) -> Result<Hold, WireError> {
        let stream = self.region.stream(reference).map_err(ring_error)?;
        if stream.worker() != self.slot.slot() {
            return Err(protocol("the stream belongs to another worker"));
        }
        let notify = Arc::new(Notify::new());
        let mut held = self.lock();
        // Our entry is removed before our hold is released: an entry is of the same generation.
        let Entry::Vacant(entry) = held.entry(reference.index) else {
            return Err(protocol("a stream was named twice"));
        };
        stream.worker_attach(self.incarnation).map_err(ring_error)?;
        entry.insert(Held {
            stream,
            notify: notify.clone(),
            cancel: None,
        });
        drop(held);
        Ok(Hold {
            streams: self.clone(),
            stream,
            notify,
        })
    }

    /// A backend did something on the stream.
    pub fn on_event(&self, index: u32) {
        // Whom it wakes may come back here: not under the lock.
        let found = self
            .lock()
            .get(&index)
            .map(|held| (held.notify.clone(), held.asked()));
        if let Some((notify, cancel)) = found {
            notify.notify_one();
            if let Some(cancel) = cancel {
                cancel.cancel();
            }
        }
    }

    /// Cancels all requests: the process is about to end.
    pub fn cancel_all(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let tokens: Vec<_> = self
            .lock()
            .values()
            .filter_map(|held| held.cancel.clone())
            .collect();
        tokens.iter().for_each(CancellationToken::cancel);
    }

    /// Streams held now.
    pub fn held(&self) -> usize {
        self.lock().len()
    }

    pub fn wake(&self, proc: u32) {
        (self.wake)(proc);
    }

    /// Wakes the backends that wait for a free stream.
    pub fn wake_stream_waiters(&self) {
        self.region.drain_stream_waiters(self.wake);
    }

    /// What a request that was cancelled ends with.
    pub fn cancelled(&self) -> WireError {
        if self.stopping.load(Ordering::Relaxed) {
            WireError::new(ErrorCode::Cancelled, "the lake worker is shutting down")
                .hint("Run the command again.")
        } else {
            WireError::new(ErrorCode::Cancelled, "the request was cancelled")
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// The token to fire, if the stream was cancelled.
    fn asked(&self) -> Option<CancellationToken> {
        self.cancel.clone().filter(|_| self.stream.is_cancelled())
    }
}

/// The worker's hold of a stream.
pub struct Hold {
    streams: Arc<Streams>,
    stream: Stream,
    notify: Arc<Notify>,
}

impl Hold {
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// From now on a cancel of the stream fires `token`; one that came before does so at once.
    pub fn cancels(&self, token: &CancellationToken) {
        if let Some(held) = self.streams.lock().get_mut(&self.stream.reference().index) {
            held.cancel = Some(token.clone());
        }
        if self.stream.is_cancelled() || self.streams.stopping.load(Ordering::Relaxed) {
            token.cancel();
        }
    }

    /// Until something happens on the stream, or for a second.
    pub async fn wait(&self) {
        if tokio::time::timeout(RECHECK, self.notify.notified())
            .await
            .is_err()
        {
            self.streams.on_event(self.stream.reference().index);
        }
    }

    /// Ends the stream with a code where no message can say more.
    pub fn fail(&self, code: u32) {
        self.stream.fail(code);
        self.wake_backend();
    }

    fn wake_backend(&self) {
        self.streams.wake(self.stream.proc());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.stream.reference().index);
        if self.stream.release_worker() {
            self.streams.wake_stream_waiters();
        }
        self.wake_backend();
    }
}

/// Reads the messages of a request or feed stream.
pub struct MessageReader {
    // Dropped before the hold that allows it.
    consumer: Consumer,
    hold: Hold,
    /// The writer is to hear that nobody reads any more.
    cancels: bool,
    limit: usize,
    message: Vec<u8>,
    kind: Option<u16>,
}

enum Step {
    Empty,
    Part,
    Message(u16),
    End,
}

/// A message of a feed.
pub enum Fed {
    Rows(RecordBatch),
    /// The partition of the rows that follow.
    Partition(Vec<Option<Value>>),
}

impl MessageReader {
    /// Messages longer than `limit` bytes are an error.
    pub fn new(hold: Hold, limit: usize) -> Result<Self, WireError> {
        Ok(MessageReader {
            consumer: hold.stream.consumer().map_err(ring_error)?,
            hold,
            cancels: false,
            limit,
            message: vec![],
            kind: None,
        })
    }

    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// The next message and its kind; `None` at the end mark.
    pub async fn next_message(&mut self) -> Result<Option<(u16, Vec<u8>)>, WireError> {
        loop {
            match self.step()? {
                Step::Part => {}
                Step::Empty => self.hold.wait().await,
                Step::Message(kind) => {
                    let message = std::mem::take(&mut self.message);
                    self.kind = None;
                    return Ok(Some((kind, message)));
                }
                Step::End if self.kind.is_none() => return Ok(None),
                Step::End => return Err(protocol("a stream ended within a message")),
            }
        }
    }

    /// The next batch of a feed, of the given types; `None` at the end mark.
    pub async fn next_batch(
        &mut self,
        types: &[LakeType],
        schema: &SchemaRef,
    ) -> Result<Option<RecordBatch>, WireError> {
        match self.next_fed(types, schema).await? {
            None => Ok(None),
            Some(Fed::Rows(batch)) => Ok(Some(batch)),
            Some(Fed::Partition(_)) => Err(protocol("rows that nobody writes have a partition")),
        }
    }

    /// What a feed of rows to write carries next; `None` at the end mark.
    pub async fn next_fed(
        &mut self,
        types: &[LakeType],
        schema: &SchemaRef,
    ) -> Result<Option<Fed>, WireError> {
        match self.next_message().await? {
            None => Ok(None),
            Some((kind::BATCH, message)) => batch_from_wire(&message, types, schema.clone())
                .map(Fed::Rows)
                .map(Some),
            Some((kind::PARTITION, message)) => pg_lake_plan::decode(&message)
                .map(|values| Some(Fed::Partition(values)))
                .map_err(|e| protocol(format!("malformed partition values: {e}"))),
            Some((other, _)) => Err(protocol(format!(
                "a feed carried a message of kind {other}"
            ))),
        }
    }

    /// Takes a frame in. What was written before a cancel is still read: a backend may let go of a
    /// feed that it has finished.
    fn step(&mut self) -> Result<Step, WireError> {
        let stream = &self.hold.stream;
        let over = stream.is_cancelled() || stream.error() != 0;
        let step = match self.consumer.try_peek().map_err(ring_error)? {
            Peek::Empty if over => return Err(self.hold.streams.cancelled()),
            Peek::Empty => return Ok(Step::Empty),
            Peek::End => return Ok(Step::End),
            Peek::Frame(frame) => {
                if self.kind.is_some_and(|kind| kind != frame.kind) {
                    return Err(protocol("a message changed its kind"));
                }
                if frame.payload.len() > self.limit - self.message.len() {
                    return Err(protocol("a message is too long"));
                }
                self.message.try_reserve(frame.payload.len()).map_err(|_| {
                    WireError::new(ErrorCode::OutOfMemory, "out of memory in a lake worker")
                })?;
                self.message.extend_from_slice(frame.payload);
                self.kind = Some(frame.kind);
                let counters = self.hold.streams.slot.counters();
                counters
                    .bytes_in
                    .fetch_add(frame.payload.len() as u64, Ordering::Relaxed);
                if frame.more {
                    Step::Part
                } else {
                    Step::Message(frame.kind)
                }
            }
        };
        if self.consumer.release().peer {
            self.hold.wake_backend();
        }
        Ok(step)
    }
}

impl Drop for MessageReader {
    /// The request goes on without this feed as a rule: a LIMIT is reached, a side of a join is empty.
    /// The hold, which goes next, wakes the backend.
    fn drop(&mut self) {
        if self.cancels {
            self.hold.stream.cancel();
        }
    }
}

/// Reads batches from a feed. Dropped, it cancels the stream: its backend needn't write any more.
pub fn feed_reader(hold: Hold) -> Result<MessageReader, WireError> {
    let mut reader = MessageReader::new(hold, MAX_BATCH_BYTES)?;
    reader.cancels = true;
    Ok(reader)
}

/// Writes the reply to a request. Dropped without [`ResultWriter::end`], it fails the stream.
pub struct ResultWriter {
    // Dropped before the hold that allows it.
    producer: Producer,
    hold: Hold,
    /// In the middle of a message.
    partial: bool,
    ended: bool,
    message: Vec<u8>,
}

impl ResultWriter {
    pub fn new(hold: Hold) -> Result<Self, WireError> {
        Ok(ResultWriter {
            producer: hold.stream.producer().map_err(ring_error)?,
            hold,
            partial: false,
            ended: false,
            message: vec![],
        })
    }

    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Sends a message, waiting for room.
    pub async fn send(&mut self, kind: u16, payload: &[u8]) -> Result<(), WireError> {
        self.send_piece(kind, payload, true).await
    }

    /// Sends a message that is in pieces.
    pub async fn send_pieces(&mut self, kind: u16, pieces: &[Bytes]) -> Result<(), WireError> {
        let Some((last, others)) = pieces.split_last() else {
            return self.send(kind, &[]).await;
        };
        for piece in others {
            self.send_piece(kind, piece, false).await?;
        }
        self.send_piece(kind, last, true).await
    }

    /// Sends a piece of a message in as many frames as it takes.
    async fn send_piece(
        &mut self,
        kind: u16,
        piece: &[u8],
        is_last: bool,
    ) -> Result<(), WireError> {
        let max = self.producer.max_payload();
        let mut rest = piece;
        loop {
            let (frame, after) = rest.split_at(rest.len().min(max));
            let more = !after.is_empty() || !is_last;
            let wake = loop {
                match self
                    .producer
                    .try_write(kind, frame, more)
                    .map_err(ring_error)?
                {
                    Some(wake) => break wake,
                    None => self.hold.wait().await,
                }
            };
            self.partial = more;
            if wake.peer {
                self.hold.wake_backend();
            }
            let counters = self.hold.streams.slot.counters();
            counters
                .bytes_out
                .fetch_add(frame.len() as u64, Ordering::Relaxed);
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }

    /// Sends rows, cut so that a few messages fit into the ring at a time.
    pub async fn send_batch(
        &mut self,
        batch: &RecordBatch,
        types: &[LakeType],
    ) -> Result<(), WireError> {
        // A frame's most is half a ring.
        let wanted = self.producer.max_payload() / 2;
        let mut message = std::mem::take(&mut self.message);
        let mut start = 0;
        let mut rows = RESULT_ROWS_MAX;
        while start < batch.num_rows() {
            rows = rows.min(batch.num_rows() - start);
            let mut wire = WireBatch::new(&batch.slice(start, rows), types)?;
            while wire.message_len() > wanted && rows > 1 {
                rows = (rows * wanted / wire.message_len()).clamp(1, rows - 1);
                wire = WireBatch::new(&batch.slice(start, rows), types)?;
            }
            wire.write(&mut message)?;
            self.send(kind::BATCH, &message).await?;
            start += rows;
        }
        self.message = message;
        let counters = self.hold.streams.slot.counters();
        counters
            .rows_out
            .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Sends the reply or the error, then the end mark.
    pub async fn end(&mut self, outcome: &Result<Reply, WireError>) -> Result<(), WireError> {
        let encoded = match outcome {
            Ok(reply) => pg_lake_plan::encode(reply).map(|m| (kind::DONE, m)),
            Err(error) => pg_lake_plan::encode(error).map(|m| (kind::ERROR, m)),
        };
        let (kind, message) = encoded.map_err(|e| {
            WireError::new(ErrorCode::Internal, "could not encode a reply").detail(e.to_string())
        })?;
        match outcome {
            // The reader is in the middle of a message that will not be completed.
            Err(error) if self.partial => self.hold.stream.fail(ring_code(error.code)),
            _ => self.send(kind, &message).await?,
        }
        self.ended = true;
        if self.producer.finish().peer || self.partial {
            self.hold.wake_backend();
        }
        Ok(())
    }
}

impl Drop for ResultWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.hold.fail(PEER_GONE);
        }
    }
}

/// What a ring error means for the request.
pub fn ring_error(error: RingError) -> WireError {
    match error.kind() {
        ErrorKind::Stale | ErrorKind::Closed | ErrorKind::PeerGone => {
            WireError::new(ErrorCode::Cancelled, "the request was cancelled")
                .detail(error.to_string())
        }
        _ => protocol(error.to_string()),
    }
}

fn protocol(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Protocol, message)
}
