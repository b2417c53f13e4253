//! A store that shows what was written only after a while, or can't be reached: nothing is lost by that, and what never
//! comes is given up.

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
    hidden: String,
    times: Mutex<u32>,
    /// What is said then.
    kind: ErrorKind,
}

impl Late {
    fn new(patience: Duration, hidden: &str, times: u32) -> Late {
        Late {
            patience,
            hidden: hidden.to_owned(),
            times: Mutex::new(times),
            kind: ErrorKind::NotFound,
        }
    }

    fn left(&self) -> u32 {
        *self.times.lock().unwrap()
    }
}

#[async_trait]
impl MetadataStore for Late {
    async fn read(&self, location: &str) -> Result<Bytes> {
        if location.contains(&self.hidden) {
            let mut times = self.times.lock().unwrap();
            if *times > 0 {
                *times -= 1;
                let error = Error::new(self.kind, format!("no {location}"));
                return Err(error.with_retryable(self.kind == ErrorKind::Io));
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

#[tokio::test]
async fn nothing_expires_while_it_is_unknown_what_that_would_leave() {
    let directory = tempfile::tempdir().unwrap();
    let step = |previous: Option<&Published>, names: &[&str]| PublishRequest {
        keep_snapshots: 2,
        ..request(directory.path(), previous, names)
    };
    let files = || std::fs::read_dir(directory.path().join("metadata")).map(Iterator::count);
    let first = publish(&LocalStore, step(None, &["a"])).await.unwrap();
    let second = step(Some(&first), &["b"]);
    let second = publish(&LocalStore, second).await.unwrap();
    let expired = format!("/snap-{}", first.snapshot_id);
    for (kind, times) in [(ErrorKind::Io, u32::MAX), (ErrorKind::Corrupt, 1)] {
        let store = Late {
            kind,
            ..Late::new(Duration::ZERO, &expired, times)
        };
        let before = files().unwrap();
        let third = publish(&store, step(Some(&second), &["c"])).await;
        if kind == ErrorKind::Io {
            assert_eq!(third.expect_err("out of reach").kind(), ErrorKind::Io);
            assert_eq!(files().unwrap(), before);
            continue;
        }
        // Damaged on its way: read once more. The list of the first snapshot and the manifest that only this one has.
        let removed = third.unwrap().removed_files;
        let of_first = |part: &str| removed.iter().any(|location| location.contains(part));
        assert!(of_first(&expired) && of_first("-m0.avro"), "{removed:?}");
    }
}
