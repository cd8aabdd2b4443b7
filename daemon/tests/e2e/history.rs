//! Generations, rollback, backup and restore.

use crate::harness::{World, skip};
use crate::pods::{FOREVER, script};

fn config(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata: {{value: {value}}}\n")
}

fn value(world: &World) -> Option<String> {
    let said = world.ctl(&["get", "cm", "c", "-o", "jsonpath={.data.value}"]);
    (said.code == 0).then_some(said.out.trim().to_owned())
}

fn current(world: &World) -> u64 {
    world.json(&["status", "-o", "json"])["generation"].as_u64().unwrap()
}

#[test]
fn generations_can_be_listed_compared_and_gone_back_to() {
    if skip() {
        return;
    }
    let world = World::started("generations");
    world.file("c.yaml", &config("one"));
    world.until("one", |w| value(w).filter(|v| v == "one"));
    let first = current(&world);
    world.file("c.yaml", &config("two"));
    world.until("two", |w| value(w).filter(|v| v == "two"));
    let second = current(&world);
    assert!(second > first);
    assert!(world.ctl(&["generations"]).ok().lines().count() >= 3);
    let diff = world.ctl(&["diff", &first.to_string(), &second.to_string()]);
    assert_eq!(diff.code, 2, "{diff:?}");
    assert!(diff.out.contains("one") && diff.out.contains("two"), "{}", diff.out);

    world.ctl(&["rollback", &first.to_string()]).ok();
    world.until("one again", |w| value(w).filter(|v| v == "one"));
    // The directory still says two: a look at it must not undo the rollback, nor must a restart.
    world.ctl(&["reload"]).ok();
    assert_eq!(value(&world).unwrap(), "one");
    let mut world = world;
    world.kill9();
    world.start();
    assert_eq!(value(&world).unwrap(), "one");
    // A new edit goes on from there.
    world.file("c.yaml", &config("three"));
    world.until("three", |w| value(w).filter(|v| v == "three"));

    world.ctl(&["rollback", &second.to_string(), "--write"]).ok();
    world.until("two again", |w| value(w).filter(|v| v == "two"));
    assert!(std::fs::read_to_string(world.manifests.join("c.yaml")).unwrap().contains("two"));
    assert_ne!(world.ctl(&["rollback", "9999"]).code, 0);
}

#[test]
fn a_backup_can_be_restored() {
    if skip() {
        return;
    }
    let world = World::started("backup");
    let file = world.dir.join("api.yaml");
    std::fs::File::create(&file)
        .and_then(|mut f| std::io::Write::write_all(&mut f, config("kept").as_bytes()))
        .unwrap();
    world.ctl(&["apply", "-f", file.to_str().unwrap()]).ok();
    let backup = world.dir.join("backup.redb");
    // Pods of a backup without this host's Node object find their node all the same.
    let nodes = |w: &World| w.ctl(&["get", "nodes", "-o", "name"]).ok();
    let node = world.until("the node", |w| Some(nodes(w)).filter(|n| !n.is_empty()));
    world.ctl(&["delete", node.trim()]).ok();
    world.ctl(&["backup", backup.to_str().unwrap()]).ok();
    world.ctl(&["delete", "configmap", "c"]).ok();
    assert_eq!(value(&world), None);
    assert_ne!(world.ctl(&["backup", backup.to_str().unwrap()]).code, 0, "never overwrites");
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    world.ctl(&["restore", backup.to_str().unwrap()]).ok();
    world.until("the restored object", |w| value(w).filter(|v| v == "kept"));
    world.ready("web");
}
