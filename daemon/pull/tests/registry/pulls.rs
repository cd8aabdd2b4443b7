//! Pulls that go well.

use super::{World, contents, digest};
use reddwarf_pull::{Endpoint, Pulled};
use serde_json::json;

fn amd64() -> serde_json::Value {
    json!({ "os": "linux", "architecture": "amd64" })
}

#[tokio::test]
async fn an_index_leads_to_this_hosts_image_and_every_layer_comes_once() {
    let world = World::new();
    let (a, b) = (vec![1u8; 300_000], vec![2u8; 10]);
    let ours = world.server.image(&[&a, &b, &a], amd64());
    let other = world.server.image(&[b"arm"], json!({ "os": "linux", "architecture": "arm64" }));
    let index = world.server.manifest(&json!({ "schemaVersion": 2, "manifests": [other, ours] }), json!({}));
    let top = world.server.tag("1", &index);
    let pulled = world.pull("team/app:1").await.unwrap();
    let Pulled::Fetched(image) = &pulled else { panic!() };
    assert_eq!(image.repo_digest, format!("{}/team/app@{top}", world.server.address));
    assert_eq!(image.layers[1].diff_id, digest(&b));
    assert_eq!(contents(pulled), [Some(a.clone()), Some(b.clone()), Some(a.clone())]);
    let asked = world.server.asked();
    let blobs = asked.iter().filter(|r| r.path.contains(&digest(&a))).count();
    assert_eq!(blobs, 1);
    assert!(asked.iter().all(|r| r.path.starts_with("/v2/team/app/")), "{asked:?}");
    assert!(world.left().is_empty(), "blobs stay after they were unpacked: {:?}", world.left());
}

#[tokio::test]
async fn what_is_here_is_not_fetched() {
    let mut world = World::new();
    let image = world.server.image(&[b"below", b"above"], amd64());
    let top = world.server.tag("1", &image);
    world.here.diff_ids = vec![digest(b"below")];
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [None, Some(b"above".to_vec())]);
    // All of it is here: one HEAD says so.
    let _ = world.server.asked();
    world.here.digests = vec![format!("{}/app@{top}", world.server.address)];
    assert!(matches!(world.pull("app:1").await.unwrap(), Pulled::Same { .. }));
    let asked = world.server.asked();
    assert!(asked.len() == 1 && asked[0].method == "HEAD", "{asked:?}");
    // By digest not even that.
    assert!(matches!(world.pull(&format!("app@{top}")).await.unwrap(), Pulled::Same { .. }));
    assert!(world.server.asked().is_empty());
}

#[tokio::test]
async fn mirrors_are_asked_first_and_passed_over_when_they_fail() {
    let mut world = World::new();
    let image = world.server.image(&[b"layer"], amd64());
    world.server.tag("1", &image);
    let dead = Endpoint::parse("http://127.0.0.1:1").unwrap();
    let mirror = Endpoint::parse(&format!("http://{}", world.server.address)).unwrap();
    world.options.mirrors.insert("quay.test".into(), vec![dead, mirror]);
    let pulled = world.pull_named("quay.test/team/app:1", Vec::new()).await.unwrap();
    let Pulled::Fetched(image) = &pulled else { panic!() };
    assert!(image.repo_digest.starts_with("quay.test/team/app@sha256:"), "{}", image.repo_digest);
    assert_eq!(contents(pulled), [Some(b"layer".to_vec())]);
}

#[tokio::test]
async fn two_pulls_of_one_layer_fetch_it_once() {
    use reddwarf_host::{ImageReference, PullProgress, PullRequest};
    let world = World::new();
    let big = vec![9u8; 3_000_000];
    for (tag, own) in [("1", b"one"), ("2", b"two")] {
        let image = world.server.image(&[&big, own], amd64());
        world.server.tag(tag, &image);
    }
    let platform = reddwarf_pull::Platform::new("linux", "amd64");
    let puller = reddwarf_pull::Puller::new(world.options.clone(), platform, world.blobs());
    let pull = |tag: &str| {
        let reference = ImageReference::parse(&format!("{}/app:{tag}", world.server.address)).unwrap();
        let (puller, here) = (&puller, &world.here);
        async move {
            let progress = tokio::sync::watch::Sender::new(PullProgress::default());
            let pulled = puller.pull(&PullRequest { reference, secrets: Vec::new() }, here, &progress).await.unwrap();
            (pulled, *progress.borrow())
        }
    };
    let ((one, told), (two, _)) = tokio::join!(pull("1"), pull("2"));
    assert_eq!((told.bytes_done, told.bytes_total), (3_000_003, 3_000_003));
    assert_eq!(contents(one)[0], Some(big.clone()));
    assert_eq!(contents(two)[0], Some(big.clone()));
    let asked = world.server.asked();
    assert_eq!(asked.iter().filter(|r| r.path.contains(&digest(&big))).count(), 1);
    assert!(world.left().is_empty(), "{:?}", world.left());
}
