//! The spec's own examples, and what the key promises.

use super::*;
use proptest::prelude::*;

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn decimal(precision: u8, scale: i8) -> LakeType {
    LakeType::Decimal { precision, scale }
}

/// Days and microseconds of 2017-11-16T22:31:08.
const DAY: i32 = 17_486;
const SECOND: i64 = DAY as i64 * 86_400 + 22 * 3600 + 31 * 60 + 8;

/// The table of Appendix B, 32-bit Hash Requirements.
#[test]
fn hashes_are_the_published_ones() {
    let uuid = 0xf79c_3e09_677c_4bbd_a479_3f34_9cb7_85e7u128;
    for (value, expected) in [
        (Value::I32(34), 2_017_239_379),
        (Value::I64(34), 2_017_239_379),
        (Value::I128(1420), -500_754_589),
        (Value::I32(DAY), -653_330_422),
        (
            Value::I64((22 * 3600 + 31 * 60 + 8) * 1_000_000),
            -662_762_989,
        ),
        (Value::I64(SECOND * 1_000_000), -2_047_944_441),
        (Value::I64(SECOND * 1_000_000 + 1), -1_207_196_810),
        (text("iceberg"), 1_210_000_089),
        (Value::Uuid(uuid.to_be_bytes()), 1_488_055_340),
        (Value::Bytes(vec![0, 1, 2, 3]), -188_683_207),
    ] {
        assert_eq!(hash(&value), Some(expected), "{value:?}");
    }
    assert_eq!(hash(&Value::Bool(true)), None);
    assert_eq!(hash(&Value::F64(1.0)), None);
}

/// The examples of the spec's section on truncation.
#[test]
fn truncation_is_as_the_spec_shows_it() {
    let cut = |width, value| Transform::Truncate(width).apply(&value);
    assert_eq!(cut(10, Value::I32(1)), Some(Value::I32(0)));
    assert_eq!(cut(10, Value::I32(-1)), Some(Value::I32(-10)));
    assert_eq!(cut(10, Value::I64(1)), Some(Value::I64(0)));
    assert_eq!(cut(10, Value::I64(-1)), Some(Value::I64(-10)));
    assert_eq!(cut(50, Value::I128(1065)), Some(Value::I128(1050)));
    assert_eq!(cut(50, Value::I128(-1)), Some(Value::I128(-50)));
    assert_eq!(cut(3, text("iceberg")), Some(text("ice")));
    assert_eq!(cut(3, text("äöüß")), Some(text("äöü")));
    assert_eq!(cut(9, text("ice")), Some(text("ice")));
    assert_eq!(
        cut(3, Value::Bytes(vec![1, 2, 3, 4, 5])),
        Some(Value::Bytes(vec![1, 2, 3]))
    );
    assert_eq!(cut(0, Value::I32(1)), None);
    assert_eq!(cut(3, Value::Bool(true)), None);
}

#[test]
fn times_count_from_1970_and_down() {
    let micros = |day: i64, hour: i64| Value::I64((day * 24 + hour) * MICROS_PER_HOUR);
    for (transform, value, expected) in [
        (Transform::Year, Value::I32(DAY), 47),
        (Transform::Month, Value::I32(DAY), 47 * 12 + 10),
        (Transform::Day, Value::I32(DAY), DAY),
        (Transform::Year, micros(i64::from(DAY), 22), 47),
        (Transform::Month, micros(i64::from(DAY), 22), 574),
        (Transform::Day, micros(i64::from(DAY), 22), DAY),
        (Transform::Hour, micros(i64::from(DAY), 22), DAY * 24 + 22),
        (Transform::Year, Value::I32(-1), -1),
        (Transform::Month, Value::I32(-1), -1),
        (Transform::Day, Value::I64(-1), -1),
        (Transform::Hour, Value::I64(-1), -1),
        (Transform::Year, Value::I32(0), 0),
        (Transform::Month, Value::I32(0), 0),
        // 2000-02-29 and the day after it, 1900-02-28 and the day after it
        (Transform::Month, Value::I32(11_016), 361),
        (Transform::Month, Value::I32(11_017), 362),
        (Transform::Month, Value::I32(-25_509), -839),
        (Transform::Month, Value::I32(-25_508), -838),
    ] {
        assert_eq!(
            transform.apply(&value),
            Some(Value::I32(expected)),
            "{transform} {value:?}"
        );
    }
    assert_eq!(Transform::Hour.apply(&Value::I32(1)), None);
}

#[test]
fn transforms_are_for_the_types_of_the_specs_table() {
    for ty in [LakeType::Int4, LakeType::Int8, decimal(9, 2)] {
        assert!(Transform::Bucket(16).accepts(&ty) && Transform::Truncate(10).accepts(&ty));
        assert!(!Transform::Year.accepts(&ty));
    }
    for ty in [LakeType::Bool, LakeType::Float4, LakeType::Float8] {
        assert!(!Transform::Bucket(16).accepts(&ty) && !Transform::Truncate(10).accepts(&ty));
        assert!(Transform::Identity.accepts(&ty));
    }
    for ty in [LakeType::Time, LakeType::Uuid, LakeType::Date] {
        assert!(Transform::Bucket(16).accepts(&ty) && !Transform::Truncate(10).accepts(&ty));
    }
    assert!(Transform::Month.accepts(&LakeType::Date) && !Transform::Hour.accepts(&LakeType::Date));
    assert!(Transform::Hour.accepts(&LakeType::Timestamptz));
    let list = LakeType::List {
        element_id: 1,
        element: Box::new(LakeType::Int4),
    };
    assert!(!Transform::Identity.accepts(&list));
    assert!(Transform::Day.is_redundant_with(&Transform::Hour));
    assert!(!Transform::Bucket(2).is_redundant_with(&Transform::Bucket(4)));
}

#[test]
fn a_truncated_decimal_must_fit() {
    // One byte holds -100 and -120, but not -140.
    assert!(Transform::Truncate(10).accepts(&decimal(2, 0)));
    assert!(Transform::Truncate(60).accepts(&decimal(2, 0)));
    assert!(!Transform::Truncate(70).accepts(&decimal(2, 0)));
    assert!(Transform::Truncate(u32::MAX >> 1).accepts(&decimal(38, 10)));
}

#[test]
fn single_values_are_minimal() {
    assert_eq!(single_value(&Value::I128(0)), [0]);
    assert_eq!(single_value(&Value::I128(128)), [0, 0x80]);
    assert_eq!(single_value(&Value::I128(-128)), [0x80]);
    assert_eq!(single_value(&Value::I128(-1)), [0xff]);
    assert_eq!(single_value(&Value::I128(i128::MIN)).len(), 16);
    assert_eq!(single_value(&Value::I32(-2)), [0xfe, 0xff, 0xff, 0xff]);
}

fn key(values: &[Option<Value>]) -> Vec<u8> {
    let mut key = vec![];
    partition_key(values, &mut key);
    key
}

proptest! {
    #[test]
    fn keys_ascend_with_the_values(
        a in (any::<Option<i32>>(), any::<Option<i64>>(), any::<Option<Vec<u8>>>(), any::<i128>()),
        b in (any::<Option<i32>>(), any::<Option<i64>>(), any::<Option<Vec<u8>>>(), any::<i128>()),
    ) {
        let values = |t: &(Option<i32>, Option<i64>, Option<Vec<u8>>, i128)| {
            key(&[
                t.0.map(Value::I32),
                t.1.map(Value::I64),
                t.2.clone().map(Value::Bytes),
                Some(Value::I128(t.3)),
            ])
        };
        prop_assert_eq!(values(&a).cmp(&values(&b)), a.cmp(&b));
    }

    #[test]
    fn keys_of_floats_ascend(a in any::<f64>(), b in any::<f64>()) {
        let (left, right) = (key(&[Some(Value::F64(a))]), key(&[Some(Value::F64(b))]));
        prop_assert_eq!(left.cmp(&right), a.total_cmp(&b));
    }
}
