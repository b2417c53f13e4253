//! `lake.storage`: maps (tablespace, relfilenumber) to a storage id and its directory.
//!
//! The id comes from a sequence, since Postgres uses relfilenumbers again (STORAGE section 1).
//! TRUNCATE and rewriting ALTERs get a new storage; the row of the old one goes with its relfilenumber.
//! VACUUM FULL and CLUSTER, which write files anew at most, keep it; SET TABLESPACE keeps it in
//! another directory.

use crate::catalog::{data_file, garbage, missing_value, options, tablespace};
use crate::error;
use crate::pg::table::{Key, Row, Table, relation_oid, text_datum};
use pg_lake_crash::{CrashPoint, crash_point};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;

const TABLE: &CStr = c"storage";
/// Of a table that doesn't say otherwise.
pub const DEFAULT_FORMAT_VERSION: u8 = 2;
const BY_LOCATOR: &CStr = c"storage_locator_key";

/// The storage of one table.
#[derive(Clone, Debug)]
pub struct Storage {
    pub id: i64,
    pub relid: pg_sys::Oid,
    /// Relative to the data directory.
    pub directory: String,
    pub uuid: [u8; 16],
    pub format_version: u8,
}

impl Storage {
    /// Where its data files are, relative to the data directory.
    pub fn data_directory(&self) -> String {
        format!("{}/data", self.directory)
    }
}

/// The part of every directory that tells apart databases that came from one another by copying;
/// `None` in such a copy: the files belong to the original.
pub fn own_incarnation() -> Option<String> {
    let mut found = None;
    Table::read(c"control").scan(None, &[], std::ptr::null_mut(), |row| {
        found = Some((row.int8(1), row.oid(2), row.text(3).unwrap_or_default()));
        false
    });
    // SAFETY: plain globals of this backend.
    let here = unsafe { (pg_sys::GetSystemIdentifier() as i64, pg_sys::MyDatabaseId) };
    found
        .filter(|(system, database, _)| (*system, *database) == here)
        .map(|(_, _, incarnation)| incarnation)
}

/// Whether the files of this database's tables are its own.
pub fn is_own() -> bool {
    own_incarnation().is_some()
}

/// Makes a copy of a database without iceberg tables a database of its own, as one is that was made
/// from a template with the extension.
fn take_over() -> Option<String> {
    let catalogs = [
        c"storage",
        c"data_file",
        c"intent",
        c"garbage",
        c"publication",
    ];
    let in_use = catalogs.into_iter().any(|name| {
        let mut any = false;
        Table::read(name).scan(None, &[], std::ptr::null_mut(), |_| {
            any = true;
            false
        });
        any
    });
    if in_use {
        return None;
    }
    let table = Table::write(c"control");
    // SAFETY: plain globals of this backend.
    let (system, database) =
        unsafe { (pg_sys::GetSystemIdentifier() as i64, pg_sys::MyDatabaseId) };
    let incarnation = uuid_text(&random_uuid());
    table.scan(None, &[], std::ptr::null_mut(), |row| {
        table.update(
            row.tid,
            &[
                Some(system.into()),
                Some(database.into()),
                Some(text_datum(&incarnation)),
            ],
        );
        false
    });
    // SAFETY: in a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
    Some(incarnation)
}

/// RFC 9562, version 4.
pub fn random_uuid() -> [u8; 16] {
    let mut uuid = [0u8; 16];
    // SAFETY: fills the array.
    if !unsafe { pg_sys::pg_strong_random(uuid.as_mut_ptr().cast(), uuid.len()) } {
        error::raise(
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "could not generate random values",
            None,
            None,
        );
    }
    uuid[6] = (uuid[6] & 0x0f) | 0x40;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// The opposite of [`uuid_text`].
pub fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let hex = text.replace('-', "");
    let number = u128::from_str_radix(&hex, 16).ok()?;
    (hex.len() == 32).then(|| number.to_be_bytes())
}

/// Raises an error in a copy of a database: nothing may be written or removed there.
pub fn incarnation() -> String {
    match own_incarnation().or_else(take_over) {
        Some(incarnation) => incarnation,
        None => error::raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the iceberg tables of this database belong to another database",
            Some(
                "The database was copied, for example by CREATE DATABASE … TEMPLATE; its iceberg tables share files with the original.",
            ),
            Some("Drop and create extension pg_lake in the copy, or drop its iceberg tables."),
        ),
    }
}

/// Whether the catalog is still there: not while DROP EXTENSION removes it.
pub fn catalog_exists() -> bool {
    crate::pg::lake_schema().is_some_and(|schema| {
        // SAFETY: plain catalog lookup.
        let oid = unsafe { pg_sys::get_relname_relid(TABLE.as_ptr(), schema) };
        oid != pg_sys::InvalidOid
    })
}

/// The tables that have a storage.
pub fn relations() -> Vec<pg_sys::Oid> {
    let mut relations = vec![];
    Table::read(TABLE).scan(None, &[], std::ptr::null_mut(), |row| {
        relations.push(row.oid(4));
        true
    });
    relations
}

/// Whether a storage is some table's.
pub fn exists(id: i64) -> bool {
    relation(id).is_some()
}

/// The table that a storage is of.
pub fn relation(id: i64) -> Option<pg_sys::Oid> {
    let mut found = None;
    Table::read(TABLE).scan(
        Some(c"storage_pkey"),
        &[Key::int8(1, id)],
        std::ptr::null_mut(),
        |row| {
            found = Some(row.oid(4));
            false
        },
    );
    found
}

fn locator_keys(tablespace: pg_sys::Oid, number: pg_sys::Oid) -> [Key; 2] {
    [Key::oid(2, tablespace), Key::oid(3, number)]
}

thread_local! {
    /// By tablespace and relfilenumber, until any relation changes or a transaction is rolled back.
    static KNOWN: RefCell<HashMap<(pg_sys::Oid, pg_sys::Oid), Storage>> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Those of tables that this transaction has locked, so that they stay.
    static PINNED: RefCell<HashMap<(pg_sys::Oid, pg_sys::Oid), Storage>> = RefCell::default();
}

unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, _relid: pg_sys::Oid) {
    forget_known();
}

fn watch() {
    if !WATCHED.replace(true) {
        // SAFETY: registered once in this process.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
        }
    }
}

/// Keeps what is known about a table's storage to the end of the (sub)transaction, whatever happens to
/// the relation cache; false if it has none.
pub fn pin(relation: pg_sys::Relation) -> bool {
    // SAFETY: the relation is open.
    let locator = unsafe { (*relation).rd_locator };
    let key = (locator.spcOid, locator.relNumber);
    if PINNED.with_borrow(|pinned| pinned.contains_key(&key)) {
        return true;
    }
    let Some(storage) = of_relation(relation) else {
        return false;
    };
    PINNED.with_borrow_mut(|pinned| pinned.insert(key, storage));
    true
}

/// The (sub)transaction has given its locks back.
pub fn unpin_all() {
    PINNED.with_borrow_mut(HashMap::clear);
}

/// Looks storages up anew from now on.
pub fn forget() {
    unpin_all();
    forget_known();
}

fn forget_known() {
    KNOWN.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.clear();
        }
    });
}

/// The storage of a relation, or `None` for temporary and unlogged tables, which stay hot.
pub fn of_relation(relation: pg_sys::Relation) -> Option<Storage> {
    // SAFETY: the relation is open.
    let (persistence, locator) = unsafe {
        (
            (*(*relation).rd_rel).relpersistence as u8,
            (*relation).rd_locator,
        )
    };
    if persistence != pg_sys::RELPERSISTENCE_PERMANENT {
        return None;
    }
    let key = (locator.spcOid, locator.relNumber);
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).cloned()) {
        return Some(known);
    }
    // Under an index page's lock nothing is looked up.
    // SAFETY: a global of this backend.
    if unsafe { pg_sys::InterruptHoldoffCount } > 0
        && let Some(pinned) = PINNED.with_borrow(|pinned| pinned.get(&key).cloned())
    {
        return Some(pinned);
    }
    let found = find(locator.spcOid, locator.relNumber);
    if let Some(found) = &found {
        watch();
        KNOWN.with_borrow_mut(|known| known.insert(key, found.clone()));
    }
    if found.is_none() {
        error::raise(
            PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
            &format!(
                "iceberg table \"{}\" has no storage",
                crate::pg::relation_name(relation)
            ),
            Some("Its file is not in lake.storage, so that its cold rows can't be found."),
            Some("Move the database back to its former tablespace, or restore it from a backup."),
        );
    }
    found
}

pub fn find(tablespace: pg_sys::Oid, number: pg_sys::Oid) -> Option<Storage> {
    let mut found = None;
    Table::read(TABLE).scan(
        Some(BY_LOCATOR),
        &locator_keys(tablespace, number),
        std::ptr::null_mut(),
        |row| {
            let mut uuid = [0; 16];
            if let Some(datum) = row.get(6) {
                // SAFETY: a uuid datum points to 16 bytes.
                uuid = unsafe { *datum.cast_mut_ptr::<[u8; 16]>() };
            }
            found = Some(Storage {
                id: row.int8(1),
                relid: row.oid(4),
                directory: row.text(5).unwrap_or_default(),
                uuid,
                format_version: row.int8(7) as u8,
            });
            false
        },
    );
    found
}

/// Keeps the tablespace of a table that is going to be there as it is, to the end of the transaction: whoever wants
/// its files in a store, or in another one, waits.
pub fn hold_place(locator: &pg_sys::RelFileLocator) {
    // SAFETY: a global of this backend.
    if locator.spcOid != unsafe { pg_sys::MyDatabaseTableSpace } {
        tablespace::hold(locator.spcOid);
    }
}

/// A number and, named after it, a directory for the files of a table whose hot rows are in this place.
/// Neither is ever used again.
pub fn new_directory(locator: &pg_sys::RelFileLocator) -> (i64, String) {
    hold_place(locator);
    let number = crate::pg::missing::nextval(relation_oid(c"storage_id_seq"));
    let database_directory = crate::pg::database_directory(locator.spcOid);
    let directory = format!("{database_directory}/lake/{}/{number}", incarnation());
    (number, directory)
}

/// Gives a new relfilenumber a storage of its own, with the format version of the one it replaces,
/// or that of the table's options: those of a new table are not in `pg_class` yet, and set it later.
pub fn create(locator: &pg_sys::RelFileLocator, format_version: Option<u8>, relid: pg_sys::Oid) {
    let format_version = format_version
        .or_else(|| options::of(relid).format_version)
        .unwrap_or(DEFAULT_FORMAT_VERSION);
    let (id, directory) = new_directory(locator);
    let uuid = random_uuid();
    Table::write(TABLE).insert(&[
        Some(id.into()),
        Some(locator.spcOid.into()),
        Some(locator.relNumber.into()),
        Some(relid.into()),
        Some(text_datum(&directory)),
        Some(pg_sys::Datum::from(uuid.as_ptr())),
        Some(pg_sys::Datum::from(i16::from(format_version))),
    ]);
    crash_point(CrashPoint::StorageCreated);
}

/// Forgets the storage of a relfilenumber that this transaction drops; its files go once no
/// snapshot needs them.
pub fn drop_locator(tablespace: pg_sys::Oid, number: pg_sys::Oid) -> Option<Storage> {
    forget();
    let storage = find(tablespace, number)?;
    let table = Table::write(TABLE);
    table.scan(
        Some(BY_LOCATOR),
        &locator_keys(tablespace, number),
        std::ptr::null_mut(),
        |row| {
            table.delete(row.tid);
            false
        },
    );
    if own_incarnation().is_some() {
        garbage::add_storage(&storage);
        crash_point(CrashPoint::StorageDropped);
    }
    Some(storage)
}

/// Gives the storage of a table to the relfilenumber that a rewrite of its hot rows puts in place of
/// the old one, which the transaction is going to drop.
pub fn keep(old: pg_sys::Relation, new: pg_sys::Relation) {
    let (Some(kept), Some(fresh)) = (of_relation(old), of_relation(new)) else {
        return;
    };
    forget();
    missing_value::keep(old, kept.id);
    // Old TIDs of hot rows lead nowhere any more.
    data_file::forget_all_forwards(kept.id);
    // SAFETY: the relation is open.
    let locator = unsafe { (*new).rd_locator };
    let table = Table::write(TABLE);
    let by_id = |id: i64, f: &dyn Fn(&Row<'_>)| {
        table.scan(
            Some(c"storage_pkey"),
            &[Key::int8(1, id)],
            std::ptr::null_mut(),
            |row| {
                f(row);
                false
            },
        );
    };
    by_id(fresh.id, &|row| table.delete(row.tid));
    // Its locator is free from here on.
    // SAFETY: in a transaction.
    unsafe { pg_sys::CommandCounterIncrement() };
    by_id(kept.id, &|row| {
        let mut values: Vec<_> = (1..=7).map(|i| row.get(i)).collect();
        values[1] = Some(locator.spcOid.into());
        values[2] = Some(locator.relNumber.into());
        table.update(row.tid, &values);
    });
    // SAFETY: as above.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// Gives a storage the relfilenumber that its hot rows have been copied to, and another directory; the
/// next command sees it.
pub fn set_place(id: i64, locator: &pg_sys::RelFileLocator, directory: &str) {
    forget();
    let table = Table::write(TABLE);
    table.scan(
        Some(c"storage_pkey"),
        &[Key::int8(1, id)],
        std::ptr::null_mut(),
        |row| {
            let mut values: Vec<_> = (1..=7).map(|i| row.get(i)).collect();
            values[1] = Some(locator.spcOid.into());
            values[2] = Some(locator.relNumber.into());
            values[4] = Some(text_datum(directory));
            table.update(row.tid, &values);
            false
        },
    );
}

/// Removes what the catalogs know about a storage whose directory is gone.
pub fn purge(id: i64) {
    for (name, index) in [
        (c"data_file", Some(c"data_file_pkey")),
        (c"row_mark", Some(c"row_mark_row_idx")),
        (c"file_mark", Some(c"file_mark_row_idx")),
        (c"anchor", Some(c"anchor_row_idx")),
        (c"publication", Some(c"publication_pkey")),
        (c"hot_image", Some(c"hot_image_pkey")),
        (c"missing_value", Some(c"missing_value_pkey")),
    ] {
        let table = Table::write(name);
        table.scan(index, &[Key::int8(1, id)], std::ptr::null_mut(), |row| {
            table.delete(row.tid);
            true
        });
    }
}

/// Sets the Iceberg format version of a storage; the next command sees it.
pub fn set_format_version(storage: &Storage, version: u8) {
    forget();
    let table = Table::write(TABLE);
    table.scan(
        Some(c"storage_pkey"),
        &[Key::int8(1, storage.id)],
        std::ptr::null_mut(),
        |row| {
            let mut values: Vec<_> = (1..=7).map(|i| row.get(i)).collect();
            values[6] = Some(pg_sys::Datum::from(i16::from(version)));
            table.update(row.tid, &values);
            false
        },
    );
}
