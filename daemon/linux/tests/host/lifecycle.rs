//! Containers from start to removal.

use crate::support::{as_root, code};
use reddwarf_host::{Change, Sandboxes};

#[test]
fn a_container_runs_ends_and_leaves_nothing() {
    as_root(|world| async move {
        let (sandbox, container) = world.start("echo hello; echo oops >&2; exit 7").await;
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 7, "{observed:?}");
        let mut log = world.log(&container);
        log.sort();
        assert_eq!(log, ["stderr F oops", "stdout F hello"]);
        // The same again starts nothing.
        assert_eq!(world.host.container_start(&sandbox.id, &container).await.unwrap(), Change::Unchanged);
        assert!(matches!(
            world.host.container_remove(&sandbox.id, &container.name, 0).await.unwrap(),
            Change::Changed(_)
        ));
        assert!(world.observe(&sandbox.id).await.containers.is_empty());
        world.destroy(&sandbox).await;
    });
}
