//! Names, asked with dig from pods and from the host's network namespace.

use crate::harness::{Said, World, run, skip};
use crate::pods::{FOREVER, pod};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Services with slices as a person may write them.
const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.7.7, ports: [{name: http, port: 80}, {name: sync, port: 90, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 5432, protocol: TCP}]
endpoints:
  - {addresses: [10.88.3.1], hostname: db-0, conditions: {ready: true}}
  - {addresses: [10.88.3.2], hostname: db-1, conditions: {ready: true}}
  - {addresses: [10.88.3.3], hostname: db-2, conditions: {ready: false}}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: www.example.com}
"#;

/// A name server elsewhere: one address for every A question, nothing else.
const ELSEWHERE: &str = r#"
import socket, struct
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 53))
print("up", flush=True)
while True:
    query, peer = udp.recvfrom(2000)
    end = query.index(b"\0", 12) + 5
    kind = struct.unpack("!H", query[end - 4:end - 2])[0]
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\x2a" if kind == 1 else b""
    head = query[:2] + b"\x81\x80\0\1" + struct.pack("!H", 1 if answer else 0) + b"\0\0\0\0"
    udp.sendto(head + query[12:end] + answer, peer)
"#;

/// A program in the world's network namespace; ended with the value.
struct Background(Child);

impl Background {
    fn python(world: &World, script: &str) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", world.name)).args(["--", "python3", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A world whose host has a name server of its own at 127.0.0.1.
fn world(test: &str) -> (World, Background) {
    let world = World::new(test);
    let resolv_conf = world.dir.join("resolv.conf");
    std::io::Write::write_all(
        &mut std::fs::File::create(&resolv_conf).unwrap(),
        b"search corp.example\nnameserver 127.0.0.1\n",
    )
    .unwrap();
    let elsewhere = Background::python(&world, ELSEWHERE);
    let mut world = world.arg("--resolv-conf").arg(resolv_conf.to_str().unwrap());
    world.file("services.yaml", SERVICES);
    world.start();
    (world, elsewhere)
}

/// dig's answer on the host, at the bridge's address.
fn dig(world: &World, args: &[&str]) -> Said {
    let at = format!("@{}", bridge(world));
    let net = format!("--net=/run/netns/{}", world.name);
    let mut all = vec![net.as_str(), "--", "dig", &at, "+tries=1", "+timeout=5", "+noall", "+answer", "+comments"];
    all.extend(args);
    run("nsenter", &all)
}

fn bridge(world: &World) -> String {
    format!("{}.1", world.cidr.rsplit_once('.').unwrap().0)
}

/// Status, flags and answers of dig, in one line each.
fn essence(text: &str) -> String {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let status = text.lines().find_map(|l| l.split_once("status: ")?.1.split(',').next()).unwrap_or("none");
    let truncated = if text.contains("Truncated, retrying") { "truncated " } else { "" };
    let mut lines: Vec<String> =
        text.lines().filter(|l| !l.starts_with(';') && !l.trim().is_empty()).map(words).collect();
    lines.sort();
    format!("{truncated}{status}\n{}", lines.join("\n"))
}

#[test]
fn names_of_services_are_answered_to_pods_and_the_host() {
    if skip() {
        return;
    }
    let (mut world, _elsewhere) = world("dns");
    world.file("user.yaml", &pod("user", "", &format!("[sh, -c, {FOREVER:?}]"), ""));
    world.file(
        "own.yaml",
        &pod("own", "hostNetwork: true, dnsPolicy: ClusterFirstWithHostNet,", &format!("[sh, -c, {FOREVER:?}]"), ""),
    );
    world.file("plain.yaml", &pod("plain", "dnsPolicy: Default,", &format!("[sh, -c, {FOREVER:?}]"), ""));
    for name in ["user", "own", "plain"] {
        world.ready(name);
    }

    // What resolvers in pods read.
    let gateway = bridge(&world);
    let expected = format!(
        "nameserver {gateway}\nsearch default.svc.cluster.local svc.cluster.local cluster.local corp.example\noptions ndots:5\n"
    );
    for name in ["user", "own"] {
        assert_eq!(world.exec(name, &["cat", "/etc/resolv.conf"]).ok(), expected, "{name}");
    }
    assert!(!world.exec("plain", &["cat", "/etc/resolv.conf"]).ok().contains(&gateway));

    // Every kind of record, from a pod by its own resolv.conf and from the host.
    let pod_ip = world.pod("user").unwrap()["status"]["podIP"].as_str().unwrap().replace('.', "-");
    let pod_name = format!("{pod_ip}.default.pod.cluster.local");
    let pod_line = format!("NOERROR\n{pod_name}. 5 IN A {}", pod_ip.replace('-', "."));
    let table: &[(&[&str], &str)] = &[
        (&["web.default.svc.cluster.local"], "NOERROR\nweb.default.svc.cluster.local. 30 IN A 10.96.7.7"),
        (&["+tcp", "web.default.svc.cluster.local"], "NOERROR\nweb.default.svc.cluster.local. 30 IN A 10.96.7.7"),
        (&["AAAA", "web.default.svc.cluster.local"], "NOERROR\n"),
        (&["missing.default.svc.cluster.local"], "NXDOMAIN\n"),
        (
            &["SRV", "_http._tcp.web.default.svc.cluster.local"],
            "NOERROR\n_http._tcp.web.default.svc.cluster.local. 30 IN SRV 0 100 80 web.default.svc.cluster.local.",
        ),
        (
            &["SRV", "_sync._udp.web.default.svc.cluster.local"],
            "NOERROR\n_sync._udp.web.default.svc.cluster.local. 30 IN SRV 0 100 90 web.default.svc.cluster.local.",
        ),
        (&["-x", "10.96.7.7"], "NOERROR\n7.7.96.10.in-addr.arpa. 5 IN PTR web.default.svc.cluster.local."),
        (&["-x", "10.96.200.200"], "NXDOMAIN\n"),
        (
            &["db.default.svc.cluster.local"],
            "NOERROR\ndb.default.svc.cluster.local. 5 IN A 10.88.3.1\ndb.default.svc.cluster.local. 5 IN A 10.88.3.2",
        ),
        (&["db-1.db.default.svc.cluster.local"], "NOERROR\ndb-1.db.default.svc.cluster.local. 5 IN A 10.88.3.2"),
        (&["db-2.db.default.svc.cluster.local"], "NXDOMAIN\n"),
        (
            &["SRV", "_sql._tcp.db.default.svc.cluster.local"],
            "NOERROR\n_sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 5432 db-0.db.default.svc.cluster.local.\n\
             _sql._tcp.db.default.svc.cluster.local. 5 IN SRV 0 50 5432 db-1.db.default.svc.cluster.local.",
        ),
        (
            &["outside.default.svc.cluster.local"],
            "NOERROR\noutside.default.svc.cluster.local. 30 IN CNAME www.example.com.\nwww.example.com. 60 IN A 192.0.2.42",
        ),
        (&[&pod_name], &pod_line),
        (&["TXT", "dns-version.cluster.local"], "NOERROR\ndns-version.cluster.local. 30 IN TXT \"1.1.0\""),
        (
            &["+bufsize=512", "WEB.Default.svc.cluster.local"],
            "NOERROR\nWEB.Default.svc.cluster.local. 30 IN A 10.96.7.7",
        ),
        (&["+noedns", "web.default.svc.cluster.local"], "NOERROR\nweb.default.svc.cluster.local. 30 IN A 10.96.7.7"),
        (&["+edns=1", "+noednsnegotiation", "web.default.svc.cluster.local"], "BADVERS\n"),
        (
            &["ANY", "web.default.svc.cluster.local"],
            "NOERROR\nweb.default.svc.cluster.local. 5 IN HINFO \"RFC8482\" \"\"",
        ),
        (&["-c", "CH", "TXT", "version.bind"], "REFUSED\n"),
        (&["+opcode=status", "web.default.svc.cluster.local"], "NOTIMP\n"),
        (&["host.elsewhere.example"], "NOERROR\nhost.elsewhere.example. 60 IN A 192.0.2.42"),
    ];
    for (args, expected) in table {
        let mut in_pod = vec!["dig", "+tries=1", "+timeout=5", "+noall", "+answer", "+comments"];
        in_pod.extend(*args);
        for (from, said) in [("host", dig(&world, args)), ("pod", world.exec("user", &in_pod))] {
            // What was remembered has become older.
            let text =
                essence(&said.ok()).replace(" 59 IN A 192", " 60 IN A 192").replace(" 58 IN A 192", " 60 IN A 192");
            assert_eq!(text, *expected, "{args:?} from {from}");
        }
    }
    // Transfers are refused; by search list a short name is enough.
    assert!(dig(&world, &["AXFR", "cluster.local"]).out.contains("Transfer failed"));
    assert!(world.exec("user", &["getent", "hosts", "web"]).ok().starts_with("10.96.7.7"));
    assert!(world.exec("own", &["getent", "hosts", "db-0.db"]).ok().starts_with("10.88.3.1"));

    // A change is a name within a moment.
    let began = Instant::now();
    world.file(
        "more.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: more}\nspec: {clusterIP: 10.96.7.8, ports: [{port: 1}]}\n",
    );
    world
        .until("the new name", |w| dig(w, &["more.default.svc.cluster.local"]).out.contains("10.96.7.8").then_some(()));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    world.remove("more.yaml");
    world.until("the name to go", |w| {
        dig(w, &["more.default.svc.cluster.local"]).out.contains("NXDOMAIN").then_some(())
    });

    // More than fits into a datagram comes by TCP.
    let endpoints: Vec<String> = (0..200).map(|n| format!("{{addresses: [10.88.4.{n}]}}")).collect();
    world.file("many.yaml", &format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: many}}\nspec: {{clusterIP: None}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: many-1, labels: {{kubernetes.io/service-name: many}}}}\n\
         addressType: IPv4\nendpoints: [{}]\n", endpoints.join(", ")));
    let many = world.until("many addresses", |w| {
        Some(dig(w, &["many.default.svc.cluster.local"]).out).filter(|out| out.contains("10.88.4.7"))
    });
    assert!(essence(&many).starts_with("truncated NOERROR"), "{many}");
    assert_eq!(many.matches("10.88.4.").count(), 200);

    // What status and metrics say.
    let status: serde_json::Value = serde_json::from_str(&world.ctl(&["status", "-o", "json"]).out).unwrap();
    let dns = &status["dns"];
    assert_eq!(dns["listeners"][0]["address"], format!("{gateway}:53"), "{dns:#}");
    assert_eq!(dns["listeners"][0]["ok"], true);
    assert_eq!(dns["upstreams"][0], "127.0.0.1");
    assert!(dns["names"].as_u64().unwrap() > 20);
    assert!(dns["host"].as_str().unwrap().contains(&format!("nameserver {gateway}")), "{dns:#}");
    let text = world.ctl(&["status"]).out;
    assert!(text.contains(&format!("DNS of cluster.local on {gateway}:53")), "{text}");

    // A new daemon has the names at once.
    world.stop();
    world.start();
    assert!(dig(&world, &["web.default.svc.cluster.local"]).ok().contains("10.96.7.7"));
    world.stop();
}

/// Asks for a name again and again and says for how long, at worst, there was no answer.
const ASKER: &str = r#"
import socket, sys, time
query = b"\1\1\1\0\0\1\0\0\0\0\0\0\3web\7default\3svc\7cluster\5local\0\0\1\0\1"
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(0.05)
print("up", flush=True)
worst, last, right = 0, time.monotonic(), 0
while True:
    udp.sendto(query, (sys.argv[1], 53))
    try:
        answer = udp.recv(600)
    except (TimeoutError, ConnectionError):
        continue
    assert answer[-4:] == bytes([10, 96, 7, 7]), answer
    worst, last, right = max(worst, time.monotonic() - last), time.monotonic(), right + 1
    print(f"{worst:.3f} {right}", flush=True)
    time.sleep(0.002)
"#;

#[test]
fn a_restart_under_queries_gives_no_wrong_answer_and_a_taken_port_is_said() {
    if skip() {
        return;
    }
    let (mut world, _elsewhere) = world("dnsload");
    let gateway = bridge(&world);
    // The bridge comes with the first pod.
    world.file("user.yaml", &pod("user", "", &format!("[sh, -c, {FOREVER:?}]"), ""));
    world.ready("user");
    world.until("the name", |w| dig(w, &["web.default.svc.cluster.local"]).out.contains("10.96.7.7").then_some(()));
    let script = ASKER.replace("sys.argv[1]", &format!("{gateway:?}"));
    let mut asker = Background::python(&world, &script);
    let lines = BufReader::new(asker.0.stdout.take().unwrap()).lines();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(send.send(line))));
    let answers = |count: usize| -> String {
        let mut last = String::new();
        for _ in 0..count {
            last = receive.recv_timeout(Duration::from_secs(20)).expect("answers go on");
        }
        last
    };
    answers(50);
    world.stop();
    world.start();
    while receive.try_recv().is_ok() {}
    answers(50);
    // Killed, too: no query gets another answer than the right one, before and after.
    world.kill9();
    world.start();
    while receive.try_recv().is_ok() {}
    let last = answers(50);
    assert!(asker.0.try_wait().unwrap().is_none(), "the asker saw a wrong answer: {last}");
    drop(asker);

    // Somebody else has the port: said, retried, and everything else goes on.
    world.stop();
    let other = Background::python(
        &world,
        &format!(
            "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('0.0.0.0', 53)) if False else \
         (s.setsockopt(socket.SOL_IP, 15, 1), s.bind(({gateway:?}, 53)))\nprint('up', flush=True)\ntime.sleep(1000)\n"
        ),
    );
    world.start();
    let status = world.until("the taken port to be said", |w| {
        let status: serde_json::Value = serde_json::from_str(&w.ctl(&["status", "-o", "json"]).out).ok()?;
        Some(status).filter(|s| s["dns"]["listeners"][0]["ok"] == false)
    });
    let why = status["dns"]["listeners"][0]["message"].as_str().unwrap();
    assert!(why.contains("another program listens on port 53"), "{why}");
    assert!(status["notices"].to_string().contains("another program"), "{status:#}");
    assert_eq!(status["ready"], false);
    world.until("an event", |w| w.ctl(&["events"]).out.contains("DNSUnavailable").then_some(()));
    drop(other);
    world.until("the name server to come back", |w| {
        dig(w, &["web.default.svc.cluster.local"]).out.contains("10.96.7.7").then_some(())
    });
    world.stop();
}
