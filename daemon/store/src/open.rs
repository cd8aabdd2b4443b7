//! Opening the file: lock, leftovers, damage, migration, a new one where there is none.

use crate::file::{self, Lock};
use crate::migrate::{MIGRATIONS, Migration, migrate};
use crate::tables::{self, COMMITS, CONTENT_RUNS, CONTENTS, FORMAT, GENERATIONS, HISTORY, META, OBJECTS, meta};
use crate::{Recovery, StoreError, StoreOptions};
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageError};
use std::cell::Cell;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

/// How much of a file is checked when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Every checksum when the file is at most `verify_bytes` long.
    Usual,
    /// Every checksum.
    Everything,
    /// What redb checks itself: for reopening after a disk failure, which must be quick.
    Quick,
}

/// What opening a file gives.
pub(crate) enum OpenFile {
    /// A store of this format.
    Usable { database: Database, format: u64 },
    /// Not one; why.
    Unusable(String),
}

/// A store file, ready, with the lock on it.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) database: Database,
    pub(crate) lock: Lock,
    pub(crate) recovery: Option<Recovery>,
}

/// Opens or makes the store at `path`.
pub(crate) fn open(path: &Path, options: &StoreOptions) -> Result<Ready, StoreError> {
    open_with(path, options, MIGRATIONS)
}

pub(crate) fn open_with(path: &Path, options: &StoreOptions, steps: &[Migration]) -> Result<Ready, StoreError> {
    let dir = file::parent(path);
    fs::create_dir_all(dir).map_err(StoreError::io("create the directory", dir))?;
    let lock = Lock::take(path)?;
    for suffix in [".new", ".migrating", ".restoring"] {
        file::remove_leftover(&file::beside(path, suffix))?;
    }
    if matches!(fs::symlink_metadata(path), Err(e) if e.kind() == io::ErrorKind::NotFound) {
        let database = create(path, options, 0)?;
        return Ok(Ready { database, lock, recovery: None });
    }
    let why = match open_file(path, options, Level::Usual)? {
        OpenFile::Usable { database, format } if format == FORMAT => {
            return Ok(Ready { database, lock, recovery: None });
        }
        OpenFile::Usable { format, .. } if format > FORMAT => {
            return Err(StoreError::NewerFormat { path: path.to_owned(), found: format, known: FORMAT });
        }
        OpenFile::Usable { database, format } => {
            drop(database);
            migrate(path, format, steps, options)?;
            match open_file(path, options, Level::Usual)? {
                OpenFile::Usable { database, .. } => return Ok(Ready { database, lock, recovery: None }),
                OpenFile::Unusable(why) => why,
            }
        }
        OpenFile::Unusable(why) => why,
    };
    let recovery = move_aside(path, options, why)?;
    // Revisions of the lost file must not come again with another meaning. Its last one is not known, so the new file
    // counts on from the time in milliseconds, which is ahead of any store that made less than 1,000 commits a second.
    let base = u64::try_from((options.clock)().timestamp_millis()).unwrap_or(0);
    let database = create(path, options, base)?;
    Ok(Ready { database, lock, recovery: Some(recovery) })
}

fn move_aside(path: &Path, options: &StoreOptions, why: String) -> Result<Recovery, StoreError> {
    let moved_to = file::free_name(path, &format!(".corrupt-{}", file::stamp((options.clock)())));
    fs::rename(path, &moved_to).map_err(StoreError::io("move the unusable store to", &moved_to))?;
    file::sync_parent(path)?;
    let recovery = Recovery { moved_to, why };
    tracing::error!(path = %path.display(), "{recovery}");
    Ok(recovery)
}

/// Opens an existing file. Disk errors are errors; whatever is wrong with the contents is `Unusable`.
pub(crate) fn open_file(path: &Path, options: &StoreOptions, level: Level) -> Result<OpenFile, StoreError> {
    let file = file::open_existing(path).map_err(StoreError::io("open", path))?;
    let metadata = file.metadata().map_err(StoreError::io("examine", path))?;
    if !metadata.is_file() {
        return Ok(OpenFile::Unusable("it is not a regular file".to_owned()));
    }
    if metadata.len() == 0 {
        return Ok(OpenFile::Unusable("it is empty".to_owned()));
    }
    let verify = match level {
        Level::Quick => false,
        Level::Usual => metadata.len() <= options.verify_bytes,
        Level::Everything => true,
    };
    // redb is written to return errors, but a file can be damaged in more ways than anyone has tried.
    match catch_unwind(AssertUnwindSafe(|| open_checked(path, file, options, verify))) {
        Ok(result) => result,
        Err(_) => Ok(OpenFile::Unusable("redb gave up on its contents".to_owned())),
    }
}

fn open_checked(path: &Path, file: fs::File, options: &StoreOptions, verify: bool) -> Result<OpenFile, StoreError> {
    let (mut database, repaired) = match build(path, file, options) {
        Ok(built) => built,
        Err(e) => return unusable(path, e),
    };
    // Repairing after a crash means to verify everything.
    if verify
        && !repaired
        && let Err(e) = database.check_integrity()
    {
        return unusable(path, e);
    }
    match format(&database) {
        Ok(Some(format)) => Ok(OpenFile::Usable { database, format }),
        Ok(None) => Ok(OpenFile::Unusable("it is a redb file, but not a store".to_owned())),
        Err(StoreError::Database { source, .. }) => match *source {
            redb::Error::Corrupted(ref why) => Ok(OpenFile::Unusable(why.clone())),
            _ => Err(StoreError::Database { op: "read the store", source }),
        },
        Err(e) => Err(e),
    }
}

/// Sorts redb's errors: the contents' fault, or not.
fn unusable(path: &Path, error: DatabaseError) -> Result<OpenFile, StoreError> {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            Err(StoreError::Locked { path: path.to_owned(), holder: "another process".to_owned() })
        }
        DatabaseError::Storage(StorageError::Corrupted(why)) => Ok(OpenFile::Unusable(why)),
        DatabaseError::Storage(StorageError::Io(e))
            if matches!(
                e.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(OpenFile::Unusable(e.to_string()))
        }
        DatabaseError::UpgradeRequired(version) => {
            Ok(OpenFile::Unusable(format!("its redb file format {version} is too old to be read")))
        }
        DatabaseError::RepairAborted => Ok(OpenFile::Unusable("it could not be repaired".to_owned())),
        other => Err(StoreError::db("open the store")(other)),
    }
}

/// The database, and whether it had to be repaired, as after a crash.
fn build(path: &Path, file: fs::File, options: &StoreOptions) -> Result<(Database, bool), DatabaseError> {
    let repaired = Rc::new(Cell::new(false));
    let mut builder = Database::builder();
    let seen = repaired.clone();
    builder.set_cache_size(options.cache_bytes).set_repair_callback(move |_| seen.set(true));
    let database = match &options.backend {
        None => builder.create_with_backend(FileBackend::new(file)?),
        Some(factory) => builder.create_with_backend(crate::backend::Backend(factory(path, file)?)),
    };
    Ok((database?, repaired.get()))
}

/// The format of the tables; absent when there are none.
fn format(database: &Database) -> Result<Option<u64>, StoreError> {
    let txn = database.begin_read().map_err(StoreError::db("read the store"))?;
    let table = match txn.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::Storage(e)) => return Err(StoreError::db("read the store")(e)),
        Err(_) => return Ok(None),
    };
    let format = table.get(meta::FORMAT).map_err(StoreError::db("read the store"))?.map(|v| v.value());
    if format == Some(FORMAT) {
        // Decodable at both ends is all that can be asked in constant time.
        let objects = txn.open_table(OBJECTS).map_err(StoreError::db("read the store"))?;
        for end in [objects.first(), objects.last()] {
            if let Some((key, value)) = end.map_err(StoreError::db("read the store"))? {
                tables::decode_entry(key.value(), value.value())?;
            }
        }
    }
    Ok(format)
}

/// Makes an empty store whose revisions start after `base`, complete before it gets its name.
fn create(path: &Path, options: &StoreOptions, base: u64) -> Result<Database, StoreError> {
    let new = file::beside(path, ".new");
    file::remove_leftover(&new)?;
    let database = create_at(&new, options, base)?;
    fs::rename(&new, path).map_err(StoreError::io("name the new store", path))?;
    file::sync_parent(path)?;
    Ok(database)
}

/// Makes an empty store under exactly this name, which must not exist.
pub(crate) fn create_at(path: &Path, options: &StoreOptions, base: u64) -> Result<Database, StoreError> {
    let file = file::create_private(path)?;
    let (database, _) = build(path, file, options).map_err(StoreError::db("create the store"))?;
    let txn = database.begin_write().map_err(StoreError::db("create the store"))?;
    {
        let open = |e| StoreError::db::<redb::TableError>("create a table")(e);
        let mut table = txn.open_table(META).map_err(open)?;
        for (name, value) in [(meta::FORMAT, FORMAT), (meta::REVISION, base), (meta::COMPACTED, base)] {
            table.insert(name, value).map_err(StoreError::db("create the store"))?;
        }
        txn.open_table(OBJECTS).map_err(open)?;
        txn.open_table(COMMITS).map_err(open)?;
        txn.open_table(HISTORY).map_err(open)?;
        txn.open_table(GENERATIONS).map_err(open)?;
        txn.open_table(CONTENTS).map_err(open)?;
        txn.open_table(CONTENT_RUNS).map_err(open)?;
    }
    txn.commit().map_err(StoreError::db("create the store"))?;
    Ok(database)
}

/// Counters at opening: how many commits there are and how many bytes of history.
pub(crate) fn history_size(database: &Database) -> Result<(u64, u64), StoreError> {
    let read = || -> Result<(u64, u64), redb::Error> {
        let txn = database.begin_read()?;
        let commits = txn.open_table(COMMITS)?.len()?;
        let bytes = txn.open_table(META)?.get(meta::HISTORY_BYTES)?.map_or(0, |v| v.value());
        Ok((commits, bytes))
    };
    read().map_err(StoreError::db("read the store"))
}
