//! Built-in types that aren't nested: their Iceberg type, and constants of them as IR values.
//! The rules are listed in `docs/types.md`; change both together.
//!
//! Unsafe code: reads the datums of constants.

use super::encode::with_payload;
use super::text::{PinnedSettings, Printed};
use super::{
    DATEVAL_NOBEGIN, DATEVAL_NOEND, DT_NOBEGIN, DT_NOEND, EPOCH_SHIFT_DAYS, EPOCH_SHIFT_USECS,
    Repr, USECS_PER_DAY, numeric,
};
use pg_lake_plan::types::{LakeType, Value};
use pgrx::pg_sys;
use std::ffi::CStr;

/// Built-in types that aren't nested and have a representation of their own.
pub(super) fn scalar(typid: pg_sys::Oid, typmod: i32) -> Option<(LakeType, Repr)> {
    Some(match typid {
        pg_sys::BOOLOID => (LakeType::Bool, Repr::Bool),
        pg_sys::INT2OID => (LakeType::Int2, Repr::Int2),
        pg_sys::INT4OID => (LakeType::Int4, Repr::Int4),
        // The number behind `money`, so that it doesn't depend on lc_monetary.
        pg_sys::INT8OID | pg_sys::MONEYOID => (LakeType::Int8, Repr::Int8),
        // The number behind the names, which may be renamed or dropped.
        pg_sys::OIDOID
        | pg_sys::XIDOID
        | pg_sys::CIDOID
        | pg_sys::REGPROCOID
        | pg_sys::REGPROCEDUREOID
        | pg_sys::REGOPEROID
        | pg_sys::REGOPERATOROID
        | pg_sys::REGCLASSOID
        | pg_sys::REGCOLLATIONOID
        | pg_sys::REGTYPEOID
        | pg_sys::REGROLEOID
        | pg_sys::REGNAMESPACEOID
        | pg_sys::REGCONFIGOID
        | pg_sys::REGDICTIONARYOID => (LakeType::Int8, Repr::Oid),
        pg_sys::FLOAT4OID => (LakeType::Float4, Repr::Float4),
        pg_sys::FLOAT8OID => (LakeType::Float8, Repr::Float8),
        pg_sys::DATEOID => (LakeType::Date, Repr::Date),
        pg_sys::TIMEOID => (LakeType::Time, Repr::Time),
        pg_sys::TIMESTAMPOID => (LakeType::Timestamp, Repr::Timestamp),
        pg_sys::TIMESTAMPTZOID => (LakeType::Timestamptz, Repr::Timestamp),
        pg_sys::NUMERICOID => {
            let (precision, scale) = decimal_of_typmod(typmod)?;
            let lake = LakeType::Decimal {
                precision,
                scale: scale as i8,
            };
            (lake, Repr::Decimal { precision, scale })
        }
        // `xml` as it is kept: its output function drops the encoding declaration.
        pg_sys::TEXTOID
        | pg_sys::VARCHAROID
        | pg_sys::BPCHAROID
        | pg_sys::JSONOID
        | pg_sys::XMLOID
        | pg_sys::REFCURSOROID
        | pg_sys::PG_NODE_TREEOID => (LakeType::Text, Repr::Varlena),
        pg_sys::NAMEOID => (LakeType::Text, Repr::Name),
        // Below `bytea`: types whose input function refuses everything.
        pg_sys::BYTEAOID
        | pg_sys::PG_NDISTINCTOID
        | pg_sys::PG_DEPENDENCIESOID
        | pg_sys::PG_MCV_LISTOID
        | pg_sys::PG_BRIN_BLOOM_SUMMARYOID
        | pg_sys::PG_BRIN_MINMAX_MULTI_SUMMARYOID
        | pg_sys::GTSVECTOROID => (LakeType::Bytes, Repr::Varlena),
        // Its text names roles, which may be renamed.
        pg_sys::ACLITEMOID => (LakeType::Bytes, Repr::Image(size_of::<pg_sys::AclItem>())),
        pg_sys::UUIDOID => (LakeType::Uuid, Repr::Uuid),
        _ => return None,
    })
}

/// `numeric_typmod_precision` and `numeric_typmod_scale`, where Iceberg's decimal can hold them.
fn decimal_of_typmod(typmod: i32) -> Option<(u8, u8)> {
    if typmod < pg_sys::VARHDRSZ as i32 {
        return None;
    }
    let raw = typmod - pg_sys::VARHDRSZ as i32;
    let precision = (raw >> 16) & 0xffff;
    let scale = ((raw & 0x7ff) ^ 1024) - 1024;
    ((1..=numeric::PRECISION_MAX as i32).contains(&precision) && (0..=precision).contains(&scale))
        .then_some((precision as u8, scale as u8))
}

/// `make_numeric_typmod`
pub(super) fn numeric_typmod(precision: i32, scale: i32) -> i32 {
    ((precision << 16) | (scale & 0x7ff)) + pg_sys::VARHDRSZ as i32
}

/// The type of an expression that the engine may compute with.
///
/// # Safety
/// None needed today; kept beside the other entry points.
pub unsafe fn expression_type(typid: pg_sys::Oid, typmod: i32) -> Option<LakeType> {
    match typid {
        pg_sys::BOOLOID
        | pg_sys::INT2OID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::FLOAT4OID
        | pg_sys::FLOAT8OID
        | pg_sys::NUMERICOID
        | pg_sys::DATEOID
        | pg_sys::TIMEOID
        | pg_sys::TIMESTAMPOID
        | pg_sys::TIMESTAMPTZOID
        | pg_sys::TEXTOID
        | pg_sys::VARCHAROID
        | pg_sys::BPCHAROID
        | pg_sys::BYTEAOID
        | pg_sys::UUIDOID => scalar(typid, typmod).map(|(lake, _)| lake),
        // As it is printed.
        pg_sys::INTERVALOID | pg_sys::JSONBOID => Some(LakeType::Text),
        _ => None,
    }
}

/// A constant, not null, of type `typid` as a value of `lake`; `None` if it isn't one, and for
/// nested types.
///
/// # Safety
/// On the main thread, in a transaction; `datum` is a value of type `typid`.
pub unsafe fn value_of(lake: &LakeType, typid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<Value> {
    if let (LakeType::Decimal { precision, scale }, pg_sys::NUMERICOID) = (lake, typid) {
        let scale = u8::try_from(*scale).ok()?;
        // SAFETY: a numeric is a varlena.
        let value = unsafe { with_payload(datum, |raw| numeric::unscaled(raw, *precision, scale)) };
        return Some(Value::I128(value.ok()?));
    }
    let Some((own, repr)) = scalar(typid, -1) else {
        // SAFETY: by contract.
        return unsafe { value_of_other(lake, typid, datum) };
    };
    if own != *lake && !(own.is_integer() && lake.is_integer()) {
        return None;
    }
    let word = datum.value();
    Some(match repr {
        Repr::Bool => Value::Bool(word as u8 != 0),
        Repr::Int2 => integer(lake, word as i16 as i64)?,
        Repr::Int4 => integer(lake, word as i32 as i64)?,
        Repr::Int8 => integer(lake, word as i64)?,
        Repr::Oid => integer(lake, word as u32 as i64)?,
        Repr::Float4 => Value::F32(f32::from_bits(word as u32)),
        Repr::Float8 => Value::F64(f64::from_bits(word as u64)),
        Repr::Date => match word as i32 {
            DATEVAL_NOBEGIN | DATEVAL_NOEND => return None,
            days => Value::I32(days.checked_add(EPOCH_SHIFT_DAYS)?),
        },
        Repr::Time => match word as i64 {
            usecs @ 0..USECS_PER_DAY => Value::I64(usecs),
            _ => return None,
        },
        Repr::Timestamp => match word as i64 {
            DT_NOBEGIN | DT_NOEND => return None,
            usecs => Value::I64(usecs.checked_add(EPOCH_SHIFT_USECS)?),
        },
        Repr::Varlena => {
            // SAFETY: a varlena; the bytes are copied.
            let bytes = unsafe { with_payload(datum, <[u8]>::to_vec) };
            match lake {
                LakeType::Text => Value::Text(String::from_utf8(bytes).ok()?),
                _ => Value::Bytes(bytes),
            }
        }
        // SAFETY: a uuid is 16 bytes, passed by reference.
        Repr::Uuid => Value::Uuid(unsafe { datum.cast_mut_ptr::<[u8; 16]>().read() }),
        // SAFETY: as long as the type, passed by reference.
        Repr::Image(len) => Value::Bytes(unsafe {
            std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), len).to_vec()
        }),
        // SAFETY: terminated by a zero byte; the text is copied.
        Repr::Name => Value::Text(unsafe {
            CStr::from_ptr(datum.cast_mut_ptr())
                .to_str()
                .ok()?
                .to_owned()
        }),
        Repr::Decimal { .. } | Repr::Printed(_) | Repr::List(_) | Repr::Struct(_) => return None,
    })
}

/// A numeric, not null, as a decimal of the scale that it is shown with; `None` if there is no such decimal.
///
/// # Safety
/// On the main thread, in a transaction; `datum` is a numeric.
pub unsafe fn shown_numeric(datum: pg_sys::Datum) -> Option<(i8, Value)> {
    let decimal = |raw: &[u8]| {
        let scale = u8::try_from(numeric::display_scale(raw)?).ok()?;
        if scale > numeric::PRECISION_MAX {
            return None;
        }
        let value = numeric::unscaled(raw, numeric::PRECISION_MAX, scale).ok()?;
        Some((scale as i8, Value::I128(value)))
    };
    // SAFETY: a numeric is a varlena.
    unsafe { with_payload(datum, decimal) }
}

fn integer(lake: &LakeType, value: i64) -> Option<Value> {
    Some(match lake {
        LakeType::Int2 => Value::I32(i16::try_from(value).ok()? as i32),
        LakeType::Int4 => Value::I32(i32::try_from(value).ok()?),
        _ => Value::I64(value),
    })
}

/// [`value_of`] for domains and for what is stored as text.
///
/// # Safety
/// As of [`value_of`].
#[cold]
unsafe fn value_of_other(
    lake: &LakeType,
    typid: pg_sys::Oid,
    datum: pg_sys::Datum,
) -> Option<Value> {
    // SAFETY: by contract; a domain's values are its base type's.
    unsafe {
        let base = pg_sys::getBaseType(typid);
        if base != typid {
            return value_of(lake, base, datum);
        }
        if *lake != LakeType::Text {
            return None;
        }
        let printed = Printed::new(base, -1);
        let _pinned = PinnedSettings::new();
        printed.with_text(datum, |text| {
            Some(Value::Text(str::from_utf8(text).ok()?.to_owned()))
        })
    }
}
