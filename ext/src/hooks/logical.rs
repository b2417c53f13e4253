//! Publications of logical replication must not cover iceberg tables: changes of their cold rows
//! can't be decoded, and a flush would be decoded as deletes (STORAGE section 9).
//!
//! Checked after the statements by which a table gets into a publication, by the rules by which
//! Postgres finds a publication's tables.

use super::utility::{range_var, tag};
use crate::pg::missing;
use crate::{am, error, pg};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, c_char};

const DETAIL: &str = "Changes of the cold rows of iceberg tables can't be decoded from WAL.";
const HINT: &str = "Publish heap tables by name instead, with FOR TABLE.";

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
                    refuse(
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
                    refuse(&format!(
                        "cannot create extension pg_lake, whose tables publication {} would cover",
                        quoted(*publication)
                    ));
                }
                Watched::Nothing
            }
            pg_sys::NodeTag::T_AlterTableStmt => {
                let alter = &*statement.cast::<pg_sys::AlterTableStmt>();
                if may_publish(alter) {
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

/// Raises an error if a publication covers an iceberg table now.
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

/// The same for a new iceberg table.
///
/// # Safety
/// Its row in `pg_class` is there.
pub unsafe fn check_new(relid: pg_sys::Oid) {
    // SAFETY: by contract.
    unsafe {
        pg_sys::CommandCounterIncrement();
        check_table(relid);
    }
}

/// Whether ALTER TABLE can make a table one that is published, or one of ours.
unsafe fn may_publish(alter: &pg_sys::AlterTableStmt) -> bool {
    // SAFETY: a list of commands as parsed.
    unsafe {
        PgList::<pg_sys::AlterTableCmd>::from_pg(alter.cmds)
            .iter_ptr()
            .any(|command| {
                matches!(
                    (*command).subtype,
                    pg_sys::AlterTableType::AT_AttachPartition
                        | pg_sys::AlterTableType::AT_SetAccessMethod
                        | pg_sys::AlterTableType::AT_SetLogged
                )
            })
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
        if !is_publishable(relid) {
            return;
        }
        let mut publications = oids(pg_sys::GetAllTablesPublications());
        let mut places = missing::partition_ancestors(relid);
        places.push(relid);
        for place in places {
            publications.extend(oids(pg_sys::GetRelationPublications(place)));
            let schema = pg_sys::get_rel_namespace(place);
            publications.extend(oids(pg_sys::GetSchemaPublications(schema)));
        }
        if let Some(publication) = publications.first() {
            refuse(&format!(
                "publication {} would cover iceberg table {}",
                quoted(*publication),
                pg::qualified_name(relid)
            ));
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
        let all = pg_sys::PublicationPartOpt::PUBLICATION_PART_ALL;
        let mut tables = oids(pg_sys::GetPublicationRelations(publication, all));
        tables.extend(oids(pg_sys::GetAllSchemaPublicationRelations(
            publication,
            all,
        )));
        for relid in tables {
            let is_own = pg::lake_schema() == Some(pg_sys::get_rel_namespace(relid));
            if is_own || is_publishable(relid) {
                let kind = if is_own { "table" } else { "iceberg table" };
                refuse(&format!(
                    "publication {} would cover {kind} {}",
                    quoted(publication),
                    pg::qualified_name(relid)
                ));
            }
        }
    }
}

unsafe fn oids(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: a list of OIDs.
    unsafe { PgList::<pg_sys::Oid>::from_pg(list).iter_oid().collect() }
}

/// The name of a publication as error messages show it.
unsafe fn quoted(publication: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up; the name is copied at once.
    let name = unsafe { CStr::from_ptr(pg_sys::get_publication_name(publication, false)) };
    format!("\"{}\"", name.to_string_lossy())
}

fn refuse(message: &str) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        message,
        Some(DETAIL),
        Some(HINT),
    )
}
