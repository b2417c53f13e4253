//! A snapshot's summary: what it added and removed, and what the table holds with it.

use std::collections::{HashMap, HashSet};

use iceberg::spec::{DataFile, DataFileFormat, ManifestContentType, Struct};

use crate::changes::Changes;
use crate::layout::Placement;
use crate::publish::PublishFile;

/// Files, rows and bytes. The rows of delete files are the deleted positions, the bytes of a deletion vector those of
/// its blob.
#[derive(Default, Clone, Copy)]
struct Total {
    files: u64,
    rows: u64,
    bytes: u64,
    /// How many of the files are deletion vectors.
    vectors: u64,
}

impl Total {
    fn plus(mut self, (rows, bytes): (u64, u64)) -> Self {
        self.files += 1;
        self.rows += rows;
        self.bytes += bytes;
        self
    }

    fn plus_delete(mut self, file: &DataFile) -> Self {
        let blob = file
            .content_size_in_bytes()
            .and_then(|size| u64::try_from(size).ok());
        let bytes = blob.unwrap_or_else(|| file.file_size_in_bytes());
        self.vectors += u64::from(file.file_format() == DataFileFormat::Puffin);
        self.plus((file.record_count(), bytes))
    }
}

fn size(file: &PublishFile) -> (u64, u64) {
    (file.row_count, file.size_bytes)
}

/// One kind of files.
struct Kind {
    live: Total,
    added: Total,
    removed: Total,
}

/// What the snapshot's summary says.
pub(crate) struct Counts {
    data: Kind,
    deletes: Kind,
    changed_partitions: usize,
    pub(crate) manifests_kept: usize,
    pub(crate) manifests_replaced: usize,
}

impl Counts {
    /// `new_deletes` are the entries of the snapshot's new delete files.
    pub(crate) fn of(
        files: &[PublishFile],
        changes: &Changes<'_>,
        placements: &HashMap<&str, Placement>,
        new_deletes: &[DataFile],
    ) -> Self {
        let added = changes.added.iter().copied().map(size);
        let removed = changes
            .removed(ManifestContentType::Data)
            .map(|live| (live.file.record_count(), live.file.file_size_in_bytes()));
        let data = Kind {
            live: files.iter().map(size).fold(Total::default(), Total::plus),
            added: added.fold(Total::default(), Total::plus),
            removed: removed.fold(Total::default(), Total::plus),
        };
        let kept = changes.kept_deletes().map(|live| &live.file);
        let removed = changes
            .removed(ManifestContentType::Deletes)
            .map(|live| &live.file);
        let deletes = Kind {
            live: kept
                .chain(new_deletes)
                .fold(Total::default(), Total::plus_delete),
            added: new_deletes
                .iter()
                .fold(Total::default(), Total::plus_delete),
            removed: removed.fold(Total::default(), Total::plus_delete),
        };
        Self {
            data,
            deletes,
            changed_partitions: changed_partitions(changes, placements),
            manifests_kept: 0,
            manifests_replaced: 0,
        }
    }

    /// The spec's optional snapshot summary fields; counts of changes appear only where there were any.
    pub(crate) fn summary(&self, manifests_created: usize) -> HashMap<String, String> {
        let (data, deletes) = (&self.data, &self.deletes);
        let changes = [
            ("added-data-files", data.added.files),
            ("added-records", data.added.rows),
            ("added-files-size", data.added.bytes + deletes.added.bytes),
            ("deleted-data-files", data.removed.files),
            ("deleted-records", data.removed.rows),
            (
                "removed-files-size",
                data.removed.bytes + deletes.removed.bytes,
            ),
            ("added-delete-files", deletes.added.files),
            (
                "added-position-delete-files",
                deletes.added.files - deletes.added.vectors,
            ),
            ("added-dvs", deletes.added.vectors),
            ("added-position-deletes", deletes.added.rows),
            ("removed-delete-files", deletes.removed.files),
            (
                "removed-position-delete-files",
                deletes.removed.files - deletes.removed.vectors,
            ),
            ("removed-dvs", deletes.removed.vectors),
            ("removed-position-deletes", deletes.removed.rows),
        ];
        let always = [
            ("changed-partition-count", self.changed_partitions as u64),
            ("total-data-files", data.live.files),
            ("total-records", data.live.rows),
            ("total-files-size", data.live.bytes + deletes.live.bytes),
            ("total-delete-files", deletes.live.files),
            ("total-position-deletes", deletes.live.rows),
            ("total-equality-deletes", 0),
            ("manifests-created", manifests_created as u64),
            ("manifests-kept", self.manifests_kept as u64),
            ("manifests-replaced", self.manifests_replaced as u64),
        ];
        let changes = changes.into_iter().filter(|(_, count)| *count > 0);
        changes
            .chain(always)
            .map(|(key, count)| (key.to_string(), count.to_string()))
            .collect()
    }
}

/// How many partitions gain or lose a data or delete file.
fn changed_partitions(changes: &Changes<'_>, placements: &HashMap<&str, Placement>) -> usize {
    let new = changes.added.iter().chain(&changes.undeleted);
    let mut changed: HashSet<(i32, &Struct)> = new
        .filter_map(|file| placements.get(file.path.as_str()))
        .map(|place| (place.spec.spec_id(), &place.partition))
        .collect();
    for (manifest, gone) in &changes.reduced {
        let spec_id = manifest.spec.spec_id();
        changed.extend(gone.iter().map(|live| (spec_id, live.file.partition())));
    }
    changed.len()
}
