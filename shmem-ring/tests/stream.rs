//! The contract of a stream's ring: frames arrive as written, in order, around the end of the ring, with wake-ups.
#![cfg(not(loom))]

mod support;

use pg_lake_ring::{ErrorKind, Layout, Peek, Wake};
use proptest::prelude::*;
use std::collections::VecDeque;
use support::{HeapRegion, attached, ends, read};

const LAYOUT: Layout = Layout {
    procs: 2,
    workers: 1,
    streams: 2,
    ring_bytes: 4096,
};

#[test]
fn a_frame_arrives_as_written() {
    let heap = HeapRegion::new(LAYOUT);
    let stream = attached(heap.region());
    let (mut producer, mut consumer) = ends(stream);
    assert_eq!(
        stream.producer().map_err(|error| error.kind()).err(),
        Some(ErrorKind::Closed)
    );
    assert_eq!(
        stream.consumer().map_err(|error| error.kind()).err(),
        Some(ErrorKind::Closed)
    );
    let room = producer.try_reserve(100).expect("open").expect("room");
    assert_eq!(room.as_ptr().addr() % 64, 0);
    room[..5].copy_from_slice(b"hello");
    assert_eq!(producer.commit(5, 42, true), Wake { peer: false });
    for _ in 0..2 {
        match consumer.try_peek() {
            Ok(Peek::Frame(frame)) => {
                assert_eq!(
                    (frame.kind, frame.more, frame.payload),
                    (42, true, &b"hello"[..])
                );
                assert_eq!(frame.payload.as_ptr().addr() % 64, 0);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(consumer.release(), Wake { peer: false });
    assert_eq!(consumer.release(), Wake { peer: false });
    assert_eq!(consumer.try_peek(), Ok(Peek::Empty));
    let info = heap
        .region()
        .stream_info(stream.reference().index)
        .expect("in range");
    assert_eq!(
        (info.bytes_written, info.bytes_read, info.queued_bytes),
        (128, 128, 0)
    );
}

#[test]
fn wake_ups_are_asked_for_and_sent_once() {
    let heap = HeapRegion::new(LAYOUT);
    let (mut producer, mut consumer) = ends(attached(heap.region()));
    assert_eq!(consumer.try_peek(), Ok(Peek::Empty));
    assert_eq!(
        producer.try_write(1, b"a", false),
        Ok(Some(Wake { peer: true }))
    );
    let payload = vec![7; producer.max_payload()];
    let mut written = 0;
    while let Some(wake) = producer.try_write(1, &payload, false).expect("open") {
        assert!(!wake.peer, "asked once");
        written += 1;
    }
    assert_eq!(written, 1);
    assert!(!producer.has_room(payload.len()));
    let mut wakes = 0;
    for _ in 0..2 {
        assert!(matches!(consumer.try_peek(), Ok(Peek::Frame(_))));
        wakes += u32::from(consumer.release().peer);
    }
    assert_eq!(wakes, 1);
    assert!(producer.has_room(payload.len()));
    assert_eq!(consumer.try_peek(), Ok(Peek::Empty));
    assert_eq!(producer.finish(), Wake { peer: true });
}

#[test]
fn the_end_comes_after_the_last_frame() {
    let heap = HeapRegion::new(LAYOUT);
    let stream = attached(heap.region());
    let (mut producer, mut consumer) = ends(stream);
    let payload = vec![1; producer.max_payload()];
    while producer
        .try_write(3, &payload, false)
        .expect("open")
        .is_some()
    {}
    let _ = producer.finish();
    assert_eq!(
        producer
            .try_write(3, b"x", false)
            .map_err(|error| error.kind()),
        Err(ErrorKind::Closed)
    );
    drop(producer);
    assert_eq!(
        stream
            .producer()
            .expect("free to take")
            .try_reserve(1)
            .map_err(|error| error.kind())
            .err(),
        Some(ErrorKind::Closed)
    );
    assert!(!stream.release_worker());
    while let Some(frame) = read(&mut consumer).expect("valid") {
        assert_eq!(frame, (3, false, payload.clone()));
    }
    assert_eq!(consumer.try_peek(), Ok(Peek::End));
    assert_eq!(consumer.try_peek(), Ok(Peek::End));
}

#[test]
fn limits_and_cancel() {
    let heap = HeapRegion::new(LAYOUT);
    let stream = attached(heap.region());
    let (mut producer, mut consumer) = ends(stream);
    assert_eq!(producer.max_payload(), 2048 - 64);
    let too_large = producer
        .try_reserve(2048 - 63)
        .map_err(|error| error.kind())
        .err();
    assert_eq!(too_large, Some(ErrorKind::TooLarge));
    assert_eq!(
        producer.try_write(9, b"", false),
        Ok(Some(Wake { peer: false }))
    );
    stream.cancel();
    assert_eq!(
        producer
            .try_write(9, b"", false)
            .map_err(|error| error.kind()),
        Err(ErrorKind::Closed)
    );
    assert_eq!(
        read(&mut consumer),
        Ok(Some((9, false, vec![]))),
        "what was written is still read"
    );
}

#[test]
fn ends_can_be_handed_on() {
    let heap = HeapRegion::new(LAYOUT);
    let stream = attached(heap.region());
    for round in 0..200_u16 {
        let (mut producer, mut consumer) = ends(stream);
        let payload = vec![round as u8; usize::from(round) * 7];
        assert!(
            producer
                .try_write(round, &payload, false)
                .expect("open")
                .is_some()
        );
        assert!(matches!(consumer.try_peek(), Ok(Peek::Frame(_))));
        drop(consumer); // without a release: the frame stays
        let mut consumer = stream.consumer().expect("free to take");
        assert_eq!(read(&mut consumer), Ok(Some((round, false, payload))));
    }
}

#[test]
fn two_threads_transfer_in_order() {
    const FRAMES: u64 = if cfg!(miri) { 50 } else { 50_000 };
    let heap = HeapRegion::new(LAYOUT);
    let (mut producer, mut consumer) = ends(attached(heap.region()));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for frame in 0..FRAMES {
                let len = 8 + (frame as usize * 37) % 1_500;
                loop {
                    if let Some(room) = producer.try_reserve(len).expect("open") {
                        room.fill(frame as u8);
                        room[..8].copy_from_slice(&frame.to_ne_bytes());
                        break;
                    }
                    std::thread::yield_now();
                }
                let _ = producer.commit(len, (frame % 100) as u16, frame % 3 == 0);
            }
            let _ = producer.finish();
        });
        for frame in 0..FRAMES {
            let (kind, more, payload) = loop {
                if let Some(found) = read(&mut consumer).expect("valid") {
                    break found;
                }
                std::thread::yield_now();
            };
            assert_eq!((kind, more), ((frame % 100) as u16, frame % 3 == 0));
            assert_eq!(payload.len(), 8 + (frame as usize * 37) % 1_500);
            assert_eq!(payload[..8], frame.to_ne_bytes());
            assert!(payload[8..].iter().all(|byte| *byte == frame as u8));
        }
        while consumer.try_peek() == Ok(Peek::Empty) {
            std::thread::yield_now();
        }
        assert_eq!(consumer.try_peek(), Ok(Peek::End));
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        reserve: usize,
        commit: usize,
        kind: u16,
        more: bool,
    },
    Read,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0_usize..=1984, 0_usize..=100, any::<u16>(), any::<bool>()).prop_map(|(reserve, percent, kind, more)| {
            Step::Write { reserve, commit: reserve * percent / 100, kind, more }
        }),
        3 => (0_usize..=130, any::<u16>(), any::<bool>()).prop_map(|(reserve, kind, more)| {
            Step::Write { reserve, commit: reserve, kind, more }
        }),
        7 => Just(Step::Read),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A stream is a queue: whatever was committed comes out, in order, and a frame always fits into an empty ring.
    #[test]
    fn a_stream_is_a_queue(steps in prop::collection::vec(step(), 1..400)) {
        let heap = HeapRegion::new(LAYOUT);
        let stream = attached(heap.region());
        let (mut producer, mut consumer) = ends(stream);
        let mut model: VecDeque<(u16, bool, Vec<u8>)> = VecDeque::new();
        let mut fill = 0_u8;
        for step in steps {
            match step {
                Step::Write { reserve, commit, kind, more } => {
                    fill = fill.wrapping_add(1);
                    match producer.try_reserve(reserve) {
                        Ok(Some(room)) => {
                            prop_assert_eq!(room.len(), reserve);
                            room.fill(fill);
                            let _ = producer.commit(commit, kind, more);
                            model.push_back((kind, more, vec![fill; commit]));
                        }
                        Ok(None) => prop_assert!(!model.is_empty(), "an empty ring refused a frame"),
                        Err(error) => prop_assert!(false, "{}", error),
                    }
                }
                Step::Read => prop_assert_eq!(read(&mut consumer), Ok(model.pop_front())),
                Step::Reopen => {
                    drop(producer);
                    drop(consumer);
                    (producer, consumer) = ends(stream);
                }
            }
        }
        let _ = producer.finish();
        while let Some(frame) = model.pop_front() {
            prop_assert_eq!(read(&mut consumer), Ok(Some(frame)));
        }
        prop_assert_eq!(consumer.try_peek(), Ok(Peek::End));
    }
}
