//! The status that every scripted pod comes to, on the fake host. `UPDATE_GOLDEN=1 cargo test -p reddwarf-node --test
//! statuses` writes the expected ones anew; read the difference. The end-to-end tests hold real containers to the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

#[path = "support/statuses.rs"]
mod scripted;
mod support;

use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use support::*;

#[tokio::test(start_paused = true)]
async fn scripted_pods_come_to_the_statuses_that_they_came_to() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let all = scripted::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/statuses"));
    assert!(!all.is_empty());
    let world = World::new().await;
    for one in &all {
        // As admission fills them in.
        let defaults = json!({"image": "web:1", "terminationMessagePath": "/dev/termination-log"});
        world.plane.apply(pod(&one.name, one.spec_with(&defaults)));
    }
    let mut seen = BTreeMap::new();
    world
        .until(60, "all are there", |world| {
            for one in &all {
                let pod = world.pod(&one.name).unwrap().value();
                if !seen.contains_key(&one.name) && one.is_there(&pod) {
                    seen.insert(one.name.clone(), pod);
                }
            }
            seen.len() == all.len()
        })
        .await;
    let differences: Vec<_> = all.iter().filter_map(|one| one.difference(&seen[&one.name], update)).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(world.host.violations().is_empty());
}
