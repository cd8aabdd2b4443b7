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
