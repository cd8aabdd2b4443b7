//! What differs between the distributions.

use serde::{Deserialize, Serialize};

/// Which illumos is played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Plain illumos-gate: OpenIndiana, Tribblix.
    Gate,
    /// OmniOS.
    #[default]
    Omnios,
    /// SmartOS.
    Smartos,
}

impl System {
    /// Whether it is plain illumos-gate.
    pub fn is_gate(self) -> bool {
        self == Self::Gate
    }

    /// Its brands; further ones may lie in `<dir>/brands`.
    pub fn brands(self) -> &'static [&'static str] {
        match self {
            Self::Gate => &["ipkg", "labeled", "sn1", "solaris10"],
            Self::Omnios => &["lipkg", "sparse", "pkgsrc", "illumos", "lx", "bhyve", "kvm", "emu", "ipkg"],
            Self::Smartos => &["joyent", "joyent-minimal", "lx", "bhyve", "kvm", "builder"],
        }
    }

    /// ID of /etc/os-release.
    pub fn os_release_id(self) -> &'static str {
        match self {
            Self::Gate => "openindiana",
            Self::Omnios => "omnios",
            Self::Smartos => "smartos",
        }
    }
}

/// Resource controls of zones that the kernel knows. zonecfg saves others too, without a word.
pub const RCTLS: &[&str] = &[
    "zone.cpu-baseline",
    "zone.cpu-burst-time",
    "zone.cpu-cap",
    "zone.cpu-shares",
    "zone.max-locked-memory",
    "zone.max-lofi",
    "zone.max-lwps",
    "zone.max-msg-ids",
    "zone.max-physical-memory",
    "zone.max-processes",
    "zone.max-sem-ids",
    "zone.max-shm-ids",
    "zone.max-shm-memory",
    "zone.max-swap",
    "zone.zfs-io-priority",
];

/// Privileges by name (privileges(7)).
pub const PRIVILEGES: &[&str] = &[
    "contract_event",
    "contract_identity",
    "contract_observer",
    "cpc_cpu",
    "dtrace_kernel",
    "dtrace_proc",
    "dtrace_user",
    "file_chown",
    "file_chown_self",
    "file_dac_execute",
    "file_dac_read",
    "file_dac_search",
    "file_dac_write",
    "file_downgrade_sl",
    "file_flag_set",
    "file_link_any",
    "file_owner",
    "file_read",
    "file_setid",
    "file_upgrade_sl",
    "file_write",
    "graphics_access",
    "graphics_map",
    "hyprlofs_control",
    "ipc_dac_read",
    "ipc_dac_write",
    "ipc_owner",
    "net_access",
    "net_bindmlp",
    "net_icmpaccess",
    "net_mac_aware",
    "net_mac_implicit",
    "net_observability",
    "net_privaddr",
    "net_rawaccess",
    "proc_audit",
    "proc_chroot",
    "proc_clock_highres",
    "proc_exec",
    "proc_fork",
    "proc_info",
    "proc_lock_memory",
    "proc_owner",
    "proc_prioup",
    "proc_priocntl",
    "proc_secflags",
    "proc_session",
    "proc_setid",
    "proc_taskid",
    "proc_zone",
    "sys_acct",
    "sys_admin",
    "sys_audit",
    "sys_config",
    "sys_devices",
    "sys_dl_config",
    "sys_flow_config",
    "sys_fs_import",
    "sys_ip_config",
    "sys_ipc_config",
    "sys_iptun_config",
    "sys_linkdir",
    "sys_mount",
    "sys_net_config",
    "sys_nfs",
    "sys_ppp_config",
    "sys_res_bind",
    "sys_res_config",
    "sys_resource",
    "sys_smb",
    "sys_suser_compat",
    "sys_time",
    "sys_trans_label",
    "virt_manage",
    "xvm_control",
];

/// Whether a data link may be called so: 1 to 31 letters, digits, `_`, `.`; a letter first; a number without a leading
/// zero last.
pub fn is_link_name(name: &str) -> bool {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let number = name.get(name.len() - digits..).unwrap_or_default();
    (1..=31).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.')
        && digits > 0
        && (number == "0" || !number.starts_with('0'))
}

/// Whether a zone may be called so.
pub fn is_zone_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && name != "global"
        && !name.starts_with("SUNW")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_the_system_wants_them() {
        for good in ["net0", "net10", "rwweb0", "a.b_c1", "rw1abc0"] {
            assert!(is_link_name(good), "{good}");
        }
        for bad in ["", "net", "net01", "0net0", "vnic_default_nginx", "a-b0", &format!("{}0", "a".repeat(31))] {
            assert!(!is_link_name(bad), "{bad}");
        }
        for bad in ["", "global", "SUNWx", "-a", "a b", "a/b", &"a".repeat(64)] {
            assert!(!is_zone_name(bad), "{bad}");
        }
        assert!(is_zone_name(&"a".repeat(63)) && is_zone_name("A_b.c-9"));
    }
}
