//! What tests of real hosts have in common; they take it in by `#[path]`.

use reddwarf_host::contract::sample;
use reddwarf_host::spec::{ContainerImage, ContainerSpec, PodIdentity, ResolvConf, SandboxNetwork, SandboxSpec};
use reddwarf_host::{
    Brand, ContainerName, ContainerObserved, ContainerState, Host, Observation, PodUid, SandboxId, SandboxObserved,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A waiting time, longer where `REDDWARF_TEST_PATIENCE` says how many times slower this machine is (an emulated one).
pub(crate) fn patience(time: Duration) -> Duration {
    let factor = std::env::var("REDDWARF_TEST_PATIENCE").ok().and_then(|f| f.parse().ok());
    time.saturating_mul(factor.unwrap_or(1))
}

/// The pod number `n` of a test, of the sparse brand, with a resolver.
pub(crate) fn sandbox(n: u32, network: SandboxNetwork) -> SandboxSpec {
    let pod = PodIdentity {
        namespace: "test".into(),
        name: format!("pod-{n}"),
        uid: PodUid::new(format!("uid-{n}")).unwrap(),
    };
    let id = SandboxId::new(format!("test-pod-{n}")).unwrap();
    SandboxSpec {
        dns: ResolvConf { nameservers: vec!["10.213.0.1".parse().unwrap()], ..ResolvConf::default() },
        ..sample::sandbox(id, pod, Brand::new("sparse").unwrap(), network)
    }
}

/// With this last byte of its address in the tests' pod network.
pub(crate) fn address(last: u32) -> SandboxNetwork {
    SandboxNetwork::Pod {
        address: format!("10.213.0.{last}/24").parse().unwrap(),
        gateway: "10.213.0.1".parse().unwrap(),
        second: None,
    }
}

/// A container that sees its brand's files; its log lies in `logs/SANDBOX` below `dir`.
pub(crate) fn container(dir: &Path, sandbox: &SandboxSpec, name: &str, argv: Vec<String>) -> ContainerSpec {
    let log = dir.join("logs").join(sandbox.id.as_str()).join(format!("{name}.log"));
    sample::container(ContainerName::new(name).unwrap(), ContainerImage::Brand, "sparse", argv, log)
}

/// A container that runs a shell's text.
pub(crate) fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

/// A root file system with a shell, below `dir`; another one for another variant.
pub(crate) fn image_source(dir: &Path, variant: u32) -> PathBuf {
    let dir = dir.join(format!("image-{variant}"));
    let bin = dir.join("bin");
    if !bin.exists() {
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for name in ["sh", "cat", "sleep"] {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        std::fs::write(dir.join("variant"), variant.to_string()).unwrap();
    }
    dir
}

/// What the host says of a sandbox; `None`: it is not there.
pub(crate) async fn observe(host: &dyn Host, id: &SandboxId) -> Option<SandboxObserved> {
    let all = host.observe().await;
    match all.sandboxes.known().unwrap().get(id) {
        Some(Observation::Known(observed)) => Some(observed.clone()),
        Some(Observation::Unknown(why)) => panic!("{id}: {why}"),
        None => None,
    }
}

/// The newest instance of a container.
pub(crate) async fn instance(host: &dyn Host, id: &SandboxId, name: &ContainerName) -> ContainerObserved {
    let sandbox = observe(host, id).await.unwrap_or_else(|| panic!("{id} is not there"));
    sandbox.containers.get(name).and_then(|all| all.last()).unwrap().clone()
}

/// Waits for a container's state, woken by the host's events.
pub(crate) async fn until(
    host: &dyn Host,
    id: &SandboxId,
    name: &ContainerName,
    wanted: impl Fn(&ContainerState) -> bool,
) -> ContainerObserved {
    let mut events = host.events();
    let deadline = Instant::now() + patience(Duration::from_secs(20));
    loop {
        let observed = instance(host, id, name).await;
        if wanted(&observed.state) {
            return observed;
        }
        assert!(Instant::now() < deadline, "still {:?}", observed.state);
        let _ = tokio::time::timeout(Duration::from_secs(5), events.recv()).await;
    }
}

/// Waits for a container's end.
pub(crate) async fn until_exit(host: &dyn Host, id: &SandboxId, name: &ContainerName) -> ContainerObserved {
    until(host, id, name, |state| matches!(state, ContainerState::Exited { .. })).await
}
