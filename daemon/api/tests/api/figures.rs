//! What reading costs here: `cargo test --release -p reddwarf-api --test api figures -- --ignored --nocapture --test-threads 1`.
//!
//! CPU is that of all threads but the client's, which only takes bytes in.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement, run by hand")]

use crate::*;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const PODS: usize = 10_000;

fn pod(n: usize) -> Value {
    let env: Vec<Value> = (0..8).map(|e| json!({"name": format!("VARIABLE_{e}"), "value": "x".repeat(24)})).collect();
    json!({
        "metadata": {"name": format!("pod-{n:05}"), "labels": {"app": "web", "shard": format!("s{}", n % 100)},
            "annotations": {"example.org/note": "y".repeat(200)}},
        "spec": {"nodeName": "box", "containers": [
            {"name": "main", "image": "registry.example.org/web:1.2.3", "env": env,
             "ports": [{"containerPort": 8080, "name": "http"}],
             "resources": {"limits": {"cpu": "1", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}}}]},
    })
}

async fn filled(pods: usize) -> World {
    let world = World::with(|s| s.limits.streams = 100_000).await;
    let kind = reddwarf_objects::kinds().by_gvk("v1", "Pod").unwrap();
    let author = reddwarf_registry::Author::System("test");
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..pods {
        let mut value = pod(n);
        value["kind"] = "Pod".into();
        value["apiVersion"] = "v1".into();
        value["metadata"]["namespace"] = "default".into();
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-11-20T21:05:00Z"});
        let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
        value["status"] = json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "hostIP": "10.1.1.1",
            "conditions": conditions,
            "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "started": true,
                "image": "registry.example.org/web:1.2.3", "imageID": format!("sha256:{}", "0".repeat(64)),
                "containerID": format!("reddwarf://{}", "1".repeat(64)), "lastState": {},
                "state": {"running": {"startedAt": "2026-11-20T21:05:00Z"}}}]});
        let object = reddwarf_objects::Object::from_value(value).unwrap();
        let (registry, author) = (world.registry.clone(), author.clone());
        assert_eq!(object.known_kind(), Some(kind));
        tasks.spawn(async move { registry.create(&author, object, Default::default()).await.unwrap() });
        if tasks.len() >= 512 {
            tasks.join_next().await;
        }
    }
    tasks.join_all().await;
    world
}

fn cpu(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds().unsigned_abs())
}

/// CPU of the others, wall time and bytes of one request.
fn fetch(socket: &std::path::Path, path: &str, accept: &str) -> (Duration, Duration, usize) {
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let before = (cpu(UsageWho::RUSAGE_SELF), cpu(UsageWho::RUSAGE_THREAD), Instant::now());
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => total += n,
        }
    }
    let wall = before.2.elapsed();
    let all = cpu(UsageWho::RUSAGE_SELF) - before.0;
    (all - (cpu(UsageWho::RUSAGE_THREAD) - before.1), wall, total)
}

fn status_kib(field: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn figures_of_lists() {
    let world = filled(PODS).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let partial = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let at = "/api/v1/pods";
    println!("resident with {PODS} pods: {} KiB", status_kib("VmRSS"));
    for (what, path, accept) in [
        ("list", at.to_owned(), "application/json"),
        ("table", at.to_owned(), table),
        ("table, no objects", format!("{at}?includeObject=None"), table),
        ("metadata", at.to_owned(), partial),
        ("labelSelector of 1 in 100", format!("{at}?labelSelector=shard%3Ds7"), "application/json"),
        ("fieldSelector spec.nodeName=other", format!("{at}?fieldSelector=spec.nodeName%3Dother"), "application/json"),
        (
            "fieldSelector metadata.name",
            "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dpod-00077".to_owned(),
            "application/json",
        ),
        ("pages of 500", format!("{at}?limit=500"), "application/json"),
    ] {
        for round in 0..5 {
            let (socket, path) = (world.socket.clone(), path.clone());
            let (cpu, wall, bytes) = tokio::task::spawn_blocking(move || fetch(&socket, &path, accept)).await.unwrap();
            if round == 0 || round == 4 {
                println!(
                    "{what:36} {:>7.1} ms CPU {:>7.1} ms {:>9} bytes",
                    cpu.as_secs_f64() * 1e3,
                    wall.as_secs_f64() * 1e3,
                    bytes
                );
            }
        }
    }
    println!("resident after: {} KiB, peak {} KiB", status_kib("VmRSS"), status_kib("VmHWM"));
}

/// Opens a watch and reads the head of its answer.
async fn open(world: &World, path: &str) -> tokio::net::UnixStream {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::UnixStream::connect(&world.socket).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn figures_of_watches() {
    let world = filled(100).await;
    let now = world.registry.revision();
    let path = format!("/api/v1/pods?watch=1&resourceVersion={now}&allowWatchBookmarks=true");
    // The first ones make what all share.
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(open(&world, &path).await);
    }
    let before = status_kib("VmRSS");
    for _ in 0..1000 {
        idle.push(open(&world, &path).await);
    }
    println!("an idle watcher: {:.1} KiB, the client's end included", (status_kib("VmRSS") - before) as f64 / 1000.0);
    let writes = |world: &World| {
        let (registry, kind) = (world.registry.clone(), "configmaps");
        async move {
            let author = reddwarf_registry::Author::System("test");
            let started = (cpu(UsageWho::RUSAGE_SELF), Instant::now());
            for n in 0..200 {
                let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"namespace": "default", "generateName": "x"}, "data": {"n": n.to_string()}});
                let mut value = value;
                value["metadata"]["name"] = format!("x{}-{n}", fastrand::u32(..)).into();
                let object = reddwarf_objects::Object::from_value(value).unwrap();
                registry.create(&author, object, Default::default()).await.unwrap();
            }
            println!(
                "200 writes of {kind}: {:?} CPU, {:?}",
                cpu(UsageWho::RUSAGE_SELF) - started.0,
                started.1.elapsed()
            );
        }
    };
    println!("with 1050 idle watchers of pods:");
    writes(&world).await;
    drop(idle);
    tokio::time::sleep(Duration::from_millis(300)).await;
    println!("with none:");
    writes(&world).await;
    deliveries(&world).await;
}

/// Ten watchers of pods while pods are patched: how long after its write an event is read.
async fn deliveries(world: &World) {
    let now = world.registry.revision();
    let path = format!("/api/v1/pods?watch=1&resourceVersion={now}");
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..10 {
        let mut lines = Lines::of(world.send("GET", &path, &[], "").await);
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Some(event) = lines.next().await {
                let text = event["object"]["metadata"]["annotations"]["n"].as_str().unwrap().to_owned();
                let _ = sender.send((text.parse::<usize>().unwrap(), Instant::now()));
            }
        });
    }
    let started = cpu(UsageWho::RUSAGE_SELF);
    let mut written = Vec::new();
    for n in 0..1000 {
        let patch = json!({"metadata": {"annotations": {"n": n.to_string()}}}).to_string();
        let at = format!("/api/v1/namespaces/default/pods/pod-{:05}", n % 100);
        assert_eq!(world.ask("PATCH", &at, &patch).await.0, 200);
        written.push(Instant::now());
    }
    let mut delays = Vec::new();
    while delays.len() < 10_000 {
        let (n, at) = soon(receiver.recv()).await.unwrap();
        // Read before the writer had its answer: no delay at all.
        delays.push(at.saturating_duration_since(written[n]));
    }
    delays.sort();
    let (p50, p99) = (delays[5_000], delays[9_900]);
    println!(
        "1000 patches, 10 watchers: all 10000 events, p50 {p50:?}, p99 {p99:?}, {:?} CPU, clients included",
        cpu(UsageWho::RUSAGE_SELF) - started
    );
}
