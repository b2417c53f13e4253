//! Finding PostgreSQL 17 with its server headers, or building it.
//!
//! In this order: what the caller named, `pg_config` on PATH, the distribution's place, what an
//! earlier run made, the distribution's packages, its source package (of a later suite, if need
//! be), upstream's tarball, a later suite's packages in a folder of their own. A place counts only
//! if we can install an extension into it and the server's user can run it.

mod packages;
mod pool;
mod source;

pub use pool::Tarball;
pub use source::of_server as source_of_server;

use crate::os::{self, User};
use crate::process::Cmd;
use crate::{Result, paths, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAJOR: &str = "17";
const BINDGEN_PACKAGES: &[&str] = &["build-essential", "pkg-config", "clang", "libclang-dev"];

/// An installed PostgreSQL 17.
#[derive(Clone)]
pub struct Postgres {
    pub pg_config: PathBuf,
    pub bindir: PathBuf,
    pub pkglibdir: PathBuf,
    pub sharedir: PathBuf,
    pub version: String,
    /// `…/pgxs/src/test`, which holds the regression drivers where they are installed.
    test_tools: Option<PathBuf>,
}

impl Postgres {
    /// Ask a `pg_config`; an error says why it can't be used.
    pub fn ask(pg_config: &Path, user: Option<&User>) -> Result<Postgres> {
        let get = |what: &str| -> Result<String> {
            let text = Cmd::new(pg_config)
                .arg(what)
                .limit(Duration::from_secs(20))
                .ok()?;
            Ok(text.trim().to_owned())
        };
        let version = get("--version")?;
        let number = version.trim_start_matches("PostgreSQL ").to_owned();
        if number.split('.').next() != Some(MAJOR) {
            return Err(format!("it is {version}, not PostgreSQL {MAJOR}"));
        }
        let headers = PathBuf::from(get("--includedir-server")?);
        if !headers.join("postgres.h").is_file() {
            return Err(format!("no server headers in {}", headers.display()));
        }
        let bindir = PathBuf::from(get("--bindir")?);
        for program in ["postgres", "initdb", "pg_ctl", "psql"] {
            if !bindir.join(program).is_file() {
                return Err(format!("no {program} in {}", bindir.display()));
            }
        }
        Cmd::new(bindir.join("postgres"))
            .arg("--version")
            .user(user)
            .cwd("/")
            .limit(Duration::from_secs(20))
            .ok()
            .map_err(|error| format!("the server's user can't run it: {error}"))?;
        let pkglibdir = PathBuf::from(get("--pkglibdir")?);
        let sharedir = PathBuf::from(get("--sharedir")?);
        if !writable(&pkglibdir) && !os::can_be_root() {
            return Err(format!("{} can't be written to", pkglibdir.display()));
        }
        let test_tools = get("--pgxs").ok().and_then(|makefile| {
            let src = Path::new(&makefile).parent()?.parent()?;
            Some(src.join("test")).filter(|dir| dir.is_dir())
        });
        Ok(Postgres {
            pg_config: pg_config.to_owned(),
            bindir,
            pkglibdir,
            sharedir,
            version: number,
            test_tools,
        })
    }

    pub fn bin(&self, program: &str) -> PathBuf {
        self.bindir.join(program)
    }

    /// `pg_regress` or `pg_isolation_regress`, where installed.
    pub fn test_tool(&self, program: &str) -> Option<PathBuf> {
        let dir = self.test_tools.as_ref()?;
        ["regress", "isolation"]
            .iter()
            .map(|sub| dir.join(sub).join(program))
            .find(|file| file.is_file())
    }
}

fn writable(dir: &Path) -> bool {
    let probe = dir.join(format!(".pg_lake-probe-{}", std::process::id()));
    let ok = fs::write(&probe, b"").is_ok();
    let _ = fs::remove_file(&probe);
    ok
}

/// Find PostgreSQL 17, or make one.
pub fn find_or_build(named: Option<&str>) -> Result<Postgres> {
    let user = os::server_user()?;
    let user = user.as_ref();
    os::prepare_state(&paths::state(), user)?;
    let named = named
        .map(str::to_owned)
        .or_else(|| std::env::var("PG_CONFIG").ok().filter(|v| !v.is_empty()));
    if let Some(named) = named {
        return Postgres::ask(Path::new(&named), user).map_err(|error| format!("{named}: {error}"));
    }
    let mut places = os::all_on_path("pg_config");
    let packaged = PathBuf::from(format!("/usr/lib/postgresql/{MAJOR}/bin/pg_config"));
    places.push(packaged.clone());
    let built = paths::built_prefix().join("bin").join("pg_config");
    places.push(built.clone());
    places.push(packages::pg_config());
    let mut refused = Vec::new();
    for place in places.iter().filter(|place| place.is_file()) {
        match Postgres::ask(place, user) {
            Ok(found) => {
                say(&format!(
                    "PostgreSQL {} in {}",
                    found.version,
                    found.bindir.display()
                ));
                return Ok(found);
            }
            Err(why) => refused.push(format!("{}: {}", place.display(), first_line(&why))),
        }
    }
    for line in &refused {
        say(&format!("not usable: {line}"));
    }
    let server = format!("postgresql-{MAJOR}");
    let headers = format!("postgresql-server-dev-{MAJOR}");
    if os::can_be_root() && os::apt_has(&server) && os::apt_has(&headers) {
        os::apt_install(&[&server, &headers], "the server that the extension is for")?;
        return Postgres::ask(&packaged, user);
    }
    match source::build() {
        Ok(()) => Postgres::ask(&built, user),
        Err(from_source) => {
            say(&format!("no source: {}", first_line(&from_source)));
            packages::unpack(user).map_err(|error| {
                format!(
                    "PostgreSQL {MAJOR} was not found and can't be fetched.\n{from_source}\n\
                     From a later suite's packages: {error}\n\
                     Install it and set PG_CONFIG to its pg_config."
                )
            })?;
            Postgres::ask(&packages::pg_config(), user)
        }
    }
}

/// What `cargo build -p pg_lake` needs besides Postgres.
pub fn ensure_bindgen() -> Result<()> {
    os::apt_install(
        BINDGEN_PACKAGES,
        "pgrx reads the server's headers with libclang",
    )
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
