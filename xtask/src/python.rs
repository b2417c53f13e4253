//! The Python environment: data generator and the Iceberg readers that nobody here wrote.
//!
//! Readers run as the server's user, since only it may read the files of a cluster.

use crate::cluster::{Cluster, DATABASE, SUPERUSER};
use crate::os::{self, User};
use crate::process::Cmd;
use crate::{Context, Result, paths, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A virtual environment with `xtask/readers/requirements.txt`.
pub struct Python {
    venv: PathBuf,
    scripts: PathBuf,
    user: Option<User>,
}

impl Python {
    /// Make the environment, unless it is there with just these requirements.
    pub fn set_up() -> Result<Python> {
        let user = os::server_user()?;
        let state = paths::state();
        os::prepare_state(&state, user.as_ref())?;
        let venv = state.join("venv");
        let readers = paths::repo().join("xtask").join("readers");
        environment(
            &venv,
            &readers.join("requirements.txt"),
            user.as_ref(),
            "the data generator and the Iceberg readers",
        )?;
        // The checkout may be out of the server user's reach.
        let scripts = state.join("readers");
        let _ = fs::remove_dir_all(&scripts);
        os::copy_tree(&readers, &scripts, user.as_ref())?;
        os::copy_tree(&paths::repo().join("bench"), &scripts, user.as_ref())?;
        Ok(Python {
            venv,
            scripts,
            user,
        })
    }

    /// A program of the environment, as whoever calls.
    pub fn program(&self, name: &str) -> Cmd {
        Cmd::new(self.venv.join("bin").join(name))
    }

    /// A script of ours, as the server's user, with the way to a server in its environment.
    pub fn script(&self, name: &str, cluster: &Cluster) -> Cmd {
        let mut command = self
            .program("python")
            .arg(self.scripts.join(name))
            .user(self.user.as_ref())
            .cwd(&cluster.dir)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("CATALOG_URI", catalog_uri(cluster))
            .limit(cluster.limit);
        for (name, value) in cluster.client_env() {
            command = command.env(name, value);
        }
        command
    }
}

/// The server itself as pyiceberg's SQL catalog: it looks for `iceberg_tables` on the search path.
fn catalog_uri(cluster: &Cluster) -> String {
    format!(
        "postgresql+psycopg2://{SUPERUSER}@127.0.0.1:{}/{DATABASE}?options=-csearch_path%3Dlake",
        cluster.port
    )
}

/// A Python that is new enough and that the server's user can run (root's own may lie in a home
/// directory that nobody else may enter).
fn interpreter(user: Option<&User>) -> Option<PathBuf> {
    let mut candidates = os::all_on_path("python3");
    if user.is_some() {
        candidates.insert(0, PathBuf::from("/usr/bin/python3"));
    }
    candidates.into_iter().find(|python| {
        Cmd::new(python)
            .args(["-c", "import sys; sys.exit(sys.version_info < (3, 10))"])
            .user(user)
            .cwd("/")
            .limit(Duration::from_secs(30))
            .ok()
            .is_ok()
    })
}

/// A virtual environment with just these requirements, made unless it is there. `what` says what it
/// is for.
pub fn environment(
    venv: &Path,
    requirements: &Path,
    user: Option<&User>,
    what: &str,
) -> Result<()> {
    let wanted = fs::read_to_string(requirements).context(requirements.display())?;
    let marker = venv.join("requirements.installed");
    if fs::read_to_string(&marker).ok().as_ref() == Some(&wanted) {
        return Ok(());
    }
    install(venv, requirements, user, what)?;
    fs::write(&marker, &wanted).context(marker.display())
}

fn install(venv: &Path, requirements: &Path, user: Option<&User>, what: &str) -> Result<()> {
    say(&format!("installing {what} into a Python environment"));
    let why = format!("a Python environment for {what}");
    if interpreter(user).is_none() {
        os::apt_install(&["python3", "python3-venv"], &why)?;
    }
    let make = || -> Result<()> {
        let python = interpreter(user).ok_or("no python3 of version 3.10 or later")?;
        let _ = fs::remove_dir_all(venv);
        Cmd::new(python)
            .args(["-m", "venv"])
            .arg(venv)
            .unset("PYTHONHOME")
            .ok()
            .map(drop)
    };
    if make().is_err() {
        // Debian splits the module from the interpreter.
        os::apt_install(&["python3", "python3-venv"], &why)?;
        make()?;
    }
    Cmd::new(venv.join("bin").join("python"))
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "-q",
            "-r",
        ])
        .arg(requirements)
        .limit(Duration::from_secs(1200))
        .progress("pip install")
        .ok()
        .map(drop)
}
