//! Table options of iceberg tables: kept in `pg_class.reloptions` beside those of heap, where
//! `pg_dump` and psql look for them.
//!
//! Postgres validates that array against a list of its own whenever it changes it, but not when it
//! reads it. `hooks/options.rs` keeps ours out of its sight while it does, and checks them instead.

use super::layout_text::{self, PartitionKey, SortKey};
use crate::error;
use crate::guc::Compression;
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::borrow::Cow;
use std::ffi::CStr;

const COMPRESSION: &CStr = c"compression";
const FORMAT_VERSION: &CStr = c"format_version";
pub const PARTITION_BY: &CStr = c"partition_by";
pub const SORT_BY: &CStr = c"sort_by";
const TARGET_FILE_SIZE: &CStr = c"target_file_size";
const NAMES: [&CStr; 5] = [
    COMPRESSION,
    FORMAT_VERSION,
    PARTITION_BY,
    SORT_BY,
    TARGET_FILE_SIZE,
];
/// The range of the setting `lake.target_file_size`.
const FILE_SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=8192 << 20;

/// What is set on a table. `None` is up to the settings, or to the extension's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub compression: Option<Compression>,
    pub format_version: Option<u8>,
    /// As it was written; names are looked up when it is used.
    pub partition_by: Option<String>,
    pub sort_by: Option<String>,
    /// In bytes.
    pub target_file_size: Option<u64>,
}

/// Why a value isn't one.
#[derive(Debug, PartialEq, Eq)]
struct Invalid {
    detail: Cow<'static, str>,
    hint: &'static str,
}

impl Options {
    fn set(&mut self, name: &CStr, value: &str) -> Result<(), Invalid> {
        if name == COMPRESSION {
            let known = Compression::NAMES
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(value));
            let (_, compression) = known.ok_or(Invalid {
                detail: "Valid values are \"zstd\", \"snappy\", \"lz4\", \"gzip\" and \"none\"."
                    .into(),
                hint: "Without the option, the setting lake.compression counts.",
            })?;
            self.compression = Some(*compression);
        } else if name == FORMAT_VERSION {
            let version = value.trim().parse::<u8>().ok();
            let supported = version.filter(|version| (2..=3).contains(version));
            self.format_version = Some(supported.ok_or(Invalid {
                detail: "Valid values are 2 and 3.".into(),
                hint: "It is a version of the Iceberg table format.",
            })?);
        } else if name == PARTITION_BY {
            layout_text::partition_by(value).map_err(|detail| Invalid {
                detail: detail.into(),
                hint: "An example is: region, bucket(16, id), day(ts), truncate(4, code).",
            })?;
            self.partition_by = Some(value.to_owned());
        } else if name == SORT_BY {
            layout_text::sort_by(value).map_err(|detail| Invalid {
                detail: detail.into(),
                hint: "An example is: ts DESC NULLS LAST, id.",
            })?;
            self.sort_by = Some(value.to_owned());
        } else if name == TARGET_FILE_SIZE {
            let size = bytes_of(value).filter(|bytes| FILE_SIZES.contains(bytes));
            self.target_file_size = Some(size.ok_or(Invalid {
                detail: "Valid values are between \"1MB\" and \"8GB\".".into(),
                hint: "Give a whole number of bytes, or one with a unit: \"B\", \"kB\", \"MB\" or \"GB\".",
            })?);
        }
        Ok(())
    }

    /// Whether files are to be partitioned or sorted.
    pub fn has_layout(&self) -> bool {
        self.partition_by.is_some() || self.sort_by.is_some()
    }

    pub fn partition_keys(&self) -> Vec<PartitionKey> {
        let keys = self.partition_by.as_deref().map(layout_text::partition_by);
        keys.and_then(Result::ok).unwrap_or_default()
    }

    pub fn sort_keys(&self) -> Vec<SortKey> {
        let keys = self.sort_by.as_deref().map(layout_text::sort_by);
        keys.and_then(Result::ok).unwrap_or_default()
    }
}

/// The bytes of a whole number and a unit, both as `pg_size_bytes` reads them.
fn bytes_of(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The options of a relation, as its row in `pg_class` has them now.
pub fn of(relid: pg_sys::Oid) -> Options {
    let mut options = Options::default();
    // SAFETY: a list of options that is ours.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(list(relid)).iter_ptr() {
            // They were checked when they were set. One that somebody has written into pg_class by
            // hand doesn't keep anybody from writing files.
            let _ = options.set(CStr::from_ptr((*option).defname), &value(option));
        }
    }
    options
}

/// Our options of a relation, as elements of an options list.
pub fn list(relid: pg_sys::Oid) -> *mut pg_sys::List {
    // SAFETY: a syscache look-up, released once the array has been copied.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return std::ptr::null_mut();
        }
        let all = pg_sys::untransformRelOptions(reloptions(tuple));
        pg_sys::ReleaseSysCache(tuple);
        split(all).ours
    }
}

/// The array in a row of `pg_class`, null if there is none.
unsafe fn reloptions(tuple: pg_sys::HeapTuple) -> pg_sys::Datum {
    let mut isnull = false;
    // SAFETY: by contract.
    let array = unsafe {
        pg_sys::SysCacheGetAttr(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            tuple,
            pg_sys::Anum_pg_class_reloptions as i16,
            &mut isnull,
        )
    };
    if isnull { pg_sys::Datum::null() } else { array }
}

/// The text of an option's value, as Postgres stores it.
unsafe fn value(option: *mut pg_sys::DefElem) -> String {
    // SAFETY: an element of an options list.
    unsafe {
        if (*option).arg.is_null() {
            return "true".to_owned();
        }
        CStr::from_ptr(pg_sys::defGetString(option))
            .to_string_lossy()
            .into_owned()
    }
}

/// A list of options in two.
pub struct Split {
    pub ours: *mut pg_sys::List,
    pub others: *mut pg_sys::List,
}

/// Tells our options in a list from others. Their elements are the list's own.
///
/// # Safety
/// A list of options as parsed.
pub unsafe fn split(list: *mut pg_sys::List) -> Split {
    let mut split = Split {
        ours: std::ptr::null_mut(),
        others: std::ptr::null_mut(),
    };
    // SAFETY: by contract.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(list).iter_ptr() {
            let name = CStr::from_ptr((*option).defname);
            let part = if NAMES.contains(&name) && (*option).defnamespace.is_null() {
                &mut split.ours
            } else {
                &mut split.others
            };
            *part = pg_sys::lappend(*part, option.cast());
        }
    }
    split
}

/// Raises an error if one of our options can't be set as a statement says.
///
/// # Safety
/// `ours` of a [`Split`].
pub unsafe fn check(ours: *mut pg_sys::List) {
    let mut seen: Vec<&CStr> = vec![];
    let mut options = Options::default();
    // SAFETY: by contract.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(ours).iter_ptr() {
            let name = CStr::from_ptr((*option).defname);
            let shown = name.to_string_lossy();
            if seen.contains(&name) {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    &format!("parameter \"{shown}\" specified more than once"),
                    None,
                    None,
                );
            }
            seen.push(name);
            let value = value(option);
            if let Err(invalid) = options.set(name, &value) {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    &format!("invalid value for option \"{shown}\": {value}"),
                    Some(&invalid.detail),
                    Some(invalid.hint),
                );
            }
        }
    }
}

/// Whether a list names the Iceberg format version.
///
/// # Safety
/// A list of options as parsed.
pub unsafe fn has_format_version(list: *mut pg_sys::List) -> bool {
    // SAFETY: by contract.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(list)
            .iter_ptr()
            .any(|option| CStr::from_ptr((*option).defname) == FORMAT_VERSION)
    }
}

/// A list that names all options, for RESET.
pub fn all() -> *mut pg_sys::List {
    NAMES.iter().fold(std::ptr::null_mut(), |list, name| {
        // SAFETY: the name is never written to nor freed.
        unsafe {
            let option = pg_sys::makeDefElem(name.as_ptr().cast_mut(), std::ptr::null_mut(), -1);
            pg_sys::lappend(list, option.cast())
        }
    })
}

/// One step of ALTER TABLE: SET or RESET.
#[derive(Clone, Copy)]
pub struct Change {
    pub list: *mut pg_sys::List,
    pub reset: bool,
}

/// Changes the options in the row of `pg_class`; the next command sees them.
///
/// # Safety
/// The lists are `ours` of [`Split`]s. The caller holds a lock on the relation in whose presence
/// Postgres updates no row of `pg_class` in place: SHARE UPDATE EXCLUSIVE or a stronger one.
pub unsafe fn change(relid: pg_sys::Oid, changes: &[Change]) {
    const COLUMNS: usize = pg_sys::Natts_pg_class as usize;
    const COLUMN: usize = pg_sys::Anum_pg_class_reloptions as usize - 1;
    if changes.iter().all(|change| change.list.is_null()) {
        return;
    }
    // SAFETY: by contract; the arrays have an entry a column.
    unsafe {
        let class = pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::RowExclusiveLock as i32);
        let old = pg_sys::SearchSysCacheCopy(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        );
        if old.is_null() {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                &format!("cache lookup failed for relation {}", relid.to_u32()),
                None,
                None,
            );
        }
        let mut array = reloptions(old);
        for change in changes {
            array = pg_sys::transformRelOptions(
                array,
                change.list,
                std::ptr::null(),
                std::ptr::null_mut(),
                false,
                change.reset,
            );
        }
        let mut values = [pg_sys::Datum::null(); COLUMNS];
        let mut nulls = [false; COLUMNS];
        let mut replaced = [false; COLUMNS];
        values[COLUMN] = array;
        nulls[COLUMN] = array.is_null();
        replaced[COLUMN] = true;
        let new = pg_sys::heap_modify_tuple(
            old,
            (*class).rd_att,
            values.as_ptr(),
            nulls.as_ptr(),
            replaced.as_ptr(),
        );
        pg_sys::CatalogTupleUpdate(class, &mut (*old).t_self, new);
        pg_sys::heap_freetuple(new);
        pg_sys::table_close(class, pg_sys::RowExclusiveLock as i32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes_of("134217728"), Some(128 << 20));
        assert_eq!(bytes_of("128MB"), Some(128 << 20));
        assert_eq!(bytes_of(" 64 kB "), Some(64 << 10));
        assert_eq!(bytes_of("1gb"), Some(1 << 30));
        assert_eq!(bytes_of("7 bytes"), Some(7));
        for wrong in ["", "MB", "1.5GB", "-1", "1 XB", "1MB 2", "99999999999999GB"] {
            assert_eq!(bytes_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn values_are_checked() {
        let mut options = Options::default();
        assert_eq!(options.set(COMPRESSION, "LZ4"), Ok(()));
        assert_eq!(options.set(FORMAT_VERSION, "3"), Ok(()));
        assert_eq!(options.set(TARGET_FILE_SIZE, "8GB"), Ok(()));
        let expected = Options {
            compression: Some(Compression::Lz4),
            format_version: Some(3),
            target_file_size: Some(8 << 30),
            ..Options::default()
        };
        assert_eq!(options, expected);
        for (name, wrong) in [
            (COMPRESSION, "brotli"),
            (FORMAT_VERSION, "1"),
            (FORMAT_VERSION, "two"),
            (TARGET_FILE_SIZE, "1023kB"),
            (TARGET_FILE_SIZE, "9GB"),
            (PARTITION_BY, "day("),
            (SORT_BY, ""),
        ] {
            assert!(options.set(name, wrong).is_err(), "{wrong}");
        }
        assert_eq!(options, expected);
    }
}
