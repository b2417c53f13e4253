//! Refuses fragments that are malformed (`Protocol`) or that the engine can't run (`Unsupported`).
//!
//! Depth is checked first and without recursion; everything after it may recurse.

use super::error::{protocol, unsupported};
use super::grouping::check_sets;
use super::project_set::check_sets_of_rows;
use super::recursion::{check_recursion, check_work_tables};
use super::window::check_window;
use super::{cast, functions};
use pg_lake_plan::PROTOCOL_VERSION;
use pg_lake_plan::ir::{
    Aggregate, AggregateFunction, ArithmeticOp, ColumnSource, Expr, ExprKind, Join, JoinKind,
    MAX_DEPTH, Plan, Scan,
};
use pg_lake_plan::message::{Execute, FileRef, WireError};
use pg_lake_plan::types::{LakeType, StructField};

/// Checks all of a request but its constants, which compilation checks.
pub(super) fn validate(request: &Execute, feeds: usize) -> Result<(), WireError> {
    if request.fragment.version != PROTOCOL_VERSION {
        return Err(protocol("the fragment's version is another one"));
    }
    if feeds != request.tables.len() {
        return Err(protocol("the number of feeds isn't the number of tables"));
    }
    let nodes = nodes(&request.fragment.root)?;
    check_tables(&nodes, request)?;
    for file in request.tables.iter().flat_map(|t| &t.files) {
        check_file(file)?;
    }
    check_work_tables(&request.fragment.root, None)?;
    let mut outputs: Vec<Vec<LakeType>> = vec![];
    for node in nodes.into_iter().rev() {
        // The first input was checked last.
        let inputs = node.inputs().len();
        let inputs: Vec<Vec<LakeType>> = (0..inputs).filter_map(|_| outputs.pop()).collect();
        outputs.push(check_node(node, &inputs, request)?);
    }
    Ok(())
}

/// The plan's nodes, each before its inputs, with the depth of all their expressions checked.
fn nodes(root: &Plan) -> Result<Vec<&Plan>, WireError> {
    let mut nodes = vec![];
    let mut open = vec![(root, 1)];
    while let Some((node, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(protocol("the plan is nested too deeply"));
        }
        check_expressions(node)?;
        nodes.push(node);
        let inputs = node.inputs().into_iter().rev();
        open.extend(inputs.map(|input| (input, depth + 1)));
    }
    Ok(nodes)
}

/// Depth of a node's expressions and types.
fn check_expressions(node: &Plan) -> Result<(), WireError> {
    match node {
        Plan::Scan(scan) => {
            scan.columns
                .iter()
                .try_for_each(|c| check_type(&c.ty.lake))?;
            scan.predicate.iter().try_for_each(check_depth)
        }
        Plan::Filter { predicate, .. } => check_depth(predicate),
        Plan::Project { exprs, .. } => exprs.iter().try_for_each(check_depth),
        Plan::Join(join) => {
            for key in &join.keys {
                check_depth(&key.left)?;
                check_depth(&key.right)?;
            }
            join.filter.iter().try_for_each(check_depth)
        }
        Plan::Window(window) => {
            for expr in window.exprs() {
                check_depth(expr)?;
            }
            (window.functions.iter()).try_for_each(|function| check_type(&function.ty()))
        }
        Plan::Aggregate {
            groups, aggregates, ..
        } => {
            groups.iter().try_for_each(check_depth)?;
            for aggregate in aggregates {
                check_type(&aggregate.ty.lake)?;
                aggregate.arg.iter().try_for_each(check_depth)?;
                aggregate.filter.iter().try_for_each(check_depth)?;
                (aggregate.order.iter()).try_for_each(|key| check_depth(&key.expr))?;
            }
            Ok(())
        }
        Plan::Sort { keys, .. } => keys.iter().try_for_each(|k| check_depth(&k.expr)),
        Plan::ProjectSet(set) => {
            set.exprs().try_for_each(check_depth)?;
            set.calls.iter().try_for_each(|c| check_type(&c.ty.lake))
        }
        Plan::WorkTable(table) => (table.columns.iter()).try_for_each(|c| check_type(&c.ty.lake)),
        Plan::Append { .. } | Plan::Limit { .. } | Plan::OneRow | Plan::RecursiveUnion(_) => Ok(()),
    }
}

/// Each table is scanned once.
fn check_tables(nodes: &[&Plan], request: &Execute) -> Result<(), WireError> {
    let mut scanned = vec![false; request.tables.len()];
    for scan in nodes.iter().filter_map(|node| node.as_scan()) {
        match scanned.get_mut(scan.table as usize) {
            None => return Err(protocol("a scanned table is missing")),
            Some(scanned) if *scanned => return Err(protocol("a table is scanned twice")),
            Some(scanned) => *scanned = true,
        }
    }
    require(scanned.into_iter().all(|s| s), "a table is not scanned")
}

/// Nesting of an expression and of its types.
pub(super) fn check_depth(expr: &Expr) -> Result<(), WireError> {
    let mut open = vec![(expr, 1)];
    while let Some((expr, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(protocol("an expression is nested too deeply"));
        }
        check_type(&expr.ty.lake)?;
        open.extend(expr.children().into_iter().map(|child| (child, depth + 1)));
    }
    Ok(())
}

fn check_type(ty: &LakeType) -> Result<(), WireError> {
    let mut open = vec![(ty, 1)];
    while let Some((ty, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(protocol("a type is nested too deeply"));
        }
        match ty {
            LakeType::Decimal { precision, scale } => {
                let scale = u8::try_from(*scale).unwrap_or(u8::MAX);
                if !(1..=38).contains(precision) || scale > *precision {
                    return Err(protocol("precision or scale out of range"));
                }
            }
            LakeType::List { element, .. } => open.push((element, depth + 1)),
            LakeType::Struct(fields) => {
                open.extend(fields.iter().map(|field| (&field.ty, depth + 1)));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_file(file: &FileRef) -> Result<(), WireError> {
    let mut next = 0;
    for &position in &file.deleted {
        if u64::from(position) < next || u64::from(position) >= file.rows.count() {
            return Err(protocol(
                "deleted positions out of order or outside the file",
            ));
        }
        next = u64::from(position) + 1;
    }
    let mut end = 0;
    for &(first, after) in file.ranges.iter().flatten() {
        if first < end || after < first || after > file.rows.count() {
            return Err(protocol("ranges out of order or outside the file"));
        }
        end = after;
    }
    if !file.rows.is_valid() {
        return Err(protocol("row numbers out of range"));
    }
    Ok(())
}

/// Checks a node over inputs with columns of these types; returns those of its output.
fn check_node(
    node: &Plan,
    inputs: &[Vec<LakeType>],
    request: &Execute,
) -> Result<Vec<LakeType>, WireError> {
    let params = request.params.len();
    let input = inputs.first().map_or(&[][..], Vec::as_slice);
    match node {
        Plan::Scan(scan) => check_scan(scan, request)?,
        Plan::Filter { predicate, .. } => check_condition(predicate, input, params)?,
        Plan::Project { exprs, .. } => {
            exprs.iter().try_for_each(|e| check(e, input, params))?;
        }
        Plan::Join(join) => return check_join(join, inputs, params),
        Plan::Append { .. } => check_append(inputs)?,
        Plan::Window(window) => check_window(window, input, params)?,
        Plan::Aggregate {
            groups,
            aggregates,
            sets,
            ..
        } => {
            check_sets(sets, groups.len())?;
            if groups.is_empty() && aggregates.is_empty() {
                return Err(unsupported("an aggregation without groups and aggregates"));
            }
            for group in groups {
                check(group, input, params)?;
                check_ordered(&group.ty.lake)?;
            }
            for aggregate in aggregates {
                check_aggregate(aggregate, input, params)?;
            }
        }
        Plan::Sort { keys, .. } => {
            for key in keys {
                check(&key.expr, input, params)?;
                check_ordered(&key.expr.ty.lake)?;
            }
        }
        Plan::ProjectSet(set) => return check_sets_of_rows(set, input, params),
        Plan::RecursiveUnion(union) => {
            check_append(inputs)?;
            check_recursion(union, input)?;
        }
        Plan::Limit { .. } | Plan::OneRow | Plan::WorkTable(_) => {}
    }
    Ok(match node {
        Plan::Scan(_)
        | Plan::Project { .. }
        | Plan::Window(_)
        | Plan::Aggregate { .. }
        | Plan::WorkTable(_) => node.output(),
        _ => input.to_vec(),
    })
}

fn check_join(
    join: &Join,
    inputs: &[Vec<LakeType>],
    params: usize,
) -> Result<Vec<LakeType>, WireError> {
    let [left, right] = inputs else {
        return Err(protocol("a join doesn't have two inputs"));
    };
    for key in &join.keys {
        check(&key.left, left, params)?;
        check(&key.right, right, params)?;
        let fits = match (&key.left.ty.lake, &key.right.ty.lake) {
            (LakeType::Decimal { scale: l, .. }, LakeType::Decimal { scale: r, .. }) => l == r,
            (left, right) => left == right,
        };
        require(fits, "types of a join's key")?;
        check_ordered(&key.left.ty.lake)?;
    }
    let one_key = join.keys.len() == 1 && join.filter.is_none();
    require(
        join.kind != JoinKind::NullAwareAnti || one_key,
        "a null-aware join has one key and no filter",
    )?;
    let plain_keys = !join.keys.is_empty() && join.filter.is_none();
    require(
        join.kind != JoinKind::NullAwareMark || one_key,
        "a null-aware mark has one key and no filter",
    )?;
    require(
        join.kind != JoinKind::Mark || plain_keys,
        "a mark has keys and no filter",
    )?;
    let both: Vec<LakeType> = left.iter().chain(right).cloned().collect();
    if let Some(filter) = &join.filter {
        check_condition(filter, &both, params)?;
    }
    Ok(match join.kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::Full => both,
        JoinKind::Semi | JoinKind::Anti | JoinKind::NullAwareAnti => left.clone(),
        JoinKind::Mark | JoinKind::NullAwareMark => {
            let mut columns = left.clone();
            columns.push(LakeType::Bool);
            columns
        }
    })
}

fn check_append(inputs: &[Vec<LakeType>]) -> Result<(), WireError> {
    let Some((first, others)) = inputs.split_first() else {
        return Err(protocol("an append of nothing"));
    };
    for other in others {
        let alike = first.len() == other.len() && first.iter().zip(other).all(|(l, r)| same(l, r));
        require(alike, "types of what is appended")?;
    }
    Ok(())
}

/// Types that differ in nothing but field ids.
fn same(left: &LakeType, right: &LakeType) -> bool {
    match (left, right) {
        (LakeType::List { element: l, .. }, LakeType::List { element: r, .. }) => same(l, r),
        (LakeType::Struct(l), LakeType::Struct(r)) => {
            let same_field =
                |(l, r): (&StructField, &StructField)| l.name == r.name && same(&l.ty, &r.ty);
            l.len() == r.len() && l.iter().zip(r).all(same_field)
        }
        (left, right) => left == right,
    }
}

fn check_scan(scan: &Scan, request: &Execute) -> Result<(), WireError> {
    let mut types = vec![];
    for column in &scan.columns {
        if column.source == ColumnSource::RowNumber && column.ty.lake != LakeType::Int8 {
            return Err(protocol("a row number isn't Int8"));
        }
        types.push(column.ty.lake.clone());
    }
    match &scan.predicate {
        Some(predicate) => check_condition(predicate, &types, request.params.len()),
        None => Ok(()),
    }
}

fn check_condition(expr: &Expr, input: &[LakeType], params: usize) -> Result<(), WireError> {
    check(expr, input, params)?;
    require(expr.ty.lake == LakeType::Bool, "a condition isn't boolean")
}

pub(super) fn require(holds: bool, otherwise: &str) -> Result<(), WireError> {
    if holds {
        Ok(())
    } else {
        Err(protocol(otherwise))
    }
}

pub(super) fn check_ordered(ty: &LakeType) -> Result<(), WireError> {
    match ty {
        LakeType::List { .. } | LakeType::Struct(_) => {
            Err(unsupported("comparison of nested values"))
        }
        _ => Ok(()),
    }
}

pub(super) fn check(expr: &Expr, input: &[LakeType], params: usize) -> Result<(), WireError> {
    for child in expr.children() {
        check(child, input, params)?;
    }
    let ty = &expr.ty.lake;
    let bool_result = || require(*ty == LakeType::Bool, "a condition isn't boolean");
    match &expr.kind {
        ExprKind::Column(i) => require(
            input.get(*i as usize) == Some(ty),
            "a column is missing or has another type",
        ),
        ExprKind::Const(_) => Ok(()),
        ExprKind::Param(i) => require((*i as usize) < params, "a parameter is missing"),
        ExprKind::Compare { left, right, .. } => {
            let (l, r) = (&left.ty.lake, &right.ty.lake);
            require(
                l == r || (l.is_decimal() && r.is_decimal()),
                "types compared",
            )?;
            check_ordered(l)?;
            bool_result()
        }
        ExprKind::Arithmetic { op, left, right } => {
            check_arithmetic(*op, &left.ty.lake, &right.ty.lake, ty)
        }
        ExprKind::Negate(arg) => {
            require(arg.ty.lake == *ty, "type of a negation")?;
            require(
                ty.is_integer() || ty.is_float() || ty.is_decimal(),
                "type of a negation",
            )
        }
        ExprKind::And(args) | ExprKind::Or(args) => {
            require(!args.is_empty(), "AND or OR of nothing")?;
            let boolean = args.iter().all(|e| e.ty.lake == LakeType::Bool);
            require(boolean, "a condition isn't boolean")?;
            bool_result()
        }
        ExprKind::Not(arg) | ExprKind::BoolTest { arg, .. } => {
            require(arg.ty.lake == LakeType::Bool, "a condition isn't boolean")?;
            bool_result()
        }
        ExprKind::IsNull(_) | ExprKind::IsNotNull(_) => bool_result(),
        ExprKind::InList { arg, .. } => {
            check_ordered(&arg.ty.lake)?;
            bool_result()
        }
        ExprKind::Like { arg, .. } => {
            require(arg.ty.lake == LakeType::Text, "LIKE of another type")?;
            bool_result()
        }
        ExprKind::Case {
            branches,
            otherwise,
        } => {
            let whens = branches
                .iter()
                .all(|(when, _)| when.ty.lake == LakeType::Bool);
            require(whens, "a condition isn't boolean")?;
            let mut results = branches
                .iter()
                .map(|(_, then)| then)
                .chain(otherwise.as_deref());
            require(results.all(|e| e.ty.lake == *ty), "types of CASE")
        }
        ExprKind::Extreme { args, .. } => {
            require(!args.is_empty(), "GREATEST or LEAST of nothing")?;
            let same = args.iter().all(|e| e.ty.lake == *ty);
            require(same, "types of GREATEST or LEAST")?;
            check_ordered(ty)
        }
        ExprKind::Call { function, args } => functions::check(*function, args, ty),
        ExprKind::InParam { .. } => Err(protocol("a list without values")),
        ExprKind::Cast(arg) if cast::supported(&arg.ty.lake, ty) => Ok(()),
        ExprKind::Cast(arg) => Err(unsupported(format!(
            "conversion from {:?} to {ty:?}",
            arg.ty.lake
        ))),
    }
}

fn check_arithmetic(
    op: ArithmeticOp,
    left: &LakeType,
    right: &LakeType,
    result: &LakeType,
) -> Result<(), WireError> {
    use LakeType::Decimal;
    if let (Decimal { scale: l, .. }, Decimal { scale: r, .. }, Decimal { scale, .. }) =
        (left, right, result)
    {
        let exact = match op {
            ArithmeticOp::Add | ArithmeticOp::Subtract | ArithmeticOp::Modulo => *l.max(r),
            ArithmeticOp::Multiply => l.saturating_add(*r),
            ArithmeticOp::Divide => return Err(unsupported("division of decimals")),
        };
        return if *scale >= exact {
            Ok(())
        } else {
            Err(unsupported(
                "a decimal result with fewer digits than its operands",
            ))
        };
    }
    require(left == right && left == result, "types of an operator")?;
    if op == ArithmeticOp::Modulo && left.is_float() {
        return Err(unsupported("modulo of floats"));
    }
    require(left.is_integer() || left.is_float(), "types of an operator")
}

pub(super) fn check_aggregate(
    aggregate: &Aggregate,
    input: &[LakeType],
    params: usize,
) -> Result<(), WireError> {
    use LakeType::{Decimal, Float4, Float8, Int8};
    if let Some(filter) = &aggregate.filter {
        check_condition(filter, input, params)?;
    }
    check_order(aggregate, input, params)?;
    let result = &aggregate.ty.lake;
    let Some(arg) = &aggregate.arg else {
        require(
            aggregate.function == AggregateFunction::Count,
            "an aggregate's argument",
        )?;
        require(!aggregate.distinct, "distinct values of nothing")?;
        return require(*result == Int8, "an aggregate's type");
    };
    check(arg, input, params)?;
    let arg = &arg.ty.lake;
    if aggregate.distinct {
        check_ordered(arg)?;
    }
    let of_floats = |list: &LakeType| match list {
        LakeType::List { element, .. } => **element == Float8,
        _ => false,
    };
    let fits = match aggregate.function {
        AggregateFunction::Count => *result == Int8,
        AggregateFunction::Sum => match (arg, result) {
            (Decimal { scale: from, .. }, Decimal { scale: to, .. }) => from == to,
            (arg, Int8) => arg.is_integer(),
            (arg, Decimal { scale: 0, .. }) => arg.is_integer(),
            (arg, Float8) => arg.is_float(),
            (Float4, Float4) => true,
            _ => false,
        },
        AggregateFunction::Min | AggregateFunction::Max => {
            check_ordered(arg)?;
            if matches!(arg, LakeType::Bool | LakeType::Uuid) {
                return Err(unsupported("min or max of this type"));
            }
            arg == result
        }
        AggregateFunction::SumOfSquares => match (arg, result) {
            (Decimal { scale: from, .. }, Decimal { scale: to, .. }) => {
                Some(*to) == from.checked_mul(2)
            }
            (arg, Decimal { scale: 0, .. }) => arg.is_integer(),
            _ => false,
        },
        AggregateFunction::BoolAnd | AggregateFunction::BoolOr => {
            (arg, result) == (&LakeType::Bool, &LakeType::Bool)
        }
        AggregateFunction::BitAnd | AggregateFunction::BitOr | AggregateFunction::BitXor => {
            arg.is_integer() && arg == result
        }
        AggregateFunction::PercentileDisc(_) | AggregateFunction::Mode => arg == result,
        AggregateFunction::PercentileCont(_) => (arg, result) == (&Float8, &Float8),
        AggregateFunction::ArrayAgg => match result {
            LakeType::List { element, .. } => **element == *arg,
            _ => false,
        },
        AggregateFunction::IntervalSum
        | AggregateFunction::IntervalMin
        | AggregateFunction::IntervalMax => {
            require(!aggregate.distinct, "distinct intervals")?;
            (arg, result) == (&LakeType::Text, &LakeType::Text)
        }
        AggregateFunction::OneForm => {
            require(!aggregate.distinct, "distinct forms")?;
            (arg, result) == (&LakeType::Text, &LakeType::Text)
        }
        AggregateFunction::Moments => arg.is_float() && of_floats(result),
        AggregateFunction::PairMoments => {
            require(!aggregate.distinct, "distinct pairs")?;
            *arg == LakeType::Bytes && of_floats(result)
        }
    };
    require(fits, "an aggregate's type")
}

/// What the values are ordered by: themselves, but those of a list, unless each comes once there.
fn check_order(aggregate: &Aggregate, input: &[LakeType], params: usize) -> Result<(), WireError> {
    for key in &aggregate.order {
        check(&key.expr, input, params)?;
        check_ordered(&key.expr.ty.lake)?;
    }
    let by_value = || match aggregate.order.as_slice() {
        [key] => aggregate.arg.as_ref() == Some(&key.expr),
        _ => false,
    };
    let fits = match aggregate.function {
        AggregateFunction::PercentileDisc(share) | AggregateFunction::PercentileCont(share) => {
            share.is_valid() && by_value()
        }
        AggregateFunction::Mode => by_value(),
        AggregateFunction::ArrayAgg => !aggregate.order.is_empty(),
        _ => aggregate.order.is_empty(),
    };
    require(fits, "an aggregate's order")?;
    let known = match aggregate.function {
        // Equal floats may look different.
        AggregateFunction::ArrayAgg => {
            let is_float = |arg: &Expr| arg.ty.lake.is_float();
            by_value() && !aggregate.arg.as_ref().is_some_and(is_float)
        }
        function => !function.is_ordered(),
    };
    let distinct = aggregate.distinct && !known;
    require(!distinct, "distinct values in an order")
}
