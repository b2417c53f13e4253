//! Delete files: what says that rows of a published data file are deleted.
//!
//! - `position_file`: position-delete files, what format version 2 has.
//! - `vector`: deletion vectors, what format version 3 has instead, and `puffin`: the files that hold them.
//!
//! A data file has at most one entry in the delete manifests, which has all of its deleted rows. The entry is carried
//! over from snapshot to snapshot while it says exactly what is to be said, also when the table has been upgraded
//! meanwhile; otherwise it is replaced. How an entry is compared with the wanted positions:
//!
//! - a position-delete file has a digest of its positions in its name, and their number in its entry;
//! - a deletion vector is read back, as a Puffin file has many of them. One that can't be read is replaced.

mod position_file;
mod puffin;
mod vector;

use std::collections::HashMap;

use bytes::Bytes;
use iceberg::spec::{DataContentType, DataFile, DataFileFormat, FormatVersion};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::Placement;
use crate::publish::PublishFile;
use crate::store::{self, MetadataStore, NewFile};

/// The delete files of a publication and their manifest entries.
#[derive(Default)]
pub(crate) struct NewDeletes {
    pub(crate) files: Vec<NewFile>,
    pub(crate) entries: Vec<DataFile>,
}

/// Encodes what says that the deleted rows of `files` are deleted. The delete files are to be in the table's
/// `directory` of data files. An entry is in the partition of its data file, which `placements` has by path.
pub(crate) async fn encode(
    files: &[&PublishFile],
    placements: &HashMap<&str, Placement>,
    format: FormatVersion,
    directory: &str,
    commit_id: &Uuid,
) -> Result<NewDeletes> {
    if files.is_empty() {
        return Ok(NewDeletes::default());
    }
    let stem = format!("{directory}/{commit_id}");
    let deleted = files
        .iter()
        .map(|file| {
            let place = placements.get(file.path.as_str()).ok_or_else(|| {
                let message = format!("file \"{}\" has no place in the table", file.path);
                Error::new(ErrorKind::Internal, message)
            })?;
            Ok(Deleted {
                data_file: file.path.clone(),
                place: place.clone(),
                positions: file.deleted.clone(),
            })
        })
        .collect::<Result<Vec<_>>>()?;
    if format < FormatVersion::V3 {
        return store::blocking(move || position_files(&stem, &deleted)).await;
    }
    let vectors = store::blocking(move || {
        deleted
            .into_iter()
            .map(to_vector)
            .collect::<Result<Vec<_>>>()
    })
    .await?;
    let (file, entries) = puffin::encode(format!("{stem}-deletes.puffin"), vectors).await?;
    Ok(NewDeletes {
        files: vec![file],
        entries,
    })
}

/// The deleted rows of a data file.
struct Deleted {
    data_file: String,
    place: Placement,
    positions: Vec<u32>,
}

fn position_files(stem: &str, deleted: &[Deleted]) -> Result<NewDeletes> {
    let mut new = NewDeletes::default();
    for (ordinal, one) in deleted.iter().enumerate() {
        let location = position_file::location(&format!("{stem}-{ordinal:05}"), &one.positions);
        let (file, entry) =
            position_file::encode(location, &one.data_file, &one.place, &one.positions)?;
        new.files.push(file);
        new.entries.push(entry);
    }
    Ok(new)
}

fn to_vector(deleted: Deleted) -> Result<puffin::Vector> {
    Ok(puffin::Vector {
        cardinality: deleted.positions.len() as u64,
        blob: vector::encode(&deleted.positions)?,
        data_file: deleted.data_file,
        place: deleted.place,
    })
}

/// Compares published entries with what is wanted.
pub(crate) struct PublishedDeletes<'s> {
    store: &'s dyn MetadataStore,
    /// The Puffin file that was read last: the vectors of one are next to each other in a manifest.
    puffin: Option<(String, Bytes)>,
}

impl<'s> PublishedDeletes<'s> {
    pub(crate) fn new(store: &'s dyn MetadataStore) -> Self {
        Self {
            store,
            puffin: None,
        }
    }

    /// Whether an entry says that exactly these positions of the data file that it refers to are deleted.
    pub(crate) async fn matches(&mut self, entry: &DataFile, positions: &[u32]) -> Result<bool> {
        if entry.content_type() != DataContentType::PositionDeletes
            || entry.record_count() != positions.len() as u64
        {
            return Ok(false);
        }
        match entry.file_format() {
            DataFileFormat::Parquet => Ok(position_file::holds(
                entry.file_path(),
                entry.record_count(),
                positions,
            )),
            DataFileFormat::Puffin => self.vector_is(entry, positions).await,
            _ => Ok(false),
        }
    }

    async fn vector_is(&mut self, entry: &DataFile, positions: &[u32]) -> Result<bool> {
        let content = match self.read(entry.file_path()).await {
            Ok(content) => content,
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        let range = |offset: Option<i64>, size: Option<i64>| {
            let start = usize::try_from(offset?).ok()?;
            Some(start..start.checked_add(usize::try_from(size?).ok()?)?)
        };
        let blob = range(entry.content_offset(), entry.content_size_in_bytes())
            .and_then(|range| content.get(range));
        let Some(Ok(found)) = blob.map(vector::decode) else {
            return Ok(false);
        };
        Ok(found
            .iter()
            .eq(positions.iter().map(|&position| u64::from(position))))
    }

    async fn read(&mut self, location: &str) -> Result<Bytes> {
        if let Some((known, content)) = &self.puffin
            && known == location
        {
            return Ok(content.clone());
        }
        let content = self.store.read(location).await?;
        self.puffin = Some((location.to_string(), content.clone()));
        Ok(content)
    }
}
