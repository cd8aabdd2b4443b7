//! kube-rs, client and runtime, against a live daemon: what operators are built from.

use crate::clients::{kubeconfig, prepared};
use crate::harness::{World, skip};
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{Api, AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::events::{Event as Told, EventType, Recorder};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Config, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs `work` with a client in the network of a world of its own.
fn with_client<F: Future<Output = ()>>(name: &str, work: impl FnOnce(Client) -> F + Send + 'static) {
    if skip() {
        return;
    }
    let world = prepared(name);
    let (config, netns) = (kubeconfig(&world), netns(&world));
    // A thread that goes into the network: sockets are of the network of the thread that makes them.
    let ran = std::thread::spawn(move || {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let config = Kubeconfig::read_from(config).unwrap();
            let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
            let work = work(Client::try_from(config).unwrap());
            tokio::time::timeout(Duration::from_secs(90), work).await.expect("too slow");
        });
    });
    if let Err(panic) = ran.join() {
        eprintln!("{}", world.log());
        std::panic::resume_unwind(panic);
    }
}

fn netns(world: &World) -> std::fs::File {
    std::fs::File::open(format!("/run/netns/{}", world.name)).unwrap()
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn typed_calls_apply_and_conflicts() {
    with_client("kube-calls", |client| async move {
        assert_eq!(client.apiserver_version().await.unwrap().major, "1");
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let wanted: ConfigMap = serde_json::from_value(map("a", json!({"k": "1"}))).unwrap();
        let mut made = maps.create(&PostParams::default(), &wanted).await.unwrap();
        assert!(made.uid().is_some() && made.resource_version().is_some());
        assert_eq!(code(maps.create(&PostParams::default(), &made.clone()).await).0, 400, "resourceVersion is set");
        assert_eq!(code(maps.get("nope").await), (404, "NotFound".into()));

        made.data.get_or_insert_default().insert("k".into(), "2".into());
        let replaced = maps.replace("a", &PostParams::default(), &made).await.unwrap();
        assert_ne!(replaced.resource_version(), made.resource_version());
        assert_eq!(code(maps.replace("a", &PostParams::default(), &made).await), (409, "Conflict".into()));

        let one = PatchParams::apply("one");
        let first = maps.patch("b", &one, &Patch::Apply(map("b", json!({"x": "1"})))).await.unwrap();
        let again = maps.patch("b", &one, &Patch::Apply(map("b", json!({"x": "1"})))).await.unwrap();
        assert_eq!(first.resource_version(), again.resource_version(), "an apply that changes nothing");
        let two = PatchParams::apply("two");
        let theirs = map("b", json!({"x": "2"}));
        assert_eq!(code(maps.patch("b", &two, &Patch::Apply(&theirs)).await), (409, "Conflict".into()));
        let taken = maps.patch("b", &two.force(), &Patch::Apply(&theirs)).await.unwrap();
        let managers: Vec<_> = taken.managed_fields().iter().filter_map(|m| m.manager.as_deref()).collect();
        assert_eq!(managers, ["two"]);
        assert_eq!(maps.list(&ListParams::default().fields("metadata.name=b")).await.unwrap().items.len(), 1);
        let metadata = maps.get_metadata("b").await.unwrap();
        assert_eq!(metadata.name_any(), "b");
        assert!(maps.delete("b", &DeleteParams::default()).await.unwrap().is_right());
    });
}

#[test]
fn reflectors_miss_nothing_in_either_way_of_listing() {
    with_client("kube-reflect", |client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        for streaming in [false, true] {
            let label = format!("streaming={streaming}");
            let mut config = watcher::Config::default().labels(&label);
            if streaming {
                config = config.streaming_lists();
            }
            let (reader, writer) = reflector::store::<ConfigMap>();
            let follow = reflector(writer, watcher(maps.clone(), config)).default_backoff();
            let following = tokio::spawn(follow.for_each(|event| async move { drop(event.unwrap()) }));
            for i in 0..20 {
                let mut wanted = map(&format!("s{i}"), json!({}));
                wanted["metadata"]["labels"] = json!({"streaming": streaming.to_string()});
                maps.patch(&format!("s{i}"), &PatchParams::apply("t"), &Patch::Apply(wanted)).await.unwrap();
            }
            reader.wait_until_ready().await.unwrap();
            until(|| reader.len() == 20).await;
            maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels(&label)).await.unwrap();
            until(|| reader.is_empty()).await;
            following.abort();
        }
        let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(client);
        let mut metadata = Box::pin(watcher(metadata, watcher::Config::default()).applied_objects());
        maps.patch("m", &PatchParams::apply("t"), &Patch::Apply(map("m", json!({"secret": "no"})))).await.unwrap();
        let mut seen = BTreeSet::new();
        while !seen.contains("m") {
            seen.insert(metadata.try_next().await.unwrap().unwrap().name_any());
        }
    });
}

#[test]
fn a_controller_settles() {
    with_client("kube-controller", |client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let runs = Arc::new(AtomicUsize::new(0));
        let reconcile = |parent: Arc<ConfigMap>, context: Arc<(Client, Arc<AtomicUsize>)>| async move {
            context.1.fetch_add(1, Ordering::SeqCst);
            let maps: Api<ConfigMap> = Api::default_namespaced(context.0.clone());
            let mut child = map("child", json!({"from": parent.name_any()}));
            child["metadata"]["ownerReferences"] = json!([parent.controller_owner_ref(&()).unwrap()]);
            maps.patch("child", &PatchParams::apply("controller").force(), &Patch::Apply(child)).await?;
            Ok::<_, kube::Error>(Action::await_change())
        };
        let parents = watcher::Config::default().labels("role=parent");
        let controller = Controller::new(maps.clone(), parents).owns(maps.clone(), watcher::Config::default());
        let context = Arc::new((client.clone(), runs.clone()));
        let stream = controller.run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), context);
        let running = tokio::spawn(stream.for_each(|_| async {}));

        let mut parent = map("parent", json!({}));
        parent["metadata"]["labels"] = json!({"role": "parent"});
        let parent = maps.create(&PostParams::default(), &serde_json::from_value(parent).unwrap()).await.unwrap();
        let there = await_condition(maps.clone(), "child", |c: Option<&ConfigMap>| c.is_some());
        there.await.unwrap();
        // Its own write wakes it once more; then nothing changes and nothing wakes it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let settled = runs.load(Ordering::SeqCst);
        assert!(settled <= 4, "reconciled {settled} times");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), settled, "it never settles");

        let recorder = Recorder::new(client.clone(), "test-controller".into());
        let told = || Told {
            type_: EventType::Normal,
            reason: "Made".into(),
            note: Some("a child".into()),
            action: "Make".into(),
            secondary: None,
        };
        for _ in 0..2 {
            recorder.publish(&told(), &parent.object_ref(&())).await.unwrap();
        }
        let events: Api<Event> = Api::default_namespaced(client.clone());
        let about = ListParams::default().fields("involvedObject.name=parent");
        let events = events.list(&about).await.unwrap().items;
        assert_eq!(events.len(), 1, "one Event, seen through core/v1: {events:?}");
        assert_eq!(events[0].message.as_deref(), Some("a child"));

        running.abort();
        maps.delete("parent", &DeleteParams::background()).await.unwrap();
        let child = maps.get_opt("child").await.unwrap().and_then(|c| c.uid());
        if let Some(uid) = child {
            await_condition(maps.clone(), "child", conditions::is_deleted(&uid)).await.unwrap();
        }
    });
}

#[test]
fn exec_logs_and_port_forward() {
    with_client("kube-streams", |client| async move {
        let pods: Api<Pod> = Api::default_namespaced(client.clone());
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{
                "name": "main", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "Never",
                "command": ["sh", "-c", "echo started; echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]}]}});
        pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        await_condition(pods.clone(), "box", conditions::is_pod_running()).await.unwrap();
        until_async(|| async { pods.logs("box", &LogParams::default()).await.is_ok_and(|l| l == "started\n") }).await;

        let mut cat = pods.exec("box", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await.unwrap();
        let (mut stdin, mut stdout) = (cat.stdin().unwrap(), cat.stdout().unwrap());
        stdin.write_all(b"through and back").await.unwrap();
        stdin.shutdown().await.unwrap();
        drop(stdin);
        let mut said = String::new();
        stdout.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "through and back");

        let mut bad = pods.exec("box", ["sh", "-c", "exit 7"], &AttachParams::default()).await.unwrap();
        let status = bad.take_status().unwrap().await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"), "{status:?}");

        let mut forward = pods.portforward("box", &[8080]).await.unwrap();
        let mut stream = forward.take_stream(8080).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.ends_with(b"hello\n"), "{}", String::from_utf8_lossy(&answer));

        let deployments: Api<Deployment> = Api::default_namespaced(client);
        let scale = deployments.get_scale("nope").await;
        assert_eq!(code(scale), (404, "NotFound".into()));
    });
}

async fn until(good: impl Fn() -> bool) {
    until_async(|| async { good() }).await;
}

async fn until_async<F: Future<Output = bool>>(mut good: impl FnMut() -> F) {
    let all = async {
        while !good().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("it did not happen within 30 s");
}
