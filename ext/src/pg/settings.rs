//! Small questions to the server, answered from its globals.

use crate::catalog::tablespace;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// Whether `shared_preload_libraries` is being processed.
pub fn preloading() -> bool {
    // SAFETY: a global of this process' main thread.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// This process' proc number.
pub fn my_proc() -> u32 {
    // SAFETY: as above.
    unsafe { pg_sys::MyProcNumber as u32 }
}

/// Kilobytes that a process may have in temporary files at a time; `None`: no limit.
pub fn temp_file_limit_kb() -> Option<u64> {
    // SAFETY: as above.
    u64::try_from(unsafe { pg_sys::temp_file_limit }).ok()
}

/// How long the server waits for a lock before it looks for a deadlock.
pub fn deadlock_timeout() -> Duration {
    // SAFETY: as above.
    Duration::from_millis(u64::try_from(unsafe { pg_sys::DeadlockTimeout }).unwrap_or(1000))
}

/// The data directory, absolute.
pub fn data_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        // SAFETY: set once by the postmaster, never freed.
        let raw = unsafe { CStr::from_ptr(pg_sys::DataDir) };
        let path = PathBuf::from(raw.to_string_lossy().into_owned());
        std::fs::canonicalize(&path).unwrap_or(path)
    })
}

/// The directory of this database in a tablespace, relative to the data directory.
pub fn database_directory(tablespace: pg_sys::Oid) -> String {
    // SAFETY: a global of this backend; the path is copied at once.
    unsafe {
        let path = pg_sys::GetDatabasePath(pg_sys::MyDatabaseId, tablespace);
        let directory = CStr::from_ptr(path).to_string_lossy().into_owned();
        pg_sys::pfree(path.cast());
        directory
    }
}

/// The location of a path that is relative to the data directory, as the catalog has them: an absolute
/// path, or a URL if its tablespace is in an object store.
pub fn absolute(path: &str) -> String {
    tablespace::location(path).unwrap_or_else(|| local(path))
}

fn local(path: &str) -> String {
    format!("{}/{path}", data_directory().display())
}

/// The opposite of [`absolute`], also for a location as Iceberg metadata hold it.
pub fn relative(location: &str) -> String {
    if let Some(path) = tablespace::path(location) {
        return path;
    }
    let path = location.strip_prefix("file://").unwrap_or(location);
    path.strip_prefix(&local("")).unwrap_or(path).to_owned()
}

/// The same location as Iceberg metadata hold it.
pub fn published_location(path: &str) -> String {
    let location = absolute(path);
    if location.starts_with('/') {
        format!("file://{location}")
    } else {
        location
    }
}

/// OID of the schema `lake`, if the extension is installed in this database.
pub fn lake_schema() -> Option<pg_sys::Oid> {
    // SAFETY: plain catalog lookup in a transaction.
    let oid = unsafe { pg_sys::get_namespace_oid(c"lake".as_ptr(), true) };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether this database has the extension.
pub fn is_installed() -> bool {
    // SAFETY: plain catalog lookup in a transaction.
    unsafe { pg_sys::get_extension_oid(c"pg_lake".as_ptr(), true) != pg_sys::InvalidOid }
}

/// Serves a cancel or a termination if one is pending.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// OID of the access method, cached until the catalog changes.
pub fn iceberg_am() -> pg_sys::Oid {
    // SAFETY: plain catalog lookup in a transaction.
    unsafe { pg_sys::get_am_oid(c"iceberg".as_ptr(), true) }
}

/// Whether an open relation has an index, valid or not. `relhasindex` stays set after the last one
/// was dropped.
pub fn has_indexes(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open; the list is ours.
    unsafe {
        let list = pg_sys::RelationGetIndexList(relation);
        let any = !list.is_null();
        pg_sys::list_free(list);
        any
    }
}

/// Raises an error in a read-only transaction.
pub fn refuse_if_read_only(command: &CStr) {
    // SAFETY: a static string.
    unsafe { pg_sys::PreventCommandIfReadOnly(command.as_ptr()) }
}

/// A relation's name with its schema, quoted.
pub fn qualified_name(relid: pg_sys::Oid) -> String {
    // SAFETY: catalog lookups; the strings are copied at once.
    unsafe {
        let name = pg_sys::get_rel_name(relid);
        if name.is_null() {
            return relid.to_u32().to_string();
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid));
        let quoted = pg_sys::quote_qualified_identifier(schema, name);
        CStr::from_ptr(quoted).to_string_lossy().into_owned()
    }
}

/// The owner of a relation, if there is such a one.
pub fn owner_of(relid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a syscache look-up, released at once.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// The name of a relation without its schema, as error messages show it.
pub fn relation_name(relation: pg_sys::Relation) -> String {
    // SAFETY: the relation is open.
    unsafe {
        let data = &(*(*relation).rd_rel).relname.data;
        CStr::from_ptr(data.as_ptr()).to_string_lossy().into_owned()
    }
}

/// `SnapshotSelf`: committed rows and this transaction's own, whatever the command.
pub static mut SNAPSHOT_SELF: pg_sys::SnapshotData = {
    // SAFETY: a plain C struct for which all zeroes is a valid value.
    let mut data: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    data.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_SELF;
    data
};

/// `SnapshotAny`: all versions.
pub static mut SNAPSHOT_ANY: pg_sys::SnapshotData = {
    // SAFETY: as above.
    let mut data: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    data.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_ANY;
    data
};

/// A `SnapshotDirty`: also what transactions in progress have done.
pub fn dirty_snapshot() -> pg_sys::SnapshotData {
    // SAFETY: as above; InitDirtySnapshot (snapmgr.h) sets nothing but the type.
    let mut data: pg_sys::SnapshotData = unsafe { std::mem::zeroed() };
    data.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_DIRTY;
    data
}

/// A `SnapshotNonVacuumable`: all versions that somebody may see.
pub fn non_vacuumable_snapshot(relation: pg_sys::Relation) -> pg_sys::SnapshotData {
    // SAFETY: as above, and the relation is open; InitNonVacuumableSnapshot (snapmgr.h) sets these. Who asks for the
    // horizon makes the test exact.
    unsafe {
        pg_sys::GetOldestNonRemovableTransactionId(relation);
        let mut data: pg_sys::SnapshotData = std::mem::zeroed();
        data.snapshot_type = pg_sys::SnapshotType::SNAPSHOT_NON_VACUUMABLE;
        data.vistest = pg_sys::GlobalVisTestFor(relation);
        data
    }
}

/// Runs `f` with the rights of the extension's owner, in a context that can't change settings.
pub fn as_extension_owner<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the user id and context are restored on the way out; an error restores them at abort.
    unsafe {
        let mut user = pg_sys::InvalidOid;
        let mut context = 0;
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(
            pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID),
            context
                | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32
                | pg_sys::SECURITY_RESTRICTED_OPERATION as i32,
        );
        let result = with_safe_search_path(f);
        pg_sys::SetUserIdAndSecContext(user, context);
        result
    }
}

/// Runs `f` with a search path that nobody can put objects of their own on.
pub fn with_safe_search_path<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: the level is left on the way out; an error leaves it at abort.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::RestrictSearchPath();
        let result = f();
        pg_sys::AtEOXact_GUC(false, level);
        result
    }
}
