//! Probes and lifecycle hooks against real servers and commands in real containers.

use crate::harness::{World, is_ready, skip};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Says on its output what it is asked, answers 503 while /tmp/bad is there, keeps silent for 3 s while /tmp/slow is.
pub const SERVER: &str = r#"use IO::Socket::INET; $| = 1; $SIG{TERM} = sub { print "term\n"; exit 0 };
my $s = IO::Socket::INET->new(Listen => 128, LocalPort => 8080, ReuseAddr => 1) or die $!;
while (1) { my $c = $s->accept or next; my $l = <$c>; next unless defined $l;
  while (my $h = <$c>) { last if $h =~ /^\r?\n$/ } print $l; sleep 3 if -e "/tmp/slow";
  my $code = -e "/tmp/bad" ? "503 No" : "200 OK";
  print $c "HTTP/1.1 $code\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"; close $c }"#;

/// grpc.health.v1.Health over plain HTTP/2, by hand: says on its output which service it is asked of, and answers the number in
/// /tmp/SERVICE (/tmp/all of none), SERVING where there is no such file; never where it says so; of unknown services, that.
const GRPC_SERVER: &str = r#"
import os, signal, socket, struct, threading
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
def header(name, value): return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
HEAD = b"\x88" + header(b"content-type", b"application/grpc")
def answer(stream, service):
    print("asked of", service or "all", flush=True)
    try: said = open("/tmp/" + (service or "all")).read().strip()
    except OSError: said = "1"
    if said == "never": return b""
    if said == "unknown":
        return frame(1, 5, stream, HEAD + header(b"grpc-status", b"5") + header(b"grpc-message", b"unknown service"))
    message = bytes([8, int(said)])
    data = b"\0" + struct.pack(">I", len(message)) + message
    return frame(1, 4, stream, HEAD) + frame(0, 0, stream, data) + frame(1, 5, stream, header(b"grpc-status", b"0"))
def serve(c):
    r = c.makefile("rb"); r.read(24); c.sendall(frame(4, 0, 0)); asked = b""
    while True:
        head = r.read(9)
        if len(head) < 9: return
        length, kind, flags, stream = int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:], "big")
        body = r.read(length)
        if kind in (4, 6) and not flags & 1: c.sendall(frame(kind, 1, 0, body if kind == 6 else b""))
        if kind == 0:
            asked += body
            if flags & 1: c.sendall(answer(stream, asked[7:].decode()))
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", 50051)); s.listen(64)
while True:
    c, _ = s.accept(); threading.Thread(target=serve, args=(c,), daemon=True).start()
"#;

fn pod(name: &str, container: Value, more: Value) -> String {
    let mut main =
        json!({"name": "main", "command": ["perl", "-e", SERVER], "ports": [{"name": "web", "containerPort": 8080}]});
    merge(&mut main, container);
    let mut spec = json!({"terminationGracePeriodSeconds": 2, "containers": [main]});
    merge(&mut spec, more);
    let annotations = json!({"reddwarf.io/zone-brand": "sparse"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations}, "spec": spec})
        .to_string()
}

fn merge(into: &mut Value, more: Value) {
    for (key, value) in more.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn http(path: &str) -> Value {
    json!({"httpGet": {"port": "web", "path": path}, "periodSeconds": 1, "failureThreshold": 1})
}

fn main_of(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn events(world: &World, pod: &str, reason: &str) -> Vec<String> {
    let all = world.json(&["get", "events", "-o", "json"]);
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let own = items.into_iter().filter(|e| e["involvedObject"]["name"] == pod && e["reason"] == reason);
    own.map(|e| e["message"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn readiness_follows_a_real_server_and_liveness_restarts_it() {
    if skip() {
        return;
    }
    let mut world = World::started("probes");
    let probes = json!({
        "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30},
        "readinessProbe": http("/ready"),
        "livenessProbe": {"exec": {"command": ["sh", "-c", "test ! -e /tmp/dead || { echo it is dead; exit 1; }"]}, "periodSeconds": 1, "failureThreshold": 1},
    });
    world.file("web.json", &pod("web", probes, json!({})));
    // It sees what the container sees, as its user.
    let seer = json!({"command": ["sleep", "1000"], "securityContext": {"runAsUser": 1234, "runAsGroup": 2345},
        "readinessProbe": {"exec": {"command": ["sh", "-c", "test $(hostname) = seer && test $(id -u):$(id -g) = 1234:2345 && grep -q eth0 /proc/net/dev"]}, "periodSeconds": 1}});
    world.file("seer.json", &pod("seer", seer, json!({})));
    // Hangs, forks and leaves its session: each shot is cut off with all that it started (F47).
    let fork = json!({"command": ["sleep", "1000"], "readinessProbe": {
        "exec": {"command": ["sh", "-c", "setsid sleep 4242 & setsid sleep 4242 & yes"]}, "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}});
    world.file("fork.json", &pod("fork", fork, json!({})));
    let before = world.ready("web");
    assert_eq!(main_of(&before)["started"], true);
    world.ready("seer");

    // G14: ten in ten seconds.
    let asked = |w: &World| w.ctl(&["logs", "web"]).ok().matches("GET /ready HTTP/1.1").count();
    let first = asked(&world);
    std::thread::sleep(Duration::from_secs(10));
    let shots = asked(&world) - first;
    assert!((9..=11).contains(&shots), "{shots} shots in 10 s");

    // It flaps.
    for _ in 0..2 {
        world.exec("web", &["touch", "/tmp/bad"]).ok();
        let began = Instant::now();
        world.until("web not to be ready", |w| w.pod("web").filter(|p| !is_ready(p)));
        assert!(began.elapsed() < Duration::from_millis(2000), "{:?}", began.elapsed());
        world.exec("web", &["rm", "/tmp/bad"]).ok();
        world.ready("web");
    }
    world.exec("web", &["touch", "/tmp/slow"]).ok();
    world.until("web to be too slow", |w| w.pod("web").filter(|p| !is_ready(p)));
    world.exec("web", &["rm", "/tmp/slow"]).ok();
    world.ready("web");
    let told = world.until("the events", |w| Some(events(w, "web", "Unhealthy")).filter(|e| e.len() >= 2));
    assert!(told.contains(&"Readiness probe failed: HTTP probe failed with statuscode: 503".into()), "{told:?}");
    assert!(
        told.iter().any(|t| t.contains("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
        "{told:?}"
    );
    let fork = world.pod("fork").unwrap();
    assert!(!is_ready(&fork) && main_of(&fork)["restartCount"] == 0);
    let told = events(&world, "fork", "Unhealthy").join("\n");
    assert!(
        told.contains("timed out after 1s") || told.lines().any(|l| l.starts_with("Readiness probe failed: y")),
        "{told}"
    );
    let count = "n=0; for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f 2>/dev/null | grep -q '^sleep 424[2]' && n=$((n+1)); done; echo $n";
    // Two of the shot that is under way, two of one that is being killed; for a moment more where the machine has much to do. Were
    // they left, there would be two more with each second.
    world.until("processes of earlier shots to be gone", |w| {
        let left = w.exec("fork", &["sh", "-c", count]).ok();
        left.trim().parse::<u32>().is_ok_and(|left| left <= 4).then_some(())
    });

    // A daemon that dies is no news for whoever is ready.
    let id = main_of(&before)["containerID"].clone();
    world.kill9();
    world.start();
    for _ in 0..30 {
        assert!(world.pod("web").is_some_and(|p| is_ready(&p)), "Ready flaps");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(main_of(&world.pod("web").unwrap())["containerID"], id);

    world.exec("web", &["touch", "/tmp/dead"]).ok();
    let after = world.until("web to be restarted", |w| w.pod("web").filter(|p| main_of(p)["restartCount"] == 1));
    assert_ne!(main_of(&after)["containerID"], id);
    world.ready("web");
    let told = world.until("the event", |w| Some(events(w, "web", "Killing")).filter(|e| !e.is_empty()));
    assert_eq!(told, ["Container main failed liveness probe, will be restarted"]);
    assert!(events(&world, "web", "Unhealthy").contains(&"Liveness probe failed: it is dead\n".into()));
    for name in ["web", "seer", "fork"] {
        world.remove(&format!("{name}.json"));
    }
    for name in ["web", "seer", "fork"] {
        world.gone(name);
    }
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[test]
fn grpc_health_is_asked_of_the_service_that_is_named() {
    if skip() {
        return;
    }
    let world = World::started("grpc");
    let health =
        |service: &str| json!({"grpc": {"port": 50051, "service": service}, "periodSeconds": 1, "failureThreshold": 1});
    let mut all = health("");
    all["grpc"].as_object_mut().unwrap().remove("service");
    all["initialDelaySeconds"] = json!(2);
    let shop =
        json!({"command": ["python3", "-c", GRPC_SERVER], "readinessProbe": health("shop"), "livenessProbe": all});
    world.file("shop.json", &pod("shop", shop, json!({})));
    let deaf = json!({"command": ["sleep", "1000"], "readinessProbe": health("")});
    world.file("deaf.json", &pod("deaf", deaf, json!({"terminationGracePeriodSeconds": 0})));
    let before = world.ready("shop");
    let says = |service: &str, what: &str| {
        drop(world.exec("shop", &["sh", "-c", &format!("echo {what} > /tmp/{service}")]).ok())
    };
    let told = |pod: &str, text: &str| {
        world.until(text, |w| events(w, pod, "Unhealthy").iter().any(|t| t == text).then_some(()));
    };
    for (answer, why) in [
        ("2", "service unhealthy (responded with \"NOT_SERVING\")"),
        ("3", "service unhealthy (responded with \"SERVICE_UNKNOWN\")"),
        ("unknown", "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
        ("never", "timeout: health rpc did not complete within 1s"),
    ] {
        says("shop", answer);
        told("shop", &format!("Readiness probe failed: {why}"));
        world.until("the shop not to be ready", |w| w.pod("shop").filter(|p| !is_ready(p)));
        says("shop", "1");
        world.ready("shop");
    }
    let after = world.pod("shop").unwrap();
    assert_eq!(main_of(&after)["restartCount"], 0, "liveness asks of all services, which are well");
    let log = world.ctl(&["logs", "shop"]).ok();
    assert!(log.contains("asked of shop\n") && log.contains("asked of all\n"), "{log}");

    // Nobody listens there.
    let address = world.until("an address", |w| Some(w.pod("deaf")?["status"]["podIP"].as_str()?.to_owned()));
    let at = format!("{address}:50051");
    told(
        "deaf",
        &format!(
            "Readiness probe failed: error: failed to connect service at {at:?}: connection error: desc = \"transport: Error while dialing: \
         dial tcp {at}: connect: connection refused\""
        ),
    );
    assert!(!is_ready(&world.pod("deaf").unwrap()));

    says("all", "2");
    let after =
        world.until("the restart", |w| w.pod("shop").filter(|p| main_of(p)["restartCount"] == 1 && is_ready(p)));
    assert_ne!(main_of(&after)["containerID"], main_of(&before)["containerID"]);
    told("shop", "Liveness probe failed: service unhealthy (responded with \"NOT_SERVING\")");
    assert_eq!(events(&world, "shop", "Killing"), ["Container main failed liveness probe, will be restarted"]);
    for name in ["shop", "deaf"] {
        world.remove(&format!("{name}.json"));
    }
    for name in ["shop", "deaf"] {
        world.gone(name);
    }
    assert_eq!(world.traces(), Vec::<String>::new());
}

#[test]
fn hooks_run_at_the_start_and_before_the_stop() {
    if skip() {
        return;
    }
    let mut world = World::started("hooks");
    let shell = |script: &str| json!(["sh", "-c", script]);
    let exec = |script: &str| json!({"exec": {"command": shell(script)}});
    let polite = json!({
        "command": shell("trap 'cat /tmp/hooks; exit 0' TERM; while :; do sleep 0.05; done"),
        "lifecycle": {"postStart": exec("sleep 1; echo post-start >> /tmp/hooks"), "preStop": exec("echo pre-stop >> /tmp/hooks")},
    });
    world.file("polite.json", &pod("polite", polite, json!({})));
    let broken = json!({"command": shell("sleep 1000"), "lifecycle": {"postStart": exec("echo no; exit 1")}});
    world.file("broken.json", &pod("broken", broken, json!({"terminationGracePeriodSeconds": 1})));
    world.until("the hook to be waited for", |w| {
        let pod = w.pod("polite")?;
        (main_of(&pod)["state"]["waiting"]["reason"] == "ContainerCreating" && main_of(&pod)["containerID"].is_string())
            .then_some(())
    });
    world.ready("polite");
    // A restart by hand: hook, then TERM, whose trap shows what the hooks wrote.
    world.ctl(&["restart", "pod/polite"]).ok();
    world.until("the restart", |w| w.pod("polite").filter(|p| main_of(p)["restartCount"] == 1 && is_ready(p)));
    assert_eq!(world.ctl(&["logs", "--previous", "polite"]).ok(), "post-start\npre-stop\n");

    world.until("the broken one to wait", |w| {
        let pod = w.pod("broken")?;
        (main_of(&pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff").then_some(())
    });
    assert_eq!(events(&world, "broken", "FailedPostStartHook"), ["PostStartHook failed"]);
    assert!(!world.ctl(&["events"]).ok().contains("echo no"));

    // The daemon dies while a hook is at work: it is asked to stop once, in time, and by then the hook has run.
    let slow = json!({
        "command": shell("trap 'echo term; exit 0' TERM; while :; do sleep 0.05; done"),
        "lifecycle": {"preStop": {"sleep": {"seconds": 3}}},
    });
    world.file("slow.json", &pod("slow", slow, json!({"terminationGracePeriodSeconds": 20})));
    world.ready("slow");
    let began = Instant::now();
    let mut log =
        world.ctl_command().args(["logs", "-f", "slow"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    world.remove("slow.json");
    world.until("the stop to begin", |w| w.pod("slow").filter(|p| p["metadata"]["deletionTimestamp"].is_string()));
    std::thread::sleep(Duration::from_millis(700));
    world.kill9();
    world.start();
    world.gone("slow");
    let took = began.elapsed();
    assert!(Duration::from_secs(3) <= took && took < Duration::from_secs(8), "{took:?}");
    let _ = log.kill();
    let _ = log.wait();
    for name in ["polite", "broken"] {
        world.remove(&format!("{name}.json"));
        world.gone(name);
    }
    assert_eq!(world.traces(), Vec::<String>::new());
}

/// The figures of docs/performance.md: 200 probes each second. Takes a minute; `cargo test -p reddwarfd --test e2e
/// probes::figures -- --ignored --nocapture`.
#[test]
#[ignore = "takes a minute"]
fn figures_of_200_probes_a_second() {
    if skip() {
        return;
    }
    const PODS: usize = 10;
    const EACH: usize = 10;
    let world = World::started("figures");
    for pod_number in 0..PODS {
        let probed = |n: usize| {
            let tcp = json!({"tcpSocket": {"port": 8080}, "periodSeconds": 1});
            let get = json!({"httpGet": {"port": 8080, "path": format!("/c{n}")}, "periodSeconds": 1});
            json!({"name": format!("c{n}"), "command": ["sleep", "100000"], "readinessProbe": get, "livenessProbe": tcp})
        };
        let mut containers: Vec<_> = (0..EACH).map(probed).collect();
        containers.push(json!({"name": "main", "command": ["perl", "-e", SERVER]}));
        world.file(
            &format!("p{pod_number}.json"),
            &pod(&format!("p{pod_number}"), json!({}), json!({"containers": containers})),
        );
    }
    for pod_number in 0..PODS {
        let name = format!("p{pod_number}");
        world.within(Duration::from_secs(120), &format!("{name} to be ready"), |w| w.pod(&name).filter(is_ready));
    }
    std::thread::sleep(Duration::from_secs(3));
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", world.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let logs =
        || -> Vec<String> { (0..PODS).map(|p| world.ctl(&["logs", &format!("p{p}"), "-c", "main"]).ok()).collect() };
    let (first, began, cpu_before) = (logs(), Instant::now(), cpu());
    std::thread::sleep(Duration::from_secs(10));
    let ticks = cpu() - cpu_before;
    let (second, took) = (logs(), began.elapsed());
    let mut counts = Vec::new();
    for pod_number in 0..PODS {
        for n in 0..EACH {
            let of = |log: &String| log.matches(&format!("GET /c{n} HTTP")).count();
            counts.push(of(&second[pod_number]) - of(&first[pod_number]));
        }
    }
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    println!(
        "200 probes each second: {least} to {most} shots each in {:.1} s; the daemon used {} ms of CPU in 10 s",
        took.as_secs_f64(),
        ticks * 10
    );
    let expected = took.as_secs_f64();
    assert!(*least as f64 >= expected - 1.5 && *most as f64 <= expected + 1.5, "{counts:?} in {took:?}");
    assert!(!world.ctl(&["events"]).ok().contains("Unhealthy"), "no probe was late");
}
