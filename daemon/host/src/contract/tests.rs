//! The fake host passes the suite, by both profiles and with steps that take time; a host that cheats does not.

use super::*;
use crate::fake::{FakeHost, FakeOptions, Fault, Foreign, Op, Profile};
use crate::names::{Brand, ContainerName, ImageId, PodUid};
use crate::observe::ImageConfig;
use crate::spec::*;
use std::sync::atomic::{AtomicU8, Ordering};

struct FakeFixture {
    host: FakeHost,
    image: ImageId,
    dir: tempfile::TempDir,
    made: AtomicU8,
    /// `None`: a second handle on the same machine; else the simulation is opened anew from its files.
    sim: Option<PathBuf>,
}

impl FakeFixture {
    fn new(options: FakeOptions, sim: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sim = sim.then(|| dir.path().join("sim"));
        let options = FakeOptions { write_logs: true, ..options };
        let host = match &sim {
            Some(path) => FakeHost::sim(path, options).unwrap(),
            None => FakeHost::with(options),
        };
        let image = host.add_image("contract.test/base:1", ImageConfig::default());
        Self { host, image, dir, made: AtomicU8::new(10), sim }
    }
}

#[async_trait]
impl Fixture for FakeFixture {
    fn host(&self) -> Arc<dyn Host> {
        Arc::new(self.host.clone())
    }

    async fn restart(&self) -> Arc<dyn Host> {
        match &self.sim {
            Some(path) => Arc::new(FakeHost::sim(path, FakeOptions::default()).unwrap()),
            None => self.host(),
        }
    }

    fn network(&self) -> NetworkSpec {
        NetworkSpec {
            link: "reddwarf0".into(),
            cidr: "10.88.0.0/16".parse().unwrap(),
            gateway: "10.88.0.1".parse().unwrap(),
            second: None,
            masquerade: true,
        }
    }

    fn sandbox(&self) -> SandboxSpec {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        let uid = PodUid::new(format!("uid-{n}")).unwrap();
        let pod = PodIdentity { namespace: "contract".into(), name: format!("pod-{n}"), uid };
        let network = SandboxNetwork::Pod {
            address: format!("10.88.0.{n}/16").parse().unwrap(),
            gateway: "10.88.0.1".parse().unwrap(),
            second: None,
        };
        sample::sandbox(SandboxId::for_pod(&pod), pod, Brand::new("oci").unwrap(), network)
    }

    fn container(&self, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
        let image = ContainerImage::Image { id: self.image.clone() };
        let log = self.dir.path().join(sandbox.id.as_str()).join(name).join("0.log");
        sample::container(ContainerName::new(name).unwrap(), image, "contract.test/base:1", argv, log)
    }

    fn image_source(&self, variant: u32) -> PathBuf {
        let root = self.dir.path().join(format!("image-{variant}"));
        std::fs::create_dir_all(root.join(format!("variant-{variant}"))).unwrap();
        root
    }

    fn argv(&self, program: Program) -> Vec<String> {
        match program {
            Program::Listen(port) => vec!["listen".into(), port.to_string()],
            other => other.in_a_shell(),
        }
    }

    async fn plant_foreign(&self, id: &SandboxId) -> bool {
        self.host.add_foreign(Foreign::Sandbox(id.to_string()));
        true
    }

    async fn kill_supervisor(&self, id: &SandboxId, spec: &ContainerSpec) {
        self.host.lose_container(id, &spec.name);
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            own_network: true,
            limits: true,
            figures: true,
            files: false,
            host_network: true,
            packets: true,
            terminals: true,
            ports: true,
            signals: true,
            contained: true,
        }
    }
}

async fn run(options: FakeOptions) {
    let report = suite(async || FakeFixture::new(options.clone(), false)).await;
    assert!(report.passed(), "{report}");
    let for_files = |o: &Outcome| !matches!(o, Err(Stop::Skipped(why)) if !why.contains("files"));
    assert!(report.outcomes.iter().all(|(_, o)| for_files(o)), "only what needs real files is skipped:\n{report}");
}

#[tokio::test(start_paused = true)]
async fn the_fake_host_keeps_the_contract() {
    run(FakeOptions::default()).await;
}

#[tokio::test(start_paused = true)]
async fn the_fake_host_keeps_the_contract_when_every_step_takes_time() {
    run(FakeOptions { step_time: Duration::from_millis(7), profile: Profile::Illumos, ..FakeOptions::default() }).await;
}

#[tokio::test]
async fn the_simulation_keeps_the_contract() {
    let report = suite(async || FakeFixture::new(FakeOptions::default(), true)).await;
    assert!(report.passed(), "{report}");
}

/// A suite that nothing can fail proves nothing: each kind of cheating is found.
#[tokio::test(start_paused = true)]
async fn a_host_that_cheats_is_found_out() {
    let cheats = [
        (Op::SandboxEnsure, Fault::NothingDone),
        (Op::SandboxStop, Fault::NothingDone),
        (Op::SandboxDestroy, Fault::NothingDone),
        (Op::ContainerStart, Fault::NothingDone),
        (Op::ContainerSignal, Fault::NothingDone),
        (Op::ContainerNote, Fault::NothingDone),
        (Op::ContainerUpdate, Fault::NothingDone),
        (Op::ContainerRemove, Fault::NothingDone),
        (Op::VolumeUpdate, Fault::NothingDone),
        (Op::NetworkRemove, Fault::NothingDone),
        (Op::ImageImport, Fault::NothingDone),
        (Op::ImageRemove, Fault::NothingDone),
        (Op::SandboxEnsure, Fault::Hang),
        (Op::Observe, Fault::UnknownList),
        (Op::Observe, Fault::Truncated),
        (Op::Exec, Fault::FailAfter(crate::HostErrorKind::Other)),
    ];
    for (op, fault) in cheats {
        let report = suite(async || {
            let fixture = FakeFixture::new(FakeOptions::default(), false);
            fixture.host.faults().always(op, fault.clone());
            fixture
        })
        .await;
        assert!(!report.passed(), "{op:?} {fault:?} was not noticed");
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<&str> = cases().iter().map(|c| c.name).collect();
    assert_eq!(names.len(), cases().len());
    assert!(names.iter().all(|n| n.contains("::")), "{names:?}");
}
