//! The entries of `pg_proc` that the engine's whitelist names, and the part of `docs/functions.md` that is made from it.

use crate::{Context, Result, paths};
use std::fs;

const BEGIN: &str = "<!-- made from the whitelist by `cargo xtask test tidy --accept` -->\n";
const END: &str = "<!-- end -->\n";
const WIDTH: usize = 120;

/// The whitelist of functions, operators and conversions.
pub const FUNCTIONS: &str = "ext/src/lower/functions.rs";

/// Those of aggregates and window functions. They also name functions that last steps call.
pub const AGGREGATES: &[&str] = &[
    "ext/src/lower/aggregates.rs",
    "ext/src/lower/moments.rs",
    "ext/src/lower/ordered.rs",
    "ext/src/lower/spread.rs",
    "ext/src/lower/windows.rs",
];

/// Entries of `pg_proc` that a source file names, as `fmgroids.h` does; sorted.
pub fn named_in(file: &str) -> Result<Vec<String>> {
    let file = paths::repo().join(file);
    let text = fs::read_to_string(&file).context(file.display())?;
    Ok(entries(&text))
}

/// Compares the page with the whitelist; writes it if the difference is accepted.
pub fn check(accept: bool) -> Result<()> {
    let file = paths::repo().join("docs/functions.md");
    let page = fs::read_to_string(&file).context(file.display())?;
    let wanted = renewed(&page, &named_in(FUNCTIONS)?)
        .ok_or_else(|| format!("docs/functions.md has no line {}", BEGIN.trim_end()))?;
    if page == wanted {
        return Ok(());
    }
    if accept {
        return fs::write(&file, wanted).context(file.display());
    }
    Err("docs/functions.md is not up to date: cargo xtask test tidy --accept".to_owned())
}

/// The page with another list.
fn renewed(page: &str, entries: &[String]) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}{END}{after}", list(entries)))
}

/// What follows `F_` in names of the modules `pg` and `pg_sys`.
fn entries(text: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = text.split("::F_").skip(1);
    let mut entries: Vec<String> = named
        .map(|rest| {
            let end = rest.find(|c: char| !word(c)).unwrap_or(rest.len());
            rest[..end].to_ascii_lowercase()
        })
        .collect();
    entries.sort();
    entries.dedup();
    entries
}

/// Lines of code, one paragraph.
fn list(entries: &[String]) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for entry in entries {
        let item = format!("`{entry}`");
        if !line.is_empty() && line.len() + 1 + item.len() > WIDTH {
            lines += line.as_str();
            lines.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += &item;
    }
    lines + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_renewed() {
        let whitelist =
            "(Call::A, &[pg::F_INT4EQ, pg::F_ABS_INT4]),\n(Call::B, &[pg_sys::F_INT4EQ]),";
        let entries = entries(whitelist);
        assert_eq!(entries, ["abs_int4", "int4eq"]);
        let page = format!("# A\n{BEGIN}old\n{END}after\n");
        let wanted = format!("# A\n{BEGIN}`abs_int4` `int4eq`\n{END}after\n");
        assert_eq!(renewed(&page, &entries), Some(wanted));
        assert_eq!(renewed("# A\n", &entries), None);
    }

    #[test]
    fn long_lists_are_wrapped() {
        let entries: Vec<String> = (0..100).map(|n| format!("entry_{n}")).collect();
        let list = list(&entries);
        assert!(list.lines().count() > 1);
        assert!(list.lines().all(|line| line.len() <= WIDTH));
    }
}
