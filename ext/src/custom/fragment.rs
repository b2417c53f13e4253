//! A subtree in the engine. Hot rows, and rows of plans that stay in Postgres, are fed to it; where there
//! are no cold rows, or the engine can't be exact for the values that it meets, the subtree runs in
//! Postgres instead.

use crate::am::count_returned;
use crate::am::dml::row_context;
use crate::am::hot::HotScan;
use crate::catalog::{data_file, storage};
use crate::cold::{Arrived, Rows, Step};
use crate::custom::direct::Direct;
use crate::custom::encoding::Encoding;
use crate::custom::feeds::{Contexts, Feeds, Origin, Pumped};
use crate::custom::leaf::live_rows;
use crate::custom::params;
use crate::custom::private::{Input, Private, Source};
use crate::pg::{missing, slots};
use crate::ring::call::feeds_max;
use crate::types::{Codec, Space, ValueError, result_codec};
use crate::{error, guc, relation};
use pg_lake_plan::ir::ScanColumn;
use pg_lake_plan::message::{FileRef, ScanStats, TableInput};
use pgrx::{PgList, PgSqlErrorCode, pg_sys};
use std::rc::Rc;

pub struct Fragment {
    /// By the fragment's table number.
    tables: Vec<Table>,
    /// For each output column: how to make a datum of it.
    outputs: Vec<Codec>,
    subtree: *mut pg_sys::Plan,
    estate: *mut pg_sys::EState,
    eflags: i32,
    /// For the values of a row that is returned.
    space: Space,
    /// For what a batch that is fed leaves behind.
    batch: pg_sys::MemoryContext,
    /// The parameters that initplans within the fed plans set.
    fed_params: Vec<usize>,
    state: Progress,
    pub stats: Option<ScanStats>,
    pub why_postgres: Option<&'static str>,
}

/// A table that the fragment scans.
struct Table {
    source: TableSource,
    encoding: Rc<Encoding>,
}

enum TableSource {
    Relation(pg_sys::Relation),
    Plan(*mut pg_sys::PlanState),
}

enum Progress {
    Begin,
    Engine(Box<Running>),
    Postgres(*mut pg_sys::PlanState),
    End,
}

/// A request under way.
struct Running {
    rows: Rows,
    feeds: Feeds,
    /// For each table, the rows of its files.
    cold_rows: Vec<u64>,
    /// No row is returned before all are fed: one that can't be sends the whole fragment back to Postgres.
    holds_back: bool,
}

impl Fragment {
    /// Opens the tables, and starts the plans that feed, whether or not they will be run.
    ///
    /// # Safety
    /// Arguments of the executor's callback, in the query's memory context.
    pub unsafe fn begin(
        node: *mut pg_sys::CustomScanState,
        plan: *mut pg_sys::CustomScan,
        private: &Private,
        estate: *mut pg_sys::EState,
        eflags: i32,
    ) -> Fragment {
        // SAFETY: the executor's range table; the plan's lists are as `lower` made them.
        unsafe {
            let types = private.fragment.root.output();
            let tlist = PgList::<pg_sys::TargetEntry>::from_pg((*plan).custom_scan_tlist);
            let outputs = types
                .iter()
                .zip(tlist.iter_ptr())
                .map(|(lake, entry)| result_codec(lake, pg_sys::exprType((*entry).expr.cast())))
                .collect();
            let plans = PgList::<pg_sys::Plan>::from_pg((*plan).custom_plans);
            let scans = private.fragment.root.scans();
            let known = params::pending(estate);
            let mut tables = vec![];
            for (number, input) in private.inputs.iter().enumerate() {
                let scan = scans.iter().find(|scan| scan.table as usize == number);
                let columns = scan.map(|scan| scan.columns.as_slice()).unwrap_or_default();
                tables.push(match input.source {
                    Source::Relation { rtindex, .. } => {
                        Table::relation(estate, rtindex, input, columns)
                    }
                    Source::Plan(index) => {
                        let Some(plan) = plans.get_ptr(index as usize) else {
                            malformed("a lake fragment has no plan to be fed from");
                        };
                        let table = Table::plan(estate, eflags, plan, input, columns);
                        if let TableSource::Plan(child) = table.source {
                            (*node).custom_ps = pg_sys::lappend((*node).custom_ps, child.cast());
                        }
                        table
                    }
                });
            }
            let mut fed_params = params::pending(estate);
            fed_params.retain(|id| !known.contains(id));
            Fragment {
                tables,
                outputs,
                subtree: plans.get_ptr(0).unwrap_or(std::ptr::null_mut()),
                estate,
                eflags,
                space: Space::for_rows(),
                batch: row_context(),
                fed_params,
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
            malformed("a lake fragment has no plan to fall back to");
        }
        self.why_postgres = Some(why);
        // SAFETY: initialised late, in the query's context, as part of the running executor.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            for child in self.fed_plans() {
                rewind_work_tables(child);
            }
            let pending = params::pending(self.estate);
            let child = pg_sys::ExecInitNode(self.subtree, self.estate, self.eflags);
            // A fed plan is a part of the subtree: what its initplans have found out already counts, as
            // these can't be run a second time without being told to start again.
            let computed = self.fed_params.iter().filter(|id| !pending.contains(id));
            params::set_computed(self.estate, computed);
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
        // SAFETY: the request belongs to the query, whatever context the caller is in.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            match self.request(node, private) {
                Ok(running) => self.state = Progress::Engine(Box::new(running)),
                Err(why) => self.use_postgres(node, why),
            }
            pg_sys::MemoryContextSwitchTo(old);
        }
    }

    /// Sends the request; or why Postgres is to run the subtree.
    unsafe fn request(
        &self,
        node: *mut pg_sys::CustomScanState,
        private: &Private,
    ) -> Result<Running, &'static str> {
        // SAFETY: the executor's snapshot and parameters.
        unsafe {
            let snapshot = (*self.estate).es_snapshot;
            let files: Vec<Vec<FileRef>> = self
                .tables
                .iter()
                .map(|table| table.files(snapshot))
                .collect();
            if files.iter().all(Vec::is_empty) && guc::engine() != guc::Engine::Force {
                return Err("no cold rows");
            }
            let (fragment, values) = params::bind(node, &private.fragment, &private.params)
                .ok_or("a parameter's value can't be represented")?;
            let mut feeds = Feeds::new(Contexts {
                query: (*self.estate).es_query_cxt,
                batch: self.batch,
            });
            let mut fed = vec![];
            for table in &self.tables {
                let origin = table.origin(snapshot);
                fed.push(origin.is_some());
                if let Some(origin) = origin {
                    feeds.add(origin, table.encoding.clone());
                }
            }
            if feeds.count() > feeds_max() {
                feeds.end();
                return Err("it takes more feeds than lake.streams allows");
            }
            let cold_rows: Vec<u64> = files
                .iter()
                .map(|files| files.iter().map(live_rows).sum::<u64>())
                .collect();
            let rows = Rows::start(fragment, values, feeds.count(), |ids| {
                let mut ids = ids.iter().copied();
                files
                    .into_iter()
                    .zip(fed)
                    .map(|(files, fed)| TableInput {
                        files,
                        feed: if fed { ids.next() } else { None },
                    })
                    .collect()
            });
            Ok(Running {
                rows,
                holds_back: feeds.may_be_refused(),
                feeds,
                cold_rows,
            })
        }
    }

    /// The next row of the engine, in the node's scan slot.
    pub fn next(
        &mut self,
        node: *mut pg_sys::CustomScanState,
        direct: Option<&mut Direct>,
    ) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the node's own slot; values go to a context that lives until the next row.
        unsafe {
            let slot = (*node).ss.ss_ScanTupleSlot;
            slots::clear(slot);
            let Progress::Engine(running) = &mut self.state else {
                return slot;
            };
            let old = pg_sys::MemoryContextSwitchTo((*self.estate).es_query_cxt);
            let mut step = running.step();
            if let Some(direct) = direct {
                while matches!(step, Ok(Step::Row)) && direct.take(&mut running.rows) {
                    step = running.step();
                }
            }
            pg_sys::MemoryContextSwitchTo(old);
            match step {
                Ok(Step::Row) => {
                    let (values, nulls) = ((*slot).tts_values, (*slot).tts_isnull);
                    self.space.next_row(|| {
                        for (i, codec) in self.outputs.iter().enumerate() {
                            let (datum, isnull) = running.rows.datum(i, codec, &self.space);
                            *values.add(i) = datum;
                            *nulls.add(i) = isnull;
                        }
                    });
                    slots::store_virtual(slot);
                }
                Ok(Step::End) => {
                    self.stats = running.rows.stats.take();
                    running.stop();
                    if let Some(stats) = &self.stats {
                        self.count_returned(&stats.rows_of_tables);
                    }
                    self.state = Progress::End;
                }
                Ok(Step::NotExact(_)) => {
                    running.stop();
                    self.use_postgres(node, "a value is outside the engine's exact range");
                }
                Err(e) if running.rows.delivered => e.raise(),
                Err(_) => {
                    running.stop();
                    self.use_postgres(node, "a fed row has a value that Iceberg can't hold");
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
        // SAFETY: a child of this node; the parent expects a slot of this node's kind.
        unsafe {
            let slot = missing::exec_proc_node(child);
            let result = pg_sys::ExecClearTuple((*node).ss.ps.ps_ResultTupleSlot);
            if slot.is_null() {
                return result;
            }
            pg_sys::slot_getallattrs(slot);
            let natts = (*(*result).tts_tupleDescriptor).natts as usize;
            std::ptr::copy_nonoverlapping((*slot).tts_values, (*result).tts_values, natts);
            std::ptr::copy_nonoverlapping((*slot).tts_isnull, (*result).tts_isnull, natts);
            pg_sys::ExecStoreVirtualTuple(result)
        }
    }

    /// The tables' statistics get what the engine has read of them; hot rows are counted where they are fed.
    fn count_returned(&self, rows_of_tables: &[u64]) {
        for (table, rows) in self.tables.iter().zip(rows_of_tables) {
            if let TableSource::Relation(relation) = table.source {
                count_returned(relation, *rows);
            }
        }
    }

    /// The plans that feed. Whether they have been run or not, they are whole until the end: a CTE's rows
    /// may be held by one of them for other scans of it.
    fn fed_plans(&self) -> impl Iterator<Item = *mut pg_sys::PlanState> + '_ {
        self.tables.iter().filter_map(|table| match table.source {
            TableSource::Plan(child) => Some(child),
            TableSource::Relation(_) => None,
        })
    }

    pub unsafe fn rescan(&mut self, node: *mut pg_sys::CustomScanState) {
        // SAFETY: the node, and its children.
        unsafe {
            let changed = (*node).ss.ps.chgParam;
            match &mut self.state {
                Progress::Postgres(child) => return rescan_child(*child, changed),
                Progress::Engine(_) => self.stop(),
                Progress::Begin | Progress::End => {}
            }
            self.state = Progress::Begin;
            for child in self.fed_plans() {
                rescan_child(child, changed);
            }
        }
    }

    /// Ends the request before its last row, if it runs.
    fn stop(&mut self) {
        let Progress::Engine(running) = &mut self.state else {
            return;
        };
        let read = running.read();
        running.stop();
        self.count_returned(&read);
    }

    pub fn end(mut self) {
        self.stop();
        // SAFETY: ends what `use_postgres` and `begin` began.
        unsafe {
            if let Progress::Postgres(child) = self.state {
                pg_sys::ExecEndNode(child);
            }
            for child in self.fed_plans() {
                pg_sys::ExecEndNode(child);
            }
        }
    }
}

impl Table {
    unsafe fn relation(
        estate: *mut pg_sys::EState,
        rtindex: u32,
        input: &Input,
        columns: &[ScanColumn],
    ) -> Table {
        // SAFETY: the executor's range table, which closes it.
        let relation = unsafe { pg_sys::ExecGetRangeTableRelation(estate, rtindex) };
        let info = relation::info(relation);
        Table {
            source: TableSource::Relation(relation),
            encoding: Rc::new(Encoding::of_relation(info, &input.columns, columns)),
        }
    }

    unsafe fn plan(
        estate: *mut pg_sys::EState,
        eflags: i32,
        plan: *mut pg_sys::Plan,
        input: &Input,
        columns: &[ScanColumn],
    ) -> Table {
        // SAFETY: a plan of the statement that is being started.
        unsafe {
            Table {
                encoding: Rc::new(Encoding::of_plan(plan, &input.columns, columns)),
                source: TableSource::Plan(pg_sys::ExecInitNode(plan, estate, eflags)),
            }
        }
    }

    /// Its cold rows.
    fn files(&self, snapshot: pg_sys::Snapshot) -> Vec<FileRef> {
        let TableSource::Relation(relation) = self.source else {
            return vec![];
        };
        storage::of_relation(relation).map_or(vec![], |s| {
            data_file::list(s.id, snapshot)
                .iter()
                .map(data_file::DataFile::file_ref)
                .collect()
        })
    }

    /// What it is fed with, if there is anything.
    fn origin(&self, snapshot: pg_sys::Snapshot) -> Option<Origin> {
        match self.source {
            TableSource::Plan(child) => Some(Origin::Plan(child)),
            TableSource::Relation(relation) => {
                let mut scan = HotScan::begin(relation, snapshot);
                let first = scan.next();
                if first.is_none() {
                    scan.end();
                    return None;
                }
                Some(Origin::Hot(scan, first))
            }
        }
    }
}

impl Running {
    /// Goes on to the next row. An error: a row can't be fed.
    ///
    /// # Safety
    /// As of [`Feeds::pump`].
    unsafe fn step(&mut self) -> Result<Step, ValueError> {
        loop {
            if self.holds_back {
                match self.rows.keep() {
                    Arrived::Rows => continue,
                    Arrived::Nothing => {}
                    Arrived::End => {
                        self.feeds.end();
                        self.holds_back = false;
                        continue;
                    }
                }
            } else if let Some(step) = self.rows.try_advance() {
                return Ok(step);
            }
            let Some(call) = self.rows.call() else {
                return Ok(Step::End);
            };
            // SAFETY: by contract.
            match unsafe { self.feeds.pump(call)? } {
                Pumped::Rows => {}
                Pumped::Nothing if self.holds_back => self.holds_back = false,
                Pumped::Nothing | Pumped::Full => call.wait(),
            }
        }
    }

    /// About what was read of each table so far: of several the engine says only the sum.
    fn read(&self) -> Vec<u64> {
        shares(self.rows.rows_cold(), &self.cold_rows)
    }

    fn stop(&mut self) {
        self.feeds.end();
        self.rows.stop();
    }
}

/// Divides a number in proportion to others, none of which gets more than it is.
fn shares(number: u64, of: &[u64]) -> Vec<u64> {
    let sum: u128 = of.iter().map(|n| u128::from(*n)).sum();
    let number = u128::from(number).min(sum);
    of.iter()
        .map(|n| (u128::from(*n) * number).checked_div(sum).unwrap_or(0) as u64)
        .collect()
}

/// Lets a child start again, as Postgres' nodes do (`ExecReScanAppend` in nodeAppend.c): one whose
/// parameters have changed does so by itself.
unsafe fn rescan_child(child: *mut pg_sys::PlanState, changed: *mut pg_sys::Bitmapset) {
    // SAFETY: a child of a node that is started again, and the node's changed parameters.
    unsafe {
        if !changed.is_null() {
            pg_sys::UpdateChangedParamSet(child, changed);
        }
        if (*child).chgParam.is_null() {
            pg_sys::ExecReScan(child);
        }
    }
}

/// Has a recursion's work table read from its first row again. All scans of it share one place (nodeWorktablescan.c), which
/// those that feed have moved. A CTE over it goes on where it is: it has kept what it has read.
///
/// # Safety
/// A plan of the running executor, or null.
unsafe fn rewind_work_tables(node: *mut pg_sys::PlanState) {
    if node.is_null() {
        return;
    }
    // SAFETY: by contract; the tag says what a node is. Raises an error if the stack is nearly used up.
    unsafe {
        pg_sys::check_stack_depth();
        match (*node).type_ {
            pg_sys::NodeTag::T_WorkTableScanState => pg_sys::ExecReScan(node),
            pg_sys::NodeTag::T_AppendState => {
                let append = &*node.cast::<pg_sys::AppendState>();
                for at in 0..append.as_nplans as usize {
                    rewind_work_tables(*append.appendplans.add(at));
                }
            }
            pg_sys::NodeTag::T_MergeAppendState => {
                let merge = &*node.cast::<pg_sys::MergeAppendState>();
                for at in 0..merge.ms_nplans as usize {
                    rewind_work_tables(*merge.mergeplans.add(at));
                }
            }
            pg_sys::NodeTag::T_SubqueryScanState => {
                rewind_work_tables((*node.cast::<pg_sys::SubqueryScanState>()).subplan);
            }
            pg_sys::NodeTag::T_CustomScanState => {
                let children = (*node.cast::<pg_sys::CustomScanState>()).custom_ps;
                for child in PgList::<pg_sys::PlanState>::from_pg(children).iter_ptr() {
                    rewind_work_tables(child);
                }
            }
            _ => {}
        }
        rewind_work_tables((*node).lefttree);
        rewind_work_tables((*node).righttree);
    }
}

fn malformed(message: &str) -> ! {
    error::raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        message,
        None,
        Some("SET lake.engine = off."),
    )
}

#[cfg(test)]
mod tests {
    use super::shares;

    #[test]
    fn a_number_is_divided_in_proportion() {
        assert_eq!(shares(60, &[100, 0, 50]), [40, 0, 20]);
        assert_eq!(shares(500, &[100, 50]), [100, 50]);
        assert_eq!(shares(7, &[0]), [0]);
        assert_eq!(shares(u64::MAX, &[u64::MAX, u64::MAX]), [u64::MAX / 2; 2]);
    }
}
