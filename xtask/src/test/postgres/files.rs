//! The suites' files: out of the source's tarball, with the libraries that tests load.

use super::{ISOLATION, REGRESS, Suite};
use crate::os::{self, User};
use crate::postgres::{Postgres, Tarball};
use crate::process::Cmd;
use crate::test::Run;
use crate::{Context, Result, paths};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The folder of the libraries below that of a run.
pub const LIBRARIES: &str = "lib";

/// What the regression tests load besides a library of their own; of contrib/spi.
const MODULES: &[&str] = &["refint.so", "autoinc.so"];

/// One suite as it was unpacked.
pub struct Files {
    suite: &'static Suite,
    dir: PathBuf,
}

impl Files {
    /// Unpacks a version's suites once.
    pub fn unpack(source: &Tarball, suite: &'static Suite, run: &Run) -> Result<Files> {
        let dir = paths::state()
            .join("src")
            .join(format!("tests-{}", source.version));
        if !dir.is_dir() {
            os::apt_install(&["bzip2"], "to unpack PostgreSQL's source")?;
            let mut staged = dir.clone().into_os_string();
            staged.push(format!(".new-{}", std::process::id()));
            let staged = PathBuf::from(staged);
            os::make_dir(&staged, run.user.as_ref())?;
            let top = format!("postgresql-{}/src/test", source.version);
            Cmd::new("tar")
                .arg("xf")
                .arg(&source.path)
                .arg("-C")
                .arg(&staged)
                .args(["--no-same-owner", "--strip-components=3"])
                .arg(format!("{top}/{}", REGRESS.name))
                .arg(format!("{top}/{}", ISOLATION.name))
                .limit(Duration::from_secs(300))
                .ok()?;
            fs::rename(&staged, &dir).context(dir.display())?;
        }
        let dir = dir.join(suite.name);
        Ok(Files { suite, dir })
    }

    /// Copies what a run needs to its directory.
    pub fn copy(&self, to: &Path, pg: &Postgres, run: &Run) -> Result<PathBuf> {
        let user = run.user.as_ref();
        for folder in self.suite.inputs {
            os::copy_tree(&self.dir.join(folder), &to.join(folder), user)?;
        }
        for file in [self.suite.schedule, "resultmap"] {
            let from = self.dir.join(file);
            if from.is_file() {
                fs::copy(&from, to.join(file)).context(from.display())?;
                os::give(&to.join(file), user)?;
            }
        }
        os::make_dir(&to.join("results"), user)?;
        let libraries = to.join(LIBRARIES);
        os::make_dir(&libraries, user)?;
        let code = self.dir.join("regress.c");
        if code.is_file() {
            compile(&code, &libraries.join("regress.so"), pg)?;
            for module in MODULES {
                let from = pg.pkglibdir.join(module);
                fs::copy(&from, libraries.join(module)).context(from.display())?;
            }
        }
        Ok(to.to_owned())
    }
}

/// Builds a module for this server; the flags are those on which the code's meaning depends.
fn compile(code: &Path, library: &Path, pg: &Postgres) -> Result<()> {
    let headers = Cmd::new(&pg.pg_config).arg("--includedir-server").ok()?;
    Cmd::new("cc")
        .args(["-O2", "-fPIC", "-shared", "-w"])
        .args(["-fwrapv", "-fno-strict-aliasing", "-D_GNU_SOURCE"])
        .arg(format!("-I{}", headers.trim()))
        .arg("-o")
        .arg(library)
        .arg(code)
        .limit(Duration::from_secs(120))
        .ok()
        .map(drop)
}

/// Lets a test's output be a second one beside the one that is expected: the drivers take the
/// alternatives `name_0.out` to `name_9.out`.
pub fn add_alternative(dir: &Path, name: &str, output: &Path, user: Option<&User>) -> Result<()> {
    let free = (0..=9)
        .rev()
        .map(|i| dir.join("expected").join(format!("{name}_{i}.out")))
        .find(|file| !file.exists())
        .ok_or_else(|| format!("{name} has ten alternative outputs already"))?;
    fs::copy(output, &free).context(output.display())?;
    os::give(&free, user)
}
