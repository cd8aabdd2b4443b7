//! What this machine is.

use crate::network::netlink::Netlink;
use crate::options::{LinuxOptions, Runtime};
use crate::rootfs::{OCI, SPARSE};
use nix::net::if_::if_nametoindex;
use nix::sys::statvfs::statvfs;
use nix::sys::utsname::uname;
use nix::unistd::{SysconfVar, sysconf};
use reddwarf_host::{Brand, HostError, HostErrorKind, HostInfo, HostResult};
use reddwarf_supervise::files::read_kernel_file;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const OP: &str = "read host information";
/// Of the libcontainer crate that this program is built with; a test holds it to Cargo.lock.
const LIBCONTAINER: &str = "libcontainer://0.7.0";

/// Reads it from /proc, /etc/os-release and the state directory's file system. Blocking, a few milliseconds.
///
/// # Errors
/// `Other` when the system can't be read.
pub(crate) fn read(options: &LinuxOptions, addresses: Vec<IpAddr>) -> HostResult<HostInfo> {
    let uname = uname().map_err(|e| failed("uname", "can't be read", e))?;
    let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
    Ok(HostInfo {
        kind: "linux".to_owned(),
        brands: [OCI, SPARSE].into_iter().filter_map(|b| Brand::new(b).ok()).collect(),
        cpu_millis: cpu_millis()?,
        memory_bytes: memory_bytes(&read_text("/proc/meminfo")?)?,
        storage_bytes: storage_bytes(&options.state_dir)?,
        addresses,
        kernel_version: text(uname.release()),
        os_image: os_image(),
        architecture: architecture(&text(uname.machine())).to_owned(),
        machine_id: machine_id(&options.state_dir)?,
        boot_id: read_text("/proc/sys/kernel/random/boot_id")?.trim().to_owned(),
        runtime_version: runtime_version(&options.runtime),
    })
}

fn failed(
    subject: impl Into<String>,
    message: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> HostError {
    HostError::new(HostErrorKind::Other, OP, subject, message).caused_by(source)
}

fn read_text(path: &str) -> HostResult<String> {
    read_kernel_file(path).map_err(|e| failed(path, "can't be read", e))
}

/// CPUs that are online, whatever this process itself is confined to.
fn cpu_millis() -> HostResult<u64> {
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).map_err(|e| failed("sysconf", "can't count CPUs", e))?;
    Ok(online.and_then(|n| u64::try_from(n).ok()).unwrap_or(1).saturating_mul(1000))
}

/// proc_meminfo(5): `MemTotal:  24576000 kB`.
fn memory_bytes(meminfo: &str) -> HostResult<u64> {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map(|kib| kib.saturating_mul(1024))
        .ok_or_else(|| HostError::new(HostErrorKind::Other, OP, "/proc/meminfo", "has no line MemTotal in kB"))
}

/// Of the nearest directory that exists already.
fn storage_bytes(state: &Path) -> HostResult<u64> {
    let dir = state.ancestors().find(|p| p.is_dir()).unwrap_or_else(|| Path::new("/"));
    let vfs = statvfs(dir).map_err(|e| failed(dir.display().to_string(), "can't ask its file system", e))?;
    Ok(vfs.blocks().saturating_mul(vfs.fragment_size()))
}

/// The host's addresses, that of the default route's interface first; not those of the pod network's bridge. Only addresses
/// are asked for: a list of all links, a pair for each pod, would be most of what an idle daemon does.
pub(crate) async fn addresses(bridge: &str) -> HostResult<Vec<IpAddr>> {
    let netlink = Netlink::connect().map_err(|e| e.into_host(OP, "addresses"))?;
    let all = netlink.addresses().await.map_err(|e| e.into_host(OP, "addresses"))?;
    let index = |name: &str| if_nametoindex(name).ok();
    let uplink = default_interface(&read_kernel_file("/proc/net/route").unwrap_or_default());
    let (uplink, left_out) = (uplink.as_deref().and_then(index), [index(bridge), index("lo")]);
    let mut found: Vec<(bool, IpAddr)> = all
        .into_iter()
        .filter(|a| !left_out.contains(&Some(a.index)) && !is_link_local(a.address.addr()))
        .map(|a| (Some(a.index) != uplink, a.address.addr()))
        .collect();
    found.sort();
    found.dedup();
    Ok(found.into_iter().map(|(_, ip)| ip).collect())
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// proc_pid_net(5) `route`: interface, destination, …; destination 00000000 is the default route.
pub(crate) fn default_interface(routes: &str) -> Option<String> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then(|| name.to_owned())
    })
}

/// PRETTY_NAME of os-release(5).
fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").or_else(|_| std::fs::read_to_string("/usr/lib/os-release"));
    pretty_name(&text.unwrap_or_default()).unwrap_or_else(|| "Linux".to_owned())
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="))?.trim();
    let unquoted = value.trim_matches(|c| c == '"' || c == '\'').replace('\\', "");
    (!unquoted.is_empty()).then_some(unquoted)
}

/// Kubernetes says it as Go does (label `kubernetes.io/arch`); so do OCI images.
pub(crate) fn architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "386",
        "armv6l" | "armv7l" | "armv8l" => "arm",
        "ppc64le" | "riscv64" | "s390x" => machine,
        "loongarch64" => "loong64",
        other => other,
    }
}

/// machine-id(5); on a machine without one, an id of ours that is kept in the state directory.
fn machine_id(state: &Path) -> HostResult<String> {
    let own = state.join("machine-id");
    let places = [PathBuf::from("/etc/machine-id"), PathBuf::from("/var/lib/dbus/machine-id"), own.clone()];
    let valid = |text: String| {
        let id = text.trim();
        (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    };
    if let Some(id) = places.iter().find_map(|p| std::fs::read_to_string(p).ok().and_then(valid)) {
        return Ok(id);
    }
    let id = read_text("/proc/sys/kernel/random/uuid")?.trim().replace('-', "");
    let temporary = state.join("machine-id.new");
    std::fs::create_dir_all(state)
        .and_then(|()| std::fs::File::create(&temporary))
        .and_then(|mut f| f.write_all(id.as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &own))
        .map_err(|e| failed(own.display().to_string(), "can't be written", e))?;
    Ok(id)
}

fn runtime_version(runtime: &Runtime) -> String {
    match runtime {
        Runtime::Libcontainer => LIBCONTAINER.to_owned(),
        Runtime::Crun(path) => format!("crun://{}", path.display()),
        Runtime::Runc(path) => format!("runc://{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let options = LinuxOptions::new(dir.path().join("run"), dir.path().join("state"), "/x");
        let info = read(&options, addresses(&options.bridge).await.unwrap()).unwrap();
        assert_eq!(info.kind, "linux");
        assert_eq!(info.brands.iter().map(Brand::as_str).collect::<Vec<_>>(), ["oci", "sparse"]);
        assert!(info.cpu_millis >= 1000 && info.memory_bytes > 1 << 26 && info.storage_bytes > 1 << 20);
        assert!(!info.addresses.iter().any(IpAddr::is_loopback));
        assert_eq!(info.machine_id.len(), 32);
        assert_eq!(info.boot_id.len(), 36);
        assert!(!info.kernel_version.is_empty() && !info.os_image.is_empty() && !info.architecture.is_empty());
    }

    #[test]
    fn tables_are_read_as_their_manuals_say() {
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:       24576 kB\n").unwrap(), 24576 * 1024);
        assert!(memory_bytes("MemTotal: lots\n").is_err());
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n").as_deref(),
            Some("Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(pretty_name("PRETTY_NAME=\"\"\n"), None);
        let routes = "Iface\tDestination\tGateway\nlan0\t0002000A\t0\neth3\t00000000\t0102000A\n";
        assert_eq!(default_interface(routes).as_deref(), Some("eth3"));
        assert_eq!(default_interface("Iface\n"), None);
        assert_eq!(architecture("x86_64"), "amd64");
        assert_eq!(architecture("aarch64"), "arm64");
    }

    #[test]
    fn the_runtimes_version_is_the_one_built_in() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
        let lock = std::fs::read_to_string(lock).unwrap();
        let version = lock.split("name = \"libcontainer\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(LIBCONTAINER, format!("libcontainer://{version}"));
    }

    #[test]
    fn a_machine_without_an_id_keeps_one_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        if Path::new("/etc/machine-id").exists() {
            assert_eq!(machine_id(dir.path()).unwrap(), machine_id(dir.path()).unwrap());
            return;
        }
        let one = machine_id(dir.path()).unwrap();
        assert_eq!(one, machine_id(dir.path()).unwrap());
    }
}
