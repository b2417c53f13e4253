//! Building the extension and putting it into a Postgres; the archive that `package` makes.

use crate::cargo;
use crate::postgres::{self, Postgres};
use crate::process::Cmd;
use crate::{Context, Result, os, paths, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The control file and the scripts, by name.
fn sql_files() -> Result<Vec<PathBuf>> {
    let dir = paths::repo().join("sql");
    let mut files = Vec::new();
    for entry in fs::read_dir(&dir).context(dir.display())? {
        let path = entry.context(dir.display())?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if name == "pg_lake.control" || (name.starts_with("pg_lake--") && name.ends_with(".sql")) {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no pg_lake.control in {}", dir.display()));
    }
    Ok(files)
}

/// `cargo build -p pg_lake` against this Postgres.
pub fn build(pg: &Postgres, log: Option<&Path>) -> Result<PathBuf> {
    postgres::ensure_bindgen()?;
    say("building the extension (the first time compiles its dependencies: some minutes)");
    let command = cargo::command(pg)
        .args(["build", "--workspace"])
        .limit(Duration::from_secs(5400));
    let command = match log {
        Some(log) => command.log(log).progress("cargo build -p pg_lake"),
        None => command.show(),
    };
    command
        .ok()
        .map_err(|error| format!("the extension does not build: {error}"))?;
    let lib = cargo::lib_file();
    if lib.is_file() {
        Ok(lib)
    } else {
        Err(format!("cargo made no {}", lib.display()))
    }
}

/// Copy library, control file and scripts to where this Postgres looks for them.
pub fn install(pg: &Postgres, lib: &Path) -> Result<()> {
    let mut changed = place(lib, &pg.pkglibdir.join("pg_lake.so"), 0o755)?;
    let dir = pg.sharedir.join("extension");
    for file in sql_files()? {
        let Some(name) = file.file_name() else {
            continue;
        };
        changed |= place(&file, &dir.join(name), 0o644)?;
    }
    if changed {
        say(&format!("installed into {}", pg.pkglibdir.display()));
    }
    Ok(())
}

/// Put a file in place by a rename: servers that have the old library mapped keep it. Answers
/// whether anything changed.
fn place(from: &Path, to: &Path, mode: u32) -> Result<bool> {
    let new = fs::read(from).context(from.display())?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    let mut staged = to.as_os_str().to_owned();
    staged.push(format!(".new-{}", std::process::id()));
    let staged = PathBuf::from(staged);
    if fs::write(&staged, &new).is_ok() {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&staged, fs::Permissions::from_mode(mode)).context(staged.display())?;
        fs::rename(&staged, to).context(to.display())?;
    } else {
        // The distribution's directories belong to root.
        os::as_root("install")?
            .arg("-m")
            .arg(format!("{mode:o}"))
            .arg(from)
            .arg(&staged)
            .ok()?;
        os::as_root("mv")?.arg("-f").arg(&staged).arg(to).ok()?;
    }
    Ok(true)
}

/// One archive with what a Postgres 17 of this machine's kind needs. Prints its path on stdout.
pub fn package() -> Result<()> {
    let pg = postgres::find_or_build(None)?;
    let lib = build(&pg, None)?;
    let name = format!(
        "pg_lake-{}-pg17-{}-{}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let out = paths::target().join("package");
    let dir = out.join(&name);
    if dir.exists() {
        fs::remove_dir_all(&dir).context(dir.display())?;
    }
    for sub in ["lib", "extension"] {
        let sub = dir.join(sub);
        fs::create_dir_all(&sub).context(sub.display())?;
    }
    let copy = |from: &Path, to: PathBuf| -> Result<()> {
        fs::copy(from, &to).context(from.display())?;
        Ok(())
    };
    let so = dir.join("lib").join("pg_lake.so");
    copy(&lib, so.clone())?;
    if os::on_path("strip").is_some() {
        Cmd::new("strip").arg("--strip-debug").arg(&so).ok()?;
    }
    for file in sql_files()? {
        if let Some(name) = file.file_name() {
            copy(&file, dir.join("extension").join(name))?;
        }
    }
    for name in ["LICENSE", "README.md"] {
        copy(&paths::repo().join(name), dir.join(name))?;
    }
    let archive = out.join(format!("{name}.tar.gz"));
    Cmd::new("tar")
        .arg("czf")
        .arg(&archive)
        .arg("-C")
        .arg(&out)
        .arg(&name)
        .ok()?;
    println!("{}", archive.display());
    Ok(())
}
