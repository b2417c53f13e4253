//! What is in a store, past the server that uses it.

use super::{BUCKET, Store};
use crate::process::Cmd;
use crate::{Context, Result};
use std::time::Duration;

/// For one look.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub key: String,
    pub size: u64,
}

impl Store {
    /// The objects whose keys begin so, by key.
    pub fn objects(&self, prefix: &str) -> Result<Vec<Object>> {
        self.objects_at(self.port(), prefix)
    }

    /// The same by way of a proxy.
    pub fn objects_at(&self, port: u16, prefix: &str) -> Result<Vec<Object>> {
        let listed = self.script(port).args(["list", prefix]).ok()?;
        let mut objects = Vec::new();
        for line in listed.lines() {
            let (size, key) = line.split_once('\t').unwrap_or_default();
            objects.push(Object {
                key: key.to_owned(),
                size: size
                    .parse()
                    .map_err(|_| format!("an object's line is {line:?}"))?,
            });
        }
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    /// Keys of multipart uploads that have no end yet; only S3 says.
    pub fn uploads(&self) -> Result<Vec<String>> {
        let listed = self.script(self.port()).arg("uploads").ok()?;
        Ok(listed
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(_, key)| key.to_owned())
            .collect())
    }

    pub fn put(&self, key: &str, text: &str) -> Result<()> {
        let script = self.script(self.port());
        script.args(["put", key, text]).ok().map(drop)
    }

    /// Changes one bit of one byte; an offset below 0 counts from the end.
    pub fn flip(&self, key: &str, offset: i64) -> Result<()> {
        let script = self.script(self.port());
        script
            .args(["flip", key, &offset.to_string()])
            .ok()
            .map(drop)
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        let script = self.script(self.port());
        script.args(["delete", key]).ok().map(drop)
    }

    /// Waits until objects can be stored; creates the bucket.
    pub(super) fn ready(&self, limit: Duration) -> Result<()> {
        self.script(self.port())
            .args(["ready", &limit.as_secs().to_string()])
            .ok()
            .map(drop)
            .context("its bucket")
    }

    fn script(&self, port: u16) -> Cmd {
        let (user, secret) = self.login();
        self.programs
            .script("objects.py")
            .cwd(&self.dir)
            .env("STORE_PROTOCOL", self.kind.protocol())
            .env("STORE_ENDPOINT", self.endpoint(port))
            .env("STORE_BUCKET", BUCKET)
            .env("STORE_REGION", super::kinds::REGION)
            .env("STORE_USER", user)
            .env("STORE_SECRET", secret)
            .limit(LIMIT)
    }
}
