//! Uploads in parts on record, so that their parts go also if this process is killed before they are an object.
//!
//! A record is a local file, there from before the first part is sent until the upload has come to its end. What an
//! earlier process has left, and what failed, is aborted by a task of its own, again and again while the store is out of
//! reach, and a last time when nothing of it can be under way any more: a part that arrives after an abort stays. An
//! upload that the store has begun and never told of has no record: it has no parts.

use super::registry::Stores;
use super::remote::Remote;
use crate::runtime::blocking;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::{Store, checksum};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Between two attempts at what could not be aborted.
const PAUSE_MIN: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What can't be aborted for that long is left to the bucket's own rules.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);

/// The records of one process.
#[derive(Debug)]
pub struct Unfinished {
    directory: PathBuf,
    abandoned: Mutex<Vec<Abandoned>>,
    more: Notify,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    store: Store,
    location: String,
    id: String,
}

/// An upload that nobody goes on with.
#[derive(Debug, PartialEq)]
struct Abandoned {
    record: PathBuf,
    /// When it is to be aborted again.
    due: Option<Instant>,
    /// When all of its parts have arrived that ever will: an abort after that is the last one.
    quiet: Option<Instant>,
}

impl From<PathBuf> for Abandoned {
    fn from(record: PathBuf) -> Abandoned {
        Abandoned {
            record,
            due: None,
            quiet: None,
        }
    }
}

/// A look at what is abandoned.
#[derive(Clone, Copy, Debug)]
struct Round {
    now: Instant,
    /// How long a part can be under way that nobody waits for: `lake.store_timeout`.
    under_way: Duration,
    /// Until the next attempt at what fails.
    pause: Duration,
}

/// An upload that is under way. Dropping this leaves it to be aborted.
#[derive(Debug)]
pub(super) struct OnRecord {
    unfinished: Arc<Unfinished>,
    path: Option<PathBuf>,
}

impl Unfinished {
    /// The records of a process in `directory/uploads/<slot>`, with what earlier processes have left there. Process 1
    /// takes over those of numbers above `workers`, which nobody has any more.
    pub fn open(directory: &Path, slot: u32, workers: u32) -> io::Result<Unfinished> {
        let all = directory.join("uploads");
        let own = all.join(slot.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&own)?;
        let mut abandoned = vec![];
        for entry in fs::read_dir(&all)? {
            let entry = entry?;
            let name = entry.file_name();
            let owner: Option<u32> = name.to_str().and_then(|name| name.parse().ok());
            let is_ours = |owner: u32| owner == slot || (slot == 1 && owner > workers);
            if owner.is_some_and(is_ours) {
                for record in fs::read_dir(entry.path())? {
                    abandoned.push(record?.path().into());
                }
            }
        }
        Ok(Unfinished {
            directory: own,
            abandoned: Mutex::new(abandoned),
            more: Notify::new(),
        })
    }

    /// Puts an upload on record, durably.
    pub(super) async fn record(
        self: &Arc<Self>,
        store: &Store,
        location: &str,
        id: &str,
    ) -> Result<OnRecord, WireError> {
        let record = Record {
            store: store.clone(),
            location: location.to_owned(),
            id: id.to_owned(),
        };
        let unfinished = self.clone();
        blocking("recording an upload", move || {
            // Whoever waits for it may be gone before it is written.
            let on_record = OnRecord {
                path: Some(unfinished.directory.join(Uuid::new_v4().to_string())),
                unfinished,
            };
            on_record.write(&record).map_err(|error| {
                let message = format!("could not record the upload of \"{}\"", record.location);
                WireError::new(ErrorCode::Io, message).detail(error.to_string())
            })?;
            Ok(on_record)
        })
        .await
    }

    /// Aborts what is abandoned, as long as the process lives.
    pub async fn settle(self: Arc<Self>, stores: Stores) {
        let of_records = stores.clone();
        let find = move |record: &Record| {
            let store = of_records.as_of_now(&record.store);
            of_records.open(&[store]).find(&record.location)
        };
        let mut pause = PAUSE_MIN;
        loop {
            let round = Round {
                now: Instant::now(),
                under_way: stores.timeout(),
                pause,
            };
            let due = self.take_due(round.now);
            if due.is_empty() {
                self.wait().await;
                continue;
            }
            let (left, failed) = abort(due, &find, round).await;
            self.abandoned().extend(left);
            pause = if failed {
                (pause * 2).min(PAUSE_MAX)
            } else {
                PAUSE_MIN
            };
        }
    }

    fn take_due(&self, now: Instant) -> Vec<Abandoned> {
        let mut abandoned = self.abandoned();
        let all = std::mem::take(&mut *abandoned);
        let is_due = |upload: &Abandoned| upload.due.is_none_or(|due| due <= now);
        let (due, later) = all.into_iter().partition(is_due);
        *abandoned = later;
        due
    }

    /// Until there is more, or the first is due.
    async fn wait(&self) {
        let first = self.abandoned().iter().filter_map(|it| it.due).min();
        let more = self.more.notified();
        match first {
            Some(first) => {
                let _ = timeout_at(first, more).await;
            }
            None => more.await,
        }
    }

    fn abandoned(&self) -> MutexGuard<'_, Vec<Abandoned>> {
        self.abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl OnRecord {
    fn write(&self, record: &Record) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let content = pg_lake_plan::encode(record).map_err(|e| io::Error::other(e.to_string()))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&checksum(&content).to_le_bytes())?;
        file.write_all(&content)?;
        file.sync_all()?;
        File::open(&self.unfinished.directory)?.sync_all()
    }

    /// The upload has come to its end.
    pub fn forget(mut self) {
        if let Some(path) = self.path.take() {
            remove(&path);
        }
    }
}

impl Drop for OnRecord {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.unfinished.abandoned().push(path.into());
            self.unfinished.more.notify_one();
        }
    }
}

/// What stays is found to have come to its end when the next process of this slot starts.
fn remove(record: &Path) {
    let _ = fs::remove_file(record);
}

/// The record in a file; `None` if it is gone, or was not written to its end: no part was sent then.
fn read(path: &Path) -> io::Result<Option<Record>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some((sum, content)) = content.split_first_chunk() else {
        return Ok(None);
    };
    let is_whole = checksum(content) == u32::from_le_bytes(*sum);
    Ok(pg_lake_plan::decode(content).ok().filter(|_| is_whole))
}

/// Aborts uploads. Returns those that have to be aborted again, and whether any of them failed.
async fn abort<F>(uploads: Vec<Abandoned>, find: &F, round: Round) -> (Vec<Abandoned>, bool)
where
    F: Fn(&Record) -> Result<Arc<Remote>, WireError> + Sync,
{
    let mut left = vec![];
    let mut any_failed = false;
    // A store that is out of reach is asked once.
    let mut without = vec![];
    for mut upload in uploads {
        let path = &upload.record;
        let quiet = *upload.quiet.get_or_insert(round.now + round.under_way);
        let record = match read(path) {
            Ok(Some(record)) => record,
            Ok(None) => {
                remove(path);
                continue;
            }
            Err(error) => {
                tracing::warn!(target: "pg_lake", "could not read \"{}\": {error}", path.display());
                any_failed = true;
                upload.due = Some(round.now + round.pause);
                left.push(upload);
                continue;
            }
        };
        let root = record.store.root();
        if !without.contains(&root) {
            let aborted = match find(&record) {
                Ok(remote) => remote.abort(&record.location, &record.id).await,
                Err(error) => Err(error),
            };
            let Err(error) = aborted else {
                if round.now >= quiet {
                    remove(path);
                } else {
                    upload.due = Some(quiet);
                    left.push(upload);
                }
                continue;
            };
            tracing::info!(target: "pg_lake", "parts of \"{}\" are removed later: {error}", record.location);
            without.push(root);
        }
        if is_old(path) {
            tracing::warn!(target: "pg_lake", "parts of \"{}\" are left in the store", record.location);
            remove(path);
        } else {
            any_failed = true;
            upload.due = Some(round.now + round.pause);
            left.push(upload);
        }
    }
    (left, any_failed)
}

fn is_old(record: &Path) -> bool {
    let written = fs::metadata(record).and_then(|file| file.modified());
    written.is_ok_and(|at| {
        let age = SystemTime::now().duration_since(at);
        age.is_ok_and(|age| age > PATIENCE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{self, Fault, Faulty, Op};
    use tempfile::NamedTempFile;
    use tokio_util::sync::CancellationToken;

    const LOCATION: &str = "s3://lake/t/data/1.parquet";
    /// Two parts.
    const SIZE: u64 = 10 << 20;

    fn open(directory: &Path) -> Arc<Unfinished> {
        Arc::new(Unfinished::open(directory, 2, 2).expect("opened"))
    }

    fn remote(faulty: &Arc<Faulty>, unfinished: &Arc<Unfinished>) -> Arc<Remote> {
        let remote = faulty.remote(faulty::store(), &faulty::settings());
        Arc::new(remote.recording(Some(unfinished.clone())))
    }

    fn file() -> NamedTempFile {
        let file = NamedTempFile::new().expect("a file");
        file.as_file().set_len(SIZE).expect("a length");
        file
    }

    fn records(directory: &Path) -> usize {
        let own = directory.join("uploads/2");
        fs::read_dir(own).expect("listed").count()
    }

    /// As the task does it, once, for all.
    async fn round(unfinished: &Unfinished, remote: &Arc<Remote>, round: Round) -> usize {
        let abandoned = std::mem::take(&mut *unfinished.abandoned());
        let find = |_: &Record| Ok(remote.clone());
        let (left, _) = abort(abandoned, &find, round).await;
        let number = left.len();
        unfinished.abandoned().extend(left);
        number
    }

    /// When nothing is under way.
    async fn settled(unfinished: &Unfinished, remote: &Arc<Remote>) -> usize {
        let quiet = Round {
            now: Instant::now(),
            under_way: Duration::ZERO,
            pause: Duration::ZERO,
        };
        round(unfinished, remote, quiet).await
    }

    #[tokio::test]
    async fn the_next_process_aborts_what_a_killed_one_has_left() {
        let directory = tempfile::tempdir().expect("a directory");
        let faulty = Arc::new(Faulty::default());
        let killed = remote(&faulty, &open(directory.path()));
        faulty.fail(Op::Part, &[Fault::Hang; 2]);
        let upload = tokio::spawn(async move {
            let (file, cancel) = (file(), CancellationToken::new());
            killed.put_file(LOCATION, file.path(), SIZE, &cancel).await
        });
        while faulty.seen(Op::Part) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!((faulty.uploads(), records(directory.path())), (1, 1));

        let next = open(directory.path());
        let remote = remote(&faulty, &next);
        faulty.fail(Op::Abort, &[Fault::Denied]);
        assert_eq!(settled(&next, &remote).await, 1, "the store refuses");
        assert_eq!((faulty.uploads(), records(directory.path())), (1, 1));
        assert_eq!(settled(&next, &remote).await, 0);
        assert_eq!((faulty.uploads(), records(directory.path())), (0, 0));
        upload.abort();
    }

    #[tokio::test]
    async fn an_upload_that_has_an_end_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let faulty = Arc::new(Faulty::default());
        let unfinished = open(directory.path());
        let remote = remote(&faulty, &unfinished);
        let (file, cancel) = (file(), CancellationToken::new());
        let put = |location| remote.put_file(location, file.path(), SIZE, &cancel);
        put(LOCATION).await.expect("uploaded");
        assert_eq!(records(directory.path()), 0);
        // One that fails, and can't be aborted at once.
        faulty.fail(Op::Part, &[Fault::Denied]);
        faulty.fail(Op::Abort, &[Fault::Reset]);
        put("s3://lake/t/data/2.parquet").await.expect_err("denied");
        unfinished.more.notified().await;
        assert_eq!((faulty.uploads(), records(directory.path())), (1, 1));
        assert_eq!(settled(&unfinished, &remote).await, 0);
        assert_eq!((faulty.uploads(), records(directory.path())), (0, 0));
    }

    #[tokio::test]
    async fn parts_that_arrive_after_an_abort_go_with_the_next_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let faulty = Arc::new(Faulty::default());
        let unfinished = open(directory.path());
        let remote = remote(&faulty, &unfinished);
        let (file, cancel) = (file(), CancellationToken::new());
        faulty.fail(Op::Part, &[Fault::Denied]);
        let put = remote.put_file(LOCATION, file.path(), SIZE, &cancel);
        put.await.expect_err("denied");
        unfinished.more.notified().await;
        assert_eq!((faulty.uploads(), records(directory.path())), (0, 1));

        faulty.late_part("1");
        let first = Round {
            now: Instant::now(),
            under_way: Duration::from_secs(60),
            pause: PAUSE_MIN,
        };
        assert_eq!(round(&unfinished, &remote, first).await, 1);
        assert_eq!((faulty.uploads(), records(directory.path())), (0, 1));
        assert!(unfinished.take_due(first.now).is_empty());

        faulty.late_part("1");
        let last = Round {
            now: first.now + first.under_way,
            ..first
        };
        assert_eq!(round(&unfinished, &remote, last).await, 0);
        assert_eq!((faulty.uploads(), records(directory.path())), (0, 0));
    }

    #[tokio::test]
    async fn records_that_are_not_whole_go_and_those_of_former_slots_are_taken_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let unfinished = open(directory.path());
        let store = faulty::store();
        let on_record = unfinished.record(&store, LOCATION, "7").await;
        let path = on_record
            .expect("recorded")
            .path
            .take()
            .expect("a path, which is left");
        let record = read(&path).expect("readable").expect("a record");
        assert_eq!((record.store, record.id.as_str()), (store, "7"));
        let whole = fs::read(&path).expect("readable");
        fs::write(&path, &whole[..whole.len() - 1]).expect("written");
        assert_eq!(read(&path).expect("readable"), None);

        let first = Unfinished::open(directory.path(), 1, 2).expect("opened");
        assert!(first.abandoned().is_empty(), "slot 2 has a process");
        let first = Unfinished::open(directory.path(), 1, 1).expect("opened");
        assert_eq!(*first.abandoned(), [Abandoned::from(path)]);
        let remote = remote(&Arc::new(Faulty::default()), &unfinished);
        assert_eq!(settled(&first, &remote).await, 0);
        assert_eq!(records(directory.path()), 0);
    }
}
