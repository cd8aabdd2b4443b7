//! What can't be done is refused with its field or said in a condition, and concerns nobody else.

use super::*;

/// What `apply` says of an object that is refused.
#[track_caller]
fn refused(world: &World, text: &str, words: &str) {
    std::fs::write(world.dir.join("bad.yaml"), text).unwrap();
    let said = world.ctl(&["apply", "-f", world.dir.join("bad.yaml").to_str().unwrap()]);
    assert!(said.code != 0 && format!("{}{}", said.out, said.err).contains(words), "{text}: {said:?} lacks {words}");
}

fn condition(world: &World, kind: &str, name: &str) -> Option<(String, String, String)> {
    let found = object(world, kind, name)?;
    let all = found["status"]["conditions"].as_array()?.clone();
    let ours = all.into_iter().find(|c| c["type"] == "reddwarf.io/PortsAvailable")?;
    let text = |field: &str| ours[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

#[test]
fn bad_services_and_policies_are_refused_by_field_or_shown_as_conditions() {
    if skip() {
        return;
    }
    let mut world = World::new("refusals").arg("--load-balancer-cidr").arg("192.0.2.64/30");
    world.start();
    let port = "ports: [{port: 80, targetPort: 8080}]";
    let node_port = |number: u16| format!("ports: [{{port: 80, targetPort: 8080, nodePort: {number}}}]");
    world.file("a.yaml", &server("a", "app: web", "ports: [{containerPort: 8080, hostPort: 8001}]"));
    world
        .file("good.yaml", &service("good", &format!("type: NodePort, selector: {{app: web}}, {}", node_port(30_080))));
    world.ready("a");
    let good = cluster_ip(&world, "good");
    served_by(&world, "the good one", &["a"], || from_netns(&world.name, "tcp", &good, 80, 1));

    // Fields.
    for (spec, words) in [
        (
            format!("type: NodePort, {}", node_port(30_080)),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
        ),
        (
            "type: NodePort, ports: [{name: a, port: 80, nodePort: 30090}, {name: b, port: 81, nodePort: 30090}]"
                .into(),
            "spec.ports[1].nodePort: Duplicate value",
        ),
        (
            format!("type: NodePort, {}", node_port(80)),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            format!("clusterIP: 10.1.2.3, {port}"),
            "spec.clusterIPs: Invalid value: [\"10.1.2.3\"]: failed to allocate IP 10.1.2.3",
        ),
        (format!("clusterIP: {good}, {port}"), "provided IP is already allocated"),
        (
            format!("ipFamilies: [IPv6], {port}"),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            format!("ipFamilyPolicy: RequireDualStack, {port}"),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (format!("externalIPs: [127.0.0.1], {port}"), "spec.externalIPs[0]: Invalid value: \"127.0.0.1\""),
        (format!("externalTrafficPolicy: Local, {port}"), "spec.externalTrafficPolicy"),
        ("ports: [{port: 0}]".into(), "spec.ports[0].port: Invalid value: 0"),
    ] {
        refused(&world, &service("bad", &spec), words);
    }
    let policy = |spec: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: bad}}\nspec: {{podSelector: {{}}, {spec}}}\n"
        )
    };
    for (spec, words) in [
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]", "spec.ingress[0].from[0].ipBlock.cidr: Invalid value"),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.1.0.0/28]}}]}]",
            "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.1.0.0/28\"",
        ),
        ("ingress: [{ports: [{port: 90, endPort: 80}]}]", "spec.ingress[0].ports[0].endPort: Invalid value"),
        ("ingress: [{ports: [{port: http, endPort: 80}]}]", "spec.ingress[0].ports[0].endPort"),
        ("egress: [{ports: [{protocol: ICMP}]}]", "spec.egress[0].ports[0].protocol: Unsupported value: \"ICMP\""),
        ("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}, podSelector: {}}]}]", "spec.ingress[0].from[0]: Forbidden"),
        ("policyTypes: [Sideways]", "spec.policyTypes[0]: Unsupported value: \"Sideways\""),
    ] {
        refused(&world, &policy(spec), words);
    }

    // An address that the pool does not have: the service is there without it, and says so.
    world.file(
        "late.yaml",
        &service("late", &format!("type: LoadBalancer, loadBalancerIP: 198.51.100.1, selector: {{app: web}}, {port}")),
    );
    let outside = world.until("the address to be refused", |w| {
        let found = object(w, "service", "late")?;
        let condition = found["status"]["conditions"][0].clone();
        (condition["status"] == "False").then(|| condition["message"].as_str().unwrap_or_default().to_owned())
    });
    assert!(outside.contains("198.51.100.1") && outside.contains("192.0.2.64/30"), "{outside}");

    // A program of the host listens where a service wants to: said in its status, over once the program has gone.
    let mut listener = world
        .inside("python3")
        .args(["-c", "import socket, time; s = socket.socket(); s.bind(('', 30091)); s.listen(1); print('up', flush=True); time.sleep(60)"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(listener.stdout.take().unwrap()), &mut line).unwrap();
    world.file(
        "clash.yaml",
        &service("clash", &format!("type: NodePort, selector: {{app: web}}, {}", node_port(30_091))),
    );
    let (status, reason, message) = world.until("the clash", |w| condition(w, "service", "clash"));
    assert_eq!((&*status, &*reason), ("False", "PortClash"));
    assert!(message.contains("30091/tcp"), "{message}");
    assert_eq!(condition(&world, "service", "good"), None, "others are not concerned");
    listener.kill().unwrap();
    listener.wait().unwrap();
    // Another pod wants a port that one has: said of the second, whichever that is, over once the first has gone.
    world.file("b.yaml", &server("b", "app: other", "ports: [{containerPort: 8080, hostPort: 8001}]"));
    world.ready("b");
    let (status, reason, message) = world.until("the port to be taken", |w| condition(w, "pod", "b"));
    assert_eq!((&*status, &*reason), ("False", "PortAlreadyTaken"));
    assert!(message.contains("8001") && message.contains("default/a"), "{message}");
    world.until("the clash to be over", |w| condition(w, "service", "clash").filter(|(status, ..)| status == "True"));
    served_by(&world, "the first has it", &["a"], || from_netns(&world.name, "tcp", &own_address(&world), 8001, 2));
    world.remove("a.yaml");
    world.until("the port to be free", |w| condition(w, "pod", "b").filter(|(status, ..)| status == "True"));
    served_by(&world, "the second has it", &["b"], || from_netns(&world.name, "tcp", &own_address(&world), 8001, 2));
    world.stop();
}

/// Addresses for services that the host reaches elsewhere: refused at the start, with what clashes.
#[test]
fn service_addresses_that_the_host_uses_itself_are_refused_at_the_start() {
    if skip() {
        return;
    }
    let mut world = World::new("overlap").arg("--service-cidr").arg("192.0.2.0/25");
    let outside = outside::Outside::of(&world, "192.0.2.1/24", "192.0.2.2/24");
    world.spawn();
    let began = Instant::now();
    let code = loop {
        match world.daemon_exited() {
            Some(code) => break code,
            None => assert!(began.elapsed() < Duration::from_secs(20), "it started\n{}", world.log()),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_ne!(code, 0);
    let log = world.log();
    assert!(
        log.contains("192.0.2.0/25") && log.contains("overlap with the host's network 192.0.2.0/24 on up0"),
        "{log}"
    );
    drop(outside);
}

/// The host's own address in the pod network.
fn own_address(world: &World) -> String {
    let (network, _) = world.cidr.split_once('/').unwrap();
    format!("{}.1", network.rsplit_once('.').unwrap().0)
}
