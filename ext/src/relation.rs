//! What this backend knows about iceberg relations, kept until the relation cache drops it.

use crate::types::{Codec, ValueError, codecs};
use crate::{error, guc};
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The columns of one relation.
pub struct Info {
    pub codecs: Vec<Codec>,
    /// Indexes into `codecs` of columns some of whose values Iceberg can't hold.
    pub to_check: Vec<usize>,
    /// Whether text representations depend on settings that must be pinned.
    pub pinned_settings: bool,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::new(Cache::default());
}

#[derive(Default)]
struct Cache {
    registered: bool,
    last: Option<(pg_sys::Oid, Rc<Info>)>,
    all: HashMap<pg_sys::Oid, Rc<Info>>,
}

/// Any change of any relation empties the cache: a column's composite type is a relation too.
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, _relid: pg_sys::Oid) {
    clear();
}

unsafe extern "C-unwind" fn type_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    clear();
}

fn clear() {
    CACHE.with(|cache| {
        if let Ok(mut cache) = cache.try_borrow_mut() {
            cache.last = None;
            cache.all.clear();
        }
    });
}

/// Describes an open relation; raises an error if a column's type can't be stored.
pub fn info(relation: pg_sys::Relation) -> Rc<Info> {
    // SAFETY: the relation is open.
    let relid = unsafe { (*relation).rd_id };
    let known = CACHE.with(|cache| {
        let mut cache = cache.borrow_mut();
        if let Some((last, info)) = &cache.last
            && *last == relid
        {
            return Some(info.clone());
        }
        let info = cache.all.get(&relid).cloned();
        if let Some(info) = &info {
            cache.last = Some((relid, info.clone()));
        }
        info
    });
    if let Some(info) = known {
        return info;
    }
    // SAFETY: the relation is open.
    let desc = unsafe { (*relation).rd_att };
    let info = Rc::new(describe(relation, desc));
    CACHE.with(|cache| {
        let mut cache = cache.borrow_mut();
        if !cache.registered {
            // SAFETY: registered once in this process.
            unsafe {
                pg_sys::CacheRegisterRelcacheCallback(
                    Some(relation_changed),
                    pg_sys::Datum::null(),
                );
                pg_sys::CacheRegisterSyscacheCallback(
                    pg_sys::SysCacheIdentifier::TYPEOID as i32,
                    Some(type_changed),
                    pg_sys::Datum::null(),
                );
            }
            cache.registered = true;
        }
        cache.all.insert(relid, info.clone());
    });
    info
}

/// Describes rows of a relation as a descriptor has them: a rewriting ALTER TABLE reads with the
/// old one while the relation has the new one already.
pub fn info_as(relation: pg_sys::Relation, desc: pg_sys::TupleDesc) -> Rc<Info> {
    // SAFETY: both descriptors are valid.
    let same = unsafe {
        let own = (*relation).rd_att;
        std::ptr::eq(own, desc) || pg_sys::equalRowTypes(own, desc)
    };
    if same {
        info(relation)
    } else {
        Rc::new(describe(relation, desc))
    }
}

fn describe(relation: pg_sys::Relation, desc: pg_sys::TupleDesc) -> Info {
    // SAFETY: the relation is open, the descriptor valid.
    let (codecs, persistence) =
        unsafe { (codecs(desc), (*(*relation).rd_rel).relpersistence as u8) };
    let codecs = codecs.unwrap_or_else(|e| {
        error::raise(e.code, &e.message, e.detail.as_deref(), e.hint.as_deref())
    });
    let permanent = persistence == pg_sys::RELPERSISTENCE_PERMANENT;
    Info {
        to_check: if permanent {
            (0..codecs.len())
                .filter(|i| codecs[*i].has_unstorable_values())
                .collect()
        } else {
            vec![]
        },
        pinned_settings: codecs.iter().any(Codec::needs_pinned_settings),
        codecs,
    }
}

/// Raises an error if Iceberg can't hold a value of the row, where `lake.unstorable_values` says so.
#[inline]
pub fn check_row(relation: pg_sys::Relation, slot: *mut pg_sys::TupleTableSlot) {
    if guc::unstorable_values() == guc::Unstorable::KeepHot {
        return;
    }
    if let Err(e) = storable(&info(relation), slot) {
        error::raise(e.code, &e.message, e.detail.as_deref(), e.hint.as_deref())
    }
}

/// Whether a Parquet file can hold the row; what it can't hold stays hot. A file without columns has
/// no rows, either.
#[inline]
pub fn is_storable(info: &Info, slot: *mut pg_sys::TupleTableSlot) -> bool {
    !info.codecs.is_empty() && (info.to_check.is_empty() || storable(info, slot).is_ok())
}

fn storable(info: &Info, slot: *mut pg_sys::TupleTableSlot) -> Result<(), ValueError> {
    for &i in &info.to_check {
        let codec = &info.codecs[i];
        let mut isnull = false;
        // SAFETY: the slot holds a row of the relation.
        unsafe {
            let datum = pg_sys::slot_getattr(slot, i32::from(codec.attnum), &mut isnull);
            if !isnull {
                codec.check(datum)?;
            }
        }
    }
    Ok(())
}
