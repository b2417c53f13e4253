//! Errors on their way to the user: the one table that maps error codes to SQLSTATEs.

use pg_lake_plan::message::{ErrorCode, WireError};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Raises an ERROR; never returns.
pub fn raise(code: PgSqlErrorCode, message: &str, detail: Option<&str>, hint: Option<&str>) -> ! {
    report(PgLogLevel::ERROR, code, message, detail, hint);
    unreachable!("an ERROR does not return")
}

/// Raises a WARNING.
pub fn warn(message: &str, detail: Option<&str>) {
    report(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_WARNING,
        message,
        detail,
        None,
    );
}

/// Raises a NOTICE.
pub fn notice(message: &str, detail: &str, hint: &str) {
    report(
        PgLogLevel::NOTICE,
        PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        message,
        Some(detail),
        Some(hint),
    );
}

fn report(
    level: PgLogLevel,
    code: PgSqlErrorCode,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let mut report = ErrorReport::new(code, message.to_owned(), "pg_lake");
    if let Some(detail) = detail {
        report = report.set_detail(detail);
    }
    if let Some(hint) = hint {
        report = report.set_hint(hint);
    }
    report.report(level);
}

/// Raises `feature_not_supported`.
pub fn unsupported(message: &str, hint: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        message,
        None,
        Some(hint),
    )
}

/// SQLSTATE of an error that the engine or a worker raised.
pub fn sqlstate(code: ErrorCode) -> PgSqlErrorCode {
    match code {
        ErrorCode::NotExact | ErrorCode::Internal => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        ErrorCode::Cancelled => PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
        ErrorCode::OutOfRange => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        ErrorCode::DivisionByZero => PgSqlErrorCode::ERRCODE_DIVISION_BY_ZERO,
        ErrorCode::DatetimeOverflow => PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
        ErrorCode::Substring => PgSqlErrorCode::ERRCODE_SUBSTRING_ERROR,
        ErrorCode::NegativeRoot => PgSqlErrorCode::ERRCODE_INVALID_ARGUMENT_FOR_POWER_FUNCTION,
        ErrorCode::DataCorrupted => PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        ErrorCode::MissingFile => PgSqlErrorCode::ERRCODE_UNDEFINED_FILE,
        ErrorCode::NameTaken => PgSqlErrorCode::ERRCODE_DUPLICATE_FILE,
        ErrorCode::Io => PgSqlErrorCode::ERRCODE_IO_ERROR,
        ErrorCode::StoreUnavailable => PgSqlErrorCode::ERRCODE_CONNECTION_FAILURE,
        ErrorCode::StoreDenied => PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
        ErrorCode::InvalidConfiguration => PgSqlErrorCode::ERRCODE_CONFIG_FILE_ERROR,
        ErrorCode::DiskFull => PgSqlErrorCode::ERRCODE_DISK_FULL,
        ErrorCode::OutOfMemory => PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
        ErrorCode::Protocol => PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
        ErrorCode::Unsupported => PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        ErrorCode::TempFileLimit => PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        ErrorCode::EscapeSequence => PgSqlErrorCode::ERRCODE_INVALID_ESCAPE_SEQUENCE,
        ErrorCode::Logarithm => PgSqlErrorCode::ERRCODE_INVALID_ARGUMENT_FOR_LOG,
        ErrorCode::InvalidParameter => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        ErrorCode::LimitExceeded => PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        ErrorCode::WidthBucket => {
            PgSqlErrorCode::ERRCODE_INVALID_ARGUMENT_FOR_WIDTH_BUCKET_FUNCTION
        }
        ErrorCode::InvalidText => PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
    }
}

/// Raises an error that came over a ring.
pub fn raise_wire(error: &WireError) -> ! {
    raise(
        sqlstate(error.code),
        &error.message,
        error.detail.as_deref(),
        error.hint.as_deref(),
    )
}
