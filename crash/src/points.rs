//! The points, in about the order in which a row meets them.

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident = $name:literal,)*) => {
        /// A place between two steps.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CrashPoint {
            $($(#[$doc])* $point,)*
        }

        /// Each point with its name in `lake.debug_crash`.
        pub const CRASH_POINTS: &[(&str, CrashPoint)] = &[$(($name, CrashPoint::$point),)*];
    };
}

points! {
    /// A table, or what takes its place, has got a storage.
    StorageCreated = "storage_created",
    /// A storage has become garbage.
    StorageDropped = "storage_dropped",
    /// What is going to be written is announced, durably.
    IntentWritten = "intent_written",

    // In an I/O worker.
    /// A data file is there, empty.
    DataFileCreated = "data_file_created",
    /// All of it is written, nothing synced.
    DataFileWritten = "data_file_written",
    /// It is synced, its directory isn't.
    DataFileSynced = "data_file_synced",
    /// Both are, nobody has been told.
    DataFileDurable = "data_file_durable",

    /// A sink has sent all rows and waits for its files.
    SinkSent = "sink_sent",
    /// They are durable and not registered.
    SinkWritten = "sink_written",
    /// Before files are registered.
    RegisterBegin = "register_begin",
    /// Files are registered.
    RegisterEnd = "register_end",

    /// A cold row has an anchor and isn't locked yet.
    AnchorInserted = "anchor_inserted",
    /// A cold row is marked as deleted.
    MarkInserted = "mark_inserted",

    /// A flush has written a file, the rows are still hot.
    FlushEncoded = "flush_encoded",
    /// It has deleted a hot row.
    FlushDeleting = "flush_deleting",
    /// It has deleted all of them.
    FlushDeleted = "flush_deleted",
    /// It has made the index entries of a row.
    EntriesInserting = "entries_inserting",
    /// It has made those of all rows.
    EntriesInserted = "entries_inserted",

    /// A merge knows which deletions are settled, and has removed the index entries of their rows.
    MergeSettled = "merge_settled",
    /// It has put the deletions in one file into the file's list, or dropped the file.
    MergeFolding = "merge_folding",
    /// It has gone through all files.
    MergeFolded = "merge_folded",

    /// A compaction has written a file, the old ones are still registered.
    CompactWritten = "compact_written",
    /// It has the locks under which the files are replaced.
    CompactLocked = "compact_locked",
    /// It has replaced them.
    CompactReplaced = "compact_replaced",

    /// `CLUSTER` has written the rows anew, the old files are still registered.
    ClusterWritten = "cluster_written",
    /// It has replaced them, the indexes aren't built.
    ClusterReplaced = "cluster_replaced",

    /// A publication is announced, the worker has not been asked.
    PublishBegin = "publish_begin",

    // In an I/O worker.
    /// A metadata or delete file, or the new hint, is there, empty.
    MetadataCreated = "metadata_created",
    /// It is written and not synced.
    MetadataWritten = "metadata_written",
    /// It is synced, its directory isn't. The last one of a publication is `metadata.json`.
    MetadataSynced = "metadata_synced",
    /// All of them are, and their directories.
    MetadataDurable = "metadata_durable",

    /// The backend has been told, the pointer has not moved.
    PublishWritten = "publish_written",
    /// The pointer has moved, in a transaction in progress.
    PublishMoved = "publish_moved",

    // In an I/O worker.
    /// The hint has been replaced, its directory isn't synced.
    HintRenamed = "hint_renamed",
    /// Both are durable, the backend has not been told.
    PublicationWritten = "publication_written",

    // In an I/O worker.
    /// A file is removed, its directory isn't synced.
    FileRemoved = "file_removed",
    /// All files of a request are removed, durably.
    FilesRemoved = "files_removed",

    /// A sweep has removed the files of an intent, which is still there.
    SweepIntent = "sweep_intent",
    /// The same for an aborted publication.
    SweepPublication = "sweep_publication",
    /// The same for garbage.
    SweepGarbage = "sweep_garbage",

    /// Before what is prepared of a transaction that has changed the catalogs of schema `lake` is durable.
    PrepareBegin = "prepare_begin",
    /// After it, and before the client hears of it.
    PrepareEnd = "prepare_end",
    /// Before the commit record of a transaction that has changed the catalogs of schema `lake`.
    CommitBegin = "commit_begin",
    /// After it, and before the client hears of it.
    CommitEnd = "commit_end",
}
