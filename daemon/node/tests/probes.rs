//! Probes and lifecycle hooks as a user notices them: readiness, restarts, order, events, stops. On the fake host under
//! paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::BootTime;
use reddwarf_host::fake::{Asked, ExecAnswer, FakeServer, For, Op as HostOp, Reply};
use reddwarf_host::spec::Signal;
use reddwarf_objects::pod::{ContainerStatus, PodStatus};
use serde_json::{Value, json};
use std::time::Duration;
use support::*;

const PORT: u16 = 8080;

/// A server in every container called `app`.
fn server(world: &World, status: u16) -> FakeServer {
    let server = FakeServer::new(Reply::status(status));
    world.host.set_server(For::Container("app".into()), PORT, server.clone());
    server
}

fn probed(name: &str, probes: Value) -> reddwarf_objects::Object {
    let mut app = json!({"name": "app", "image": "web:1", "ports": [{"name": "web", "containerPort": PORT}]});
    for (key, value) in probes.as_object().unwrap() {
        app[key] = value.clone();
    }
    pod(name, json!({"containers": [app], "terminationGracePeriodSeconds": 5}))
}

fn http(period: i64) -> Value {
    json!({"httpGet": {"port": "web", "path": "/healthz", "scheme": "HTTP"}, "periodSeconds": period, "timeoutSeconds": 1})
}

fn with(mut probe: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        probe[key] = value.clone();
    }
    probe
}

fn told(world: &World, pod: &str, reason: &str) -> Vec<String> {
    let events = world.plane.events().into_iter().filter(|(name, e)| name == pod && e.reason == reason);
    events.map(|(_, e)| e.message).collect()
}

/// Signals as they were sent: container, signal, when.
fn signals(world: &World) -> Vec<(String, Signal, BootTime)> {
    let sent = world.host.mutations().into_iter().filter_map(|m| match (m.container, m.asked) {
        (Some((name, _)), Asked::Signal(signal)) => Some((name.to_string(), signal, m.at)),
        _ => None,
    });
    sent.collect()
}

fn starts(world: &World, container: &str) -> Vec<BootTime> {
    let all = world.host.mutations().into_iter().filter(|m| m.op == HostOp::ContainerStart);
    let own = all.filter(|m| m.container.as_ref().is_some_and(|(name, _)| name.as_str() == container));
    own.map(|m| m.at).collect()
}

fn app(world: &World, pod: &str) -> ContainerStatus {
    let PodStatus { container_statuses, .. } = world.status(pod);
    container_statuses.into_iter().find(|c| c.name == "app").unwrap_or_default()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// How long until it holds.
async fn after(world: &World, limit: u64, what: &str, mut holds: impl FnMut(&World) -> bool) -> Duration {
    let began = world.host.clock().boot();
    for _ in 0..limit * 100 {
        if holds(world) {
            return world.host.clock().boot().since(began);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within {limit} s: {what}\n{}\n{:?}", world.describe().await, world.plane.events());
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_servers_answers_and_each_probe_its_own_timer() {
    let world = World::new().await;
    let server = server(&world, 503);
    let probe = with(http(1), json!({"failureThreshold": 2, "successThreshold": 3}));
    world.plane.apply(probed("web", json!({"readinessProbe": probe})));
    world.until(5, "it runs", |w| app(w, "web").state.running.is_some()).await;
    world.sleep(3).await;
    let status = app(&world, "web");
    assert!(!status.ready && status.started == Some(true), "{status:?}");
    let ready = world.status("web").condition("Ready").cloned().unwrap();
    assert_eq!(
        (ready.reason.as_str(), ready.message.as_str()),
        ("ContainersNotReady", "containers with unready status: [app]")
    );
    assert_eq!(told(&world, "web", "Unhealthy")[0], "Readiness probe failed: HTTP probe failed with statuscode: 503");

    server.reply(Reply::status(204));
    let took = after(&world, 10, "ready", |w| w.is_ready("web")).await;
    assert!(seconds(2) <= took && took < Duration::from_millis(3500), "three answers: {took:?}");

    // G14: ten times in ten seconds, whatever else.
    let before = server.requests().len();
    let observed = world.host.calls().of(HostOp::Observe);
    world.sleep(10).await;
    let shots = server.requests().len() - before;
    assert!((9..=11).contains(&shots), "{shots} shots in 10 s");
    let observations = world.host.calls().of(HostOp::Observe) - observed;
    assert!(observations <= 2, "shots that change nothing cost no observation: {observations}");
    let head = &server.requests()[0].head;
    assert!(head.starts_with("GET /healthz HTTP/1.1\r\n"), "{head}");
    let address = world.status("web").pod_ip;
    for line in [
        format!("host: {address}:8080"),
        "user-agent: kube-probe/1.".into(),
        "accept: */*".into(),
        "connection: close".into(),
    ] {
        assert!(head.to_lowercase().contains(&line), "{line}: {head}");
    }

    server.reply(Reply::status(500));
    let took = after(&world, 10, "not ready", |w| !w.is_ready("web")).await;
    assert!(took < Duration::from_millis(2500), "two answers and at most half a second: {took:?}");
    assert_eq!(starts(&world, "app").len(), 1, "readiness restarts nothing");

    // A server that hangs, one that hangs up, none at all.
    server.reply(Reply::Silence);
    world.sleep(3).await;
    server.reply(Reply::Refused);
    world.sleep(3).await;
    let texts = told(&world, "web", "Unhealthy").join("\n");
    for part in [
        format!(
            "Get \"http://{address}:8080/healthz\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ),
        format!("Get \"http://{address}:8080/healthz\": dial tcp {address}:8080: connect: connection refused"),
    ] {
        assert!(texts.contains(&format!("Readiness probe failed: {part}")), "{part}:\n{texts}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_fails_its_liveness_probe_is_restarted_with_back_off() {
    let world = World::new().await;
    let server = server(&world, 200);
    let probe = with(http(2), json!({"failureThreshold": 3, "terminationGracePeriodSeconds": 3}));
    world
        .plane
        .apply(probed("web", json!({"livenessProbe": probe, "command": ["sh", "-c", "trap '' TERM; sleep infinity"]})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.sleep(20).await;
    assert_eq!(starts(&world, "app").len(), 1, "a healthy one is left alone");
    world.host.forget_calls();
    server.reply(Reply::status(500));
    world.until(15, "TERM", |w| !signals(w).is_empty()).await;
    assert_eq!(told(&world, "web", "Killing"), ["Container app failed liveness probe, will be restarted"]);
    assert_eq!(
        told(&world, "web", "Unhealthy"),
        vec!["Liveness probe failed: HTTP probe failed with statuscode: 500"; 3]
    );
    // The daemon dies in between; the grace is the probe's all the same.
    let mut world = world;
    world.restart().await;
    world.until(15, "it is started again", |w| !starts(w, "app").is_empty()).await;
    let sent = signals(&world);
    assert_eq!(sent.iter().map(|(_, s, _)| *s).collect::<Vec<_>>(), [Signal::Sigterm, Signal::Sigkill]);
    let grace = sent[1].2.since(sent[0].2);
    assert!(seconds(3) <= grace && grace < seconds(4), "the probe's own grace, not the pod's 5 s: {grace:?}");
    assert_eq!(app(&world, "web").restart_count, 1);

    // It goes on failing: from now on the restarts wait.
    world
        .until(30, "CrashLoopBackOff", |w| {
            app(w, "web").state.waiting.is_some_and(|waiting| waiting.reason == "CrashLoopBackOff")
        })
        .await;
    let ended = app(&world, "web").last_state.terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "Error"));
    server.reply(Reply::status(200));
    world.until(30, "ready again", |w| w.is_ready("web")).await;
    assert_eq!(app(&world, "web").restart_count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_holds_the_others_back_and_gives_up_in_the_end() {
    let world = World::new().await;
    let slow = server(&world, 503);
    let startup = with(http(1), json!({"failureThreshold": 10}));
    let liveness = with(http(1), json!({"failureThreshold": 1}));
    let liveness = with(liveness, json!({"httpGet": {"port": PORT, "path": "/live", "scheme": "HTTP"}}));
    world.plane.apply(probed("web", json!({"startupProbe": startup, "livenessProbe": liveness})));
    world.until(5, "it runs", |w| app(w, "web").state.running.is_some()).await;
    world.sleep(5).await;
    let status = app(&world, "web");
    assert_eq!((status.started, status.ready), (Some(false), false));
    assert!(slow.requests().iter().all(|r| !r.head.contains("/live")), "liveness waits for the start");
    slow.reply(Reply::status(200));
    after(&world, 3, "started", |w| w.is_ready("web")).await;
    assert_eq!(app(&world, "web").started, Some(true));
    let asked = slow.requests().iter().filter(|r| r.head.contains("/healthz")).count();
    world.sleep(5).await;
    let requests = slow.requests();
    assert_eq!(requests.iter().filter(|r| r.head.contains("/healthz")).count(), asked, "it has had its say");
    assert!(requests.iter().any(|r| r.head.contains("/live")));

    // One that never starts.
    slow.reply(Reply::status(503));
    world.plane.apply(probed("dud", json!({"startupProbe": with(http(1), json!({"failureThreshold": 3}))})));
    world.until(20, "it is restarted", |w| app(w, "dud").restart_count >= 1).await;
    assert_eq!(told(&world, "dud", "Killing")[0], "Container app failed startup probe, will be restarted");
    assert!(
        told(&world, "dud", "Unhealthy")
            .contains(&"Startup probe failed: HTTP probe failed with statuscode: 503".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn the_next_container_waits_for_a_sidecars_startup_probe() {
    let world = World::new().await;
    let side = FakeServer::new(Reply::status(503));
    world.host.set_server(For::Container("side".into()), PORT, side.clone());
    let probe = json!({"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 60});
    side.reply(Reply::Refused);
    world.plane.apply(pod(
        "web",
        json!({"initContainers": [{"name": "side", "image": "web:1", "restartPolicy": "Always", "startupProbe": probe}]}),
    ));
    world.sleep(5).await;
    assert!(starts(&world, "app").is_empty(), "the sidecar is not started");
    let status = world.status("web");
    assert_eq!(status.init_container_statuses[0].started, Some(false));
    let initialized = status.condition("Initialized").unwrap();
    assert_eq!(initialized.reason, "ContainersNotInitialized");
    let address = status.pod_ip;
    assert_eq!(
        told(&world, "web", "Unhealthy")[0],
        format!("Startup probe failed: dial tcp {address}:8080: connect: connection refused")
    );
    side.reply(Reply::HangUp);
    after(&world, 3, "ready", |w| w.is_ready("web")).await;
    assert_eq!(starts(&world, "app").len(), 1);
}

/// A restart of the daemon is no news: Ready stays, nothing is restarted, probes go on.
#[tokio::test(start_paused = true)]
async fn probes_go_on_after_a_restart_of_the_daemon_and_nothing_flaps() {
    let mut world = World::new().await;
    let server = server(&world, 200);
    world.plane.apply(probed(
        "web",
        json!({"readinessProbe": http(10), "livenessProbe": http(10), "startupProbe": with(http(1), json!({"failureThreshold": 2}))}),
    ));
    world.until(20, "ready", |w| w.is_ready("web")).await;
    let since = world.status("web").condition("Ready").unwrap().last_transition_time;
    world.sleep(30).await;
    for round in 0..5u64 {
        world.kill().await;
        world.sleep(round * 40).await;
        let asked = server.requests().len();
        world.start().await;
        for _ in 0..120 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(world.is_ready("web") && app(&world, "web").started == Some(true));
        }
        assert!(server.requests().len() >= asked + 2, "probes of what was found go on");
    }
    assert_eq!(world.status("web").condition("Ready").unwrap().last_transition_time, since, "it never changed");
    assert_eq!(starts(&world, "app").len(), 1);
    assert!(signals(&world).is_empty());
    assert!(told(&world, "web", "Unhealthy").is_empty());
    // Nor does the wall clock count for anything (F40).
    world.clock.jump(chrono::TimeDelta::days(400));
    world.sleep(60).await;
    world.clock.jump(chrono::TimeDelta::days(-800));
    world.sleep(60).await;
    assert!(world.is_ready("web") && starts(&world, "app").len() == 1);
}

#[tokio::test(start_paused = true)]
async fn commands_are_asked_and_cut_off() {
    let world = World::new().await;
    let answer = |code, stdout: &str| ExecAnswer { code, stdout: stdout.into(), ..ExecAnswer::default() };
    world.host.set_answer("/check", answer(1, "no such file"));
    let probe = json!({"exec": {"command": ["/check", "$(WHAT)"]}, "periodSeconds": 1, "timeoutSeconds": 2});
    world.plane.apply(probed("web", json!({"readinessProbe": probe, "env": [{"name": "WHAT", "value": "this"}]})));
    world.until(5, "it runs", |w| app(w, "web").state.running.is_some()).await;
    world.sleep(2).await;
    assert_eq!(told(&world, "web", "Unhealthy")[0], "Readiness probe failed: no such file\n");
    world.host.set_answer("/check", answer(0, "fine"));
    after(&world, 3, "ready", |w| w.is_ready("web")).await;
    world.host.set_answer("/check", ExecAnswer { hangs: true, ..ExecAnswer::default() });
    after(&world, 12, "not ready", |w| !w.is_ready("web")).await;
    let last = told(&world, "web", "Unhealthy").pop().unwrap();
    assert_eq!(last, "Readiness probe failed: command timed out: \"/check this\" timed out after 2s");
    // A flood, and one that can't be run: that one decides nothing.
    world.host.set_answer("/check", answer(1, &"x".repeat(100_000)));
    world.sleep(3).await;
    let last = told(&world, "web", "Unhealthy").pop().unwrap();
    assert!(last.len() < 11_000, "{} bytes", last.len());
    let absent = json!({"exec": {"command": ["/nonexistent/check"]}, "periodSeconds": 1, "failureThreshold": 1});
    world.plane.apply(probed("odd", json!({"livenessProbe": absent})));
    world.sleep(10).await;
    assert!(told(&world, "odd", "Unhealthy")[0].starts_with("Liveness probe errored and resulted in unknown state: "));
    assert_eq!(app(&world, "odd").restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn redirects_are_followed_at_home_and_warned_of_elsewhere() {
    let world = World::new().await;
    let server = server(&world, 500);
    let to = |location: &str| Reply::Http {
        status: 302,
        headers: vec![format!("Location: {location}")],
        body: "over there".into(),
    };
    server.page("/healthz", to("/really"));
    server.page("/really", Reply::status(200));
    world.plane.apply(probed("web", json!({"readinessProbe": http(1)})));
    world.until(5, "ready by the page that it was led to", |w| w.is_ready("web")).await;
    server.page("/really", to("/healthz"));
    world.until(10, "not ready: in circles", |w| !w.is_ready("web")).await;
    assert!(told(&world, "web", "Unhealthy")[0].contains("stopped after 10 redirects"));
    server.page("/healthz", to("https://example.com/login"));
    world.until(10, "ready: somebody else's affair", |w| w.is_ready("web")).await;
    assert_eq!(
        told(&world, "web", "ProbeWarning")[0],
        "Readiness probe warning: Probe terminated redirects, Response body: over there"
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_gates_wait_for_conditions_of_others() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({"readinessGates": [{"conditionType": "example.com/balancer"}]})));
    world
        .until(5, "containers are ready", |w| {
            w.status("web").condition("ContainersReady").is_some_and(|c| c.reason.is_empty())
        })
        .await;
    let ready = |w: &World| w.status("web").condition("Ready").cloned().unwrap();
    assert_eq!(
        (ready(&world).reason.as_str(), ready(&world).message.as_str()),
        (
            "ReadinessGatesNotReady",
            "corresponding condition of pod readiness gate \"example.com/balancer\" does not exist."
        )
    );
    world.plane.set_condition("web", "example.com/balancer", "False");
    world.sleep(1).await;
    assert_eq!(
        ready(&world).message,
        "the status of pod readiness gate \"example.com/balancer\" is not \"True\", but False"
    );
    world.plane.set_condition("web", "example.com/balancer", "True");
    let took = after(&world, 2, "ready", |w| w.is_ready("web")).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(world.status("web").condition("example.com/balancer").is_some(), "it is kept");
}

fn hooked(name: &str, lifecycle: Value, more: Value) -> reddwarf_objects::Object {
    let mut object = pod(name, with(json!({"terminationGracePeriodSeconds": 10}), more));
    object.set("/spec/containers/0/lifecycle", lifecycle);
    object.set("/spec/containers/0/command", json!(["sh", "-c", "trap '' TERM; sleep infinity"]));
    object
}

#[tokio::test(start_paused = true)]
async fn a_container_counts_as_running_when_its_post_start_hook_is_done() {
    let mut world = World::new().await;
    let slow = ExecAnswer { delay: seconds(4), ..ExecAnswer::default() };
    world.host.set_answer("/hook", slow);
    let two = json!({"containers": [{"name": "app", "image": "web:1"}, {"name": "beside", "image": "web:1"}]});
    world.plane.apply(hooked("web", json!({"postStart": {"exec": {"command": ["/hook"]}}}), two));
    world.until(5, "it was started", |w| !starts(w, "app").is_empty()).await;
    world.sleep(2).await;
    let status = app(&world, "web");
    assert_eq!(status.state.waiting.as_ref().map(|w| w.reason.as_str()), Some("ContainerCreating"), "{status:?}");
    assert_eq!((status.started, status.ready), (Some(false), false));
    assert!(starts(&world, "beside").is_empty(), "as the kubelet: one after another, each with its hook");
    after(&world, 4, "running", |w| w.is_ready("web")).await;
    let waited = starts(&world, "beside")[0].since(starts(&world, "app")[0]);
    assert!(seconds(4) <= waited && waited < seconds(5), "{waited:?}");
    // Once done it is done, for every later daemon too.
    let commands = world.host.calls().of(HostOp::Exec);
    world.restart().await;
    world.sleep(30).await;
    assert!(world.is_ready("web"));
    assert_eq!(world.host.calls().of(HostOp::Exec), commands, "the hook is not run again");
    assert_eq!(starts(&world, "app").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_post_start_hook_kills_the_container() {
    let world = World::new().await;
    world.host.set_answer(
        "/hook",
        ExecAnswer { code: 1, delay: seconds(1), stdout: "secret".into(), ..ExecAnswer::default() },
    );
    let hook = json!({"postStart": {"exec": {"command": ["/hook"]}}});
    world.plane.apply(hooked("web", hook.clone(), json!({"terminationGracePeriodSeconds": 2})));
    world
        .until(30, "it waits to be started again", |w| {
            app(w, "web").state.waiting.is_some_and(|waiting| waiting.reason == "CrashLoopBackOff")
        })
        .await;
    assert_eq!(told(&world, "web", "FailedPostStartHook")[0], "PostStartHook failed");
    assert_eq!(told(&world, "web", "Killing")[0], "FailedPostStartHook");
    assert!(!format!("{:?}", world.plane.events()).contains("secret"), "what a hook prints is for nobody else");
    // Where nothing is started again, that was it.
    world.plane.apply(hooked("once", hook, json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 2})));
    world.until(30, "it failed", |w| w.status("once").phase == reddwarf_objects::pod::Phase::Failed).await;
    // What the reference can't do either.
    world.plane.apply(hooked("odd", json!({"postStart": {"tcpSocket": {"port": 80}}}), json!({})));
    world.until(30, "it is killed", |w| told(w, "odd", "FailedPostStartHook").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_comes_before_the_stop_signal_and_within_the_grace() {
    let world = World::new().await;
    let server = server(&world, 200);
    let hook = json!({"preStop": {"httpGet": {"port": PORT, "path": "/bye", "scheme": "HTTP",
        "httpHeaders": [{"name": "X-Why", "value": "stop"}]}}});
    server.delay(seconds(4));
    world.plane.apply(hooked("web", hook, json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    let asked = world.host.clock().boot();
    world.plane.delete("Pod", "web", None);
    world.until(20, "gone", |w| w.pod("web").is_none()).await;
    let sent = signals(&world);
    let at: Vec<_> = sent.iter().map(|(_, signal, at)| (*signal, at.since(asked).as_secs())).collect();
    assert_eq!(at, [(Signal::Sigterm, 4), (Signal::Sigkill, 10)], "the hook's 4 s are of the grace's 10");
    let head = &server.requests()[0].head;
    assert!(head.starts_with("GET /bye ") && head.to_lowercase().contains("x-why: stop"), "{head}");
    assert_eq!(told(&world, "web", "Killing"), ["Stopping container app"]);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_takes_all_of_the_grace_leaves_a_last_moment() {
    let mut world = World::new().await;
    world.host.set_answer("/hang", ExecAnswer { hangs: true, ..ExecAnswer::default() });
    world.host.set_answer("/bad", ExecAnswer { code: 3, ..ExecAnswer::default() });
    let exec = |program: &str| json!({"preStop": {"exec": {"command": [program]}}});
    world.plane.apply(hooked("web", exec("/hang"), json!({})));
    world.plane.apply(hooked("bad", exec("/bad"), json!({})));
    world.plane.apply(hooked("nap", json!({"preStop": {"sleep": {"seconds": 3}}}), json!({})));
    world.plane.apply(hooked("now", exec("/hang"), json!({})));
    world.until(5, "ready", |w| ["web", "bad", "nap", "now"].iter().all(|p| w.is_ready(p))).await;
    let asked = world.host.clock().boot();
    for name in ["web", "bad", "nap"] {
        world.plane.delete("Pod", name, None);
    }
    world.plane.delete("Pod", "now", Some(0));
    world.sleep(1).await;
    // The daemon dies twice meanwhile: nothing is stopped twice, nothing is forgotten.
    world.restart().await;
    world.sleep(4).await;
    world.restart().await;
    world.until(30, "gone", |w| w.plane.pods().is_empty()).await;
    let of = |name: &str| -> Vec<_> {
        let all = world.host.mutations().into_iter().filter_map(|m| match (&m.asked, &m.sandbox) {
            (Asked::Signal(signal), Some(id)) if id.as_str().contains(&format!("-{name}-")) => {
                Some((*signal, m.at.since(asked).as_secs()))
            }
            _ => None,
        });
        all.collect()
    };
    let (term, kill) = (Signal::Sigterm, Signal::Sigkill);
    assert_eq!(of("web"), [(term, 10), (kill, 12)], "two seconds more than its grace");
    assert_eq!(of("bad"), [(term, 0), (kill, 10)]);
    assert_eq!(of("nap"), [(term, 3), (kill, 10)], "what was slept before the restart counts");
    assert_eq!(of("now"), [(kill, 0)], "without a grace there is no hook");
    assert_eq!(told(&world, "bad", "FailedPreStopHook"), ["PreStopHook failed"]);
    assert!(told(&world, "web", "FailedPreStopHook").is_empty(), "it did not fail, it was late");
}

/// Also without a deletion: a restart by hand and a probe's.
#[tokio::test(start_paused = true)]
async fn every_stop_runs_the_hook() {
    let world = World::new().await;
    let server = server(&world, 200);
    let mut object = probed("web", json!({"livenessProbe": with(http(1), json!({"failureThreshold": 1}))}));
    object.set("/spec/containers/0/lifecycle", json!({"preStop": {"sleep": {"seconds": 2}}}));
    world.plane.apply(object);
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.node().restart(&key("web"), None).await.unwrap();
    world.until(10, "started again", |w| starts(w, "app").len() == 2).await;
    let gap = starts(&world, "app")[1].since(signals(&world)[0].2);
    assert!(gap < seconds(1), "TERM ended it: {gap:?}");
    world.until(5, "ready", |w| w.is_ready("web")).await;
    server.reply(Reply::status(500));
    world.until(10, "a verdict", |w| told(w, "web", "Killing").len() == 2).await;
    let verdict = world.host.clock().boot();
    server.reply(Reply::status(200));
    world.until(10, "TERM", |w| signals(w).len() == 2).await;
    let waited = signals(&world)[1].2.since(verdict);
    assert!(seconds(1) < waited && waited <= seconds(2), "{waited:?}");
    assert_eq!(
        told(&world, "web", "Killing"),
        ["Stopping container app", "Container app failed liveness probe, will be restarted"]
    );
}

/// Changed probes of a running pod count at once and restart nothing.
#[tokio::test(start_paused = true)]
async fn probes_change_in_place() {
    let world = World::new().await;
    let server = server(&world, 200);
    world.plane.apply(probed("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.plane.apply(probed("web", json!({"readinessProbe": http(1)})));
    world.sleep(3).await;
    assert!(world.is_ready("web") && server.requests().len() >= 2, "ready until it is known not to be");
    server.reply(Reply::status(500));
    world.until(5, "not ready", |w| !w.is_ready("web")).await;
    world.plane.apply(probed("web", json!({})));
    world.until(2, "ready without a probe", |w| w.is_ready("web")).await;
    let asked = server.requests().len();
    world.sleep(5).await;
    assert_eq!(server.requests().len(), asked);
    assert_eq!(starts(&world, "app").len(), 1);
}
