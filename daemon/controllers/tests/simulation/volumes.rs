//! Claims and volumes under random orders and failures of the host's part.

use crate::world::World;
use reddwarf_objects::Object;
use reddwarf_registry::{Author, DeleteOptions};
use serde_json::{Value, json};

fn claim(name: &str, more: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// No two claims have one volume, and nothing is destroyed whose claim is there or that is to be retained.
fn sound(world: &World) {
    let claims = world.list("pvc");
    let made = world.storage.volumes.lock().unwrap();
    for volume in world.list("pv") {
        let holder: Vec<_> = claims.iter().filter(|c| c.get_str("/spec/volumeName") == Some(volume.name())).collect();
        assert!(holder.len() <= 1, "{}", volume.name());
        let Some(handle) = volume.get_str("/spec/csi/volumeHandle") else { continue };
        let bound = holder.iter().any(|c| c.get_str("/status/phase") == Some("Bound"));
        let retained = volume.get_str("/spec/persistentVolumeReclaimPolicy") == Some("Retain");
        assert!(made.contains_key(handle) || !(bound || retained), "the data of {} is gone", volume.name());
    }
}

#[tokio::test]
async fn volumes_are_made_grown_and_destroyed_through_every_failure() {
    for seed in 0..12 {
        let mut world = World::new(seed).await;
        world.check = Some(Box::new(sound));
        *world.storage.failures.lock().unwrap() = u32::try_from(seed % 5).unwrap();
        for n in 0..3 {
            world.create(claim(&format!("c{n}"), json!({}))).await;
        }
        world.settle(120).await;
        for n in 0..3 {
            assert_eq!(world.get("pvc", &format!("c{n}")).get_str("/status/phase"), Some("Bound"), "seed {seed}");
        }
        assert_eq!(world.storage.volumes.lock().unwrap().len(), 3, "one each, however often it was tried");
        *world.storage.failures.lock().unwrap() = u32::try_from(seed % 3).unwrap();
        world.patch("pvc", "c0", json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}})).await;
        world.settle(120).await;
        assert_eq!(world.get("pvc", "c0").get_str("/status/capacity/storage"), Some("2Gi"));
        let volume = world.get("pvc", "c1").get_str("/spec/volumeName").unwrap().to_owned();
        world.patch("pv", &volume, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
        *world.storage.failures.lock().unwrap() = u32::try_from(seed % 4).unwrap();
        for n in 0..3 {
            world.delete("pvc", &format!("c{n}"), None).await;
        }
        world.settle(120).await;
        assert!(world.names("pvc").is_empty());
        assert_eq!(world.names("pv"), std::slice::from_ref(&volume), "what is to be retained is");
        assert_eq!(world.get("pv", &volume).get_str("/status/phase"), Some("Released"));
        assert_eq!(world.storage.volumes.lock().unwrap().keys().cloned().collect::<Vec<_>>(), [volume]);
    }
}

#[tokio::test]
async fn two_claims_never_get_one_volume_and_a_deleted_claim_takes_along_what_was_begun() {
    for seed in 0..12 {
        let mut world = World::new(seed).await;
        world.check = Some(Box::new(sound));
        for n in 0..2 {
            world.create(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("v{n}")}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "manual",
                "hostPath": {"path": "/x"}}})).await;
        }
        for n in 0..4 {
            world.create(claim(&format!("c{n}"), json!({"storageClassName": "manual"}))).await;
        }
        world.settle(60).await;
        let bound = world.list("pvc").iter().filter(|c| c.get_str("/status/phase") == Some("Bound")).count();
        assert_eq!(bound, 2, "seed {seed}");
        // Made by the host, never stored: the answer was lost every time.
        *world.storage.failures.lock().unwrap() = 1000;
        world.create(claim("lost", json!({}))).await;
        world.settle(30).await;
        world.delete("pvc", "lost", None).await;
        *world.storage.failures.lock().unwrap() = 0;
        world.settle(2000).await;
        assert!(!world.names("pvc").contains(&"lost".to_owned()));
        assert!(world.storage.volumes.lock().unwrap().is_empty(), "nothing is left of it");
    }
}

/// A volume of ours that somebody set aside for a claim, with files in it.
async fn set_aside(world: &mut World, claim: &str, modes: Value) {
    let name = format!("default-{claim}");
    world.storage.volumes.lock().unwrap().insert(name.clone(), 1 << 20);
    world
        .create(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Mi"}, "accessModes": modes, "storageClassName": "standard",
        "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "volumes.reddwarf.io", "volumeHandle": name},
        "claimRef": {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "default", "name": claim}}}))
        .await;
}

#[tokio::test]
async fn a_claim_gets_what_was_set_aside_for_it_or_nothing() {
    for seed in 0..12 {
        let mut world = World::new(seed).await;
        world.check = Some(Box::new(sound));
        set_aside(&mut world, "restored", json!(["ReadWriteOnce"])).await;
        set_aside(&mut world, "named", json!(["ReadWriteOnce"])).await;
        set_aside(&mut world, "odd", json!(["ReadOnlyMany"])).await;
        *world.storage.failures.lock().unwrap() = u32::try_from(seed % 5).unwrap();
        world.create(claim("restored", json!({}))).await;
        world.create(claim("named", json!({"volumeName": "default-named"}))).await;
        world.create(claim("odd", json!({}))).await;
        world.create(claim("lonely", json!({"volumeName": "nowhere"}))).await;
        world.settle(120).await;
        let phase = |world: &World, name: &str| world.get("pvc", name).get_str("/status/phase").map(str::to_owned);
        for name in ["restored", "named"] {
            let (claim, volume) = (world.get("pvc", name), world.get("pv", &format!("default-{name}")));
            assert_eq!(claim.get_str("/spec/volumeName"), Some(volume.name()), "seed {seed}: {name}");
            assert_eq!(claim.get_str("/status/capacity/storage"), Some("1Gi"));
            assert_eq!(volume.get_str("/spec/capacity/storage"), Some("1Gi"));
            assert_eq!(world.storage.volumes.lock().unwrap()[volume.name()], 1 << 30, "it was grown");
        }
        for (name, reason, part) in [
            ("odd", "VolumeMismatch", "set aside for this claim: incompatible accessMode"),
            ("lonely", "FailedBinding", "\"nowhere\""),
        ] {
            assert_ne!(phase(&world, name).as_deref(), Some("Bound"), "seed {seed}: {name}");
            let events = world.list("events");
            let said = events.iter().find(|e| e.get_str("/involvedObject/name") == Some(name)).expect(name);
            assert_eq!(said.get_str("/reason"), Some(reason));
            assert!(said.get_str("/message").unwrap().contains(part), "{said:?}");
        }
        assert_eq!(world.storage.volumes.lock().unwrap().len(), 3, "no other one was made");
        // Whoever takes the volume away says that the claim may have another one.
        world.delete("pv", "default-odd", None).await;
        world.settle(120).await;
        assert_eq!(phase(&world, "odd").as_deref(), Some("Bound"), "seed {seed}");
    }
}

/// A world with the claim `c`, and the name of the volume that it is bound to.
async fn bound(seed: u64) -> (World, String) {
    let mut world = World::new(seed).await;
    world.check = Some(Box::new(sound));
    world.create(claim("c", json!({}))).await;
    world.settle(60).await;
    let original = world.get("pvc", "c").get_str("/spec/volumeName").unwrap().to_owned();
    (world, original)
}

/// Another PersistentVolume of the same data.
fn copy(of: &Object, name: &str, change: Value) -> Value {
    let mut value =
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": of.get("/spec")});
    for (key, to) in change.as_object().into_iter().flatten() {
        value["spec"][key] = to.clone();
    }
    value
}

/// The phase of a volume and what it says.
fn shown(world: &World, volume: &str) -> (String, String) {
    let volume = world.get("pv", volume);
    let text = |pointer: &str| volume.get_str(pointer).unwrap_or_default().to_owned();
    (text("/status/phase"), text("/status/message"))
}

#[tokio::test]
async fn a_copied_volume_does_not_take_its_originals_data_along() {
    for seed in 0..12 {
        let (mut world, original) = bound(seed).await;
        world.create(copy(&world.get("pv", &original), "copy", json!({}))).await;
        world.settle(60).await;
        let (phase, message) = shown(&world, "copy");
        assert_eq!(phase, "Failed", "seed {seed}");
        assert!(message.contains(&original), "{message}");
        // A retained one is kept from its copy, too, when the claim goes.
        world.patch("pv", &original, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
        world.delete("pvc", "c", None).await;
        world.settle(600).await;
        let (phase, message) = shown(&world, "copy");
        assert_eq!(phase, "Failed");
        assert!(message.starts_with("nothing is destroyed") && message.contains(&original), "{message}");
        assert_eq!(world.storage.volumes.lock().unwrap().len(), 1);
        // The copy can go, and its going destroys nothing.
        world.delete("pv", "copy", None).await;
        world.settle(60).await;
        assert_eq!(world.names("pv"), [original]);
        assert_eq!(world.storage.volumes.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_another_volume_or_a_claim_has_is_not_destroyed() {
    for seed in 0..12 {
        let (mut world, original) = bound(seed).await;
        world.patch("pv", &original, json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}})).await;
        let gone = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "default", "name": "former", "uid": "former"});
        let change = json!({"claimRef": gone, "persistentVolumeReclaimPolicy": "Delete"});
        world.create(copy(&world.get("pv", &original), "other", change)).await;
        world.settle(600).await;
        assert_eq!(shown(&world, "other").0, "Failed", "seed {seed}");
        // Without its PersistentVolume, the claim is lost but there: what was made for it is its own.
        world.patch("pv", &original, json!({"metadata": {"finalizers": null}})).await;
        world.delete("pv", &original, None).await;
        world.settle(600).await;
        let (_, message) = shown(&world, "other");
        assert!(message.contains("claim default/c"), "seed {seed}: {message}");
        assert_eq!(world.storage.volumes.lock().unwrap().len(), 1);
        // When that has gone as well, nobody has it.
        world.delete("pvc", "c", None).await;
        world.settle(2000).await;
        assert!(world.names("pv").is_empty() && world.storage.volumes.lock().unwrap().is_empty(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_claim_that_goes_takes_along_nothing_that_was_written_to() {
    for seed in 0..12 {
        let mut world = World::new(seed).await;
        world.create(claim("c", json!({}))).await;
        world.settle(60).await;
        let volume = world.get("pvc", "c").get_str("/spec/volumeName").unwrap().to_owned();
        world.storage.written.lock().unwrap().insert(volume.clone());
        // As after an older store came back: there is no PersistentVolume, and the claim does not know that it had one.
        world.engine.list(std::time::Duration::ZERO).unwrap();
        let key = world.key("pv", &volume);
        let system = Author::System("restore");
        world.registry.modify(&system, &key, |v| v.set("/metadata/finalizers", Value::Null)).await.unwrap();
        world.registry.delete(&system, &key, &DeleteOptions::default()).await.unwrap();
        let key = world.key("pvc", "c");
        world.registry.modify(&system, &key, |c| c.remove_annotation("pv.kubernetes.io/bind-completed")).await.unwrap();
        world.delete("pvc", "c", None).await;
        world.settle(600).await;
        assert!(world.names("pvc").is_empty(), "seed {seed}");
        assert!(world.storage.volumes.lock().unwrap().contains_key(&volume), "seed {seed}: it was destroyed");
        let events = world.list("events");
        let said = events.iter().find(|e| e.get_str("/reason") == Some("VolumeKept")).expect("it says so");
        assert!(said.get_str("/message").unwrap().contains(&volume), "{said:?}");
    }
}

fn said_of(world: &World, name: &str) -> Vec<(String, String)> {
    let text = |e: &Object, pointer: &str| e.get_str(pointer).unwrap_or_default().to_owned();
    let events = world.list("events");
    let of = events.iter().filter(|e| e.get_str("/involvedObject/name") == Some(name));
    of.map(|e| (text(e, "/reason"), text(e, "/message"))).collect()
}

#[tokio::test]
async fn a_claim_that_chooses_by_labels_waits_for_a_volume_that_has_them() {
    for seed in 0..12 {
        let mut world = World::new(seed).await;
        world.check = Some(Box::new(sound));
        world.create(claim("picky", json!({"selector": {"matchLabels": {"disk": "fast"}}}))).await;
        world.settle(600).await;
        assert!(world.storage.volumes.lock().unwrap().is_empty(), "seed {seed}: none was made");
        let said = said_of(&world, "picky");
        assert!(said.iter().any(|(r, m)| r == "ProvisioningFailed" && m.contains("Selector")), "{said:?}");
        // It is there to read when the event is not any more, and it is written once.
        let why = world.get("pvc", "picky").condition("reddwarf.io/Provisioned").unwrap().clone();
        assert_eq!((why["status"].as_str(), why["reason"].as_str()), (Some("False"), Some("ProvisioningFailed")));
        assert!(why["message"].as_str().unwrap().contains("Selector"), "{why}");
        world.writes_nothing_more().await;
        let volume = |name: &str, label: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name, "labels": {"disk": label}}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "standard",
                "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/x"}}})
        };
        world.create(volume("slow", "slow")).await;
        world.create(volume("fast", "fast")).await;
        world.settle(60).await;
        let bound = world.get("pvc", "picky");
        assert_eq!(bound.get_str("/spec/volumeName"), Some("fast"), "seed {seed}");
        assert!(bound.condition("reddwarf.io/Provisioned").is_none(), "it waits no more");
    }
}

#[tokio::test]
async fn a_class_whose_options_can_not_be_kept_makes_no_volume() {
    let mut world = World::new(1).await;
    world
        .create(json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "strict"},
            "provisioner": "reddwarf.io/volumes", "mountOptions": ["noexec"]}))
        .await;
    world.create(claim("c", json!({"storageClassName": "strict"}))).await;
    world.settle(600).await;
    assert!(world.storage.volumes.lock().unwrap().is_empty());
    let said = said_of(&world, "c");
    assert!(said.iter().any(|(r, m)| r == "ProvisioningFailed" && m.contains("mountOptions")), "{said:?}");
}
