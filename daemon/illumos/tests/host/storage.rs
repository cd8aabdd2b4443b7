//! Volumes on illumos are the ZFS engine's: it keeps its contract on illumos' zfs(8) as it is played.

use crate::support::{World, played};
use async_trait::async_trait;
use reddwarf_command::Tools;
use reddwarf_host::contract::storage::{StorageFixture, suite};
use reddwarf_host::spec::VolumeSpec;
use reddwarf_host::{
    DatasetId, DatasetName, DatasetSpec, HostErrorKind, Network, Sandboxes, SnapshotName, StorageEngine, VolumeName,
};
use reddwarf_storage::zfs::ZfsEngine;
use reddwarf_storage::zfs::text::Dataset;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

struct OnIllumos {
    world: Arc<World>,
    engine: Arc<dyn StorageEngine>,
}

async fn open(world: &World) -> Arc<dyn StorageEngine> {
    let tools = Tools::only_in(&world.lab.tools()).unwrap();
    let place = Dataset::new("rpool/reddwarf").unwrap();
    Arc::new(ZfsEngine::open(place, BTreeMap::new(), tools, "a test").await.unwrap())
}

#[async_trait]
impl StorageFixture for OnIllumos {
    fn engine(&self) -> Arc<dyn StorageEngine> {
        self.engine.clone()
    }
    async fn restart(&self) -> Arc<dyn StorageEngine> {
        open(&self.world).await
    }
    /// There are, but directories of this machine keep no quotas.
    fn files(&self) -> bool {
        false
    }
    async fn plant_foreign(&self, id: &DatasetId) -> bool {
        let name = format!("rpool/reddwarf/{}/{}", id.area, id.name);
        self.world.lab.run("zfs", &["create", &name]).unwrap().code == 0
    }
    fn scratch(&self) -> PathBuf {
        let dir = self.world.dir.path().join("scratch");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }
}

/// zoneadm(8) boots no zone with a lofs of what is mounted by NFS: that is the pod's to change, and not tried again and again.
#[test]
fn a_volume_on_nfs_is_refused_with_a_sentence() {
    played(|world| async move {
        let _ = world.host.network_ensure(&world.network()).await.unwrap();
        let path = world.dir.path().join("remote/data");
        std::fs::create_dir_all(&path).unwrap();
        let mut sandbox = world.sandbox();
        sandbox.volumes.insert(VolumeName::new("data").unwrap(), VolumeSpec::Persistent { path });
        world.lab.change(|state| state.nfs.insert(world.dir.path().join("remote"))).unwrap();
        let error = world.host.sandbox_ensure(&sandbox).await.unwrap_err();
        assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{}", error.chain());
        assert!(error.to_string().contains("a volume of it lies on NFS"), "{error}");
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
    });
}

#[test]
fn the_zfs_engine_keeps_its_contract_on_illumos() {
    played(|world| async move {
        let engine = open(&world).await;
        suite(&OnIllumos { world: world.clone(), engine: engine.clone() }).await;
        // What is sent arrives, whole and since then.
        let volume = |name: &str| DatasetId::volume(DatasetName::new(name).unwrap());
        let snapshot = |of: &DatasetId, name: &str| of.at(SnapshotName::new(name).unwrap());
        let spec = DatasetSpec { marks: BTreeMap::from([("owner".to_owned(), "me".to_owned())]), ..Default::default() };
        let (from, to) = (volume("from"), volume("to"));
        let _ = engine.create(&from, &spec).await.unwrap();
        let page = |id: &DatasetId| engine.data(id).join("page");
        for (at, text, since) in [("one", "first", None), ("two", "second", Some(SnapshotName::new("one").unwrap()))] {
            std::fs::write(page(&from), text).unwrap();
            let _ = engine.snapshot(&snapshot(&from, at)).await.unwrap();
            let file = world.dir.path().join(at);
            assert!(engine.send(&snapshot(&from, at), since.as_ref(), &file).await.unwrap() > 56);
            let _ = engine.receive(&file, &snapshot(&to, at), &spec).await.unwrap();
            assert_eq!(std::fs::read_to_string(page(&to)).unwrap(), text);
        }
        let found = engine.list().await.unwrap();
        assert_eq!(found[&to].snapshots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    });
}

/// Zonepaths are where their dataset is mounted: one that somebody moved, or that is not mounted, is told and not written beside.
#[test]
fn datasets_that_are_mounted_elsewhere_are_told() {
    played(|world| async move {
        let zfs = |args: &[&str]| assert_eq!(world.lab.run("zfs", args).unwrap().code, 0, "{args:?}");
        let sandbox = world.running().await;
        let _ = world.host.sandbox_stop(&sandbox.id).await.unwrap();
        let _ = world.host.sandbox_destroy(&sandbox.id).await.unwrap();
        let zones = format!("{}/zones", world.options.dataset);
        let template = world.lab.state().unwrap().zones.keys().next().unwrap().clone();
        for args in [["-z", template.as_str(), "uninstall", "-F"], ["-z", template.as_str(), "delete", "-F"]] {
            let tool = if args[2] == "delete" { "zonecfg" } else { "zoneadm" };
            assert_eq!(world.lab.run(tool, &args).unwrap().code, 0);
        }
        let place = world.options.state_dir.join("pool/zones");
        let elsewhere = format!("mountpoint={}", world.lab.dir().join("root/elsewhere").display());
        zfs(&["set", &elsewhere, &zones]);
        let refused = world.second_daemon().sandbox_ensure(&sandbox).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("zfs set mountpoint={}", place.display())), "{refused}");
        assert!(world.lab.state().unwrap().zones.is_empty());
        zfs(&["set", &format!("mountpoint={}", place.display()), &zones]);
        let _ = world.second_daemon().sandbox_ensure(&sandbox).await.unwrap();
        let zone = world.lab.state().unwrap().zones.remove(sandbox.id.as_str()).unwrap();
        assert_eq!(zone.config.zonepath(), place.join(sandbox.id.as_str()));
    });
}
