//! What this machine is.

use crate::host::Shared;
use crate::usage::page_bytes;
use crate::zone::brand;
use crate::{kstat, services};
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;
use reddwarf_host::{HostError, HostErrorKind, HostInfo, HostResult};
use reddwarf_supervise::files::{io_error, write_atomically};
use std::path::Path;

const OP: &str = "read host information";

/// Two short runs and a few small files.
pub(crate) async fn read(shared: &Shared) -> HostResult<HostInfo> {
    let said = shared.run(OP, "kernel statistics", &kstat::machine()).await?;
    let machine = kstat::of_machine(&kstat::parse(&said));
    let name = uname().map_err(|e| HostError::new(HostErrorKind::Other, OP, "uname", "can't be read").caused_by(e))?;
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    Ok(HostInfo {
        kind: "illumos".to_owned(),
        brands: brand::offered(&shared.brands),
        cpu_millis: machine.cpus.max(1).saturating_mul(1000),
        memory_bytes: machine.pages.saturating_mul(page_bytes()),
        storage_bytes: storage_bytes(&shared.options.state_dir)?,
        addresses: services::own_addresses(shared).await?,
        kernel_version: text(name.release()),
        os_image: os_image(),
        architecture: architecture(&text(name.machine())).to_owned(),
        machine_id: machine_id(&shared.options.state_dir)?,
        boot_id: format!("boot-{}", machine.boot_time),
        runtime_version: concat!("zones://", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

fn storage_bytes(state: &Path) -> HostResult<u64> {
    let dir = state.ancestors().find(|p| p.is_dir()).unwrap_or_else(|| Path::new("/"));
    let vfs = statvfs(dir).map_err(|e| {
        HostError::new(HostErrorKind::Other, OP, dir.display().to_string(), "can't ask its file system").caused_by(e)
    })?;
    Ok(vfs.blocks().saturating_mul(vfs.fragment_size()))
}

/// PRETTY_NAME of os-release(5).
fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).map(|n| n.trim().trim_matches(['"', '\'']));
    name.filter(|n| !n.is_empty()).unwrap_or("illumos").to_owned()
}

/// Kubernetes says it as Go does.
fn architecture(machine: &str) -> &str {
    match machine {
        "i86pc" | "x86_64" => "amd64",
        "aarch64" | "armpc" => "arm64",
        other => other,
    }
}

/// illumos has no machine-id(5): ours is made once.
fn machine_id(state: &Path) -> HostResult<String> {
    let file = state.join("machine-id");
    if let Ok(text) = std::fs::read_to_string(&file)
        && text.trim().len() == 32
    {
        return Ok(text.trim().to_owned());
    }
    use std::io::Read;
    let mut bytes = [0; 16];
    let random = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    random.map_err(|e| io_error(OP, Path::new("/dev/urandom"), e))?;
    let id = reddwarf_host::hex(&bytes);
    write_atomically(&file, format!("{id}\n").as_bytes(), 0o644).map_err(|e| io_error(OP, &file, e))?;
    Ok(id)
}
