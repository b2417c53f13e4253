//! What lowering knows of the statement as a whole.

use super::node::{Node, get, ints, nodes, plan_tag};
use super::{Lowered, refused};
use crate::decorrelate::is_safe;
use pgrx::pg_sys;
use pgrx::pg_sys::{NodeTag, SubLinkType};
use std::collections::HashMap;
use std::rc::Rc;

pub struct Statement {
    /// The relations of the range table.
    relations: Vec<Option<pg_sys::Oid>>,
    /// Those that are iceberg tables.
    range_table: Vec<Option<pg_sys::Oid>>,
    /// Range table entries that are written to, locked, or fetched again by EvalPlanQual.
    kept: Vec<u32>,
    /// Those of them whose rows are fetched as a whole for that.
    pub fetched: Vec<u32>,
    /// The plans of its sublinks, as they were before they were lowered.
    subplans: Vec<*mut pg_sys::Plan>,
    main: *mut pg_sys::Plan,
    /// Parameters for which nobody must ask before Postgres does.
    pub late: Rc<Vec<i32>>,
    /// Sublinks whose plans raise no error, by the numbers of these, and whether they give one row at most.
    safe: HashMap<i32, bool>,
    /// `lake.engine = force`
    pub force: bool,
    /// Rows may be asked for their `ctid` from outside the plan.
    pub positioned: bool,
}

impl Statement {
    pub fn new(stmt: &pg_sys::PlannedStmt, force: bool, positioned: bool) -> Statement {
        let relations: Vec<Option<pg_sys::Oid>> = nodes(stmt.rtable)
            .into_iter()
            .map(|entry| {
                get::<pg_sys::RangeTblEntry>(entry)
                    .filter(|entry| entry.rtekind == pg_sys::RTEKind::RTE_RELATION)
                    .map(|entry| entry.relid)
            })
            .collect();
        let range_table: Vec<Option<pg_sys::Oid>> = (relations.iter())
            .map(|relid| relid.filter(|relid| crate::am::is_iceberg(*relid)))
            .collect();
        let marks: Vec<&pg_sys::PlanRowMark> = nodes(stmt.rowMarks)
            .into_iter()
            .filter_map(get::<pg_sys::PlanRowMark>)
            .collect();
        let targets: Vec<u32> = ints(stmt.resultRelations)
            .into_iter()
            .filter_map(|rti| u32::try_from(rti).ok())
            .collect();
        let deletes = stmt.commandType == pg_sys::CmdType::CMD_DELETE && !stmt.hasReturning;
        let fetched_target = |rti: &u32| {
            let relid = range_table.get(*rti as usize - 1).copied().flatten();
            !deletes || relid.is_some_and(has_triggers)
        };
        let locked = marks
            .iter()
            .filter(|mark| mark.markType <= pg_sys::RowMarkType::ROW_MARK_KEYSHARE)
            .map(|mark| mark.rti);
        let subplans: Vec<*mut pg_sys::Plan> = (nodes(stmt.subplans).into_iter())
            .map(|plan| plan.cast())
            .collect();
        // Of other statements nothing is lowered.
        let (late, safe) = match range_table.iter().any(Option::is_some) {
            true => (
                super::initplans::late(stmt.planTree, &subplans, &relations),
                super::initplans::safe(stmt.planTree, &subplans, &relations),
            ),
            false => (vec![], HashMap::new()),
        };
        Statement {
            kept: marks.iter().map(|m| m.rti).chain(targets.clone()).collect(),
            fetched: locked
                .chain(targets.iter().copied().filter(fetched_target))
                .collect(),
            relations,
            range_table,
            subplans,
            late: Rc::new(late),
            safe,
            main: stmt.planTree,
            force,
            positioned,
        }
    }

    /// Whether the statement names an iceberg table at all.
    pub fn concerns_us(&self) -> bool {
        self.range_table.iter().any(Option::is_some)
    }

    /// The iceberg table that a range table entry is.
    pub fn iceberg(&self, rtindex: u32) -> Option<pg_sys::Oid> {
        *self.range_table.get(rtindex.checked_sub(1)? as usize)?
    }

    /// The plan of a sublink.
    pub fn subplan(&self, id: i32) -> Option<*mut pg_sys::Plan> {
        let plan = self.subplans.get(usize::try_from(id).ok()?.checked_sub(1)?);
        plan.copied().filter(|plan| !plan.is_null())
    }

    /// Whether the plan of a sublink raises no error and does nothing that could be noticed.
    pub fn raises_nothing(&self, id: i32) -> bool {
        self.safe.contains_key(&id)
    }

    /// Whether evaluating an expression, or a list, could raise an error, in the plans of its sublinks, too.
    pub fn may_raise(&self, node: Node) -> bool {
        !is_safe(node, &|node| self.is_harmless(node))
    }

    /// Whether running a part of the plan could raise an error, or do something that could be noticed.
    pub fn plan_may_raise(&self, plan: *mut pg_sys::Plan) -> bool {
        !super::initplans::is_safe_part(plan, self.main, &self.subplans, &self.relations)
    }

    /// Whether a node, with what is below it, is one of those that only plans have, and raises no error.
    fn is_harmless(&self, node: Node) -> bool {
        if let Some(param) = get::<pg_sys::Param>(node) {
            return param.paramkind == pg_sys::ParamKind::PARAM_EXEC
                && !self.late.contains(&param.paramid);
        }
        let Some(sublink) = get::<pg_sys::SubPlan>(node) else {
            return false;
        };
        let single = self.safe.get(&sublink.plan_id);
        let fits = match sublink.subLinkType {
            SubLinkType::EXISTS_SUBLINK
            | SubLinkType::ARRAY_SUBLINK
            | SubLinkType::ANY_SUBLINK
            | SubLinkType::ALL_SUBLINK => single.is_some(),
            // Of more than one row Postgres makes an error.
            SubLinkType::EXPR_SUBLINK | SubLinkType::ROWCOMPARE_SUBLINK => single == Some(&true),
            _ => false,
        };
        fits && !self.may_raise(sublink.testexpr) && !self.may_raise(sublink.args.cast())
    }

    /// Whether running a plan more or less often, or to its end, could be noticed.
    pub fn is_volatile(&self, plan: *mut pg_sys::Plan) -> bool {
        if plan.is_null() {
            return false;
        }
        // SAFETY: raises an error if the stack is nearly used up; a plan node of the tree.
        let node = unsafe {
            pg_sys::check_stack_depth();
            &*plan
        };
        let tree = plan.cast();
        if plan_tag(plan) == NodeTag::T_SampleScan {
            return true;
        }
        let mut lists = vec![node.targetlist, node.qual];
        if matches!(
            plan_tag(plan),
            NodeTag::T_NestLoop | NodeTag::T_MergeJoin | NodeTag::T_HashJoin
        ) {
            // SAFETY: these nodes begin with a Join.
            lists.push(unsafe { (*plan.cast::<pg_sys::Join>()).joinqual });
        }
        lists.extend(get::<pg_sys::FunctionScan>(tree).map(|scan| scan.functions));
        lists.extend(get::<pg_sys::ValuesScan>(tree).map(|scan| scan.values_lists));
        let mut plans = vec![node.lefttree, node.righttree];
        plans.extend(get::<pg_sys::SubqueryScan>(tree).map(|scan| scan.subplan));
        plans.extend(get::<pg_sys::CteScan>(tree).and_then(|scan| self.subplan(scan.ctePlanId)));
        let children = [
            get::<pg_sys::Append>(tree).map(|append| append.appendplans),
            get::<pg_sys::MergeAppend>(tree).map(|append| append.mergeplans),
            get::<pg_sys::CustomScan>(tree).map(|custom| custom.custom_plans),
        ];
        plans.extend(
            (children.into_iter().flatten())
                .flat_map(nodes)
                .map(|child| child.cast()),
        );
        for list in &lists {
            super::node::visit(list.cast(), &mut |node| {
                if let Some(sublink) = get::<pg_sys::SubPlan>(node) {
                    plans.extend(self.subplan(sublink.plan_id));
                }
                true
            });
        }
        lists
            .into_iter()
            // SAFETY: expressions.
            .any(|list| unsafe { pg_sys::contain_volatile_functions(list.cast()) })
            || plans.into_iter().any(|child| self.is_volatile(child))
    }

    /// A fragment can't run again over a row that EvalPlanQual puts in a scan's place.
    pub fn not_kept(&self, rtindex: u32) -> Lowered<()> {
        match self.kept.contains(&rtindex) {
            true => refused("only a scan is lowered of a table whose rows are locked or written"),
            false => Ok(()),
        }
    }

    /// The iceberg table that the node itself scans.
    pub fn scanned(&self, plan: *mut pg_sys::Plan) -> Option<pg_sys::Oid> {
        use NodeTag::{
            T_BitmapHeapScan, T_IndexOnlyScan, T_IndexScan, T_SampleScan, T_SeqScan,
            T_TidRangeScan, T_TidScan,
        };
        match plan_tag(plan) {
            T_SeqScan | T_SampleScan | T_IndexScan | T_IndexOnlyScan | T_BitmapHeapScan
            | T_TidScan | T_TidRangeScan => {
                // SAFETY: these nodes begin with a Scan.
                self.iceberg(unsafe { (*plan.cast::<pg_sys::Scan>()).scanrelid })
            }
            _ => None,
        }
    }

    /// Whether an iceberg table is scanned as a whole somewhere in a plan.
    pub fn scans_iceberg(&self, plan: *mut pg_sys::Plan) -> bool {
        self.any(plan, &|plan| {
            plan_tag(plan) == NodeTag::T_SeqScan && self.scanned(plan).is_some()
        })
    }

    /// Whether rows of an iceberg table are read somewhere in a plan.
    pub fn reads_iceberg(&self, plan: *mut pg_sys::Plan) -> bool {
        self.any(plan, &|plan| self.scanned(plan).is_some())
    }

    /// Whether there is a recursion in a plan.
    pub fn has_recursion(&self, plan: *mut pg_sys::Plan) -> bool {
        self.any(plan, &|plan| plan_tag(plan) == NodeTag::T_RecursiveUnion)
    }

    /// Whether a plan is a part of a recursion, and run for each of its steps.
    pub fn is_step(plan: *mut pg_sys::Plan) -> bool {
        if plan.is_null() {
            return false;
        }
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        match plan_tag(plan) {
            NodeTag::T_WorkTableScan => true,
            NodeTag::T_RecursiveUnion => false,
            _ => super::node::inputs(plan).into_iter().any(Self::is_step),
        }
    }

    /// Whether the rows of a CTE are read more than once: by several scans of it, or by one that is run for each of other
    /// rows, for which the CTE isn't.
    pub fn is_read_again(&self, id: i32) -> bool {
        let stays = self.subplan(id).is_some_and(|plan| !has_params(plan));
        let subplans = self.subplans.iter().copied();
        let mut open: Vec<(*mut pg_sys::Plan, bool)> = subplans
            .map(|plan| (plan, stays && has_params(plan)))
            .collect();
        open.push((self.main, false));
        let mut reads = 0;
        while let Some((plan, repeated)) = open.pop() {
            if plan.is_null() {
                continue;
            }
            let scan = get::<pg_sys::CteScan>(plan.cast());
            if scan.is_some_and(|scan| scan.ctePlanId == id) {
                reads += if repeated { 2 } else { 1 };
            }
            let nest = get::<pg_sys::NestLoop>(plan.cast());
            let nest = nest.filter(|nest| stays && !nest.nestParams.is_null());
            let inner = nest.map(|nest| nest.join.plan.righttree);
            let inputs = super::node::inputs(plan).into_iter();
            open.extend(inputs.map(|input| (input, repeated || inner == Some(input))));
        }
        reads > 1
    }

    /// Whether a plan may give other rows when it is run again, though nothing in it is volatile.
    pub fn is_indefinite(&self, plan: *mut pg_sys::Plan) -> bool {
        self.any(plan, &|plan| {
            let cut = matches!(
                plan_tag(plan),
                NodeTag::T_Limit | NodeTag::T_WindowAgg | NodeTag::T_SampleScan
            );
            cut || is_distinct_on(plan) || depends_on_order(plan)
        })
    }

    fn any(&self, plan: *mut pg_sys::Plan, test: &dyn Fn(*mut pg_sys::Plan) -> bool) -> bool {
        if plan.is_null() {
            return false;
        }
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        let cte = get::<pg_sys::CteScan>(plan.cast());
        let cte = cte.and_then(|scan| self.subplan(scan.ctePlanId));
        let mut inputs = super::node::inputs(plan).into_iter().chain(cte);
        test(plan) || inputs.any(|input| self.any(input, test))
    }
}

/// Whether a plan depends on parameters that are set elsewhere, by outer rows above all.
fn has_params(plan: *mut pg_sys::Plan) -> bool {
    // SAFETY: null, or a plan node.
    !plan.is_null() && unsafe { !(*plan).extParam.is_null() }
}

/// Whether a node takes one of several rows that differ in other columns.
fn is_distinct_on(plan: *mut pg_sys::Plan) -> bool {
    get::<pg_sys::Unique>(plan.cast()).is_some_and(|unique| {
        let columns = nodes(unique.plan.targetlist).len();
        usize::try_from(unique.numCols).is_ok_and(|compared| compared < columns)
    })
}

/// Whether a node adds up floating-point numbers, whose sum depends on the order, or has rows in an order that may leave
/// some of them equal.
fn depends_on_order(plan: *mut pg_sys::Plan) -> bool {
    // SAFETY: a plan node of the tree.
    let lists = unsafe { [(*plan).targetlist, (*plan).qual] };
    let mut found = false;
    for list in lists {
        super::node::visit(list.cast(), &mut |node| {
            found |= get::<pg_sys::Aggref>(node).is_some_and(|call| {
                let floats = matches!(call.aggtype, pg_sys::FLOAT4OID | pg_sys::FLOAT8OID);
                floats || !call.aggorder.is_null()
            });
            !found
        });
    }
    found
}

/// Whether rows that are deleted are fetched for triggers.
fn has_triggers(relid: pg_sys::Oid) -> bool {
    // SAFETY: the relation is locked by the query.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let has = !(*rel).trigdesc.is_null();
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
        has
    }
}
