//! Services have addresses, and packets arrive: real connections between pods, the host and a client outside.

use crate::harness::{Said, World, run, skip};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Answers every TCP connection to 8080 with its name and the client's address, every UDP packet too.
const SERVER: &str = r#"
import socket, threading, sys
name, family = sys.argv[1], socket.AF_INET6 if sys.argv[2:] == ["6"] else socket.AF_INET
def tcp():
    s = socket.socket(family, socket.SOCK_STREAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", 8080)); s.listen(512)
    while True:
        c, peer = s.accept()
        threading.Thread(target=serve, args=(c, peer), daemon=True).start()
def serve(c, peer):
    with c:
        c.sendall(f"{name} {peer[0]}\n".encode())
        while True:
            data = c.recv(65536)
            if not data: return
            c.sendall(data)
def udp():
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind(("", 8080))
    while True:
        data, peer = s.recvfrom(2048)
        s.sendto(f"{name} {peer[0]}".encode(), peer)
threading.Thread(target=udp, daemon=True).start()
tcp()
"#;

/// Connects so many times, one after another, and prints what the servers say, or why not.
const CLIENT: &str = r#"
import socket, sys
kind, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for _ in range(count):
    try:
        if kind == "udp":
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(1); s.connect((host, port)); s.send(b"x"); print(s.recv(2048).decode())
        else:
            with socket.create_connection((host, port), timeout=1.5) as s: print(s.makefile().readline().strip())
    except Exception as e: print("failed:", type(e).__name__)
"#;

/// A pod of the sparse brand that serves, with these labels.
fn server(name: &str, labels: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{{labels}}}\n  annotations: {{reddwarf.io/zone-brand: sparse}}\n\
         spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, command: [python3, -c, {SERVER:?}, {name}], {more} }}]}}\n"
    )
}

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

fn all(parts: &[String]) -> String {
    parts.join("---\n")
}

fn object(world: &World, kind: &str, name: &str) -> Option<serde_json::Value> {
    let said = world.ctl(&["get", kind, name, "-o", "json"]);
    (said.code == 0).then(|| serde_json::from_str(&said.out).unwrap())
}

fn cluster_ip(world: &World, name: &str) -> String {
    let found = world.until(&format!("service {name}"), |w| object(w, "service", name));
    found["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

/// How often each server answered a client that runs in a pod.
fn from_pod(world: &World, pod: &str, kind: &str, host: &str, port: u16, count: usize) -> BTreeMap<String, usize> {
    let said = world.exec(pod, &["python3", "-c", CLIENT, kind, host, &port.to_string(), &count.to_string()]);
    tally(&said.ok())
}

/// The same from a network namespace: the host's, or another's.
fn from_netns(netns: &str, kind: &str, host: &str, port: u16, count: usize) -> BTreeMap<String, usize> {
    let netns = format!("--net=/run/netns/{netns}");
    let said: Said =
        run("nsenter", &[&netns, "--", "python3", "-c", CLIENT, kind, host, &port.to_string(), &count.to_string()]);
    tally(&said.ok())
}

fn tally(text: &str) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for line in text.lines() {
        *tally.entry(line.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    tally
}

fn names(tally: &BTreeMap<String, usize>) -> Vec<&str> {
    tally.keys().map(String::as_str).collect()
}

/// Waits until a client finds exactly these servers.
#[track_caller]
fn served_by(world: &World, what: &str, wanted: &[&str], mut ask: impl FnMut() -> BTreeMap<String, usize>) {
    let mut last = BTreeMap::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        last = ask();
        if names(&last) == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let rules = world.inside("nft").args(["list", "ruleset"]).output().unwrap();
    panic!("{what}: {last:?} instead of {wanted:?}\n{}\n{}", String::from_utf8_lossy(&rules.stdout), world.log());
}

#[test]
fn a_service_is_reached_from_pods_and_host_over_tcp_and_udp_and_follows_its_pods() {
    if skip() {
        return;
    }
    let mut world = World::started("services");
    let ports = "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, targetPort: 8080, protocol: UDP}]";
    world.file("a.yaml", &server("a", "app: web", ""));
    world.file("b.yaml", &server("b", "app: web", ""));
    world.file("client.yaml", &server("client", "app: client", ""));
    world.file(
        "services.yaml",
        &all(&[
            service("web", &format!("selector: {{app: web}}, {ports}")),
            service("none", &format!("selector: {{app: nobody}}, {ports}")),
            service("sticky", &format!("selector: {{app: web}}, sessionAffinity: ClientIP, {ports}")),
        ]),
    );
    for pod in ["a", "b", "client"] {
        world.ready(pod);
    }
    let (web, none, sticky) = (cluster_ip(&world, "web"), cluster_ip(&world, "none"), cluster_ip(&world, "sticky"));
    assert!(web.starts_with("10.96."), "{web}");
    let slice = world.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "json"]);
    assert_eq!(slice["items"][0]["endpoints"].as_array().map(Vec::len), Some(2), "{slice:#}");

    // From a pod, from the host, from a pod of the service itself (hairpin); over TCP and UDP.
    served_by(&world, "tcp from a pod", &["a", "b"], || from_pod(&world, "client", "tcp", &web, 80, 30));
    served_by(&world, "udp from a pod", &["a", "b"], || from_pod(&world, "client", "udp", &web, 80, 30));
    served_by(&world, "tcp from the host", &["a", "b"], || from_netns(&world.name, "tcp", &web, 80, 30));
    served_by(&world, "udp from the host", &["a", "b"], || from_netns(&world.name, "udp", &web, 80, 30));
    served_by(&world, "hairpin", &["a", "b"], || from_pod(&world, "a", "tcp", &web, 80, 30));
    // The client's own address arrives.
    let ip = world.pod("client").unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let said = world.exec("client", &["python3", "-c", CLIENT, "tcp", &web, "80", "1"]).ok();
    assert!(said.trim().ends_with(&ip), "{said} instead of {ip}");
    // Nobody there: refused at once, not after a time.
    let began = Instant::now();
    let refused = from_pod(&world, "client", "tcp", &none, 80, 3);
    assert_eq!(names(&refused), ["failed:"]);
    let refused = world.exec("client", &["python3", "-c", CLIENT, "tcp", &none, "80", "1"]).ok();
    assert_eq!(refused.trim(), "failed: ConnectionRefusedError");
    let unknown = world.exec("client", &["python3", "-c", CLIENT, "tcp", &web, "81", "1"]).ok();
    assert_eq!(unknown.trim(), "failed: ConnectionRefusedError", "a port that the service does not have");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // A client of a sticky service stays.
    let one = from_pod(&world, "client", "tcp", &sticky, 80, 30);
    assert_eq!(one.len(), 1, "{one:?}");

    // A pod goes: its connections go elsewhere, UDP clients too, and the sticky one finds another.
    world.remove("a.yaml");
    served_by(&world, "tcp after a pod went", &["b"], || from_pod(&world, "client", "tcp", &web, 80, 10));
    served_by(&world, "udp after a pod went", &["b"], || from_pod(&world, "client", "udp", &web, 80, 10));
    served_by(&world, "sticky after a pod went", &["b"], || from_pod(&world, "client", "tcp", &sticky, 80, 10));
    world.file("a.yaml", &server("a", "app: web", ""));
    world.ready("a");
    served_by(&world, "tcp after it came back", &["a", "b"], || from_pod(&world, "client", "tcp", &web, 80, 30));

    // Services go, and nothing of them stays.
    world.remove("services.yaml");
    world.until("the service to be gone", |w| object(w, "service", "web").is_none().then_some(()));
    world.until("slices to be gone", |w| {
        let left = w.json(&["get", "endpointslices", "-o", "json"]);
        left["items"].as_array().unwrap().iter().all(|s| s["metadata"]["name"] == "kubernetes").then_some(())
    });
    world.stop();
}

/// Holds a connection open and sends on it every few milliseconds until told to end; counts what comes back.
const HOLDER: &str = r#"
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5); s.makefile().readline
s.recv(100); n = 0
print("held", flush=True)
end = time.time() + float(sys.argv[3])
while time.time() < end:
    s.sendall(b"ping"); assert s.recv(100) == b"ping"; n += 1; time.sleep(0.005)
print("kept", n, flush=True)
"#;

#[test]
fn connections_outlive_flushes_changes_and_restarts_of_the_daemon() {
    if skip() {
        return;
    }
    let mut world = World::started("flush");
    world.file("a.yaml", &server("a", "app: web", ""));
    world.file("client.yaml", &server("client", "app: client", ""));
    world.file("web.yaml", &service("web", "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"));
    world.ready("a");
    world.ready("client");
    let web = cluster_ip(&world, "web");
    served_by(&world, "at first", &["a"], || from_pod(&world, "client", "tcp", &web, 80, 3));
    let holder = world
        .ctl_command()
        .args(["exec", "client", "--", "python3", "-c", HOLDER, &web, "80", "8"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));

    // Somebody flushes everything, twice: within a second it is all there again.
    for _ in 0..2 {
        let flushed = world.inside("nft").args(["flush", "ruleset"]).status().unwrap();
        assert!(flushed.success());
        let began = Instant::now();
        while !world_rules(&world.name).contains(&format!("{web} . tcp . 80")) {
            assert!(began.elapsed() < Duration::from_secs(1), "not repaired within a second");
            std::thread::sleep(Duration::from_millis(20));
        }
        served_by(&world, "after a flush", &["a"], || from_netns(&world.name, "tcp", &web, 80, 1));
    }
    // A change of the service meanwhile.
    world.file("b.yaml", &server("b", "app: web", ""));
    world.ready("b");
    served_by(&world, "after a change", &["a", "b"], || from_netns(&world.name, "tcp", &web, 80, 20));
    let before = rules_of(&world.name);
    world.kill9();
    let dark = from_netns(&world.name, "tcp", &web, 80, 10);
    assert_eq!(names(&dark), ["a", "b"], "without a daemon");
    world.start();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rules_of(&world.name), before, "a start changes nothing");
    let out = holder.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    // The daemon's end ends the command's streams, not the connection: either it was seen to the end or up to there.
    assert!(!String::from_utf8_lossy(&out.stderr).contains("Error"), "{text} {}", String::from_utf8_lossy(&out.stderr));
    world.stop();
}

fn world_rules(netns: &str) -> String {
    run("nsenter", &[&format!("--net=/run/netns/{netns}"), "--", "nft", "list", "ruleset"]).ok()
}

fn rules_of(netns: &str) -> Vec<String> {
    world_rules(netns).lines().filter(|l| !l.contains("expires")).map(str::to_owned).collect()
}

/// Addresses and links for a client outside: a network namespace with a cable to the world's own.
struct Outside {
    netns: String,
}

impl Outside {
    fn of(world: &World, host: &str, client: &str) -> Self {
        let netns = format!("{}o", world.name);
        run("ip", &["netns", "add", &netns]).ok();
        let peer = ["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &netns];
        run("ip", &[&["-n", &world.name][..], &peer].concat()).ok();
        for (netns, link, address) in [(&*world.name, "up0", host), (&*netns, "eth0", client)] {
            run("ip", &["-n", netns, "address", "add", address, "dev", link, "nodad"]).ok();
            run("ip", &["-n", netns, "link", "set", link, "up"]).ok();
        }
        Self { netns }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.netns]);
    }
}

#[test]
fn node_ports_load_balancers_external_addresses_and_host_ports_are_reached_from_outside() {
    if skip() {
        return;
    }
    let mut world = World::new("outside").arg("--load-balancer-cidr").arg("192.0.2.64/30");
    let outside = Outside::of(&world, "192.0.2.1/24", "192.0.2.2/24");
    world.start();
    let port = "ports: [{port: 80, targetPort: 8080}]";
    world.file("a.yaml", &server("a", "app: web", "ports: [{containerPort: 8080, hostPort: 8001}]"));
    world.file(
        "services.yaml",
        &all(&[
            service(
                "node",
                "type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]",
            ),
            service("balanced", &format!("type: LoadBalancer, selector: {{app: web}}, {port}")),
            service(
                "guarded",
                &format!(
                    "type: LoadBalancer, loadBalancerSourceRanges: [198.51.100.0/24], selector: {{app: web}}, {port}"
                ),
            ),
            service("late", &format!("type: LoadBalancer, selector: {{app: web}}, {port}")),
            service(
                "external",
                "externalIPs: [192.0.2.1], selector: {app: web}, ports: [{port: 81, targetPort: 8080}]",
            ),
        ]),
    );
    world.ready("a");
    let balancer = |w: &World, name: &str| {
        let found = object(w, "service", name)?;
        Some(found["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()?.to_owned())
    };
    served_by(&world, "node port", &["a"], || from_netns(&outside.netns, "tcp", "192.0.2.1", 30_080, 3));
    served_by(&world, "external address", &["a"], || from_netns(&outside.netns, "tcp", "192.0.2.1", 81, 3));
    served_by(&world, "host port", &["a"], || from_netns(&outside.netns, "tcp", "192.0.2.1", 8001, 3));
    // Two addresses, three services: the third waits and says why, and gets one when one is free.
    let mut with = world.until("two services to have addresses", |w| {
        let all: Vec<&str> =
            ["balanced", "guarded", "late"].into_iter().filter(|name| balancer(w, name).is_some()).collect();
        (all.len() == 2).then_some(all)
    });
    let without = ["balanced", "guarded", "late"].into_iter().find(|name| !with.contains(name)).unwrap();
    let waiting = world.until("the reason", |w| {
        let found = object(w, "service", without)?;
        found["status"]["conditions"][0]["message"].as_str().map(str::to_owned).filter(|m| !m.is_empty())
    });
    assert!(waiting.contains("192.0.2.64/30") && waiting.contains("in use"), "{waiting}");
    if let Some(open) = with.iter().find(|name| **name != "guarded") {
        let address = balancer(&world, open).unwrap();
        served_by(&world, "load balancer", &["a"], || from_netns(&outside.netns, "tcp", &address, 80, 3));
        // The client's own address arrives.
        let netns = format!("--net=/run/netns/{}", outside.netns);
        let said = run("nsenter", &[&netns, "--", "python3", "-c", CLIENT, "tcp", &address, "80", "1"]).ok();
        assert_eq!(said.trim(), "a 192.0.2.2");
    }
    if with.contains(&"guarded") {
        let address = balancer(&world, "guarded").unwrap();
        let said = from_netns(&outside.netns, "tcp", &address, 80, 1);
        assert_eq!(names(&said), ["failed:"], "outside of its source ranges");
    }
    let gone = with.remove(0);
    world.ctl(&["get", "service", gone]).ok();
    let freed = balancer(&world, gone).unwrap();
    let text = std::fs::read_to_string(world.manifests.join("services.yaml")).unwrap();
    let left: Vec<String> =
        text.split("---\n").filter(|s| !s.contains(&format!("{{name: {gone}}}"))).map(str::to_owned).collect();
    world.file("services.yaml", &all(&left));
    let given = world.until("the freed address to be given on", |w| balancer(w, without));
    assert_eq!(given, freed);
    // A port that a service has already is refused by name.
    let second = service("second", "type: NodePort, ports: [{port: 80, nodePort: 30080}]");
    std::fs::write(world.dir.join("second.yaml"), second).unwrap();
    let said = world.ctl(&["apply", "-f", world.dir.join("second.yaml").to_str().unwrap()]);
    assert!(
        format!("{}{}", said.out, said.err)
            .contains("spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"),
        "{said:?}"
    );
    drop(outside);
    world.stop();
}

#[test]
fn policies_deny_and_allow_real_packets() {
    if skip() {
        return;
    }
    let mut world = World::started("policies");
    world.file("a.yaml", &server("a", "app: web", "ports: [{name: http, containerPort: 8080}]"));
    world.file("friend.yaml", &server("friend", "role: friend", ""));
    world.file("stranger.yaml", &server("stranger", "role: stranger", ""));
    world.file("web.yaml", &service("web", "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"));
    for pod in ["a", "friend", "stranger"] {
        world.ready(pod);
    }
    let web = cluster_ip(&world, "web");
    let direct = world.pod("a").unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    let ask = |from: &str, host: &str, port: u16| names_of(&from_pod(&world, from, "tcp", host, port, 1));
    served_by(&world, "before", &["a"], || from_pod(&world, "stranger", "tcp", &web, 80, 1));
    let policy = |spec: &str| {
        format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n")
    };
    world.file(
        "policy.yaml",
        &policy("podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: http}]}]"),
    );
    served_by(&world, "a stranger", &["failed:"], || from_pod(&world, "stranger", "tcp", &web, 80, 1));
    assert_eq!(ask("stranger", &direct, 8080), ["failed:"], "nor at the pod's own address");
    assert_eq!(ask("friend", &web, 80), ["a"]);
    assert_eq!(ask("friend", &direct, 8080), ["a"]);
    assert_eq!(names(&from_netns(&world.name, "tcp", &direct, 8080, 1)), ["a"], "the host always");
    assert_eq!(ask("a", &web, 80), ["a"], "and the pod itself");
    // Egress: nothing but to one block, which holds one of two.
    let friend = world.pod("friend").unwrap()["status"]["podIP"].as_str().unwrap().to_owned();
    world.file(
        "policy.yaml",
        &policy(&format!(
            "podSelector: {{matchLabels: {{role: stranger}}}}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {{cidr: {cidr}, except: [{direct}/32]}}}}]}}]",
            cidr = world.cidr
        )),
    );
    served_by(&world, "what is excepted", &["failed:"], || from_pod(&world, "stranger", "tcp", &direct, 8080, 1));
    assert_eq!(ask("stranger", &friend, 8080), ["friend"]);
    assert_eq!(ask("friend", &web, 80), ["a"], "others are not concerned");
    world.remove("policy.yaml");
    served_by(&world, "without policies", &["a"], || from_pod(&world, "stranger", "tcp", &web, 80, 1));
    world.stop();
}

fn names_of(tally: &BTreeMap<String, usize>) -> Vec<String> {
    tally.keys().cloned().collect()
}

#[test]
fn services_of_ipv6_carry_packets_too() {
    if skip() {
        return;
    }
    let mut world = World::new("six").arg("--service-cidr").arg("fd96::/108");
    world.cidr = "fd88:77::/64".into();
    world.start();
    for name in ["a", "b"] {
        let pod = server(name, "app: web", "").replace(&format!("\", {name}]"), &format!("\", {name}, \"6\"]"));
        world.file(&format!("{name}.yaml"), &pod);
    }
    world.file("web.yaml", &service("web", "selector: {app: web}, ports: [{port: 80, targetPort: 8080}, {name: u, port: 80, targetPort: 8080, protocol: UDP}]").replace("[{port", "[{name: t, port"));
    world.ready("a");
    world.ready("b");
    let web = cluster_ip(&world, "web");
    assert!(web.starts_with("fd96::"), "{web}");
    served_by(&world, "hairpin", &["a", "b"], || from_pod(&world, "a", "tcp", &web, 80, 20));
    served_by(&world, "udp", &["a", "b"], || from_pod(&world, "b", "udp", &web, 80, 20));
    served_by(&world, "host", &["a", "b"], || from_netns(&world.name, "tcp", &web, 80, 20));
    world.stop();
}

/// Asks for the API's version as a pod does, without a token: whatever the answer, it is the API's.
#[test]
fn pods_reach_the_api_at_the_service_kubernetes() {
    if skip() {
        return;
    }
    let mut world = World::new("api").arg("--listen").arg("127.0.0.1:6443");
    world.start();
    world.file("client.yaml", &server("client", "app: client", ""));
    world.ready("client");
    let api = cluster_ip(&world, "kubernetes");
    assert_eq!(api, "10.96.0.1");
    let slice = world.until("the slice", |w| object(w, "endpointslice", "kubernetes"));
    assert_eq!(slice["endpoints"].as_array().map(Vec::len), Some(1), "{slice:#}");
    let url = format!("https://{api}/livez");
    let said = world.until("the API's answer", |w| {
        let said = w.exec("client", &["curl", "-sk", "--max-time", "2", &url]);
        (said.code == 0).then_some(said.out)
    });
    assert!(said.contains("ok"), "{said}");
    world.stop();
}
