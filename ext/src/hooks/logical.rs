//! What a publication of logical replication covers stays hot (`pg/published.rs`), so a table with cold
//! rows must not come into one; nor may the extension's own tables.
//!
//! Checked after the statements by which a table gets into a publication, by the rules by which
//! Postgres finds a publication's tables. A new table has no cold rows.

use super::utility::{range_var, tag};
use crate::pg::missing;
use crate::pg::published::{self, oids, publication_name};
use crate::{am, error, pg};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_char};

/// What is to be checked when a statement has run. Names live as long as the statement.
#[derive(Clone, Copy)]
pub enum Watched {
    Nothing,
    Publication(*const c_char),
    /// A table that gets another place, with its partitions.
    Tables(pg_sys::Oid),
}

/// Raises an error where a statement says enough for one.
///
/// # Safety
/// A statement that is about to run.
pub unsafe fn before(statement: *mut pg_sys::Node) -> Watched {
    // SAFETY: the tag says what the node is.
    unsafe {
        match tag(statement) {
            pg_sys::NodeTag::T_CreatePublicationStmt => {
                let create = &*statement.cast::<pg_sys::CreatePublicationStmt>();
                if create.for_all_tables && pg::is_installed() {
                    refuse_own(
                        "a database with extension pg_lake can't have publications FOR ALL TABLES",
                    );
                }
                Watched::Publication(create.pubname)
            }
            pg_sys::NodeTag::T_AlterPublicationStmt => {
                let alter = &*statement.cast::<pg_sys::AlterPublicationStmt>();
                let drops = alter.action == pg_sys::AlterPublicationAction::AP_DropObjects;
                if drops || alter.pubobjects.is_null() {
                    Watched::Nothing
                } else {
                    Watched::Publication(alter.pubname)
                }
            }
            pg_sys::NodeTag::T_CreateExtensionStmt => {
                let create = &*statement.cast::<pg_sys::CreateExtensionStmt>();
                if CStr::from_ptr(create.extname) == c"pg_lake"
                    && !pg::is_installed()
                    && let Some(publication) = oids(pg_sys::GetAllTablesPublications()).first()
                {
                    refuse_own(&format!(
                        "cannot create extension pg_lake, whose tables publication {} would cover",
                        publication_name(*publication)
                    ));
                }
                Watched::Nothing
            }
            pg_sys::NodeTag::T_AlterTableStmt => {
                let alter = &*statement.cast::<pg_sys::AlterTableStmt>();
                if attaches(alter) {
                    Watched::Tables(range_var(alter.relation))
                } else {
                    Watched::Nothing
                }
            }
            pg_sys::NodeTag::T_AlterObjectSchemaStmt => {
                let alter = &*statement.cast::<pg_sys::AlterObjectSchemaStmt>();
                if alter.objectType == pg_sys::ObjectType::OBJECT_TABLE {
                    Watched::Tables(range_var(alter.relation))
                } else {
                    Watched::Nothing
                }
            }
            _ => Watched::Nothing,
        }
    }
}

/// Raises an error if a publication covers a table now that it must not cover.
///
/// # Safety
/// What [`before`] returned for the statement, which has run.
pub unsafe fn after(watched: Watched) {
    // SAFETY: by contract.
    unsafe {
        match watched {
            Watched::Nothing => {}
            Watched::Publication(name) => {
                pg_sys::CommandCounterIncrement();
                check_publication(name);
            }
            Watched::Tables(relid) if relid != pg_sys::InvalidOid => {
                pg_sys::CommandCounterIncrement();
                for relid in missing::find_all_inheritors(relid) {
                    check_table(relid);
                }
            }
            Watched::Tables(_) => {}
        }
    }
}

/// Whether ALTER TABLE brings a table with its rows below a partitioned one, which may be published.
/// A change of access method or persistence rewrites the table, and its rows are hot then.
unsafe fn attaches(alter: &pg_sys::AlterTableStmt) -> bool {
    // SAFETY: a list of commands as parsed.
    unsafe {
        PgList::<pg_sys::AlterTableCmd>::from_pg(alter.cmds)
            .iter_ptr()
            .any(|command| (*command).subtype == pg_sys::AlterTableType::AT_AttachPartition)
    }
}

/// Whether it is an iceberg table that Postgres would publish; materialized views are not published.
unsafe fn is_publishable(relid: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups.
    am::is_iceberg(relid)
        && unsafe { pg_sys::get_rel_relkind(relid) } as u8 == pg_sys::RELKIND_RELATION
}

unsafe fn check_table(relid: pg_sys::Oid) {
    // SAFETY: catalog look-ups.
    unsafe {
        if is_publishable(relid) {
            published::hold_schemas(relid);
            if let Some(publication) = published::publication_of(relid) {
                check_hot(publication, relid);
            }
        }
    }
}

unsafe fn check_publication(name: *const c_char) {
    // SAFETY: a parsed name; catalog look-ups.
    unsafe {
        let publication = pg_sys::get_publication_oid(name, true);
        if publication == pg_sys::InvalidOid || !pg::is_installed() {
            return;
        }
        for schema in oids(pg_sys::GetPublicationSchemas(publication)) {
            published::keep_schema_hot(schema);
        }
        let all = pg_sys::PublicationPartOpt::PUBLICATION_PART_ALL;
        let mut tables = oids(pg_sys::GetPublicationRelations(publication, all));
        tables.extend(oids(pg_sys::GetAllSchemaPublicationRelations(
            publication,
            all,
        )));
        tables.sort_by_key(|relid| relid.to_u32());
        for relid in tables {
            if pg::lake_schema() == Some(pg_sys::get_rel_namespace(relid)) {
                refuse_own(&format!(
                    "publication {} would cover table {}",
                    publication_name(publication),
                    pg::qualified_name(relid)
                ));
            }
            if is_publishable(relid) {
                check_hot(publication, relid);
            }
        }
    }
}

/// Raises an error if a table that a publication covers has cold rows; otherwise it gets none.
fn check_hot(publication: pg_sys::Oid, relid: pg_sys::Oid) {
    published::keep_hot(relid);
    // SAFETY: opened and closed here.
    let cold = unsafe {
        let rel = pg_sys::try_relation_open(relid, pg_sys::AccessShareLock as i32);
        if rel.is_null() {
            return;
        }
        let cold = am::has_cold_rows(rel);
        pg_sys::relation_close(rel, pg_sys::AccessShareLock as i32);
        cold
    };
    if cold {
        error::raise(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            &format!(
                "publication {} would cover iceberg table {}, which has cold rows",
                publication_name(publication),
                pg::qualified_name(relid)
            ),
            Some("Changes of cold rows can't be decoded from WAL."),
            Some(
                "ALTER TABLE … SET ACCESS METHOD heap makes all its rows hot. Once it is published, it \
                 can be changed back to iceberg: published tables stay hot.",
            ),
        );
    }
}

/// The extension's catalog is one of this database alone.
fn refuse_own(message: &str) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        message,
        Some("The tables in schema lake are the catalog of this database's own files."),
        Some("Name the tables with FOR TABLE, or their schemas with FOR TABLES IN SCHEMA."),
    )
}
