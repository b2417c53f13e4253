//! The extension's own catalog tables, read and written as Postgres does with its catalogs:
//! by index scans and `CatalogTuple…`, without planner and without permission checks.

use crate::error;
use crate::pg::seen::Seen;
use pgrx::{PgSqlErrorCode, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CStr;
use std::ops::Range;
use std::rc::Rc;

/// An open catalog table of schema `lake`. Closed when dropped; its lock is kept to the end of the
/// transaction if it is a write lock.
pub struct Table {
    rel: pg_sys::Relation,
    lock: pg_sys::LOCKMODE,
}

/// One row during a scan.
pub struct Row<'a> {
    pub tid: pg_sys::ItemPointerData,
    header: pg_sys::HeapTupleHeader,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Row<'_> {
    /// Column `attnum` (from 1), `None` for null.
    pub fn get(&self, attnum: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[attnum - 1]).then(|| self.values[attnum - 1])
    }

    /// The inserting transaction.
    pub fn xmin(&self) -> pg_sys::TransactionId {
        // SAFETY: the tuple that the scan stands on.
        unsafe { pg_sys::HeapTupleHeaderGetXmin(self.header) }
    }

    /// The inserting transaction, also of a frozen row.
    pub fn raw_xmin(&self) -> pg_sys::TransactionId {
        // SAFETY: as above.
        unsafe { pg_sys::HeapTupleHeaderGetRawXmin(self.header) }
    }

    /// The inserting command, of a row that this transaction inserted.
    pub fn cmin(&self) -> pg_sys::CommandId {
        // SAFETY: as above.
        unsafe { pg_sys::HeapTupleHeaderGetCmin(self.header) }
    }

    pub fn int8(&self, attnum: usize) -> i64 {
        self.get(attnum).map_or(0, |d| d.value() as i64)
    }

    pub fn oid(&self, attnum: usize) -> pg_sys::Oid {
        pg_sys::Oid::from(self.get(attnum).map_or(0, |d| d.value() as u32))
    }

    /// `text`, copied.
    pub fn text(&self, attnum: usize) -> Option<String> {
        // SAFETY: the column is of a type with a varlena representation, detoasted by the helper.
        self.get(attnum).map(|d| unsafe {
            let p = pg_sys::text_to_cstring(d.cast_mut_ptr());
            let s = CStr::from_ptr(p).to_string_lossy().into_owned();
            pg_sys::pfree(p.cast());
            s
        })
    }

    /// `bytea`, copied.
    pub fn bytes(&self, attnum: usize) -> Option<Vec<u8>> {
        // SAFETY: as in `text`.
        self.get(attnum).map(|d| unsafe {
            let original = d.cast_mut_ptr::<pg_sys::varlena>();
            let plain = pg_sys::pg_detoast_datum_packed(original);
            let bytes = pgrx::varlena::varlena_to_byte_slice(plain).to_vec();
            if plain != original {
                pg_sys::pfree(plain.cast());
            }
            bytes
        })
    }
}

/// A key `attnum = value` of an index scan.
pub struct Key {
    pub attnum: i16,
    pub equality: u32,
    pub value: pg_sys::Datum,
}

impl Key {
    pub fn int8(attnum: i16, value: i64) -> Key {
        Key {
            attnum,
            equality: pg_sys::F_INT8EQ,
            value: pg_sys::Datum::from(value),
        }
    }

    pub fn oid(attnum: i16, value: pg_sys::Oid) -> Key {
        Key {
            attnum,
            equality: pg_sys::F_OIDEQ,
            value: pg_sys::Datum::from(value),
        }
    }
}

#[derive(Clone, Copy)]
struct Pinned {
    oid: pg_sys::Oid,
    lock: pg_sys::LOCKMODE,
}

thread_local! {
    /// The catalogs' OIDs, until a relation changes.
    static OIDS: RefCell<HashMap<&'static CStr, pg_sys::Oid>> = RefCell::default();
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// The catalogs with their toast tables, until a relation changes.
    static TOASTED: RefCell<HashMap<&'static CStr, Rc<[pg_sys::Oid]>>> = RefCell::default();
    /// Those that this transaction holds a lock on, so that they stay, with the strongest such lock.
    static PINNED: RefCell<Vec<(&'static CStr, Pinned)>> = const { RefCell::new(vec![]) };
}

unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, _relid: pg_sys::Oid) {
    OIDS.with(|oids| {
        if let Ok(mut oids) = oids.try_borrow_mut() {
            oids.clear();
        }
    });
    TOASTED.with(|toasted| {
        if let Ok(mut toasted) = toasted.try_borrow_mut() {
            toasted.clear();
        }
    });
}

/// Keeps a catalog's OID, and a lock on it, to the end of the (sub)transaction: it is going to be opened
/// where nothing may be looked up and nothing waited for.
pub fn pin(name: &'static CStr) {
    let known = TOASTED.with_borrow(|known| known.get(name).cloned());
    let oids = known.unwrap_or_else(|| {
        let oids: Rc<[pg_sys::Oid]> = with_toast(relation_oid(name)).into();
        TOASTED.with_borrow_mut(|known| known.insert(name, oids.clone()));
        oids
    });
    for oid in oids.iter() {
        // SAFETY: a heavyweight lock, released at the end of the (sub)transaction.
        unsafe { pg_sys::LockRelationOid(*oid, pg_sys::AccessShareLock as i32) };
    }
    if let Some(oid) = oids.first() {
        note(name, *oid, pg_sys::AccessShareLock as i32);
    }
}

/// Keeps a lock on a catalog to the end of the (sub)transaction: it is going to be opened again and again.
pub fn keep(name: &'static CStr, lock: pg_sys::LOCKMODE) {
    let oid = relation_oid(name);
    // SAFETY: a heavyweight lock, released at the end of the (sub)transaction.
    unsafe { pg_sys::LockRelationOid(oid, lock) };
    note(name, oid, lock);
}

fn note(name: &'static CStr, oid: pg_sys::Oid, lock: pg_sys::LOCKMODE) {
    PINNED.with_borrow_mut(
        |pinned| match pinned.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.lock = known.lock.max(lock),
            None => pinned.push((name, Pinned { oid, lock })),
        },
    );
}

fn pinned(name: &CStr) -> Option<Pinned> {
    PINNED.with_borrow(|pinned| {
        let found = pinned.iter().find(|(known, _)| *known == name);
        found.map(|(_, pinned)| *pinned)
    })
}

/// A relation, with its toast table and the indexes of that.
fn with_toast(oid: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    let mut oids = vec![oid];
    // SAFETY: the relations are opened and closed here.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        if pg_sys::get_rel_relkind(oid) as u8 == pg_sys::RELKIND_RELATION {
            let rel = pg_sys::table_open(oid, lock);
            let toast = (*(*rel).rd_rel).reltoastrelid;
            if toast != pg_sys::InvalidOid {
                let toasted = pg_sys::table_open(toast, lock);
                let list = pg_sys::RelationGetIndexList(toasted);
                oids.push(toast);
                oids.extend(pgrx::PgList::<pg_sys::Oid>::from_pg(list).iter_oid());
                pg_sys::table_close(toasted, lock);
            }
            pg_sys::table_close(rel, lock);
        }
    }
    oids
}

/// The (sub)transaction has given its locks back.
pub fn unpin_all() {
    PINNED.with_borrow_mut(Vec::clear);
}

/// OID of a relation of schema `lake`.
pub fn relation_oid(name: &'static CStr) -> pg_sys::Oid {
    if let Some(pinned) = pinned(name) {
        return pinned.oid;
    }
    if let Some(oid) = OIDS.with_borrow(|oids| oids.get(name).copied()) {
        return oid;
    }
    if !WATCHED.replace(true) {
        // SAFETY: registered once in this process. Dropping the extension drops its relations.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
        }
    }
    let missing = || -> ! {
        error::raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            "extension \"pg_lake\" is not installed in this database",
            None,
            Some("Run CREATE EXTENSION pg_lake."),
        )
    };
    let Some(schema) = super::lake_schema() else {
        missing()
    };
    // SAFETY: plain catalog lookup.
    let oid = unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) };
    if oid == pg_sys::InvalidOid {
        missing()
    }
    OIDS.with_borrow_mut(|oids| oids.insert(name, oid));
    oid
}

impl Table {
    pub fn read(name: &'static CStr) -> Table {
        Table::open(name, pg_sys::AccessShareLock as i32)
    }

    pub fn write(name: &'static CStr) -> Table {
        Table::open(name, pg_sys::RowExclusiveLock as i32)
    }

    fn open(name: &'static CStr, lock: pg_sys::LOCKMODE) -> Table {
        let held = pinned(name).filter(|pinned| pinned.lock >= lock);
        let (oid, lock) = match held {
            Some(pinned) => (pinned.oid, pg_sys::NoLock as i32),
            None => (relation_oid(name), lock),
        };
        // SAFETY: raises an error if the relation is gone.
        let rel = unsafe { pg_sys::table_open(oid, lock) };
        Table { rel, lock }
    }

    fn natts(&self) -> usize {
        // SAFETY: the relation is open.
        unsafe { (*(*self.rel).rd_att).natts as usize }
    }

    /// Forms a tuple that is about to be stored; `values` has one entry a column.
    fn form(&self, values: &[Option<pg_sys::Datum>]) -> pg_sys::HeapTuple {
        crate::crash::catalog_changes();
        if values.len() != self.natts() {
            error::raise(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                &format!(
                    "table lake.{} does not have the columns that this library expects",
                    super::relation_name(self.rel)
                ),
                Some("The extension was created by another version of pg_lake."),
                Some("Save what you need, then drop the extension and create it again."),
            );
        }
        let nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        let datums: Vec<pg_sys::Datum> = values
            .iter()
            .map(|v| v.unwrap_or(pg_sys::Datum::null()))
            .collect();
        // SAFETY: both arrays have one entry for each attribute.
        unsafe { pg_sys::heap_form_tuple((*self.rel).rd_att, datums.as_ptr(), nulls.as_ptr()) }
    }

    /// Inserts a row and its index entries with the current command id.
    pub fn insert(&self, values: &[Option<pg_sys::Datum>]) {
        let tuple = self.form(values);
        // SAFETY: open for writing; the tuple fits its descriptor.
        unsafe {
            pg_sys::CatalogTupleInsert(self.rel, tuple);
            pg_sys::heap_freetuple(tuple);
        }
    }

    /// Inserts a row that is visible to everyone at once and survives an abort. STORAGE sections 2
    /// and 4. Returns its TID.
    pub fn insert_frozen(&self, values: &[Option<pg_sys::Datum>]) -> pg_sys::ItemPointerData {
        // SAFETY: in a transaction that writes.
        let cid = unsafe { pg_sys::GetCurrentCommandId(true) };
        self.insert_as(values, cid, pg_sys::HEAP_INSERT_FROZEN as i32)
    }

    /// Inserts a row as a given command of this transaction.
    pub fn insert_by(&self, values: &[Option<pg_sys::Datum>], cid: pg_sys::CommandId) {
        self.insert_as(values, cid, 0);
    }

    fn insert_as(
        &self,
        values: &[Option<pg_sys::Datum>],
        cid: pg_sys::CommandId,
        options: i32,
    ) -> pg_sys::ItemPointerData {
        let tuple = self.form(values);
        // SAFETY: open for writing; the tuple fits its descriptor. Its index entries are plain
        // columns, and no index of a table that this is used for is unique.
        unsafe {
            pg_sys::heap_insert(self.rel, tuple, cid, options, std::ptr::null_mut());
            let mut tid = (*tuple).t_self;
            let indexes =
                pgrx::PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(self.rel));
            for oid in indexes.iter_oid() {
                let index = pg_sys::index_open(oid, pg_sys::RowExclusiveLock as i32);
                let info = pg_sys::BuildIndexInfo(index);
                let n = (*info).ii_NumIndexKeyAttrs as usize;
                let keys = &(&(*info).ii_IndexAttrNumbers)[..n];
                let key = |attnum: &i16| values[*attnum as usize - 1];
                let mut datums: Vec<_> = keys
                    .iter()
                    .map(|a| key(a).unwrap_or(pg_sys::Datum::null()))
                    .collect();
                let mut nulls: Vec<_> = keys.iter().map(|a| key(a).is_none()).collect();
                pg_sys::index_insert(
                    index,
                    datums.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                    &mut tid,
                    self.rel,
                    pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                    false,
                    info,
                );
                pg_sys::pfree(info.cast());
                pg_sys::index_close(index, pg_sys::NoLock as i32);
            }
            pg_sys::heap_freetuple(tuple);
            tid
        }
    }

    /// The open relation.
    pub fn relation(&self) -> pg_sys::Relation {
        self.rel
    }

    pub fn delete(&self, mut tid: pg_sys::ItemPointerData) {
        crate::crash::catalog_changes();
        // SAFETY: a TID that a scan of this table returned.
        unsafe { pg_sys::CatalogTupleDelete(self.rel, &mut tid) }
    }

    /// Replaces the row at `tid`.
    pub fn update(&self, mut tid: pg_sys::ItemPointerData, values: &[Option<pg_sys::Datum>]) {
        let tuple = self.form(values);
        // SAFETY: as above.
        unsafe {
            pg_sys::CatalogTupleUpdate(self.rel, &mut tid, tuple);
            pg_sys::heap_freetuple(tuple);
        }
    }

    /// Calls `f`, until it returns false, for the rows that `snapshot` sees and whose index columns
    /// are `first` and at most `last`, from the greatest `last` downwards.
    pub fn scan_down_from(
        &self,
        index: &'static CStr,
        first: i64,
        last: i64,
        snapshot: pg_sys::Snapshot,
        f: impl FnMut(&Row<'_>) -> bool,
    ) {
        // SAFETY: the index belongs to the open relation and has two columns of type bigint.
        unsafe {
            let mut keys = [pg_sys::ScanKeyData::default(); 2];
            let (equal, below) = (
                pg_sys::BTEqualStrategyNumber,
                pg_sys::BTLessEqualStrategyNumber,
            );
            for (i, (strategy, function, value)) in [
                (equal, pg_sys::F_INT8EQ, first),
                (below, pg_sys::F_INT8LE, last),
            ]
            .into_iter()
            .enumerate()
            {
                pg_sys::ScanKeyInit(
                    &mut keys[i],
                    i as i16 + 1,
                    strategy as u16,
                    pg_sys::Oid::from(function),
                    pg_sys::Datum::from(value),
                );
            }
            let lock = pg_sys::AccessShareLock as i32;
            let index = pg_sys::index_open(relation_oid(index), lock);
            let seen = Seen::by(self.rel, snapshot);
            let scan = pg_sys::systable_beginscan_ordered(
                self.rel,
                index,
                seen.for_scan(snapshot),
                2,
                keys.as_mut_ptr(),
            );
            let backward = pg_sys::ScanDirection::BackwardScanDirection;
            let next = || pg_sys::systable_getnext_ordered(scan, backward);
            self.each(scan, &seen, next, f);
            pg_sys::systable_endscan_ordered(scan);
            seen.end();
            pg_sys::index_close(index, lock);
        }
    }

    /// Removes the rows whose index columns are `first` and one of `seconds`.
    pub fn delete_between(&self, index: &'static CStr, first: i64, seconds: &Range<u64>) {
        let Some(last) = seconds.end.checked_sub(1) else {
            return;
        };
        let latest = std::ptr::null_mut();
        self.scan_down_from(index, first, last as i64, latest, |row| {
            let within = row.int8(2) as u64 >= seconds.start;
            if within {
                self.delete(row.tid);
            }
            within
        });
    }

    /// Calls `f` for the rows that `next` returns and that are seen, until it returns false.
    ///
    /// # Safety
    /// `next` steps the scan, which is one of this table.
    unsafe fn each(
        &self,
        scan: pg_sys::SysScanDesc,
        seen: &Seen,
        mut next: impl FnMut() -> pg_sys::HeapTuple,
        mut f: impl FnMut(&Row<'_>) -> bool,
    ) {
        let natts = self.natts();
        let mut values = vec![pg_sys::Datum::null(); natts];
        let mut nulls = vec![true; natts];
        loop {
            let tuple = next();
            if tuple.is_null() {
                return;
            }
            // SAFETY: by contract; the tuple stays valid until the next call.
            unsafe {
                if !seen.sees(scan, tuple) {
                    continue;
                }
                let desc = (*self.rel).rd_att;
                pg_sys::heap_deform_tuple(tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
                let row = Row {
                    tid: (*tuple).t_self,
                    header: (*tuple).t_data,
                    values: &values,
                    nulls: &nulls,
                };
                if !f(&row) {
                    return;
                }
            }
        }
    }

    /// Calls `f` for each row that `snapshot` sees and `keys` select, until it returns false.
    /// A null snapshot is the catalog snapshot.
    pub fn scan(
        &self,
        index: Option<&'static CStr>,
        keys: &[Key],
        snapshot: pg_sys::Snapshot,
        f: impl FnMut(&Row<'_>) -> bool,
    ) {
        // SAFETY: the relation is open, the index belongs to it, the keys name its columns; the
        // tuple stays valid until the next call.
        unsafe {
            let mut scan_keys: Vec<pg_sys::ScanKeyData> = keys
                .iter()
                .map(|key| {
                    let mut data = pg_sys::ScanKeyData::default();
                    pg_sys::ScanKeyInit(
                        &mut data,
                        key.attnum,
                        pg_sys::BTEqualStrategyNumber as u16,
                        pg_sys::Oid::from(key.equality),
                        key.value,
                    );
                    data
                })
                .collect();
            let index_oid = index.map_or(pg_sys::InvalidOid, relation_oid);
            let seen = Seen::by(self.rel, snapshot);
            let scan = pg_sys::systable_beginscan(
                self.rel,
                index_oid,
                index.is_some(),
                seen.for_scan(snapshot),
                scan_keys.len() as i32,
                scan_keys.as_mut_ptr(),
            );
            self.each(scan, &seen, || pg_sys::systable_getnext(scan), f);
            pg_sys::systable_endscan(scan);
            seen.end();
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // an error is on its way: the resource owner closes it
        }
        let keep = self.lock != pg_sys::AccessShareLock as i32;
        // SAFETY: opened by this value.
        unsafe {
            pg_sys::table_close(
                self.rel,
                if keep {
                    pg_sys::NoLock as i32
                } else {
                    self.lock
                },
            )
        }
    }
}

/// A `text` datum in the current memory context.
pub fn text_datum(s: &str) -> pg_sys::Datum {
    // SAFETY: the length is that of the string.
    unsafe { pg_sys::cstring_to_text_with_len(s.as_ptr().cast(), s.len() as i32).into() }
}

/// A `bytea` datum in the current memory context.
pub fn bytea_datum(bytes: &[u8]) -> pg_sys::Datum {
    // `bytea` and `text` have the same layout.
    // SAFETY: as above.
    unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32).into() }
}
