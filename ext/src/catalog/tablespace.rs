//! Tablespaces whose files are in an object store: which there are, and where a file of theirs is.
//!
//! Paths of the catalog are relative to the data directory in every tablespace, and don't change with a
//! store's options. A file in a store has the name below the store's root that it would have below the
//! database's directory `lake`: `<incarnation>/<number>/data/….parquet`.

use super::store_options::{self, Invalid, Options, is_below, place};
use crate::pg::options_array::{Change, OptionsColumn};
use crate::{error, pg};
use pg_lake_plan::message::Request;
use pg_lake_plan::store::{Store, is_remote};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::rc::Rc;

/// A tablespace with options about a store.
struct Remote {
    oid: pg_sys::Oid,
    /// As far as the options make one.
    place: Result<Place, Invalid>,
}

struct Place {
    root: String,
    store: Store,
}

impl Remote {
    fn place(&self) -> &Place {
        match &self.place {
            Ok(place) => place,
            // They were checked when they were set, so somebody has written them by hand.
            Err(invalid) => error::raise(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                &format!(
                    "the options of tablespace \"{}\" don't say where its files are",
                    name(self.oid)
                ),
                Some(&invalid.message),
                Some("Set them with ALTER TABLESPACE … SET."),
            ),
        }
    }

    fn holds(&self, location: &str) -> bool {
        let place = self.place.as_ref();
        place.is_ok_and(|place| is_below(location, &place.root))
    }
}

/// All such tablespaces.
type Remotes = Rc<[Remote]>;

thread_local! {
    /// As they were when so many changes of `pg_tablespace` were known of.
    static KNOWN: RefCell<Option<(u64, Remotes)>> = const { RefCell::new(None) };
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C-unwind" fn tablespace_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    CHANGES.set(CHANGES.get() + 1);
}

fn watch() {
    if !WATCHED.replace(true) {
        // SAFETY: registered once in this process.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::TABLESPACEOID as i32,
                Some(tablespace_changed),
                pg_sys::Datum::null(),
            );
        }
    }
}

fn remotes() -> Remotes {
    watch();
    let changes = CHANGES.get();
    if let Some((then, known)) = KNOWN.with_borrow(Clone::clone)
        // Under an index page's lock nothing is looked up.
        // SAFETY: a global of this backend.
        && (then == changes || unsafe { pg_sys::InterruptHoldoffCount } > 0)
    {
        return known;
    }
    let read = read();
    // A change that came meanwhile has been counted since.
    KNOWN.set(Some((changes, read.clone())));
    read
}

fn read() -> Remotes {
    let mut found = vec![];
    // SAFETY: a scan of a shared catalog, ended here; an error ends it at abort.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let rel = pg_sys::table_open(pg_sys::TableSpaceRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            rel,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let oid = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_tablespace>()).oid;
            let mut isnull = false;
            let array = pg_sys::heap_getattr(
                tuple,
                pg_sys::Anum_pg_tablespace_spcoptions as i32,
                (*rel).rd_att,
                &mut isnull,
            );
            if isnull {
                continue;
            }
            let place = match options_in(array).store() {
                Ok(None) => continue,
                Ok(Some(store)) => Ok(Place {
                    root: store.root(),
                    store,
                }),
                Err(invalid) => Err(invalid),
            };
            found.push(Remote { oid, place });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(rel, lock);
    }
    found.into()
}

/// Our options in an array of `pg_tablespace`.
///
/// # Safety
/// The array, or null.
unsafe fn options_in(array: pg_sys::Datum) -> Options {
    let mut options = Options::default();
    // SAFETY: by contract; values are strings.
    unsafe {
        let all = pg_sys::untransformRelOptions(array);
        for option in PgList::<pg_sys::DefElem>::from_pg(all).iter_ptr() {
            let name = CStr::from_ptr((*option).defname).to_string_lossy();
            if let store_options::Known::Ours(name) = store_options::known(&name)
                && !(*option).arg.is_null()
            {
                let value = CStr::from_ptr(pg_sys::defGetString(option)).to_string_lossy();
                options.keep(name, &value);
            }
        }
    }
    options
}

/// Whether any tablespace is in a store.
pub fn any_store() -> bool {
    !remotes().is_empty()
}

/// The tablespaces in stores, and what the locations in each begin with.
pub fn roots() -> Vec<(pg_sys::Oid, String)> {
    let remotes = remotes();
    let places = remotes.iter().filter_map(|remote| {
        let place = remote.place.as_ref().ok()?;
        Some((remote.oid, place.root.clone()))
    });
    places.collect()
}

/// Whether the files of a tablespace are in a store.
pub fn is_store(oid: pg_sys::Oid) -> bool {
    remotes().iter().any(|remote| remote.oid == oid)
}

/// Another tablespace of which no file could be told from one below `root`.
pub fn overlapping(root: &str, except: pg_sys::Oid) -> Option<pg_sys::Oid> {
    let remotes = remotes();
    let mut others = remotes.iter().filter(|remote| remote.oid != except);
    let found = others.find(|remote| {
        let place = remote.place.as_ref();
        place.is_ok_and(|place| store_options::overlap(&place.root, root))
    });
    found.map(|remote| remote.oid)
}

/// The URL of a path of the catalog; `None` of one that is local.
pub fn location(path: &str) -> Option<String> {
    let (oid, below) = place(path)?;
    let remotes = remotes();
    let remote = remotes.iter().find(|remote| remote.oid.to_u32() == oid)?;
    Some(format!("{}/{below}", remote.place().root))
}

/// The opposite of [`location`], for files of this database.
pub fn path(location: &str) -> Option<String> {
    if !is_remote(location) {
        return None;
    }
    let remotes = remotes();
    let remote = remotes.iter().find(|remote| remote.holds(location))?;
    let below = location.strip_prefix(&remote.place().root)?;
    let directory = pg::database_directory(remote.oid);
    Some(format!("{directory}/lake{below}"))
}

/// The stores that a request's locations are in.
pub fn stores_of(request: &Request) -> Vec<Store> {
    let mut remotes: Option<Remotes> = None;
    let mut used: Vec<usize> = vec![];
    request.locations(|location| {
        if !is_remote(location) {
            return;
        }
        let remotes = remotes.get_or_insert_with(self::remotes);
        match remotes.iter().position(|remote| remote.holds(location)) {
            Some(remote) if used.contains(&remote) => {}
            Some(remote) => used.push(remote),
            None => error::raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                &format!("location \"{location}\" is in no tablespace"),
                None,
                Some(
                    "Give an absolute path, or a URL below the bucket and prefix of a tablespace in an object store.",
                ),
            ),
        }
    });
    let Some(remotes) = remotes else {
        return vec![];
    };
    used.into_iter()
        .filter_map(|remote| remotes.get(remote))
        .map(|remote| remote.place().store.clone())
        .collect()
}

/// Keeps a tablespace where it is to the end of the transaction, which is going to put files there:
/// whoever wants to change its root waits.
pub fn hold(oid: pg_sys::Oid) {
    lock(oid, pg_sys::AccessShareLock);
}

/// Waits for those who hold it, and keeps others out.
pub fn hold_alone(oid: pg_sys::Oid) {
    lock(oid, pg_sys::AccessExclusiveLock);
}

/// Does something that keeps others out, unless somebody holds it.
pub fn if_alone(oid: pg_sys::Oid, work: impl FnOnce()) {
    let (class, mode) = (
        pg_sys::TableSpaceRelationId,
        pg_sys::AccessExclusiveLock as i32,
    );
    // SAFETY: a heavyweight lock, released here, or by an error at the end of the transaction.
    unsafe {
        if pg_sys::ConditionalLockSharedObject(class, oid, 0, mode) {
            work();
            pg_sys::UnlockSharedObject(class, oid, 0, mode);
        }
    }
}

fn lock(oid: pg_sys::Oid, mode: u32) {
    // SAFETY: a heavyweight lock, released at the end of the transaction.
    unsafe { pg_sys::LockSharedObject(pg_sys::TableSpaceRelationId, oid, 0, mode as i32) }
}

/// The name of a tablespace, or its OID if it is gone.
pub fn name(oid: pg_sys::Oid) -> String {
    // SAFETY: a syscache look-up; the string is copied at once.
    unsafe {
        let name = pg_sys::get_tablespace_name(oid);
        if name.is_null() {
            return oid.to_u32().to_string();
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// What is set on a tablespace about its store, as its row has it now.
pub fn options(oid: pg_sys::Oid) -> Options {
    // SAFETY: a syscache look-up, released once the array has been read.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::TABLESPACEOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return Options::default();
        }
        let options = options_in(SPCOPTIONS.of(tuple));
        pg_sys::ReleaseSysCache(tuple);
        options
    }
}

/// Where they are.
const SPCOPTIONS: OptionsColumn = OptionsColumn {
    catalog: pg_sys::TableSpaceRelationId,
    cache: pg_sys::SysCacheIdentifier::TABLESPACEOID,
    attnum: pg_sys::Anum_pg_tablespace_spcoptions as i16,
    object: "tablespace",
};

/// Options as elements of an options list, which lives as long as the current memory context.
pub fn as_list(options: &Options) -> *mut pg_sys::List {
    options.kept().fold(std::ptr::null_mut(), |list, kept| {
        // SAFETY: the strings are copied.
        unsafe {
            let value = pg_sys::makeString(copied(&kept.1));
            let option = pg_sys::makeDefElem(copied(kept.0), value.cast(), -1);
            pg_sys::lappend(list, option.cast())
        }
    })
}

unsafe fn copied(text: &str) -> *mut std::ffi::c_char {
    // SAFETY: the length is that of the string.
    unsafe { pg_sys::pnstrdup(text.as_ptr().cast(), text.len()) }
}

/// Replaces our options in the row of `pg_tablespace`; the next command sees it.
///
/// # Safety
/// A list from [`as_list`], or null for none. The caller holds a lock on `pg_tablespace` that keeps
/// others from changing the row.
pub unsafe fn set_options(oid: pg_sys::Oid, list: *mut pg_sys::List) {
    let changes = [(all_names(), true), (list, false)];
    // SAFETY: by contract.
    unsafe {
        SPCOPTIONS.change(oid, &changes.map(|(list, reset)| Change { list, reset }));
        pg_sys::CommandCounterIncrement();
    }
}

fn all_names() -> *mut pg_sys::List {
    store_options::NAMES
        .iter()
        .fold(std::ptr::null_mut(), |list, name| {
            // SAFETY: the string is copied.
            unsafe {
                let option = pg_sys::makeDefElem(copied(name), std::ptr::null_mut(), -1);
                pg_sys::lappend(list, option.cast())
            }
        })
}
