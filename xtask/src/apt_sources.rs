//! Which archives this machine's apt uses: one-line `*.list` and deb822 `*.sources` files.
//!
//! Only read, to ask the same mirror for packages of a later suite.

use crate::process::Cmd;
use crate::{Context, Result, os, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A distribution's main archive.
#[derive(Debug, PartialEq, Clone)]
pub struct Archive {
    pub uri: String,
    pub signed_by: Option<String>,
}

impl Archive {
    /// Suites that carry PostgreSQL 17, the most likely first.
    pub fn suites(&self) -> &'static [&'static str] {
        if self.uri.trim_end_matches('/').ends_with("/ubuntu") {
            &["plucky", "questing"]
        } else {
            &["trixie", "sid"]
        }
    }
}

/// A suite that is not the machine's, with package lists of its own below the state directory.
pub struct Suite {
    pub name: &'static str,
    /// For whatever belongs to it.
    pub dir: PathBuf,
}

impl Suite {
    /// `kind` is `deb` or `deb-src`.
    fn of(archive: &Archive, name: &'static str, kind: &str) -> Result<Suite> {
        let dir = paths::state().join("apt").join(format!("{name}-{kind}"));
        let lists = dir.join("lists").join("partial");
        fs::create_dir_all(&lists).context(lists.display())?;
        let signed = match &archive.signed_by {
            Some(key) => format!("[signed-by={key}] "),
            None => String::new(),
        };
        let source = format!("{kind} {signed}{} {name} main\n", archive.uri);
        let suite = Suite { name, dir };
        fs::write(suite.list(), source).context(suite.list().display())?;
        fs::write(suite.status(), "").context(suite.status().display())?;
        Ok(suite)
    }

    fn list(&self) -> PathBuf {
        self.dir.join("source.list")
    }

    /// An empty list of installed packages.
    fn status(&self) -> PathBuf {
        self.dir.join("status")
    }

    /// `apt-get` that knows this suite alone, and no installed package.
    pub fn apt_get(&self) -> Cmd {
        let at = |option: &str, path: &Path| format!("Dir::{option}={}", path.display());
        Cmd::new("apt-get")
            .arg("-o")
            .arg(at("Etc::sourcelist", &self.list()))
            .args(["-o", "Dir::Etc::sourceparts=-"])
            .arg("-o")
            .arg(at("State", &self.dir))
            .arg("-o")
            .arg(at("State::status", &self.status()))
            .args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User="])
            .cwd(&self.dir)
            .limit(Duration::from_secs(900))
            .log(self.dir.join("apt.log"))
    }

    pub fn update(&self) -> Result<()> {
        self.apt_get()
            .arg("update")
            .progress("apt-get update")
            .ok()
            .map(drop)
    }
}

/// Tries later suites of this machine's archives one after another; the last error, if all fail.
pub fn in_a_later_suite<T>(kind: &str, get: impl Fn(&Suite) -> Result<T>) -> Result<T> {
    if !os::has_apt() {
        return Err("no apt on this machine".to_owned());
    }
    let mut last = "apt's sources name no Debian or Ubuntu archive".to_owned();
    for archive in archives() {
        for name in archive.suites() {
            match Suite::of(&archive, name, kind).and_then(|suite| get(&suite)) {
                Ok(found) => return Ok(found),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

/// The main archives that apt's sources name.
pub fn archives() -> Vec<Archive> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut parts: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for archive in parse(&file, &text) {
            if !found.contains(&archive) {
                found.push(archive);
            }
        }
    }
    found
}

fn parse(file: &Path, text: &str) -> Vec<Archive> {
    let all = match file.extension().and_then(|e| e.to_str()) {
        Some("sources") => parse_deb822(text),
        Some("list") => parse_list(text),
        _ => Vec::new(),
    };
    all.into_iter().filter(|a| is_main(&a.uri)).collect()
}

/// The archive proper, not its security sibling and not somebody else's packages.
fn is_main(uri: &str) -> bool {
    let uri = uri.trim_end_matches('/');
    uri.ends_with("/debian")
        || uri.ends_with("/ubuntu")
        || (uri.contains("/archive/debian/") && !uri.contains("security"))
}

fn parse_list(text: &str) -> Vec<Archive> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb-src ")
            .or_else(|| line.strip_prefix("deb "))
        else {
            continue;
        };
        let rest = rest.trim();
        let (options, rest) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((options, rest)) => (options, rest.trim()),
            None => ("", rest),
        };
        let Some(uri) = rest.split_whitespace().next() else {
            continue;
        };
        let signed_by = options
            .split_whitespace()
            .find_map(|o| o.strip_prefix("signed-by="))
            .map(str::to_owned);
        found.push(Archive {
            uri: uri.to_owned(),
            signed_by,
        });
    }
    found
}

fn parse_deb822(text: &str) -> Vec<Archive> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field = |name: &str| {
            stanza.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
        if field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no")) {
            continue;
        }
        // A key that is given inline spans lines: only a file's name is taken over.
        let signed_by = field("Signed-By").filter(|value| value.starts_with('/'));
        for uri in field("URIs").unwrap_or_default().split_whitespace() {
            found.push(Archive {
                uri: uri.to_owned(),
                signed_by: signed_by.clone(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_are_read() {
        let list = "# deb http://x.example/debian old main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main\n\
                    deb http://m.example/debian-security bookworm-security main\n\
                    deb https://o.example/apt other main\n";
        let expected = vec![Archive {
            uri: "http://m.example/debian".to_owned(),
            signed_by: Some("/k.gpg".to_owned()),
        }];
        assert_eq!(parse(Path::new("a.list"), list), expected);

        let sources = "Types: deb\n# a comment\nURIs: http://m.example/debian\n\
                       Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
                       Types: deb\nURIs: http://m.example/debian-security\nSuites: x\n\n\
                       Enabled: no\nURIs: http://n.example/debian\n";
        assert_eq!(parse(Path::new("a.sources"), sources), expected);
    }
}
