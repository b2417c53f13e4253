//! Requests of the engine and of I/O workers to I/O workers: a backend's side of the rings, for async tasks.
//!
//! There are no feeds, and replies are read as whole messages. Peers wake its process by the latch; the
//! main thread passes that on to all calls ([`Client::on_wake`]), and each looks at its own streams.
//! A call that is dropped is cancelled; those of a process that ends before it can drop them are, when its next one starts.

use crate::engine::Fetcher;
use crate::placed;
use crate::transport::{WakeProc, ring_error};
use crate::turns::{Turn, Turns};
use async_trait::async_trait;
use bytes::Bytes;
use pg_lake_plan::PROTOCOL_VERSION;
use pg_lake_plan::message::{
    Envelope, ErrorCode, Fetch, Fetched, Places, Reply, Request, WireError, kind,
};
use pg_lake_plan::store::Store;
use pg_lake_ring::{Consumer, Peek, Producer, Region, Stream, StreamRef, WorkerSlot};
use std::fmt;
use std::ops::Range;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Every wait looks again that often: a worker that was killed sets no latch.
const RECHECK: Duration = Duration::from_millis(500);

/// How long a call waits for its worker and for free streams. Backends leave some to the lake processes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls of two streams each that take a quarter of all streams.
fn calls_max(region: &Region) -> usize {
    (region.layout().streams as usize / 8).max(1)
}

/// The I/O worker, numbered from 1, that has the blocks of an object in its shards of the disk cache.
pub fn owner_of(location: &str, workers: u32) -> u32 {
    owner_of_shard(pg_lake_cache::shard_of(location), workers)
}

/// The I/O worker of a shard.
pub(crate) fn owner_of_shard(shard: u32, workers: u32) -> u32 {
    1 + shard % workers.max(1)
}

/// A lake process' end of the rings to the I/O workers.
pub(crate) struct Client {
    region: Region,
    /// This process'.
    slot: WorkerSlot,
    proc: u32,
    wake: WakeProc,
    woken: Notify,
    /// What is slow takes a part of the streams at most.
    turns: Turns,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// `slot` and `proc` are this process' own. No call is made before the slot's start.
    pub(crate) fn new(region: Region, slot: WorkerSlot, proc: u32, wake: WakeProc) -> Client {
        Client {
            region,
            slot,
            proc,
            wake,
            woken: Notify::new(),
            turns: Turns::new(calls_max(&region)),
        }
    }

    /// The latch was set: something may have happened on any stream.
    pub(crate) fn on_wake(&self) {
        self.woken.notify_waiters();
    }

    /// Sends a request without feeds. What comes before the reply is passed to `part`: first those parts that have `sizes`
    /// in bytes, each of which may come in several messages.
    pub(crate) async fn call(
        &self,
        worker: u32,
        stores: &[Store],
        request: Request,
        sizes: &[u64],
        mut part: impl FnMut(u16, Vec<u8>),
    ) -> Result<Reply, WireError> {
        let (turn, patience) = match &request {
            // A file that isn't put into the cache now is read from its store later.
            Request::Adopt { .. } => (self.turns.try_take().ok_or_else(no_stream)?, Duration::ZERO),
            request => {
                let root = root_of(request, stores);
                let turn = self.turns.take(root.as_deref()).await;
                (turn.map_err(|e| protocol(&e.to_string()))?, PATIENCE)
            }
        };
        let mut call = self.open(worker, turn, patience).await?;
        let envelope = Envelope {
            version: PROTOCOL_VERSION,
            result: call.held.result.reference().to_u64(),
            crash: 0,
            stores: stores.to_vec(),
            request,
        };
        let message = pg_lake_plan::encode(&envelope).map_err(|e| {
            WireError::new(ErrorCode::Internal, "could not encode a request").detail(e.to_string())
        })?;
        let request = call.held.request.reference();
        self.region.announce(self.proc, worker, request);
        self.wake_worker(worker);
        self.send(&mut call, &message).await?;
        let mut parts = Parts::new(sizes);
        loop {
            let begins = parts.bytes.len();
            let kind = self.receive(&mut call, &mut parts).await?;
            let message = parts.bytes.get(begins..).unwrap_or_default();
            match kind {
                kind::DONE => return pg_lake_plan::decode(message).map_err(malformed),
                kind::ERROR => {
                    return Err(pg_lake_plan::decode(message).unwrap_or_else(malformed));
                }
                kind => {
                    if let Some(whole) = parts.take() {
                        part(kind, whole);
                    }
                }
            }
        }
    }

    async fn open(
        &self,
        worker: u32,
        turn: Turn,
        patience: Duration,
    ) -> Result<Call<'_>, WireError> {
        let deadline = Instant::now() + patience;
        let streams = self
            .until(|| {
                let up = self.region.worker(worker).is_some_and(|slot| slot.is_up());
                // It stays set for the other tasks that wait.
                self.region.wait_for_stream(self.proc);
                let acquire = || self.region.acquire_by(self.slot, self.proc, 2, worker);
                if up && let Some(streams) = acquire() {
                    return Ok(Some(streams));
                }
                if Instant::now() < deadline {
                    return Ok(None);
                }
                Err(if up {
                    no_stream()
                } else {
                    gone(worker, "is not running")
                })
            })
            .await?;
        let open = |index: usize| -> Result<Stream, WireError> {
            let reference = streams.get(index).copied();
            let reference = reference.ok_or_else(|| protocol("a stream is missing"))?;
            self.region.stream(reference).map_err(ring_error)
        };
        let held = Held {
            client: self,
            worker,
            request: open(0)?,
            result: open(1)?,
            _turn: turn,
        };
        Ok(Call {
            requests: held.request.producer().map_err(ring_error)?,
            results: held.result.consumer().map_err(ring_error)?,
            incarnation: held.request.incarnation(),
            held,
        })
    }

    async fn send(&self, call: &mut Call<'_>, message: &[u8]) -> Result<(), WireError> {
        let max = call.requests.max_payload();
        let mut rest = message;
        loop {
            let (frame, after) = rest.split_at(rest.len().min(max));
            let more = !after.is_empty();
            self.until(|| {
                // Room or not: a worker that has answered reads no further.
                if call.results.is_ready() {
                    return Ok(Some(false));
                }
                call.check(self)?;
                let written = call.requests.try_write(kind::REQUEST, frame, more);
                let Some(wake) = written.map_err(ring_error)? else {
                    return Ok(None);
                };
                if wake.peer {
                    self.ring(call.held.request.reference());
                }
                Ok(Some(true))
            })
            .await?;
            if !more {
                return Ok(());
            }
            rest = after;
        }
    }

    /// Appends the next message to the present part, and returns its kind.
    async fn receive(&self, call: &mut Call<'_>, parts: &mut Parts<'_>) -> Result<u16, WireError> {
        let too_large =
            |_| WireError::new(ErrorCode::OutOfMemory, "out of memory in a lake process");
        let part = &mut parts.bytes;
        let size = usize::try_from(parts.size).unwrap_or(usize::MAX);
        part.try_reserve_exact(size.saturating_sub(part.len()))
            .map_err(too_large)?;
        self.until(|| {
            loop {
                let (kind, more) = match call.results.try_peek().map_err(ring_error)? {
                    Peek::Empty => {
                        call.check(self)?;
                        return Ok(None);
                    }
                    Peek::End => return Err(protocol("a reply without an end")),
                    Peek::Frame(frame) => {
                        part.try_reserve(frame.payload.len()).map_err(too_large)?;
                        part.extend_from_slice(frame.payload);
                        (frame.kind, frame.more)
                    }
                };
                if call.results.release().peer {
                    self.ring(call.held.result.reference());
                }
                if !more {
                    return Ok(Some(kind));
                }
            }
        })
        .await
    }

    /// Looks until there is something, again whenever this process was woken.
    async fn until<T>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, WireError>,
    ) -> Result<T, WireError> {
        loop {
            let mut woken = pin!(self.woken.notified());
            // Before looking, so that no wake-up is lost.
            woken.as_mut().enable();
            if let Some(found) = look()? {
                return Ok(found);
            }
            let _ = tokio::time::timeout(RECHECK, woken).await;
        }
    }

    fn ring(&self, reference: StreamRef) {
        if let Some(worker) = self.region.ring_stream(reference) {
            self.wake_worker(worker);
        }
    }

    fn wake_worker(&self, worker: u32) {
        if let Some(proc) = self.region.worker(worker).and_then(|slot| slot.proc()) {
            (self.wake)(proc);
        }
    }

    /// The worker that has the blocks of an object.
    pub(crate) fn owner(&self, location: &str) -> Result<u32, WireError> {
        let workers = self.region.layout().workers.saturating_sub(1);
        match workers {
            0 => Err(gone(1, "is not running")),
            _ => Ok(owner_of(location, workers)),
        }
    }
}

#[async_trait]
impl Fetcher for Client {
    async fn fetch(
        &self,
        stores: &[Store],
        mut request: Fetch,
    ) -> Result<(Vec<Bytes>, Fetched), WireError> {
        if !request.places {
            return self.fetch_bytes(stores, request).await;
        }
        let places = match self.ask(stores, request.clone()).await? {
            Answer::Bytes(parts, fetched) => return Ok((parts, fetched)),
            Answer::Placed(places) => places,
        };
        let ranges: Vec<Range<u64>> = request.ranges.iter().map(|(a, b)| *a..*b).collect();
        match placed::read(places, request.size, ranges).await? {
            Some(parts) => {
                let fetched = Fetched {
                    from_cache: parts.iter().map(|part| part.len() as u64).sum(),
                    from_store: 0,
                };
                Ok((parts, fetched))
            }
            // They were given away meanwhile, or are damaged: the owner finds out.
            None => {
                request.places = false;
                self.fetch_bytes(stores, request).await
            }
        }
    }
}

/// What the owner of an object's blocks answers.
enum Answer {
    Bytes(Vec<Bytes>, Fetched),
    Placed(Places),
}

impl Client {
    async fn fetch_bytes(
        &self,
        stores: &[Store],
        request: Fetch,
    ) -> Result<(Vec<Bytes>, Fetched), WireError> {
        match self.ask(stores, request).await? {
            Answer::Bytes(parts, fetched) => Ok((parts, fetched)),
            Answer::Placed(_) => Err(other_bytes()),
        }
    }

    async fn ask(&self, stores: &[Store], request: Fetch) -> Result<Answer, WireError> {
        let worker = self.owner(&request.location)?;
        let lengths: Vec<u64> = request.ranges.iter().map(|(a, b)| b - a).collect();
        let mut parts: Vec<Bytes> = Vec::with_capacity(lengths.len());
        let reply = self
            .call(
                worker,
                stores,
                Request::Fetch(request),
                &lengths,
                |kind, message| {
                    if kind == kind::BYTES {
                        parts.push(message.into());
                    }
                },
            )
            .await?;
        let complete = parts.iter().map(|part| part.len() as u64).eq(lengths);
        match reply {
            Reply::Fetched(fetched) if complete => Ok(Answer::Bytes(parts, fetched)),
            Reply::Placed(places) if parts.is_empty() => Ok(Answer::Placed(places)),
            _ => Err(other_bytes()),
        }
    }
}

fn other_bytes() -> WireError {
    protocol("a worker sent other bytes than it was asked for")
}

/// What comes before a reply, as far as it is there.
struct Parts<'a> {
    sizes: std::slice::Iter<'a, u64>,
    /// What the present part is to have in the end.
    size: u64,
    bytes: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn new(sizes: &'a [u64]) -> Parts<'a> {
        let mut sizes = sizes.iter();
        Parts {
            size: sizes.next().copied().unwrap_or(0),
            sizes,
            bytes: vec![],
        }
    }

    /// The present part, if it is whole: the next message begins another one. Where no size is known a part is one
    /// message.
    fn take(&mut self) -> Option<Vec<u8>> {
        if (self.bytes.len() as u64) < self.size {
            return None;
        }
        self.size = self.sizes.next().copied().unwrap_or(0);
        Some(std::mem::take(&mut self.bytes))
    }
}

/// A running call.
struct Call<'a> {
    // The ends go before their streams.
    requests: Producer,
    results: Consumer,
    incarnation: u64,
    held: Held<'a>,
}

impl Call<'_> {
    fn check(&self, client: &Client) -> Result<(), WireError> {
        let slot = client.region.worker(self.held.worker);
        let lives = slot.is_some_and(|slot| slot.is_up() && slot.incarnation() == self.incarnation);
        if lives && self.held.result.error() == 0 {
            return Ok(());
        }
        Err(gone(self.held.worker, "exited while it read a data file"))
    }
}

/// The streams of a call; given back when dropped.
struct Held<'a> {
    client: &'a Client,
    worker: u32,
    request: Stream,
    result: Stream,
    _turn: Turn,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let region = &self.client.region;
        self.result.cancel();
        let mut freed = false;
        for stream in [&self.request, &self.result] {
            // The worker must hear of it while the stream is still ours.
            region.ring_stream(stream.reference());
            freed |= stream.release_backend();
        }
        if freed {
            region.drain_stream_waiters(self.client.wake);
        }
        self.client.wake_worker(self.worker);
    }
}

/// The root of the store that a request is about.
fn root_of(request: &Request, stores: &[Store]) -> Option<String> {
    let Request::Fetch(fetch) = request else {
        return None;
    };
    let store = stores.iter().find(|s| s.key(&fetch.location).is_some());
    store.map(Store::root)
}

fn no_stream() -> WireError {
    WireError::new(
        ErrorCode::OutOfMemory,
        "no stream between the lake processes is free",
    )
    .hint("Raise lake.streams.")
}

fn gone(worker: u32, what: &str) -> WireError {
    WireError::new(
        ErrorCode::StoreUnavailable,
        format!("lake worker {worker} {what}"),
    )
    .detail("It is started again automatically.")
    .hint("Retry the query. See the server log for the reason.")
}

fn malformed(error: impl fmt::Display) -> WireError {
    protocol("malformed reply").detail(error.to_string())
}

fn protocol(message: &str) -> WireError {
    WireError::new(ErrorCode::Protocol, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_from_messages() {
        let mut parts = Parts::new(&[5, 0, 2]);
        let mut whole = vec![];
        for message in ["ab", "cde", "", "f", "g", "of no known size"] {
            parts.bytes.extend_from_slice(message.as_bytes());
            whole.push(parts.take());
        }
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let expected = [
            None,
            some("abcde"),
            some(""),
            None,
            some("fg"),
            some("of no known size"),
        ];
        assert_eq!(whole, expected);
        assert!(parts.bytes.is_empty());
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod with_worker;
