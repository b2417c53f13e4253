//! The names of the table options, and the text of their values.
//!
//! Text only, no Postgres call, so that it can be tested without a server.
#![deny(unsafe_code)]

use super::layout_text::{self, Column, PartitionKey, SortKey};
use pg_lake_plan::message::Compression;
use std::borrow::Cow;
use std::ffi::CStr;

pub const BLOOM_FILTER_COLUMNS: &CStr = c"bloom_filter_columns";
const COMPRESSION: &CStr = c"compression";
pub const FORMAT_VERSION: &CStr = c"format_version";
pub const PARTITION_BY: &CStr = c"partition_by";
pub const SORT_BY: &CStr = c"sort_by";
const TARGET_FILE_SIZE: &CStr = c"target_file_size";
/// All options.
pub const NAMES: [&CStr; 6] = [
    BLOOM_FILTER_COLUMNS,
    COMPRESSION,
    FORMAT_VERSION,
    PARTITION_BY,
    SORT_BY,
    TARGET_FILE_SIZE,
];
/// The setting `lake.compression` has the same names.
const COMPRESSIONS: [(&str, Compression); 5] = [
    ("zstd", Compression::ZSTD),
    ("snappy", Compression::Snappy),
    ("lz4", Compression::Lz4),
    ("gzip", Compression::Gzip),
    ("none", Compression::None),
];
/// The range of the setting `lake.target_file_size`.
const FILE_SIZES: std::ops::RangeInclusive<u64> = 1 << 20..=8192 << 20;

/// What is set on a table. `None` is up to the settings, or to the extension's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As it was written; names are looked up when it is used.
    pub bloom_filter_columns: Option<String>,
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
pub struct Invalid {
    pub detail: Cow<'static, str>,
    pub hint: &'static str,
}

impl Options {
    /// Sets an option to what a text says.
    pub fn set(&mut self, name: &CStr, value: &str) -> Result<(), Invalid> {
        if name == BLOOM_FILTER_COLUMNS {
            layout_text::columns(value).map_err(|detail| Invalid {
                detail: detail.into(),
                hint: "An example is: id, code.",
            })?;
            self.bloom_filter_columns = Some(value.to_owned());
        } else if name == COMPRESSION {
            let known = COMPRESSIONS
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

    /// Whether options name columns: files are to be partitioned or sorted, or to have Bloom filters.
    pub fn has_layout(&self) -> bool {
        self.partition_by.is_some() || self.sort_by.is_some() || self.bloom_filter_columns.is_some()
    }

    pub fn filtered_columns(&self) -> Vec<Column> {
        let columns = self.bloom_filter_columns.as_deref();
        let columns = columns.map(layout_text::columns);
        columns.and_then(Result::ok).unwrap_or_default()
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
            (BLOOM_FILTER_COLUMNS, "a desc"),
            (BLOOM_FILTER_COLUMNS, ""),
            (PARTITION_BY, "day("),
            (SORT_BY, ""),
        ] {
            assert!(options.set(name, wrong).is_err(), "{wrong}");
        }
        assert_eq!(options, expected);
    }
}
