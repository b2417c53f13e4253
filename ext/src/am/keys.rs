//! Whether an update of a cold row changes a column that a foreign key may refer to.

use crate::am::cold_dml::ColdRow;
use crate::pg::missing;
use pgrx::pg_sys;

/// Compares the row with its new version, as `HeapDetermineColumnsInfo` does; a row that can't be
/// read counts as changed.
pub fn change(row: &ColdRow, new: *mut pg_sys::TupleTableSlot) -> bool {
    // SAFETY: the relation is open; the bitmap is a copy of ours.
    unsafe {
        let kind = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_KEY;
        let keys = pg_sys::RelationGetIndexAttrBitmap(row.relation, kind);
        if keys.is_null() {
            return false;
        }
        let desc = (*row.relation).rd_att;
        let old = pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsHeapTuple);
        let changed = !row.fetch(old) || differ(keys, desc, old, new);
        pg_sys::ExecDropSingleTupleTableSlot(old);
        pg_sys::bms_free(keys);
        changed
    }
}

unsafe fn differ(
    keys: *mut pg_sys::Bitmapset,
    desc: pg_sys::TupleDesc,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
) -> bool {
    let mut member = -1;
    loop {
        // SAFETY: members are attribute numbers with an offset; both slots have the descriptor.
        unsafe {
            member = pg_sys::bms_next_member(keys, member);
            if member < 0 {
                return false;
            }
            let attnum = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
            if attnum <= 0 {
                return true; // a whole row or a system column
            }
            let (mut old_null, mut new_null) = (false, false);
            let old = pg_sys::slot_getattr(old, attnum, &mut old_null);
            let new = pg_sys::slot_getattr(new, attnum, &mut new_null);
            let attribute = (*desc).attrs.as_ptr().add(attnum as usize - 1);
            let same = old_null == new_null
                && (old_null
                    || missing::datum_image_eq(
                        old,
                        new,
                        (*attribute).attbyval,
                        i32::from((*attribute).attlen),
                    ));
            if !same {
                return true;
            }
        }
    }
}
