//! Services as clients outside of the host reach them, in a network namespace with a cable to the world's own.

use super::*;

/// Addresses and links for a client outside: a network namespace with a cable to the world's own.
pub(super) struct Outside {
    pub(super) netns: String,
}

impl Outside {
    pub(super) fn of(world: &World, host: &str, client: &str) -> Self {
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

/// Listens for announcements of addresses on its link: prints the address of each.
const EAR: &str = r#"
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); s.settimeout(15)
print("listening", flush=True)
heard = set()
while len(heard) < 2:
    data, where = s.recvfrom(2000)
    if where[1] == 0x0806 and data[14:18] == data[24:28]: heard.add(socket.inet_ntoa(data[14:18]))
    if where[1] == 0x86dd and data[6] == 58 and data[40] == 136: heard.add(socket.inet_ntop(socket.AF_INET6, data[48:64]))
    heard.discard("192.0.2.1")
print(*sorted(heard), flush=True)
"#;

/// A load balancer's address is taken on by the link whose network holds it, said there, and given up with the service.
#[test]
fn load_balancers_addresses_are_announced_and_given_up() {
    if skip() {
        return;
    }
    let mut world = World::new("announce").arg("--load-balancer-cidr").arg("192.0.2.64/30,2001:db8::40/126");
    world.cidr = format!("{},fd88:79::/64", world.cidr);
    let mut world = world.arg("--service-cidr").arg("10.96.0.0/16,fd96::/108");
    let outside = Outside::of(&world, "192.0.2.1/24", "192.0.2.2/24");
    for (netns, link, address) in [(&*world.name, "up0", "2001:db8::1/64"), (&*outside.netns, "eth0", "2001:db8::2/64")]
    {
        run("ip", &["-n", netns, "address", "add", address, "dev", link, "nodad"]).ok();
    }
    world.start();
    let mut ear = Command::new("ip")
        .args(["netns", "exec", &outside.netns, "python3", "-c", EAR])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(ear.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    world.file("a.yaml", &server("a", "app: web", "").replace("\", a]", "\", a, \"6\"]"));
    let spec = "type: LoadBalancer, ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    world.file("balanced.yaml", &service("balanced", spec));
    world.ready("a");
    let addresses = world.until("both addresses", |w| {
        let found = object(w, "service", "balanced")?;
        let all = found["status"]["loadBalancer"]["ingress"].as_array()?.clone();
        let all: Vec<String> = all.iter().filter_map(|i| Some(i["ip"].as_str()?.to_owned())).collect();
        (all.len() == 2).then_some(all)
    });
    line.clear();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    ear.wait().unwrap();
    let mut heard: Vec<&str> = line.split_whitespace().collect();
    let mut wanted: Vec<&str> = addresses.iter().map(String::as_str).collect();
    heard.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(heard, wanted, "announced on the link");
    for address in &addresses {
        served_by(&world, address, &["a"], || from_netns(&outside.netns, "tcp", address, 80, 2));
    }
    let on_link = || run("ip", &["-n", &world.name, "-o", "address", "show", "dev", "up0"]).ok();
    let text = on_link();
    assert!(addresses.iter().all(|a| text.contains(a.as_str())), "{text}");
    // Somebody takes one away: it comes back with the next look.
    world.remove("balanced.yaml");
    world.until("the addresses to be given up", |_| {
        let text = on_link();
        (!addresses.iter().any(|a| text.contains(a.as_str()))).then_some(())
    });
    let text = on_link();
    assert!(text.contains("192.0.2.1/24") && text.contains("2001:db8::1/64"), "the host's own stay: {text}");
    drop(outside);
    world.stop();
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`: a pod of this node, and an endpoint of another one (which is the client's
/// machine here).
#[test]
fn policies_of_traffic_leave_out_endpoints_of_other_nodes() {
    if skip() {
        return;
    }
    let mut world = World::new("local");
    let outside = Outside::of(&world, "192.0.2.1/24", "192.0.2.2/24");
    world.start();
    world.file("a.yaml", &server("a", "app: web", ""));
    world.file("client.yaml", &server("client", "app: client", ""));
    let here = world.ready("a")["status"]["podIP"].as_str().unwrap().to_owned();
    world.ready("client");
    let elsewhere = Command::new("ip")
        .args(["netns", "exec", &outside.netns, "python3", "-c", SERVER, "elsewhere"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let port = |number: u16| format!("ports: [{{port: 80, targetPort: 8080, nodePort: {number}}}]");
    let plain = "ports: [{port: 80, targetPort: 8080}]";
    let slice = |service: &str, endpoints: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-1, labels: {{kubernetes.io/service-name: {service}}}}}\n\
             addressType: IPv4\nports: [{{port: 8080, protocol: TCP, name: ''}}]\nendpoints: [{endpoints}]\n"
        )
    };
    let of_us = format!("{{addresses: [{here}], nodeName: node-under-test}}");
    let of_other = "{addresses: [192.0.2.2], nodeName: other}".to_owned();
    let both = format!("{of_us}, {of_other}");
    let wanted = [
        ("cluster", service("cluster", &format!("type: NodePort, {}", port(30_001))), &both),
        ("internal", service("internal", &format!("internalTrafficPolicy: Local, {plain}")), &both),
        (
            "external",
            service("external", &format!("type: NodePort, externalTrafficPolicy: Local, {}", port(30_002))),
            &both,
        ),
        (
            "away",
            service(
                "away",
                &format!(
                    "type: NodePort, internalTrafficPolicy: Local, externalTrafficPolicy: Local, {}",
                    port(30_003)
                ),
            ),
            &of_other,
        ),
    ];
    let files: Vec<String> =
        wanted.iter().flat_map(|(name, text, endpoints)| [text.clone(), slice(name, endpoints)]).collect();
    world.file("services.yaml", &all(&files));
    let ip = |name: &str| cluster_ip(&world, name);
    let from_client = |name: &str| from_pod(&world, "client", "tcp", &ip(name), 80, 20);
    let from_outside = |port: u16| from_netns(&outside.netns, "tcp", "192.0.2.1", port, 20);
    served_by(&world, "everywhere, by default", &["a", "elsewhere"], || from_client("cluster"));
    served_by(&world, "here, from within", &["a"], || from_client("internal"));
    served_by(&world, "everywhere from within, though not from outside", &["a", "elsewhere"], || {
        from_client("external")
    });
    served_by(&world, "here, from outside", &["a"], || from_outside(30_002));
    served_by(&world, "nowhere, from within", &["failed:"], || from_client("away"));
    served_by(&world, "nowhere, from outside", &["failed:"], || from_outside(30_003));
    // With Local the client's own address arrives at the pod.
    let netns = format!("--net=/run/netns/{}", outside.netns);
    let said = run("nsenter", &[&netns, "--", "python3", "-c", CLIENT, "tcp", "192.0.2.1", "30002", "1"]).ok();
    assert_eq!(said.trim(), "a 192.0.2.2");
    let mut elsewhere = elsewhere;
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
    drop(outside);
    world.stop();
}
