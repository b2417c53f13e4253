//! The manifests of a new snapshot: those that are carried over, rewritten, merged, and new.

use std::collections::BTreeMap;

use iceberg::spec::{DataFile, ManifestContentType, ManifestFile, PartitionSpec, SchemaRef};

use crate::changes::Changes;
use crate::data_file;
use crate::error::Result;
use crate::manifests::{LiveFile, LoadedManifest, ManifestOutput};
use crate::publish::PublishFile;
use crate::summary::Counts;

/// Entries of a manifest, at most.
const MANIFEST_ENTRIES: usize = 4096;

/// From this many carried-over manifests on, those that are less than half full are merged.
const MERGE_FROM: usize = 100;

/// Manifests to merge, by their content and the ids of their schema and partition spec.
type MergeGroups = BTreeMap<(i32, i32, i32), Vec<LoadedManifest>>;

/// Writes the new manifests and returns all manifests of the snapshot. `new_deletes` are the entries of its new delete
/// files.
pub(crate) async fn write_manifests(
    output: &mut ManifestOutput,
    changes: Changes<'_>,
    new_deletes: Vec<DataFile>,
    schema: &SchemaRef,
    spec: PartitionSpec,
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
    let (hot, cold): (Vec<&PublishFile>, Vec<&PublishFile>) =
        changes.added.into_iter().partition(|f| f.hot_image);
    for files in cold
        .chunks(MANIFEST_ENTRIES)
        .chain(hot.chunks(MANIFEST_ENTRIES))
    {
        let entries = files
            .iter()
            .map(|file| data_file::new_data_file(file, schema))
            .collect::<Result<Vec<_>>>()?;
        list.push(
            output
                .added(
                    ManifestContentType::Data,
                    schema.clone(),
                    spec.clone(),
                    entries,
                )
                .await?,
        );
    }
    for entries in new_deletes.chunks(MANIFEST_ENTRIES) {
        list.push(
            output
                .added(
                    ManifestContentType::Deletes,
                    schema.clone(),
                    spec.clone(),
                    entries.to_vec(),
                )
                .await?,
        );
    }
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
