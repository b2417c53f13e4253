//! The entries of `lake.credentials_file`:
//!
//! ```text
//! # A comment; `;` begins one, too.
//! [name of the entry]
//! access_key_id = …
//! secret_access_key = …
//! ```
//!
//! A value is the rest of its line, without blanks around it. There are no quotes and no comments
//! after a value. No error shows anything of a line but its number.

use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::Protocol;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::fmt;

/// A text that neither messages nor logs show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a worker proves to a store who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    S3Keys {
        id: Secret,
        secret: Secret,
        session_token: Option<Secret>,
    },
    S3WebIdentity {
        role_arn: String,
        token_file: String,
    },
    /// The path of a service account's key.
    GcsFile(String),
    /// The JSON text of one.
    GcsKey(Secret),
    AzureKey(Secret),
    AzureSas(Secret),
    AzureClientSecret {
        client_id: String,
        tenant_id: String,
        secret: Secret,
    },
    AzureFederated {
        client_id: String,
        tenant_id: String,
        token_file: String,
    },
}

impl Credential {
    /// What no error may have in it.
    pub fn secrets(&self) -> Vec<Secret> {
        match self {
            Credential::S3Keys {
                id,
                secret,
                session_token,
            } => [id, secret]
                .into_iter()
                .chain(session_token)
                .cloned()
                .collect(),
            Credential::GcsKey(secret)
            | Credential::AzureKey(secret)
            | Credential::AzureSas(secret)
            | Credential::AzureClientSecret { secret, .. } => vec![secret.clone()],
            Credential::S3WebIdentity { .. }
            | Credential::GcsFile(_)
            | Credential::AzureFederated { .. } => vec![],
        }
    }
}

const KEYS: &[&str] = &[
    "access_key_id",
    "account_key",
    "client_id",
    "client_secret",
    "federated_token_file",
    "role_arn",
    "sas_token",
    "secret_access_key",
    "service_account_file",
    "service_account_key",
    "session_token",
    "tenant_id",
    "web_identity_token_file",
];

/// What a line has wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// The first one is 1.
    pub line: usize,
    pub reason: &'static str,
}

/// One section.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry(BTreeMap<&'static str, Secret>);

/// All sections, by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries(BTreeMap<String, Entry>);

impl Entries {
    pub fn parse(text: &str) -> Result<Entries, Malformed> {
        let mut entries = BTreeMap::new();
        let mut current: Option<(String, Entry)> = None;
        for (index, line) in text.lines().enumerate() {
            let malformed = |reason| Malformed {
                line: index + 1,
                reason,
            };
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(rest) = line.strip_prefix('[') {
                let name = rest.strip_suffix(']').map(str::trim);
                let name = name
                    .filter(|name| !name.is_empty())
                    .ok_or_else(|| malformed("The name of an entry is written \"[name]\"."))?;
                entries.extend(current.take());
                if entries.contains_key(name) {
                    return Err(malformed("There is an entry with that name already."));
                }
                current = Some((name.to_owned(), Entry::default()));
                continue;
            }
            let (_, entry) = current
                .as_mut()
                .ok_or_else(|| malformed("The first entry begins with its name, \"[name]\"."))?;
            entry.add(line).map_err(malformed)?;
        }
        entries.extend(current);
        Ok(Entries(entries))
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.0.get(name)
    }
}

impl Entry {
    fn add(&mut self, line: &str) -> Result<(), &'static str> {
        let (key, value) = line
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .ok_or("A line has the form \"key = value\".")?;
        let key = KEYS
            .iter()
            .find(|known| **known == key)
            .ok_or("There is no such key.")?;
        if value.is_empty() {
            return Err("The value is missing.");
        }
        match self.0.entry(key) {
            Place::Occupied(_) => Err("The entry has that key already."),
            Place::Vacant(place) => {
                place.insert(Secret::new(value));
                Ok(())
            }
        }
    }

    /// The entry `name` as a credential for such a store: `InvalidConfiguration` unless its keys are
    /// those of one way to log in.
    pub fn credential(&self, name: &str, protocol: Protocol) -> Result<Credential, WireError> {
        let pairs: Vec<(&str, &Secret)> = self.0.iter().map(|(key, value)| (*key, value)).collect();
        let plain = |secret: &Secret| secret.expose().to_owned();
        Ok(match (protocol, pairs.as_slice()) {
            (
                Protocol::S3,
                [
                    ("access_key_id", id),
                    ("secret_access_key", secret),
                    rest @ ..,
                ],
            ) if matches!(rest, [] | [("session_token", _)]) => Credential::S3Keys {
                id: (*id).clone(),
                secret: (*secret).clone(),
                session_token: rest.first().map(|(_, token)| (*token).clone()),
            },
            (Protocol::S3, [("role_arn", role), ("web_identity_token_file", file)]) => {
                Credential::S3WebIdentity {
                    role_arn: plain(role),
                    token_file: plain(file),
                }
            }
            (Protocol::Gcs, [("service_account_file", file)]) => Credential::GcsFile(plain(file)),
            (Protocol::Gcs, [("service_account_key", key)]) => Credential::GcsKey((*key).clone()),
            (Protocol::Azure, [("account_key", key)]) => Credential::AzureKey((*key).clone()),
            (Protocol::Azure, [("sas_token", token)]) => Credential::AzureSas((*token).clone()),
            (
                Protocol::Azure,
                [
                    ("client_id", id),
                    ("client_secret", secret),
                    ("tenant_id", tenant),
                ],
            ) => Credential::AzureClientSecret {
                client_id: plain(id),
                tenant_id: plain(tenant),
                secret: (*secret).clone(),
            },
            (
                Protocol::Azure,
                [
                    ("client_id", id),
                    ("federated_token_file", file),
                    ("tenant_id", tenant),
                ],
            ) => Credential::AzureFederated {
                client_id: plain(id),
                tenant_id: plain(tenant),
                token_file: plain(file),
            },
            _ => {
                let message = format!(
                    "entry \"{name}\" of the credentials file is not one for protocol \"{}\"",
                    protocol.name()
                );
                return Err(WireError::new(ErrorCode::InvalidConfiguration, message)
                    .detail(format!(
                        "Its keys are: {}.",
                        pairs
                            .iter()
                            .map(|(key, _)| *key)
                            .collect::<Vec<_>>()
                            .join(", ")
                    ))
                    .hint(expected(protocol)));
            }
        })
    }
}

const fn expected(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::S3 => {
            "Give access_key_id and secret_access_key, with session_token if there is one, or role_arn and \
             web_identity_token_file."
        }
        Protocol::Gcs => "Give service_account_file or service_account_key.",
        Protocol::Azure => {
            "Give account_key, or sas_token, or client_id and tenant_id with client_secret or \
             federated_token_file."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(text: &str, protocol: Protocol) -> Result<Credential, WireError> {
        let entries = Entries::parse(text).expect("well-formed");
        entries
            .get("a")
            .expect("the entry")
            .credential("a", protocol)
    }

    #[test]
    fn each_way_to_log_in_is_read() {
        let s3 = "# for tests\n\n[ a ]\r\naccess_key_id=me\r\n secret_access_key = s#c=r t \n[b]\n";
        assert_eq!(
            credential(s3, Protocol::S3),
            Ok(Credential::S3Keys {
                id: Secret::new("me"),
                secret: Secret::new("s#c=r t"),
                session_token: None
            })
        );
        let token = format!("{}session_token = t\n", s3.replace("[b]\n", ""));
        let secrets = credential(&token, Protocol::S3).map(|c| c.secrets().len());
        assert_eq!(secrets, Ok(3));
        let web = "[a]\nrole_arn = arn:aws:iam::1:role/x\nweb_identity_token_file = /t\n";
        assert!(credential(web, Protocol::S3).is_ok_and(|c| c.secrets().is_empty()));
        let key = "[a]\nservice_account_key = {\"private_key\": \"x\"}";
        assert_eq!(
            credential(key, Protocol::Gcs),
            Ok(Credential::GcsKey(Secret::new("{\"private_key\": \"x\"}")))
        );
        for (text, protocol) in [
            ("service_account_file = /k.json", Protocol::Gcs),
            ("account_key = k", Protocol::Azure),
            ("sas_token = sv=1&sig=2", Protocol::Azure),
            (
                "client_id = c\nclient_secret = s\ntenant_id = t",
                Protocol::Azure,
            ),
            (
                "client_id = c\ntenant_id = t\nfederated_token_file = /f",
                Protocol::Azure,
            ),
        ] {
            assert!(
                credential(&format!("[a]\n{text}"), protocol).is_ok(),
                "{text}"
            );
        }
    }

    #[test]
    fn keys_that_do_not_belong_together_are_refused_without_their_values() {
        for (text, protocol) in [
            ("access_key_id = hush", Protocol::S3),
            (
                "access_key_id = hush\nsecret_access_key = hush\nrole_arn = hush",
                Protocol::S3,
            ),
            ("account_key = hush", Protocol::Gcs),
            ("account_key = hush\nsas_token = hush", Protocol::Azure),
            ("", Protocol::Azure),
        ] {
            let error = credential(&format!("[a]\n{text}"), protocol).expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidConfiguration);
            assert!(!format!("{error:?}").contains("hush"), "{error:?}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_only() {
        for (text, line) in [
            ("access_key_id = hush", 1),
            ("[a]\n\nhush", 3),
            ("[a]\nhush = hush", 2),
            ("[a]\naccess_key_id =", 2),
            ("[a]\nsas_token = hush\nsas_token = hush", 3),
            ("[a]\n[hush", 2),
            ("[]", 1),
            ("[a]\n[b]\n[a]", 3),
        ] {
            let malformed = Entries::parse(text).expect_err(text);
            assert_eq!(malformed.line, line, "{text}");
            assert!(!format!("{malformed:?}").contains("hush"));
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::new("hush");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        let credential = Credential::AzureKey(secret);
        assert!(!format!("{credential:?}").contains("hush"));
    }
}
