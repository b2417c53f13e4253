//! The documentation is right: settings as the server has them, examples that run.

use crate::test::Run;
use crate::{Context, Result, paths};
use std::fs;
use std::path::{Path, PathBuf};

/// Every setting has a row in the table of docs/settings.md, with its default.
pub fn settings_documented(run: &mut Run) -> Result<()> {
    let file = paths::repo().join("docs").join("settings.md");
    let text = fs::read_to_string(&file).context(file.display())?;
    let cluster = run.cluster("settings_documented", &[])?;
    let rows = cluster.sql(
        "SELECT name, current_setting(name), boot_val FROM pg_settings
         WHERE name LIKE 'lake.%' ORDER BY name",
    )?;
    let mut wrong = Vec::new();
    let mut names = Vec::new();
    for row in rows.lines() {
        let mut fields = row.split('\t');
        let (Some(name), Some(shown), Some(boot)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("unexpected row {row:?}"));
        };
        names.push(name);
        let Some(cells) = table_row(&text, name) else {
            wrong.push(format!(
                "{name} is not in docs/settings.md (default {shown})"
            ));
            continue;
        };
        let is_default = |cell: &String| {
            cell == shown || cell == boot || (shown.is_empty() && (cell == "''" || cell == "empty"))
        };
        if !cells.iter().any(is_default) {
            wrong.push(format!(
                "{name}: the default is {shown}, documented: {cells:?}"
            ));
        }
    }
    if names.is_empty() {
        return Err("the server has no setting lake.*".to_owned());
    }
    for line in text.lines().filter(|line| line.starts_with("| `lake.")) {
        let name = line.split('`').nth(1).unwrap_or_default();
        if !names.contains(&name) {
            wrong.push(format!(
                "{name} is documented, but the server has no such setting"
            ));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

/// The cells after the name, without code marks.
fn table_row(text: &str, name: &str) -> Option<Vec<String>> {
    let start = format!("| `{name}` |");
    let row = text.lines().find(|line| line.starts_with(&start))?;
    let cells = row[start.len()..]
        .split('|')
        .map(|cell| cell.trim().trim_matches('`').to_owned());
    Some(cells.collect())
}

/// The blocks marked `sql` of each document run, one after the other, in a database of their own.
pub fn documentation_examples(run: &mut Run) -> Result<()> {
    let cluster = run.cluster("documentation_examples", &[])?;
    let repo = paths::repo();
    let mut files = vec![repo.join("README.md")];
    files.extend(markdown(&repo.join("docs"))?);
    let mut wrong = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let text = fs::read_to_string(file).context(file.display())?;
        let blocks = sql_blocks(&text);
        if blocks.is_empty() {
            continue;
        }
        let database = format!("docs_{n}");
        cluster.create_database(&database)?;
        if let Err(error) = cluster.sql_in(&database, &blocks.join("\n")) {
            let name = file.strip_prefix(&repo).unwrap_or(file);
            wrong.push(format!("{}: {error}", name.display()));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

fn markdown(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).context(dir.display())? {
        let path = entry.context(dir.display())?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn sql_blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match &mut block {
            None if line.trim() == "```sql" => block = Some(String::new()),
            None => {}
            Some(_) if line.trim() == "```" => blocks.extend(block.take()),
            Some(sql) => {
                sql.push_str(line);
                sql.push('\n');
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_rows_are_found() {
        let text = "a\n```sql\nSELECT 1;\n```\n```\nno\n```\n```sql\nSELECT 2;\n```\n";
        assert_eq!(sql_blocks(text), ["SELECT 1;\n", "SELECT 2;\n"]);
        let row = table_row("| `lake.x` | `1GB` | how much |\n", "lake.x");
        let expected = vec!["1GB".to_owned(), "how much".to_owned(), String::new()];
        assert_eq!(row, Some(expected));
        assert_eq!(table_row("| `lake.xy` | 1 |", "lake.x"), None);
    }
}
