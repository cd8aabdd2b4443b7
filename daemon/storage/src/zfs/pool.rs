//! What is done with datasets, whoever keeps something in them and however it is laid out: the illumos host's zones, roots and
//! images lie beside an engine's areas, and take the same care of what is others'.

use super::text::{self, Dataset, Properties, Property, Snapshot};
use reddwarf_command::{Cause, CommandError, Tool, Tools};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

/// How often a dataset that is busy is tried again, and how long in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);
/// Taking in a stream of a large file system takes no longer.
const LONG: Duration = Duration::from_secs(12 * 3600);

/// zfs(8) of one system.
#[derive(Clone, Copy, Debug)]
pub struct Zfs<'t>(pub &'t Tools);

impl Zfs<'_> {
    async fn run(self, op: &'static str, subject: &str, run: &reddwarf_command::Invocation) -> HostResult<()> {
        self.0.run(run).await.map(drop).map_err(|error| error.into_host(op, subject))
    }

    /// Properties of a dataset and all below it, by dataset and name, in one run; nothing when it is not there.
    ///
    /// # Errors
    /// The tool's, and of an answer that makes no sense: then nothing may be taken as absent.
    pub async fn properties(
        self,
        op: &'static str,
        of: &Dataset,
        names: &[&str],
    ) -> HostResult<BTreeMap<String, BTreeMap<String, Property>>> {
        self.read(op, of, &text::get(of, names)).await
    }

    /// Properties of one dataset, by name; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Zfs::properties`].
    pub async fn properties_of(
        self,
        op: &'static str,
        of: &Dataset,
        names: &[&str],
    ) -> HostResult<Option<BTreeMap<String, Property>>> {
        Ok(self.read(op, of, &text::get_one(of, names)).await?.remove(of.as_str()))
    }

    async fn read(
        self,
        op: &'static str,
        of: &Dataset,
        run: &reddwarf_command::Invocation,
    ) -> HostResult<BTreeMap<String, BTreeMap<String, Property>>> {
        let text = match self.0.run(run).await {
            Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
            Err(error) if error.cause() == Cause::NotFound => String::new(),
            Err(error) => return Err(error.into_host(op, of.as_str())),
        };
        text::properties(&text).map_err(|line| nonsense(op, of, format!("zfs get: line {line:?} makes no sense")))
    }

    /// Whether a dataset is there.
    ///
    /// # Errors
    /// The tool's: what can't be read is not absent.
    pub async fn is_there(self, op: &'static str, dataset: &Dataset) -> HostResult<bool> {
        match self.0.run(&text::get_one(dataset, &[text::OWNER])).await {
            Ok(_) => Ok(true),
            Err(error) if error.cause() == Cause::NotFound => Ok(false),
            Err(error) => Err(error.into_host(op, dataset.as_str())),
        }
    }

    /// Makes a dataset with all its properties at once; there already is fine when the caller has looked whose it is.
    ///
    /// # Errors
    /// The tool's.
    pub async fn create(self, op: &'static str, dataset: &Dataset, properties: &Properties) -> HostResult<()> {
        match self.0.run(&text::create(dataset, properties)).await {
            Err(error) if error.cause() != Cause::Exists => Err(error.into_host(op, dataset.as_str())),
            _ => Ok(()),
        }
    }

    /// Changes properties.
    ///
    /// # Errors
    /// The tool's.
    pub async fn set(self, op: &'static str, dataset: &Dataset, properties: &Properties) -> HostResult<()> {
        match text::set(dataset, properties) {
            Some(run) => self.run(op, dataset.as_str(), &run).await,
            None => Ok(()),
        }
    }

    /// Makes a snapshot.
    ///
    /// # Errors
    /// The tool's.
    pub async fn snapshot(self, op: &'static str, snapshot: &Snapshot) -> HostResult<()> {
        self.run(op, &snapshot.to_string(), &text::snapshot(snapshot)).await
    }

    /// Makes a dataset of a snapshot's content, in constant time.
    ///
    /// # Errors
    /// The tool's; `NotFound` for the snapshot.
    pub async fn clone(
        self,
        op: &'static str,
        from: &Snapshot,
        to: &Dataset,
        properties: &Properties,
    ) -> HostResult<()> {
        self.run(op, to.as_str(), &text::clone(from, to, properties)).await
    }

    /// Takes in what `zfs send` wrote, as this snapshot: a full stream makes the dataset, others add to it. It is not mounted, and
    /// where it would be is not the stream's to say.
    ///
    /// # Errors
    /// The tool's; `Conflict` for an increment to something else.
    pub async fn receive(self, op: &'static str, stream: File, to: &Snapshot) -> HostResult<()> {
        let subject = to.to_string();
        let command = self.0.command(Tool::Zfs.name()).map_err(|e| e.into_host(op, &*subject))?;
        let command = command.args(["receive", "-u", "-F", "-x", "mountpoint", &subject]);
        command.stdin_from(stream).deadline(LONG).run().await.map(drop).map_err(|e| e.into_host(op, subject))
    }

    /// Mounts a file system.
    ///
    /// # Errors
    /// The tool's.
    pub async fn mount(self, op: &'static str, dataset: &Dataset) -> HostResult<()> {
        self.run(op, dataset.as_str(), &text::mount(dataset)).await
    }

    /// Destroys a snapshot that nothing was cloned from; whether it was there and went.
    ///
    /// # Errors
    /// The tool's.
    pub async fn destroy_snapshot(self, op: &'static str, snapshot: &Snapshot) -> HostResult<bool> {
        match self.0.run(&text::destroy_snapshot(snapshot)).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.cause(), Cause::NotFound | Cause::Busy) => Ok(false),
            Err(error) => Err(error.into_host(op, snapshot.to_string())),
        }
    }

    /// Destroys a dataset with all below it, never what was cloned from it; whether it was there. Waits a moment for one that
    /// is busy. A dry run says before what would go.
    ///
    /// # Errors
    /// `Busy`, the tool's, and when something outside would go too: then nothing went.
    pub async fn destroy(self, op: &'static str, dataset: &Dataset) -> HostResult<bool> {
        let failed = |error: CommandError| error.into_host(op, dataset.as_str());
        let mut done = false;
        for attempt in 1..=TRIES {
            let listed = match self.0.run(&text::destroy_dry_run(dataset)).await {
                Ok(said) => String::from_utf8_lossy(&said.stdout).into_owned(),
                // That it is gone is seen, not believed.
                Err(error) if error.cause() == Cause::NotFound => return Ok(done),
                Err(error) if error.cause() == Cause::Busy && attempt < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            text::would_destroy(dataset, &listed).map_err(|e| nonsense(op, dataset, e.to_string()))?;
            match self.0.run(&text::destroy(dataset)).await {
                Ok(_) => done = true,
                Err(error) if error.cause() == Cause::NotFound => {}
                Err(error) if error.cause() == Cause::Busy && attempt < TRIES => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(failed(error)),
            }
        }
        Err(HostError::new(HostErrorKind::Busy, op, dataset.as_str(), "is busy; it is tried again"))
    }
}

fn nonsense(op: &'static str, dataset: &Dataset, message: String) -> HostError {
    HostError::new(HostErrorKind::Other, op, dataset.as_str(), message)
}
