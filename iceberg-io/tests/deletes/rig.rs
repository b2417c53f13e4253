//! A table under publication, and its deletes as readers that aren't ours find them: the `iceberg`, `parquet` and
//! `roaring` crates.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, ManifestContentType, ManifestEntryRef, ManifestList,
    SnapshotRef, TableMetadata,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Repetition;
use pg_lake_iceberg::{
    Field, FieldType, LocalStore, Partition, PublishFile, PublishRequest, Published, TableSchema,
    publish,
};
use uuid::Uuid;

const FILE_PATH_ID: i32 = 2_147_483_546;
const POS_ID: i32 = 2_147_483_545;

/// A table under publication.
pub struct Rig {
    directory: tempfile::TempDir,
    uuid: Uuid,
    pub format_version: u8,
    pub keep_snapshots: u32,
    previous: Option<String>,
    clock_ms: i64,
}

impl Rig {
    pub fn new(format_version: u8) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            uuid: Uuid::new_v4(),
            format_version,
            keep_snapshots: 100,
            previous: None,
            clock_ms: 1_700_000_000_000,
        }
    }

    pub fn request(&self, files: &[PublishFile]) -> PublishRequest {
        let id = Field {
            id: 1,
            name: "id".to_string(),
            ty: FieldType::Long,
            required: false,
            doc: None,
        };
        PublishRequest {
            location: format!("file://{}", self.directory.path().display()),
            table_uuid: self.uuid,
            format_version: self.format_version,
            schema: TableSchema {
                schema_id: 0,
                fields: vec![id],
            },
            partition_by: vec![],
            sort_by: vec![],
            properties: BTreeMap::new(),
            previous_metadata: self.previous.clone(),
            files: files.to_vec(),
            timestamp_ms: self.clock_ms,
            commit_id: Uuid::new_v4(),
            keep_snapshots: self.keep_snapshots,
        }
    }

    /// Publishes, and checks that what a reader finds deleted is what was asked for.
    pub async fn publish(&mut self, files: &[PublishFile]) -> Published {
        self.clock_ms += 1000;
        let published = publish(&LocalStore, self.request(files)).await.unwrap();
        self.previous = Some(published.metadata_location.clone());
        let wanted: BTreeMap<String, Vec<u64>> = files
            .iter()
            .filter(|file| !file.deleted.is_empty())
            .map(|file| {
                let positions = file.deleted.iter().map(|&row| u64::from(row));
                (file.path.clone(), positions.collect())
            })
            .collect();
        let entries = self.deletes().await.alive;
        assert_eq!(entries.len(), wanted.len());
        let found = entries.iter().map(|entry| deleted_rows(entry.data_file()));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), wanted);
        let positions = wanted.values().map(Vec::len).sum::<usize>() as u64;
        assert_eq!(
            self.summary("total-delete-files").await,
            wanted.len() as u64
        );
        assert_eq!(self.summary("total-position-deletes").await, positions);
        published
    }

    pub async fn metadata(&self) -> TableMetadata {
        TableMetadata::read_from(&FileIO::new_with_fs(), self.previous.as_ref().unwrap())
            .await
            .unwrap()
    }

    pub async fn deletes(&self) -> Deletes {
        let metadata = self.metadata().await;
        Deletes::read(&metadata, metadata.current_snapshot().unwrap()).await
    }

    pub async fn operation(&self) -> String {
        let metadata = self.metadata().await;
        let summary = metadata.current_snapshot().unwrap().summary();
        summary.operation.as_str().to_string()
    }

    /// A number of the current snapshot's summary; what isn't mentioned is none.
    pub async fn summary(&self, key: &str) -> u64 {
        let metadata = self.metadata().await;
        let summary = metadata.current_snapshot().unwrap().summary();
        let value = summary.additional_properties.get(key);
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub fn delete_files_on_disk(&self) -> usize {
        fs::read_dir(self.directory.path().join("data")).map_or(0, Iterator::count)
    }
}

/// What the delete manifests of a snapshot hold.
pub struct Deletes {
    pub manifests: Vec<String>,
    pub alive: Vec<ManifestEntryRef>,
    pub gone: Vec<ManifestEntryRef>,
}

impl Deletes {
    pub async fn read(metadata: &TableMetadata, snapshot: &SnapshotRef) -> Self {
        let io = FileIO::new_with_fs();
        let list = io.new_input(snapshot.manifest_list()).unwrap();
        let list = list.read().await.unwrap();
        let list = ManifestList::parse_with_version(&list, metadata.format_version()).unwrap();
        let mut found = Self {
            manifests: vec![],
            alive: vec![],
            gone: vec![],
        };
        for file in list.entries() {
            if file.content != ManifestContentType::Deletes {
                continue;
            }
            let manifest = file.load_manifest(&io).await.unwrap();
            assert_eq!(manifest.metadata().content, ManifestContentType::Deletes);
            assert_eq!((file.partition_spec_id, file.first_row_id), (0, None));
            found.manifests.push(file.manifest_path.clone());
            let entries = manifest.entries().iter().cloned();
            let (alive, gone) = entries.partition::<Vec<_>, _>(|entry| entry.is_alive());
            found.alive.extend(alive);
            found.gone.extend(gone);
        }
        found
    }

    pub fn of(&self, name: &str) -> &ManifestEntryRef {
        let path = Some(path(name));
        let mut of = self.alive.iter();
        of.find(|entry| entry.data_file().referenced_data_file() == path)
            .unwrap()
    }
}

fn path(name: &str) -> String {
    format!("file:///data/{name}.parquet")
}

pub fn file(name: &str, rows: u64, deleted: &[u32]) -> PublishFile {
    PublishFile {
        path: path(name),
        size_bytes: rows * 100,
        row_count: rows,
        split_offsets: vec![4],
        columns: vec![],
        partition: Partition::default(),
        sort_order: vec![],
        hot_image: false,
        deleted: deleted.to_vec(),
    }
}

pub fn local(location: &str) -> PathBuf {
    PathBuf::from(location.strip_prefix("file://").unwrap())
}

/// The data file and the positions that an entry says are deleted.
pub fn deleted_rows(entry: &DataFile) -> (String, Vec<u64>) {
    assert_eq!(entry.content_type(), DataContentType::PositionDeletes);
    assert_eq!(
        fs::metadata(local(entry.file_path())).unwrap().len(),
        entry.file_size_in_bytes()
    );
    let data_file = entry.referenced_data_file().unwrap();
    let positions = match entry.file_format() {
        DataFileFormat::Puffin => vector(entry),
        _ => positions(entry, &data_file),
    };
    assert_eq!(positions.len() as u64, entry.record_count());
    (data_file, positions)
}

fn positions(entry: &DataFile, data_file: &str) -> Vec<u64> {
    let file = File::open(local(entry.file_path())).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let columns = builder.parquet_schema().columns().iter();
    let columns: Vec<_> = columns
        .map(|column| {
            let info = column.self_type().get_basic_info();
            assert_eq!(info.repetition(), Repetition::REQUIRED);
            (info.name().to_string(), info.id())
        })
        .collect();
    let expected = [
        ("file_path".to_string(), FILE_PATH_ID),
        ("pos".to_string(), POS_ID),
    ];
    assert_eq!(columns, expected);
    let mut positions = vec![];
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let paths = batch.column(0).as_string::<i32>();
        assert!(paths.iter().all(|path| path == Some(data_file)));
        let rows = batch.column(1).as_primitive::<Int64Type>().values();
        positions.extend(rows.iter().map(|&row| u64::try_from(row).unwrap()));
    }
    // The bounds are whole and exact.
    let bounds = [
        (entry.lower_bounds(), positions.first()),
        (entry.upper_bounds(), positions.last()),
    ];
    for (bounds, position) in bounds {
        let path = bounds[&FILE_PATH_ID].to_bytes().unwrap();
        assert_eq!(path.as_slice(), data_file.as_bytes());
        let bound = bounds[&POS_ID].to_bytes().unwrap();
        assert_eq!(bound.as_slice(), position.unwrap().to_le_bytes());
    }
    positions
}

fn vector(entry: &DataFile) -> Vec<u64> {
    let content = fs::read(local(entry.file_path())).unwrap();
    let offset = usize::try_from(entry.content_offset().unwrap()).unwrap();
    let size = usize::try_from(entry.content_size_in_bytes().unwrap()).unwrap();
    let (length, rest) = content[offset..offset + size]
        .split_first_chunk::<4>()
        .unwrap();
    let (middle, checksum) = rest.split_last_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, middle.len());
    assert_eq!(u32::from_be_bytes(*checksum), crc32fast::hash(middle));
    assert_eq!(middle[..4], [0xd1, 0xd3, 0x39, 0x64]);
    let bitmap = roaring::RoaringTreemap::deserialize_from(&middle[4..]).unwrap();
    bitmap.iter().collect()
}
