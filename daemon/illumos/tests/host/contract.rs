//! The contract suite of `reddwarf_host`, the same that the fake host and Linux pass.

use crate::balancer;
use crate::common;
use crate::support::{World, played};
use async_trait::async_trait;
use reddwarf_host::contract::{self, Abilities, Fixture};
use reddwarf_host::spec::{ContainerSpec, NetworkSpec, SandboxSpec};
use reddwarf_host::{Host, SandboxId};
use reddwarf_illumos::Balancer;
use std::path::PathBuf;
use std::sync::Arc;

struct Played(Arc<World>, Balancer);

#[async_trait]
impl Fixture for Played {
    fn host(&self) -> Arc<dyn Host> {
        match self.1 {
            Balancer::Ipnat => Arc::new(self.0.host.clone()),
            Balancer::Ilb => Arc::new(balancer::host(&self.0, Balancer::Ilb)),
        }
    }

    async fn restart(&self) -> Arc<dyn Host> {
        Arc::new(balancer::host(&self.0, self.1))
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

    async fn kill_supervisor(&self, id: &SandboxId, spec: &ContainerSpec) {
        self.0.kill_supervisor(id, spec);
    }

    fn abilities(&self) -> Abilities {
        Abilities { own_network: true, limits: false, figures: true, files: true, host_network: false, packets: false }
    }
}

#[test]
fn the_contract_holds() {
    played(|world| async move {
        let report = contract::suite(async || Played(world.clone(), Balancer::Ipnat)).await;
        eprintln!("{report}");
        assert!(report.passed(), "{report}");
    });
}

/// What of it has to do with services holds where ILB balances them.
#[test]
fn the_contract_of_services_holds_with_ilb() {
    played(|world| async move {
        balancer::enable(&world);
        let mut report = contract::Report::default();
        for case in contract::cases().into_iter().filter(|case| case.name.contains("::network::")) {
            let outcome = case.run(&Played(world.clone(), Balancer::Ilb)).await;
            report.outcomes.push((case.name, outcome));
        }
        assert!(report.passed(), "{report}");
        let calls = world.lab.transcript().unwrap();
        assert!(calls.iter().any(|l| l.tool == "ilbadm" && l.argv[0] == "create-rule"), "ILB had something to do");
    });
}
