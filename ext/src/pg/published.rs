//! Publications of logical replication that cover a table, whose rows stay hot then: changes of cold
//! rows can't be decoded from WAL, and a flush would be decoded as deletes (STORAGE section 9).
//!
//! Who publishes and who makes rows cold don't see each other's work before it is committed, so that
//! they hold locks to the end of their transactions:
//!
//! | | the table | its schema, and those of the partitioned tables above it |
//! | --- | --- | --- |
//! | makes rows cold | share | share |
//! | publishes a schema or a table | exclusive | exclusive if the schema is published |
//! | moves a table below a publication | exclusive | share |
//!
//! Schemas have them for the sake of tables that the other one can't see yet. The publications are
//! looked up in the catalog: `rd_pubdesc` of a partition outlives a SET SCHEMA of the table above it,
//! and it doesn't show publications that publish nothing for now.

use super::missing;
use pgrx::{PgList, pg_sys};
use std::ffi::CStr;

/// Tells the locks from those that Postgres takes on whole objects.
const PART: u16 = 1;
const SHARE: i32 = pg_sys::ShareLock as i32;
const EXCLUSIVE: i32 = pg_sys::ExclusiveLock as i32;

/// Whether the rows of an open table have to stay hot. Otherwise nobody publishes it before the end of
/// this transaction.
///
/// While somebody is about to, they stay hot, too: nobody waits.
pub fn stays_hot(relation: pg_sys::Relation) -> bool {
    let Some(relid) = publishable(relation) else {
        return false;
    };
    // SAFETY: heavyweight locks.
    unsafe {
        let lock = |class, oid| pg_sys::ConditionalLockDatabaseObject(class, oid, PART, SHARE);
        let free = lock(pg_sys::RelationRelationId, relid)
            && schemas_of(relid)
                .into_iter()
                .all(|schema| lock(pg_sys::NamespaceRelationId, schema));
        !free || publication_of(relid).is_some()
    }
}

/// The publication that keeps the rows of an open table hot. Without one, nobody publishes it before
/// the end of this transaction, which waits for those who are about to.
pub fn keeps_hot(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    let relid = publishable(relation)?;
    // SAFETY: a heavyweight lock.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::RelationRelationId, relid, PART, SHARE) };
    hold_schemas(relid);
    publication_of(relid)
}

/// Waits for those who make rows of a table cold, and keeps others from it.
pub fn keep_hot(relid: pg_sys::Oid) {
    // SAFETY: a heavyweight lock.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::RelationRelationId, relid, PART, EXCLUSIVE) };
}

/// The same for those tables of a schema that this transaction can't see yet.
pub fn keep_schema_hot(schema: pg_sys::Oid) {
    // SAFETY: a heavyweight lock.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::NamespaceRelationId, schema, PART, EXCLUSIVE) };
}

/// Waits for those who publish a schema that a table is in, and keeps others from it.
pub fn hold_schemas(relid: pg_sys::Oid) {
    for schema in schemas_of(relid) {
        // SAFETY: a heavyweight lock.
        unsafe { pg_sys::LockDatabaseObject(pg_sys::NamespaceRelationId, schema, PART, SHARE) };
    }
}

/// A publication that covers a table by itself, by its schema, or by a partitioned table above it.
pub fn publication_of(relid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: catalog look-ups.
    unsafe {
        let mut all = oids(pg_sys::GetAllTablesPublications());
        for place in places(relid) {
            all.extend(oids(pg_sys::GetRelationPublications(place)));
        }
        for schema in schemas_of(relid) {
            all.extend(oids(pg_sys::GetSchemaPublications(schema)));
        }
        all.first().copied()
    }
}

/// The name of a publication as error messages show it.
pub fn publication_name(publication: pg_sys::Oid) -> String {
    // SAFETY: a catalog look-up; the name is copied at once.
    unsafe {
        let name = pg_sys::get_publication_name(publication, true);
        if name.is_null() {
            return publication.to_u32().to_string();
        }
        format!("\"{}\"", CStr::from_ptr(name).to_string_lossy())
    }
}

/// The elements of a list of OIDs.
///
/// # Safety
/// It is one.
pub unsafe fn oids(list: *mut pg_sys::List) -> Vec<pg_sys::Oid> {
    // SAFETY: by contract.
    unsafe { PgList::<pg_sys::Oid>::from_pg(list).iter_oid().collect() }
}

/// As `is_publishable_class` (catalog/pg_publication.c), of tables that can have cold rows. A transient
/// one counts as the one that it is going to replace: that of a REFRESH is a plain table, too.
fn publishable(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    // SAFETY: the relation is open; a catalog look-up.
    unsafe {
        let class = &*(*relation).rd_rel;
        let relid = if class.relrewrite == pg_sys::InvalidOid {
            (*relation).rd_id
        } else {
            class.relrewrite
        };
        let is_one = pg_sys::get_rel_relkind(relid) as u8 == pg_sys::RELKIND_RELATION
            && class.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT;
        is_one.then_some(relid)
    }
}

/// A table and the partitioned tables above it.
fn places(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut places = vec![relid];
    places.extend(missing::partition_ancestors(relid));
    places
}

fn schemas_of(relid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut schemas: Vec<pg_sys::Oid> = places(relid)
        .into_iter()
        // SAFETY: a catalog look-up.
        .map(|place| unsafe { pg_sys::get_rel_namespace(place) })
        .filter(|schema| *schema != pg_sys::InvalidOid)
        .collect();
    schemas.sort_unstable_by_key(|schema| schema.to_u32());
    schemas.dedup();
    schemas
}
