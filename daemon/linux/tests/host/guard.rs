//! The guard of services' rules, with a socket that outlives the daemon.

use crate::support::as_root;
use reddwarf_host::service::{Backends, Direction, Frontend, Isolation, Place, Protocol, ServiceTable};
use reddwarf_host::{Change, Services};
use reddwarf_linux::guard_socket;
use std::process::Command;
use std::time::{Duration, Instant};

fn table(pod: &str) -> ServiceTable {
    let place = Place::Address("10.96.0.10".parse().unwrap());
    let web =
        Backends { name: "d/web".into(), addresses: ["10.88.0.2:8080".parse().unwrap()].into(), ..Backends::default() };
    let pods = [pod.parse().unwrap()].into();
    ServiceTable {
        frontends: [(Frontend { place, protocol: Protocol::Tcp, port: 80 }, web)].into(),
        isolations: vec![Isolation { direction: Direction::Ingress, pods, allow: [].into() }],
        ..ServiceTable::default()
    }
}

fn nft(arguments: &[&str]) -> String {
    let out = Command::new("nft").args(arguments).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_guard_whose_socket_is_kept_outlives_the_daemon_and_is_taken_over() {
    as_root(|world| async move {
        let socket = guard_socket().unwrap();
        let daemon = || {
            let host = world.second_daemon();
            host.guard_by(socket.try_clone().unwrap());
            host
        };
        let first = daemon();
        let _ = first.services_ensure(&table("10.88.0.2")).await.unwrap();
        drop(first);
        nft(&["flush", "ruleset"]);
        let left = nft(&["list", "ruleset"]);
        assert!(left.contains("_services_guard {") && left.contains("10.88.0.2"), "{left}");
        assert!(!left.contains("_services {"), "{left}");

        // Meanwhile another pod is isolated.
        let second = daemon();
        assert!(matches!(second.services_ensure(&table("10.88.0.3")).await.unwrap(), Change::Changed(_)));
        let now = nft(&["list", "ruleset"]);
        let guard = now.split("table inet ").find(|table| table.contains("_guard {")).unwrap();
        assert!(guard.contains("10.88.0.3") && !guard.contains("10.88.0.2"), "{now}");
        assert_eq!(second.services_drift().await.unwrap(), Vec::<String>::new());
        assert_eq!(second.services_ensure(&table("10.88.0.3")).await.unwrap(), Change::Unchanged);

        // Without services there is nothing to guard, and afterwards again.
        let _ = second.services_ensure(&ServiceTable::default()).await.unwrap();
        assert_eq!(nft(&["list", "ruleset"]), "");
        let _ = second.services_ensure(&table("10.88.0.2")).await.unwrap();
        assert!(nft(&["list", "ruleset"]).contains("_services_guard {"));
        drop(second);
        drop(socket);
        let until = Instant::now() + Duration::from_secs(5);
        while nft(&["list", "ruleset"]).contains("_services_guard {") {
            assert!(Instant::now() < until, "it goes with its socket");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
