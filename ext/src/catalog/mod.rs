//! The extension's catalogs in schema `lake`: ordinary heap tables, so that MVCC, savepoints and
//! crash recovery come from Postgres.
//!
//! * [`storage`]: which storage a relation's file belongs to
//! * [`data_file`]: the cold files of a storage
//! * [`mark`], [`anchor`]: deletions and locks of cold rows; [`file_mark`]: deletions of whole files
//! * `forward`: where flushed rows were
//! * [`replaced`]: files that CLUSTER has replaced, and older snapshots see
//! * [`intent`]: what is about to be written
//! * [`garbage`]: what may be removed once no snapshot needs it
//! * [`options`]: table options, which are in `pg_class` and whose text `option_text` reads; [`layout`]: those about
//!   partitions, order and Bloom filters, whose text `layout_text` reads
//! * [`publication`]: the published Iceberg metadata of a storage
//! * [`tablespace`]: tablespaces in object stores, which are in `pg_tablespace`; [`store_options`]: what their options say

pub mod anchor;
pub mod data_file;
pub mod file_mark;
mod forward;
pub mod garbage;
pub mod intent;
pub mod layout;
mod layout_text;
pub mod locate;
pub mod mark;
pub mod missing_value;
mod option_text;
pub mod options;
pub mod publication;
pub mod replaced;
pub mod storage;
pub mod store_options;
pub mod tablespace;
