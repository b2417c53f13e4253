//! What a lowered node carries in its plan: everything that its execution needs to know.
//!
//! One `bytea` constant in `custom_private`, so that it survives `copyObject` and `nodeToString`.
//!
//! | | `Leaf` | `Fragment` |
//! | --- | --- | --- |
//! | `scanrelid` | the table | 0 |
//! | the engine's rows | the scan's columns, `inputs[0].columns` says which attributes | the columns of `custom_scan_tlist` |
//! | `custom_exprs` | the quals in the scan's predicate, for hot rows | nothing: the engine filters what it is fed |
//! | `custom_plans` | nothing | the subtree that was replaced, whose rows are already filtered and projected as this node's are to be; then the plans whose rows are fed to the engine, which are parts of that subtree |
//!
//! In both, `plan.qual` and `plan.targetlist` are still to be evaluated over the engine's rows.

pub use super::rights::Called;

use super::node::{self, Node};
use pg_lake_plan::ir::Fragment;
use pg_lake_plan::types::LakeType;
use pgrx::{PgSqlErrorCode, pg_sys};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Private {
    pub mode: Mode,
    pub fragment: Fragment,
    /// By the fragment's table number.
    pub inputs: Vec<Input>,
    /// Of a leaf: how many of its columns, the first ones, its own quals and targets use. The others
    /// are for whoever comes back for a row by its TID.
    pub used: usize,
    /// By the fragment's parameter number.
    pub params: Vec<ParamUse>,
    /// Why parts around this node, or quals of it, were left to Postgres. For EXPLAIN.
    pub reasons: Vec<String>,
    /// Whether `custom_plans` holds a subtree that can be run instead, as long as no row was returned.
    pub restartable: bool,
    /// By the nodes that a fragment stands for. A leaf's quals are initialized by Postgres.
    pub called: Called,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Stands for one sequential scan.
    Leaf,
    /// Stands for a subtree.
    Fragment,
}

/// Where the rows of one of the fragment's scans come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub source: Source,
    /// The attribute (or output of the plan) behind each of the scan's columns, −1 for the row number.
    pub columns: Vec<i16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// An iceberg table: its files, and its hot rows as a feed.
    Relation {
        /// Index into the statement's range table, from 1.
        rtindex: u32,
        relid: u32,
    },
    /// Rows of a plan that Postgres runs, all of them fed: its index in `custom_plans`.
    Plan(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamUse {
    pub kind: ParamKind,
    /// `Param.paramid`
    pub id: i32,
    pub typid: u32,
    /// Of a numeric only when it is bound: its value has a scale of its own. Of an array a list of what its elements
    /// are compared with, or its own type.
    pub lake: LakeType,
    /// Of an array: whether it is a value itself, rather than what others are compared with.
    pub whole: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ParamKind {
    /// Of the statement: `$1`.
    Extern,
    /// Set by the executor: an outer row's value, or the result of an initplan that may still have to be run.
    Exec,
    /// The session's offset from UTC, in microseconds.
    UtcOffset,
    /// What Postgres computes when the node starts, without rows: an expression as `nodeToString` writes it.
    Computed(String),
}

/// The list for `custom_private`.
pub fn encode(private: &Private) -> *mut pg_sys::List {
    let bytes = match pg_lake_plan::encode(private) {
        Ok(bytes) => bytes,
        Err(error) => internal("could not encode a lake plan", &error.to_string()),
    };
    let datum = crate::pg::table::bytea_datum(&bytes);
    // SAFETY: a detoasted value of the type, in the current memory context.
    let constant = unsafe {
        pg_sys::makeConst(
            pg_sys::BYTEAOID,
            -1,
            pg_sys::InvalidOid,
            -1,
            datum,
            false,
            false,
        )
    };
    node::list([constant.cast()])
}

/// Reads what [`encode`] made.
pub fn decode(list: *mut pg_sys::List) -> Private {
    let constant: Option<Node> = node::nodes(list).first().copied();
    let Some(constant) = constant.and_then(node::get::<pg_sys::Const>) else {
        internal("a lake plan has no private data", "")
    };
    // SAFETY: the constant is a bytea; the bytes are read before anything can free them.
    let bytes = unsafe {
        let value = pg_sys::pg_detoast_datum_packed(constant.constvalue.cast_mut_ptr());
        pgrx::varlena::varlena_to_byte_slice(value)
    };
    match pg_lake_plan::decode(bytes) {
        Ok(private) => private,
        Err(error) => internal("could not decode a lake plan", &error.to_string()),
    }
}

fn internal(message: &str, detail: &str) -> ! {
    crate::error::raise(
        PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
        message,
        (!detail.is_empty()).then_some(detail),
        None,
    )
}
