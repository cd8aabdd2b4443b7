//! Taking in what `zfs send` wrote.

use super::properties::{limit_properties, mark, tuning_properties};
use super::{CHANGE, LONG, MARKS, STAGED, ZfsEngine, invalid, text};
use crate::tree::{DATA, NO_BASE, first_difference, io_error, newer_than, written_since};
use reddwarf_command::{CommandError, Invocation, Tool};
use reddwarf_host::{DatasetSpec, HostError, HostErrorKind, HostResult, SnapshotId, SnapshotName, StorageEngine};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

impl ZfsEngine {
    pub(super) async fn receive_new(&self, file: &Path, to: &SnapshotId, spec: &DatasetSpec) -> HostResult<()> {
        const OP: &str = "receive dataset";
        let staged_name = format!("{STAGED}{}", to.dataset.name);
        let staged = self.area(to.dataset.area).child(&staged_name);
        let staged = staged.map_err(|e| invalid(OP, &to.to_string(), e.to_string()))?;
        self.destroy_alone(OP, &staged).await?;
        let made = async {
            self.stream_in(file, vec!["receive", "-u", staged.as_str()]).await?;
            self.name_arrived(&staged, &to.name).await?;
            let mut properties = limit_properties(&spec.limits);
            properties.extend(tuning_properties(OP, to, &spec.tuning)?);
            properties.insert(MARKS.to_owned(), mark(OP, &to.dataset, spec)?);
            self.set(OP, &staged, properties).await?;
            let name = self.dataset(&to.dataset)?;
            let rename = Invocation::change(Tool::Zfs, ["rename", staged.as_str(), name.as_str()]).within(CHANGE);
            self.patiently(OP, name.as_str(), rename).await
        };
        if let Err(error) = made.await {
            self.discard(OP, &staged).await;
            return Err(error);
        }
        let name = self.dataset(&to.dataset)?;
        self.mount(OP, &name).await?;
        let data = self.data(&to.dataset);
        if !fs::symlink_metadata(&data).is_ok_and(|m| m.is_dir()) {
            self.destroy_alone(OP, &name).await?;
            let message = "the stream holds no volume of ours: it has no directory `data`";
            return Err(invalid(OP, &file.display().to_string(), message));
        }
        Ok(())
    }

    /// Receives an increment where it brings nothing but what is newer: it must be made since the newest snapshot, and nothing may
    /// have been written since that.
    pub(super) async fn receive_since(&self, file: &Path, to: &SnapshotId, brings: u64, since: u64) -> HostResult<()> {
        const OP: &str = "receive dataset";
        let conflict = |message: String| Err(HostError::new(HostErrorKind::Conflict, OP, to.to_string(), message));
        let name = self.dataset(&to.dataset)?;
        let found = self.get(&name, true, "guid").await?;
        let snapshot = |(found, properties): &(String, BTreeMap<String, text::Property>)| {
            let snapshot = found.strip_prefix(name.as_str())?.strip_prefix('@')?.to_owned();
            Some((snapshot, properties.get("guid")?.value.parse::<u64>().ok()?))
        };
        let snapshots: Vec<(String, u64)> = found.iter().filter_map(snapshot).collect();
        // Received before, and cut off before it had its name.
        if snapshots.last().is_none_or(|(_, guid)| *guid != brings) {
            let Some(base) = snapshots.iter().position(|(_, guid)| *guid == since) else {
                return conflict(NO_BASE.to_owned());
            };
            let (older, newer) = snapshots.split_at(base + 1);
            let newer: Vec<&String> = newer.iter().map(|(name, _)| name).collect();
            let base = older.last().map(|(name, _)| name.as_str()).unwrap_or_default();
            if !newer.is_empty() {
                return conflict(newer_than(base, &newer));
            }
            self.receive_onto(file, to, &name, base).await?;
        }
        self.name_arrived(&name, &to.name).await?;
        self.remount(OP, &name).await
    }

    /// Receives what was made since the newest snapshot.
    pub(super) async fn receive_onto(
        &self,
        file: &Path,
        to: &SnapshotId,
        name: &text::Dataset,
        base: &str,
    ) -> HostResult<()> {
        match self.stream_in(file, vec!["receive", name.as_str()]).await {
            Err(e) if e.kind == HostErrorKind::Conflict && e.message.contains("has been modified") => {}
            other => return other,
        }
        // That files were read is a change, too, for ZFS.
        let Some(path) = self.changed_since(to, name, base).await? else {
            return self.stream_in(file, vec!["receive", "-F", name.as_str()]).await;
        };
        let message = written_since(base, &path);
        Err(HostError::new(HostErrorKind::Conflict, "receive dataset", to.to_string(), message))
    }

    /// A path within the files that is not as it was in a snapshot; times of access don't count. Not every ZFS has `zfs diff` or
    /// shows snapshots as directories: a clone is looked at, which `prepare` clears away where a crash leaves it.
    pub(super) async fn changed_since(
        &self,
        to: &SnapshotId,
        name: &text::Dataset,
        base: &str,
    ) -> HostResult<Option<PathBuf>> {
        const OP: &str = "compare with snapshot";
        let staged_name = format!("{STAGED}{}", to.dataset.name);
        let staged = self.area(to.dataset.area).child(&staged_name);
        let staged = staged.map_err(|e| invalid(OP, &to.to_string(), e.to_string()))?;
        let snapshot = text::Snapshot::new(name.clone(), base).map_err(|e| invalid(OP, base, e.to_string()))?;
        self.destroy_alone(OP, &staged).await?;
        let compared = async {
            let quiet = text::Properties::from([("readonly".to_owned(), "on".to_owned())]);
            self.run(OP, staged.as_str(), text::clone(&snapshot, &staged, &quiet)).await?;
            self.mount(OP, &staged).await?;
            self.mount(OP, name).await?;
            let (live, kept) = (self.data(&to.dataset), self.root(to.dataset.area).join(&staged_name).join(DATA));
            first_difference(OP, live, kept).await
        };
        let compared = compared.await;
        // That it stays is no reason to forget what was seen.
        self.discard(OP, &staged).await;
        compared
    }

    /// Gives the one snapshot that a stream brought the name that it is to have.
    pub(super) async fn name_arrived(&self, dataset: &text::Dataset, wanted: &SnapshotName) -> HostResult<()> {
        let found = self.get(dataset, true, "type").await?;
        let Some(last) = found.iter().rev().map(|(n, _)| n).find(|n| n.starts_with(&format!("{dataset}@"))) else {
            return Err(invalid("receive dataset", dataset.as_str(), "the stream brought no snapshot"));
        };
        let target = format!("{dataset}@{wanted}");
        if *last == target {
            return Ok(());
        }
        self.change("receive dataset", dataset.as_str(), vec!["rename".to_owned(), last.clone(), target]).await
    }

    pub(super) async fn stream_in(&self, file: &Path, args: Vec<&str>) -> HostResult<()> {
        const OP: &str = "receive dataset";
        let subject = file.display().to_string();
        let open = File::open(file).map_err(|e| io_error(OP, file, e))?;
        let command = self.tools.command("zfs").map_err(|e| e.into_host(OP, &*subject))?;
        match command.args(args).stdin_from(open).deadline(LONG).run().await {
            Ok(_) => Ok(()),
            Err(CommandError::Failed { stderr, .. })
                if ["does not match", "has been modified"].iter().any(|p| stderr.contains(p)) =>
            {
                Err(HostError::new(HostErrorKind::Conflict, OP, subject, stderr))
            }
            // Cut off or damaged on its way: records have checksums, and the last one must come.
            Err(CommandError::Failed { stderr, .. })
                if ["invalid", "incomplete stream", "failed to read from stream"]
                    .iter()
                    .any(|p| stderr.contains(p)) =>
            {
                Err(invalid(OP, &subject, stderr))
            }
            Err(error) => Err(self.explain(OP, &subject, error).await),
        }
    }
}

/// What a file of `zfs send` begins with: the snapshot that it brings, by its guid, and of an increment the one that it was
/// made since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamHead {
    pub(super) to: u64,
    pub(super) since: Option<u64>,
}

/// Reads it (sys/zfs_ioctl.h, dmu_replay_record); `None`: it is no such file.
pub(super) fn stream_head(head: &[u8]) -> Option<StreamHead> {
    const MAGIC: u64 = 0x2_f5ba_cbac;
    let word = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok());
    let magic: [u8; 8] = word(8)?;
    let read: fn([u8; 8]) -> u64 = if u64::from_le_bytes(magic) == MAGIC {
        u64::from_le_bytes
    } else if u64::from_be_bytes(magic) == MAGIC {
        u64::from_be_bytes
    } else {
        return None;
    };
    // magic, version, creation, type and flags, to, from.
    let since = Some(read(word(48)?)).filter(|guid| *guid != 0);
    Some(StreamHead { to: read(word(40)?), since })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn streams_are_told_apart_by_where_they_come_from() {
        let head = |to: u64, from: u64, little: bool| {
            let word = |w: u64| if little { w.to_le_bytes() } else { w.to_be_bytes() };
            [word(0), word(0x2_f5ba_cbac), word(1), word(2), word(3), word(to), word(from)].concat()
        };
        assert_eq!(stream_head(&head(4, 0, true)), Some(StreamHead { to: 4, since: None }));
        assert_eq!(stream_head(&head(4, 7, true)), Some(StreamHead { to: 4, since: Some(7) }));
        assert_eq!(stream_head(&head(4, 7, false)), Some(StreamHead { to: 4, since: Some(7) }));
        assert_eq!(stream_head(b"no stream at all"), None);
    }

    proptest! {
        #[test]
        fn no_head_makes_it_panic(head in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = stream_head(&head);
        }
    }
}
