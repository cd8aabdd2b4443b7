//! The table of settings: file keys, flags, environment names, help and documentation all come from here.

use super::{Reload, Settings};

/// How a value is written in `reddwarfd.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text in quotes.
    Text,
    /// A whole number.
    Number,
    /// A text or a number: a Kubernetes quantity.
    Quantity,
    /// `true` or `false`; as a flag it takes no value.
    Boolean,
    /// A list of texts; as a flag it is repeated, in the environment parted by `:`.
    List,
    /// The same, in the environment parted by commas: its texts hold colons.
    Commas,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key in `reddwarfd.toml`. The flag is the same with `-`, the variable in capitals behind `REDDWARF_`.
    pub key: &'static str,
    /// The flag without its dashes.
    pub flag: &'static str,
    /// What help calls the value.
    pub value_name: &'static str,
    /// How it is written.
    pub form: Form,
    /// The default as shown to users; it may depend on other settings.
    pub default: &'static str,
    /// What it does, in a sentence without a full stop.
    pub help: &'static str,
    /// When a change takes hold.
    pub reload: Reload,
    /// The resolved value as shown to users.
    pub show: fn(&Settings) -> String,
}

impl Setting {
    /// The environment variable.
    pub fn environment(&self) -> String {
        format!("REDDWARF_{}", self.key.to_ascii_uppercase())
    }
}

/// A setting by its key.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.key == key)
}

fn paths(list: &[std::path::PathBuf]) -> String {
    list.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":")
}

fn networks(list: &[ipnet::IpNet]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn commas(list: &[impl ToString]) -> String {
    if list.is_empty() { "off".to_owned() } else { list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") }
}

fn pairs(list: &[(String, String)]) -> String {
    commas(&list.iter().map(|(one, other)| format!("{one}={other}")).collect::<Vec<_>>())
}

fn names(list: &[String]) -> String {
    list.join(":")
}

fn optional(value: &Option<impl ToString>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_else(|| "off".to_owned())
}

fn optional_path(value: &Option<std::path::PathBuf>) -> String {
    value.as_ref().map_or_else(|| "off".to_owned(), |path| path.display().to_string())
}

/// What was given; without that the defaults.
fn eviction(settings: &Settings) -> String {
    let given: Vec<String> = settings.eviction_hard.iter().map(ToString::to_string).collect();
    if given.is_empty() { super::eviction::DEFAULTS.map(|t| t.to_string()).join(":") } else { given.join(":") }
}

macro_rules! settings {
    ($($key:literal $flag:literal $value_name:literal $form:ident $reload:ident, $default:literal, $help:literal, $show:expr;)*) => {
        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            flag: $flag,
            value_name: $value_name,
            form: Form::$form,
            default: $default,
            help: $help,
            reload: Reload::$reload,
            show: $show,
        }),*];
    };
}

settings! {
    "manifests" "manifests" "DIR" List Live, "/usr/lib/reddwarf.d, /etc/reddwarf.d, /run/reddwarf.d (illumos: /var/run/reddwarf.d)",
        "Manifest directories, lowest layer first: a file masks those of the same name in lower ones", |s| paths(&s.manifests);
    "state" "state" "DIR" Text Restart, "/var/lib/reddwarf",
        "What must survive a reboot: database, images, pods' files", |s| s.state_dir.display().to_string();
    "run" "run" "DIR" Text Restart, "/run/reddwarf (illumos: /var/run/reddwarf)",
        "What must not survive a reboot: the socket, supervisors, pins of namespaces", |s| s.run_dir.display().to_string();
    "log_dir" "log-dir" "DIR" Text Restart, "/var/log/pods, or STATE/pods-log when `state` is not the default",
        "Containers' logs, in the kubelet's layout", |s| s.log_dir.display().to_string();
    "socket" "socket" "PATH" Text Restart, "RUN/reddwarf.sock",
        "The control socket", |s| s.socket.display().to_string();
    "socket_group" "socket-group" "GROUP" Text Restart, "reddwarf",
        "The group that may use the control socket, if there is one of this name", |s| s.socket_group.clone();
    "listen" "listen" "ADDR:PORT" Text Restart, "off",
        "Where the Kubernetes API listens over TCP, by TLS; 127.0.0.1:6443 is usual", |s| optional(&s.listen);
    "tls_cert" "tls-cert" "FILE" Text Restart, "off",
        "The certificate that the API shows, its chain behind it, in PEM; off: one of its own authority. A change of the file is taken over while running", |s| optional_path(&s.tls_cert);
    "tls_key" "tls-key" "FILE" Text Restart, "the file of `tls_cert`",
        "The key of `tls_cert`, in PEM and without a pass phrase", |s| optional_path(&s.tls_key);
    "client_ca" "client-ca" "FILE" Text Restart, "off",
        "Authorities whose client certificates are believed besides its own's, in PEM; common name is the user, organizations are the groups", |s| optional_path(&s.client_ca);
    "kubeconfig" "kubeconfig" "FILE" Text Restart, "STATE/admin.kubeconfig",
        "Where the admin's kubeconfig is written when `listen` is on, mode 0600", |s| s.kubeconfig.display().to_string();
    "audit_log" "audit-log" "FILE" Text Restart, "/var/log/reddwarf/audit.log, or STATE/audit.log when `state` is not the default",
        "Where every request that changes something leaves a line of JSON, or off", |s| optional_path(&s.audit_log);
    "audit_log_bytes" "audit-log-bytes" "BYTES" Number Restart, "10485760",
        "Bytes of the audit log before it is renamed to FILE.1 and begun anew", |s| s.audit_log_bytes.to_string();
    "audit_log_files" "audit-log-files" "N" Number Restart, "5",
        "Old audit logs that are kept", |s| s.audit_log_files.to_string();
    "host" "host" "KIND" Text Restart, "linux on Linux, illumos on illumos, else sim",
        "Which host is driven: linux, illumos or sim (a simulated one that runs nothing)", |s| s.host.as_str().to_owned();
    "node_name" "node-name" "NAME" Text Restart, "the host name in lower case",
        "The name of the Node object", |s| s.node_name.clone();
    "pod_cidr" "pod-cidr" "CIDR" Text Restart, "10.88.0.0/16",
        "Pods' addresses, one network or two with a comma (an IPv4 and an IPv6 one): then pods have an address of each, the first is `podIP`", |s| networks(&s.pod_cidr);
    "service_cidr" "service-cidr" "CIDR" Text Restart, "10.96.0.0/16",
        "Services' addresses, one network or two with a comma (an IPv4 and an IPv6 one); may not overlap with `pod_cidr`", |s| networks(&s.service_cidr);
    "node_port_range" "node-port-range" "FIRST-LAST" Text Restart, "30000-32767",
        "Ports on the host's addresses for services of type NodePort and LoadBalancer", |s| format!("{}-{}", s.node_port_range.start(), s.node_port_range.end());
    "load_balancer_cidr" "load-balancer-cidr" "CIDR" Text Restart, "off",
        "Addresses for services of type LoadBalancer, networks with commas; the host answers for them on its own links", |s| if s.load_balancer_cidr.is_empty() { "off".to_owned() } else { networks(&s.load_balancer_cidr) };
    "bridge" "bridge" "NAME" Text Restart, "reddwarf0",
        "The bridge that pods are linked to; made when it is not there", |s| s.bridge.clone();
    "zone_nic" "zone-nic" "LINK" Text Restart, "off",
        "illumos: the NIC, aggregation or etherstub that pods' links are put on, in place of an etherstub of reddwarfd's own named `bridge`", |s| optional(&s.zone_nic);
    "zone_vlan" "zone-vlan" "ID" Number Restart, "0",
        "illumos: the VLAN of pods' links, 1 to 4094; 0: none", |s| s.zone_vlan.to_string();
    "zone_balancer" "zone-balancer" "NAME" Text Restart, "ipnat",
        "illumos: what balances connections to services: ipnat, or ilb (the integrated load balancer) for what it can do and ipnat for the rest", |s| s.zone_balancer.as_str().to_owned();
    "dns_listen" "dns-listen" "ADDR:PORT" Commas Restart, "bridge",
        "Where the name server listens, by UDP and TCP: `bridge` (the pod bridge's address, port 53), addresses with ports, or off", |s| commas(&s.dns_listen);
    "cluster_dns" "cluster-dns" "ADDR[:PORT]" Text Restart, "auto",
        "The name server for pods with dnsPolicy ClusterFirst; auto: reddwarfd itself when it listens on the bridge; off: the host's own name servers", |s| s.cluster_dns.to_string();
    "resolv_conf" "resolv-conf" "FILE" Text Restart, "/etc/resolv.conf",
        "Which name servers this host has: those that all other names are asked of, and that pods with dnsPolicy Default get", |s| s.resolv_conf.display().to_string();
    "cluster_domain" "cluster-domain" "DOMAIN" Text Restart, "cluster.local",
        "The DNS domain of services and pods", |s| s.cluster_domain.clone();
    "container_runtime" "container-runtime" "NAME" Text Restart, "libcontainer",
        "What runs containers on Linux: libcontainer (built in), crun or runc", |s| s.container_runtime.as_str().to_owned();
    "max_pods" "max-pods" "N" Number Live, "110",
        "Pods at most on this host", |s| s.max_pods.to_string();
    "system_reserved_cpu" "system-reserved-cpu" "QUANTITY" Quantity Live, "0",
        "CPU that pods can't ask for: the node's allocatable is less by it", |s| format!("{}m", s.system_reserved_cpu_millis);
    "system_reserved_memory" "system-reserved-memory" "QUANTITY" Quantity Live, "0",
        "Memory that pods can't ask for", |s| s.system_reserved_memory_bytes.to_string();
    "eviction_hard" "eviction-hard" "SIGNAL<AMOUNT" List Restart, "memory.available<100Mi, nodefs.available<10%&5Gi, nodefs.inodesFree<5%, pid.available<5%",
        "When the host is short of something: pods are then evicted; signals that are not named keep their default, and `off` in the place of an amount turns one off", eviction;
    "eviction_transition_seconds" "eviction-transition-seconds" "SECONDS" Number Restart, "300",
        "How long a shortage must be over before the node takes new pods again", |s| s.eviction_transition_seconds.to_string();
    "log_max_bytes" "log-max-bytes" "BYTES" Number Restart, "10485760",
        "Bytes of a container's log before it is rotated", |s| s.log_max_bytes.to_string();
    "log_max_files" "log-max-files" "N" Number Restart, "5",
        "Files kept of a container's log, the current one included", |s| s.log_max_files.to_string();
    "storage_pool" "storage-pool" "PLACE" Text Restart, "STATE/storage",
        "Where volumes are kept: a directory by its absolute path, or a ZFS dataset such as `rpool/reddwarf`", |s| optional(&s.storage_pool);
    "storage_engine" "storage-engine" "NAME" Text Restart, "auto",
        "How volumes are kept: zfs, btrfs or directory; auto: zfs where `storage_pool` is a dataset, btrfs where it lies on btrfs, else directory", |s| s.storage_engine.as_str().to_owned();
    "storage_roots" "storage-roots" "HOW" Text Restart, "auto",
        "Pods' root file systems on Linux: auto: clones of images where `storage_engine` is zfs or btrfs, else overlayfs; overlay: always overlayfs", |s| s.storage_roots.as_str().to_owned();
    "storage_images" "storage-images" "PLACE" Text Restart, "images below `storage_pool`",
        "A place of its own for images, of the same form as `storage_pool`", |s| optional(&s.storage_images);
    "storage_pods" "storage-pods" "PLACE" Text Restart, "pods below `storage_pool`",
        "A place of its own for pods' root file systems", |s| optional(&s.storage_pods);
    "storage_volumes" "storage-volumes" "PLACE" Text Restart, "volumes below `storage_pool`",
        "A place of its own for volumes", |s| optional(&s.storage_volumes);
    "host_path_allow" "host-path-allow" "DIR" List Live, "none",
        "Host directories that pods may mount by hostPath, themselves and what is below", |s| paths(&s.host_path_allow);
    "registry_mirrors" "registry-mirrors" "MIRRORS" Text Restart, "off",
        "Where images are looked for before their registry: `docker.io=https://mirror.example:5000`, several with commas between them, asked in this order", |s| pairs(&s.registry_mirrors);
    "insecure_registries" "insecure-registries" "REGISTRIES" Text Restart, "off",
        "Registries (host or host:port, commas between them) that may be spoken with in plain HTTP where they speak no TLS; those of this very host (localhost, 127.0.0.1) always may", |s| commas(&s.insecure_registries);
    "registry_ca" "registry-ca" "FILE" List Restart, "none",
        "Authorities in PEM that registries' certificates are believed from, besides the system's", |s| paths(&s.registry_ca);
    "registry_auth" "registry-auth" "FILE" Text Restart, "/etc/reddwarf/registry-auth.json",
        "The host's own credentials for registries, as docker's config.json, mode 0600; used after a pod's imagePullSecrets. Need not exist; read anew at every pull", |s| optional_path(&s.registry_auth);
    "registry_timeout_seconds" "registry-timeout-seconds" "SECONDS" Number Restart, "30",
        "A registry that sends nothing for so long is given up", |s| s.registry_timeout_seconds.to_string();
    "zar_keys" "zar-keys" "FILE" List Restart, "none",
        "Files of ed25519 public keys, one a line: only `.zar` archives that one of them signed are imported; none: any is", |s| paths(&s.zar_keys);
    "image_gc_high_percent" "image-gc-high-percent" "PERCENT" Number Restart, "85",
        "When the disk with the images is this full, images that nobody uses are removed, longest unused first; those imported by hand stay. 100 never removes any", |s| s.image_gc_high_percent.to_string();
    "image_gc_low_percent" "image-gc-low-percent" "PERCENT" Number Restart, "80",
        "Images are removed until the disk is no fuller than this", |s| s.image_gc_low_percent.to_string();
    "image_gc_min_age_seconds" "image-gc-min-age-seconds" "SECONDS" Number Restart, "120",
        "An image that was used within this time is not removed for want of room", |s| s.image_gc_min_age_seconds.to_string();
    "allowed_unsafe_sysctls" "allowed-unsafe-sysctls" "NAME" List Live, "none",
        "Kernel settings beyond the safe ones that pods may ask for: names, or prefixes such as `net.core.*`", |s| names(&s.allowed_unsafe_sysctls);
    "seccomp_dir" "seccomp-dir" "DIR" Text Restart, "STATE/seccomp",
        "Profiles of system calls that pods may name (seccompProfile of type Localhost)", |s| s.seccomp_dir.display().to_string();
    "resync_seconds" "resync-seconds" "SECONDS" Number Live, "60",
        "Time between full passes over everything, whatever events came", |s| s.resync_seconds.to_string();
    "debounce_milliseconds" "debounce-milliseconds" "MS" Number Live, "20",
        "How long a changed directory must be quiet before it is read", |s| s.debounce_milliseconds.to_string();
    "prune_guard_percent" "prune-guard-percent" "PERCENT" Number Live, "50",
        "A change that would delete more than this share of what files declared waits for `reconcile --allow-prune`; 100 never waits", |s| s.prune_guard_percent.to_string();
    "allow_untrusted_manifests" "allow-untrusted-manifests" "BOOL" Boolean Live, "false",
        "Read manifests of any owner and writable by anybody: whoever can write them is root", |s| s.allow_untrusted_manifests.to_string();
    "manifest_file_bytes" "manifest-file-bytes" "BYTES" Number Live, "1048576",
        "Bytes in one manifest at most", |s| s.limits.file_bytes.to_string();
    "manifest_total_bytes" "manifest-total-bytes" "BYTES" Number Live, "268435456",
        "Bytes in all manifests together at most", |s| s.limits.total_bytes.to_string();
    "manifest_files" "manifest-files" "N" Number Live, "100000",
        "Manifests at most", |s| s.limits.files.to_string();
    "manifest_documents" "manifest-documents" "N" Number Live, "10000",
        "Documents in one manifest at most", |s| s.limits.documents.to_string();
    "manifest_depth" "manifest-depth" "N" Number Live, "64",
        "How deep values in a manifest may be nested", |s| s.limits.depth.to_string();
    "manifest_nodes" "manifest-nodes" "N" Number Live, "500000",
        "Values in one manifest at most, aliases expanded", |s| s.limits.nodes.to_string();
    "log_level" "log-level" "FILTER" Text Live, "info",
        "How much is logged: error, warn, info, debug, trace, or `target=level` pairs with commas", |s| s.log_level.clone();
    "log_format" "log-format" "FORMAT" Text Restart, "text",
        "How log lines look: text or json", |s| s.log_format.as_str().to_owned();
}

/// The documentation's table, in Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "| Key | Flag | Environment | Default | What it does | A change takes hold |\n|---|---|---|---|---|---|\n",
    );
    for s in SETTINGS {
        let reload = match s.reload {
            Reload::Live => "at a reload",
            Reload::Restart => "at a restart",
        };
        let flag = match s.form {
            Form::Boolean => format!("--{}", s.flag),
            _ => format!("--{} {}", s.flag, s.value_name),
        };
        let default = if s.default.contains('`') { s.default.to_owned() } else { format!("`{}`", s.default) };
        out.push_str(&format!(
            "| `{}` | `{flag}` | `{}` | {default} | {} | {reload} |\n",
            s.key,
            s.environment(),
            s.help
        ));
    }
    out
}
