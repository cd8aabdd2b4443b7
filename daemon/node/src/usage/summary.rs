//! The kubelet's `/stats/summary` (kubernetes/kubelet, stats/v1alpha1), for tools that read it through the API's node
//! proxy. Pure.

use crate::key::PodKey;
use crate::usage::{Rate, rates};
use chrono::{DateTime, Utc};
use reddwarf_host::usage::{Consumption, DiskUsage, FileSystem, SandboxDisk, Traffic};
use reddwarf_host::{PodUid, SandboxId, UsageReport};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a summary is made from.
#[derive(Clone, Copy, Debug)]
pub struct SummaryInput<'a> {
    /// The Node object's name.
    pub node: &'a str,
    /// The earlier sample.
    pub before: &'a UsageReport,
    /// The later sample.
    pub after: &'a UsageReport,
    /// Which pod a sandbox is.
    pub pods: &'a BTreeMap<SandboxId, (PodKey, PodUid)>,
    /// Disks, where they were looked at.
    pub disks: &'a BTreeMap<SandboxId, SandboxDisk>,
}

/// The summary.
pub fn summary(input: SummaryInput<'_>) -> Value {
    let SummaryInput { node, before, after, pods, disks } = input;
    let names = pods.iter().map(|(id, (key, _))| (id.clone(), key.clone())).collect();
    let rates = rates(before, after, &names);
    let time = after.time;
    let file_system = file_system(time, after.pressure.storage);
    let pods: Vec<Value> = after
        .sandboxes
        .iter()
        .filter_map(|(id, sandbox)| {
            let (key, uid) = pods.get(id)?;
            let rates = rates.pods.get(key);
            let disk = disks.get(id);
            let containers: Vec<Value> = sandbox
                .containers
                .iter()
                .map(|(name, (_, used))| {
                    let rate = rates.and_then(|r| r.get(name.as_str())).copied().unwrap_or_default();
                    let mut container = json!({
                        "name": name.as_str(), "cpu": cpu(time, rate, *used), "memory": memory(time, *used, None),
                    });
                    if let Some(disk) = disk.and_then(|d| d.containers.get(name)) {
                        container["rootfs"] = part(time, after.pressure.storage, disk.writable);
                        container["logs"] = part(time, after.pressure.storage, disk.logs);
                    }
                    container
                })
                .collect();
            let total: u64 = rates.iter().flat_map(|r| r.values()).map(|r| r.cpu_nanocores).sum();
            let rate = Rate { cpu_nanocores: total, working_set_bytes: sandbox.total.working_set_bytes };
            let mut pod = json!({
                "podRef": {"name": key.name, "namespace": key.namespace, "uid": uid.as_str()},
                "containers": containers,
                "cpu": cpu(time, rate, sandbox.total),
                "memory": memory(time, sandbox.total, None),
                "process_stats": {"process_count": sandbox.total.processes},
            });
            if let Some(traffic) = sandbox.traffic {
                pod["network"] = network(time, "eth0", traffic);
            }
            if let Some(disk) = disk {
                pod["ephemeral-storage"] = part(time, after.pressure.storage, disk.total());
                let volume = |(name, used): (&reddwarf_host::VolumeName, &DiskUsage)| {
                    let mut volume = part(time, after.pressure.storage, *used);
                    volume["name"] = name.as_str().into();
                    volume
                };
                pod["volume"] = disk.volumes.iter().map(volume).collect();
            }
            Some(pod)
        })
        .collect();
    let mut node = json!({
        "nodeName": node,
        "cpu": cpu(time, rates.node, after.host),
        "memory": memory(time, after.host, Some(after.pressure.memory_available_bytes)),
        "fs": file_system,
        "runtime": {"imageFs": file_system, "containerFs": file_system},
        "rlimit": {
            "time": stamp(time), "maxpid": after.pressure.processes_max, "curproc": after.pressure.processes,
        },
    });
    if let Some(traffic) = after.host_traffic {
        node["network"] = network(time, "uplink", traffic);
    }
    json!({"node": node, "pods": pods})
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn cpu(time: DateTime<Utc>, rate: Rate, used: Consumption) -> Value {
    json!({"time": stamp(time), "usageNanoCores": rate.cpu_nanocores, "usageCoreNanoSeconds": used.cpu_nanos})
}

fn memory(time: DateTime<Utc>, used: Consumption, available: Option<u64>) -> Value {
    let mut memory = json!({
        "time": stamp(time), "usageBytes": used.memory_bytes, "workingSetBytes": used.working_set_bytes,
        "rssBytes": used.rss_bytes,
    });
    if let Some(available) = available {
        memory["availableBytes"] = available.into();
    }
    memory
}

fn network(time: DateTime<Utc>, name: &str, traffic: Traffic) -> Value {
    let Traffic { received_bytes, sent_bytes } = traffic;
    json!({
        "time": stamp(time), "name": name, "rxBytes": received_bytes, "txBytes": sent_bytes,
        "interfaces": [{"name": name, "rxBytes": received_bytes, "txBytes": sent_bytes}],
    })
}

fn file_system(time: DateTime<Utc>, disk: FileSystem) -> Value {
    json!({
        "time": stamp(time), "availableBytes": disk.available_bytes, "capacityBytes": disk.capacity_bytes,
        "usedBytes": disk.capacity_bytes.saturating_sub(disk.available_bytes),
        "inodes": disk.inodes, "inodesFree": disk.inodes_free,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    })
}

/// A part of a file system: its own use beside the whole's room.
fn part(time: DateTime<Utc>, whole: FileSystem, used: DiskUsage) -> Value {
    let mut part = file_system(time, whole);
    part["usedBytes"] = used.bytes.into();
    part["inodesUsed"] = used.inodes.into();
    part
}
