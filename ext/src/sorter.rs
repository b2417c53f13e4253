//! Rows of a table that is partitioned or sorted, put in order before they become files: by Postgres' own sort, with
//! its collations, its bound of memory and its temporary files.
//!
//! A row in the sort has the table's columns, its place among the rows, and the key of its partition. Partitions come
//! one after another, rows of a partition as `sort_by` says, equal ones in the order of their places.

use crate::catalog::layout::{self, Layout};
use crate::pg::table::bytea_datum;
use crate::relation::Info;
use crate::types;
use pgrx::pg_sys;

/// A sort under way. Dropped without [`Sorter::end`], it is left to the end of the (sub)transaction, which frees its
/// memory and closes its files: an error doesn't leave either in a state to be used.
pub struct Sorter {
    state: *mut pg_sys::Tuplesortstate,
    /// A child of the (sub)transaction's, with all of the sort in it.
    context: pg_sys::MemoryContext,
    input: *mut pg_sys::TupleTableSlot,
    output: *mut pg_sys::TupleTableSlot,
    /// Columns of the table, dropped ones included.
    natts: usize,
    /// Numbers of those that aren't dropped.
    live: Vec<usize>,
    partitioned: bool,
}

/// What a row is sorted by.
#[derive(Default)]
struct Keys {
    attributes: Vec<pg_sys::AttrNumber>,
    operators: Vec<pg_sys::Oid>,
    collations: Vec<pg_sys::Oid>,
    nulls_first: Vec<bool>,
}

impl Keys {
    fn push(&mut self, attribute: usize, operator: pg_sys::Oid) {
        self.attributes.push(attribute as pg_sys::AttrNumber);
        self.operators.push(operator);
        self.collations.push(pg_sys::InvalidOid);
        self.nulls_first.push(false);
    }
}

fn less_than(typid: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a built-in type; entries of the type cache are never freed.
    unsafe { (*pg_sys::lookup_type_cache(typid, pg_sys::TYPECACHE_LT_OPR as i32)).lt_opr }
}

impl Sorter {
    /// Begins a sort of rows of a relation that takes about so many kilobytes of memory.
    pub fn begin(
        relation: pg_sys::Relation,
        info: &Info,
        layout: &Layout,
        memory_kb: i32,
    ) -> Sorter {
        // SAFETY: the relation is open.
        let natts = unsafe { (*(*relation).rd_att).natts } as usize;
        let partitioned = !layout.partition_by.is_empty();
        let mut keys = Keys::default();
        if partitioned {
            keys.push(natts + 2, less_than(pg_sys::BYTEAOID));
        }
        for key in &layout.sort_by {
            let Some(codec) = layout::codec(info, key.source_id) else {
                continue;
            };
            let Some(operator) = layout::ordering_operator(codec, key.descending) else {
                continue;
            };
            keys.push(codec.attnum as usize, operator);
            if let (Some(collation), Some(nulls)) =
                (keys.collations.last_mut(), keys.nulls_first.last_mut())
            {
                *collation = codec.collation;
                *nulls = key.nulls_first;
            }
        }
        keys.push(natts + 1, less_than(pg_sys::INT8OID));
        // SAFETY: the context outlives the (sub)transaction's use of it; what is made here is made in it.
        let context = unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurTransactionContext,
                c"rows of an iceberg table".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        };
        // SAFETY: the descriptor has as many entries as are made; the arrays are as long as the number of keys, and are
        // copied. All of it is made in the new context.
        let (state, input, output) = unsafe {
            let before = pg_sys::MemoryContextSwitchTo(context);
            let desc = descriptor((*relation).rd_att, partitioned);
            let state = pg_sys::tuplesort_begin_heap(
                desc,
                keys.attributes.len() as i32,
                keys.attributes.as_mut_ptr(),
                keys.operators.as_mut_ptr(),
                keys.collations.as_mut_ptr(),
                keys.nulls_first.as_mut_ptr(),
                memory_kb,
                std::ptr::null_mut(),
                pg_sys::TUPLESORT_NONE as i32,
            );
            let input = pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsVirtual);
            let output =
                pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsMinimalTuple);
            pg_sys::MemoryContextSwitchTo(before);
            (state, input, output)
        };
        Sorter {
            state,
            context,
            input,
            output,
            natts,
            live: info.codecs.iter().map(|c| c.attnum as usize - 1).collect(),
            partitioned,
        }
    }

    /// Takes the row of a slot, whose values have been read, with its place and the key of its partition.
    pub fn push(&mut self, slot: *mut pg_sys::TupleTableSlot, place: i64, partition: &[u8]) {
        // SAFETY: both slots have the table's columns, ours two more; the sort copies the row. Values that are stored
        // out of line stay there until they are read: the snapshot that found them is held until then.
        unsafe {
            pg_sys::ExecClearTuple(self.input);
            let (values, nulls) = ((*self.input).tts_values, (*self.input).tts_isnull);
            for i in 0..self.natts {
                *nulls.add(i) = true;
            }
            for &i in &self.live {
                *values.add(i) = *(*slot).tts_values.add(i);
                *nulls.add(i) = *(*slot).tts_isnull.add(i);
            }
            *values.add(self.natts) = place.into();
            *nulls.add(self.natts) = false;
            let mut key = std::ptr::null_mut();
            if self.partitioned {
                let datum = bytea_datum(partition);
                key = datum.cast_mut_ptr::<std::ffi::c_void>();
                *values.add(self.natts + 1) = datum;
                *nulls.add(self.natts + 1) = false;
            }
            pg_sys::ExecStoreVirtualTuple(self.input);
            pg_sys::tuplesort_puttupleslot(self.state, self.input);
            pg_sys::ExecClearTuple(self.input);
            if !key.is_null() {
                pg_sys::pfree(key);
            }
        }
    }

    /// Sorts what was pushed.
    pub fn perform(&mut self) {
        // SAFETY: begun and not ended.
        unsafe { pg_sys::tuplesort_performsort(self.state) }
    }

    /// The next row and its place; the slot has the table's columns first, and is valid until the next call.
    pub fn next(&mut self) -> Option<(*mut pg_sys::TupleTableSlot, i64)> {
        // SAFETY: performed and not ended; the slot is of the sort's rows.
        unsafe {
            let found = pg_sys::tuplesort_gettupleslot(
                self.state,
                true,
                false,
                self.output,
                std::ptr::null_mut(),
            );
            if !found {
                return None;
            }
            pg_sys::slot_getallattrs(self.output);
            let place = (*(*self.output).tts_values.add(self.natts)).value() as i64;
            Some((self.output, place))
        }
    }

    /// Whether the row that [`Sorter::next`] gave is in another partition than `key` says, which becomes its own.
    pub fn changes_partition(&self, key: &mut Vec<u8>) -> bool {
        if !self.partitioned {
            return false;
        }
        // SAFETY: the slot holds a row whose last column is a bytea that isn't null.
        unsafe {
            let datum = *(*self.output).tts_values.add(self.natts + 1);
            types::with_payload(datum, |bytes| {
                let changes = bytes != key.as_slice();
                if changes {
                    key.clear();
                    key.extend_from_slice(bytes);
                }
                changes
            })
        }
    }

    /// Frees everything.
    pub fn end(self) {
        // SAFETY: begun and not ended; nothing of it is used any more.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.input);
            pg_sys::ExecDropSingleTupleTableSlot(self.output);
            pg_sys::tuplesort_end(self.state);
            pg_sys::MemoryContextDelete(self.context);
        }
    }
}

/// The table's columns, the place, and the partition's key.
unsafe fn descriptor(table: pg_sys::TupleDesc, partitioned: bool) -> pg_sys::TupleDesc {
    // SAFETY: by contract a valid descriptor; the new one has room for all entries.
    unsafe {
        let natts = (*table).natts as pg_sys::AttrNumber;
        let desc = pg_sys::CreateTemplateTupleDesc(i32::from(natts) + 1 + i32::from(partitioned));
        for i in 1..=natts {
            pg_sys::TupleDescCopyEntry(desc, i, table, i);
        }
        pg_sys::TupleDescInitEntry(desc, natts + 1, c"place".as_ptr(), pg_sys::INT8OID, -1, 0);
        if partitioned {
            pg_sys::TupleDescInitEntry(
                desc,
                natts + 2,
                c"partition".as_ptr(),
                pg_sys::BYTEAOID,
                -1,
                0,
            );
        }
        desc
    }
}
