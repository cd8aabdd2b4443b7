//! The host's name servers: resolv.conf(5), read again when it changed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const PORT: u16 = 53;
/// The file is looked at no more often.
const PAUSE: Duration = Duration::from_millis(500);
/// More are never asked.
const MOST: usize = 8;
/// The part of a file that is read.
const MOST_BYTES: u64 = 64 << 10;
/// systemd-resolved's own listeners: behind them are the real servers.
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Where servers are named.
#[derive(Debug)]
pub struct HostServers {
    source: Source,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Source {
    Fixed(Arc<[SocketAddr]>),
    Files { main: PathBuf, behind_stub: PathBuf },
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    stamps: [Option<Stamp>; 2],
    servers: Arc<[SocketAddr]>,
    own: Vec<SocketAddr>,
}

/// Tells whether a file is still the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    len: u64,
}

impl HostServers {
    /// Those of `main`, a resolv.conf(5); when they are only systemd-resolved's stub those of `behind_stub`, if it names any.
    pub fn of_files(main: PathBuf, behind_stub: PathBuf) -> Self {
        Self { source: Source::Files { main, behind_stub }, state: Mutex::default() }
    }

    /// These.
    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        Self { source: Source::Fixed(servers.into()), state: Mutex::default() }
    }

    /// Addresses that are never asked, because we are there.
    pub(crate) fn leave_out(&self, own: Vec<SocketAddr>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.own = own;
        state.looked = None;
        state.stamps = [None; 2];
    }

    /// The servers to ask, the first first.
    pub(crate) fn now(&self) -> Arc<[SocketAddr]> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (main, behind_stub) = match &self.source {
            Source::Fixed(servers) => return Arc::clone(servers),
            Source::Files { main, behind_stub } => (main, behind_stub),
        };
        let now = Instant::now();
        if state.looked.is_some_and(|at| now < at + PAUSE) {
            return Arc::clone(&state.servers);
        }
        state.looked = Some(now);
        let stamps = [stamp(main), stamp(behind_stub)];
        if stamps == [None, None] || stamps != state.stamps {
            state.stamps = stamps;
            let servers = choose(&read(main), &read(behind_stub), &state.own);
            if *servers != *state.servers {
                tracing::info!(?servers, "the host's name servers");
            }
            state.servers = servers.into();
        }
        Arc::clone(&state.servers)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(path).ok()?;
    Some(Stamp { inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()), len: meta.len() })
}

fn read(path: &Path) -> Vec<SocketAddr> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    if let Err(error) = read {
        tracing::debug!(path = %path.display(), %error, "no name servers from there");
    }
    nameservers(&String::from_utf8_lossy(&text))
}

/// The `nameserver` lines of a resolv.conf(5).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then_some(())?;
        server(words.next()?)
    });
    servers.take(MOST).collect()
}

/// An address; one of a link's may name the link, `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, link)) = text.split_once('%') else { return Some((text.parse::<IpAddr>().ok()?, PORT).into()) };
    let index = link.parse().ok().or_else(|| nix::net::if_::if_nametoindex(link).ok())?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, index).into())
}

/// Without any server resolv.conf(5) means the host itself.
fn choose(main: &[SocketAddr], behind_stub: &[SocketAddr], own: &[SocketAddr]) -> Vec<SocketAddr> {
    let local = [SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))];
    let main = if main.is_empty() { &local[..] } else { main };
    let others = |all: &[SocketAddr]| -> Vec<SocketAddr> {
        all.iter().filter(|server| !own.iter().any(|o| reaches(o, server))).copied().collect()
    };
    if main.iter().all(|server| STUBS.contains(&server.ip()) || own.iter().any(|o| reaches(o, server))) {
        let real = others(behind_stub);
        if !real.is_empty() {
            return real;
        }
    }
    others(main)
}

/// Whether what is sent to `server` comes to our listener `own`.
fn reaches(own: &SocketAddr, server: &SocketAddr) -> bool {
    own.port() == server.port() && (own.ip() == server.ip() || own.ip().is_unspecified() && server.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn only_name_server_lines_count() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 192.0.2.1\n nameserver\tfd00::1 # main\nnameserver x\n\
                    nameserver fe80::1%7\n";
        let found = nameservers(text);
        assert_eq!(found[..2], all(&["192.0.2.1:53", "[fd00::1]:53"]));
        assert_eq!(found[2], SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 7).into());
        assert_eq!(nameservers(&"nameserver 192.0.2.1\n".repeat(50)).len(), MOST);
    }

    #[test]
    fn we_never_ask_ourselves_and_look_behind_resolveds_stub() {
        let own = all(&["10.88.0.1:53", "0.0.0.0:10053"]);
        let stub = all(&["127.0.0.53:53"]);
        let real = all(&["192.0.2.1:53", "10.88.0.1:53"]);
        assert_eq!(choose(&stub, &real, &own), all(&["192.0.2.1:53"]));
        assert_eq!(choose(&stub, &[], &own), stub);
        assert_eq!(choose(&all(&["10.88.0.1:53", "192.0.2.7:53"]), &real, &own), all(&["192.0.2.7:53"]));
        assert_eq!(choose(&all(&["10.88.0.1:53"]), &[], &own), []);
        assert_eq!(choose(&[], &[], &own), all(&["127.0.0.1:53"]));
        assert_eq!(choose(&[], &[], &all(&["0.0.0.0:53"])), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let put = |text: &str| {
            let new = dir.path().join("new");
            #[expect(clippy::disallowed_methods, reason = "a test's file")]
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        put("nameserver 192.0.2.1\n");
        let servers = HostServers::of_files(path.clone(), dir.path().join("none"));
        assert_eq!(*servers.now(), all(&["192.0.2.1:53"]));
        put("nameserver 192.0.2.2\n");
        tokio::time::advance(PAUSE).await;
        assert_eq!(*servers.now(), all(&["192.0.2.2:53"]));
    }
}
