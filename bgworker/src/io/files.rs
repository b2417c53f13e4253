//! Removing, listing and copying files, wherever they are.

use super::new_files::RemoteFile;
use super::places::Places;
use super::{NewFiles, cancelled, local};
use crate::runtime::blocking;
use crate::store::Remote;
use pg_lake_plan::message::{CopyFile, ErrorCode, Priority, WireError};
use pg_lake_plan::store::{BLOCK_BYTES, checksum, is_remote};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Fetched at a time.
const COPY_BYTES: u64 = 16 * BLOCK_BYTES;

/// Removes files, durably; those that are missing are no error. Returns how many were there. A name
/// that ends in `/` is a table's directory, which goes if no file is left in it. What can't be removed
/// doesn't keep files elsewhere from going; the first error is returned.
pub(crate) async fn remove(places: &Places, paths: Vec<String>) -> Result<u64, WireError> {
    let (remote, local): (Vec<String>, Vec<String>) =
        paths.into_iter().partition(|path| is_remote(path));
    let mut outcomes = vec![];
    if !local.is_empty() {
        outcomes.push(local::remove(local).await);
    }
    let mut batches: Vec<(Arc<Remote>, Vec<String>)> = vec![];
    // A store has no directories.
    for path in remote.into_iter().filter(|path| !path.ends_with('/')) {
        match places.remote(&path) {
            Ok(Some(store)) => {
                let batch = batches
                    .iter_mut()
                    .find(|(same, _)| Arc::ptr_eq(same, &store));
                match batch {
                    Some((_, batch)) => batch.push(path),
                    None => batches.push((store, vec![path])),
                }
            }
            Ok(None) => {}
            Err(error) => outcomes.push(Err(error)),
        }
    }
    for (store, batch) in batches {
        outcomes.push(store.delete(&batch).await);
    }
    outcomes.into_iter().sum()
}

/// The locations of all files below a directory, sorted, with their sizes; none if it is missing.
pub(crate) async fn list(
    places: &Places,
    directory: String,
) -> Result<Vec<(String, u64)>, WireError> {
    let Some(remote) = places.remote(&directory)? else {
        return local::list(directory).await;
    };
    let prefix = format!("{}/", directory.trim_end_matches('/'));
    let mut objects = remote.list(&prefix).await?;
    objects.sort_unstable();
    Ok(objects)
}

/// Copies files, durably, one by one. A cancel stops it soon, also within a large file; nothing is
/// left then, as after an error. Returns the checksums of each copy's blocks, if it is in a store.
pub(crate) async fn copy(
    places: &Places,
    files: Vec<CopyFile>,
    cancel: &CancellationToken,
) -> Result<(NewFiles, Vec<Vec<u32>>), WireError> {
    let mut copies = NewFiles::default();
    let mut checksums = vec![];
    for file in &files {
        let (from, to) = (places.remote(&file.from)?, places.remote(&file.to)?);
        let Some(to) = to else {
            copies.add(copy_here(places, from.as_deref(), file, cancel).await?);
            checksums.push(vec![]);
            continue;
        };
        let copied = copy_there(from.as_ref(), &to, file, cancel).await;
        let is_ours = !matches!(&copied, Err(e) if e.code == ErrorCode::NameTaken);
        if is_ours {
            let location = file.to.clone();
            let remote = to;
            copies.add_remote(places, RemoteFile { remote, location });
        }
        checksums.push(copied?);
    }
    Ok((copies, checksums))
}

/// Copies a file to one in a store; the checksums of its blocks.
async fn copy_there(
    from: Option<&Arc<Remote>>,
    to: &Arc<Remote>,
    file: &CopyFile,
    cancel: &CancellationToken,
) -> Result<Vec<u32>, WireError> {
    let copied = match from {
        None => {
            let from = local::local(&file.from)?;
            return to.put_file(&file.to, &from, file.size, cancel).await;
        }
        Some(from) => {
            to.copy_from(from, &file.from, &file.to, file.size, cancel)
                .await?
        }
    };
    match copied {
        Some(copied) if copied != file.checksums => Err(damaged(file)),
        // Readers compare what the store has copied by itself with them.
        _ => Ok(file.checksums.clone()),
    }
}

/// Copies a file to a local one.
async fn copy_here(
    places: &Places,
    from: Option<&Remote>,
    file: &CopyFile,
    cancel: &CancellationToken,
) -> Result<PathBuf, WireError> {
    let to = local::local(&file.to)?;
    match from {
        None => {
            let from = local::local(&file.from)?;
            local::copy(from, to.clone(), file.size, cancel).await?;
        }
        Some(from) => {
            let staged = places.stage()?;
            download(from, file, staged.path(), cancel).await?;
            let staged_path = staged.path().to_owned();
            local::copy(staged_path, to.clone(), file.size, cancel).await?;
        }
    }
    Ok(to)
}

fn damaged(file: &CopyFile) -> WireError {
    let message = format!("object \"{}\" is damaged", file.from);
    WireError::new(ErrorCode::DataCorrupted, message)
        .detail("The checksum of a block is not that of what was written.")
}

/// Fetches an object's blocks, which have to be those that were written.
async fn download(
    from: &Remote,
    file: &CopyFile,
    to: &Path,
    cancel: &CancellationToken,
) -> Result<(), WireError> {
    let failed = |e: std::io::Error| could_not_write(to, &e);
    let mut options = OpenOptions::new();
    let mut target = options
        .write(true)
        .create_new(true)
        .open(to)
        .map_err(failed)?;
    let mut start = 0;
    while start < file.size {
        let end = file.size.min(start + COPY_BYTES);
        let bytes = cancel
            .run_until_cancelled(from.get(&file.from, start..end, Priority::Background))
            .await
            .unwrap_or_else(|| Err(cancelled()))?;
        let first = usize::try_from(start / BLOCK_BYTES).unwrap_or(usize::MAX);
        let expected = file.checksums.get(first..).unwrap_or_default().to_vec();
        let path = to.to_owned();
        let written = blocking("writing a file", move || {
            if !is_begun_by(&expected, &bytes) {
                return Ok(None);
            }
            let written = target.write_all(&bytes);
            written.map_err(|e| could_not_write(&path, &e))?;
            Ok(Some(target))
        });
        target = written.await?.ok_or_else(|| damaged(file))?;
        start = end;
    }
    Ok(())
}

/// Whether the first of the checksums are those of these blocks.
fn is_begun_by(checksums: &[u32], bytes: &[u8]) -> bool {
    let blocks = bytes.chunks(BLOCK_BYTES as usize);
    blocks.len() <= checksums.len()
        && blocks
            .zip(checksums)
            .all(|(block, expected)| checksum(block) == *expected)
}

fn could_not_write(file: &Path, error: &std::io::Error) -> WireError {
    let message = format!("could not write file \"{}\"", file.display());
    super::error::file_error(message, error, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_needs_its_checksum() {
        let bytes = vec![7; BLOCK_BYTES as usize + 1];
        let sums: Vec<u32> = bytes.chunks(BLOCK_BYTES as usize).map(checksum).collect();
        let more = [sums.as_slice(), &[1]].concat();
        assert!(is_begun_by(&sums, &bytes) && is_begun_by(&more, &bytes));
        assert!(!is_begun_by(&sums[..1], &bytes) && !is_begun_by(&[], &bytes));
        assert!(!is_begun_by(&[sums[0], sums[1] ^ 1], &bytes));
    }
}
