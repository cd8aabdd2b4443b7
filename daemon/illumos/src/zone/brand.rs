//! Brands: which there are, how each is installed, and what it needs in a configuration.

use crate::zonecfg::{Attr, AttrKind, AttrName, Text, ValueError};
use reddwarf_host::Brand;
use std::collections::BTreeMap;
use std::path::Path;

/// A zone's brand as zonecfg(8) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneBrand {
    /// The host's own programs, /usr shared with it (OmniOS).
    Sparse,
    /// Packages of their own, of the host's version (OmniOS).
    Lipkg,
    /// Packages of their own; on OpenIndiana of the host's version.
    Ipkg,
    /// Packages of their own, of whatever version (OpenIndiana).
    Nlipkg,
    /// Packages from pkgsrc (OmniOS).
    Pkgsrc,
    /// An illumos root from an archive.
    Illumos,
    /// Ours (`smf/brand`): the host's own programs, and nothing that starts by itself but our init.
    Reddwarf,
    /// Linux programs.
    Lx,
    /// A virtual machine.
    Bhyve,
}

/// How a brand's programs are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// illumos': our own program starts them inside.
    Native,
    /// Linux': a shell starts them inside, as our program can't run there.
    Linux,
    /// None: the machine itself is what runs.
    Machine,
}

/// All, those first that pods get which name none.
const ALL: &[(ZoneBrand, &str)] = &[
    (ZoneBrand::Sparse, "sparse"),
    (ZoneBrand::Nlipkg, "nlipkg"),
    (ZoneBrand::Lipkg, "lipkg"),
    (ZoneBrand::Ipkg, "ipkg"),
    (ZoneBrand::Pkgsrc, "pkgsrc"),
    (ZoneBrand::Illumos, "illumos"),
    (ZoneBrand::Reddwarf, "reddwarf"),
    (ZoneBrand::Lx, "lx"),
    (ZoneBrand::Bhyve, "bhyve"),
];

/// What a pod gets whose annotation names no brand: the host's first native one.
pub const OCI: &str = "oci";

impl ZoneBrand {
    /// As zonecfg(8) writes it.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(brand, _)| *brand == self).map_or("sparse", |(_, name)| name)
    }

    /// By zonecfg's name.
    pub fn of(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known)| *known == name).map(|(brand, _)| *brand)
    }

    /// How its programs are started.
    pub fn programs(self) -> Programs {
        match self {
            Self::Lx => Programs::Linux,
            Self::Bhyve => Programs::Machine,
            Self::Sparse | Self::Nlipkg | Self::Lipkg | Self::Ipkg | Self::Pkgsrc | Self::Illumos | Self::Reddwarf => {
                Programs::Native
            }
        }
    }

    /// What zlogin(1) is called with besides for such zones. In those of ours nothing is set up for su(8), which it runs
    /// otherwise; in failsafe mode it runs the shell itself.
    pub fn login(self) -> &'static [&'static str] {
        match self {
            Self::Reddwarf => &["-S"],
            _ => &[],
        }
    }

    /// Whether pods' zones are cloned from a template zone of the brand. A virtual machine has nothing to clone.
    pub fn is_cloned(self) -> bool {
        self != Self::Bhyve
    }

    /// What follows `zoneadm -z ZONE install`. `source`: a snapshot or archive to install from, for brands that need one.
    pub fn install(self, source: Option<&str>) -> Vec<String> {
        match (self, source) {
            (Self::Lx | Self::Illumos, Some(source)) => vec!["-s".into(), source.into()],
            (Self::Ipkg | Self::Lipkg | Self::Nlipkg | Self::Pkgsrc | Self::Sparse, Some(archive)) => {
                vec!["-a".into(), archive.into(), "-u".into()]
            }
            _ => Vec::new(),
        }
    }

    /// Whether it can't be installed without an image to install from.
    pub fn needs_source(self) -> bool {
        matches!(self, Self::Lx | Self::Illumos)
    }

    /// Attributes that the brand itself reads.
    ///
    /// # Errors
    /// A value that can't be written.
    pub fn attributes(self, sandbox: &Sizes) -> Result<BTreeMap<AttrName, Attr>, ValueError> {
        let mut all = BTreeMap::new();
        let mut add = |name: &str, value: String| -> Result<(), ValueError> {
            all.insert(AttrName::new(name)?, Attr { kind: AttrKind::String, value: Text::new(value)? });
            Ok(())
        };
        match self {
            Self::Lx => add("kernel-version", "4.4.0".into())?,
            Self::Bhyve => {
                add("type", "generic".into())?;
                add("bootrom", "BHYVE_RELEASE".into())?;
                add("vcpus", sandbox.vcpus.max(1).to_string())?;
                add("ram", format!("{}M", (sandbox.memory_bytes >> 20).max(128)))?;
                add("acpi", "on".into())?;
            }
            _ => {}
        }
        if self == Self::Lx || sandbox.cloud_init {
            if !sandbox.resolvers.is_empty() {
                add("resolvers", sandbox.resolvers.join(","))?;
            }
            if let Some(domain) = &sandbox.domain {
                add("dns-domain", domain.clone())?;
            }
        }
        Ok(all)
    }
}

/// What of a sandbox a brand's attributes follow from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Name servers.
    pub resolvers: Vec<String>,
    /// First search domain.
    pub domain: Option<String>,
    /// Processors of a virtual machine.
    pub vcpus: u64,
    /// Memory of a virtual machine.
    pub memory_bytes: u64,
    /// A virtual machine is told of its network by cloud-init.
    pub cloud_init: bool,
}

/// Brands that the host has: those with a description below `directory`. Without that directory (stand-ins for the
/// tools) all.
pub fn installed(directory: &Path) -> Vec<ZoneBrand> {
    let known = ALL.iter().map(|(brand, _)| *brand);
    if !directory.is_dir() {
        return known.filter(|b| *b != ZoneBrand::Reddwarf).collect();
    }
    known.filter(|brand| directory.join(brand.name()).join("config.xml").is_file()).collect()
}

/// The zone brand that a pod's brand means on a host with these; `None`: it has none such.
pub fn resolve(brand: &Brand, installed: &[ZoneBrand]) -> Option<ZoneBrand> {
    if brand.as_str() == OCI {
        return installed.iter().copied().find(|b| b.programs() == Programs::Native);
    }
    // What other projects call it.
    let name = if brand.as_str() == "native" { "ipkg" } else { brand.as_str() };
    ZoneBrand::of(name).filter(|b| installed.contains(b)).or_else(|| {
        let native = brand.as_str() == "native";
        installed.iter().copied().find(|b| native && b.programs() == Programs::Native && *b != ZoneBrand::Sparse)
    })
}

/// Pods' brands that a host with these accepts.
pub fn offered(installed: &[ZoneBrand]) -> Vec<Brand> {
    let mut names: Vec<&str> = installed.iter().map(|b| b.name()).collect();
    if installed.iter().any(|b| b.programs() == Programs::Native) {
        names.insert(0, OCI);
        names.push("native");
    }
    names.into_iter().filter_map(|name| Brand::new(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_brand_is_one_that_the_host_has() {
        let brand = |name: &str| Brand::new(name).unwrap();
        let omnios = [ZoneBrand::Sparse, ZoneBrand::Lipkg, ZoneBrand::Lx, ZoneBrand::Bhyve];
        assert_eq!(resolve(&brand("oci"), &omnios), Some(ZoneBrand::Sparse));
        assert_eq!(resolve(&brand("native"), &omnios), Some(ZoneBrand::Lipkg));
        assert_eq!(resolve(&brand("lx"), &omnios), Some(ZoneBrand::Lx));
        assert_eq!(resolve(&brand("pkgsrc"), &omnios), None);
        assert_eq!(resolve(&brand("oci"), &[ZoneBrand::Ipkg]), Some(ZoneBrand::Ipkg));
        assert_eq!(resolve(&brand("lx"), &[ZoneBrand::Ipkg]), None);
        let offered: Vec<_> = offered(&omnios).iter().map(|b| b.as_str().to_owned()).collect();
        assert_eq!(offered, ["oci", "sparse", "lipkg", "lx", "bhyve", "native"]);
    }

    #[test]
    fn each_brand_is_installed_in_its_own_way() {
        assert_eq!(ZoneBrand::Lx.install(Some("rpool/rw/images/a@golden")), ["-s", "rpool/rw/images/a@golden"]);
        assert_eq!(ZoneBrand::Lipkg.install(Some("/a.tar")), ["-a", "/a.tar", "-u"]);
        assert_eq!(ZoneBrand::Sparse.install(None), Vec::<String>::new());
        assert_eq!(ZoneBrand::Bhyve.install(None), Vec::<String>::new());
        for (brand, name) in ALL {
            assert_eq!((brand.name(), ZoneBrand::of(name)), (*name, Some(*brand)));
        }
    }
}
