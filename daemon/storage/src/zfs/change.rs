//! Datasets as they are to be: their limits, their mounts, and that they go.

use super::properties::limit_properties;
use super::{BUSY_FOR, BUSY_WAIT, BUSY_WAIT_MOST, CHANGE, ZfsEngine, invalid, text};
use crate::tree::io_error;
use reddwarf_command::{Invocation, Tool};
use reddwarf_host::storage::check_marks;
use reddwarf_host::{
    Change, Dataset, DatasetId, DatasetSpec, HostError, HostErrorKind, HostResult, Limits, StorageEngine,
};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;

impl ZfsEngine {
    /// What to do about a dataset that may be there already: `None`: it is not, make it.
    pub(super) async fn present(
        &self,
        op: &'static str,
        id: &DatasetId,
        spec: &DatasetSpec,
    ) -> HostResult<Option<Change>> {
        check_marks(&spec.marks).map_err(|why| invalid(op, &id.to_string(), why))?;
        let Some(found) = self.find(op, id).await? else { return Ok(None) };
        if found.marks != spec.marks {
            let message = "a dataset of this name is there already with other marks";
            return Err(HostError::new(HostErrorKind::Conflict, op, id.to_string(), message));
        }
        // Made, perhaps, and cut off before its directory was.
        let completed = self.complete(op, id).await?;
        let resized = self.put_limits(op, id, &found, &spec.limits).await?;
        Ok(Some(if completed && resized == Change::Unchanged {
            Change::Changed(format!("completed {id}"))
        } else {
            resized
        }))
    }

    pub(super) async fn put_limits(
        &self,
        op: &'static str,
        id: &DatasetId,
        found: &Dataset,
        limits: &Limits,
    ) -> HostResult<Change> {
        if found.limits == *limits {
            return Ok(Change::Unchanged);
        }
        let (name, before) = (self.dataset(id)?, limit_properties(&found.limits));
        let properties = limit_properties(limits).into_iter().filter(|(key, value)| before.get(key) != Some(value));
        // What is used is told to be too much in the words of a full disk: here it is the number that is wrong.
        match self.set(op, &name, properties.collect()).await {
            Err(e) if e.kind == HostErrorKind::Exhausted => Err(HostError { kind: HostErrorKind::InvalidSpec, ..e }),
            other => other,
        }?;
        Ok(Change::Changed("limits changed".into()))
    }

    /// Sets properties one after the other: the old zfs(8) takes no more at a time.
    pub(super) async fn set(
        &self,
        op: &'static str,
        name: &text::Dataset,
        properties: text::Properties,
    ) -> HostResult<()> {
        for property in properties {
            if let Some(run) = text::set(name, &text::Properties::from([property])) {
                drop(self.run(op, name.as_str(), run).await?);
            }
        }
        Ok(())
    }

    /// Mounted, and with the directory that pods see; whether something was done.
    pub(super) async fn complete(&self, op: &'static str, id: &DatasetId) -> HostResult<bool> {
        let data = self.data(id);
        if data.is_dir() {
            return Ok(false);
        }
        let name = self.dataset(id)?;
        self.mount(op, &name).await?;
        if data.is_dir() {
            return Ok(true);
        }
        let failed = |e| io_error(op, &data, e);
        // Under its name once it is open to all, whatever the umask: whoever the containers run as must be able to write.
        let staged = data.with_file_name(".data");
        match fs::create_dir(&staged) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        fs::set_permissions(&staged, Permissions::from_mode(0o777)).map_err(failed)?;
        fs::rename(&staged, &data).map_err(failed)?;
        Ok(true)
    }

    pub(super) async fn mount(&self, op: &'static str, name: &text::Dataset) -> HostResult<()> {
        let found = self.get(name, false, "mounted,mountpoint").await?;
        let mounted = found.first().and_then(|(_, p)| p.get("mounted")).is_some_and(|p| p.value == "yes");
        if mounted {
            return Ok(());
        }
        let mount = Invocation::change(Tool::Zfs, ["mount", name.as_str()]).within(CHANGE);
        self.patiently(op, name.as_str(), mount).await
    }

    /// Unmounts and mounts, so that whoever opens a file afterwards sees what was received. Nobody may use it.
    pub(super) async fn remount(&self, op: &'static str, name: &text::Dataset) -> HostResult<()> {
        let found = self.get(name, false, "mounted").await?;
        if found.first().and_then(|(_, p)| p.get("mounted")).is_some_and(|p| p.value == "yes") {
            let unmount = Invocation::change(Tool::Zfs, ["unmount", name.as_str()]).within(CHANGE);
            self.patiently(op, name.as_str(), unmount).await?;
        }
        self.mount(op, name).await
    }

    /// Destroys one dataset that holds no others.
    pub(super) async fn destroy_alone(&self, op: &'static str, name: &text::Dataset) -> HostResult<()> {
        let found = self.get(name, true, "type").await?;
        let inner = found.iter().find(|(n, _)| n != name.as_str() && !n.starts_with(&format!("{name}@")));
        if let Some((inner, _)) = inner {
            let message = format!("{inner} lies in it and is not ours: move it away first");
            return Err(HostError::new(HostErrorKind::Busy, op, name.as_str(), message));
        }
        let destroyed = self.insist(op, name.as_str(), text::destroy(name)).await;
        self.naming_clones(&format!("{name}@"), destroyed).await
    }

    /// Clears away what is staged: whether it went. One that stays is told of until it has gone.
    pub(super) async fn discard(&self, op: &'static str, staged: &text::Dataset) -> bool {
        self.leftovers.note(staged, &self.destroy_alone(op, staged).await)
    }

    /// Says what was made of snapshots that are to go: with ZFS they stay as long as that does.
    pub(super) async fn naming_clones(&self, snapshots: &str, done: HostResult<()>) -> HostResult<()> {
        let Err(mut error) = done else { return Ok(()) };
        if error.kind != HostErrorKind::Busy || !error.message.contains("clones") {
            return Err(error);
        }
        if let Ok(pool) = text::Dataset::new(self.pool())
            && let Ok(found) = self.get(&pool, true, "origin").await
        {
            let cloned = |(name, properties): &(String, BTreeMap<String, text::Property>)| {
                let of = &properties.get("origin")?.value;
                of.starts_with(snapshots).then(|| format!("{name} is a clone of {of}"))
            };
            let clones: Vec<String> = found.iter().filter_map(cloned).take(10).collect();
            if !clones.is_empty() {
                error.message = format!("{}: it can go once that has gone", clones.join(", "));
            }
        }
        Err(error)
    }

    /// Has something gone; it may be so already.
    pub(super) async fn insist(&self, op: &'static str, subject: &str, run: Invocation) -> HostResult<()> {
        match self.patiently(op, subject, run).await {
            Err(e) if e.kind == HostErrorKind::NotFound && !e.message.contains("no pool") => Ok(()),
            other => other,
        }
    }

    /// Busy may pass within a moment.
    pub(super) async fn patiently(&self, op: &'static str, subject: &str, run: Invocation) -> HostResult<()> {
        let (begun, mut wait) = (tokio::time::Instant::now(), BUSY_WAIT);
        // Clones don't go by waiting, and what hangs does not answer sooner for being asked again.
        let passes = |e: &HostError| {
            e.kind == HostErrorKind::Busy && !e.message.contains("clones") && !e.message.starts_with("the pool ")
        };
        loop {
            match self.run(op, subject, run.clone()).await {
                Err(e) if passes(&e) && begun.elapsed() < BUSY_FOR => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(BUSY_WAIT_MOST);
                }
                other => return other.map(drop),
            }
        }
    }
}
