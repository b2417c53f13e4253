//! Tests of functions of jsonb.

use super::super::support::*;
use super::*;
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use pg_lake_plan::function::Function;
use pg_lake_plan::types::LakeType;

fn shown(function: Function, args: &[Val]) -> Option<String> {
    let result = result(function, &LakeType::Text, args);
    let texts = result.as_string::<i32>();
    texts.is_valid(0).then(|| texts.value(0).to_owned())
}

fn holds(function: Function, value: &str, part: &str) -> bool {
    let args = [text(value), text(part)];
    let result = result(function, &LakeType::Bool, &args);
    result.as_boolean().value(0)
}

const JSON: Function = Function::JsonField { as_text: false };
const TEXT: Function = Function::JsonField { as_text: true };

// jsonb.out
#[test]
fn fields() {
    let object = r#"{"a": 1.50, "b\"c": [1, {"x": "}"}], "text": "q\"\\\n\u0001ä", "zero": null}"#;
    let of = |function, key| shown(function, &[text(object), text(key)]);
    assert_eq!(of(JSON, "a").as_deref(), Some("1.50"));
    assert_eq!(of(JSON, "b\"c").as_deref(), Some(r#"[1, {"x": "}"}]"#));
    assert_eq!(of(TEXT, "b\"c").as_deref(), Some(r#"[1, {"x": "}"}]"#));
    assert_eq!(of(JSON, "text").as_deref(), Some(r#""q\"\\\n\u0001ä""#));
    assert_eq!(of(TEXT, "text").as_deref(), Some("q\"\\\n\u{1}ä"));
    assert_eq!(of(JSON, "zero").as_deref(), Some("null"));
    assert_eq!(of(TEXT, "zero"), None);
    assert_eq!(of(JSON, "x"), None);
    for other in ["{}", "[\"a\"]", "\"a\"", "1", "null"] {
        assert_eq!(shown(JSON, &[text(other), text("a")]), None, "{other}");
    }
    let columns = [
        texts(&[Some(object), None, Some("{\"a\": \"\"}")]),
        text("a"),
    ];
    let found = result(TEXT, &LakeType::Text, &columns);
    let found: Vec<Option<&str>> = found.as_string::<i32>().iter().collect();
    assert_eq!(found, [Some("1.50"), None, Some("")]);
}

#[test]
fn elements() {
    let of = |value, number| {
        shown(
            Function::JsonElement { as_text: false },
            &[text(value), int(number)],
        )
    };
    let array = r#"["a", [1, 2], {"k": ", "}, null, true]"#;
    assert_eq!(of(array, 0).as_deref(), Some("\"a\""));
    assert_eq!(of(array, 1).as_deref(), Some("[1, 2]"));
    assert_eq!(of(array, 2).as_deref(), Some(r#"{"k": ", "}"#));
    assert_eq!(of(array, -1).as_deref(), Some("true"));
    assert_eq!(of(array, -5).as_deref(), Some("\"a\""));
    for none in [5, -6, i32::MIN, i32::MAX] {
        assert_eq!(of(array, none), None, "{none}");
    }
    assert_eq!(of("[]", 0), None);
    assert_eq!(of("{\"0\": 1}", 0), None);
    assert_eq!(of("7", 0).as_deref(), Some("7"));
    assert_eq!(of("7", -1).as_deref(), Some("7"));
    assert_eq!(of("7", 1), None);
}

#[test]
fn steps() {
    let of = |value, key| {
        shown(
            Function::JsonStep { as_text: true },
            &[text(value), text(key)],
        )
    };
    assert_eq!(of("{\"1\": \"x\"}", "1").as_deref(), Some("x"));
    assert_eq!(of("[\"x\", \"y\"]", " -1").as_deref(), Some("y"));
    assert_eq!(of("[\"x\", \"y\"]", "+1").as_deref(), Some("y"));
    for none in ["1 ", "a", "", "2", "99999999999"] {
        assert_eq!(of("[\"x\", \"y\"]", none), None, "{none}");
    }
    assert_eq!(of("\"x\"", "0"), None);
}

#[test]
fn kinds_and_lengths() {
    for (value, kind) in [
        ("{}", "object"),
        ("[1]", "array"),
        ("\"\"", "string"),
        ("-1.0", "number"),
        ("true", "boolean"),
        ("null", "null"),
    ] {
        let shown = shown(Function::JsonKind, &[text(value)]);
        assert_eq!(shown.as_deref(), Some(kind));
    }
    let length = |value| result(Function::JsonLength, &LakeType::Int4, &[text(value)]);
    let length = |value| length(value).as_primitive::<Int32Type>().value(0);
    assert_eq!(length("[]"), 0);
    assert_eq!(length("[1, [2, 3], {\"a\": 1, \"b\": 2}, \"],[\"]"), 4);
    for (value, message) in [
        ("{}", "cannot get array length of a non-array"),
        ("1", "cannot get array length of a scalar"),
    ] {
        let refused = error(Function::JsonLength, &LakeType::Int4, &[text(value)]);
        assert_eq!(refused.code, ErrorCode::InvalidParameter);
        assert_eq!(refused.message, message);
    }
}

// jsonb.out
#[test]
fn keys_that_exist() {
    let has = |value, key| holds(Function::JsonHasKey, value, key);
    assert!(has("{\"a\": null, \"b\": \"qq\"}", "a"));
    assert!(!has("{\"a\": null, \"b\": \"qq\"}", "qq"));
    assert!(has("[\"a\", \"b\"]", "b"));
    assert!(!has("[1, [\"a\"]]", "a"));
    assert!(!has("[1]", "1"));
    assert!(has("\"a\"", "a"));
    assert!(!has("1", "1"));
}

// jsonb.out
#[test]
fn containment() {
    let contains = |value, part| holds(Function::JsonContains, value, part);
    for (value, part, expected) in [
        (r#"{"a": "b", "b": 1, "c": null}"#, r#"{"a": "b"}"#, true),
        (r#"{"a": "b", "b": 1, "c": null}"#, r#"{"a": "c"}"#, false),
        (r#"{"a": "b", "b": 1, "c": null}"#, r#"{"g": null}"#, false),
        (r#"{"a": "b"}"#, "{}", true),
        (r#"{"a": 1.0}"#, r#"{"a": 1.00}"#, true),
        (r#"{"a": 10}"#, r#"{"a": 1}"#, false),
        ("[1, 2]", "[1, 2, 2]", true),
        ("[1, 1, 2]", "[1, 2, 2]", true),
        ("[[1, 2]]", "[[1, 2, 2]]", true),
        ("[1, 2, 2]", "{}", false),
        ("[1]", "1", true),
        ("1", "[1]", false),
        ("[[1]]", "1", false),
        ("1", "1.0", true),
        (
            r#"{"a": [1, {"b": 2, "c": 3}]}"#,
            r#"{"a": [{"c": 3}]}"#,
            true,
        ),
        (
            r#"{"a": [1, {"b": 2, "c": 3}]}"#,
            r#"{"a": {"c": 3}}"#,
            false,
        ),
        (r#"["a", {"x": [1]}]"#, r#"[{"x": []}]"#, true),
    ] {
        assert_eq!(contains(value, part), expected, "{value} @> {part}");
    }
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let args = [text(&deep), text(&deep)];
    let refused = error(Function::JsonContains, &LakeType::Bool, &args);
    assert_eq!(refused.code, ErrorCode::NotExact);
}

#[test]
fn damaged_values_are_errors() {
    let damaged = |function, ty: &LakeType, args: &[Val]| {
        let refused = error(function, ty, args);
        assert_eq!(refused.code, ErrorCode::DataCorrupted, "{function:?}");
        assert_eq!(refused.message, "a value of type jsonb is damaged");
    };
    for object in [
        "",
        "{",
        "{\"a\": 1",
        "{\"a: 1}",
        "{\"a\" 1}",
        "{\"x\": }",
        "{a: 1}",
        "{\"x\": 1 \"a\": 1}",
        "{\"x\": 1,\"a\": 1}",
        "{\"x\": 1]}",
        "{\"x\": [1, 2}",
        "{\"a\": tru}",
        "{\"a\": 1e5}",
        "nul",
        "-",
        "1.",
        "\"a",
    ] {
        damaged(JSON, &LakeType::Text, &[text(object), text("a")]);
    }
    for string in ["\"a\"b\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\\""] {
        let field = format!("{{\"a\": {string}}}");
        damaged(TEXT, &LakeType::Text, &[text(&field), text("a")]);
    }
    let array = "[1, 2 3]";
    let element = Function::JsonElement { as_text: false };
    damaged(element, &LakeType::Text, &[text(array), int(5)]);
    damaged(element, &LakeType::Text, &[text(array), int(-1)]);
    let step = Function::JsonStep { as_text: false };
    damaged(step, &LakeType::Text, &[text(array), text("5")]);
    damaged(Function::JsonKind, &LakeType::Text, &[text("fals")]);
    damaged(Function::JsonLength, &LakeType::Int4, &[text(array)]);
    for function in [Function::JsonHasKey, Function::JsonContains] {
        damaged(function, &LakeType::Bool, &[text(array), text("7")]);
    }
    let nested = [text("{\"a\": [}"), text("{\"a\": [1]}")];
    damaged(Function::JsonContains, &LakeType::Bool, &nested);
    damaged(Function::JsonScalar, &LakeType::Int4, &[text("1x")]);
    damaged(Function::JsonScalar, &LakeType::Bool, &[text("t")]);
    // What comes before the damage is there.
    let before = shown(JSON, &[text("{\"a\": 1, \"x\" 2}"), text("a")]);
    assert_eq!(before.as_deref(), Some("1"));
}
