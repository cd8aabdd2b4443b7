//! The sandbox of a pod.

use super::{Facts, Identity, limits, resources, sysctls, volumes};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::Brand;
use reddwarf_host::spec::{FsGroup, FsGroupChange, HostsEntry, PodAddress, ResolvConf, SandboxNetwork, SandboxSpec};
use reddwarf_objects::pod::{DnsConfig, DnsPolicy, PodSpec, QosClass};
use reddwarf_objects::{BRAND_BHYVE, MACHINE_ANNOTATION_PREFIX, ZONE_DATASETS_ANNOTATION};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a pod asks of its sandbox. `running` is the spec of the sandbox that the pod has now.
///
/// # Errors
/// Everything that keeps the sandbox from being made.
pub fn sandbox(
    intent: &PodIntent,
    identity: &Identity,
    facts: Facts<'_>,
    running: Option<&SandboxSpec>,
) -> Result<SandboxSpec, Vec<Notice>> {
    let mut problems = Vec::new();
    let spec = &intent.pod.spec;
    let brand = keep(brand(intent, facts), &mut problems);
    let network = keep(network(spec, identity, facts), &mut problems);
    let dns = keep(dns(intent, facts, running.map(|r| &r.dns)), &mut problems);
    let hosts = keep(hosts(intent, identity, facts), &mut problems);
    let hostname = keep(hostname(intent, facts), &mut problems);
    let fs_group = keep(fs_group(spec), &mut problems);
    let volumes = match volumes::volumes(intent, identity, facts, running) {
        Ok(volumes) => Some(volumes),
        Err(found) => {
            problems.extend(found);
            None
        }
    };
    let (Some(brand), Some(network), Some(dns), Some(hosts), Some(hostname), Some(volumes)) =
        (brand, network, dns, hosts, hostname, volumes)
    else {
        return Err(problems);
    };
    let Some(fs_group) = fs_group else { return Err(problems) };
    Ok(SandboxSpec {
        id: identity.id.clone(),
        pod: identity.pod.clone(),
        brand,
        hostname,
        network,
        dns,
        hosts,
        resources: resources::pod(spec),
        share_processes: spec.share_process_namespace && !spec.host_pid,
        host_ipc: spec.host_ipc,
        sysctls: sysctls::of(spec),
        fs_group,
        own_users: spec.host_users == Some(false),
        best_effort: intent.pod.qos_class() == QosClass::BestEffort,
        machine: machine(intent),
        datasets: datasets(intent),
        volumes,
    })
}

/// What the annotations say of a pod's virtual machine; which words there are is the host's to know.
fn machine(intent: &PodIntent) -> BTreeMap<String, String> {
    if intent.pod.zone_brand() != BRAND_BHYVE {
        return BTreeMap::new();
    }
    let annotations = intent.pod.metadata.annotations.iter();
    let said = annotations.filter_map(|(key, value)| Some((key.strip_prefix(MACHINE_ANNOTATION_PREFIX)?, value)));
    said.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

/// Datasets that the pod administers itself. Whether they are its to have is the host's to know.
fn datasets(intent: &PodIntent) -> BTreeSet<String> {
    let said = intent.pod.metadata.annotations.get(ZONE_DATASETS_ANNOTATION).map_or("", String::as_str);
    said.split(',').map(str::trim).filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
}

/// The value, or its problem put aside.
fn keep<T>(result: Result<T, Notice>, problems: &mut Vec<Notice>) -> Option<T> {
    result.map_err(|p| problems.push(p)).ok()
}

fn brand(intent: &PodIntent, facts: Facts<'_>) -> Result<Brand, Notice> {
    const FIELD: &str = "metadata.annotations[reddwarf.io/zone-brand]";
    let text = intent.pod.zone_brand();
    let brand = Brand::new(text).map_err(|e| Notice::new("InvalidBrand", e.to_string()).at(FIELD))?;
    if facts.host.brands.contains(&brand) {
        return Ok(brand);
    }
    let known: Vec<_> = facts.host.brands.iter().map(Brand::as_str).collect();
    let message = format!("this host has no brand {text:?}; it has {}", known.join(", "));
    Err(Notice::new("UnsupportedBrand", message).at(FIELD))
}

fn network(spec: &PodSpec, identity: &Identity, facts: Facts<'_>) -> Result<SandboxNetwork, Notice> {
    if spec.host_network {
        return Ok(SandboxNetwork::Host);
    }
    let network = &facts.settings.network;
    let subnets = network.subnets();
    let of = |ip: &IpAddr| {
        let subnet = subnets.iter().find(|s| s.cidr.addr().is_ipv4() == ip.is_ipv4())?;
        let address = ipnet::IpNet::new(*ip, subnet.cidr.prefix_len()).ok()?;
        Some(PodAddress { address, gateway: subnet.gateway })
    };
    let mut addresses = identity.addresses.iter().filter_map(of);
    let Some(PodAddress { address, gateway }) = addresses.next() else {
        let ranges = subnets.iter().map(|s| s.cidr.to_string()).collect::<Vec<_>>().join(" or ");
        let message = format!("no free address in {ranges}; delete pods or widen the pod network");
        return Err(Notice::new("AddressPoolExhausted", message));
    };
    Ok(SandboxNetwork::Pod { address, gateway, second: addresses.next() })
}

/// sethostname(2)'s limit.
const HOSTNAME_MAX: usize = 64;

/// `spec.hostname`, or the pod's name, cut to a host name's 63 bytes; the host's own on the host's network.
fn hostname(intent: &PodIntent, facts: Facts<'_>) -> Result<String, Notice> {
    let spec = &intent.pod.spec;
    if spec.host_network {
        return Ok(facts.settings.node_name.clone());
    }
    if let Some(name) = &spec.hostname_override {
        return Ok(name.clone());
    }
    let short = short_hostname(intent);
    match fqdn(intent, facts, &short) {
        Some(full) if spec.set_hostname_as_fqdn && full.len() > HOSTNAME_MAX => {
            let message = format!(
                "Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({HOSTNAME_MAX} characters is the max, {} characters requested)",
                full.len()
            );
            Err(Notice::new("FailedCreatePodSandBox", message).at("spec.setHostnameAsFQDN"))
        }
        Some(full) if spec.set_hostname_as_fqdn => Ok(full),
        _ => Ok(short),
    }
}

fn fs_group(spec: &PodSpec) -> Result<Option<FsGroup>, Notice> {
    let context = &spec.security_context;
    let Some(group) = context.fs_group else { return Ok(None) };
    let gid = u32::try_from(group).map_err(|_| {
        Notice::new("InvalidFsGroup", format!("{group} is no group id")).at("spec.securityContext.fsGroup")
    })?;
    let change = match context.fs_group_change_policy.as_deref() {
        Some("OnRootMismatch") => FsGroupChange::OnRootMismatch,
        _ => FsGroupChange::Always,
    };
    Ok(Some(FsGroup { gid, change }))
}

fn short_hostname(intent: &PodIntent) -> String {
    let spec = &intent.pod.spec;
    let name = if spec.hostname.is_empty() { &intent.key.name } else { &spec.hostname };
    let cut: String = name.chars().filter(char::is_ascii).take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn fqdn(intent: &PodIntent, facts: Facts<'_>, short: &str) -> Option<String> {
    let subdomain = &intent.pod.spec.subdomain;
    (!subdomain.is_empty())
        .then(|| format!("{short}.{subdomain}.{}.svc.{}", intent.key.namespace, facts.settings.cluster_domain))
}

fn hosts(intent: &PodIntent, identity: &Identity, facts: Facts<'_>) -> Result<Vec<HostsEntry>, Notice> {
    let mut entries = Vec::new();
    let short = short_hostname(intent);
    if let Some(full) = fqdn(intent, facts, &short) {
        let entry = |ip: &IpAddr| HostsEntry { ip: *ip, names: vec![full.clone(), short.clone()] };
        entries.extend(identity.addresses.iter().map(entry));
    }
    for (i, alias) in intent.pod.spec.host_aliases.iter().enumerate() {
        let ip = alias.ip.parse().map_err(|_| {
            Notice::new("InvalidHostAlias", format!("{:?} is no IP address", alias.ip))
                .at(format!("spec.hostAliases[{i}].ip"))
        })?;
        entries.push(HostsEntry { ip, names: alias.hostnames.clone() });
    }
    Ok(entries)
}

/// resolv.conf. What comes from the host or from the daemon's settings may change without disturbing a running pod:
/// it keeps what it has unless its own words (policy, dnsConfig) ask for something else.
fn dns(intent: &PodIntent, facts: Facts<'_>, running: Option<&ResolvConf>) -> Result<ResolvConf, Notice> {
    let spec = &intent.pod.spec;
    let for_cluster = for_cluster(spec);
    let own_words = spec.dns_policy == DnsPolicy::None || spec.dns_config != DnsConfig::default();
    if let Some(running) = running.filter(|r| !own_words && **r != ResolvConf::default()) {
        // The host's own can't be taken for the cluster's: with policy Default it is the pod that asks anew.
        let of_cluster = facts.settings.cluster_dns.map(|server| cluster_dns(intent, facts, server));
        if for_cluster || of_cluster.as_ref() != Some(running) {
            return Ok(running.clone());
        }
    }
    wanted_dns(intent, facts).map(|wanted| limits::fit(wanted).0)
}

fn wanted_dns(intent: &PodIntent, facts: Facts<'_>) -> Result<ResolvConf, Notice> {
    let spec = &intent.pod.spec;
    let for_cluster = for_cluster(spec);
    let base = match (spec.dns_policy, facts.settings.cluster_dns.filter(|_| for_cluster)) {
        (DnsPolicy::None, _) => ResolvConf::default(),
        (_, Some(server)) => cluster_dns(intent, facts, server),
        (_, None) => facts.settings.host_dns.clone(),
    };
    with_dns_config(base, &spec.dns_config)
}

fn for_cluster(spec: &PodSpec) -> bool {
    match spec.dns_policy {
        DnsPolicy::ClusterFirst => !spec.host_network,
        DnsPolicy::ClusterFirstWithHostNet => true,
        DnsPolicy::Default | DnsPolicy::None => false,
    }
}

/// What of the resolver's settings does not fit, as events about the pod.
pub(crate) fn dns_warnings(intent: &PodIntent, facts: Facts<'_>) -> Vec<Notice> {
    match wanted_dns(intent, facts) {
        Ok(wanted) => limits::fit(wanted).1,
        Err(_) => Vec::new(),
    }
}

fn cluster_dns(intent: &PodIntent, facts: Facts<'_>, server: IpAddr) -> ResolvConf {
    let domain = &facts.settings.cluster_domain;
    let mut searches = vec![format!("{}.svc.{domain}", intent.key.namespace), format!("svc.{domain}"), domain.clone()];
    searches.extend(facts.settings.host_dns.searches.iter().cloned());
    ResolvConf { nameservers: vec![server], searches, options: vec!["ndots:5".into()] }
}

fn with_dns_config(mut base: ResolvConf, config: &DnsConfig) -> Result<ResolvConf, Notice> {
    for (i, server) in config.nameservers.iter().enumerate() {
        let server = server.parse().map_err(|_| {
            Notice::new("InvalidDNSConfig", format!("{server:?} is no IP address"))
                .at(format!("spec.dnsConfig.nameservers[{i}]"))
        })?;
        if !base.nameservers.contains(&server) {
            base.nameservers.push(server);
        }
    }
    for search in &config.searches {
        if !base.searches.contains(search) {
            base.searches.push(search.clone());
        }
    }
    for option in &config.options {
        let prefix = format!("{}:", option.name);
        base.options.retain(|o| *o != option.name && !o.starts_with(&prefix));
        base.options.push(match &option.value {
            Some(value) => format!("{prefix}{value}"),
            None => option.name.clone(),
        });
    }
    Ok(base)
}
