//! The snapshot producer: makes the set of a table's live data files, less their deleted rows, the current snapshot of
//! its Iceberg table.
//!
//! A publication compares the wanted files with those of the current snapshot, by path, and what is deleted of them
//! with what its delete files say:
//!
//! - a manifest all of whose files stay is carried over as it is;
//! - a manifest that loses files is rewritten: what stays is EXISTING with its sequence numbers, what goes is DELETED;
//! - a manifest without live files is dropped;
//! - new files go into new manifests, the hot image into one of its own, because the next round replaces it;
//! - a file of whose rows others are deleted than before gets a new delete entry in place of the old one, and a file
//!   that goes takes its entry with it (see `deletes`);
//! - many small manifests are merged.
//!
//! If what was published before is damaged, or missing for longer than its store may need to show it, the table is
//! published anew: all files are new ones, earlier snapshots are dropped. Whoever asks knows which files there are, so
//! that nothing is lost but history.
//!
//! All files are durable before [`publish()`] returns; moving the pointer to the new metadata, and then the version hint
//! ([`VersionHint`](crate::VersionHint)), is up to the caller. A failed or crashed publication leaves at most files that
//! nobody references, all of which have its commit id in their names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use iceberg::spec::{
    FormatVersion, MAIN_BRANCH, Operation, Schema, SchemaRef, Snapshot, Summary, TableMetadata,
    TableMetadataBuilder,
};
use pg_lake_crash::{CrashPoint, crash_point};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::assemble;
use crate::changes::{self, Changes};
use crate::deletes;
use crate::error::{Error, ErrorKind, Result};
use crate::expire::{self, References};
use crate::layout::{self, Layout, Partition, PartitionField, SortField};
use crate::manifests::{self, ManifestOutput};
use crate::schema::TableSchema;
use crate::stats::ColumnStats;
use crate::store::{MetadataStore, NewFile};
use crate::summary::Counts;
use crate::table::BaseTable;

/// Between two looks at what is missing.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What to publish.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// The table's root, `file:///…`.
    pub location: String,
    pub table_uuid: Uuid,
    /// 2 or 3. A table can be upgraded, not downgraded.
    pub format_version: u8,
    pub schema: TableSchema,
    /// How new files are partitioned and sorted, by anybody who writes some.
    pub partition_by: Vec<PartitionField>,
    pub sort_by: Vec<SortField>,
    /// The table's properties, all of them.
    pub properties: BTreeMap<String, String>,
    /// The current `metadata.json`; `None` for a table's first publication.
    pub previous_metadata: Option<String>,
    /// All live data files, the hot image included.
    pub files: Vec<PublishFile>,
    pub timestamp_ms: i64,
    /// Unique to this attempt: it names the files.
    pub commit_id: Uuid,
    /// How many snapshots the metadata keep, the new one included; at least one.
    pub keep_snapshots: u32,
}

/// A live data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishFile {
    /// As manifests are to hold it. It identifies the file, which never changes.
    pub path: String,
    pub size_bytes: u64,
    pub row_count: u64,
    pub split_offsets: Vec<i64>,
    pub columns: Vec<ColumnStats>,
    pub partition: Partition,
    /// What its rows are sorted by; empty if they aren't.
    pub sort_order: Vec<SortField>,
    /// The image of the hot rows, replaced at the next round.
    pub hot_image: bool,
    /// Positions of deleted rows, ascending; the other rows are the live ones.
    pub deleted: Vec<u32>,
}

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub metadata_location: String,
    pub snapshot_id: i64,
    pub sequence_number: i64,
    pub schema_id: i32,
    /// The table was like that already; nothing was written.
    pub unchanged: bool,
    pub manifests_written: u32,
    /// Metadata files and delete files that were written.
    pub new_files: Vec<String>,
    /// Metadata files and delete files that the new metadata no longer reference.
    pub removed_files: Vec<String>,
    /// What is wrong with what was published before, if the table was published anew, without earlier snapshots.
    pub damage: Option<String>,
}

/// What a publication builds on, and what it changes.
struct Draft<'a> {
    base: BaseTable,
    schema: SchemaRef,
    layout: Layout,
    changes: Changes<'a>,
    /// See [`Published::damage`].
    damage: Option<String>,
    /// Metadata that could not be read.
    lost: Option<String>,
}

impl<'a> Draft<'a> {
    /// Compares with what was published before. If that is damaged, with nothing.
    async fn new(
        store: &dyn MetadataStore,
        request: &'a PublishRequest,
        format: FormatVersion,
    ) -> Result<Draft<'a>> {
        let mut read = Self::read_awaited(store, request, format).await;
        // It may have been damaged on its way only.
        if matches!(&read, Err(e) if e.kind() == ErrorKind::Corrupt) {
            read = Self::read_awaited(store, request, format).await;
        }
        match read {
            Err(e) if is_damage(&e) && request.previous_metadata.is_some() => {
                let mut draft = Self::anew(store, request, format).await?;
                draft.damage = Some(e.message().to_string());
                Ok(draft)
            }
            draft => draft,
        }
    }

    /// A store may say for a while that there is no such file.
    async fn read_awaited(
        store: &dyn MetadataStore,
        request: &'a PublishRequest,
        format: FormatVersion,
    ) -> Result<Draft<'a>> {
        let patience = store.patience(&request.location);
        let started = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            let read = Self::read(store, request, format).await;
            let is_missing = matches!(&read, Err(e) if e.kind() == ErrorKind::NotFound);
            if !is_missing || started.elapsed() + pause > patience {
                return read;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn read(
        store: &dyn MetadataStore,
        request: &'a PublishRequest,
        format: FormatVersion,
    ) -> Result<Draft<'a>> {
        let base = match &request.previous_metadata {
            Some(previous) => BaseTable::load(store, previous).await?,
            None => begin(request, format, None)?,
        };
        let mut draft = Self::on(base, request, format)?;
        let loaded = match draft.base.metadata.current_snapshot() {
            Some(snapshot) => manifests::load_manifests(store, snapshot).await?,
            None => Vec::new(),
        };
        draft.changes = changes::compare(store, &request.files, loaded).await?;
        Ok(draft)
    }

    /// Keeps the metadata if these can be read, for their columns and numbers.
    async fn anew(
        store: &dyn MetadataStore,
        request: &'a PublishRequest,
        format: FormatVersion,
    ) -> Result<Draft<'a>> {
        let previous = request.previous_metadata.as_deref().unwrap_or_default();
        let (base, lost) = match BaseTable::load(store, previous).await {
            Err(e) if is_damage(&e) => {
                let base = begin(request, format, Some(previous))?;
                (base, Some(previous.to_string()))
            }
            base => (base?, None),
        };
        let mut draft = Self::on(base, request, format)?;
        draft.changes = changes::compare(store, &request.files, Vec::new()).await?;
        draft.lost = lost;
        Ok(draft)
    }

    /// Without changes.
    fn on(mut base: BaseTable, request: &PublishRequest, format: FormatVersion) -> Result<Self> {
        check(request, &base, format)?;
        let schema = request.schema.to_iceberg()?;
        let schema_id = base.schema_id_for(&schema);
        let schema: SchemaRef = Arc::new(schema.into_builder().with_schema_id(schema_id).build()?);
        base.metadata = layout::make_room(base.metadata, &schema)?;
        let layout = Layout::resolve(&base.metadata, &schema, request)?;
        Ok(Draft {
            base,
            schema,
            layout,
            changes: Changes::default(),
            damage: None,
            lost: None,
        })
    }

    fn operation(&self) -> Operation {
        match &self.damage {
            // What earlier snapshots had is replaced, not added to.
            Some(_) => Operation::Overwrite,
            None => self.changes.operation(),
        }
    }
}

fn is_damage(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

/// A table without snapshots, in place of metadata that are `lost`, or of none.
fn begin(request: &PublishRequest, format: FormatVersion, lost: Option<&str>) -> Result<BaseTable> {
    BaseTable::create(
        format,
        request.table_uuid,
        request.location.trim_end_matches('/'),
        &request.schema.to_iceberg()?,
        request.timestamp_ms,
        lost,
    )
}

/// Publishes to a store.
pub async fn publish(store: &dyn MetadataStore, request: PublishRequest) -> Result<Published> {
    let location = request.location.trim_end_matches('/').to_string();
    let format = format_version(request.format_version)?;
    check_deleted(&request.files)?;
    let draft = Draft::new(store, &request, format).await?;
    let operation = draft.operation();
    let Draft {
        base,
        schema,
        layout,
        mut changes,
        damage,
        lost,
    } = draft;
    let schema_id = schema.schema_id();
    let keep = match damage {
        Some(_) => 1,
        None => request.keep_snapshots.max(1),
    };
    let metadata = &base.metadata;
    if let (Some(current), Some(previous)) = (metadata.current_snapshot(), &base.location)
        && changes.is_empty()
        && damage.is_none()
        && schema_id == metadata.current_schema_id()
        && layout.is_of(metadata)
        && format == metadata.format_version()
        && location == metadata.location()
        && base.has_properties(&request.properties)
        // As many as are kept when none is added.
        && expire::split(&base, keep.saturating_add(1)).0.is_empty()
    {
        return Ok(Published {
            metadata_location: previous.clone(),
            snapshot_id: current.snapshot_id(),
            sequence_number: current.sequence_number(),
            schema_id,
            unchanged: true,
            manifests_written: 0,
            new_files: Vec::new(),
            removed_files: Vec::new(),
            damage: None,
        });
    }

    let snapshot_id = snapshot_id(&request.commit_id);
    let sequence_number = metadata.last_sequence_number() + 1;
    // Readers travel in time by timestamps, so no two snapshots share one, whatever the clock does.
    let timestamp_ms = match base.location {
        Some(_) => request
            .timestamp_ms
            .max(metadata.last_updated_ms().saturating_add(1)),
        None => request.timestamp_ms,
    };
    let mut placements = std::mem::take(&mut changes.placements);
    for file in &changes.added {
        placements.insert(&file.path, layout.place(file)?);
    }
    let data_directory = format!("{location}/data");
    let deletes = deletes::encode(
        &changes.undeleted,
        &placements,
        format,
        &data_directory,
        &request.commit_id,
    )
    .await?;
    let delete_files = changes.kept_deletes().map(|live| &live.file);
    let delete_files: HashSet<String> = delete_files
        .chain(&deletes.entries)
        .map(|file| file.file_path().to_string())
        .collect();
    let mut counts = Counts::of(&request.files, &changes, &placements, &deletes.entries);
    let mut output = ManifestOutput::new(
        format!("{location}/metadata"),
        request.commit_id,
        snapshot_id,
        format,
    );
    let list = assemble::write_manifests(
        &mut output,
        changes,
        deletes.entries,
        &placements,
        &layout,
        &mut counts,
    )
    .await?;
    let manifests_written = output.count();
    let manifests = list.iter().map(|manifest| &manifest.manifest_path);
    let references = References {
        manifests: manifests.cloned().collect(),
        delete_files,
    };

    let first_row_id = (format >= FormatVersion::V3).then(|| metadata.next_row_id());
    let finished = output
        .finish(
            list,
            metadata.current_snapshot_id(),
            sequence_number,
            first_row_id,
        )
        .await?;
    let snapshot = Snapshot::builder()
        .with_snapshot_id(snapshot_id)
        .with_parent_snapshot_id(metadata.current_snapshot_id())
        .with_sequence_number(sequence_number)
        .with_timestamp_ms(timestamp_ms)
        .with_manifest_list(finished.list_location)
        .with_summary(Summary {
            operation,
            additional_properties: counts.summary(manifests_written),
        })
        .with_schema_id(schema_id);
    let snapshot = match (first_row_id, finished.next_row_id) {
        (Some(first), Some(next)) => snapshot
            .with_row_range(first, next.saturating_sub(first))
            .build(),
        _ => snapshot.build(),
    };

    let (expired, retained) = expire::split(&base, keep);
    let mut removed_files = expire::unreferenced(store, &expired, &retained, references).await?;
    let expired: Vec<i64> = expired
        .iter()
        .map(|snapshot| snapshot.snapshot_id())
        .collect();
    let (metadata, forgotten) = next_metadata(
        &request, &base, &location, format, &schema, &layout, snapshot, &expired,
    )?;
    removed_files.extend(forgotten);
    removed_files.extend(lost);

    let metadata_location = base.next_location(&location, &request.commit_id);
    let mut files = deletes.files;
    files.extend(finished.files);
    files.push(NewFile {
        location: metadata_location.clone(),
        content: to_json(&metadata)?,
    });
    let new_files = files.iter().map(|file| file.location.clone()).collect();
    store.create_all(files).await?;
    crash_point(CrashPoint::MetadataDurable);

    Ok(Published {
        metadata_location,
        snapshot_id,
        sequence_number,
        schema_id,
        unchanged: false,
        manifests_written: u32::try_from(manifests_written).unwrap_or(u32::MAX),
        new_files,
        removed_files,
        damage,
    })
}

fn format_version(version: u8) -> Result<FormatVersion> {
    match version {
        2 => Ok(FormatVersion::V2),
        3 => Ok(FormatVersion::V3),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!("Iceberg format version {version} is not supported"),
        )),
    }
}

fn check(request: &PublishRequest, base: &BaseTable, format: FormatVersion) -> Result<()> {
    let metadata = &base.metadata;
    if metadata.uuid() != request.table_uuid {
        let message = format!(
            "the metadata are of table {}, not of table {}",
            metadata.uuid(),
            request.table_uuid
        );
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if metadata.format_version() > format || metadata.format_version() < FormatVersion::V2 {
        let message = format!(
            "cannot publish a table of format {} as {format}",
            metadata.format_version()
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

fn check_deleted(files: &[PublishFile]) -> Result<()> {
    for file in files {
        let ascending = file.deleted.is_sorted_by(|a, b| a < b);
        let outside = |last: &u32| u64::from(*last) >= file.row_count;
        if !ascending || file.deleted.last().is_some_and(outside) {
            let message = format!(
                "the deleted rows of file \"{}\" are not ascending positions of its {} rows",
                file.path, file.row_count
            );
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
    }
    Ok(())
}

/// The next metadata, and the metadata files that dropped out of their log.
#[allow(clippy::too_many_arguments)] // all of what metadata are made of
fn next_metadata(
    request: &PublishRequest,
    base: &BaseTable,
    location: &str,
    format: FormatVersion,
    schema: &Schema,
    layout: &Layout,
    snapshot: Snapshot,
    expired: &[i64],
) -> Result<(TableMetadata, Vec<String>)> {
    let current = base.metadata.properties();
    let changed: HashMap<String, String> = request
        .properties
        .iter()
        .filter(|(key, value)| current.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let gone: Vec<String> = current
        .keys()
        .filter(|key| !request.properties.contains_key(*key))
        .cloned()
        .collect();
    let builder =
        TableMetadataBuilder::new_from_metadata(base.metadata.clone(), base.location.clone())
            .upgrade_format_version(format)?
            .set_location(location.to_string())
            .add_current_schema(schema.clone())?;
    let result = layout
        .add_to(builder)?
        .remove_properties(&gone)?
        .set_properties(changed)?
        .set_branch_snapshot(snapshot, MAIN_BRANCH)?
        .remove_snapshots(expired)
        .build()?;
    layout.check(&result.metadata)?;
    if result.metadata.current_schema_id() != schema.schema_id() {
        return Err(Error::new(
            ErrorKind::Internal,
            "a new schema got another id than expected",
        ));
    }
    let forgotten = result
        .expired_metadata_logs
        .into_iter()
        .map(|entry| entry.metadata_file)
        .collect();
    Ok((result.metadata, forgotten))
}

/// The commit id folded to the positive 63 bits of a snapshot id.
fn snapshot_id(commit_id: &Uuid) -> i64 {
    let (upper, lower) = commit_id.as_u64_pair();
    ((upper ^ lower) & (u64::MAX >> 1)) as i64
}

fn to_json(metadata: &TableMetadata) -> Result<Bytes> {
    serde_json::to_vec(metadata).map(Bytes::from).map_err(|e| {
        Error::new(ErrorKind::Internal, "could not serialise table metadata").with_source(e)
    })
}
