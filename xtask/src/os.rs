//! The machine: users, and packages through apt.
//!
//! Postgres refuses to run as root. Run as root, xtask gives servers and clients to an ordinary
//! user; otherwise everything runs as whoever called it.

use crate::process::Cmd;
use crate::{Context, Result, say};
use std::fs;
use std::io::{BufRead, IsTerminal};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An account to run processes as.
#[derive(Clone)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

fn my_uid() -> u32 {
    fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or(1)
}

pub fn is_root() -> bool {
    my_uid() == 0
}

fn look_up(name: &str) -> Option<User> {
    let line = Cmd::new("getent")
        .args(["passwd", name])
        .ok()
        .or_else(|_| fs::read_to_string("/etc/passwd").map_err(|error| error.to_string()))
        .ok()?;
    parse_passwd(&line, name)
}

fn parse_passwd(text: &str, name: &str) -> Option<User> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    let fields: Vec<&str> = line.split(':').collect();
    Some(User {
        name: name.to_owned(),
        uid: fields.get(2)?.parse().ok()?,
        gid: fields.get(3)?.parse().ok()?,
        home: PathBuf::from(fields.get(5)?),
    })
}

/// Who runs the servers: `None` is whoever called us. Called by root, it is `postgres`, or
/// `pglake`, which is created.
pub fn server_user() -> Result<Option<User>> {
    if !is_root() {
        return Ok(None);
    }
    for name in ["postgres", "pglake"] {
        if let Some(user) = look_up(name) {
            return Ok(Some(user));
        }
    }
    say("creating the user pglake: Postgres refuses to run as root");
    Cmd::new("useradd")
        .args(["--system", "--create-home", "--user-group", "pglake"])
        .ok()?;
    look_up("pglake")
        .map(Some)
        .ok_or_else(|| "the user pglake was created but can't be found".to_owned())
}

/// Give a path, and what is below it, to the server's user.
pub fn give(path: &Path, user: Option<&User>) -> Result<()> {
    let Some(user) = user else { return Ok(()) };
    let meta = fs::symlink_metadata(path).context(path.display())?;
    std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)).context(path.display())?;
    if meta.is_dir() {
        for entry in fs::read_dir(path).context(path.display())? {
            give(&entry.context(path.display())?.path(), Some(user))?;
        }
    }
    Ok(())
}

/// Create a directory (with its parents) that belongs to the server's user.
pub fn make_dir(path: &Path, user: Option<&User>) -> Result<()> {
    fs::create_dir_all(path).context(path.display())?;
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid)).context(path.display())?;
    }
    Ok(())
}

/// Write a file that the server's user owns.
pub fn write_file(path: &Path, text: &str, user: Option<&User>) -> Result<()> {
    fs::write(path, text).context(path.display())?;
    give(path, user)
}

/// Copy a folder's files (not links) to a folder that the server's user can read and write.
pub fn copy_tree(from: &Path, to: &Path, user: Option<&User>) -> Result<()> {
    make_dir(to, user)?;
    for entry in fs::read_dir(from).context(from.display())? {
        let entry = entry.context(from.display())?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type().context(entry.path().display())?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target, user)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target).context(entry.path().display())?;
            give(&target, user)?;
        }
    }
    Ok(())
}

/// Create the state directory, and see that the server's user can reach it.
pub fn prepare_state(dir: &Path, user: Option<&User>) -> Result<()> {
    if !dir.exists() {
        fs::create_dir_all(dir).context(dir.display())?;
        if is_root() {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).context(dir.display())?;
        }
    }
    if let Some(user) = user
        && Cmd::new("test")
            .arg("-x")
            .arg(dir)
            .user(Some(user))
            .cwd("/")
            .ok()
            .is_err()
    {
        return Err(format!(
            "the user {} can't enter {}: set PG_LAKE_HOME to a directory that it can reach",
            user.name,
            dir.display()
        ));
    }
    Ok(())
}

/// The first program of that name on PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    all_on_path(program).into_iter().next()
}

pub fn all_on_path(program: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .filter(|file| file.is_file())
        .collect()
}

/// How to become root for a package: directly, or by a sudo that asks no password.
fn privileged(program: &str) -> Option<Cmd> {
    if is_root() {
        return Some(Cmd::new(program));
    }
    Cmd::new("sudo").args(["-n", "true"]).ok().ok()?;
    Some(Cmd::new("sudo").args(["-n", program]))
}

/// A program run with root's rights, where we can get them.
pub fn as_root(program: &str) -> Result<Cmd> {
    privileged(program).ok_or_else(|| {
        format!("{program} needs root's rights here, and sudo asks for a password or is missing")
    })
}

pub fn can_be_root() -> bool {
    privileged("true").is_some()
}

pub fn has_apt() -> bool {
    on_path("apt-get").is_some() && on_path("dpkg-query").is_some()
}

fn installed(package: &str) -> bool {
    Cmd::new("dpkg-query")
        .args(["-W", "-f", "${Status}", package])
        .ok()
        .is_ok_and(|status| status.contains("install ok installed"))
}

/// Whether apt's lists have a version of this package.
pub fn apt_has(package: &str) -> bool {
    has_apt()
        && Cmd::new("apt-cache")
            .args(["policy", package])
            .ok()
            .is_ok_and(|text| {
                text.lines()
                    .filter_map(|line| line.trim().strip_prefix("Candidate:"))
                    .any(|version| version.trim() != "(none)")
            })
}

/// Install what is missing of these Debian packages, and say why. On a terminal, ask first.
pub fn apt_install(packages: &[&str], why: &str) -> Result<()> {
    if !has_apt() {
        say(&format!(
            "no apt here: expecting the equivalents of {} to be installed ({why})",
            packages.join(" ")
        ));
        return Ok(());
    }
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    say(&format!("installing {} ({why})", missing.join(" ")));
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        eprint!("    go on? [Y/n] ");
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .context("reading the answer")?;
        if answer.trim().to_lowercase().starts_with('n') {
            return Err(format!("not installed: {}", missing.join(" ")));
        }
    }
    let log = crate::paths::state().join("apt").join("install.log");
    let install = |retry: bool| -> Result<String> {
        let label = if retry {
            "apt-get install, again"
        } else {
            "apt-get install"
        };
        as_root("apt-get")?
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .limit(Duration::from_secs(1800))
            .log(&log)
            .progress(label)
            .ok()
    };
    let by_hand = |error: String| {
        format!(
            "{error}\ninstall by hand: apt-get install {}",
            missing.join(" ")
        )
    };
    as_root("apt-get").map_err(by_hand)?;
    if install(false).is_ok() {
        return Ok(());
    }
    // The package lists are empty or stale on a fresh machine.
    as_root("apt-get")?
        .arg("update")
        .limit(Duration::from_secs(600))
        .log(&log)
        .progress("apt-get update")
        .ok()?;
    install(true).map(drop).map_err(by_hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_are_parsed() {
        let text = "root:x:0:0:root:/:/bin/sh\npglake:x:101:104:a,b:/var/lib/x:/bin/bash\n";
        let user = parse_passwd(text, "pglake").expect("listed");
        assert_eq!((user.uid, user.gid), (101, 104));
        assert_eq!(user.home, PathBuf::from("/var/lib/x"));
        assert!(parse_passwd(text, "pg").is_none());
    }
}
