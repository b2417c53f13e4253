//! Partitioned and sorted tables: what the `iceberg` crate reads of what was published, and its own transforms as a check
//! of ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use iceberg::io::FileIO;
use iceberg::spec::{
    DataContentType, Datum, Literal, ManifestList, PrimitiveType, Struct, TableMetadata, Transform,
};
use iceberg::transform::create_transform_function;
use pg_lake_iceberg::{
    Field, FieldType, LocalStore, Partition, PartitionField, PublishFile, PublishRequest,
    Published, SortField, TableSchema, publish,
};
use pg_lake_plan::layout::{Transform as Ours, single_value};
use pg_lake_plan::types::Value;
use uuid::Uuid;

/// A column of the table.
type Column = (i32, &'static str, FieldType);

struct Rig {
    directory: tempfile::TempDir,
    uuid: Uuid,
    format_version: u8,
    columns: Vec<Column>,
    partition_by: Vec<PartitionField>,
    sort_by: Vec<SortField>,
    previous: Option<String>,
    clock_ms: i64,
}

impl Rig {
    fn new(format_version: u8) -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            uuid: Uuid::new_v4(),
            format_version,
            columns: vec![
                (1, "id", FieldType::Long),
                (2, "region", FieldType::String),
                (3, "ts", FieldType::Timestamptz),
                (
                    4,
                    "price",
                    FieldType::Decimal {
                        precision: 9,
                        scale: 2,
                    },
                ),
            ],
            partition_by: vec![by(2, "identity"), by(3, "day")],
            sort_by: vec![sorted(1)],
            previous: None,
            clock_ms: 1_700_000_000_000,
        }
    }

    async fn publish(&mut self, files: &[PublishFile]) -> Published {
        self.clock_ms += 1000;
        let fields = self.columns.iter().map(|(id, name, ty)| Field {
            id: *id,
            name: (*name).to_string(),
            ty: ty.clone(),
            required: false,
            doc: None,
        });
        let request = PublishRequest {
            location: format!("file://{}", self.directory.path().display()),
            table_uuid: self.uuid,
            format_version: self.format_version,
            schema: TableSchema {
                schema_id: 0,
                fields: fields.collect(),
            },
            partition_by: self.partition_by.clone(),
            sort_by: self.sort_by.clone(),
            properties: BTreeMap::new(),
            previous_metadata: self.previous.clone(),
            files: files.to_vec(),
            timestamp_ms: self.clock_ms,
            commit_id: Uuid::new_v4(),
            keep_snapshots: 100,
        };
        let published = publish(&LocalStore, request).await.unwrap();
        self.previous = Some(published.metadata_location.clone());
        published
    }

    async fn metadata(&self) -> TableMetadata {
        TableMetadata::read_from(&FileIO::new_with_fs(), self.previous.as_ref().unwrap())
            .await
            .unwrap()
    }

    /// The live entries: the data file, whether the entry is of deletes, its spec id and partition, and its sort order.
    async fn entries(&self) -> BTreeMap<(String, bool), (i32, Struct, Option<i32>)> {
        let metadata = self.metadata().await;
        let io = FileIO::new_with_fs();
        let list = metadata.current_snapshot().unwrap().manifest_list();
        let list = io.new_input(list).unwrap().read().await.unwrap();
        let list = ManifestList::parse_with_version(&list, metadata.format_version()).unwrap();
        let mut entries = BTreeMap::new();
        for file in list.entries() {
            let manifest = file.load_manifest(&io).await.unwrap();
            let spec = &manifest.metadata().partition_spec;
            assert_eq!(spec.spec_id(), file.partition_spec_id);
            let summaries = file.partitions.as_ref().map_or(0, Vec::len);
            assert_eq!(summaries, spec.fields().len());
            for entry in manifest.entries().iter().filter(|entry| entry.is_alive()) {
                let entry = entry.data_file();
                let deletes = entry.content_type() != DataContentType::Data;
                let path = entry.referenced_data_file();
                let path = path.unwrap_or_else(|| entry.file_path().to_string());
                let place = (
                    spec.spec_id(),
                    entry.partition().clone(),
                    entry.sort_order_id(),
                );
                assert!(entries.insert((path, deletes), place).is_none());
            }
        }
        entries
    }
}

fn by(source_id: i32, transform: &str) -> PartitionField {
    PartitionField {
        source_id,
        transform: transform.to_string(),
    }
}

fn sorted(source_id: i32) -> SortField {
    SortField {
        source_id,
        descending: true,
        nulls_first: false,
    }
}

fn file(name: &str, fields: &[PartitionField], values: &[Option<Value>]) -> PublishFile {
    PublishFile {
        path: format!("file:///data/{name}.parquet"),
        size_bytes: 1000,
        row_count: 10,
        split_offsets: vec![4],
        columns: vec![],
        partition: Partition {
            fields: fields.to_vec(),
            values: values
                .iter()
                .map(|value| value.as_ref().map(single_value))
                .collect(),
        },
        sort_order: vec![],
        hot_image: false,
        deleted: vec![],
    }
}

fn text(value: &str) -> Option<Value> {
    Some(Value::Text(value.to_string()))
}

fn key(name: &str, deletes: bool) -> (String, bool) {
    (format!("file:///data/{name}.parquet"), deletes)
}

async fn partitions_evolve(format_version: u8) {
    let mut rig = Rig::new(format_version);
    let first = rig.partition_by.clone();
    let mut a = file("a", &first, &[text("eu"), Some(Value::I32(19_000))]);
    a.sort_order = vec![sorted(1)];
    let b = file("b", &first, &[None, Some(Value::I32(-1))]);
    rig.publish(&[a.clone(), b.clone()]).await;
    let metadata = rig.metadata().await;
    let spec = metadata.default_partition_spec();
    let fields: Vec<_> = spec
        .fields()
        .iter()
        .map(|f| (f.source_id, f.field_id, f.name.as_str(), f.transform))
        .collect();
    assert_eq!(
        fields,
        [
            (2, 1000, "region", Transform::Identity),
            (3, 1001, "ts_day", Transform::Day)
        ]
    );
    let order = metadata.default_sort_order();
    assert_eq!((order.order_id, order.fields[0].source_id), (1, 1));
    let in_eu = Struct::from_iter([Some(Literal::string("eu")), Some(Literal::date(19_000))]);
    let nowhere = Struct::from_iter([None, Some(Literal::date(-1))]);
    let entries = rig.entries().await;
    assert_eq!(entries[&key("a", false)], (1, in_eu.clone(), Some(1)));
    assert_eq!(entries[&key("b", false)], (1, nowhere.clone(), None));
    assert!(rig.publish(&[a.clone(), b.clone()]).await.unchanged);

    // Another spec: old files stay where they are, and what deletes rows of them is there, too.
    rig.partition_by = vec![
        by(1, "bucket[16]"),
        by(2, "identity"),
        by(4, "truncate[50]"),
    ];
    rig.sort_by = vec![];
    a.deleted = vec![3];
    let second = rig.partition_by.clone();
    let price = Some(Value::I128(-1050));
    let mut c = file("c", &second, &[Some(Value::I32(7)), text("us"), price]);
    c.deleted = vec![1, 2];
    rig.publish(&[a.clone(), b.clone(), c.clone()]).await;
    let metadata = rig.metadata().await;
    assert_eq!(metadata.default_partition_spec_id(), 2);
    assert_eq!(metadata.default_sort_order_id(), 0);
    assert_eq!(metadata.partition_specs_iter().len(), 3);
    let ids: Vec<_> = metadata
        .default_partition_spec()
        .fields()
        .iter()
        .map(|f| f.field_id)
        .collect();
    assert_eq!(ids, [1002, 1000, 1003], "an equal field keeps its id");
    let in_us = Struct::from_iter([
        Some(Literal::int(7)),
        Some(Literal::string("us")),
        Some(Literal::decimal(-1050)),
    ]);
    let entries = rig.entries().await;
    assert_eq!(entries[&key("a", false)], (1, in_eu.clone(), Some(1)));
    assert_eq!(entries[&key("a", true)], (1, in_eu.clone(), None));
    assert_eq!(entries[&key("c", false)], (2, in_us.clone(), None));
    assert_eq!(entries[&key("c", true)], (2, in_us.clone(), None));

    // Columns come that are called like partition fields, and the columns of an old spec go.
    rig.columns.retain(|(id, _, _)| *id != 3);
    rig.columns.push((5, "ts_day", FieldType::Int));
    rig.columns.push((6, "id_bucket_16", FieldType::Int));
    rig.columns[1].1 = "area";
    let mut b = b;
    b.deleted = vec![0];
    let late = file("late", &first, &[text("eu"), Some(Value::I32(19_001))]);
    rig.publish(&[a, b, c, late]).await;
    let entries = rig.entries().await;
    assert_eq!(entries[&key("b", true)], (1, nowhere, None));
    // It was not published while its spec was possible.
    assert_eq!(entries[&key("late", false)], (0, Struct::empty(), None));
    assert_eq!(entries[&key("c", true)], (2, in_us, None));

    // Back to what was there before: the spec is used again.
    rig.partition_by = vec![];
    let unpartitioned = file("d", &[], &[]);
    rig.publish(&[unpartitioned]).await;
    assert_eq!(rig.metadata().await.default_partition_spec_id(), 0);
    assert_eq!(rig.entries().await.len(), 1);
}

#[tokio::test]
async fn partitions_evolve_in_version_2() {
    partitions_evolve(2).await;
}

#[tokio::test]
async fn partitions_evolve_in_version_3() {
    partitions_evolve(3).await;
}

/// A few edges and a pseudo-random walk over the numbers, the same at each run.
fn numbers() -> Vec<i64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut numbers = vec![0, 1, -1, 9, -9, 10, -10, 86_399_999_999, -86_400_000_001];
    for shift in (0..48).cycle().take(400) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        numbers.push((state as i64) >> (shift + 14));
    }
    numbers
}

fn check(transform: Ours, value: &Value, datum: &Datum, result: &PrimitiveType) {
    let theirs: Transform = transform.to_string().parse().unwrap();
    let function = create_transform_function(&theirs).unwrap();
    let theirs = function.transform_literal_result(datum).unwrap();
    let ours = single_value(&transform.apply(value).unwrap());
    let ours = Datum::try_from_bytes(&ours, result.clone()).unwrap();
    assert_eq!(ours.literal(), theirs.literal(), "{transform} of {datum}");
}

#[test]
fn partition_values_are_the_librarys() {
    use PrimitiveType::{Date, Int, Long};
    for number in numbers() {
        let long = (Value::I64(number), Datum::long(number));
        for transform in [Ours::Bucket(16), Ours::Bucket(1_000_003)] {
            check(transform, &long.0, &long.1, &Int);
        }
        check(Ours::Truncate(10), &long.0, &long.1, &Long);
        check(Ours::Truncate(7919), &long.0, &long.1, &Long);
        let timestamp = Datum::timestamptz_micros(number);
        check(Ours::Year, &long.0, &timestamp, &Int);
        check(Ours::Month, &long.0, &timestamp, &Int);
        check(Ours::Day, &long.0, &timestamp, &Date);
        check(Ours::Hour, &long.0, &timestamp, &Int);
        check(Ours::Bucket(97), &long.0, &timestamp, &Int);
        let int = number as i32;
        let value = Value::I32(int);
        check(Ours::Bucket(16), &value, &Datum::int(int), &Int);
        check(
            Ours::Truncate(10),
            &Value::I32(int >> 1),
            &Datum::int(int >> 1),
            &Int,
        );
        let days = int >> 12;
        let (value, date) = (Value::I32(days), Datum::date(days));
        check(Ours::Bucket(8), &value, &date, &Int);
        check(Ours::Year, &value, &date, &Int);
        check(Ours::Month, &value, &date, &Int);
        check(Ours::Day, &value, &date, &Date);
    }
    for value in ["", "a", "iceberg", "Zürich ist schön", "数据湖", "🧊🧊🧊"] {
        let ours = Value::Text(value.to_string());
        let datum = Datum::string(value);
        check(Ours::Bucket(16), &ours, &datum, &Int);
        check(Ours::Truncate(2), &ours, &datum, &PrimitiveType::String);
        let uuid = Uuid::from_u128(u128::from_be_bytes([value.len() as u8; 16]));
        let ours = Value::Uuid(*uuid.as_bytes());
        check(Ours::Bucket(16), &ours, &Datum::uuid(uuid), &Int);
        let bytes = value.as_bytes();
        let ours = Value::Bytes(bytes.to_vec());
        check(
            Ours::Bucket(16),
            &ours,
            &Datum::binary(bytes.to_vec()),
            &Int,
        );
        // The library truncates binaries in arrays only.
        let function = create_transform_function(&Transform::Truncate(2)).unwrap();
        let array: ArrayRef = Arc::new(BinaryArray::from_vec(vec![bytes]));
        let expected: ArrayRef =
            Arc::new(BinaryArray::from_vec(vec![&bytes[..bytes.len().min(2)]]));
        assert_eq!(&function.transform(array).unwrap(), &expected);
        let truncated = Ours::Truncate(2).apply(&ours);
        assert_eq!(
            truncated,
            Some(Value::Bytes(bytes[..bytes.len().min(2)].to_vec()))
        );
    }
}
