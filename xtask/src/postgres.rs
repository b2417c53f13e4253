//! Finding PostgreSQL 17 with its server headers, or building it.
//!
//! In this order: what the caller named, `pg_config` on PATH, the distribution's place, what an
//! earlier run built, the distribution's packages, its source package (of a later suite, if need
//! be), upstream's tarball. A place counts only if we can install an extension into it and the
//! server's user can run it.

use crate::os::{self, User};
use crate::process::Cmd;
use crate::{Context, Result, apt_sources, paths, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MAJOR: &str = "17";
/// Upstream's release for machines that have neither the package nor its source.
const UPSTREAM: &str = "17.6";

/// What building Postgres and the extension takes; clang is there for pgrx's bindgen.
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
    build()?;
    Postgres::ask(&built, user)
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

fn build() -> Result<()> {
    os::apt_install(BUILD_PACKAGES, "to build PostgreSQL 17 from source")?;
    let src = paths::state().join("src");
    fs::create_dir_all(&src).context(src.display())?;
    let tarball = match distribution_source(&src) {
        Ok(tarball) => tarball,
        Err(error) => {
            say(&format!("no source package: {}", first_line(&error)));
            upstream_tarball(&src).map_err(|second| {
                format!(
                    "PostgreSQL {MAJOR} was not found and can't be fetched.\n\
                     From the distribution: {error}\nFrom upstream: {second}\n\
                     Install it and set PG_CONFIG to its pg_config."
                )
            })?
        }
    };
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

/// The original tarball of the distribution's source package, from whatever mirror this
/// machine's apt uses; a suite later than the machine's is fine, since only the source is taken.
fn distribution_source(src: &Path) -> Result<PathBuf> {
    if !os::has_apt() {
        return Err("no apt on this machine".to_owned());
    }
    if let Some(tarball) = orig_tarball(src) {
        return Ok(tarball);
    }
    let archives = apt_sources::archives();
    if archives.is_empty() {
        return Err("apt's sources name no Debian or Ubuntu archive".to_owned());
    }
    let apt = paths::state().join("apt");
    let lists = apt.join("lists");
    fs::create_dir_all(lists.join("partial")).context(lists.display())?;
    let log = apt.join("source.log");
    let mut last = String::new();
    for archive in &archives {
        for suite in archive.suites() {
            say(&format!(
                "looking for postgresql-{MAJOR}'s source package in {suite}"
            ));
            let list = apt.join("source.list");
            let signed = match &archive.signed_by {
                Some(key) => format!("[signed-by={key}] "),
                None => String::new(),
            };
            fs::write(
                &list,
                format!("deb-src {signed}{} {suite} main\n", archive.uri),
            )
            .context(list.display())?;
            let get = || {
                Cmd::new("apt-get")
                    .arg("-o")
                    .arg(format!("Dir::Etc::sourcelist={}", list.display()))
                    .args(["-o", "Dir::Etc::sourceparts=-"])
                    .arg("-o")
                    .arg(format!("Dir::State::lists={}", lists.display()))
                    .cwd(src)
                    .limit(Duration::from_secs(900))
                    .log(&log)
            };
            let fetched = get()
                .arg("update")
                .progress("apt-get update")
                .ok()
                .and_then(|_| {
                    get()
                        .args(["source", "--download-only"])
                        .arg(format!("postgresql-{MAJOR}"))
                        .progress("apt-get source")
                        .ok()
                });
            match fetched {
                Ok(_) => {
                    if let Some(tarball) = orig_tarball(src) {
                        return Ok(tarball);
                    }
                    last = "apt-get source fetched no original tarball".to_owned();
                }
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

fn orig_tarball(src: &Path) -> Option<PathBuf> {
    let start = format!("postgresql-{MAJOR}_{MAJOR}.");
    let mut found: Vec<PathBuf> = fs::read_dir(src)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
            name.starts_with(&start) && name.contains(".orig.tar.") && !name.ends_with(".asc")
        })
        .collect();
    found.sort();
    found.pop()
}

fn upstream_tarball(src: &Path) -> Result<PathBuf> {
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
    Ok(target)
}

fn fetch(url: &str, target: &Path) -> Result<()> {
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
