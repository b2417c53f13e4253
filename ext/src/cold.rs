//! Cold rows in a backend: asks the engine for rows of a table's files and turns batches into datums.

use crate::catalog::data_file::{self, DataFile};
use crate::error;
use crate::relation::{self, Info};
use crate::ring::ENGINE;
use crate::ring::call::{Call, Message};
use crate::types::{Codec, PinnedSettings};
use pg_lake_plan::batch::BatchReader;
use pg_lake_plan::ir::{ColumnSource, Fragment, Plan, Scan, ScanColumn};
use pg_lake_plan::message::{ErrorCode, Execute, FileRef, Reply, Request, ScanStats, TableInput};
use pg_lake_plan::types::{LakeType, SqlType, Value};
use pgrx::{PgSqlErrorCode, pg_sys};
use std::rc::Rc;

/// A batch together with the bytes that it reads from.
pub struct OwnedBatch {
    reader: BatchReader<'static>,
    _bytes: Vec<u8>,
}

impl OwnedBatch {
    pub fn new(bytes: Vec<u8>, types: &[LakeType]) -> OwnedBatch {
        // SAFETY: the slice's memory is on the heap, is not changed and lives as long as the reader:
        // both are in this struct, whose fields are private and never handed out with 'static.
        let slice: &'static [u8] =
            unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        match BatchReader::parse(slice, types) {
            Ok(reader) => OwnedBatch {
                reader,
                _bytes: bytes,
            },
            Err(e) => error::raise(
                PgSqlErrorCode::ERRCODE_PROTOCOL_VIOLATION,
                &e.to_string(),
                None,
                None,
            ),
        }
    }

    pub fn reader(&self) -> &BatchReader<'_> {
        &self.reader
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

/// A running request whose rows are read one after another.
pub struct Rows {
    call: Option<Call>,
    types: Vec<LakeType>,
    batch: Option<OwnedBatch>,
    next: usize,
    /// Whether any row has been handed out.
    pub delivered: bool,
    pub stats: Option<ScanStats>,
}

/// What [`Rows::advance`] found.
pub enum Step {
    Row,
    End,
    /// The engine can't be exact and has delivered nothing: run the plan in Postgres.
    NotExact,
}

impl Rows {
    /// Starts a fragment; `feeds` is the number of feeds that the caller will fill.
    pub fn start(
        fragment: Fragment,
        params: Vec<Option<Value>>,
        feeds: usize,
        tables: impl FnOnce(&[u64]) -> Vec<TableInput>,
    ) -> Rows {
        let types = fragment.root.output();
        let call = Call::start(ENGINE, feeds, |ids| {
            Request::Execute(Execute {
                fragment,
                tables: tables(ids),
                params,
                memory_limit: 0,
            })
        });
        Rows {
            call: Some(call),
            types,
            batch: None,
            next: 0,
            delivered: false,
            stats: None,
        }
    }

    pub fn call(&mut self) -> Option<&mut Call> {
        self.call.as_mut()
    }

    /// Moves to the next row.
    pub fn advance(&mut self) -> Step {
        loop {
            if let Some(batch) = &self.batch
                && self.next < batch.reader().rows
            {
                self.next += 1;
                self.delivered = true;
                return Step::Row;
            }
            self.batch = None;
            let Some(call) = self.call.as_mut() else {
                return Step::End;
            };
            match call.next() {
                Message::Batch(bytes) => {
                    self.batch = Some(OwnedBatch::new(bytes, &self.types));
                    self.next = 0;
                }
                Message::Done(reply) => {
                    if let Reply::Executed(stats) = reply {
                        self.stats = Some(stats);
                    }
                    self.stop();
                    return Step::End;
                }
                Message::Error(e) if e.code == ErrorCode::NotExact && !self.delivered => {
                    self.stop();
                    return Step::NotExact;
                }
                Message::Error(e) => error::raise_wire(&e),
            }
        }
    }

    /// The current row's column `i`.
    pub fn datum(&self, i: usize, codec: &Codec) -> (pg_sys::Datum, bool) {
        let Some(batch) = &self.batch else {
            return (pg_sys::Datum::null(), true);
        };
        // SAFETY: the codec is the one of this column; datums go to the current memory context.
        match unsafe { codec.datum(&batch.reader().columns[i], self.next - 1) } {
            Ok(value) => value,
            Err(e) => error::raise(e.code, &e.message, e.detail.as_deref(), e.hint.as_deref()),
        }
    }

    /// The current row's column `i` of type `Int8`, 0 for null.
    pub fn int8(&self, i: usize) -> i64 {
        self.batch.as_ref().map_or(0, |batch| {
            i64::from_le_bytes(batch.reader().columns[i].fixed(self.next - 1))
        })
    }

    /// Ends the request, if it runs.
    pub fn stop(&mut self) {
        if let Some(call) = self.call.take() {
            call.finish();
        }
    }
}

/// A scan of all columns of some files: what the table access method's own callbacks use. The last
/// column is the row number.
pub struct FullScan {
    rows: Rows,
    info: Rc<Info>,
    desc: pg_sys::TupleDesc,
}

impl FullScan {
    /// `desc` describes the rows that are wanted: that of the slots.
    pub fn start(
        relation: pg_sys::Relation,
        desc: pg_sys::TupleDesc,
        files: &[FileRef],
    ) -> FullScan {
        let info = relation::info_as(relation, desc);
        let mut columns: Vec<ScanColumn> = info
            .codecs
            .iter()
            .map(|codec| scan_column(codec, missing_value(desc, codec)))
            .collect();
        columns.push(row_number_column());
        let fragment = Fragment {
            version: pg_lake_plan::PROTOCOL_VERSION,
            root: Plan::Scan(Scan {
                table: 0,
                name: crate::pg::relation_name(relation),
                columns,
                predicate: None,
            }),
        };
        let files = files.to_vec();
        FullScan {
            rows: Rows::start(fragment, vec![], 0, |_| {
                vec![TableInput { files, feed: None }]
            }),
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
        if !matches!(self.rows.advance(), Step::Row) {
            return false;
        }
        let info = &self.info;
        let row = self.rows.int8(info.codecs.len()) as u64;
        // SAFETY: the slot has the descriptor; the temporary context is ours and reset for each row.
        unsafe {
            pg_sys::MemoryContextReset(context);
            let old = pg_sys::MemoryContextSwitchTo(context);
            let natts = (*self.desc).natts as usize;
            let mut values = vec![pg_sys::Datum::null(); natts];
            let mut nulls = vec![true; natts];
            let pinned = info.pinned_settings.then(PinnedSettings::new);
            for (i, codec) in info.codecs.iter().enumerate() {
                let (datum, isnull) = self.rows.datum(i, codec);
                values[codec.attnum as usize - 1] = datum;
                nulls[codec.attnum as usize - 1] = isnull;
            }
            drop(pinned);
            let tuple = pg_sys::heap_form_tuple(self.desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            let (block, offset) = data_file::tid_of(row);
            let header = (*tuple).t_data;
            // What system columns show: inserted by a transaction that everyone sees.
            (*header).t_choice.t_heap = pg_sys::HeapTupleFields {
                t_xmin: pg_sys::TransactionId::from(2),
                t_xmax: pg_sys::InvalidTransactionId,
                ..Default::default()
            };
            (*header).t_infomask |= (pg_sys::HEAP_XMIN_FROZEN | pg_sys::HEAP_XMAX_INVALID) as u16;
            (*tuple).t_tableOid = (*relation).rd_id;
            pg_sys::ItemPointerSet(&mut (*tuple).t_self, block, offset);
            let tid = (*tuple).t_self;
            (*header).t_ctid = tid;
            pg_sys::MemoryContextSwitchTo(old);
            pg_sys::ExecForceStoreHeapTuple(tuple, slot, false);
            (*slot).tts_tid = tid;
            (*slot).tts_tableOid = (*relation).rd_id;
        }
        true
    }

    pub fn stop(&mut self) {
        self.rows.stop();
    }
}

/// The value of a column in files that were written before `ALTER TABLE … ADD COLUMN … DEFAULT`.
pub fn missing_value(desc: pg_sys::TupleDesc, codec: &Codec) -> Option<Value> {
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
        // ALTER TABLE refuses a default that has no such value where there are cold rows.
        crate::types::value_of(&codec.lake, codec.typid, datum)
    }
}

/// The files of a table that hold one TID, restricted to it.
pub fn files_of_row(files: &[DataFile], row: u64) -> Vec<FileRef> {
    files
        .iter()
        .filter(|f| row >= f.row_start && row < f.row_start + f.row_count)
        .map(|f| {
            let mut file = f.file_ref();
            let position = row - f.row_start;
            file.ranges = Some(vec![(position, position + 1)]);
            file
        })
        .collect()
}
