//! A tablespace in a store, and what the server that has it is given.

use super::{Store, secret_file};
use crate::cluster::{Cluster, DATABASE};
use crate::{Result, os};
use std::path::{Path, PathBuf};

pub struct Tablespace {
    name: &'static str,
    /// `lake.credentials_file`
    pub credentials: PathBuf,
    location: PathBuf,
    options: String,
}

impl Tablespace {
    /// `dir` is for its files on the local disk. `port`: the store's, or that of a proxy.
    pub fn new(
        name: &'static str,
        store: &Store,
        port: u16,
        prefix: &str,
        dir: &Path,
    ) -> Result<Tablespace> {
        let location = dir.join("location");
        os::make_dir(&location, store.programs.user())?;
        let credentials = store.credentials(port)?;
        Ok(Tablespace {
            name,
            credentials: secret_file(store, dir.join("credentials"), &credentials)?,
            location,
            options: store.options(port, prefix, "main"),
        })
    }

    /// Creates it in a server; answers what that has said besides.
    pub fn create(&self, cluster: &Cluster) -> Result<String> {
        let sql = format!(
            "CREATE TABLESPACE {} LOCATION '{}' WITH ({});\n",
            self.name,
            self.location.display(),
            self.options
        );
        let output = cluster.psql(DATABASE).stdin(sql).run()?;
        if output.success() {
            Ok(output.stderr)
        } else {
            Err(output.stderr)
        }
    }
}
