//! Numbers of system calls on the machines that we run on.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// One line a call: name and its numbers, as the kernel's headers have them.
const TABLE: &str = include_str!("syscalls.txt");

/// A set of system call numbers: a processor's own, or an older one that it still runs programs of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each machine uses its own")]
pub(super) enum Abi {
    X86_64,
    /// 32-bit programs on x86_64.
    I386,
    Aarch64,
}

impl Abi {
    /// What programs on this machine can use, its own first. Others (x32, 32-bit Arm) have no numbers here: their
    /// calls are refused.
    pub(super) fn of_this_machine() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        return &[Self::X86_64, Self::I386];
        #[cfg(target_arch = "aarch64")]
        return &[Self::Aarch64];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        return &[];
    }

    /// AUDIT_ARCH_* of linux/audit.h, as seccomp_data.arch has it.
    pub(super) fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 => 0xC000_003E,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    /// As OCI configs name it.
    pub(super) fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::I386 => "SCMP_ARCH_X86",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    /// As Go, and so docker's profiles, name the machine.
    pub(super) fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::I386 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// The call's number; `None` where there is no such call.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let of = |numbers: &Numbers| match self {
            Self::X86_64 => numbers[0],
            Self::I386 => numbers[1],
            Self::Aarch64 => numbers[2],
        };
        table().get(name).and_then(of)
    }

    /// The newest call that the table knows.
    pub(super) fn newest(self) -> u32 {
        table().keys().filter_map(|name| self.number(name)).max().unwrap_or(0)
    }
}

type Numbers = [Option<u32>; 3];

fn table() -> &'static BTreeMap<&'static str, Numbers> {
    static PARSED: OnceLock<BTreeMap<&'static str, Numbers>> = OnceLock::new();
    PARSED.get_or_init(|| {
        let line = |line: &'static str| {
            let mut fields = line.split(' ');
            let name = fields.next()?;
            let mut number = || fields.next().and_then(|n| n.parse().ok());
            Some((name, [number(), number(), number()]))
        };
        TABLE.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(Abi::X86_64.number("openat"), Some(257));
        assert_eq!(Abi::I386.number("openat"), Some(295));
        assert_eq!(Abi::Aarch64.number("openat"), Some(56));
        assert_eq!(Abi::Aarch64.number("open"), None);
        assert_eq!(Abi::X86_64.number("socketcall"), None);
        assert_eq!(table().len(), TABLE.lines().count() - 1, "every line holds a call of its own");
    }

    /// The C library knows this machine's numbers as well.
    #[test]
    fn numbers_agree_with_the_c_library() {
        let Some(own) = Abi::of_this_machine().first() else { return };
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("unshare", libc::SYS_unshare),
            ("keyctl", libc::SYS_keyctl),
            ("mount", libc::SYS_mount),
            ("personality", libc::SYS_personality),
            ("socket", libc::SYS_socket),
            ("bpf", libc::SYS_bpf),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("fchmodat2", libc::SYS_fchmodat2),
        ] {
            assert_eq!(own.number(name).map(i64::from), Some(number), "{name}");
        }
    }
}
