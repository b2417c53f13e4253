//! The whitelist's entries: the functions, operators, conversions, aggregates and window functions that the engine
//! knows, as its sources name them, and with what each is called, as `pg_proc` has it.

use crate::Result;
use crate::client::{Client, Value};
use crate::functions::{AGGREGATES, FUNCTIONS, named_in};
use std::collections::BTreeSet;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Function,
    Aggregate,
    Window,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// As the whitelist has it.
    pub entry: String,
    /// The name in SQL.
    pub function: String,
    pub kind: Kind,
    /// Names of types.
    pub params: Vec<String>,
    /// The last parameter may come more than once.
    pub variadic: bool,
    pub result: String,
    /// The operator that is this function, if there is one.
    pub operator: Option<String>,
    /// Of an aggregate over ordered values: how many arguments come before `WITHIN GROUP`.
    pub direct: Option<usize>,
}

impl Signature {
    /// Whether it is a comparison of two values.
    pub fn is_comparison(&self) -> bool {
        let operator = self.operator.as_deref();
        operator.is_some_and(|op| ["=", "<>", "<", "<=", ">", ">="].contains(&op))
    }

    /// Whether it takes two values of one type.
    pub fn is_of_one_type(&self) -> bool {
        matches!(self.params.as_slice(), [left, right] if left == right)
    }

    pub fn is_operator(&self, name: &str) -> bool {
        self.operator.as_deref() == Some(name)
    }
}

/// All entries, those of functions first.
pub fn whitelist(client: &mut Client) -> Result<Vec<Signature>> {
    let mut all = of_entries(client, &named_in(FUNCTIONS)?)?;
    let mut named = BTreeSet::new();
    for file in AGGREGATES {
        named.extend(named_in(file)?);
    }
    let named: Vec<String> = named.into_iter().collect();
    let others = of_entries(client, &named)?;
    all.extend(others.into_iter().filter(|s| s.kind != Kind::Function));
    Ok(all)
}

/// The entries with these names, all of which must be there. Names are made as `Gen_fmgrtab.pl` does: that of the
/// function, followed by its parameters' types if it has namesakes. Of these, `initdb` gives OIDs below 10,000 to those of
/// `pg_proc.dat`.
fn of_entries(client: &mut Client, names: &[String]) -> Result<Vec<Signature>> {
    let rows = client.rows(&format!(
        "WITH named AS (
             SELECT p.oid, p.proname, p.prokind, p.proargtypes, p.provariadic, p.prorettype, types.list,
                 lower(p.proname || CASE WHEN count(*) OVER (PARTITION BY p.proname) > 1
                                         THEN '_' || replace(types.list, ' ', '_') ELSE '' END) AS entry
             FROM pg_proc p
             CROSS JOIN LATERAL (
                 SELECT COALESCE(string_agg(t.typname, ' ' ORDER BY a.n), '') AS list
                 FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a(type, n)
                 JOIN pg_type t ON t.oid = a.type
             ) AS types
             WHERE p.oid < 10000
         )
         SELECT entry, proname, prokind, list, provariadic <> 0, (SELECT typname FROM pg_type WHERE oid = prorettype),
             (SELECT min(o.oprname::text) FROM pg_operator o
              WHERE o.oprcode = named.oid AND o.oprright = proargtypes[CASE o.oprkind WHEN 'l' THEN 0 ELSE 1 END]),
             (SELECT aggnumdirectargs FROM pg_aggregate WHERE aggfnoid = named.oid AND aggkind <> 'n')
         FROM named WHERE entry = ANY ('{{{}}}') ORDER BY entry",
        names.join(",")
    ))?;
    let signatures: Vec<Signature> = rows.rows.iter().filter_map(|row| signature(row)).collect();
    let known: BTreeSet<&String> = signatures.iter().map(|s| &s.entry).collect();
    let missing: Vec<&str> = (names.iter().filter(|name| !known.contains(name)))
        .map(String::as_str)
        .collect();
    match missing.is_empty() {
        true => Ok(signatures),
        false => Err(format!("not in pg_proc: {}", missing.join(", "))),
    }
}

fn signature(row: &[Value]) -> Option<Signature> {
    let [
        entry,
        function,
        kind,
        params,
        variadic,
        result,
        operator,
        direct,
    ] = row
    else {
        return None;
    };
    Some(Signature {
        entry: entry.clone()?,
        function: function.clone()?,
        kind: match kind.as_deref()? {
            "f" => Kind::Function,
            "a" => Kind::Aggregate,
            "w" => Kind::Window,
            _ => return None,
        },
        params: (params.as_deref()?.split_whitespace())
            .map(str::to_owned)
            .collect(),
        variadic: variadic.as_deref() == Some("t"),
        result: result.clone()?,
        operator: operator.clone(),
        direct: match direct {
            Some(count) => Some(count.parse().ok()?),
            None => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: [Option<&str>; 8]) -> Vec<Value> {
        values.iter().map(|v| v.map(str::to_owned)).collect()
    }

    #[test]
    fn rows_become_signatures() {
        let found = signature(&row([
            Some("int4lt"),
            Some("int4lt"),
            Some("f"),
            Some("int4 int4"),
            Some("f"),
            Some("bool"),
            Some("<"),
            None,
        ]));
        let found = found.unwrap();
        assert_eq!(found.params, ["int4", "int4"]);
        assert!(found.is_comparison() && found.is_of_one_type());
        assert!(found.is_operator("<") && !found.is_operator("<="));
        let found = signature(&row([
            Some("mode"),
            Some("mode"),
            Some("a"),
            Some("anyelement"),
            Some("f"),
            Some("anyelement"),
            None,
            Some("0"),
        ]));
        assert_eq!(found.and_then(|found| found.direct), Some(0));
        assert_eq!(signature(&row([None; 8])), None);
        assert_eq!(signature(&[]), None);
    }

    #[test]
    fn the_sources_name_entries() {
        let functions = named_in(FUNCTIONS).unwrap();
        assert!(functions.contains(&"int4eq".to_owned()));
        assert!(functions.len() > 400);
        for file in AGGREGATES {
            assert!(!named_in(file).unwrap().is_empty(), "{file}");
        }
    }
}
