//! Tools that hang, fail, lie or print nonsense: one pod's trouble is no other's, and what is not known is not gone.

use crate::harness::{FOREVER, World, is_ready, script, skip};
use reddwarf_hostsim::state::ZoneState;
use std::time::{Duration, Instant};

/// U11: the earlier design had one loop without limits of time.
#[test]
fn u11_a_hung_zoneadm_delays_no_other_pod() {
    if skip() {
        return;
    }
    let world = World::started("hung");
    world.file("warm.yaml", &script("warm", FOREVER));
    world.ready("warm");
    world.lab.faults("zoneadm/default-slow * hang\n").unwrap();
    world.file("slow.yaml", &script("slow", FOREVER));
    world.until("the call that hangs", |w| w.calls().iter().any(|l| l.rc.is_none()).then_some(()));
    let began = Instant::now();
    for name in ["b", "c"] {
        world.file(&format!("{name}.yaml"), &script(name, FOREVER));
    }
    for name in ["b", "c"] {
        world.ready(name);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    world.remove("warm.yaml");
    world.gone("warm");
    assert!(!world.pod("slow").is_some_and(|p| is_ready(&p)));
}

/// Each command of a pod's life fails once, having done nothing, having done it, or claiming that it did: a pod for each.
#[test]
fn what_fails_once_is_done_all_the_same() {
    if skip() {
        return;
    }
    let world = World::started("once");
    world.file("warm.yaml", &script("warm", FOREVER));
    world.ready("warm");
    let before = world.traces();
    let (mut plan, mut pods) = (String::new(), Vec::new());
    let calls = [
        "zonecfg/-f",
        "zoneadm/clone",
        "zoneadm/boot",
        "zfs/create",
        "zoneadm/halt",
        "zoneadm/uninstall",
        "zonecfg/delete",
        "zfs/destroy",
    ];
    for call in calls {
        for action in ["fail-before", "fail-after", "lie"] {
            // The host's own tests tell lies about destructions.
            if (call, action) == ("zfs/destroy", "lie") {
                continue;
            }
            pods.push(format!("p{}", pods.len()));
            plan += &format!("{call}+default-p{}- 1 {action}\n", pods.len() - 1);
        }
    }
    for (call, action) in
        [("zonecfg/export", "truncate 30"), ("zoneadm/boot", "crash-after"), ("zoneadm/boot", "flood 10000000")]
    {
        pods.push(format!("p{}", pods.len()));
        plan += &format!("{call}+default-p{}- 1 {action}\n", pods.len() - 1);
    }
    // Links' names do not tell whose they are: some of all of them.
    for call in ["dladm/create-vnic", "dladm/delete-vnic"] {
        for (which, action) in [(2, "fail-before"), (4, "fail-after")] {
            plan += &format!("{call} {which} {action}\n");
        }
    }
    println!("{plan}");
    world.lab.faults(&plan).unwrap();
    for pod in &pods {
        world.file(&format!("{pod}.yaml"), &script(pod, FOREVER));
    }
    let ready = |w: &World, name: &String| w.pod(name).is_some_and(|p| is_ready(&p));
    world.within(Duration::from_secs(120), "all ready", |w| pods.iter().all(|p| ready(w, p)).then_some(()));
    let named = world.calls().into_iter().filter(|l| l.fault.is_some()).count();
    assert!(named >= 15, "{named} faults before the pods were ready");
    for pod in &pods {
        world.remove(&format!("{pod}.yaml"));
    }
    world.within(Duration::from_secs(120), "all gone", |w| {
        (w.ctl(&["get", "pods", "-o", "name"]).out.lines().count() == 1).then_some(())
    });
    let began = Instant::now();
    while world.traces() != before && began.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(world.traces(), before, "{}", world.log());
    assert!(is_ready(&world.pod("warm").unwrap()));
}

/// Rule 2: unknown is not absent.
#[test]
fn a_list_that_cannot_be_read_removes_nothing() {
    if skip() {
        return;
    }
    let world = World::started("unknown");
    world.file("a.yaml", &script("a", FOREVER));
    world.ready("a");
    let before = world.zone("a").1;
    for plan in [
        "zoneadm/list * truncate 90\n",
        "zoneadm/list * fail-before\n",
        "dladm/show-link * truncate 7\n",
        "dladm/show-vnic * fail-before\n",
        "zoneadm/list * lie\nzonecfg/export * lie\n",
    ] {
        world.lab.forget_transcript().unwrap();
        world.lab.faults(plan).unwrap();
        std::thread::sleep(Duration::from_millis(4500));
        let now = world.zone("a").1;
        assert_eq!((now.state, now.id, now.init), (ZoneState::Running, before.id, before.init), "{plan}");
        let removed = world.calls().into_iter().filter(|l| {
            l.changing
                && ["uninstall", "delete", "halt", "destroy", "delete-vnic"]
                    .iter()
                    .any(|w| l.argv.iter().any(|a| a == w))
        });
        let removed: Vec<_> = removed.map(|l| format!("{} {}", l.tool, l.argv.join(" "))).collect();
        assert!(removed.is_empty(), "{plan}: {removed:?}");
        world.lab.faults("").unwrap();
        world.ready("a");
    }
}

/// Promise 7: what is not ours is left alone, also under a name of ours.
#[test]
fn others_zones_links_and_datasets_are_left_alone() {
    if skip() {
        return;
    }
    let mut world = World::started("foreign");
    world.file("a.yaml", &script("a", FOREVER));
    world.ready("a");
    let (name, _) = world.zone("a");
    world.remove("a.yaml");
    world.gone("a");
    world.no_traces();
    world.stop();
    // An administrator's zone, with a state and a path that make parsers stumble, and others' datasets.
    let path = world.lab.dir().join("root/rpool/o:ther");
    let text = format!("create -b; set brand=lipkg; set ip-type=exclusive; set zonepath=\"{}\"", path.display());
    assert_eq!(world.lab.run("zonecfg", &["-z", "other", &text]).unwrap().code, 0);
    assert_eq!(world.lab.run("zoneadm", &["-z", "other", "install"]).unwrap().code, 0);
    world.lab.force("other", ZoneState::Mounted).unwrap();
    let text = format!(
        "create -b; set brand=lipkg; set ip-type=exclusive; set zonepath=\"{}\"",
        world.lab.dir().join("root/rpool/x").display()
    );
    assert_eq!(world.lab.run("zonecfg", &["-z", &name, &text]).unwrap().code, 0);
    assert_eq!(world.lab.run("dladm", &["create-vnic", "-t", "-l", "net0", "other0"]).unwrap().code, 0);
    assert_eq!(world.lab.run("zfs", &["create", "rpool/precious"]).unwrap().code, 0);
    let before = world.state();
    world.start();
    world.file("b.yaml", &script("b", FOREVER));
    world.ready("b");
    world.remove("b.yaml");
    world.gone("b");
    std::thread::sleep(Duration::from_millis(2500));
    let after = world.state();
    for zone in ["other", name.as_str()] {
        assert_eq!(after.zones.get(zone), before.zones.get(zone));
    }
    assert_eq!(after.links.get("other0"), before.links.get("other0"));
    assert!(after.datasets.contains_key("rpool/precious"));
}
