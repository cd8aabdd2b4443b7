//! Services by ILB (`zone_balancer = "ilb"`): what it gets, that only differences are applied, what is others', and ways
//! that end in the middle.

use crate::support::{World, played};
use reddwarf_host::service::{Backends, Frontend, Place, Protocol, ServiceTable};
use reddwarf_host::{Change, HostErrorKind, Network, Sandboxes, Services, SystemClock};
use reddwarf_hostsim::state::{Balancer as Played, BalancerRule};
use reddwarf_illumos::{Balancer, IllumosHost, IllumosOptions};
use std::sync::Arc;
use std::time::Duration;

const ILB: &str = "svc:/network/loadbalancer/ilb:default";

pub(crate) fn host(world: &World, balancer: Balancer) -> IllumosHost {
    let options = IllumosOptions { balancer, ..world.options.clone() };
    IllumosHost::new(options, Arc::new(SystemClock)).unwrap()
}

fn tool(world: &World, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    let answer = world.lab.run(words[0], &words[1..]).unwrap();
    assert_eq!(answer.code, 0, "{line}: {}", answer.err);
}

/// ILB's service and what it waits for.
pub(crate) fn enable(world: &World) {
    tool(world, "svcadm enable svc:/network/ipv4-forwarding:default");
    tool(world, &format!("svcadm enable {ILB}"));
}

/// A host that uses ILB, with the pod network.
async fn ready(world: &World) -> IllumosHost {
    enable(world);
    let host = host(world, Balancer::Ilb);
    let _ = host.network_ensure(&world.network()).await.unwrap();
    host
}

fn web(port: u16) -> Frontend {
    Frontend { place: Place::Address([10, 96, 0, 5].into()), protocol: Protocol::Tcp, port }
}

fn backends(of: &[&str]) -> Backends {
    let addresses = of.iter().map(|b| b.parse().unwrap()).collect();
    Backends { name: "default/web".into(), addresses, ..Backends::default() }
}

fn table(frontends: &[(Frontend, Backends)]) -> ServiceTable {
    let pods = ["10.213.0.0/24".parse().unwrap()].into();
    ServiceTable { frontends: frontends.iter().cloned().collect(), pods, ..ServiceTable::default() }
}

fn one(of: &[&str]) -> ServiceTable {
    table(&[(web(80), backends(of))])
}

fn seen(world: &World) -> Played {
    world.lab.state().unwrap().balancer
}

fn rule_at(world: &World, port: u16) -> Option<(String, BalancerRule)> {
    seen(world).rules.into_iter().find(|(_, r)| r.ports == Some((port, port)))
}

/// The addresses and names of the servers behind a port.
fn servers(world: &World, port: u16) -> Vec<(String, String)> {
    let (_, rule) = rule_at(world, port).expect("a rule");
    let group = seen(world).groups.remove(&rule.group).expect("its group");
    let mut all: Vec<_> = group.servers.into_iter().map(|(id, s)| (s.address.to_string(), id)).collect();
    all.sort();
    all
}

fn redirects(world: &World) -> Vec<String> {
    world.lab.state().unwrap().nat.into_iter().filter(|rule| rule.starts_with("rdr ")).collect()
}

/// ilbadm's changing commands since the transcript was forgotten.
fn changes(world: &World) -> Vec<String> {
    let lines = world.lab.transcript().unwrap().into_iter().filter(|l| l.tool == "ilbadm" && l.changing);
    lines.map(|l| l.argv[0].clone()).collect()
}

#[test]
fn ilb_gets_what_it_can_do_and_ipnat_the_rest() {
    played(|world| async move {
        let host = ready(&world).await;
        let sticky = Backends { affinity_seconds: Some(10_800), ..backends(&["10.213.0.5:8080", "10.213.0.6:8080"]) };
        let sources = Backends { sources: ["10.0.0.0/8".parse().unwrap()].into(), ..backends(&["10.213.0.5:8080"]) };
        let wanted = table(&[
            (web(80), sticky),
            (web(81), sources),
            (Frontend { protocol: Protocol::Udp, ..web(53) }, backends(&["10.213.0.5:5353"])),
            (Frontend { place: Place::HostV4, ..web(30_080) }, backends(&["10.213.0.5:8080"])),
            (Frontend { place: Place::Address([192, 0, 2, 2].into()), ..web(83) }, backends(&["10.213.0.5:8080"])),
        ]);
        assert!(matches!(host.services_ensure(&wanted).await.unwrap(), Change::Changed(_)));
        assert_eq!(host.services_ensure(&wanted).await.unwrap(), Change::Unchanged);
        assert_eq!(host.services_drift().await.unwrap(), Vec::<String>::new());

        assert_eq!(seen(&world).rules.len(), 2);
        let (_, rule) = rule_at(&world, 80).unwrap();
        assert!(rule.enabled);
        // Half NAT: pods see who connects. Clients stay for as long as the service says: by the mask, not by -p alone.
        assert_eq!((rule.kind.as_str(), rule.proxy_source.as_str()), ("HALF-NAT", ""));
        assert_eq!((rule.mask, rule.persist_timeout), (Some(32), Some(10_800)));
        assert_eq!(servers(&world, 80).len(), 2);
        let (_, dns) = rule_at(&world, 53).unwrap();
        assert_eq!((dns.protocol.as_str(), dns.mask), ("udp", None));
        // What is ipnat's, on both links, and nothing of ILB's.
        let nat = redirects(&world);
        let of = |part: &str| nat.iter().filter(|r| r.contains(part)).count();
        assert_eq!((nat.len(), of("port = 81"), of("port 30080"), of("port 83")), (6, 2, 2, 2), "{nat:#?}");

        // As many commands for fifty services as for one.
        let count = async |wanted: &ServiceTable| {
            let _ = host.services_ensure(wanted).await.unwrap();
            world.lab.forget_transcript().unwrap();
            assert_eq!(host.services_ensure(wanted).await.unwrap(), Change::Unchanged);
            world.lab.transcript().unwrap().len()
        };
        let few = count(&one(&["10.213.0.5:8080"])).await;
        let fifty: Vec<_> = (1..=50).map(|port| (web(port), backends(&["10.213.0.5:8080"]))).collect();
        assert_eq!(count(&table(&fifty)).await, few);
        assert_eq!(seen(&world).rules.len(), 50);

        // Without services nothing of ours is left, and ILB is not asked any more.
        let _ = host.services_ensure(&ServiceTable::default()).await.unwrap();
        assert_eq!(seen(&world), Played::default());
        world.lab.forget_transcript().unwrap();
        assert_eq!(host.services_ensure(&ServiceTable::default()).await.unwrap(), Change::Unchanged);
        assert!(world.lab.transcript().unwrap().iter().all(|l| l.tool != "ilbadm"));
    });
}

#[test]
fn only_the_difference_is_applied() {
    played(|world| async move {
        let host = ready(&world).await;
        let _ = host.services_ensure(&one(&["10.213.0.5:8080", "10.213.0.6:8080"])).await.unwrap();
        let before = servers(&world, 80);
        let ensure = async |of: &[&str]| {
            world.lab.forget_transcript().unwrap();
            let _ = host.services_ensure(&one(of)).await.unwrap();
            changes(&world)
        };
        // The server that stays keeps its name, and with it its connections.
        assert_eq!(ensure(&["10.213.0.6:8080", "10.213.0.7:8080"]).await, ["add-server", "remove-server"]);
        assert_eq!(servers(&world, 80)[0], before[1]);
        assert_eq!(ensure(&["10.213.0.6:9090", "10.213.0.7:8080"]).await, ["remove-server", "add-server"]);
        // The last one goes and comes back while its connections live: ilbd gives its name again, the kernel refuses it.
        let last = servers(&world, 80).into_iter().find(|(ip, _)| ip == "10.213.0.6").unwrap().1;
        world.lab.change(|state| state.balancer.connected.insert(last)).unwrap();
        assert_eq!(ensure(&["10.213.0.7:8080"]).await, ["remove-server"]);
        let anew = ["add-server", "delete-rule", "delete-servergroup", "create-servergroup", "create-rule"];
        assert_eq!(ensure(&["10.213.0.6:9090", "10.213.0.7:8080"]).await, anew);
        assert_eq!(servers(&world, 80).len(), 2);
        assert_eq!(ensure(&["10.213.0.6:9090", "10.213.0.7:8080"]).await, [""; 0]);

        // Other terms: the rule is made anew.
        let sticky = Backends { affinity_seconds: Some(30), ..backends(&["10.213.0.6:9090", "10.213.0.7:8080"]) };
        world.lab.forget_transcript().unwrap();
        let _ = host.services_ensure(&table(&[(web(80), sticky.clone())])).await.unwrap();
        assert_eq!(changes(&world), ["delete-rule", "create-rule"]);
        assert_eq!(rule_at(&world, 80).unwrap().1.persist_timeout, Some(30));

        // Somebody turns things off: that is told, and mended.
        let (name, _) = rule_at(&world, 80).unwrap();
        let id = servers(&world, 80)[0].1.clone();
        tool(&world, &format!("ilbadm disable-server {id}"));
        assert_eq!(host.services_drift().await.unwrap(), [format!("ILB: servers {id} are disabled")]);
        tool(&world, &format!("ilbadm disable-rule {name}"));
        tool(&world, "ipadm set-prop -t -p forwarding=off ipv4");
        assert_eq!(host.services_drift().await.unwrap().len(), 4, "{:?}", host.services_drift().await);
        let off = host.services_ensure(&table(&[(web(80), sticky.clone())])).await.unwrap_err();
        assert!(off.message.contains("routeadm -u -e ipv4-forwarding"), "{off}");
        tool(&world, "ipadm set-prop -t -p forwarding=on ipv4");
        let _ = host.services_ensure(&table(&[(web(80), sticky)])).await.unwrap();
        assert_eq!(host.services_drift().await.unwrap(), Vec::<String>::new());
        assert!(rule_at(&world, 80).unwrap().1.enabled);
    });
}

#[test]
fn what_is_others_is_left_alone() {
    played(|world| async move {
        let host = ready(&world).await;
        tool(&world, "ilbadm create-servergroup -s server=192.0.2.7:80 rwweb");
        let rule = |port: u16| {
            format!(
                "ilbadm create-rule -e -i vip=10.96.0.5,port={port},protocol=tcp -m lbalg=hip,type=HALF-NAT -o servergroup=rwweb web{port}"
            )
        };
        tool(&world, &rule(80));
        let before = seen(&world);
        // The place of one of ours is theirs: that is said, and the others are made.
        let both = table(&[(web(80), backends(&["10.213.0.5:8080"])), (web(81), backends(&["10.213.0.5:8080"]))]);
        let error = host.services_ensure(&both).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Foreign);
        assert!(error.message.contains("10.96.0.5 port 80/tcp") && error.message.contains("web80"), "{error}");
        assert!(host.services_drift().await.unwrap()[0].contains("web80"));
        assert_eq!(servers(&world, 81).len(), 1);
        let _ = host.services_ensure(&ServiceTable::default()).await.unwrap();
        assert_eq!(seen(&world), before);
    });
}

/// Each command fails once, having done nothing or having done it, or tells a part only; then comes another daemon.
#[test]
fn a_way_that_ends_in_the_middle_is_completed() {
    played(|world| async move {
        let host = ready(&world).await;
        let sticky = Backends { affinity_seconds: Some(30), ..backends(&["10.213.0.5:8080"]) };
        let first = table(&[
            (web(80), backends(&["10.213.0.5:8080", "10.213.0.6:8080"])),
            (web(81), backends(&["10.213.0.5:8080"])),
            (web(82), backends(&["10.213.0.5:8080"])),
        ]);
        // One rule's servers, one rule's terms, one gone, one new.
        let second = table(&[
            (web(80), backends(&["10.213.0.6:9090", "10.213.0.7:8080"])),
            (web(81), sticky),
            (web(83), backends(&["10.213.0.5:8080"])),
        ]);
        let shape = |played: Played| -> Vec<_> {
            let of = |(name, rule): (&String, &BalancerRule)| {
                let servers = played.groups[&rule.group].servers.values().map(|s| (s.address, s.ports));
                let mut servers: Vec<_> = servers.collect();
                servers.sort();
                (name.clone(), rule.clone(), servers)
            };
            assert_eq!(played.groups.len(), played.rules.len(), "no residue: {played:#?}");
            played.rules.iter().map(of).collect()
        };
        let _ = host.services_ensure(&second).await.unwrap();
        let expected = shape(seen(&world));
        let mut ways = 0;
        for action in ["fail-before", "fail-after", "truncate 40"] {
            for call in 1.. {
                world.lab.faults("").unwrap();
                let _ = host.services_ensure(&first).await.unwrap();
                world.lab.forget_transcript().unwrap();
                world.lab.faults(&format!("ilbadm {call} {action}\n")).unwrap();
                let done = host.services_ensure(&second).await;
                let hit = world.lab.transcript().unwrap().iter().any(|l| l.fault.is_some());
                world.lab.faults("").unwrap();
                if !hit {
                    assert!(done.is_ok(), "{done:?}");
                    break;
                }
                ways += 1;
                let restarted = self::host(&world, Balancer::Ilb);
                let mut last = restarted.services_ensure(&second).await;
                assert!(last.is_ok(), "{action} at {call}: {last:?}");
                last = restarted.services_ensure(&second).await;
                assert_eq!(last.unwrap(), Change::Unchanged, "{action} at {call}");
                assert_eq!(shape(seen(&world)), expected, "{action} at {call}");
            }
        }
        assert!(ways > 30, "{ways}");
    });
}

#[test]
fn without_an_answer_it_is_said_how_to_mend_it_and_the_rest_is_done() {
    played(|world| async move {
        let ipnat = host(&world, Balancer::Ipnat);
        let _ = ipnat.network_ensure(&world.network()).await.unwrap();
        let _ = ipnat.services_ensure(&one(&["10.213.0.5:8080"])).await.unwrap();
        assert_eq!(redirects(&world).len(), 2);
        // Enabled, and waiting for a service that nobody enabled.
        tool(&world, &format!("svcadm enable {ILB}"));
        let host = host(&world, Balancer::Ilb);
        let node_port = (Frontend { place: Place::HostV4, ..web(30_080) }, backends(&["10.213.0.5:8080"]));
        let wanted = table(&[(web(80), backends(&["10.213.0.5:8080"])), node_port]);
        let error = host.services_ensure(&wanted).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidState);
        for part in ["ILB gives no answer", "routeadm -u -e ipv4-forwarding", "svcadm enable", "socket() failed"] {
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        // Node ports work, and what ipnat did so far is not taken away before ILB does it.
        assert_eq!(redirects(&world).len(), 4);
        tool(&world, "svcadm enable svc:/network/ipv4-forwarding:default");
        let _ = host.services_ensure(&wanted).await.unwrap();
        assert_eq!((redirects(&world).len(), seen(&world).rules.len()), (2, 1));

        // The machine boots: ILB has its rules again, and only what changed meanwhile is changed.
        let (kept, _) = rule_at(&world, 80).unwrap();
        world.lab.reboot().unwrap();
        std::fs::remove_dir_all(&world.options.run_dir).unwrap();
        let host = self::host(&world, Balancer::Ilb);
        world.lab.forget_transcript().unwrap();
        let _ = host.services_ensure(&one(&["10.213.0.9:8080"])).await.unwrap();
        assert_eq!(changes(&world), ["add-server", "remove-server"]);
        assert_eq!(rule_at(&world, 80).unwrap().0, kept);

        // Back to ipnat while ILB is off: services go on; once it is on, nothing of ours is left in it.
        tool(&world, &format!("svcadm disable {ILB}"));
        let _ = host.services_ensure(&one(&["10.213.0.9:8080"])).await.unwrap_err();
        let ipnat = self::host(&world, Balancer::Ipnat);
        let _ = ipnat.services_ensure(&one(&["10.213.0.9:8080"])).await.unwrap();
        assert_eq!((redirects(&world).len(), seen(&world).rules.len()), (2, 1));
        tool(&world, &format!("svcadm enable {ILB}"));
        assert!(matches!(ipnat.services_ensure(&one(&["10.213.0.9:8080"])).await.unwrap(), Change::Changed(_)));
        assert_eq!(seen(&world), Played::default());
        world.lab.forget_transcript().unwrap();
        assert_eq!(ipnat.services_ensure(&one(&["10.213.0.9:8080"])).await.unwrap(), Change::Unchanged);
        assert!(world.lab.transcript().unwrap().iter().all(|l| l.tool != "ilbadm"), "and nobody asks it any more");
    });
}

/// Pods' zones boot with their policies, and wait for nothing else that has to do with services.
#[test]
fn a_balancer_that_hangs_delays_no_pod() {
    played(|world| async move {
        let host = ready(&world).await;
        let warm = world.sandbox();
        let _ = host.sandbox_ensure(&warm).await.unwrap();
        world.lab.faults("ilbadm * hang\n").unwrap();
        let services = {
            let host = host.clone();
            tokio::spawn(async move { host.services_ensure(&one(&["10.213.0.5:8080"])).await })
        };
        while !world.lab.transcript().unwrap().iter().any(|l| l.fault.is_some()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let sandbox = world.sandbox();
        let ensure = host.sandbox_ensure(&sandbox);
        assert!(tokio::time::timeout(Duration::from_secs(10), ensure).await.is_ok_and(|made| made.is_ok()));
        assert!(!services.is_finished());
        services.abort();
    });
}

#[test]
fn without_the_package_it_is_said_what_to_install() {
    played(|world| async move {
        std::fs::remove_file(world.lab.tools().join("ilbadm")).unwrap();
        let host = host(&world, Balancer::Ilb);
        let _ = host.network_ensure(&world.network()).await.unwrap();
        assert_eq!(host.services_ensure(&ServiceTable::default()).await.unwrap(), Change::Unchanged);
        let error = host.services_ensure(&one(&["10.213.0.5:8080"])).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Unsupported);
        assert!(error.message.contains("pkg install service/network/load-balancer/ilb"), "{error}");
    });
}
