//! What a user notices of the node, on the fake host under paused time. Tests named `uNN_` are the earlier design's
//! mistakes (docs: quality), one each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::fake::{Fault, Op as HostOp};
use reddwarf_host::{Clock, ContainerName, ContainerState, HostErrorKind};
use reddwarf_objects::pod::Phase;
use serde_json::json;
use support::*;

fn name(text: &str) -> ContainerName {
    ContainerName::new(text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_its_status_says_so() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    let status = world.status("web");
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(status.pod_ip, "10.88.0.2");
    assert_eq!(status.host_ip, "192.0.2.10");
    assert!(status.container_statuses[0].state.running.is_some());
    assert_eq!(status.container_statuses[0].restart_count, 0);
    assert_eq!(world.pod("web").unwrap().get_str("/spec/nodeName"), Some("node-1"));
    let reasons: Vec<_> = world.plane.events().into_iter().map(|(_, e)| e.reason).collect();
    assert_eq!(reasons, ["Pulled", "Created", "Started"]);
    world.settled(5).await;
    let writes = world.plane.status_writes();
    world.sleep(300).await;
    assert_eq!(world.plane.status_writes(), writes, "a quiet pod writes no statuses");
    assert!(world.host.violations().is_empty());
}

#[tokio::test(start_paused = true)]
async fn deletion_leaves_nothing() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.delete("Pod", "web", None);
    world.until(40, "gone", |w| w.pod("web").is_none()).await;
    assert!(world.sandbox("web").is_none());
    assert!(world.plane.promised().is_empty());
    world.settled(10).await;
    world.until(10, "no network left", |w| w.host.calls().of(HostOp::NetworkRemove) > 0).await;
}

/// U1: what the pod says is what the host is asked to run.
#[tokio::test(start_paused = true)]
async fn u01_command_and_args_reach_the_host() {
    let world = World::new().await;
    world.plane.apply(config("ConfigMap", "site", &[("greeting", "hello")]));
    world.plane.apply(config("Secret", "key", &[("token", "s3cret")]));
    world.plane.apply(pod(
        "web",
        json!({"containers": [{
            "name": "app", "image": "web:1", "command": ["serve"], "args": ["--greet=$(GREETING)", "$$(X)", "$(Y)"],
            "workingDir": "/srv",
            "env": [
                {"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "site", "key": "greeting"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
                {"name": "BOTH", "value": "$(GREETING)-$(TOKEN)"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
        }]}),
    ));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    let sandbox = world.sandbox("web").unwrap();
    let spec = &sandbox.containers[&name("app")][0].spec;
    assert_eq!(spec.argv, ["serve", "--greet=hello", "$(X)", "$(Y)"]);
    assert_eq!(spec.working_dir, "/srv");
    let env = |n: &str| spec.env.iter().find(|v| v.name == n).map(|v| v.value.expose().clone());
    assert_eq!(env("BOTH").as_deref(), Some("hello-s3cret"));
    assert_eq!(env("IP").as_deref(), Some("10.88.0.2"));
    // I9: the secret shows nowhere.
    let said = format!("{:?} {:?}", world.plane.events(), world.why("web").await);
    assert!(!said.contains("s3cret"), "{said}");
}

/// U2: the errors acted on are those that the host really gives.
#[tokio::test(start_paused = true)]
async fn u02_errors_of_the_host_are_acted_on_as_they_come() {
    let world = World::new().await;
    world.host.faults().on(HostOp::SandboxEnsure, Fault::FailAfter(HostErrorKind::Other));
    world.host.faults().on(HostOp::ContainerStart, Fault::FailBefore(HostErrorKind::Busy));
    world.plane.apply(pod("web", json!({})));
    world.until(10, "ready", |w| w.is_ready("web")).await;
    world.plane.delete("Pod", "web", None);
    world.host.faults().on(HostOp::SandboxDestroy, Fault::FailAfter(HostErrorKind::Other));
    world.until(60, "gone", |w| w.pod("web").is_none()).await;
    assert!(world.sandbox("web").is_none());
}

/// U3: a host that can't be asked has neither lost nor finished anything.
#[tokio::test(start_paused = true)]
async fn u03_unknown_is_not_absent() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.plane.apply(pod("old", json!({})));
    world.until(5, "ready", |w| w.is_ready("web") && w.is_ready("old")).await;
    world.settled(5).await;
    world.host.faults().always(HostOp::Observe, Fault::UnknownList);
    world.host.forget_calls();
    world.plane.delete("Pod", "old", None);
    world.restart().await;
    world.sleep(120).await;
    assert_eq!(world.host.calls().mutating(), 0, "{:?}", world.host.mutations());
    assert!(world.pod("old").is_some(), "not finished");
    assert_eq!(world.plane.promised().iter().filter(|p| !p.addresses.is_empty()).count(), 2, "no address released");
    let why = world.why("web").await;
    assert!(!why.ok && why.summary.starts_with("HostUnknown"), "{why:?}");
    world.host.clear_faults();
    world.until(120, "old is gone", |w| w.pod("old").is_none()).await;
    assert!(world.is_ready("web"));
}

/// U3, of one sandbox only: the others are managed as ever.
#[tokio::test(start_paused = true)]
async fn u03_one_unreadable_sandbox_holds_up_only_its_own_pod() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    let id = world.sandbox("web").unwrap().spec.id.clone();
    world.host.faults().always(HostOp::Observe, Fault::UnknownSandbox(Some(id)));
    world.plane.delete("Pod", "web", None);
    world.plane.apply(pod("other", json!({})));
    world.until(10, "the other is ready", |w| w.is_ready("other")).await;
    world.sleep(100).await;
    assert!(world.pod("web").is_some() && world.sandbox("web").is_some());
    world.host.clear_faults();
    world.until(120, "gone", |w| w.pod("web").is_none()).await;
}

/// U4: an error in the middle of making a pod is tried again, whatever the step, and teardown goes on where it ended.
#[tokio::test(start_paused = true)]
async fn u04_a_failure_in_the_middle_is_not_for_ever() {
    let world = World::new().await;
    for steps in 1..=3 {
        let kind = HostErrorKind::Other;
        world.host.faults().on(HostOp::SandboxEnsure, Fault::FailPartway(steps, kind));
        world.host.faults().on(HostOp::ContainerStart, Fault::FailPartway(1, kind));
        let name = format!("web-{steps}");
        world.plane.apply(pod(&name, json!({})));
        world.until(20, "ready", |w| w.is_ready(&name)).await;
        world.host.faults().on(HostOp::SandboxStop, Fault::FailPartway(1, kind));
        world.host.faults().on(HostOp::SandboxDestroy, Fault::FailPartway(steps, kind));
        world.plane.delete("Pod", &name, Some(1));
        world.until(60, "gone", |w| w.pod(&name).is_none()).await;
    }
    assert!(world.host.sandboxes().is_empty());
    assert!(world.plane.promised().is_empty());
}

/// U8: an address is promised in one transaction before it is used, and given back after destruction was seen.
#[tokio::test(start_paused = true)]
async fn u08_addresses_are_promised_before_and_released_after() {
    let mut settings = settings();
    settings.network.cidr = "10.88.0.0/30".parse().unwrap();
    let world = World::with(settings).await;
    world.plane.apply(pod("a", json!({})));
    world.until(5, "ready", |w| w.is_ready("a")).await;
    world.plane.apply(pod("b", json!({})));
    world.sleep(60).await;
    let why = world.why("b").await;
    assert!(why.summary.starts_with("AddressPoolExhausted"), "{why:?}");
    world.host.faults().always(HostOp::SandboxDestroy, Fault::FailBefore(HostErrorKind::Busy));
    world.plane.delete("Pod", "a", Some(1));
    world.sleep(60).await;
    assert!(world.sandbox("b").is_none(), "the address is not free while its sandbox is there");
    world.host.clear_faults();
    world.until(120, "b took it over", |w| w.is_ready("b")).await;
    assert!(world.host.violations().is_empty(), "{:?}", world.host.violations());
}

/// U9: two pods whose joined names are the same are two pods.
#[tokio::test(start_paused = true)]
async fn u09_names_do_not_collide() {
    let world = World::new().await;
    let mut one = pod("b-c", json!({}));
    one.set_namespace(Some("a"));
    let mut two = pod("c", json!({}));
    two.set_namespace(Some("a-b"));
    world.plane.apply(one);
    world.plane.apply(two);
    world.until(10, "both run", |w| w.host.sandboxes().len() == 2).await;
    world.settled(10).await;
    assert!(world.host.violations().is_empty());
}

/// U11: hung calls hold up their own pods only.
#[tokio::test(start_paused = true)]
async fn u11_hung_calls_hold_up_nobody_else() {
    let world = World::new().await;
    world.host.faults().on_nth(HostOp::ContainerStart, 0, 16, Fault::Hang);
    for n in 0..20 {
        world.plane.apply(pod(&format!("hung-{n:02}"), json!({})));
    }
    world.sleep(1).await;
    world.plane.apply(pod("fine", json!({})));
    world.until(15, "the other pod is ready", |w| w.is_ready("fine")).await;
    world.until(120, "the hung ones recover", |w| (0..20).all(|n| w.is_ready(&format!("hung-{n:02}")))).await;
    assert!(world.host.violations().is_empty(), "{:?}", world.host.violations());
}

/// U14: the wall clock jumps by a year and back; graces and back-offs don't notice.
#[tokio::test(start_paused = true)]
async fn u14_the_wall_clock_decides_nothing() {
    let world = World::new().await;
    world.plane.apply(pod_running("stubborn", &["sh", "-c", "trap '' TERM; sleep infinity"], json!({})));
    world.until(5, "ready", |w| w.is_ready("stubborn")).await;
    let before = world.clock.boot();
    world.plane.delete("Pod", "stubborn", Some(20));
    world.sleep(1).await;
    world.clock.jump(chrono::TimeDelta::days(365));
    world.sleep(10).await;
    world.clock.jump(chrono::TimeDelta::days(-730));
    world.until(60, "gone", |w| w.pod("stubborn").is_none()).await;
    let took = world.clock.boot().since(before).as_secs();
    assert!((20..=23).contains(&took), "killed after its grace, not before: {took} s");
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_as_kubernetes_does() {
    let world = World::new().await;
    world.plane.apply(pod_running("crash", &["sh", "-c", "sleep 1; exit 3"], json!({})));
    world.sleep(400).await;
    let starts: Vec<_> = world
        .host
        .mutations()
        .into_iter()
        .filter(|m| m.op == HostOp::ContainerStart)
        .map(|m| m.at.since_boot().as_secs())
        .collect();
    let gaps: Vec<_> = starts.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(gaps[..5], [1, 11, 21, 41, 81], "at once, then 10 s doubling, each after a second of life");
    let status = world.status("crash");
    let container = &status.container_statuses[0];
    assert_eq!(container.state.waiting.as_ref().unwrap().reason, "CrashLoopBackOff");
    let last = container.last_state.terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_str()), (3, "Error"));
    assert_eq!(status.phase, Phase::Running);
    assert_eq!(container.restart_count as usize, starts.len() - 1);
    let instances = world.sandbox("crash").unwrap().containers[&name("app")].len();
    assert!(instances <= 2, "old instances are forgotten: {instances}");
}

/// A supervisor that was killed takes the knowledge of the end with it, and neither the record nor the log.
#[tokio::test(start_paused = true)]
async fn a_container_that_was_lost_is_remembered_as_ended() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.plane.apply(pod("once", json!({"restartPolicy": "Never"})));
    world.until(5, "ready", |w| w.is_ready("web") && w.is_ready("once")).await;
    for pod in ["web", "once"] {
        world.host.lose_container(&world.sandbox(pod).unwrap().spec.id, &name("app"));
    }
    let again = |w: &World, count| w.is_ready("web") && w.status("web").container_statuses[0].restart_count == count;
    world.until(5, "up again at once", |w| again(w, 1)).await;
    let status = world.status("web");
    let last = status.container_statuses[0].last_state.terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_str()), (137, "ContainerStatusUnknown"));
    assert!(last.started_at.is_some() && !last.message.is_empty(), "{last:?}");
    assert_eq!(world.sandbox("web").unwrap().containers[&name("app")].len(), 2, "its log is kept with it");
    world.until(5, "failed", |w| w.status("once").phase == Phase::Failed).await;
    let ended = world.status("once").container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "ContainerStatusUnknown"));
    // Whatever kills supervisors again and again makes no loop without waits.
    world.host.lose_container(&world.sandbox("web").unwrap().spec.id, &name("app"));
    world.sleep(5).await;
    let waiting = world.status("web").container_statuses[0].state.waiting.clone().unwrap();
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    world.until(10, "up again after its wait", |w| again(w, 2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_restart_touches_nothing_and_keeps_the_back_off() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.plane.apply(pod_running("crash", &["sh", "-c", "sleep 1; exit 1"], json!({})));
    world.sleep(50).await;
    world.host.forget_calls();
    for _ in 0..5 {
        world.restart().await;
        world.sleep(3).await;
    }
    let disrupted: Vec<_> = world.host.mutations().into_iter().filter(|m| m.disrupts()).collect();
    assert!(disrupted.is_empty(), "{disrupted:?}");
    assert!(world.host.calls().of(HostOp::ContainerStart) <= 1, "no back-off was forgotten");
    assert!(world.is_ready("web"));
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_in_order_and_sidecars_stay() {
    let world = World::new().await;
    world.plane.apply(pod(
        "web",
        json!({
            "initContainers": [
                {"name": "one", "image": "web:1", "command": ["sleep", "2"]},
                {"name": "side", "image": "web:1", "command": ["sleep", "infinity"], "restartPolicy": "Always"},
                {"name": "two", "image": "web:1", "command": ["sleep", "3"]},
            ],
        }),
    ));
    world.sleep(1).await;
    let status = world.status("web");
    assert_eq!(status.phase, Phase::Pending);
    assert_eq!(status.container_statuses[0].state.waiting.as_ref().unwrap().reason, "PodInitializing");
    world.until(10, "ready", |w| w.is_ready("web")).await;
    let starts: Vec<_> = world
        .host
        .mutations()
        .into_iter()
        .filter(|m| m.op == HostOp::ContainerStart)
        .map(|m| m.container.unwrap().0.to_string())
        .collect();
    assert_eq!(starts, ["one", "side", "two", "app"]);
    let side = world.sandbox("web").unwrap().containers[&name("side")].last().unwrap().state.clone();
    assert!(matches!(side, ContainerState::Running { .. }));
    world.host.forget_calls();
    world.plane.delete("Pod", "web", None);
    world.until(60, "gone", |w| w.pod("web").is_none()).await;
    let signalled: Vec<_> = world
        .host
        .mutations()
        .into_iter()
        .filter(|m| m.op == HostOp::ContainerSignal)
        .map(|m| m.container.unwrap().0.to_string())
        .collect();
    assert_eq!(signalled, ["app", "side"], "the sidecar serves to the last");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_has_ended() {
    let world = World::new().await;
    let never = json!({"restartPolicy": "Never"});
    world.plane.apply(pod_running("good", &["sleep", "2"], never.clone()));
    world.plane.apply(pod_running("bad", &["sh", "-c", "sleep 2; exit 4"], never));
    world.plane.apply(pod_running("again", &["sh", "-c", "sleep 2; exit 4"], json!({"restartPolicy": "OnFailure"})));
    world
        .until(10, "ended", |w| w.status("good").phase == Phase::Succeeded && w.status("bad").phase == Phase::Failed)
        .await;
    world.sleep(60).await;
    assert_eq!(world.status("good").container_statuses[0].restart_count, 0);
    assert!(world.status("again").container_statuses[0].restart_count > 1);
    assert_eq!(world.status("again").phase, Phase::Running);
}

#[tokio::test(start_paused = true)]
async fn a_missing_reference_is_named_and_heals_when_it_appears() {
    let world = World::new().await;
    world.plane.apply(pod(
        "web",
        json!({"containers": [{"name": "app", "image": "web:1", "env": [
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
        ]}]}),
    ));
    world.sleep(5).await;
    let waiting = world.status("web").container_statuses[0].state.waiting.clone().unwrap();
    assert_eq!(waiting.reason, "CreateContainerConfigError");
    assert_eq!(waiting.message, "secret \"key\" not found");
    world.plane.apply(config("Secret", "key", &[("other", "x")]));
    world.sleep(5).await;
    let waiting = world.status("web").container_statuses[0].state.waiting.clone().unwrap();
    assert_eq!(waiting.message, "couldn't find key token in Secret default/key");
    world.plane.apply(config("Secret", "key", &[("token", "x")]));
    world.until(3, "ready at once", |w| w.is_ready("web")).await;
}

/// Promise 6: an update that can't be prepared leaves the previous version running, and says why.
#[tokio::test(start_paused = true)]
async fn a_bad_update_keeps_the_old_version() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.host.forget_calls();
    world.plane.apply(pod("web", json!({"containers": [{"name": "app", "image": "web:3"}]})));
    world.sleep(60).await;
    let calls = world.host.calls();
    assert_eq!(calls.mutating(), calls.of(HostOp::ImagePull), "only its registry is asked");
    assert!(world.is_ready("web"));
    let why = world.why("web").await;
    assert!(why.summary.contains("docker.io/library/web:3: not found"), "{}", why.summary);
    let told = world.status("web").condition("reddwarf.io/UpToDate").unwrap().message.clone();
    assert!(told.contains("Back-off pulling image \"web:3\""), "{told}");
    world.host.add_image("web:3", image(&["/bin/web"]));
    world
        .until(60, "updated", |w| {
            w.sandbox("web").is_some_and(|s| s.containers[&name("app")].last().unwrap().spec.image_name == "web:3")
        })
        .await;
    world.until(5, "ready", |w| w.is_ready("web")).await;
    assert!(world.status("web").condition("reddwarf.io/UpToDate").is_none());
}

/// `kubectl debug` of a pod whose new version can't be made: that is when somebody wants to look into it.
#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_starts_in_a_pod_that_lacks_a_volume() {
    let world = World::new().await;
    world.plane.apply(config("ConfigMap", "site", &[("index", "one")]));
    let volumes = json!([{"name": "site", "configMap": {"name": "site"}}]);
    let mounts = json!([{"name": "site", "mountPath": "/site"}]);
    let app = json!([{"name": "app", "image": "web:1", "volumeMounts": mounts}]);
    world.plane.apply(pod("web", json!({"containers": app, "volumes": volumes})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.delete("ConfigMap", "site", None);
    world.settled(5).await;
    let look = json!([{"name": "look", "image": "web:1", "command": ["sh"]}]);
    world.plane.apply(pod("web", json!({"containers": app, "volumes": volumes, "ephemeralContainers": look})));
    let runs = |w: &World| {
        let sandbox = w.sandbox("web").unwrap();
        let found = sandbox.containers.get(&name("look")).and_then(|c| c.last());
        found.is_some_and(|c| matches!(c.state, ContainerState::Running { .. }))
    };
    world.until(10, "the debugger runs", runs).await;
}

/// Variables are made when a container starts: what they were made of restarts nothing, and its absence stops no change half-way.
#[tokio::test(start_paused = true)]
async fn what_variables_were_made_of_restarts_nothing() {
    let world = World::new().await;
    let reference = json!({"configMapKeyRef": {"name": "site", "key": "colour"}});
    let spec =
        json!({"containers": [{"name": "app", "image": "web:1", "env": [{"name": "COLOUR", "valueFrom": reference}]}]});
    let colour = |world: &World| {
        let sandbox = world.sandbox("web").unwrap();
        let latest = sandbox.containers[&name("app")].last().unwrap();
        latest.spec.env.iter().find(|v| v.name == "COLOUR").unwrap().value.expose().clone()
    };
    world.plane.apply(config("ConfigMap", "site", &[("colour", "red")]));
    world.plane.apply(pod("web", spec.clone()));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.settled(5).await;
    world.host.forget_calls();
    world.plane.apply(config("ConfigMap", "site", &[("colour", "blue")]));
    world.settled(5).await;
    world.plane.delete("ConfigMap", "site", None);
    world.settled(5).await;
    assert_eq!((world.host.calls().mutating(), colour(&world).as_str()), (0, "red"));
    // A change that needs a new start, or a new sandbox, waits for what the start needs.
    let mut other = spec.clone();
    other["hostname"] = json!("w");
    other["containers"][0]["image"] = json!("web:2");
    world.plane.apply(pod("web", other));
    world.sleep(30).await;
    assert!(world.is_ready("web") && world.host.calls().mutating() == 0);
    let why = world.why("web").await;
    assert!(why.summary.contains("configmap \"site\" not found"), "{}", why.summary);
    world.plane.apply(config("ConfigMap", "site", &[("colour", "green")]));
    world
        .until(60, "the new version", |w| w.is_ready("web") && w.sandbox("web").is_some_and(|s| s.spec.hostname == "w"))
        .await;
    assert_eq!(colour(&world), "green");
    world.settled(60).await;
    world.node().restart(&key("web"), None).await.unwrap();
    world.settled(60).await;
    assert!(world.is_ready("web"));
}

#[tokio::test(start_paused = true)]
async fn changes_cost_what_they_must_and_no_more() {
    let world = World::new().await;
    let base = json!({
        "volumes": [{"name": "site", "configMap": {"name": "site"}}],
        "containers": [{"name": "app", "image": "web:1", "volumeMounts": [{"name": "site", "mountPath": "/site"}]}],
    });
    world.plane.apply(config("ConfigMap", "site", &[("index", "one")]));
    world.plane.apply(pod("web", base.clone()));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.settled(5).await;
    let calls = |world: &World| {
        let calls: Vec<_> = world.host.mutations().into_iter().map(|m| m.op).collect();
        world.host.forget_calls();
        calls
    };
    calls(&world);
    world.plane.apply(config("ConfigMap", "site", &[("index", "two")]));
    world.settled(5).await;
    assert_eq!(calls(&world), [HostOp::VolumeUpdate]);
    let mut limited = base.clone();
    limited["containers"][0]["resources"] = json!({"limits": {"memory": "64Mi"}});
    world.plane.apply(pod("web", limited.clone()));
    world.settled(5).await;
    let in_place = calls(&world);
    assert!(in_place.iter().all(|op| matches!(op, HostOp::SandboxEnsure | HostOp::ContainerUpdate)), "{in_place:?}");
    let mut other = limited.clone();
    other["containers"][0]["image"] = json!("web:2");
    world.plane.apply(pod("web", other.clone()));
    world.settled(60).await;
    assert_eq!(calls(&world), [HostOp::ContainerSignal, HostOp::ContainerStart]);
    let mut renamed = other.clone();
    renamed["hostname"] = json!("w");
    let address = world.status("web").pod_ip;
    world.plane.apply(pod("web", renamed));
    world.settled(60).await;
    assert_eq!(
        calls(&world),
        [
            HostOp::ContainerSignal,
            HostOp::SandboxStop,
            HostOp::SandboxDestroy,
            HostOp::SandboxEnsure,
            HostOp::ContainerStart
        ]
    );
    assert_eq!(world.status("web").pod_ip, address, "it keeps its address");
}

#[tokio::test(start_paused = true)]
async fn a_lost_database_costs_nothing() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.plane.apply(pod("api-made", json!({})));
    world.until(5, "ready", |w| w.is_ready("web") && w.is_ready("api-made")).await;
    world.settled(5).await;
    world.kill().await;
    world.plane.lose_database();
    world.host.forget_calls();
    world.start().await;
    world.sleep(60).await;
    assert_eq!(world.host.calls().mutating(), 0, "nothing is collected before the sources were read");
    world.plane.apply(pod("web", json!({})));
    world.plane.sources_read(true);
    world.node().reconcile(false);
    world.until(10, "adopted", |w| w.is_ready("web")).await;
    world.sleep(120).await;
    assert_eq!(world.host.calls().mutating(), 0, "adopted, not restarted; the unclaimed one is kept");
    assert_eq!(world.plane.promised().iter().filter(|p| p.rebuilt && !p.addresses.is_empty()).count(), 2);
    assert!(world.why("api-made").await.summary.starts_with("Unclaimed"));
    world.node().reconcile(true);
    world.until(60, "pruned", |w| w.sandbox("api-made").is_none()).await;
    assert!(world.is_ready("web"));
    world.plane.delete("Pod", "web", None);
    world.until(60, "gone", |w| w.pod("web").is_none() && w.plane.promised().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_mass_deletion_waits_for_a_persons_word() {
    let mut world = World::new().await;
    for n in 0..8 {
        world.plane.apply(pod(&format!("web-{n}"), json!({})));
    }
    world.until(10, "ready", |w| (0..8).all(|n| w.is_ready(&format!("web-{n}")))).await;
    // The objects are not there any more when the daemon starts: nobody knows that it was meant.
    world.kill().await;
    for n in 0..6 {
        world.plane.forget(&format!("web-{n}"));
    }
    world.start().await;
    world.sleep(120).await;
    assert_eq!(world.host.sandboxes().len(), 8);
    let notices = world.node().status().notices;
    assert!(notices.iter().any(|n| n.reason == "PruneRefused"), "{notices:?}");
    world.node().reconcile(true);
    world.until(120, "pruned", |w| w.host.sandboxes().len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_to_be_deleted_goes_however_much() {
    let world = World::new().await;
    for n in 0..8 {
        world.plane.apply(pod(&format!("web-{n}"), json!({})));
    }
    world.until(10, "ready", |w| (0..8).all(|n| w.is_ready(&format!("web-{n}")))).await;
    // As `kubectl delete pods --all --force` does, and a Job that goes with its finished pods.
    for n in 0..8 {
        world.plane.forget(&format!("web-{n}"));
    }
    world.until(60, "gone", |w| w.host.sandboxes().is_empty()).await;
    let notices = world.node().status().notices;
    assert!(notices.iter().all(|n| n.reason != "PruneRefused"), "{notices:?}");
}

#[tokio::test(start_paused = true)]
async fn stopping_all_pods_leaves_them_to_be_started_again() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.node().shutdown(true).await;
    let app = world.sandbox("web").unwrap().containers[&name("app")].last().unwrap().state.clone();
    assert!(matches!(app, ContainerState::Exited { .. }));
    world.restart().await;
    world.until(10, "ready", |w| w.is_ready("web")).await;
}

#[tokio::test(start_paused = true)]
async fn shutting_down_leaves_pods_alone() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.host.forget_calls();
    world.node().shutdown(false).await;
    world.restart().await;
    world.sleep(60).await;
    assert_eq!(world.host.calls().mutating(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_by_hand_is_graceful_and_at_once() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.node().restart(&key("web"), Some("app")).await.unwrap();
    world
        .until(5, "restarted", |w| w.status("web").container_statuses[0].restart_count == 1 && w.is_ready("web"))
        .await;
    world.settled(5).await;
    assert!(world.node().restart(&key("web"), Some("nope")).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_says_done_and_does_nothing_is_noticed() {
    let world = World::new().await;
    world.host.faults().on_nth(HostOp::ContainerStart, 0, 3, Fault::NothingDone);
    world.plane.apply(pod("web", json!({})));
    world.until(30, "ready", |w| w.is_ready("web")).await;
    assert!(world.host.calls().of(HostOp::ContainerStart) <= 5, "and not hammered");
    let recent = world.why("web").await.recent;
    assert!(!recent.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_node_says_that_it_is_alive() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(15, "ready", |w| w.is_ready("web")).await;
    world.sleep(100).await;
    let node = world.plane.get("Node", "node-1").unwrap();
    assert_eq!(node.get_str("/status/capacity/cpu"), Some("8"));
    assert_eq!(node.annotation("reddwarf.io/zone-count"), Some("1"));
    assert_eq!(node.annotation("reddwarf.io/zone-summary"), Some("running=1"));
    assert_eq!(node.label("reddwarf.io/zone-brands"), Some("oci.sparse"));
    assert!(world.plane.heartbeats() >= 10);
    let version = node.resource_version();
    world.sleep(150).await;
    assert_eq!(world.plane.get("Node", "node-1").unwrap().resource_version(), version, "a quiet node writes nothing");
    let asked = world.host.calls().of(HostOp::Info);
    assert!(asked <= 7, "what the host is changes seldom: asked {asked} times in five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_node_object_that_somebody_took_away_or_changed_is_back_with_the_next_heartbeat() {
    let world = World::new().await;
    let node = || world.plane.get("Node", "node-1");
    world.until(15, "there", |_| node().is_some()).await;
    world.sleep(30).await;
    let mut forged = node().unwrap();
    world.plane.delete("Node", "node-1", None);
    assert_eq!(node(), None);
    world.sleep(12).await;
    assert_eq!(node().unwrap().get_str("/status/capacity/cpu"), Some("8"));

    forged.set("/status/capacity/cpu", "99");
    world.plane.apply(forged);
    world.sleep(12).await;
    assert_eq!(node().unwrap().get_str("/status/capacity/cpu"), Some("8"));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_say_what_it_is_makes_its_node_unready() {
    let world = World::new().await;
    let ready = |w: &World| {
        let node = w.plane.get("Node", "node-1")?;
        let conditions = node.get("/status/conditions")?.as_array()?;
        let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
        Some((ready["status"].as_str()?.to_owned(), ready["message"].as_str()?.to_owned()))
    };
    world.until(15, "ready", |w| ready(w).is_some_and(|(status, _)| status == "True")).await;
    world.host.faults().on_nth(HostOp::Info, 0, 3, Fault::FailBefore(HostErrorKind::Other));
    let told = |w: &World| ready(w).is_some_and(|(status, why)| status == "False" && !why.is_empty());
    world.until(90, "not ready, and why", told).await;
    world.until(60, "ready again", |w| ready(w).is_some_and(|(status, _)| status == "True")).await;
}

/// F43: 24 hours of crashing leave neither records nor work behind.
#[tokio::test(start_paused = true)]
async fn f43_a_crash_loop_of_a_day_stays_bounded() {
    let world = World::new().await;
    world.plane.apply(pod_running("crash", &["false"], json!({})));
    world.sleep(24 * 3600).await;
    assert!(world.host.calls().of(HostOp::ContainerStart) < 300);
    assert!(world.host.calls().of(HostOp::Observe) < 6000, "{}", world.host.calls().of(HostOp::Observe));
    assert!(world.plane.status_writes() < 1500, "{}", world.plane.status_writes());
    assert!(world.sandbox("crash").unwrap().containers[&name("app")].len() <= 2);
}

/// F44: a daemon that restarts during a grace neither shortens nor prolongs it.
#[tokio::test(start_paused = true)]
async fn f44_a_grace_outlives_the_daemon() {
    let mut world = World::new().await;
    world.plane.apply(pod_running("stubborn", &["sh", "-c", "trap '' TERM; sleep infinity"], json!({})));
    world.until(5, "ready", |w| w.is_ready("stubborn")).await;
    let before = world.clock.boot();
    world.plane.delete("Pod", "stubborn", Some(30));
    for _ in 0..5 {
        world.sleep(4).await;
        world.restart().await;
    }
    world.until(60, "gone", |w| w.pod("stubborn").is_none()).await;
    let took = world.clock.boot().since(before).as_secs();
    assert!((30..=33).contains(&took), "{took} s");
}

// Found by the simulation; each had its own cause.

/// A stopped sandbox is started as it was made; files that changed meanwhile follow.
#[tokio::test(start_paused = true)]
async fn a_stopped_sandbox_whose_files_changed_comes_up() {
    let world = World::new().await;
    let spec = json!({"volumes": [{"name": "site", "configMap": {"name": "site"}}]});
    world.plane.apply(config("ConfigMap", "site", &[("index", "one")]));
    world.plane.apply(pod("web", spec));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.host.faults().on_nth(HostOp::SandboxEnsure, 0, 2, Fault::FailBefore(HostErrorKind::Other));
    world.host.halt_sandbox(&world.sandbox("web").unwrap().spec.id);
    world.plane.apply(config("ConfigMap", "site", &[("index", "two")]));
    world.until(30, "ready", |w| w.is_ready("web") && w.host.calls().of(HostOp::VolumeUpdate) == 1).await;
}

/// The end of one version is not the end of the next, not even while the host can't be asked.
#[tokio::test(start_paused = true)]
async fn a_finished_pod_that_is_edited_runs_again() {
    let world = World::new().await;
    world.plane.apply(pod_running("job", &["sleep", "1"], json!({"restartPolicy": "Never"})));
    world.until(10, "succeeded", |w| w.status("job").phase == Phase::Succeeded).await;
    world.host.faults().always(HostOp::Observe, Fault::UnknownList);
    world.plane.apply(pod_running("job", &["sleep", "infinity"], json!({})));
    world.sleep(40).await;
    world.host.clear_faults();
    world.until(60, "ready", |w| w.is_ready("job")).await;
}

/// While a pod is being replaced it has not ended, whatever its new restartPolicy would say of the old containers.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_being_replaced_is_not_failed() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.host.faults().on_nth(HostOp::SandboxDestroy, 0, 3, Fault::FailBefore(HostErrorKind::Busy));
    world.plane.apply(pod("web", json!({"restartPolicy": "Never", "hostname": "other"})));
    for _ in 0..100 {
        world.sleep(0).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(matches!(world.status("web").phase, Phase::Pending | Phase::Running));
    }
    world.until(20, "ready", |w| w.is_ready("web") && w.sandbox("web").unwrap().spec.hostname == "other").await;
}

/// After the database was lost no address is given while some sandbox can't be read: it may have it.
#[tokio::test(start_paused = true)]
async fn no_address_is_given_blindly() {
    let mut world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.kill().await;
    world.plane.lose_database();
    world.plane.sources_read(true);
    world.host.faults().always(HostOp::Observe, Fault::UnknownSandbox(None));
    world.plane.apply(pod("new", json!({})));
    world.start().await;
    world.sleep(60).await;
    assert!(world.sandbox("new").is_none());
    assert!(world.why("new").await.summary.starts_with("HostUnknown"));
    world.host.clear_faults();
    world.until(90, "ready", |w| w.is_ready("new")).await;
    assert_ne!(world.status("new").pod_ip, "10.88.0.2");
    assert!(world.host.violations().is_empty());
}

/// A container that was asked to stop, for a change that was then taken back, is stopped to the end.
#[tokio::test(start_paused = true)]
async fn a_half_stopped_container_is_not_left_like_that() {
    let world = World::new().await;
    let stubborn = ["sh", "-c", "trap '' TERM; sleep infinity"];
    world.plane.apply(pod_running("web", &stubborn, json!({"terminationGracePeriodSeconds": 20})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.apply(pod_running("web", &["sleep", "infinity"], json!({"terminationGracePeriodSeconds": 20})));
    world.sleep(5).await;
    world.plane.apply(pod_running("web", &stubborn, json!({"terminationGracePeriodSeconds": 20})));
    world
        .until(40, "started anew", |w| w.status("web").container_statuses[0].restart_count == 1 && w.is_ready("web"))
        .await;
}
