//! Characters and their numbers, digits and digests (`oracle_compat.c`, `varlena.c`, `cryptohashfuncs.c`), and values in
//! print.

use super::argument;
use super::rows::{Rows, Texts, i32s, i64s};
use crate::engine::error::internal;
use crate::engine::expr::Val;
use crate::engine::values::from_i32;
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray};
use arrow::datatypes::DataType;
use md5::{Digest, Md5};
use pg_lake_plan::message::{ErrorCode, WireError};
use std::fmt::Write;
use uuid::Uuid;

/// Of the first character, as Unicode numbers it.
pub(super) fn ascii(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let text = Texts::of(argument(args, 0)?)?;
    let values = rows.map(|row| text.at(row).chars().next().map_or(0, |c| c as i32));
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

fn character(number: i32) -> Result<char, WireError> {
    let limit = |message: String| WireError::new(ErrorCode::LimitExceeded, message);
    let code = u32::try_from(number).map_err(|_| {
        let message = "character number must be positive";
        WireError::new(ErrorCode::InvalidParameter, message)
    })?;
    if code == 0 {
        return Err(limit("null character not permitted".to_owned()));
    }
    char::from_u32(code).ok_or_else(|| {
        let what = if code > 0x0010_FFFF {
            "too large"
        } else {
            "not valid"
        };
        limit(format!("requested character {what} for encoding: {code}"))
    })
}

pub(super) fn chr(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let number = i32s(argument(args, 0)?)?;
    rows.texts(&[], |row, out| {
        out.append(character(number.at(row))?.encode_utf8(&mut [0; 4]))
    })
}

/// The bytes of a text or of a `bytea`.
pub(super) fn octet_length(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let bytes = Bytes::of(argument(args, 0)?)?;
    let values = rows.map(|row| i32::try_from(bytes.at(row).len()).unwrap_or(i32::MAX));
    Ok(from_i32(values, rows.nulls(), &DataType::Int32))
}

/// Of a text or of a `bytea`, in hexadecimal digits.
pub(super) fn md5(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let bytes = Bytes::of(argument(args, 0)?)?;
    let mut digits = String::new();
    rows.texts(&[], |row, out| {
        digits.clear();
        for byte in Md5::digest(bytes.at(row)) {
            // A string takes everything.
            let _ = write!(digits, "{byte:02x}");
        }
        out.append(&digits)
    })
}

/// Negative numbers as their two's complement.
pub(super) fn to_hex(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = argument(args, 0)?;
    if *arg.array().data_type() == DataType::Int64 {
        let value = i64s(arg)?;
        return rows.texts(&[], |row, out| out.append(&format!("{:x}", value.at(row))));
    }
    let value = i32s(arg)?;
    rows.texts(&[], |row, out| out.append(&format!("{:x}", value.at(row))))
}

/// `booltext`, and what the output functions of integers and of `uuid` print.
pub(super) fn printed(rows: &Rows, args: &[Val]) -> Result<ArrayRef, WireError> {
    let arg = argument(args, 0)?;
    let (array, step) = (arg.array(), usize::from(!arg.is_scalar()));
    match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            rows.texts(&[], |row, out| {
                let holds = values.value(row * step);
                out.append(if holds { "true" } else { "false" })
            })
        }
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            rows.texts(&[], |row, out| {
                let id = Uuid::from_slice(values.value(row * step));
                out.append(&id.map_err(|_| internal("not a UUID"))?.to_string())
            })
        }
        DataType::Int64 => {
            let values = i64s(arg)?;
            rows.texts(&[], |row, out| out.append(&values.at(row).to_string()))
        }
        _ => {
            let values = i32s(arg)?;
            rows.texts(&[], |row, out| out.append(&values.at(row).to_string()))
        }
    }
}

/// An argument of texts or of bytes, as bytes.
enum Bytes<'a> {
    Text(Texts<'a>),
    Binary { array: &'a BinaryArray, step: usize },
}

impl<'a> Bytes<'a> {
    fn of(arg: &'a Val) -> Result<Bytes<'a>, WireError> {
        if *arg.array().data_type() == DataType::Utf8 {
            return Texts::of(arg).map(Bytes::Text);
        }
        let array = arg.array().as_any().downcast_ref();
        Ok(Bytes::Binary {
            array: array.ok_or_else(|| internal("bytes of another type"))?,
            step: usize::from(!arg.is_scalar()),
        })
    }

    fn at(&self, row: usize) -> &'a [u8] {
        match self {
            Bytes::Text(texts) => texts.at(row).as_bytes(),
            Bytes::Binary { array, step } => array.value(row * step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use arrow::array::{BooleanArray, FixedSizeBinaryArray, Int64Array};
    use arrow::datatypes::Int32Type;
    use pg_lake_plan::function::Function;
    use pg_lake_plan::types::LakeType;

    fn one(function: Function, arg: Val) -> String {
        let result = result(function, &LakeType::Text, &[arg]);
        result.as_string::<i32>().value(0).to_owned()
    }

    fn number(function: Function, arg: Val) -> i32 {
        let result = result(function, &LakeType::Int4, &[arg]);
        result.as_primitive::<Int32Type>().value(0)
    }

    #[test]
    fn numbers_of_characters() {
        for (character, code) in [("x", 120), ("€", 8364), ("𝄞", 119_070), ("ä", 228)] {
            assert_eq!(number(Function::Ascii, text(character)), code);
            assert_eq!(one(Function::Chr, int(code)), character);
        }
        assert_eq!(number(Function::Ascii, text("")), 0);
        for (code, error_code) in [
            (-1, ErrorCode::InvalidParameter),
            (0, ErrorCode::LimitExceeded),
            (0xD800, ErrorCode::LimitExceeded),
            (0x0011_0000, ErrorCode::LimitExceeded),
        ] {
            let error = error(Function::Chr, &LakeType::Text, &[int(code)]);
            assert_eq!(error.code, error_code, "{code}");
        }
        let nulls = result(Function::Chr, &LakeType::Text, &[ints(&[None, Some(65)])]);
        assert_eq!(nulls.null_count(), 1);
    }

    // md5.out, RFC 1321
    #[test]
    fn digests() {
        let empty = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(one(Function::Md5, text("")), empty);
        let abc = "900150983cd24fb0d6963f7d28e17f72";
        assert_eq!(one(Function::Md5, text("abc")), abc);
        let bytes = column(BinaryArray::from_vec(vec![b"abc".as_slice()]));
        assert_eq!(one(Function::Md5, bytes), abc);
    }

    #[test]
    fn lengths_of_bytes() {
        let bytes = column(BinaryArray::from_vec(vec![b"\0\xFF".as_slice()]));
        assert_eq!(number(Function::OctetLength, bytes), 2);
        assert_eq!(number(Function::OctetLength, text("€")), 3);
    }

    #[test]
    fn values_in_print() {
        let print = |arg| one(Function::Print, arg);
        assert_eq!(print(int(i32::MIN)), "-2147483648");
        assert_eq!(
            print(column(Int64Array::from(vec![i64::MAX]))),
            "9223372036854775807"
        );
        assert_eq!(print(column(BooleanArray::from(vec![true]))), "true");
        assert_eq!(print(column(BooleanArray::from(vec![false]))), "false");
        let id: [u8; 16] = [
            0xA0, 0xEE, 0xBC, 0x99, 0x9C, 0x0B, 0x4E, 0xF8, 0xBB, 0x6D, 0x6B, 0xB9, 0xBD, 0x38,
            0x0A, 0x11,
        ];
        let ids = FixedSizeBinaryArray::try_from_iter(std::iter::once(id)).expect("ids");
        assert_eq!(print(column(ids)), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(one(Function::ToHex, int(256)), "100");
        assert_eq!(one(Function::ToHex, int(-1)), "ffffffff");
        let wide = column(Int64Array::from(vec![-1]));
        assert_eq!(one(Function::ToHex, wide), "ffffffffffffffff");
    }
}
