//! Which names have which records, as the specification's chapters have them.

use super::*;
use crate::dns::name::Room;
use hickory_proto::op::ResponseCode;
use std::collections::BTreeSet;

const SOA: &str = "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5";

fn says(name: &str, kind: RecordType, expected: &str) {
    let said = ask(name, kind).of(&example()).map_or("forward".into(), |m| show(&m));
    assert_eq!(said, expected, "{name} {kind}");
}

fn nodata(name: &str, kind: RecordType) {
    says(name, kind, &format!("NoError aa ra\nauth cluster.local. 5 SOA {SOA}"));
}

fn nxdomain(name: &str) {
    for kind in [RecordType::A, RecordType::AAAA, RecordType::SRV] {
        says(name, kind, &format!("NXDomain aa ra\nauth cluster.local. 5 SOA {SOA}"));
    }
}

#[test]
fn services_with_an_address() {
    says(
        "kubernetes.default.svc.cluster.local.",
        RecordType::A,
        "NoError aa ra\nkubernetes.default.svc.cluster.local. 30 A 10.96.0.1",
    );
    nodata("kubernetes.default.svc.cluster.local.", RecordType::AAAA);
    nodata("kubernetes.default.svc.cluster.local.", RecordType::MX);
    says(
        "dns.kube-system.svc.cluster.local.",
        RecordType::AAAA,
        "NoError aa ra\ndns.kube-system.svc.cluster.local. 30 AAAA fd00:96::10",
    );
    says(
        "_https._tcp.kubernetes.default.svc.cluster.local.",
        RecordType::SRV,
        "NoError aa ra\n_https._tcp.kubernetes.default.svc.cluster.local. 30 SRV 0 100 443 \
         kubernetes.default.svc.cluster.local.\nadd kubernetes.default.svc.cluster.local. 30 A 10.96.0.1",
    );
    says(
        "_dns._udp.dns.kube-system.svc.cluster.local.",
        RecordType::SRV,
        "NoError aa ra\n_dns._udp.dns.kube-system.svc.cluster.local. 30 SRV 0 100 53 dns.kube-system.svc.cluster.local.\
         \nadd dns.kube-system.svc.cluster.local. 30 A 10.96.0.10\
         \nadd dns.kube-system.svc.cluster.local. 30 AAAA fd00:96::10",
    );
    says(
        "1.0.96.10.in-addr.arpa.",
        RecordType::PTR,
        "NoError aa ra\n1.0.96.10.in-addr.arpa. 5 PTR kubernetes.default.svc.cluster.local.",
    );
    let v6 = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.0.0.d.f.ip6.arpa.";
    says(v6, RecordType::PTR, &format!("NoError aa ra\n{v6} 5 PTR dns.kube-system.svc.cluster.local."));
}

#[test]
fn headless_services_name_ready_endpoints() {
    says(
        "db.default.svc.cluster.local.",
        RecordType::A,
        "NoError aa ra\ndb.default.svc.cluster.local. 5 A 10.88.0.5\ndb.default.svc.cluster.local. 5 A 10.88.0.6\
         \ndb.default.svc.cluster.local. 5 A 10.88.0.7",
    );
    says(
        "db-1.db.default.svc.cluster.local.",
        RecordType::A,
        "NoError aa ra\ndb-1.db.default.svc.cluster.local. 5 A 10.88.0.6",
    );
    says(
        "10-88-0-7.db.default.svc.cluster.local.",
        RecordType::A,
        "NoError aa ra\n10-88-0-7.db.default.svc.cluster.local. 5 A 10.88.0.7",
    );
    says(
        "5.0.88.10.in-addr.arpa.",
        RecordType::PTR,
        "NoError aa ra\n5.0.88.10.in-addr.arpa. 5 PTR db-0.db.default.svc.cluster.local.\
        \n5.0.88.10.in-addr.arpa. 5 PTR db-0.early.default.svc.cluster.local.",
    );
    let srv = ask("_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV).of(&example()).unwrap();
    let targets: BTreeSet<String> = srv.answers.iter().map(|r| r.data.to_string()).collect();
    let expected = ["10-88-0-7", "db-0", "db-1"].map(|h| format!("0 33 5432 {h}.db.default.svc.cluster.local."));
    assert_eq!(targets, BTreeSet::from(expected));
    assert_eq!(srv.additionals.len(), 3);
    nxdomain("db-3.db.default.svc.cluster.local.");
    nodata("_tcp.db.default.svc.cluster.local.", RecordType::SRV);
    // No ready endpoint at all.
    nxdomain("idle.default.svc.cluster.local.");
}

#[test]
fn endpoints_have_names_before_they_are_ready_where_asked() {
    says(
        "db-3.early.default.svc.cluster.local.",
        RecordType::A,
        "NoError aa ra\ndb-3.early.default.svc.cluster.local. 5 A 10.88.0.8",
    );
    let all = ask("early.default.svc.cluster.local.", RecordType::A).of(&example()).unwrap();
    assert_eq!(all.answers.len(), 4);
}

#[test]
fn aliases_are_followed() {
    says(
        "inside.default.svc.cluster.local.",
        RecordType::CNAME,
        "NoError aa ra\ninside.default.svc.cluster.local. 30 CNAME dns.kube-system.svc.cluster.local.",
    );
    says(
        "chain.default.svc.cluster.local.",
        RecordType::A,
        "NoError aa ra\nchain.default.svc.cluster.local. 30 CNAME inside.default.svc.cluster.local.\
         \ndns.kube-system.svc.cluster.local. 30 A 10.96.0.10\
         \ninside.default.svc.cluster.local. 30 CNAME dns.kube-system.svc.cluster.local.",
    );
    says(
        "nowhere.default.svc.cluster.local.",
        RecordType::A,
        "NXDomain aa ra\nnowhere.default.svc.cluster.local. 30 CNAME missing.default.svc.cluster.local.",
    );
    assert_eq!(ask("round.default.svc.cluster.local.", RecordType::A).of(&example()).unwrap().answers.len(), 9);
    says("outside.default.svc.cluster.local.", RecordType::A, "forward");
}

#[test]
fn pods_names_say_their_address() {
    says(
        "10-88-0-9.default.pod.cluster.local.",
        RecordType::A,
        "NoError aa ra\n10-88-0-9.default.pod.cluster.local. 5 A 10.88.0.9",
    );
    says(
        "fd00--9.default.pod.cluster.local.",
        RecordType::AAAA,
        "NoError aa ra\nfd00--9.default.pod.cluster.local. 5 AAAA fd00::9",
    );
    nodata("10-88-0-9.default.pod.cluster.local.", RecordType::AAAA);
    nxdomain("10-88-0-9.other.pod.cluster.local.");
    nxdomain("10-88-0-256.default.pod.cluster.local.");
    nxdomain("x.10-88-0-9.default.pod.cluster.local.");
}

#[test]
fn names_between_others_exist_and_others_do_not() {
    for name in ["svc", "pod", "default.svc", "empty.svc", "default.pod"] {
        nodata(&format!("{name}.cluster.local."), RecordType::A);
    }
    for name in ["other.svc", "x", "x.default.svc", "_tcp.idle.default.svc", "x.kubernetes.default.svc"] {
        nxdomain(&format!("{name}.cluster.local."));
    }
    says("dns-version.cluster.local.", RecordType::TXT, "NoError aa ra\ndns-version.cluster.local. 30 TXT 1.1.0");
    says("cluster.local.", RecordType::NS, "NoError aa ra\ncluster.local. 30 NS ns.dns.cluster.local.");
    says("cluster.local.", RecordType::SOA, &format!("NoError aa ra\ncluster.local. 30 SOA {SOA}"));
    says("ns.dns.cluster.local.", RecordType::A, "NoError aa ra\nns.dns.cluster.local. 30 A 10.88.0.1");
}

#[test]
fn reverse_names_of_our_networks_are_ours_alone() {
    says("9.9.96.10.in-addr.arpa.", RecordType::PTR, &format!("NXDomain aa ra\nauth 96.10.in-addr.arpa. 5 SOA {SOA}"));
    says("9.96.10.in-addr.arpa.", RecordType::PTR, &format!("NoError aa ra\nauth 96.10.in-addr.arpa. 5 SOA {SOA}"));
    for name in ["8.8.8.8.in-addr.arpa.", "10.in-addr.arpa.", "1.0.0.0.ip6.arpa.", "example.com.", "xcluster.local."] {
        says(name, RecordType::PTR, "forward");
    }
}

#[test]
fn everything_at_once_and_transfers_are_refused() {
    says(
        "kubernetes.default.svc.cluster.local.",
        RecordType::ANY,
        "NoError aa ra\nkubernetes.default.svc.cluster.local. 5 HINFO RFC8482 ",
    );
    says("cluster.local.", RecordType::AXFR, "Refused ra");
    says("example.com.", RecordType::AXFR, "Refused ra");
}

#[test]
fn answers_show_the_letters_that_were_asked() {
    let said = ask("KuberNetes.DEFAULT.svc.Cluster.LOCAL.", RecordType::A).of(&example()).unwrap();
    assert_eq!(said.queries[0].name().to_ascii(), "KuberNetes.DEFAULT.svc.Cluster.LOCAL.");
    assert_eq!(said.answers[0].name.to_ascii(), "KuberNetes.DEFAULT.svc.Cluster.LOCAL.");
}

#[test]
fn what_does_not_fit_is_cut_at_a_record_and_whole_by_tcp() {
    let snapshot = example();
    let mut many = ask("many.default.svc.cluster.local.", RecordType::A);
    for (edns, most) in [(None, 512), (Some(512), 512), (Some(100), 512), (Some(1232), 1232), (Some(65_000), 1232)] {
        many.edns = edns;
        let (packet, mut out) = (many.packet(), Vec::new());
        assert!(matches!(
            answer(&snapshot, &packet, Transport::Udp, || true, &mut Room::default(), &mut out),
            Verdict::Reply
        ));
        assert!(out.len() <= most && out.len() > most - 16, "{} of {most}", out.len());
        let said = Message::from_vec(&out).unwrap();
        assert!(said.metadata.truncation && said.answers.len() > 25);
        assert_eq!(said.edns.is_some(), edns.is_some());
    }
    many.transport = Transport::Tcp;
    let said = many.of(&snapshot).unwrap();
    assert!(!said.metadata.truncation);
    assert_eq!(said.answers.iter().map(|r| r.data.to_string()).collect::<BTreeSet<_>>().len(), 200);
    // Additional records are left out before answers are.
    let mut ports = ask("_sql._tcp.many.default.svc.cluster.local.", RecordType::SRV);
    ports.transport = Transport::Tcp;
    assert_eq!(ports.of(&snapshot).unwrap().additionals.len(), 200);
}

#[test]
fn whoever_asks_again_may_get_another_address_first() {
    let snapshot = example();
    let first = |id: u8| {
        let mut packet = ask("db.default.svc.cluster.local.", RecordType::A).packet();
        packet[1] = id;
        let mut out = Vec::new();
        answer(&snapshot, &packet, Transport::Udp, || true, &mut Room::default(), &mut out);
        let said = Message::from_vec(&out).unwrap();
        assert_eq!(said.answers.len(), 3);
        said.answers[0].data.to_string()
    };
    assert_eq!((0..9).map(first).collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn strangers_get_our_names_only() {
    let snapshot = example();
    let code = |name: &str| {
        let (packet, mut out) = (ask(name, RecordType::A).packet(), Vec::new());
        answer(&snapshot, &packet, Transport::Udp, || false, &mut Room::default(), &mut out);
        Message::from_vec(&out).unwrap().metadata.response_code
    };
    assert_eq!(code("kubernetes.default.svc.cluster.local."), ResponseCode::NoError);
    assert_eq!(code("example.com."), ResponseCode::Refused);
    assert_eq!(code("outside.default.svc.cluster.local."), ResponseCode::NoError);
}

#[test]
fn names_that_can_not_be_domains_are_refused() {
    for bad in ["", ".", "a..b", &"x.".repeat(60)] {
        assert!(Zones::new(bad, Vec::new(), Vec::new()).is_err(), "{bad:?}");
    }
}
