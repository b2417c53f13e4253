//! DROP DATABASE: what it leaves in object stores.
//!
//! The catalogs that say which objects are the database's go with it. Nothing removes these afterwards: a copy of the
//! server, a standby that was promoted say, may have the same names for what it still needs. So the command says where they are.

use super::utility::tag;
use crate::catalog::{storage, tablespace};
use crate::ring::control::Incarnation;
use crate::ring::region::control;
use crate::{error, pg};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
use std::path::Path;

/// What a database that is about to be dropped may leave.
pub struct Left {
    database: String,
    /// What its objects' locations begin with, or those of all databases, if it isn't known.
    places: Vec<String>,
}

/// Looks where the database has been.
///
/// # Safety
/// A statement that is about to run.
pub unsafe fn before(statement: *mut pg_sys::Node) -> Option<Left> {
    // SAFETY: the tag says what the node is; the name is a valid C string.
    unsafe {
        if tag(statement) != pg_sys::NodeTag::T_DropdbStmt || !tablespace::any_store() {
            return None;
        }
        let name: *const c_char = (*statement.cast::<pg_sys::DropdbStmt>()).dbname;
        let database = pg_sys::get_database_oid(name, true);
        if database == pg_sys::InvalidOid {
            return None;
        }
        let slot = control().and_then(|control| control.find(database.to_u32()));
        let below = match slot.map_or(Incarnation::Unknown, |slot| slot.incarnation()) {
            // A copy has none of its own.
            Incarnation::Foreign => return None,
            Incarnation::Unknown => String::new(),
            Incarnation::Own(uuid) => format!("/{}", storage::uuid_text(&uuid)),
        };
        let places: Vec<String> = tablespace::roots()
            .into_iter()
            .filter(|(oid, _)| has_been_in(database, *oid))
            .map(|(_, root)| format!("{root}{below}"))
            .collect();
        (!places.is_empty()).then(|| Left {
            database: CStr::from_ptr(name).to_string_lossy().into_owned(),
            places,
        })
    }
}

/// Whether a database has a directory for the hot rows of tables in a tablespace.
unsafe fn has_been_in(database: pg_sys::Oid, tablespace: pg_sys::Oid) -> bool {
    // SAFETY: the path is copied at once.
    let directory = unsafe {
        let path = pg_sys::GetDatabasePath(database, tablespace);
        let directory = CStr::from_ptr(path).to_string_lossy().into_owned();
        pg_sys::pfree(path.cast());
        directory
    };
    let directory: &Path = directory.as_ref();
    pg::data_directory().join(directory).is_dir()
}

/// Says what was left, now that the database is gone.
pub fn after(left: &Left) {
    error::notice(
        &format!(
            "objects of database \"{}\" may be left in object stores",
            left.database
        ),
        &format!("They are below \"{}\".", left.places.join("\" and \"")),
        "Remove those that belonged to its incarnation by the stores' own means, unless a copy of the server needs them.",
    );
}
