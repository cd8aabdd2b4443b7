//! zfs send and receive: a stream begins as the real ones do (sys/zfs_ioctl.h, the first record with its magic number and where
//! it comes from); the rest is the snapshot's files, as nobody else reads them.

use super::{Given, properties, tree};
use crate::state::State;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

const MAGIC: u64 = 0x2_f5ba_cbac;
/// Words of 8 bytes: type, magic, version, creation, flags, to, from.
const WORDS: usize = 7;

/// What follows the first record.
#[derive(Serialize, Deserialize)]
struct Content {
    /// The snapshot's name after the `@`.
    snapshot: String,
    entries: Vec<Entry>,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Below the dataset; empty for itself.
    path: String,
    mode: u32,
    owner: (u32, u32),
    kind: Kind,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Link(String),
}

fn guid(state: &State, snapshot: &str) -> u64 {
    properties::get(state, snapshot, "guid").0.parse().unwrap_or(0)
}

/// Writes the stream to standard output.
pub(super) fn send(state: &State, given: &Given<'_>) -> Result<(), String> {
    let [name] = given.names[..] else { return Err("missing snapshot argument".into()) };
    tree::must_be(state, name)?;
    let Some((dataset, snapshot)) = name.split_once('@') else {
        return Err(format!("cannot send '{name}': not a snapshot"));
    };
    let from = match given.value('i') {
        None => 0,
        Some(older) => {
            let older = if older.contains('@') { older.to_owned() } else { format!("{dataset}@{older}") };
            tree::must_be(state, &older)?;
            guid(state, &older)
        }
    };
    let mut entries = Vec::new();
    read(&tree::place(state, name), "", &mut entries).map_err(|e| format!("cannot send '{name}': {e}"))?;
    let words: [u64; WORDS] = [0, MAGIC, 1, 0, 0, guid(state, name), from];
    let mut stream: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let content = Content { snapshot: snapshot.to_owned(), entries };
    stream.extend(serde_json::to_vec(&content).map_err(|e| e.to_string())?);
    io::stdout().write_all(&stream).map_err(|e| format!("cannot send '{name}': {e}"))
}

fn read(root: &Path, below: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path)?;
    let kind = if meta.is_dir() {
        Kind::Directory
    } else if meta.is_symlink() {
        Kind::Link(fs::read_link(&path)?.to_string_lossy().into_owned())
    } else if meta.is_file() {
        Kind::File(fs::read(&path)?)
    } else {
        return Ok(());
    };
    entries.push(Entry { path: below.to_owned(), mode: meta.mode() & 0o7777, owner: (meta.uid(), meta.gid()), kind });
    if meta.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&path)?.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?;
        names.sort();
        for name in names {
            let name = name.to_string_lossy();
            read(root, &if below.is_empty() { name.into_owned() } else { format!("{below}/{name}") }, entries)?;
        }
    }
    Ok(())
}

fn write(root: &Path, entries: &[Entry]) -> io::Result<()> {
    for entry in entries {
        let path = root.join(&entry.path);
        match &entry.kind {
            Kind::Directory => fs::create_dir_all(&path)?,
            Kind::File(bytes) => fs::File::create(&path)?.write_all(bytes)?,
            Kind::Link(target) => symlink(target, &path)?,
        }
        let _ = lchown(&path, Some(entry.owner.0), Some(entry.owner.1));
        if !matches!(entry.kind, Kind::Link(_)) {
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))?;
        }
    }
    Ok(())
}

/// Reads a stream from standard input.
pub(super) fn receive(state: &mut State, given: &Given<'_>) -> Result<(), String> {
    let [target] = given.names[..] else { return Err("missing snapshot argument".into()) };
    let mut stream = Vec::new();
    io::stdin().read_to_end(&mut stream).map_err(|e| format!("cannot receive: {e}"))?;
    let word = |at: usize| {
        let bytes = stream.get(at * 8..at * 8 + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    };
    let (Some(MAGIC), Some(to), Some(from)) = (word(1), word(5), word(6)) else {
        return Err("cannot receive: invalid stream (bad magic number)".into());
    };
    let content: Content = serde_json::from_slice(stream.get(WORDS * 8..).unwrap_or_default())
        .map_err(|_| "cannot receive: invalid stream (checksum mismatch)".to_owned())?;
    let (name, snapshot) = target.split_once('@').unwrap_or((target, &content.snapshot));
    let failed = |e: io::Error| format!("cannot receive '{name}': {e}");
    let there = state.datasets.contains_key(name);
    if from == 0 {
        if there {
            return Err(format!(
                "cannot receive new filesystem stream: destination '{name}' exists\nmust specify -F to overwrite it"
            ));
        }
        tree::make(state, name, &given.options)?;
        if given.has('u') {
            tree::mount(state, name, false)?;
        }
    } else {
        if !there {
            return Err(format!("cannot receive incremental stream: destination '{name}' does not exist"));
        }
        let newest = tree::snapshots(state, name).pop();
        if newest.as_ref().is_none_or(|newest| guid(state, newest) != from) {
            return Err(format!(
                "cannot receive incremental stream: most recent snapshot of {name} does not\nmatch incremental source"
            ));
        }
        let mut kept = [Vec::new(), Vec::new()];
        for (of, entries) in [name, newest.as_deref().unwrap_or_default()].iter().zip(&mut kept) {
            read(&tree::place(state, of), "", entries).map_err(failed)?;
        }
        let [live, kept] = kept;
        if live != kept && !given.has('F') {
            return Err(format!(
                "cannot receive incremental stream: destination {name} has been modified\nsince most recent snapshot"
            ));
        }
    }
    tree::refill(state, name, |place| write(place, &content.entries)).map_err(failed)?;
    let full = format!("{name}@{snapshot}");
    tree::snapshot(state, &full)?;
    if let Some(made) = state.datasets.get_mut(&full) {
        made.guid = to;
    }
    Ok(())
}
