//! One request from a backend: streams, the request message, feeds, the reply.
//!
//! A [`Call`] belongs to a resource owner, so that any error, LIMIT or aborted portal gives its
//! streams back. Every wait is on the process latch and serves interrupts. [`feeding`] fills its feeds.

mod feeding;

pub use feeding::{Outgoing, Sent};

use crate::catalog::tablespace;
use crate::error;
use crate::guc;
use crate::ring::region;
use pg_lake_plan::message::{Envelope, ErrorCode, Reply, Request, StreamId, WireError, kind};
use pg_lake_plan::store::Store;
use pg_lake_ring::{
    Consumer, ErrorKind, Peek, Producer, Region, RingError, Stream, StreamRef, Wake,
};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

struct Description(pg_sys::ResourceOwnerDesc);
// SAFETY: constant; its name is a constant too.
unsafe impl Sync for Description {}

static RESOURCE: Description = Description(pg_sys::ResourceOwnerDesc {
    name: c"pg_lake call".as_ptr(),
    release_phase: pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_BEFORE_LOCKS,
    release_priority: 650,
    ReleaseResource: Some(release_resource),
    DebugPrint: None,
});

thread_local! {
    /// The calls that no resource owner has released yet.
    static LIVE: RefCell<Vec<*mut Inner>> = const { RefCell::new(vec![]) };
}

/// How long a backend spins for the first reply before it sleeps on its latch. A longer spin costs a
/// busy machine more than it gains.
const FIRST_REPLY_SPIN: Duration = Duration::from_micros(20);

/// A fallback: every wait looks at the worker's incarnation that often.
const RECHECK: Duration = Duration::from_millis(500);

unsafe extern "C-unwind" fn release_resource(resource: pg_sys::Datum) {
    let raw = resource.cast_mut_ptr::<Inner>();
    LIVE.with_borrow_mut(|live| live.retain(|p| *p != raw));
    // SAFETY: remembered by `Call::start` with a pointer from `Box::into_raw`.
    drop(unsafe { Box::from_raw(raw) });
}

/// A message from the worker.
pub enum Message {
    Batch(Vec<u8>),
    Done(Reply),
    Error(WireError),
}

struct Inner {
    // The ends come before their streams: fields are dropped in this order, and an end has to go
    // before its stream is released.
    requests: Producer,
    results: Consumer,
    feed_ends: Vec<Producer>,
    held: Held,
    worker: u32,
    incarnation: u64,
    queued: VecDeque<Message>,
    partial: Vec<u8>,
    ended: bool,
    replied: bool,
    owner: pg_sys::ResourceOwner,
}

impl Inner {
    /// Writes one frame of a message to the request stream or to a feed, and says how much of it that
    /// was; `None`: the ring is full, and the worker will wake us when it has room.
    fn try_frame(
        &mut self,
        feed: Option<usize>,
        kind: u16,
        rest: &[u8],
    ) -> Result<Option<usize>, RingError> {
        let (producer, stream) = match feed {
            None => (&mut self.requests, &self.held.request),
            Some(i) => (&mut self.feed_ends[i], &self.held.feeds[i]),
        };
        let (piece, more) = rest.split_at(rest.len().min(producer.max_payload()));
        let Some(Wake { peer }) = producer.try_write(kind, piece, !more.is_empty())? else {
            return Ok(None);
        };
        let region = region();
        if peer && region.ring_stream(stream.reference()).is_some() {
            wake_worker(&region, self.worker);
        }
        Ok(Some(piece.len()))
    }
}

/// A running request.
pub struct Call(*mut Inner);

/// The streams of a call; gives them back when dropped.
struct Held {
    worker: u32,
    request: Stream,
    result: Stream,
    feeds: Vec<Stream>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let region = region();
        self.result.cancel();
        let mut freed = false;
        for stream in [&self.request, &self.result]
            .into_iter()
            .chain(self.feeds.iter())
        {
            // The worker must hear of it while the stream is still ours.
            region.ring_stream(stream.reference());
            freed |= stream.release_backend();
        }
        if freed {
            region.drain_stream_waiters(crate::pg::latch::wake);
        }
        wake_worker(&region, self.worker);
    }
}

fn wake_worker(region: &Region, worker: u32) {
    if let Some(proc) = region.worker(worker).and_then(|slot| slot.proc()) {
        crate::pg::latch::wake(proc);
    }
}

/// Waits for the latch at most that long and serves interrupts.
fn wait(timeout: Duration) {
    // SAFETY: the process latch on the main thread.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            timeout.as_millis() as _,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    crate::pg::check_for_interrupts();
}

fn ring_error(e: RingError) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        &format!("pg_lake ring: {e}"),
        None,
        None,
    )
}

fn worker_name(worker: u32) -> String {
    if worker == super::ENGINE {
        "lake engine".to_owned()
    } else {
        format!("lake worker {worker}")
    }
}

/// Takes `n` streams, waiting for them up to `lake.stream_timeout`.
fn acquire(region: &Region, worker: u32, n: usize) -> Vec<StreamRef> {
    let proc = crate::pg::my_proc();
    let deadline = Instant::now() + Duration::from_millis(guc::stream_timeout_ms());
    let leave = left_to_workers(region);
    if n + leave > region.layout().streams as usize {
        no_streams(n);
    }
    loop {
        let up = region.worker(worker).is_some_and(|slot| slot.is_up());
        if up && let Some(streams) = region.acquire_leaving(proc, n, leave, worker) {
            return streams;
        }
        region.wait_for_stream(proc);
        if up && let Some(streams) = region.acquire_leaving(proc, n, leave, worker) {
            region.stop_waiting(proc);
            return streams;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            region.stop_waiting(proc);
            if up {
                no_streams(n);
            }
            error::raise(
                PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW,
                &format!("{} is not running", worker_name(worker)),
                Some("It is started again automatically after an error."),
                Some("See the server log for the reason, and check max_worker_processes."),
            );
        }
        // A worker that starts up sets no latch of ours.
        wait(left.min(if up {
            RECHECK
        } else {
            Duration::from_millis(20)
        }));
    }
}

/// The most feeds that a request can have.
pub fn feeds_max() -> usize {
    let region = region();
    let streams = region.layout().streams as usize;
    streams.saturating_sub(left_to_workers(&region) + 2)
}

/// Streams that backends leave to the lake processes' requests to each other, which serve theirs.
fn left_to_workers(region: &Region) -> usize {
    (region.layout().streams as usize / 8).clamp(2, 16)
}

fn no_streams(n: usize) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES,
        "no stream to the lake workers is free",
        Some(&format!(
            "The request needs {n} of lake.streams = {} streams; waited {} ms.",
            guc::streams(),
            guc::stream_timeout_ms()
        )),
        Some(
            "Raise lake.streams, close cursors that are still open, or raise lake.stream_timeout.",
        ),
    )
}

impl Call {
    /// Takes streams for the request, its result and `feeds` feeds and sends the request that
    /// `make` builds from the feeds' ids.
    pub fn start(worker: u32, feeds: usize, make: impl FnOnce(&[StreamId]) -> Request) -> Call {
        Call::with_stores(worker, feeds, |feeds| {
            let request = make(feeds);
            (tablespace::stores_of(&request), request)
        })
    }

    /// The same where `make` says, too, which stores the request is about.
    fn with_stores(
        worker: u32,
        feeds: usize,
        make: impl FnOnce(&[StreamId]) -> (Vec<Store>, Request),
    ) -> Call {
        let region = region();
        let refs = acquire(&region, worker, 2 + feeds);
        let mut streams = refs
            .iter()
            .map(|r| region.stream(*r))
            .collect::<Result<Vec<_>, _>>()
            .unwrap_or_else(|e| ring_error(e));
        let feed_streams = streams.split_off(2);
        let (Some(result), Some(request)) = (streams.pop(), streams.pop()) else {
            ring_error_missing()
        };
        let opened = (|| {
            Ok(Inner {
                requests: request.producer()?,
                results: result.consumer()?,
                feed_ends: feed_streams
                    .iter()
                    .map(Stream::producer)
                    .collect::<Result<_, _>>()?,
                worker,
                incarnation: request.incarnation(),
                held: Held {
                    worker,
                    request,
                    result,
                    feeds: feed_streams,
                },
                queued: VecDeque::new(),
                partial: vec![],
                ended: false,
                replied: false,
                // SAFETY: the current owner of this backend.
                owner: unsafe { pg_sys::CurrentResourceOwner },
            })
        })();
        let inner: Inner = opened.unwrap_or_else(|e| ring_error(e));
        let reference = inner.held.request.reference();
        let (stores, request) = make(
            &inner
                .held
                .feeds
                .iter()
                .map(|f| f.reference().to_u64())
                .collect::<Vec<_>>(),
        );
        let envelope = Envelope {
            version: pg_lake_plan::PROTOCOL_VERSION,
            result: inner.held.result.reference().to_u64(),
            crash: pg_lake_crash::armed(),
            stores,
            request,
        };
        let owner = inner.owner;
        let raw = Box::into_raw(Box::new(inner));
        LIVE.with_borrow_mut(|live| live.push(raw));
        // SAFETY: enlarged first, so that remembering can't fail.
        unsafe {
            pg_sys::ResourceOwnerEnlarge(owner);
            pg_sys::ResourceOwnerRemember(owner, pg_sys::Datum::from(raw), &RESOURCE.0);
        }
        let mut call = Call(raw);
        let bytes = pg_lake_plan::encode(&envelope).unwrap_or_else(|e| {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                &format!("could not encode a request: {e}"),
                None,
                None,
            )
        });
        region.announce(crate::pg::my_proc(), worker, reference);
        wake_worker(&region, worker);
        call.write(None, kind::REQUEST, &bytes);
        call
    }

    #[allow(clippy::mut_from_ref)]
    fn inner<'a>(&self) -> &'a mut Inner {
        if !LIVE.with_borrow(|live| live.contains(&self.0)) {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "the request ended with the transaction that made it",
                None,
                None,
            );
        }
        // SAFETY: it is live, and a `Call` is used by this thread only, one method at a time.
        unsafe { &mut *self.0 }
    }

    /// Writes a message to the request stream or to a feed. Returns false if the worker has
    /// already ended the request, or reads the feed no more: its reply says why.
    fn write(&mut self, feed: Option<usize>, kind: u16, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        loop {
            let inner = self.inner();
            if inner.ended {
                return false;
            }
            match inner.try_frame(feed, kind, rest) {
                Ok(Some(written)) => {
                    rest = &rest[written..];
                    if rest.is_empty() {
                        return true;
                    }
                }
                Ok(None) => {
                    // The worker may be waiting for us to take results.
                    if self.pull() && self.inner().ended {
                        return false;
                    }
                    self.check_peer();
                    wait(RECHECK);
                }
                Err(e) => {
                    self.left(feed, e);
                    return false;
                }
            }
        }
    }

    /// Returns if a write failed as the request has ended, or as nobody reads the feed any more.
    fn left(&mut self, feed: Option<usize>, e: RingError) {
        self.pull();
        let unread = feed.is_some() && e.kind() == ErrorKind::Closed;
        if unread || self.inner().ended {
            return;
        }
        self.check_peer();
        ring_error(e)
    }

    /// Moves what has arrived to the queue; whether anything had.
    fn pull(&mut self) -> bool {
        let region = region();
        let inner = self.inner();
        let mut any = false;
        while !inner.ended {
            let (kind, more) = match inner.results.try_peek() {
                Ok(Peek::Frame(frame)) => {
                    inner.partial.extend_from_slice(frame.payload);
                    (frame.kind, frame.more)
                }
                Ok(Peek::Empty) => break,
                Ok(Peek::End) => {
                    inner.ended = true;
                    break;
                }
                Err(e) => ring_error(e),
            };
            any = true;
            let Wake { peer } = inner.results.release();
            if peer && region.ring_stream(inner.held.result.reference()).is_some() {
                wake_worker(&region, inner.worker);
            }
            if more {
                continue;
            }
            let bytes = std::mem::take(&mut inner.partial);
            let message = match kind {
                kind::BATCH => Message::Batch(bytes),
                kind::DONE => match pg_lake_plan::decode(&bytes) {
                    Ok(reply) => Message::Done(reply),
                    Err(e) => Message::Error(protocol(&e.to_string())),
                },
                kind::ERROR => match pg_lake_plan::decode(&bytes) {
                    Ok(error) => Message::Error(error),
                    Err(e) => Message::Error(protocol(&e.to_string())),
                },
                other => Message::Error(protocol(&format!("frame of kind {other}"))),
            };
            inner.ended = !matches!(message, Message::Batch(_));
            let batch = matches!(message, Message::Batch(_));
            inner.queued.push_back(message);
            if batch {
                break; // one batch at a time: the ring being full is the flow control
            }
        }
        any
    }

    /// Raises an error if the process that serves this request is gone.
    fn check_peer(&self) {
        let inner = self.inner();
        let gone = inner.held.result.error() != 0
            || !region()
                .worker(inner.worker)
                .is_some_and(|slot| slot.is_up() && slot.incarnation() == inner.incarnation);
        if gone {
            error::raise(
                PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
                &format!(
                    "{} exited while it served this query",
                    worker_name(inner.worker)
                ),
                Some("It is started again automatically."),
                Some("Retry the query. See the server log for the reason."),
            );
        }
    }

    /// The next message; waits for it.
    pub fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.poll() {
                return message;
            }
            self.wait();
        }
    }

    /// The next message, if it has arrived.
    pub fn poll(&mut self) -> Option<Message> {
        if self.inner().queued.is_empty() {
            if self.inner().ended {
                return Some(Message::Error(protocol("the reply had ended")));
            }
            self.pull();
        }
        let inner = self.inner();
        match inner.queued.pop_front() {
            None if inner.ended => Some(Message::Error(protocol("the reply ended early"))),
            message => message,
        }
    }

    /// Waits until the worker has done something: a message has come, a feed has room. Whoever calls it
    /// has just looked at all that it waits for.
    pub fn wait(&self) {
        self.check_peer();
        if !self.spin() {
            wait(RECHECK);
        }
    }

    /// Whether the first reply came within a short spin.
    fn spin(&self) -> bool {
        let inner = self.inner();
        if std::mem::replace(&mut inner.replied, true) {
            return false;
        }
        let start = Instant::now();
        while start.elapsed() < FIRST_REPLY_SPIN {
            if inner.results.is_ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Waits for the end of a request that returns no batches; errors are raised.
    pub fn reply(mut self) -> Reply {
        let reply = loop {
            match self.next() {
                Message::Batch(_) => {}
                Message::Done(reply) => break reply,
                Message::Error(e) => error::raise_wire(&e),
            }
        };
        self.finish();
        reply
    }

    /// Rows that the engine has read from files for this request, as far as it has said. To be asked once something
    /// of its reply has come.
    pub fn rows_cold(&self) -> u64 {
        if !LIVE.with_borrow(|live| live.contains(&self.0)) {
            return 0; // its resource owner was faster
        }
        let request = self.inner().held.request.reference();
        let last = region().last_reported(request);
        last.map_or(0, |progress| progress.rows_cold)
    }

    /// Gives the streams back.
    pub fn finish(self) {
        if !LIVE.with_borrow(|live| live.contains(&self.0)) {
            return; // its resource owner was faster
        }
        LIVE.with_borrow_mut(|live| live.retain(|p| *p != self.0));
        // SAFETY: remembered at the start, not released since: `finish` consumes the call.
        unsafe {
            pg_sys::ResourceOwnerForget((*self.0).owner, pg_sys::Datum::from(self.0), &RESOURCE.0);
            drop(Box::from_raw(self.0));
        }
    }
}

fn ring_error_missing() -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        "pg_lake ring: streams are missing",
        None,
        None,
    )
}

fn protocol(what: &str) -> WireError {
    WireError::new(
        ErrorCode::Protocol,
        format!("unexpected reply of a lake process: {what}"),
    )
}

/// A request to one of the I/O workers that takes no feed.
pub fn ask(request: Request) -> Reply {
    ask_worker(pick_worker(), request)
}

/// A request to a certain one.
pub fn ask_worker(worker: u32, request: Request) -> Reply {
    Call::start(worker, 0, |_| request).reply()
}

/// Tries a store out, which needn't be a tablespace's.
pub fn probe(store: &Store) -> Reply {
    Call::with_stores(pick_worker(), 0, |_| {
        let root = store.root();
        (vec![store.clone()], Request::Probe { root })
    })
    .reply()
}

/// An I/O worker: backends are spread over them by their proc number.
pub fn pick_worker() -> u32 {
    1 + crate::pg::my_proc() % guc::workers()
}
