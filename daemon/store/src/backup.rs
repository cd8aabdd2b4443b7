//! Copies of the whole store: backup, restore, and putting back a file that was deleted under a running daemon.

use crate::file::{self, Lock};
use crate::migrate::{MIGRATIONS, migrate};
use crate::open::{self, Level, OpenFile};
use crate::read;
use crate::shared::{Shared, State};
use crate::tables::{self, COMMITS, CONTENT_RUNS, CONTENTS, FORMAT, GENERATIONS, HISTORY, META, OBJECTS, meta};
use crate::{CommitRecord, Revision, StoreError, StoreOptions};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

fn db<E: Into<redb::Error>>(e: E) -> StoreError {
    StoreError::db("copy the store")(e)
}

/// Writes a consistent copy to `to`, complete before it gets its name.
pub(crate) fn backup(shared: &Shared, to: &Path) -> Result<Revision, StoreError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(StoreError::Exists { path: to.to_owned() });
    }
    let temporary = file::beside(to, &format!(".incomplete-{}", std::process::id()));
    file::remove_leftover(&temporary)?;
    let done = copy_open(shared, &temporary).and_then(|revision| {
        file::rename_new(&temporary, to)?;
        Ok(revision)
    });
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// Copies the newest snapshot into a new file. The snapshot is read without holding up writers or reopening.
fn copy_open(shared: &Shared, to: &Path) -> Result<Revision, StoreError> {
    let txn = shared.with_database(|d| d.begin_read().map_err(db))?;
    let (revision, _) = read::bounds(&txn)?;
    let database = open::create_at(to, &StoreOptions { backend: None, ..shared.options.clone() }, 0)?;
    let target = database.begin_write().map_err(db)?;
    copy_table(&txn, &target, META)?;
    copy_table(&txn, &target, OBJECTS)?;
    copy_table(&txn, &target, COMMITS)?;
    copy_table(&txn, &target, HISTORY)?;
    copy_table(&txn, &target, GENERATIONS)?;
    copy_table(&txn, &target, CONTENTS)?;
    copy_table(&txn, &target, CONTENT_RUNS)?;
    target.commit().map_err(db)?;
    drop(database);
    sync(to)?;
    Ok(revision)
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    let source = from.open_table(definition).map_err(db)?;
    let mut target = to.open_table(definition).map_err(db)?;
    for item in source.iter().map_err(db)? {
        let (key, value) = item.map_err(db)?;
        target.insert(key.value(), value.value()).map_err(db)?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), StoreError> {
    fs::File::open(path).and_then(|f| f.sync_all()).map_err(StoreError::io("sync", path))
}

/// Copies a backup beside `path`, checks all of it, migrates it, and moves its revision beyond `known`, so that no
/// revision that a client has seen gets another meaning: watches from before the restore are told `Compacted`.
fn prepare(backup: &Path, path: &Path, known: Revision, options: &StoreOptions) -> Result<PathBuf, StoreError> {
    let plain = StoreOptions { backend: None, ..options.clone() };
    let copy = file::beside(path, ".restoring");
    file::remove_leftover(&copy)?;
    let mut source = fs::File::open(backup).map_err(StoreError::io("open the backup", backup))?;
    let mut target = file::create_private(&copy)?;
    io::copy(&mut source, &mut target).map_err(StoreError::io("copy the backup to", &copy))?;
    drop(target);
    let ready = checked(&copy, backup, &plain).and_then(|database| advance(&database, backup, known, &plain));
    match ready.and_then(|()| sync(&copy)) {
        Ok(()) => Ok(copy),
        Err(e) => {
            let _ = fs::remove_file(&copy);
            Err(e)
        }
    }
}

fn checked(copy: &Path, backup: &Path, options: &StoreOptions) -> Result<Database, StoreError> {
    let invalid = |why| StoreError::Invalid { path: backup.to_owned(), why };
    match open::open_file(copy, options, Level::Everything)? {
        OpenFile::Usable { database, format } if format == FORMAT => Ok(database),
        OpenFile::Usable { format, .. } if format > FORMAT => {
            Err(StoreError::NewerFormat { path: backup.to_owned(), found: format, known: FORMAT })
        }
        OpenFile::Usable { database, format } => {
            drop(database);
            migrate(copy, format, MIGRATIONS, options)?;
            match open::open_file(copy, options, Level::Everything)? {
                OpenFile::Usable { database, .. } => Ok(database),
                OpenFile::Unusable(why) => Err(invalid(why)),
            }
        }
        OpenFile::Unusable(why) => Err(invalid(why)),
    }
}

fn advance(database: &Database, backup: &Path, known: Revision, options: &StoreOptions) -> Result<(), StoreError> {
    let txn = database.begin_write().map_err(db)?;
    {
        let mut counters = txn.open_table(META).map_err(db)?;
        let own = counters.get(meta::REVISION).map_err(db)?.map_or(0, |v| v.value());
        let revision = own.max(known.0) + 1;
        let record = CommitRecord {
            revision: Revision(revision),
            parent: (own > 0).then_some(Revision(own)),
            author: "restore".to_owned(),
            message: format!("restored from {}", backup.display()),
            time: (options.clock)(),
            changes: Vec::new(),
            generation: None,
        };
        let bytes = tables::to_json("a commit record", &record)?;
        let mut commits = txn.open_table(COMMITS).map_err(db)?;
        commits.insert(revision, bytes.as_slice()).map_err(db)?;
        counters.insert(meta::REVISION, revision).map_err(db)?;
        counters.insert(meta::COMPACTED, revision).map_err(db)?;
    }
    txn.commit().map_err(db)
}

/// Replaces the store at `path`, which nobody has open. Gives where the old file is kept, if there was one.
pub(crate) fn restore(backup: &Path, path: &Path, options: &StoreOptions) -> Result<Option<PathBuf>, StoreError> {
    let _lock = Lock::take(path)?;
    let present = fs::symlink_metadata(path).is_ok();
    let known = if present { last_revision(path, options) } else { Revision::ZERO };
    let copy = prepare(backup, path, known, options)?;
    if !present {
        file::rename_new(&copy, path)?;
        return Ok(None);
    }
    let aside = file::free_name(path, &format!(".before-restore-{}", file::stamp((options.clock)())));
    file::replace_keeping(&copy, path, &aside)?;
    Ok(Some(aside))
}

/// The revision of a file that is about to be replaced; when it can't be read, one that it can't have passed.
fn last_revision(path: &Path, options: &StoreOptions) -> Revision {
    let unknown = || Revision(u64::try_from((options.clock)().timestamp_millis()).unwrap_or(0));
    match open::open_file(path, options, Level::Quick) {
        Ok(OpenFile::Usable { database, .. }) => {
            let txn = database.begin_read().ok();
            txn.and_then(|t| read::bounds(&t).ok()).map_or_else(unknown, |(revision, _)| revision)
        }
        Ok(OpenFile::Unusable(_)) | Err(_) => unknown(),
    }
}

/// The same for a store that is open, on its writer's thread.
pub(crate) fn restore_open(shared: &Shared, backup: &Path) -> Result<PathBuf, StoreError> {
    let copy = prepare(backup, &shared.path, shared.revision(), &shared.options)?;
    let aside = shared.aside("before-restore");
    let mut state = shared.exclusive();
    file::replace_keeping(&copy, &shared.path, &aside)?;
    reload(shared, &mut state)?;
    tracing::warn!(backup = %backup.display(), kept = %aside.display(), "the store was restored from a backup");
    Ok(aside)
}

/// The file was deleted or replaced while we have it open: what we hold is the truth, so it gets its name back.
pub(crate) fn put_back(shared: &Shared) -> Result<(), StoreError> {
    let copy = file::beside(&shared.path, ".restoring");
    file::remove_leftover(&copy)?;
    copy_open(shared, &copy)?;
    let mut state = shared.exclusive();
    if fs::symlink_metadata(&shared.path).is_ok() {
        let aside = shared.aside("foreign");
        fs::rename(&shared.path, &aside).map_err(StoreError::io("move aside", &shared.path))?;
        tracing::error!(path = %shared.path.display(), moved_to = %aside.display(), "somebody replaced the store; moved aside");
    }
    fs::rename(&copy, &shared.path).map_err(StoreError::io("put back", &shared.path))?;
    file::sync_parent(&shared.path)?;
    tracing::error!(path = %shared.path.display(), "the store was deleted while in use and has been written again");
    reload(shared, &mut state)
}

/// Goes on with the file that has the name now.
fn reload(shared: &Shared, state: &mut State) -> Result<(), StoreError> {
    *state = State::Broken(StoreError::Writer("is opening the file again".to_owned()));
    let opened = match open::open_file(&shared.path, &shared.options, Level::Quick) {
        Ok(OpenFile::Usable { database, .. }) => shared.adopt(state, database),
        Ok(OpenFile::Unusable(why)) => Err(StoreError::Invalid { path: shared.path.clone(), why }),
        Err(e) => Err(e),
    };
    if let Err(e) = &opened {
        *state = State::Broken(e.clone());
    }
    opened
}
