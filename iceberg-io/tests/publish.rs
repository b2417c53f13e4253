//! The snapshot producer's contract: after each publication the table has exactly the files asked for, and the metadata
//! are what the specification and the `iceberg` crate expect.

use std::collections::BTreeMap;
use std::path::Path;

use iceberg::io::FileIO;
use iceberg::spec::TableMetadata;
use pg_lake_iceberg::{
    ColumnStats, ErrorKind, Field, FieldType, LocalStore, Partition, PublishFile, PublishRequest,
    Published, TableSchema, TableSummary, VersionHint, check_table, publish, read_table,
};
use uuid::Uuid;

/// A table under publication.
struct Rig {
    directory: tempfile::TempDir,
    uuid: Uuid,
    format_version: u8,
    schema: TableSchema,
    properties: BTreeMap<String, String>,
    keep_snapshots: u32,
    previous: Option<String>,
    clock_ms: i64,
}

impl Rig {
    fn new(format_version: u8) -> Self {
        // Ids that the library's builder would renumber.
        let fields = vec![
            field(7, "id", FieldType::Long),
            field(3, "name", FieldType::String),
        ];
        Self {
            directory: tempfile::tempdir().unwrap(),
            uuid: Uuid::new_v4(),
            format_version,
            schema: TableSchema {
                schema_id: 0,
                fields,
            },
            properties: BTreeMap::from([("owner".to_string(), "alice".to_string())]),
            keep_snapshots: 100,
            previous: None,
            clock_ms: 1_700_000_000_000,
        }
    }

    fn request(&self, files: &[PublishFile]) -> PublishRequest {
        PublishRequest {
            location: format!("file://{}", self.directory.path().display()),
            table_uuid: self.uuid,
            format_version: self.format_version,
            schema: self.schema.clone(),
            partition_by: vec![],
            sort_by: vec![],
            properties: self.properties.clone(),
            previous_metadata: self.previous.clone(),
            files: files.to_vec(),
            timestamp_ms: self.clock_ms,
            commit_id: Uuid::new_v4(),
            keep_snapshots: self.keep_snapshots,
        }
    }

    async fn publish(&mut self, files: &[PublishFile]) -> Published {
        self.clock_ms += 1000;
        let published = publish(&LocalStore, self.request(files)).await.unwrap();
        self.previous = Some(published.metadata_location.clone());
        let mut paths: Vec<String> = self
            .read()
            .await
            .data_files
            .into_iter()
            .map(|file| file.path)
            .collect();
        let mut wanted: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        paths.sort();
        wanted.sort();
        assert_eq!(paths, wanted);
        published
    }

    async fn read(&self) -> TableSummary {
        read_table(&LocalStore, self.previous.as_ref().unwrap())
            .await
            .unwrap()
    }

    /// As the library reads it, without any code of ours.
    async fn library(&self) -> TableMetadata {
        TableMetadata::read_from(&FileIO::new_with_fs(), self.previous.as_ref().unwrap())
            .await
            .unwrap()
    }

    fn metadata_files(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("metadata"))
            .unwrap()
            .count()
    }
}

fn field(id: i32, name: &str, ty: FieldType) -> Field {
    Field {
        id,
        name: name.to_string(),
        ty,
        required: false,
        doc: None,
    }
}

fn file(name: &str, rows: u64) -> PublishFile {
    let stats = |field_id, lower: &[u8], upper: &[u8]| ColumnStats {
        field_id,
        column_size: 10,
        value_count: rows,
        null_count: 0,
        nan_count: None,
        lower: Some(lower.to_vec()),
        upper: Some(upper.to_vec()),
    };
    PublishFile {
        path: format!("file:///data/{name}.parquet"),
        size_bytes: rows * 100,
        row_count: rows,
        split_offsets: vec![4],
        columns: vec![
            stats(7, &1i64.to_le_bytes(), &9i64.to_le_bytes()),
            stats(3, b"a", "é".as_bytes()),
        ],
        partition: Partition::default(),
        sort_order: vec![],
        hot_image: false,
        deleted: vec![],
    }
}

fn hot(name: &str, rows: u64) -> PublishFile {
    PublishFile {
        hot_image: true,
        ..file(name, rows)
    }
}

fn summary<'a>(table: &'a TableSummary, key: &str) -> Option<&'a str> {
    table.snapshots.last()?.summary.get(key).map(String::as_str)
}

async fn life_of_a_table(format_version: u8) {
    let mut rig = Rig::new(format_version);
    let first = rig.publish(&[file("a", 10), hot("hot1", 3)]).await;
    assert_eq!((first.sequence_number, first.manifests_written), (1, 2));
    let table = rig.read().await;
    assert_eq!(
        (table.uuid, table.format_version),
        (rig.uuid, format_version)
    );
    assert_eq!(table.snapshots[0].operation, "append");
    assert_eq!(summary(&table, "added-records"), Some("13"));
    assert_eq!(summary(&table, "total-files-size"), Some("1300"));
    assert_eq!(summary(&table, "deleted-records"), None);

    let second = rig
        .publish(&[file("a", 10), hot("hot1", 3), file("b", 20)])
        .await;
    assert_eq!((second.sequence_number, second.manifests_written), (2, 1));
    assert_eq!(rig.read().await.snapshots[1].operation, "append");

    // The hot image is replaced: its manifest becomes one of deleted entries, the others are carried over.
    let third = rig
        .publish(&[file("a", 10), hot("hot2", 5), file("b", 20)])
        .await;
    assert_eq!(third.manifests_written, 2);
    let table = rig.read().await;
    assert_eq!(table.snapshots[2].operation, "overwrite");
    assert_eq!(table.snapshots[2].parent, Some(second.snapshot_id));
    assert_eq!(summary(&table, "added-records"), Some("5"));
    assert_eq!(summary(&table, "deleted-data-files"), Some("1"));
    assert_eq!(summary(&table, "deleted-records"), Some("3"));
    assert_eq!(summary(&table, "removed-files-size"), Some("300"));
    assert_eq!(summary(&table, "total-data-files"), Some("3"));
    assert_eq!(summary(&table, "total-records"), Some("35"));
    assert_eq!(summary(&table, "manifests-kept"), Some("2"));

    let fourth = rig.publish(&[file("b", 20), hot("hot2", 5)]).await;
    assert_eq!(rig.read().await.snapshots[3].operation, "delete");
    rig.publish(&[]).await;

    let metadata = rig.library().await;
    assert_eq!(metadata.last_sequence_number(), 5);
    assert_eq!(metadata.history().len(), 5);
    assert_eq!(metadata.metadata_log().len(), 4);
    assert_eq!(metadata.current_schema().name_by_field_id(7), Some("id"));
    assert_eq!(
        metadata
            .snapshot_by_id(fourth.snapshot_id)
            .unwrap()
            .parent_snapshot_id(),
        Some(third.snapshot_id)
    );
    let name = Path::new(rig.previous.as_ref().unwrap())
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_string();
    assert!(name.starts_with("00004-"));
}

#[tokio::test]
async fn what_a_publication_writes_has_its_commit_id_and_the_hint_is_left_alone() {
    let mut rig = Rig::new(2);
    let first = rig.publish(&[file("a", 10)]).await;
    let hint = rig.directory.path().join("metadata/version-hint.text");
    assert!(!hint.exists());
    VersionHint::set(&LocalStore, &first.metadata_location, &Uuid::new_v4())
        .await
        .unwrap();
    let says = std::fs::read_to_string(&hint).unwrap();
    assert!(
        first
            .metadata_location
            .ends_with(&format!("/{says}.metadata.json"))
    );
    let mut deleted = file("a", 10);
    deleted.deleted = vec![1, 2];
    let request = rig.request(&[deleted, file("b", 5)]);
    let commit_id = request.commit_id;
    let given_up = publish(&LocalStore, request).await.unwrap();
    let named = |path: &String| path.contains(&commit_id.to_string());
    assert!(given_up.new_files.len() >= 4);
    assert!(given_up.new_files.iter().all(named));
    assert_eq!(std::fs::read_to_string(&hint).unwrap(), says);
}

#[tokio::test]
async fn life_of_a_version_2_table() {
    life_of_a_table(2).await;
}

#[tokio::test]
async fn life_of_a_version_3_table() {
    life_of_a_table(3).await;
}

#[tokio::test]
async fn an_unchanged_table_is_not_written() {
    let mut rig = Rig::new(2);
    let files = [file("a", 10), hot("hot1", 3)];
    let first = rig.publish(&files).await;
    let count = rig.metadata_files();
    let again = rig.publish(&[files[1].clone(), files[0].clone()]).await;
    assert!(again.unchanged && !first.unchanged);
    assert_eq!(again.metadata_location, first.metadata_location);
    assert_eq!(
        (again.snapshot_id, again.sequence_number),
        (first.snapshot_id, 1)
    );
    assert_eq!(rig.metadata_files(), count);
}

#[tokio::test]
async fn a_check_finds_what_metadata_refer_to_and_what_is_unreadable() {
    for format_version in [2, 3] {
        let mut rig = Rig::new(format_version);
        let first = rig.publish(&[file("a", 10), file("c", 4)]).await;
        let mut deleted = file("a", 10);
        deleted.deleted = vec![1, 2];
        let second = rig.publish(&[deleted, file("b", 5), hot("h", 3)]).await;
        let check = async || {
            check_table(&LocalStore, &second.metadata_location)
                .await
                .unwrap()
        };

        let found = check().await;
        assert_eq!(found.uuid, rig.uuid);
        assert_eq!(found.current_snapshot_id, Some(second.snapshot_id));
        assert_eq!((found.hint, found.unreadable), (None, vec![]));
        let files: Vec<_> = found
            .data_files
            .iter()
            .map(|file| (file.path.as_str(), file.row_count, file.deleted))
            .collect();
        let expected = [
            ("file:///data/a.parquet", 10, 2),
            ("file:///data/b.parquet", 5, 0),
            ("file:///data/h.parquet", 3, 0),
        ];
        assert_eq!(files, expected);
        assert_eq!(found.data_files[0].size_bytes, 1000);
        let delete_files = &found.data_files[0].delete_files;
        assert_eq!(delete_files.len(), 1);
        // Also what only the first snapshot refers to.
        let data = ["a", "b", "c", "h"].map(|name| format!("file:///data/{name}.parquet"));
        for path in first.new_files.iter().chain(&second.new_files).chain(&data) {
            assert!(found.references.contains(path), "{path}");
        }
        assert!(second.new_files.contains(&delete_files[0]));

        VersionHint::set(&LocalStore, &second.metadata_location, &Uuid::new_v4())
            .await
            .unwrap();
        let manifest = first.new_files.iter().find(|path| path.contains("-m0"));
        let manifest = manifest.unwrap();
        std::fs::remove_file(manifest.strip_prefix("file://").unwrap()).unwrap();
        let found = check().await;
        let unreadable: Vec<_> = found.unreadable.iter().map(|(path, _)| path).collect();
        assert_eq!(unreadable, [manifest]);
        assert!(found.hint.is_some_and(|hint| hint.starts_with("00001-")));
    }
}

/// So that a lower number of snapshots takes effect in a table that doesn't change.
#[tokio::test]
async fn an_unchanged_table_is_written_to_expire_snapshots() {
    let mut rig = Rig::new(2);
    rig.publish(&[file("a", 10)]).await;
    rig.publish(&[file("a", 10), file("b", 20)]).await;
    rig.keep_snapshots = 2;
    assert!(rig.publish(&[file("a", 10), file("b", 20)]).await.unchanged);
    rig.keep_snapshots = 1;
    let expiring = rig.publish(&[file("a", 10), file("b", 20)]).await;
    assert!(!expiring.unchanged && !expiring.removed_files.is_empty());
    let metadata = rig.library().await;
    assert_eq!(metadata.snapshots().len(), 1);
    assert!(rig.publish(&[file("a", 10), file("b", 20)]).await.unchanged);
}

#[tokio::test]
async fn a_rewritten_manifest_keeps_sequence_numbers_and_bounds() {
    let mut rig = Rig::new(2);
    rig.publish(&[file("a", 10), file("b", 20), file("c", 30)])
        .await;
    rig.publish(&[file("a", 10), file("c", 30)]).await;
    let metadata = rig.library().await;
    let snapshot = metadata.current_snapshot().unwrap();
    let io = FileIO::new_with_fs();
    let bytes = io
        .new_input(snapshot.manifest_list())
        .unwrap()
        .read()
        .await
        .unwrap();
    let list =
        iceberg::spec::ManifestList::parse_with_version(&bytes, metadata.format_version()).unwrap();
    assert_eq!(list.entries().len(), 1);
    let entry = &list.entries()[0];
    let counts = (
        entry.added_files_count,
        entry.existing_files_count,
        entry.deleted_files_count,
    );
    assert_eq!(counts, (Some(0), Some(2), Some(1)));
    assert_eq!((entry.sequence_number, entry.min_sequence_number), (2, 1));
    let manifest = entry.load_manifest(&io).await.unwrap();
    for entry in manifest.entries() {
        assert_eq!(
            (entry.sequence_number(), entry.file_sequence_number),
            (Some(1), Some(1))
        );
        let bound = &entry.data_file().upper_bounds()[&3];
        assert_eq!(bound.to_bytes().unwrap().as_slice(), "é".as_bytes());
        let deleted_by = entry.snapshot_id() == Some(snapshot.snapshot_id());
        assert_eq!(deleted_by, !entry.is_alive());
    }
}

#[tokio::test]
async fn row_ids_follow_the_rows() {
    let mut rig = Rig::new(3);
    rig.publish(&[file("a", 10), file("b", 20)]).await;
    assert_eq!(rig.library().await.next_row_id(), 30);
    rig.publish(&[file("a", 10), file("b", 20), file("c", 5)])
        .await;
    let metadata = rig.library().await;
    assert_eq!(metadata.next_row_id(), 35);
    assert_eq!(
        metadata.current_snapshot().unwrap().row_range(),
        Some((30, 5))
    );
    rig.publish(&[file("b", 20), file("c", 5), file("d", 1)])
        .await;
    let table = rig.read().await;
    let id = |name: &str| {
        table
            .data_files
            .iter()
            .find(|file| file.path.ends_with(&format!("{name}.parquet")))
            .unwrap()
            .first_row_id
    };
    // What stays keeps its ids through the rewrite; what is new gets ids that no row had.
    assert_eq!((id("/b"), id("/c")), (Some(10), Some(30)));
    assert!(id("/d").unwrap() >= 35, "{:?}", id("/d"));
    assert!(rig.library().await.next_row_id() > id("/d").unwrap() as u64);
}

#[tokio::test]
async fn an_upgraded_table_gets_row_ids() {
    let mut rig = Rig::new(2);
    rig.publish(&[file("a", 10)]).await;
    rig.format_version = 3;
    let upgraded = rig.publish(&[file("a", 10)]).await;
    assert!(!upgraded.unchanged);
    let table = rig.read().await;
    assert_eq!(
        (table.format_version, table.data_files[0].first_row_id),
        (3, Some(0))
    );
    assert_eq!(rig.library().await.next_row_id(), 10);
    rig.format_version = 2;
    assert_eq!(
        publish(&LocalStore, rig.request(&[]))
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_changed_schema_gets_a_new_id_and_may_come_back() {
    let mut rig = Rig::new(2);
    assert_eq!(rig.publish(&[file("a", 10)]).await.schema_id, 0);
    let old = rig.schema.clone();
    rig.schema.fields.push(field(8, "added", FieldType::Date));
    rig.properties = BTreeMap::from([("comment".to_string(), "x".to_string())]);
    let changed = rig.publish(&[file("a", 10)]).await;
    assert_eq!((changed.schema_id, changed.unchanged), (1, false));
    let metadata = rig.library().await;
    assert_eq!(metadata.last_column_id(), 8);
    assert_eq!(metadata.properties().len(), 1);
    assert_eq!(metadata.current_snapshot().unwrap().schema_id(), Some(1));
    rig.schema = old;
    assert_eq!(rig.publish(&[file("a", 10)]).await.schema_id, 0);
}

#[tokio::test]
async fn expired_snapshots_name_what_they_leave() {
    let mut rig = Rig::new(2);
    rig.keep_snapshots = 2;
    let mut removed = Vec::new();
    for round in 0..6 {
        let files = [file("a", 10), hot(&format!("hot{round}"), 1)];
        removed.extend(rig.publish(&files).await.removed_files);
    }
    let metadata = rig.library().await;
    assert_eq!(metadata.snapshots().len(), 2);
    assert_eq!(metadata.history().len(), 2);
    for location in &removed {
        std::fs::remove_file(location.strip_prefix("file://").unwrap()).unwrap();
    }
    // Four lists, and the manifests of hot images and of their deletion that no kept snapshot has.
    assert_eq!(
        removed
            .iter()
            .filter(|location| location.contains("/snap-"))
            .count(),
        4
    );
    assert!(removed.len() > 8);
    let io = FileIO::new_with_fs();
    for snapshot in metadata.snapshots() {
        let bytes = io
            .new_input(snapshot.manifest_list())
            .unwrap()
            .read()
            .await
            .unwrap();
        let list =
            iceberg::spec::ManifestList::parse_with_version(&bytes, metadata.format_version())
                .unwrap();
        for manifest in list.entries() {
            manifest.load_manifest(&io).await.unwrap();
        }
    }
}

#[tokio::test]
async fn many_manifests_are_merged() {
    let mut rig = Rig::new(3);
    let mut files = Vec::new();
    for round in 0..110 {
        files.push(file(&format!("f{round:03}"), 2));
        rig.publish(&files).await;
    }
    let table = rig.read().await;
    assert_eq!(summary(&table, "total-data-files"), Some("110"));
    let kept: usize = summary(&table, "manifests-kept").unwrap().parse().unwrap();
    assert!(kept < 20, "{kept}");
    let mut ids: Vec<i64> = table
        .data_files
        .iter()
        .map(|file| file.first_row_id.unwrap())
        .collect();
    ids.sort();
    assert!(ids.windows(2).all(|pair| pair[1] - pair[0] >= 2));
}

#[tokio::test]
async fn contradictions_are_refused_and_leave_nothing() {
    let mut rig = Rig::new(2);
    rig.publish(&[file("a", 10)]).await;
    let count = rig.metadata_files();
    for files in [vec![file("a", 11)], vec![file("b", 1), file("b", 1)]] {
        assert_eq!(
            publish(&LocalStore, rig.request(&files))
                .await
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidInput
        );
    }
    let mut stranger = rig.request(&[]);
    stranger.table_uuid = Uuid::new_v4();
    assert_eq!(
        publish(&LocalStore, stranger).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let mut partial = rig.request(&[file("a", 10), file("c", 1)]);
    partial.files[1].columns[0].lower = Some(vec![1, 2, 3]);
    assert_eq!(
        publish(&LocalStore, partial).await.unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(rig.metadata_files(), count);
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_stop_publication() {
    let mut rig = Rig::new(2);
    rig.publish(&[file("a", 10)]).await;
    rig.clock_ms -= 3_600_000;
    rig.publish(&[file("a", 10), file("b", 1)]).await;
    let snapshots = rig.read().await.snapshots;
    assert!(snapshots[1].timestamp_ms > snapshots[0].timestamp_ms);
}

/// A flipped bit in what was published must not keep a table from being published ever again.
#[tokio::test]
async fn damaged_metadata_are_published_anew() {
    for format_version in [2, 3] {
        for damaged in ["/snap-", "-m0.avro", ".metadata.json"] {
            for missing in [false, true] {
                published_anew(format_version, damaged, missing).await;
            }
        }
    }
}

async fn published_anew(format_version: u8, damaged: &str, missing: bool) {
    let mut rig = Rig::new(format_version);
    let mut files = vec![file("a", 10), file("b", 20)];
    rig.publish(&files[..1]).await;
    files[0].deleted = vec![3, 7];
    let last = rig.publish(&files).await;
    assert_eq!(last.damage, None);

    let path = last.new_files.iter().find(|path| path.contains(damaged));
    let path = path.unwrap().strip_prefix("file://").unwrap();
    if missing {
        std::fs::remove_file(path).unwrap();
    } else {
        std::fs::write(path, "not what it was").unwrap();
    }
    // Also if nothing has changed since.
    let anew = rig.publish(&files).await;
    assert!(anew.damage.as_ref().is_some_and(|why| why.contains(path)));
    assert!(!anew.unchanged);
    assert_eq!(anew.sequence_number, last.sequence_number + 1);
    assert!(anew.metadata_location.contains("/00002-"));
    let metadata = rig.library().await;
    assert_eq!(metadata.uuid(), rig.uuid);
    assert_eq!(metadata.snapshots().len(), 1);
    let table = rig.read().await;
    assert_eq!(summary(&table, "total-data-files"), Some("2"));
    assert_eq!(summary(&table, "total-records"), Some("30"));
    let checked = check_table(&LocalStore, &anew.metadata_location)
        .await
        .unwrap();
    assert!(checked.unreadable.is_empty(), "{:?}", checked.unreadable);
    let rows: Vec<_> = checked
        .data_files
        .iter()
        .map(|file| (file.row_count, file.deleted))
        .collect();
    assert_eq!(rows, [(10, 2), (20, 0)]);

    let next = rig.publish(&files[1..]).await;
    assert_eq!((next.damage, next.unchanged), (None, false));
    assert_eq!(rig.library().await.snapshots().len(), 2);
}
