//! What the options of a tablespace say whose files are in an object store: which there are, what is
//! valid, which store they make, and which of its objects a path of the catalog is.
//!
//! Knows nothing of Postgres. `pg_dumpall` writes `spcoptions` into a statement as they are, so that
//! values are kept there in quotes.

use pg_lake_plan::store::{Protocol, Store};
use std::borrow::Cow;

const PROTOCOL: &str = "protocol";
const BUCKET: &str = "bucket";
const PREFIX: &str = "prefix";
const ACCOUNT: &str = "account";
const REGION: &str = "region";
const ENDPOINT: &str = "endpoint";
const CREDENTIAL: &str = "credential";
const CONDITIONAL_PUT: &str = "conditional_put";
/// In the order in which they are kept.
pub const NAMES: [&str; 8] = [
    PROTOCOL,
    BUCKET,
    PREFIX,
    ACCOUNT,
    REGION,
    ENDPOINT,
    CREDENTIAL,
    CONDITIONAL_PUT,
];
/// Those that Postgres knows itself (`access/common/reloptions.c`).
const OF_POSTGRES: [&str; 4] = [
    "seq_page_cost",
    "random_page_cost",
    "effective_io_concurrency",
    "maintenance_io_concurrency",
];
/// Keys of objects may have 1024 bytes.
const PREFIX_BYTES_MAX: usize = 512;
const NAME_BYTES_MAX: usize = 64;

const HINT_SECRET: &str = "Put it into a section of lake.credentials_file, and name the section by the option \"credential\".";

/// Whose option a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Ours(&'static str),
    Postgres,
    Nobody,
}

pub fn known(name: &str) -> Known {
    match NAMES.into_iter().find(|known| *known == name) {
        Some(name) => Known::Ours(name),
        None if OF_POSTGRES.contains(&name) => Known::Postgres,
        None => Known::Nobody,
    }
}

/// Why options can't be set. What may be a secret isn't shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub message: String,
    pub detail: Option<Cow<'static, str>>,
    pub hint: &'static str,
    /// Whether the statement may have a secret in it.
    pub secret: bool,
}

impl Invalid {
    fn new(message: impl Into<String>, hint: &'static str) -> Invalid {
        Invalid {
            message: message.into(),
            detail: None,
            hint,
            secret: false,
        }
    }

    fn value(name: &str, value: &str, detail: &'static str, hint: &'static str) -> Invalid {
        Invalid {
            detail: Some(detail.into()),
            ..Invalid::new(
                format!("invalid value for option \"{name}\": {value}"),
                hint,
            )
        }
    }

    /// The same for values that secrets are mistaken for.
    fn hidden(name: &str, detail: &'static str, hint: &'static str) -> Invalid {
        Invalid {
            detail: Some(detail.into()),
            secret: true,
            ..Invalid::new(format!("invalid value for option \"{name}\""), hint)
        }
    }

    /// An option that there isn't.
    pub fn unknown(name: &str) -> Invalid {
        if is_secret(name) {
            return Invalid {
                detail: Some("Everybody can read the options of a tablespace.".into()),
                secret: true,
                ..Invalid::new(
                    format!("a tablespace must not hold a secret: \"{name}\""),
                    HINT_SECRET,
                )
            };
        }
        Invalid::new(
            format!("unrecognized parameter \"{name}\""),
            "Options of a tablespace in an object store are protocol, bucket, prefix, account, region, \
             endpoint, credential and conditional_put; those of any tablespace are seq_page_cost, \
             random_page_cost, effective_io_concurrency and maintenance_io_concurrency.",
        )
    }
}

/// Whether an option of such a name would be a secret, or one half of it.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = [
        "secret",
        "token",
        "passw",
        "pwd",
        "private",
        "connection_string",
    ];
    let words = ["key", "keyid", "sas", "user", "username", "credentials"];
    parts.iter().any(|part| name.contains(part))
        || name.split('_').any(|word| words.contains(&word))
        || name.ends_with("key")
        || name.starts_with("service_account")
}

/// The options of a tablespace that are about its store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(&'static str, String)>);

impl Options {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Takes over what a tablespace has.
    pub fn keep(&mut self, name: &'static str, kept: &str) {
        let plain = kept.strip_prefix('\'').and_then(|k| k.strip_suffix('\''));
        self.put(name, plain.unwrap_or(kept).to_owned());
    }

    /// Sets what a statement says.
    pub fn set(&mut self, name: &'static str, value: &str) -> Result<(), Invalid> {
        let value = normal(name, value)?;
        self.put(name, value);
        Ok(())
    }

    fn put(&mut self, name: &'static str, value: String) {
        self.reset(name);
        self.0.push((name, value));
    }

    pub fn reset(&mut self, name: &str) {
        self.0.retain(|(known, _)| *known != name);
    }

    /// The store was found to ignore conditions.
    pub fn forgo_conditional_put(&mut self) {
        self.put(CONDITIONAL_PUT, "off".to_owned());
    }

    /// As they are kept, in their order.
    pub fn kept(&self) -> impl Iterator<Item = (&'static str, String)> {
        NAMES
            .into_iter()
            .filter_map(move |name| Some((name, format!("'{}'", self.get(name)?))))
    }

    /// The store, if there is one.
    pub fn store(&self) -> Result<Option<Store>, Invalid> {
        let Some(protocol) = self.get(PROTOCOL) else {
            return match self.kept().next() {
                None => Ok(None),
                Some((name, _)) => Err(Invalid::new(
                    format!("option \"{name}\" needs the option \"protocol\""),
                    "Say where the files are to be: protocol = 's3', 'gcs' or 'azure'.",
                )),
            };
        };
        let protocol = protocol_of(protocol)?;
        let Some(bucket) = self.get(BUCKET) else {
            return Err(Invalid::new(
                "a tablespace in an object store needs the option \"bucket\"",
                "Name a bucket, or a container of Azure, that is there.",
            ));
        };
        check_bucket(protocol, bucket)?;
        match (protocol, self.get(ACCOUNT)) {
            (Protocol::Azure, None) => {
                return Err(Invalid::new(
                    "protocol \"azure\" needs the option \"account\"",
                    "Name the storage account that the container is in.",
                ));
            }
            (Protocol::S3 | Protocol::Gcs, Some(_)) => return Err(foreign(ACCOUNT, "azure")),
            _ => {}
        }
        if protocol != Protocol::S3 && self.get(REGION).is_some() {
            return Err(foreign(REGION, "s3"));
        }
        let owned = |name| self.get(name).map(str::to_owned);
        Ok(Some(Store {
            protocol,
            bucket: bucket.to_owned(),
            prefix: owned(PREFIX).unwrap_or_default(),
            account: owned(ACCOUNT),
            region: owned(REGION),
            endpoint: owned(ENDPOINT),
            credential: owned(CREDENTIAL),
            conditional_put: self.get(CONDITIONAL_PUT) != Some("off"),
        }))
    }
}

fn foreign(name: &str, protocol: &str) -> Invalid {
    Invalid::new(
        format!("option \"{name}\" is for protocol \"{protocol}\" only"),
        "Leave the option out.",
    )
}

/// A value as it is kept.
fn normal(name: &str, value: &str) -> Result<String, Invalid> {
    let plain = value.trim();
    match name {
        PROTOCOL => protocol_of(plain).map(|protocol| protocol.name().to_owned()),
        PREFIX => prefix_of(plain),
        ENDPOINT => endpoint_of(plain),
        CREDENTIAL if is_name(plain, "-_.") => Ok(plain.to_owned()),
        CREDENTIAL => Err(Invalid::hidden(
            name,
            "It is the name of a section: letters, digits, \"-\", \"_\" and \".\", at most 64.",
            HINT_SECRET,
        )),
        ACCOUNT if is_account(plain) => Ok(plain.to_owned()),
        ACCOUNT => Err(Invalid::value(
            name,
            value,
            "A storage account has 3 to 24 lower-case letters and digits.",
            "Give the account's name alone, without a host.",
        )),
        REGION if is_name(plain, "-_") => Ok(plain.to_owned()),
        REGION => Err(Invalid::value(
            name,
            value,
            "A region has letters, digits and \"-\".",
            "An example is: eu-central-1.",
        )),
        CONDITIONAL_PUT => match plain.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" => Ok("off".to_owned()),
            _ => Err(Invalid::value(
                name,
                value,
                "Valid values are \"on\" and \"off\".",
                "Without the option, the store is tried out.",
            )),
        },
        // Its form depends on the protocol.
        _ => Ok(plain.to_owned()),
    }
}

fn protocol_of(value: &str) -> Result<Protocol, Invalid> {
    [Protocol::S3, Protocol::Gcs, Protocol::Azure]
        .into_iter()
        .find(|protocol| protocol.name().eq_ignore_ascii_case(value))
        .ok_or_else(|| {
            Invalid::value(
                PROTOCOL,
                value,
                "Valid values are \"s3\", \"gcs\" and \"azure\".",
                "Stores that speak the protocol of Amazon S3 take \"s3\" and an endpoint.",
            )
        })
}

/// Letters, digits and a few others, of which it must not begin with one.
fn is_name(value: &str, others: &str) -> bool {
    value.len() <= NAME_BYTES_MAX
        && value.starts_with(|c: char| c.is_ascii_alphanumeric())
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn is_account(value: &str) -> bool {
    (3..=24).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// By the rules that all of a protocol's stores share, about.
fn check_bucket(protocol: Protocol, value: &str) -> Result<(), Invalid> {
    let (others, doubles, detail) = match protocol {
        Protocol::S3 => (
            "-.",
            "..",
            "A bucket has 3 to 63 lower-case letters, digits, \"-\" and \".\", and begins and ends with a letter or digit.",
        ),
        Protocol::Gcs => (
            "-._",
            "..",
            "A bucket has 3 to 63 lower-case letters, digits, \"-\", \"_\" and \".\", and begins and ends with a letter or digit.",
        ),
        Protocol::Azure => (
            "-",
            "--",
            "A container has 3 to 63 lower-case letters, digits and single \"-\", and begins and ends with a letter or digit.",
        ),
    };
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = (3..=63).contains(&value.len())
        && value.chars().all(|c| is_plain(c) || others.contains(c))
        && value.starts_with(is_plain)
        && value.ends_with(is_plain)
        && !value.contains(doubles);
    if valid {
        return Ok(());
    }
    Err(Invalid::value(
        BUCKET,
        value,
        detail,
        "Give the name alone; a path in it is the option \"prefix\", a host the option \"endpoint\".",
    ))
}

/// Without `/` at either end.
fn prefix_of(value: &str) -> Result<String, Invalid> {
    let inner = value.strip_prefix('/').unwrap_or(value);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let valid = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.~=".contains(c))
    };
    if inner.is_empty() || inner.len() <= PREFIX_BYTES_MAX && inner.split('/').all(valid) {
        return Ok(inner.to_owned());
    }
    Err(Invalid::value(
        PREFIX,
        value,
        "It is a path of letters, digits, \"-\", \"_\", \".\", \"~\" and \"=\", without \"..\" and empty parts, of at most 512 bytes.",
        "An example is: warehouse/one.",
    ))
}

/// Without `/` at the end.
fn endpoint_of(value: &str) -> Result<String, Invalid> {
    const EXAMPLE: &str = "An example is: https://storage.example.com:9000.";
    if value.contains(['@', '?', '#']) {
        return Err(Invalid::hidden(
            ENDPOINT,
            "It must have neither a user name nor a query, since everybody can read it.",
            HINT_SECRET,
        ));
    }
    let rest = value
        .strip_prefix("https://")
        .or_else(|| value.strip_prefix("http://"));
    let rest = rest.map(|rest| rest.trim_end_matches('/'));
    let valid = |rest: &&str| {
        let (authority, path) = rest.split_once('/').unwrap_or((*rest, ""));
        let host = authority.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
        host && authority
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c))
            && path
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._~/".contains(c))
    };
    match rest.filter(valid) {
        Some(_) => Ok(value.trim_end_matches('/').to_owned()),
        None => Err(Invalid::hidden(
            ENDPOINT,
            "It is a URL with the scheme http or https, a host, and perhaps a port and a path.",
            EXAMPLE,
        )),
    }
}

/// Whether one of two roots is the other, or below it.
pub fn overlap(a: &str, b: &str) -> bool {
    is_below(a, b) || is_below(b, a)
}

/// Whether a location is a root or below it.
pub fn is_below(location: &str, root: &str) -> bool {
    location
        .strip_prefix(root)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Of a path of the catalog, relative to the data directory: the tablespace that it is in, unless that is
/// the database's own, and what follows the database's directory `lake`.
pub fn place(path: &str) -> Option<(u32, &str)> {
    let (tablespace, rest) = path.strip_prefix("pg_tblspc/")?.split_once('/')?;
    let mut parts = rest.splitn(4, '/');
    let (_version, _database) = (parts.next()?, parts.next()?);
    let (directory, below) = (parts.next()?, parts.next()?);
    Some((tablespace.parse().ok()?, below)).filter(|_| directory == "lake")
}

#[cfg(test)]
#[path = "store_options_tests.rs"]
mod tests;
