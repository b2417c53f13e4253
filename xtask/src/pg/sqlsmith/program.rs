//! Where sqlsmith is: on the machine, or from its distribution's packages. Without root they are unpacked into a folder
//! of their own.

use crate::process::Cmd;
use crate::{Context, Result, os, paths, say};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const PACKAGE: &str = "sqlsmith";

/// Every machine that runs Postgres has them.
const PRESENT: &[&str] = &["libc6", "libgcc-s1", "libstdc++6"];

pub struct Program {
    file: PathBuf,
    /// What it is linked with, if that is not where the machine's libraries are.
    libraries: Option<PathBuf>,
}

impl Program {
    pub fn command(&self) -> Cmd {
        let command = Cmd::new(&self.file);
        match &self.libraries {
            Some(libraries) => command.env("LD_LIBRARY_PATH", libraries),
            None => command,
        }
    }
}

/// An error says why there is none.
pub fn find() -> Result<Program> {
    if let Some(program) = on_path() {
        return Ok(program);
    }
    if os::has_apt() && os::can_be_root() {
        os::apt_install(&[PACKAGE], "random statements")?;
        return on_path().ok_or_else(|| format!("the package {PACKAGE} has no program"));
    }
    if os::apt_has(PACKAGE) {
        return unpacked();
    }
    Err("sqlsmith is not installed, and apt has no package of it".to_owned())
}

fn on_path() -> Option<Program> {
    os::on_path(PACKAGE).map(|file| Program {
        file,
        libraries: None,
    })
}

/// From packages of the machine's own suite.
fn unpacked() -> Result<Program> {
    let prefix = paths::state().join(PACKAGE);
    let libraries = prefix
        .join("usr/lib")
        .join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let program = Program {
        file: prefix.join("usr/bin").join(PACKAGE),
        libraries: Some(libraries),
    };
    if program.file.is_file() {
        return Ok(program);
    }
    say(&format!("unpacking {PACKAGE} into {}", prefix.display()));
    let archives = prefix.join("archives");
    fs::create_dir_all(&archives).context(archives.display())?;
    Cmd::new("apt-get")
        .args(["download", PACKAGE])
        .args(dependencies()?)
        .cwd(&archives)
        .limit(Duration::from_secs(300))
        .progress("apt-get download")
        .ok()?;
    for entry in fs::read_dir(&archives).context(archives.display())? {
        let file = entry.context(archives.display())?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            Cmd::new("dpkg-deb")
                .arg("-x")
                .arg(&file)
                .arg(&prefix)
                .limit(Duration::from_secs(120))
                .ok()?;
        }
    }
    if program.file.is_file() {
        Ok(program)
    } else {
        Err(format!("the package {PACKAGE} has no program"))
    }
}

/// The libraries that the package names.
fn dependencies() -> Result<Vec<String>> {
    let text = Cmd::new("apt-cache").args(["depends", PACKAGE]).ok()?;
    let named = text.lines().filter_map(|line| {
        let (kind, name) = line.trim().split_once(": ")?;
        (kind == "Depends" && !PRESENT.contains(&name)).then(|| name.to_owned())
    });
    Ok(named.collect())
}
