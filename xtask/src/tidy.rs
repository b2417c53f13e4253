//! `test tidy`: formatting, lints, crate edges, module docs, file sizes, links, leaks.
//!
//! Reads the checkout; changes nothing but, if differences are accepted, `docs/functions.md`.

use crate::test::{Run, Tally};
use crate::{Context, Result, cargo, functions, paths, postgres, process};
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;

/// Per folder, what its Cargo.toml must not name (DESIGN section 10). A name that ends with `*`
/// is a prefix.
const EDGES: &[(&str, &[&str])] = &[
    (
        "crash",
        &["pgrx*", "datafusion*", "arrow*", "iceberg", "pg_lake_*"],
    ),
    (
        "plan",
        &["pgrx*", "datafusion*", "arrow*", "iceberg", "pg_lake_*"],
    ),
    (
        "shmem-ring",
        &["pgrx*", "datafusion*", "arrow*", "iceberg", "pg_lake_*"],
    ),
    (
        "iceberg-io",
        &[
            "pgrx*",
            "datafusion*",
            "pg_lake_cache",
            "pg_lake_plan",
            "pg_lake_ring",
            "pg_lake_bgworker",
        ],
    ),
    ("cache", &["pgrx*", "datafusion*", "iceberg", "pg_lake_*"]),
    ("bgworker", &["pgrx*"]),
    (
        "ext",
        &["datafusion*", "iceberg", "pg_lake_iceberg", "pg_lake_cache"],
    ),
    // What it names only makes builds and tests agree on features.
    (
        "xtask",
        &[
            "pg*",
            "arrow*",
            "datafusion*",
            "iceberg*",
            "parquet*",
            "tokio*",
        ],
    ),
];

pub fn suite(run: &mut Run) -> Result<Tally> {
    let mut tally = Tally::default();
    let files = sources()?;
    tally.check("crate edges", crate_edges(&files));
    tally.check("module docs", module_docs(&files));
    tally.check("file sizes", file_sizes(&files));
    tally.check("nothing left to do", nothing_left(&files));
    tally.check("links", links(&files));
    tally.check("no leaks", no_leaks(&files));
    tally.check("functions", functions::check(run.accept));
    let pg = run.postgres()?;
    let log = run.log("fmt");
    let fmt = cargo::command(&pg)
        .args(["fmt", "--all", "--check"])
        .log(&log)
        .limit(run.limit(3))
        .ok();
    tally.check("cargo fmt", fmt.map(drop));
    postgres::ensure_bindgen()?;
    let log = run.log("clippy");
    let clippy = cargo::command(&pg)
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
        .log(&log)
        .limit(run.limit(30))
        .progress("clippy")
        .ok();
    tally.check("clippy", clippy.map(drop));
    Ok(tally)
}

/// A file of the checkout, by its path from the root.
struct File {
    name: String,
    text: String,
}

impl File {
    fn is(&self, extension: &str) -> bool {
        self.name.ends_with(extension)
    }
}

/// Every text file that git knows or would take.
fn sources() -> Result<Vec<File>> {
    let root = paths::repo();
    let listed = process::Cmd::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .cwd(&root)
        .ok();
    let names: Vec<String> = match listed {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        // An exported tree without git.
        Err(_) => walk(&root)?,
    };
    let mut files = Vec::new();
    for name in names {
        // Deleted but not yet committed, or not text.
        if let Ok(text) = fs::read_to_string(root.join(&name)) {
            files.push(File { name, text });
        }
    }
    Ok(files)
}

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).context(dir.display())? {
            let path = entry.context(dir.display())?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    pending.push(path);
                }
            } else if let Ok(relative) = path.strip_prefix(root) {
                names.push(relative.display().to_string());
            }
        }
    }
    Ok(names)
}

fn verdict(wrong: Vec<String>) -> Result<()> {
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n"))
    }
}

fn crate_edges(files: &[File]) -> Result<()> {
    let mut wrong = Vec::new();
    for (folder, forbidden) in EDGES {
        let manifest = format!("{folder}/Cargo.toml");
        let Some(file) = files.iter().find(|file| file.name == manifest) else {
            continue;
        };
        for dependency in dependencies(&file.text) {
            let hit = forbidden.iter().any(|name| match name.strip_suffix('*') {
                Some(prefix) => dependency.starts_with(prefix),
                None => dependency == *name,
            });
            if hit {
                wrong.push(format!("{folder} must not depend on {dependency}"));
            }
        }
    }
    for file in files.iter().filter(|file| file.is(".rs")) {
        if file.name.starts_with("ext/") || file.name.starts_with("xtask/") {
            continue;
        }
        for word in ["pgrx::", "pg_sys::"] {
            if file.text.contains(word) {
                wrong.push(format!("{} names {word}, which only ext may", file.name));
            }
        }
    }
    verdict(wrong)
}

/// The names below `[dependencies]` and `[target.….dependencies]`; those for tests are free.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section == "dependencies"
                || (section.starts_with("target.") && section.ends_with(".dependencies"));
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.push(name.to_owned());
        }
    }
    names
}

fn module_docs(files: &[File]) -> Result<()> {
    let wrong = files
        .iter()
        .filter(|file| file.is(".rs") && !file.text.starts_with("//!"))
        .map(|file| format!("{} does not begin with //!", file.name))
        .collect();
    verdict(wrong)
}

fn file_sizes(files: &[File]) -> Result<()> {
    let wrong = files
        .iter()
        .filter(|file| file.is(".rs") && file.text.lines().count() > LINES_MAX)
        .map(|file| {
            let lines = file.text.lines().count();
            format!("{} has {lines} lines, {LINES_MAX} are allowed", file.name)
        })
        .collect();
    verdict(wrong)
}

fn nothing_left(files: &[File]) -> Result<()> {
    // Put together here, so that this file doesn't find itself.
    let words = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("dbg", "!("),
    ];
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is(".rs")) {
        for (at, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{}: {word}", file.name, at + 1));
            }
        }
    }
    verdict(wrong)
}

/// Links of the documents to files must lead somewhere.
fn links(files: &[File]) -> Result<()> {
    let root = paths::repo();
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is(".md")) {
        let dir = root.join(&file.name);
        let dir = dir.parent().map(Path::to_path_buf).unwrap_or(root.clone());
        for target in link_targets(&file.text) {
            let path = target.split('#').next().unwrap_or_default();
            let outside = path.contains("://") || path.starts_with("mailto:");
            if path.is_empty() || outside {
                continue;
            }
            if !dir.join(path).exists() {
                wrong.push(format!("{}: no file {path}", file.name));
            }
        }
    }
    verdict(wrong)
}

/// What stands in `](…)`, outside code.
fn link_targets(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, tail)) = after.split_once(')') else {
                break;
            };
            targets.push(target.trim().to_owned());
            rest = tail;
        }
    }
    targets
}

/// Nothing of this machine: directories that only it has, hosts of its package mirrors.
fn no_leaks(files: &[File]) -> Result<()> {
    let mut words = vec![
        concat!("/wo", "rk/").to_owned(),
        concat!("/ro", "ot/").to_owned(),
    ];
    words.extend(mirror_hosts());
    let mut wrong = Vec::new();
    for file in files {
        for (at, line) in file.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: {word}", file.name, at + 1));
            }
        }
    }
    verdict(wrong)
}

/// Hosts that cargo's and pip's configuration of this machine name, save the public ones.
fn mirror_hosts() -> Vec<String> {
    const PUBLIC: &[&str] = &[
        "crates.io",
        "pypi.org",
        "pythonhosted.org",
        "github.com",
        "debian.org",
    ];
    let mut texts = Vec::new();
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    for file in [
        cargo_home
            .unwrap_or_else(|| home.join(".cargo"))
            .join("config.toml"),
        home.join(".config/pip/pip.conf"),
        home.join(".pip/pip.conf"),
        home.join(".npmrc"),
        PathBuf::from("/etc/pip.conf"),
    ] {
        texts.extend(fs::read_to_string(file));
    }
    for name in [
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "CARGO_REGISTRIES_CRATES_IO_INDEX",
    ] {
        texts.extend(std::env::var(name));
    }
    let mut hosts = Vec::new();
    for text in texts {
        for after in text.split("://").skip(1) {
            let authority = after
                .split(['/', '"', '\'', ' ', '\n', '?'])
                .next()
                .unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            let host = host.split(':').next().unwrap_or_default();
            // Short names and the loopback would match anything.
            let telling = host.contains('.') && !host.starts_with("127.");
            if telling && !PUBLIC.iter().any(|public| host.ends_with(public)) {
                hosts.push(host.to_owned());
            }
        }
    }
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_and_links_are_read() {
        let manifest = "[package]\nname = \"a\"\n[dependencies]\nserde.workspace = true\n\
                        arrow = { version = \"1\" }\n[target.'cfg(loom)'.dependencies]\n\
                        loom.workspace = true\n[dev-dependencies]\npgrx = \"1\"\n";
        assert_eq!(dependencies(manifest), ["serde", "arrow", "loom"]);
        let text = "see [a](b.md#c) and [d](e.md)\n```\n[x](y)\n```\n";
        assert_eq!(link_targets(text), ["b.md#c", "e.md"]);
    }
}
