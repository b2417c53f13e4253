//! `lake.credentials_file` on the disk: who may read it, and when it is read again.

use super::credentials::Entries;
use pg_lake_plan::message::{ErrorCode, WireError};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A file is looked at once in that time.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// More than anybody has credentials.
const BYTES_MAX: u64 = 1 << 20;

/// The file, and what was in it when it was last looked at.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    looked: Instant,
    stamp: Option<Stamp>,
    entries: Result<Arc<Entries>, WireError>,
}

/// A file that was changed or replaced has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    mode: u32,
    owner: u32,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            mode: metadata.mode(),
            owner: metadata.uid(),
        }
    }
}

impl CredentialsFile {
    pub fn new(path: PathBuf) -> CredentialsFile {
        CredentialsFile {
            path,
            known: Mutex::new(None),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in the file at about `now`: `InvalidConfiguration` if it can't be read, others may
    /// read it, or it is malformed.
    pub fn entries(&self, now: Instant) -> Result<Arc<Entries>, WireError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*known
            && now.saturating_duration_since(known.looked) < LOOK_AFTER
        {
            return known.entries.clone();
        }
        let found = std::fs::metadata(&self.path);
        let stamp = found.as_ref().ok().map(Stamp::of);
        if let Some(known) = &mut *known
            && known.stamp.is_some()
            && known.stamp == stamp
        {
            known.looked = now;
            return known.entries.clone();
        }
        let entries = found
            .map_err(|e| self.inaccessible(&e))
            .and_then(|metadata| self.check(&metadata))
            .and_then(|()| self.read());
        known
            .insert(Known {
                looked: now,
                stamp,
                entries,
            })
            .entries
            .clone()
    }

    fn read(&self) -> Result<Arc<Entries>, WireError> {
        let mut file = File::open(&self.path).map_err(|e| self.inaccessible(&e))?;
        // It may be another one than the one that was looked at.
        let metadata = file.metadata().map_err(|e| self.inaccessible(&e))?;
        self.check(&metadata)?;
        let mut text = String::new();
        file.by_ref()
            .take(BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|e| self.inaccessible(&e))?;
        let entries = Entries::parse(&text).map_err(|malformed| {
            let message = format!(
                "line {} of credentials file \"{}\" is malformed",
                malformed.line,
                self.path.display()
            );
            invalid(message)
                .detail(malformed.reason)
                .hint("An entry is a line \"[name]\" and lines \"key = value\" below it.")
        })?;
        Ok(Arc::new(entries))
    }

    /// As `check_ssl_key_file_permissions` of Postgres checks the file of a private key.
    fn check(&self, metadata: &Metadata) -> Result<(), WireError> {
        let path = self.path.display();
        if !metadata.is_file() {
            return Err(
                invalid(format!("credentials file \"{path}\" is not a regular file"))
                    .hint("Set lake.credentials_file to the name of a file."),
            );
        }
        if metadata.size() > BYTES_MAX {
            return Err(invalid(format!("credentials file \"{path}\" is too large"))
                .detail(format!("It may have {BYTES_MAX} bytes.")));
        }
        let user = effective_user().map_err(|e| self.inaccessible(&e))?;
        let problem = match access(metadata.mode(), metadata.uid(), user) {
            Access::Ours => return Ok(()),
            Access::OtherOwner => "must be owned by the database user or root",
            Access::Open => "has group or world access",
        };
        Err(invalid(format!("credentials file \"{path}\" {problem}"))
            .detail(
                "File must have permissions u=rw (0600) or less if owned by the database user, or permissions \
                 u=rw,g=r (0640) or less if owned by root.",
            )
            .hint(format!("Use \"chmod 0600 {path}\" as the database user.")))
    }

    fn inaccessible(&self, error: &io::Error) -> WireError {
        let path = self.path.display();
        invalid(format!(
            "could not read credentials file \"{path}\": {error}"
        ))
        .hint("Check lake.credentials_file, and that the database user can read the file.")
    }
}

fn invalid(message: String) -> WireError {
    WireError::new(ErrorCode::InvalidConfiguration, message)
}

#[derive(Debug, PartialEq, Eq)]
enum Access {
    Ours,
    OtherOwner,
    /// Others may read it, or change it.
    Open,
}

/// Who can get at a file of that mode and owner, if `user` is the server's.
fn access(mode: u32, owner: u32, user: u32) -> Access {
    if owner != user && owner != 0 {
        Access::OtherOwner
    } else if (owner == user && mode & 0o077 != 0) || (owner == 0 && mode & 0o037 != 0) {
        Access::Open
    } else {
        Access::Ours
    }
}

/// The user that this process creates files as: the owner of a pipe that it has just made.
fn effective_user() -> io::Result<u32> {
    let (reader, _writer) = io::pipe()?;
    Ok(File::from(OwnedFd::from(reader)).metadata()?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_lake_plan::store::Protocol;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    fn write(path: &Path, text: &str, mode: u32) {
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(path)
            .expect("a file");
        file.set_permissions(fs::Permissions::from_mode(mode))
            .expect("permissions");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn has(file: &CredentialsFile, now: Instant, name: &str) -> bool {
        let entries = file.entries(now).expect("entries");
        entries
            .get(name)
            .is_some_and(|entry| entry.credential(name, Protocol::Azure).is_ok())
    }

    #[test]
    fn a_changed_file_is_read_again_after_a_second() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        write(&path, "[one]\nsas_token = hush\n", 0o600);
        let file = CredentialsFile::new(path.clone());
        let start = Instant::now();
        assert!(has(&file, start, "one"));
        write(&path, "[another]\nsas_token = hush\n", 0o600);
        assert!(has(&file, start + LOOK_AFTER / 2, "one"));
        assert!(has(&file, start + LOOK_AFTER, "another"));
        assert!(!has(&file, start + LOOK_AFTER, "one"));
        // An error goes as soon as the file is right again.
        write(&path, "[another]\nhush\n", 0o600);
        let error = file.entries(start + LOOK_AFTER * 2).expect_err("malformed");
        assert_eq!(error.code, ErrorCode::InvalidConfiguration);
        assert!(error.message.contains("line 2"), "{error}");
        fs::remove_file(&path).expect("removed");
        assert!(file.entries(start + LOOK_AFTER * 3).is_err());
        write(&path, "[one]\nsas_token = hush\n", 0o600);
        assert!(has(&file, start + LOOK_AFTER * 4, "one"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("credentials");
        write(&path, "[one]\nsas_token = hush\n", 0o644);
        let file = CredentialsFile::new(path.clone());
        let start = Instant::now();
        let error = file.entries(start).expect_err("refused");
        assert_eq!(error.code, ErrorCode::InvalidConfiguration);
        assert!(
            error.message.ends_with("has group or world access"),
            "{error}"
        );
        assert!(error.hint.is_some_and(|hint| hint.contains("chmod")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        assert!(has(&file, start + LOOK_AFTER, "one"));
        let error = CredentialsFile::new(directory.path().to_owned())
            .entries(start)
            .expect_err("a directory");
        assert!(error.message.ends_with("is not a regular file"), "{error}");
    }

    #[test]
    fn permissions_are_those_of_a_private_key() {
        let (us, root, other) = (1000, 0, 1001);
        for (mode, owner, expected) in [
            (0o100600, us, Access::Ours),
            (0o100400, us, Access::Ours),
            (0o100640, us, Access::Open),
            (0o100604, us, Access::Open),
            (0o100640, root, Access::Ours),
            (0o100644, root, Access::Open),
            (0o100660, root, Access::Open),
            (0o100600, other, Access::OtherOwner),
        ] {
            assert_eq!(access(mode, owner, us), expected, "{mode:o} of {owner}");
        }
    }

    #[test]
    fn the_owner_of_a_pipe_is_the_owner_of_new_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let owner = fs::metadata(directory.path()).expect("metadata").uid();
        assert_eq!(effective_user().ok(), Some(owner));
    }
}
