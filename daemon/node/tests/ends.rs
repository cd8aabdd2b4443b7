//! How containers and pods end, as a user notices it: order, policies, rules, deadlines, sidecars, events. On the fake
//! host under paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::fake::Op as HostOp;
use reddwarf_host::spec::Signal;
use reddwarf_objects::pod::{ConditionStatus, ContainerStatus, Phase, Terminated};
use serde_json::json;
use support::*;

fn of<'s>(statuses: &'s [ContainerStatus], name: &str) -> &'s ContainerStatus {
    statuses.iter().find(|c| c.name == name).unwrap()
}

fn ended(status: &ContainerStatus) -> &Terminated {
    status.state.terminated.as_ref().unwrap_or_else(|| panic!("{status:?}"))
}

/// Signals as they were sent: container, signal, second.
fn signals(world: &World) -> Vec<(String, Signal, u64)> {
    use reddwarf_host::fake::Asked;
    let sent = world.host.mutations().into_iter().filter_map(|m| match (m.container, m.asked) {
        (Some((name, _)), Asked::Signal(signal)) => Some((name.to_string(), signal, m.at.since_boot().as_secs())),
        _ => None,
    });
    sent.collect()
}

fn starts(world: &World, container: &str) -> Vec<u64> {
    let all = world.host.mutations().into_iter().filter(|m| m.op == HostOp::ContainerStart);
    let own = all.filter(|m| m.container.as_ref().is_some_and(|(name, _)| name.as_str() == container));
    own.map(|m| m.at.since_boot().as_secs()).collect()
}

fn told(world: &World, pod: &str) -> Vec<(String, String, String)> {
    let events = world.plane.events().into_iter().filter(|(name, _)| name == pod);
    events.map(|(_, e)| (e.reason, e.message, e.field_path)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_job_like_pod_completes_and_takes_its_sidecars_along_in_reverse() {
    let world = World::new().await;
    let sidecar = |name: &str, command: &str| json!({"name": name, "image": "web:1", "restartPolicy": "Always", "command": ["sh", "-c", command]});
    world.plane.apply(pod(
        "job",
        json!({
            "restartPolicy": "Never",
            "initContainers": [
                sidecar("first", "trap 'exit 1' TERM; sleep infinity"),
                {"name": "once", "image": "web:1", "command": ["sleep", "2"]},
                sidecar("second", "trap '' TERM; sleep infinity"),
            ],
            "containers": [{"name": "app", "image": "web:1", "command": ["sleep", "5"]}],
        }),
    ));
    world.until(10, "it runs", |w| w.status("job").phase == Phase::Running).await;
    assert!(world.is_ready("job"), "{:?}", world.status("job"));
    world.host.forget_calls();
    world.until(60, "it has ended", |w| w.status("job").phase == Phase::Succeeded).await;
    let sent = signals(&world);
    let second = sent[0].2;
    assert_eq!(
        sent,
        [
            ("second".into(), Signal::Sigterm, second),
            ("second".into(), Signal::Sigkill, second + 30),
            ("first".into(), Signal::Sigterm, second + 30),
        ],
        "the last one first, all within the pod's grace"
    );
    let status = world.status("job");
    assert_eq!(
        ended(of(&status.init_container_statuses, "first")).exit_code,
        1,
        "a sidecar's exit code counts for nothing"
    );
    assert_eq!(ended(of(&status.container_statuses, "app")).reason, "Completed");
    assert_eq!(status.condition("Initialized").unwrap().reason, "PodCompleted");
    assert_eq!(status.condition("Ready").unwrap().reason, "PodCompleted");
    world.settled(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_restarts_whatever_the_pods_policy_and_holds_up_nothing_once_all_has_begun() {
    let world = World::new().await;
    world.plane.apply(pod(
        "web",
        json!({
            "restartPolicy": "Never",
            "initContainers": [
                {"name": "side", "image": "web:1", "restartPolicy": "Always", "command": ["sh", "-c", "sleep 5; exit 0"]},
            ],
        }),
    ));
    world.sleep(40).await;
    let began = starts(&world, "side");
    assert_eq!([began[1] - began[0], began[2] - began[1]], [5, 15], "at once, then after 10 s");
    assert_eq!(starts(&world, "app").len(), 1);
    let status = world.status("web");
    assert_eq!(status.phase, Phase::Running);
    let side = of(&status.init_container_statuses, "side");
    assert_eq!((side.restart_count, ended_before(side)), (2, 0));
    world.until(30, "the sidecar waits", |w| !w.is_ready("web")).await;
    let status = world.status("web");
    let ready = status.condition("Ready").unwrap();
    assert_eq!(ready.message, "containers with unready status: [side]");
    assert_eq!(status.condition("Initialized").unwrap().status, ConditionStatus::True);
}

fn ended_before(status: &ContainerStatus) -> i32 {
    status.last_state.terminated.as_ref().unwrap().exit_code
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_sidecar_waits_until_it_runs() {
    let world = World::new().await;
    world.plane.apply(pod(
        "web",
        json!({"initContainers": [
            {"name": "side", "image": "web:1", "restartPolicy": "Always", "command": ["/nonexistent/side"]},
        ]}),
    ));
    world.sleep(45).await;
    let status = world.status("web");
    assert_eq!(status.phase, Phase::Pending);
    let side = of(&status.init_container_statuses, "side");
    assert_eq!(side.state.waiting.as_ref().unwrap().reason, "CrashLoopBackOff");
    let last = side.last_state.terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_str()), (128, "StartError"));
    assert!(last.message.contains("no such file"), "{last:?}");
    assert!(starts(&world, "app").is_empty());
    let initialized = status.condition("Initialized").unwrap();
    assert_eq!(initialized.message, "containers with incomplete status: [side]");
    let app = of(&status.container_statuses, "app").state.waiting.clone().unwrap();
    assert_eq!((app.reason.as_str(), app.message.as_str()), ("PodInitializing", ""));
    let failed = told(&world, "web").into_iter().find(|(reason, ..)| reason == "Failed").unwrap();
    assert!(failed.1.starts_with("Error: ") && failed.2 == "spec.initContainers{side}", "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn containers_have_policies_and_rules_of_their_own() {
    let world = World::new().await;
    let rule = |operator: &str, codes: &[i32]| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": codes}}]);
    let main = |name: &str, command: &str, policy: &str| json!({"name": name, "image": "web:1", "command": ["sh", "-c", command], "restartPolicy": policy});
    let with = |mut container: serde_json::Value, rules| {
        container["restartPolicyRules"] = rules;
        container
    };
    world.plane.apply(pod(
        "mixed",
        json!({"containers": [
            main("never", "sleep 1; exit 3", "Never"),
            main("again", "sleep 100; exit 0", "Always"),
            main("failure", "sleep 1; exit 0", "OnFailure"),
            with(main("in", "sleep 1; exit 42", "Never"), rule("In", &[42, 43])),
            with(main("not-in", "sleep 1; exit 42", "Never"), rule("NotIn", &[42])),
        ], "restartPolicy": "Never"}),
    ));
    world.sleep(30).await;
    let status = world.status("mixed");
    assert_eq!(status.phase, Phase::Running);
    let restarts = |name: &str| of(&status.container_statuses, name).restart_count;
    assert_eq!((restarts("never"), restarts("failure"), restarts("not-in")), (0, 0, 0));
    assert_eq!(restarts("in"), 2);
    assert_eq!(ended(of(&status.container_statuses, "never")).exit_code, 3);
    let names: Vec<_> = status.container_statuses.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["again", "failure", "in", "never", "not-in"], "by name");
    world.sleep(100).await;
    assert_eq!(of(&world.status("mixed").container_statuses, "again").restart_count, 1);

    // All that the pod has ends for good, though its own policy is Always.
    world.plane.apply(pod(
        "done",
        json!({"containers": [main("one", "sleep 1; exit 3", "Never"), main("two", "true", "OnFailure")]}),
    ));
    world.until(10, "it has failed", |w| w.status("done").phase == Phase::Failed).await;
    let init = json!([{"name": "first", "image": "web:1", "command": ["false"], "restartPolicy": "Never"}]);
    world.plane.apply(pod("init", json!({"initContainers": init})));
    world.until(10, "it has failed", |w| w.status("init").phase == Phase::Failed).await;
    assert_eq!(world.status("init").condition("ContainersReady").unwrap().reason, "PodFailed");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_a_pod_whatever_it_does() {
    let mut world = World::new().await;
    let boot = |world: &World| reddwarf_host::Clock::boot(&*world.clock).since_boot().as_secs();
    let began = boot(&world);
    let limit = json!({"activeDeadlineSeconds": 30, "terminationGracePeriodSeconds": 5});
    world.plane.apply(pod_running("busy", &["sh", "-c", "trap '' TERM; sleep infinity"], limit.clone()));
    world.plane.apply(pod_running("crash", &["false"], limit.clone()));
    let mut stuck = pod("stuck", limit.clone());
    stuck.set("/spec/containers/0/image", "missing:1");
    world.plane.apply(stuck);
    let mut quick = limit.clone();
    quick["restartPolicy"] = json!("Never");
    world.plane.apply(pod_running("quick", &["sleep", "1"], quick));
    world.until(10, "it is ready", |w| w.is_ready("busy")).await;
    // The wall clock decides nothing, nor does a new daemon begin to count anew.
    world.clock.jump(chrono::TimeDelta::days(30));
    world.sleep(10).await;
    assert!(world.is_ready("busy"));
    world.clock.jump(chrono::TimeDelta::days(-30));
    world.restart().await;
    world.host.forget_calls();
    assert!(boot(&world) < began + 29);
    world.until(60, "it has failed", |w| w.status("busy").phase == Phase::Failed).await;
    let sent = signals(&world);
    assert_eq!(sent.iter().map(|s| s.1).collect::<Vec<_>>(), [Signal::Sigterm, Signal::Sigkill]);
    assert!((29..=31).contains(&(sent[0].2 - began)), "{sent:?}");
    assert_eq!(sent[1].2 - sent[0].2, 5, "with its grace");
    for name in ["busy", "crash", "stuck"] {
        world.until(10, "it has failed", |w| w.status(name).phase == Phase::Failed).await;
        let status = world.status(name);
        assert_eq!(status.reason, "DeadlineExceeded", "{name}");
        assert_eq!(status.message, "Pod was active on the node longer than the specified deadline");
        assert_eq!(status.condition("Ready").unwrap().reason, "PodFailed");
        let events = told(&world, name);
        assert!(events.iter().any(|e| e.0 == "DeadlineExceeded" && e.1 == status.message), "{events:?}");
    }
    assert_eq!(ended(&world.status("busy").container_statuses[0]).exit_code, 137);
    world.settled(10).await;
    world.sleep(60).await;
    assert_eq!(world.status("quick").phase, Phase::Succeeded, "it ended in time");
    world.restart().await;
    world.sleep(60).await;
    assert_eq!(starts(&world, "app").len(), 0, "nothing is started again");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pods_last_word_is_how_its_containers_ended() {
    let world = World::new().await;
    world.plane.apply(pod_running("good", &["sh", "-c", "trap 'exit 0' TERM; sleep infinity"], json!({})));
    world.plane.apply(pod("bad", json!({})));
    world.until(5, "ready", |w| w.is_ready("good") && w.is_ready("bad")).await;
    let mut words = Vec::new();
    for name in ["good", "bad"] {
        world
            .host
            .faults()
            .always(HostOp::SandboxDestroy, reddwarf_host::fake::Fault::FailBefore(reddwarf_host::HostErrorKind::Busy));
        world.plane.delete("Pod", name, None);
        world
            .until(20, "it has ended", |w| {
                w.sandbox(name).is_none_or(|s| s.state == reddwarf_host::SandboxState::Stopped)
            })
            .await;
        world.sleep(1).await;
        words.push(world.status(name).phase);
        world.host.clear_faults();
        world.until(120, "gone", |w| w.pod(name).is_none()).await;
    }
    assert_eq!(words, [Phase::Succeeded, Phase::Failed]);
    let events = told(&world, "good");
    let killing: Vec<_> = events.iter().filter(|e| e.0 == "Killing").collect();
    assert_eq!(killing, [&("Killing".into(), "Stopping container app".into(), "spec.containers{app}".into())]);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_pod_that_was_taken_away_at_once_goes_at_once() {
    let world = World::new().await;
    let stubborn = ["sh", "-c", "trap '' TERM; sleep infinity"];
    world.plane.apply(pod_running("web", &stubborn, json!({"terminationGracePeriodSeconds": 600})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.forget("web");
    world.until(3, "gone", |w| w.sandbox("web").is_none()).await;
    let sent: Vec<_> = signals(&world).into_iter().map(|s| s.1).collect();
    assert_eq!(sent, [Signal::Sigterm, Signal::Sigkill]);
    // Its namesake has all the time that it asks for.
    world.plane.apply(pod_running("web", &stubborn, json!({"terminationGracePeriodSeconds": 20})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.delete("Pod", "web", None);
    world.sleep(15).await;
    assert!(world.sandbox("web").is_some());
    world.until(20, "gone", |w| w.pod("web").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn events_are_worded_as_the_kubelet_words_them() {
    let world = World::new().await;
    world.plane.apply(pod_running("crash", &["sh", "-c", "sleep 1; exit 1"], json!({})));
    world.sleep(5).await;
    let uid = world.pod("crash").unwrap().uid().unwrap().to_owned();
    let at = "spec.containers{app}".to_owned();
    let pulled = "Container image \"web:1\" already present on machine and can be accessed by the pod".to_owned();
    let start = |text: &str| (text.to_owned(), format!("Container {}", text.to_lowercase()), at.clone());
    let round = [("Pulled".to_owned(), pulled, at.clone()), start("Created"), start("Started")];
    let backoff = format!("Back-off restarting failed container app in pod crash_default({uid})");
    let mut expected: Vec<_> = round.iter().chain(&round).cloned().collect();
    expected.push(("BackOff".into(), backoff, at.clone()));
    assert_eq!(told(&world, "crash"), expected);
    let waiting = world.status("crash").container_statuses[0].state.waiting.clone().unwrap();
    assert_eq!(waiting.message, format!("back-off 10s restarting failed container=app pod=crash_default({uid})"));
    world.sleep(400).await;
    let waiting = world.status("crash").container_statuses[0].state.waiting.clone().unwrap();
    assert!(
        waiting.message.starts_with("back-off 2m40s ") || waiting.message.starts_with("back-off 5m0s "),
        "{waiting:?}"
    );

    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.apply(pod("web", json!({"containers": [{"name": "app", "image": "web:2"}]})));
    world.settled(10).await;
    world.plane.apply(pod("web", json!({"hostname": "other", "containers": [{"name": "app", "image": "web:2"}]})));
    world.settled(20).await;
    let events = told(&world, "web");
    let has = |reason: &str, message: &str| events.iter().any(|e| e.0 == reason && e.1 == message);
    assert!(has("Killing", "Container app definition changed, will be restarted"), "{events:?}");
    assert!(has("Killing", "Stopping container app"), "{events:?}");
    assert!(has("SandboxChanged", "Pod sandbox changed, it will be killed and re-created."), "{events:?}");
    let mut never = pod("never", json!({}));
    never.set("/spec/containers/0/image", "nope:1");
    never.set("/spec/containers/0/imagePullPolicy", "Never");
    world.plane.apply(never);
    world.sleep(3).await;
    let events = told(&world, "never");
    assert_eq!(events[0].1, "Container image \"nope:1\" is not present with pull policy of Never");
    assert_eq!(events[1].1, "Error: ErrImageNeverPull");
}
