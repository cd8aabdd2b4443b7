//! Capabilities by name: Linux grants them, every host knows which there are.

/// All of capabilities(7) up to Linux 5.9, the newest that counts, without `CAP_`.
pub const ALL: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// The capability of this name, in any case, with or without `CAP_`.
pub fn known(name: &str) -> Option<&'static str> {
    let plain = name.to_ascii_uppercase();
    let plain = plain.strip_prefix("CAP_").unwrap_or(&plain);
    ALL.iter().find(|c| **c == plain).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_however_they_are_written() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN"] {
            assert_eq!(known(name), Some("NET_ADMIN"));
        }
        assert_eq!(known("FLY"), None);
    }
}
