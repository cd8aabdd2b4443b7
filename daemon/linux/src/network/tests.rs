//! Bridge, veths and rules in network namespaces of the tests' own: the machine's stack is never touched.
//! They need root and say so when they have to skip.

use super::netlink::{Netlink, VethEnd, in_netns};
use super::*;
use crate::link;
use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use reddwarf_host::spec::{PodIdentity, ResolvConf, Resources, SandboxNetwork, SandboxSpec};
use reddwarf_host::{Brand, LinkName, PodUid, SandboxId};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

/// Runs a test on a thread with a network namespace of its own: "the host".
fn on_a_host<Fut: Future<Output = ()>>(test: impl FnOnce(World) -> Fut + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root to make network namespaces");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let run = tempfile::tempdir().unwrap();
            let options = LinuxOptions::new(run.path(), run.path().join("state"), "/proc/self/exe");
            test(World { options, cache: TableCache::default(), _run: run }).await;
        });
    });
    thread.join().unwrap();
}

struct World {
    options: LinuxOptions,
    cache: TableCache,
    _run: tempfile::TempDir,
}

/// A pinned namespace.
struct Netns(File);

impl Netns {
    fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(file.join().unwrap())
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_netns(self.0.as_fd(), f).unwrap()
    }

    fn netlink(&self) -> Netlink {
        Netlink::connect_in(self.0.as_fd()).unwrap()
    }

    /// Accepts one connection, answers with the peer's address as seen here.
    fn serve_one(&self, address: SocketAddr) -> std::thread::JoinHandle<SocketAddr> {
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        std::thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            peer
        })
    }

    fn fetch(&self, address: SocketAddr) -> std::io::Result<String> {
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    }
}

impl World {
    fn network(&self) -> PodNetwork<'_> {
        PodNetwork::of(&self.options, &self.cache)
    }

    fn spec(&self, cidr: &str, gateway: &str) -> NetworkSpec {
        NetworkSpec {
            link: self.options.bridge.clone(),
            cidr: cidr.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            second: None,
            masquerade: true,
        }
    }

    async fn ensure_default(&self) -> NetworkSpec {
        let spec = self.spec("10.88.0.0/16", "10.88.0.1");
        assert!(matches!(self.network().ensure(&spec).await.unwrap(), Change::Changed(_)));
        spec
    }

    async fn observe(&self) -> Option<NetworkObserved> {
        let links = link::list(&self.options).await.unwrap();
        self.network().observe(links).await.unwrap()
    }

    async fn drift(&self) -> Vec<String> {
        self.observe().await.unwrap().drift
    }
}

fn sandbox(name: &str, uid: &str, address: &str, gateway: &str) -> SandboxSpec {
    SandboxSpec {
        id: SandboxId::new(name).unwrap(),
        pod: PodIdentity { namespace: "default".into(), name: name.into(), uid: PodUid::new(uid).unwrap() },
        brand: Brand::new("sparse").unwrap(),
        hostname: name.into(),
        network: SandboxNetwork::Pod {
            address: address.parse().unwrap(),
            gateway: gateway.parse().unwrap(),
            second: None,
        },
        dns: ResolvConf::default(),
        hosts: Vec::new(),
        resources: Resources::default(),
        share_processes: false,
        host_ipc: false,
        sysctls: Default::default(),
        fs_group: None,
        own_users: false,
        best_effort: false,
        machine: Default::default(),
        datasets: Default::default(),
        volumes: Default::default(),
    }
}

fn pod(name: &str, address: &str) -> SandboxSpec {
    sandbox(name, &format!("uid-{name}-{}", address.replace(['.', '/'], "-")), address, "10.88.0.1")
}

async fn run(program: &str, args: &[&str]) -> String {
    let out = reddwarf_command::ExternalCommand::find(program).unwrap().args(args.iter().copied()).run().await.unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn asked_again_it_changes_nothing() {
    on_a_host(|world| async move {
        let spec = world.ensure_default().await;
        let rules = run("nft", &["list", "table", "inet", world.network().table.as_str()]).await;
        assert!(rules.contains("masquerade"), "{rules}");
        assert!(world.drift().await.is_empty());
        let before = std::fs::metadata(&world.network().file).unwrap();
        let begun = Instant::now();
        assert_eq!(world.network().ensure(&spec).await.unwrap(), Change::Unchanged);
        eprintln!("unchanged network_ensure: {:?}", begun.elapsed());
        let after = std::fs::metadata(&world.network().file).unwrap();
        assert_eq!(before.modified().unwrap(), after.modified().unwrap());
        // A daemon that lost its run directory adopts what is there.
        std::fs::remove_file(&world.network().file).unwrap();
        assert_eq!(world.observe().await, None);
        assert!(matches!(world.network().ensure(&spec).await.unwrap(), Change::Changed(_)));
        assert_eq!(world.network().ensure(&spec).await.unwrap(), Change::Unchanged);
    });
}

#[test]
fn the_list_of_links_says_of_each_what_the_kernel_says_of_it_alone() {
    on_a_host(|world| async move {
        world.ensure_default().await;
        let (netns, pod) = (Netns::new(), pod("a", "10.88.0.5/16"));
        let _ = link::attach(&world.options, &pod, &netns.path()).await.unwrap();
        let host = Netlink::connect().unwrap();
        let all = links::list().await.unwrap();
        assert_eq!(all.len(), 3, "loopback, bridge and veth: {all:?}");
        assert!(all.iter().any(|link| link.is_bridge && link.up && link.alias.is_some()));
        assert!(all.iter().any(|link| link.controller.is_some() && link.peer.is_some() && link.mtu > 0));
        for link in all {
            assert_eq!(host.link(&link.name).await.unwrap(), Some(link));
        }
    });
}

#[test]
fn removal_leaves_nothing() {
    on_a_host(|world| async move {
        let before = run("ip", &["-o", "link"]).await;
        world.ensure_default().await;
        assert!(matches!(world.network().remove().await.unwrap(), Change::Changed(_)));
        assert_eq!(run("ip", &["-o", "link"]).await, before);
        assert_eq!(run("nft", &["list", "ruleset"]).await, "");
        assert_eq!(world.network().remove().await.unwrap(), Change::Unchanged);
        assert_eq!(world.observe().await, None);
    });
}

#[test]
fn f28_a_bridge_of_that_name_without_our_mark_is_never_touched() {
    on_a_host(|world| async move {
        run("ip", &["link", "add", "reddwarf0", "type", "bridge"]).await;
        let before = run("ip", &["-o", "-d", "link", "show", "reddwarf0"]).await;
        let error = world.network().ensure(&world.spec("10.88.0.0/16", "10.88.0.1")).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Foreign, "{error}");
        assert!(error.message.contains("choose another name"), "{error}");
        assert_eq!(world.network().remove().await.unwrap(), Change::Unchanged);
        assert_eq!(run("ip", &["-o", "-d", "link", "show", "reddwarf0"]).await, before);
    });
}

#[test]
fn f32_a_table_of_that_name_without_our_mark_is_never_touched() {
    on_a_host(|world| async move {
        let table = world.network().table.as_str().to_owned();
        nft::apply(&format!("table inet {table} {{\n chain theirs {{\n }}\n}}\n")).await.unwrap();
        let error = world.network().ensure(&world.spec("10.88.0.0/16", "10.88.0.1")).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Foreign, "{error}");
        assert_eq!(world.network().remove().await.unwrap(), Change::Unchanged);
        assert!(run("nft", &["list", "ruleset"]).await.contains("chain theirs"));
    });
}

#[test]
fn a_pod_network_that_the_host_uses_already_is_refused() {
    on_a_host(|world| async move {
        run("ip", &["link", "add", "lan0", "type", "bridge"]).await;
        run("ip", &["link", "set", "lan0", "up"]).await;
        run("ip", &["address", "add", "10.88.7.1/24", "dev", "lan0"]).await;
        let error = world.network().ensure(&world.spec("10.88.0.0/16", "10.88.0.1")).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Conflict, "{error}");
        assert_eq!(
            error.message,
            "the pod network 10.88.0.0/16 overlaps the address 10.88.7.1/24 of lan0: choose a free range (setting \
             `pod_cidr`)"
        );
        assert!(!run("ip", &["-o", "link"]).await.contains("reddwarf0"), "nothing was made");
        run("ip", &["address", "flush", "dev", "lan0"]).await;
        run("ip", &["route", "add", "10.88.9.0/24", "dev", "lan0"]).await;
        let error = world.network().ensure(&world.spec("10.88.0.0/16", "10.88.0.1")).await.unwrap_err();
        assert!(error.message.contains("the route to 10.88.9.0/24 through lan0"), "{error}");
        world.network().ensure(&world.spec("10.99.0.0/16", "10.99.0.1")).await.map(drop).unwrap();
    });
}

#[test]
fn f32_drift_is_shown_and_repaired() {
    on_a_host(|world| async move {
        let spec = world.ensure_default().await;
        let table = world.network().table.as_str().to_owned();
        for (damage, shown) in [
            (vec!["nft", "flush", "table", "inet", &table], "is missing or changed"),
            (vec!["nft", "flush", "ruleset"], "table inet"),
            (vec!["nft", "delete", "table", "inet", &table], "is missing"),
            (vec!["nft", "add", "rule", "inet", &table, "forward", "drop"], "is not ours"),
            (vec!["ip", "address", "flush", "dev", "reddwarf0"], "lacks the address 10.88.0.1"),
            (vec!["ip", "link", "set", "reddwarf0", "down"], "is down"),
            (vec!["ip", "link", "delete", "reddwarf0"], "bridge reddwarf0 is missing"),
            (vec!["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"], "forwarding is off"),
        ] {
            run(damage[0], &damage[1..]).await;
            let drift = world.drift().await.join("; ");
            assert!(drift.contains(shown), "{damage:?}: {drift:?}");
            assert!(matches!(world.network().ensure(&spec).await.unwrap(), Change::Changed(_)), "{damage:?}");
            assert_eq!(world.drift().await, [""; 0], "{damage:?}");
            assert_eq!(world.network().ensure(&spec).await.unwrap(), Change::Unchanged, "{damage:?}");
        }
        run("nft", &["flush", "table", "inet", &table]).await;
        run("nft", &["delete", "chain", "inet", &table, "postrouting"]).await;
        assert!(world.drift().await.join("; ").contains("chain postrouting is missing"));
        assert!(matches!(world.network().ensure(&spec).await.unwrap(), Change::Changed(_)));
        assert!(world.drift().await.is_empty());
    });
}

#[test]
fn pods_reach_each_other_the_host_and_the_world() {
    on_a_host(|world| async move {
        world.ensure_default().await;
        let (a, b) = (Netns::new(), Netns::new());
        let (spec_a, spec_b) = (pod("a", "10.88.0.5/16"), pod("b", "10.88.0.6/16"));
        let begun = Instant::now();
        assert!(matches!(link::attach(&world.options, &spec_a, &a.path()).await.unwrap(), Change::Changed(_)));
        eprintln!("attach: {:?}", begun.elapsed());
        let _ = link::attach(&world.options, &spec_b, &b.path()).await.unwrap();
        let begun = Instant::now();
        assert_eq!(link::attach(&world.options, &spec_a, &a.path()).await.unwrap(), Change::Unchanged);
        eprintln!("unchanged attach: {:?}", begun.elapsed());
        assert_eq!(
            link::marked(&world.options, &link::list(&world.options).await.unwrap()),
            [spec_a.id.clone(), spec_b.id.clone()].into_iter().collect()
        );

        let server = b.serve_one("10.88.0.6:80".parse().unwrap());
        assert_eq!(a.fetch("10.88.0.6:80".parse().unwrap()).unwrap(), "hello");
        assert_eq!(server.join().unwrap().ip(), "10.88.0.5".parse::<IpAddr>().unwrap());

        // A host outside, which knows no route to the pods.
        let outside = Netns::new();
        let far = outside.netlink();
        let up = VethEnd { name: "up0", mac: [2, 0, 0, 0, 0, 2], netns: None };
        let end = VethEnd { name: "far0", mac: [2, 0, 0, 0, 0, 1], netns: Some(&outside.0) };
        Netlink::connect().unwrap().add_veth(&up, &end, 1500).await.unwrap();
        let far0 = far.link("far0").await.unwrap().unwrap();
        far.add_address(far0.index, "192.0.2.9/24".parse().unwrap()).await.unwrap();
        far.set_up(far0.index, "far0").await.unwrap();
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "up0"]).await;
        run("ip", &["link", "set", "up0", "up"]).await;
        let server = outside.serve_one("192.0.2.9:80".parse().unwrap());
        assert_eq!(a.fetch("192.0.2.9:80".parse().unwrap()).unwrap(), "hello");
        assert_eq!(server.join().unwrap().ip(), "192.0.2.1".parse::<IpAddr>().unwrap(), "masqueraded");

        assert!(matches!(link::detach(&world.options, &spec_a.id).await.unwrap(), Change::Changed(_)));
        assert_eq!(link::detach(&world.options, &spec_a.id).await.unwrap(), Change::Unchanged);
        assert!(a.netlink().link("eth0").await.unwrap().is_none());
        let busy = world.network().remove().await.unwrap_err();
        assert_eq!(busy.kind, HostErrorKind::Busy, "{busy}");
        let _ = link::detach(&world.options, &spec_b.id).await.unwrap();
        let _ = world.network().remove().await.unwrap();
        assert!(!run("ip", &["-o", "link"]).await.contains("rw"), "no link leaks");
    });
}

#[test]
fn ipv6_pods_work_at_once() {
    on_a_host(|world| async move {
        let spec = world.spec("fd00:88::/64", "fd00:88::1");
        let _ = world.network().ensure(&spec).await.unwrap();
        assert_eq!(world.network().ensure(&spec).await.unwrap(), Change::Unchanged);
        let (a, b) = (Netns::new(), Netns::new());
        let spec_a = sandbox("a", "a", "fd00:88::5/64", "fd00:88::1");
        let _ = link::attach(&world.options, &spec_a, &a.path()).await.unwrap();
        let _ =
            link::attach(&world.options, &sandbox("b", "b", "fd00:88::6/64", "fd00:88::1"), &b.path()).await.unwrap();
        assert_eq!(link::attach(&world.options, &spec_a, &a.path()).await.unwrap(), Change::Unchanged);
        let server = b.serve_one("[fd00:88::6]:80".parse().unwrap());
        assert_eq!(a.fetch("[fd00:88::6]:80".parse().unwrap()).unwrap(), "hello");
        server.join().unwrap();
    });
}

#[test]
fn f30_a_leftover_of_ours_is_replaced_and_a_stranger_is_not() {
    on_a_host(|world| async move {
        world.ensure_default().await;
        let spec = pod("a", "10.88.0.5/16");
        let name = LinkName::for_sandbox(&spec.id);
        let yesterday = Netns::new();
        let _ = link::attach(&world.options, &spec, &yesterday.path()).await.unwrap();
        let today = Netns::new();
        assert!(matches!(link::attach(&world.options, &spec, &today.path()).await.unwrap(), Change::Changed(_)));
        assert!(yesterday.netlink().link("eth0").await.unwrap().is_none());
        assert!(today.netlink().link("eth0").await.unwrap().unwrap().up);

        let _ = link::detach(&world.options, &spec.id).await.unwrap();
        run("ip", &["link", "add", name.as_str(), "type", "bridge"]).await;
        let error = link::attach(&world.options, &spec, &today.path()).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Foreign, "{error}");
        assert_eq!(link::detach(&world.options, &spec.id).await.unwrap(), Change::Unchanged);
        assert!(run("ip", &["-o", "link"]).await.contains(name.as_str()), "the stranger is still there");
    });
}

/// F1: every point where a crash can leave the work half-done.
#[test]
fn f1_attach_goes_on_from_wherever_it_was_interrupted() {
    on_a_host(|world| async move {
        world.ensure_default().await;
        let spec = pod("a", "10.88.0.5/16");
        let name = LinkName::for_sandbox(&spec.id);
        let name = name.as_str();
        for step in 0..6 {
            let sandbox = Netns::new();
            let inside = sandbox.netlink();
            let host = Netlink::connect().unwrap();
            let bridge = host.link("reddwarf0").await.unwrap().unwrap();
            let mac = mark::link_mac(&world.options.instance, &spec.id);
            let end = VethEnd { name: "eth0", mac: [2, 0, 0, 0, 0, 9], netns: Some(&sandbox.0) };
            host.add_veth(&VethEnd { name, mac, netns: None }, &end, 1500).await.unwrap();
            let outer = host.link(name).await.unwrap().unwrap();
            if step >= 1 {
                host.set_alias(outer.index, &mark::link_alias(&world.options.instance, &spec.id)).await.unwrap();
            }
            if step >= 2 {
                host.enslave(outer.index, name, bridge.index).await.unwrap();
            }
            if step >= 3 {
                host.set_hairpin(outer.index, name).await.unwrap();
            }
            let eth0 = inside.link("eth0").await.unwrap().unwrap();
            if step >= 4 {
                let wrong: IpNet = "10.88.0.99/16".parse().unwrap();
                inside.add_address(eth0.index, wrong).await.unwrap();
            }
            if step >= 5 {
                inside.set_up(eth0.index, "eth0").await.unwrap();
            }
            assert!(matches!(link::attach(&world.options, &spec, &sandbox.path()).await.unwrap(), Change::Changed(_)));
            assert_eq!(
                link::attach(&world.options, &spec, &sandbox.path()).await.unwrap(),
                Change::Unchanged,
                "{step}"
            );
            let addresses = inside.addresses().await.unwrap();
            assert!(addresses.iter().any(|a| a.address.to_string() == "10.88.0.5/16"), "{step}");
            assert!(!addresses.iter().any(|a| a.address.to_string() == "10.88.0.99/16"), "{step}");
            let server = sandbox.serve_one("10.88.0.5:80".parse().unwrap());
            let mut text = String::new();
            TcpStream::connect("10.88.0.5:80").unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "hello", "{step}");
            server.join().unwrap();
            let _ = link::detach(&world.options, &spec.id).await.unwrap();
        }
        // A link that has no alias yet is removed too.
        let mac = mark::link_mac(&world.options.instance, &spec.id);
        let end = VethEnd { name: "eth0", mac: [2, 0, 0, 0, 0, 9], netns: None };
        Netlink::connect().unwrap().add_veth(&VethEnd { name, mac, netns: None }, &end, 1500).await.unwrap();
        assert!(matches!(link::detach(&world.options, &spec.id).await.unwrap(), Change::Changed(_)));
    });
}

/// F1 for the bridge: it can't be made with its alias in one request.
#[test]
fn f1_a_bridge_without_its_alias_yet_is_recognised_by_its_hardware_address() {
    on_a_host(|world| async move {
        let host = Netlink::connect().unwrap();
        host.add_bridge("reddwarf0", mark::bridge_mac(&world.options.instance)).await.unwrap();
        let spec = world.ensure_default().await;
        assert_eq!(world.network().ensure(&spec).await.unwrap(), Change::Unchanged);
        assert_eq!(
            host.link("reddwarf0").await.unwrap().unwrap().alias,
            Some(mark::bridge_alias(&world.options.instance))
        );
    });
}

#[test]
fn an_address_can_move_to_another_pod_at_once() {
    on_a_host(|world| async move {
        world.ensure_default().await;
        let client = Netns::new();
        let _ = link::attach(&world.options, &pod("client", "10.88.0.9/16"), &client.path()).await.unwrap();
        for name in ["one", "two", "three"] {
            let sandbox = Netns::new();
            let spec = pod(name, "10.88.0.5/16");
            let _ = link::attach(&world.options, &spec, &sandbox.path()).await.unwrap();
            // From the host and from another pod, which both remember the former holder's hardware address.
            for from_pod in [false, true] {
                let server = sandbox.serve_one("10.88.0.5:80".parse().unwrap());
                let begun = Instant::now();
                if from_pod {
                    assert_eq!(client.fetch("10.88.0.5:80".parse().unwrap()).unwrap(), "hello", "{name}");
                } else {
                    let mut text = String::new();
                    TcpStream::connect("10.88.0.5:80").unwrap().read_to_string(&mut text).unwrap();
                    assert_eq!(text, "hello", "{name}");
                }
                eprintln!("{name}, from a pod: {from_pod}: {:?}", begun.elapsed());
                server.join().unwrap();
            }
            let _ = link::detach(&world.options, &spec.id).await.unwrap();
        }
    });
}

#[test]
fn f35_the_range_is_not_changed_under_live_pods() {
    on_a_host(|world| async move {
        world.ensure_default().await;
        let sandbox = Netns::new();
        let spec = pod("a", "10.88.0.5/16");
        let _ = link::attach(&world.options, &spec, &sandbox.path()).await.unwrap();
        let other = world.spec("10.99.0.0/16", "10.99.0.1");
        let error = world.network().ensure(&other).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::Busy, "{error}");
        assert!(error.message.contains("1 links use bridge reddwarf0"), "{error}");
        let _ = link::detach(&world.options, &spec.id).await.unwrap();
        let _ = world.network().ensure(&other).await.unwrap();
        assert!(world.drift().await.is_empty());
        assert!(!run("ip", &["-o", "address"]).await.contains("10.88"));
        // The bridge's name may change too.
        let renamed = NetworkSpec { link: "other0".into(), ..other };
        let _ = world.network().ensure(&renamed).await.unwrap();
        assert!(!run("ip", &["-o", "link"]).await.contains("reddwarf0"));
    });
}

#[test]
fn specs_that_make_no_sense_are_the_users_error() {
    on_a_host(|world| async move {
        let outside = world.spec("10.88.0.0/16", "10.99.0.1");
        assert_eq!(world.network().ensure(&outside).await.unwrap_err().kind, HostErrorKind::InvalidSpec);
        for name in ["", "a/b", "a b", "sixteen-letters-", "a\";drop", "-x"] {
            let spec = NetworkSpec { link: name.into(), ..world.spec("10.88.0.0/16", "10.88.0.1") };
            assert_eq!(world.network().ensure(&spec).await.unwrap_err().kind, HostErrorKind::InvalidSpec, "{name}");
        }
    });
}
