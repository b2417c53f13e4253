//! The part of `docs/functions.md` that is made from the whitelist (`ext/src/lower/functions.rs`).

use crate::{Context, Result, paths};
use std::fs;

const BEGIN: &str = "<!-- made from the whitelist by `cargo xtask test tidy --accept` -->\n";
const END: &str = "<!-- end -->\n";
const WIDTH: usize = 120;

/// Compares the page with the whitelist; writes it if the difference is accepted.
pub fn check(accept: bool) -> Result<()> {
    let whitelist = paths::repo().join("ext/src/lower/functions.rs");
    let whitelist = fs::read_to_string(&whitelist).context(whitelist.display())?;
    let file = paths::repo().join("docs/functions.md");
    let page = fs::read_to_string(&file).context(file.display())?;
    let wanted = renewed(&page, &entries(&whitelist))
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

/// `pg_proc` entries that the whitelist names, as `fmgroids.h` does.
fn entries(whitelist: &str) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = whitelist.split("pg::F_").skip(1);
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
        let whitelist = "(Call::A, &[pg::F_INT4EQ, pg::F_ABS_INT4]),\n(Call::B, &[pg::F_INT4EQ]),";
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
