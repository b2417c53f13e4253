//! Utility commands: bulk loads, changes of type, databases; [`options`], [`columns`], [`logical`],
//! [`tablespaces`] and [`placement`] have their part in it.

use super::{columns, databases, logical, options, placement, tablespaces};
use crate::catalog::{publication, storage};
use crate::pg::missing;
use crate::relation;
use crate::{bulk, error, pg};
use pg_lake_plan::types::LakeType;
use pgrx::{PgList, pg_guard, pg_sys};
use std::collections::HashMap;
use std::ffi::CStr;

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

pub fn init() {
    // SAFETY: single-threaded postmaster.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process);
    }
}

#[pg_guard]
#[allow(clippy::too_many_arguments)] // the hook's signature
unsafe extern "C-unwind" fn process(
    pstmt: *mut pg_sys::PlannedStmt,
    query_string: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    query_env: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    qc: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: arguments of the hook.
    unsafe {
        let (pstmt, read_only_tree): (*mut pg_sys::PlannedStmt, bool) =
            if read_only_tree && is_to_be_changed((*pstmt).utilityStmt) {
                (pg_sys::copyObjectImpl(pstmt.cast()).cast(), false)
            } else {
                (pstmt, read_only_tree)
            };
        let statement = (*pstmt).utilityStmt;
        let watched = logical::before(statement);
        let set = options::before(statement);
        let bulk_load = is_bulk_load(statement);
        if bulk_load {
            let copy = tag(statement) == pg_sys::NodeTag::T_CopyStmt;
            bulk::begin_statement(pstmt as usize, true, copy);
        }
        // As a raw pointer: an error passes this frame without dropping anything.
        let before = Box::into_raw(Box::new(types_before(statement)));
        placement::before(statement);
        let left = Box::into_raw(Box::new(databases::before(statement)));
        leave_databases(statement);
        let tablespace = tablespaces::before(statement, context);
        super::vacuum::before(statement, context);
        let run = |stmt| match PREVIOUS {
            Some(previous) => previous(
                stmt,
                query_string,
                read_only_tree,
                context,
                params,
                query_env,
                dest,
                qc,
            ),
            None => missing::standard_ProcessUtility(
                stmt,
                query_string,
                read_only_tree,
                context,
                params,
                query_env,
                dest,
                qc,
            ),
        };
        run(pstmt);
        if bulk_load {
            bulk::end_statement(pstmt as usize);
        }
        for before in *Box::from_raw(before) {
            check_types_after(&before);
        }
        options::after(set);
        if let Some(left) = &*Box::from_raw(left) {
            databases::after(left);
        }
        tablespaces::after(tablespace);
        columns::after();
        logical::after(watched);
    }
}

/// Whether a statement's tree is going to be changed.
unsafe fn is_to_be_changed(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: a statement that is about to run.
    unsafe { options::concerns(statement) || tablespaces::concerns(statement) }
}

pub unsafe fn tag(node: *mut pg_sys::Node) -> pg_sys::NodeTag {
    // SAFETY: any node.
    unsafe { (*node).type_ }
}

/// Commands whose rows nobody can see before they end.
unsafe fn is_bulk_load(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: the tag says what the node is.
    unsafe {
        match tag(statement) {
            pg_sys::NodeTag::T_CopyStmt => (*statement.cast::<pg_sys::CopyStmt>()).is_from,
            pg_sys::NodeTag::T_CreateTableAsStmt => {
                let query = (*statement.cast::<pg_sys::CreateTableAsStmt>()).query;
                tag(query) == pg_sys::NodeTag::T_Query && !is_volatile(query)
            }
            pg_sys::NodeTag::T_RefreshMatViewStmt => {
                let refresh = statement.cast::<pg_sys::RefreshMatViewStmt>();
                let relid = range_var((*refresh).relation);
                // The new rows' indexes are built inside the command.
                relid != pg_sys::InvalidOid && !has_index(relid) && !has_volatile_query(relid)
            }
            _ => false,
        }
    }
}

/// Whether a query, or the prepared statement that it executes, calls volatile functions.
unsafe fn is_volatile(query: *mut pg_sys::Node) -> bool {
    // SAFETY: an analysed query; the list of a prepared statement's is null or lives with it.
    unsafe {
        let utility = (*query.cast::<pg_sys::Query>()).utilityStmt;
        if utility.is_null() || tag(utility) != pg_sys::NodeTag::T_ExecuteStmt {
            return pg_sys::contain_volatile_functions(query);
        }
        let name = (*utility.cast::<pg_sys::ExecuteStmt>()).name;
        // One that doesn't exist is an error later.
        let prepared = pg_sys::FetchPreparedStatement(name, false);
        prepared.is_null() || {
            let queries = (*(*prepared).plansource).query_list;
            pg_sys::contain_volatile_functions(queries.cast())
        }
    }
}

/// The relation that a name stands for now, if there is one.
pub unsafe fn range_var(var: *mut pg_sys::RangeVar) -> pg_sys::Oid {
    // SAFETY: a parsed name; no lock, missing is fine.
    unsafe {
        pg_sys::RangeVarGetRelidExtended(
            var,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    }
}

/// Whether the query of a materialized view may look at what it fills.
unsafe fn has_volatile_query(relid: pg_sys::Oid) -> bool {
    // SAFETY: opened and closed here; a matview has one rule with one query (matview.c).
    unsafe {
        let rel = pg_sys::try_relation_open(relid, pg_sys::AccessShareLock as i32);
        if rel.is_null() {
            return true;
        }
        let rules = (*rel).rd_rules;
        let volatile = rules.is_null() || (*rules).numLocks < 1 || {
            let rule = *(*rules).rules;
            pg_sys::contain_volatile_functions((*rule).actions.cast())
        };
        pg_sys::relation_close(rel, pg_sys::AccessShareLock as i32);
        volatile
    }
}

unsafe fn has_index(relid: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up, released at once.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(relid),
        );
        if tuple.is_null() {
            return false;
        }
        let class = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        let found = (*class).relhasindex;
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}

struct Before {
    relid: pg_sys::Oid,
    storage: i64,
    types: HashMap<i16, LakeType>,
}

/// The column types of an iceberg table that ALTER TABLE is about to change.
unsafe fn types_before(statement: *mut pg_sys::Node) -> Vec<Before> {
    // SAFETY: the tag says what the node is; the relation is closed at once.
    unsafe {
        if tag(statement) != pg_sys::NodeTag::T_AlterTableStmt {
            return vec![];
        }
        let alter = &*statement.cast::<pg_sys::AlterTableStmt>();
        let relid = range_var(alter.relation);
        if relid == pg_sys::InvalidOid || !has_relation_children_or_storage(relid) {
            return vec![];
        }
        // The command recurses to partitions and children.
        pg::missing::find_all_inheritors(relid)
            .into_iter()
            .filter(|relid| crate::am::is_iceberg(*relid))
            .filter_map(|relid| types_of_table(relid))
            .collect()
    }
}

/// Views, indexes, sequences and so on have no rows of ours.
unsafe fn has_relation_children_or_storage(relid: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up.
    matches!(
        unsafe { pg_sys::get_rel_relkind(relid) } as u8,
        pg_sys::RELKIND_RELATION | pg_sys::RELKIND_PARTITIONED_TABLE | pg_sys::RELKIND_MATVIEW
    )
}

unsafe fn types_of_table(relid: pg_sys::Oid) -> Option<Before> {
    // SAFETY: the relation is closed at once.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::AccessShareLock as i32);
        let before = storage::of_relation(rel).map(|storage| Before {
            relid,
            storage: storage.id,
            types: types_of(rel),
        });
        pg_sys::table_close(rel, pg_sys::AccessShareLock as i32);
        before
    }
}

fn types_of(rel: pg_sys::Relation) -> HashMap<i16, LakeType> {
    relation::info(rel)
        .codecs
        .iter()
        .map(|c| (c.attnum, c.lake.clone()))
        .collect()
}

/// A change of type without a rewrite must be one that the cold files can follow.
unsafe fn check_types_after(before: &Before) {
    // SAFETY: the command has locked the relation, if it still exists.
    unsafe {
        let rel = pg_sys::try_relation_open(before.relid, pg_sys::AccessShareLock as i32);
        if rel.is_null() {
            return;
        }
        if crate::am::is_iceberg_relation(rel)
            && storage::of_relation(rel).is_some_and(|s| s.id == before.storage)
            // Hot rows follow any change that heap's do.
            && (crate::am::has_cold_rows(rel) || publication::find(before.storage).is_some())
        {
            check_missing_values(rel);
            for (attnum, now) in types_of(rel) {
                let follows = match (before.types.get(&attnum), &now) {
                    (None, _) => true,
                    (
                        Some(LakeType::Decimal { precision, scale }),
                        LakeType::Decimal {
                            precision: wider,
                            scale: same,
                        },
                    ) => precision <= wider && scale == same,
                    (Some(was), now) => was == now,
                };
                if !follows {
                    error::unsupported(
                        &format!(
                            "cannot change the type of column \"{}\" of iceberg table \"{}\" in place",
                            column_name(rel, attnum),
                            pg::relation_name(rel)
                        ),
                        "Use ALTER COLUMN … TYPE … USING with an expression, which rewrites the table.",
                    );
                }
            }
        }
        pg_sys::relation_close(rel, pg_sys::AccessShareLock as i32);
    }
}

unsafe fn column_name(rel: pg_sys::Relation, attnum: i16) -> String {
    relation::info(rel)
        .codecs
        .iter()
        .find(|c| c.attnum == attnum)
        .map(|c| c.name.clone())
        .unwrap_or_default()
}

/// Cold rows from before ADD COLUMN … DEFAULT get the default from the engine, which has no values
/// that can't be stored.
unsafe fn check_missing_values(rel: pg_sys::Relation) {
    // SAFETY: the relation is open.
    unsafe {
        let desc = (*rel).rd_att;
        for codec in &relation::info(rel).codecs {
            let att = (*desc).attrs.as_ptr().add(codec.attnum as usize - 1);
            if (*att).atthasmissing
                && crate::cold::default_of_column(desc, codec).is_none()
                && crate::am::has_cold_rows(rel)
                && !missing_is_null(desc, codec.attnum)
            {
                error::unsupported(
                    &format!(
                        "the default of column \"{}\" can't be applied to cold rows",
                        codec.name
                    ),
                    "Add the column without a default, then set the default for new rows.",
                );
            }
        }
    }
}

unsafe fn missing_is_null(desc: pg_sys::TupleDesc, attnum: i16) -> bool {
    let mut isnull = false;
    // SAFETY: the attribute exists.
    unsafe { pg_sys::getmissingattr(desc, i32::from(attnum), &mut isnull) };
    isnull
}

/// ALTER DATABASE … SET TABLESPACE copies the files of a database directory, not the directories in it.
unsafe fn refuse_moving(alter: &pg_sys::AlterDatabaseStmt) {
    // SAFETY: a parsed statement; the path is copied at once.
    unsafe {
        let moves = PgList::<pg_sys::DefElem>::from_pg(alter.options)
            .iter_ptr()
            .any(|o| CStr::from_ptr((*o).defname) == c"tablespace");
        let database = pg_sys::get_database_oid(alter.dbname, true);
        if !moves || database == pg_sys::InvalidOid {
            return;
        }
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::DATABASEOID as i32,
            pg_sys::Datum::from(database),
        );
        if tuple.is_null() {
            return;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
        let tablespace = (*form).dattablespace;
        pg_sys::ReleaseSysCache(tuple);
        let path = pg_sys::GetDatabasePath(database, tablespace);
        let directory = CStr::from_ptr(path).to_string_lossy().into_owned();
        if pg::data_directory().join(directory).join("lake").exists() {
            error::unsupported(
                "a database with iceberg tables can't be moved to another tablespace",
                "Drop its iceberg tables and run lake.sweep(), or dump and restore the database.",
            );
        }
    }
}

/// Commands that need a database for themselves: its maintainer leaves.
unsafe fn leave_databases(statement: *mut pg_sys::Node) {
    // SAFETY: the tag says what the node is; names are valid C strings.
    unsafe {
        let name = match tag(statement) {
            pg_sys::NodeTag::T_DropdbStmt => (*statement.cast::<pg_sys::DropdbStmt>()).dbname,
            pg_sys::NodeTag::T_RenameStmt => {
                let rename = &*statement.cast::<pg_sys::RenameStmt>();
                if rename.renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return;
                }
                rename.subname
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt => {
                let alter = &*statement.cast::<pg_sys::AlterDatabaseStmt>();
                refuse_moving(alter);
                alter.dbname
            }
            pg_sys::NodeTag::T_CreatedbStmt => {
                let create = &*statement.cast::<pg_sys::CreatedbStmt>();
                let template = PgList::<pg_sys::DefElem>::from_pg(create.options)
                    .iter_ptr()
                    .find(|o| CStr::from_ptr((**o).defname) == c"template");
                match template {
                    Some(option) if !(*option).arg.is_null() => pg_sys::defGetString(option),
                    _ => return,
                }
            }
            _ => return,
        };
        if !name.is_null() {
            let database = pg_sys::get_database_oid(name, true);
            // The command itself checks the right; who has none doesn't disturb the maintainer.
            let may = database != pg_sys::InvalidOid
                && pg_sys::object_ownercheck(
                    pg_sys::DatabaseRelationId,
                    database,
                    pg_sys::GetUserId(),
                );
            if may {
                crate::worker::leave_database(database);
            }
        }
    }
}
