//! Datasets that a pod administers itself: those that somebody gave it, which outlive it.

use crate::support::{World, played};
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{Brand, HostErrorKind, Sandboxes};
use reddwarf_hostsim::state::ZoneState;

fn with(world: &World, dataset: &str) -> SandboxSpec {
    SandboxSpec { datasets: [dataset.to_owned()].into(), ..world.sandbox() }
}

#[test]
fn a_pod_administers_what_it_was_given_and_nothing_else() {
    played(|world| async move {
        let zfs = |args: &[&str]| {
            let said = world.lab.run("zfs", args).unwrap();
            assert_eq!(said.code, 0, "{said:?}");
        };
        let _ = reddwarf_host::Network::network_ensure(&world.host, &world.network()).await.unwrap();
        let spec = with(&world, "rpool/data/web");
        let id = &spec.id;
        let pod = format!("{}/{}", spec.pod.namespace, spec.pod.name);
        let refused = async |spec: &SandboxSpec, why: &str| {
            let error = world.host.sandbox_ensure(spec).await.unwrap_err();
            assert_eq!(error.kind, HostErrorKind::InvalidSpec, "{error}");
            assert!(error.to_string().contains(why), "{error}");
        };
        refused(&spec, "there is no filesystem rpool/data/web: zfs create rpool/data/web").await;
        zfs(&["create", "-p", "rpool/data/web"]);
        let mend = format!("rpool/data/web is not this pod's to use: zfs set io.reddwarf:dataset={pod} rpool/data/web");
        refused(&spec, &mend).await;
        zfs(&["set", "io.reddwarf:dataset=test/another", "rpool/data/web"]);
        refused(&spec, &mend).await;
        // What is inherited was given to nobody.
        zfs(&["inherit", "io.reddwarf:dataset", "rpool/data/web"]);
        zfs(&["set", &format!("io.reddwarf:dataset={pod}"), "rpool/data"]);
        refused(&spec, &mend).await;
        refused(&with(&world, "rpool/data/web\nset limitpriv=all"), r#"dataset "rpool/data/web\nset limitpriv=all": "#)
            .await;
        let machine = SandboxSpec { brand: Brand::new("bhyve").unwrap(), ..with(&world, "rpool/data/web") };
        refused(&machine, "a zone of brand bhyve has no zfs(8)").await;

        zfs(&["set", &format!("io.reddwarf:dataset={pod}"), "rpool/data/web"]);
        refused(&spec, "rpool/data/web inherits its mountpoint, which no zone takes: zfs set mountpoint=/").await;
        let place = world.lab.dir().join("root/data/web");
        zfs(&["set", &format!("mountpoint={}", place.display()), "rpool/data/web"]);
        let _ = world.host.sandbox_ensure(&spec).await.unwrap();
        let zone = world.lab.state().unwrap().zones[id.as_str()].clone();
        assert_eq!(zone.state, ZoneState::Running);
        let given: Vec<_> = zone.config.all("dataset").map(|d| d.get("name").to_owned()).collect();
        assert_eq!(given, ["rpool/data/web"]);
        assert_eq!(world.host.sandbox_ensure(&spec).await.unwrap(), reddwarf_host::Change::Unchanged);

        // Nor is ours given away, whatever is written on it.
        let datasets = world.lab.state().unwrap().datasets;
        let (own, _) = datasets.iter().find(|(_, d)| d.local.contains_key("io.reddwarf:owner")).unwrap();
        zfs(&["set", &format!("io.reddwarf:dataset={pod}"), own]);
        refused(&with(&world, own), &format!("{own} is reddwarfd's own")).await;

        // Nor what would go with a zone of ours, or take all of ours along.
        let below = format!("{}/zones/{id}/data", world.options.dataset);
        zfs(&["create", "-p", &below]);
        for near in [below.as_str(), "rpool"] {
            zfs(&["set", &format!("io.reddwarf:dataset={pod}"), near]);
            refused(&with(&world, near), &format!("{near} is not apart from reddwarfd's own")).await;
        }
        zfs(&["inherit", "io.reddwarf:dataset", "rpool"]);

        // It is the administrator's: the pod goes, what it kept stays.
        let _ = world.host.sandbox_destroy(id).await.unwrap();
        let state = world.lab.state().unwrap();
        assert!(state.datasets.contains_key("rpool/data/web") && !state.zones.contains_key(id.as_str()));
    });
}
