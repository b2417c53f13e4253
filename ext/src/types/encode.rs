//! Datums → batches, and the checks that an INSERT makes before a value is stored.
//!
//! The fast path of the simple types calls no Postgres function: every such call goes through a
//! guard that costs more than the conversion.
//!
//! Unsafe code: reads datums and varlenas.

use super::{
    Codec, Composite, DATEVAL_NOBEGIN, DATEVAL_NOEND, DT_NOBEGIN, DT_NOEND, EPOCH_SHIFT_DAYS,
    EPOCH_SHIFT_USECS, List, Node, Repr, USECS_PER_DAY, ValueError, numeric,
};
use pg_lake_plan::batch::ColumnBuilder;
use pgrx::pg_sys;
use pgrx::varlena::{varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u, varsize_1b, varsize_4b};
use std::slice;

impl Codec {
    /// Appends a value to the column's builder. After an error the builder is of no use any more.
    ///
    /// # Safety
    /// - on the main thread, in a transaction
    /// - `datum` is a valid value of the column's type, or `isnull`
    /// - [`super::PinnedSettings`] is held where [`Codec::needs_pinned_settings`]
    #[inline]
    pub unsafe fn push(
        &self,
        datum: pg_sys::Datum,
        isnull: bool,
        builder: &mut ColumnBuilder,
    ) -> Result<(), ValueError> {
        // SAFETY: by contract.
        unsafe { self.node.push(datum, isnull, builder) }
    }

    /// Whether the value, not null, can be stored.
    ///
    /// # Safety
    /// As of [`Codec::push`]; no settings need be pinned.
    pub unsafe fn check(&self, datum: pg_sys::Datum) -> Result<(), ValueError> {
        // SAFETY: by contract.
        unsafe { self.node.check(datum) }
    }
}

/// Calls `f` with a varlena's bytes, without header, detoasted. `f` calls no Postgres function.
///
/// # Safety
/// On the main thread; `datum` is a varlena.
#[inline]
pub(crate) unsafe fn with_payload<R>(datum: pg_sys::Datum, f: impl FnOnce(&[u8]) -> R) -> R {
    let ptr = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: a plain varlena is read in place; anything else is replaced by a copy that is.
    unsafe {
        if let Some(bytes) = plain_payload(ptr) {
            return f(bytes);
        }
        let copy = pg_sys::pg_detoast_datum_packed(ptr);
        let result = f(plain_payload(copy).unwrap_or(&[]));
        if copy != ptr {
            pg_sys::pfree(copy.cast());
        }
        result
    }
}

/// The bytes of a varlena that is neither compressed nor out of line: VARDATA_ANY and
/// VARSIZE_ANY_EXHDR.
///
/// # Safety
/// `ptr` is a varlena that lives for `'a`.
#[inline]
unsafe fn plain_payload<'a>(ptr: *const pg_sys::varlena) -> Option<&'a [u8]> {
    // SAFETY: the header says how long the varlena is.
    unsafe {
        let (header, size) = if varatt_is_4b_u(ptr) {
            (pg_sys::VARHDRSZ, varsize_4b(ptr))
        } else if varatt_is_1b(ptr) && !varatt_is_1b_e(ptr) {
            (pg_sys::VARHDRSZ_SHORT, varsize_1b(ptr))
        } else {
            return None;
        };
        Some(slice::from_raw_parts(
            ptr.cast::<u8>().add(header),
            size - header,
        ))
    }
}

/// Calls `f` with a varlena that has a 4-byte header and is aligned: PG_DETOAST_DATUM.
///
/// # Safety
/// As of [`with_payload`].
unsafe fn with_detoasted<R>(datum: pg_sys::Datum, f: impl FnOnce(*mut pg_sys::varlena) -> R) -> R {
    let ptr = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: as above.
    unsafe {
        if varatt_is_4b_u(ptr) {
            return f(ptr);
        }
        let copy = pg_sys::pg_detoast_datum(ptr);
        let result = f(copy);
        if copy != ptr {
            pg_sys::pfree(copy.cast());
        }
        result
    }
}

impl Node {
    /// # Safety
    /// As of [`Codec::push`].
    #[inline]
    unsafe fn push(
        &self,
        datum: pg_sys::Datum,
        isnull: bool,
        builder: &mut ColumnBuilder,
    ) -> Result<(), ValueError> {
        if isnull {
            builder.push_null();
            return Ok(());
        }
        let word = datum.value();
        match &self.repr {
            Repr::Bool => builder.push_fixed([(word as u8 != 0) as u8]),
            Repr::Int2 => builder.push_fixed((word as i16 as i32).to_le_bytes()),
            Repr::Int4 | Repr::Float4 => builder.push_fixed((word as u32).to_le_bytes()),
            Repr::Int8 | Repr::Float8 => builder.push_fixed((word as u64).to_le_bytes()),
            Repr::Oid => builder.push_fixed((word as u32 as u64).to_le_bytes()),
            Repr::Date => builder.push_fixed(self.days(word as i32)?.to_le_bytes()),
            Repr::Time => builder.push_fixed(self.time_of_day(word as i64)?.to_le_bytes()),
            Repr::Timestamp => builder.push_fixed(self.usecs(word as i64)?.to_le_bytes()),
            Repr::Decimal { precision, scale } => {
                // SAFETY: by contract a numeric.
                let value = unsafe { self.unscaled(datum, *precision, *scale)? };
                builder.push_fixed(value.to_le_bytes());
            }
            // SAFETY: by contract a varlena.
            Repr::Varlena => unsafe { with_payload(datum, |bytes| builder.push_bytes(bytes))? },
            // SAFETY: by contract 16 bytes.
            Repr::Uuid => {
                builder.push_fixed(unsafe { datum.cast_mut_ptr::<[u8; 16]>().read() });
            }
            Repr::Image(len) => {
                // SAFETY: by contract as long as the type.
                let bytes = unsafe { slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), *len) };
                builder.push_bytes(bytes)?;
            }
            Repr::Name => {
                // SAFETY: by contract a NameData, terminated by a zero byte.
                let name = unsafe { &*datum.cast_mut_ptr::<[u8; pg_sys::NAMEDATALEN as usize]>() };
                let len = name.iter().position(|&c| c == 0).unwrap_or(name.len());
                builder.push_bytes(&name[..len])?;
            }
            Repr::Printed(printed) => {
                // SAFETY: by contract a value of the type.
                unsafe { printed.with_text(datum, |text| builder.push_bytes(text))? }
            }
            // SAFETY: by contract an array of the type.
            Repr::List(list) => unsafe {
                self.with_elements(list, datum, |values, nulls| {
                    builder.push_list(|elements| {
                        for (&value, &null) in values.iter().zip(nulls) {
                            list.element.push(value, null, elements)?;
                        }
                        Ok::<(), ValueError>(())
                    })
                })?
            },
            // SAFETY: by contract a composite of the type.
            Repr::Struct(row) => unsafe {
                with_fields(row, datum, |values, nulls| {
                    builder.push_struct(|columns| {
                        let mut columns = columns.iter_mut();
                        for (i, field) in row.fields.iter().enumerate() {
                            let Some(field) = field else { continue };
                            if let Some(column) = columns.next() {
                                field.push(values[i], nulls[i], column)?;
                            }
                        }
                        Ok::<(), ValueError>(())
                    })
                })?
            },
        }
        Ok(())
    }

    /// # Safety
    /// As of [`Codec::check`].
    unsafe fn check(&self, datum: pg_sys::Datum) -> Result<(), ValueError> {
        let word = datum.value();
        match &self.repr {
            Repr::Date => self.days(word as i32).map(drop),
            Repr::Time => self.time_of_day(word as i64).map(drop),
            Repr::Timestamp => self.usecs(word as i64).map(drop),
            Repr::Decimal { precision, scale } => {
                // SAFETY: by contract a numeric.
                unsafe { self.unscaled(datum, *precision, *scale).map(drop) }
            }
            // SAFETY: by contract an array of the type.
            Repr::List(list) => unsafe {
                self.with_elements(list, datum, |values, nulls| {
                    if list.element.has_unstorable_values() {
                        for (&value, _) in values.iter().zip(nulls).filter(|(_, null)| !**null) {
                            list.element.check(value)?;
                        }
                    }
                    Ok(())
                })
            },
            // SAFETY: by contract a composite of the type.
            Repr::Struct(row) if self.has_unstorable_values() => unsafe {
                with_fields(row, datum, |values, nulls| {
                    for (i, field) in row.fields.iter().enumerate() {
                        if let Some(field) = field
                            && !nulls[i]
                        {
                            field.check(values[i])?;
                        }
                    }
                    Ok(())
                })
            },
            _ => Ok(()),
        }
    }

    #[inline]
    fn days(&self, value: i32) -> Result<i32, ValueError> {
        match value.checked_add(EPOCH_SHIFT_DAYS) {
            Some(days) if value != DATEVAL_NOBEGIN => Ok(days),
            _ => Err(self.refuse_datetime(
                pg_sys::Datum::from(value),
                if matches!(value, DATEVAL_NOBEGIN | DATEVAL_NOEND) {
                    "An Iceberg date has no infinity."
                } else {
                    "An Iceberg date counts days since 1970 in 32 bits."
                },
            )),
        }
    }

    #[inline]
    fn usecs(&self, value: i64) -> Result<i64, ValueError> {
        match value.checked_add(EPOCH_SHIFT_USECS) {
            Some(usecs) if value != DT_NOBEGIN => Ok(usecs),
            _ => Err(self.refuse_datetime(
                pg_sys::Datum::from(value),
                if matches!(value, DT_NOBEGIN | DT_NOEND) {
                    "An Iceberg timestamp has no infinity."
                } else {
                    "An Iceberg timestamp counts microseconds since 1970 in 64 bits and ends at 294247-01-10 04:00:54.775807."
                },
            )),
        }
    }

    #[inline]
    fn time_of_day(&self, value: i64) -> Result<i64, ValueError> {
        if (0..USECS_PER_DAY).contains(&value) {
            Ok(value)
        } else {
            Err(self.refuse_datetime(
                pg_sys::Datum::from(value),
                "An Iceberg time is less than 24 hours.",
            ))
        }
    }

    /// # Safety
    /// `datum` is a numeric.
    #[inline]
    unsafe fn unscaled(
        &self,
        datum: pg_sys::Datum,
        precision: u8,
        scale: u8,
    ) -> Result<i128, ValueError> {
        // SAFETY: by contract.
        let value = unsafe { with_payload(datum, |raw| numeric::unscaled(raw, precision, scale)) };
        value.map_err(|refused| {
            // SAFETY: by contract.
            unsafe { self.refuse_numeric(datum, precision, scale, refused) }
        })
    }

    /// Calls `f` with the elements of an array of at most one dimension, and which are null.
    ///
    /// # Safety
    /// As of [`Codec::push`]; `list` is that of the node, `datum` an array.
    unsafe fn with_elements(
        &self,
        list: &List,
        datum: pg_sys::Datum,
        f: impl FnOnce(&[pg_sys::Datum], &[bool]) -> Result<(), ValueError>,
    ) -> Result<(), ValueError> {
        let read = |raw: *mut pg_sys::varlena| {
            let array = raw.cast::<pg_sys::ArrayType>();
            // SAFETY: a detoasted array. The elements point into it and are used before it goes.
            unsafe {
                // ARR_DIMS follow the header, ARR_LBOUND the dimensions.
                let (ndim, bounds) = ((*array).ndim, array.add(1).cast::<i32>());
                if ndim == 0 {
                    return f(&[], &[]);
                }
                if ndim != 1 || *bounds.add(1) != 1 {
                    return Err(self.refuse_array(list, datum, ndim, *bounds.add(ndim as usize)));
                }
                let (mut values, mut nulls, mut n) =
                    (std::ptr::null_mut(), std::ptr::null_mut(), 0);
                pg_sys::deconstruct_array(
                    array,
                    list.typid,
                    list.typlen as i32,
                    list.typbyval,
                    list.typalign,
                    &mut values,
                    &mut nulls,
                    &mut n,
                );
                let len = n as usize;
                let result = f(
                    slice::from_raw_parts(values, len),
                    slice::from_raw_parts(nulls, len),
                );
                pg_sys::pfree(values.cast());
                pg_sys::pfree(nulls.cast());
                result
            }
        };
        // SAFETY: by contract.
        unsafe { with_detoasted(datum, read) }
    }
}

/// Calls `f` with the attributes of a composite value, and which are null.
///
/// # Safety
/// As of [`Codec::push`]; `datum` is a composite of the type of `row`.
unsafe fn with_fields(
    row: &Composite,
    datum: pg_sys::Datum,
    f: impl FnOnce(&[pg_sys::Datum], &[bool]) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let natts = row.fields.len();
    let mut values = vec![pg_sys::Datum::from(0usize); natts];
    let mut nulls = vec![true; natts];
    let read = |raw: *mut pg_sys::varlena| {
        // SAFETY: a detoasted composite is a tuple header; the values point into it and are used
        // before it goes. Attributes added since it was made come back as null or their default.
        unsafe {
            let mut tuple = pg_sys::HeapTupleData {
                t_len: varsize_4b(raw) as u32,
                t_self: pg_sys::ItemPointerData::default(),
                t_tableOid: pg_sys::InvalidOid,
                t_data: raw.cast(),
            };
            pg_sys::heap_deform_tuple(
                &mut tuple,
                row.tupdesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
        f(&values, &nulls)
    };
    // SAFETY: by contract.
    unsafe { with_detoasted(datum, read) }
}
