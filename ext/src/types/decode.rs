//! Batches → datums.
//!
//! What comes from a batch was checked to be well-formed when it was received, but not to be a
//! value that Postgres can hold: files may be damaged or written by others.
//!
//! Unsafe code: builds datums and varlenas.

use super::{
    Codec, Composite, EPOCH_SHIFT_DAYS, EPOCH_SHIFT_USECS, List, Node, Repr, Space, USECS_PER_DAY,
    ValueError, numeric,
};
use pg_lake_plan::batch::ColumnReader;
use pgrx::varlena::set_varsize_4b;
use pgrx::{PgSqlErrorCode, pg_sys};

/// `DATETIME_MIN_JULIAN - POSTGRES_EPOCH_JDATE`, `DATE_END_JULIAN - POSTGRES_EPOCH_JDATE`
pub(super) const MIN_DATE: i32 = -2_451_545;
pub(super) const END_DATE: i32 = 2_147_483_494 - 2_451_545;
/// `MIN_TIMESTAMP`, `END_TIMESTAMP`
pub(super) const MIN_TIMESTAMP: i64 = -211_813_488_000_000_000;
pub(super) const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;

impl Codec {
    /// The value of a row of the column, and whether it is null. What is passed by reference is in the
    /// space; reading lists and structs leaves their parts there too, so that it should be a short-lived one.
    ///
    /// # Safety
    /// - on the main thread, in a transaction
    /// - `column` was received as a column of the codec's [`Codec::lake`], and has that row
    /// - [`super::PinnedSettings`] is held where [`Codec::needs_pinned_settings`]
    #[inline]
    pub unsafe fn datum(
        &self,
        column: &ColumnReader<'_>,
        row: usize,
        space: &Space,
    ) -> Result<(pg_sys::Datum, bool), ValueError> {
        // SAFETY: by contract.
        unsafe { self.node.datum(column, row, space) }
    }
}

/// A varlena with that payload.
///
/// # Safety
/// On the main thread.
#[inline]
unsafe fn varlena(payload: &[u8], space: &Space) -> pg_sys::Datum {
    let len = pg_sys::VARHDRSZ + payload.len();
    // SAFETY: as long as it was asked for. palloc raises an error where it can't give that much, above 1 GiB
    // always, so that the length fits the header.
    unsafe {
        let ptr = space.take(len).cast::<pg_sys::varlena>();
        set_varsize_4b(ptr, len as i32);
        ptr.cast::<u8>()
            .add(pg_sys::VARHDRSZ)
            .copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        pg_sys::Datum::from(ptr)
    }
}

/// A varlena with that number of bytes of the image.
///
/// # Safety
/// On the main thread; not more than 16.
#[inline]
unsafe fn narrow_numeric(image: u128, len: usize, space: &Space) -> pg_sys::Datum {
    // SAFETY: there is room for the whole image, which is cheaper to write than a part of it.
    unsafe {
        let ptr = space.take(pg_sys::VARHDRSZ + size_of::<u128>());
        set_varsize_4b(ptr.cast(), (pg_sys::VARHDRSZ + len) as i32);
        let payload = ptr.add(pg_sys::VARHDRSZ).cast::<u128>();
        payload.write_unaligned(image);
        pg_sys::Datum::from(ptr)
    }
}

/// A copy of a value of fixed length that is passed by reference.
///
/// # Safety
/// On the main thread.
unsafe fn image(bytes: &[u8], space: &Space) -> pg_sys::Datum {
    // SAFETY: as long as it was asked for.
    unsafe {
        let ptr = space.take(bytes.len());
        ptr.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        pg_sys::Datum::from(ptr)
    }
}

impl Node {
    /// # Safety
    /// As of [`Codec::datum`].
    #[inline]
    unsafe fn datum(
        &self,
        column: &ColumnReader<'_>,
        row: usize,
        space: &Space,
    ) -> Result<(pg_sys::Datum, bool), ValueError> {
        if column.is_null(row) {
            return Ok((pg_sys::Datum::from(0usize), true));
        }
        // Narrow integers are sign-extended, as `fetch_att` does when it reads a heap tuple.
        let int4 = || i32::from_le_bytes(column.fixed(row));
        let int8 = || i64::from_le_bytes(column.fixed(row));
        let datum = match &self.repr {
            Repr::Bool => pg_sys::Datum::from(column.fixed::<1>(row)[0] != 0),
            Repr::Int2 => match i16::try_from(int4()) {
                Ok(value) => pg_sys::Datum::from(value),
                Err(_) => return Err(self.damaged(int4())),
            },
            Repr::Int4 | Repr::Float4 => pg_sys::Datum::from(int4()),
            Repr::Int8 | Repr::Float8 => pg_sys::Datum::from(int8()),
            Repr::Oid => match u32::try_from(int8()) {
                Ok(value) => pg_sys::Datum::from(value as i32),
                Err(_) => return Err(self.damaged(int8())),
            },
            Repr::Date => match int4().checked_sub(EPOCH_SHIFT_DAYS) {
                Some(days @ MIN_DATE..END_DATE) => pg_sys::Datum::from(days),
                _ => return Err(self.damaged(int4())),
            },
            Repr::Time => match int8() {
                usecs @ 0..USECS_PER_DAY => pg_sys::Datum::from(usecs),
                other => return Err(self.damaged(other)),
            },
            Repr::Timestamp => match int8().checked_sub(EPOCH_SHIFT_USECS) {
                Some(usecs @ MIN_TIMESTAMP..END_TIMESTAMP) => pg_sys::Datum::from(usecs),
                _ => return Err(self.damaged(int8())),
            },
            // SAFETY: by contract, here and below.
            Repr::Decimal { scale, .. } => unsafe {
                let value = i128::from_le_bytes(column.fixed(row));
                match numeric::pack_narrow(value, *scale) {
                    Some((image, len)) => narrow_numeric(image, len, space),
                    None => varlena(numeric::pack(value, *scale).as_bytes(), space),
                }
            },
            Repr::Varlena => unsafe { varlena(column.bytes(row), space) },
            Repr::Uuid => unsafe { image(&column.fixed::<16>(row), space) },
            Repr::Image(len) => match column.bytes(row) {
                bytes if bytes.len() == *len => unsafe { image(bytes, space) },
                bytes => return Err(self.damaged(format_args!("of {} bytes", bytes.len()))),
            },
            Repr::Name => {
                let bytes = column.bytes(row);
                let mut name = [0u8; pg_sys::NAMEDATALEN as usize];
                match name.get_mut(..bytes.len()) {
                    Some(start) if bytes.len() < pg_sys::NAMEDATALEN as usize => {
                        start.copy_from_slice(bytes);
                    }
                    _ => return Err(self.damaged(format_args!("of {} bytes", bytes.len()))),
                }
                unsafe { image(&name, space) }
            }
            Repr::Printed(printed) => {
                space.overflows();
                unsafe { printed.datum(column.bytes(row)) }
            }
            Repr::List(list) => unsafe { self.array(list, column, row, space)? },
            Repr::Struct(composite) => unsafe { self.tuple(composite, column, row, space)? },
        };
        Ok((datum, false))
    }

    /// # Safety
    /// As of [`Codec::datum`].
    unsafe fn array(
        &self,
        list: &List,
        column: &ColumnReader<'_>,
        row: usize,
        space: &Space,
    ) -> Result<pg_sys::Datum, ValueError> {
        space.overflows();
        let (start, end) = column.range(row);
        let Some(elements) = column.children.first() else {
            return Err(self.damaged("without elements"));
        };
        let mut values = Vec::with_capacity(end - start);
        let mut nulls = Vec::with_capacity(end - start);
        for i in start..end {
            // SAFETY: by contract; the offsets were checked against the element column.
            let (value, null) = unsafe { list.element.datum(elements, i, space)? };
            values.push(value);
            nulls.push(null);
        }
        let mut dims = [(end - start) as i32];
        let mut lower_bounds = [1];
        // SAFETY: as many values and nulls as the dimension says. Without elements it makes an
        // empty array. It checks the number of elements itself.
        unsafe {
            Ok(pg_sys::Datum::from(pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                1,
                dims.as_mut_ptr(),
                lower_bounds.as_mut_ptr(),
                list.typid,
                list.typlen as i32,
                list.typbyval,
                list.typalign,
            )))
        }
    }

    /// # Safety
    /// As of [`Codec::datum`].
    unsafe fn tuple(
        &self,
        composite: &Composite,
        column: &ColumnReader<'_>,
        row: usize,
        space: &Space,
    ) -> Result<pg_sys::Datum, ValueError> {
        space.overflows();
        let natts = composite.fields.len();
        let mut values = vec![pg_sys::Datum::from(0usize); natts];
        let mut nulls = vec![true; natts];
        let mut columns = column.children.iter();
        for (i, field) in composite.fields.iter().enumerate() {
            let Some(field) = field else { continue };
            let Some(column) = columns.next() else {
                return Err(self.damaged("without all its fields"));
            };
            // SAFETY: by contract; a struct's fields have its number of rows.
            (values[i], nulls[i]) = unsafe { field.datum(column, row, space)? };
        }
        // SAFETY: one value for each attribute. The datum is a chunk of its own, unlike the
        // tuple's body, so that whoever gets it may free it (as record_in does it).
        unsafe {
            let tuple = pg_sys::heap_form_tuple(composite.tupdesc, values.as_ptr(), nulls.as_ptr());
            let datum = pg_sys::heap_copy_tuple_as_datum(tuple, composite.tupdesc);
            pg_sys::heap_freetuple(tuple);
            Ok(datum)
        }
    }

    #[cold]
    fn damaged(&self, value: impl std::fmt::Display) -> ValueError {
        ValueError::new(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            format!(
                "stored value {value} of column \"{}\" is not one of its type",
                self.path
            ),
        )
    }
}
