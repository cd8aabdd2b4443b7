//! Guards that can't be raised: nothing leads to who is to be guarded, whoever balances, and what can be served is.

use crate::support::{World, played};
use reddwarf_host::service::{Allow, Backends, Direction, Frontend, Isolation, Place, Protocol, ServiceTable};
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{Network, Services};
use reddwarf_hostsim::packet::{Fate, connect};
use reddwarf_illumos::Balancer;
use std::net::{IpAddr, SocketAddr};

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 5));

fn address(spec: &SandboxSpec) -> IpAddr {
    spec.network.addresses()[0].address.addr()
}

/// A service at each of these ports, before these pods' port 8080; nobody comes in to the `isolated` but their friends.
fn table(services: &[(u16, &[&SandboxSpec])], isolated: &[&SandboxSpec], friends: &[&SandboxSpec]) -> ServiceTable {
    let service = |(port, behind): &(u16, &[&SandboxSpec])| {
        let addresses = behind.iter().map(|spec| SocketAddr::new(address(spec), 8080)).collect();
        let backends = Backends { name: format!("default/web{port}"), addresses, ..Backends::default() };
        (Frontend { place: Place::Address(VIP), protocol: Protocol::Tcp, port: *port }, backends)
    };
    let peers = friends.iter().map(|pod| address(pod).into()).collect();
    let isolation = |pod: &&SandboxSpec| Isolation {
        direction: Direction::Ingress,
        pods: [address(pod)].into(),
        allow: [Allow { peers: Some(std::collections::BTreeSet::clone(&peers)), ports: None }].into(),
    };
    ServiceTable {
        pods: ["10.213.0.0/24".parse().unwrap()].into(),
        frontends: services.iter().map(service).collect(),
        isolations: isolated.iter().map(isolation).collect(),
        ..ServiceTable::default()
    }
}

/// Whom a pod's connections to the service at a port reach.
fn reached(world: &World, from: &SandboxSpec, port: u16) -> Vec<IpAddr> {
    let fates = connect(&world.lab.state().unwrap(), address(from), SocketAddr::new(VIP, port), "tcp");
    let arrived = |fate| if let Fate::Arrives { at, .. } = fate { Some(at.ip()) } else { None };
    fates.into_iter().filter_map(arrived).filter(|at| *at != VIP).collect()
}

fn only(pods: &[&SandboxSpec]) -> Vec<IpAddr> {
    pods.iter().map(|pod| address(pod)).collect()
}

#[test]
fn nothing_leads_to_who_could_not_be_guarded_by_either_balancer() {
    for balancer in [Balancer::Ipnat, Balancer::Ilb] {
        played(|world| async move {
            crate::balancer::enable(&world);
            let host = crate::balancer::host(&world, balancer);
            let (web, free, other) = (world.running().await, world.running().await, world.running().await);
            // One that is served already, by who is not guarded yet.
            let _ = host.services_ensure(&table(&[(79, &[&web])], &[], &[])).await.unwrap();
            let services: [(u16, &[&SandboxSpec]); 4] =
                [(79, &[&web]), (80, &[&web]), (81, &[&free]), (82, &[&web, &free])];
            let table = table(&services, &[&web], &[&free]);
            world.lab.faults("ipf/-f * fail-before 1 died\n").unwrap();
            let failed = host.services_ensure(&table).await.unwrap_err();
            assert!(failed.chain().contains("died"), "{}", failed.chain());
            assert_eq!(reached(&world, &other, 79), only(&[]), "{balancer:?}: what led there is taken back");
            assert_eq!(reached(&world, &other, 80), only(&[]), "{balancer:?}");
            assert_eq!(reached(&world, &other, 81), only(&[&free]), "{balancer:?}: no other waits");
            assert_eq!(reached(&world, &other, 82), only(&[&free]), "{balancer:?}: nor who is beside");
            world.lab.faults("").unwrap();
            let _ = host.services_ensure(&table).await.unwrap();
            for port in [79, 80] {
                assert_eq!(reached(&world, &free, port), only(&[&web]), "{balancer:?}: a friend");
                assert_eq!(reached(&world, &other, port), only(&[]), "{balancer:?}: a stranger");
            }
            assert_eq!(host.services_drift().await.unwrap(), [""; 0], "{balancer:?}");
        });
    }
}

/// A refresh of ipfilter's service takes guards and redirections away: these come back behind those only.
#[test]
fn redirections_that_somebody_took_away_come_back_behind_their_guards() {
    played(|world| async move {
        let (web, free, other) = (world.running().await, world.running().await, world.running().await);
        let table = table(&[(80, &[&web]), (81, &[&free])], &[&web], &[&free]);
        let _ = world.host.services_ensure(&table).await.unwrap();
        assert_eq!((reached(&world, &other, 80), reached(&world, &other, 81)), (only(&[]), only(&[&free])));
        let answer = world.lab.run("svcadm", &["refresh", "svc:/network/ipfilter:default"]).unwrap();
        assert_eq!(answer.code, 0, "{}", answer.err);
        // The pod network is looked after first.
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        assert_eq!(reached(&world, &other, 80), only(&[]), "the network put it back");
        world.lab.faults("ipf/-f * fail-before 1 died\n").unwrap();
        let _ = world.host.services_ensure(&table).await.unwrap_err();
        assert_eq!((reached(&world, &other, 80), reached(&world, &other, 81)), (only(&[]), only(&[&free])));
        world.lab.faults("").unwrap();
        let _ = world.host.services_ensure(&table).await.unwrap();
        assert_eq!((reached(&world, &free, 80), reached(&world, &other, 80)), (only(&[&web]), only(&[])));
    });
}

/// What pods' networks are is in a file, and who is a pod follows from them.
#[test]
fn without_the_note_of_the_pod_network_policies_hold_and_the_rest_is_served() {
    played(|world| async move {
        let (web, free, other) = (world.running().await, world.running().await, world.running().await);
        let _ = world.host.services_ensure(&table(&[(80, &[&web])], &[&web], &[&free])).await.unwrap();
        let file = world.options.run_dir.join("network.json");
        let table = table(&[(80, &[&web]), (81, &[&free]), (82, &[&web])], &[&web], &[&free]);
        let holds = |world: &World| {
            assert_eq!((reached(world, &free, 80), reached(world, &other, 80)), (only(&[&web]), only(&[])));
            assert_eq!(reached(world, &other, 81), only(&[&free]), "it needs no guard");
            assert_eq!(reached(world, &other, 82), only(&[]), "nobody knows its guards");
        };
        std::fs::write(&file, "{").unwrap();
        let failed = world.host.services_ensure(&table).await.unwrap_err();
        for part in [file.to_str().unwrap(), "remove this file"] {
            assert!(failed.chain().contains(part), "{}", failed.chain());
        }
        holds(&world);
        let failed = world.host.network_ensure(&world.network()).await.unwrap_err();
        assert!(failed.chain().contains("remove this file"), "{}", failed.chain());
        // As it is told.
        std::fs::remove_file(&file).unwrap();
        let _ = world.second_daemon().services_ensure(&table).await.unwrap_err();
        holds(&world);
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let _ = world.host.services_ensure(&table).await.unwrap();
        assert_eq!((reached(&world, &free, 82), reached(&world, &other, 82)), (only(&[&web]), only(&[])));
        let _ = world.host.services_ensure(&ServiceTable::default()).await.unwrap();
        assert!(world.lab.state().unwrap().filters[""].active.v4.is_empty(), "nothing is left over");
    });
}
