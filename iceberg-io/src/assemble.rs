//! The manifests of a new snapshot: those that are carried over, rewritten, merged, and new.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::{DataFile, ManifestContentType, ManifestFile, PartitionSpecRef, SchemaRef};

use crate::changes::Changes;
use crate::data_file;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::{Layout, Placement};
use crate::manifests::{LiveFile, LoadedManifest, ManifestOutput};
use crate::publish::PublishFile;
use crate::summary::Counts;

/// Entries of a manifest, at most.
const MANIFEST_ENTRIES: usize = 4096;

/// From this many carried-over manifests on, those that are less than half full are merged.
const MERGE_FROM: usize = 100;

/// Manifests to merge, by their content and the ids of their schema and partition spec.
type MergeGroups = BTreeMap<(i32, i32, i32), Vec<LoadedManifest>>;

/// Entries of a new manifest, with the partition spec and the schema that it is written with.
struct Group {
    spec: PartitionSpecRef,
    schema: SchemaRef,
    entries: Vec<DataFile>,
}

/// New entries by the ids of their partition spec and schema.
#[derive(Default)]
struct Groups(BTreeMap<(i32, i32), Group>);

impl Groups {
    fn add(&mut self, placement: &Placement, entry: DataFile) {
        let key = (placement.spec.spec_id(), placement.schema.schema_id());
        let group = self.0.entry(key).or_insert_with(|| Group {
            spec: placement.spec.clone(),
            schema: placement.schema.clone(),
            entries: Vec::new(),
        });
        group.entries.push(entry);
    }

    async fn write(
        self,
        output: &mut ManifestOutput,
        content: ManifestContentType,
        list: &mut Vec<ManifestFile>,
    ) -> Result<()> {
        for group in self.0.into_values() {
            for entries in group.entries.chunks(MANIFEST_ENTRIES) {
                let (schema, spec) = (group.schema.clone(), group.spec.as_ref().clone());
                list.push(
                    output
                        .added(content, schema, spec, entries.to_vec())
                        .await?,
                );
            }
        }
        Ok(())
    }
}

/// Writes the new manifests and returns all manifests of the snapshot. `new_deletes` are the entries of its new delete
/// files; `placements` say by the path of a data file where its new entries belong.
pub(crate) async fn write_manifests(
    output: &mut ManifestOutput,
    changes: Changes<'_>,
    new_deletes: Vec<DataFile>,
    placements: &HashMap<&str, Placement>,
    layout: &Layout,
    counts: &mut Counts,
) -> Result<Vec<ManifestFile>> {
    let mut list = Vec::new();
    let (small, kept) = to_merge(changes.kept);
    counts.manifests_kept = kept.len();
    counts.manifests_replaced = changes.reduced.len() + small.values().map(Vec::len).sum::<usize>();
    list.extend(kept.into_iter().map(|manifest| manifest.entry));
    for group in small.into_values() {
        let Some((content, schema, spec)) = group
            .first()
            .map(|m| (m.entry.content, m.schema.clone(), m.spec.clone()))
        else {
            continue;
        };
        let live: Vec<LiveFile> = group
            .into_iter()
            .flat_map(|manifest| manifest.live)
            .collect();
        for chunk in live.chunks(MANIFEST_ENTRIES) {
            let (schema, spec) = (schema.clone(), spec.clone());
            list.push(
                output
                    .rewritten(content, schema, spec, chunk.to_vec(), Vec::new())
                    .await?,
            );
        }
    }
    for (manifest, gone) in changes.reduced {
        let content = manifest.entry.content;
        list.push(
            output
                .rewritten(content, manifest.schema, manifest.spec, manifest.live, gone)
                .await?,
        );
    }
    let placement = |data_file: &str| {
        placements.get(data_file).ok_or_else(|| {
            let message = format!("file \"{data_file}\" has no place in the table");
            Error::new(ErrorKind::Internal, message)
        })
    };
    let (hot, cold): (Vec<&PublishFile>, Vec<&PublishFile>) =
        changes.added.into_iter().partition(|f| f.hot_image);
    for files in [cold, hot] {
        let mut groups = Groups::default();
        for file in files {
            let placement = placement(&file.path)?;
            let order = layout.order_of(file);
            groups.add(placement, data_file::new_data_file(file, placement, order)?);
        }
        groups
            .write(output, ManifestContentType::Data, &mut list)
            .await?;
    }
    let mut groups = Groups::default();
    for entry in new_deletes {
        let data_file = entry.referenced_data_file().unwrap_or_default();
        groups.add(placement(&data_file)?, entry);
    }
    groups
        .write(output, ManifestContentType::Deletes, &mut list)
        .await?;
    Ok(list)
}

/// Takes out the manifests to merge, by the schema and partition spec that they were written with, which a rewrite
/// keeps.
fn to_merge(kept: Vec<LoadedManifest>) -> (MergeGroups, Vec<LoadedManifest>) {
    let mut groups = MergeGroups::new();
    if kept.len() < MERGE_FROM {
        return (groups, kept);
    }
    let (small, mut rest): (Vec<_>, Vec<_>) = kept
        .into_iter()
        .partition(|m| m.live.len() < MANIFEST_ENTRIES / 2);
    for manifest in small {
        let content = manifest.entry.content as i32;
        groups
            .entry((
                content,
                manifest.schema.schema_id(),
                manifest.spec.spec_id(),
            ))
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
