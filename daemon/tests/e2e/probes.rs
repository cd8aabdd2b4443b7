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
    let left = world.exec("fork", &["sh", "-c", count]).ok();
    // Two of the shot that is under way, two of one that is being killed.
    assert!(left.trim().parse::<u32>().unwrap() <= 4, "{left} processes of probes are left");

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
