//! The extension's catalogs in schema `lake`: ordinary heap tables, so that MVCC, savepoints and
//! crash recovery come from Postgres.
//!
//! * [`storage`]: which storage a relation's file belongs to
//! * [`data_file`]: the cold files of a storage
//! * [`intent`]: what is about to be written
//! * [`garbage`]: what may be removed once no snapshot needs it
//! * [`publication`]: the published Iceberg metadata of a storage

pub mod data_file;
pub mod garbage;
pub mod intent;
pub mod publication;
pub mod storage;
