//! Values for tests.

use crate::runtime::{Detail, Id, PodSlim, Slim};
use reddwarf_objects::pod::Phase;
use std::sync::Arc;

/// A running pod on node `n` in namespace `d`, not ready, changed by `change`.
pub(crate) fn pod(name: &str, change: impl FnOnce(&mut PodSlim)) -> Arc<Slim> {
    let mut pod = PodSlim {
        phase: Phase::Running,
        ready_since: None,
        node: "n".into(),
        deletion_cost: 0,
        restarts: 0,
        finished: None,
        cpu_millis: 0,
        memory: 0,
        to_schedule: false,
        unschedulable: false,
        net: None,
        claims: [].into(),
    };
    change(&mut pod);
    slim("", "Pod", name, Detail::Pod(pod))
}

/// A projection of an object whose uid is its name.
pub(crate) fn slim(group: &str, kind: &str, name: &str, detail: Detail) -> Arc<Slim> {
    Arc::new(Slim {
        id: Id::new(group, kind, "d", name).unwrap(),
        uid: name.into(),
        revision: 1,
        created: None,
        deleted: None,
        finalizers: [].into(),
        owners: [].into(),
        labels: [].into(),
        declared: false,
        detail,
    })
}

/// The same, changed.
pub(crate) fn with(slim: &Arc<Slim>, change: impl FnOnce(&mut Slim)) -> Arc<Slim> {
    let mut changed = (**slim).clone();
    change(&mut changed);
    Arc::new(changed)
}
