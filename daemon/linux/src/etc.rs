//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a sandbox.

use crate::files::{make_open_dir, write_atomically};
use reddwarf_host::spec::{HostsEntry, ResolvConf, SandboxNetwork, SandboxSpec};
use std::fmt::Write;
use std::io;
use std::path::Path;

/// Writes the three files. They are bound into containers one by one, so they are made once per sandbox.
pub(crate) fn write(dir: &Path, spec: &SandboxSpec) -> io::Result<()> {
    make_open_dir(dir)?;
    write_atomically(&dir.join("hosts"), hosts(spec).as_bytes(), 0o644)?;
    write_atomically(&dir.join("hostname"), format!("{}\n", spec.hostname).as_bytes(), 0o644)?;
    write_atomically(&dir.join("resolv.conf"), resolv_conf(&spec.dns).as_bytes(), 0o644)
}

/// hosts(5): the standard lines, the pod's own name, then what the spec adds.
fn hosts(spec: &SandboxSpec) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    match &spec.network {
        SandboxNetwork::Pod { address, .. } => line(&mut text, &address.addr().to_string(), &spec.hostname),
        SandboxNetwork::Host => line(&mut text, "127.0.1.1", &spec.hostname),
    }
    for HostsEntry { ip, names } in &spec.hosts {
        line(&mut text, &ip.to_string(), &names.join("\t"));
    }
    text
}

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
