//! The settings, all prefixed `lake.`. A test compares `docs/settings.md` with them.

use pg_lake_bgworker::store::Settings;
use pg_lake_bgworker::{IoConfig, QueueConfig};
use pg_lake_plan::message::Compression as WireCompression;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

/// `lake.engine`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Engine {
    #[name = c"off"]
    Off,
    #[name = c"on"]
    On,
    #[name = c"force"]
    Force,
}

/// `lake.unstorable_values`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Unstorable {
    #[name = c"keep_hot"]
    KeepHot,
    #[name = c"error"]
    Error,
}

/// `lake.compression`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Compression {
    #[name = c"zstd"]
    Zstd,
    #[name = c"snappy"]
    Snappy,
    #[name = c"lz4"]
    Lz4,
    #[name = c"gzip"]
    Gzip,
    #[name = c"none"]
    None,
}

impl From<Compression> for WireCompression {
    fn from(compression: Compression) -> WireCompression {
        match compression {
            Compression::Zstd => WireCompression::ZSTD,
            Compression::Snappy => WireCompression::Snappy,
            Compression::Lz4 => WireCompression::Lz4,
            Compression::Gzip => WireCompression::Gzip,
            Compression::None => WireCompression::None,
        }
    }
}

static ENGINE: GucSetting<Engine> = GucSetting::<Engine>::new(Engine::On);
static UNSTORABLE: GucSetting<Unstorable> = GucSetting::<Unstorable>::new(Unstorable::KeepHot);
static COMPRESSION: GucSetting<Compression> = GucSetting::<Compression>::new(Compression::Zstd);
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static STREAMS: GucSetting<i32> = GucSetting::<i32>::new(128);
static RING_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
static WORKER_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(2048);
static MEMORY_CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(1024);
static ENGINE_QUERIES: GucSetting<i32> = GucSetting::<i32>::new(0);
static BULK_ROWS: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static TARGET_FILE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(256);
static FLUSH_ROWS: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static FLUSH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);
static VACUUM_FLUSH: GucSetting<bool> = GucSetting::<bool>::new(true);
static AUTO_COMPACT: GucSetting<bool> = GucSetting::<bool>::new(true);
static DEBUG_FLUSH: GucSetting<bool> = GucSetting::<bool>::new(false);
static PUBLISH_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
static KEEP_SNAPSHOTS: GucSetting<i32> = GucSetting::<i32>::new(100);
static GARBAGE_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(3600);
static STREAM_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static CREDENTIALS_FILE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"lake_credentials.conf"));
static STORE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(60_000);
static STORE_CONNECTIONS: GucSetting<i32> = GucSetting::<i32>::new(16);
static STORE_BANDWIDTH: GucSetting<i32> = GucSetting::<i32>::new(0);
static CACHE_DIR: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"pgsql_tmp_lake_cache"));
static CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10_240);

pub fn engine() -> Engine {
    ENGINE.get()
}

/// What becomes of a row with a value that Iceberg can't hold.
pub fn unstorable_values() -> Unstorable {
    UNSTORABLE.get()
}

/// Of a table that doesn't say otherwise.
pub fn compression() -> WireCompression {
    COMPRESSION.get().into()
}

pub fn workers() -> u32 {
    WORKERS.get() as u32
}

pub fn streams() -> u32 {
    STREAMS.get() as u32
}

/// In bytes, a power of two.
pub fn ring_bytes() -> u32 {
    let bytes = RING_SIZE.get() as u32 * 1024;
    if bytes.is_power_of_two() {
        bytes
    } else {
        bytes.next_power_of_two() / 2
    }
}

/// In bytes.
pub fn worker_memory() -> u64 {
    (WORKER_MEMORY.get() as u64) << 20
}

/// In bytes.
pub fn memory_cache_size() -> u64 {
    (MEMORY_CACHE_SIZE.get() as u64) << 20
}

/// How many queries that keep rows run in the engine, and how long others wait.
pub fn queue() -> QueueConfig {
    QueueConfig {
        queries: ENGINE_QUERIES.get() as usize,
        patience: crate::pg::deadlock_timeout(),
    }
}

/// `None`: everything stays hot until it is flushed.
pub fn bulk_rows() -> Option<u64> {
    u64::try_from(BULK_ROWS.get()).ok()
}

/// In bytes, of a table that doesn't say otherwise.
pub fn target_file_size() -> u64 {
    (TARGET_FILE_SIZE.get() as u64) << 20
}

/// `None`: never by number.
pub fn flush_rows() -> Option<u64> {
    u64::try_from(FLUSH_ROWS.get()).ok()
}

/// Seconds; `None`: never by time.
pub fn flush_interval() -> Option<u64> {
    u64::try_from(FLUSH_INTERVAL.get()).ok()
}

/// Whether VACUUM makes rows cold.
pub fn vacuum_flush() -> bool {
    VACUUM_FLUSH.get()
}

/// Whether the maintainer compacts tables.
pub fn auto_compact() -> bool {
    AUTO_COMPACT.get()
}

/// Whether tables are flushed before each statement.
pub fn debug_flush() -> bool {
    DEBUG_FLUSH.get()
}

/// Seconds; `None`: only on request.
pub fn publish_interval() -> Option<u64> {
    u64::try_from(PUBLISH_INTERVAL.get()).ok()
}

pub fn keep_snapshots() -> u32 {
    KEEP_SNAPSHOTS.get() as u32
}

/// How long readers of what was published have, in microseconds.
pub fn garbage_retention_us() -> i64 {
    i64::from(GARBAGE_RETENTION.get()) * 1_000_000
}

/// How long a backend waits for free streams, in milliseconds.
pub fn stream_timeout_ms() -> u64 {
    STREAM_TIMEOUT.get() as u64
}

/// How long a request to an object store is tried, in microseconds.
pub fn store_timeout_us() -> i64 {
    i64::from(STORE_TIMEOUT.get()) * 1000
}

/// What the I/O workers are told about object stores and the disk cache.
pub fn io() -> IoConfig {
    IoConfig {
        stores: Settings {
            credentials_file: Some(in_data_directory(&CREDENTIALS_FILE)),
            timeout: Duration::from_millis(STORE_TIMEOUT.get() as u64),
            connections: STORE_CONNECTIONS.get() as usize,
            bandwidth: match STORE_BANDWIDTH.get() as u64 {
                0 => None,
                kilobytes => Some(kilobytes << 10),
            },
        },
        cache_directory: in_data_directory(&CACHE_DIR),
        cache_size: (CACHE_SIZE.get() as u64) << 20,
    }
}

/// A path that is relative to the data directory unless it is absolute.
fn in_data_directory(setting: &GucSetting<Option<CString>>) -> PathBuf {
    let path = setting.get().unwrap_or_default();
    crate::pg::data_directory().join(&*path.to_string_lossy())
}

pub fn init() {
    let int = |name, short, long, setting, range: (i32, i32), context, flags| {
        GucRegistry::define_int_guc(name, short, long, setting, range.0, range.1, context, flags)
    };
    GucRegistry::define_enum_guc(
        c"lake.engine",
        c"Runs analytical plans on iceberg tables in the lake engine.",
        c"\"off\" leaves every plan to the Postgres executor; \"force\" raises an error where a plan that touches an iceberg table can't be run wholly by the engine.",
        &ENGINE,
        GucContext::Userset,
        GucFlags::EXPLAIN,
    );
    GucRegistry::define_enum_guc(
        c"lake.unstorable_values",
        c"What becomes of a new row with a value that Iceberg can't hold, such as a numeric(10,2) NaN.",
        c"\"keep_hot\" keeps it in the heap, and its table can't be published; \"error\" refuses it.",
        &UNSTORABLE,
        GucContext::Userset,
        GucFlags::empty(),
    );
    GucRegistry::define_enum_guc(
        c"lake.compression",
        c"Compression of new Parquet files.",
        c"The table option \"compression\" goes before it.",
        &COMPRESSION,
        GucContext::Userset,
        GucFlags::empty(),
    );
    int(
        c"lake.workers",
        c"Number of background workers that write files and commit to Iceberg.",
        c"",
        &WORKERS,
        (1, 64),
        GucContext::Postmaster,
        GucFlags::empty(),
    );
    int(
        c"lake.streams",
        c"Number of streams in shared memory.",
        c"Every running request takes two, and one more for each table or plan whose rows it is sent.",
        &STREAMS,
        (8, 16384),
        GucContext::Postmaster,
        GucFlags::empty(),
    );
    int(
        c"lake.ring_size",
        c"Size of one stream's ring in shared memory.",
        c"Rounded down to a power of two.",
        &RING_SIZE,
        (64, 65536),
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    int(
        c"lake.worker_memory",
        c"Memory that the engine may use, the cache of decoded columns included.",
        c"",
        &WORKER_MEMORY,
        (64, 1 << 30),
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    int(
        c"lake.memory_cache_size",
        c"Memory for the cache of decoded columns.",
        c"Part of lake.worker_memory.",
        &MEMORY_CACHE_SIZE,
        (0, 1 << 30),
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    int(
        c"lake.engine_queries",
        c"Number of queries that sort, aggregate or join in the engine at the same time.",
        c"Others wait, and one begins whenever none has for deadlock_timeout. 0 sets as many as lake.worker_memory is enough for.",
        &ENGINE_QUERIES,
        (0, 10_000),
        GucContext::Sighup,
        GucFlags::empty(),
    );
    int(
        c"lake.bulk_rows",
        c"Rows of one statement after which further rows go straight to Parquet.",
        c"-1 leaves all rows to be flushed later.",
        &BULK_ROWS,
        (-1, i32::MAX),
        GucContext::Userset,
        GucFlags::empty(),
    );
    int(
        c"lake.target_file_size",
        c"Size at which a Parquet file is closed and the next one begun.",
        c"The table option \"target_file_size\" goes before it.",
        &TARGET_FILE_SIZE,
        (1, 8192),
        GucContext::Userset,
        GucFlags::UNIT_MB,
    );
    int(
        c"lake.flush_rows",
        c"Number of hot rows at which a table is flushed in the background.",
        c"-1 disables it.",
        &FLUSH_ROWS,
        (-1, i32::MAX),
        GucContext::Sighup,
        GucFlags::empty(),
    );
    int(
        c"lake.flush_interval",
        c"Time after which hot rows are flushed in the background, however few.",
        c"-1 disables it.",
        &FLUSH_INTERVAL,
        (-1, 86_400 * 7),
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_bool_guc(
        c"lake.vacuum_flush",
        c"VACUUM flushes, merges and compacts iceberg tables first.",
        c"",
        &VACUUM_FLUSH,
        GucContext::Userset,
        GucFlags::empty(),
    );
    GucRegistry::define_bool_guc(
        c"lake.auto_compact",
        c"Small files and files with many deleted rows are written again in the background.",
        c"",
        &AUTO_COMPACT,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    GucRegistry::define_bool_guc(
        c"lake.debug_flush",
        c"Flushes the tables of each statement before it runs.",
        c"For tests: rows are cold as soon as every snapshot sees them.",
        &DEBUG_FLUSH,
        GucContext::Userset,
        GucFlags::NO_SHOW_ALL,
    );
    int(
        c"lake.publish_interval",
        c"Time between two rounds of publication as Iceberg snapshots.",
        c"-1 publishes on request only.",
        &PUBLISH_INTERVAL,
        (-1, 86_400 * 7),
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    int(
        c"lake.keep_snapshots",
        c"Number of Iceberg snapshots that a published table keeps.",
        c"",
        &KEEP_SNAPSHOTS,
        (1, 10_000),
        GucContext::Sighup,
        GucFlags::empty(),
    );
    int(
        c"lake.garbage_retention",
        c"Time for which published files stay that no Iceberg snapshot of their table needs any more.",
        c"It is for readers outside of the server that have begun before.",
        &GARBAGE_RETENTION,
        (0, 86_400 * 365),
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    int(
        c"lake.stream_timeout",
        c"Longest wait for free streams.",
        c"",
        &STREAM_TIMEOUT,
        (1, 3_600_000),
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    int(
        c"lake.store_timeout",
        c"Longest time that a request to an object store may take, retries included.",
        c"",
        &STORE_TIMEOUT,
        (1000, 3_600_000),
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"lake.store_connections",
        c"Number of requests that a worker has under way to an object store at the same time.",
        c"",
        &STORE_CONNECTIONS,
        (1, 1024),
        GucContext::Sighup,
        GucFlags::empty(),
    );
    int(
        c"lake.store_bandwidth",
        c"Bytes a second that a worker reads from and writes to object stores.",
        c"0 sets no limit.",
        &STORE_BANDWIDTH,
        (0, i32::MAX),
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    int(
        c"lake.cache_size",
        c"Size of the disk cache for files in object stores.",
        c"0 disables the cache.",
        &CACHE_SIZE,
        (0, i32::MAX),
        GucContext::Sighup,
        GucFlags::UNIT_MB,
    );
    let string = GucRegistry::define_string_guc;
    string(
        c"lake.credentials_file",
        c"File with the credentials for object stores.",
        c"A path that isn't absolute is one below the data directory.",
        &CREDENTIALS_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    string(
        c"lake.cache_dir",
        c"Directory of the disk cache for files in object stores.",
        c"A path that isn't absolute is one below the data directory.",
        &CACHE_DIR,
        GucContext::Postmaster,
        GucFlags::SUPERUSER_ONLY,
    );
}
