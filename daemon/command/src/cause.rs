//! What a tool's message means. One table for all tools: nobody else looks at the words.

use crate::invocation::Tool;
use std::fmt;

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
    /// It did not end in time: whether it took effect is not known.
    Timeout,
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
    (Tool::Zoneadm, "Zone state is invalid for the requested operation", Cause::WrongState),
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
    (Tool::Prctl, "no matching resource control", Cause::NotFound),
    (Tool::Prctl, "resource control already exists", Cause::Exists),
    (Tool::Prctl, "No controllable process found", Cause::WrongState),
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
    (Tool::Zfs, "no such pool", Cause::NotFound),
    (Tool::Zpool, "no such pool", Cause::NotFound),
    (Tool::Zpool, "pool or dataset is busy", Cause::Busy),
    // Without its filter the kernel has no translation.
    (Tool::Ipnat, "ioctl(SIOCGNATS)", Cause::WrongState),
    (Tool::Ipnat, "error at", Cause::Invalid),
    (Tool::Ipf, "Could not find running zone", Cause::WrongState),
    (Tool::Ipf, "error at", Cause::Invalid),
    (Tool::Ilbadm, "already exists", Cause::Exists),
    (Tool::Ilbadm, "specified rule does not exist", Cause::NotFound),
    (Tool::Ilbadm, "cannot find specified server", Cause::NotFound),
    (Tool::Ilbadm, "no such/no more element(s)", Cause::NotFound),
    (Tool::Ilbadm, "its in use with other active rules", Cause::Busy),
    (Tool::Ilbadm, "operation is progress", Cause::Busy),
    (Tool::Ilbadm, "socket() failed", Cause::WrongState),
    (Tool::Ilbadm, "not authorized", Cause::Permission),
    (Tool::Ilbadm, "servergroup is full", Cause::NoSpace),
    (Tool::Ilbadm, "invalid argument(s)", Cause::Invalid),
    (Tool::Nft, "No such file or directory", Cause::NotFound),
    (Tool::Route, "entry exists", Cause::Exists),
    (Tool::Route, "not in table", Cause::NotFound),
    (Tool::Svcs, "doesn't match any instances", Cause::NotFound),
];

impl fmt::Display for Cause {
    /// One word, for metrics.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not-found",
            Self::Exists => "exists",
            Self::Busy => "busy",
            Self::WrongState => "wrong-state",
            Self::NoSpace => "no-space",
            Self::Permission => "permission",
            Self::Timeout => "timeout",
            Self::Invalid => "invalid",
            Self::Other => "other",
        })
    }
}

impl Cause {
    /// What a tool's message on standard error says.
    pub fn of(tool: Tool, stderr: &str) -> Self {
        Self::said_by(tool.name(), stderr)
    }

    /// The same by the program's name; of programs that are not in the table nothing is known.
    pub(crate) fn said_by(program: &str, stderr: &str) -> Self {
        let found = CAUSES.iter().find(|(of, part, _)| of.name() == program && stderr.contains(part));
        found.map_or(Self::Other, |(_, _, cause)| *cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart_by_tool() {
        for (tool, stderr, cause) in [
            (Tool::Prctl, "4711:\t/sbin/init\nprctl: no matching resource control to replace", Cause::NotFound),
            (Tool::Prctl, "prctl: resource control already exists", Cause::Exists),
            (Tool::Prctl, "prctl: a: No controllable process found in task, project, or zone.", Cause::WrongState),
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
            (Tool::Ilbadm, "ilbadm: cannot find specified server group", Cause::NotFound),
            (Tool::Ilbadm, "ilbadm: cannot add 10.88.0.5 to sg1: invalid argument(s) - see man page", Cause::Invalid),
            (Tool::Ipnat, "ioctl(SIOCGNATS): I/O error", Cause::WrongState),
            (Tool::Ipnat, "syntax error error at \"x\", line 3", Cause::Invalid),
            (Tool::Ipf, "Could not find running zone: rw-a", Cause::WrongState),
            (Tool::Ipf, "Bad value specified for netmask error at \"128\", line 2", Cause::Invalid),
            (Tool::Prctl, "prctl: zone.max-lwps: Invalid argument", Cause::Other),
            (Tool::Kstat, "dataset does not exist", Cause::Other),
        ] {
            assert_eq!(Cause::of(tool, stderr), cause, "{stderr}");
        }
    }
}
