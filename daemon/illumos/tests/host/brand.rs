//! Zones of our own brand, from its real files in `smf/brand`: installed by its script, mounted by its platform.xml, with our
//! program as init.

use crate::support::{World, played};
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{Brand, ContainerState, Network, Sandboxes};
use reddwarf_hostsim::state::ZoneState;
use std::path::Path;

/// A host that has the brand, and a sandbox of it.
async fn of_brand(world: &World) -> (reddwarf_illumos::IllumosHost, SandboxSpec) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../smf/brand");
    world.lab.add_brand("reddwarf", &files).unwrap();
    let host = world.second_daemon();
    let _ = host.network_ensure(&world.network()).await.unwrap();
    let sandbox = SandboxSpec { brand: Brand::new("reddwarf").unwrap(), ..world.sandbox() };
    (host, sandbox)
}

#[test]
fn a_zone_of_our_brand_has_our_init_and_its_addresses_and_nothing_else() {
    played(|world| async move {
        let (host, sandbox) = of_brand(&world).await;
        let id = &sandbox.id;
        let _ = host.sandbox_ensure(&sandbox).await.unwrap();
        let zone = world.lab.state().unwrap().zones.remove(id.as_str()).unwrap();
        assert_eq!((zone.state, zone.config.global("brand")), (ZoneState::Running, "reddwarf"));
        let inside = |script: &str| world.lab.run("zlogin", &["-S", id.as_str(), script]).unwrap();
        assert_eq!(inside("cat /etc/svc/volatile/reddwarf-init").out, "up\n");
        // Loopback by init, the pod's own by ipmgmtd as the configuration allows it.
        let link = zone.config.all("net").next().unwrap().get("physical").to_owned();
        let addresses = inside("/.hostsim/bin/ipadm show-addr -p -o addrobj,addr").out;
        let wanted = format!("lo0/v4:127.0.0.1/8\nlo0/v6:\\:\\:1/128\n{link}/_0:10.213.0.2/24\n");
        assert_eq!(addresses, wanted);
        // The host's own programs run; of the host's users nothing is there.
        let said = world.shell(&sandbox, "app", "read l </etc/shadow; echo \"$l\"; exit 7");
        let _ = host.container_start(id, &said).await.unwrap();
        let ended = crate::common::until_exit(&host, id, &said.name).await;
        assert!(matches!(ended.state, ContainerState::Exited { code: 7, .. }), "{:?}", ended.state);
        let log = std::fs::read_to_string(&said.log.path).unwrap();
        assert!(log.trim_end().ends_with("root:*LK*:::::::"), "{log}");
        // All that goes in does so without su(8).
        for line in world.lab.transcript().unwrap().iter().filter(|l| l.tool == "zlogin") {
            assert!(line.argv.contains(&"-S".to_owned()), "{:?}", line.argv);
        }

        // What loses its parent is init's, and gone once it ends.
        let orphan = world.shell(&sandbox, "orphan", "(sleep 0.2 &) ; exit 0");
        let _ = host.container_start(id, &orphan).await.unwrap();
        let _ = crate::common::until_exit(&host, id, &orphan.name).await;

        // As svc:/system/zones stops the zones of a machine that goes down: what runs is asked to end.
        let asked =
            world.shell(&sandbox, "asked", "trap 'echo ended; exit 3' TERM; echo up; while :; do sleep 0.05; done");
        let _ = host.container_start(id, &asked).await.unwrap();
        while !std::fs::read_to_string(&asked.log.path).unwrap_or_default().contains("up") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let answer = world.lab.run("zoneadm", &["-z", id.as_str(), "shutdown"]).unwrap();
        assert_eq!(answer.code, 0, "{answer:?}");
        assert_eq!(world.lab.state().unwrap().zones[id.as_str()].state, ZoneState::Installed);
        let log = std::fs::read_to_string(&asked.log.path).unwrap();
        assert!(log.contains("ended"), "{log}");

        // It boots again, with what ipmgmtd knew from before.
        let _ = host.sandbox_ensure(&sandbox).await.unwrap();
        assert_eq!(inside("cat /etc/svc/volatile/reddwarf-init").out, "up\n");
        let _ = host.sandbox_stop(id).await.unwrap();
        let _ = host.sandbox_destroy(id).await.unwrap();
        assert!(!world.lab.state().unwrap().zones.contains_key(id.as_str()));
    });
}

/// An update of the daemon is the next zones' init too, whatever else stays as it is.
#[test]
fn an_updated_program_is_init_too() {
    played(|world| async move {
        use std::os::unix::fs::MetadataExt;
        let bin = world.options.state_dir.join("bin");
        let ino = |name: &str| bin.join(name).metadata().unwrap().ino();
        assert_eq!(ino("init"), ino("reddwarfd"));
        // As many bytes, another file.
        std::fs::copy(bin.join("reddwarfd"), bin.join("next")).unwrap();
        std::fs::rename(bin.join("next"), bin.join("reddwarfd")).unwrap();
        assert_ne!(ino("init"), ino("reddwarfd"));
        let _ = world.second_daemon();
        assert_eq!(ino("init"), ino("reddwarfd"));
    });
}

/// An init that can't do its work says why, and the sandbox is not called ready.
#[test]
fn what_keeps_init_from_its_work_is_told() {
    played(|world| async move {
        let (host, sandbox) = of_brand(&world).await;
        let _ = host.sandbox_ensure(&sandbox).await.unwrap();
        // The next zone's root is a clone of this one.
        let template = world.lab.state().unwrap().zones.into_iter().find(|(n, _)| n.contains("-golden-")).unwrap().1;
        std::os::unix::fs::chown(template.config.zonepath().join("root/etc/ipadm/ipadm.conf"), Some(0), Some(0))
            .unwrap();
        let second = SandboxSpec { brand: sandbox.brand.clone(), ..world.sandbox() };
        let refused = host.sandbox_ensure(&second).await.unwrap_err();
        assert!(refused.to_string().contains("the zone's init: /lib/inet/ipmgmtd"), "{refused}");
        assert!(refused.to_string().contains("Permission denied"), "{refused}");
        for id in [&sandbox.id, &second.id] {
            let _ = host.sandbox_stop(id).await.unwrap();
            let _ = host.sandbox_destroy(id).await.unwrap();
        }
    });
}

/// Without its files the brand is none of the host's.
#[test]
fn a_host_without_its_files_does_not_offer_it() {
    played(|world| async move {
        let sandbox = SandboxSpec { brand: Brand::new("reddwarf").unwrap(), ..world.sandbox() };
        let refused = world.host.sandbox_ensure(&sandbox).await.unwrap_err();
        assert!(refused.to_string().contains("this host has no zone brand reddwarf"), "{refused}");
    });
}
