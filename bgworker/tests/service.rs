//! An I/O worker over a region in memory, with a fake backend that also plays the main thread:
//! requests and their replies, rows over a ring that is smaller than they are, what is left after a
//! cancel.

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pg_lake_bgworker::store::Settings;
use pg_lake_bgworker::{Config, IoConfig, Kind, QueueConfig, Service, ring_code};
use pg_lake_plan::PROTOCOL_VERSION;
use pg_lake_plan::batch::BatchBuilder;
use pg_lake_plan::layout::{PartitionField, Transform};
use pg_lake_plan::message::{
    Compression, Envelope, ErrorCode, Publish, PublishFile, Reply, Request, TableColumn, WireError,
    Write, WrittenFile, kind,
};
use pg_lake_plan::types::{LakeType, Value};
use pg_lake_ring::{
    Consumer, ErrorKind as RingKind, Layout, PEER_GONE, Peek, Producer, Region, Stream,
};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

const PROC: u32 = 3;
const SLOT: u32 = 1;
const LAYOUT: Layout = Layout {
    procs: 8,
    workers: 2,
    streams: 8,
    ring_bytes: 16 << 10,
};
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone)]
#[repr(C, align(4096))]
#[allow(dead_code)] // only its bytes matter
struct Page([u8; 4096]);

struct Rig {
    region: Region,
    service: Service,
    /// Of the disk cache.
    _cache: tempfile::TempDir,
}

/// The streams of one request, as its backend holds them.
struct Call {
    request: Stream,
    result: Stream,
    replies: Consumer,
    feed: Stream,
    rows: Producer,
}

impl Rig {
    #[expect(unsafe_code, reason = "formats a region")]
    fn new() -> Rig {
        let size = LAYOUT.size().expect("a good layout");
        let pages = vec![Page([0; 4096]); size.div_ceil(4096)].into_boxed_slice();
        let base = Box::leak(pages).as_mut_ptr().cast::<u8>();
        // SAFETY: the bytes are ours alone, zeroed, aligned, and never freed; each test has its own
        // service and stops it at most once.
        let region = unsafe { Region::init(base, size, &LAYOUT) }.expect("a region");
        let cache = tempfile::tempdir().expect("a directory");
        let config = Config {
            slot: SLOT,
            kind: Kind::Io,
            threads: 2,
            memory: 64 << 20,
            memory_cache: 0,
            queue: QueueConfig::default(),
            io: IoConfig {
                stores: Settings {
                    credentials_file: None,
                    timeout: PATIENCE,
                    connections: 1,
                    bandwidth: None,
                },
                cache_directory: cache.path().to_owned(),
                cache_size: 0,
            },
            spill_directory: std::env::temp_dir(),
            pid: std::process::id(),
            proc: 1,
        };
        let service = Service::start(region, config, |_| ()).expect("a service");
        Rig {
            region,
            service,
            _cache: cache,
        }
    }

    fn call(&self) -> Call {
        // The worker gives back the streams of the call before a moment after its reply.
        let deadline = Instant::now() + PATIENCE;
        let references = loop {
            if let Some(references) = self.region.acquire(PROC, 3, SLOT) {
                break references;
            }
            assert!(Instant::now() < deadline, "no free streams");
            std::thread::sleep(Duration::from_millis(1));
        };
        let mut streams = references
            .into_iter()
            .map(|r| self.region.stream(r).expect("a held stream"));
        let mut next = || streams.next().expect("three streams");
        let (request, result, feed) = (next(), next(), next());
        Call {
            request,
            result,
            replies: result.consumer().expect("the reading end"),
            feed,
            rows: feed.producer().expect("the writing end"),
        }
    }

    fn announce(&self, call: &Call, message: &[u8]) {
        let mut producer = call.request.producer().expect("the writing end");
        self.write(&mut producer, kind::REQUEST, message);
        self.region.announce(PROC, SLOT, call.request.reference());
        self.service.serve();
    }

    fn start(&self, call: &Call, request: Request) {
        let envelope = Envelope {
            version: PROTOCOL_VERSION,
            result: call.result.reference().to_u64(),
            crash: 0,
            stores: vec![],
            request,
        };
        self.announce(call, &pg_lake_plan::encode(&envelope).expect("encoded"));
    }

    fn ring(&self, stream: &Stream) {
        if self.region.ring_stream(stream.reference()).is_some() {
            self.service.serve();
        }
    }

    fn write(&self, producer: &mut Producer, kind: u16, message: &[u8]) {
        let max = producer.max_payload();
        let mut frames = message.chunks(max).peekable();
        while let Some(frame) = frames.next() {
            let deadline = Instant::now() + PATIENCE;
            loop {
                match producer.try_write(kind, frame, frames.peek().is_some()) {
                    Ok(Some(wake)) => {
                        if wake.peer {
                            self.ring(&producer.stream());
                        }
                        break;
                    }
                    Ok(None) => {
                        assert!(Instant::now() < deadline, "the worker reads no more");
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(e) => panic!("{e}"),
                }
            }
        }
    }

    fn reply(&self, call: &mut Call) -> Result<Reply, WireError> {
        let deadline = Instant::now() + PATIENCE;
        let mut message = vec![];
        loop {
            assert!(Instant::now() < deadline, "no reply");
            assert_eq!(call.result.error(), 0, "the result stream failed");
            let last = match call.replies.try_peek().expect("a good stream") {
                Peek::Frame(frame) => {
                    message.extend_from_slice(frame.payload);
                    (!frame.more).then_some(frame.kind)
                }
                Peek::Empty => {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                }
                Peek::End => panic!("no reply before the end"),
            };
            if call.replies.release().peer {
                self.ring(&call.result);
            }
            match last {
                None => {}
                Some(kind::DONE) => return Ok(pg_lake_plan::decode(&message).expect("a reply")),
                Some(kind::ERROR) => return Err(pg_lake_plan::decode(&message).expect("an error")),
                Some(other) => panic!("a message of kind {other}"),
            }
        }
    }

    fn ask(&self, request: Request) -> Result<Reply, WireError> {
        let mut call = self.call();
        self.start(&call, request);
        let reply = self.reply(&mut call);
        self.release(call);
        reply
    }

    fn release(&self, call: Call) {
        let Call {
            request,
            result,
            replies,
            feed,
            rows,
        } = call;
        drop((replies, rows));
        for stream in [request, result, feed] {
            stream.release_backend();
            self.ring(&stream);
        }
    }

    /// Until the worker has given all streams back.
    fn settle(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.region.free_streams() < LAYOUT.streams {
            assert!(Instant::now() < deadline, "streams are held for ever");
            self.service.serve();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn columns() -> Vec<TableColumn> {
    let column = |id, name: &str, ty| TableColumn {
        id,
        name: name.into(),
        ty,
        required: id == 1,
    };
    vec![
        column(1, "id", LakeType::Int8),
        column(2, "name", LakeType::Text),
    ]
}

fn rows(first: i64, count: i64) -> Vec<u8> {
    let types = [LakeType::Int8, LakeType::Text];
    let mut builder = BatchBuilder::new(&types);
    for id in first..first + count {
        builder.columns[0].push_fixed(id.to_le_bytes());
        match id % 10 {
            0 => builder.columns[1].push_null(),
            _ => {
                // Poorly compressible, so that files reach their size.
                let text = format!("{:x}", (id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                builder.columns[1]
                    .push_bytes(text.as_bytes())
                    .expect("short");
            }
        }
        builder.end_row();
    }
    let mut message = vec![];
    builder.finish(&mut message).expect("a message");
    message
}

fn write_request(call: &Call, directory: &Path, target_file_size: u64) -> Request {
    Request::Write(Write {
        feed: call.feed.reference().to_u64(),
        columns: columns(),
        directory: directory.to_string_lossy().into_owned(),
        prefix: "part".into(),
        target_file_size,
        compression: Compression::Zstd(1),
        partition_by: vec![],
        sort_order: vec![],
        bloom_filters: vec![],
    })
}

fn files_in(rig: &Rig, directory: &Path) -> Vec<String> {
    let directory = directory.to_string_lossy().into_owned();
    match rig.ask(Request::ListFiles { directory }) {
        Ok(Reply::Files(files)) => files.into_iter().map(|(path, _)| path).collect(),
        other => panic!("{other:?}"),
    }
}

fn write_all(rig: &Rig, directory: &Path, batches: i64, target: u64) -> Vec<WrittenFile> {
    let mut call = rig.call();
    rig.start(&call, write_request(&call, directory, target));
    for batch in 0..batches {
        rig.write(&mut call.rows, kind::BATCH, &rows(batch * 1000, 1000));
    }
    if call.rows.finish().peer {
        rig.ring(&call.feed);
    }
    let reply = rig.reply(&mut call);
    rig.release(call);
    match reply {
        Ok(Reply::Written(files)) => files,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ping_is_answered_and_streams_come_back() {
    let rig = Rig::new();
    for _ in 0..50 {
        assert_eq!(rig.ask(Request::Ping), Ok(Reply::Pong));
    }
    rig.settle();
    rig.service.stop(Duration::from_secs(5));
}

#[test]
fn a_file_has_rows_of_one_partition() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let partitioned = |call: &Call| match write_request(call, directory.path(), 1 << 30) {
        Request::Write(write) => Request::Write(Write {
            partition_by: vec![PartitionField {
                source_id: 1,
                transform: Transform::Truncate(100),
            }],
            ..write
        }),
        other => other,
    };
    let mut call = rig.call();
    let request = partitioned(&call);
    rig.start(&call, request);
    for first in [0, 100] {
        let values = pg_lake_plan::encode(&vec![Some(Value::I64(first))]).expect("encoded");
        rig.write(&mut call.rows, kind::PARTITION, &values);
        rig.write(&mut call.rows, kind::BATCH, &rows(first, 50));
        rig.write(&mut call.rows, kind::BATCH, &rows(first + 50, 50));
    }
    if call.rows.finish().peer {
        rig.ring(&call.feed);
    }
    let reply = rig.reply(&mut call);
    rig.release(call);
    let Ok(Reply::Written(files)) = reply else {
        panic!("{reply:?}")
    };
    let found: Vec<_> = files
        .iter()
        .map(|file| (file.rows, file.partition.values.clone()))
        .collect();
    let expected = [0, 100].map(|first| (100, vec![Some(Value::I64(first))]));
    assert_eq!(found, expected);

    // Rows before the first partition are a mistake of the sender.
    let mut call = rig.call();
    let request = partitioned(&call);
    rig.start(&call, request);
    rig.write(&mut call.rows, kind::BATCH, &rows(0, 1));
    if call.rows.finish().peer {
        rig.ring(&call.feed);
    }
    let error = rig.reply(&mut call).expect_err("rows without a partition");
    assert_eq!(error.code, ErrorCode::Protocol);
    rig.release(call);
    assert_eq!(files_in(&rig, directory.path()).len(), files.len());
    rig.settle();
}

#[test]
fn rows_become_files_and_a_snapshot() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("t/data");
    let files = write_all(&rig, &data, 8, 64 << 10);
    assert!(files.len() > 1, "one file only: {files:?}");
    assert_eq!(files.iter().map(|f| f.rows).sum::<u64>(), 8000);
    assert_eq!(files_in(&rig, &data).len(), files.len());
    for file in &files {
        let input = File::open(&file.path).expect("a file");
        let reader = ParquetRecordBatchReaderBuilder::try_new(input).expect("a Parquet file");
        assert_eq!(
            reader.metadata().file_metadata().num_rows() as u64,
            file.rows
        );
        assert_eq!(
            std::fs::metadata(&file.path).expect("a file").len(),
            file.size
        );
    }

    let location = directory.path().join("t").to_string_lossy().into_owned();
    let publish = Request::Publish(Publish {
        location,
        table_uuid: [7; 16],
        format_version: 2,
        columns: columns(),
        partition_by: vec![],
        sort_by: vec![],
        properties: vec![],
        previous_metadata: None,
        files: files
            .iter()
            .map(|file| PublishFile {
                file: file.clone(),
                hot_image: false,
                deleted: vec![],
            })
            .collect(),
        timestamp_ms: 1_760_000_000_000,
        commit_id: *b"0123456789abcdef",
        keep_snapshots: 10,
    });
    let published = match rig.ask(publish) {
        Ok(Reply::Published(published)) => published,
        other => panic!("{other:?}"),
    };
    let metadata_location = published.metadata_location.clone();
    match rig.ask(Request::CheckTable { metadata_location }) {
        Ok(Reply::Checked(table)) => {
            assert_eq!(table.table_uuid, [7; 16]);
            assert_eq!(table.current_snapshot_id, Some(published.snapshot_id));
            assert_eq!(table.data_files.iter().map(|f| f.rows).sum::<u64>(), 8000);
            assert!(table.unreadable.is_empty() && table.hint.is_none());
        }
        other => panic!("{other:?}"),
    }
    let metadata_location = published.metadata_location;
    match rig.ask(Request::Inspect { metadata_location }) {
        Ok(Reply::Snapshots(snapshots)) => {
            assert_eq!(snapshots.len(), 1);
            assert_eq!(snapshots[0].id, published.snapshot_id);
        }
        other => panic!("{other:?}"),
    }

    let paths: Vec<String> = files.into_iter().map(|f| f.path).collect();
    let removed = paths.len() as u64;
    let remove = Request::RemoveFiles { paths };
    assert_eq!(rig.ask(remove.clone()), Ok(Reply::Removed(removed)));
    assert_eq!(rig.ask(remove), Ok(Reply::Removed(0)));
    rig.settle();
}

#[test]
fn no_rows_make_no_file() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    assert_eq!(write_all(&rig, &data, 0, 1 << 20), vec![]);
    assert_eq!(files_in(&rig, &data), Vec::<String>::new());
}

/// A cancelled statement let its files lie around until the next sweep.
#[test]
fn a_cancel_in_the_middle_leaves_no_files() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut call = rig.call();
    rig.start(&call, write_request(&call, directory.path(), 16 << 10));
    for batch in 0..6 {
        rig.write(&mut call.rows, kind::BATCH, &rows(batch * 1000, 1000));
    }
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_dir(directory.path())
        .expect("the directory")
        .count()
        == 0
    {
        assert!(Instant::now() < deadline, "no file was begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    rig.release(call);
    rig.settle();
    assert_eq!(files_in(&rig, directory.path()), Vec::<String>::new());
}

#[test]
fn a_feed_that_breaks_off_is_an_error_and_leaves_no_files() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut call = rig.call();
    rig.start(&call, write_request(&call, directory.path(), 16 << 10));
    for batch in 0..4 {
        rig.write(&mut call.rows, kind::BATCH, &rows(batch * 1000, 1000));
    }
    call.feed.cancel();
    rig.ring(&call.feed);
    let error = rig.reply(&mut call).expect_err("the feed broke off");
    assert_eq!(error.code, ErrorCode::Cancelled);
    // The error came after the clean-up.
    assert_eq!(
        std::fs::read_dir(directory.path())
            .expect("the directory")
            .count(),
        0
    );
    rig.release(call);
    rig.settle();
}

#[test]
fn bad_rows_are_the_request_s_error() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut call = rig.call();
    rig.start(&call, write_request(&call, directory.path(), 1 << 20));
    rig.write(&mut call.rows, kind::BATCH, b"not a batch of rows");
    let error = rig.reply(&mut call).expect_err("malformed");
    assert_eq!(error.code, ErrorCode::Protocol);
    // Whoever is about to write more hears that nobody reads it.
    assert!(call.feed.is_cancelled());
    let more = call.rows.try_write(kind::BATCH, &rows(0, 1), false);
    assert_eq!(more.map_err(|e| e.kind()), Err(RingKind::Closed));
    rig.release(call);
    rig.settle();
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let rig = Rig::new();
    // Not even an envelope: all there is to fail is the request's own stream.
    let call = rig.call();
    rig.announce(&call, &[0xff; 40]);
    let deadline = Instant::now() + PATIENCE;
    while call.request.error() != ring_code(ErrorCode::Protocol) {
        assert!(Instant::now() < deadline, "not refused");
        std::thread::sleep(Duration::from_millis(1));
    }
    rig.release(call);

    // Another version is told so on the result stream.
    let mut call = rig.call();
    let result = call.result.reference().to_u64();
    let message = pg_lake_plan::encode(&(PROTOCOL_VERSION + 1, result, 0_u64)).expect("encoded");
    rig.announce(&call, &message);
    let error = rig.reply(&mut call).expect_err("another version");
    assert_eq!(error.code, ErrorCode::Protocol);
    assert!(error.hint.is_some());
    rig.release(call);

    // One stream can't be result and feed at once.
    let mut call = rig.call();
    let request = match write_request(&call, Path::new("/nowhere"), 1) {
        Request::Write(write) => Request::Write(Write {
            feed: result_of(&call),
            ..write
        }),
        other => other,
    };
    rig.start(&call, request);
    let error = rig.reply(&mut call).expect_err("a stream named twice");
    assert_eq!(error.code, ErrorCode::Protocol);
    rig.release(call);
    rig.settle();
}

fn result_of(call: &Call) -> u64 {
    call.result.reference().to_u64()
}

/// A backend waited for ever for the reply of a worker that had stopped in good order.
#[test]
fn a_stop_ends_requests_under_way() {
    let rig = Rig::new();
    let directory = tempfile::tempdir().expect("a directory");
    let mut call = rig.call();
    rig.start(&call, write_request(&call, directory.path(), 1 << 20));
    rig.write(&mut call.rows, kind::BATCH, &rows(0, 1000));
    // What is announced but not taken yet is left to the next process, and ends the same way.
    let Rig {
        region, service, ..
    } = rig;
    service.stop(Duration::from_secs(5));
    assert_eq!(call.result.error(), PEER_GONE);
    assert_eq!(
        std::fs::read_dir(directory.path())
            .expect("the directory")
            .count(),
        0
    );
    drop((call.replies, call.rows));
    for stream in [call.request, call.result, call.feed] {
        stream.release_backend();
    }
    assert_eq!(region.free_streams(), LAYOUT.streams);
}
