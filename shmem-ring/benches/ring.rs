//! What a stream costs, beside a Unix-domain socket and a plain memcpy, in the same run. One JSON line a number.
//!
//! Two processes: this one is the backend; it starts itself again as the worker. Medians of interleaved rounds.
#![expect(unsafe_code, reason = "shared memory and futexes")]

use pg_lake_ring::{Consumer, Layout, Peek, Producer, Region, Stream, StreamRef};
use shared_memory::ShmemConf;
use std::hint::{black_box, spin_loop};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MODE: &str = "PG_LAKE_RING_BENCH";
const REGION: &str = "PG_LAKE_RING_BENCH_REGION";
const STREAMS: &str = "PG_LAKE_RING_BENCH_STREAMS";
const SOCKET: &str = "PG_LAKE_RING_BENCH_SOCKET";
const LAYOUT: Layout = Layout {
    procs: 1,
    workers: 1,
    streams: 2,
    ring_bytes: 8 << 20,
};
const ROUNDS: usize = 5;
const TRIPS: usize = 20_000;
const MESSAGE: usize = 64;
const FRAME: usize = 1 << 20;
const FRAMES: usize = 1024;

fn main() {
    match std::env::var(MODE) {
        Ok(mode) => child(&mode),
        Err(_) => parent(),
    }
}

/// A latch in shared memory: set and sleep, as Postgres' latches do it with signals.
#[derive(Clone, Copy)]
struct Latch(&'static AtomicU32);

impl Latch {
    fn set(self) {
        if self.0.swap(1, Ordering::SeqCst) == 0 {
            // SAFETY: a valid, aligned word; FUTEX_WAKE doesn't look at the other arguments.
            unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), libc::FUTEX_WAKE, 1) };
        }
    }

    fn wait(self) {
        while self.0.swap(0, Ordering::SeqCst) == 0 {
            // SAFETY: a valid, aligned word; a null time-out means none.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.0.as_ptr(),
                    libc::FUTEX_WAIT,
                    0,
                    std::ptr::null::<libc::timespec>(),
                )
            };
        }
    }
}

/// How an end waits for the other.
#[derive(Clone, Copy, PartialEq)]
enum Waiting {
    Spin,
    Sleep,
    SpinThenSleep,
    /// As a backend waits for its first reply: 20 µs at most, then on its latch.
    BriefThenSleep,
}

/// One end of the two streams, with its latch and the other's.
struct Side {
    producer: Producer,
    consumer: Consumer,
    mine: Latch,
    theirs: Latch,
    waiting: Waiting,
}

impl Side {
    fn send(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) {
        let mut fill = Some(fill);
        loop {
            self.spin_until(|side| side.producer.has_room(len));
            if let Some(room) = self.producer.try_reserve(len).expect("open") {
                if let Some(fill) = fill.take() {
                    fill(room);
                }
                break;
            }
            self.sleep();
        }
        if self.producer.commit(len, 1, false).peer {
            self.theirs.set();
        }
    }

    /// False at the end.
    fn receive(&mut self, read: impl FnOnce(&[u8])) -> bool {
        loop {
            self.spin_until(|side| side.consumer.is_ready());
            match self.consumer.try_peek().expect("valid") {
                Peek::Frame(frame) => {
                    read(frame.payload);
                    break;
                }
                Peek::End => return false,
                Peek::Empty => {}
            }
            self.sleep();
        }
        if self.consumer.release().peer {
            self.theirs.set();
        }
        true
    }

    fn spin_until(&mut self, ready: impl Fn(&mut Side) -> bool) {
        let limit = match self.waiting {
            Waiting::Spin => u32::MAX,
            Waiting::Sleep => 0,
            Waiting::SpinThenSleep => 2_000,
            Waiting::BriefThenSleep => {
                let start = Instant::now();
                while start.elapsed() < Duration::from_micros(20) {
                    if ready(self) {
                        return;
                    }
                    spin_loop();
                }
                0
            }
        };
        for turn in 0..limit {
            if ready(self) {
                return;
            }
            spin_loop();
            if turn % 4_096 == 4_095 {
                std::thread::yield_now();
            }
        }
    }

    fn sleep(&self) {
        if self.waiting != Waiting::Spin {
            self.mine.wait();
        }
    }
}

/// Maps nothing: finds latches behind the region's bytes.
fn latches(base: *mut u8) -> [Latch; 2] {
    let size = LAYOUT.size().expect("a valid layout");
    // SAFETY: the mapping is 128 bytes longer than the region, zeroed at first, and lives as long as the process.
    [0, 64].map(|offset| Latch(unsafe { AtomicU32::from_ptr(base.add(size + offset).cast()) }))
}

fn child(mode: &str) {
    if mode.ends_with("socket") {
        let mut socket = UnixStream::connect(std::env::var(SOCKET).expect("a path"))
            .expect("the parent listens");
        if mode == "echo_socket" {
            let mut message = [0; MESSAGE];
            while socket.read_exact(&mut message).is_ok() {
                socket.write_all(&message).expect("the parent reads");
            }
        } else {
            let source = vec![1_u8; FRAME];
            for _ in 0..FRAMES {
                socket.write_all(&source).expect("the parent reads");
            }
        }
        return;
    }
    let memory = ShmemConf::new()
        .os_id(std::env::var(REGION).expect("an id"))
        .open()
        .expect("the parent's memory");
    // SAFETY: the parent formatted it; it stays mapped until this function's end.
    let region = unsafe { Region::attach(memory.as_ptr(), memory.len()) }.expect("a region");
    let streams: Vec<Stream> = std::env::var(STREAMS)
        .expect("two numbers")
        .split(',')
        .map(|text| {
            region
                .stream(StreamRef::from_u64(text.parse().expect("a number")))
                .expect("held")
        })
        .collect();
    for stream in &streams {
        stream
            .worker_attach(stream.incarnation())
            .expect("attached");
    }
    let [backend, worker] = latches(memory.as_ptr());
    let mut side = Side {
        producer: streams[1].producer().expect("the only one"),
        consumer: streams[0].consumer().expect("the only one"),
        mine: worker,
        theirs: backend,
        // A worker never spins for requests.
        waiting: match waiting(mode) {
            Waiting::BriefThenSleep => Waiting::Sleep,
            other => other,
        },
    };
    if mode == "pump" {
        let source = vec![1_u8; FRAME];
        for _ in 0..FRAMES {
            side.send(FRAME, |room| room.copy_from_slice(&source));
        }
    } else {
        let mut message = [0; MESSAGE];
        while side.receive(|payload| message.copy_from_slice(payload)) {
            side.send(MESSAGE, |room| room.copy_from_slice(&message));
        }
    }
    if side.producer.finish().peer {
        side.theirs.set();
    }
    drop(side);
    for stream in streams {
        stream.release_worker();
    }
}

fn waiting(mode: &str) -> Waiting {
    match mode {
        "echo_spin" => Waiting::Spin,
        "echo_futex" => Waiting::Sleep,
        "echo_latch" => Waiting::BriefThenSleep,
        _ => Waiting::SpinThenSleep,
    }
}

fn start(mode: &str, variables: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .env(MODE, mode)
        .envs(variables.iter().copied())
        .spawn()
        .expect("a child")
}

/// A region, two streams, a child at the other end.
fn over_rings<T>(mode: &str, run: impl FnOnce(&mut Side) -> T) -> T {
    let size = LAYOUT.size().expect("a valid layout");
    let memory = ShmemConf::new()
        .size(size + 128)
        .create()
        .expect("shared memory");
    // SAFETY: a fresh, page-aligned, zeroed mapping, which lives to the end of this function.
    let region = unsafe { Region::init(memory.as_ptr(), size, &LAYOUT) }.expect("a region");
    region.worker(0).expect("slot 0").start(1, 0);
    let references = region.acquire(0, 2, 0).expect("two streams");
    let streams: Vec<Stream> = references
        .iter()
        .map(|stream| region.stream(*stream).expect("held"))
        .collect();
    let [backend, worker] = latches(memory.as_ptr());
    let mut side = Side {
        producer: streams[0].producer().expect("the only one"),
        consumer: streams[1].consumer().expect("the only one"),
        mine: backend,
        theirs: worker,
        waiting: waiting(mode),
    };
    let numbers = format!("{},{}", references[0].to_u64(), references[1].to_u64());
    let mut child = start(
        mode,
        &[(REGION, memory.get_os_id()), (STREAMS, numbers.as_str())],
    );
    let result = run(&mut side);
    if side.producer.finish().peer {
        side.theirs.set();
    }
    assert!(child.wait().expect("a child").success());
    result
}

fn over_socket<T>(mode: &str, run: impl FnOnce(&mut UnixStream) -> T) -> T {
    let path = std::env::temp_dir().join(format!("pg_lake_ring.{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a socket");
    let mut child = start(mode, &[(SOCKET, path.to_str().expect("a plain path"))]);
    let (mut socket, _) = listener.accept().expect("the child connects");
    let result = run(&mut socket);
    drop(socket);
    let _ = std::fs::remove_file(&path);
    assert!(child.wait().expect("a child").success());
    result
}

/// Microseconds at the median and the 99th percentile of many round trips, after some to warm up.
fn trips(mut trip: impl FnMut()) -> (f64, f64) {
    for _ in 0..TRIPS / 10 {
        trip();
    }
    let mut times: Vec<f64> = (0..TRIPS)
        .map(|_| {
            let before = Instant::now();
            trip();
            before.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[TRIPS / 2], times[TRIPS * 99 / 100])
}

fn trips_over_rings(mode: &str) -> (f64, f64) {
    over_rings(mode, |side| {
        trips(|| {
            side.send(MESSAGE, |room| room.fill(7));
            assert!(side.receive(|payload| assert_eq!(payload.len(), MESSAGE)));
        })
    })
}

fn trips_over_socket() -> (f64, f64) {
    over_socket("echo_socket", |socket| {
        let mut message = [7; MESSAGE];
        trips(|| {
            socket.write_all(&message).expect("the child reads");
            socket.read_exact(&mut message).expect("the child answers");
        })
    })
}

/// A light touch: one byte a cache line.
fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

/// GB/s, measured from the first frame to the last.
fn rate(mut next: impl FnMut() -> u64) -> f64 {
    black_box(next());
    let before = Instant::now();
    let mut sum = 0;
    for _ in 1..FRAMES {
        sum += next();
    }
    black_box(sum);
    ((FRAMES - 1) * FRAME) as f64 / before.elapsed().as_secs_f64() / 1e9
}

fn rate_over_rings() -> f64 {
    over_rings("pump", |side| {
        rate(|| {
            let mut sum = 0;
            assert!(side.receive(|payload| sum = touch(payload)));
            sum
        })
    })
}

fn rate_over_socket() -> f64 {
    over_socket("pump_socket", |socket| {
        let mut frame = vec![0; FRAME];
        rate(|| {
            socket.read_exact(&mut frame).expect("the child writes");
            touch(&frame)
        })
    })
}

fn rate_of_memcpy() -> f64 {
    let source = vec![1_u8; FRAME];
    let mut ring = vec![0_u8; 7 * FRAME];
    let mut at = 0;
    rate(|| {
        let room = &mut ring[at * FRAME..(at + 1) * FRAME];
        room.copy_from_slice(black_box(&source));
        at = (at + 1) % 7;
        touch(room)
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(bench: &str, value: f64) {
    println!("{{\"bench\":\"ring.{bench}\",\"value\":{value:.3}}}");
}

fn parent() {
    let (mut spin, mut spin_p99, mut futex, mut socket) = (vec![], vec![], vec![], vec![]);
    let (mut ring, mut stream, mut memcpy, mut latch) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (p50, p99) = trips_over_rings("echo_spin");
        spin.push(p50);
        spin_p99.push(p99);
        futex.push(trips_over_rings("echo_futex").0);
        latch.push(trips_over_rings("echo_latch").0);
        socket.push(trips_over_socket().0);
        ring.push(rate_over_rings());
        stream.push(rate_over_socket());
        memcpy.push(rate_of_memcpy());
    }
    let (spin, futex, socket) = (median(spin), median(futex), median(socket));
    let (ring, stream, memcpy) = (median(ring), median(stream), median(memcpy));
    report("rtt_spin_p50_us", spin);
    report("rtt_spin_p99_us", median(spin_p99));
    report("rtt_futex_p50_us", futex);
    report("rtt_latch_p50_us", median(latch));
    report("rtt_socket_p50_us", socket);
    report("rtt_futex_over_socket", futex / socket);
    report("throughput_gb_s", ring);
    report("throughput_socket_gb_s", stream);
    report("throughput_memcpy_gb_s", memcpy);
    report("throughput_over_memcpy", ring / memcpy);
    report("throughput_over_socket", ring / stream);
}
