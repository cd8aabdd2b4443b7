//! The contract suite of `reddwarf_host`, the same that the fake host and Linux pass.

use crate::common;
use crate::support::{World, played};
use async_trait::async_trait;
use reddwarf_host::contract::{self, Abilities, Fixture};
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use reddwarf_host::{Host, SandboxId};
use std::path::PathBuf;
use std::sync::Arc;

struct Played(Arc<World>);

#[async_trait]
impl Fixture for Played {
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
        self.0.sandbox()
    }

    fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        self.0.container(sandbox, name, argv)
    }

    fn image_source(&self, variant: u32) -> PathBuf {
        common::image_source(self.0.dir.path(), variant)
    }

    /// A zone of somebody else's.
    async fn plant_foreign(&self, id: &SandboxId) -> bool {
        let path = self.0.lab.dir().join("root/elsewhere").join(id.as_str());
        let script = format!("create -b; set brand=sparse; set zonepath={}; set ip-type=exclusive", path.display());
        self.0.lab.run("zonecfg", &["-z", id.as_str(), &script]).is_ok_and(|answer| answer.code == 0)
    }

    fn abilities(&self) -> Abilities {
        Abilities { own_network: true, limits: false, figures: true, files: true, host_network: false, packets: false }
    }
}

#[test]
fn the_contract_holds() {
    played(|world| async move {
        let report = contract::suite(async || Played(world.clone())).await;
        eprintln!("{report}");
        assert!(report.passed(), "{report}");
    });
}
