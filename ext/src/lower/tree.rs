//! Plan trees bottom-up: each node over its lowered inputs.
//!
//! What can't be lowered below a node that can becomes a feed: Postgres runs it, and its rows are
//! sent to the engine.

use super::explain::FEED;
use super::expr::Exprs;
use super::initplans::Params;
use super::marks::has_sublink;
use super::node::{self, Node, attnos, get, nodes, plan_tag};
use super::private::{Input, Source};
use super::recursion::Step;
use super::statement::Statement;
use super::sub::{Column, Sub, column_expr};
use super::table::{Table, sql_type};
use super::targets::{is_deferrable, is_noticed};
use super::{Lowered, refused};
use crate::types::{expression_type, has_codec};
use pg_lake_plan::ir::{ColumnSource, Expr, Plan, Scan, ScanColumn};
use pg_lake_plan::types::SqlType;
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag;

/// What lowering one fragment has gathered.
pub struct Builder<'a> {
    pub statement: &'a Statement,
    pub inputs: Vec<Input>,
    pub params: Params,
    /// The plan nodes that the fragment stands for.
    pub absorbed: Vec<*mut pg_sys::Plan>,
    /// Plans that are fed, in the order of the inputs.
    pub feeds: Vec<*mut pg_sys::Plan>,
    /// Why they are.
    pub reasons: Vec<String>,
    /// Postgres' estimates.
    pub rows_scanned: f64,
    pub rows_fed: f64,
    /// The recursion whose recursive term is being lowered.
    pub(super) step: Option<Step>,
}

/// How far a [`Builder`] was.
pub struct Mark {
    inputs: usize,
    params: usize,
    absorbed: usize,
    feeds: usize,
    reasons: usize,
    rows_scanned: f64,
    rows_fed: f64,
}

impl<'a> Builder<'a> {
    pub fn new(statement: &'a Statement) -> Self {
        Builder {
            statement,
            inputs: vec![],
            params: Params::new(statement.late.clone()),
            absorbed: vec![],
            feeds: vec![],
            reasons: vec![],
            rows_scanned: 0.0,
            rows_fed: 0.0,
            step: None,
        }
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            inputs: self.inputs.len(),
            params: self.params.uses.len(),
            absorbed: self.absorbed.len(),
            feeds: self.feeds.len(),
            reasons: self.reasons.len(),
            rows_scanned: self.rows_scanned,
            rows_fed: self.rows_fed,
        }
    }

    pub(super) fn back_to(&mut self, mark: Mark) {
        self.inputs.truncate(mark.inputs);
        self.params.uses.truncate(mark.params);
        self.absorbed.truncate(mark.absorbed);
        self.feeds.truncate(mark.feeds);
        self.reasons.truncate(mark.reasons);
        self.rows_scanned = mark.rows_scanned;
        self.rows_fed = mark.rows_fed;
    }

    /// An input of another node, which uses these of its outputs.
    pub fn input(&mut self, plan: *mut pg_sys::Plan, needed: &[i16]) -> Lowered<Sub> {
        let mark = self.mark();
        let reason = match self.settled(plan, needed) {
            Ok(sub) => return Ok(sub),
            Err(reason) => reason,
        };
        self.back_to(mark);
        if !self.can_feed(plan) {
            return Err(reason);
        }
        let sub = self.feed(plan, needed)?;
        // Rows of other tables are always fed.
        if self.statement.reads_iceberg(plan) && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
        Ok(sub)
    }

    /// The same as a part of the plan, not as a feed.
    pub(super) fn settled(&mut self, plan: *mut pg_sys::Plan, needed: &[i16]) -> Lowered<Sub> {
        self.is_same_in_steps(plan)?;
        let sub = self.node(plan, Some(needed))?;
        if !sub.kept.is_empty() {
            return refused("a filter is left to Postgres");
        }
        let sub = self.settle(sub, plan, false)?;
        // SAFETY: a plan node of the tree.
        let targets = node::target_exprs(unsafe { (*plan).targetlist });
        for ((number, target), output) in (1..).zip(targets).zip(&sub.outputs) {
            if let Err(reason) = output
                && !needed.contains(&number)
                && is_noticed(target)
            {
                return Err(reason.clone());
            }
        }
        Ok(sub)
    }

    /// The subtree; `needed` as [`Self::wanted`] takes it.
    pub fn node(&mut self, plan: *mut pg_sys::Plan, needed: Option<&[i16]>) -> Lowered<Sub> {
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        if plan.is_null() {
            return refused("a node without an input");
        }
        // SAFETY: a plan node of the tree.
        let node = unsafe { &*plan };
        if node.parallel_aware {
            return refused("a parallel plan is not lowered");
        }
        let mut sub = match plan_tag(plan) {
            NodeTag::T_SeqScan => self.scan(plan, needed),
            NodeTag::T_SubqueryScan | NodeTag::T_CteScan => self.subquery(plan, needed),
            NodeTag::T_Hash | NodeTag::T_Material => self.passed(plan, needed, &[]),
            NodeTag::T_Result => self.projection(plan, needed),
            NodeTag::T_Sort | NodeTag::T_IncrementalSort => self.sort(plan, needed),
            NodeTag::T_Limit => self.limit(plan, needed),
            NodeTag::T_Unique => self.unique(plan, needed),
            NodeTag::T_Append | NodeTag::T_MergeAppend => self.append(plan, needed),
            NodeTag::T_Agg | NodeTag::T_Group => self.aggregation(plan, needed),
            NodeTag::T_WindowAgg => self.window(plan, needed),
            NodeTag::T_SetOp => self.set_operation(plan),
            NodeTag::T_ProjectSet => self.project_set(plan, needed),
            NodeTag::T_FunctionScan => self.function_scan(plan, needed),
            NodeTag::T_RecursiveUnion => self.recursive_union(plan),
            NodeTag::T_WorkTableScan => self.work_table_scan(plan, needed),
            NodeTag::T_HashJoin | NodeTag::T_MergeJoin | NodeTag::T_NestLoop => {
                self.join(plan, needed)
            }
            other => Err(format!("{} is not lowered", name_of(other))),
        }?;
        sub.rows = node.plan_rows.max(1.0);
        self.absorbed.push(plan);
        Ok(sub)
    }

    /// Which of a node's outputs are wanted: those that its parent uses, all unless it says, and those whose computation
    /// could be noticed, as Postgres computes them anyway.
    pub fn wanted(plan: &pg_sys::Plan, needed: Option<&[i16]>) -> Vec<bool> {
        (1..)
            .zip(node::target_exprs(plan.targetlist))
            .map(|(number, target)| {
                needed.is_none_or(|needed| needed.contains(&number)) || is_noticed(target)
            })
            .collect()
    }

    /// Which outputs of an input a node uses: in its wanted outputs, its quals and `lists`.
    pub fn uses(
        plan: &pg_sys::Plan,
        needed: Option<&[i16]>,
        lists: &[*mut pg_sys::List],
        side: i32,
    ) -> Vec<i16> {
        let targets = node::target_exprs(plan.targetlist);
        let mut used: Vec<i16> = Self::wanted(plan, needed)
            .into_iter()
            .zip(targets)
            .filter(|(wanted, _)| *wanted)
            .flat_map(|(_, target)| attnos(target, side))
            .collect();
        for list in lists.iter().chain([&plan.qual]) {
            used.extend(attnos(list.cast(), side));
        }
        used
    }

    /// A node's target list over the columns of its input; `resolve` says what its Vars are.
    pub fn targets(
        plan: &pg_sys::Plan,
        needed: Option<&[i16]>,
        mut resolve: impl FnMut(Node) -> Lowered<Node>,
    ) -> Vec<Lowered<Node>> {
        Self::wanted(plan, needed)
            .into_iter()
            .zip(node::target_exprs(plan.targetlist))
            .map(|(wanted, target)| match wanted {
                true => resolve(target),
                false => refused("a column that its parent doesn't use"),
            })
            .collect()
    }

    /// Why a wanted output can't be had, if there is one.
    pub fn check_wanted(
        plan: &pg_sys::Plan,
        needed: Option<&[i16]>,
        outputs: &[Lowered<Node>],
    ) -> Lowered<()> {
        let failed = (outputs.iter().zip(Self::wanted(plan, needed)))
            .find_map(|(output, wanted)| output.as_ref().err().filter(|_| wanted));
        failed.map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// A node that passes its input's rows on; `keys` are outputs of that which it needs, too.
    pub fn passed(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
        keys: &[i16],
    ) -> Lowered<Sub> {
        // SAFETY: a plan node of the tree.
        let node = unsafe { &*plan };
        let mut used = Self::uses(node, needed, &[], pg_sys::OUTER_VAR);
        used.extend(keys);
        let mut sub = self.input(node.lefttree, &used)?;
        self.filter(&mut sub, node.qual, pg_sys::OUTER_VAR)?;
        Ok(sub)
    }

    /// An expression over a subtree's columns.
    pub fn expression(&mut self, columns: &[Column], node: Node) -> Lowered<Expr> {
        Exprs::of(columns, &mut self.params).expression(node)
    }

    /// Filters rows by quals over the subtree's outputs, which are Vars of `varno` there.
    pub fn filter(&mut self, sub: &mut Sub, quals: *mut pg_sys::List, varno: i32) -> Lowered<()> {
        for qual in nodes(quals) {
            let qual = over(qual, varno, sub)?;
            self.qual(sub, qual)?;
        }
        Ok(())
    }

    fn projection(&mut self, plan: *mut pg_sys::Plan, needed: Option<&[i16]>) -> Lowered<Sub> {
        let result = get::<pg_sys::Result>(plan.cast()).ok_or("a malformed projection")?;
        if !result.resconstantqual.is_null() || result.plan.lefttree.is_null() {
            return refused("a condition that no row decides, or rows from nothing");
        }
        let mut sub = self.passed(plan, needed, &[])?;
        sub.outputs = Self::targets(&result.plan, needed, |target| {
            over(target, pg_sys::OUTER_VAR, &sub)
        });
        Ok(sub)
    }

    /// A subquery in FROM, or a CTE, whose plan becomes a part of this one: what is computed for each of its scans
    /// must not be anything that could be noticed.
    fn subquery(&mut self, plan: *mut pg_sys::Plan, needed: Option<&[i16]>) -> Lowered<Sub> {
        let cte = get::<pg_sys::CteScan>(plan.cast());
        let (scan, subplan) = match cte {
            Some(scan) => {
                let subplan = self.statement.subplan(scan.ctePlanId);
                let again = self.statement.is_read_again(scan.ctePlanId);
                if again && subplan.is_some_and(|plan| self.runs_once(plan)) {
                    return refused("a recursion whose rows are read more than once is run once");
                }
                let subplan = subplan.filter(|plan| {
                    let statement = self.statement;
                    let varies = again && statement.is_indefinite(*plan);
                    !(varies || statement.is_volatile(*plan))
                });
                (
                    &scan.scan,
                    subplan.ok_or("a CTE that may give other rows each time")?,
                )
            }
            None => {
                let scan = get::<pg_sys::SubqueryScan>(plan.cast());
                let scan = scan.ok_or("a malformed subquery")?;
                (&scan.scan, scan.subplan)
            }
        };
        let varno = scan.scanrelid as i32;
        let used = Self::uses(&scan.plan, needed, &[], varno);
        let mut sub = match cte {
            // Postgres runs a CTE once for all.
            Some(_) => self.settled(subplan, &used)?,
            None => self.input(subplan, &used)?,
        };
        self.filter(&mut sub, scan.plan.qual, varno)?;
        sub.outputs = Self::targets(&scan.plan, needed, |target| over(target, varno, &sub));
        Ok(sub)
    }

    fn scan(&mut self, plan: *mut pg_sys::Plan, needed: Option<&[i16]>) -> Lowered<Sub> {
        let scan = get::<pg_sys::SeqScan>(plan.cast()).ok_or("a malformed scan")?;
        let rtindex = scan.scan.scanrelid;
        let relid = (self.statement.iceberg(rtindex)).ok_or("a scan of another table")?;
        self.statement.not_kept(rtindex)?;
        let mut table = Table::open(rtindex, relid);
        let (mut predicates, mut with_sublinks) = (vec![], vec![]);
        let mut behind_error = false;
        for qual in nodes(scan.scan.plan.qual) {
            if behind_error || has_sublink(qual) {
                behind_error |= self.statement.may_raise(qual);
                with_sublinks.push(scan_output(qual, &mut table)?);
                continue;
            }
            let predicate = Exprs::new(&mut table, &mut self.params).expression(qual)?;
            if !with_sublinks.is_empty() && predicate.can_fail() {
                return refused("a filter that can fail comes after a sublink");
            }
            predicates.push(predicate);
        }
        let outputs = Self::targets(&scan.scan.plan, needed, |target| {
            scan_output(target, &mut table)
        });
        let columns = table
            .columns()
            .map(|(attnum, ty)| Column {
                ty: ty.clone(),
                node: var(rtindex, attnum, ty),
            })
            .collect();
        let (scan, attnums) = table.into_scan(self.inputs.len() as u32, predicates);
        self.inputs.push(Input {
            source: Source::Relation {
                rtindex,
                relid: relid.to_u32(),
            },
            columns: attnums,
        });
        self.rows_scanned += super::table::estimated_rows(relid);
        let mut sub = Sub {
            plan: Plan::Scan(scan),
            columns,
            outputs,
            order: vec![],
            ordered: true,
            unknown_order: false,
            kept: vec![],
            // SAFETY: a plan node of the tree.
            rows: unsafe { (*plan).plan_rows.max(1.0) },
        };
        for qual in with_sublinks {
            self.qual(&mut sub, qual)?;
        }
        Ok(sub)
    }

    /// Rows that Postgres computes.
    fn feed(&mut self, plan: *mut pg_sys::Plan, needed: &[i16]) -> Lowered<Sub> {
        if plan.is_null() {
            return refused("a node without an input");
        }
        if plan_tag(plan) == NodeTag::T_Hash {
            // SAFETY: a plan node of the tree, whose outputs are its input's.
            return self.feed(unsafe { (*plan).lefttree }, needed);
        }
        // SAFETY: a plan node of the tree.
        let (targetlist, rows, tag) =
            unsafe { ((*plan).targetlist, (*plan).plan_rows, plan_tag(plan)) };
        if matches!(tag, NodeTag::T_Gather | NodeTag::T_GatherMerge) {
            return refused("a parallel plan is not lowered");
        }
        if self.statement.is_volatile(plan) {
            return refused("rows of a volatile function are not fed");
        }
        let targets = node::target_exprs(targetlist);
        let (mut columns, mut scanned, mut attnums) = (vec![], vec![], vec![]);
        let mut outputs = vec![];
        for (number, target) in (1i16..).zip(targets) {
            if !needed.contains(&number) {
                outputs.push(refused("a column that its parent doesn't use"));
                continue;
            }
            let ty = feed_type(target)?;
            scanned.push(ScanColumn {
                name: format!("c{number}"),
                source: ColumnSource::Field(number.into()),
                ty: ty.clone(),
                missing: None,
            });
            attnums.push(number);
            columns.push(Column {
                ty,
                node: node::base_expr(plan, target),
            });
            let at = columns.len();
            outputs.push(Ok(node::output_var(pg_sys::INDEX_VAR, at, target)));
        }
        let scan = Scan {
            table: self.inputs.len() as u32,
            name: FEED.to_owned(),
            columns: scanned,
            predicate: None,
        };
        self.feeds.push(plan);
        self.inputs.push(Input {
            source: Source::Plan(self.feeds.len() as u32),
            columns: attnums,
        });
        self.rows_fed += rows.max(1.0);
        Ok(Sub {
            plan: Plan::Scan(scan),
            columns,
            outputs,
            order: vec![],
            ordered: true,
            unknown_order: !is_unordered(tag),
            kept: vec![],
            rows: rows.max(1.0),
        })
    }

    /// Makes columns of outputs that are computed, and leaves those out that aren't used. `constants`, too, where
    /// the rows may come with nulls instead.
    pub fn settle(
        &mut self,
        mut sub: Sub,
        plan: *mut pg_sys::Plan,
        constants: bool,
    ) -> Lowered<Sub> {
        self.mark_outputs(&mut sub);
        let mut computed: Vec<(Expr, Node)> = vec![];
        // SAFETY: a plan node of the tree.
        let targets = node::target_exprs(unsafe { (*plan).targetlist });
        for (output, target) in sub.outputs.iter_mut().zip(targets) {
            let Ok(node) = output else { continue };
            let plain = get::<pg_sys::Var>(*node).is_some()
                || (!constants && get::<pg_sys::Const>(*node).is_some());
            if plain {
                continue;
            }
            match self.expression(&sub.columns, *node) {
                Ok(expr) if has_datum(&expr.ty, *node) => {
                    let at = sub.columns.len() + computed.len() + 1;
                    let new = node::output_var(pg_sys::INDEX_VAR, at, *node);
                    for key in sub.order.iter_mut().filter(|key| key.expr == expr) {
                        key.expr = column_expr(at - 1, &expr.ty);
                    }
                    computed.push((expr, in_base(*node, &sub.columns)));
                    *output = Ok(new);
                }
                Ok(_) => *output = refused("a type that the engine computes differently"),
                Err(reason) if constants && get::<pg_sys::Const>(*node).is_some() => {
                    *output = Err(reason);
                }
                Err(_) if is_deferrable(target) => {}
                Err(reason) => *output = Err(reason),
            }
        }
        sub.project(computed);
        Ok(sub)
    }
}

/// An expression over a node's input as one over that input's columns. `varno` is how Postgres
/// calls the input.
pub fn over(node: Node, varno: i32, input: &Sub) -> Lowered<Node> {
    let mut failed = None;
    let resolved = node::rewrite(node, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == varno)?;
        Some(match input.output(var.varattno) {
            Ok(output) => node::copy(output),
            Err(reason) => {
                failed.get_or_insert(reason);
                node::copy(node)
            }
        })
    });
    failed.map_or(Ok(resolved), Err)
}

/// An expression over a subtree's columns in terms of what Postgres' scans return.
pub fn in_base(node: Node, columns: &[Column]) -> Node {
    node::rewrite(node, &mut |node| {
        let var = get::<pg_sys::Var>(node).filter(|var| var.varno == pg_sys::INDEX_VAR)?;
        let column = columns.get(usize::try_from(var.varattno).ok()?.checked_sub(1)?)?;
        Some(node::copy(column.node))
    })
}

/// A scan's output over its columns.
fn scan_output(target: Node, table: &mut Table) -> Lowered<Node> {
    let mut failed = None;
    let output = node::rewrite(target, &mut |node| {
        let var = get::<pg_sys::Var>(node)?;
        let column = match var.varno == table.rtindex as i32 && var.varattno > 0 {
            true => table.column(var.varattno),
            false => refused("system columns and whole rows are not lowered"),
        };
        let returned = column.and_then(|at| {
            let (_, ty) = table.columns().nth(at as usize).ok_or("a missing column")?;
            // SAFETY: a type of the plan.
            match unsafe { has_codec(&ty.lake, var.vartype) } {
                true => Ok(node::output_var(pg_sys::INDEX_VAR, at as usize + 1, node)),
                false => refused("a type that is not stored as the engine returns it"),
            }
        });
        Some(returned.unwrap_or_else(|reason| {
            failed.get_or_insert(reason);
            node::copy(node)
        }))
    });
    failed.map_or(Ok(output), Err)
}

/// A Var of a scanned table.
fn var(rtindex: u32, attnum: i16, ty: &SqlType) -> Node {
    // SAFETY: makes a node.
    unsafe {
        pg_sys::makeVar(
            rtindex as i32,
            attnum,
            pg_sys::Oid::from(ty.oid),
            ty.typmod,
            pg_sys::Oid::from(ty.collation),
            0,
        )
        .cast()
    }
}

/// The type that a fed column has in the engine.
fn feed_type(target: Node) -> Lowered<SqlType> {
    let (typid, typmod, collation) = node::type_of(target);
    // SAFETY: a type of the plan.
    let lake = unsafe { expression_type(typid, typmod) }
        .ok_or_else(|| format!("type {} is not fed", super::consts::type_name(typid)))?;
    let mut ty = sql_type(lake, typid);
    ty.typmod = typmod;
    ty.collation = collation.to_u32();
    match has_datum(&ty, target) {
        true => Ok(ty),
        false => Err(format!(
            "type {} is not fed",
            super::consts::type_name(typid)
        )),
    }
}

/// Whether values of the engine's type can become datums of the expression's.
pub fn has_datum(ty: &SqlType, node: Node) -> bool {
    // SAFETY: a type of the plan.
    unsafe { has_codec(&ty.lake, node::type_of(node).0) }
}

/// Whether rows of a node of this kind have no order that a plan could rely on.
fn is_unordered(tag: NodeTag) -> bool {
    matches!(
        tag,
        NodeTag::T_SeqScan
            | NodeTag::T_FunctionScan
            | NodeTag::T_ValuesScan
            | NodeTag::T_CteScan
            | NodeTag::T_WorkTableScan
            | NodeTag::T_HashJoin
            | NodeTag::T_BitmapHeapScan
    )
}

/// For messages.
fn name_of(tag: NodeTag) -> String {
    format!("{tag:?}").trim_start_matches("T_").to_owned()
}
