//! The queries' text for DuckDB.
//!
//! Values of `char(n)` are in the files with their blanks, as an Iceberg string, and DuckDB compares all of a string.
//! A column without them would have it do less work than Postgres' type asks for.

use crate::tpch::TABLES;

/// Literals that are compared with a column `char(n)` get their blanks.
pub fn with_blanks(sql: &str) -> String {
    let mut text = String::new();
    // Of the column that is being compared.
    let mut width = None;
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        rest = after;
        if first == '\'' {
            let inner = token.trim_matches('\'');
            text.push_str(&format!("'{inner:<0$}'", width.unwrap_or(0)));
            continue;
        }
        let transparent = token.eq_ignore_ascii_case("in") || token.eq_ignore_ascii_case("not");
        if first.is_ascii_alphabetic() && !transparent {
            width = width_of(token);
        }
        text.push_str(token);
    }
    text
}

/// A literal, a word, or a single character; literals of these queries have no quotes inside.
fn token_length(text: &str) -> usize {
    let mut chars = text.chars();
    match chars.next() {
        Some('\'') => chars.as_str().find('\'').map_or(text.len(), |at| at + 2),
        Some(first) if first.is_ascii_alphabetic() => text
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(text.len()),
        Some(other) => other.len_utf8(),
        None => 0,
    }
}

/// Of a column `char(n)`, n. Q8 and Q9 call a name of a nation just that.
fn width_of(word: &str) -> Option<usize> {
    let word = if word == "nation" { "n_name" } else { word };
    let mut columns = TABLES.iter().flat_map(|table| table.padded());
    columns
        .find(|(name, _)| *name == word)
        .map(|(_, width)| width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_get_blanks() {
        let sql = "p_size = 15 AND p_type LIKE '%BRASS' AND n2.n_name = 'PERU' AND \
                   p_brand <> 'Brand#45' AND l_shipmode IN ('AIR', 'AIR REG') OR nation = 'CHINA' THEN \
                   'x' AND o_orderpriority = '1-URGENT' AND l_shipdate < CAST('1995-01-01' AS date)";
        let padded = with_blanks(sql);
        let expected = format!(
            "p_size = 15 AND p_type LIKE '%BRASS' AND n2.n_name = '{:<25}' AND \
             p_brand <> 'Brand#45  ' AND l_shipmode IN ('AIR       ', 'AIR REG   ') OR nation = '{:<25}' THEN \
             'x' AND o_orderpriority = '1-URGENT       ' AND l_shipdate < CAST('1995-01-01' AS date)",
            "PERU", "CHINA"
        );
        assert_eq!(padded, expected);
    }
}
