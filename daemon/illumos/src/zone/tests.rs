//! Golden texts: what a pod's zone is configured as, for each brand; and that nothing of a pod changes their meaning.

use super::brand::ZoneBrand;
use super::config::{of_golden, of_sandbox, owner};
use super::machine::Machine;
use crate::paths::Paths;
use crate::zonecfg::{create, interpret};
use proptest::prelude::*;
use reddwarf_host::spec::{HostPathKind, PodIdentity, ResolvConf, Resources, SandboxNetwork, SandboxSpec, VolumeSpec};
use reddwarf_host::{Brand, LinkName, PodUid, SandboxId, VolumeName};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn paths() -> Paths {
    Paths::new(Path::new("/run"), Path::new("/state"))
}

fn pod(namespace: &str, name: &str) -> SandboxSpec {
    let pod = PodIdentity { namespace: namespace.into(), name: name.into(), uid: PodUid::new("0b5c3f4e").unwrap() };
    SandboxSpec {
        id: SandboxId::for_pod(&pod),
        pod,
        brand: Brand::new("oci").unwrap(),
        hostname: "web".into(),
        network: SandboxNetwork::Pod {
            address: "10.88.0.5/24".parse().unwrap(),
            gateway: "10.88.0.1".parse().unwrap(),
            second: None,
        },
        dns: ResolvConf {
            nameservers: vec!["10.88.0.1".parse().unwrap()],
            searches: vec!["default.svc.cluster.local".into()],
            options: Vec::new(),
        },
        hosts: Vec::new(),
        resources: Resources {
            cpu_request_millis: Some(250),
            cpu_limit_millis: Some(1500),
            memory_limit_bytes: Some(512 << 20),
            pids_limit: Some(1000),
            ..Resources::default()
        },
        share_processes: false,
        host_ipc: false,
        own_users: false,
        best_effort: false,
        machine: BTreeMap::new(),
        datasets: BTreeSet::new(),
        sysctls: BTreeMap::new(),
        fs_group: None,
        volumes: BTreeMap::new(),
    }
}

fn text(spec: &SandboxSpec, brand: ZoneBrand) -> String {
    let link = LinkName::for_sandbox(&spec.id);
    let machine = Machine::of(&spec.machine).unwrap();
    create(&of_sandbox(spec, brand, &machine, &paths(), "reddwarf", Some(&link)).unwrap())
}

/// What all native brands have in common, after brand and zonepath.
const COMMON: &str = "set autoboot=false\nset ip-type=exclusive\nset limitpriv=\"default\"\nset cpu-shares=250\n\
    set max-lwps=1000\nset max-processes=1000\nadd capped-cpu\nset ncpus=1.50\nend\nadd capped-memory\n\
    set physical=536870912\nset swap=536870912\nend\n\
    add net\nset physical=\"LINK\"\nset allowed-address=\"10.88.0.5/24\"\nset defrouter=\"10.88.0.1\"\nend\n\
    add fs\nset dir=\"/.reddwarf/bin\"\nset special=\"/state/bin\"\nset type=\"lofs\"\nadd options \"ro\"\nadd options \"nodevices\"\nend\n\
    add fs\nset dir=\"/.reddwarf/ro\"\nset special=\"/state/pool/pods/ID/ro\"\nset type=\"lofs\"\nadd options \"ro\"\nadd options \"nodevices\"\nend\n\
    add fs\nset dir=\"/.reddwarf/roots\"\nset special=\"/state/pool/pods/ID/roots\"\nset type=\"lofs\"\nadd options \"nodevices\"\nend\n\
    add fs\nset dir=\"/.reddwarf/run\"\nset special=\"/run/sandboxes/ID/inside\"\nset type=\"lofs\"\nadd options \"ro\"\nadd options \"nodevices\"\nend\n\
    add fs\nset dir=\"/.reddwarf/rw\"\nset special=\"/state/pool/pods/ID/rw\"\nset type=\"lofs\"\nadd options \"nodevices\"\nend\n";

const MARKS: &str = "add attr\nset name=\"io-reddwarf-instance\"\nset type=string\nset value=\"reddwarf\"\nend\n\
    add attr\nset name=\"io-reddwarf-pod\"\nset type=string\nset value=\"default/web\"\nend\n\
    add attr\nset name=\"io-reddwarf-uid\"\nset type=string\nset value=\"0b5c3f4e\"\nend\n";

fn attr(name: &str, value: &str) -> String {
    format!("add attr\nset name=\"{name}\"\nset type=string\nset value=\"{value}\"\nend\n")
}

fn golden(spec: &SandboxSpec, brand: &str, before: &str, after: &str) -> String {
    let id = spec.id.as_str();
    let link = LinkName::for_sandbox(&spec.id);
    format!(
        "create -F -b\nset brand=\"{brand}\"\nset zonepath=\"/state/pool/zones/ID\"\n{COMMON}{before}{MARKS}{after}verify\ncommit\n"
    )
    .replace("LINK", link.as_str())
    .replace("ID", id)
}

#[test]
fn g06_each_brand_has_its_own_text() {
    let spec = pod("default", "web");
    for brand in [
        ZoneBrand::Sparse,
        ZoneBrand::Lipkg,
        ZoneBrand::Ipkg,
        ZoneBrand::Nlipkg,
        ZoneBrand::Pkgsrc,
        ZoneBrand::Illumos,
        ZoneBrand::Reddwarf,
    ] {
        assert_eq!(text(&spec, brand), golden(&spec, brand.name(), "", ""));
    }
    // Attributes stand in the order of their names.
    let (before, after) = (
        attr("dns-domain", "default.svc.cluster.local"),
        format!("{}{}", attr("kernel-version", "4.4.0"), attr("resolvers", "10.88.0.1")),
    );
    let ro = "add fs\nset dir=\"/.reddwarf/ro\"";
    let read = format!(
        "add fs\nset dir=\"/.reddwarf/read/rw\"\nset special=\"/state/pool/pods/{}/rw\"\nset type=\"lofs\"\nadd options \"ro\"\n\
         add options \"nodevices\"\nend\n{ro}",
        spec.id
    );
    assert_eq!(text(&spec, ZoneBrand::Lx), golden(&spec, "lx", &before, &after).replace(ro, &read));
    let (before, after) = (
        format!("{}{}", attr("acpi", "on"), attr("bootrom", "BHYVE_RELEASE")),
        format!("{}{}{}", attr("ram", "512M"), attr("type", "generic"), attr("vcpus", "2")),
    );
    // A machine sees nothing of our directories.
    let machine = |text: &str| {
        let (head, rest) = text.split_once("add fs\nset dir=\"/.reddwarf/").unwrap();
        format!("{head}{}", rest.split_at(rest.find("add attr").unwrap()).1)
    };
    // Beside its guest's memory it needs some of its own.
    let larger = |text: &str| text.replace("=536870912", "=805306368");
    assert_eq!(text(&spec, ZoneBrand::Bhyve), larger(&machine(&golden(&spec, "bhyve", &before, &after))));

    // What its pod says of it: disks are devices too, ISO images are mounted.
    let said = [
        ("bootdisk", "rpool/vm/web"),
        ("bootrom", "BHYVE_RELEASE_CSM"),
        ("cdrom", "debian.iso"),
        ("cloud-init", "on"),
        ("disk1", "rpool/vm/data"),
        ("vnc", "wait"),
    ];
    let said = said.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let spec = SandboxSpec { machine: said.into(), ..spec };
    let before = [
        attr("acpi", "on"),
        attr("bootdisk", "rpool/vm/web"),
        attr("bootrom", "BHYVE_RELEASE_CSM"),
        attr("cdrom", "/iso/debian.iso"),
        attr("cloud-init", "on"),
        attr("disk1", "rpool/vm/data"),
        attr("dns-domain", "default.svc.cluster.local"),
    ];
    let after = [
        attr("ram", "512M"),
        attr("resolvers", "10.88.0.1"),
        attr("type", "generic"),
        attr("vcpus", "2"),
        attr("vnc", "wait"),
    ];
    let resources = "add fs\nset dir=\"/iso/debian.iso\"\nset special=\"/state/iso/debian.iso\"\nset type=\"lofs\"\n\
                     add options \"ro\"\nadd options \"nodevices\"\nend\n\
                     add device\nset match=\"/dev/zvol/rdsk/rpool/vm/data\"\nend\n\
                     add device\nset match=\"/dev/zvol/rdsk/rpool/vm/web\"\nend\n";
    let bare = larger(&machine(&golden(&spec, "bhyve", &before.concat(), &after.concat())));
    let (head, attrs) = bare.split_at(bare.find("add attr").unwrap());
    assert_eq!(text(&spec, ZoneBrand::Bhyve), format!("{head}{resources}{attrs}"));
}

#[test]
fn a_template_is_marked_as_ours_too() {
    let config = of_golden("reddwarf-golden-sparse", ZoneBrand::Sparse, &paths(), "reddwarf").unwrap();
    assert_eq!(owner(&config, "reddwarf"), Some("reddwarf-golden-sparse"));
    assert_eq!(owner(&config, "another"), None);
}

/// G04, G05: bounds as zonecfg takes them; what it refuses as too small is raised to what it takes.
#[test]
fn g04_g05_limits_become_bounds() {
    let with = |resources| text(&SandboxSpec { resources, ..pod("default", "web") }, ZoneBrand::Sparse);
    let tiny = with(Resources {
        cpu_limit_millis: Some(1),
        memory_limit_bytes: Some(1 << 20),
        pids_limit: Some(1),
        ..Resources::default()
    });
    assert!(tiny.contains("set ncpus=0.01\n") && tiny.contains("set max-lwps=100\n"), "{tiny}");
    assert!(tiny.contains("set physical=1048576\nset swap=52428800\n"), "{tiny}");
    let none = with(Resources::default());
    assert!(!none.contains("capped") && !none.contains("max-") && !none.contains("cpu-shares"), "{none}");
}

#[test]
fn volumes_that_the_system_mounts_are_in_the_configuration() {
    let mut spec = pod("default", "web");
    spec.volumes = BTreeMap::from([
        (VolumeName::new("cache").unwrap(), VolumeSpec::EmptyDir { memory: true, size_limit_bytes: Some(1 << 20) }),
        (
            VolumeName::new("data").unwrap(),
            VolumeSpec::HostPath { path: "/srv/data".into(), kind: HostPathKind::Directory },
        ),
    ]);
    let text = text(&spec, ZoneBrand::Sparse);
    let cache = format!(
        "set dir=\"/.reddwarf/memory/cache\"\nset special=\"/run/sandboxes/{}/inside\"\nset type=\"tmpfs\"\nadd options \"nodevices\"\nadd options \"size=1048576\"\n",
        spec.id
    );
    for part in [
        cache.as_str(),
        "set dir=\"/.reddwarf/host/data\"\nset special=\"/srv/data\"\nset type=\"lofs\"\nadd options \"nodevices\"\n",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

proptest! {
    /// Whatever stands in a pod's names, paths and domains is refused, or means itself: the file read back by the strict
    /// grammar is the configuration that was written.
    #[test]
    fn u10_nothing_of_a_pod_changes_what_a_file_means(
        namespace in "\\PC{0,40}",
        name in "[ -~\n\"';=\\[\\]()#$]{1,80}",
        path in "/[ -~\n\"';]{0,60}",
        domain in "[ -~\n\"]{0,30}",
        dataset in "[a-z]{1,9}/[ -~\n\"]{1,9}",
        word in prop::sample::select(vec!["bootorder", "bootrom", "cloud-init", "disk", "cdrom", "extra", "sshkey", "uuid"]).prop_map(str::to_owned),
        value in "[ -~\n\"';]{0,40}",
        many in 0..8_u32,
    ) {
        // Ten thousand bytes and more, now and then.
        let (name, domain) = (name.repeat(if many == 0 { 400 } else { 1 }), domain.repeat(if many == 1 { 1000 } else { 1 }));
        let mut spec = pod(&namespace, &name);
        spec.dns.searches = vec![domain];
        spec.datasets.insert(dataset);
        // What a pod says of a machine is one of the brand's words, or refused.
        let machine = Machine::of(&BTreeMap::from([(word, value.clone()), ("sshkey".to_owned(), value)])).unwrap_or_default();
        spec.volumes.insert(
            VolumeName::new("data").unwrap(),
            VolumeSpec::HostPath { path: path.into(), kind: HostPathKind::Any },
        );
        for brand in [ZoneBrand::Sparse, ZoneBrand::Lx, ZoneBrand::Bhyve, ZoneBrand::Reddwarf] {
            let link = LinkName::for_sandbox(&spec.id);
            if let Ok(config) = of_sandbox(&spec, brand, &machine, &paths(), "reddwarf", Some(&link)) {
                prop_assert_eq!(interpret(&create(&config), None), Ok(config));
            }
        }
    }
}
