//! From older formats of the tables to the present one.

use crate::file;
use crate::open::{Level, OpenFile, open_file};
use crate::tables::{FORMAT, META, meta};
use crate::{StoreError, StoreOptions};
use redb::WriteTransaction;
use std::fs;
use std::path::Path;

/// One step: rewrites the tables of format `from` as those of `from + 1`, in one transaction.
#[derive(Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) from: u64,
    pub(crate) run: fn(&WriteTransaction) -> Result<(), StoreError>,
}

/// All steps, oldest first. Format 1 is the first there is.
pub(crate) const MIGRATIONS: &[Migration] = &[];

/// Brings the file at `path` from `found` to [`FORMAT`]: on a copy, which then takes the file's name in one step. The
/// old file stays as `<path>.format-<found>`.
pub(crate) fn migrate(path: &Path, found: u64, steps: &[Migration], options: &StoreOptions) -> Result<(), StoreError> {
    let copy = file::beside(path, ".migrating");
    file::remove_leftover(&copy)?;
    drop(file::create_private(&copy)?);
    fs::copy(path, &copy).map_err(StoreError::io("copy the store to", &copy))?;
    let database = match open_file(&copy, options, Level::Everything)? {
        OpenFile::Usable { database, .. } => database,
        OpenFile::Unusable(why) => return Err(StoreError::Invalid { path: copy, why }),
    };
    for format in found..FORMAT {
        let why = || format!("there is no way from store format {format} to {}", format + 1);
        let step = steps.iter().find(|s| s.from == format);
        let step = step.ok_or_else(|| StoreError::Invalid { path: path.to_owned(), why: why() })?;
        let txn = database.begin_write().map_err(StoreError::db("begin a migration"))?;
        (step.run)(&txn)?;
        {
            let mut table = txn.open_table(META).map_err(StoreError::db("open a table"))?;
            table.insert(meta::FORMAT, format + 1).map_err(StoreError::db("write the format"))?;
        }
        txn.commit().map_err(StoreError::db("commit a migration"))?;
    }
    drop(database);
    let aside = file::free_name(path, &format!(".format-{found}"));
    file::replace_keeping(&copy, path, &aside)?;
    tracing::info!(path = %path.display(), from = found, to = FORMAT, kept = %aside.display(), "store migrated");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::open_with;
    use crate::tables::OBJECTS;
    use redb::{Database, ReadableDatabase};
    use std::sync::Arc;

    fn options() -> StoreOptions {
        StoreOptions::new(Arc::new(|| chrono::DateTime::UNIX_EPOCH))
    }

    /// A file of an imagined format 0, whose values had no header.
    fn format_zero(path: &Path) {
        let database = Database::create(path).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(META).unwrap().insert(meta::FORMAT, 0).unwrap();
        txn.open_table(OBJECTS).unwrap().insert("a", b"old".as_slice()).unwrap();
        txn.commit().unwrap();
    }

    const STEPS: &[Migration] = &[Migration {
        from: 0,
        run: |txn| {
            let mut objects = txn.open_table(OBJECTS).map_err(StoreError::db("migrate"))?;
            let header = crate::tables::Header { created: 1, modified: 1, version: 1 };
            let new = crate::tables::encode_entry(header, b"new");
            objects.insert("a", new.as_slice()).map_err(StoreError::db("migrate"))?;
            Ok(())
        },
    }];

    #[test]
    fn an_older_format_is_migrated_and_the_old_file_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        format_zero(&path);
        let ready = open_with(&path, &options(), STEPS).unwrap();
        assert_eq!(ready.recovery, None);
        let txn = ready.database.begin_read().unwrap();
        let stored = txn.open_table(OBJECTS).unwrap().get("a").unwrap().unwrap().value().to_vec();
        assert_eq!(crate::tables::entry("a", &stored).unwrap().value.as_ref(), b"new");
        let kept = Database::open(dir.path().join("s.format-0")).unwrap();
        let old = kept.begin_read().unwrap().open_table(OBJECTS).unwrap().get("a").unwrap().unwrap().value().to_vec();
        assert_eq!(old, b"old");
    }

    #[test]
    fn a_failed_migration_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        format_zero(&path);
        let fails = [Migration { from: 0, run: |_| Err(StoreError::Writer("stumbled".to_owned())) }];
        assert!(open_with(&path, &options(), &fails).is_err());
        let none = open_with(&path, &options(), &[]).unwrap_err();
        assert!(none.to_string().ends_with("there is no way from store format 0 to 1"), "{none}");
        assert!(open_with(&path, &options(), STEPS).is_ok());
    }
}
