//! A data file's contract: what is written is what is read, with field ids, and every bound holds for every value.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array,
    ListArray, RecordBatch, StringArray,
};
use arrow::datatypes::{Int32Type, SchemaRef};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{LogicalType, Type as PhysicalType};
use parquet::bloom_filter::Sbbf;
use pg_lake_iceberg::{
    ColumnStats, Compression, DataFileWriter, ErrorKind, Field, FieldType, TableSchema,
    WriteOptions, WrittenFile,
};

fn field(id: i32, name: &str, ty: FieldType, required: bool) -> Field {
    Field {
        id,
        name: name.to_string(),
        ty,
        required,
        doc: None,
    }
}

fn schema() -> SchemaRef {
    TableSchema {
        schema_id: 0,
        fields: vec![
            field(5, "id", FieldType::Long, true),
            field(2, "name", FieldType::String, false),
            field(
                9,
                "price",
                FieldType::Decimal {
                    precision: 12,
                    scale: 2,
                },
                false,
            ),
            field(4, "weight", FieldType::Double, false),
            field(6, "key", FieldType::Uuid, false),
            field(
                7,
                "tags",
                FieldType::List {
                    element_id: 8,
                    element: Box::new(FieldType::Int),
                },
                false,
            ),
        ],
    }
    .to_arrow()
    .unwrap()
}

/// Names of all lengths, with code points of one to four bytes, the last one below the surrogates and the last of all.
fn names(rows: usize) -> Vec<Option<String>> {
    let alphabet = [
        'a',
        'z',
        'ÿ',
        '\u{7ff}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{ffff}',
        '\u{10000}',
        char::MAX,
    ];
    (0..rows)
        .map(|row| {
            let length = row * 7 % 50;
            (row % 11 != 3).then(|| {
                (0..length)
                    .map(|at| alphabet[(row * 5 + at * at) % alphabet.len()])
                    .collect()
            })
        })
        .collect()
}

fn batch(schema: &SchemaRef, first: usize, rows: usize) -> RecordBatch {
    let range = first..first + rows;
    let names = names(first + rows).split_off(first);
    let prices = range
        .clone()
        .map(|row| (row % 5 != 0).then(|| (row as i128 - 300) * 1_000_001));
    let weights = range.clone().map(|row| match row % 4 {
        0 => Some(f64::NAN),
        1 => None,
        _ => Some(row as f64 - 40.5),
    });
    let keys = range
        .clone()
        .map(|row| Some(((row as u128) << 100).to_be_bytes()));
    let tags = range
        .clone()
        .map(|row| (row % 3 != 0).then(|| (0..row % 4).map(|tag| Some(tag as i32))));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(
            range.map(|row| row as i64 * 3 - 100),
        )),
        Arc::new(StringArray::from(names)),
        Arc::new(
            Decimal128Array::from_iter(prices)
                .with_precision_and_scale(12, 2)
                .unwrap(),
        ),
        Arc::new(Float64Array::from_iter(weights)),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(keys, 16).unwrap()),
        list_of(
            schema,
            ListArray::from_iter_primitive::<Int32Type, _, _>(tags),
        ),
    ];
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}

/// The list with the schema's element field, whose name and id differ from what the constructor uses.
fn list_of(schema: &SchemaRef, list: ListArray) -> ArrayRef {
    let arrow::datatypes::DataType::List(element) = schema.field(5).data_type() else {
        panic!("not a list")
    };
    let (_, offsets, values, nulls) = list.into_parts();
    Arc::new(ListArray::new(element.clone(), offsets, values, nulls))
}

fn write(directory: &tempfile::TempDir, batches: &[RecordBatch]) -> WrittenFile {
    let path = directory.path().join("data/nested/file.parquet");
    let options = WriteOptions {
        row_group_rows: 500,
        ..WriteOptions::default()
    };
    let mut writer = DataFileWriter::create(&path, schema(), &options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    assert!(writer.approximate_bytes() > 0);
    writer.finish().unwrap()
}

fn stats(file: &WrittenFile, field_id: i32) -> &ColumnStats {
    file.columns
        .iter()
        .find(|column| column.field_id == field_id)
        .unwrap()
}

fn long(bytes: &Option<Vec<u8>>) -> i64 {
    i64::from_le_bytes(bytes.as_ref().unwrap().as_slice().try_into().unwrap())
}

#[test]
fn round_trip() {
    let directory = tempfile::tempdir().unwrap();
    let batches = [batch(&schema(), 0, 700), batch(&schema(), 700, 600)];
    let written = write(&directory, &batches);
    assert_eq!(written.row_count, 1300);
    assert_eq!(written.size_bytes, written.path.metadata().unwrap().len());

    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(&written.path).unwrap()).unwrap();
    let offsets: Vec<i64> = reader
        .metadata()
        .row_groups()
        .iter()
        .map(|group| group.column(0).byte_range().0 as i64)
        .collect();
    assert_eq!(written.split_offsets, offsets);
    assert_eq!(offsets.len(), 3);
    let parquet = reader.parquet_schema();
    assert_eq!(parquet.column(2).physical_type(), PhysicalType::INT64);
    assert_eq!(
        parquet.column(4).logical_type_ref(),
        Some(&LogicalType::Uuid)
    );
    for (found, expected) in reader.schema().fields().iter().zip(schema().fields()) {
        assert_eq!(
            found.metadata()[PARQUET_FIELD_ID_META_KEY],
            expected.metadata()[PARQUET_FIELD_ID_META_KEY]
        );
        assert!(
            found.data_type().equals_datatype(expected.data_type()),
            "{found:?}"
        );
    }
    let read: Vec<RecordBatch> = reader
        .with_batch_size(2000)
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let read = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
    let expected = arrow::compute::concat_batches(&schema(), &batches).unwrap();
    for column in 0..5 {
        assert_eq!(
            read.column(column).to_data(),
            expected.column(column).to_data(),
            "column {column}"
        );
    }
    assert_eq!(
        read.column(5).as_list::<i32>().values().to_data(),
        expected.column(5).as_list::<i32>().values().to_data()
    );
}

#[test]
fn every_compression_gives_the_rows_back() {
    let directory = tempfile::tempdir().unwrap();
    let schema = schema();
    let written = batch(&schema, 0, 3000);
    for (compression, name) in [
        (Compression::Zstd(1), "ZSTD"),
        (Compression::Snappy, "SNAPPY"),
        (Compression::Lz4, "LZ4_RAW"),
        (Compression::Gzip, "GZIP"),
        (Compression::None, "UNCOMPRESSED"),
    ] {
        let path = directory.path().join(format!("{name}.parquet"));
        let options = WriteOptions {
            compression,
            ..WriteOptions::default()
        };
        let mut writer = DataFileWriter::create(&path, schema.clone(), &options).unwrap();
        writer.write(&written).unwrap();
        writer.finish().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let used = reader.metadata().row_group(0).column(0).compression();
        assert!(format!("{used:?}").starts_with(name), "{used:?}");
        let read: Vec<RecordBatch> = reader
            .with_batch_size(5000)
            .build()
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(read.len(), 1);
        for column in 0..5 {
            let (read, written) = (read[0].column(column), written.column(column));
            assert_eq!(read.to_data(), written.to_data(), "{name}, column {column}");
        }
    }
}

#[test]
fn bounds_hold_for_every_value() {
    let directory = tempfile::tempdir().unwrap();
    let written = write(
        &directory,
        &[batch(&schema(), 0, 700), batch(&schema(), 700, 600)],
    );

    let id = stats(&written, 5);
    assert_eq!((long(&id.lower), long(&id.upper)), (-100, 1299 * 3 - 100));
    assert_eq!(
        (id.value_count, id.null_count, id.nan_count),
        (1300, 0, None)
    );
    assert!(id.column_size > 0 && id.column_size < written.size_bytes);

    let name = stats(&written, 2);
    let values: Vec<String> = names(1300).into_iter().flatten().collect();
    assert_eq!(name.null_count as usize, 1300 - values.len());
    let lower = name.lower.as_ref().unwrap();
    assert!(
        values
            .iter()
            .all(|value| value.as_bytes() >= lower.as_slice())
    );
    if let Some(upper) = &name.upper {
        let text = std::str::from_utf8(upper).unwrap();
        assert!(values.iter().all(|value| value.as_str() <= text));
        assert!(upper.len() <= 64);
    }

    let price = stats(&written, 9);
    let unscaled = |bytes: &Option<Vec<u8>>| {
        let bytes = bytes.as_ref().unwrap();
        let fill = if bytes[0] & 0x80 == 0 { 0 } else { 0xff };
        let mut wide = [fill; 16];
        wide[16 - bytes.len()..].copy_from_slice(bytes);
        i128::from_be_bytes(wide)
    };
    assert_eq!(unscaled(&price.lower), -299 * 1_000_001);
    assert_eq!(unscaled(&price.upper), 999 * 1_000_001);
    assert_eq!(price.null_count, 260);

    let weight = stats(&written, 4);
    assert_eq!((weight.nan_count, weight.null_count), (Some(325), 325));
    assert_eq!(
        weight.lower.as_ref().unwrap().as_slice(),
        (2.0f64 - 40.5).to_le_bytes()
    );
    assert_eq!(
        weight.upper.as_ref().unwrap().as_slice(),
        (1299.0f64 - 40.5).to_le_bytes()
    );

    let element = stats(&written, 8);
    assert_eq!(
        (element.lower.as_ref(), element.upper.as_ref()),
        (None, None)
    );
    assert!(element.null_count > 0 && element.value_count > element.null_count);
}

#[test]
fn filters_are_written_and_have_what_is_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("filtered.parquet");
    let options = WriteOptions {
        row_group_rows: 500,
        bloom_filters: vec![5, 2, 6, 7],
        ..WriteOptions::default()
    };
    let mut writer = DataFileWriter::create(&path, schema(), &options).unwrap();
    // 500 values of ten bits each, and the next power of two; three columns.
    assert_eq!(writer.filter_bytes(), 3 * 1024);
    writer.write(&batch(&schema(), 0, 700)).unwrap();
    writer.write(&batch(&schema(), 700, 600)).unwrap();
    writer.finish().unwrap();

    let file = File::open(&path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.try_clone().unwrap()).unwrap();
    let names = names(1300);
    for (number, group) in reader.metadata().row_groups().iter().enumerate() {
        let filter = |leaf: usize| Sbbf::read_from_column_chunk(group.column(leaf), &file);
        let rows = number * 500..1300usize.min(number * 500 + 500);
        let has: Vec<bool> = (0..6).map(|leaf| filter(leaf).unwrap().is_some()).collect();
        // Prices and weights weren't named, and tags are nested.
        assert_eq!(has, [true, true, false, false, true, false]);
        let [ids, texts, keys] = [0, 1, 4].map(|leaf| filter(leaf).unwrap().unwrap());
        let mut wrong = 0;
        for row in rows {
            let id = row as i64 * 3 - 100;
            assert!(ids.check(&id));
            wrong += usize::from(ids.check(&(id + 1)));
            if let Some(name) = &names[row] {
                assert!(texts.check(name.as_str()));
            }
            assert!(keys.check(&((row as u128) << 100).to_be_bytes()[..]));
        }
        assert!(wrong < 25, "{wrong}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file.parquet");
    let options = WriteOptions {
        compression: Compression::Snappy,
        ..WriteOptions::default()
    };
    let mut writer = DataFileWriter::create(&path, schema(), &options).unwrap();
    let narrow = batch(&schema(), 0, 10).project(&[0, 1]).unwrap();
    assert_eq!(
        writer.write(&narrow).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let again = DataFileWriter::create(&path, schema(), &options)
        .map(|_| ())
        .unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    assert!(path.exists());
    writer.abort().unwrap();
    assert!(!path.exists());

    let bad = WriteOptions {
        compression: Compression::Zstd(99),
        ..WriteOptions::default()
    };
    assert!(DataFileWriter::create(&path, schema(), &bad).is_err());
    assert!(!path.exists());
}

#[test]
fn an_empty_file_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let written = write_nothing(&directory);
    assert_eq!((written.row_count, written.split_offsets.len()), (0, 0));
    assert!(
        written
            .columns
            .iter()
            .all(|column| column.lower.is_none() && column.value_count == 0)
    );
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(&written.path).unwrap()).unwrap();
    assert_eq!(reader.metadata().file_metadata().num_rows(), 0);
}

fn write_nothing(directory: &tempfile::TempDir) -> WrittenFile {
    let path = directory.path().join("empty.parquet");
    DataFileWriter::create(&path, schema(), &WriteOptions::default())
        .unwrap()
        .finish()
        .unwrap()
}
