//! Claims and volumes under random orders and failures of the host's part.

use crate::world::World;
use serde_json::{Value, json};

fn claim(name: &str, more: Value) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// No two claims have one volume, and nothing is destroyed whose claim is there.
fn sound(world: &World) {
    let claims = world.list("pvc");
    for volume in world.list("pv") {
        let holders = claims.iter().filter(|c| c.get_str("/spec/volumeName") == Some(volume.name()));
        assert!(holders.count() <= 1, "{}", volume.name());
    }
    let made = world.storage.volumes.lock().unwrap();
    for claim in claims.iter().filter(|c| c.get_str("/status/phase") == Some("Bound")) {
        let volume = claim.get_str("/spec/volumeName").unwrap_or_default();
        if volume.starts_with("pvc-") {
            assert!(made.contains_key(volume), "the data of {} is gone", claim.name());
        }
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
