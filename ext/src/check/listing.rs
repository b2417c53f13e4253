//! The files that there are below some directories.

use crate::files;
use crate::pg::subtransaction::{Failure, attempt};
use std::collections::BTreeMap;

/// Sizes by path, as of when each directory was listed.
#[derive(Default)]
pub struct Listing {
    directories: Vec<String>,
    sizes: BTreeMap<String, u64>,
}

impl Listing {
    /// Lists a directory, unless it was listed before.
    pub fn add(&mut self, directory: &str) -> Result<(), Failure> {
        if self.covers(directory) {
            return Ok(());
        }
        let files = attempt(|| files::list(directory))?;
        self.directories.push(directory.to_owned());
        self.sizes.extend(files);
        Ok(())
    }

    /// Whether a directory or file is one, or below one, that was listed.
    pub fn covers(&self, path: &str) -> bool {
        let is_below = |directory: &String| is_at_or_below(path, directory);
        self.directories.iter().any(is_below)
    }

    /// The size of a file; `None`: there is no such file.
    pub fn size(&self, path: &str) -> Option<u64> {
        self.sizes.get(path).copied()
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sizes.iter().map(|(path, size)| (path.as_str(), *size))
    }
}

/// Whether a path is a directory, or below it.
pub fn is_at_or_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The directory of the table that a data or metadata file belongs to: they are all two levels below it.
pub fn table_of(path: &str) -> &str {
    path.rsplitn(3, '/').nth(2).unwrap_or(path)
}
