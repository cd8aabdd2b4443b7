//! Kernel settings below /proc/sys/net. They belong to the network namespace of the thread that opens them.

use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::io::Write;
use std::path::PathBuf;

/// The switch that makes the host a router for the pod network's family.
pub(crate) fn forwarding(ipv6: bool) -> &'static str {
    if ipv6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" }
}

/// The switch that makes a link answer for neighbours that are kept apart from one another (ip-sysctl).
pub(crate) fn answers_for_neighbours(link: &str) -> String {
    format!("net/ipv4/conf/{link}/proxy_arp_pvlan")
}

/// Do the host's rules see what a bridge passes from port to port (br_netfilter)? Then a packet to a service is turned round
/// within the bridge and ports must reach each other; the rules see it all the same. Otherwise ports are kept apart, and all
/// that pods send each other goes through the host's routing, where the rules see it.
pub(crate) fn bridge_filters(ipv6: bool) -> bool {
    let name = if ipv6 { "net/bridge/bridge-nf-call-ip6tables" } else { "net/bridge/bridge-nf-call-iptables" };
    std::fs::read_to_string(path(name)).is_ok_and(|value| value.trim() == "1")
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

/// Reads one setting, trimmed.
pub(crate) fn read(name: &str) -> HostResult<String> {
    std::fs::read_to_string(path(name)).map(|v| v.trim().to_owned()).map_err(|e| {
        HostError::new(HostErrorKind::Unsupported, "read kernel setting", name, "can't be read").caused_by(e)
    })
}

/// Writes one setting.
pub(crate) fn write(name: &str, value: &str) -> HostResult<()> {
    // Not std::fs::write: it would make a file where the kernel has no such setting.
    let result =
        std::fs::OpenOptions::new().write(true).open(path(name)).and_then(|mut f| f.write_all(value.as_bytes()));
    result.map_err(|e| {
        let message = format!("can't be set to {value}: is /proc/sys read-only?");
        HostError::new(HostErrorKind::Unsupported, "set kernel setting", name, message).caused_by(e)
    })
}

/// What a new sandbox's namespace gets; called on a thread inside it. Conveniences: a kernel without one is fine.
pub(crate) fn set_up_sandbox() {
    for (name, value) in [("net/ipv4/ping_group_range", "0 2147483647"), ("net/ipv4/ip_unprivileged_port_start", "0")] {
        if let Err(e) = write(name, value) {
            tracing::debug!(setting = name, error = %e.chain(), "not set in the sandbox");
        }
    }
}
