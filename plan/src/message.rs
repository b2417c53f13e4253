//! Requests, replies and errors.
//!
//! A request is one message of kind [`kind::REQUEST`] on its request stream; what the request
//! wants fed follows on the feeds' own streams as [`kind::BATCH`], and, for [`Request::Write`] of a
//! partitioned table, [`kind::PARTITION`] before the batches of each partition. The reply is a sequence of
//! `BATCH` messages (for [`Request::Execute`]) and ends with exactly one of `DONE` and `ERROR`.
//! A message longer than a frame continues over frames flagged `more`.

use crate::ir::Fragment;
use crate::layout::{Partition, PartitionField, SortField};
use crate::rows::RowNumbers;
use crate::store::Store;
use crate::types::{LakeType, Value};
use serde::{Deserialize, Serialize};

/// Frame kinds.
pub mod kind {
    /// postcard of [`super::Request`]
    pub const REQUEST: u16 = 1;
    /// [`crate::batch`]
    pub const BATCH: u16 = 2;
    /// postcard of [`super::Reply`]
    pub const DONE: u16 = 3;
    /// postcard of [`super::WireError`]
    pub const ERROR: u16 = 4;
    /// postcard of the values of [`super::Partition`]: the rows that follow are in it.
    pub const PARTITION: u16 = 5;
    /// Bytes of a range of [`super::Fetch`], or those of it that come next.
    pub const BYTES: u16 = 6;
}

/// A stream: index in the low half, generation in the high half.
pub type StreamId = u64;

/// What a [`kind::REQUEST`] message holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`crate::PROTOCOL_VERSION`]
    pub version: u16,
    /// Where the reply goes.
    pub result: StreamId,
    /// Where the worker is to die, for tests; 0 as a rule (`pg_lake_crash`).
    pub crash: u64,
    /// Those that the request's locations are in (see [`crate::store`]).
    pub stores: Vec<Store>,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// To the engine.
    Execute(Execute),
    /// To the engine: for each file of a scan, whether all its rows pass the predicate, by the file's
    /// statistics. Says no where these say too little. Takes no feed.
    Covered(Execute),
    /// To a worker: rows arrive on the feed.
    Write(Write),
    /// To a worker.
    Publish(Publish),
    /// To the worker that owns the file's blocks: bytes of a data file in a store.
    Fetch(Fetch),
    /// To the worker that owns the file's blocks: a local file has the bytes of one that was uploaded, and can
    /// be put into the disk cache.
    Adopt { object: CachedObject, path: String },
    /// To the worker that owns the file's blocks: reads all of it into the disk cache.
    Warm(CachedObject),
    /// To the worker that owns the files' blocks: takes them out of the disk cache.
    Evict { locations: Vec<String> },
    /// To a worker: what its shards of the disk cache have counted, from now on from 0 if `reset`.
    CacheStats { reset: bool },
    /// To a worker: tries out the store whose root this is, and says what it is like.
    Probe { root: String },
    /// To a worker: the snapshots in a metadata file.
    Inspect { metadata_location: String },
    /// To a worker: what a metadata file, and the manifests that it refers to, say.
    CheckTable { metadata_location: String },
    /// To a worker. A path that ends in `/` is a table's directory, removed if it is empty.
    RemoveFiles { paths: Vec<String> },
    /// To a worker: the files below a directory, which may be missing.
    ListFiles { directory: String },
    /// To a worker: copies files, durably. They are removed again if the reply isn't delivered.
    CopyFiles { files: Vec<CopyFile> },
    /// To a worker: makes the version hint beside a table's metadata name them: those of a publication, or
    /// the ones before it, if it was rolled back.
    SetHint {
        metadata_location: String,
        /// Of that publication.
        commit_id: [u8; 16],
        /// It says again what it said before if the reply isn't delivered.
        provisional: bool,
    },
    /// Answers with [`Reply::Pong`].
    Ping,
}

impl Request {
    /// Calls `f` with each location that it names.
    pub fn locations(&self, mut f: impl FnMut(&str)) {
        match self {
            Request::Execute(execute) | Request::Covered(execute) => {
                let files = execute.tables.iter().flat_map(|table| &table.files);
                files.for_each(|file| f(&file.path));
            }
            Request::Write(write) => f(&write.directory),
            Request::Publish(publish) => {
                f(&publish.location);
                publish.previous_metadata.iter().for_each(|m| f(m));
                publish.files.iter().for_each(|file| f(&file.file.path));
            }
            Request::Fetch(fetch) => f(&fetch.location),
            Request::Warm(object) | Request::Adopt { object, .. } => f(&object.location),
            Request::Probe { root } => f(root),
            Request::Inspect { metadata_location }
            | Request::CheckTable { metadata_location }
            | Request::SetHint {
                metadata_location, ..
            } => f(metadata_location),
            Request::RemoveFiles { paths } => paths.iter().for_each(|path| f(path)),
            Request::ListFiles { directory } => f(directory),
            Request::CopyFiles { files } => {
                for file in files {
                    f(&file.from);
                    f(&file.to);
                }
            }
            // These are names only.
            Request::Evict { .. } | Request::CacheStats { .. } | Request::Ping => {}
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execute {
    pub fragment: Fragment,
    pub tables: Vec<TableInput>,
    pub params: Vec<Option<Value>>,
    /// Bytes that this query may take of the engine's memory.
    pub memory_limit: u64,
    /// Kilobytes that this query may have in temporary files at a time; `None`: no limit.
    pub temp_file_limit: Option<u64>,
    /// Rows come in the order of the files and of their positions, read by one thread.
    pub in_order: bool,
    /// Nobody waits for it: others go first where requests to a store wait for each other.
    pub background: bool,
}

/// The rows of one scanned table under the query's snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableInput {
    pub files: Vec<FileRef>,
    /// A stream of batches of the scan's columns (before its predicate), ended by the ring's end mark.
    pub feed: Option<StreamId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRef {
    /// A location.
    pub path: String,
    pub size: u64,
    /// Of its blocks ([`crate::store::Checksums`]); of a local file they may be left out.
    pub checksums: Vec<u32>,
    pub rows: RowNumbers,
    /// Positions of deleted rows, ascending.
    pub deleted: Vec<u32>,
    /// Only these positions are wanted: half-open, ascending, disjoint. `None`: all.
    pub ranges: Option<Vec<(u64, u64)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    None,
    Snappy,
    Zstd(i32),
    /// Parquet's `LZ4_RAW`.
    Lz4,
    Gzip,
}

impl Compression {
    /// zstd at the level that tables are written with.
    pub const ZSTD: Compression = Compression::Zstd(1);
}

/// One top-level column of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableColumn {
    /// Iceberg field id.
    pub id: i32,
    pub name: String,
    pub ty: LakeType,
    pub required: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    pub feed: StreamId,
    pub columns: Vec<TableColumn>,
    /// A location; created where it is missing. Files are `{prefix}-{n}.parquet` in it.
    pub directory: String,
    pub prefix: String,
    pub target_file_size: u64,
    pub compression: Compression,
    /// A file's rows are in one partition of these fields.
    pub partition_by: Vec<PartitionField>,
    /// The order in which each partition's rows are fed.
    pub sort_order: Vec<SortField>,
    /// Field ids of columns that get a Bloom filter in each row group.
    pub bloom_filters: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WrittenFile {
    pub path: String,
    pub size: u64,
    /// Of its blocks ([`crate::store::Checksums`]), if it is in a store.
    pub checksums: Vec<u32>,
    pub rows: u64,
    pub split_offsets: Vec<i64>,
    /// Per-column counts and bounds: postcard of iceberg-io's `Vec<ColumnStats>`, opaque to `ext`.
    pub stats: Vec<u8>,
    pub partition: Partition,
    /// What its rows are ordered by, as Iceberg compares values; empty if they aren't.
    pub sort_order: Vec<SortField>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Publish {
    /// The table's directory.
    pub location: String,
    pub table_uuid: [u8; 16],
    pub format_version: u8,
    pub columns: Vec<TableColumn>,
    /// How new files are partitioned and sorted. Older ones say themselves how they are.
    pub partition_by: Vec<PartitionField>,
    pub sort_by: Vec<SortField>,
    pub properties: Vec<(String, String)>,
    pub previous_metadata: Option<String>,
    pub files: Vec<PublishFile>,
    pub timestamp_ms: i64,
    /// Unique to this attempt. All files that it writes have it in their names.
    pub commit_id: [u8; 16],
    pub keep_snapshots: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishFile {
    pub file: WrittenFile,
    /// Holds the hot rows of this snapshot only.
    pub hot_image: bool,
    /// Positions of deleted rows, ascending. What is published has delete files for them.
    pub deleted: Vec<u32>,
}

/// Bytes of a data file, which the disk cache may have. The reply is one [`kind::BYTES`] message or more for each range,
/// or [`Reply::Placed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fetch {
    pub location: String,
    pub size: u64,
    pub checksums: Vec<u32>,
    /// Half-open, within the file.
    pub ranges: Vec<(u64, u64)>,
    pub priority: Priority,
    /// Whether a scan reads them, which may not take the cache from what is read again and again.
    pub scan: bool,
    /// Whether the sender reads files of the disk cache itself, if all blocks are there.
    pub places: bool,
}

/// Where the disk cache had the blocks of a [`Fetch`] when it was asked. They may be gone, or damaged, when they are read:
/// who reads them compares the checksums, and asks for the bytes if one is different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Paths of files of the disk cache.
    pub files: Vec<String>,
    /// In the order of the blocks.
    pub blocks: Vec<Place>,
}

/// Where one block was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Number of the block in its data file.
    pub block: u32,
    /// Index into [`Places::files`].
    pub file: u32,
    /// Where the block begins in that file.
    pub offset: u64,
    /// CRC-32 of each 64 KiB of the block, the last of which may be short.
    pub sums: Vec<u32>,
}

/// A data file in a store, as the disk cache knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedObject {
    pub location: String,
    pub size: u64,
    /// Of its blocks.
    pub checksums: Vec<u32>,
}

/// One shard of the disk cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheShard {
    pub shard: u32,
    /// Bytes that it may have, and has.
    pub capacity: u64,
    pub bytes: u64,
    pub blocks: u64,
    pub hits: u64,
    pub misses: u64,
    pub bytes_from_cache: u64,
    pub bytes_from_store: u64,
    pub evictions: u64,
    pub corrupt_blocks: u64,
    pub in_flight: u64,
    /// Of requests to the store, in microseconds.
    pub latency_p50_us: u64,
    pub latency_p99_us: u64,
    /// Why it keeps nothing at present.
    pub off: Option<String>,
}

/// What goes first where requests to a store wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Priority {
    /// Somebody waits for it.
    Interactive,
    /// Read-ahead, warming.
    Ahead,
    /// Compaction and the like.
    Background,
}

/// Both are locations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyFile {
    pub from: String,
    /// Must not exist; directories are created where they are missing.
    pub to: String,
    /// What `from` has to have.
    pub size: u64,
    /// Of its blocks, if it is in a store.
    pub checksums: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Executed(ScanStats),
    Covered(Vec<bool>),
    Written(Vec<WrittenFile>),
    Published(Published),
    Snapshots(Vec<SnapshotInfo>),
    Checked(CheckedTable),
    Removed(u64),
    /// With their sizes, in the order of the paths.
    Files(Vec<(String, u64)>),
    /// The checksums of each copy's blocks; none of a local one.
    Copied(Vec<Vec<u32>>),
    Fetched(Fetched),
    /// Whether all of the file is in the cache.
    Adopted(bool),
    /// Bytes of the file that are in the cache.
    Warmed(u64),
    /// Bytes that went.
    Evicted(u64),
    CacheStats(Vec<CacheShard>),
    Probed(Probed),
    HintSet,
    Pong,
    /// To a [`Fetch`] that asked for it.
    Placed(Places),
}

/// Where the bytes of a [`Fetch`] came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    pub from_cache: u64,
    pub from_store: u64,
}

/// What a store turned out to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// [`Store::conditional_put`]
    pub conditional_put: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    pub metadata_location: String,
    pub snapshot_id: i64,
    pub sequence_number: i64,
    /// Nothing had changed, nothing was written.
    pub unchanged: bool,
    /// Metadata files and delete files that nothing refers to any more.
    pub removed: Vec<String>,
    /// What is wrong with what was published before, if earlier snapshots were dropped for that.
    pub damage: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    pub id: i64,
    pub parent: Option<i64>,
    pub sequence_number: i64,
    pub timestamp_ms: i64,
    pub operation: String,
    pub summary: Vec<(String, String)>,
}

/// What a table's metadata say. Paths are as they have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedTable {
    pub table_uuid: [u8; 16],
    pub current_snapshot_id: Option<i64>,
    /// Of the current snapshot, in the order of their paths.
    pub data_files: Vec<CheckedFile>,
    /// All files that the metadata name for any snapshot, earlier metadata and themselves included.
    pub references: Vec<String>,
    /// Files that could not be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// What the version hint beside them says, if there is one.
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedFile {
    pub path: String,
    pub size: u64,
    pub rows: u64,
    /// How many of them its delete files say are deleted.
    pub deleted: u64,
    pub delete_files: Vec<String>,
}

/// What a fragment did, for EXPLAIN ANALYZE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanStats {
    pub files: u64,
    pub files_pruned: u64,
    pub row_groups: u64,
    pub row_groups_pruned: u64,
    /// Rows that came out of the scan before its predicate: cold and fed.
    pub rows_cold: u64,
    pub rows_fed: u64,
    pub rows_out: u64,
    /// Decoded column chunks that came from the memory cache / were decoded from Parquet.
    pub chunks_cached: u64,
    pub chunks_decoded: u64,
    /// Parquet bytes read.
    pub bytes_read: u64,
    /// Those of them that came from the disk cache / from a store.
    pub bytes_disk_cache: u64,
    pub bytes_store: u64,
    pub elapsed_us: u64,
    pub memory_peak: u64,
    /// The physical plan with its metrics, a line an operator.
    pub operators: Vec<String>,
    /// The cold rows, for each of the request's tables.
    pub rows_of_tables: Vec<u64>,
    /// Rows that were read, and that a join or a sort above had no use for.
    pub rows_skipped: u64,
    /// Pages of the columns of row groups in which some had no row of use; those of them that weren't read.
    pub pages: u64,
    pub pages_pruned: u64,
    /// Those of the pruned row groups that only a Bloom filter left out.
    pub row_groups_filtered: u64,
    /// How long it waited for others to end before it began.
    pub queued_us: u64,
}

/// An error that crosses a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    pub code: ErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// One for each SQLSTATE that an engine or worker can raise; `ext/src/error.rs` maps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorCode {
    /// Not an error for the user: the engine can't give Postgres' exact answer for these values
    /// and nothing was returned yet, so that the backend runs the plan itself.
    NotExact,
    Cancelled,
    OutOfRange,
    DivisionByZero,
    /// A date or timestamp is out of range.
    DatetimeOverflow,
    /// A length of a substring is negative.
    Substring,
    /// The square root of a negative number, or another power that is no number.
    NegativeRoot,
    DataCorrupted,
    MissingFile,
    /// An object is there already that this server didn't write.
    NameTaken,
    Io,
    /// A store didn't answer, or not in time.
    StoreUnavailable,
    /// A store refuses the credential, or there is none.
    StoreDenied,
    /// What a user has set is wrong: options of a tablespace, the credentials file.
    InvalidConfiguration,
    DiskFull,
    OutOfMemory,
    Protocol,
    Internal,
    Unsupported,
    /// A query's temporary files are larger than its session allows.
    TempFileLimit,
    /// A pattern ends with its escape character.
    EscapeSequence,
    /// The logarithm of zero or a negative number.
    Logarithm,
    InvalidParameter,
    LimitExceeded,
    /// Bounds or a number of buckets that there can't be.
    WidthBucket,
    /// A text isn't one of a type.
    InvalidText,
}

impl WireError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        WireError {
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for WireError {}
