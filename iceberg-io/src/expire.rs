//! Old snapshots: which ones a publication drops from the metadata, and which files only they referenced.
//!
//! Nothing is deleted here. A reader may still hold older metadata, so the caller's sweeper decides when.

use std::collections::HashSet;

use iceberg::spec::{ManifestFile, SnapshotRef};

use crate::manifests;
use crate::store::MetadataStore;
use crate::table::BaseTable;

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

/// The manifest lists and manifests that only expired snapshots reference. A list that can't be read is no reason to
/// fail the publication: nothing is reported whose last reference isn't certain.
pub(crate) async fn unreferenced(
    store: &dyn MetadataStore,
    expired: &[SnapshotRef],
    retained: &[SnapshotRef],
    new_manifests: &HashSet<String>,
) -> Vec<String> {
    if expired.is_empty() {
        return Vec::new();
    }
    let mut garbage: Vec<String> = expired
        .iter()
        .map(|snapshot| snapshot.manifest_list().to_string())
        .collect();
    let mut referenced = new_manifests.clone();
    for snapshot in retained {
        match manifests::load_list(store, snapshot).await {
            Ok(list) => referenced.extend(paths(list)),
            Err(_) => return garbage,
        }
    }
    for snapshot in expired {
        let Ok(list) = manifests::load_list(store, snapshot).await else {
            continue;
        };
        for path in paths(list) {
            // Inserted so that it is reported once.
            if referenced.insert(path.clone()) {
                garbage.push(path);
            }
        }
    }
    garbage
}

fn paths(list: Vec<ManifestFile>) -> impl Iterator<Item = String> {
    list.into_iter().map(|manifest| manifest.manifest_path)
}
