//! A shard's index on disk, a redb database. It is read once, when the shard is opened, and written in batches.
//!
//! redb trusts its file. One that was damaged may make it panic, so all calls to it are guarded. A file that would have to be
//! repaired, which takes as long as the file is large, counts as damaged.

use crate::record::Batch;
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition, TableError, WriteTransaction,
};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// What redb may keep in memory of an index: it is never read again.
const MEMORY_BYTES: usize = 2 << 20;

const FORMAT: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<u64, &[u8]> = TableDefinition::new("objects");
const BLOCKS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("blocks");

#[derive(Debug)]
pub(crate) struct Index {
    /// Until it is dropped.
    database: Option<Database>,
}

/// redb writes when a database is closed, too.
impl Drop for Index {
    fn drop(&mut self) {
        let database = self.database.take();
        if let Err(panic) = guarded(|| drop(database)) {
            tracing::warn!("could not close an index of the disk cache: {panic}");
        }
    }
}

/// Why an index can't be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Another process has it: it must be left alone.
    Busy,
    /// It is worth nothing and can be removed.
    Damaged(String),
    Failed(String),
}

/// What a visitor of rows is shown.
#[derive(Debug)]
pub(crate) enum Row<'a> {
    Object(u64, &'a [u8]),
    Block((u64, u32), &'a [u8]),
}

impl Index {
    /// Opens the index, or creates it where there is none.
    pub(crate) fn open(path: &Path, block_bytes: u64) -> Result<Index, OpenError> {
        guarded(|| {
            let database = Database::builder()
                .set_cache_size(MEMORY_BYTES)
                .set_repair_callback(|session| session.abort())
                .create(path)
                .map_err(open_error)?;
            let index = Index {
                database: Some(database),
            };
            index.check_format(block_bytes)?;
            Ok(index)
        })
        .unwrap_or_else(|panic| Err(OpenError::Damaged(panic)))
    }

    /// Writes the format into a new index, or compares it.
    fn check_format(&self, block_bytes: u64) -> Result<(), OpenError> {
        let wanted = [("format", FORMAT), ("block_bytes", block_bytes)];
        let read = self.read().map_err(OpenError::Damaged)?;
        match read.open_table(META) {
            Ok(meta) => {
                for (name, wanted) in wanted {
                    let is = meta.get(name).map_err(damaged)?.map(|value| value.value());
                    if is != Some(wanted) {
                        let message = format!("its {name} is {is:?}, not {wanted}");
                        return Err(OpenError::Damaged(message));
                    }
                }
                Ok(())
            }
            Err(TableError::TableDoesNotExist(_)) => {
                self.format(&wanted).map_err(OpenError::Failed)
            }
            Err(error) => Err(damaged(error)),
        }
    }

    fn format(&self, meta: &[(&str, u64)]) -> Result<(), String> {
        let write = self.begin()?;
        {
            let mut table = write.open_table(META).map_err(text)?;
            for (name, value) in meta {
                table.insert(*name, *value).map_err(text)?;
            }
            write.open_table(OBJECTS).map_err(text)?;
            write.open_table(BLOCKS).map_err(text)?;
        }
        write.commit().map_err(text)
    }

    /// Shows all objects, then all blocks. `Err`: the index is damaged.
    pub(crate) fn visit(&self, mut visit: impl FnMut(Row<'_>)) -> Result<(), String> {
        guarded(|| {
            let read = self.read()?;
            for row in read
                .open_table(OBJECTS)
                .map_err(text)?
                .iter()
                .map_err(text)?
            {
                let (key, value) = row.map_err(text)?;
                visit(Row::Object(key.value(), value.value()));
            }
            for row in read
                .open_table(BLOCKS)
                .map_err(text)?
                .iter()
                .map_err(text)?
            {
                let (key, value) = row.map_err(text)?;
                visit(Row::Block(key.value(), value.value()));
            }
            Ok(())
        })
        .unwrap_or_else(Err)
    }

    /// Makes changes durable, all of them or none: batches until an empty one.
    pub(crate) fn commit(&self, mut batches: impl FnMut() -> Batch) -> Result<(), String> {
        guarded(|| {
            let write = self.begin()?;
            {
                let mut objects = write.open_table(OBJECTS).map_err(text)?;
                let mut blocks = write.open_table(BLOCKS).map_err(text)?;
                loop {
                    let batch = batches();
                    if batch.len() == 0 {
                        break;
                    }
                    for (key, value) in batch.objects {
                        match value {
                            Some(value) => objects.insert(key, &*value).map(drop).map_err(text)?,
                            None => objects.remove(key).map(drop).map_err(text)?,
                        }
                    }
                    for (key, value) in batch.blocks {
                        match value {
                            Some(value) => blocks.insert(key, &*value).map(drop).map_err(text)?,
                            None => blocks.remove(key).map(drop).map_err(text)?,
                        }
                    }
                }
            }
            write.commit().map_err(text)
        })
        .unwrap_or_else(Err)
    }

    fn read(&self) -> Result<ReadTransaction, String> {
        let database = self.database.as_ref().ok_or("the index is closed")?;
        database.begin_read().map_err(text)
    }

    /// A transaction after which the file needs no repair, whenever the process is killed.
    fn begin(&self) -> Result<WriteTransaction, String> {
        let database = self.database.as_ref().ok_or("the index is closed")?;
        let mut write = database.begin_write().map_err(text)?;
        write.set_durability(Durability::Immediate).map_err(text)?;
        write.set_quick_repair(true);
        Ok(write)
    }
}

fn open_error(error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => OpenError::Busy,
        DatabaseError::Storage(redb::StorageError::Io(error))
            if error.kind() != std::io::ErrorKind::InvalidData
                && error.kind() != std::io::ErrorKind::UnexpectedEof =>
        {
            OpenError::Failed(error.to_string())
        }
        other => OpenError::Damaged(other.to_string()),
    }
}

fn damaged(error: impl Display) -> OpenError {
    OpenError::Damaged(error.to_string())
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// `Err` is the message of a panic.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("panic: {}", text.unwrap_or("no message"))
    })
}
