//! A snapshot's summary: what it added and removed, and what the table holds with it.

use std::collections::HashMap;

use crate::changes::Changes;
use crate::publish::PublishFile;

/// Files, rows and bytes.
#[derive(Default, Clone, Copy)]
struct Total {
    files: u64,
    rows: u64,
    bytes: u64,
}

impl Total {
    fn plus(mut self, (rows, bytes): (u64, u64)) -> Self {
        self.files += 1;
        self.rows += rows;
        self.bytes += bytes;
        self
    }
}

fn size(file: &PublishFile) -> (u64, u64) {
    (file.row_count, file.size_bytes)
}

/// What the snapshot's summary says.
pub(crate) struct Counts {
    live: Total,
    added: Total,
    removed: Total,
    pub(crate) manifests_kept: usize,
    pub(crate) manifests_replaced: usize,
}

impl Counts {
    pub(crate) fn of(files: &[PublishFile], changes: &Changes<'_>) -> Self {
        let added = changes
            .added
            .iter()
            .copied()
            .map(size)
            .fold(Total::default(), Total::plus);
        let removed = changes
            .removed()
            .map(|live| (live.file.record_count(), live.file.file_size_in_bytes()))
            .fold(Total::default(), Total::plus);
        let live = files.iter().map(size).fold(Total::default(), Total::plus);
        Self {
            live,
            added,
            removed,
            manifests_kept: 0,
            manifests_replaced: 0,
        }
    }

    /// The spec's optional snapshot summary fields; counts of changes appear only where there were any.
    pub(crate) fn summary(&self, manifests_created: usize) -> HashMap<String, String> {
        let changed_partitions = u64::from(self.added.files + self.removed.files > 0);
        let changes = [
            ("added-data-files", self.added.files),
            ("added-records", self.added.rows),
            ("added-files-size", self.added.bytes),
            ("deleted-data-files", self.removed.files),
            ("deleted-records", self.removed.rows),
            ("removed-files-size", self.removed.bytes),
        ];
        let always = [
            ("changed-partition-count", changed_partitions),
            ("total-data-files", self.live.files),
            ("total-records", self.live.rows),
            ("total-files-size", self.live.bytes),
            ("total-delete-files", 0),
            ("total-position-deletes", 0),
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
