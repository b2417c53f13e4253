//! Arguments for calls of any function by its parameters' types: columns of nasty values, others, and constants.
//!
//! `@` stands for the relation of a column. Where the engine asks for a constant, or where most values would only raise an
//! error or take long, `FIXED` has what to take instead.

use super::signatures::{Kind, Signature};

/// Each type's columns and a constant, which comes last.
const BY_TYPE: &[(&str, &[&str])] = &[
    ("bool", &["@b", "(@k > 3)"]),
    ("int2", &["@i2", "@k2", "'7'::int2"]),
    ("int4", &["@i4", "@k", "'-5'::int4"]),
    ("int8", &["@i8", "@k8", "'4294967296'::int8"]),
    ("float4", &["@f4", "@g4", "'0.1'::float4"]),
    ("float8", &["@f8", "@g8", "'2.5'::float8"]),
    ("numeric", &["@n2", "@n10", "@n0", "'2.50'::numeric"]),
    ("text", &["@tc", "@t", "@v::text", "'aB'::text"]),
    ("bpchar", &["(@ch COLLATE \"C\")", "@ch", "'ab'::bpchar"]),
    ("date", &["@d", "@dn", "'2000-02-29'::date"]),
    ("time", &["@ti", "@tn::time", "'12:30:45.5'::time"]),
    (
        "timestamp",
        &["@ts", "@tn", "'1995-03-15 12:00:00.5'::timestamp"],
    ),
    (
        "timestamptz",
        &["@tz", "@zn", "'1995-03-15 12:00:00.5+00'::timestamptz"],
    ),
    (
        "interval",
        &[
            "@iv",
            "(@tn - '1995-01-01'::timestamp)",
            "(@zn - @tz)",
            "(@tn - @ts)",
            "'1 day 02:00:00'::interval",
            "'-1 month'::interval",
        ],
    ),
    (
        "uuid",
        &["@u", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid"],
    ),
    ("bytea", &["@x", "'\\x6162'::bytea"]),
    (
        "jsonb",
        &[
            "@j",
            "'12.5'::jsonb",
            "'{\"a\": 1.00}'::jsonb",
            "'[1.0, \"a\", null, {\"a\": [true]}, [2, 2.00]]'::jsonb",
        ],
    ),
];

/// They take a value of any type, and all of a call have the same.
const ANY: &[&str] = &["any", "anyelement", "anynonarray", "anycompatible"];

const FIELDS: &[&str] = &[
    "'epoch'",
    "'year'",
    "'month'",
    "'day'",
    "'hour'",
    "'minute'",
    "'second'",
    "'milliseconds'",
    "'microseconds'",
    "'week'",
    "'quarter'",
    "'isoyear'",
    "'isodow'",
    "'dow'",
    "'doy'",
    "'century'",
    "'decade'",
    "'millennium'",
    "'julian'",
];
const PATTERNS: &[&str] = &["'a%'", "'%b'", "'%A%'", "'_'", "'a\\_b'", "''", "@tc"];
const KEYS: &[&str] = &["'a'", "'b'", "''", "'x'", "@tc"];
const FEW: &[&str] = &["@kn", "3"];
const DIGITS: &[&str] = &["1", "0", "-2", "9"];

/// By function, and number of the parameter from 0.
#[rustfmt::skip]
const FIXED: &[(&[&str], usize, &[&str])] = &[
    (&["extract", "date_part", "date_trunc"], 0, FIELDS),
    (&["timezone"], 0, &["'UTC'", "'Etc/GMT-5'", "'Etc/GMT+11'"]),
    (&["date_bin"], 0, &["'15 minutes'::interval", "'1 day 1 hour'::interval"]),
    // numeric(12,2), numeric(38,10), numeric(20,4)
    (&["numeric"], 1, &["786438", "2490382", "1310728"]),
    (&["round", "trunc"], 1, DIGITS),
    (&["numeric_power", "pow", "power"], 1, &["2", "3", "0"]),
    (&["width_bucket"], 3, &["7", "(@kn + 1)"]),
    (&["repeat"], 1, FEW),
    (&["int2shl", "int4shl", "int8shl", "int2shr", "int4shr", "int8shr"], 1, FEW),
    (&["make_date"], 0, &["(@k + 1993)", "@k"]),
    (&["make_date"], 1, &["@kn", "2"]),
    (&["make_date"], 2, &["(@kn + 20)", "29"]),
    (&["concat_ws"], 0, &["', '", "''"]),
    (&["textlike", "textnlike", "like", "notlike", "texticlike", "texticnlike"], 1, PATTERNS),
    (&["bpcharlike", "bpcharnlike", "bpchariclike", "bpcharicnlike"], 1, PATTERNS),
    (&["ntile"], 0, &["3"]),
    (&["nth_value", "lag", "lead"], 1, &["2"]),
    (&["percentile_disc", "percentile_cont"], 0, &["0.25", "1"]),
    (&["jsonb_extract_path", "jsonb_extract_path_text"], 1, &["'a'", "'1'", "'-1'", "''"]),
    (&["jsonb_extract_path", "jsonb_extract_path_text"], 2, &["'b'", "'a'", "'0'"]),
    (&["jsonb_object_field", "jsonb_object_field_text", "jsonb_exists"], 1, KEYS),
    (&["jsonb_array_element", "jsonb_array_element_text"], 1, &["0", "2", "-1", "@kn"]),
    (&["string_agg"], 1, &["', '::text", "NULL::text"]),
];

/// Parameters that are another row's value where there is none.
const DEFAULTS: &[(&str, usize)] = &[("lag", 2), ("lead", 2)];

/// Arguments for calls, at most so many for each choice of types. None of them are constants only.
pub fn combinations(signature: &Signature, most: usize) -> Vec<Vec<&'static str>> {
    if signature.params.is_empty() {
        return vec![vec![]];
    }
    let mut params = signature.params.clone();
    if signature.variadic {
        params.extend(signature.params.last().cloned());
    }
    let mut all = Vec::new();
    for params in of_types(&params) {
        let choices: Vec<&[&str]> = (params.iter().enumerate())
            .map(|(at, ty)| choices(signature, at, ty))
            .collect();
        let combined = combined(&choices, most);
        let of_rows = signature.kind == Kind::Window;
        all.extend((combined.into_iter()).filter(|args| of_rows || is_worth_a_call(args)));
    }
    all
}

/// With each type in the place of what may be of any.
fn of_types(params: &[String]) -> Vec<Vec<&str>> {
    let is_any = |ty: &str| ANY.contains(&ty);
    if !params.iter().any(|ty| is_any(ty)) {
        return vec![params.iter().map(String::as_str).collect()];
    }
    let with = |ty: &'static str| {
        let given = params.iter().map(|param| match is_any(param) {
            true => ty,
            false => param.as_str(),
        });
        given.collect()
    };
    BY_TYPE.iter().map(|&(ty, _)| with(ty)).collect()
}

/// Aggregates that add floats up, of one argument and of two.
const ADDS: &[&str] = &[
    "sum",
    "avg",
    "var_pop",
    "var_samp",
    "variance",
    "stddev_pop",
    "stddev_samp",
    "stddev",
];
const ADDS_PAIRS: &[&str] = &[
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
];

/// Whether what a call of `pg_catalog."name"` gives, if it is a float, depends on the order by its rounding.
pub fn adds_floats(call: &str) -> bool {
    let name = call.split('"').nth(1).unwrap_or_default();
    ADDS.contains(&name) || ADDS_PAIRS.contains(&name)
}

fn choices(signature: &Signature, at: usize, ty: &str) -> &'static [&'static str] {
    let function = signature.function.as_str();
    let fixed =
        (FIXED.iter()).find(|(names, number, _)| *number == at && names.contains(&function));
    if let Some(&(_, _, choices)) = fixed {
        return choices;
    }
    let known = BY_TYPE.iter().find(|(name, _)| *name == ty);
    let all = known.map_or(&[] as &[&str], |&(_, choices)| choices);
    // Infinities and large numbers make a sum of floats depend on the order.
    match ty {
        "float4" if ADDS.contains(&function) => return &["@g4"],
        "float8" if ADDS.contains(&function) => return &["@g8"],
        "float8" if ADDS_PAIRS.contains(&function) => {
            return &["@g8", "@g4::float8", "'2.5'::float8"];
        }
        _ => {}
    }
    match all.split_last() {
        Some((constant, _)) if DEFAULTS.contains(&(function, at)) => std::slice::from_ref(constant),
        _ => all,
    }
}

/// All combinations, or so many of them, spread over all.
fn combined(choices: &[&[&'static str]], most: usize) -> Vec<Vec<&'static str>> {
    let all: usize = choices.iter().map(|choices| choices.len()).product();
    let count = all.min(most);
    let mut step = all.div_ceil(count.max(1)).max(1);
    while common_divisor(step, all) > 1 {
        step += 1;
    }
    // The last argument changes first.
    let nth = |mut number: usize| {
        let mut args: Vec<&'static str> = (choices.iter().rev())
            .filter_map(|choices| {
                let arg = choices.get(number % choices.len());
                number /= choices.len();
                arg.copied()
            })
            .collect();
        args.reverse();
        args
    };
    (0..count).map(|number| nth(number * step % all)).collect()
}

fn common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Postgres computes what is constant, and simplifies a comparison with itself.
fn is_worth_a_call(args: &[&str]) -> bool {
    let same = matches!(args, [one, other] if one == other);
    !same && args.iter().any(|arg| arg.contains('@'))
}

/// An argument that is a column, or computed from some, of a relation; of the only one, if it has no name.
pub fn of_relation(arg: &str, relation: &str) -> String {
    match relation {
        "" => arg.replace('@', ""),
        name => arg.replace('@', &format!("{name}.")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::COLUMNS;
    use super::*;

    fn signature(function: &str, params: &[&str]) -> Signature {
        Signature {
            entry: function.to_owned(),
            function: function.to_owned(),
            kind: Kind::Function,
            params: params.iter().map(|param| (*param).to_owned()).collect(),
            variadic: false,
            result: "bool".to_owned(),
            operator: None,
            direct: None,
        }
    }

    #[test]
    fn every_column_exists() {
        let fixed = FIXED.iter().flat_map(|(_, _, choices)| *choices);
        let by_type = BY_TYPE.iter().flat_map(|(_, choices)| *choices);
        for arg in fixed.chain(by_type) {
            for rest in arg.split('@').skip(1) {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric());
                let name = &rest[..end.unwrap_or(rest.len())];
                assert!(COLUMNS.iter().any(|column| column.name == name), "{arg}");
            }
        }
    }

    #[test]
    fn combinations_are_made_of_all_choices() {
        let all = combinations(&signature("f", &["int4", "int4"]), 64);
        assert_eq!(all.len(), 9 - 3);
        assert!(all.contains(&vec!["@i4", "@k"]) && all.contains(&vec!["'-5'::int4", "@k"]));
        let some = combinations(&signature("f", &["numeric"; 4]), 64);
        assert!(some.len() > 50 && some.len() <= 64);
        for at in 0..4 {
            let n10 = some.iter().filter(|args| args[at] == "@n10");
            assert!(n10.count() > 5, "{at}");
        }
        assert_eq!(combinations(&signature("f", &[]), 64), [Vec::<&str>::new()]);
        assert!(combinations(&signature("f", &["xml"]), 64).is_empty());
    }

    #[test]
    fn what_must_be_constant_is() {
        let all = combinations(&signature("extract", &["text", "date"]), 64);
        assert!(all.contains(&vec!["'doy'", "@d"]));
        let all = combinations(
            &signature("lag", &["anycompatible", "int4", "anycompatible"]),
            64,
        );
        assert!(all.contains(&vec!["@n2", "2", "'2.50'::numeric"]));
        assert!(all.contains(&vec![
            "@u",
            "2",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid"
        ]));
        let mut concat = signature("concat", &["any"]);
        concat.variadic = true;
        assert!(combinations(&concat, 64).contains(&vec!["@tc", "@t"]));
    }

    #[test]
    fn columns_get_their_relation() {
        assert_eq!(of_relation("(@zn - @tz)", "x"), "(x.zn - x.tz)");
        assert_eq!(of_relation("@v::text", ""), "v::text");
    }
}
