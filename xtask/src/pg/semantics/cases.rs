//! Calls of an entry of the whitelist in each place where the engine may evaluate it, and the queries that have them.
//!
//! Each query has something above the calls that only a fragment can do. What a scan alone passes up, Postgres would
//! compute itself, whatever `lake.engine` says.

use super::arguments::{combinations, of_relation};
use super::data::{PARTNER, SWEPT};
use super::signatures::{Kind, Signature};

/// Combinations of arguments of one function, for each choice of types.
const COMBINATIONS: usize = 64;
const COMBINATIONS_OF_AGGREGATES: usize = 4;

/// Over which windows there are calls.
const WINDOWS: &[&str] = &[
    "PARTITION BY kn ORDER BY id",
    "PARTITION BY kn ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING",
];

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Output,
    Filter,
    Join,
    GroupKey,
    SortKey,
    Aggregate,
    Window,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Place::Output => "output",
            Place::Filter => "filter",
            Place::Join => "join",
            Place::GroupKey => "group key",
            Place::SortKey => "sort key",
            Place::Aggregate => "aggregate",
            Place::Window => "window",
        }
    }

    /// Calls that one query may have.
    pub fn pack(self) -> usize {
        match self {
            Place::Output => 16,
            Place::Aggregate | Place::Window => 8,
            _ => 1,
        }
    }

    /// Calls of one entry that are run, if the engine takes so many.
    pub fn most(self) -> usize {
        match self {
            Place::Output => 48,
            Place::Aggregate | Place::Window => 200,
            Place::Filter => 5,
            Place::Join => 9,
            Place::GroupKey | Place::SortKey => 3,
        }
    }

    pub fn is_ordered(self) -> bool {
        self != Place::GroupKey
    }

    /// What a line of EXPLAIN has if the engine evaluates calls in this place.
    pub fn mark(self) -> &'static str {
        match self {
            Place::Output => "Project: ",
            Place::Filter => "predicate ",
            Place::Join => " Join: ",
            Place::GroupKey | Place::Aggregate => "Aggregate: ",
            Place::SortKey => "Sort: ",
            Place::Window => "Window: ",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The entry's number.
    pub entry: usize,
    pub place: Place,
    pub text: String,
}

/// Where an entry has to be run.
pub fn places(signature: &Signature) -> Vec<Place> {
    match signature.kind {
        Kind::Aggregate => return vec![Place::Aggregate],
        Kind::Window => return vec![Place::Window],
        Kind::Function => {}
    }
    let one_type = signature.is_of_one_type();
    let places = [
        (Place::Output, true),
        (Place::Filter, signature.result == "bool"),
        (Place::Join, signature.is_comparison()),
        (Place::GroupKey, one_type && signature.is_operator("=")),
        (
            Place::SortKey,
            one_type && (signature.is_operator("<") || signature.is_operator(">")),
        ),
    ];
    let wanted = places.into_iter().filter(|(_, wanted)| *wanted);
    wanted.map(|(place, _)| place).collect()
}

/// Calls of an entry in all of its places, and of an aggregate over windows.
pub fn cases(entry: usize, signature: &Signature) -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |place, texts: Vec<String>| {
        all.extend(texts.into_iter().map(|text| Case { entry, place, text }));
    };
    if signature.kind == Kind::Aggregate {
        add(Place::Window, over_windows(signature));
    }
    for place in places(signature) {
        let texts = match place {
            Place::Output => outputs(signature),
            Place::Filter => filters(signature),
            Place::Join => joins(signature),
            Place::GroupKey => keys(signature, ""),
            Place::SortKey if signature.is_operator(">") => keys(signature, " DESC NULLS LAST"),
            Place::SortKey => keys(signature, ""),
            Place::Aggregate => aggregates(signature),
            Place::Window => over_windows(signature),
        };
        add(place, texts);
    }
    all
}

/// The entry's operator, or its function, of these arguments.
fn call(signature: &Signature, args: &[String]) -> String {
    match (&signature.operator, args) {
        (Some(operator), [left, right]) => format!("(({left}) {operator} ({right}))"),
        (Some(operator), [arg]) => format!("({operator} ({arg}))"),
        _ => format!("{}({})", name(signature), args.join(", ")),
    }
}

fn name(signature: &Signature) -> String {
    format!("pg_catalog.\"{}\"", signature.function)
}

fn of(args: &[&str], relation: &str) -> Vec<String> {
    args.iter().map(|arg| of_relation(arg, relation)).collect()
}

fn calls(signature: &Signature) -> Vec<String> {
    let combinations = combinations(signature, COMBINATIONS);
    let calls = combinations.iter();
    calls.map(|args| call(signature, &of(args, ""))).collect()
}

fn outputs(signature: &Signature) -> Vec<String> {
    let calls = calls(signature);
    // With how many digits these are shown depends on the value.
    let of_value = [
        "numeric_div",
        "numeric_sqrt",
        "sqrt",
        "numeric_power",
        "pow",
        "power",
        "trim_scale",
    ];
    if signature.result == "numeric" && of_value.contains(&signature.function.as_str()) {
        let calls = calls.iter();
        return calls.map(|call| format!("trunc({call}, 6)")).collect();
    }
    calls
}

/// Also with a list of constants.
fn filters(signature: &Signature) -> Vec<String> {
    let mut all = calls(signature);
    if !signature.is_comparison() || !signature.is_of_one_type() {
        return all;
    }
    let combinations = combinations(signature, COMBINATIONS);
    let constants = combinations
        .iter()
        .filter_map(|args| match args.as_slice() {
            [column, constant] if column.contains('@') && !constant.contains('@') => {
                Some((of_relation(column, ""), *constant))
            }
            _ => None,
        });
    let operator = signature.operator.as_deref().unwrap_or_default();
    let lists = constants.map(|(column, constant)| {
        format!("({column}) {operator} ANY (ARRAY[{constant}, NULL, {constant}])")
    });
    let lists: Vec<String> = lists.take(1).collect();
    // They come first: only some of all are run.
    all.splice(0..0, lists);
    all
}

/// Alone, and beside an equality that finds the pairs.
fn joins(signature: &Signature) -> Vec<String> {
    let combinations = combinations(signature, COMBINATIONS);
    // A column with itself, too: the other table's is another one.
    let same = combinations.first().and_then(|args| args.first().copied());
    let same = same.filter(|arg| arg.contains('@') && signature.is_of_one_type());
    let same = same.map(|arg| vec![arg, arg]);
    let of_columns = combinations
        .into_iter()
        .filter(|args| args.iter().all(|arg| arg.contains('@')));
    let mut alone = Vec::new();
    let mut beside = Vec::new();
    for args in same.into_iter().chain(of_columns) {
        let [left, right] = args.as_slice() else {
            continue;
        };
        let args = [of_relation(left, "x"), of_relation(right, "y")];
        let condition = call(signature, &args);
        beside.push(format!("x.kn = y.kn AND {condition}"));
        alone.push(condition);
    }
    // Turn by turn.
    let pairs = alone.into_iter().zip(beside);
    pairs.flat_map(|(one, other)| [one, other]).collect()
}

/// Columns of the type that is compared, each once.
fn keys(signature: &Signature, direction: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for args in combinations(signature, COMBINATIONS) {
        let column = args.first().filter(|arg| arg.contains('@'));
        let key = column.map(|arg| format!("{}{direction}", of_relation(arg, "")));
        all.extend(key.filter(|key| !all.contains(key)));
    }
    all
}

fn aggregates(signature: &Signature) -> Vec<String> {
    let name = name(signature);
    let mut all = Vec::new();
    for args in combinations(signature, COMBINATIONS_OF_AGGREGATES) {
        let args = of(&args, "");
        if let Some(direct) = signature.direct {
            let (direct, ordered) = args.split_at(direct.min(args.len()));
            let (direct, ordered) = (direct.join(", "), ordered.join(", "));
            for direction in ["", " DESC"] {
                all.push(format!(
                    "{name}({direct}) WITHIN GROUP (ORDER BY {ordered}{direction})"
                ));
            }
            continue;
        }
        if args.is_empty() {
            all.push(format!("{name}(*)"));
            all.push(format!("{name}(*) FILTER (WHERE k > 2)"));
            continue;
        }
        let args = args.join(", ");
        all.push(format!("{name}({args})"));
        all.push(format!("{name}({args} ORDER BY id)"));
        all.push(format!("{name}(DISTINCT {args})"));
        all.push(format!("{name}({args}) FILTER (WHERE k > 2)"));
    }
    all
}

fn over_windows(signature: &Signature) -> Vec<String> {
    if signature.direct.is_some() {
        return Vec::new();
    }
    let name = name(signature);
    let mut all = Vec::new();
    for args in combinations(signature, COMBINATIONS_OF_AGGREGATES) {
        let args = match signature.kind {
            Kind::Aggregate if args.is_empty() => "*".to_owned(),
            _ => of(&args, "").join(", "),
        };
        let calls = WINDOWS.iter();
        all.extend(calls.map(|window| format!("{name}({args}) OVER ({window})")));
    }
    all
}

/// A query with these calls, which are in one kind of place; of rows that fulfil a condition, if one is given.
pub fn query(cases: &[Case], condition: Option<&str>) -> String {
    let Some(first) = cases.first() else {
        return "SELECT 1".to_owned();
    };
    let outputs: Vec<String> = (cases.iter().zip(1..))
        .map(|(case, number)| format!("{} AS c{number}", case.text))
        .collect();
    let outputs = outputs.join(", ");
    let text = &first.text;
    let of_rows = condition.map_or_else(String::new, |condition| format!(" WHERE {condition}"));
    match first.place {
        Place::Output | Place::Window => {
            format!("SELECT id, {outputs} FROM {SWEPT}{of_rows} ORDER BY id")
        }
        Place::Filter => format!("SELECT id FROM {SWEPT} WHERE {text} ORDER BY id"),
        Place::Join => format!(
            "SELECT x.id, count(*) AS c1, sum(y.id) AS c2 FROM {SWEPT} AS x JOIN {PARTNER} AS y ON {text} \
             GROUP BY x.id ORDER BY x.id"
        ),
        Place::GroupKey => {
            format!("SELECT {outputs}, count(*) AS n, sum(id) AS ids FROM {SWEPT} GROUP BY 1")
        }
        Place::SortKey => format!("SELECT id FROM {SWEPT} ORDER BY {text}, id"),
        Place::Aggregate => {
            format!("SELECT kn, {outputs} FROM {SWEPT} GROUP BY kn ORDER BY kn")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(entry: &str, kind: Kind, params: &[&str], operator: Option<&str>) -> Signature {
        Signature {
            entry: entry.to_owned(),
            function: entry.to_owned(),
            kind,
            params: params.iter().map(|param| (*param).to_owned()).collect(),
            variadic: false,
            result: "bool".to_owned(),
            operator: operator.map(str::to_owned),
            direct: None,
        }
    }

    fn texts(signature: &Signature, place: Place) -> Vec<String> {
        let all = cases(0, signature).into_iter();
        all.filter(|case| case.place == place)
            .map(|case| case.text)
            .collect()
    }

    #[test]
    fn comparisons_are_everywhere() {
        let equal = signature("int4eq", Kind::Function, &["int4", "int4"], Some("="));
        let places = places(&equal);
        let all = [Place::Output, Place::Filter, Place::Join, Place::GroupKey];
        assert_eq!(places, all);
        assert!(texts(&equal, Place::Output).contains(&"((i4) = (k))".to_owned()));
        let lists = "(i4) = ANY (ARRAY['-5'::int4, NULL, '-5'::int4])";
        assert_eq!(texts(&equal, Place::Filter)[0], lists);
        let joins = texts(&equal, Place::Join);
        assert!(joins.contains(&"((x.i4) = (y.i4))".to_owned()), "{joins:?}");
        assert_eq!(joins.len(), 2 * 3);
        assert_eq!(texts(&equal, Place::GroupKey), ["i4", "k"]);
        let greater = signature("date_gt", Kind::Function, &["date", "date"], Some(">"));
        assert_eq!(texts(&greater, Place::SortKey)[0], "d DESC NULLS LAST");
        let across = signature("int48eq", Kind::Function, &["int4", "int8"], Some("="));
        assert!(texts(&across, Place::GroupKey).is_empty());
    }

    #[test]
    fn functions_and_operators_are_called() {
        let minus = signature("int4um", Kind::Function, &["int4"], Some("-"));
        assert_eq!(texts(&minus, Place::Output), ["(- (i4))", "(- (k))"]);
        let left = signature("left", Kind::Function, &["text", "int4"], None);
        let calls = texts(&left, Place::Output);
        assert!(calls.contains(&"pg_catalog.\"left\"(tc, i4)".to_owned()));
    }

    #[test]
    fn aggregates_are_called_in_every_way() {
        let sum = signature("sum", Kind::Aggregate, &["int2"], None);
        let calls = texts(&sum, Place::Aggregate);
        assert!(calls.contains(&"pg_catalog.\"sum\"(DISTINCT i2)".to_owned()));
        let windows = texts(&sum, Place::Window);
        assert!(windows.iter().all(|call| call.contains(" OVER (PARTITION")));
        let count = signature("count", Kind::Aggregate, &[], None);
        assert_eq!(
            texts(&count, Place::Aggregate)[0],
            "pg_catalog.\"count\"(*)"
        );
        let mut mode = signature("mode", Kind::Aggregate, &["anyelement"], None);
        mode.direct = Some(0);
        let calls = texts(&mode, Place::Aggregate);
        let wanted = "pg_catalog.\"mode\"() WITHIN GROUP (ORDER BY u DESC)";
        assert!(calls.contains(&wanted.to_owned()), "{calls:?}");
        assert!(texts(&mode, Place::Window).is_empty());
    }

    #[test]
    fn queries_have_something_above_the_calls() {
        let output = |text: &str| Case {
            entry: 0,
            place: Place::Output,
            text: text.to_owned(),
        };
        let cases = [output("abs(k)"), output("(- (k))")];
        let all = "SELECT id, abs(k) AS c1, (- (k)) AS c2 FROM s ORDER BY id";
        assert_eq!(query(&cases, None), all);
        let one = "SELECT id, abs(k) AS c1 FROM s WHERE id BETWEEN 3 AND 3 ORDER BY id";
        assert_eq!(query(&cases[..1], Some("id BETWEEN 3 AND 3")), one);
        assert_eq!(query(&[], None), "SELECT 1");
    }
}
