//! CREATE, ALTER and DROP TABLESPACE: options about an object store, which Postgres would refuse.
//!
//! * CREATE: ours are taken off the statement, checked, tried out, and put into the tablespace's row when
//!   it is there. All that may fail comes before Postgres makes the directory, which no rollback removes.
//! * ALTER: Postgres validates the whole array, so ours are taken off the row, and put back, changed as
//!   the statement says, when it has run. `pg_dumpall` creates a tablespace first and then sets its
//!   options, so that this may put an empty one into a store.
//! * DROP: what waits to be removed is removed first. Nothing must be left, in other databases either: nobody would know
//!   where it is.
//!
//! The roots of two stores must not overlap, or a location could be one of either. `pg_tablespace` is
//! locked while they are compared, to the end of the transaction.

use super::utility::tag;
use crate::catalog::store_options::{self, Invalid, Known, Options};
use crate::catalog::{garbage, intent, storage, tablespace};
use crate::pg::missing;
use crate::ring::call;
use crate::sql::maintenance;
use crate::{error, pg};
use pg_lake_plan::message::Reply;
use pg_lake_plan::store::Store;
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_char};

const SWEEP_THERE: &str = "Run CHECKPOINT and SELECT lake.sweep('0') in that database when no transaction and no reader of what was published needs them any more.";

/// What is left to do when a statement has run. Names and lists live as long as the statement.
#[derive(Clone, Copy)]
pub enum Set {
    Nothing,
    Created {
        name: *const c_char,
        options: *mut pg_sys::List,
    },
    Altered {
        oid: pg_sys::Oid,
        options: *mut pg_sys::List,
    },
}

/// Whether [`before`] may change a statement's tree.
///
/// # Safety
/// A statement that is about to run.
pub unsafe fn concerns(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: by contract.
    matches!(
        unsafe { tag(statement) },
        pg_sys::NodeTag::T_CreateTableSpaceStmt | pg_sys::NodeTag::T_AlterTableSpaceOptionsStmt
    )
}

/// Takes our options off a statement, checks them, and tries the store out.
///
/// # Safety
/// A statement that is about to run, a copy if [`concerns`] says so.
pub unsafe fn before(
    statement: *mut pg_sys::Node,
    context: pg_sys::ProcessUtilityContext::Type,
) -> Set {
    // SAFETY: the tag says what the node is.
    unsafe {
        // Postgres says what it has against these.
        if pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() {
            return Set::Nothing;
        }
        let alone = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
            && !pg_sys::IsTransactionBlock();
        match tag(statement) {
            pg_sys::NodeTag::T_CreateTableSpaceStmt if alone => {
                before_create(&mut *statement.cast::<pg_sys::CreateTableSpaceStmt>())
            }
            pg_sys::NodeTag::T_AlterTableSpaceOptionsStmt => {
                before_alter(&mut *statement.cast::<pg_sys::AlterTableSpaceOptionsStmt>())
            }
            pg_sys::NodeTag::T_DropTableSpaceStmt if alone => {
                before_drop(&*statement.cast::<pg_sys::DropTableSpaceStmt>());
                Set::Nothing
            }
            _ => Set::Nothing,
        }
    }
}

/// Puts the options where they are kept.
///
/// # Safety
/// What [`before`] returned for the statement, which has run.
pub unsafe fn after(set: Set) {
    // SAFETY: by contract; `pg_tablespace` has been locked.
    unsafe {
        let (oid, options) = match set {
            Set::Nothing => return,
            Set::Created { name, options } => {
                pg_sys::CommandCounterIncrement();
                (pg_sys::get_tablespace_oid(name, false), options)
            }
            Set::Altered { oid, options } => {
                pg_sys::CommandCounterIncrement();
                (oid, options)
            }
        };
        tablespace::set_options(oid, options);
    }
}

unsafe fn before_create(create: &mut pg_sys::CreateTableSpaceStmt) -> Set {
    // SAFETY: a copy of a parsed statement; names are valid C strings.
    unsafe {
        // Postgres says so before it looks at the options.
        if !pg_sys::superuser()
            || pg_sys::get_tablespace_oid(create.tablespacename, true) != pg_sys::InvalidOid
        {
            return Set::Nothing;
        }
        let split = split(create.options, false);
        if split.ours.is_null() {
            return Set::Nothing;
        }
        let mut options = Options::default();
        change(&mut options, split.ours, false);
        if let Some(store) = options.store().unwrap_or_else(|invalid| raise(&invalid)) {
            lock_all();
            let name = text(create.tablespacename);
            try_out(&mut options, &store, pg_sys::InvalidOid, &name);
        }
        create.options = split.others;
        Set::Created {
            name: create.tablespacename,
            options: tablespace::as_list(&options),
        }
    }
}

unsafe fn before_alter(alter: &mut pg_sys::AlterTableSpaceOptionsStmt) -> Set {
    // SAFETY: a copy of a parsed statement; names are valid C strings.
    unsafe {
        let oid = pg_sys::get_tablespace_oid(alter.tablespacename, true);
        // The command itself checks the right.
        if oid == pg_sys::InvalidOid || !is_owner(oid) {
            return Set::Nothing;
        }
        let split = split(alter.options, alter.isReset);
        if split.ours.is_null() && tablespace::options(oid).is_empty() {
            return Set::Nothing;
        }
        let name = text(alter.tablespacename);
        if !split.ours.is_null() && !pg_sys::superuser() {
            error::raise(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                &format!("permission denied to change the object store of tablespace \"{name}\""),
                Some("Its options choose among the credentials of the server."),
                Some("Must be superuser to change the object store of a tablespace."),
            );
        }
        lock_all();
        // Renamed meanwhile: Postgres doesn't know our options.
        if pg_sys::get_tablespace_oid(alter.tablespacename, true) != oid {
            return Set::Nothing;
        }
        let had = tablespace::options(oid);
        let mut options = had.clone();
        change(&mut options, split.ours, alter.isReset);
        if !split.ours.is_null() {
            let store = options.store().unwrap_or_else(|invalid| raise(&invalid));
            let had = had.store();
            // What somebody has written by hand, and says nothing, may be set right.
            if let Ok(before) = &had
                && before.as_ref().map(Store::root) != store.as_ref().map(Store::root)
            {
                let was_store = matches!(&had, Ok(Some(_)));
                refuse_unless_empty(oid, &name, was_store);
            }
            let before = had.ok().flatten();
            if let Some(store) = store.filter(|store| before.as_ref() != Some(store)) {
                try_out(&mut options, &store, oid, &name);
            }
        }
        tablespace::set_options(oid, std::ptr::null_mut());
        // A RESET of what isn't there does no harm.
        if !alter.isReset {
            alter.options = split.others;
        }
        Set::Altered {
            oid,
            options: tablespace::as_list(&options),
        }
    }
}

fn is_owner(oid: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::object_ownercheck(pg_sys::TableSpaceRelationId, oid, pg_sys::GetUserId()) }
}

/// Files of tables that were dropped or moved away stay until a sweep, those of heaps don't.
unsafe fn before_drop(drop: &pg_sys::DropTableSpaceStmt) {
    // SAFETY: the name is a valid C string.
    unsafe {
        let oid = pg_sys::get_tablespace_oid(drop.tablespacename, true);
        // The command itself checks the right.
        if oid == pg_sys::InvalidOid || !is_owner(oid) {
            return;
        }
        if has_own_catalog() {
            maintenance::sweep_now();
            pg_sys::CommandCounterIncrement();
        }
        // Of a local one Postgres sees what is there.
        if !tablespace::is_store(oid) {
            return;
        }
        if has_leftovers(oid) {
            error::raise(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                &format!("tablespace \"{}\" is not empty", text(drop.tablespacename)),
                Some("Objects of tables that were dropped or moved away are still in its store."),
                Some(
                    "Run SELECT lake.sweep('0') when no transaction and no reader of what was published needs them any more; lake.sweep() leaves them for lake.garbage_retention.",
                ),
            );
        }
        if let Some(database) = other_database(oid) {
            error::raise(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                &format!("tablespace \"{}\" is not empty", text(drop.tablespacename)),
                Some(&format!(
                    "Database \"{database}\" may have objects in its store: what was dropped or moved away is there until a sweep removes it."
                )),
                Some(SWEEP_THERE),
            );
        }
    }
}

/// Whether this database knows of files, and they are its own.
fn has_own_catalog() -> bool {
    pg::is_installed() && storage::is_own()
}

/// Whether this database has something to remove from a tablespace.
fn has_leftovers(oid: pg_sys::Oid) -> bool {
    if !has_own_catalog() {
        return false;
    }
    let directory = format!("pg_tblspc/{}/", oid.to_u32());
    let mut paths = garbage::paths().into_iter().chain(intent::directories());
    paths.any(|path| path.starts_with(&directory))
}

/// A tablespace's files are looked for where its options say.
fn refuse_unless_empty(oid: pg_sys::Oid, name: &str, was_store: bool) {
    if [
        pg_sys::DEFAULTTABLESPACE_OID,
        pg_sys::GLOBALTABLESPACE_OID,
        // SAFETY: a global of this backend.
        unsafe { pg_sys::MyDatabaseTableSpace },
    ]
    .contains(&oid)
    {
        error::unsupported(
            &format!("tablespace \"{name}\" can't be in an object store"),
            "Create another tablespace for iceberg tables.",
        );
    }
    if !is_empty(oid) {
        // Files of tables that were dropped wait for a checkpoint, as in DROP TABLESPACE.
        missing::checkpoint();
    }
    let in_use = || !is_empty(oid) || has_leftovers(oid);
    let will_be_in_use = || {
        // Who is creating a table there is waited for, who wants to waits until this has ended.
        tablespace::hold_alone(oid);
        in_use()
    };
    if in_use() || will_be_in_use() {
        error::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            &format!("cannot change where the files of tablespace \"{name}\" are: it is not empty"),
            None,
            Some(
                "Create another tablespace, and move tables there with ALTER TABLE … SET TABLESPACE.",
            ),
        );
    }
    if was_store && let Some(database) = other_database(oid) {
        error::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            &format!(
                "cannot change where the files of tablespace \"{name}\" are: database \"{database}\" may have objects there"
            ),
            Some("What was dropped or moved away is in the store until a sweep removes it."),
            Some(&format!("{SWEEP_THERE} Or create another tablespace.")),
        );
    }
}

/// Another database that may have objects in a tablespace's store: this one's catalog doesn't know them. It has a
/// directory in the tablespace until its own sweep finds nothing left.
fn other_database(oid: pg_sys::Oid) -> Option<String> {
    let own = pg::data_directory().join(pg::database_directory(oid));
    let entries = std::fs::read_dir(own.parent()?).ok()?;
    entries.flatten().find_map(|entry| {
        let database: u32 = entry.file_name().to_str()?.parse().ok()?;
        // SAFETY: a global of this backend.
        if database == unsafe { pg_sys::MyDatabaseId }.to_u32() {
            return None;
        }
        database_name(pg_sys::Oid::from(database))
    })
}

/// `None`: it was dropped, with all that it knew.
fn database_name(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalog look-up; the string is copied at once.
    unsafe {
        let name = pg_sys::get_database_name(oid);
        (!name.is_null()).then(|| text(name))
    }
}

/// Whether no file is in a tablespace's directory: directories of databases may be
/// (`destroy_tablespace_directories`, commands/tablespace.c).
fn is_empty(oid: pg_sys::Oid) -> bool {
    let database = pg::data_directory().join(pg::database_directory(oid));
    let Some(version) = database.parent() else {
        return false;
    };
    let mut entries = match std::fs::read_dir(version) {
        Ok(entries) => entries,
        Err(e) => return e.kind() == std::io::ErrorKind::NotFound,
    };
    // What isn't a directory can't be read as one.
    entries.all(|entry| {
        entry
            .and_then(|entry| std::fs::read_dir(entry.path()))
            .is_ok_and(|mut entries| entries.next().is_none())
    })
}

fn lock_all() {
    // SAFETY: a heavyweight lock, released at the end of the transaction. Conflicts with itself and with
    // what changes tablespaces.
    unsafe {
        pg_sys::LockRelationOid(
            pg_sys::TableSpaceRelationId,
            pg_sys::ShareRowExclusiveLock as i32,
        );
    }
}

/// Checks what can only be seen from outside of the options, and notes what the store is like.
fn try_out(options: &mut Options, store: &Store, oid: pg_sys::Oid, name: &str) {
    let root = store.root();
    if let Some(other) = tablespace::overlapping(&root, oid) {
        error::raise(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            &format!("the objects of tablespace \"{name}\" would be among those of another one"),
            Some(&format!(
                "Tablespace \"{}\" has \"{root}\", or something above or below it.",
                tablespace::name(other)
            )),
            Some("Choose another prefix."),
        );
    }
    // SAFETY: a global of this process. pg_upgrade changes nothing but the server.
    if unsafe { pg_sys::IsBinaryUpgrade } {
        return;
    }
    let reply = call::probe(store);
    let Reply::Probed(probed) = reply else {
        maintenance::unexpected(&reply)
    };
    if store.conditional_put && !probed.conditional_put {
        options.forgo_conditional_put();
        error::warn(
            &format!("the object store of tablespace \"{name}\" ignores conditions on writes"),
            Some(
                "Nothing is lost by that, as no object's name is used twice. But if two servers are given the same prefix by mistake, they don't notice.",
            ),
        );
    }
}

/// A list of options in two.
struct Split {
    ours: *mut pg_sys::List,
    others: *mut pg_sys::List,
}

/// Tells our options in a list from others. Those that there aren't are left to Postgres, unless they are set
/// beside ours, or are meant to be secrets.
unsafe fn split(list: *mut pg_sys::List, reset: bool) -> Split {
    let mut split = Split {
        ours: std::ptr::null_mut(),
        others: std::ptr::null_mut(),
    };
    let mut unknown = None;
    // SAFETY: a list of options as parsed.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(list).iter_ptr() {
            let name = text((*option).defname);
            // Postgres refuses all namespaces.
            let known = if (*option).defnamespace.is_null() {
                store_options::known(&name)
            } else {
                Known::Postgres
            };
            let part = match known {
                Known::Ours(_) => &mut split.ours,
                Known::Nobody if !reset => {
                    let invalid = Invalid::unknown(&name);
                    if invalid.secret {
                        raise(&invalid);
                    }
                    unknown.get_or_insert(invalid);
                    &mut split.others
                }
                Known::Nobody | Known::Postgres => &mut split.others,
            };
            *part = pg_sys::lappend(*part, option.cast());
        }
    }
    match unknown {
        Some(invalid) if !split.ours.is_null() => raise(&invalid),
        _ => split,
    }
}

/// Changes options as a statement says.
unsafe fn change(options: &mut Options, ours: *mut pg_sys::List, reset: bool) {
    let mut seen: Vec<&'static str> = vec![];
    // SAFETY: `ours` of a `Split`.
    unsafe {
        for option in PgList::<pg_sys::DefElem>::from_pg(ours).iter_ptr() {
            let Known::Ours(name) = store_options::known(&text((*option).defname)) else {
                continue;
            };
            if reset {
                options.reset(name);
                continue;
            }
            if seen.contains(&name) {
                error::raise(
                    PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                    &format!("parameter \"{name}\" specified more than once"),
                    None,
                    None,
                );
            }
            seen.push(name);
            let value = if (*option).arg.is_null() {
                "true".to_owned()
            } else {
                text(pg_sys::defGetString(option))
            };
            if let Err(invalid) = options.set(name, &value) {
                raise(&invalid);
            }
        }
    }
}

fn raise(invalid: &Invalid) -> ! {
    if invalid.secret {
        // The server log shows the statement that an error is about.
        // SAFETY: a global of this backend, which is set anew for each statement.
        unsafe { pg_sys::debug_query_string = std::ptr::null() };
    }
    error::raise(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        &invalid.message,
        invalid.detail.as_deref(),
        Some(invalid.hint),
    )
}

unsafe fn text(raw: *const c_char) -> String {
    // SAFETY: a valid C string.
    unsafe { CStr::from_ptr(raw) }
        .to_string_lossy()
        .into_owned()
}
