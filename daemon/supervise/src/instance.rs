//! Container instances as their records tell them: whose directory holds what, and what all of it together means.
//!
//! ```text
//! RUN/locks/SANDBOX.CONTAINER.ATTEMPT                  flock held by the supervisor for as long as it lives
//! RUN/sandboxes/SANDBOX/containers/CONTAINER/ATTEMPT/  container.json launch.json state.json stop.json exit.json …
//! ```

use crate::files::{io_error, names_in, read_record, write_record};
use crate::kept::Kept;
use crate::lock;
use crate::record::{ContainerExit, Moment, stop_request};
use reddwarf_host::spec::{ContainerSpec, Resources};
use reddwarf_host::{
    BootTime, Change, ContainerName, ContainerObserved, ContainerState, HostError, HostErrorKind, HostResult, Note,
    SandboxId, StopOrder, StopRequest,
};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `state.json` of a container, written by its supervisor when the program runs: what every host's tells.
pub trait Running: DeserializeOwned {
    /// The program's first process, in the host's own numbers.
    fn pid(&self) -> u32;
    /// When it began.
    fn started(&self) -> Moment;
    /// Whether the first process is there, as far as the host can tell without its supervisor.
    fn outlived(&self) -> bool;
    /// What became of it, for people: its supervisor ended without a word.
    fn lost(&self) -> String;
}

/// One container instance's directory; `R` is the host's `state.json`.
#[derive(Clone, Debug)]
pub struct ContainerDir<R> {
    path: PathBuf,
    record: PhantomData<fn() -> R>,
}

impl<R> ContainerDir<R> {
    /// That directory, there or not.
    pub fn new(path: PathBuf) -> Self {
        Self { path, record: PhantomData }
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// `container.json`: the spec. An instance without it is half-made or half-removed.
    pub fn spec_file(&self) -> PathBuf {
        self.path.join("container.json")
    }
    /// `launch.json`: all that a supervisor needs.
    pub fn launch_file(&self) -> PathBuf {
        self.path.join("launch.json")
    }
    /// `state.json`: there when the program runs.
    pub fn state_file(&self) -> PathBuf {
        self.path.join("state.json")
    }
    /// `stop.json`: when it was asked to stop.
    pub fn stop_file(&self) -> PathBuf {
        self.path.join("stop.json")
    }
    /// `exit.json`: how it ended.
    pub fn exit_file(&self) -> PathBuf {
        self.path.join("exit.json")
    }
    /// There when the instance's postStart hook is done.
    pub fn post_started_file(&self) -> PathBuf {
        self.path.join("post-started.json")
    }

    /// What it was started from.
    ///
    /// # Errors
    /// Like those of its siblings: the system's, or of a damaged record.
    pub fn spec(&self) -> HostResult<Option<ContainerSpec>> {
        read_record("read container record", &self.spec_file())
    }
    /// When it was asked to stop.
    pub fn stop(&self) -> HostResult<Option<StopRequest>> {
        read_record("read stop request", &self.stop_file())
    }
    /// Whether its postStart hook is done.
    pub fn post_started(&self) -> HostResult<bool> {
        Ok(read_record("read note", &self.post_started_file())?.unwrap_or(false))
    }
    /// How it ended.
    pub fn exit(&self) -> HostResult<Option<ContainerExit>> {
        read_record("read exit record", &self.exit_file())
    }

    /// Records its spec, as first given or with other limits.
    pub fn write_spec(&self, spec: &ContainerSpec) -> HostResult<()> {
        write_record("record container", &self.spec_file(), spec)
    }
    /// Records that it was sent its stop signal, or SIGKILL.
    pub fn note_signal(&self, now: BootTime, kill: bool) -> HostResult<()> {
        let request = stop_request(self.stop()?, now, kill);
        write_record("record stop request", &self.stop_file(), &request)
    }
    /// `container_note`.
    pub fn note(&self, now: BootTime, note: Note) -> HostResult<Change> {
        if self.spec()?.is_none() || self.exit()?.is_some() {
            return Ok(Change::Unchanged);
        }
        match note {
            Note::Started if self.post_started()? => return Ok(Change::Unchanged),
            Note::Started => write_record("note", &self.post_started_file(), &true)?,
            Note::Stopping { .. } if self.stop()?.is_some() => return Ok(Change::Unchanged),
            Note::Stopping { grace, fault } => {
                let order = Some(StopOrder { grace, fault, signalled: None });
                let request = StopRequest { at: now, killed: false, order };
                write_record("record stop request", &self.stop_file(), &request)?;
            }
        }
        Ok(Change::Changed("noted".to_owned()))
    }
}

impl<R: Running> ContainerDir<R> {
    /// What the supervisor said of the running program.
    pub fn state(&self) -> HostResult<Option<R>> {
        read_record("read container state", &self.state_file())
    }

    /// Whether its supervisor has come to say how starting it went.
    pub fn is_started(&self) -> HostResult<bool> {
        Ok(self.state()?.is_some() || self.exit()?.is_some())
    }

    /// The instance's state from its records and its lock.
    pub fn observed(&self, lock_file: &Path) -> HostResult<ContainerState> {
        if let Some(exit) = self.exit()? {
            return Ok(exit.into());
        }
        let held = is_held(lock_file)?;
        self.state_of(self.state()?.as_ref(), held)
    }

    /// The state of one that had not ended before its lock was looked at.
    fn state_of(&self, running: Option<&R>, held: bool) -> HostResult<ContainerState> {
        match (running, held) {
            (Some(running), true) => Ok(ContainerState::Running {
                started: running.started().boot,
                started_at: running.started().wall,
                pid: running.pid(),
            }),
            (None, true) => Ok(ContainerState::Creating),
            // The supervisor ends after it has written exit.json: once more, now that it is surely gone.
            (running, false) => match (self.exit()?, running) {
                (Some(exit), _) => Ok(exit.into()),
                (None, None) => Ok(ContainerState::Creating),
                (None, Some(running)) => Ok(ContainerState::Lost(running.lost())),
            },
        }
    }

    /// Puts the end of a lost instance on record, once nothing of it runs: as that of one that has ended it is then
    /// counted, shown and followed by the next attempt, and its log stays.
    ///
    /// # Errors
    /// `Busy` while its first process is there; the system's.
    pub fn end_lost(&self, lock_file: &Path, now: Moment) -> HostResult<Change> {
        let (ContainerState::Lost(why), Some(running)) = (self.observed(lock_file)?, self.state()?) else {
            return Ok(Change::Unchanged);
        };
        if running.outlived() {
            let message = "what is left of it was killed and is not gone yet: ask again";
            return Err(HostError::new(
                HostErrorKind::Busy,
                "kill container",
                self.path.display().to_string(),
                message,
            ));
        }
        let exit = ContainerExit::lost(running.started(), now, why);
        write_record("record end", &self.exit_file(), &exit)?;
        Ok(Change::Changed("made sure of its end".to_owned()))
    }

    /// All that it says of itself.
    fn records(&self, specs: &Kept<ContainerSpec>) -> HostResult<Records<R>> {
        let spec = specs.file(&self.spec_file(), || self.spec())?;
        let has_hook = spec.as_ref().is_some_and(|spec| spec.lifecycle.post_start.is_some());
        Ok(Records {
            // First the end, then the rest: one that ends meanwhile is looked at again once its lock is free.
            exit: self.exit()?,
            running: self.state()?,
            stop: self.stop()?,
            post_started: has_hook && self.post_started()?,
            spec,
        })
    }

    /// Whether something of the instance may run.
    fn is_alive(&self, lock_file: &Path) -> HostResult<bool> {
        match self.observed(lock_file)? {
            ContainerState::Exited { .. } => Ok(false),
            ContainerState::Running { .. } => Ok(true),
            ContainerState::Creating => is_held(lock_file),
            ContainerState::Lost(_) => Ok(self.state()?.is_some_and(|running| running.outlived())),
        }
    }

    /// The spec that is to get other limits, for `container_update`; `None`: it has them.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidState` when it does not run.
    pub fn to_resize(&self, lock_file: &Path, subject: &str, limits: &Resources) -> HostResult<Option<ContainerSpec>> {
        let fail = |kind, message| Err(HostError::new(kind, "update container", subject, message));
        let Some(spec) = self.spec()? else { return fail(HostErrorKind::NotFound, "no such instance") };
        if !matches!(self.observed(lock_file)?, ContainerState::Running { .. }) {
            return fail(HostErrorKind::InvalidState, "it does not run");
        }
        Ok((spec.resources != *limits).then_some(spec))
    }

    /// What is to be removed, for `container_remove`; `None`: the record is gone already.
    ///
    /// # Errors
    /// `InvalidState` while it runs.
    pub fn to_remove(&self, lock_file: &Path, subject: &str) -> HostResult<Option<ContainerSpec>> {
        let Some(spec) = self.spec()? else { return Ok(None) };
        let runs = match self.observed(lock_file)? {
            ContainerState::Running { .. } => true,
            ContainerState::Creating => is_held(lock_file)?,
            ContainerState::Exited { .. } | ContainerState::Lost(_) => false,
        };
        if runs {
            let message = "it runs: stop it first";
            return Err(HostError::new(HostErrorKind::InvalidState, "remove container", subject, message));
        }
        Ok(Some(spec))
    }
}

/// What an instance's files say.
#[derive(Debug)]
struct Records<R> {
    spec: Option<Arc<ContainerSpec>>,
    running: Option<R>,
    exit: Option<ContainerExit>,
    stop: Option<StopRequest>,
    post_started: bool,
}

/// What was read of all instances, kept for the next look.
#[derive(Debug)]
pub struct Seen<R> {
    names: Kept<Vec<String>>,
    specs: Kept<ContainerSpec>,
    records: Kept<Records<R>>,
}

impl<R> Default for Seen<R> {
    fn default() -> Self {
        Self { names: Kept::default(), specs: Kept::default(), records: Kept::default() }
    }
}

impl<R> Seen<R> {
    /// Forgets what is gone, when there is more than that many sandboxes and instances have.
    pub fn sweep(&self, sandboxes: usize, instances: usize) {
        self.names.sweep(sandboxes.saturating_add(instances));
        self.specs.sweep(instances);
        self.records.sweep(instances);
    }
}

/// Whether a supervisor lives, with the path in the error.
pub fn is_held(lock_file: &Path) -> HostResult<bool> {
    lock::is_held(lock_file).map_err(|e| io_error("look for supervisor", lock_file, e))
}

fn list(dir: &Path) -> HostResult<Vec<String>> {
    names_in(dir).map_err(|e| io_error("list containers", dir, e))
}

/// The part of a run directory that all hosts have.
#[derive(Clone, Debug)]
pub struct RunPaths<R> {
    dir: PathBuf,
    record: PhantomData<fn() -> R>,
}

/// An instance of a sandbox: name, attempt, directory.
pub type Instance<R> = (ContainerName, u32, ContainerDir<R>);

impl<R: Running> RunPaths<R> {
    /// Below that directory.
    pub fn new(run: &Path) -> Self {
        Self { dir: run.to_owned(), record: PhantomData }
    }
    /// The run directory itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Where all locks are.
    pub fn locks(&self) -> PathBuf {
        self.dir.join("locks")
    }
    /// The lock of an instance's supervisor.
    pub fn lock(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> PathBuf {
        self.locks().join(format!("{id}.{name}.{attempt}"))
    }
    /// Where all sandboxes are.
    pub fn sandboxes(&self) -> PathBuf {
        self.dir.join("sandboxes")
    }
    /// A sandbox's directory.
    pub fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes().join(id.as_str())
    }
    /// What is known of a sandbox since the machine's start.
    pub fn sandbox_state(&self, id: &SandboxId) -> PathBuf {
        self.sandbox(id).join("state.json")
    }
    /// Where a sandbox's instances are.
    pub fn containers(&self, id: &SandboxId) -> PathBuf {
        self.sandbox(id).join("containers")
    }
    /// An instance's directory.
    pub fn container(&self, id: &SandboxId, name: &ContainerName, attempt: u32) -> ContainerDir<R> {
        ContainerDir::new(self.containers(id).join(name.as_str()).join(attempt.to_string()))
    }

    /// All instances of a sandbox, half-removed ones included.
    ///
    /// # Errors
    /// The system's.
    pub fn instances(&self, id: &SandboxId) -> HostResult<Vec<Instance<R>>> {
        self.listed(id, |dir| list(dir).map(Arc::new))
    }

    fn listed(
        &self,
        id: &SandboxId,
        names: impl Fn(&Path) -> HostResult<Arc<Vec<String>>>,
    ) -> HostResult<Vec<Instance<R>>> {
        let dir = self.containers(id);
        let mut found = Vec::new();
        for name in names(&dir)?.iter() {
            let Ok(name) = ContainerName::new(name.as_str()) else { continue };
            for attempt in names(&dir.join(name.as_str()))?.iter().filter_map(|attempt| attempt.parse().ok()) {
                found.push((name.clone(), attempt, self.container(id, &name, attempt)));
            }
        }
        found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        Ok(found)
    }

    /// All instances of a sandbox as they are now. Of directories that stand as they were seen, only the locks are asked.
    ///
    /// # Errors
    /// The system's, or of a damaged record.
    pub fn observed(
        &self,
        id: &SandboxId,
        seen: &Seen<R>,
    ) -> HostResult<BTreeMap<ContainerName, Vec<ContainerObserved>>> {
        let mut found: BTreeMap<ContainerName, Vec<ContainerObserved>> = BTreeMap::new();
        for (name, attempt, dir) in self.listed(id, |dir| seen.names.directory(dir, || list(dir)))? {
            let records = seen.records.directory(dir.path(), || dir.records(&seen.specs))?;
            // Without a record it is half-made or half-removed: gone, as far as anyone needs to know.
            let Some(spec) = records.spec.clone() else { continue };
            let state = match &records.exit {
                Some(exit) => exit.clone().into(),
                None => dir.state_of(records.running.as_ref(), is_held(&self.lock(id, &name, attempt))?)?,
            };
            let late = match &records.exit {
                None if matches!(state, ContainerState::Exited { .. }) => dir.exit()?,
                _ => None,
            };
            let exit = records.exit.as_ref().or(late.as_ref());
            found.entry(name).or_default().push(ContainerObserved {
                spec,
                state,
                stop: records.stop,
                post_started: records.post_started,
                oom_killed: exit.is_some_and(|exit| exit.oom_killed),
                lost: exit.is_some_and(|exit| exit.lost),
            });
        }
        Ok(found)
    }

    /// The newest attempt of a container, when it runs.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidState` when it does not run.
    pub fn running(
        &self,
        op: &'static str,
        id: &SandboxId,
        name: &ContainerName,
    ) -> HostResult<(u32, ContainerDir<R>)> {
        let fail = |kind, message: &str| Err(HostError::new(kind, op, format!("{id}/{name}"), message));
        let mut newest = None;
        for (found, attempt, dir) in self.instances(id)? {
            if found == *name && dir.spec()?.is_some() {
                newest = Some((attempt, dir));
            }
        }
        let Some((attempt, dir)) = newest else { return fail(HostErrorKind::NotFound, "no such container") };
        match dir.observed(&self.lock(id, name, attempt))? {
            ContainerState::Running { .. } => Ok((attempt, dir)),
            _ => fail(HostErrorKind::InvalidState, "it does not run"),
        }
    }

    /// Other attempts of the same name must have ended.
    ///
    /// # Errors
    /// `InvalidState` when one has not.
    pub fn refuse_second(&self, id: &SandboxId, spec: &ContainerSpec) -> HostResult<()> {
        for (name, attempt, dir) in self.instances(id)? {
            if name != spec.name || attempt == spec.attempt || dir.spec()?.is_none() {
                continue;
            }
            if dir.is_alive(&self.lock(id, &name, attempt))? {
                let message = format!("attempt {attempt} of it still runs");
                let subject = format!("{id}/{name}");
                return Err(HostError::new(HostErrorKind::InvalidState, "start container", subject, message));
            }
        }
        Ok(())
    }
}

/// What a container's spec says that no host can do: no program, mounts of volumes that are not there, paths that lead
/// elsewhere.
///
/// # Errors
/// A sentence for people.
pub fn check(spec: &ContainerSpec, sandbox: &reddwarf_host::spec::SandboxSpec) -> Result<(), String> {
    if spec.argv.first().is_none_or(String::is_empty) {
        return Err("no program: neither the pod nor the image names one".to_owned());
    }
    for mount in &spec.mounts {
        if !sandbox.volumes.contains_key(&mount.volume) {
            return Err(format!("the sandbox has no volume {}", mount.volume));
        }
        let clean = Path::new(&mount.target).is_absolute() && !mount.target.split('/').any(|p| p == "..");
        let sub_clean = !mount.sub_path.starts_with('/') && !mount.sub_path.split('/').any(|p| p == "..");
        if !clean || !sub_clean {
            let (volume, target, sub_path) = (&mount.volume, &mount.target, &mount.sub_path);
            return Err(format!("mount of {volume} at {target:?} sub path {sub_path:?}: '..' or not absolute"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{make_dir, write_json};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Serialize, Deserialize)]
    struct Here {
        pid: u32,
        started: Moment,
    }

    impl Running for Here {
        fn pid(&self) -> u32 {
            self.pid
        }
        fn started(&self) -> Moment {
            self.started
        }
        fn outlived(&self) -> bool {
            self.pid == 1
        }
        fn lost(&self) -> String {
            format!("lost {}", self.pid)
        }
    }

    /// The four states, as records and lock make them.
    #[test]
    fn records_and_lock_tell_the_state() {
        let run = tempfile::tempdir().unwrap();
        let paths = RunPaths::<Here>::new(run.path());
        let (id, name) = (SandboxId::new("a").unwrap(), ContainerName::new("app").unwrap());
        let dir = paths.container(&id, &name, 3);
        assert!(dir.path().ends_with("sandboxes/a/containers/app/3"), "an older daemon's records are found again");
        let lock_file = paths.lock(&id, &name, 3);
        assert!(lock_file.ends_with("locks/a.app.3"));
        make_dir(dir.path()).unwrap();
        make_dir(&paths.locks()).unwrap();
        assert_eq!(dir.observed(&lock_file).unwrap(), ContainerState::Creating);
        let lock = lock::take(&lock_file).unwrap().unwrap();
        write_json(&dir.state_file(), &Here { pid: 7, started: Moment::now() }).unwrap();
        assert!(matches!(dir.observed(&lock_file).unwrap(), ContainerState::Running { pid: 7, .. }));
        drop(lock);
        assert_eq!(dir.observed(&lock_file).unwrap(), ContainerState::Lost("lost 7".to_owned()));
        assert!(!dir.is_alive(&lock_file).unwrap());
        write_json(&dir.state_file(), &Here { pid: 1, started: Moment::now() }).unwrap();
        assert!(dir.is_alive(&lock_file).unwrap(), "a first process that outlived its supervisor");
        let now = Moment::now();
        assert_eq!(dir.end_lost(&lock_file, now).unwrap_err().kind, HostErrorKind::Busy);
        write_json(&dir.state_file(), &Here { pid: 7, started: now }).unwrap();
        assert!(matches!(dir.end_lost(&lock_file, now).unwrap(), Change::Changed(_)));
        assert_eq!(dir.exit().unwrap(), Some(ContainerExit::lost(now, now, "lost 7".to_owned())));
        assert_eq!(dir.end_lost(&lock_file, now).unwrap(), Change::Unchanged);
        let exit = ContainerExit {
            code: 3,
            signal: None,
            started: None,
            finished: Moment::now(),
            oom_killed: false,
            lost: false,
            message: String::new(),
        };
        write_json(&dir.exit_file(), &exit).unwrap();
        assert!(matches!(dir.observed(&lock_file).unwrap(), ContainerState::Exited { code: 3, .. }));
        let all = paths.instances(&id).unwrap();
        assert_eq!(all.iter().map(|(n, a, _)| (n.as_str(), *a)).collect::<Vec<_>>(), [("app", 3)]);
        assert_eq!(paths.running("t", &id, &name).unwrap_err().kind, HostErrorKind::NotFound);
    }
}
