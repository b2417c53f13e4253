//! Old snapshots: which ones a publication drops from the metadata, and which files only they referenced.
//!
//! Nothing is deleted here. A reader may still hold older metadata, so the caller's sweeper decides when. Data files
//! are the caller's, who knows them; of manifests and delete files nobody else keeps count.

use std::collections::HashSet;

use iceberg::spec::{ManifestContentType, ManifestFile, SnapshotRef};

use crate::error::{ErrorKind, Result};
use crate::manifests;
use crate::store::MetadataStore;
use crate::table::BaseTable;

/// The locations that the new snapshot references.
pub(crate) struct References {
    pub(crate) manifests: HashSet<String>,
    pub(crate) delete_files: HashSet<String>,
}

/// Splits the table's snapshots into those to drop and those to keep beside the new one, which counts towards `keep`.
/// What a tag or a branch holds is kept.
pub(crate) fn split(base: &BaseTable, keep: u32) -> (Vec<SnapshotRef>, Vec<SnapshotRef>) {
    let mut snapshots: Vec<SnapshotRef> = base.metadata.snapshots().cloned().collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence_number()));
    let older = usize::try_from(keep)
        .unwrap_or(usize::MAX)
        .saturating_sub(1);
    let mut expired = Vec::new();
    let mut retained = Vec::new();
    for (position, snapshot) in snapshots.into_iter().enumerate() {
        match position < older || base.pinned.contains(&snapshot.snapshot_id()) {
            true => retained.push(snapshot),
            false => expired.push(snapshot),
        }
    }
    (expired, retained)
}

/// The manifest lists, manifests and delete files that only expired snapshots reference. One that is damaged or missing
/// is no reason to fail the publication: nothing is reported whose last reference isn't certain.
///
/// # Errors
/// Of a store that doesn't answer, or refuses to: later, nobody would know what the expired snapshots had.
pub(crate) async fn unreferenced(
    store: &dyn MetadataStore,
    expired: &[SnapshotRef],
    retained: &[SnapshotRef],
    new: References,
) -> Result<Vec<String>> {
    if expired.is_empty() {
        return Ok(Vec::new());
    }
    let mut garbage: Vec<String> = expired
        .iter()
        .map(|snapshot| snapshot.manifest_list().to_string())
        .collect();
    let mut referenced = new.manifests;
    let mut retained_deletes = Vec::new();
    for snapshot in retained {
        let Some(list) = lasting(|| manifests::load_list(store, snapshot)).await? else {
            return Ok(garbage);
        };
        retained_deletes.extend(unseen(list, &mut referenced).filter(lists_deletes));
    }
    let mut expired_deletes = Vec::new();
    for snapshot in expired {
        let Some(list) = lasting(|| manifests::load_list(store, snapshot)).await? else {
            continue;
        };
        for manifest in unseen(list, &mut referenced) {
            garbage.push(manifest.manifest_path.clone());
            if lists_deletes(&manifest) {
                expired_deletes.push(manifest);
            }
        }
    }
    let deletes = unreferenced_deletes(store, expired_deletes, retained_deletes, new.delete_files);
    garbage.extend(deletes.await?);
    Ok(garbage)
}

/// `None` for what is damaged or missing, and will be.
async fn lasting<T, W>(read: impl Fn() -> W) -> Result<Option<T>>
where
    W: Future<Output = Result<T>>,
{
    let mut result = read().await;
    // It may have been damaged on its way only.
    if matches!(&result, Err(e) if e.kind() == ErrorKind::Corrupt) {
        result = read().await;
    }
    match result {
        Err(e) if !e.retryable() => Ok(None),
        result => result.map(Some),
    }
}

/// The delete files in manifests that only expired snapshots have, unless a retained one has them in another manifest.
async fn unreferenced_deletes(
    store: &dyn MetadataStore,
    expired: Vec<ManifestFile>,
    retained: Vec<ManifestFile>,
    mut referenced: HashSet<String>,
) -> Result<Vec<String>> {
    let mut candidates = Vec::new();
    for manifest in expired {
        if let Some(paths) = lasting(|| live_paths(store, manifest.clone())).await? {
            candidates.extend(paths);
        }
    }
    candidates.retain(|path| !referenced.contains(path));
    if candidates.is_empty() {
        return Ok(candidates);
    }
    for manifest in retained {
        match lasting(|| live_paths(store, manifest.clone())).await? {
            Some(paths) => referenced.extend(paths),
            None => return Ok(Vec::new()),
        }
    }
    // Inserted so that the file of several vectors is reported once.
    candidates.retain(|path| referenced.insert(path.clone()));
    Ok(candidates)
}

async fn live_paths(store: &dyn MetadataStore, manifest: ManifestFile) -> Result<Vec<String>> {
    let manifest = manifests::load_manifest(store, manifest).await?;
    let live = manifest.live.iter();
    Ok(live.map(|file| file.file.file_path().to_string()).collect())
}

/// The manifests of a list that were not seen before.
fn unseen(
    list: Vec<ManifestFile>,
    seen: &mut HashSet<String>,
) -> impl Iterator<Item = ManifestFile> {
    list.into_iter()
        .filter(|manifest| seen.insert(manifest.manifest_path.clone()))
}

fn lists_deletes(manifest: &ManifestFile) -> bool {
    manifest.content == ManifestContentType::Deletes
}
