//! What a publication has to change: the wanted files against those of the current snapshot.

use std::collections::{BTreeMap, HashMap, HashSet};

use iceberg::spec::Operation;

use crate::error::{Error, ErrorKind, Result};
use crate::manifests::{LiveFile, LoadedManifest};
use crate::publish::PublishFile;

/// Entries of a manifest, at most.
pub(crate) const MANIFEST_ENTRIES: usize = 4096;

/// From this many carried-over manifests on, those that are less than half full are merged.
const MERGE_FROM: usize = 100;

/// Manifests to merge, by the ids of their schema and partition spec.
pub(crate) type MergeGroups = BTreeMap<(i32, i32), Vec<LoadedManifest>>;

/// How the wanted files differ from those of the current snapshot.
pub(crate) struct Changes<'a> {
    pub(crate) kept: Vec<LoadedManifest>,
    /// Manifests that lose files, and those files; `live` has what stays.
    pub(crate) reduced: Vec<(LoadedManifest, Vec<LiveFile>)>,
    pub(crate) added: Vec<&'a PublishFile>,
}

impl Changes<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.reduced.is_empty() && self.added.is_empty()
    }

    pub(crate) fn removed(&self) -> impl Iterator<Item = &LiveFile> {
        self.reduced.iter().flat_map(|(_, gone)| gone)
    }

    pub(crate) fn operation(&self) -> Operation {
        match (self.added.is_empty(), self.reduced.is_empty()) {
            (_, true) => Operation::Append,
            (true, false) => Operation::Delete,
            (false, false) => Operation::Overwrite,
        }
    }
}

/// Compares by path. Fails if a file is listed twice, or isn't what was published under its name.
pub(crate) fn compare(files: &[PublishFile], loaded: Vec<LoadedManifest>) -> Result<Changes<'_>> {
    let mut wanted: HashMap<&str, &PublishFile> = HashMap::with_capacity(files.len());
    for file in files {
        if wanted.insert(&file.path, file).is_some() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("file \"{}\" is listed twice", file.path),
            ));
        }
    }
    let mut present: HashSet<&str> = HashSet::new();
    let mut changes = Changes {
        kept: Vec::new(),
        reduced: Vec::new(),
        added: Vec::new(),
    };
    for mut manifest in loaded {
        let mut stays = Vec::new();
        let mut gone = Vec::new();
        for live in std::mem::take(&mut manifest.live) {
            let Some((&path, &file)) = wanted.get_key_value(live.file.file_path()) else {
                gone.push(live);
                continue;
            };
            if file.row_count != live.file.record_count()
                || file.size_bytes != live.file.file_size_in_bytes()
            {
                let message =
                    format!("file \"{path}\" differs from what was published under its name");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            if !present.insert(path) {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    format!("file \"{path}\" is in two manifests"),
                ));
            }
            stays.push(live);
        }
        manifest.live = stays;
        if !gone.is_empty() {
            changes.reduced.push((manifest, gone));
        } else if !manifest.live.is_empty() {
            changes.kept.push(manifest);
        }
    }
    changes.added = files
        .iter()
        .filter(|file| !present.contains(file.path.as_str()))
        .collect();
    Ok(changes)
}

/// Takes out the manifests to merge, by the schema and partition spec that they were written with, which a rewrite
/// keeps.
pub(crate) fn to_merge(kept: Vec<LoadedManifest>) -> (MergeGroups, Vec<LoadedManifest>) {
    let mut groups = MergeGroups::new();
    if kept.len() < MERGE_FROM {
        return (groups, kept);
    }
    let (small, mut rest): (Vec<_>, Vec<_>) = kept
        .into_iter()
        .partition(|m| m.live.len() < MANIFEST_ENTRIES / 2);
    for manifest in small {
        groups
            .entry((manifest.schema.schema_id(), manifest.spec.spec_id()))
            .or_default()
            .push(manifest);
    }
    let alone: Vec<_> = groups
        .iter()
        .filter(|(_, group)| group.len() < 2)
        .map(|(key, _)| *key)
        .collect();
    rest.extend(
        alone
            .into_iter()
            .filter_map(|key| groups.remove(&key))
            .flatten(),
    );
    (groups, rest)
}
