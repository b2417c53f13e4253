//! Parquet data files, exact column statistics, and Iceberg metadata.
//!
//! A map of the crate:
//!
//! - [`schema`]: a table's schema with field ids, and what it becomes in Iceberg and in Arrow.
//! - [`parquet_file`]: writes one Parquet data file ([`DataFileWriter`]); `bloom`: how large its Bloom filters are.
//! - [`stats`]: a data file's per-column counts and bounds ([`ColumnStats`]), computed here, never taken from a
//!   library.
//! - [`publish`]: the snapshot producer: a set of live data files becomes an Iceberg snapshot ([`publish()`]). It is
//!   made of `changes` (what differs from the current snapshot), [`layout`] (partition specs and sort orders), `deletes`
//!   (delete files), `assemble` (the manifests of the new snapshot), `manifests` (reading and writing them), `data_file` (manifest entries), `summary`, `table`
//!   (`metadata.json`) and `expire` (old snapshots and what only they referenced).
//! - `hint`: the file beside the metadata that names the current ones ([`VersionHint`]).
//! - [`inspect`]: reads a published table back ([`read_table`]); [`check`]: the same with all that it refers to
//!   ([`check_table`]).
//! - [`store`]: where metadata files live ([`MetadataStore`], [`LocalStore`]); `durable` is how a local file is made to
//!   survive a crash, and how one is copied ([`copy_file`]).
//! - [`error`]: the crate's one error type.
//!
//! What is deliberately absent: Postgres, DataFusion, the disk cache and object-store clients. The crate never decides
//! which rows or files a table has; it is told.

mod assemble;
mod bloom;
mod changes;
pub mod check;
mod data_file;
mod deletes;
mod durable;
pub mod error;
mod expire;
mod hint;
pub mod inspect;
pub mod layout;
mod manifests;
pub mod parquet_file;
pub mod publish;
pub mod schema;
pub mod stats;
pub mod store;
mod summary;
mod table;

pub use check::{CheckedFile, CheckedTable, check_table};
pub use durable::copy_file;
pub use error::{Error, ErrorKind, Result};
pub use hint::VersionHint;
pub use inspect::{DataFileSummary, SnapshotSummary, TableSummary, read_table};
pub use layout::{Partition, PartitionField, SortField};
pub use parquet_file::{
    Compression, DataFileWriter, EncodedFile, ParquetEncoder, WriteOptions, WrittenFile,
};
pub use publish::{PublishFile, PublishRequest, Published, publish};
pub use schema::{Field, FieldType, TableSchema};
pub use stats::ColumnStats;
pub use store::{Former, LocalStore, MetadataStore, NewFile, Seen};
