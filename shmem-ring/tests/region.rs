//! The contract of the region: formatting, ownership of streams, incarnations, doorbells, waiters.
#![cfg(not(loom))]

mod support;

use pg_lake_ring::{
    ErrorKind, Layout, PEER_GONE, Phase, Progress, Region, Reported, StreamRef, StreamState,
};
use support::{HeapRegion, attached};

const LAYOUT: Layout = Layout {
    procs: 70,
    workers: 2,
    streams: 4,
    ring_bytes: 4096,
};

fn free_now(region: Region) -> u32 {
    region.free_streams()
}

#[test]
#[expect(unsafe_code, reason = "attaches to raw bytes")]
fn attach_checks_the_header() {
    let heap = HeapRegion::new(LAYOUT);
    // SAFETY: the bytes of `heap`, which outlives the handles.
    let attach = |base, len| unsafe { Region::attach(base, len) }.map(|region| region.layout());
    assert_eq!(attach(heap.base(), heap.len()), Ok(LAYOUT));
    let bad = |result: Result<Layout, pg_lake_ring::RingError>| {
        assert_eq!(
            result.map_err(|error| error.kind()),
            Err(ErrorKind::BadRegion)
        );
    };
    bad(attach(heap.base(), heap.len() - 64));
    bad(attach(heap.base(), 63));
    bad(attach(heap.base().wrapping_add(8), heap.len() - 64));
    bad(attach(std::ptr::null_mut(), heap.len()));
    // The number of workers, the version and the magic.
    for (offset, value) in [(16, 0_u32), (8, 99), (0, 0)] {
        // SAFETY: as above; nobody else uses the header.
        unsafe { heap.base().add(offset).cast::<u32>().write(value) };
        bad(attach(heap.base(), heap.len()));
    }
}

#[test]
fn acquire_is_all_or_none() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    let three = region.acquire(1, 3, 0).expect("three of four");
    assert_eq!(free_now(region), 1);
    assert_eq!(region.acquire(2, 2, 0), None);
    assert_eq!(free_now(region), 1);
    assert_eq!(region.acquire(2, 5, 0), None);
    assert_eq!(region.acquire(70, 1, 0), None);
    assert_eq!(region.acquire(2, 1, 2), None);
    assert_eq!(region.acquire(2, 0, 0), Some(vec![]));
    assert_eq!(region.acquire_leaving(2, 1, 1, 1), None);
    let one = region.acquire_leaving(2, 1, 0, 1).expect("the last one");
    assert_eq!(free_now(region), 0);
    let stream = region.stream(one[0]).expect("held");
    assert_eq!(
        (stream.proc(), stream.worker(), stream.incarnation()),
        (2, 1, 0)
    );
    for reference in three.iter().chain(&one) {
        assert!(region.stream(*reference).expect("held").release_backend());
        assert_eq!(
            region
                .stream(*reference)
                .map_err(|error| error.kind())
                .err(),
            Some(ErrorKind::Stale)
        );
    }
    assert_eq!(free_now(region), 4);
    assert_eq!(
        region.acquire(1, 4, 0).map(|streams| streams.len()),
        Some(4)
    );
}

#[test]
fn both_holds_free_a_stream_in_either_order() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    for backend_first in [true, false] {
        let stream = attached(region);
        assert!(!stream.is_cancelled());
        if backend_first {
            assert!(!stream.release_backend());
            assert!(stream.is_cancelled());
            let info = region
                .stream_info(stream.reference().index)
                .expect("in range");
            assert_eq!((info.state, info.cancelled), (StreamState::Draining, true));
            assert!(!stream.release_backend(), "twice is once");
            assert!(stream.release_worker());
        } else {
            assert!(!stream.release_worker());
            assert!(!stream.release_worker(), "twice is once");
            assert!(stream.release_backend());
        }
        assert_eq!(free_now(region), 4);
        assert!(
            !stream.release_backend() && !stream.release_worker(),
            "a stale handle frees nothing"
        );
        assert!(stream.is_cancelled());
        assert_eq!(stream.error(), PEER_GONE);
        assert_eq!(
            stream.producer().map_err(|error| error.kind()).err(),
            Some(ErrorKind::Stale)
        );
    }
    assert_eq!(region.stream_info(4), None);
}

#[test]
fn a_stale_handle_touches_nothing() {
    let heap = HeapRegion::new(Layout {
        streams: 1,
        ..LAYOUT
    });
    let region = heap.region();
    let old = attached(region);
    let mut producer = old.producer().expect("a producer");
    assert!(!old.release_worker() && old.release_backend());
    let new = attached(region);
    assert_ne!(old.reference(), new.reference());
    old.fail(7);
    old.cancel();
    assert_eq!(
        old.worker_attach(old.incarnation())
            .map_err(|error| error.kind()),
        Err(ErrorKind::Stale)
    );
    assert_eq!(
        producer
            .try_write(1, b"x", false)
            .map_err(|error| error.kind()),
        Err(ErrorKind::Stale)
    );
    let fresh = new.producer().expect("a producer");
    drop(producer);
    assert_eq!(
        new.producer().map_err(|error| error.kind()).err(),
        Some(ErrorKind::Closed),
        "still claimed"
    );
    drop(fresh);
    assert!(new.producer().is_ok());
    assert_eq!((new.error(), new.is_cancelled()), (0, false));
    new.fail(7);
    new.fail(8);
    assert_eq!(new.error(), 7);
    for value in [
        old.reference(),
        new.reference(),
        StreamRef {
            index: u32::MAX,
            generation: 0,
        },
    ] {
        assert_eq!(StreamRef::from_u64(value.to_u64()), value);
    }
}

#[test]
fn a_new_incarnation_reclaims() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    let worker = region.worker(0).expect("slot 0");
    assert!(!worker.is_up() && worker.proc().is_none());
    assert_eq!(worker.start(100, 5), 1);
    assert_eq!(
        (worker.pid(), worker.proc(), worker.is_up()),
        (100, Some(5), true)
    );
    let [draining, attached, waiting]: [_; 3] = region
        .acquire(1, 3, 0)
        .expect("three")
        .into_iter()
        .map(|reference| region.stream(reference).expect("held"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("three");
    let other = region
        .stream(region.acquire(2, 1, 1).expect("the last")[0])
        .expect("held");
    for stream in [&draining, &attached] {
        stream.worker_attach(1).expect("attached");
    }
    region.announce(1, 0, waiting.reference());
    assert!(!draining.release_backend());
    assert!(worker.has_work());

    assert_eq!(worker.start(101, 6), 2);
    assert_eq!(free_now(region), 1, "the draining one");
    assert_eq!(
        (attached.error(), waiting.error(), other.error()),
        (PEER_GONE, PEER_GONE, 0)
    );
    assert!(
        !worker.has_work(),
        "requests to the old incarnation are forgotten"
    );
    assert_eq!(
        waiting.worker_attach(2).map_err(|error| error.kind()),
        Err(ErrorKind::Stale)
    );
    assert_eq!(
        attached
            .consumer()
            .expect("a consumer")
            .try_peek()
            .map_err(|error| error.kind())
            .err(),
        Some(ErrorKind::PeerGone)
    );
    assert_eq!(
        attached
            .producer()
            .expect("a producer")
            .try_write(1, b"x", false)
            .map_err(|error| error.kind()),
        Err(ErrorKind::PeerGone)
    );
    assert!(attached.release_backend() && waiting.release_backend());
    assert!(other.release_backend());

    let stream = support::attached(region);
    worker.stop();
    assert!(!worker.is_up());
    assert_eq!(stream.error(), PEER_GONE);
    assert!(stream.release_backend());
    assert_eq!(free_now(region), 4);
}

#[test]
fn a_new_incarnation_gives_back_what_older_ones_acquired() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    let (client, server) = (
        region.worker(0).expect("slot 0"),
        region.worker(1).expect("slot 1"),
    );
    client.start(100, 5);
    let served = server.start(200, 6);
    let acquired = region.acquire_by(client, 5, 2, 1).expect("two");
    let [busy, idle]: [_; 2] = acquired
        .into_iter()
        .map(|reference| region.stream(reference).expect("held"))
        .collect::<Vec<_>>()
        .try_into()
        .expect("two");
    // Of a backend that has got the proc number of the process that ended.
    let other = region
        .stream(region.acquire(5, 1, 1).expect("one")[0])
        .expect("held");
    busy.worker_attach(served).expect("attached");
    server.take_stream_events(|_| panic!("nothing has happened"));

    client.start(101, 7);
    assert_eq!(free_now(region), 2, "one that was never acquired, one idle");
    assert!(idle.is_cancelled() && busy.is_cancelled() && !other.is_cancelled());
    let mut seen = Vec::new();
    server.take_stream_events(|index| seen.push(index));
    assert_eq!(seen, [busy.reference().index]);
    assert!(busy.release_worker());
    assert_eq!(free_now(region), 3);

    let mine = region.acquire_by(client, 7, 1, 1).expect("one")[0];
    server.start(201, 6);
    let mine = region.stream(mine).expect("still held");
    assert!(!mine.is_cancelled() && mine.release_backend());
    assert!(other.release_backend());
    assert_eq!(free_now(region), 4);
}

#[test]
fn requests_arrive_once_oldest_first() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    let worker = region.worker(1).expect("slot 1");
    let incarnation = worker.start(1, 1);
    let mut streams = Vec::new();
    for proc in [3, 69, 4, 5] {
        streams.push(region.acquire(proc, 1, 1).expect("one")[0]);
    }
    let order = [2, 0, 3, 1];
    for at in order {
        let proc = region.stream(streams[at]).expect("held").proc();
        region.announce(proc, 1, streams[at]);
    }
    region.announce(3, 1, streams[0]); // again, before it was taken: now the youngest
    region.announce(9, 1, streams[0]); // not its proc
    region.announce(3, 0, streams[0]); // not its worker
    assert!(region.stream(streams[3]).expect("held").release_backend());
    let mut seen = Vec::new();
    worker.take_requests(|proc, reference| seen.push((proc, reference)));
    assert_eq!(seen, [(4, streams[2]), (69, streams[1]), (3, streams[0])]);
    assert!(!worker.has_work());
    worker.take_requests(|_, _| panic!("taken twice"));
    region
        .stream(streams[0])
        .expect("held")
        .worker_attach(incarnation)
        .expect("attached");
}

#[test]
fn events_ring_the_right_worker() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    let stream = region.acquire(0, 1, 1).expect("one")[0];
    assert_eq!(region.ring_stream(stream), Some(1));
    assert_eq!(region.ring_stream(stream), Some(1));
    assert!(!region.worker(0).expect("slot 0").has_work());
    let worker = region.worker(1).expect("slot 1");
    assert!(worker.has_work());
    let mut seen = Vec::new();
    worker.take_stream_events(|index| seen.push(index));
    assert_eq!(seen, [stream.index]);
    assert!(region.stream(stream).expect("held").release_backend());
    assert_eq!(region.ring_stream(stream), None);
}

#[test]
fn waiters_are_called_once() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    for proc in [69, 0, 33] {
        region.wait_for_stream(proc);
    }
    region.stop_waiting(33);
    let mut seen = Vec::new();
    region.drain_stream_waiters(|proc| seen.push(proc));
    region.drain_stream_waiters(|proc| seen.push(proc));
    assert_eq!(seen, [0, 69]);
}

#[test]
fn a_report_ends_with_the_request_the_stream_or_the_worker() {
    let heap = HeapRegion::new(LAYOUT);
    let region = heap.region();
    let stream = attached(region);
    let reference = stream.reference();
    let phase = || region.reported(reference.index).map(|found| found.phase);
    assert_eq!(phase(), None);
    let report = region.report(reference).expect("a held stream");
    assert_eq!(phase(), Some(Phase::Queued));
    let progress = Progress {
        rows_read: 7,
        spilled_files: 2,
        rows_cold: 5,
        ..Progress::default()
    };
    report.store(&progress);
    report.phase(Phase::Running);
    assert_eq!(
        region.reported(reference.index),
        Some(Reported {
            proc: 0,
            worker: 0,
            phase: Phase::Running,
            progress
        })
    );
    // The backend lets go, and then the worker.
    stream.release_backend();
    assert_eq!(phase(), None);
    assert!(stream.release_worker());
    assert!(region.report(reference).is_none());

    // The next use begins with nothing, and an earlier report doesn't end it.
    let next = attached(region);
    assert_eq!(next.reference().index, reference.index);
    assert_eq!(phase(), None);
    let second = region.report(next.reference()).expect("a held stream");
    drop(report);
    assert_eq!(region.last_reported(reference), None);
    let found = region.reported(reference.index).expect("a report");
    assert_eq!(
        (found.phase, found.progress),
        (Phase::Queued, Progress::default())
    );
    second.store(&progress);
    drop(second);
    assert_eq!(phase(), None);
    // Whoever holds the stream can still ask for what was said.
    assert_eq!(region.last_reported(next.reference()), Some(progress));

    let _third = region.report(next.reference()).expect("a held stream");
    assert_eq!(phase(), Some(Phase::Queued));
    // Its process dies, and another one begins.
    region.worker(0).expect("slot 0").start(2, 9);
    assert_eq!(phase(), None);
    assert_eq!(region.reported(LAYOUT.streams), None);
}
