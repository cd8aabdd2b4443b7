//! IPv6, and both families at once.

use super::*;
use crate::client::{FOREVER, script};

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

/// Listens on both families.
fn both(name: &str, labels: &str) -> String {
    server(name, labels, "").replace(&format!("\", {name}]"), &format!("\", {name}, \"6\"]"))
}

/// Pods with an address of each family: services of one, of the other, of both; names, hosts, policies and masquerade.
#[test]
fn pods_and_services_have_both_families() {
    if skip() {
        return;
    }
    let mut world = World::new("dual").arg("--service-cidr").arg("10.96.0.0/16,fd96::/108");
    world.cidr = format!("{},fd88:78::/64", world.cidr);
    let outside = outside::Outside::of(&world, "192.0.2.1/24", "192.0.2.2/24");
    for (netns, link, address) in [(&*world.name, "up0", "2001:db8::1/64"), (&*outside.netns, "eth0", "2001:db8::2/64")]
    {
        run("ip", &["-n", netns, "address", "add", address, "dev", link, "nodad"]).ok();
    }
    world.start();
    let ports = "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]";
    world.file("a.yaml", &both("a", "app: web"));
    world.file("b.yaml", &both("b", "app: web"));
    world.file("client.yaml", &both("client", "app: client"));
    world.file(
        "services.yaml",
        &all(&[
            service("web", &format!("ipFamilyPolicy: RequireDualStack, type: NodePort, {ports}")),
            service("four", ports),
            service("six", &format!("ipFamilies: [IPv6], {ports}")),
            service("none", &format!("clusterIP: None, ipFamilyPolicy: PreferDualStack, {ports}")),
        ]),
    );
    for pod in ["a", "b", "client"] {
        world.ready(pod);
    }
    // Statuses, the pod's own view, endpoints.
    let status = world.pod("client").unwrap()["status"].clone();
    let ips: Vec<String> =
        status["podIPs"].as_array().unwrap().iter().map(|ip| ip["ip"].as_str().unwrap().to_owned()).collect();
    let [v4, v6] = &ips[..] else { panic!("{status:#}") };
    assert_eq!(status["podIP"], **v4);
    let node = object(&world, "node", "node-under-test").unwrap();
    assert_eq!(node["spec"]["podCIDRs"], serde_json::json!(world.cidr.split(',').collect::<Vec<_>>()));
    assert_eq!(node["spec"]["podCIDR"], node["spec"]["podCIDRs"][0]);
    assert!(v4.starts_with("10.99.") && v6.starts_with("fd88:78::"), "{ips:?}");
    let hosts = world.exec("client", &["cat", "/etc/hosts"]).ok();
    assert!(ips.iter().all(|ip| hosts.contains(&format!("{ip}\tclient"))), "{hosts}");
    let ips_of = |name: &str| -> Vec<String> {
        let found = world.until(name, |w| object(w, "service", name));
        found["spec"]["clusterIPs"].as_array().unwrap().iter().map(|ip| ip.as_str().unwrap().to_owned()).collect()
    };
    let web = ips_of("web");
    let (four, six) = (ips_of("four"), ips_of("six"));
    assert!(web.len() == 2 && web[0].starts_with("10.96.") && web[1].starts_with("fd96::"), "{web:?}");
    assert!(four.len() == 1 && four[0].starts_with("10.96.") && six.len() == 1 && six[0].starts_with("fd96::"));
    let slices = world.json(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "json"]);
    let mut kinds: Vec<&str> =
        slices["items"].as_array().unwrap().iter().map(|s| s["addressType"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["IPv4", "IPv6"]);

    // Packets of both families, over TCP, from pods (hairpin included), host and outside.
    for ip in web.iter().chain(&four).chain(&six) {
        served_by(&world, ip, &["a", "b"], || from_pod(&world, "client", "tcp", ip, 80, 20));
        served_by(&world, ip, &["a", "b"], || from_pod(&world, "a", "tcp", ip, 80, 20));
        served_by(&world, ip, &["a", "b"], || from_netns(&world.name, "tcp", ip, 80, 20));
    }
    let found = object(&world, "service", "web").unwrap();
    let port = u16::try_from(found["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).unwrap();
    for host in ["192.0.2.1", "2001:db8::1"] {
        served_by(&world, "node port", &["a", "b"], || from_netns(&outside.netns, "tcp", host, port, 20));
    }
    // The client's own address of that family arrives.
    let said = world.exec("client", &["python3", "-c", CLIENT, "tcp", &web[1], "80", "1"]).ok();
    assert!(said.trim().ends_with(v6.as_str()), "{said} instead of {v6}");

    // Names: A and AAAA, also of the headless one's endpoints.
    let names = |name: &str| {
        let program = "import socket, sys\nfor f in (socket.AF_INET, socket.AF_INET6):\n    print(len({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 80, f, socket.SOCK_STREAM)}))";
        let said = world.exec("client", &["python3", "-c", program, name]);
        (said.code == 0).then(|| said.out.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    world.until("A and AAAA of the service", |_| names("web").filter(|n| n == "1 1"));
    world.until("A and AAAA of its endpoints", |_| names("none").filter(|n| n == "2 2"));

    // Outside pods are the host, in both families.
    let listen = "import socket\ns = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('', 9000)); s.listen(8)\nprint('ready', flush=True)\nfor _ in range(2):\n    c, peer = s.accept(); print(peer[0], flush=True); c.close()";
    let server = Command::new("ip")
        .args(["netns", "exec", &outside.netns, "python3", "-c", listen])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for host in ["192.0.2.2", "2001:db8::2"] {
        world.until("a way out", |w| {
            let said = w.exec(
                "client",
                &[
                    "python3",
                    "-c",
                    "import socket, sys; socket.create_connection((sys.argv[1], 9000), timeout=2)",
                    host,
                ],
            );
            (said.code == 0).then_some(())
        });
    }
    let seen = String::from_utf8(server.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(seen.lines().skip(1).collect::<Vec<_>>(), ["::ffff:192.0.2.1", "2001:db8::1"], "masquerade");

    // A policy of both: only the friend may, and only out of one IPv6 network but for a hole in it.
    let ask = |host: &str, port: u16| from_pod(&world, "client", "tcp", host, port, 1).into_keys().collect::<Vec<_>>();
    let direct = world.pod("a").unwrap()["status"]["podIPs"][1]["ip"].as_str().unwrap().to_owned();
    let policy = |spec: &str| {
        format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n")
    };
    let from = |from: &str| {
        policy(&format!(
            "podSelector: {{matchLabels: {{app: web}}}}, ingress: [{{from: [{from}], ports: [{{port: 8080}}]}}]"
        ))
    };
    world.file("policy.yaml", &from("{podSelector: {matchLabels: {app: nobody}}}"));
    served_by(&world, "denied in IPv6", &["failed:"], || from_pod(&world, "client", "tcp", &six[0], 80, 1));
    assert_eq!((ask(&direct, 8080), ask(&four[0], 80)), (vec!["failed:".into()], vec!["failed:".into()]));
    assert_eq!(
        from_netns(&world.name, "tcp", &direct, 8080, 1).into_keys().collect::<Vec<_>>(),
        ["a"],
        "the host always"
    );
    world.file("policy.yaml", &from(&format!("{{ipBlock: {{cidr: 'fd88:78::/64', except: ['{direct}/128']}}}}")));
    served_by(&world, "allowed in IPv6", &["a", "b"], || from_pod(&world, "client", "tcp", &six[0], 80, 20));
    assert_eq!(ask(&four[0], 80), ["failed:"], "not in IPv4");
    world.file("policy.yaml", &from(&format!("{{ipBlock: {{cidr: 'fd88:78::/64', except: ['{v6}/128']}}}}")));
    served_by(&world, "excepted", &["failed:"], || from_pod(&world, "client", "tcp", &six[0], 80, 1));
    // Names are asked for whatever isolates: egress to nowhere.
    world.file("policy.yaml", &policy("podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]"));
    served_by(&world, "no egress", &["failed:"], || from_pod(&world, "client", "tcp", &six[0], 80, 1));
    assert_eq!(names("web").as_deref(), Some("1 1"));
    world.remove("policy.yaml");
    served_by(&world, "without policies", &["a", "b"], || from_pod(&world, "client", "tcp", &six[0], 80, 20));

    // One family goes out of use for a service that becomes single.
    world.file("services.yaml", &service("web", &format!("ipFamilyPolicy: SingleStack, {ports}")));
    world.until("one address", |w| {
        let found = object(w, "service", "web")?;
        (found["spec"]["clusterIPs"].as_array()?.len() == 1).then_some(())
    });
    served_by(&world, "what it gave up", &["failed:"], || from_pod(&world, "client", "tcp", &web[1], 80, 1));
    drop(outside);
    world.stop();
}

/// The lowest address of an IPv6 network means any of its routers, and so is nobody's own. A network that an earlier
/// version made with it stays as it is while pods have it as their router.
#[test]
fn the_gateway_of_an_ipv6_network_is_a_host_address_unless_pods_know_it_otherwise() {
    if skip() {
        return;
    }
    let mut world = World::new("gateway").arg("--service-cidr").arg("fd96::/108");
    world.cidr = "fd88:79::/64".into();
    // What that version left when it was stopped, pods running or not.
    let spec =
        serde_json::json!({"link": world.bridge, "cidr": world.cidr, "gateway": "fd88:79::", "masquerade": true});
    let record = serde_json::json!({"spec": spec, "text": "", "listing": []});
    std::fs::create_dir_all(world.dir.join("run")).unwrap();
    std::fs::write(world.dir.join("run/network.json"), record.to_string()).unwrap();
    world.start();
    world.file("web.yaml", &script("web", FOREVER));
    let route = |world: &World, pod: &str| {
        let show = "PATH=$PATH:/usr/sbin:/sbin; ip -6 route show default; cat /etc/resolv.conf";
        world.exec(pod, &["sh", "-c", show]).ok()
    };
    world.ready("web");
    let before = world.pod("web").unwrap();
    assert!(route(&world, "web").starts_with("default via fd88:79:: "), "{}", route(&world, "web"));
    assert!(route(&world, "web").contains("nameserver fd88:79::\n"), "{}", route(&world, "web"));
    world.kill9();
    world.start();
    world.file("other.yaml", &script("other", FOREVER));
    world.ready("other");
    assert!(route(&world, "other").starts_with("default via fd88:79:: "), "{}", route(&world, "other"));
    let after = world.pod("web").unwrap();
    let container = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    assert_eq!((container(&before), &before["status"]["podIP"]), (container(&after), &after["status"]["podIP"]));
    // With the last pod the network goes, and the next one is made as it should be.
    world.ctl(&["shutdown", "--stop-pods"]).ok();
    while world.daemon_exited().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    world.start();
    world.ready("web");
    assert!(route(&world, "web").starts_with("default via fd88:79::1 "), "{}", route(&world, "web"));
    assert!(route(&world, "web").contains("nameserver fd88:79::1\n"), "{}", route(&world, "web"));
    world.stop();
}
