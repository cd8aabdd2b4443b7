//! The system's tools, and one run of one of them as a value.

use std::fmt;
use std::time::Duration;

/// A program of illumos. Each is called by its absolute path, never through a shell or `$PATH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// zoneadm(8)
    Zoneadm,
    /// zonecfg(8)
    Zonecfg,
    /// zlogin(1)
    Zlogin,
    /// dladm(8)
    Dladm,
    /// ipadm(8)
    Ipadm,
    /// route(8)
    Route,
    /// zfs(8)
    Zfs,
    /// zpool(8)
    Zpool,
    /// ipnat(8)
    Ipnat,
    /// ipf(8)
    Ipf,
    /// kstat(8)
    Kstat,
}

impl Tool {
    /// Where it is.
    pub fn path(self) -> &'static str {
        match self {
            Self::Zoneadm => "/usr/sbin/zoneadm",
            Self::Zonecfg => "/usr/sbin/zonecfg",
            Self::Zlogin => "/usr/sbin/zlogin",
            Self::Dladm => "/usr/sbin/dladm",
            Self::Ipadm => "/usr/sbin/ipadm",
            Self::Route => "/usr/sbin/route",
            Self::Zfs => "/usr/sbin/zfs",
            Self::Zpool => "/usr/sbin/zpool",
            Self::Ipnat => "/usr/sbin/ipnat",
            Self::Ipf => "/usr/sbin/ipf",
            Self::Kstat => "/usr/bin/kstat",
        }
    }

    /// Its name: the last part of its path, and how its messages begin.
    pub fn name(self) -> &'static str {
        self.path().rsplit('/').next().unwrap_or_default()
    }
}

/// One run of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Which.
    pub tool: Tool,
    /// Its arguments, each passed as it is. Secrets never stand here: they go by `stdin`.
    pub args: Vec<String>,
    /// What it reads.
    pub stdin: Vec<u8>,
    /// Given up after this long. zoneadmd goes on by itself: after that the state is read again.
    pub deadline: Duration,
    /// Whether it only reads. A dry run holds no other.
    pub reads_only: bool,
}

/// Reading a tool's answer takes no longer.
const READ: Duration = Duration::from_secs(20);
/// Changing something takes no longer, where nothing else is said.
const CHANGE: Duration = Duration::from_secs(60);

impl Invocation {
    /// A run that changes nothing.
    pub fn read<A: Into<String>>(tool: Tool, args: impl IntoIterator<Item = A>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { tool, args, stdin: Vec::new(), deadline: READ, reads_only: true }
    }

    /// A run that changes the system.
    pub fn change<A: Into<String>>(tool: Tool, args: impl IntoIterator<Item = A>) -> Self {
        Self { deadline: CHANGE, reads_only: false, ..Self::read(tool, args) }
    }

    /// With another deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// With something to read.
    #[must_use]
    pub fn reading(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }
}

impl fmt::Display for Invocation {
    /// As a person would type it, for logs and transcripts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tool.name())?;
        for arg in &self.args {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=,@+%".contains(&b);
            if !arg.is_empty() && arg.bytes().all(plain) {
                write!(f, " {arg}")?;
            } else {
                write!(f, " {arg:?}")?;
            }
        }
        Ok(())
    }
}

/// Why a tool refused, as far as its message tells. What to do about it is decided after the state was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// What it was asked about is not there.
    NotFound,
    /// What it was to make is there.
    Exists,
    /// In use: later, or after something else was taken away.
    Busy,
    /// Not in this state.
    WrongState,
    /// No room, or a quota.
    NoSpace,
    /// Not allowed to us.
    Permission,
    /// The input makes no sense to it.
    Invalid,
    /// Anything else; shown as it is.
    Other,
}

/// Parts of messages, most telling first. Only texts of the tools themselves: the C library's differ between systems.
const CAUSES: &[(Tool, &str, Cause)] = &[
    (Tool::Zoneadm, "No such zone configured", Cause::NotFound),
    (Tool::Zoneadm, "is already installed", Cause::Exists),
    (Tool::Zoneadm, "another zoneadm may have an operation in progress", Cause::Busy),
    (Tool::Zoneadm, "shutdown already in progress", Cause::Busy),
    (Tool::Zoneadm, "unable to shutdown zone", Cause::Busy),
    (Tool::Zoneadm, "zone is incomplete", Cause::WrongState),
    (Tool::Zoneadm, "must be installed before", Cause::WrongState),
    (Tool::Zoneadm, "is already in state", Cause::WrongState),
    (Tool::Zoneadm, "not running", Cause::WrongState),
    (Tool::Zoneadm, "only a privileged user may", Cause::Permission),
    (Tool::Zonecfg, "No such zone configured", Cause::NotFound),
    (Tool::Zonecfg, "Zone exists", Cause::Exists),
    (Tool::Zonecfg, "Zone name already in use", Cause::Exists),
    (Tool::Zonecfg, "Zone state is invalid for the requested operation", Cause::WrongState),
    (Tool::Zonecfg, "syntax error", Cause::Invalid),
    (Tool::Zonecfg, "unknown brand", Cause::Invalid),
    (Tool::Zonecfg, "Bogus zone name", Cause::Invalid),
    (Tool::Zonecfg, "Insufficient specification", Cause::Invalid),
    (Tool::Zonecfg, "Required resource missing", Cause::Invalid),
    (Tool::Zonecfg, "invalid physical interface name", Cause::Invalid),
    (Tool::Zlogin, "is not running", Cause::WrongState),
    (Tool::Dladm, "object already exists", Cause::Exists),
    (Tool::Dladm, "object not found", Cause::NotFound),
    (Tool::Dladm, "not found", Cause::NotFound),
    (Tool::Dladm, "link busy", Cause::Busy),
    (Tool::Dladm, "MAC address is already in use", Cause::Busy),
    (Tool::Dladm, "invalid", Cause::Invalid),
    (Tool::Ipadm, "Address object already exists", Cause::Exists),
    (Tool::Ipadm, "Interface already exists", Cause::Exists),
    (Tool::Ipadm, "Object not found", Cause::NotFound),
    (Tool::Ipadm, "Interface does not exist", Cause::NotFound),
    (Tool::Ipadm, "Datalink does not exist", Cause::NotFound),
    (Tool::Ipadm, "Could not communicate with ipmgmtd", Cause::Busy),
    (Tool::Ipadm, "Interface already in use", Cause::Busy),
    (Tool::Ipadm, "Address already in use", Cause::Busy),
    (Tool::Ipadm, "Permission denied", Cause::Permission),
    (Tool::Ipadm, "Insufficient user authorizations", Cause::Permission),
    (Tool::Ipadm, "Invalid argument provided", Cause::Invalid),
    (Tool::Zfs, "dataset already exists", Cause::Exists),
    (Tool::Zfs, "dataset does not exist", Cause::NotFound),
    (Tool::Zfs, "no such parent", Cause::NotFound),
    (Tool::Zfs, "parent does not exist", Cause::NotFound),
    (Tool::Zfs, "dataset is busy", Cause::Busy),
    (Tool::Zfs, "in use by local zone", Cause::Busy),
    (Tool::Zfs, "is used in a non-global zone", Cause::Busy),
    (Tool::Zfs, "has children", Cause::Busy),
    (Tool::Zfs, "has dependent clones", Cause::Busy),
    (Tool::Zfs, "out of space", Cause::NoSpace),
    (Tool::Zfs, "quota exceeded", Cause::NoSpace),
    (Tool::Zfs, "size is less than current used or reserved space", Cause::NoSpace),
    (Tool::Zfs, "permission denied", Cause::Permission),
    (Tool::Zfs, "invalid property", Cause::Invalid),
    (Tool::Zfs, "bad property list", Cause::Invalid),
    (Tool::Zfs, "invalid character in name", Cause::Invalid),
    (Tool::Zpool, "no such pool", Cause::NotFound),
    (Tool::Zpool, "pool or dataset is busy", Cause::Busy),
];

impl Cause {
    /// What a tool's message on standard error says.
    pub fn of(tool: Tool, stderr: &str) -> Self {
        let found = CAUSES.iter().find(|(of, part, _)| *of == tool && stderr.contains(part));
        found.map_or(Self::Other, |(_, _, cause)| *cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_tool() {
        for (tool, stderr, cause) in [
            (Tool::Dladm, "dladm: vnic creation over rwstub0 failed: object already exists", Cause::Exists),
            (Tool::Dladm, "dladm: invalid vnic name 'rwa0': object not found", Cause::NotFound),
            (Tool::Dladm, "dladm: vnic deletion failed: link busy", Cause::Busy),
            (Tool::Dladm, "dladm: invalid link name 'rwa'", Cause::Invalid),
            (Tool::Zfs, "cannot destroy 'rpool/a': dataset is busy", Cause::Busy),
            (Tool::Zfs, "cannot create 'rpool/a': out of space", Cause::NoSpace),
            (Tool::Zfs, "cannot open 'rpool/a': dataset does not exist", Cause::NotFound),
            (Tool::Zoneadm, "zoneadm: zone 'a': zone is incomplete; uninstall required.", Cause::WrongState),
            (Tool::Zonecfg, "a: No such zone configured", Cause::NotFound),
            (Tool::Ipadm, "ipadm: Could not create address: Address object already exists", Cause::Exists),
            (Tool::Kstat, "dataset does not exist", Cause::Other),
        ] {
            assert_eq!(Cause::of(tool, stderr), cause, "{stderr}");
        }
    }

    #[test]
    fn a_run_shows_as_one_would_type_it() {
        let run = Invocation::change(Tool::Zlogin, ["-n", "rw-web", "exec 'a b'", ""]);
        assert_eq!(run.to_string(), "zlogin -n rw-web \"exec 'a b'\" \"\"");
        assert!(!run.reads_only && Invocation::read(Tool::Kstat, ["-p"]).reads_only);
    }

    #[test]
    fn every_tool_has_an_absolute_path() {
        assert_eq!(Tool::Kstat.name(), "kstat");
        assert!(Tool::Dladm.path().starts_with('/'));
    }
}
