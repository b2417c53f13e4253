//! What was written to the wire is read back: every type, nulls, slices, nested columns, casts.

use super::*;
use crate::arrow_types::arrow_schema;
use arrow::array::{
    Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array,
    StringViewArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use pg_lake_plan::batch::{BatchBuilder, BatchError};
use pg_lake_plan::types::StructField;

fn list_of(element: LakeType) -> LakeType {
    LakeType::List {
        element_id: 90,
        element: Box::new(element),
    }
}

fn pair() -> LakeType {
    LakeType::Struct(vec![
        StructField {
            id: 91,
            name: "n".into(),
            ty: LakeType::Int8,
        },
        StructField {
            id: 92,
            name: "t".into(),
            ty: list_of(LakeType::Text),
        },
    ])
}

fn array(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

/// Every type with two values, nulls between and at the end.
fn sample() -> Vec<(LakeType, ArrayRef)> {
    let money = LakeType::Decimal {
        precision: 20,
        scale: 3,
    };
    let decimals = Decimal128Array::from(vec![Some(-1), None, Some(10_i128.pow(19)), None])
        .with_precision_and_scale(20, 3)
        .expect("a valid decimal type");
    let uuid = |n: u8| Some([n; 16]);
    let uuids = FixedSizeBinaryArray::try_from_sparse_iter_with_size(
        [uuid(1), None, uuid(2), None].into_iter(),
        16,
    )
    .expect("16 bytes each");
    let texts = vec![Some("żółw"), None, Some(""), None];
    let times = vec![Some(1_i64), None, Some(-5), None];
    vec![
        (
            LakeType::Bool,
            array(BooleanArray::from(vec![
                Some(true),
                None,
                Some(false),
                None,
            ])),
        ),
        (
            LakeType::Int2,
            array(Int32Array::from(vec![Some(-7), None, Some(9), None])),
        ),
        (
            LakeType::Int4,
            array(Int32Array::from(vec![
                Some(i32::MIN),
                None,
                Some(i32::MAX),
                None,
            ])),
        ),
        (
            LakeType::Int8,
            array(Int64Array::from(vec![
                Some(i64::MIN),
                None,
                Some(i64::MAX),
                None,
            ])),
        ),
        (
            LakeType::Float4,
            array(Float32Array::from(vec![
                Some(-0.5),
                None,
                Some(f32::INFINITY),
                None,
            ])),
        ),
        (
            LakeType::Float8,
            array(Float64Array::from(vec![Some(0.1), None, Some(1e300), None])),
        ),
        (money, array(decimals)),
        (
            LakeType::Date,
            array(Date32Array::from(vec![Some(-1), None, Some(20_000), None])),
        ),
        (
            LakeType::Time,
            array(Time64MicrosecondArray::from(vec![
                Some(0),
                None,
                Some(86_399_999_999),
                None,
            ])),
        ),
        (
            LakeType::Timestamp,
            array(TimestampMicrosecondArray::from(times.clone())),
        ),
        (
            LakeType::Timestamptz,
            array(TimestampMicrosecondArray::from(times).with_timezone(UTC)),
        ),
        (LakeType::Text, array(StringArray::from(texts))),
        (
            LakeType::Bytes,
            array(BinaryArray::from(vec![
                Some(&[0_u8, 255][..]),
                None,
                Some(&[][..]),
                None,
            ])),
        ),
        (LakeType::Uuid, array(uuids)),
        (list_of(LakeType::Int4), lists()),
        (pair(), pairs()),
    ]
}

fn list_array(
    element: &LakeType,
    offsets: Vec<i32>,
    values: ArrayRef,
    valid: Vec<bool>,
) -> ArrayRef {
    let DataType::List(field) = arrow_type(&list_of(element.clone())) else {
        unreachable!("a list is a list");
    };
    let nulls = Some(NullBuffer::from(valid));
    Arc::new(ListArray::new(
        field,
        OffsetBuffer::new(offsets.into()),
        values,
        nulls,
    ))
}

fn lists() -> ArrayRef {
    let values = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
    list_array(
        &LakeType::Int4,
        vec![0, 2, 2, 2, 3],
        values,
        vec![true, false, true, true],
    )
}

fn pairs() -> ArrayRef {
    let DataType::Struct(fields) = arrow_type(&pair()) else {
        unreachable!("a struct is a struct");
    };
    let numbers = array(Int64Array::from(vec![Some(1), None, None, Some(4)]));
    let words = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let texts = list_array(
        &LakeType::Text,
        vec![0, 1, 1, 1, 3],
        words,
        vec![true, false, true, true],
    );
    let nulls = Some(NullBuffer::from(vec![true, false, true, true]));
    Arc::new(StructArray::new(fields, vec![numbers, texts], nulls))
}

fn sample_batch() -> (Vec<LakeType>, RecordBatch) {
    let (types, arrays): (Vec<_>, Vec<_>) = sample().into_iter().unzip();
    let names: Vec<String> = (0..types.len()).map(|i| format!("c{i}")).collect();
    let schema = arrow_schema(names.iter().map(String::as_str).zip(&types));
    (
        types,
        RecordBatch::try_new(schema, arrays).expect("a valid batch"),
    )
}

fn round_trip(batch: &RecordBatch, types: &[LakeType]) -> RecordBatch {
    let wire = WireBatch::new(batch, types).expect("buffers");
    let mut message = vec![];
    wire.write(&mut message).expect("written");
    assert_eq!(wire.message_len(), message.len());
    batch_from_wire(&message, types, batch.schema()).expect("read")
}

#[test]
fn every_type_survives() {
    let (types, batch) = sample_batch();
    assert_eq!(round_trip(&batch, &types), batch);
}

#[test]
fn slices_send_their_rows_only() {
    let (types, batch) = sample_batch();
    for start in 0..=batch.num_rows() {
        for len in 0..=batch.num_rows() - start {
            let slice = batch.slice(start, len);
            assert_eq!(round_trip(&slice, &types), slice, "rows {start}+{len}");
        }
    }
    // An offset that is not a whole byte, into bitmaps and bools alike.
    let bits: BooleanArray = (0..100)
        .map(|i| (i % 3 > 0).then_some(i % 2 == 0))
        .collect();
    let schema = arrow_schema([("b", &LakeType::Bool)]);
    let batch = RecordBatch::try_new(schema, vec![Arc::new(bits)]).expect("a valid batch");
    let slice = batch.slice(13, 50);
    assert_eq!(round_trip(&slice, &[LakeType::Bool]), slice);
}

#[test]
fn rows_without_columns_keep_their_number() {
    let schema = arrow_schema([]);
    let options = RecordBatchOptions::new().with_row_count(Some(42));
    let batch = RecordBatch::try_new_with_options(schema, vec![], &options).expect("a valid batch");
    assert_eq!(round_trip(&batch, &[]).num_rows(), 42);
}

#[test]
fn other_arrow_types_are_cast_on_their_way_out() {
    let types = [
        LakeType::Text,
        LakeType::Int2,
        LakeType::Decimal {
            precision: 10,
            scale: 2,
        },
    ];
    let decimals = Decimal128Array::from(vec![Some(150), None])
        .with_precision_and_scale(38, 2)
        .expect("a valid decimal type");
    let batch = RecordBatch::try_from_iter([
        (
            "t",
            array(StringViewArray::from(vec![
                Some("a view longer than twelve"),
                None,
            ])),
        ),
        ("i", array(Int16Array::from(vec![Some(5), Some(-5)]))),
        ("d", array(decimals)),
    ])
    .expect("a valid batch");
    let wire = WireBatch::new(&batch, &types).expect("buffers");
    let mut message = vec![];
    wire.write(&mut message).expect("written");
    let schema = arrow_schema(["t", "i", "d"].into_iter().zip(&types));
    let read = batch_from_wire(&message, &types, schema).expect("read");
    assert_eq!(
        read.column(0).as_string::<i32>().value(0),
        "a view longer than twelve"
    );
    assert_eq!(read.column(1).as_primitive::<Int32Type>().value(1), -5);
    assert_eq!(
        read.column(2).as_primitive::<Decimal128Type>().value(0),
        150
    );
    assert!(read.column(2).is_null(1));
}

#[test]
fn what_a_backend_builds_is_read() {
    let types = [LakeType::Bool, list_of(LakeType::Text)];
    let mut builder = BatchBuilder::new(&types);
    builder.columns[0].push_fixed([1]);
    builder.columns[1]
        .push_list::<BatchError>(|e| {
            e.push_null();
            e.push_bytes(b"x")
        })
        .expect("a list");
    builder.end_row();
    let mut message = vec![];
    builder.finish(&mut message).expect("a message");
    let schema = arrow_schema([("b", &types[0]), ("l", &types[1])]);
    let batch = batch_from_wire(&message, &types, schema).expect("read");
    assert!(batch.column(0).as_boolean().value(0));
    let list = batch.column(1).as_list::<i32>().value(0);
    assert!(list.is_null(0));
    assert_eq!(list.as_string::<i32>().value(1), "x");
}

#[test]
fn broken_text_and_lengths_are_refused() {
    let types = [LakeType::Text];
    let mut builder = BatchBuilder::new(&types);
    builder.columns[0].push_bytes(&[b'a', 0xff]).expect("short");
    builder.end_row();
    let mut message = vec![];
    builder.finish(&mut message).expect("a message");
    let schema = arrow_schema([("t", &types[0])]);
    let error = batch_from_wire(&message, &types, schema.clone()).expect_err("not UTF-8");
    assert_eq!(error.code, ErrorCode::Protocol);
    message.truncate(message.len() - 8);
    assert!(batch_from_wire(&message, &types, schema).is_err());
}
