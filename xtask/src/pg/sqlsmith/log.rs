//! What the server's log has of crashes, panics and internal errors.

/// Lines begin with the SQLSTATE.
pub const PREFIX: &str = "<%e> ";

const INTERNAL: &str = "<XX000> ";

/// A statement that has ended with an internal error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InternalError {
    pub message: String,
    pub statement: String,
}

/// The internal errors, one for each message.
pub fn internal_errors(log: &str) -> Vec<InternalError> {
    let mut found: Vec<InternalError> = Vec::new();
    // Lines that go on begin with a tab.
    let mut in_statement = false;
    for line in log.lines() {
        if let Some(more) = line.strip_prefix('\t') {
            if let (true, Some(last)) = (in_statement, found.last_mut()) {
                last.statement.push('\n');
                last.statement.push_str(more);
            }
            continue;
        }
        in_statement = false;
        let Some(rest) = line.strip_prefix(INTERNAL) else {
            continue;
        };
        if let Some(message) = rest.strip_prefix("ERROR:  ") {
            found.push(InternalError {
                message: message.to_owned(),
                statement: String::new(),
            });
        } else if let (Some(statement), Some(last)) =
            (rest.strip_prefix("STATEMENT:  "), found.last_mut())
        {
            statement.clone_into(&mut last.statement);
            in_statement = true;
        }
    }
    let mut known = Vec::new();
    found.retain(|error| {
        let kind = without_digits(&error.message);
        let is_new = !known.contains(&kind);
        if is_new {
            known.push(kind);
        }
        is_new
    });
    found
}

/// Oids and the like tell no kinds of errors apart.
fn without_digits(message: &str) -> String {
    message.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The first line that tells of a process that crashed or panicked.
pub fn crash(log: &str) -> Option<&str> {
    // What goes on is text of statements, mostly.
    let mut lines = log.lines().filter(|line| !line.starts_with('\t'));
    lines.find(|line| {
        [
            "PANIC:  ",
            "TRAP: ",
            "was terminated by signal",
            "panicked at",
            "panic: ",
            "terminating any other active server processes",
        ]
        .iter()
        .any(|alarm| line.contains(alarm))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_statements() {
        let log = "<00000> LOG:  checkpoint starting\n\
                   <22012> ERROR:  division by zero\n\
                   <22012> STATEMENT:  select 1/0\n\
                   <XX000> ERROR:  cache lookup failed for type 12\n\
                   <XX000> DETAIL:  some\n\
                   <XX000> STATEMENT:  select\n\
                   \t  1 as \"a\"\n\
                   <XX000> ERROR:  cache lookup failed for type 13\n\
                   <XX000> STATEMENT:  select 2\n\
                   <XX000> ERROR:  other\n\
                   \tPANIC:  not one\n";
        let found = internal_errors(log);
        let messages: Vec<&str> = found.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(messages, ["cache lookup failed for type 12", "other"]);
        assert_eq!(found[0].statement, "select\n  1 as \"a\"");
        assert_eq!(crash(log), None);
        let crashed = "<00000> LOG:  server process (PID 7) was terminated by signal 11";
        assert_eq!(crash(crashed), Some(crashed));
    }
}
