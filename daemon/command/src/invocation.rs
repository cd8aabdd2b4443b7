//! The tools, and one run of one of them as a value.

use std::fmt;
use std::time::Duration;

macro_rules! tools {
    ($($(#[$doc:meta])* $variant:ident $name:literal,)+) => {
        /// A program of the system. Where it is follows from [`Tools`](crate::Tools), never from `$PATH`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Tool {
            $($(#[$doc])* $variant,)+
        }

        impl Tool {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name: the last part of its path, and how its messages begin.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

tools! {
    /// zoneadm(8)
    Zoneadm "zoneadm",
    /// zonecfg(8)
    Zonecfg "zonecfg",
    /// zlogin(1)
    Zlogin "zlogin",
    /// dladm(8)
    Dladm "dladm",
    /// ipadm(8)
    Ipadm "ipadm",
    /// route(8)
    Route "route",
    /// netstat(8)
    Netstat "netstat",
    /// zfs(8)
    Zfs "zfs",
    /// zpool(8)
    Zpool "zpool",
    /// ipnat(8)
    Ipnat "ipnat",
    /// ipf(8)
    Ipf "ipf",
    /// ipfstat(8)
    Ipfstat "ipfstat",
    /// ilbadm(8)
    Ilbadm "ilbadm",
    /// kstat(8)
    Kstat "kstat",
    /// prctl(1)
    Prctl "prctl",
    /// pkill(1)
    Pkill "pkill",
    /// rcapadm(8)
    Rcapadm "rcapadm",
    /// ppriv(1)
    Ppriv "ppriv",
    /// ctrun(1)
    Ctrun "ctrun",
    /// svcs(1)
    Svcs "svcs",
    /// svcadm(8)
    Svcadm "svcadm",
    /// btrfs(8)
    Btrfs "btrfs",
    /// nft(8)
    Nft "nft",
}

/// One run of a tool.
#[derive(Clone, PartialEq, Eq)]
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

impl fmt::Debug for Invocation {
    /// Without what it reads: that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}` < {} bytes, {:?}", self.stdin.len(), self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_shows_as_one_would_type_it_and_hides_what_it_reads() {
        let run = Invocation::change(Tool::Zlogin, ["-n", "rw-web", "exec 'a b'", ""]).reading("hunter2");
        assert_eq!(run.to_string(), "zlogin -n rw-web \"exec 'a b'\" \"\"");
        assert!(!format!("{run:?}").contains("hunter2"));
        assert!(!run.reads_only && Invocation::read(Tool::Kstat, ["-p"]).reads_only);
    }
}
