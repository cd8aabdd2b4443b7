//! What connections go through: flushes of all rules by others, changes, restarts of the daemon.

use super::*;

/// Holds so many connections open and sends on each of them every few milliseconds, for so many seconds; says how many rounds
/// came back whole.
const HOLDER: &str = r#"
import socket, sys, time
host, port, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
def connect():
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(5); s.connect((host, port)); s.recv(100); return s
all = [connect() for _ in range(count)]
print("held", flush=True)
rounds, end = 0, time.time() + seconds
while time.time() < end:
    for s in all: s.sendall(b"ping")
    for s in all: assert s.recv(100) == b"ping"
    rounds += 1; time.sleep(0.005)
print("kept", rounds, flush=True)
"#;

/// Connects anew every few milliseconds for so many seconds; says how many connections there were and how many failed.
const KNOCKER: &str = r#"
import socket, sys, time
done, failed, end = 0, [], time.time() + float(sys.argv[3])
while time.time() < end:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=4) as s: s.recv(100); done += 1
    except Exception as e: failed.append(repr(e))
    time.sleep(0.005)
print("knocked", done, len(failed), failed[:3], flush=True)
"#;

/// A client that runs in the host's network, whatever becomes of the daemon.
fn on_host(world: &World, program: &str, arguments: &[&str]) -> std::process::Child {
    let mut command = world.inside("python3");
    command.args(["-c", program]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A pod that is such a client; its log says how it went.
fn client_pod(world: &World, arguments: &[&str]) {
    let arguments: Vec<String> = arguments.iter().map(|a| format!("{a:?}")).collect();
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: holder, annotations: {{reddwarf.io/zone-brand: sparse}}}}\n\
         spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{{name: main, command: [python3, -c, {HOLDER:?}, {}]}}]}}\n",
        arguments.join(", ")
    );
    world.file("holder.yaml", &pod);
    world.until("the pod's connections", |w| w.ctl(&["logs", "holder"]).out.contains("held").then_some(()));
}

/// Waits until a [`HOLDER`] has all of its connections: what happens before that, happens to new ones.
fn holding(mut holder: std::process::Child) -> std::process::Child {
    use std::io::Read;
    let mut said = Vec::new();
    let mut byte = [0];
    let out = holder.stdout.as_mut().unwrap();
    while !said.ends_with(b"held\n") && out.read(&mut byte).unwrap() == 1 {
        said.extend(byte);
    }
    holder
}

#[track_caller]
fn ended_well(what: &str, child: std::process::Child) -> String {
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{what}: {text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

#[track_caller]
fn pod_ended_well(world: &World) {
    let end = world.until("the pod's end", |w| {
        let phase = w.pod("holder")?["status"]["phase"].as_str()?.to_owned();
        ["Succeeded", "Failed"].contains(&&*phase).then_some(phase)
    });
    assert_eq!(end, "Succeeded", "{}", world.ctl(&["logs", "holder"]).out);
}

fn two_servers(world: &World) -> String {
    world.file("a.yaml", &server("a", "app: web", ""));
    world.file("b.yaml", &server("b", "app: web", ""));
    world.file("web.yaml", &service("web", "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"));
    world.ready("a");
    world.ready("b");
    let web = cluster_ip(world, "web");
    served_by(world, "at first", &["a", "b"], || from_netns(&world.name, "tcp", &web, 80, 20));
    web
}

/// Somebody flushes everything, again and again, while connections are at work: within a second the rules are back, and none
/// of the connections is lost.
#[test]
fn established_connections_outlive_foreign_flushes_and_rules_are_back_within_a_second() {
    if skip() {
        return;
    }
    let mut world = World::new("flush");
    let outside = outside::Outside::of(&world, "192.0.2.1/24", "192.0.2.2/24");
    world.start();
    let web = two_servers(&world);
    world.file(
        "node.yaml",
        &service(
            "node",
            "type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]",
        ),
    );
    served_by(&world, "node port", &["a", "b"], || from_netns(&outside.netns, "tcp", "192.0.2.1", 30_080, 20));
    let from_outside = Command::new("ip")
        .args(["netns", "exec", &outside.netns, "python3", "-c", HOLDER, "192.0.2.1", "30080", "20", "5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let on_host = on_host(&world, HOLDER, &[&web, "80", "20", "4"]);
    let (from_outside, on_host) = (holding(from_outside), holding(on_host));
    client_pod(&world, &[&web, "80", "20", "6"]);
    let mut gaps = Vec::new();
    for _ in 0..5 {
        let flushed = world.inside("nft").args(["flush", "ruleset"]).status().unwrap();
        assert!(flushed.success());
        let began = Instant::now();
        while !rules(&world.name).contains(&format!("{web} . tcp . 80")) {
            assert!(began.elapsed() < Duration::from_secs(1), "not repaired within a second");
            std::thread::sleep(Duration::from_millis(2));
        }
        gaps.push(began.elapsed());
        served_by(&world, "after a flush", &["a", "b"], || from_netns(&world.name, "tcp", &web, 80, 20));
    }
    println!("rules were back after {gaps:?}");
    assert!(ended_well("connections of the host", on_host).contains("kept"));
    assert!(ended_well("connections from outside", from_outside).contains("kept"));
    pod_ended_well(&world);
    drop(outside);
    world.stop();
}

/// Tries to connect with little patience and without a pause for so many seconds, and says how often that went well.
const TRIER: &str = r#"
import socket, sys, time
done, tried, end = 0, 0, time.time() + float(sys.argv[3])
while time.time() < end:
    tried += 1
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=0.01): done += 1
    except OSError: pass
print("tried", tried, "done", done, flush=True)
"#;

/// Sends as fast as it can to a port at which nobody listens: a packet is on every bit of the way when the rules go.
const FLOOD: &str = r#"
import socket, sys, time
sock, sent, end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0, time.time() + float(sys.argv[3])
while time.time() < end:
    for _ in range(100):
        try: sock.sendto(b"x", (sys.argv[1], 9)); sent += 1
        except OSError: pass
print("tried", sent, "done", sent, flush=True)
"#;

/// The datagrams that came to a pod's ports at which nobody listens (`NoPorts` in proc_net_snmp(5)).
fn for_nobody(world: &World, pod: &str) -> u64 {
    let snmp = world.ctl(&["exec", pod, "--", "cat", "/proc/net/snmp"]).ok();
    let udp: Vec<&str> = snmp.lines().filter(|line| line.starts_with("Udp: ")).collect();
    let at = udp[0].split(' ').position(|name| name == "NoPorts").unwrap();
    udp[1].split(' ').nth(at).unwrap().parse().unwrap()
}

fn trying(world: &World, program: &str, pod: &str, host: &str, seconds: &str) -> std::process::Child {
    let mut command = world.ctl_command();
    command.args(["exec", pod, "--", "python3", "-c", program, host, "8080", seconds]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Pods that policies isolate, in either direction, stay so in the moments in which others have flushed all rules.
#[test]
fn policies_hold_while_others_flush() {
    if skip() {
        return;
    }
    let mut world = World::started("closed");
    for pod in ["kept", "open", "stranger", "quiet"] {
        world.file(&format!("{pod}.yaml"), &server(pod, &format!("app: {pod}"), ""));
    }
    let policy = |name: &str, way: &str, allow: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{podSelector: {{matchLabels: {{app: {name}}}}}, policyTypes: [{way}]{allow}}}\n"
        )
    };
    let friends = ", ingress: [{from: [{podSelector: {matchLabels: {app: open}}}]}]";
    world.file("policies.yaml", &all(&[policy("kept", "Ingress", friends), policy("quiet", "Egress", "")]));
    let address = |pod: &str| world.ready(pod)["status"]["podIP"].as_str().unwrap().to_owned();
    let (kept, open) = (address("kept"), address("open"));
    for pod in ["stranger", "quiet"] {
        world.ready(pod);
    }
    served_by(&world, "the policy", &["failed:"], || from_pod(&world, "stranger", "tcp", &kept, 8080, 1));
    served_by(&world, "the other", &["failed:"], || from_pod(&world, "quiet", "tcp", &open, 8080, 1));
    served_by(&world, "a friend", &["kept"], || from_pod(&world, "open", "tcp", &kept, 8080, 1));
    let try_it = |pod: &str, host: &str| trying(&world, TRIER, pod, host, "3");
    let (in_vain, quiet) = (try_it("stranger", &kept), try_it("quiet", &open));
    let (friend, anyone) = (try_it("open", &kept), try_it("stranger", &open));
    let flood = trying(&world, FLOOD, "stranger", &kept, "3");
    for _ in 0..9 {
        std::thread::sleep(Duration::from_millis(300));
        assert!(world.inside("nft").args(["flush", "ruleset"]).status().unwrap().success());
    }
    for (what, child) in [("ingress", in_vain), ("egress", quiet)] {
        let said = ended_well(what, child);
        let counts: Vec<u32> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(counts[0] > 20 && counts[1] == 0, "{what}: {said}");
    }
    let flood = ended_well("the flood", flood);
    assert_eq!(for_nobody(&world, "kept"), 0, "{flood}");
    for (what, child) in [("a friend", friend), ("others", anyone)] {
        assert!(!ended_well(what, child).contains(" done 0"), "{what}");
    }
    // With the last policy its traces go.
    world.remove("policies.yaml");
    served_by(&world, "without policies", &["kept"], || from_pod(&world, "stranger", "tcp", &kept, 8080, 1));
    assert!(!rules(&world.name).contains("mark | 0x"), "{}", rules(&world.name));
    world.stop();
}

/// Under load from host and pod: no connection that stands is lost, no new one is refused, and the rules stay as they are.
#[test]
fn a_restart_of_the_daemon_under_load_loses_no_connection() {
    if skip() {
        return;
    }
    let mut world = World::started("restart");
    let web = two_servers(&world);
    let before = rules_of(&world.name);
    let (held, knocked) =
        (on_host(&world, HOLDER, &[&web, "80", "20", "5"]), on_host(&world, KNOCKER, &[&web, "80", "5"]));
    let held = holding(held);
    client_pod(&world, &[&web, "80", "20", "6"]);
    world.kill9();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(rules_of(&world.name), before, "the rules outlive the daemon");
    world.start();
    world.stop();
    world.start();
    assert!(ended_well("connections of the host", held).contains("kept"));
    let knocked = ended_well("new connections", knocked);
    let counts: Vec<&str> = knocked.split_whitespace().collect();
    assert!(counts[0] == "knocked" && counts[1].parse::<u32>().unwrap() > 100 && counts[2] == "0", "{knocked}");
    pod_ended_well(&world);
    assert_eq!(rules_of(&world.name), before, "a start changes nothing");
    // A change afterwards is a change of elements.
    world.remove("b.yaml");
    served_by(&world, "after a change", &["a"], || from_netns(&world.name, "tcp", &web, 80, 20));
    world.stop();
}

fn rules(netns: &str) -> String {
    run("nsenter", &[&format!("--net=/run/netns/{netns}"), "--", "nft", "list", "ruleset"]).ok()
}

/// Without what packets add, and without the table that only lives as long as the daemon.
fn rules_of(netns: &str) -> Vec<String> {
    let text = rules(netns);
    let tables = text.split("\n}\n").filter(|table| !table.contains("_guard "));
    tables.flat_map(str::lines).filter(|l| !l.contains("expires")).map(str::to_owned).collect()
}
