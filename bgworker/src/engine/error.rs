//! How a [`WireError`] passes through DataFusion and Arrow, and what their own errors mean.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::error::Error;
use std::io;

/// How DataFusion begins to say that the files of a `DiskManager` are larger than it allows.
const SPILLED_TOO_MUCH: &str = "The used disk space during the spilling process has exceeded";

/// Wraps an error for the way up through DataFusion's operators.
pub(super) fn raise(error: WireError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The error that [`raise`] wrapped, or DataFusion's own with the fitting code.
pub(super) fn wire(error: &DataFusionError) -> WireError {
    match error {
        DataFusionError::External(inner) => from_dyn(inner.as_ref()),
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => wire(inner),
        DataFusionError::Shared(inner) => wire(inner),
        DataFusionError::ArrowError(inner, _) => from_arrow(inner),
        DataFusionError::Collection(errors) => match errors.first() {
            Some(first) => wire(first),
            None => internal("an empty list of errors"),
        },
        DataFusionError::IoError(error) => from_io(error, "could not use a spill file"),
        DataFusionError::ResourcesExhausted(text) if text.starts_with(SPILLED_TOO_MUCH) => {
            WireError::new(
                ErrorCode::TempFileLimit,
                "temporary file size exceeds \"temp_file_limit\"",
            )
            .hint("Raise temp_file_limit, or lake.worker_memory for less to be spilled.")
        }
        DataFusionError::ResourcesExhausted(text) => {
            WireError::new(ErrorCode::OutOfMemory, "out of memory in the lake engine")
                .detail(text.clone())
                .hint("Raise lake.worker_memory.")
        }
        other => internal(&other.to_string()),
    }
}

/// Errors of Arrow's kernels and readers.
pub(super) fn from_arrow(error: &ArrowError) -> WireError {
    match error {
        ArrowError::ExternalError(inner) => from_dyn(inner.as_ref()),
        ArrowError::IoError(_, error) => from_io(error, "could not use a spill file"),
        ArrowError::MemoryError(text) => {
            WireError::new(ErrorCode::OutOfMemory, "out of memory in the lake engine")
                .detail(text.clone())
                .hint("Raise lake.worker_memory.")
        }
        ArrowError::OffsetOverflowError(_) => {
            not_exact("a column takes more than 2 GiB in one place of the lake engine")
        }
        other => internal(&other.to_string()),
    }
}

pub(super) fn from_io(error: &io::Error, message: &str) -> WireError {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::DiskFull,
        io::ErrorKind::NotFound => ErrorCode::MissingFile,
        _ => ErrorCode::Io,
    };
    WireError::new(code, format!("{message}: {error}"))
}

fn from_dyn(error: &(dyn Error + Send + Sync + 'static)) -> WireError {
    if let Some(own) = error.downcast_ref::<WireError>() {
        own.clone()
    } else if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        wire(inner)
    } else if let Some(inner) = error.downcast_ref::<ArrowError>() {
        from_arrow(inner)
    } else {
        internal(&error.to_string())
    }
}

pub(super) fn internal(detail: &str) -> WireError {
    WireError::new(ErrorCode::Internal, "internal error in the lake engine").detail(detail)
}

pub(super) fn protocol(detail: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Protocol, "malformed fragment").detail(detail)
}

pub(super) fn unsupported(what: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::Unsupported, what)
}

pub(super) fn not_exact(what: &str) -> WireError {
    WireError::new(ErrorCode::NotExact, what)
}

pub(super) fn out_of_range(message: &str) -> WireError {
    WireError::new(ErrorCode::OutOfRange, message)
}

pub(super) fn division_by_zero() -> WireError {
    WireError::new(ErrorCode::DivisionByZero, "division by zero")
}

pub(super) fn datetime_overflow(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::DatetimeOverflow, message)
}

pub(super) fn cancelled() -> WireError {
    WireError::new(
        ErrorCode::Cancelled,
        "canceling statement due to user request",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion_execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
    use std::sync::Arc;

    #[test]
    fn wire_errors_survive_every_wrapping() {
        let own = out_of_range("integer out of range");
        let arrow = ArrowError::ExternalError(Box::new(raise(own.clone())));
        let wrapped = DataFusionError::Shared(Arc::new(DataFusionError::Context(
            "there".into(),
            Box::new(DataFusionError::ArrowError(Box::new(arrow), None)),
        )));
        assert_eq!(wire(&wrapped), own);
    }

    #[test]
    fn a_column_that_is_too_large_sends_the_backend_to_its_own_plan() {
        let arrow = ArrowError::OffsetOverflowError(usize::MAX);
        let error = wire(&DataFusionError::ArrowError(Box::new(arrow), None));
        assert_eq!(error.code, ErrorCode::NotExact);
    }

    #[test]
    fn too_much_in_temporary_files_is_told_from_too_little_memory() {
        let directory = tempfile::tempdir().unwrap();
        let disk = DiskManagerBuilder::default()
            .with_mode(DiskManagerMode::Directories(vec![
                directory.path().to_owned(),
            ]))
            .with_max_temp_directory_size(1000)
            .build()
            .unwrap();
        let mut file = Arc::new(disk).create_tmp_file("a test").unwrap();
        std::fs::write(file.path(), [0_u8; 1000]).unwrap();
        file.update_disk_usage().unwrap();
        std::fs::write(file.path(), [0_u8; 1001]).unwrap();
        let error = wire(&file.update_disk_usage().unwrap_err());
        assert_eq!(error.code, ErrorCode::TempFileLimit);
        assert!(error.hint.is_some());
    }

    #[test]
    fn exhausted_memory_has_a_hint() {
        let error = wire(&DataFusionError::ResourcesExhausted("x".into()));
        assert_eq!(error.code, ErrorCode::OutOfMemory);
        assert_eq!(error.hint.as_deref(), Some("Raise lake.worker_memory."));
    }
}
