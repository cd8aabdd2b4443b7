use super::*;
use reddwarf_host::service::{Allow, Direction, Frontend, Isolation, Place, PortRange, Protocol, ServiceTable};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

fn settings() -> TableSettings {
    TableSettings {
        node: "n".into(),
        cluster: vec!["10.96.0.0/16".parse().unwrap()],
        pods: vec!["10.88.0.0/16".parse().unwrap()],
        balancers: vec!["203.0.113.0/24".parse().unwrap()],
        resolvers: Vec::new(),
    }
}

fn put(cluster: &mut Cluster, subject: Subject, namespace: &str, name: &str, value: Value) {
    cluster.take(subject, (namespace.into(), name.into()), Some(value.to_string().as_bytes()));
}

fn service(cluster: &mut Cluster, name: &str, spec: Value) {
    put(
        cluster,
        Subject::Service,
        "d",
        name,
        json!({"metadata": {}, "spec": spec,
        "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}}),
    );
}

fn slice(cluster: &mut Cluster, service: &str, endpoints: Value) {
    put(
        cluster,
        Subject::Slice,
        "d",
        &format!("{service}-1"),
        json!({
        "metadata": {"labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}], "endpoints": endpoints}),
    );
}

fn pod(cluster: &mut Cluster, namespace: &str, name: &str, ip: &str, labels: Value, ports: Value) {
    put(
        cluster,
        Subject::Pod,
        namespace,
        name,
        json!({"metadata": {"labels": labels},
        "spec": {"nodeName": "n", "containers": [{"ports": ports}]}, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}}),
    );
}

fn at(place: &str, port: u16) -> Frontend {
    let place = if place == "host" { Place::HostV4 } else { Place::Address(place.parse().unwrap()) };
    Frontend { place, protocol: Protocol::Tcp, port }
}

fn ends(table: &ServiceTable, frontend: Frontend) -> Vec<String> {
    let backends =
        table.frontends.get(&frontend).unwrap_or_else(|| panic!("{frontend} is missing: {:#?}", table.frontends));
    backends.addresses.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn every_way_to_a_service_leads_to_its_ready_endpoints() {
    let mut cluster = Cluster::default();
    service(
        &mut cluster,
        "web",
        json!({"type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
        "externalIPs": ["198.51.100.1"], "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080}]}),
    );
    let (ready, gone) = (json!({"ready": true}), json!({"ready": false, "serving": true, "terminating": true}));
    slice(
        &mut cluster,
        "web",
        json!([
        {"addresses": ["10.88.0.2"], "conditions": ready, "nodeName": "n"},
        {"addresses": ["10.88.0.3"], "conditions": ready, "nodeName": "elsewhere"},
        {"addresses": ["10.88.0.4"], "conditions": {"ready": false}, "nodeName": "n"},
        {"addresses": ["10.88.0.5"], "conditions": gone, "nodeName": "n"}]),
    );
    let (made, findings) = table(&cluster, &settings());
    assert_eq!(findings, []);
    assert_eq!(ends(&made, at("10.96.0.9", 80)), ["10.88.0.2:8080", "10.88.0.3:8080"]);
    // From outside only endpoints of this node: the source address stays.
    for outside in [at("198.51.100.1", 80), at("203.0.113.9", 80), at("host", 30_080)] {
        assert_eq!(ends(&made, outside), ["10.88.0.2:8080"], "{outside}");
    }
    assert_eq!(made.frontends[&at("203.0.113.9", 80)].sources.len(), 1);
    assert!(made.frontends[&at("10.96.0.9", 80)].sources.is_empty());
    assert_eq!(made.announced, ["203.0.113.9".parse().unwrap()].into());
    assert_eq!(made.problem(), None);
    // Nobody ready: those that are going still serve.
    slice(&mut cluster, "web", json!([{"addresses": ["10.88.0.5"], "conditions": gone, "nodeName": "n"}]));
    assert_eq!(ends(&table(&cluster, &settings()).0, at("10.96.0.9", 80)), ["10.88.0.5:8080"]);
    // Nobody at all: the frontend stays and refuses.
    slice(&mut cluster, "web", json!([]));
    assert_eq!(ends(&table(&cluster, &settings()).0, at("10.96.0.9", 80)), Vec::<String>::new());
    assert!(cluster.take(Subject::Service, ("d".into(), "web".into()), None));
    assert!(table(&cluster, &settings()).0.frontends.is_empty());
}

#[test]
fn one_port_for_two_is_said_and_the_first_keeps_it() {
    let mut cluster = Cluster::default();
    for name in ["a", "b"] {
        service(
            &mut cluster,
            name,
            json!({"type": "ClusterIP", "clusterIP": format!("10.96.0.{}", name.len()),
            "clusterIPs": [if name == "a" { "10.96.0.1" } else { "10.96.0.2" }], "externalIPs": ["198.51.100.1"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]}),
        );
    }
    pod(&mut cluster, "d", "p", "10.88.0.7", json!({}), json!([{"containerPort": 80, "hostPort": 8000}]));
    let (made, findings) = table(&cluster, &settings());
    assert_eq!(ends(&made, at("host", 8000)), ["10.88.0.7:80"]);
    assert_eq!(made.frontends[&at("198.51.100.1", 80)].name, "d/a:http");
    assert_eq!(made.frontends.len(), 4, "the others are as ever");
    let said: Vec<_> = findings.iter().map(|f| (f.about.1.as_str(), f.reason)).collect();
    assert_eq!(said, [("b", "PortAlreadyTaken")]);
}

fn policies(spec: Value) -> Vec<Isolation> {
    let mut cluster = Cluster::default();
    for (name, labels) in [("d", json!({"team": "a"})), ("other", json!({"team": "b"}))] {
        put(&mut cluster, Subject::Namespace, "", name, json!({"metadata": {"labels": labels}}));
    }
    let named = json!([{"name": "http", "containerPort": 8080, "protocol": "TCP"}]);
    pod(&mut cluster, "d", "web", "10.88.0.2", json!({"app": "web"}), named);
    pod(&mut cluster, "d", "client", "10.88.0.3", json!({"app": "client"}), json!([]));
    pod(&mut cluster, "other", "client", "10.88.0.4", json!({"app": "client"}), json!([]));
    put(&mut cluster, Subject::Policy, "d", "p", json!({"metadata": {}, "spec": spec}));
    table(&cluster, &settings()).0.isolations
}

/// From or to whom (`None`: anyone), and on which ports.
type Allowed<'a> = (Option<&'a [&'a str]>, Option<(u16, u16)>);

fn one(direction: Direction, pods: &[&str], allow: &[Allowed<'_>]) -> Isolation {
    let allow = allow.iter().map(|(peers, ports)| Allow {
        peers: peers.map(|list| list.iter().map(|p| p.parse().unwrap()).collect()),
        ports: ports.map(|(first, last)| [PortRange { protocol: Protocol::Tcp, first, last }].into()),
    });
    let pods: BTreeSet<IpAddr> = pods.iter().map(|p| p.parse().unwrap()).collect();
    Isolation { direction, pods, allow: allow.collect() }
}

#[test]
fn policies_isolate_what_they_select_and_allow_what_they_say() {
    use Direction::{Egress, Ingress};
    let web = &["10.88.0.2"][..];
    for (spec, wanted) in [
        // Default deny, of what is selected.
        (json!({"podSelector": {}}), vec![one(Ingress, &["10.88.0.2", "10.88.0.3"], &[])]),
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"]}),
            vec![one(Ingress, web, &[]), one(Egress, web, &[])],
        ),
        // Everybody, by an empty rule.
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{}]}),
            vec![one(Ingress, web, &[(None, None)])],
        ),
        // Pods of this namespace, pods of others, ports by number, range and name.
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "http"}]}]}),
            vec![one(Ingress, web, &[(Some(&["10.88.0.3/32"]), Some((8080, 8080)))])],
        ),
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}], "ports": [{"port": 80, "endPort": 90}]}]}),
            vec![one(Ingress, web, &[(Some(&["10.88.0.4/32"]), Some((80, 90)))])],
        ),
        // Both selectors in one peer: both must match.
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"from": [
            {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "web"}}}]}]}),
            vec![one(Ingress, web, &[(Some(&["10.88.0.2/32"]), None)])],
        ),
        // A block without a part of it; egress because there are rules for it, ingress because nobody said otherwise.
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}},
            "egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/30", "except": ["192.0.2.2/32"]}}]}]}),
            vec![one(Ingress, web, &[]), one(Egress, web, &[(Some(&["192.0.2.0/31", "192.0.2.3/32"]), None)])],
        ),
        // Egress to a port by name: each peer says which number that is; who has none is not allowed.
        (
            json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
            "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": "http"}]}]}),
            vec![one(Egress, &["10.88.0.3"], &[(Some(&["10.88.0.2/32"]), Some((8080, 8080)))])],
        ),
    ] {
        assert_eq!(policies(spec.clone()), wanted, "{spec}");
    }
}

#[test]
fn what_can_not_be_read_lets_nobody_pass() {
    let mut cluster = Cluster::default();
    assert!(!cluster.take(Subject::Service, ("d".into(), "s".into()), Some(b"{")));
    assert!(!cluster.take(Subject::Pod, ("d".into(), "s".into()), Some(b"[]")));
    assert_eq!(cluster, Cluster::default());
}
