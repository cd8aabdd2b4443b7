//! Values as given to [`Settings`]: understood, completed by defaults, compared with one another.

use super::given::{AllGiven, Place};
use super::values::{self, Bad};
use super::{Cli, DEFAULT_FILE, HostFacts, Settings, SettingsError};
use crate::diagnostic::{Diagnostic, Severity, codes};
use crate::document::text_of;
use crate::limits::Limits;
use crate::source::Source;
use ipnet::IpNet;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DEFAULT_STATE: &str = "/var/lib/reddwarf";
const DEFAULT_REGISTRY_AUTH: &str = "/etc/reddwarf/registry-auth.json";
/// /run is Linux'; on illumos what a boot clears is /var/run.
const DEFAULT_RUN: &str = if cfg!(target_os = "illumos") { "/var/run/reddwarf" } else { "/run/reddwarf" };
const DEFAULT_MANIFESTS: [&str; 3] = [
    "/usr/lib/reddwarf.d",
    "/etc/reddwarf.d",
    if cfg!(target_os = "illumos") { "/var/run/reddwarf.d" } else { "/run/reddwarf.d" },
];
/// Settings files are small; more is a mistake.
const FILE_BYTES: u64 = 1 << 20;

impl Settings {
    /// Reads the settings file and the process' environment and resolves everything; also gives warnings.
    ///
    /// # Errors
    /// [`SettingsError`] with every finding.
    pub fn load(cli: &Cli) -> Result<(Self, Vec<Diagnostic>), SettingsError> {
        Self::load_with(cli, std::env::vars_os().collect(), &HostFacts::of_this_machine())
    }

    /// The same with a given environment and host.
    ///
    /// # Errors
    /// [`SettingsError`] with every finding.
    pub fn load_with(
        cli: &Cli,
        environment: Vec<(OsString, OsString)>,
        facts: &HostFacts,
    ) -> Result<(Self, Vec<Diagnostic>), SettingsError> {
        let variable = environment.iter().find(|(n, v)| n == "REDDWARF_CONFIG" && !v.is_empty());
        let named = cli.config.clone().or_else(|| variable.map(|(_, v)| PathBuf::from(v)));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let source = match read(&path) {
            Ok(source) => Some(Arc::new(source)),
            Err(Unreadable::Absent) if named.is_none() => None,
            Err(Unreadable::Absent) => {
                let (why, help) = ("it was named explicitly", "write it, or start without --config");
                let message = "the settings file is not there";
                return Err(SettingsError(vec![unreadable(&path, message.into(), why, help)]));
            }
            Err(Unreadable::Refused(diagnostic)) => return Err(SettingsError(vec![*diagnostic])),
        };
        let (mut settings, diagnostics) = Self::resolve(cli, environment, source.as_ref(), facts)?;
        settings.config_file = source.map(|_| path);
        Ok((settings, diagnostics))
    }

    /// Resolves without reading anything: flags over `environment` over the text of a settings file over defaults.
    ///
    /// # Errors
    /// [`SettingsError`] with every finding.
    pub fn resolve(
        cli: &Cli,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        file: Option<&Arc<Source>>,
        facts: &HostFacts,
    ) -> Result<(Self, Vec<Diagnostic>), SettingsError> {
        let mut resolve = Resolve { given: AllGiven::collect(cli, environment, file) };
        let settings = resolve.settings(facts);
        resolve.compare(&settings);
        let diagnostics = resolve.given.diagnostics;
        if diagnostics.iter().any(Diagnostic::is_error) {
            Err(SettingsError(diagnostics))
        } else {
            Ok((settings, diagnostics))
        }
    }

    /// Networks of the host that the pod and service networks would take addresses from: refuse to start then.
    /// `host` names each network for the message, for example `eth0 192.0.2.0/24`.
    pub fn clashes_with(&self, host: &[(String, IpNet)]) -> Vec<Diagnostic> {
        let services = self.service_cidr.iter().map(|net| ("service_cidr", *net));
        let ours = self.pod_cidr.iter().map(|net| ("pod_cidr", *net)).chain(services);
        let clash = |(key, net): (&str, IpNet)| {
            let (name, other) = host.iter().find(|(_, other)| overlap(net, *other))?;
            Some(Diagnostic::file(
                Severity::Error,
                codes::SETTINGS_CLASH,
                key,
                format!("`{key}` {net} overlaps with the host's network {other} on {name}"),
                "addresses there could not be reached any more",
                "choose another network",
            ))
        };
        ours.filter_map(clash).collect()
    }
}

struct Resolve {
    given: AllGiven,
}

impl Resolve {
    /// The value of a setting, or its default when it was not given or is bad (which is then among the findings).
    fn one<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Bad>, default: T) -> T {
        self.many(key, parse).and_then(|mut all| all.pop()).unwrap_or(default)
    }

    fn many<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Bad>) -> Option<Vec<T>> {
        let given = self.given.values.get(key)?.clone();
        let mut all = Vec::new();
        for text in &given.texts {
            match parse(text) {
                Ok(value) => all.push(value),
                Err(Bad { why, help }) => {
                    let what = format!("`{key}` can't be `{text}`");
                    self.given.bad(key, &given.place, what, &why, &help);
                }
            }
        }
        Some(all)
    }

    fn number<T: TryFrom<u64>>(&mut self, key: &'static str, least: u64, most: u64, default: T) -> T {
        self.one(key, |text| values::number(text, least, most).map(|n| T::try_from(n).ok()), None).unwrap_or(default)
    }

    fn settings(&mut self, facts: &HostFacts) -> Settings {
        let state_dir = self.one("state", values::path, DEFAULT_STATE.into());
        let run_dir = self.one("run", values::path, DEFAULT_RUN.into());
        let default_log_dir =
            if state_dir == Path::new(DEFAULT_STATE) { "/var/log/pods".into() } else { state_dir.join("pods-log") };
        let default_audit_log = if state_dir == Path::new(DEFAULT_STATE) {
            "/var/log/reddwarf/audit.log".into()
        } else {
            state_dir.join("audit.log")
        };
        let manifests = self.many("manifests", values::path);
        Settings {
            config_file: None,
            gateways: Vec::new(),
            places: self.given.values.iter().map(|(key, given)| (*key, given.place.clone())).collect(),
            manifests: manifests.unwrap_or_else(|| DEFAULT_MANIFESTS.iter().map(PathBuf::from).collect()),
            log_dir: self.one("log_dir", values::path, default_log_dir),
            socket: self.socket(&run_dir),
            seccomp_dir: self.one("seccomp_dir", values::path, state_dir.join("seccomp")),
            kubeconfig: self.one("kubeconfig", values::path, state_dir.join("admin.kubeconfig")),
            state_dir,
            run_dir,
            socket_group: self.one("socket_group", values::group, "reddwarf".into()),
            listen: self.one("listen", values::listen, None),
            tls_cert: self.one("tls_cert", values::path_or_off, None),
            tls_key: self.one("tls_key", values::path_or_off, None),
            client_ca: self.one("client_ca", values::path_or_off, None),
            audit_log: self.one("audit_log", values::path_or_off, Some(default_audit_log)),
            audit_log_bytes: self.number("audit_log_bytes", 64 << 10, 1 << 40, 10 << 20),
            audit_log_files: self.number("audit_log_files", 0, 1000, 5),
            pod_cidr: self.one("pod_cidr", values::cidr_pair, vec![ipnet([10, 88, 0, 0])]),
            service_cidr: self.one("service_cidr", values::cidr_pair, vec![ipnet([10, 96, 0, 0])]),
            node_port_range: self.one("node_port_range", values::port_range, 30_000..=32_767),
            load_balancer_cidr: self.one("load_balancer_cidr", values::cidrs_or_off, Vec::new()),
            bridge: self.one("bridge", values::link_name, "reddwarf0".into()),
            zone_nic: self.one("zone_nic", values::datalink_or_off, None),
            zone_vlan: self.number("zone_vlan", 0, 4094, 0),
            zone_balancer: self.one("zone_balancer", values::zone_balancer, super::ZoneBalancer::Ipnat),
            host: self.one("host", values::host, facts.host),
            node_name: self.node_name(facts),
            cluster_dns: self.one("cluster_dns", values::name_server, super::ClusterDns::Auto),
            dns_listen: self
                .many("dns_listen", values::dns_listen)
                .map_or_else(|| vec![super::DnsListen::Bridge], |all: Vec<_>| all.into_iter().flatten().collect()),
            resolv_conf: self.one("resolv_conf", values::path, "/etc/resolv.conf".into()),
            cluster_domain: self.one("cluster_domain", values::dns_name, "cluster.local".into()),
            max_pods: self.number("max_pods", 0, 100_000, 110),
            system_reserved_cpu_millis: self.one("system_reserved_cpu", values::quantity, zero()).millis().max(0)
                as u64,
            system_reserved_memory_bytes: self.one("system_reserved_memory", values::quantity, zero()).units().max(0)
                as u64,
            eviction_hard: self.many("eviction_hard", values::eviction).unwrap_or_default(),
            eviction_transition_seconds: self.number("eviction_transition_seconds", 0, 86_400, 300),
            log_max_bytes: self.number("log_max_bytes", 16 << 10, 1 << 40, 10 << 20),
            log_max_files: self.number("log_max_files", 2, 1000, 5),
            allowed_unsafe_sysctls: self.many("allowed_unsafe_sysctls", values::sysctl).unwrap_or_default(),
            storage_pool: self.one("storage_pool", values::storage_place, None),
            storage_engine: self.one("storage_engine", values::storage_engine, super::StorageEngineName::Auto),
            storage_roots: self.one("storage_roots", values::storage_roots, super::StorageRoots::Auto),
            storage_images: self.one("storage_images", values::storage_place, None),
            storage_pods: self.one("storage_pods", values::storage_place, None),
            storage_volumes: self.one("storage_volumes", values::storage_place, None),
            host_path_allow: self.many("host_path_allow", values::path).unwrap_or_default(),
            container_runtime: self.one(
                "container_runtime",
                values::container_runtime,
                super::ContainerRuntime::Libcontainer,
            ),
            registry_mirrors: self.one("registry_mirrors", values::mirrors, Vec::new()),
            insecure_registries: self.one("insecure_registries", values::registries, Vec::new()),
            registry_ca: self.many("registry_ca", values::path).unwrap_or_default(),
            registry_auth: self.one("registry_auth", values::path_or_off, Some(DEFAULT_REGISTRY_AUTH.into())),
            registry_timeout_seconds: self.number("registry_timeout_seconds", 1, 3600, 30),
            zar_keys: self.many("zar_keys", values::path).unwrap_or_default(),
            image_gc_high_percent: self.number("image_gc_high_percent", 1, 100, 85),
            image_gc_low_percent: self.number("image_gc_low_percent", 0, 99, 80),
            image_gc_min_age_seconds: self.number("image_gc_min_age_seconds", 0, 1 << 32, 120),
            resync_seconds: self.number("resync_seconds", 1, 86_400, 60),
            debounce_milliseconds: self.number("debounce_milliseconds", 0, 10_000, 20),
            prune_guard_percent: self.number("prune_guard_percent", 0, 100, 50),
            allow_untrusted_manifests: self.one("allow_untrusted_manifests", values::boolean, false),
            limits: self.limits(),
            log_level: self.one("log_level", values::log_level, "info".into()),
            log_format: self.one("log_format", values::log_format, super::LogFormat::Text),
        }
    }

    fn limits(&mut self) -> Limits {
        let default = Limits::default();
        Limits {
            file_bytes: self.number("manifest_file_bytes", 1, 1 << 30, default.file_bytes),
            total_bytes: self.number("manifest_total_bytes", 1, 1 << 40, default.total_bytes),
            files: self.number("manifest_files", 1, 10_000_000, default.files),
            documents: self.number("manifest_documents", 1, 10_000_000, default.documents),
            depth: self.number("manifest_depth", 8, 200, default.depth),
            nodes: self.number("manifest_nodes", 100, 100_000_000, default.nodes),
        }
    }

    fn socket(&mut self, run_dir: &Path) -> PathBuf {
        let default = run_dir.join("reddwarf.sock");
        if !self.given.values.contains_key("socket")
            && let Err(Bad { why, help }) = values::socket_path(&default.to_string_lossy())
        {
            let place = self.given.values.get("run").map(|g| g.place.clone()).unwrap_or(Place::Flag);
            let what = format!("`socket` would be `{}`", default.display());
            self.given.bad("run", &place, what, &why, &help);
        }
        self.one("socket", values::socket_path, default)
    }

    fn node_name(&mut self, facts: &HostFacts) -> String {
        let default = facts.host_name.to_ascii_lowercase();
        if !self.given.values.contains_key("node_name")
            && let Err(Bad { why, .. }) = values::dns_name(&default)
        {
            let what = format!("the host name `{}` can't be the node's name", facts.host_name);
            self.given.bad("node_name", &Place::Flag, what, &why, "give a name by `node_name`");
        }
        self.one("node_name", values::dns_name, default)
    }

    /// What contradicts each other.
    fn compare(&mut self, settings: &Settings) {
        let place = |given: &AllGiven, keys: [&'static str; 2]| {
            let key = keys.into_iter().find(|k| given.values.contains_key(k))?;
            Some((key, given.values.get(key)?.place.clone()))
        };
        let pods = settings.pod_cidr.iter().map(|net| ("pod_cidr", "a pod's", *net));
        let services = settings.service_cidr.iter().map(|net| ("service_cidr", "a service's", *net));
        let balancers = settings.load_balancer_cidr.iter().map(|net| ("load_balancer_cidr", "a load balancer's", *net));
        let all: Vec<_> = pods.chain(services).chain(balancers).collect();
        for (index, (one, whose, a)) in all.iter().enumerate() {
            for (other, others, b) in all.iter().skip(index + 1).filter(|(other, _, b)| one != other && overlap(*a, *b))
            {
                let Some((key, place)) = place(&self.given, [one, other]) else { continue };
                let what = format!("`{one}` {a} and `{other}` {b} overlap");
                let why = format!("an address could then be {whose} and {others}");
                let help = "choose networks apart from each other";
                self.given.report(codes::SETTINGS_CLASH, key, &place, what, &why, help);
            }
        }
        if settings.image_gc_low_percent >= settings.image_gc_high_percent
            && let Some((key, place)) = place(&self.given, ["image_gc_high_percent", "image_gc_low_percent"])
        {
            let (high, low) = (settings.image_gc_high_percent, settings.image_gc_low_percent);
            let what = format!("`image_gc_low_percent` {low} is not below `image_gc_high_percent` {high}");
            let why = "removing images would never come to its end";
            self.given.report(codes::SETTINGS_CLASH, key, &place, what, why, "choose a lower image_gc_low_percent");
        }
        let pairs = [("state", &settings.state_dir, "run", &settings.run_dir)];
        for (one, a, other, b) in pairs {
            if a == b
                && let Some((key, place)) = place(&self.given, [one, other])
            {
                let what = format!("`{one}` and `{other}` are both `{}`", a.display());
                let why = "one is kept over a reboot, the other is not";
                self.given.report(codes::SETTINGS_CLASH, key, &place, what, why, "choose two directories");
            }
        }
        for (i, layer) in settings.manifests.iter().enumerate() {
            let twice = settings.manifests.iter().skip(i + 1).any(|other| other == layer);
            if twice && let Some((key, place)) = place(&self.given, ["manifests", "manifests"]) {
                let what = format!("`manifests` names `{}` twice", layer.display());
                let why = "a layer can't mask itself";
                self.given.report(codes::SETTINGS_CLASH, key, &place, what, why, "remove one of them");
            }
        }
    }
}

fn zero() -> reddwarf_objects::Quantity {
    reddwarf_objects::Quantity::from_units(0)
}

fn ipnet(octets: [u8; 4]) -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::new_assert(octets.into(), 16))
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

enum Unreadable {
    Absent,
    Refused(Box<Diagnostic>),
}

fn unreadable(path: &Path, message: String, why: &str, help: &str) -> Diagnostic {
    Diagnostic::file(Severity::Error, codes::SETTINGS_UNREADABLE, path.to_string_lossy(), message, why, help)
}

/// Reads a settings file: a regular one, of root or ourselves, that others can't write to.
fn read(path: &Path) -> Result<Source, Unreadable> {
    let refuse =
        |message: String, why: &str, help: &str| Unreadable::Refused(Box::new(unreadable(path, message, why, help)));
    let io = |problem: String| {
        refuse(
            format!("the settings file can't be read: {problem}"),
            "without it settings would be others",
            "mend its permissions",
        )
    };
    let fd = match nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty()) {
        Ok(fd) => fd,
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => return Err(Unreadable::Absent),
        Err(errno) => return Err(io(errno.desc().to_owned())),
    };
    let stat = nix::sys::stat::fstat(&fd).map_err(|errno| io(errno.desc().to_owned()))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    // /dev/null means that there are no settings.
    if kind != SFlag::S_IFREG && kind != SFlag::S_IFCHR {
        return Err(refuse("the settings file is not a file".into(), "only a file can be read", "name a file"));
    }
    if kind == SFlag::S_IFREG && !crate::directory::is_trusted(&stat) {
        let why = "whoever can write it can do everything that the daemon can";
        let help = format!("run `chown root {0}; chmod go-w {0}`", path.display());
        return Err(refuse("the settings file is not only root's to write".into(), why, &help));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::from(fd);
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| io(e.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(refuse(
            format!("the settings file has more than {FILE_BYTES} bytes"),
            "that is a mistake",
            "shorten it",
        ));
    }
    text_of(&path.to_string_lossy(), &bytes).map_err(Unreadable::Refused)
}
