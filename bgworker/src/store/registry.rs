//! The stores that a worker talks to, with their connections and credentials.

use super::backend::{self, read_service_account};
use super::credentials::Credential;
use super::credentials_file::CredentialsFile;
use super::remote::Remote;
use super::unfinished::Unfinished;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::Store;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Connections to a store that nobody has asked for in that time are closed.
const IDLE: Duration = Duration::from_secs(600);

/// More stores than that are connected anew each time.
const REMOTES_MAX: usize = 64;

/// What the server's settings say about stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `lake.credentials_file`
    pub credentials_file: Option<PathBuf>,
    /// `lake.store_timeout`: how long an operation is tried.
    pub timeout: Duration,
    /// Requests to a store at the same time.
    pub connections: usize,
    /// Bytes a second, sent to a store or received from it. `None`: no limit.
    pub bandwidth: Option<u64>,
}

/// All stores of this process.
#[derive(Clone, Debug)]
pub struct Stores {
    shared: Arc<Mutex<Shared>>,
    /// Where uploads in parts are put on record.
    unfinished: Option<Arc<Unfinished>>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    credentials: Option<Arc<CredentialsFile>>,
    remotes: HashMap<Store, Cached>,
}

#[derive(Debug)]
struct Cached {
    /// What the remote was set up with.
    credential: Option<Credential>,
    remote: Arc<Remote>,
    used: Instant,
}

/// The stores of one request. Each is set up when it is first asked for, and stays as it is.
#[derive(Debug)]
pub struct Opened {
    stores: Stores,
    opened: Vec<(Store, OnceLock<Found>)>,
}

type Found = Result<Arc<Remote>, WireError>;

impl Stores {
    pub fn new(settings: Settings, unfinished: Option<Arc<Unfinished>>) -> Stores {
        let credentials = credentials_file(&settings);
        Stores {
            shared: Arc::new(Mutex::new(Shared {
                settings,
                credentials,
                remotes: HashMap::new(),
            })),
            unfinished,
        }
    }

    /// For requests that are opened from now on.
    pub fn set_settings(&self, settings: Settings) {
        let mut shared = self.lock();
        if shared.settings == settings {
            return;
        }
        shared.credentials = credentials_file(&settings);
        shared.settings = settings;
        shared.remotes.clear();
    }

    /// For one request: `stores` are those of its envelope.
    pub fn open(&self, stores: &[Store]) -> Opened {
        Opened {
            stores: self.clone(),
            opened: stores
                .iter()
                .map(|store| (store.clone(), OnceLock::new()))
                .collect(),
        }
    }

    fn remote(&self, store: &Store, now: Instant) -> Found {
        let mut shared = self.lock();
        let credential = shared.credential(store, now)?;
        shared.forget(now);
        if let Some(cached) = shared.remotes.get_mut(store)
            && cached.credential == credential
        {
            cached.used = now;
            return Ok(cached.remote.clone());
        }
        let backend = backend::build(store, credential.as_ref(), &shared.settings)?;
        let secrets = credential.as_ref().map(Credential::secrets);
        let remote = Remote::new(
            store.clone(),
            backend,
            &shared.settings,
            secrets.unwrap_or_default(),
        );
        let remote = Arc::new(remote.recording(self.unfinished.clone()));
        shared.remotes.insert(
            store.clone(),
            Cached {
                credential,
                remote: remote.clone(),
                used: now,
            },
        );
        Ok(remote)
    }

    /// A store with the options that it was last used with: those that are no part of names may have changed.
    pub(super) fn as_of_now(&self, store: &Store) -> Store {
        let root = store.root();
        let shared = self.lock();
        let known = shared
            .remotes
            .iter()
            .filter(|(known, _)| known.root() == root);
        let latest = known.max_by_key(|(_, cached)| cached.used);
        latest.map_or(store, |(known, _)| known).clone()
    }

    /// `lake.store_timeout`
    pub(super) fn timeout(&self) -> Duration {
        self.lock().settings.timeout
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// What the credentials file has for a store, now.
    fn credential(&self, store: &Store, now: Instant) -> Result<Option<Credential>, WireError> {
        let Some(name) = &store.credential else {
            return Ok(None);
        };
        let file = self.credentials.as_ref().ok_or_else(|| {
            WireError::new(
                ErrorCode::InvalidConfiguration,
                format!("there is no credentials file for credential \"{name}\""),
            )
            .hint("Set lake.credentials_file.")
        })?;
        let entries = file.entries(now)?;
        let entry = entries.get(name).ok_or_else(|| {
            let path = file.path().display();
            WireError::new(
                ErrorCode::InvalidConfiguration,
                format!("credential \"{name}\" is not in credentials file \"{path}\""),
            )
            .hint("Add an entry of that name, or correct the option credential of the tablespace.")
        })?;
        Ok(Some(match entry.credential(name, store.protocol)? {
            // With its content a change of it is noticed.
            Credential::GcsFile(path) => Credential::GcsKey(read_service_account(&path)?),
            credential => credential,
        }))
    }

    /// Makes room for another one.
    fn forget(&mut self, now: Instant) {
        self.remotes
            .retain(|_, cached| now.saturating_duration_since(cached.used) < IDLE);
        while self.remotes.len() >= REMOTES_MAX {
            let oldest = self.remotes.iter().min_by_key(|(_, cached)| cached.used);
            let Some(store) = oldest.map(|(store, _)| store.clone()) else {
                return;
            };
            self.remotes.remove(&store);
        }
    }
}

impl Opened {
    /// The store that a location is in. `InvalidConfiguration` if it can't be set up, `Internal` if it is
    /// none of the request's.
    pub fn find(&self, location: &str) -> Result<Arc<Remote>, WireError> {
        let of_store = |store: &Store| {
            let root = store.root();
            location
                .strip_prefix(root.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = self.opened.iter().find(|(store, _)| of_store(store));
        let (store, remote) = found.ok_or_else(|| {
            let message = format!("\"{location}\" is in no store of the request");
            WireError::new(ErrorCode::Internal, message)
        })?;
        remote
            .get_or_init(|| self.stores.remote(store, Instant::now()))
            .clone()
    }
}

fn credentials_file(settings: &Settings) -> Option<Arc<CredentialsFile>> {
    let path = settings.credentials_file.clone()?;
    Some(Arc::new(CredentialsFile::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn stores(credentials: &Path) -> Stores {
        let settings = Settings {
            credentials_file: Some(credentials.to_owned()),
            ..faulty::settings()
        };
        Stores::new(settings, None)
    }

    fn store(prefix: &str) -> Store {
        Store {
            prefix: prefix.into(),
            credential: Some("key".into()),
            endpoint: Some("http://127.0.0.1:1".into()),
            ..faulty::store()
        }
    }

    fn write(path: &Path, id: &str) {
        let text = format!("[key]\naccess_key_id = {id}\nsecret_access_key = hush\n");
        fs::write(path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
    }

    #[test]
    fn a_location_leads_to_its_store() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        write(&path, "me");
        let stores = stores(&path);
        let opened = stores.open(&[store("a"), store("b/c")]);
        let found = opened.find("s3://lake/b/c/7/data/1").expect("a store");
        assert_eq!(found.store().prefix, "b/c");
        let again = stores.open(&[store("b/c")]).find("s3://lake/b/c");
        assert!(again.is_ok_and(|again| Arc::ptr_eq(&again, &found)));
        let error = opened.find("s3://lake/b/cc/1").expect_err("no store");
        assert_eq!(error.code, ErrorCode::Internal);
    }

    #[test]
    fn a_new_credential_makes_a_new_client() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        write(&path, "me");
        let stores = stores(&path);
        let start = Instant::now();
        let first = stores.remote(&store(""), start).expect("a store");
        let later = |seconds| start + Duration::from_secs(seconds);
        let same = stores.remote(&store(""), later(2)).expect("a store");
        assert!(Arc::ptr_eq(&first, &same));
        write(&path, "me too");
        let second = stores.remote(&store(""), later(4)).expect("a store");
        assert!(!Arc::ptr_eq(&first, &second));
        // Nobody asks for it any more.
        let third = stores.remote(&store(""), later(4) + IDLE).expect("a store");
        assert!(!Arc::ptr_eq(&third, &second));
        fs::write(&path, "[other]\n").expect("a file");
        let error = stores
            .remote(&store(""), later(10) + IDLE)
            .expect_err("no entry");
        assert_eq!(error.code, ErrorCode::InvalidConfiguration);
    }

    #[test]
    fn options_are_those_of_the_last_use() {
        let stores = Stores::new(faulty::settings(), None);
        let ambient = Store {
            credential: None,
            ..store("a")
        };
        let moved = Store {
            endpoint: Some("http://127.0.0.1:2".into()),
            ..ambient.clone()
        };
        assert_eq!(stores.as_of_now(&ambient), ambient);
        let start = Instant::now();
        for (store, seconds) in [(&ambient, 0), (&moved, 1)] {
            let now = start + Duration::from_secs(seconds);
            stores.remote(store, now).expect("a store");
            assert_eq!(stores.as_of_now(&ambient), *store);
        }
        assert_eq!(stores.as_of_now(&store("b")), store("b"));
    }

    #[test]
    fn settings_are_for_what_is_opened_later() {
        let settings = faulty::settings();
        let stores = Stores::new(settings.clone(), None);
        let ambient = Store {
            credential: None,
            ..store("")
        };
        let opened = stores.open(std::slice::from_ref(&ambient));
        let first = opened.find("s3://lake/1").expect("a store");
        stores.set_settings(settings.clone());
        let same = stores.remote(&ambient, Instant::now()).expect("a store");
        assert!(Arc::ptr_eq(&first, &same));
        stores.set_settings(Settings {
            connections: 1,
            ..settings
        });
        let still = opened.find("s3://lake/2").expect("a store");
        assert!(Arc::ptr_eq(&first, &still));
        let other = stores.remote(&ambient, Instant::now()).expect("a store");
        assert!(!Arc::ptr_eq(&first, &other));
        let error = stores
            .remote(&store(""), Instant::now())
            .expect_err("no file");
        assert!(
            error
                .hint
                .is_some_and(|hint| hint.contains("lake.credentials_file"))
        );
    }

    #[test]
    fn the_least_used_store_makes_room() {
        let stores = Stores::new(faulty::settings(), None);
        let start = Instant::now();
        let ambient = |n: u64| Store {
            credential: None,
            ..store(&n.to_string())
        };
        let count = REMOTES_MAX as u64 + 1;
        for n in 0..count {
            let now = start + Duration::from_millis(n);
            stores.remote(&ambient(n), now).expect("a store");
        }
        let shared = stores.lock();
        assert_eq!(shared.remotes.len(), REMOTES_MAX);
        assert!(!shared.remotes.contains_key(&ambient(0)));
        assert!(shared.remotes.contains_key(&ambient(count - 1)));
    }
}
