//! Services have addresses, and packets arrive: real connections between pods, the host and a client outside.

mod families;
mod flush;
mod outside;
mod policies;
mod refusals;

use crate::harness::{Said, World, run, skip};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
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
            service(
                "brief",
                &format!("selector: {{app: web}}, sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: 1}}}}, {ports}"),
            ),
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
    // And no longer than asked, since its last connection.
    let brief = cluster_ip(&world, "brief");
    let one = from_pod(&world, "client", "tcp", &brief, 80, 10);
    assert_eq!(one.len(), 1, "{one:?}");
    served_by(&world, "a sticky client after its time", &["a", "b"], || {
        let mut seen = one.clone();
        std::thread::sleep(Duration::from_millis(1200));
        seen.extend(from_pod(&world, "client", "tcp", &brief, 80, 1));
        seen
    });

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
