//! The name server from outside: packets in, packets out, read by hickory.

mod answers;
mod forwarding;
mod packets;
mod serving;

use super::answer::{Verdict, answer};
use super::{Change, Records, Snapshot, Transport, Zones};
use crate::dns::name::Room;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

pub(super) fn zones() -> Zones {
    let reverse =
        vec!["10.96.0.0/16".parse().unwrap(), "10.88.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()];
    Zones::new("cluster.local", reverse, vec!["10.88.0.1".parse().unwrap()]).unwrap()
}

pub(super) fn put(records: &mut Records, resource: &str, namespace: &str, name: &str, object: &Value) {
    let json = object.to_string();
    records.apply(Change::read(resource, namespace, name, Some(json.as_bytes())).unwrap().unwrap());
}

pub(super) fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "spec": spec})
}

pub(super) fn slice(service: &str, ports: Value, endpoints: Value) -> Value {
    json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "ports": ports, "endpoints": endpoints})
}

/// What the documentation's examples declare.
pub(super) fn example() -> Arc<Snapshot> {
    let mut records = Records::new(zones());
    let r = &mut records;
    for namespace in ["default", "kube-system", "empty"] {
        put(r, "namespaces", "", namespace, &json!({}));
    }
    let https = json!([{"name": "https", "port": 443, "protocol": "TCP"}]);
    put(r, "services", "default", "kubernetes", &service(json!({"clusterIP": "10.96.0.1", "ports": https})));
    put(
        r,
        "services",
        "kube-system",
        "dns",
        &service(json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00:96::10"], "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns", "port": 53, "protocol": "TCP"}, {"port": 9}]})),
    );
    put(
        r,
        "services",
        "default",
        "db",
        &service(json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
    );
    let sql = json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]);
    let endpoints = json!([
        {"addresses": ["10.88.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.88.0.6"], "hostname": "db-1"},
        {"addresses": ["10.88.0.7"], "conditions": {"ready": true}},
        {"addresses": ["10.88.0.8"], "hostname": "db-3", "conditions": {"ready": false}},
    ]);
    put(r, "endpointslices", "default", "db-1", &slice("db", sql.clone(), endpoints.clone()));
    put(r, "services", "default", "early", &service(json!({"clusterIP": "None", "publishNotReadyAddresses": true})));
    put(r, "endpointslices", "default", "early-1", &slice("early", json!(null), endpoints));
    put(r, "services", "default", "idle", &service(json!({"clusterIP": "None"})));
    for (name, to) in [
        ("outside", "www.Example.com"),
        ("inside", "dns.kube-system.svc.cluster.local."),
        ("chain", "inside.default.svc.cluster.local"),
        ("nowhere", "missing.default.svc.cluster.local"),
        ("round", "about.default.svc.cluster.local"),
        ("about", "round.default.svc.cluster.local"),
    ] {
        put(r, "services", "default", name, &service(json!({"type": "ExternalName", "externalName": to})));
    }
    let many: Vec<Value> = (0..200).map(|n| json!({"addresses": [format!("10.88.1.{n}")]})).collect();
    put(r, "services", "default", "many", &service(json!({"clusterIP": "None"})));
    put(r, "endpointslices", "default", "many-1", &slice("many", sql, json!(many)));
    records.snapshot().unwrap()
}

/// How a query is to be.
pub(super) struct Ask {
    pub(super) name: String,
    pub(super) kind: RecordType,
    pub(super) transport: Transport,
    pub(super) edns: Option<u16>,
}

pub(super) fn ask(name: &str, kind: RecordType) -> Ask {
    Ask { name: name.into(), kind, transport: Transport::Udp, edns: None }
}

impl Ask {
    pub(super) fn packet(&self) -> Vec<u8> {
        let mut message = Message::new(7 << 8, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(&self.name).unwrap(), self.kind));
        if let Some(payload) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    /// The answer; `None` when others are to be asked.
    pub(super) fn of(&self, snapshot: &Snapshot) -> Option<Message> {
        let (packet, mut out) = (self.packet(), Vec::new());
        match answer(snapshot, &packet, self.transport, || true, &mut Room::default(), &mut out) {
            Verdict::Reply => Some(Message::from_vec(&out).unwrap()),
            Verdict::Forward(_) => None,
            Verdict::Silence => panic!("no answer to {}", self.name),
        }
    }
}

/// A message as one reads it: code and flags, then the records of each section, sorted.
pub(super) fn show(message: &Message) -> String {
    let meta = &message.metadata;
    let mut text = format!("{:?}", meta.response_code);
    for (flag, name) in [(meta.authoritative, "aa"), (meta.truncation, "tc"), (meta.recursion_available, "ra")] {
        if flag {
            let _ = write!(text, " {name}");
        }
    }
    let sections = [("", &message.answers), ("auth ", &message.authorities), ("add ", &message.additionals)];
    for (section, records) in sections {
        let mut lines: Vec<String> =
            records.iter().map(|r| format!("\n{section}{} {} {} {}", r.name, r.ttl, r.record_type(), r.data)).collect();
        lines.sort();
        text.extend(lines);
    }
    text
}
