//! What a `metadata.json` refers to, for a comparison with the files that there are. What can't be read is said, and the
//! rest is read all the same.

use std::collections::{BTreeMap, BTreeSet};

use iceberg::spec::{ManifestContentType, SnapshotRef};
use uuid::Uuid;

use crate::error::Result;
use crate::hint;
use crate::manifests::{self, LiveFile};
use crate::store::MetadataStore;
use crate::table;

/// What metadata, and the files that they refer to, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedTable {
    pub uuid: Uuid,
    pub current_snapshot_id: Option<i64>,
    /// Of the current snapshot, in the order of their paths.
    pub data_files: Vec<CheckedFile>,
    /// All files that the metadata name for any snapshot, earlier metadata and themselves included, each once.
    pub references: Vec<String>,
    /// Files that could not be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// What the version hint beside them says, if there is one.
    pub hint: Option<String>,
}

/// A live data file, with what its delete files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    pub path: String,
    pub size_bytes: u64,
    pub row_count: u64,
    /// How many of its rows are deleted.
    pub deleted: u64,
    pub delete_files: Vec<String>,
}

/// Reads a table's metadata with all manifests. An error if the metadata themselves can't be read.
pub async fn check_table(
    store: &dyn MetadataStore,
    metadata_location: &str,
) -> Result<CheckedTable> {
    let metadata = table::parse(metadata_location, &store.read(metadata_location).await?)?;
    let mut walk = Walk::default();
    walk.references.insert(metadata_location.to_string());
    let log = metadata.metadata_log().iter();
    walk.references
        .extend(log.map(|entry| entry.metadata_file.clone()));
    let mut live = Vec::new();
    if let Some(current) = metadata.current_snapshot() {
        live = walk.snapshot(store, current).await;
    }
    // Their files count as references only. A manifest that was met is not read again.
    for snapshot in metadata.snapshots() {
        walk.snapshot(store, snapshot).await;
    }
    let hint = match hint::read(store, metadata_location).await {
        Ok(hint) => hint.map(|content| String::from_utf8_lossy(&content).trim().to_string()),
        Err(e) => {
            walk.fail("version-hint.text", &e);
            None
        }
    };
    let data_files = walk.data_files(live);
    walk.unreadable.sort_unstable();
    Ok(CheckedTable {
        uuid: metadata.uuid(),
        current_snapshot_id: metadata.current_snapshot_id(),
        data_files,
        references: walk.references.into_iter().collect(),
        unreadable: walk.unreadable,
        hint,
    })
}

/// What was found on the way.
#[derive(Default)]
struct Walk {
    references: BTreeSet<String>,
    unreadable: Vec<(String, String)>,
}

impl Walk {
    fn fail(&mut self, path: &str, reason: &dyn std::fmt::Display) {
        self.unreadable.push((path.to_string(), reason.to_string()));
    }

    /// The live files in those manifests of a snapshot that were not met before.
    async fn snapshot(
        &mut self,
        store: &dyn MetadataStore,
        snapshot: &SnapshotRef,
    ) -> Vec<(ManifestContentType, LiveFile)> {
        let mut live = Vec::new();
        if !self.references.insert(snapshot.manifest_list().to_string()) {
            return live;
        }
        let list = match manifests::load_list(store, snapshot).await {
            Ok(list) => list,
            Err(e) => {
                self.fail(snapshot.manifest_list(), &e);
                return live;
            }
        };
        for entry in list {
            if !self.references.insert(entry.manifest_path.clone()) {
                continue;
            }
            let path = entry.manifest_path.clone();
            match manifests::load_manifest(store, entry).await {
                Ok(manifest) => {
                    let content = manifest.entry.content;
                    live.extend(manifest.live.into_iter().map(|file| (content, file)));
                }
                Err(e) => self.fail(&path, &e),
            }
        }
        let paths = live.iter().map(|(_, live)| live.file.file_path());
        self.references.extend(paths.map(str::to_string));
        live
    }

    /// The data files among a snapshot's live files, with the delete files that apply to them.
    fn data_files(&mut self, live: Vec<(ManifestContentType, LiveFile)>) -> Vec<CheckedFile> {
        let (data, deletes): (Vec<_>, Vec<_>) = live
            .into_iter()
            .partition(|(content, _)| *content == ManifestContentType::Data);
        let mut files: BTreeMap<String, (i64, CheckedFile)> = BTreeMap::new();
        for (_, live) in data {
            let path = live.file.file_path().to_string();
            let file = CheckedFile {
                path: path.clone(),
                size_bytes: live.file.file_size_in_bytes(),
                row_count: live.file.record_count(),
                deleted: 0,
                delete_files: Vec::new(),
            };
            if files
                .insert(path.clone(), (live.sequence_number, file))
                .is_some()
            {
                self.fail(&path, &"it is in two manifests");
            }
        }
        for (_, live) in deletes {
            let Some(target) = live.file.referenced_data_file() else {
                continue;
            };
            // A delete file applies to no younger data file.
            if let Some((sequence_number, file)) = files.get_mut(&target)
                && *sequence_number <= live.sequence_number
            {
                file.deleted += live.file.record_count();
                file.delete_files.push(live.file.file_path().to_string());
            }
        }
        files.into_values().map(|(_, file)| file).collect()
    }
}
