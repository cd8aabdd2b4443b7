//! What goes wrong on the way (F39): nothing is kept that is not what it should be, and what may pass is tried again.

use super::server::Reply;
use super::{World, contents, digest, error};
use reddwarf_pull::PullErrorKind;
use serde_json::json;
use std::time::Duration;

fn stock(world: &World, layer: &[u8]) -> String {
    let image = world.server.image(&[layer], json!({ "os": "linux", "architecture": "amd64" }));
    world.server.tag("1", &image)
}

#[tokio::test]
async fn a_cut_connection_is_gone_on_with_where_it_broke_off() {
    let world = World::new();
    let layer: Vec<u8> = (0..500_000u32).map(|n| n as u8).collect();
    stock(&world, &layer);
    let (name, whole) = (digest(&layer), layer.clone());
    world.server.fault(move |request| {
        let first = request.path.contains(&name) && !request.headers.contains_key("range");
        first.then(|| Reply { body: whole.clone(), cut: Some(200_000), ..Reply::status(200) })
    });
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(layer.clone())]);
    let ranges: Vec<_> = world.server.asked().iter().filter_map(|r| r.headers.get("range").cloned()).collect();
    assert_eq!(ranges, ["bytes=200000-"]);
}

#[tokio::test]
async fn what_a_killed_daemon_left_is_gone_on_with() {
    let world = World::new();
    let layer = vec![5u8; 100_000];
    stock(&world, &layer);
    std::fs::create_dir_all(world.blobs()).unwrap();
    let part = world.blobs().join(format!("{}.part", digest(&layer).trim_start_matches("sha256:")));
    std::io::Write::write_all(&mut std::fs::File::create(&part).unwrap(), &layer[..60_000]).unwrap();
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(layer.clone())]);
    // What is not a part of it does no harm but time.
    std::io::Write::write_all(&mut std::fs::File::create(&part).unwrap(), &[6; 60_000]).unwrap();
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(layer.clone())]);
    std::io::Write::write_all(&mut std::fs::File::create(&part).unwrap(), &[6; 200_000]).unwrap();
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(layer)]);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_all_of_it_again() {
    let world = World::new();
    let layer = vec![7u8; 100_000];
    stock(&world, &layer);
    let (name, whole, mut first) = (digest(&layer), layer.clone(), true);
    world.server.fault(move |request| {
        let cut = std::mem::take(&mut first).then_some(50_000);
        let again = request.path.contains(&name);
        if !again {
            first = true;
        }
        again.then(|| Reply { body: whole.clone(), cut, ..Reply::status(200) })
    });
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(layer)]);
}

#[tokio::test]
async fn other_content_than_announced_is_not_kept() {
    let world = World::new();
    let layer = vec![1u8; 1000];
    let top = stock(&world, &layer);
    let name = digest(&layer);
    world.server.fault(move |request| {
        request.path.contains(&name).then(|| Reply { body: vec![2; 1000], ..Reply::status(200) })
    });
    let refused = error(world.pull("app:1").await);
    assert_eq!(refused.kind, PullErrorKind::Invalid);
    assert!(refused.message.contains("digest mismatch"), "{refused}");
    assert!(world.left().is_empty(), "{:?}", world.left());
    let name = digest(&layer);
    world.server.fault(move |request| {
        request.path.contains(&name).then(|| Reply { body: vec![1; 5000], ..Reply::status(200) })
    });
    assert!(error(world.pull("app:1").await).message.contains("more bytes than it announced"));
    // A manifest that is not the one asked for.
    world.server.fault(|request| {
        request.path.contains("/manifests/").then(|| Reply { body: b"{}".to_vec(), ..Reply::status(200) })
    });
    let refused = error(world.pull(&format!("app@{top}")).await);
    assert!(refused.message.contains("digest mismatch: the manifest"), "{refused}");
}

#[tokio::test]
async fn pauses_that_are_asked_for_are_kept_unless_they_are_long() {
    let world = World::new();
    stock(&world, b"layer");
    let mut times = 0;
    world.server.fault(move |_| {
        times += 1;
        (times == 2).then(|| Reply::status(429).with("Retry-After", 1))
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(b"layer".to_vec())]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    world.server.fault(|_| Some(Reply::status(429).with("Retry-After", 3600)));
    let begun = tokio::time::Instant::now();
    let refused = error(world.pull("app:1").await);
    assert_eq!(refused.kind, PullErrorKind::Unreachable);
    assert!(refused.message.contains("too many requests; it asks for a pause of 3600 s"), "{refused}");
    let told = refused.into_host("pull image", "app:1");
    assert_eq!(told.retry_after, Some(Duration::from_secs(3600)), "who tries again is told");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn what_fails_is_told_by_kind() {
    let mut world = World::new();
    stock(&world, b"layer");
    let missing = error(world.pull("app:2").await);
    assert_eq!(missing.kind, PullErrorKind::NotFound);
    assert!(missing.message.contains("404: manifest unknown"), "{missing}");
    world.server.fault(|_| Some(Reply::status(500)));
    assert_eq!(error(world.pull("app:1").await).kind, PullErrorKind::Unreachable);
    world.server.fault(|_| Some(Reply { hang: Duration::from_secs(2), ..Reply::status(200) }));
    let silent = error(world.pull("app:1").await);
    assert_eq!(silent.kind, PullErrorKind::Unreachable, "{silent}");
    world.server.mend();
    world.here.full = true;
    assert_eq!(error(world.pull("app:1").await).kind, PullErrorKind::Exhausted);
    let nobody = error(world.pull_named("127.0.0.1:1/app:1", Vec::new()).await);
    assert_eq!(nobody.kind, PullErrorKind::Unreachable);
    assert!(nobody.message.contains("127.0.0.1:1"), "{nobody}");
}

#[tokio::test]
async fn one_that_speaks_no_tls_is_only_spoken_with_where_that_is_allowed() {
    let mut world = World::new();
    stock(&world, b"layer");
    // A name that is not of this very host, and leads here all the same.
    let port = world.server.address.rsplit(':').next().unwrap().to_owned();
    let name = format!("0.0.0.0:{port}");
    let refused = error(world.pull_named(&format!("{name}/app:1"), Vec::new()).await);
    assert!(refused.message.contains("insecure_registries"), "{refused}");
    world.options.insecure.insert(name.clone());
    assert_eq!(
        contents(world.pull_named(&format!("{name}/app:1"), Vec::new()).await.unwrap()),
        [Some(b"layer".to_vec())]
    );
}
