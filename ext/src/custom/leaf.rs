//! One table's rows: hot rows through heap with the pushed quals evaluated here, then cold rows
//! that the engine has filtered and projected.

use crate::am::count_returned;
use crate::am::hot::HotScan;
use crate::catalog::{data_file, storage};
use crate::cold::Rows;
use crate::cold::recent::{self, Layout};
use crate::custom::direct::Direct;
use crate::custom::params;
use crate::custom::private::Private;
use crate::pg::slots;
use crate::relation::{self, Info};
use crate::types::{PinnedSettings, Space};
use crate::whole;
use pg_lake_plan::ir::Plan;
use pg_lake_plan::message::{FileRef, ScanStats, TableInput};
use pgrx::pg_sys;
use std::rc::Rc;

pub struct Leaf {
    relation: pg_sys::Relation,
    info: Rc<Info>,
    /// For each used column of the scan: index into `info.codecs`, `None` for the row number.
    columns: Vec<Option<usize>>,
    /// Where a batch has whole rows, if it has them.
    whole: Option<Layout>,
    /// The quals in the scan's predicate.
    pushed: *mut pg_sys::ExprState,
    needed_attrs: i32,
    space: Space,
    stage: Stage,
    files: Vec<FileRef>,
    /// The engine got no predicate: its rows must pass the pushed quals here.
    recheck: bool,
    /// It got one.
    filtered: bool,
    pub stats: Option<ScanStats>,
}

enum Stage {
    Begin,
    Hot(HotScan),
    Cold(Box<Rows>),
    End,
}

impl Leaf {
    pub unsafe fn begin(
        node: *mut pg_sys::CustomScanState,
        plan: *mut pg_sys::CustomScan,
        private: &Private,
    ) -> Leaf {
        // SAFETY: the executor has opened the relation of `scanrelid`.
        unsafe {
            let relation = (*node).ss.ss_currentRelation;
            let info = relation::info(relation);
            let attnums = &private.inputs[0].columns;
            let whole = Layout::of(&info, attnums);
            let attnums = &attnums[..private.used];
            let columns: Vec<_> = attnums
                .iter()
                .map(|attnum| info.codecs.iter().position(|c| c.attnum == *attnum))
                .collect();
            let needed_attrs = attnums.iter().copied().max().unwrap_or(0).max(0);
            Leaf {
                relation,
                columns,
                whole,
                info,
                pushed: pg_sys::ExecInitQual((*plan).custom_exprs, &mut (*node).ss.ps),
                needed_attrs: i32::from(needed_attrs),
                space: Space::for_rows(),
                stage: Stage::Begin,
                files: vec![],
                recheck: false,
                filtered: false,
                stats: None,
            }
        }
    }

    pub fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        private: &Private,
        mut direct: Option<&mut Direct>,
    ) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the node's own slot and contexts.
        unsafe {
            let slot = (*node).ss.ss_ScanTupleSlot;
            let econtext = (*node).ss.ps.ps_ExprContext;
            loop {
                match &mut self.stage {
                    Stage::Begin => {
                        let snapshot = (*(*node).ss.ps.state).es_snapshot;
                        self.files = storage::of_relation(self.relation).map_or(vec![], |s| {
                            let mut files = data_file::list(s.id, snapshot);
                            whole::leave_out(self.relation, snapshot, &mut files);
                            files.iter().map(data_file::DataFile::file_ref).collect()
                        });
                        self.stage = Stage::Hot(HotScan::begin(self.relation, snapshot));
                    }
                    Stage::Hot(scan) => {
                        if let Some(hot) = scan.next() {
                            self.fill_from_hot(slot, hot);
                            if self.passes(slot, econtext) {
                                return slot;
                            }
                        } else {
                            let Stage::Hot(scan) = std::mem::replace(&mut self.stage, Stage::End)
                            else {
                                continue;
                            };
                            scan.end();
                            if !self.files.is_empty() {
                                self.stage = Stage::Cold(Box::new(self.start_cold(node, private)));
                            }
                        }
                    }
                    Stage::Cold(rows) => {
                        if rows.advance() {
                            if let Some(direct) = &mut direct
                                && !self.recheck
                                && direct.take(rows)
                            {
                                continue;
                            }
                            if let (Some(layout), Some(batch)) = (&self.whole, rows.fresh_batch()) {
                                recent::remember(self.relation, &self.info, batch, layout);
                            }
                            self.fill_from_cold(slot);
                            if !self.recheck || self.passes(slot, econtext) {
                                return slot;
                            }
                        } else {
                            self.stats = rows.stats.take();
                            count_returned(self.relation, self.live_rows());
                            self.stage = Stage::End;
                        }
                    }
                    Stage::End => {
                        slots::clear(slot);
                        return slot;
                    }
                }
            }
        }
    }

    /// The statistics of the table get the rows that a scan has passed: as heap counts rows that a filter drops,
    /// those of files that the engine could leave out are among them.
    fn live_rows(&self) -> u64 {
        self.files.iter().map(live_rows).sum()
    }

    /// The same for a scan that ends before its last row. What the engine had to read to find rows that pass is only
    /// known as far as it has said.
    fn count_some(&self, rows: &Rows) {
        let mut passed = rows.returned();
        if self.filtered {
            passed = passed.max(rows.rows_cold().min(self.live_rows()));
        }
        count_returned(self.relation, passed);
    }

    unsafe fn start_cold(&mut self, node: *mut pg_sys::CustomScanState, private: &Private) -> Rows {
        // SAFETY: the node's parameters.
        let bound = unsafe { params::bind(node, &private.fragment, &private.params) };
        self.recheck = bound.is_none();
        let (fragment, values) = bound.unwrap_or_else(|| {
            let mut fragment = private.fragment.clone();
            if let Plan::Scan(scan) = &mut fragment.root {
                scan.predicate = None;
            }
            (fragment, vec![])
        });
        let scan = fragment.root.as_scan();
        self.filtered = scan.is_some_and(|scan| scan.predicate.is_some());
        let files = self.files.clone();
        Rows::start(fragment, values, 0, |_| {
            vec![TableInput { files, feed: None }]
        })
    }

    unsafe fn passes(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        econtext: *mut pg_sys::ExprContext,
    ) -> bool {
        // SAFETY: quals over the scan tuple.
        unsafe {
            (*econtext).ecxt_scantuple = slot;
            let passes = pg_sys::ExecQual(self.pushed, econtext);
            pg_sys::MemoryContextReset((*econtext).ecxt_per_tuple_memory);
            passes
        }
    }

    /// Whether a row that EvalPlanQual puts in the scan's place passes the quals that the engine has.
    pub unsafe fn recheck(
        &self,
        node: *mut pg_sys::CustomScanState,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        // SAFETY: the slot has the relation's descriptor. Expressions of this node are compiled for a
        // virtual slot, whose values they take as they are: this one's must be there.
        unsafe {
            pg_sys::slot_getallattrs(slot);
            self.passes(slot, (*node).ss.ps.ps_ExprContext)
        }
    }

    /// Lets the slot point to the hot row's values, which stay until the scan moves on.
    unsafe fn fill_from_hot(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        hot: *mut pg_sys::TupleTableSlot,
    ) {
        // SAFETY: both slots have the relation's descriptor.
        unsafe {
            self.clear(slot);
            if self.needed_attrs > 0 {
                pg_sys::slot_getsomeattrs(hot, self.needed_attrs);
            }
            for codec in self.columns.iter().flatten().map(|i| &self.info.codecs[*i]) {
                let at = codec.attnum as usize - 1;
                *(*slot).tts_values.add(at) = *(*hot).tts_values.add(at);
                *(*slot).tts_isnull.add(at) = *(*hot).tts_isnull.add(at);
            }
            slots::store_virtual(slot);
            (*slot).tts_tid = (*hot).tts_tid;
            (*slot).tts_tableOid = (*self.relation).rd_id;
        }
    }

    unsafe fn clear(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the arrays have an entry for each attribute.
        unsafe {
            slots::clear(slot);
            let natts = (*(*slot).tts_tupleDescriptor).natts as usize;
            std::slice::from_raw_parts_mut((*slot).tts_isnull, natts).fill(true);
        }
    }

    unsafe fn fill_from_cold(&self, slot: *mut pg_sys::TupleTableSlot) {
        let Stage::Cold(rows) = &self.stage else {
            return;
        };
        // SAFETY: values go where they live until the next row.
        unsafe {
            self.clear(slot);
            let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
            let tid = self.space.next_row(|| {
                let pinned = self.info.pinned_settings.then(|| {
                    // What the settings' own functions leave behind goes with the row.
                    self.space.overflows();
                    PinnedSettings::new()
                });
                let mut tid = None;
                for (i, column) in self.columns.iter().enumerate() {
                    match column {
                        Some(codec) => {
                            let codec = &self.info.codecs[*codec];
                            let at = codec.attnum as usize - 1;
                            let (datum, isnull) = rows.datum(i, codec, &self.space);
                            *values.add(at) = datum;
                            *nulls.add(at) = isnull;
                        }
                        None => tid = Some(data_file::tid_of(rows.int8(i) as u64)),
                    }
                }
                drop(pinned);
                tid
            });
            slots::store_virtual(slot);
            match tid {
                Some((block, offset)) => {
                    pg_sys::ItemPointerSet(&mut (*slot).tts_tid, block, offset);
                }
                None => pg_sys::ItemPointerSetInvalid(&mut (*slot).tts_tid),
            }
            (*slot).tts_tableOid = (*self.relation).rd_id;
        }
    }

    fn stop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::End) {
            Stage::Hot(scan) => scan.end(),
            Stage::Cold(mut rows) => {
                self.count_some(&rows);
                rows.stop();
            }
            Stage::Begin | Stage::End => {}
        }
    }

    pub fn rescan(&mut self) {
        self.stop();
        self.stage = Stage::Begin;
    }

    pub fn end(mut self) {
        self.stop();
    }
}

/// Rows of a file that aren't deleted.
pub fn live_rows(file: &FileRef) -> u64 {
    let deleted = file.deleted.len() as u64;
    file.rows.count().saturating_sub(deleted)
}
