//! Packets of every kind: nothing panics, answers are well-formed, and incremental changes end where a fresh start does.

use super::*;
use crate::dns::name::Room;
use crate::dns::prepared::Node;
use hickory_proto::op::ResponseCode;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn reply(packet: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match answer(&example_once(), packet, Transport::Udp, || true, &mut Room::default(), &mut out) {
        Verdict::Reply => Some(out),
        Verdict::Forward(_) | Verdict::Silence => None,
    }
}

fn example_once() -> Arc<Snapshot> {
    static ONCE: std::sync::LazyLock<Arc<Snapshot>> = std::sync::LazyLock::new(example);
    Arc::clone(&ONCE)
}

fn code(packet: &[u8]) -> Option<ResponseCode> {
    let out = reply(packet)?;
    assert_eq!(out[..2], packet[..2], "the id");
    Some(Message::from_vec(&out).unwrap().metadata.response_code)
}

#[test]
fn packets_that_are_no_queries() {
    let good = ask("kubernetes.default.svc.cluster.local.", RecordType::A).packet();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        code(&packet)
    };
    assert_eq!(code(&good), Some(ResponseCode::NoError));
    assert_eq!(code(&[]), None);
    assert_eq!(code(&good[..11]), None);
    assert_eq!(changed(&|p| p[2] |= 0x80), None, "an answer");
    for opcode in 1..16_u8 {
        assert_eq!(changed(&|p| p[2] = opcode << 3), Some(ResponseCode::NotImp), "opcode {opcode}");
    }
    assert_eq!(code(&good[..12]), Some(ResponseCode::FormErr));
    assert_eq!(code(&good[..good.len() - 1]), Some(ResponseCode::FormErr));
    assert_eq!(changed(&|p| p[5] = 0), Some(ResponseCode::FormErr), "no question");
    assert_eq!(changed(&|p| p[5] = 2), Some(ResponseCode::FormErr), "two questions");
    assert_eq!(changed(&|p| p[11] = 1), Some(ResponseCode::FormErr), "a record that is not there");
    assert_eq!(changed(&|p| p.push(0)), Some(ResponseCode::FormErr), "bytes after the end");
    assert_eq!(changed(&|p| p[12] = 0xc0), Some(ResponseCode::FormErr), "a pointer in the question");
    assert_eq!(changed(&|p| *p.last_mut().unwrap() = 3), Some(ResponseCode::Refused), "class CH");
    assert_eq!(changed(&|p| *p.last_mut().unwrap() = 255), Some(ResponseCode::Refused), "class ANY");
}

#[test]
fn edns_is_answered_and_its_faults_are_refused() {
    let opt = |bytes: &[u8], count: u8| {
        let mut packet = ask("kubernetes.default.svc.cluster.local.", RecordType::A).packet();
        packet[11] = count;
        packet.extend(bytes);
        reply(&packet).map(|out| Message::from_vec(&out).unwrap())
    };
    let plain = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0];
    let said = opt(&plain, 1).unwrap();
    assert_eq!(said.metadata.response_code, ResponseCode::NoError);
    let edns = said.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1232, 0, false));
    let mut version = plain;
    version[6] = 1;
    let said = opt(&version, 1).unwrap();
    assert_eq!(u16::from(said.metadata.response_code), 16, "BADVERS");
    assert_eq!(said.edns.unwrap().version(), 0);
    assert_eq!(opt(&[plain, plain].concat(), 2).unwrap().metadata.response_code, ResponseCode::FormErr);
    let mut named = vec![1, b'x'];
    named.extend(plain);
    assert_eq!(opt(&named, 1).unwrap().metadata.response_code, ResponseCode::FormErr);
    // An option that is longer than what is there.
    let mut option = plain.to_vec();
    option[10] = 4;
    option.extend([0, 10, 0, 9]);
    assert_eq!(opt(&option, 1).unwrap().metadata.response_code, ResponseCode::FormErr);
    // An unknown one is nothing special.
    let mut option = plain.to_vec();
    option[10] = 6;
    option.extend([0xff, 0, 0, 2, 1, 2]);
    assert_eq!(opt(&option, 1).unwrap().metadata.response_code, ResponseCode::NoError);
}

/// Names near those of the example.
fn name() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec![
        "kubernetes",
        "default",
        "svc",
        "pod",
        "cluster",
        "local",
        "db",
        "db-0",
        "_sql",
        "_tcp",
        "_https",
        "many",
        "round",
        "outside",
        "chain",
        "10-88-0-5",
        "in-addr",
        "arpa",
        "ip6",
        "10",
        "96",
        "0",
        "1",
        "x",
        "DEFAULT",
    ]);
    let suffix = prop::sample::select(vec!["", "default.svc.cluster.local.", "cluster.local.", "96.10.in-addr.arpa."]);
    (prop::collection::vec(label, 1..5), suffix).prop_map(|(labels, suffix)| format!("{}.{suffix}", labels.join(".")))
}

fn kind() -> impl Strategy<Value = RecordType> {
    use RecordType::{A, AAAA, ANY, CNAME, MX, NS, PTR, SOA, SRV, TXT};
    prop::sample::select(vec![A, AAAA, SRV, PTR, TXT, CNAME, SOA, NS, MX, ANY])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_answered_or_not_but_never_harm(packet in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(out) = reply(&packet) {
            prop_assert!(Message::from_vec(&out).is_ok());
            prop_assert!(out.len() <= 512 || out.len() <= packet.len() + 500);
        }
    }

    #[test]
    fn queries_with_any_fault_are_answered_well(
        name in name(), kind in kind(), edns in prop::option::of(any::<u16>()),
        faults in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut packet = Ask { name, kind, transport: Transport::Udp, edns }.packet();
        for (at, byte) in faults {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len()));
        }
        if let Some(out) = reply(&packet) {
            let said = Message::from_vec(&out);
            prop_assert!(said.is_ok(), "{:?} from {:?}", said, out);
        }
    }

    /// The rules that hold for every answer, whatever the records are.
    #[test]
    fn answers_keep_the_rules(name in name(), kind in kind(), edns in prop::option::of(any::<u16>())) {
        let query = Ask { name, kind, transport: Transport::Udp, edns };
        let Some(said) = query.of(&example_once()) else { return Ok(()) };
        let meta = &said.metadata;
        prop_assert_eq!(said.queries.len(), 1);
        prop_assert!(meta.recursion_desired && meta.recursion_available && meta.authoritative);
        prop_assert_eq!(said.edns.is_some(), edns.is_some());
        prop_assert_eq!(&said.queries[0].name().to_ascii(), &query.name);
        let alias = said.answers.iter().any(|r| r.record_type() == RecordType::CNAME);
        if said.answers.is_empty() {
            // Nothing is there, and for how long that holds.
            prop_assert_eq!(said.authorities.len(), 1);
            prop_assert_eq!(said.authorities[0].record_type(), RecordType::SOA);
            prop_assert!(said.authorities[0].name.zone_of(said.queries[0].name()));
        } else if !alias && kind != RecordType::ANY {
            prop_assert!(said.answers.iter().all(|r| r.record_type() == kind && &r.name == said.queries[0].name()));
        }
        // A name exists for all types or for none.
        let mut other = query;
        other.kind = if kind == RecordType::A { RecordType::TXT } else { RecordType::A };
        if let Some(other) = other.of(&example_once()) && !alias {
            let codes = (meta.response_code, other.metadata.response_code);
            prop_assert!(codes.0 == codes.1 || codes.1 == ResponseCode::NXDomain && !other.answers.is_empty(), "{:?}", codes);
        }
    }

    /// Following changes one by one ends where reading everything at once does.
    #[test]
    fn changes_add_up(steps in prop::collection::vec((0..4_u8, 0..3_u8, 0..6_u8, any::<bool>()), 1..40)) {
        let mut records = Records::new(zones());
        let mut objects: BTreeMap<(&str, String), Value> = BTreeMap::new();
        for (what, which, variant, publish) in steps {
            let (resource, name, object) = match what {
                0 | 1 => ("services", format!("s{which}"), match variant {
                    0 => None,
                    1 => Some(service(json!({"type": "ExternalName", "externalName": "example.com"}))),
                    2 | 3 => Some(service(json!({"clusterIP": format!("10.96.0.{variant}"), "ports": [{"name": "p", "port": 1}]}))),
                    _ => Some(service(json!({"clusterIP": "None", "publishNotReadyAddresses": variant == 4}))),
                }),
                2 => ("endpointslices", format!("e{which}"), (variant > 0).then(|| {
                    let ready = variant % 2 == 0;
                    let addresses = json!([{"addresses": [format!("10.88.0.{}", variant % 3)], "hostname": "h", "conditions": {"ready": ready}}]);
                    slice(&format!("s{}", variant % 3), json!([{"name": "q", "port": 2}]), addresses)
                })),
                _ => ("namespaces", format!("n{which}"), (variant > 2).then(|| json!({}))),
            };
            let namespace = if resource == "namespaces" { "" } else { "n0" };
            let json = object.as_ref().map(Value::to_string);
            let change = Change::read(resource, namespace, &name, json.as_ref().map(String::as_bytes)).unwrap().unwrap();
            records.apply(change);
            match object {
                Some(object) => drop(objects.insert((resource, name), object)),
                None => drop(objects.remove(&(resource, name))),
            }
            if publish {
                records.snapshot();
            }
        }
        records.snapshot();
        let mut fresh = Records::new(zones());
        for ((resource, name), object) in &objects {
            put(&mut fresh, resource, if *resource == "namespaces" { "" } else { "n0" }, name, object);
        }
        fresh.snapshot();
        prop_assert_eq!(contents(&records.current()), contents(&fresh.current()));
    }
}

/// All names with all answers; serial numbers of zones aside.
fn contents(snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Arc<Node>> {
    let apex = snapshot.zones.apex();
    snapshot
        .all()
        .filter(|(name, _)| name.bytes() != apex)
        .map(|(name, node)| (name.bytes().to_vec(), Arc::clone(node)))
        .collect()
}
