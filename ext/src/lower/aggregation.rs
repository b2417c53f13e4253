//! Aggregations, and DISTINCT, which is one without functions.

use super::aggregates::Aggregates;
use super::expr::{Exprs, operator_function};
use super::forms::Forms;
use super::grouping_sets::{Groupings, Keys, set_column};
use super::marks::with_marks;
use super::node::{self, Node, array, get, nodes};
use super::order::{group_key, is_printed};
use super::sub::{Column, Sub, column_expr};
use super::tree::{Builder, in_base, over};
use super::{Lowered, refused};
use pg_lake_plan::ir::{Expr, Plan, SortKey};
use pgrx::pg_sys;
use pgrx::pg_sys::AggStrategy::{AGG_PLAIN, AGG_SORTED};

/// What Postgres' node says.
struct Spec<'a> {
    plan: &'a pg_sys::Plan,
    keys: Keys,
    groups: f64,
    /// Exactly one row, also of no input.
    plain: bool,
    /// Its input is ordered by the groups, and its output, too.
    sorted: bool,
}

impl<'a> Spec<'a> {
    fn of(plan: *mut pg_sys::Plan) -> Lowered<Spec<'a>> {
        if let Some(group) = get::<pg_sys::Group>(plan.cast()) {
            return Ok(Spec {
                plan: &group.plan,
                keys: Keys {
                    columns: array(group.grpColIdx, group.numCols),
                    operators: array(group.grpOperators, group.numCols),
                    collations: array(group.grpCollations, group.numCols),
                    sets: vec![],
                },
                groups: group.plan.plan_rows,
                plain: false,
                sorted: true,
            });
        }
        let agg = get::<pg_sys::Agg>(plan.cast()).ok_or("a malformed aggregation")?;
        if agg.aggsplit != pg_sys::AggSplit::AGGSPLIT_SIMPLE {
            return refused("partial aggregation is not lowered");
        }
        let keys = Keys::of(agg);
        let one_set = keys.sets.is_empty();
        Ok(Spec {
            plan: &agg.plan,
            groups: match one_set {
                true => agg.numGroups as f64,
                false => agg.plan.plan_rows,
            },
            plain: agg.aggstrategy == AGG_PLAIN && one_set,
            sorted: agg.aggstrategy == AGG_SORTED && agg.chain.is_null(),
            keys,
        })
    }
}

/// What is grouped by.
pub struct Group {
    /// Over the input's columns: the value, or what equal values have in common.
    pub expr: Expr,
    /// The value, if that is something else.
    pub form: Option<Expr>,
    /// The value for Postgres.
    pub node: Node,
}

impl Builder<'_> {
    pub(super) fn aggregation(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let spec = Spec::of(plan)?;
        let mut used = Self::uses(spec.plan, needed, &[], pg_sys::OUTER_VAR);
        used.extend(&spec.keys.columns);
        let mut input = self.input(spec.plan.lefttree, &used)?;
        let keys = &spec.keys;
        let targets = Self::wanted(spec.plan, needed)
            .into_iter()
            .zip(node::target_exprs(spec.plan.targetlist))
            .filter_map(|(wanted, target)| wanted.then_some(target));
        let exprs: Vec<Node> = targets.chain([spec.plan.qual.cast()]).collect();
        let marks = self.marks_within(&mut input, &exprs);
        let (numbers, groups) = self.groups(&spec, &input, needed)?;
        let groupings = Groupings::within(exprs, keys);
        if !keys.sets.is_empty() && groups.iter().any(|group| group.form.is_some()) {
            return refused("grouping sets of this type are not lowered");
        }
        let shown = Self::shown(&spec, needed);
        let is_shown = |at: usize| numbers.get(at).is_some_and(|number| shown.contains(number));
        let first_form = groups.len() + groupings.count();
        let forms = Forms::of(&groups, is_shown, &input, first_form);
        let before_aggregates = first_form + forms.count();
        let mut aggregates = Aggregates {
            given_order: self.order_within(&spec, &input, &groups),
            ..Aggregates::default()
        };
        let mut rewrite = |node: Node, exprs: &mut Exprs<'_>| {
            let mut failed = None;
            let rewritten = node::rewrite(node, &mut |node| {
                let replaced = match node::tag(node) {
                    pg_sys::NodeTag::T_Aggref => over(node, pg_sys::OUTER_VAR, &input)
                        .map(|call| with_marks(call, &marks))
                        .and_then(|call| aggregates.lower(exprs, call, before_aggregates)),
                    pg_sys::NodeTag::T_Var => {
                        group_place(node, &numbers).and_then(|at| forms.var(&groups, at))
                    }
                    pg_sys::NodeTag::T_GroupingFunc => groupings.var(node, keys, groups.len() + 1),
                    _ => return None,
                };
                Some(replaced.unwrap_or_else(|reason| {
                    failed.get_or_insert(reason);
                    node::copy(node)
                }))
            });
            failed.map_or(Ok(rewritten), Err)
        };
        let mut exprs = Exprs::of(&input.columns, &mut self.params);
        let outputs = Self::targets(spec.plan, needed, |target| rewrite(target, &mut exprs));
        let having = nodes(spec.plan.qual)
            .into_iter()
            .map(|qual| rewrite(qual, &mut exprs))
            .collect::<Lowered<Vec<Node>>>()?;
        // An output that can't be had might have been an aggregate that raises an error.
        Self::check_wanted(spec.plan, needed, &outputs)?;
        // Without columns to group by (all are constant), Postgres' sorted aggregation still returns
        // no row for no input.
        if spec.plain != groups.is_empty() || (spec.plain && aggregates.outputs.is_empty()) {
            return refused("an aggregation without groups or aggregates is not lowered");
        }
        let mut order = group_order(&spec, &input, &groups);
        let unknown_order = spec.sorted && input.loses_order(&order, groups.len());
        let mut columns: Vec<Column> = groups.iter().map(|group| group.column(&input)).collect();
        columns.extend(groupings.columns(&input)?);
        columns.extend(forms.columns);
        columns.extend(aggregates.outputs.iter().map(|output| Column {
            ty: output.aggregate.ty.clone(),
            node: in_base(output.aggref, &input.columns),
        }));
        if !spec.keys.sets.is_empty() {
            let set = set_column();
            if !order.is_empty() {
                // Rows of a larger set come before those of a smaller one with the same values.
                order.push(SortKey {
                    expr: column_expr(columns.len(), &set.ty),
                    descending: false,
                    nulls_first: false,
                });
            }
            columns.push(set);
        }
        let group_count = groups.len();
        let empty = Plan::Append { inputs: vec![] };
        let plan = Plan::Aggregate {
            input: Box::new(std::mem::replace(&mut input.plan, empty)),
            groups: groups.into_iter().map(|group| group.expr).collect(),
            aggregates: (forms.aggregates.into_iter())
                .chain(
                    aggregates
                        .outputs
                        .into_iter()
                        .map(|output| output.aggregate),
                )
                .collect(),
            sets: spec.keys.sets,
            groups_estimate: spec.groups.max(1.0),
        };
        let mut sub = Sub {
            plan: groupings.project(plan, group_count, &columns),
            columns,
            outputs,
            order,
            ordered: false,
            unknown_order,
            kept: vec![],
            rows: 0.0,
        };
        self.having(&mut sub, having);
        Ok(sub)
    }

    /// The order in which Postgres' functions get the rows of a group: none, if it isn't known. Its node takes the rows of its input
    /// one after the other, also if it hashes, and if it has to spill. By a sort for the groups alone there is none within them.
    fn order_within(&self, spec: &Spec<'_>, input: &Sub, groups: &[Group]) -> Vec<SortKey> {
        let order = &input.order;
        let known = spec.keys.sets.is_empty()
            && !input.unknown_order
            && order.iter().any(|key| over_groups(&key.expr, groups).is_none())
            // The engine evaluates it only for rows that the function takes.
            && !order.iter().any(|key| key.expr.can_fail())
            && self.is_whole_order(spec.plan.lefttree);
        match known {
            true => order.clone(),
            false => vec![],
        }
    }

    /// Whether the order that is known of a plan's rows is all of Postgres': where it says nothing they come as they like. The elements
    /// of a row's set have an order, too, and so may have the partners of a join's row.
    pub(super) fn is_whole_order(&self, mut plan: *mut pg_sys::Plan) -> bool {
        use pg_sys::NodeTag::{
            T_Agg, T_CteScan, T_Group, T_IncrementalSort, T_Limit, T_Material, T_MergeAppend,
            T_Result, T_Sort, T_SubqueryScan, T_Unique, T_WindowAgg,
        };
        while !plan.is_null() {
            plan = match node::plan_tag(plan) {
                T_Sort | T_IncrementalSort | T_MergeAppend | T_Group => return true,
                // Each group is one row.
                T_Agg => {
                    let agg = get::<pg_sys::Agg>(plan.cast());
                    return agg.is_some_and(|agg| agg.groupingSets.is_null());
                }
                // SAFETY: a plan node of the tree.
                T_Limit | T_Material | T_Result | T_Unique | T_WindowAgg => unsafe {
                    (*plan).lefttree
                },
                T_SubqueryScan => get::<pg_sys::SubqueryScan>(plan.cast())
                    .map_or(std::ptr::null_mut(), |scan| scan.subplan),
                T_CteScan => get::<pg_sys::CteScan>(plan.cast())
                    .and_then(|scan| self.statement.subplan(scan.ctePlanId))
                    .unwrap_or(std::ptr::null_mut()),
                _ => return false,
            };
        }
        false
    }

    /// What is grouped by, and which outputs of the input that is.
    fn groups(
        &mut self,
        spec: &Spec<'_>,
        input: &Sub,
        needed: Option<&[i16]>,
    ) -> Lowered<(Vec<i16>, Vec<Group>)> {
        let keys = &spec.keys;
        let mut numbers = keys.columns.clone();
        let mut groups = vec![];
        let each = (keys.columns.iter().zip(&keys.operators)).zip(&keys.collations);
        for ((column, operator), collation) in each {
            let equality = operator_function(pg_sys::InvalidOid, *operator);
            groups.push(self.group(input, *column, Some(equality), *collation)?);
        }
        // Columns that depend on the groups by a primary key: grouping by them too changes nothing.
        for column in self.ungrouped(spec, needed) {
            if !keys.sets.is_empty() {
                return refused("a column that is in no grouping set is not lowered");
            }
            let collation = node::type_of(input.output(column)?).2;
            groups.push(self.group(input, column, None, collation)?);
            numbers.push(column);
        }
        Ok((numbers, groups))
    }

    /// Filters groups, as far as the engine can; the quals from there on are left to Postgres.
    pub(super) fn having(&mut self, sub: &mut Sub, quals: Vec<Node>) {
        for qual in quals {
            let lowered = match sub.kept.is_empty() {
                true => self.expression(&sub.columns, qual),
                false => refused("it comes after one that is not lowered"),
            };
            match lowered {
                Ok(predicate) => sub.wrap(|input, _| Plan::Filter { input, predicate }),
                Err(_) => sub.kept.push(qual),
            }
        }
    }

    pub(super) fn group(
        &mut self,
        input: &Sub,
        column: i16,
        equality: Option<pg_sys::Oid>,
        collation: pg_sys::Oid,
    ) -> Lowered<Group> {
        let node = input.output(column)?;
        let value = self.expression(&input.columns, node)?;
        let form = is_printed(&value.ty).then(|| value.clone());
        let expr = group_key(value, equality, collation)?;
        Ok(Group { expr, form, node })
    }

    /// The input's outputs that are used outside of aggregates without being grouped by.
    fn ungrouped(&self, spec: &Spec<'_>, needed: Option<&[i16]>) -> Vec<i16> {
        let shown = Self::shown(spec, needed).into_iter();
        shown
            .filter(|number| !spec.keys.columns.contains(number))
            .collect()
    }

    /// The input's outputs that are used outside of aggregates.
    fn shown(spec: &Spec<'_>, needed: Option<&[i16]>) -> Vec<i16> {
        let mut found = vec![];
        let wanted = Self::wanted(spec.plan, needed).into_iter();
        let targets = wanted
            .zip(node::target_exprs(spec.plan.targetlist))
            .filter_map(|(wanted, target)| wanted.then_some(target));
        for expr in targets.chain([spec.plan.qual.cast()]) {
            node::visit(expr, &mut |node| {
                if let Some(var) = get::<pg_sys::Var>(node) {
                    let number = var.varattno;
                    if var.varno == pg_sys::OUTER_VAR && !found.contains(&number) {
                        found.push(number);
                    }
                }
                !matches!(
                    node::tag(node),
                    pg_sys::NodeTag::T_Aggref | pg_sys::NodeTag::T_GroupingFunc
                )
            });
        }
        found
    }

    /// `SELECT DISTINCT` of ordered rows.
    pub(super) fn unique(
        &mut self,
        plan: *mut pg_sys::Plan,
        needed: Option<&[i16]>,
    ) -> Lowered<Sub> {
        let unique = get::<pg_sys::Unique>(plan.cast()).ok_or("a malformed DISTINCT")?;
        let columns = array(unique.uniqColIdx, unique.numCols);
        let operators = array(unique.uniqOperators, unique.numCols);
        let collations = array(unique.uniqCollations, unique.numCols);
        let mut input = self.passed(plan, needed, &columns)?;
        let others = (1i16..).zip(Self::wanted(&unique.plan, needed));
        if { others }.any(|(number, wanted)| wanted && !columns.contains(&number)) {
            return self.distinct_on(unique, input, needed);
        }
        let mut groups = vec![];
        for ((column, operator), collation) in columns.iter().zip(operators).zip(collations) {
            let equality = operator_function(pg_sys::InvalidOid, operator);
            groups.push(self.group(&input, *column, Some(equality), collation)?);
        }
        let order = groups_in_order(&input.order, &groups);
        let wanted = Self::wanted(&unique.plan, needed);
        let is_shown = |at: usize| {
            let place = columns
                .get(at)
                .and_then(|column| usize::try_from(*column - 1).ok());
            place
                .and_then(|place| wanted.get(place).copied())
                .unwrap_or(true)
        };
        let forms = Forms::of(&groups, is_shown, &input, groups.len());
        let outputs = (1i16..)
            .zip(&input.outputs)
            .map(|(number, _)| {
                let at = columns.iter().position(|column| *column == number);
                match at {
                    Some(at) => forms.var(&groups, at),
                    None => refused("a column that its parent doesn't use"),
                }
            })
            .collect();
        let unknown_order = input.loses_order(&order, groups.len());
        let empty = Plan::Append { inputs: vec![] };
        let mut group_columns: Vec<Column> =
            groups.iter().map(|group| group.column(&input)).collect();
        group_columns.extend(forms.columns);
        Ok(Sub {
            columns: group_columns,
            plan: Plan::Aggregate {
                input: Box::new(std::mem::replace(&mut input.plan, empty)),
                groups: groups.into_iter().map(|group| group.expr).collect(),
                aggregates: forms.aggregates,
                sets: vec![],
                groups_estimate: unique.plan.plan_rows.max(1.0),
            },
            outputs,
            order,
            ordered: false,
            unknown_order,
            kept: vec![],
            rows: 0.0,
        })
    }
}

/// Which of the groups a column of the input is.
fn group_place(node: Node, columns: &[i16]) -> Lowered<usize> {
    let var = get::<pg_sys::Var>(node).ok_or("a malformed column")?;
    let at = columns
        .iter()
        .position(|column| *column == var.varattno && var.varno == pg_sys::OUTER_VAR);
    at.ok_or_else(|| "a column that is not grouped by".to_owned())
}

/// The order that a sorted aggregation has in Postgres: a parent may rely on it.
fn group_order(spec: &Spec<'_>, input: &Sub, groups: &[Group]) -> Vec<SortKey> {
    match spec.sorted {
        true => groups_in_order(&input.order, groups),
        false => vec![],
    }
}

/// An order of the input as one of the groups, as far as it goes.
pub fn groups_in_order(order: &[SortKey], groups: &[Group]) -> Vec<SortKey> {
    order
        .iter()
        .map_while(|key| {
            Some(SortKey {
                expr: over_groups(&key.expr, groups)?,
                ..key.clone()
            })
        })
        .collect()
}

/// An expression over the input as one over the groups; `None` if it isn't one.
fn over_groups(expr: &Expr, groups: &[Group]) -> Option<Expr> {
    if let Some(at) = groups.iter().position(|group| group.expr == *expr) {
        return Some(column_expr(at, &expr.ty));
    }
    let mut over = expr.clone();
    let children = over.children_mut();
    if children.is_empty() {
        return None;
    }
    for child in children {
        *child = over_groups(child, groups)?;
    }
    Some(over)
}
