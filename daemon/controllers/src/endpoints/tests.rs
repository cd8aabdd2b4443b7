use super::*;
use crate::runtime::{NamedPort, PodNet};
use crate::workload::testing::{pod, with};
use chrono::DateTime;
use proptest::prelude::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn service(spec: Value) -> Object {
    object(json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "d", "uid": "u", "labels": {"team": "a"}}, "spec": spec}))
}

fn at(name: &str, ip: &str, ready: bool) -> Arc<Slim> {
    pod(name, |p| {
        p.ready_since = ready.then_some(DateTime::UNIX_EPOCH);
        p.net = Some(Arc::new(PodNet {
            ips: vec![ip.into(), "fd00::1".into()],
            hostname: name.into(),
            subdomain: "web".into(),
            ports: vec![NamedPort { name: "http".into(), protocol: "TCP".into(), number: 8080 }],
        }));
    })
}

fn slice(name: &str, group: &Wanted, labels: &Map<String, Value>, endpoints: &[Value]) -> Object {
    object(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "d", "labels": labels},
        "addressType": group.family, "ports": group.ports, "endpoints": endpoints}))
}

#[test]
fn pods_are_endpoints_as_their_readiness_and_their_end_say() {
    let spec = json!({"clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"], "ports": [
        {"name": "web", "port": 80, "protocol": "TCP", "targetPort": "http"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "none", "port": 1, "protocol": "TCP", "targetPort": "unknown"}]});
    let going = with(&at("c", "10.88.0.4", true), |s| s.deleted = Some(DateTime::UNIX_EPOCH));
    let over = pod("d", |p| p.phase = reddwarf_objects::pod::Phase::Succeeded);
    let pods = [at("b", "10.88.0.3", false), at("a", "10.88.0.2", true), going, over, pod("e", |_| {})];
    let zones = BTreeMap::from([("n".to_owned(), "z1".to_owned())]);
    let found = endpoints(&service(spec.clone()), &pods, &zones);
    let states: Vec<_> = found.iter().map(|e| (&*e.pod.1, e.ready, e.serving, e.terminating)).collect();
    assert_eq!(states, [("a", true, true, false), ("b", false, false, false), ("c", false, true, true)]);
    let ports: Vec<_> = found[0].ports.iter().map(|p| (&*p.name, p.port)).collect();
    assert_eq!(ports, [("web", 8080), ("dns", 53)], "a pod without the named port has none of it");
    assert_eq!(
        found[0].value("10.88.0.2"),
        json!({"addresses": ["10.88.0.2"], "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": "a", "nodeName": "n", "zone": "z1",
            "targetRef": {"kind": "Pod", "namespace": "d", "name": "a", "uid": "a"}})
    );
    let mut published = spec;
    published["publishNotReadyAddresses"] = json!(true);
    let found = endpoints(&service(published), &pods, &zones);
    assert!(found.iter().all(|e| e.ready));
}

#[test]
fn the_endpoints_object_says_the_same() {
    let spec = json!({"clusterIP": "None", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]});
    let service = service(spec);
    let pods = [at("b", "10.88.0.3", false), at("a", "10.88.0.2", true)];
    let kind = kinds().by_gvk("v1", "Endpoints").unwrap();
    let made = legacy::object(kind, &service, &endpoints(&service, &pods, &BTreeMap::new()));
    let reference = |name: &str| json!({"kind": "Pod", "namespace": "d", "name": name, "uid": name});
    assert_eq!(
        made.value(),
        json!({"apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": "web", "namespace": "d", "labels": {"team": "a",
                "endpoints.kubernetes.io/managed-by": "endpoint-controller", "service.kubernetes.io/headless": ""}},
            "subsets": [{
                "addresses": [{"ip": "10.88.0.2", "hostname": "a", "nodeName": "n", "targetRef": reference("a")}],
                "notReadyAddresses": [{"ip": "10.88.0.3", "hostname": "b", "nodeName": "n", "targetRef": reference("b")}],
                "ports": [{"port": 80, "protocol": "TCP"}]}]})
    );
    let mut live = made.clone();
    assert!(!legacy::overwrite(&mut live, &made, "t"), "nothing to write");
}

#[test]
fn a_service_of_both_families_has_slices_of_both_and_one_without_pods_has_an_empty_one() {
    let both = service(json!({"ipFamilies": ["IPv4", "IPv6"], "ports": [{"port": 80, "protocol": "TCP"}]}));
    let found = endpoints(&both, &[at("a", "10.88.0.2", true)], &BTreeMap::new());
    let families: Vec<_> = slices::wanted(&both, &found).iter().map(|w| (w.family, w.endpoints.len())).collect();
    assert_eq!(families, [("IPv4", 1), ("IPv6", 1)]);
    let none = slices::wanted(&both, &[]);
    assert_eq!(none.iter().map(|w| w.endpoints.len()).collect::<Vec<_>>(), [0, 0]);
    let changes = spread(&[], &none, &Map::new());
    assert!(matches!(changes[..], [SliceChange::Create(_), SliceChange::Create(_)]), "{changes:?}");
}

#[test]
fn endpoints_that_people_write_are_mirrored() {
    let written = object(json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db", "namespace": "d"},
        "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}],
            "ports": [{"port": 5432, "protocol": "TCP"}]}]}));
    assert!(mirror::wants(&written));
    let wanted = mirror::wanted(&written);
    assert_eq!(wanted.len(), 1);
    assert_eq!(wanted[0].ports, json!([{"name": "", "port": 5432, "protocol": "TCP"}]));
    assert_eq!(wanted[0].endpoints[1], json!({"addresses": ["192.0.2.2"], "conditions": {"ready": false}}));
}

proptest! {
    /// Whatever slices there are and whatever is wanted: afterwards every endpoint is in exactly one slice, no slice is
    /// too full, and doing it again changes nothing.
    #[test]
    fn spreading_converges(before in 0_usize..350, cut in 1_usize..90, gone in 0_usize..200, new in 0_usize..250) {
        let endpoint = |n: usize| json!({"addresses": [format!("10.0.{}.{}", n / 250, n % 250)], "conditions": {"ready": true}});
        let group = |range: std::ops::Range<usize>| Wanted {
            family: "IPv4", ports: json!([{"name": "", "port": 80, "protocol": "TCP"}]),
            endpoints: range.map(endpoint).collect(),
        };
        let labels = Map::from_iter([("a".to_owned(), json!("b"))]);
        let old = group(0..before);
        let mut present: Vec<Object> = old.endpoints.chunks(cut).enumerate()
            .map(|(i, chunk)| slice(&format!("s{i}"), &old, &labels, chunk)).collect();
        let wanted = [group(gone.min(before)..before + new)];
        for (round, expected) in [(0, None), (1, Some(0))] {
            let changes = spread(&present, &wanted, &labels);
            if let Some(expected) = expected {
                prop_assert_eq!(changes.len(), expected, "round {}", round);
            }
            for (n, change) in changes.into_iter().enumerate() {
                let service = Id::new("", "Service", "d", "web").unwrap();
                let kind = kinds().by_gvk("discovery.k8s.io/v1", "EndpointSlice").unwrap();
                match change {
                    SliceChange::Create(fields) => {
                        let mut made = slices::new_slice(kind, &service, &old_owner(), &fields, "t");
                        made.set_name(&format!("n{round}{n}"));
                        present.push(made);
                    }
                    SliceChange::Replace(name, fields) => {
                        let found = present.iter_mut().find(|s| s.name() == name).unwrap();
                        slices::overwrite(found, &fields, "t");
                    }
                    SliceChange::Delete(name) => present.retain(|s| s.name() != name),
                }
            }
            let mut all: Vec<String> = Vec::new();
            for slice in &present {
                let endpoints = slice.get("/endpoints").unwrap().as_array().unwrap();
                prop_assert!(endpoints.len() <= 100);
                all.extend(endpoints.iter().map(Value::to_string));
            }
            all.sort();
            let mut expected: Vec<String> = wanted[0].endpoints.iter().map(Value::to_string).collect();
            expected.sort();
            prop_assert_eq!(all, expected);
        }
    }
}

fn old_owner() -> Object {
    service(json!({}))
}
