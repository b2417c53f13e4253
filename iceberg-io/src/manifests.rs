//! Manifests and manifest lists: reading those of a snapshot, and writing new ones.
//!
//! Everything is encoded into memory, so that the publication can hand all its files to the store at once; nothing here
//! touches storage except for reading.
//!
//! Row lineage (format version 3) is this module's care: the library inherits sequence numbers and snapshot ids but not
//! first row ids, which the spec wants written down when an entry moves to another manifest.

use iceberg::io::FileIO;
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestContentType, ManifestEntry, ManifestFile,
    ManifestList, ManifestListWriter, ManifestStatus, ManifestWriter, ManifestWriterBuilder,
    PartitionSpec, SchemaRef, Snapshot, UNASSIGNED_SEQUENCE_NUMBER,
};
use uuid::Uuid;

use crate::data_file;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{MetadataStore, NewFile};

/// A live data or delete file with what its manifest entry inherited.
#[derive(Debug, Clone)]
pub(crate) struct LiveFile {
    pub(crate) file: DataFile,
    snapshot_id: i64,
    pub(crate) sequence_number: i64,
    file_sequence_number: i64,
}

/// A manifest of the current snapshot, read.
#[derive(Debug)]
pub(crate) struct LoadedManifest {
    pub(crate) entry: ManifestFile,
    /// What it was written with, and is rewritten with.
    pub(crate) schema: SchemaRef,
    pub(crate) spec: PartitionSpec,
    pub(crate) live: Vec<LiveFile>,
}

/// Reads a snapshot's manifest list.
pub(crate) async fn load_list(
    store: &dyn MetadataStore,
    snapshot: &Snapshot,
) -> Result<Vec<ManifestFile>> {
    let content = store.read(snapshot.manifest_list()).await?;
    // Only lists of version 3 snapshots have row ids; a table keeps its older lists when it is upgraded.
    let version = match snapshot.row_range() {
        Some(_) => FormatVersion::V3,
        None => FormatVersion::V2,
    };
    let list = ManifestList::parse_with_version(&content, version)
        .map_err(|e| unparsable("manifest list", snapshot.manifest_list(), e))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Reads all manifests of a snapshot.
pub(crate) async fn load_manifests(
    store: &dyn MetadataStore,
    snapshot: &Snapshot,
) -> Result<Vec<LoadedManifest>> {
    let mut manifests = Vec::new();
    for entry in load_list(store, snapshot).await? {
        manifests.push(load_manifest(store, entry).await?);
    }
    Ok(manifests)
}

/// Reads a manifest of a snapshot's list.
pub(crate) async fn load_manifest(
    store: &dyn MetadataStore,
    entry: ManifestFile,
) -> Result<LoadedManifest> {
    let content = store.read(&entry.manifest_path).await?;
    let manifest = Manifest::parse_avro(&content)
        .map_err(|e| unparsable("manifest", &entry.manifest_path, e))?;
    let (entries, metadata) = manifest.into_parts();
    let mut live = Vec::new();
    let mut next_row_id = entry.first_row_id;
    for manifest_entry in &entries {
        if manifest_entry.is_alive() {
            live.push(inherit(manifest_entry, &entry, &mut next_row_id)?);
        }
    }
    Ok(LoadedManifest {
        entry,
        schema: metadata.schema,
        spec: metadata.partition_spec,
        live,
    })
}

fn unparsable(what: &str, location: &str, e: iceberg::Error) -> Error {
    let kind = match e.kind() {
        iceberg::ErrorKind::FeatureUnsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, format!("could not parse {what} \"{location}\"")).with_source(e)
}

/// Fills in what an entry inherits from its manifest (spec: sequence number inheritance, first row id inheritance).
fn inherit(
    entry: &ManifestEntry,
    manifest: &ManifestFile,
    next_row_id: &mut Option<u64>,
) -> Result<LiveFile> {
    let inherits = entry.status == ManifestStatus::Added || manifest.sequence_number == 0;
    let sequence_number = |own: Option<i64>| {
        own.or(inherits.then_some(manifest.sequence_number))
            .ok_or_else(|| {
                let message = format!(
                    "an entry of manifest \"{}\" has no sequence number",
                    manifest.manifest_path
                );
                Error::new(ErrorKind::Corrupt, message)
            })
    };
    let mut file = entry.data_file().clone();
    if let (None, Some(first_row_id)) = (file.first_row_id(), *next_row_id) {
        let overflow = || Error::new(ErrorKind::Corrupt, "row ids overflow");
        *next_row_id = Some(
            first_row_id
                .checked_add(file.record_count())
                .ok_or_else(overflow)?,
        );
        file = data_file::with_first_row_id(
            &file,
            i64::try_from(first_row_id).map_err(|_| overflow())?,
        )?;
    }
    Ok(LiveFile {
        file,
        snapshot_id: entry.snapshot_id().unwrap_or(manifest.added_snapshot_id),
        sequence_number: sequence_number(entry.sequence_number())?,
        file_sequence_number: sequence_number(entry.file_sequence_number)?,
    })
}

/// The manifests and the manifest list of one new snapshot.
pub(crate) struct ManifestOutput {
    memory: FileIO,
    directory: String,
    commit_id: Uuid,
    snapshot_id: i64,
    format: FormatVersion,
    locations: Vec<String>,
}

impl ManifestOutput {
    /// `directory` is the table's metadata directory.
    pub(crate) fn new(
        directory: String,
        commit_id: Uuid,
        snapshot_id: i64,
        format: FormatVersion,
    ) -> Self {
        Self {
            memory: FileIO::new_with_memory(),
            directory,
            commit_id,
            snapshot_id,
            format,
            locations: Vec::new(),
        }
    }

    /// A manifest of new files. Sequence numbers and row ids are left to be inherited.
    pub(crate) async fn added(
        &mut self,
        content: ManifestContentType,
        schema: SchemaRef,
        spec: PartitionSpec,
        files: Vec<DataFile>,
    ) -> Result<ManifestFile> {
        let mut writer = self.writer(content, schema, spec)?;
        for file in files {
            writer.add_file(file, UNASSIGNED_SEQUENCE_NUMBER)?;
        }
        Ok(writer.write_manifest_file().await?)
    }

    /// A manifest that replaces others: the files that stay, and those that this snapshot deletes.
    pub(crate) async fn rewritten(
        &mut self,
        content: ManifestContentType,
        schema: SchemaRef,
        spec: PartitionSpec,
        existing: Vec<LiveFile>,
        deleted: Vec<LiveFile>,
    ) -> Result<ManifestFile> {
        let mut writer = self.writer(content, schema, spec)?;
        for live in existing {
            let file_sequence_number = Some(live.file_sequence_number);
            writer.add_existing_file(
                live.file,
                live.snapshot_id,
                live.sequence_number,
                file_sequence_number,
            )?;
        }
        for live in deleted {
            writer.add_delete_file(
                live.file,
                live.sequence_number,
                Some(live.file_sequence_number),
            )?;
        }
        Ok(writer.write_manifest_file().await?)
    }

    /// How many manifests have been written.
    pub(crate) fn count(&self) -> usize {
        self.locations.len()
    }

    /// Ends with the manifest list: the files to create, the list's location, and the first row id after the snapshot.
    pub(crate) async fn finish(
        mut self,
        manifests: Vec<ManifestFile>,
        parent_snapshot_id: Option<i64>,
        sequence_number: i64,
        first_row_id: Option<u64>,
    ) -> Result<FinishedManifests> {
        let location = format!(
            "{}/snap-{}-1-{}.avro",
            self.directory, self.snapshot_id, self.commit_id
        );
        let sink = self.memory.new_output(&location)?.writer().await?;
        let mut writer = match self.format {
            FormatVersion::V3 => ManifestListWriter::v3(
                sink,
                self.snapshot_id,
                parent_snapshot_id,
                sequence_number,
                first_row_id,
            ),
            _ => {
                ManifestListWriter::v2(sink, self.snapshot_id, parent_snapshot_id, sequence_number)
            }
        };
        writer.add_manifests(manifests.into_iter())?;
        let next_row_id = writer.next_row_id();
        writer.close().await?;
        self.locations.push(location.clone());

        let mut files = Vec::with_capacity(self.locations.len());
        for location in self.locations {
            let content = self.memory.new_input(&location)?.read().await?;
            files.push(NewFile { location, content });
        }
        Ok(FinishedManifests {
            files,
            list_location: location,
            next_row_id,
        })
    }

    fn writer(
        &mut self,
        content: ManifestContentType,
        schema: SchemaRef,
        spec: PartitionSpec,
    ) -> Result<ManifestWriter> {
        let location = format!(
            "{}/{}-m{}.avro",
            self.directory,
            self.commit_id,
            self.locations.len()
        );
        let output = self.memory.new_output(&location)?;
        self.locations.push(location);
        let builder = ManifestWriterBuilder::new(output, Some(self.snapshot_id), schema, spec);
        Ok(match (self.format, content) {
            (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
            (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
            (_, ManifestContentType::Data) => builder.build_v2_data(),
            (_, ManifestContentType::Deletes) => builder.build_v2_deletes(),
        })
    }
}

/// What [`ManifestOutput::finish`] made.
pub(crate) struct FinishedManifests {
    /// Manifests first, the list last.
    pub(crate) files: Vec<NewFile>,
    pub(crate) list_location: String,
    /// For format version 3.
    pub(crate) next_row_id: Option<u64>,
}
