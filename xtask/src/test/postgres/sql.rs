//! What the text of a statement says of its result: whether its rows come in an order, and whether it
//! shows a plan.
//!
//! A look at words and parentheses, no parser. Where that can't tell, there is an order.

#[derive(Debug, PartialEq)]
enum Token {
    /// In lower case; also an identifier in quotes.
    Word(String),
    Open,
    Close,
    End,
}

impl Token {
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(own) if own == word)
    }
}

/// Begins those of the tests' functions that return an output of EXPLAIN.
const EXPLAINING: &str = "explain_";

/// Whether the result is an output of EXPLAIN.
pub fn is_plan(statement: &str) -> bool {
    let tokens = tokenize(statement);
    let called = tokens.windows(2).any(|pair| match pair {
        [Token::Word(name), Token::Open] => name.starts_with(EXPLAINING),
        _ => false,
    });
    called || tokens.first().is_some_and(|first| first.is("explain"))
}

/// Whether a statement says in which order its rows come. `before` are the lines before it: one that
/// executes or fetches from another statement has that one's order.
pub fn is_ordered(statement: &str, before: &[&str]) -> bool {
    let last = statement.lines().next_back().unwrap_or_default();
    if last.trim_start().starts_with('\\') {
        return true;
    }
    let tokens = tokenize(statement);
    let name = match tokens.first() {
        None => return true,
        Some(first) if first.is("execute") => tokens.get(1),
        Some(first) if first.is("fetch") => {
            tokens.iter().rfind(|token| matches!(token, Token::Word(_)))
        }
        Some(_) => return has_order(&tokens),
    };
    let Some(Token::Word(name)) = name else {
        return true;
    };
    definition(name, before).is_none_or(|text| has_order(&tokenize(&text)))
}

/// The last statement that prepares another one, or declares a cursor, by this name.
fn definition(name: &str, before: &[&str]) -> Option<String> {
    let defines = |line: &&str| {
        tokenize(line).windows(2).any(|pair| match pair {
            [first, second] => (first.is("prepare") || first.is("declare")) && second.is(name),
            _ => false,
        })
    };
    let from = before.get(before.iter().rposition(defines)?..)?;
    let end = from.iter().position(|line| line.contains(';'))?;
    Some(from.get(..=end)?.join("\n"))
}

/// Whether there is an ORDER BY of a query. That of a window or of an aggregate is in parentheses without
/// a query.
fn has_order(tokens: &[Token]) -> bool {
    let mut queries = vec![true];
    for (at, token) in tokens.iter().enumerate() {
        let rest = tokens.get(at + 1..).unwrap_or_default();
        match token {
            Token::Open => queries.push(begins_query(rest)),
            Token::Close if queries.len() > 1 => {
                queries.pop();
            }
            Token::Word(word) if word == "order" => {
                let by = rest.first().is_some_and(|next| next.is("by"));
                if by && queries.last() == Some(&true) {
                    return true;
                }
            }
            Token::Close | Token::End | Token::Word(_) => {}
        }
    }
    false
}

fn begins_query(tokens: &[Token]) -> bool {
    let first = tokens.iter().find(|token| **token != Token::Open);
    first.is_some_and(|first| {
        ["select", "with", "values", "table"]
            .iter()
            .any(|word| first.is(word))
    })
}

/// The lines of one statement or more whose result comes next in psql's echo; empty if there is none.
/// `lines` are those since the last result.
pub fn last_statement(lines: &[&str]) -> String {
    let Some(end) = lines.iter().rposition(|line| ends_statement(line)) else {
        return String::new();
    };
    let start = lines[..end]
        .iter()
        .rposition(|line| line.is_empty() || is_message(line) || ends_statement(line))
        .map_or(0, |before| before + 1);
    lines[start..=end].join("\n")
}

/// Whether a statement, or a command of psql's, ends with this line.
fn ends_statement(line: &str) -> bool {
    let code = line.split("--").next().unwrap_or_default().trim_end();
    let command = code.match_indices('\\').any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + 1..].chars().next();
        before.is_none_or(char::is_whitespace) && after.is_some_and(|c| c.is_ascii_alphabetic())
    });
    !is_message(line) && (command || code.ends_with(';'))
}

/// Whether a line is what a server says beside results.
fn is_message(line: &str) -> bool {
    const KINDS: [&str; 10] = [
        "DEBUG", "LOG", "INFO", "NOTICE", "WARNING", "ERROR", "FATAL", "DETAIL", "HINT", "CONTEXT",
    ];
    let begins = |kind: &&str| {
        line.strip_prefix(*kind)
            .is_some_and(|rest| rest.starts_with(":  "))
    };
    KINDS.iter().any(begins)
        || line.starts_with("LINE ")
        || line.starts_with("QUERY:  ")
        || line.trim() == "^"
}

fn tokenize(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '(' => {
                found.push(Token::Open);
                1
            }
            ')' => {
                found.push(Token::Close);
                1
            }
            ';' => {
                found.push(Token::End);
                1
            }
            '\'' => quoted(rest, '\'', false),
            '"' => {
                let length = quoted(rest, '"', false);
                let name = rest[..length].trim_matches('"');
                found.push(Token::Word(name.to_lowercase()));
                length
            }
            '$' => dollar_quoted(rest),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                if word.eq_ignore_ascii_case("e") && after.starts_with('\'') {
                    end + quoted(after, '\'', true)
                } else {
                    found.push(Token::Word(word.to_lowercase()));
                    end
                }
            }
            other => other.len_utf8(),
        };
        rest = &rest[length..];
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of what is in quotes at the beginning of a text. A doubled quote makes two of these.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if escapes && c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The same between `$tag$` and `$tag$`; one for a dollar sign that is no quote.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else {
        return 1;
    };
    let (tag, rest) = text.split_at(end + 2);
    if !tag[1..=end].chars().all(is_word) {
        return 1;
    }
    match rest.find(tag) {
        Some(at) => tag.len() + at + tag.len(),
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_that_of_a_query() {
        for ordered in [
            "SELECT a FROM t ORDER BY a;",
            "select * from (select a from t order\nby a) s;",
            "(SELECT 1) UNION ((SELECT 2) ORDER /* of both */ BY 1);",
            "WITH s AS (TABLE t ORDER BY 1) SELECT * FROM s;",
            "INSERT INTO t VALUES ('it''s'), (E'it\\'s'), ($a$it's$a$) RETURNING (SELECT 1 ORDER BY 1);",
            "\\d t",
            "-- of the relation\n\\d t",
            "SELECT a FROM t\n\\gx",
            "",
        ] {
            assert!(is_ordered(ordered, &[]), "{ordered}");
        }
        for free in [
            "SELECT a FROM t;",
            "SELECT 'order by', \"order\", $$ ORDER BY $$ FROM t; -- order by",
            "SELECT array_agg(a ORDER BY b), rank() OVER (PARTITION BY a ORDER BY b) FROM t;",
            "SELECT sum(a) OVER w FROM t WINDOW w AS (ORDER BY b);",
            "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY a) FROM t GROUP BY b;",
            "DELETE FROM t RETURNING *;",
        ] {
            assert!(!is_ordered(free, &[]), "{free}");
        }
    }

    #[test]
    fn a_statement_that_names_another_has_its_order() {
        let before = [
            "PREPARE q(int) AS",
            "  SELECT a FROM t ORDER BY a;",
            "PREPARE p AS SELECT a FROM t;",
            "step s1: DECLARE c CURSOR FOR SELECT a FROM t; <waiting ...>",
            "DECLARE o CURSOR FOR SELECT a FROM t ORDER BY a;",
        ];
        for (statement, ordered) in [
            ("EXECUTE q(1);", true),
            ("execute p;", false),
            ("EXECUTE elsewhere;", true),
            ("FETCH ALL FROM c;", false),
            ("FETCH BACKWARD 2 IN o;", true),
            ("FETCH foo;", true),
        ] {
            assert_eq!(is_ordered(statement, &before), ordered, "{statement}");
        }
    }

    #[test]
    fn plans_are_of_explain() {
        assert!(is_plan("-- a plan\nEXPLAIN (COSTS OFF) SELECT 1;"));
        assert!(is_plan(
            "select jsonb_pretty(explain_filter_to_json('explain select 1') #- '{a}');"
        ));
        assert!(!is_plan("SELECT 'explain', explain_ FROM explain;"));
    }

    #[test]
    fn the_statement_is_what_was_echoed_last() {
        let lines = [
            "",
            "INSERT INTO t VALUES (1); -- one",
            "ERROR:  no such thing",
            "LINE 1: INSERT INTO t VALUES (1);",
            "                              ^",
            "-- looks",
            "SELECT a",
            "  FROM t;",
            "NOTICE:  it is looked at;",
            "CONTEXT:  PL/pgSQL function f() line 1 at RAISE",
            "SQL function \"g\" statement 1",
        ];
        assert_eq!(last_statement(&lines), "-- looks\nSELECT a\n  FROM t;");
        assert_eq!(last_statement(&lines[..3]), lines[1]);
        assert_eq!(last_statement(&["SELECT 1 AS a \\gset", "\\d t"]), "\\d t");
        assert_eq!(last_statement(&["", "-- nothing;"]), "");
    }
}
