//! Two processes: backends here, a worker in a child that is killed again and again.
//!
//! The loss this prevents: a worker dies in the middle of a memcpy, of a commit or of freeing a stream, and afterwards a
//! backend waits for ever, reads half a frame, or a stream is missing from the pool. `PG_LAKE_SOAK_SECONDS` lengthens
//! it, `PG_LAKE_SOAK_SEED` repeats the random choices (not the timing).
#![cfg(all(not(loom), not(miri), unix))]

mod support;

use pg_lake_ring::{
    Consumer, ErrorKind, Layout, PEER_GONE, Peek, Producer, Region, RingError, Stream, StreamRef,
};
use shared_memory::{Shmem, ShmemConf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::Random;

const LAYOUT: Layout = Layout {
    procs: 4,
    workers: 1,
    streams: 7,
    ring_bytes: 8192,
};
const CHILD: &str = "PG_LAKE_SOAK_REGION";
const OPEN: u16 = 1;
const DATA: u16 = 2;

#[derive(Default)]
struct Tally {
    completed: AtomicU64,
    lost: AtomicU64,
    aborted: AtomicU64,
    bytes: AtomicU64,
}

enum Outcome {
    Completed,
    Lost,
    Aborted,
}

#[test]
#[expect(unsafe_code, reason = "formats shared memory")]
fn a_killed_worker_loses_nothing_but_its_streams() {
    let (seed, mut random) = Random::from_env("PG_LAKE_SOAK_SEED");
    let until = Instant::now() + support::seconds("PG_LAKE_SOAK_SECONDS", 5);
    let size = LAYOUT.size().expect("a valid layout");
    let memory = ShmemConf::new().size(size).create().expect("shared memory");
    // SAFETY: a fresh, page-aligned, zeroed mapping of at least `size` bytes, which lives to the end of this function.
    let region = unsafe { Region::init(memory.as_ptr(), memory.len(), &LAYOUT) }.expect("a region");
    let (stop, tally) = (AtomicBool::new(false), Tally::default());
    let mut kills = 0;

    std::thread::scope(|scope| {
        let backends: Vec<_> = (0..LAYOUT.procs)
            .map(|proc| {
                let (stop, tally) = (&stop, &tally);
                let mut random = Random::new(seed ^ ((u64::from(proc) + 1) << 32));
                scope.spawn(move || backend(region, proc, &mut random, stop, tally))
            })
            .collect();
        while Instant::now() < until && !backends.iter().any(|backend| backend.is_finished()) {
            let mut child = spawn_worker(&memory);
            std::thread::sleep(Duration::from_micros(20_000 + random.below(150_000)));
            let ended = child.try_wait().expect("a child to look at");
            child.kill().expect("SIGKILL");
            child.wait().expect("a child to reap");
            if let Some(status) = ended {
                stop.store(true, Ordering::Relaxed);
                panic!("the worker ended by itself: {status}");
            }
            kills += 1;
        }
        stop.store(true, Ordering::Relaxed);
        for backend in backends {
            backend.join().expect("no panic in a backend");
        }
    });

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (completed, lost) = (count(&tally.completed), count(&tally.lost));
    println!(
        "{kills} kills, {completed} exchanges completed, {lost} lost, {} aborted, {} bytes checked",
        count(&tally.aborted),
        count(&tally.bytes)
    );
    let worker = region.worker(0).expect("slot 0");
    worker.start(std::process::id(), 0);
    assert_eq!(
        region.free_streams(),
        LAYOUT.streams,
        "every stream is free"
    );
    let all = region
        .acquire(0, LAYOUT.streams as usize, 0)
        .expect("and in the list");
    assert_eq!(
        all.iter()
            .map(|stream| stream.index)
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        all.len()
    );
    assert!(completed > 0 && kills > 1, "something happened");
}

fn spawn_worker(memory: &Shmem) -> Child {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["the_worker_process", "--exact", "--nocapture"])
        .env(CHILD, memory.get_os_id())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a child")
}

/// Exchanges with the worker until told to stop. More backends than pairs of streams: some have to wait.
fn backend(region: Region, proc: u32, random: &mut Random, stop: &AtomicBool, tally: &Tally) {
    while !stop.load(Ordering::Relaxed) {
        let mut streams = region.acquire(proc, 2, 0);
        if streams.is_none() {
            region.wait_for_stream(proc);
            streams = region.acquire(proc, 2, 0);
        }
        let Some(streams) = streams else {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        };
        region.stop_waiting(proc);
        let feed = region.stream(streams[0]).expect("held");
        let result = region.stream(streams[1]).expect("held");
        let counter = match exchange(region, feed, result, random, stop, tally) {
            Ok(Outcome::Completed) => &tally.completed,
            Ok(Outcome::Aborted) => &tally.aborted,
            Ok(Outcome::Lost) => &tally.lost,
            Err(error) if error.kind() == ErrorKind::PeerGone => &tally.lost,
            Err(error) => panic!("backend {proc}: {error}"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // Both, whatever the first says.
        if feed.release_backend() | result.release_backend() {
            region.drain_stream_waiters(|_| ());
        }
        region.ring_stream(feed.reference());
        region.ring_stream(result.reference());
    }
}

fn exchange(
    region: Region,
    feed: Stream,
    result: Stream,
    random: &mut Random,
    stop: &AtomicBool,
    tally: &Tally,
) -> Result<Outcome, RingError> {
    let mut producer = feed.producer()?;
    let mut consumer = result.consumer()?;
    let opened = producer.try_write(OPEN, &result.reference().to_u64().to_ne_bytes(), false)?;
    assert!(opened.is_some(), "a new ring is empty");
    region.announce(feed.proc(), 0, feed.reference());
    let frames = 1 + random.below(200);
    let abort_after = if random.below(5) == 0 {
        random.below(frames)
    } else {
        u64::MAX
    };
    let (mut sent, mut received) = (0, 0);
    let mut payload = Vec::new();
    loop {
        if stop.load(Ordering::Relaxed) || received >= abort_after {
            return Ok(Outcome::Aborted);
        }
        if feed.error() == PEER_GONE || result.error() == PEER_GONE {
            return Ok(Outcome::Lost);
        }
        let mut idle = true;
        if sent < frames {
            fill(&mut payload, feed.reference(), sent);
            if let Some(wake) = producer.try_write(DATA, &payload, sent % 2 == 0)? {
                sent += 1;
                idle = false;
                if wake.peer {
                    region.ring_stream(feed.reference());
                }
                if sent == frames && producer.finish().peer {
                    region.ring_stream(feed.reference());
                }
            }
        }
        match consumer.try_peek()? {
            Peek::Empty => {}
            Peek::End => {
                assert_eq!(received, frames, "the end came early");
                return Ok(Outcome::Completed);
            }
            Peek::Frame(frame) => {
                fill(&mut payload, feed.reference(), received);
                invert(&mut payload);
                assert_eq!((frame.kind, frame.more), (DATA, received % 2 == 0));
                assert!(
                    frame.payload == payload,
                    "frame {received} is not what was sent"
                );
                tally
                    .bytes
                    .fetch_add(payload.len() as u64, Ordering::Relaxed);
                received += 1;
                idle = false;
                if consumer.release().peer {
                    region.ring_stream(result.reference());
                }
            }
        }
        if idle {
            std::thread::yield_now();
        }
    }
}

/// 8 bytes of checksum, then bytes that depend on the stream's use and the frame's number.
fn fill(payload: &mut Vec<u8>, stream: StreamRef, frame: u64) {
    let mut random = Random::new(stream.to_u64() ^ frame.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let len = 8 + random.below(3_000) as usize;
    payload.clear();
    payload.resize(len, 0);
    for chunk in payload[8..].chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_ne_bytes()[..chunk.len()]);
    }
    seal(payload);
}

fn invert(payload: &mut [u8]) {
    payload[8..].iter_mut().for_each(|byte| *byte = !*byte);
    seal(payload);
}

fn seal(payload: &mut [u8]) {
    let sum = checksum(&payload[8..]);
    payload[..8].copy_from_slice(&sum.to_ne_bytes());
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Not a test of its own: the child that the parent starts, and kills.
#[test]
#[expect(unsafe_code, reason = "attaches to shared memory")]
fn the_worker_process() {
    let Ok(id) = std::env::var(CHILD) else { return };
    let memory = ShmemConf::new()
        .os_id(id)
        .open()
        .expect("the parent's memory");
    // SAFETY: the parent formatted it; it stays mapped until this process is killed.
    let region = unsafe { Region::attach(memory.as_ptr(), memory.len()) }.expect("a region");
    let parent = std::os::unix::process::parent_id();
    let worker = region.worker(0).expect("slot 0");
    let incarnation = worker.start(std::process::id(), 0);
    region.drain_stream_waiters(|_| ());
    let mut tasks: Vec<Task> = Vec::new();
    while std::os::unix::process::parent_id() == parent {
        worker.take_requests(|_, feed| tasks.extend(Task::open(region, feed, incarnation)));
        worker.take_stream_events(|_| ());
        let mut idle = true;
        tasks.retain_mut(|task| {
            match task.step() {
                Ok(Step::Idle) => true,
                Ok(Step::Moved) => {
                    idle = false;
                    true
                }
                Ok(Step::Done) => false,
                // The backend let go in the middle.
                Err(error) if error.kind() == ErrorKind::Closed => false,
                Err(error) => panic!("worker: {error}"),
            }
        });
        if idle {
            std::thread::yield_now();
        }
    }
}

enum Step {
    Idle,
    Moved,
    Done,
}

/// Sends back what it gets, inverted.
struct Task {
    region: Region,
    // Options, so that the ends are given back before the holds are.
    feed: Option<Consumer>,
    result: Option<Producer>,
    feed_stream: Stream,
    result_stream: Option<Stream>,
}

impl Task {
    /// `None` if the backend has let go of either stream already.
    fn open(region: Region, feed: StreamRef, incarnation: u64) -> Option<Task> {
        let feed_stream = region.stream(feed).ok()?;
        feed_stream.worker_attach(incarnation).ok()?;
        // From here on the drop of `task` releases.
        let mut task = Task {
            region,
            feed: None,
            result: None,
            feed_stream,
            result_stream: None,
        };
        let mut feed = feed_stream.consumer().expect("the only consumer");
        let result = match feed.try_peek().expect("written before it was announced") {
            Peek::Frame(frame) if frame.kind == OPEN => {
                u64::from_ne_bytes(frame.payload.try_into().expect("8 bytes"))
            }
            other => panic!("not a request: {other:?}"),
        };
        let _ = feed.release();
        task.feed = Some(feed);
        let result_stream = region.stream(StreamRef::from_u64(result)).ok()?;
        result_stream.worker_attach(incarnation).ok()?;
        task.result_stream = Some(result_stream);
        task.result = Some(result_stream.producer().expect("the only producer"));
        Some(task)
    }

    fn step(&mut self) -> Result<Step, RingError> {
        let (Some(feed), Some(result)) = (&mut self.feed, &mut self.result) else {
            return Ok(Step::Done);
        };
        if self.feed_stream.is_cancelled() {
            return Ok(Step::Done);
        }
        match feed.try_peek()? {
            Peek::Empty => return Ok(Step::Idle),
            Peek::End => {
                let _ = result.finish();
                return Ok(Step::Done);
            }
            Peek::Frame(frame) => {
                let Some(room) = result.try_reserve(frame.payload.len())? else {
                    return Ok(Step::Idle);
                };
                room.copy_from_slice(frame.payload);
                assert_eq!(
                    room[..8],
                    checksum(&room[8..]).to_ne_bytes(),
                    "checksum of a feed's frame"
                );
                invert(room);
                let _ = result.commit(frame.payload.len(), frame.kind, frame.more);
            }
        }
        let _ = feed.release();
        Ok(Step::Moved)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.feed = None;
        self.result = None;
        let freed = self.feed_stream.release_worker();
        if self
            .result_stream
            .is_some_and(|stream| stream.release_worker())
            || freed
        {
            self.region.drain_stream_waiters(|_| ());
        }
    }
}
