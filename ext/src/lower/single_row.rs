//! Plans that never give more than one row: aggregates without groups, limits, single values, scans of which an index says
//! that one row at most is equal to what is looked for, and joins of such.
//!
//! A proof holds as long as the index is there: dropping it invalidates all plans that name its table, as this one does.

use super::node::{Node, array, get, nodes, plan_tag, target_exprs, visit};
use super::order::is_deterministic;
use pgrx::pg_sys::JoinType::{
    JOIN_ANTI, JOIN_INNER, JOIN_LEFT, JOIN_RIGHT, JOIN_RIGHT_ANTI, JOIN_SEMI,
};
use pgrx::pg_sys::NodeTag;
use pgrx::{PgList, pg_sys};

/// What proofs need to know of the statement.
pub struct SingleRows<'a> {
    /// The relations of its range table.
    pub relations: &'a [Option<pg_sys::Oid>],
    /// The plans of its sublinks and CTEs.
    pub subplans: &'a [*mut pg_sys::Plan],
}

impl SingleRows<'_> {
    pub fn subplan(&self, id: i32) -> Option<*mut pg_sys::Plan> {
        let plan = self.subplans.get(usize::try_from(id).ok()?.checked_sub(1)?);
        plan.copied().filter(|plan| !plan.is_null())
    }

    /// Whether there is never more than one row.
    pub fn is_single(&self, plan: *mut pg_sys::Plan) -> bool {
        if plan.is_null() {
            return false;
        }
        // SAFETY: raises an error if the stack is nearly used up.
        unsafe { pg_sys::check_stack_depth() };
        // SAFETY: a plan node of the tree.
        let input = unsafe { (*plan).lefttree };
        let node: Node = plan.cast();
        match plan_tag(plan) {
            NodeTag::T_Sort
            | NodeTag::T_IncrementalSort
            | NodeTag::T_Material
            | NodeTag::T_Memoize
            | NodeTag::T_Hash => self.is_single(input),
            NodeTag::T_NestLoop | NodeTag::T_HashJoin | NodeTag::T_MergeJoin => {
                // SAFETY: these nodes begin with a Join.
                self.is_single_pair(unsafe { &*plan.cast::<pg_sys::Join>() })
            }
            NodeTag::T_Result => input.is_null() || self.is_single(input),
            _ => {
                is_limited(node)
                    || is_one_group(node)
                    || self.is_one_row_of_relation(plan)
                    || self.passes_single(node)
            }
        }
    }

    /// Of the other nodes, those that give no more rows than what they read.
    fn passes_single(&self, node: Node) -> bool {
        if let Some(agg) = get::<pg_sys::Agg>(node) {
            return agg.groupingSets.is_null() && self.is_single(agg.plan.lefttree);
        }
        if let Some(scan) = get::<pg_sys::ValuesScan>(node) {
            return nodes(scan.values_lists).len() <= 1;
        }
        let input = (get::<pg_sys::SubqueryScan>(node).map(|scan| scan.subplan))
            .or_else(|| self.subplan(get::<pg_sys::CteScan>(node)?.ctePlanId))
            .or_else(|| Some(get::<pg_sys::Limit>(node)?.plan.lefttree))
            .or_else(|| Some(get::<pg_sys::Group>(node)?.plan.lefttree))
            .or_else(|| Some(get::<pg_sys::Unique>(node)?.plan.lefttree));
        input.is_some_and(|input| self.is_single(input))
    }

    fn is_single_pair(&self, join: &pg_sys::Join) -> bool {
        let outer = || self.is_single(join.plan.lefttree);
        let inner = || self.is_single(join.plan.righttree);
        match join.jointype {
            JOIN_SEMI | JOIN_ANTI => outer(),
            JOIN_RIGHT_ANTI => inner(),
            JOIN_INNER | JOIN_LEFT => outer() && (join.inner_unique || inner()),
            JOIN_RIGHT => outer() && inner(),
            _ => false,
        }
    }

    /// Whether a scan looks for one value of each column of a unique index.
    fn is_one_row_of_relation(&self, plan: *mut pg_sys::Plan) -> bool {
        let Some(scan) = RelationScan::of(plan) else {
            return false;
        };
        let at = usize::try_from(scan.rtindex).ok();
        let relid = at.and_then(|at| self.relations.get(at.checked_sub(1)?).copied().flatten());
        relid.is_some_and(|relid| has_unique_index_for(relid, &scan))
    }
}

/// A `LIMIT` of one row, or none.
fn is_limited(node: Node) -> bool {
    get::<pg_sys::Limit>(node).is_some_and(|limit| {
        let ties = limit.limitOption == pg_sys::LimitOption::LIMIT_OPTION_WITH_TIES;
        !ties && count(limit.limitCount).is_some_and(|count| count <= 1)
    })
}

/// A constant number of rows.
pub fn count(bound: Node) -> Option<i64> {
    let constant = get::<pg_sys::Const>(bound)?;
    let is_count = constant.consttype == pg_sys::INT8OID && !constant.constisnull;
    let count = constant.constvalue.value() as i64;
    (is_count && count >= 0).then_some(count)
}

/// Whether all rows are of one group: it has no columns, or all of them are constant.
fn is_one_group(node: Node) -> bool {
    let (plan, columns) = if let Some(agg) = get::<pg_sys::Agg>(node) {
        if !(agg.chain.is_null() && agg.groupingSets.is_null()) {
            return false;
        }
        (&agg.plan, array(agg.grpColIdx, agg.numCols))
    } else if let Some(group) = get::<pg_sys::Group>(node) {
        (&group.plan, array(group.grpColIdx, group.numCols))
    } else if let Some(unique) = get::<pg_sys::Unique>(node) {
        (&unique.plan, array(unique.uniqColIdx, unique.numCols))
    } else {
        return false;
    };
    (columns.into_iter()).all(|column| is_constant(plan.lefttree, column))
}

/// Whether an output (from 1) is the same in all rows.
fn is_constant(plan: *mut pg_sys::Plan, number: i16) -> bool {
    if plan.is_null() {
        return false;
    }
    // SAFETY: a plan node of the tree.
    let (targets, input) = unsafe { (target_exprs((*plan).targetlist), (*plan).lefttree) };
    let at = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    let Some(target) = at.and_then(|at| targets.get(at).copied()) else {
        return false;
    };
    match get::<pg_sys::Var>(target) {
        Some(var) => {
            let passed = matches!(
                plan_tag(plan),
                NodeTag::T_Sort
                    | NodeTag::T_IncrementalSort
                    | NodeTag::T_Material
                    | NodeTag::T_Result
            );
            passed && var.varno == pg_sys::OUTER_VAR && is_constant(input, var.varattno)
        }
        None => get::<pg_sys::Const>(target).is_some(),
    }
}

/// A scan of a relation, and what holds for its rows.
struct RelationScan {
    rtindex: u32,
    quals: Vec<Node>,
    /// What it scans, if that is an index.
    index: pg_sys::Oid,
    /// Of an index-only scan: what the columns of the index are.
    index_columns: Vec<Node>,
}

/// A condition `column = value` of the same value for all rows.
pub struct Equality {
    pub attnum: i16,
    pub operator: pg_sys::Oid,
    pub collation: pg_sys::Oid,
}

/// Whether at most one row of a table meets these conditions, by one of its indexes; the query has locked the table.
pub fn is_found_by(relid: pg_sys::Oid, equalities: &[Equality]) -> bool {
    // SAFETY: an index is open while it is looked at; of tables that inherit from this one it knows nothing.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let form = (*rel).rd_rel;
        let is_alone = (*form).relkind as u8 == pg_sys::RELKIND_RELATION && !(*form).relhassubclass;
        let indexes = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(rel));
        let found = is_alone
            && indexes.iter_oid().any(|oid| {
                let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
                let has_all = pg_sys::RelationGetIndexPredicate(index).is_null();
                let unique = has_all && is_unique_for(index, equalities);
                pg_sys::index_close(index, pg_sys::AccessShareLock as i32);
                unique
            });
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
        found
    }
}

impl RelationScan {
    fn of(plan: *mut pg_sys::Plan) -> Option<RelationScan> {
        let node: Node = plan.cast();
        let mut index = pg_sys::InvalidOid;
        let mut index_columns = vec![];
        let (scan, more) = if let Some(scan) = get::<pg_sys::SeqScan>(node) {
            (&scan.scan, std::ptr::null_mut())
        } else if let Some(scan) = get::<pg_sys::IndexScan>(node) {
            index = scan.indexid;
            (&scan.scan, scan.indexqualorig)
        } else if let Some(scan) = get::<pg_sys::IndexOnlyScan>(node) {
            index = scan.indexid;
            index_columns = target_exprs(scan.indextlist);
            (&scan.scan, scan.indexqual)
        } else if let Some(scan) = get::<pg_sys::BitmapHeapScan>(node) {
            (&scan.scan, scan.bitmapqualorig)
        } else {
            return None;
        };
        let mut quals = nodes(scan.plan.qual);
        quals.extend(nodes(more));
        Some(RelationScan {
            rtindex: scan.scanrelid,
            quals,
            index,
            index_columns,
        })
    }

    fn equalities(&self) -> Vec<Equality> {
        let mut found = vec![];
        for qual in &self.quals {
            let Some(op) = get::<pg_sys::OpExpr>(*qual) else {
                continue;
            };
            let args = nodes(op.args);
            let [left, right] = args.as_slice() else {
                continue;
            };
            let attnum = match (self.column(*left), self.column(*right)) {
                (Some(attnum), None) if is_same_for_all(*right) => attnum,
                (None, Some(attnum)) if is_same_for_all(*left) => attnum,
                _ => continue,
            };
            found.push(Equality {
                attnum,
                operator: op.opno,
                collation: op.inputcollid,
            });
        }
        found
    }

    /// The column that an operand is.
    fn column(&self, operand: Node) -> Option<i16> {
        if let Some(relabel) = get::<pg_sys::RelabelType>(operand) {
            // Arrays of another type are compared by that type's equality, with the same operator.
            // SAFETY: looks the type up.
            let element = unsafe { pg_sys::get_element_type(relabel.resulttype) };
            return match element == pg_sys::InvalidOid {
                true => self.column(relabel.arg.cast()),
                false => None,
            };
        }
        let var = get::<pg_sys::Var>(operand)?;
        if var.varno == self.rtindex as i32 {
            return (var.varattno > 0).then_some(var.varattno);
        }
        if var.varno != pg_sys::INDEX_VAR {
            return None;
        }
        let at = usize::try_from(var.varattno).ok()?.checked_sub(1)?;
        let column = get::<pg_sys::Var>(*self.index_columns.get(at)?)?;
        (column.varno == self.rtindex as i32 && column.varattno > 0).then_some(column.varattno)
    }
}

/// Whether an operand has the same value for all rows of a scan.
fn is_same_for_all(operand: Node) -> bool {
    let mut same = true;
    visit(operand, &mut |node| {
        same &= !matches!(
            super::node::tag(node),
            NodeTag::T_Var | NodeTag::T_SubPlan | NodeTag::T_AlternativeSubPlan
        );
        same
    });
    // SAFETY: an expression of the plan.
    same && unsafe { !pg_sys::contain_volatile_functions(operand) }
}

/// Whether rows that meet the conditions of a scan would have to be equal in a unique index.
fn has_unique_index_for(relid: pg_sys::Oid, scan: &RelationScan) -> bool {
    let equalities = scan.equalities();
    if equalities.is_empty() {
        return false;
    }
    // SAFETY: the relation is locked by the query; its indexes are locked while they are looked at.
    unsafe {
        let rel = pg_sys::table_open(relid, pg_sys::NoLock as i32);
        let indexes = PgList::<pg_sys::Oid>::from_pg(pg_sys::RelationGetIndexList(rel));
        let found = indexes.iter_oid().any(|oid| {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let unique = is_unique_for(index, &equalities) && covers(index, scan);
            pg_sys::index_close(index, pg_sys::AccessShareLock as i32);
            unique
        });
        pg_sys::table_close(rel, pg_sys::NoLock as i32);
        found
    }
}

/// Whether an index has at most one row for these values, at any time.
///
/// # Safety
/// An open index.
unsafe fn is_unique_for(index: pg_sys::Relation, equalities: &[Equality]) -> bool {
    // SAFETY: by contract; the arrays have an element for each column of the key.
    let keys: Vec<(i16, pg_sys::Oid, pg_sys::Oid)> = unsafe {
        let form = (*index).rd_index;
        let unique = (*form).indisunique && (*form).indimmediate;
        // Where old rows don't count yet, snapshots may see several that are equal.
        let usable =
            (*form).indisvalid && (*form).indisready && (*form).indislive && !(*form).indcheckxmin;
        if !(unique && usable) || (*(*index).rd_rel).relam != pg_sys::BTREE_AM_OID {
            return false;
        }
        let count = (*form).indnkeyatts;
        let attnums = (*form)
            .indkey
            .values
            .as_slice(usize::from(count.unsigned_abs()));
        let families = array((*index).rd_opfamily.cast_const(), count.into());
        let collations = array((*index).rd_indcollation.cast_const(), count.into());
        (attnums.iter().copied().zip(families).zip(collations))
            .map(|((attnum, family), collation)| (attnum, family, collation))
            .collect()
    };
    // An expression has the number 0.
    keys.into_iter().all(|(attnum, family, collation)| {
        equalities.iter().any(|equality| {
            // What a deterministic collation holds equal has the same bytes: any index does then.
            let collated = equality.collation == collation
                || equality.collation == pg_sys::InvalidOid
                || is_deterministic(equality.collation);
            // SAFETY: looks the operator up.
            let strategy =
                || unsafe { pg_sys::get_op_opfamily_strategy(equality.operator, family) };
            equality.attnum == attnum
                && collated
                && strategy() == pg_sys::BTEqualStrategyNumber as i32
        })
    })
}

/// Whether a partial index has all rows of the scan.
///
/// # Safety
/// An open index.
unsafe fn covers(index: pg_sys::Relation, scan: &RelationScan) -> bool {
    // SAFETY: by contract; the predicate is a copy, of which the relation is number 1.
    unsafe {
        let predicate = pg_sys::RelationGetIndexPredicate(index);
        if predicate.is_null() || (*index).rd_id == scan.index {
            return true;
        }
        pg_sys::ChangeVarNodes(predicate.cast(), 1, scan.rtindex as i32, 0);
        let quals = super::node::list(scan.quals.iter().copied());
        pg_sys::predicate_implied_by(predicate, quals, false)
    }
}
