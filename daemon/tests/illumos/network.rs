//! How pods are linked: on a link of the administrator's, in a VLAN.

use crate::harness::{FOREVER, World, script, skip};

#[test]
fn pods_are_put_on_a_nic_and_into_a_vlan_of_the_settings() {
    if skip() {
        return;
    }
    let mut world = World::new("direct").args(&["--zone-nic", "net0", "--zone-vlan", "7"]);
    world.start();
    world.file("a.yaml", &script("a", FOREVER));
    let ip = world.ready("a")["status"]["podIP"].as_str().unwrap().to_owned();
    let state = world.state();
    assert!(state.links.values().all(|l| l.class != "etherstub"), "{:?}", state.links);
    let (_, zone) = world.zone("a");
    let net = zone.config.all("net").next().unwrap();
    assert!(net.get("allowed-address").starts_with(&ip), "{net:?}");
    let gateway = state.links.keys().find(|l| l.starts_with("rwgw")).unwrap();
    // The default router is where the pods are.
    for link in [net.get("physical"), gateway] {
        let link = &state.links[link];
        assert_eq!((link.over.as_str(), link.vid), ("net0", 7), "{link:?}");
    }
    // Whoever runs the tests may have variables of their own that mean nothing to the daemon.
    assert!(!world.log().contains("REDDWARF_TOOLS"), "it is known: {}", world.log());

    // Another VLAN: the next start moves the gateway, pods that are made then follow.
    world.stop();
    let mut world = world.args(&["--zone-nic", "net0", "--zone-vlan", "8"]);
    world.start();
    world.until("the gateway in the other VLAN", |w| {
        w.state().links.iter().any(|(n, l)| n == gateway && l.vid == 8).then_some(())
    });
    world.file("b.yaml", &script("b", FOREVER));
    world.ready("b");
    let vlan = |pod: &str| world.state().links[world.zone(pod).1.config.all("net").next().unwrap().get("physical")].vid;
    assert_eq!((vlan("a"), vlan("b")), (7, 8));
    for name in ["a", "b"] {
        world.remove(&format!("{name}.yaml"));
        world.gone(name);
    }
    world.no_traces();
}
