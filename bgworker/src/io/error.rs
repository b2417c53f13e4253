//! What files and Iceberg report, as errors for the backend.

use pg_lake_iceberg::ErrorKind;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::error::Error as StdError;
use std::io;
use std::path::Path;

/// An error of `iceberg-io`. `place` is the file or directory that the request is about.
pub(crate) fn iceberg_error(error: &pg_lake_iceberg::Error, place: &str) -> WireError {
    if let Some(own) = crate::store::wire_error(error) {
        return own.clone();
    }
    let code = match (io_code(error), error.kind()) {
        (Some(code), _) => code,
        (None, ErrorKind::NotFound) => ErrorCode::MissingFile,
        (None, ErrorKind::Unsupported) => ErrorCode::Unsupported,
        (None, ErrorKind::Corrupt) => ErrorCode::DataCorrupted,
        (None, ErrorKind::Io | ErrorKind::AlreadyExists) => ErrorCode::Io,
        (None, ErrorKind::InvalidInput | ErrorKind::Internal) => ErrorCode::Internal,
    };
    let mut wire = WireError::new(code, error.message());
    let causes = causes(error);
    if !causes.is_empty() {
        wire = wire.detail(causes);
    }
    with_hint(wire, place)
}

/// An error of the operating system: `message` says what was attempted on which file.
pub(crate) fn file_error(message: String, error: &io::Error, place: &Path) -> WireError {
    let code = code_of(error).unwrap_or(ErrorCode::Io);
    with_hint(
        WireError::new(code, format!("{message}: {error}")),
        &place.to_string_lossy(),
    )
}

fn with_hint(error: WireError, place: &str) -> WireError {
    match error.code {
        ErrorCode::DiskFull => error.hint(format!(
            "Free space, or raise the quota, on the file system of \"{place}\"."
        )),
        _ => error,
    }
}

/// The operating system's error, if there is one among the causes.
fn io_code(error: &pg_lake_iceberg::Error) -> Option<ErrorCode> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && let Some(code) = code_of(error)
        {
            return Some(code);
        }
        cause = error.source();
    }
    None
}

fn code_of(error: &io::Error) -> Option<ErrorCode> {
    Some(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        io::ErrorKind::NotFound => ErrorCode::MissingFile,
        io::ErrorKind::OutOfMemory => ErrorCode::OutOfMemory,
        _ => return None,
    })
}

/// The causes, outermost first, without those that repeat the one before.
fn causes(error: &pg_lake_iceberg::Error) -> String {
    let mut texts: Vec<String> = vec![];
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_as_such_with_its_place() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = pg_lake_iceberg::Error::io("could not write file \"/lake/a\"", full);
        let wire = iceberg_error(&error, "/lake");
        assert_eq!(wire.code, ErrorCode::DiskFull);
        assert!(wire.hint.is_some_and(|hint| hint.contains("/lake")));
        assert!(wire.detail.is_some());
    }

    #[test]
    fn a_full_disk_is_found_below_parquet() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let parquet = parquet::errors::ParquetError::External(Box::new(full));
        let error = pg_lake_iceberg::Error::parquet("could not write to a Parquet file", parquet);
        assert_eq!(iceberg_error(&error, "/lake").code, ErrorCode::DiskFull);
    }
}
