//! Object stores, and the names of what is in them.
//!
//! A *location* is an absolute path of the local file system, or the URL of an object, as Iceberg
//! metadata hold it: `s3://bucket/…`, `gs://bucket/…`, `abfss://container@account.dfs.core.windows.net/…`.
//! Every URL in a request is below the [`Store::root`] of one of the stores in its envelope, and no
//! root is below another one.

use serde::{Deserialize, Serialize};

/// Data files are checked, and kept in the disk cache, in blocks of that many bytes.
pub const BLOCK_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    S3,
    Gcs,
    Azure,
}

impl Protocol {
    /// As a tablespace's option `protocol` names it.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::S3 => "s3",
            Protocol::Gcs => "gcs",
            Protocol::Azure => "azure",
        }
    }
}

/// A tablespace's store. It names its credential and never holds one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Store {
    pub protocol: Protocol,
    /// The bucket; a container of Azure.
    pub bucket: String,
    /// Of all objects' keys, without `/` at either end; may be empty.
    pub prefix: String,
    /// Azure's storage account.
    pub account: Option<String>,
    pub region: Option<String>,
    /// A URL, for stores that aren't the protocol's own cloud.
    pub endpoint: Option<String>,
    /// An entry of `lake.credentials_file`. `None`: the environment's or the machine's own identity.
    pub credential: Option<String>,
    /// Whether the store creates an object only if there is none, when asked to (`If-None-Match`).
    pub conditional_put: bool,
}

impl Store {
    /// What the URLs of its objects begin with, without a `/` at the end.
    pub fn root(&self) -> String {
        let authority = match self.protocol {
            Protocol::S3 => format!("s3://{}", self.bucket),
            Protocol::Gcs => format!("gs://{}", self.bucket),
            Protocol::Azure => format!(
                "abfss://{}@{}.dfs.core.windows.net",
                self.bucket,
                self.account.as_deref().unwrap_or_default()
            ),
        };
        if self.prefix.is_empty() {
            authority
        } else {
            format!("{authority}/{}", self.prefix)
        }
    }

    /// The key in the bucket of a location, if it is one of this store.
    pub fn key(&self, location: &str) -> Option<String> {
        let rest = location.strip_prefix(&self.root())?.strip_prefix('/')?;
        if self.prefix.is_empty() {
            Some(rest.to_owned())
        } else {
            Some(format!("{}/{rest}", self.prefix))
        }
    }

    /// The opposite of [`Store::key`].
    pub fn location(&self, key: &str) -> Option<String> {
        let rest = if self.prefix.is_empty() {
            key
        } else {
            key.strip_prefix(&self.prefix)?.strip_prefix('/')?
        };
        Some(format!("{}/{rest}", self.root()))
    }
}

/// Whether a location is in an object store.
pub fn is_remote(location: &str) -> bool {
    !location.starts_with('/') && !location.starts_with("file:")
}

/// The checksums of a file's blocks (CRC-32 as in ISO 3309), of which [`Checksums::update`] takes the bytes in order.
#[derive(Clone, Debug, Default)]
pub struct Checksums {
    finished: Vec<u32>,
    current: crc32fast::Hasher,
    filled: u64,
}

impl Checksums {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(BLOCK_BYTES - self.filled).unwrap_or(usize::MAX);
            let (now, rest) = bytes.split_at(bytes.len().min(room));
            self.current.update(now);
            self.filled += now.len() as u64;
            if self.filled == BLOCK_BYTES {
                self.end_block();
            }
            bytes = rest;
        }
    }

    /// One of each block, the last of which may be short.
    pub fn finish(mut self) -> Vec<u32> {
        if self.filled > 0 {
            self.end_block();
        }
        self.finished
    }

    fn end_block(&mut self) {
        self.finished
            .push(std::mem::take(&mut self.current).finalize());
        self.filled = 0;
    }
}

/// The checksum of one block.
pub fn checksum(block: &[u8]) -> u32 {
    crc32fast::hash(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(protocol: Protocol, prefix: &str) -> Store {
        Store {
            protocol,
            bucket: "lake".into(),
            prefix: prefix.into(),
            account: Some("acme".into()),
            region: None,
            endpoint: None,
            credential: None,
            conditional_put: true,
        }
    }

    #[test]
    fn locations_and_keys_are_the_same_names() {
        for (store, root) in [
            (store(Protocol::S3, ""), "s3://lake"),
            (store(Protocol::Gcs, "a/b"), "gs://lake/a/b"),
            (
                store(Protocol::Azure, "a"),
                "abfss://lake@acme.dfs.core.windows.net/a",
            ),
        ] {
            assert_eq!(store.root(), root);
            let location = format!("{root}/7/data/1.parquet");
            let key = store.key(&location).expect("a key");
            assert!(key.ends_with("7/data/1.parquet") && !key.starts_with('/'));
            assert_eq!(store.location(&key), Some(location));
            assert_eq!(store.key(&format!("{root}x/1")), None);
            assert_eq!(store.key("/local/1"), None);
        }
    }

    #[test]
    fn checksums_are_of_blocks_however_the_bytes_come() {
        let bytes: Vec<u8> = (0..BLOCK_BYTES * 2 + 5).map(|n| (n % 251) as u8).collect();
        let expected: Vec<u32> = bytes.chunks(BLOCK_BYTES as usize).map(checksum).collect();
        for piece in [1000, BLOCK_BYTES as usize, bytes.len()] {
            let mut sums = Checksums::default();
            bytes.chunks(piece).for_each(|chunk| sums.update(chunk));
            assert_eq!(sums.finish(), expected);
        }
        assert_eq!(Checksums::default().finish(), Vec::<u32>::new());
    }
}
