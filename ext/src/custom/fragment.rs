//! A subtree in the engine. Hot rows are fed to it; where there are no cold rows, or the engine
//! can't be exact for the values that it meets, the subtree runs in Postgres instead.

use crate::am::dml::row_context;
use crate::am::hot::HotScan;
use crate::catalog::{data_file, storage};
use crate::cold::{Rows, Step};
use crate::custom::params;
use crate::custom::private::Private;
use crate::error;
use crate::guc;
use crate::relation::{self, Info};
use crate::types::{Codec, PinnedSettings, result_codec};
use pg_lake_plan::batch::BatchBuilder;
use pg_lake_plan::message::{FileRef, ScanStats, TableInput};
use pg_lake_plan::types::LakeType;
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::rc::Rc;

const ROWS_PER_BATCH: usize = 8192;

pub struct Fragment {
    relation: pg_sys::Relation,
    info: Rc<Info>,
    /// For each output column: how to make a datum of it.
    outputs: Vec<Codec>,
    subtree: *mut pg_sys::Plan,
    estate: *mut pg_sys::EState,
    eflags: i32,
    context: pg_sys::MemoryContext,
    state: Progress,
    pub stats: Option<ScanStats>,
    pub why_postgres: Option<&'static str>,
}

enum Progress {
    Begin,
    Engine(Box<Rows>),
    Postgres(*mut pg_sys::PlanState),
    End,
}

impl Fragment {
    pub unsafe fn begin(
        plan: *mut pg_sys::CustomScan,
        private: &Private,
        estate: *mut pg_sys::EState,
        eflags: i32,
    ) -> Fragment {
        // SAFETY: the executor's range table; the plan's lists are as `lower` made them.
        unsafe {
            let relation = pg_sys::ExecGetRangeTableRelation(estate, private.relations[0].rtindex);
            let types = private.fragment.root.output();
            let tlist = PgList::<pg_sys::TargetEntry>::from_pg((*plan).custom_scan_tlist);
            let outputs = types
                .iter()
                .zip(tlist.iter_ptr())
                .map(|(lake, entry)| result_codec(lake, pg_sys::exprType((*entry).expr.cast())))
                .collect();
            let plans = PgList::<pg_sys::Plan>::from_pg((*plan).custom_plans);
            Fragment {
                relation,
                info: relation::info(relation),
                outputs,
                subtree: plans.get_ptr(0).unwrap_or(std::ptr::null_mut()),
                estate,
                eflags,
                context: row_context(),
                state: Progress::Begin,
                stats: None,
                why_postgres: None,
            }
        }
    }

    /// Whether Postgres runs the subtree.
    pub fn replaced(&self) -> bool {
        matches!(self.state, Progress::Postgres(_))
    }

    unsafe fn use_postgres(&mut self, node: *mut pg_sys::CustomScanState, why: &'static str) {
        if self.subtree.is_null() {
            error::raise(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                "a lake fragment has no plan to fall back to",
                None,
                Some("SET lake.engine = off."),
            );
        }
        self.why_postgres = Some(why);
        // SAFETY: initialised late, in the query's context, as part of the running executor.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let child = pg_sys::ExecInitNode(self.subtree, self.estate, self.eflags);
            crate::hooks::executor::fit(child, std::ptr::null_mut());
            (*node).custom_ps = pg_sys::lappend((*node).custom_ps, child.cast());
            pg_sys::MemoryContextSwitchTo(old);
            self.state = Progress::Postgres(child);
        }
    }

    /// Starts at the first call.
    pub unsafe fn start(&mut self, node: *mut pg_sys::CustomScanState, private: &Private) {
        if !matches!(self.state, Progress::Begin) {
            return;
        }
        // SAFETY: the executor's snapshot and parameters.
        unsafe {
            let snapshot = (*self.estate).es_snapshot;
            let files: Vec<FileRef> = storage::of_relation(self.relation).map_or(vec![], |s| {
                data_file::list(s.id, snapshot)
                    .iter()
                    .map(data_file::DataFile::file_ref)
                    .collect()
            });
            if files.is_empty() && guc::engine() != guc::Engine::Force {
                return self.use_postgres(node, "no cold rows");
            }
            let Some(values) = params::values(node, &private.params) else {
                return self.use_postgres(node, "a parameter's value can't be represented");
            };
            let mut hot = HotScan::begin(self.relation, snapshot);
            let first = hot.next();
            let feeds = usize::from(first.is_some());
            let mut rows = Rows::start(private.fragment.clone(), values, feeds, |ids| {
                vec![TableInput {
                    files,
                    feed: ids.first().copied(),
                }]
            });
            let fed = match first {
                Some(first) => self.feed(&mut rows, &mut hot, first, private),
                None => true,
            };
            hot.end();
            if !fed {
                rows.stop();
                return self.use_postgres(node, "a hot row has a value that Iceberg can't hold");
            }
            self.state = Progress::Engine(Box::new(rows));
        }
    }

    /// Sends the hot rows; false if the engine can't be given one of them.
    unsafe fn feed(
        &self,
        rows: &mut Rows,
        hot: &mut HotScan,
        first: *mut pg_sys::TupleTableSlot,
        private: &Private,
    ) -> bool {
        let types: Vec<LakeType> = private
            .fragment
            .root
            .scan()
            .columns
            .iter()
            .map(|c| c.ty.lake.clone())
            .collect();
        let codecs: Vec<Option<&Codec>> = private.feed_columns[0]
            .iter()
            .map(|attnum| self.info.codecs.iter().find(|c| c.attnum == *attnum))
            .collect();
        let last = private.feed_columns[0].iter().copied().max().unwrap_or(0);
        let Some(call) = rows.call() else {
            return true;
        };
        let mut builder = BatchBuilder::new(&types);
        let mut buffer = vec![];
        let limit = guc::ring_bytes() as usize / 4;
        let mut slot = Some(first);
        let pinned = self.info.pinned_settings.then(PinnedSettings::new);
        while let Some(row) = slot {
            // SAFETY: the slot holds a row of the relation.
            unsafe {
                if last > 0 {
                    pg_sys::slot_getsomeattrs(row, i32::from(last));
                }
                for (codec, column) in codecs.iter().zip(&mut builder.columns) {
                    let result = match codec {
                        None => {
                            column.push_null();
                            Ok(())
                        }
                        Some(codec) => {
                            let at = codec.attnum as usize - 1;
                            codec.push(
                                *(*row).tts_values.add(at),
                                *(*row).tts_isnull.add(at),
                                column,
                            )
                        }
                    };
                    if result.is_err() {
                        return false;
                    }
                }
            }
            builder.end_row();
            slot = hot.next();
            let full = builder.rows() >= ROWS_PER_BATCH
                || (builder.rows() & 63 == 0 && builder.bytes() >= limit);
            if full || slot.is_none() {
                if let Err(e) = builder.finish(&mut buffer) {
                    error::raise(
                        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                        &e.to_string(),
                        None,
                        None,
                    );
                }
                if !call.feed(0, &buffer) {
                    return true; // the engine has ended: a LIMIT was reached, or its error comes next
                }
            }
        }
        drop(pinned);
        call.finish_feed(0);
        true
    }

    /// The next row of the engine, in the node's scan slot.
    pub fn next(&mut self, node: *mut pg_sys::CustomScanState) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the node's own slot; values go to a context that lives until the next row.
        unsafe {
            let slot = (*node).ss.ss_ScanTupleSlot;
            pg_sys::ExecClearTuple(slot);
            let Progress::Engine(rows) = &mut self.state else {
                return slot;
            };
            match rows.advance() {
                Step::Row => {
                    pg_sys::MemoryContextReset(self.context);
                    let old = pg_sys::MemoryContextSwitchTo(self.context);
                    for (i, codec) in self.outputs.iter().enumerate() {
                        let (datum, isnull) = rows.datum(i, codec);
                        *(*slot).tts_values.add(i) = datum;
                        *(*slot).tts_isnull.add(i) = isnull;
                    }
                    pg_sys::MemoryContextSwitchTo(old);
                    pg_sys::ExecStoreVirtualTuple(slot);
                }
                Step::End => {
                    self.stats = rows.stats.take();
                    self.state = Progress::End;
                }
                Step::NotExact => {
                    self.use_postgres(node, "a value is outside the engine's exact range");
                }
            }
            slot
        }
    }

    /// The next row of the subtree: filtered and projected already.
    pub unsafe fn next_of_plan(
        &mut self,
        node: *mut pg_sys::CustomScanState,
    ) -> *mut pg_sys::TupleTableSlot {
        let Progress::Postgres(child) = self.state else {
            return std::ptr::null_mut();
        };
        // SAFETY: as `ExecProcNode` (executor.h); the parent expects a slot of this node's kind.
        unsafe {
            if !(*child).chgParam.is_null() {
                pg_sys::ExecReScan(child);
            }
            let slot = match (*child).ExecProcNode {
                Some(next) => next(child),
                None => std::ptr::null_mut(),
            };
            let result = (*node).ss.ps.ps_ResultTupleSlot;
            if slot.is_null() || (*slot).tts_flags & pg_sys::TTS_FLAG_EMPTY as u16 != 0 {
                return pg_sys::ExecClearTuple(result);
            }
            pg_sys::ExecClearTuple(result);
            pg_sys::slot_getallattrs(slot);
            let natts = (*(*result).tts_tupleDescriptor).natts as usize;
            std::ptr::copy_nonoverlapping((*slot).tts_values, (*result).tts_values, natts);
            std::ptr::copy_nonoverlapping((*slot).tts_isnull, (*result).tts_isnull, natts);
            pg_sys::ExecStoreVirtualTuple(result)
        }
    }

    pub unsafe fn rescan(&mut self, node: *mut pg_sys::CustomScanState) {
        match &mut self.state {
            Progress::Engine(rows) => {
                rows.stop();
                self.state = Progress::Begin;
            }
            Progress::Postgres(child) => {
                // SAFETY: a child of this node; it hears of changed parameters as custom_ps does.
                unsafe {
                    let changed = (*node).ss.ps.chgParam;
                    if !changed.is_null() {
                        pg_sys::UpdateChangedParamSet(*child, changed);
                    }
                    if (*(*child)).chgParam.is_null() {
                        pg_sys::ExecReScan(*child);
                    }
                }
            }
            Progress::Begin => {}
            Progress::End => self.state = Progress::Begin,
        }
    }

    pub fn end(mut self) {
        match &mut self.state {
            Progress::Engine(rows) => rows.stop(),
            // SAFETY: ends what `use_postgres` began.
            Progress::Postgres(child) => unsafe { pg_sys::ExecEndNode(*child) },
            Progress::Begin | Progress::End => {}
        }
    }
}
