//! Ports on which programs of the host listen for others, as /proc/net lists them (proc_pid_net(5)).

use reddwarf_host::service::{Listener, Protocol};
use reddwarf_host::{HostError, HostErrorKind, HostResult};
use std::collections::BTreeSet;

/// TCP_LISTEN and, for UDP, TCP_CLOSE (include/net/tcp_states.h).
const STATES: [(&str, Protocol, &str); 4] = [
    ("tcp", Protocol::Tcp, "0A"),
    ("tcp6", Protocol::Tcp, "0A"),
    ("udp", Protocol::Udp, "07"),
    ("udp6", Protocol::Udp, "07"),
];

pub(super) fn read() -> HostResult<BTreeSet<Listener>> {
    let mut found = BTreeSet::new();
    for (file, protocol, state) in STATES {
        let path = format!("/proc/self/net/{file}");
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                found.extend(text.lines().filter_map(|line| port(line, state)).map(|port| Listener { protocol, port }))
            }
            // Without IPv6 there are no such files.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => {
                let error = HostError::new(HostErrorKind::Other, "list listeners", path, "can't be read");
                return Err(error.caused_by(e));
            }
        }
    }
    Ok(found)
}

/// `  0: 0100007F:1F90 00000000:0000 0A …`: address and port in hexadecimal.
fn port(line: &str, state: &str) -> Option<u16> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let loopback = address.ends_with("7F") && address.len() == 8 || address == "00000000000000000000000001000000";
    (words.nth(1)? == state && !loopback).then(|| u16::from_str_radix(port, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_net() {
        let line =
            "   0: 00000000:7530 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100";
        assert_eq!(port(line, "0A"), Some(30_000));
        assert_eq!(port(line, "07"), None);
        assert_eq!(port(&line.replacen("00000000:7530", "0100007F:7530", 1), "0A"), None, "only for the host itself");
        assert_eq!(port("  sl  local_address rem_address   st", "0A"), None);
    }
}
