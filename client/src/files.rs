//! Manifest files named on the command line: a file, a directory, or `-` for standard input.

use crate::error::Error;
use crate::wire::{FileSet, FileText};
use reddwarf_config::Format;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Reads every file in the order given; of a directory, its manifests in name order.
pub(crate) fn read(paths: &[PathBuf]) -> Result<FileSet, Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(FileText { name: "-".into(), text: stdin()? });
        } else if path.is_dir() {
            for path in manifests(path)? {
                files.push(file(&path)?);
            }
        } else {
            files.push(file(path)?);
        }
    }
    Ok(FileSet { files })
}

fn file(path: &Path) -> Result<FileText, Error> {
    let failed = |source| Error::File { path: path.to_owned(), doing: "read", source };
    Ok(FileText { name: path.display().to_string(), text: std::fs::read_to_string(path).map_err(failed)? })
}

/// Standard input to its end.
pub(crate) fn stdin() -> Result<String, Error> {
    let mut text = String::new();
    let read = std::io::stdin().lock().read_to_string(&mut text);
    read.map_err(|source| Error::File { path: "-".into(), doing: "read", source })?;
    Ok(text)
}

/// The manifests of a directory: known extensions, no dot files.
fn manifests(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: directory.to_owned(), doing: "read", source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') && Format::of(&name).is_some() && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A path for the daemon, which works in another directory.
pub(crate) fn absolute(path: &Path) -> Result<String, Error> {
    let absolute =
        std::path::absolute(path).map_err(|source| Error::File { path: path.to_owned(), doing: "found", source })?;
    Ok(absolute.display().to_string())
}
