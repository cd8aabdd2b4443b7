//! The contract suite of `reddwarf_host`, the same that the fake host passes.

use crate::common;
use crate::support::{World, as_root, as_root_on_v2};
use crate::survival;
use async_trait::async_trait;
use reddwarf_host::contract::{self, Abilities, Fixture};
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use reddwarf_host::{Host, SandboxId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

struct Real {
    world: Arc<World>,
    /// There are some for memory, processor and processes.
    controllers: bool,
}

#[async_trait]
impl Fixture for Real {
    fn host(&self) -> Arc<dyn Host> {
        Arc::new(self.world.host.clone())
    }

    async fn restart(&self) -> Arc<dyn Host> {
        Arc::new(self.world.second_daemon())
    }

    fn network(&self) -> NetworkSpec {
        self.world.network()
    }

    fn sandbox(&self) -> SandboxSpec {
        self.world.pod_sandbox()
    }

    fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        self.world.container(sandbox, name, argv)
    }

    fn image_source(&self, variant: u32) -> PathBuf {
        common::image_source(self.world.dir.path(), variant)
    }

    async fn plant_foreign(&self, id: &SandboxId) -> bool {
        let dir = self.world.options.run_dir.join("sandboxes").join(id.as_str());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("precious"), "not reddwarf's").is_ok()
    }

    async fn kill_supervisor(&self, id: &SandboxId, spec: &ContainerSpec) {
        survival::kill_shim(&self.world, id.as_str(), &spec.name);
    }

    fn patience(&self) -> Duration {
        common::patience(Duration::from_secs(30))
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            own_network: true,
            limits: self.controllers,
            figures: self.controllers,
            files: true,
            host_network: true,
            packets: true,
            terminals: true,
            ports: true,
            signals: true,
            contained: true,
        }
    }
}

async fn holds(world: World, controllers: bool) {
    let world = Arc::new(world);
    let report = contract::suite(async || Real { world: world.clone(), controllers }).await;
    eprintln!("{report}");
    assert!(report.passed(), "{report}");
}

#[test]
fn the_contract_holds() {
    as_root(|world| holds(world, true));
}

/// Limits and figures aside, for which this machine's v2 hierarchy may lack the controllers.
#[test]
fn the_contract_holds_on_cgroup_v2() {
    as_root_on_v2(|world| holds(world, false));
}

#[test]
fn the_contract_holds_with_roots_that_are_clones() {
    as_root(|world| async move {
        let Some(world) = world.on_clones().await else { return };
        holds(world, true).await;
    });
}
