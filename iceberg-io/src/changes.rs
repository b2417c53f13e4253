//! What a publication has to change: the wanted files and their deleted rows against those of the current snapshot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use iceberg::spec::{ManifestContentType, Operation};

use crate::deletes::PublishedDeletes;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::Placement;
use crate::manifests::{LiveFile, LoadedManifest};
use crate::publish::PublishFile;
use crate::store::MetadataStore;

/// How what is wanted differs from the current snapshot.
#[derive(Default)]
pub(crate) struct Changes<'a> {
    /// Manifests of data files, and of delete files, that stay as they are.
    pub(crate) kept: Vec<LoadedManifest>,
    /// Manifests that lose files, and those files; `live` has what stays.
    pub(crate) reduced: Vec<(LoadedManifest, Vec<LiveFile>)>,
    pub(crate) added: Vec<&'a PublishFile>,
    /// Files with deleted rows for which no delete file that stays says exactly that.
    pub(crate) undeleted: Vec<&'a PublishFile>,
    /// Where the published data files with deleted rows are, by path: their delete files belong there, too.
    pub(crate) placements: HashMap<&'a str, Placement>,
    /// A file has fewer deleted rows than before.
    restores: bool,
}

impl Changes<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.reduced.is_empty() && self.added.is_empty() && self.undeleted.is_empty()
    }

    /// The files of one kind that this snapshot removes.
    pub(crate) fn removed(&self, content: ManifestContentType) -> impl Iterator<Item = &LiveFile> {
        self.reduced
            .iter()
            .filter(move |(manifest, _)| manifest.entry.content == content)
            .flat_map(|(_, gone)| gone)
    }

    /// The delete files that stay.
    pub(crate) fn kept_deletes(&self) -> impl Iterator<Item = &LiveFile> {
        let reduced = self.reduced.iter().map(|(manifest, _)| manifest);
        self.kept
            .iter()
            .chain(reduced)
            .filter(|manifest| manifest.entry.content == ManifestContentType::Deletes)
            .flat_map(|manifest| &manifest.live)
    }

    /// As the spec has it: an append only adds data files, and a delete brings no rows.
    pub(crate) fn operation(&self) -> Operation {
        let brings = !self.added.is_empty() || self.restores;
        let removes = !self.reduced.is_empty() || !self.undeleted.is_empty();
        match (brings, removes) {
            (_, false) => Operation::Append,
            (false, true) => Operation::Delete,
            (true, true) => Operation::Overwrite,
        }
    }

    fn sort_in(&mut self, mut manifest: LoadedManifest, stays: Vec<LiveFile>, gone: Vec<LiveFile>) {
        manifest.live = stays;
        if !gone.is_empty() {
            self.reduced.push((manifest, gone));
        } else if !manifest.live.is_empty() {
            self.kept.push(manifest);
        }
    }
}

/// Compares data files by path and delete files by what they say. Fails if a file is listed twice, or isn't what was
/// published under its name.
pub(crate) async fn compare<'a>(
    store: &dyn MetadataStore,
    files: &'a [PublishFile],
    loaded: Vec<LoadedManifest>,
) -> Result<Changes<'a>> {
    let wanted = by_path(files)?;
    let (data, deletes): (Vec<_>, Vec<_>) = loaded
        .into_iter()
        .partition(|manifest| manifest.entry.content == ManifestContentType::Data);
    let mut changes = Changes::default();

    // With the sequence numbers: a delete file applies to no younger data file.
    let mut present: HashMap<&str, i64> = HashMap::new();
    for mut manifest in data {
        let mut stays = Vec::new();
        let mut gone = Vec::new();
        let spec = Arc::new(manifest.spec.clone());
        for live in std::mem::take(&mut manifest.live) {
            let Some(&file) = wanted.get(live.file.file_path()) else {
                gone.push(live);
                continue;
            };
            check_same(file, &live)?;
            if present.insert(&file.path, live.sequence_number).is_some() {
                let message = format!("file \"{}\" is in two manifests", file.path);
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            if !file.deleted.is_empty() {
                let placement = Placement {
                    spec: spec.clone(),
                    schema: manifest.schema.clone(),
                    partition: live.file.partition().clone(),
                };
                changes.placements.insert(&file.path, placement);
            }
            stays.push(live);
        }
        changes.sort_in(manifest, stays, gone);
    }

    let mut covered: HashSet<&str> = HashSet::new();
    let mut published = PublishedDeletes::new(store);
    for mut manifest in deletes {
        let mut stays = Vec::new();
        let mut gone = Vec::new();
        for live in std::mem::take(&mut manifest.live) {
            let referenced = live.file.referenced_data_file();
            let file = referenced.and_then(|path| wanted.get(path.as_str()).copied());
            let Some(file) = file else {
                gone.push(live);
                continue;
            };
            let applies = present
                .get(file.path.as_str())
                .is_some_and(|&sequence_number| sequence_number <= live.sequence_number);
            if applies
                && published.matches(&live.file, &file.deleted).await?
                && covered.insert(&file.path)
            {
                stays.push(live);
            } else {
                changes.restores |= live.file.record_count() > file.deleted.len() as u64;
                gone.push(live);
            }
        }
        changes.sort_in(manifest, stays, gone);
    }

    changes.added = files
        .iter()
        .filter(|file| !present.contains_key(file.path.as_str()))
        .collect();
    changes.undeleted = files
        .iter()
        .filter(|file| !file.deleted.is_empty() && !covered.contains(file.path.as_str()))
        .collect();
    Ok(changes)
}

fn by_path(files: &[PublishFile]) -> Result<HashMap<&str, &PublishFile>> {
    let mut wanted = HashMap::with_capacity(files.len());
    for file in files {
        if wanted.insert(file.path.as_str(), file).is_some() {
            let message = format!("file \"{}\" is listed twice", file.path);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
    }
    Ok(wanted)
}

fn check_same(file: &PublishFile, live: &LiveFile) -> Result<()> {
    if file.row_count == live.file.record_count()
        && file.size_bytes == live.file.file_size_in_bytes()
    {
        return Ok(());
    }
    let message = format!(
        "file \"{}\" differs from what was published under its name",
        file.path
    );
    Err(Error::new(ErrorKind::InvalidInput, message))
}
