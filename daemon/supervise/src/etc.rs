//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a sandbox.

use crate::files::{make_open_dir, write_atomically};
use reddwarf_host::spec::{HostsEntry, ResolvConf, SandboxNetwork, SandboxSpec};
use std::fmt::Write;
use std::io;
use std::path::Path;

/// Writes the three files. They are bound into containers one by one, so they are made once per sandbox.
pub fn write(dir: &Path, spec: &SandboxSpec) -> io::Result<()> {
    make_open_dir(dir)?;
    let of_host = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    write_atomically(&dir.join("hosts"), hosts(spec, &of_host).as_bytes(), 0o644)?;
    write_atomically(&dir.join("hostname"), format!("{}\n", spec.hostname).as_bytes(), 0o644)?;
    write_atomically(&dir.join("resolv.conf"), resolv_conf(&spec.dns).as_bytes(), 0o644)
}

/// hosts(5), as the kubelet lays it out: the standard lines and the pod's own, or the host's own file, then what the
/// spec adds. An entry of the pod's own address takes the place of its standard line.
fn hosts(spec: &SandboxSpec, of_host: &str) -> String {
    let own = spec.network.ips();
    let mut text = match &spec.network {
        SandboxNetwork::Pod { .. } => String::from(STANDARD),
        SandboxNetwork::Host => format!("# Kubernetes-managed hosts file (host network).\n{of_host}"),
    };
    let is_own = |entry: &&HostsEntry| own.contains(&entry.ip);
    for ip in &own {
        match spec.hosts.iter().find(|entry| entry.ip == *ip) {
            Some(entry) => line(&mut text, &ip.to_string(), &entry.names.join("\t")),
            None => line(&mut text, &ip.to_string(), &spec.hostname),
        }
    }
    let mut aliases = spec.hosts.iter().filter(|entry| !is_own(entry)).peekable();
    if aliases.peek().is_some() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for HostsEntry { ip, names } in aliases {
        line(&mut text, &ip.to_string(), &names.join("\t"));
    }
    text
}

const STANDARD: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

fn line(text: &mut String, ip: &str, names: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{ip}\t{names}");
}

/// resolv.conf(5).
fn resolv_conf(dns: &ResolvConf) -> String {
    let mut text = String::new();
    for server in &dns.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_holds_only_what_is_asked() {
        let dns = ResolvConf {
            nameservers: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(resolv_conf(&dns), "nameserver 10.0.0.1\nnameserver fd00::1\nsearch a.svc svc\noptions ndots:5\n");
        assert_eq!(resolv_conf(&ResolvConf::default()), "");
    }
}
