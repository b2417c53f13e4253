//! A fragment in words, for EXPLAIN: one line a node, its inputs indented below; [`expr`] has what is in
//! the lines.

mod expr;

use expr::{call, list, literal, sort_keys, text};
use pg_lake_plan::ir::{
    Expr, ExprKind, Fragment, Frame, FrameBound, FrameExclusion, FrameOffset, FrameUnit, Interval,
    Join, JoinKind, Plan, Scan, SetCall, SortKey, Window, WindowFunction,
};
use std::collections::HashMap;

/// The name of a scan whose rows all come from a plan in Postgres; that of a table is qualified.
pub const FEED: &str = "feed";

/// The lines, the root first.
pub fn describe(fragment: &Fragment) -> Vec<String> {
    let mut lines = vec![];
    let mut open = vec![(0, &fragment.root)];
    while let Some((depth, plan)) = open.pop() {
        lines.push(format!("{}{}", "  ".repeat(depth), line(plan)));
        let inputs = plan.inputs().into_iter().rev();
        open.extend(inputs.map(|input| (depth + 1, input)));
    }
    lines
}

fn line(plan: &Plan) -> String {
    let input: Vec<String> = match plan {
        Plan::Join(join) => shown(&both_sides(join)),
        other => other
            .inputs()
            .first()
            .map(|input| shown(&names(input)))
            .unwrap_or_default(),
    };
    match plan {
        Plan::Scan(scan) => scan_line(scan),
        Plan::Filter { predicate, .. } => format!("Filter: {}", text(predicate, &input)),
        Plan::Project { exprs, .. } => format!("Project: {}", list(exprs, &input)),
        Plan::Join(join) => join_line(join, &input),
        Plan::Append { .. } => "Append".to_owned(),
        Plan::Window(window) => window_line(window, &input),
        Plan::Aggregate {
            groups,
            aggregates,
            sets,
            ..
        } => {
            let mut parts = vec![];
            if !sets.is_empty() {
                let shown = grouping_sets(sets, groups, &input);
                parts.push(format!("grouping sets {shown}"));
            } else if !groups.is_empty() {
                parts.push(format!("group by {}", list(groups, &input)));
            }
            if !aggregates.is_empty() {
                let calls: Vec<String> = aggregates.iter().map(|a| call(a, &input)).collect();
                parts.push(calls.join(", "));
            }
            format!("Aggregate: {}", parts.join("; "))
        }
        Plan::Sort { keys, fetch, .. } => {
            let first = fetch.map(|n| format!("; first {n}")).unwrap_or_default();
            format!("Sort: {}{first}", sort_keys(keys, &input))
        }
        Plan::Limit { skip, fetch, .. } => {
            let mut parts = vec![];
            if let Some(fetch) = fetch {
                parts.push(format!("{fetch} rows"));
            }
            if *skip > 0 {
                parts.push(format!("after {skip}"));
            }
            format!("Limit: {}", parts.join(" "))
        }
        Plan::ProjectSet(set) => {
            let calls: Vec<String> = (set.calls.iter()).map(|c| set_call(c, &input)).collect();
            format!("Project Set: {}", calls.join(", "))
        }
        Plan::OneRow => "One Row".to_owned(),
        Plan::RecursiveUnion(union) => match union.distinct {
            true => "Recursive Union: distinct".to_owned(),
            false => "Recursive Union".to_owned(),
        },
        Plan::WorkTable(_) => {
            format!("WorkTable Scan: columns {}", shown(&names(plan)).join(", "))
        }
    }
}

fn grouping_sets(sets: &[Vec<u32>], groups: &[Expr], columns: &[String]) -> String {
    let shown: Vec<String> = sets
        .iter()
        .map(|set| {
            let exprs = set.iter().filter_map(|at| groups.get(*at as usize));
            let exprs: Vec<Expr> = exprs.cloned().collect();
            format!("({})", list(&exprs, columns))
        })
        .collect();
    shown.join(", ")
}

fn scan_line(scan: &Scan) -> String {
    let columns: Vec<String> = scan.columns.iter().map(|c| c.name.clone()).collect();
    let mut line = match scan.name.as_str() {
        FEED => "Feed: ".to_owned(),
        table => format!("Scan on {table}: "),
    };
    if columns.is_empty() {
        line.push_str("no columns");
    } else {
        line.push_str(&format!("columns {}", columns.join(", ")));
    }
    if let Some(predicate) = &scan.predicate {
        line.push_str(&format!("; predicate {}", text(predicate, &columns)));
    }
    line
}

/// `columns` are those of both sides.
fn join_line(join: &Join, columns: &[String]) -> String {
    let kind = match join.kind {
        JoinKind::Inner => "Inner Join",
        JoinKind::Left => "Left Join",
        JoinKind::Full => "Full Join",
        JoinKind::Semi => "Semi Join",
        JoinKind::Anti => "Anti Join",
        JoinKind::NullAwareAnti => "Null-Aware Anti Join",
        JoinKind::Mark => "Mark Join",
        JoinKind::NullAwareMark => "Null-Aware Mark Join",
    };
    let right = columns.get(join.left.output().len()..).unwrap_or_default();
    let keys: Vec<String> = join
        .keys
        .iter()
        .map(|key| {
            format!(
                "({} = {})",
                text(&key.left, columns),
                text(&key.right, right)
            )
        })
        .collect();
    let mut parts = vec![];
    if !keys.is_empty() {
        parts.push(keys.join(" AND "));
    }
    if let Some(filter) = &join.filter {
        parts.push(format!("filter {}", text(filter, columns)));
    }
    if parts.is_empty() {
        parts.push("all pairs".to_owned());
    }
    format!("{kind}: {}", parts.join("; "))
}

fn window_line(window: &Window, columns: &[String]) -> String {
    let calls: Vec<String> = window
        .functions
        .iter()
        .map(|function| window_call(function, columns))
        .collect();
    let mut line = format!("Window: {}", calls.join(", "));
    if !window.partition_by.is_empty() {
        let keys = list(&window.partition_by, columns);
        line.push_str(&format!("; partition by {keys}"));
    }
    let order: Vec<SortKey> = (window.order_by.iter())
        .filter(|key| !window.partition_by.contains(&key.expr))
        .cloned()
        .collect();
    if !order.is_empty() {
        let keys = sort_keys(&order, columns);
        line.push_str(&format!("; order by {keys}"));
    }
    if window.frame != DEFAULT_FRAME {
        line.push_str(&format!("; {}", frame(&window.frame)));
    }
    line
}

const DEFAULT_FRAME: Frame = Frame {
    unit: FrameUnit::Range,
    start: FrameBound::UnboundedPreceding,
    end: FrameBound::CurrentRow,
    exclude: FrameExclusion::NoOthers,
};

fn frame(frame: &Frame) -> String {
    let unit = match frame.unit {
        FrameUnit::Rows => "ROWS",
        FrameUnit::Range => "RANGE",
        FrameUnit::Groups => "GROUPS",
    };
    let bound = |bound: &FrameBound| match bound {
        FrameBound::UnboundedPreceding => "UNBOUNDED PRECEDING".to_owned(),
        FrameBound::Preceding(n) => format!("{n} PRECEDING"),
        FrameBound::CurrentRow => "CURRENT ROW".to_owned(),
        FrameBound::Following(n) => format!("{n} FOLLOWING"),
        FrameBound::UnboundedFollowing => "UNBOUNDED FOLLOWING".to_owned(),
        FrameBound::PrecedingBy(by) => format!("{} PRECEDING", offset(by)),
        FrameBound::FollowingBy(by) => format!("{} FOLLOWING", offset(by)),
    };
    let exclude = match frame.exclude {
        FrameExclusion::NoOthers => "",
        FrameExclusion::CurrentRow => " EXCLUDE CURRENT ROW",
        FrameExclusion::Group => " EXCLUDE GROUP",
        FrameExclusion::Ties => " EXCLUDE TIES",
    };
    format!(
        "{unit} BETWEEN {} AND {}{exclude}",
        bound(&frame.start),
        bound(&frame.end)
    )
}

fn offset(offset: &FrameOffset) -> String {
    match offset {
        FrameOffset::Number(number) => text(number, &[]),
        FrameOffset::Interval(Interval {
            months,
            days,
            microseconds,
        }) => format!("'{months} months {days} days {microseconds} microseconds'"),
    }
}

fn window_call(function: &WindowFunction, columns: &[String]) -> String {
    let of = |arg: &Expr| text(arg, columns);
    match function {
        WindowFunction::RowNumber => "row_number()".to_owned(),
        WindowFunction::Rank => "rank()".to_owned(),
        WindowFunction::DenseRank => "dense_rank()".to_owned(),
        WindowFunction::PercentRank => "percent_rank()".to_owned(),
        WindowFunction::CumeDist => "cume_dist()".to_owned(),
        WindowFunction::Ntile(buckets) => format!("ntile({buckets})"),
        WindowFunction::Aggregate(aggregate) => call(aggregate, columns),
        WindowFunction::FirstValue(arg) => format!("first_value({})", of(arg)),
        WindowFunction::LastValue(arg) => format!("last_value({})", of(arg)),
        WindowFunction::NthValue(arg, n) => format!("nth_value({}, {n})", of(arg)),
        WindowFunction::Shift {
            arg,
            rows,
            otherwise,
        } => {
            let name = if *rows < 0 { "lag" } else { "lead" };
            let otherwise = match otherwise {
                Some(value) => format!(", {}", literal(Some(value), &arg.ty.lake)),
                None => String::new(),
            };
            format!("{name}({}, {}{otherwise})", of(arg), rows.unsigned_abs())
        }
    }
}

fn set_call(call: &SetCall, columns: &[String]) -> String {
    format!("{}({})", call.function.name(), list(&call.args, columns))
}

/// What an output of a node is called above it.
#[derive(Clone)]
struct Name {
    /// Of a column: its table, without the schema.
    table: Option<String>,
    name: String,
}

impl Name {
    fn of(expr: &Expr, input: &[Name], columns: &[String]) -> Name {
        if let ExprKind::Column(at) = expr.kind
            && let Some(name) = input.get(at as usize)
        {
            return name.clone();
        }
        Name {
            table: None,
            name: text(expr, columns),
        }
    }
}

fn scan_names(scan: &Scan) -> Vec<Name> {
    // A quoted name may have dots within.
    let table = match scan.name.rsplit_once('.') {
        Some((_, table)) if !scan.name.contains('"') => table,
        _ => &scan.name,
    };
    scan.columns
        .iter()
        .map(|column| Name {
            table: Some(table.to_owned()),
            name: column.name.clone(),
        })
        .collect()
}

/// The columns that a join's filter sees.
fn both_sides(join: &Join) -> Vec<Name> {
    let mut both = names(&join.left);
    both.extend(names(&join.right));
    both
}

fn names(plan: &Plan) -> Vec<Name> {
    if let Plan::Join(join) = plan {
        let mut both = both_sides(join);
        if join.kind.is_mark() {
            both.truncate(join.left.output().len());
            both.push(Name {
                table: None,
                name: "mark".to_owned(),
            });
        }
        both.truncate(plan.output().len());
        return both;
    }
    let input = plan.inputs().first().map(|input| names(input));
    let input = input.unwrap_or_default();
    let columns = shown(&input);
    let of = |expr: &Expr| Name::of(expr, &input, &columns);
    let computed = |name: String| Name { table: None, name };
    match plan {
        Plan::Scan(scan) => scan_names(scan),
        Plan::WorkTable(table) => (table.columns.iter())
            .map(|c| computed(c.name.clone()))
            .collect(),
        Plan::Project { exprs, .. } => exprs.iter().map(of).collect(),
        Plan::Aggregate {
            groups,
            aggregates,
            sets,
            ..
        } => {
            let calls = aggregates.iter().map(|a| computed(call(a, &columns)));
            let set = (!sets.is_empty()).then(|| computed("grouping set".to_owned()));
            groups.iter().map(of).chain(calls).chain(set).collect()
        }
        Plan::Window(window) => {
            let functions = window.functions.iter();
            let calls = functions.map(|function| computed(window_call(function, &columns)));
            input.iter().cloned().chain(calls).collect()
        }
        Plan::ProjectSet(set) => {
            let kept = set.columns.iter();
            let kept = kept.filter_map(|at| input.get(*at as usize).cloned());
            let calls = set.calls.iter().map(|c| computed(set_call(c, &columns)));
            kept.chain(calls).collect()
        }
        Plan::Join(_)
        | Plan::OneRow
        | Plan::Filter { .. }
        | Plan::Sort { .. }
        | Plan::Limit { .. }
        | Plan::RecursiveUnion(_)
        | Plan::Append { .. } => input,
    }
}

/// The names, those of several columns with their tables.
fn shown(names: &[Name]) -> Vec<String> {
    let mut columns: HashMap<&str, usize> = HashMap::new();
    for name in names {
        *columns.entry(&name.name).or_default() += 1;
    }
    let alone = |name: &Name| columns.get(name.name.as_str()) == Some(&1);
    names
        .iter()
        .map(|name| match &name.table {
            Some(table) if !alone(name) => format!("{table}.{}", name.name),
            _ => name.name.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::expr::{CompareOp, Field, Function};
    use pg_lake_plan::ir::{ColumnSource, JoinKey, ProjectSet, ScanColumn, SetFunction};
    use pg_lake_plan::types::{LakeType, SqlType, Value};

    fn int() -> SqlType {
        SqlType {
            lake: LakeType::Int4,
            oid: 23,
            typmod: -1,
            collation: 0,
        }
    }

    fn column(at: u32) -> Expr {
        Expr {
            ty: int(),
            kind: ExprKind::Column(at),
        }
    }

    fn scan(table: u32, name: &str, columns: &[&str]) -> Plan {
        let columns = columns.iter().map(|name| ScanColumn {
            name: (*name).to_owned(),
            source: ColumnSource::Field(1),
            ty: int(),
            missing: None,
        });
        Plan::Scan(Scan {
            table,
            name: name.to_owned(),
            columns: columns.collect(),
            predicate: None,
        })
    }

    fn join(kind: JoinKind, left: Plan, right: Plan, keys: &[(u32, u32)]) -> Plan {
        let keys = keys.iter().map(|(left, right)| JoinKey {
            left: column(*left),
            right: column(*right),
        });
        Plan::Join(Join {
            kind,
            left: Box::new(left),
            right: Box::new(right),
            keys: keys.collect(),
            filter: None,
            left_rows: 1.0,
            right_rows: 1.0,
        })
    }

    fn lines(root: Plan) -> Vec<String> {
        describe(&Fragment { version: 1, root })
    }

    #[test]
    fn a_tree_is_indented_with_the_left_side_first() {
        let items = scan(0, "public.item", &["id", "part", "n"]);
        let parts = Plan::Append {
            inputs: vec![
                scan(1, "public.part_1", &["part"]),
                scan(2, FEED, &["part"]),
            ],
        };
        let joined = join(JoinKind::Inner, items, parts, &[(1, 0)]);
        let other = scan(3, "public.\"gone.by\"", &["id"]);
        let root = Plan::Project {
            input: Box::new(join(JoinKind::Semi, joined, other, &[(0, 0)])),
            exprs: vec![column(1), column(2), column(3)],
        };
        assert_eq!(
            lines(root),
            [
                "Project: item.part, n, part_1.part",
                "  Semi Join: (item.id = public.\"gone.by\".id)",
                "    Inner Join: (item.part = part_1.part)",
                "      Scan on public.item: columns id, part, n",
                "      Append",
                "        Scan on public.part_1: columns part",
                "        Feed: columns part",
                "    Scan on public.\"gone.by\": columns id",
            ]
        );
    }

    #[test]
    fn sets_show_their_calls() {
        let call = SetCall {
            function: SetFunction::Unnest,
            args: vec![column(1)],
            ty: int(),
        };
        let set = ProjectSet {
            input: Box::new(scan(0, "s.t", &["id", "a"])),
            columns: vec![0],
            calls: vec![call],
        };
        let root = Plan::Project {
            input: Box::new(Plan::ProjectSet(set)),
            exprs: vec![column(1), column(0)],
        };
        let shown = [
            "Project: unnest(a), id",
            "  Project Set: unnest(a)",
            "    Scan on s.t: columns id, a",
        ];
        assert_eq!(lines(root), shown);
    }

    #[test]
    fn a_join_without_keys_says_so() {
        let sides = || (scan(0, "s.a", &["x"]), scan(1, "s.b", &["y"]));
        let (left, right) = sides();
        let all = join(JoinKind::Left, left, right, &[]);
        assert_eq!(lines(all)[0], "Left Join: all pairs");
        let (left, right) = sides();
        let Plan::Join(mut filtered) = join(JoinKind::Anti, left, right, &[]) else {
            unreachable!()
        };
        filtered.filter = Some(Expr {
            ty: int(),
            kind: ExprKind::Compare {
                op: CompareOp::Lt,
                left: Box::new(column(0)),
                right: Box::new(column(1)),
            },
        });
        assert_eq!(lines(Plan::Join(filtered))[0], "Anti Join: filter (x < y)");
    }

    #[test]
    fn windows_and_functions_read_as_sql() {
        let quarter = Expr {
            ty: int(),
            kind: ExprKind::Call {
                function: Function::Extract(Field::Quarter),
                args: vec![column(0)],
            },
        };
        let substring = Expr {
            ty: int(),
            kind: ExprKind::Call {
                function: Function::Substring,
                args: vec![column(0), column(1)],
            },
        };
        let window = Window {
            input: Box::new(scan(0, "s.t", &["d", "n"])),
            partition_by: vec![quarter, substring],
            order_by: vec![SortKey {
                expr: column(1),
                descending: true,
                nulls_first: true,
            }],
            peers: vec![column(1)],
            frame: DEFAULT_FRAME,
            functions: vec![
                WindowFunction::Rank,
                WindowFunction::Shift {
                    arg: column(1),
                    rows: -2,
                    otherwise: Some(Value::I32(7)),
                },
            ],
            measured: None,
        };
        let text = "Window: rank(), lag(n, 2, 7); partition by extract[quarter](d), \
                    substring(d, n); \
                    order by n DESC";
        assert_eq!(lines(Plan::Window(Box::new(window.clone())))[0], text);
        let narrow = Window {
            frame: Frame {
                unit: FrameUnit::Rows,
                start: FrameBound::Preceding(3),
                end: FrameBound::CurrentRow,
                exclude: FrameExclusion::NoOthers,
            },
            ..window.clone()
        };
        assert_eq!(
            lines(Plan::Window(Box::new(narrow)))[0],
            format!("{text}; ROWS BETWEEN 3 PRECEDING AND CURRENT ROW")
        );
        let month = FrameOffset::Interval(Interval {
            months: 1,
            days: 0,
            microseconds: 0,
        });
        let near = Window {
            frame: Frame {
                unit: FrameUnit::Range,
                start: FrameBound::PrecedingBy(month),
                end: FrameBound::UnboundedFollowing,
                exclude: FrameExclusion::Ties,
            },
            ..window
        };
        assert_eq!(
            lines(Plan::Window(Box::new(near)))[0],
            format!(
                "{text}; RANGE BETWEEN '1 months 0 days 0 microseconds' PRECEDING \
                 AND UNBOUNDED FOLLOWING EXCLUDE TIES"
            )
        );
    }
}
