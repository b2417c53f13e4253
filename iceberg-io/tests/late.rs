//! A store that shows what was written only after a while: nothing is lost by that, and what never comes is given up.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pg_lake_iceberg::{
    Error, ErrorKind, Field, FieldType, Former, LocalStore, MetadataStore, NewFile, Partition,
    PublishFile, PublishRequest, Published, Result, TableSchema, publish, read_table,
};
use uuid::Uuid;

struct Late {
    patience: Duration,
    /// Part of a name, and how often there is no such file.
    hidden: &'static str,
    times: Mutex<u32>,
}

impl Late {
    fn new(patience: Duration, hidden: &'static str, times: u32) -> Late {
        Late {
            patience,
            hidden,
            times: Mutex::new(times),
        }
    }

    fn left(&self) -> u32 {
        *self.times.lock().unwrap()
    }
}

#[async_trait]
impl MetadataStore for Late {
    async fn read(&self, location: &str) -> Result<Bytes> {
        if location.contains(self.hidden) {
            let mut times = self.times.lock().unwrap();
            if *times > 0 {
                *times -= 1;
                return Err(Error::new(ErrorKind::NotFound, format!("no {location}")));
            }
        }
        LocalStore.read(location).await
    }

    fn patience(&self, _location: &str) -> Duration {
        self.patience
    }

    async fn create_all(&self, files: Vec<NewFile>) -> Result<()> {
        LocalStore.create_all(files).await
    }

    async fn replace(&self, file: NewFile, former: Former<'_>, attempt: &Uuid) -> Result<bool> {
        LocalStore.replace(file, former, attempt).await
    }

    async fn remove(&self, location: &str) -> Result<()> {
        LocalStore.remove(location).await
    }
}

fn request(directory: &Path, previous: Option<&Published>, names: &[&str]) -> PublishRequest {
    let id = Field {
        id: 1,
        name: "id".into(),
        ty: FieldType::Long,
        required: false,
        doc: None,
    };
    let files = names.iter().map(|name| PublishFile {
        path: format!("file:///data/{name}.parquet"),
        size_bytes: 1000,
        row_count: 10,
        split_offsets: vec![4],
        columns: vec![],
        partition: Partition::default(),
        sort_order: vec![],
        hot_image: false,
        deleted: vec![],
    });
    PublishRequest {
        location: format!("file://{}", directory.display()),
        table_uuid: Uuid::from_u128(7),
        format_version: 2,
        schema: TableSchema {
            schema_id: 0,
            fields: vec![id],
        },
        partition_by: vec![],
        sort_by: vec![],
        properties: Default::default(),
        previous_metadata: previous.map(|published| published.metadata_location.clone()),
        files: files.collect(),
        timestamp_ms: 1_700_000_000_000,
        commit_id: Uuid::new_v4(),
        keep_snapshots: 10,
    }
}

#[tokio::test]
async fn what_comes_late_is_waited_for() {
    for hidden in [".metadata.json", "/snap-", "-m0.avro"] {
        let directory = tempfile::tempdir().unwrap();
        let first = request(directory.path(), None, &["a"]);
        let first = publish(&LocalStore, first).await.unwrap();
        let late = Late::new(Duration::from_secs(60), hidden, 3);
        let second = request(directory.path(), Some(&first), &["a", "b"]);
        let second = publish(&late, second).await.unwrap();
        assert_eq!((late.left(), second.damage), (0, None), "{hidden}");
        let location = &second.metadata_location;
        let table = read_table(&LocalStore, location).await.unwrap();
        assert_eq!(table.snapshots.len(), 2);
    }
}

#[tokio::test]
async fn what_never_comes_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let first = request(directory.path(), None, &["a"]);
    let first = publish(&LocalStore, first).await.unwrap();
    let never = Late::new(Duration::from_millis(200), "/snap-", u32::MAX);
    let second = request(directory.path(), Some(&first), &["a", "b"]);
    let second = publish(&never, second).await.unwrap();
    assert!(second.damage.is_some_and(|why| why.contains("/snap-")));
    assert!(u32::MAX - never.left() >= 2, "it was looked for again");
}
