//! Cold rows in a backend: asks the engine for rows of a table's files and turns batches into datums.
//!
//! * [`inserted`]: who inserted them
//! * [`kept`]: results that arrive before they may be returned
//! * [`point`]: single rows by their numbers, and `read_ahead`, how many of them at once
//! * [`recent`]: the rows that full scans have just read, for who comes back for one of them

mod inserted;
mod kept;
pub mod point;
mod read_ahead;
pub mod recent;

use crate::catalog::storage::{self, Storage};
use crate::catalog::{self, locate};
use crate::error;
use crate::pg;
use crate::relation::{self, Info};
use crate::ring::ENGINE;
use crate::ring::call::{Call, Message};
use crate::types::{Codec, PinnedSettings, Space};
use kept::Kept;
use pg_lake_plan::batch::BatchReader;
use pg_lake_plan::ir::{ColumnSource, Fragment, Plan, Scan, ScanColumn};
use pg_lake_plan::message::{
    ErrorCode, Execute, FileRef, Reply, Request, ScanStats, TableInput, WireError,
};
use pg_lake_plan::rows::RowNumbers;
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::rc::Rc;

/// A batch together with the bytes that it reads from.
pub struct OwnedBatch {
    reader: BatchReader<'static>,
    bytes: Vec<u8>,
}

impl OwnedBatch {
    pub fn new(bytes: Vec<u8>, types: &[LakeType]) -> OwnedBatch {
        // SAFETY: the slice's memory is on the heap, is not changed and lives as long as the reader:
        // both are in this struct, whose fields are private and never handed out with 'static.
        let slice: &'static [u8] =
            unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        match BatchReader::parse(slice, types) {
            Ok(reader) => OwnedBatch { reader, bytes },
            Err(e) => error::raise(
                PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
                &e.to_string(),
                None,
                None,
            ),
        }
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn reader(&self) -> &BatchReader<'_> {
        &self.reader
    }

    fn datum(&self, i: usize, row: usize, codec: &Codec, space: &Space) -> (pg_sys::Datum, bool) {
        // SAFETY: the codec is the one of this column.
        match unsafe { codec.datum(&self.reader().columns[i], row, space) } {
            Ok(value) => value,
            Err(e) => error::raise(e.code, &e.message, e.detail.as_deref(), e.hint.as_deref()),
        }
    }

    fn int8(&self, i: usize, row: usize) -> i64 {
        i64::from_le_bytes(self.reader().columns[i].fixed(row))
    }
}

/// The scan column that yields row numbers.
pub fn row_number_column() -> ScanColumn {
    ScanColumn {
        name: "ctid".to_owned(),
        source: ColumnSource::RowNumber,
        ty: SqlType {
            lake: LakeType::Int8,
            oid: pg_sys::INT8OID.to_u32(),
            typmod: -1,
            collation: 0,
        },
        missing: None,
    }
}

/// The scan column of an attribute.
pub fn scan_column(codec: &Codec, missing: Option<Value>) -> ScanColumn {
    ScanColumn {
        name: codec.name.clone(),
        source: ColumnSource::Field(i32::from(codec.attnum)),
        ty: SqlType {
            lake: codec.lake.clone(),
            oid: codec.typid.to_u32(),
            typmod: codec.typmod,
            collation: codec.collation.to_u32(),
        },
        missing,
    }
}

/// For each of some files, whether every row of it passes the predicate of a scan, as far as the
/// engine can tell without reading it.
pub fn covered(
    fragment: Fragment,
    params: Vec<Option<Value>>,
    files: impl Iterator<Item = FileRef>,
) -> Vec<bool> {
    let files = files
        .map(|file| FileRef {
            rows: RowNumbers::consecutive(file.rows.start(), file.rows.count()),
            deleted: vec![],
            ..file
        })
        .collect();
    let request = Request::Covered(Execute {
        fragment,
        tables: vec![TableInput { files, feed: None }],
        params,
        memory_limit: 0,
        temp_file_limit: None,
        in_order: false,
        background: false,
    });
    match Call::start(ENGINE, 0, |_| request).reply() {
        Reply::Covered(covered) => covered,
        other => crate::sql::maintenance::unexpected(&other),
    }
}

/// A running request whose rows are read one after another.
pub struct Rows {
    call: Option<Call>,
    kept: Kept,
    types: Vec<LakeType>,
    batch: Option<Rc<OwnedBatch>>,
    next: usize,
    /// Rows of the batches before.
    before: u64,
    /// Whether any row has been handed out.
    pub delivered: bool,
    pub stats: Option<ScanStats>,
}

/// What [`Rows::try_advance`] found.
pub enum Step {
    Row,
    End,
    /// The engine can't be exact, for this reason, and has delivered nothing: run the plan in Postgres.
    NotExact(WireError),
}

/// What [`Rows::keep`] found.
pub enum Arrived {
    Nothing,
    Rows,
    /// The request has ended.
    End,
}

impl Rows {
    /// Starts a fragment; `feeds` is the number of feeds that the caller will fill.
    pub fn start(
        fragment: Fragment,
        params: Vec<Option<Value>>,
        feeds: usize,
        tables: impl FnOnce(&[u64]) -> Vec<TableInput>,
    ) -> Rows {
        Rows::call_engine(fragment, params, feeds, tables, [false, false])
    }

    /// The same for files that are written again: rows come in the order of the files. In the background: nobody waits
    /// for them.
    pub fn to_rewrite(fragment: Fragment, tables: Vec<TableInput>, background: bool) -> Rows {
        Rows::call_engine(fragment, vec![], 0, |_| tables, [true, background])
    }

    fn call_engine(
        fragment: Fragment,
        params: Vec<Option<Value>>,
        feeds: usize,
        tables: impl FnOnce(&[u64]) -> Vec<TableInput>,
        [in_order, background]: [bool; 2],
    ) -> Rows {
        let types = fragment.root.output();
        let call = Call::start(ENGINE, feeds, |ids| {
            let mut tables = tables(ids);
            if !fragment.root.reads_row_numbers() {
                for file in tables.iter_mut().flat_map(|table| &mut table.files) {
                    file.rows = RowNumbers::consecutive(file.rows.start(), file.rows.count());
                }
            }
            Request::Execute(Execute {
                fragment,
                tables,
                params,
                memory_limit: 0,
                temp_file_limit: pg::temp_file_limit_kb(),
                in_order,
                background,
            })
        });
        Rows {
            call: Some(call),
            kept: Kept::default(),
            types,
            batch: None,
            next: 0,
            before: 0,
            delivered: false,
            stats: None,
        }
    }

    /// The request, as long as it runs.
    pub fn call(&mut self) -> Option<&mut Call> {
        self.call.as_mut()
    }

    /// Moves to the next row; false at the end. No plan of Postgres can take the place of these rows.
    pub fn advance(&mut self) -> bool {
        loop {
            match self.try_advance() {
                Some(Step::Row) => return true,
                Some(Step::End) => return false,
                Some(Step::NotExact(e)) => error::raise_wire(&e),
                None => {}
            }
            if let Some(call) = &self.call {
                call.wait();
            }
        }
    }

    /// Moves to the next row without waiting: `None` if nothing has arrived.
    pub fn try_advance(&mut self) -> Option<Step> {
        loop {
            if let Some(batch) = &self.batch
                && self.next < batch.reader().rows
            {
                self.next += 1;
                self.delivered = true;
                return Some(Step::Row);
            }
            if self.batch.take().is_some() {
                self.before += self.next as u64;
            }
            let message = match (self.kept.next(), self.call.as_mut()) {
                (Some(message), _) => message,
                (None, Some(call)) => call.poll()?,
                (None, None) => return Some(Step::End),
            };
            match message {
                Message::Batch(bytes) => {
                    self.batch = Some(Rc::new(OwnedBatch::new(bytes, &self.types)));
                    self.next = 0;
                }
                Message::Done(reply) => {
                    if let Reply::Executed(stats) = reply {
                        self.stats = Some(stats);
                    }
                    self.stop();
                    return Some(Step::End);
                }
                Message::Error(e) if e.code == ErrorCode::NotExact && !self.delivered => {
                    self.stop();
                    return Some(Step::NotExact(e));
                }
                Message::Error(e) => error::raise_wire(&e),
            }
        }
    }

    /// Takes what has arrived without returning it: that comes before whatever arrives later.
    pub fn keep(&mut self) -> Arrived {
        let Some(call) = self.call.as_mut() else {
            return Arrived::End;
        };
        match call.poll() {
            None => Arrived::Nothing,
            Some(Message::Batch(bytes)) => {
                self.kept.push(bytes);
                Arrived::Rows
            }
            Some(last) => {
                self.kept.end(last);
                Arrived::End
            }
        }
    }

    /// The next batch, whole, for who doesn't go row by row; `None` at the end.
    pub fn next_batch(&mut self) -> Option<Rc<OwnedBatch>> {
        if !self.advance() {
            return None;
        }
        let batch = self.batch.clone()?;
        self.next = batch.reader().rows;
        Some(batch)
    }

    /// The batch of the current row, if that is its first.
    pub fn fresh_batch(&self) -> Option<&Rc<OwnedBatch>> {
        self.batch.as_ref().filter(|_| self.next == 1)
    }

    /// Leaves out the other rows of the current row's batch.
    pub fn skip_batch(&mut self) {
        if let Some(batch) = &self.batch {
            self.next = batch.reader().rows;
        }
    }

    /// How many rows have been handed out.
    pub fn returned(&self) -> u64 {
        let of_batch = self.batch.as_ref().map_or(0, |_| self.next as u64);
        self.before + of_batch
    }

    /// How many the engine has read from files to find them, as far as it has said, before the request has ended.
    pub fn rows_cold(&self) -> u64 {
        match &self.call {
            Some(call) if self.delivered => call.rows_cold(),
            _ => 0,
        }
    }

    /// Of the columns.
    pub fn types(&self) -> &[LakeType] {
        &self.types
    }

    /// The current row's column `i`.
    #[inline]
    pub fn datum(&self, i: usize, codec: &Codec, space: &Space) -> (pg_sys::Datum, bool) {
        let Some(batch) = &self.batch else {
            return (pg_sys::Datum::null(), true);
        };
        batch.datum(i, self.next - 1, codec, space)
    }

    /// The current row's column `i` of type `Int8`, 0 for null.
    pub fn int8(&self, i: usize) -> i64 {
        self.batch
            .as_ref()
            .map_or(0, |batch| batch.int8(i, self.next - 1))
    }

    /// Ends the request, if it runs.
    pub fn stop(&mut self) {
        self.kept.clear();
        if let Some(call) = self.call.take() {
            call.finish();
        }
    }
}

/// A scan of some files that makes rows of the table: what the table access method's own callbacks
/// use. The last column is the row number.
pub struct FullScan {
    rows: Rows,
    info: Rc<Info>,
    desc: pg_sys::TupleDesc,
    /// For each of `Info::codecs` the column that is read for it.
    columns: Vec<Option<usize>>,
    /// Of whole rows: somebody may come back for them.
    layout: Option<recent::Layout>,
}

impl FullScan {
    /// `desc` describes the rows that are wanted: that of the slots.
    pub fn start(
        relation: pg_sys::Relation,
        desc: pg_sys::TupleDesc,
        files: &[FileRef],
    ) -> FullScan {
        FullScan::start_columns(relation, desc, files, |_| true)
    }

    /// The same with null in the columns that are not wanted.
    pub fn start_columns(
        relation: pg_sys::Relation,
        desc: pg_sys::TupleDesc,
        files: &[FileRef],
        wanted: impl Fn(i16) -> bool,
    ) -> FullScan {
        let info = relation::info_as(relation, desc);
        let missing = MissingValues::of(relation, desc);
        let mut columns = vec![];
        let mut scanned: Vec<ScanColumn> = vec![];
        for codec in &info.codecs {
            columns.push(wanted(codec.attnum).then_some(scanned.len()));
            if wanted(codec.attnum) {
                scanned.push(scan_column(codec, missing.get(codec)));
            }
        }
        scanned.push(row_number_column());
        let whole = columns.iter().all(Option::is_some);
        let fragment = Fragment {
            version: pg_lake_plan::PROTOCOL_VERSION,
            root: Plan::Scan(Scan {
                table: 0,
                name: crate::pg::relation_name(relation),
                columns: scanned,
                predicate: None,
            }),
        };
        let files = files.to_vec();
        FullScan {
            rows: Rows::start(fragment, vec![], 0, |_| {
                vec![TableInput { files, feed: None }]
            }),
            layout: whole.then(|| recent::Layout::full(&info)),
            columns,
            info,
            desc,
        }
    }

    /// Stores the next row in a slot of any kind; false at the end.
    pub fn next(
        &mut self,
        relation: pg_sys::Relation,
        slot: *mut pg_sys::TupleTableSlot,
        context: pg_sys::MemoryContext,
    ) -> bool {
        if !self.rows.advance() {
            return false;
        }
        if let Some(layout) = &self.layout
            && let Some(batch) = self.rows.fresh_batch()
        {
            recent::remember(relation, &self.info, batch, layout);
        }
        let row_number = self.columns.iter().flatten().count();
        let row = self.rows.int8(row_number) as u64;
        let datum = |i: usize, codec: &Codec| match self.columns[i] {
            Some(column) => self.rows.datum(column, codec, &Space::current()),
            None => (pg_sys::Datum::null(), true),
        };
        // SAFETY: the slot has the descriptor; the context is ours.
        unsafe { store(relation, self.desc, &self.info, row, datum, slot, context) };
        true
    }

    /// The first and the last row of the batch that the row of the last `next` has begun.
    pub fn fresh_span(&self) -> Option<(u64, u64)> {
        let batch = self.rows.fresh_batch()?;
        let row_number = self.columns.iter().flatten().count();
        let last = batch.reader().rows.checked_sub(1)?;
        let at = |row: usize| batch.int8(row_number, row) as u64;
        Some((at(0), at(last)))
    }

    pub fn stop(&mut self) {
        self.rows.stop();
    }
}

/// Forms a cold row and puts it into a slot of any kind. `context` is for the row's values and is
/// reset.
///
/// # Safety
/// The slot has the descriptor; `datum` makes values of it in the current memory context.
unsafe fn store(
    relation: pg_sys::Relation,
    desc: pg_sys::TupleDesc,
    info: &Info,
    row: u64,
    datum: impl Fn(usize, &Codec) -> (pg_sys::Datum, bool),
    slot: *mut pg_sys::TupleTableSlot,
    context: pg_sys::MemoryContext,
) {
    // SAFETY: by contract.
    unsafe {
        pg_sys::MemoryContextReset(context);
        let old = pg_sys::MemoryContextSwitchTo(context);
        let natts = (*desc).natts as usize;
        let mut values = vec![pg_sys::Datum::null(); natts];
        let mut nulls = vec![true; natts];
        let pinned = info.pinned_settings.then(PinnedSettings::new);
        for (i, codec) in info.codecs.iter().enumerate() {
            let (datum, isnull) = datum(i, codec);
            values[codec.attnum as usize - 1] = datum;
            nulls[codec.attnum as usize - 1] = isnull;
        }
        drop(pinned);
        let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
        let header = (*tuple).t_data;
        // What system columns show. Whether the row is visible has been settled.
        (*header).t_choice.t_heap = pg_sys::HeapTupleFields {
            t_xmin: inserted::xmin(relation, row),
            t_xmax: pg_sys::InvalidTransactionId,
            ..Default::default()
        };
        (*header).t_infomask |= (pg_sys::HEAP_XMIN_FROZEN | pg_sys::HEAP_XMAX_INVALID) as u16;
        (*tuple).t_tableOid = (*relation).rd_id;
        let tid = crate::am::dml::tid_of_row(row);
        (*tuple).t_self = tid;
        (*header).t_ctid = tid;
        pg_sys::MemoryContextSwitchTo(old);
        pg_sys::ExecForceStoreHeapTuple(tuple, slot, false);
        (*slot).tts_tid = tid;
        (*slot).tts_tableOid = (*relation).rd_id;
    }
}

/// The values of columns in files that were written before `ALTER TABLE … ADD COLUMN … DEFAULT`.
pub struct MissingValues {
    desc: pg_sys::TupleDesc,
    kept: Vec<(i16, Value)>,
}

impl MissingValues {
    /// Of an open relation whose rows are described by `desc`.
    pub fn of(relation: pg_sys::Relation, desc: pg_sys::TupleDesc) -> MissingValues {
        let storage = storage::of_relation(relation);
        MissingValues {
            desc,
            kept: storage.map_or(vec![], |s| catalog::missing_value::list(s.id)),
        }
    }

    pub fn get(&self, codec: &Codec) -> Option<Value> {
        default_of_column(self.desc, codec).or_else(|| {
            let kept = self.kept.iter().find(|(at, _)| *at == codec.attnum);
            kept.map(|(_, value)| value.clone())
        })
    }
}

/// The same as `pg_attribute` has it.
pub fn default_of_column(desc: pg_sys::TupleDesc, codec: &Codec) -> Option<Value> {
    // SAFETY: a valid descriptor; the attribute exists.
    unsafe {
        let att = (*desc).attrs.as_ptr().add(codec.attnum as usize - 1);
        if !(*att).atthasmissing {
            return None;
        }
        let mut isnull = false;
        let datum = pg_sys::getmissingattr(desc, i32::from(codec.attnum), &mut isnull);
        if isnull {
            return None;
        }
        // ALTER TABLE refuses a default that can't be stored where there are cold rows.
        crate::types::value_of(&codec.lake, codec.typid, datum).or_else(|| codec.one_row(datum))
    }
}

/// Puts one cold row into a slot, whether it is deleted or not; false if no file has it.
pub fn fetch(
    relation: pg_sys::Relation,
    storage: &Storage,
    row: u64,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    if recent::fetch(relation, row, slot) {
        return true;
    }
    locate::holding(storage.id, row).is_some_and(|at| {
        point::ReadAhead::default().fetch(relation, &at.holder(), row, row + 1, slot)
    })
}
