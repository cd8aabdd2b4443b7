//! The contract suite of `reddwarf_host`, the same that the fake host and Linux pass: on each kind of zone.

use crate::balancer;
use crate::common;
use crate::support::{World, linux_root, played, played_on};
use async_trait::async_trait;
use reddwarf_host::contract::{self, Abilities, Case, Fixture, Program};
use reddwarf_host::spec::{ContainerImage, ContainerSpec, NetworkSpec, SandboxSpec};
use reddwarf_host::{Brand, Host, ImageId, ImageStore, SandboxId};
use reddwarf_hostsim::system::System;
use reddwarf_illumos::Balancer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the suite is played on.
#[derive(Clone)]
struct Played {
    world: Arc<World>,
    balancer: Balancer,
    brand: &'static str,
    /// What containers' roots are made of; absent: they see their zone's own.
    image: Option<ImageId>,
}

impl Played {
    /// Zones of a brand, with all that the brand needs.
    async fn of(world: &Arc<World>, brand: &'static str) -> Self {
        let played = Self { world: world.clone(), balancer: Balancer::Ipnat, brand, image: None };
        match brand {
            "reddwarf" => {
                let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../smf/brand");
                world.lab.add_brand(brand, &files).unwrap();
            }
            "lx" | "illumos" => {
                let root = linux_root(world.dir.path());
                let _ = world.host.image_import(&root, &format!("{brand}-zone")).await.unwrap();
            }
            _ => {}
        }
        played
    }

    /// The same with containers that have a root of their own.
    async fn with_image(self) -> Self {
        let root = linux_root(self.world.dir.path());
        let image = self.world.host.image_import(&root, "root").await.unwrap();
        Self { image: Some(image.id), ..self }
    }

    fn is_linux(&self) -> bool {
        self.brand == "lx"
    }

    /// Runs cases; none may break.
    async fn passes(&self, which: impl Fn(&Case) -> bool) {
        let mut report = contract::Report::default();
        for case in contract::cases().into_iter().filter(which) {
            let outcome = case.run(self).await;
            report.outcomes.push((case.name, outcome));
        }
        eprintln!("{report}");
        assert!(report.passed(), "{report}");
    }
}

#[async_trait]
impl Fixture for Played {
    fn host(&self) -> Arc<dyn Host> {
        // One that was opened before its brand was there does not know it.
        if self.brand == "reddwarf" || self.balancer == Balancer::Ilb {
            return Arc::new(balancer::host(&self.world, self.balancer));
        }
        Arc::new(self.world.host.clone())
    }

    async fn restart(&self) -> Arc<dyn Host> {
        Arc::new(balancer::host(&self.world, self.balancer))
    }

    fn network(&self) -> NetworkSpec {
        self.world.network()
    }

    fn sandbox(&self) -> SandboxSpec {
        SandboxSpec { brand: Brand::new(self.brand).unwrap(), ..self.world.sandbox() }
    }

    fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        let mut spec = self.world.container(sandbox, name, argv);
        if let Some(id) = &self.image {
            spec.image = ContainerImage::Image { id: id.clone() };
        }
        spec
    }

    fn image_source(&self, variant: u32) -> PathBuf {
        common::image_source(self.world.dir.path(), variant)
    }

    fn argv(&self, program: Program) -> Vec<String> {
        match program {
            // There is no perl in such a root.
            Program::Listen(port) if self.is_linux() || self.image.is_some() => {
                let port = port.to_string();
                ["/bin/busybox", "nc", "-ll", "-p", &port, "-e", "/bin/cat"].map(str::to_owned).to_vec()
            }
            other => other.in_a_shell(),
        }
    }

    /// A zone of somebody else's.
    async fn plant_foreign(&self, id: &SandboxId) -> bool {
        let path = self.world.lab.dir().join("root/elsewhere").join(id.as_str());
        let brand = self.brand;
        let script = format!("create -b; set brand={brand}; set zonepath={}; set ip-type=exclusive", path.display());
        self.world.lab.run("zonecfg", &["-z", id.as_str(), &script]).is_ok_and(|answer| answer.code == 0)
    }

    async fn kill_supervisor(&self, id: &SandboxId, spec: &ContainerSpec) {
        self.world.kill_supervisor(id, spec);
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            own_network: true,
            limits: false,
            figures: true,
            files: true,
            host_network: false,
            packets: false,
            // Our program can't run beside Linux'.
            terminals: !self.is_linux(),
            ports: !self.is_linux(),
            signals: !self.is_linux(),
            contained: !self.is_linux(),
        }
    }
}

#[test]
fn the_contract_holds() {
    played(|world| async move { Played::of(&world, "sparse").await.passes(|_| true).await });
}

/// On illumos as it is: no zlogin -i, figures of memory by prstat(8).
#[test]
fn the_contract_holds_on_openindiana() {
    played_on(System::Gate, |world| async move { Played::of(&world, "ipkg").await.passes(|_| true).await });
}

#[test]
fn the_contract_holds_in_zones_of_our_brand() {
    played(|world| async move { Played::of(&world, "reddwarf").await.passes(|_| true).await });
}

#[test]
fn the_contract_holds_in_zones_of_linux_programs() {
    played(|world| async move { Played::of(&world, "lx").await.passes(|_| true).await });
}

/// What has to do with containers holds where each has a root of its own.
#[test]
fn the_contract_of_containers_holds_with_images() {
    played(|world| async move {
        for brand in ["sparse", "lx"] {
            let of_containers =
                |case: &Case| !["::network::", "::sandboxes::", "::images::"].iter().any(|s| case.name.contains(s));
            Played::of(&world, brand).await.with_image().await.passes(of_containers).await;
        }
    });
}

/// What of it has to do with services holds where ILB balances them.
#[test]
fn the_contract_of_services_holds_with_ilb() {
    played(|world| async move {
        balancer::enable(&world);
        let played = Played { balancer: Balancer::Ilb, ..Played::of(&world, "sparse").await };
        played.passes(|case| case.name.contains("::network::")).await;
        let calls = world.lab.transcript().unwrap();
        assert!(calls.iter().any(|l| l.tool == "ilbadm" && l.argv[0] == "create-rule"), "ILB had something to do");
    });
}
