//! PostgreSQL 17's source, and building it: from the distribution's source package, from the pool
//! that it is in, or from upstream's tarball.

use super::pool::{self, Tarball};
use super::{MAJOR, first_line};
use crate::process::Cmd;
use crate::{Context, Result, apt_sources, os, paths, say};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Upstream's release for machines that have neither the package nor its source.
const UPSTREAM: &str = "17.6";

const BUILD_PACKAGES: &[&str] = &[
    "build-essential",
    "bison",
    "flex",
    "perl",
    "pkg-config",
    "libreadline-dev",
    "zlib1g-dev",
    "libicu-dev",
    "liblz4-dev",
    "libzstd-dev",
    "libssl-dev",
    "dpkg-dev",
    "xz-utils",
    "bzip2",
];

pub fn build() -> Result<()> {
    os::apt_install(BUILD_PACKAGES, "to build PostgreSQL 17 from source")?;
    let src = paths::state().join("src");
    fs::create_dir_all(&src).context(src.display())?;
    let tarball = any(&src)?.path;
    let tree = src.join("pg");
    if tree.exists() {
        fs::remove_dir_all(&tree).context(tree.display())?;
    }
    fs::create_dir_all(&tree).context(tree.display())?;
    let log = src.join("build.log");
    let _ = fs::remove_file(&log);
    let prefix = paths::built_prefix();
    say(&format!(
        "building PostgreSQL from {} into {} (a few minutes; log: {})",
        tarball.display(),
        prefix.display(),
        log.display()
    ));
    let limit = Duration::from_secs(3600);
    Cmd::new("tar")
        .arg("xf")
        .arg(&tarball)
        .arg("-C")
        .arg(&tree)
        .arg("--strip-components=1")
        .log(&log)
        .ok()?;
    Cmd::new("./configure")
        .arg(format!("--prefix={}", prefix.display()))
        .args(["--with-icu", "--with-lz4", "--with-zstd", "--with-openssl"])
        .cwd(&tree)
        .limit(limit)
        .log(&log)
        .progress("configure")
        .ok()?;
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    Cmd::new("make")
        .arg(format!("-j{jobs}"))
        .arg("world-bin")
        .cwd(&tree)
        .limit(limit)
        .log(&log)
        .progress("make")
        .ok()?;
    Cmd::new("make")
        .arg("install-world-bin")
        .cwd(&tree)
        .limit(limit)
        .log(&log)
        .progress("make install")
        .ok()?;
    let _ = fs::remove_dir_all(&tree);
    Ok(())
}

/// The source of a server: of its own version, if that can be had, or of another one.
pub fn of_server(version: &str) -> Result<Tarball> {
    let src = paths::state().join("src");
    fs::create_dir_all(&src).context(src.display())?;
    if let Ok(tarball) = pool::exactly(&src, version) {
        return Ok(tarball);
    }
    match pool::present(&src).into_iter().next() {
        Some(tarball) => Ok(tarball),
        // One request for a file, before apt fetches lists to look for another one.
        None => pool::newest(&src).or_else(|_| any(&src)),
    }
}

/// Whatever is there, or the newest that can be had.
fn any(src: &Path) -> Result<Tarball> {
    if let Some(tarball) = pool::present(src).into_iter().next() {
        return Ok(tarball);
    }
    let package = match distribution_source(src) {
        Ok(tarball) => return Ok(tarball),
        Err(error) => error,
    };
    say(&format!("no source package: {}", first_line(&package)));
    let pool = match pool::newest(src) {
        Ok(tarball) => return Ok(tarball),
        Err(error) => error,
    };
    say(&format!("nothing in the pool: {}", first_line(&pool)));
    upstream_tarball(src).map_err(|upstream| {
        format!(
            "From the distribution's source: {package}\nFrom the pool: {pool}\n\
             From upstream: {upstream}"
        )
    })
}

/// The original tarball of the distribution's source package, from whatever mirror this
/// machine's apt uses; a suite later than the machine's is fine, since only the source is taken.
fn distribution_source(src: &Path) -> Result<Tarball> {
    apt_sources::in_a_later_suite("deb-src", |suite| {
        say(&format!(
            "looking for postgresql-{MAJOR}'s source package in {}",
            suite.name
        ));
        suite.update()?;
        suite
            .apt_get()
            .args(["source", "--download-only"])
            .arg(format!("postgresql-{MAJOR}"))
            .cwd(src)
            .progress("apt-get source")
            .ok()?;
        let fetched = pool::present(src).into_iter().next();
        fetched.ok_or_else(|| "apt-get source fetched no original tarball".to_owned())
    })
}

fn upstream_tarball(src: &Path) -> Result<Tarball> {
    let name = format!("postgresql-{UPSTREAM}.tar.bz2");
    let url = format!("https://ftp.postgresql.org/pub/source/v{UPSTREAM}/{name}");
    let target = src.join(&name);
    say(&format!("fetching {url}"));
    fetch(&url, &target)?;
    let sums = src.join(format!("{name}.sha256"));
    fetch(&format!("{url}.sha256"), &sums)?;
    Cmd::new("sha256sum")
        .arg("--check")
        .arg(&sums)
        .cwd(src)
        .ok()
        .map_err(|error| format!("{name} is not what upstream published: {error}"))?;
    Ok(Tarball {
        path: target,
        version: UPSTREAM.to_owned(),
    })
}

pub(super) fn fetch(url: &str, target: &Path) -> Result<()> {
    let limit = Duration::from_secs(600);
    let command = if os::on_path("curl").is_some() {
        Cmd::new("curl")
            .args(["-fsSL", "--connect-timeout", "15", "-o"])
            .arg(target)
            .arg(url)
    } else if os::on_path("wget").is_some() {
        Cmd::new("wget")
            .args(["-q", "--connect-timeout=15", "--tries=2", "-O"])
            .arg(target)
            .arg(url)
    } else {
        return Err("neither curl nor wget is installed".to_owned());
    };
    command.limit(limit).progress("fetching").ok().map(drop)
}
