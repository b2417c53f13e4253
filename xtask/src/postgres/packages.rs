//! PostgreSQL 17 from the binary packages of a later suite, unpacked into a folder of its own.
//!
//! They want a newer C library than the machine has, so the libraries they depend on are unpacked
//! beside them, and the programs are told to use these. Postgres finds its other files relative to
//! its programs. Nothing of the machine is changed.

use super::MAJOR;
use crate::os::{self, User};
use crate::process::Cmd;
use crate::{Context, Result, apt_sources, paths, say};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `tzdata`: Debian's server reads the machine's time zones. The others are for headers that the
/// server's include.
const NEEDED: &[&str] = &[
    "patchelf",
    "tzdata",
    "libkrb5-dev",
    "libssl-dev",
    "libicu-dev",
    "libxml2-dev",
];

fn prefix() -> PathBuf {
    paths::state().join("pg17-packages")
}

/// Where `unpack` puts the server.
pub fn pg_config() -> PathBuf {
    server(&prefix()).join("bin").join("pg_config")
}

fn server(prefix: &Path) -> PathBuf {
    prefix.join("usr/lib/postgresql").join(MAJOR)
}

pub fn unpack(user: Option<&User>) -> Result<()> {
    os::apt_install(NEEDED, "to run a later suite's PostgreSQL 17")?;
    let prefix = prefix();
    apt_sources::in_a_later_suite("deb", |suite| {
        say(&format!(
            "unpacking PostgreSQL {MAJOR} of {} into {}",
            suite.name,
            prefix.display()
        ));
        let archives = suite.dir.join("archives");
        for dir in [&prefix, &archives] {
            if dir.exists() {
                fs::remove_dir_all(dir).context(dir.display())?;
            }
        }
        fs::create_dir_all(archives.join("partial")).context(archives.display())?;
        suite.update()?;
        // As on a machine without any package: with all libraries.
        suite
            .apt_get()
            .arg("-o")
            .arg(format!("Dir::Cache::archives={}", archives.display()))
            .args([
                "install",
                "-y",
                "--download-only",
                "--no-install-recommends",
            ])
            .arg(format!("postgresql-{MAJOR}"))
            .progress("apt-get install --download-only")
            .ok()?;
        // Their dependencies, compilers mostly, are those of building: the machine's serve.
        suite
            .apt_get()
            .arg("download")
            .arg(format!("postgresql-server-dev-{MAJOR}"))
            .arg("libpq-dev")
            .cwd(&archives)
            .progress("apt-get download")
            .ok()?;
        os::make_dir(&prefix, user)?;
        for package in files(&archives)? {
            if package.extension().is_some_and(|e| e == "deb") {
                Cmd::new("dpkg-deb")
                    .arg("-x")
                    .arg(&package)
                    .arg(&prefix)
                    .limit(Duration::from_secs(120))
                    .ok()?;
            }
        }
        let _ = fs::remove_dir_all(&archives);
        relocate(&prefix)
    })
}

/// Makes the programs use the libraries that were unpacked with them.
fn relocate(prefix: &Path) -> Result<()> {
    let libraries = library_dir(&prefix.join("usr/lib"))
        .ok_or("the packages hold no dynamic linker for this machine's architecture")?;
    let linker = files(&libraries)?
        .into_iter()
        .find(|file| name_of(file).starts_with("ld-linux"))
        .ok_or("the packages hold no dynamic linker")?;
    let server = server(prefix);
    let tests = server.join("lib/pgxs/src/test");
    for dir in [
        server.join("bin"),
        tests.join("regress"),
        tests.join("isolation"),
    ] {
        for program in files(&dir)?.iter().filter(|file| is_elf(file)) {
            Cmd::new("patchelf")
                .arg("--set-interpreter")
                .arg(&linker)
                // Not RUNPATH, which what the program loads later would not inherit.
                .args(["--force-rpath", "--set-rpath"])
                .arg(&libraries)
                .arg(program)
                .ok()?;
        }
    }
    // LLVM is half a gigabyte; without the provider, Postgres does without JIT.
    for provider in ["llvmjit.so", "llvmjit_types.bc"] {
        let file = server.join("lib").join(provider);
        if file.exists() {
            fs::remove_file(&file).context(file.display())?;
        }
    }
    Ok(())
}

fn library_dir(lib: &Path) -> Option<PathBuf> {
    let own = format!("{}-linux-gnu", std::env::consts::ARCH);
    Some(lib.join(own)).filter(|dir| dir.is_dir())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .context(dir.display())?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

fn name_of(file: &Path) -> &str {
    file.file_name().and_then(|n| n.to_str()).unwrap_or("")
}

fn is_elf(file: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(file)
        .and_then(|mut f| f.read_exact(&mut magic))
        .is_ok()
        && magic == *b"\x7fELF"
}
