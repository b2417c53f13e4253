//! Original tarballs of PostgreSQL 17 in the pools of the archives that this machine's apt uses.
//!
//! Apt's lists name one version a suite, and a mirror may lack it; the pool keeps others.

use super::{MAJOR, source};
use crate::process::Cmd;
use crate::{Context, Result, apt_sources, say};
use std::fs;
use std::path::{Path, PathBuf};

/// Versions with the sums that Debian's `.dsc` files give for them, the newest first.
const KNOWN: &[(&str, &str)] = &[
    (
        "17.11",
        "dd27f2b3c59e73ed14aa3324901242bf69a032a6347805f274e6260322d42979",
    ),
    (
        "17.10",
        "078a03516dcdbdb705fecaf415ea3d13a956c589e46f09fed68a06fb00598c90",
    ),
    (
        "17.9",
        "3b9a62538a8da151e807a3ddb1198e8605f2032544d78f403ae883d27ecf1ee4",
    ),
];

/// An original tarball and its version, such as `17.11`.
#[derive(Debug, PartialEq, Clone)]
pub struct Tarball {
    pub path: PathBuf,
    pub version: String,
}

/// The tarballs of a folder, the newest first.
pub fn present(dir: &Path) -> Vec<Tarball> {
    let mut found: Vec<Tarball> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let version = version_of(path.file_name()?.to_str()?)?.to_owned();
            Some(Tarball { path, version })
        })
        .collect();
    found.sort_by_key(|tarball| std::cmp::Reverse(minor(&tarball.version)));
    found
}

/// The version of an original tarball by its name.
fn version_of(name: &str) -> Option<&str> {
    let start = format!("postgresql-{MAJOR}_");
    let (version, compression) = name
        .strip_prefix(start.as_str())?
        .split_once(".orig.tar.")?;
    let ours = version.split('.').next() == Some(MAJOR) && minor(version) > 0;
    (ours && ["bz2", "gz", "xz"].contains(&compression)).then_some(version)
}

fn minor(version: &str) -> u32 {
    let minor = version.split('.').nth(1);
    minor.and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// The source of just this version: from the folder, or fetched into it.
pub fn exactly(dir: &Path, version: &str) -> Result<Tarball> {
    if let Some(tarball) = present(dir).into_iter().find(|t| t.version == version) {
        return Ok(tarball);
    }
    let Some((_, sum)) = KNOWN.iter().find(|(known, _)| *known == version) else {
        return Err(format!("no sum is known for PostgreSQL {version}'s source"));
    };
    fetch(dir, version, sum)
}

/// The newest known version that a pool has.
pub fn newest(dir: &Path) -> Result<Tarball> {
    let mut last = String::new();
    for (version, sum) in KNOWN {
        match fetch(dir, version, sum) {
            Ok(tarball) => return Ok(tarball),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn fetch(dir: &Path, version: &str, sum: &str) -> Result<Tarball> {
    let name = format!("postgresql-{MAJOR}_{version}.orig.tar.bz2");
    let path = dir.join(&name);
    let mut last = "apt's sources name no Debian or Ubuntu archive".to_owned();
    for archive in apt_sources::archives() {
        let uri = archive.uri.trim_end_matches('/');
        let url = format!("{uri}/pool/main/p/postgresql-{MAJOR}/{name}");
        let staged = dir.join(format!("{name}.new-{}", std::process::id()));
        say(&format!("fetching {url}"));
        let fetched = source::fetch(&url, &staged)
            .map_err(|error| format!("{url}: {error}"))
            .and_then(|()| verify(&staged, sum))
            .and_then(|()| fs::rename(&staged, &path).context(path.display()));
        match fetched {
            Ok(()) => {
                let version = version.to_owned();
                return Ok(Tarball { path, version });
            }
            Err(error) => {
                let _ = fs::remove_file(&staged);
                last = error;
            }
        }
    }
    Err(last)
}

fn verify(file: &Path, sum: &str) -> Result<()> {
    let printed = Cmd::new("sha256sum").arg(file).ok()?;
    if printed.split_whitespace().next() == Some(sum) {
        Ok(())
    } else {
        Err(format!(
            "{} is not what Debian published: its SHA-256 is not {sum}",
            file.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tarballs_tell_versions() {
        let name = "postgresql-17_17.11.orig.tar.bz2";
        assert_eq!(version_of(name), Some("17.11"));
        for other in [
            "postgresql-17_17.11.orig.tar.bz2.asc",
            "postgresql-17_17.11.orig.tar.bz2.new-4711",
            "postgresql-17_17.11-1.debian.tar.xz",
            "postgresql-18_18.1.orig.tar.bz2",
            "build.log",
        ] {
            assert_eq!(version_of(other), None, "{other}");
        }
        assert!(minor("17.10") > minor("17.9"));
    }

    #[test]
    fn known_versions_are_ordered_and_sums_are_whole() {
        assert!(
            KNOWN
                .windows(2)
                .all(|pair| minor(pair[0].0) > minor(pair[1].0))
        );
        assert!(KNOWN.iter().all(|(_, sum)| sum.len() == 64));
    }
}
