//! Images come from registries: when, how often, as whom, and what is shown meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::fake::{Fault, Op};
use reddwarf_host::{ContainerName, HostErrorKind};
use serde_json::{Value, json};
use std::time::Duration;
use support::*;

fn name(text: &str) -> ContainerName {
    ContainerName::new(text).unwrap()
}

const WEB: &str = "registry.test/team/web:1";

fn wants(name: &str, image: &str, policy: &str) -> reddwarf_objects::Object {
    pod(name, json!({"containers": [{"name": "app", "image": image, "imagePullPolicy": policy}]}))
}

fn events(world: &World, reason: &str) -> Vec<String> {
    let all = world.plane.events().into_iter().map(|(_, e)| e);
    all.filter(|e| e.reason == reason).map(|e| e.message).collect()
}

fn waits_for(world: &World, name: &str) -> String {
    let status = world.status(name);
    let container = status.container_statuses.first();
    container.and_then(|c| c.state.waiting.as_ref()).map(|w| w.reason.clone()).unwrap_or_default()
}

fn pulls(world: &World) -> u64 {
    world.host.calls().of(Op::ImagePull)
}

#[tokio::test(start_paused = true)]
async fn what_is_not_here_is_pulled_once_for_all_and_not_again() {
    let world = World::new().await;
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world.host.faults().on(Op::ImagePull, Fault::Slow(Duration::from_millis(1200)));
    world.plane.apply(wants("one", WEB, "IfNotPresent"));
    world.plane.apply(wants("two", WEB, "IfNotPresent"));
    world.sleep(1).await;
    assert_eq!(waits_for(&world, "one"), "ContainerCreating");
    world.until(5, "both ready", |w| w.is_ready("one") && w.is_ready("two")).await;
    assert_eq!(pulls(&world), 1);
    assert_eq!(events(&world, "Pulling"), [format!("Pulling image \"{WEB}\""), format!("Pulling image \"{WEB}\"")]);
    let pulled = events(&world, "Pulled");
    assert_eq!(pulled.len(), 2, "{pulled:?}");
    let words =
        format!("Successfully pulled image \"{WEB}\" in 1.2s (1.2s including waiting). Image size: 1048576 bytes.");
    assert!(pulled.contains(&words), "{pulled:?}");
    let id = world.status("one").container_statuses[0].image_id.clone();
    assert!(id.starts_with("registry.test/team/web@sha256:"), "{id}");
    world.plane.apply(wants("three", WEB, "IfNotPresent"));
    world.until(5, "ready", |w| w.is_ready("three")).await;
    assert_eq!(pulls(&world), 1);
    assert!(events(&world, "Pulled").iter().any(|e| e.contains("already present on machine")));
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_takes_its_time_says_how_far_it_is() {
    let world = World::new().await;
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world.host.faults().on(Op::ImagePull, Fault::Slow(Duration::from_secs(70)));
    world.plane.apply(wants("web", WEB, "IfNotPresent"));
    world.sleep(65).await;
    let first = format!("Pulling image \"{WEB}\"");
    // What has not changed is not told again.
    let then = format!("Still pulling image \"{WEB}\": waiting for the registry");
    assert_eq!(events(&world, "Pulling"), [first.clone(), then.clone()]);
    world.until(20, "ready", |w| w.is_ready("web")).await;
    world.sleep(60).await;
    assert_eq!(events(&world, "Pulling"), [first, then]);
}

#[tokio::test(start_paused = true)]
async fn always_asks_at_every_start_and_takes_what_the_name_means_by_then() {
    let world = World::new().await;
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world.plane.apply(wants("web", WEB, "Always"));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    let first = world.status("web").container_statuses[0].image_id.clone();
    world.host.serve_image(WEB, image(&["/bin/newer"]), None);
    world.sleep(60).await;
    assert_eq!(pulls(&world), 1, "nothing is asked while it runs");
    world.node().restart(&key("web"), None).await.unwrap();
    world
        .until(10, "the newer one", |w| {
            let id = w.status("web").container_statuses[0].image_id.clone();
            w.is_ready("web") && !id.is_empty() && id != first
        })
        .await;
    assert_eq!(pulls(&world), 2);
    // What was imported by hand has no registry.
    world.plane.apply(wants("hand", "web:1", "Always"));
    world.until(5, "ready", |w| w.is_ready("hand")).await;
    assert_eq!(pulls(&world), 2);
}

#[tokio::test(start_paused = true)]
async fn failures_are_shown_and_waited_after_longer_each_time() {
    let world = World::new().await;
    let begun = world.host.clock().boot();
    world.plane.apply(wants("web", WEB, "IfNotPresent"));
    world.until(3, "shown", |w| waits_for(w, "web") == "ErrImagePull").await;
    world.until(4, "backing off", |w| waits_for(w, "web") == "ImagePullBackOff").await;
    let waiting = world.status("web").container_statuses[0].state.waiting.clone().unwrap();
    let words = format!("Back-off pulling image \"{WEB}\": ErrImagePull: {WEB}: not found");
    assert_eq!(waiting.message, words);
    assert!(events(&world, "Failed").contains(&format!("Failed to pull image \"{WEB}\": {WEB}: not found")));
    assert!(events(&world, "Failed").contains(&"Error: ErrImagePull".to_owned()));
    assert!(events(&world, "BackOff").contains(&format!("Back-off pulling image \"{WEB}\"")));
    for (until, tries) in [(9, 1), (12, 2), (29, 2), (33, 3), (69, 3), (75, 4)] {
        let now = world.host.clock().boot().since(begun).as_secs_f64();
        tokio::time::sleep(Duration::from_secs_f64((f64::from(until) - now).max(0.0))).await;
        assert_eq!(pulls(&world), tries, "after {until} s");
    }
    world.sleep(3600).await;
    assert!((13..=17).contains(&pulls(&world)), "5 minutes apart at most: {}", pulls(&world));
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world.until(310, "ready", |w| w.is_ready("web")).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_answer_is_called_so() {
    let world = World::new().await;
    world.host.faults().on(Op::ImagePull, Fault::FailBefore(HostErrorKind::Unreachable));
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world.plane.apply(wants("web", WEB, "IfNotPresent"));
    world.until(3, "shown", |w| waits_for(w, "web") == "RegistryUnavailable").await;
    world.until(15, "ready", |w| w.is_ready("web")).await;
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_asks_for_a_pause_gets_it() {
    let world = World::new().await;
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world.host.faults().on(Op::ImagePull, Fault::AskLater(Duration::from_secs(1800)));
    world.host.faults().on(Op::ImagePull, Fault::AskLater(Duration::from_secs(86_400)));
    world.plane.apply(wants("web", WEB, "IfNotPresent"));
    world.sleep(1750).await;
    assert_eq!(pulls(&world), 1);
    world.sleep(100).await;
    assert_eq!(pulls(&world), 2);
    // A day is too long.
    world.sleep(3500).await;
    assert_eq!(pulls(&world), 2);
    world.until(200, "ready", |w| w.is_ready("web")).await;
}

#[tokio::test(start_paused = true)]
async fn secrets_let_in_and_a_mended_one_counts_at_once() {
    let world = World::new().await;
    world.host.serve_image(WEB, image(&["/bin/web"]), Some("hunter2"));
    let mut object = wants("web", WEB, "IfNotPresent");
    object.set("/spec/imagePullSecrets", json!([{"name": "pull"}]));
    world.plane.apply(object);
    world.until(5, "backing off", |w| waits_for(w, "web") == "ImagePullBackOff").await;
    let words = "Unable to retrieve some image pull secrets (pull); attempting to pull the image may not succeed.";
    assert!(events(&world, "FailedToRetrieveImagePullSecret").contains(&words.to_owned()));
    world.plane.apply(config("Secret", "pull", &[(".dockerconfigjson", "hunter2")]));
    world.until(2, "ready at once", |w| w.is_ready("web")).await;
    let told = format!("{:?}{:?}", world.plane.events(), world.why("web").await);
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn never_and_names_that_are_none_ask_nobody() {
    let world = World::new().await;
    world.plane.apply(wants("never", WEB, "Never"));
    world.plane.apply(wants("bad", "Registry.test/Web:1", "IfNotPresent"));
    world.until(3, "never", |w| waits_for(w, "never") == "ErrImageNeverPull").await;
    world.until(3, "bad", |w| waits_for(w, "bad") == "InvalidImageName").await;
    assert_eq!(pulls(&world), 0);
    assert!(events(&world, "InspectFailed")[0].contains("couldn't parse image name"));
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_never_ends_holds_up_nobody_else() {
    let world = World::new().await;
    world.host.faults().on(Op::ImagePull, Fault::Hang);
    world.plane.apply(pod(
        "web",
        json!({"containers": [
            {"name": "slow", "image": WEB}, {"name": "app", "image": "web:1"},
        ]}),
    ));
    let runs = |w: &World, pod: &str| w.sandbox(pod).is_some_and(|s| s.containers.contains_key(&name("app")));
    world.until(3, "its other container runs", |w| runs(w, "web")).await;
    for n in 0..20 {
        world.plane.apply(pod(&format!("other-{n}"), json!({})));
    }
    world.until(5, "other pods run", |w| (0..20).all(|n| runs(w, &format!("other-{n}")))).await;
    // And a pod that waits for its image can be deleted.
    world.plane.delete("Pod", "web", Some(0));
    world.until(5, "gone", |w| w.sandbox("web").is_none()).await;
}

/// Promise 6: a new version whose image can't be had leaves the old one running.
#[tokio::test(start_paused = true)]
async fn a_new_version_is_pulled_before_the_old_one_is_stopped() {
    let world = World::new().await;
    world.plane.apply(pod("web", json!({})));
    world.until(5, "ready", |w| w.is_ready("web")).await;
    world.host.forget_calls();
    world.plane.apply(wants("web", WEB, "Always"));
    world.sleep(30).await;
    assert!(pulls(&world) >= 2 && world.is_ready("web"));
    for op in [Op::ContainerSignal, Op::ContainerStart, Op::SandboxStop] {
        assert_eq!(world.host.calls().of(op), 0, "{op:?}");
    }
    assert!(events(&world, "Failed").iter().any(|e| e.starts_with("Failed to pull image")));
    let told = world.status("web").condition("reddwarf.io/UpToDate").unwrap().message.clone();
    assert!(told.contains(WEB), "{told}");
    world.host.serve_image(WEB, image(&["/bin/web"]), None);
    world
        .until(60, "the new one", |w| {
            let running = w.sandbox("web").and_then(|s| s.containers[&name("app")].last().cloned());
            running.is_some_and(|c| c.spec.image_name == WEB) && w.is_ready("web")
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn unused_images_go_by_age_when_the_disk_is_full_and_imported_ones_stay() {
    use reddwarf_host::ImageStore;
    let mut settings = settings();
    settings.images.high_percent = 1;
    settings.images.low_percent = 0;
    let world = World::with(settings).await;
    for n in 0..3 {
        let name = format!("registry.test/app:{n}");
        world.host.serve_image(&name, image(&[&format!("/bin/{n}")]), None);
        world.plane.apply(wants(&format!("p{n}"), &name, "IfNotPresent"));
    }
    world.until(5, "ready", |w| (0..3).all(|n| w.is_ready(&format!("p{n}")))).await;
    for n in 1..3 {
        world.plane.delete("Pod", &format!("p{n}"), Some(0));
    }
    let mut pressure = world.host.no_pressure();
    (pressure.storage.capacity_bytes, pressure.storage.available_bytes) = (100, 10);
    world.host.set_pressure(Some(pressure));
    world.sleep(700).await;
    let mut names: Vec<Value> = Vec::new();
    for image in world.host.image_list().await.unwrap() {
        names.extend(image.names.into_iter().map(Value::from));
    }
    assert_eq!(Value::from(names), json!(["registry.test/app:0", "web:1", "web:2"]));
}
