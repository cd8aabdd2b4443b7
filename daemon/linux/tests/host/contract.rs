//! The contract suite of `reddwarf_host`, the same that the fake host passes.

use crate::common;
use crate::support::{World, as_root};
use async_trait::async_trait;
use reddwarf_host::contract::{self, Abilities, Fixture};
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use reddwarf_host::{Host, SandboxId};
use std::path::PathBuf;
use std::sync::Arc;

struct Real(Arc<World>);

#[async_trait]
impl Fixture for Real {
    fn host(&self) -> Arc<dyn Host> {
        Arc::new(self.0.host.clone())
    }

    async fn restart(&self) -> Arc<dyn Host> {
        Arc::new(self.0.second_daemon())
    }

    fn network(&self) -> NetworkSpec {
        self.0.network()
    }

    fn sandbox(&self) -> SandboxSpec {
        self.0.pod_sandbox()
    }

    fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        self.0.container(sandbox, name, argv)
    }

    fn image_source(&self, variant: u32) -> PathBuf {
        common::image_source(self.0.dir.path(), variant)
    }

    async fn plant_foreign(&self, id: &SandboxId) -> bool {
        let dir = self.0.options.run_dir.join("sandboxes").join(id.as_str());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("precious"), "not reddwarf's").is_ok()
    }

    fn abilities(&self) -> Abilities {
        Abilities { own_network: true, limits: true, files: true, host_network: true, packets: true }
    }
}

#[test]
fn the_contract_holds() {
    as_root(|world| async move {
        let world = Arc::new(world);
        let report = contract::suite(async || Real(world.clone())).await;
        eprintln!("{report}");
        assert!(report.passed(), "{report}");
    });
}

#[test]
fn the_contract_holds_with_roots_that_are_clones() {
    as_root(|world| async move {
        let Some(world) = world.on_clones().await else { return };
        let world = Arc::new(world);
        let report = contract::suite(async || Real(world.clone())).await;
        assert!(report.passed(), "{report}");
    });
}
