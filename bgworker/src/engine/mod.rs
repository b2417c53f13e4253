//! Runs fragments: Parquet files and feeds in, record batches with Postgres' semantics out.
//!
//! The engine reads local files and asks I/O workers for others; it calls no network and no Postgres. Where it can't be exact it
//! says so ([`ErrorCode::NotExact`](pg_lake_plan::message::ErrorCode)) instead of guessing.
//!
//! * `runtime`: [`Engine`]: limits, one memory budget, starting a fragment
//! * `admission`: which queries may begin, and which wait; `fair`: how those that run share the cores
//! * `running`: [`Running`]: one fragment under way, cancellation, statistics
//! * `validate`: refuses malformed and unsupported fragments before anything is built
//! * `lower`: plan nodes to DataFusion's physical operators; `exchange`: rows to partitions; `append`: the rows of
//!   several inputs; `dense`: batches that hold just their rows
//! * `sorting`: sorts, and merges of sorted partitions, with batches that are bounded by bytes; `widths`: how many rows these have;
//!   `sized`: batches of what merges give; `wide`: how many those of scans and of DataFusion's operators have
//! * joins: `join` (sides and kinds), `join_input` (what happens to a side before it is joined, in a `steps`
//!   operator), `lately` (copies of rows), `condition` (the filter), `not_in` and `mark` (as nulls have it,
//!   with what the `right_side` has),
//!   `join_exec` (operator), `join_table` (the kept side in memory), `join_pairs` and `join_parts` (both sides in files), `handed` (rows for
//!   DataFusion's operator)
//! * scan: `scan` (operator), `source` (files to row groups), `remote` (their bytes), `rowgroup` (decoding),
//!   `chosen` and `picked` (some pages and rows of a row group), `selection` (deleted rows and ranges), `prune`
//!   (statistics), `pages` (those of pages), `bloom` (filters of row groups), `adapt` (file types), `cache` (decoded columns and footers), `point` (few
//!   rows, without a plan), `covered` (files of which every row passes)
//! * `dynamic`: what joins (`told`, `members`) and sorts (`topmost`) let scans below leave out; `origin`: which scans
//! * expressions: `expr` (compiled tree), `arith`, `compare`, `cast`, `select` (AND, OR, CASE),
//!   `inlist`, `like`, `functions`, `values` (native slices and constants), `describe` (for EXPLAIN)
//! * aggregates: `group` and `grouping` (operators), `held` (what comes out at once, of them and of whole plans), `aggregate` (the functions),
//!   `sums`, `moments`, `extremes`, `bits`, `intervals`, `forms` and `sets` (their states), `fold` (what those have in common)
//! * functions over ordered values: `ordered` (the plan), `copies` (rows to sort), `ordered_exec` (operator), `found`
//!   (results), `picks` (places among ordered values), `kept` (those of one group)
//! * `window`: window functions; `recursion`: steps that have the rows of the last one (`work_table`), and fed rows again (`replay`);
//!   `seen`: which rows are new; `aside`: rows that are read several times, in files if need be
//! * `unary`: operators of ours over one input; `streams`: operators of ours as streams
//! * `memory`, `stats`, `error`: the budget, the counters, and how errors pass through DataFusion

mod adapt;
mod admission;
mod aggregate;
mod append;
mod arith;
mod aside;
mod bits;
mod bloom;
mod cache;
mod cast;
mod chosen;
mod compare;
mod condition;
mod copies;
mod covered;
mod dense;
mod describe;
mod dynamic;
mod error;
mod exchange;
mod expr;
mod extremes;
mod fair;
mod fold;
mod forms;
mod found;
mod functions;
mod group;
mod grouping;
mod handed;
mod held;
mod inlist;
mod intervals;
mod join;
mod join_exec;
mod join_input;
mod join_pairs;
mod join_parts;
mod join_table;
mod kept;
mod lately;
mod like;
mod lower;
mod mark;
mod members;
mod memory;
mod moments;
mod not_in;
mod ordered;
mod ordered_exec;
mod origin;
mod pages;
mod picked;
mod picks;
mod point;
mod project_set;
mod prune;
mod recursion;
mod remote;
mod replay;
mod right_side;
mod rowgroup;
mod running;
mod runtime;
mod scan;
mod seen;
mod select;
mod selection;
mod sets;
mod sized;
mod sorting;
mod source;
mod stats;
mod steps;
mod streams;
mod sums;
mod told;
mod topmost;
mod unary;
mod validate;
mod values;
mod wide;
mod widths;
mod window;
mod work_table;

pub use admission::QueueConfig;
pub(crate) use admission::Turn;
pub use point::Few;
pub use remote::Fetcher;
pub use running::{Running, Usage};
pub use runtime::Engine;

use arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use pg_lake_plan::message::WireError;

/// The hot rows of a scan: batches of [`crate::arrow_types::scan_schema`].
pub type Feed = BoxStream<'static, Result<RecordBatch, WireError>>;

/// Rows of a batch and of a chunk of the decoded-column cache.
pub const BATCH_ROWS: usize = 16_384;
