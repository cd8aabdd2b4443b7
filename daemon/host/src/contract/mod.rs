//! The contract suite: every rule of [`traits`](crate::traits) as a case that any host has to pass, the fake one and
//! the real ones alike, so that tests against the fake prove something about the real (U2).
//!
//! | part | holds |
//! |---|---|
//! | [`Fixture`] | what a host's test supplies: the host, specs, where its programs are |
//! | [`cases`], [`suite`] | the cases, and running all of them |
//! | `lab.rs` | what a case works with |
//! | [`sample`] | specs for tests to begin from |
//! | [`storage`] | the suite of storage engines, with a fixture of its own |
//! | `sandboxes.rs`, `containers.rs`, `rights.rs`, `exec.rs`, `streams.rs`, `volumes.rs`, `images.rs`, `network.rs`, `usage.rs`, `survival.rs` | the cases by subject |
//!
//! ```no_run
//! # use reddwarf_host::contract::{self, Fixture};
//! # async fn test<F: Fixture>(make: impl AsyncFn() -> F) {
//! let report = contract::suite(make).await;
//! assert!(report.passed(), "{report}");
//! # }
//! ```

mod containers;
mod exec;
mod images;
mod lab;
mod network;
mod rights;
pub mod sample;
mod sandboxes;
pub mod storage;
mod streams;
mod survival;
#[cfg(test)]
mod tests;
mod usage;
mod volumes;

use crate::error::HostError;
use crate::names::SandboxId;
use crate::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use crate::traits::Host;
use async_trait::async_trait;
use lab::Lab;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// What a host's test supplies.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The host under test; after [`Fixture::restart`], a handle with which cleaning up still works.
    fn host(&self) -> Arc<dyn Host>;

    /// Another handle on the same machine, as a restarted daemon would open it; the first is not used afterwards.
    async fn restart(&self) -> Arc<dyn Host>;

    /// The pod network. The suite makes it when it is not there.
    fn network(&self) -> NetworkSpec;

    /// A sandbox spec of a name, uid and address of its own at every call, connected to [`Fixture::network`], without
    /// volumes and limits.
    fn sandbox(&self) -> SandboxSpec;

    /// A container for `sandbox` that runs `argv`, first attempt, without limits and mounts, `SIGTERM` to stop it.
    fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec;

    /// A root file system directory, OCI layout or archive to import; different content for a different `variant`.
    fn image_source(&self, variant: u32) -> PathBuf;

    /// The command line of a program in [`Fixture::container`]'s image; the default wants a POSIX shell as `/bin/sh`.
    fn argv(&self, program: Program) -> Vec<String> {
        program.in_a_shell()
    }

    /// Puts something that is not ours where this sandbox would go (directory, zone, link). False: it can't.
    async fn plant_foreign(&self, id: &SandboxId) -> bool;

    /// Kills the supervisor of a running container.
    async fn kill_supervisor(&self, id: &SandboxId, spec: &ContainerSpec);

    /// What of the contract applies here.
    fn abilities(&self) -> Abilities;

    /// How long to wait for something that must happen.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }
}

/// What a host of this test can do; a case that needs more is skipped, and the report says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The pod network may be removed: nobody else uses it.
    pub own_network: bool,
    /// Limits are enforced and can be changed in place (cgroup controllers, resource controls).
    pub limits: bool,
    /// What sandboxes use is counted (memory, processes).
    pub figures: bool,
    /// Containers have real file systems that commands can read (not the fake host).
    pub files: bool,
    /// Sandboxes on the host's own network.
    pub host_network: bool,
    /// Packets really go between the host and sandboxes' addresses (not with played tools).
    pub packets: bool,
    /// Commands and containers can have a terminal.
    pub terminals: bool,
    /// Ports of a sandbox can be connected to (not by played addresses).
    pub ports: bool,
    /// An end by a signal is told from an exit code above 128.
    pub signals: bool,
    /// What a contained command has started is found wherever it went.
    pub contained: bool,
}

/// What a container of the suite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Runs until SIGTERM, then ends with this code.
    Until(u8),
    /// Ends at once with this code.
    Exit(u8),
    /// Runs and ignores SIGTERM.
    IgnoreTerm,
    /// Prints `hello` on standard output and `oops` on standard error and ends with 0.
    Print,
    /// Copies standard input to standard output.
    Copy,
    /// Sends back what comes to this TCP port, until SIGTERM.
    Listen(u16),
    /// Is not there.
    Missing,
}

impl Program {
    /// As a POSIX shell runs it. The traps matter: the first process of a pid namespace ignores what it has no
    /// handler for (pid_namespaces(7)).
    pub fn in_a_shell(self) -> Vec<String> {
        let script = match self {
            Self::Until(code) => format!("trap 'exit {code}' TERM; sleep 1000000 & wait"),
            Self::Exit(code) => format!("exit {code}"),
            Self::IgnoreTerm => "trap '' TERM; sleep 1000000 & wait".into(),
            Self::Print => "echo hello; echo oops >&2".into(),
            Self::Copy => "cat".into(),
            Self::Listen(port) => return vec!["perl".into(), "-e".into(), echo_server(port)],
            Self::Missing => return vec!["/nonexistent/program".into()],
        };
        vec!["/bin/sh".into(), "-c".into(), script]
    }
}

/// A server that sends everything back, a process for each connection. Perl is on every host and in most images that
/// have a shell.
fn echo_server(port: u16) -> String {
    format!(
        "use IO::Socket::INET; $SIG{{CHLD}} = 'IGNORE'; $SIG{{TERM}} = sub {{ exit 0 }}; \
         my $s = IO::Socket::INET->new(Listen => 256, LocalPort => {port}, ReuseAddr => 1) or die $!; \
         while (1) {{ my $c = $s->accept or next; if (!fork) {{ while (sysread($c, my $b, 65536)) {{ \
         for (my $o = 0; $o < length $b; ) {{ $o += syswrite($c, $b, length($b) - $o, $o) || exit }} }} exit }} close $c }}"
    )
}

/// Why a case did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The host broke the rule; how.
    Broken(String),
    /// The case does not apply here; why.
    Skipped(String),
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Self {
        Self::Broken(format!("unexpected error {:?}: {}", error.kind, error.chain()))
    }
}

/// How a case ended.
pub type Outcome = Result<(), Stop>;

type Run = for<'a> fn(&'a Lab<'a>) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// One rule of the contract.
pub struct Case {
    /// Short, for the report.
    pub name: &'static str,
    run: Run,
}

impl Case {
    /// Tries the case on a host and cleans up what it made there.
    pub async fn run(&self, fixture: &dyn Fixture) -> Outcome {
        let lab = Lab::new(fixture);
        let limit = fixture.patience() * 4;
        let outcome = match tokio::time::timeout(limit, (self.run)(&lab)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Stop::Broken(format!("no end after {limit:?}"))),
        };
        let cleaned = match tokio::time::timeout(limit, lab.clean()).await {
            Ok(cleaned) => cleaned,
            Err(_) => Err(Stop::Broken(format!("no end of cleaning up after {limit:?}"))),
        };
        outcome.and(cleaned)
    }
}

/// Names a function as a case.
macro_rules! case {
    ($function:path) => {
        $crate::contract::Case {
            name: concat!(module_path!(), "::", stringify!($function)),
            run: |lab| Box::pin($function(lab)),
        }
    };
}
pub(crate) use case;

/// Every case, in an order that makes the first failure the most telling one.
pub fn cases() -> Vec<Case> {
    let subjects = [
        network::cases(),
        sandboxes::cases(),
        containers::cases(),
        rights::cases(),
        volumes::cases(),
        exec::cases(),
        streams::cases(),
        images::cases(),
        usage::cases(),
    ];
    let mut all: Vec<Case> = subjects.into_iter().flatten().collect();
    all.extend(survival::cases());
    all
}

/// Runs every case, each on a fixture of its own.
pub async fn suite<F: Fixture>(make: impl AsyncFn() -> F) -> Report {
    let mut report = Report::default();
    for case in cases() {
        let fixture = make().await;
        report.outcomes.push((case.name, case.run(&fixture).await));
    }
    report
}

/// How every case ended.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order of [`cases`].
    pub outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    /// Whether no rule was broken.
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && !self.outcomes.iter().any(|(_, o)| matches!(o, Err(Stop::Broken(_))))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.outcomes {
            match outcome {
                Ok(()) => writeln!(f, "ok       {name}")?,
                Err(Stop::Skipped(why)) => writeln!(f, "skipped  {name}: {why}")?,
                Err(Stop::Broken(how)) => writeln!(f, "BROKEN   {name}: {how}")?,
            }
        }
        Ok(())
    }
}
