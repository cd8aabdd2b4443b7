//! Kernel settings of a pod's own namespaces: which there are, and which a pod may ask for.

use reddwarf_objects::pod::PodSpec;
use std::collections::BTreeMap;

/// Kept apart by namespaces and unable to harm others (Kubernetes: "Safe and Unsafe Sysctls").
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Which namespace a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    Ipc,
    Net,
}

fn namespace(name: &str) -> Option<Namespace> {
    const IPC: [&str; 3] = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    if name == "kernel.sem" || IPC.iter().any(|prefix| name.starts_with(prefix)) {
        Some(Namespace::Ipc)
    } else if name.starts_with("net.") {
        Some(Namespace::Net)
    } else {
        None
    }
}

/// sysctl(8) takes slashes for dots; when the first separator is one, the two change places.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes().get(at) == Some(&b'/') => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// The pod's settings by dotted name.
pub(super) fn of(spec: &PodSpec) -> BTreeMap<String, String> {
    spec.security_context.sysctls.iter().map(|s| (dotted(&s.name), s.value.clone())).collect()
}

/// Why a pod may not have its settings, in the kubelet's words. `allowed`: names, or prefixes with a `*` behind.
pub(super) fn forbidden(spec: &PodSpec, allowed: &[String]) -> Option<String> {
    of(spec).into_keys().find_map(|name| {
        let space = namespace(&name);
        let listed = SAFE.contains(&name.as_str()) || allowed.iter().any(|pattern| matches(pattern, &name));
        let why = match space {
            Some(Namespace::Ipc) if spec.host_ipc => "not allowed with host ipc enabled",
            Some(Namespace::Net) if spec.host_network => "not allowed with host net enabled",
            Some(_) if listed => return None,
            _ => "not allowlisted",
        };
        Some(format!("forbidden sysctl: {name:?} {why}"))
    })
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(name: &str) -> PodSpec {
        serde_json::from_value(json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}})).unwrap()
    }

    #[test]
    fn safe_ones_pass_and_others_need_a_word() {
        let allowed = ["net.core.somaxconn".to_owned(), "kernel.msg*".to_owned(), "vm.*".to_owned()];
        for name in ["net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies", "net.core.somaxconn", "kernel.msgmax"] {
            assert_eq!(forbidden(&spec(name), &allowed), None, "{name}");
        }
        assert_eq!(
            forbidden(&spec("kernel.msgmax"), &[]).unwrap(),
            "forbidden sysctl: \"kernel.msgmax\" not allowlisted"
        );
        assert!(forbidden(&spec("vm.swappiness"), &allowed).is_some(), "the whole machine's: no word helps");
        let host = PodSpec { host_network: true, ..spec("net.ipv4.tcp_syncookies") };
        assert_eq!(
            forbidden(&host, &[]).unwrap(),
            "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"
        );
        let host = PodSpec { host_ipc: true, ..spec("kernel.shm_rmid_forced") };
        assert!(forbidden(&host, &[]).unwrap().ends_with("not allowed with host ipc enabled"));
    }

    #[test]
    fn slashes_are_dots() {
        assert_eq!(dotted("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(dotted("net.ipv4.conf.eth0/1.forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    }
}
