//! Work that may fail without failing the transaction.

use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// Why something was rolled back.
pub struct Failure {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
}

impl Failure {
    pub fn of(report: &ErrorReportWithLevel) -> Failure {
        Failure {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
        }
    }
}

/// Runs `f` in a subtransaction of its own. An error rolls it back and is returned; a cancel, and a panic, go
/// on as errors do.
#[allow(clippy::result_large_err)] // pgrx's, and passed on at once
pub fn attempt<R>(f: impl FnOnce() -> R) -> Result<R, Failure> {
    // SAFETY: in a transaction; what is begun here ends here, as in exec_stmt_block (pl_exec.c).
    let result = unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let result: Result<R, CaughtError> = PgTryBuilder::new(AssertUnwindSafe(|| Ok(f())))
            .catch_others(Err)
            .execute();
        match &result {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        result
    };
    match result {
        Ok(value) => Ok(value),
        Err(CaughtError::PostgresError(report) | CaughtError::ErrorReport(report))
            if report.sql_error_code() != PgSqlErrorCode::ERRCODE_QUERY_CANCELED =>
        {
            Err(Failure::of(&report))
        }
        Err(error) => error.rethrow(),
    }
}
