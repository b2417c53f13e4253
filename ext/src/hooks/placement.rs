//! What may be in a tablespace whose files are in an object store: iceberg tables with their TOAST tables
//! and indexes, and partitioned tables, whose partitions are looked at themselves. Everything else would
//! have its file in the tablespace's directory, where nobody expects any.
//!
//! A relation is looked at when it has been created or altered, whichever command does so; where a
//! command would first copy what it may not, also before. Only REINDEX moves indexes without telling.

use super::utility::{range_var, tag};
use crate::catalog::tablespace;
use crate::{error, pg};
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// Where a relation is, and what.
struct Placed {
    name: String,
    kind: u8,
    persistence: u8,
    access_method: pg_sys::Oid,
    tablespace: pg_sys::Oid,
}

/// Raises an error if a relation is in a store's tablespace and may not be.
///
/// # Safety
/// A relation that this transaction has just created or altered; it may not be visible yet.
pub unsafe fn check(relid: pg_sys::Oid) {
    // Most servers have no such tablespace.
    if !tablespace::any_store() {
        return;
    }
    // SAFETY: by contract.
    unsafe {
        if let Some(placed) = placed(relid)
            && tablespace::is_store(placed.tablespace)
        {
            refuse_unless_fit(relid, &placed, placed.tablespace);
        }
    }
}

/// Raises an error if a statement would put something into a store's tablespace that may not be there.
///
/// # Safety
/// A statement that is about to run.
pub unsafe fn before(statement: *mut pg_sys::Node) {
    // SAFETY: the tag says what the node is.
    unsafe {
        match tag(statement) {
            pg_sys::NodeTag::T_AlterTableStmt => {
                before_move(&*statement.cast::<pg_sys::AlterTableStmt>());
            }
            pg_sys::NodeTag::T_ReindexStmt => {
                before_reindex(&*statement.cast::<pg_sys::ReindexStmt>());
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                refuse_database((*statement.cast::<pg_sys::CreatedbStmt>()).options);
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                refuse_database((*statement.cast::<pg_sys::AlterDatabaseStmt>()).options);
            }
            _ => {}
        }
    }
}

unsafe fn before_move(alter: &pg_sys::AlterTableStmt) {
    use pg_sys::AlterTableType as Kind;
    // SAFETY: a parsed statement; names are valid C strings.
    unsafe {
        let mut target = None;
        for command in PgList::<pg_sys::AlterTableCmd>::from_pg(alter.cmds).iter_ptr() {
            match (*command).subtype {
                Kind::AT_SetTableSpace => target = store_named((*command).name),
                // It is looked at when it is what it is going to be.
                Kind::AT_SetAccessMethod | Kind::AT_SetLogged | Kind::AT_SetUnLogged => return,
                _ => {}
            }
        }
        if let Some(target) = target {
            refuse_relation(range_var(alter.relation), target);
        }
    }
}

unsafe fn before_reindex(reindex: &pg_sys::ReindexStmt) {
    use pg_sys::ReindexObjectType::{REINDEX_OBJECT_INDEX, REINDEX_OBJECT_TABLE};
    // SAFETY: a parsed statement.
    unsafe {
        let Some(target) = store_in(reindex.params) else {
            return;
        };
        if ![REINDEX_OBJECT_INDEX, REINDEX_OBJECT_TABLE].contains(&reindex.kind) {
            error::unsupported(
                &format!(
                    "cannot put all indexes into tablespace \"{}\" of an object store",
                    tablespace::name(target)
                ),
                "Only indexes of iceberg tables can be there: reindex one table at a time.",
            );
        }
        let relid = range_var(reindex.relation);
        if relid != pg_sys::InvalidOid {
            for relid in pg::missing::find_all_inheritors(relid) {
                refuse_indexes_of(relid, target);
            }
        }
    }
}

/// Of a relation that is an index, or whose indexes are going to be moved.
unsafe fn refuse_indexes_of(relid: pg_sys::Oid, target: pg_sys::Oid) {
    // SAFETY: a catalog look-up.
    unsafe {
        let Some(placed) = placed(relid) else { return };
        if placed.is_index() {
            refuse_unless_fit(relid, &placed, target);
        } else if !placed.may_have_files() {
            error::unsupported(
                &format!(
                    "cannot put the indexes of table \"{}\" into tablespace \"{}\" of an object store",
                    placed.name,
                    tablespace::name(target)
                ),
                HINT_INDEX,
            );
        }
    }
}

unsafe fn refuse_relation(relid: pg_sys::Oid, target: pg_sys::Oid) {
    // SAFETY: a catalog look-up.
    unsafe {
        if let Some(placed) = placed(relid) {
            refuse_unless_fit(relid, &placed, target);
        }
    }
}

/// The store's tablespace that an option `tablespace` names.
unsafe fn store_in(options: *mut pg_sys::List) -> Option<pg_sys::Oid> {
    // SAFETY: a list of options as parsed.
    unsafe {
        let option = PgList::<pg_sys::DefElem>::from_pg(options)
            .iter_ptr()
            .find(|option| CStr::from_ptr((**option).defname) == c"tablespace")?;
        if (*option).arg.is_null() {
            return None;
        }
        store_named(pg_sys::defGetString(option))
    }
}

unsafe fn store_named(name: *const std::ffi::c_char) -> Option<pg_sys::Oid> {
    // SAFETY: a catalog look-up by a valid C string.
    let oid = unsafe { pg_sys::get_tablespace_oid(name, true) };
    (oid != pg_sys::InvalidOid && tablespace::is_store(oid)).then_some(oid)
}

unsafe fn refuse_database(options: *mut pg_sys::List) {
    // SAFETY: a list of options as parsed.
    if let Some(target) = unsafe { store_in(options) } {
        error::unsupported(
            &format!(
                "cannot put a database into tablespace \"{}\" of an object store",
                tablespace::name(target)
            ),
            "Only iceberg tables can be there: name another tablespace for the database, and this one for them.",
        );
    }
}

const HINT_TABLE: &str = "Create the table USING iceberg, or name another tablespace.";
const HINT_INDEX: &str = "Only indexes of iceberg tables can be there: name another tablespace.";
const HINT_UNLOGGED: &str = "Unlogged tables have no files in a store: create the table LOGGED, or name another tablespace.";
const HINT_TEMPORARY: &str = "Temporary tables have no files in a store: name another tablespace, or take this one out of temp_tablespaces.";

impl Placed {
    fn is_index(&self) -> bool {
        matches!(
            self.kind,
            pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX
        )
    }

    fn is_iceberg(&self) -> bool {
        self.access_method != pg_sys::InvalidOid && self.access_method == pg::iceberg_am()
    }

    /// Whether it is a table that has files of ours, or whose partitions may have.
    fn may_have_files(&self) -> bool {
        match self.kind {
            // Its own are its table's.
            pg_sys::RELKIND_TOASTVALUE => true,
            pg_sys::RELKIND_PARTITIONED_TABLE => {
                self.access_method == pg_sys::InvalidOid || self.is_iceberg()
            }
            _ => self.is_iceberg() && self.persistence == pg_sys::RELPERSISTENCE_PERMANENT,
        }
    }
}

unsafe fn refuse_unless_fit(relid: pg_sys::Oid, placed: &Placed, target: pg_sys::Oid) {
    // SAFETY: catalog look-ups.
    unsafe {
        if placed.is_index() {
            let table = table_of(relid).and_then(|table| self::placed(table));
            if !table.is_some_and(|table| table.may_have_files()) {
                refuse(placed, target, HINT_INDEX);
            }
        } else if !placed.may_have_files() {
            let hint = match placed.persistence {
                pg_sys::RELPERSISTENCE_TEMP => HINT_TEMPORARY,
                pg_sys::RELPERSISTENCE_UNLOGGED if placed.is_iceberg() => HINT_UNLOGGED,
                _ => HINT_TABLE,
            };
            refuse(placed, target, hint);
        }
    }
}

fn refuse(placed: &Placed, target: pg_sys::Oid, hint: &str) -> ! {
    let kind = match placed.kind {
        pg_sys::RELKIND_INDEX | pg_sys::RELKIND_PARTITIONED_INDEX => "index",
        pg_sys::RELKIND_MATVIEW => "materialized view",
        _ => "table",
    };
    error::unsupported(
        &format!(
            "cannot put {kind} \"{}\" into tablespace \"{}\" of an object store",
            placed.name,
            tablespace::name(target)
        ),
        hint,
    )
}

/// What `pg_class` says about a relation as this command has left it.
unsafe fn placed(relid: pg_sys::Oid) -> Option<Placed> {
    // SAFETY: the row of the catalog.
    unsafe {
        row(
            pg_sys::RelationRelationId,
            pg_sys::ClassOidIndexId,
            relid,
            |row| {
                let class = &*row.cast::<pg_sys::FormData_pg_class>();
                Placed {
                    name: shown_name(class),
                    kind: class.relkind as u8,
                    persistence: class.relpersistence as u8,
                    access_method: class.relam,
                    tablespace: class.reltablespace,
                }
            },
        )
    }
}

/// The name of a relation; of one that takes the place of another in a rewrite
/// (`make_new_heap`, commands/cluster.c), that one's.
unsafe fn shown_name(class: &pg_sys::FormData_pg_class) -> String {
    // SAFETY: a row of the catalog; the string is copied at once.
    unsafe {
        let own = CStr::from_ptr(class.relname.data.as_ptr()).to_string_lossy();
        let rewritten = own
            .strip_prefix("pg_temp_")
            .and_then(|oid| oid.parse::<u32>().ok());
        if let Some(oid) = rewritten {
            let name = pg_sys::get_rel_name(pg_sys::Oid::from(oid));
            if !name.is_null() {
                return CStr::from_ptr(name).to_string_lossy().into_owned();
            }
        }
        own.into_owned()
    }
}

/// The table that an index is of.
unsafe fn table_of(index: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the row of the catalog.
    unsafe {
        row(
            pg_sys::IndexRelationId,
            pg_sys::IndexRelidIndexId,
            index,
            |row| (*row.cast::<pg_sys::FormData_pg_index>()).indrelid,
        )
    }
}

/// The row of a catalog whose first column is `oid`, as this command has left it.
///
/// # Safety
/// An index on that column of the catalog.
unsafe fn row<R>(
    catalog: pg_sys::Oid,
    index: u32,
    oid: pg_sys::Oid,
    f: impl FnOnce(*mut std::ffi::c_char) -> R,
) -> Option<R> {
    // SAFETY: by contract; the scan is ended here, the row is used before.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::Oid::from(pg_sys::F_OIDEQ),
            oid.into(),
        );
        let rel = pg_sys::table_open(catalog, lock);
        let scan = pg_sys::systable_beginscan(
            rel,
            pg_sys::Oid::from(index),
            true,
            &raw mut pg::SNAPSHOT_SELF,
            1,
            &mut key,
        );
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| f(pg_sys::GETSTRUCT(tuple)));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(rel, lock);
        found
    }
}
