//! What a sandbox's zone is configured as.

use super::brand::{Programs, Sizes, ZoneBrand};
use super::machine::Machine;
use crate::paths::{INSIDE, Paths};
use crate::zonecfg::{Attr, AttrKind, AttrName, CpuCap, Fs, Memory, Net, Text, ValueError, ZoneConfig};
use reddwarf_host::LinkName;
use reddwarf_host::spec::{PodAddress, Resources, SandboxSpec, VolumeSpec};
use std::path::Path;

/// Our mark: which daemon's it is.
pub(crate) const INSTANCE: &str = "io-reddwarf-instance";
/// Our mark: whose sandbox, or which template it is.
pub(crate) const OWNER: &str = "io-reddwarf-uid";
/// For people: namespace and name.
const POD: &str = "io-reddwarf-pod";

/// zonecfg(8) takes no smaller bounds.
const LWPS_LEAST: u64 = 100;
const SWAP_LEAST: u64 = 50 << 20;

/// The configuration of a pod's zone. `machine`: what it says of its virtual machine; `link`: its network link, where it has
/// one.
///
/// # Errors
/// A value that zonecfg can't express, naming which.
pub(crate) fn of_sandbox(
    spec: &SandboxSpec,
    brand: ZoneBrand,
    machine: &Machine,
    paths: &Paths,
    instance: &str,
    link: Option<&LinkName>,
) -> Result<ZoneConfig, ValueError> {
    let mut config = blank(brand, &paths.zonepath(spec.id.as_str()))?;
    mark(&mut config, instance, spec.pod.uid.as_str())?;
    attr(&mut config, POD, &format!("{}/{}", spec.pod.namespace, spec.pod.name))?;
    limit(&mut config, brand, &spec.resources)?;
    if let Some(link) = link {
        // One entry an address, all on one link.
        for PodAddress { address, gateway } in spec.network.addresses() {
            let physical = Text::new(link.as_str())?;
            config.nets.push(Net { physical, allowed_address: Some(address), defrouter: Some(gateway) });
        }
    }
    config.attrs.extend(brand.attributes(&sizes(spec, machine))?);
    if brand.programs() == Programs::Machine {
        // Programs of ours have no business in there, and what is in there none with our files.
        machine.configure(&mut config, &paths.isos())?;
        return Ok(config);
    }
    for dataset in &spec.datasets {
        config.datasets.insert(Text::new(dataset.as_str())?);
    }
    let id = &spec.id;
    lofs(&mut config, "bin", &paths.bin(), true)?;
    lofs(&mut config, "ro", &paths.read_only(id), true)?;
    lofs(&mut config, "run", &paths.in_memory(id), true)?;
    lofs(&mut config, "rw", &paths.writable(id), false)?;
    lofs(&mut config, "roots", &paths.roots(id), false)?;
    // Linux programs in a zone can't mount a part of these read-only: they mount a part of what is.
    let linux = brand.programs() == Programs::Linux;
    if linux {
        lofs(&mut config, "read/rw", &paths.writable(id), true)?;
    }
    for (name, volume) in &spec.volumes {
        match volume {
            VolumeSpec::EmptyDir { memory: true, size_limit_bytes } => {
                let mut options = vec![Text::new("nodevices")?];
                if let Some(bytes) = size_limit_bytes {
                    options.push(Text::new(format!("size={}", (*bytes).max(4096)))?);
                }
                // tmpfs asks nothing of it, but zoneadm(8) wants it to be there, as for every kind but zfs.
                let fs =
                    Fs { special: path_text(&paths.in_memory(id))?, kind: Text::new("tmpfs")?, raw: None, options };
                config.fs.insert(Text::new(format!("/{INSIDE}/memory/{name}"))?, fs);
            }
            VolumeSpec::HostPath { path, .. } | VolumeSpec::Persistent { path } => {
                let place = format!("host/{name}");
                lofs(&mut config, &place, path, false)?;
                if linux {
                    lofs(&mut config, &format!("read/{place}"), path, true)?;
                }
            }
            VolumeSpec::EmptyDir { memory: false, .. } | VolumeSpec::Files { .. } => {}
        }
    }
    Ok(config)
}

/// The configuration of a template that zones of one brand are cloned from.
///
/// # Errors
/// As [`of_sandbox`].
pub(crate) fn of_golden(name: &str, brand: ZoneBrand, paths: &Paths, instance: &str) -> Result<ZoneConfig, ValueError> {
    let mut config = blank(brand, &paths.zonepath(name))?;
    mark(&mut config, instance, name)?;
    config.attrs.extend(brand.attributes(&Sizes::default())?);
    Ok(config)
}

fn blank(brand: ZoneBrand, zonepath: &Path) -> Result<ZoneConfig, ValueError> {
    let mut config = ZoneConfig::new(Text::new(brand.name())?, path_text(zonepath)?);
    config.limitpriv = Some(Text::new("default")?);
    Ok(config)
}

fn path_text(path: &Path) -> Result<Text, ValueError> {
    match path.to_str() {
        Some(text) => Text::new(text),
        None => Err(ValueError { what: "path", rule: "only printable ASCII characters can be written" }),
    }
}

fn mark(config: &mut ZoneConfig, instance: &str, owner: &str) -> Result<(), ValueError> {
    attr(config, INSTANCE, instance)?;
    attr(config, OWNER, owner)
}

fn attr(config: &mut ZoneConfig, name: &str, value: &str) -> Result<(), ValueError> {
    config.attrs.insert(AttrName::new(name)?, Attr { kind: AttrKind::String, value: Text::new(value)? });
    Ok(())
}

/// A directory of the host at `/.reddwarf/PLACE`. Devices in it mean nothing, set-id bits do: images have them.
fn lofs(config: &mut ZoneConfig, place: &str, source: &Path, read_only: bool) -> Result<(), ValueError> {
    let options = ["ro", "nodevices"].into_iter().skip(usize::from(!read_only));
    let fs = Fs {
        special: path_text(source)?,
        kind: Text::new("lofs")?,
        raw: None,
        options: options.map(Text::new).collect::<Result<_, _>>()?,
    };
    config.fs.insert(Text::new(format!("/{INSIDE}/{place}"))?, fs);
    Ok(())
}

/// What a virtual machine's process needs beside its guest's memory; SmartOS has as much for it.
const BESIDE_GUEST: u64 = 256 << 20;

/// Bounds of the whole pod (Kubernetes: the containers' sums).
pub(crate) fn limit(config: &mut ZoneConfig, brand: ZoneBrand, resources: &Resources) -> Result<(), ValueError> {
    config.cpu_cap = resources.cpu_limit_millis.map(CpuCap::from_millis).transpose()?;
    // Shares weigh against other zones' shares; a thousandth of a CPU is one share.
    config.cpu_shares = resources.cpu_request_millis.map(|millis| millis.clamp(1, 65_535));
    let beside = if brand.programs() == Programs::Machine { BESIDE_GUEST } else { 0 };
    config.memory = match resources.memory_limit_bytes.map(|bytes| bytes.saturating_add(beside)) {
        // Resident memory is paged out beyond its bound; only the bound on reservations makes allocations fail.
        Some(bytes) => Memory { physical: Some(bytes), swap: Some(bytes.max(SWAP_LEAST)), locked: None },
        None => Memory::default(),
    };
    config.max_lwps = resources.pids_limit.map(|most| most.max(LWPS_LEAST));
    config.max_processes = config.max_lwps;
    Ok(())
}

fn sizes(spec: &SandboxSpec, machine: &Machine) -> Sizes {
    Sizes {
        cloud_init: machine.is_told_by_cloud_init(),
        resolvers: spec.dns.nameservers.iter().map(ToString::to_string).collect(),
        domain: spec.dns.searches.first().cloned(),
        vcpus: spec.resources.cpu_limit_millis.map_or(1, |millis| millis.div_ceil(1000)),
        memory_bytes: spec.resources.memory_limit_bytes.unwrap_or(1 << 30),
    }
}

/// Whether a zone's configuration says that it is ours and whose.
pub(crate) fn owner<'c>(config: &'c ZoneConfig, instance: &str) -> Option<&'c str> {
    let value = |name: &str| {
        let name = AttrName::new(name).ok()?;
        config.attrs.get(&name).map(|attr| attr.value.as_str())
    };
    (value(INSTANCE) == Some(instance)).then(|| value(OWNER)).flatten()
}
