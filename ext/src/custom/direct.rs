//! Batches that a bulk load takes as they come from the engine: their rows are never formed.
//!
//! While the bulk path writes the rows of an `INSERT … SELECT`, `CREATE TABLE AS` or `REFRESH MATERIALIZED
//! VIEW`, and these are what a node of ours returns, that node offers it each batch before it returns the
//! first row of it. What has to be looked at row by row still is: a batch with a value that the file can't
//! hold, or with a null that a constraint forbids; and all batches, if the table is partitioned or sorted,
//! or checks or computes something for each row. The rows up to `lake.bulk_rows` come that way in any case.

use super::assembly::{Assembly, Origin, Value};
use super::private::Mode;
use super::state::{Run, ours};
use crate::cold::{OwnedBatch, Rows};
use crate::lower::node::{self, Node, get, nodes};
use crate::sink::Sink;
use crate::{am, bulk, pg};
use pg_lake_plan::types::LakeType;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// In a longer batch may be a value that is too long for Postgres, which says so when it forms the row.
const BATCH_BYTES_MAX: usize = 1 << 28;

/// What a node needs to offer its batches.
pub struct Direct {
    /// The load, as [`bulk`] knows it.
    statement: usize,
    node: *mut pg_sys::CustomScanState,
    /// The nodes that rows pass on their way, `node` included.
    passed: Vec<*mut pg_sys::PlanState>,
    targets: Vec<Target>,
    /// The node is a scan.
    read: bool,
    /// By attribute number, from 1.
    origins: Option<Vec<Origin>>,
    assembly: Option<Assembly>,
    refused: bool,
    /// Rows that have gone this way.
    pub rows: u64,
}

/// What an attribute of the table gets.
struct Target {
    source: Source,
    typid: pg_sys::Oid,
    not_null: bool,
}

enum Source {
    /// A column of the node's batches.
    Column(usize),
    /// An expression with one value in all rows.
    Constant(Node),
}

impl Direct {
    /// Offers the batch of the current row, if that is its first. True if the load has taken it: the row is
    /// the batch's last then.
    pub fn take(&mut self, rows: &mut Rows) -> bool {
        if self.refused {
            return false;
        }
        let Some(batch) = rows.fresh_batch().cloned() else {
            return false;
        };
        if !bulk::is_writing(self.statement) || batch.bytes().len() > BATCH_BYTES_MAX {
            return false;
        }
        // Not below `write_batch`: a function might run a query, before which the load is drained.
        if self.origins.is_none() {
            self.origins = Some(self.targets.iter().map(|t| self.origin(t)).collect());
        }
        let taken = bulk::write_batch(self.statement, |sink| {
            self.write(&batch, rows.types(), sink)
        });
        if taken {
            rows.skip_batch();
            self.count(batch.reader().rows as u64);
            pg::check_for_interrupts();
        }
        taken
    }

    fn origin(&self, target: &Target) -> Origin {
        let value = match target.source {
            Source::Column(index) => Value::Column(index),
            Source::Constant(expr) => Value::Constant(self.computed(expr)),
        };
        Origin {
            value,
            typid: target.typid,
            not_null: target.not_null,
        }
    }

    /// The value of an expression without columns, which lives as long as the query; `None` for null.
    fn computed(&self, expr: Node) -> Option<pg_sys::Datum> {
        let mut isnull = true;
        // SAFETY: an expression of the plan, with the parameters of the node's query.
        let value = unsafe {
            let ps = &mut (*self.node).ss.ps;
            let old = pg_sys::MemoryContextSwitchTo((*ps.state).es_query_cxt);
            let econtext = ps.ps_ExprContext;
            let state = pg_sys::ExecInitExpr(expr.cast(), ps);
            let value = pg_sys::ExecEvalExpr(state, econtext, &mut isnull);
            pg_sys::MemoryContextSwitchTo(old);
            value
        };
        (!isnull).then_some(value)
    }

    fn write(&mut self, batch: &OwnedBatch, types: &[LakeType], sink: &mut Sink) -> bool {
        let ready = (self.assembly.as_ref()).is_some_and(|assembly| assembly.is_for(&sink.info));
        if !ready {
            let origins = self.origins.as_deref().unwrap_or_default();
            self.assembly = match sink.takes_batches() {
                true => Assembly::new(&sink.info, origins, types, self.read),
                false => None,
            };
            self.refused = self.assembly.is_none();
        }
        self.assembly
            .as_mut()
            .is_some_and(|assembly| assembly.send(batch, sink))
    }

    /// Counts rows as everybody would have done whom they would have passed.
    fn count(&mut self, rows: u64) {
        self.rows += rows;
        // SAFETY: the running executor's own.
        unsafe {
            (*(*self.node).ss.ps.state).es_processed += rows;
            for state in &self.passed {
                if let Some(instrument) = (**state).instrument.as_mut() {
                    instrument.tuplecount += rows as f64;
                }
            }
        }
    }
}

/// Lets the load that a statement begins take batches, if its rows are what a node of ours returns.
///
/// # Safety
/// The executor has started the statement, of which [`bulk::allowed_statement`] has given `statement`.
pub unsafe fn prepare(desc: *mut pg_sys::QueryDesc, statement: usize) {
    // SAFETY: by contract.
    unsafe {
        let top = (*desc).planstate;
        if top.is_null() {
            return;
        }
        let (rows, constraints) = if (*top).type_ == NodeTag::T_ModifyTableState {
            let modify = &*top.cast::<pg_sys::ModifyTableState>();
            (modify.ps.lefttree, not_null_of(modify))
        } else {
            (top, makes_table(desc).then(Vec::new))
        };
        let Some(not_null) = constraints.filter(|_| !rows.is_null()) else {
            return;
        };
        let Some((path, run)) = Path::below(rows) else {
            return;
        };
        let Some(sources) = path.sources(run) else {
            return;
        };
        let targets = sources.into_iter().enumerate().map(|(at, source)| Target {
            source: source.0,
            typid: source.1,
            not_null: not_null.get(at).copied().unwrap_or(false),
        });
        run.direct = Some(Direct {
            statement,
            node: path.node,
            targets: targets.collect(),
            passed: path.passed,
            read: run.private.mode == Mode::Leaf,
            origins: None,
            assembly: None,
            refused: false,
            rows: 0,
        });
    }
}

/// Whether rows go to a table that the command makes, as they are.
unsafe fn makes_table(desc: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: null or a receiver.
    let receiver = unsafe { (*desc).dest.as_ref() };
    receiver.is_some_and(|receiver| {
        matches!(
            receiver.mydest,
            pg_sys::CommandDest::DestIntoRel | pg_sys::CommandDest::DestTransientRel
        )
    })
}

/// Which attributes of the table must not be null, by attribute number, from 1; `None` if an INSERT does
/// more with a row than store it.
unsafe fn not_null_of(modify: &pg_sys::ModifyTableState) -> Option<Vec<bool>> {
    // SAFETY: a started node, which has its tables open.
    unsafe {
        let plain = modify.operation == pg_sys::CmdType::CMD_INSERT
            && modify.canSetTag
            && modify.mt_nrels == 1
            && modify.mt_partition_tuple_routing.is_null()
            && modify.mt_transition_capture.is_null();
        let table = modify.resultRelInfo.as_ref().filter(|_| plain)?;
        let relation = table.ri_RelationDesc;
        // Triggers and indexes keep rows off the bulk path.
        let stored = am::is_iceberg_relation(relation)
            && !(*(*relation).rd_rel).relispartition
            && table.ri_WithCheckOptions.is_null()
            && table.ri_projectReturning.is_null()
            && table.ri_onConflict.is_null();
        let desc = (*relation).rd_att;
        let constraints = (*desc).constr.as_ref();
        let computes = constraints.is_some_and(|c| c.num_check > 0 || c.has_generated_stored);
        if !stored || computes {
            return None;
        }
        let attributes = (*desc).attrs.as_slice((*desc).natts as usize);
        Some(attributes.iter().map(|a| a.attnotnull).collect())
    }
}

/// From where rows are wanted down to the node of ours that returns them.
struct Path {
    node: *mut pg_sys::CustomScanState,
    passed: Vec<*mut pg_sys::PlanState>,
    /// The wanted columns in terms of the node.
    exprs: Vec<Node>,
}

impl Path {
    /// Through nodes that do no more than put columns in order.
    unsafe fn below<'a>(top: *mut pg_sys::PlanState) -> Option<(Path, &'a mut Run)> {
        // SAFETY: a node of a started plan; tags say what nodes are.
        unsafe {
            let mut exprs: Vec<Node> = nodes((*(*top).plan).targetlist)
                .into_iter()
                .filter_map(get::<pg_sys::TargetEntry>)
                .filter(|entry| !entry.resjunk)
                .map(|entry| entry.expr.cast())
                .collect();
            let mut passed = vec![];
            let mut state = top;
            loop {
                passed.push(state);
                let plan = (*state).plan;
                if !(*plan).qual.is_null() {
                    return None;
                }
                if let Some(run) = ours(state) {
                    let path = Path {
                        node: state.cast(),
                        passed,
                        exprs,
                    };
                    return Some((path, run));
                }
                let (child, varno) = if let Some(scan) = get::<pg_sys::SubqueryScan>(plan.cast()) {
                    let child = (*state.cast::<pg_sys::SubqueryScanState>()).subplan;
                    (child, i32::try_from(scan.scan.scanrelid).ok()?)
                } else {
                    get::<pg_sys::Result>(plan.cast())
                        .filter(|result| result.resconstantqual.is_null())?;
                    ((*state).lefttree, pg_sys::OUTER_VAR)
                };
                if child.is_null() {
                    return None;
                }
                let outputs = node::target_exprs((*(*child).plan).targetlist);
                exprs = (exprs.into_iter())
                    .map(|expr| through(expr, varno, &outputs))
                    .collect::<Option<_>>()?;
                state = child;
            }
        }
    }

    /// What the wanted columns are, and their types.
    unsafe fn sources(&self, run: &Run) -> Option<Vec<(Source, pg_sys::Oid)>> {
        // SAFETY: a node of a started plan.
        let scanrelid = unsafe {
            let plan = (*self.node).ss.ps.plan.cast::<pg_sys::CustomScan>();
            i32::try_from((*plan).scan.scanrelid).ok()?
        };
        let private = &run.private;
        let source = |expr: &Node| {
            if is_constant(*expr) {
                return Some((Source::Constant(*expr), node::type_of(*expr).0));
            }
            let var = column(*expr)?;
            let index = match private.mode {
                Mode::Leaf if var.varno == scanrelid && var.varattno > 0 => {
                    let columns = private.inputs.first()?.columns.iter().take(private.used);
                    columns.copied().position(|attnum| attnum == var.varattno)?
                }
                Mode::Fragment if var.varno == pg_sys::INDEX_VAR => {
                    usize::try_from(var.varattno).ok()?.checked_sub(1)?
                }
                Mode::Leaf | Mode::Fragment => return None,
            };
            Some((Source::Column(index), var.vartype))
        };
        self.exprs.iter().map(source).collect()
    }
}

/// An expression over a node's input in terms of that input's node.
fn through(expr: Node, varno: i32, outputs: &[Node]) -> Option<Node> {
    if is_constant(expr) {
        return Some(expr);
    }
    let var = column(expr).filter(|var| var.varno == varno)?;
    let at = usize::try_from(var.varattno).ok()?.checked_sub(1)?;
    outputs.get(at).copied()
}

/// The column that an expression is, perhaps under the name of another type.
fn column<'a>(expr: Node) -> Option<&'a pg_sys::Var> {
    match get::<pg_sys::RelabelType>(expr) {
        Some(relabel) => column(relabel.arg.cast()),
        None => get::<pg_sys::Var>(expr),
    }
}

/// Whether an expression has one value in all rows, and whoever wrote its functions doesn't mind how often
/// they are called.
fn is_constant(expr: Node) -> bool {
    let mut constant = true;
    node::visit(expr, &mut |node| {
        constant &= match node::tag(node) {
            NodeTag::T_Const
            | NodeTag::T_SQLValueFunction
            | NodeTag::T_RelabelType
            | NodeTag::T_List => true,
            NodeTag::T_Param => get::<pg_sys::Param>(node)
                .is_some_and(|param| param.paramkind == pg_sys::ParamKind::PARAM_EXTERN),
            NodeTag::T_FuncExpr => get::<pg_sys::FuncExpr>(node)
                .is_some_and(|call| call.funcid.to_u32() < pg_sys::FirstNormalObjectId),
            _ => false,
        };
        constant
    });
    // Those of a view, or of a prepared statement that has changed, aren't known when CREATE TABLE AS begins.
    // SAFETY: an expression of a finished plan.
    constant && unsafe { !pg_sys::contain_volatile_functions(expr) }
}
