//! Faster input of common values in COPY FROM.
//!
//! A COPY into an iceberg table is bound by Postgres' own parsing, and much of that is the general
//! parsers of dates and numerics. Input functions of COPY's state are replaced by ones that read the common spelling
//! and hand everything else to the function they stand for, with the same result and the same
//! errors. See `docs/adr/0008-fast-copy-input.md`.

mod parse;

use crate::pg::copy_state;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

type Function = unsafe extern "C-unwind" fn(pg_sys::FunctionCallInfo) -> pg_sys::Datum;

// The server's functions as they are: pgrx's bindings catch each error, which costs more than what
// these do. Nothing here owns what an error that passes would have to drop.
unsafe extern "C-unwind" {
    fn date_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    fn timestamp_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    fn numeric_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
    fn palloc(size: usize) -> *mut std::ffi::c_void;
}

/// Makes the COPY that is running into `relation`, if it is one of text or CSV, use the functions
/// below. Costs nothing to call again.
pub fn install(relation: pg_sys::Relation) {
    for function in copy_state::input_functions(relation) {
        let fast: Function = match function.fn_oid.to_u32() {
            pg_sys::F_DATE_IN => fast_date_in,
            pg_sys::F_TIMESTAMP_IN => fast_timestamp_in,
            pg_sys::F_NUMERIC_IN => fast_numeric_in,
            _ => continue,
        };
        function.fn_addr = Some(fast);
    }
}

/// # Safety
/// `fcinfo` is that of an input function, called with a C string.
unsafe fn argument(fcinfo: pg_sys::FunctionCallInfo, n: usize) -> pg_sys::NullableDatum {
    // SAFETY: input functions have three arguments.
    unsafe { *(*fcinfo).args.as_ptr().add(n) }
}

/// # Safety
/// As of [`argument`].
unsafe fn text<'a>(fcinfo: pg_sys::FunctionCallInfo) -> &'a [u8] {
    // SAFETY: a C string that lives as long as the call.
    unsafe { CStr::from_ptr(argument(fcinfo, 0).value.cast_mut_ptr::<c_char>()).to_bytes() }
}

unsafe extern "C-unwind" fn fast_date_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: called as the function that it stands for.
    unsafe {
        match parse::date(text(fcinfo)) {
            Some(days) => pg_sys::Datum::from(days),
            None => date_in(fcinfo),
        }
    }
}

unsafe extern "C-unwind" fn fast_timestamp_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: as above. A typmod may round.
    unsafe {
        let typmod = argument(fcinfo, 2).value.value() as i32;
        match parse::timestamp(text(fcinfo)) {
            Some(micros) if typmod < 0 || typmod == 6 => pg_sys::Datum::from(micros),
            _ => timestamp_in(fcinfo),
        }
    }
}

/// Precision and scale of a typmod (`numeric_typmod_precision` and `_scale` in `numeric.c`);
/// `Err` for a negative scale.
fn limits(typmod: i32) -> Result<Option<(u32, u32)>, ()> {
    let Some(packed) = typmod
        .checked_sub(pg_sys::VARHDRSZ as i32)
        .filter(|p| *p >= 0)
    else {
        return Ok(None);
    };
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    let precision = (packed >> 16) as u32 & 0xffff;
    u32::try_from(scale)
        .map(|scale| Some((precision, scale)))
        .map_err(drop)
}

unsafe extern "C-unwind" fn fast_numeric_in(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: as above; the result has room for its header and `n` bytes.
    unsafe {
        let typmod = argument(fcinfo, 2).value.value() as i32;
        let mut bytes = [0; parse::NUMERIC_BYTES_MAX];
        let parsed = limits(typmod)
            .ok()
            .and_then(|limits| parse::numeric(text(fcinfo), limits, &mut bytes));
        let Some(n) = parsed else {
            return numeric_in(fcinfo);
        };
        let size = pg_sys::VARHDRSZ + n;
        let result = palloc(size).cast::<u8>();
        pgrx::set_varsize_4b(result.cast(), size as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), result.add(pg_sys::VARHDRSZ), n);
        pg_sys::Datum::from(result)
    }
}
