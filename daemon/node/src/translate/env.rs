//! A container's environment.

use super::{Facts, Identity, RefKind, config_error, expand, lookup, resources};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::spec::{ContainerSpec, EnvVar as HostVar, Sensitive};
use reddwarf_objects::pod::{Container, EnvFromRef, EnvSource, EnvVar, KeyRef, ResourceFieldRef};

/// PATH for images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in order; a name set again keeps its place and takes the new value.
#[derive(Default)]
pub(super) struct Environment {
    vars: Vec<(String, String)>,
    /// Where the pod's own variables begin: only those are seen by `$(NAME)`.
    own: Vec<usize>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String, own: bool) {
        let at = match self.vars.iter().position(|(n, _)| n == name) {
            Some(at) => {
                self.vars[at].1 = value;
                at
            }
            None => {
                self.vars.push((name.to_owned(), value));
                self.vars.len() - 1
            }
        };
        if own && !self.own.contains(&at) {
            self.own.push(at);
        }
    }

    /// A variable of the pod's own.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.own.iter().filter_map(|at| self.vars.get(*at)).find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// As the host takes it.
    pub(super) fn into_vars(self) -> Vec<HostVar> {
        self.vars.into_iter().map(|(name, value)| HostVar { name, value: Sensitive::new(value) }).collect()
    }
}

/// What a container's variables are made from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) intent: &'a PodIntent,
    pub(super) identity: &'a Identity,
    pub(super) facts: Facts<'a>,
    pub(super) container: &'a Container,
    /// The container as it runs: values that come from the host, not from the pod, stay as they are there.
    pub(super) running: Option<&'a ContainerSpec>,
    /// `spec.containers[0]`.
    pub(super) field: &'a str,
}

/// The environment: defaults, the image's, `envFrom`, `env`, each over the ones before.
pub(super) fn environment(source: Source<'_>, image: &[String], hostname: &str) -> Result<Environment, Notice> {
    let mut env = Environment::default();
    env.set("PATH", DEFAULT_PATH.into(), false);
    env.set("HOSTNAME", hostname.to_owned(), false);
    if source.container.tty {
        env.set("TERM", "xterm".into(), false);
    }
    for entry in image {
        if let Some((name, value)) = entry.split_once('=') {
            env.set(name, value.to_owned(), false);
        }
    }
    for (i, from) in source.container.env_from.iter().enumerate() {
        let field = format!("{}.envFrom[{i}]", source.field);
        if let Some(reference) = &from.config_map_ref {
            whole(source, &mut env, &from.prefix, RefKind::ConfigMap, reference, &format!("{field}.configMapRef"))?;
        }
        if let Some(reference) = &from.secret_ref {
            whole(source, &mut env, &from.prefix, RefKind::Secret, reference, &format!("{field}.secretRef"))?;
        }
    }
    for (i, var) in source.container.env.iter().enumerate() {
        let field = format!("{}.env[{i}]", source.field);
        if let Some(value) = value_of(source, &env, var, &field)? {
            env.set(&var.name, value, true);
        }
    }
    Ok(env)
}

/// All keys of a ConfigMap or Secret.
fn whole(
    source: Source<'_>,
    env: &mut Environment,
    prefix: &str,
    kind: RefKind,
    reference: &EnvFromRef,
    field: &str,
) -> Result<(), Notice> {
    let Some(data) = lookup(source.intent, kind, source.facts.config, &reference.name) else {
        if reference.optional {
            return Ok(());
        }
        return Err(missing(source, kind, &reference.name, field));
    };
    for (key, bytes) in data.iter() {
        let name = format!("{prefix}{key}");
        // What can't be a variable's name or value is left out, as the reference does.
        if let (false, Ok(value)) = (name.contains(['=', '\0']), std::str::from_utf8(bytes.expose())) {
            env.set(&name, value.to_owned(), true);
        }
    }
    Ok(())
}

fn missing(source: Source<'_>, kind: RefKind, name: &str, field: &str) -> Notice {
    config_error(field, format!("{} {name:?} not found in namespace {}", kind.word(), source.intent.key.namespace))
}

/// One variable's value; `None` when its optional source is absent.
fn value_of(source: Source<'_>, env: &Environment, var: &EnvVar, field: &str) -> Result<Option<String>, Notice> {
    let Some(from) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, |name| env.get(name))));
    };
    let EnvSource { config_map_key_ref, secret_key_ref, field_ref, resource_field_ref } = from;
    if let Some(key) = config_map_key_ref {
        return one_key(source, RefKind::ConfigMap, key, &format!("{field}.valueFrom.configMapKeyRef"));
    }
    if let Some(key) = secret_key_ref {
        return one_key(source, RefKind::Secret, key, &format!("{field}.valueFrom.secretKeyRef"));
    }
    if let Some(reference) = field_ref {
        return pod_field(source, &var.name, &reference.field_path, &format!("{field}.valueFrom.fieldRef")).map(Some);
    }
    if let Some(reference) = resource_field_ref {
        return amount(source, &var.name, reference, &format!("{field}.valueFrom.resourceFieldRef")).map(Some);
    }
    Err(config_error(&format!("{field}.valueFrom"), "names no source that this version knows"))
}

fn one_key(source: Source<'_>, kind: RefKind, key: &KeyRef, field: &str) -> Result<Option<String>, Notice> {
    let data = lookup(source.intent, kind, source.facts.config, &key.name);
    let Some(bytes) = data.and_then(|d| d.get(&key.key)) else {
        if key.optional {
            return Ok(None);
        }
        return Err(match data {
            None => missing(source, kind, &key.name, field),
            Some(_) => config_error(field, format!("{} {:?} has no key {:?}", kind.word(), key.name, key.key)),
        });
    };
    match String::from_utf8(bytes.expose().clone()) {
        Ok(text) if !text.contains('\0') => Ok(Some(text)),
        Ok(_) | Err(_) => {
            let message = format!(
                "key {:?} of {} {:?} is not text, so it can't be a variable; mount it as a file",
                key.key,
                kind.word(),
                key.name
            );
            Err(config_error(field, message))
        }
    }
}

/// Downward API, `fieldRef` (Kubernetes: "Downward API", "Available fields").
fn pod_field(source: Source<'_>, name: &str, path: &str, field: &str) -> Result<String, Notice> {
    let Source { intent, identity, facts, .. } = source;
    let meta = &intent.pod.metadata;
    if let Some(key) = keyed(path, "metadata.labels") {
        return Ok(meta.labels.get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed(path, "metadata.annotations") {
        return Ok(meta.annotations.get(key).cloned().unwrap_or_default());
    }
    let host_ip =
        || running_value(source, name).unwrap_or_else(|| facts.host.ip.map_or(String::new(), |ip| ip.to_string()));
    Ok(match path {
        "metadata.name" => intent.key.name.clone(),
        "metadata.namespace" => intent.key.namespace.clone(),
        "metadata.uid" => identity.pod.uid.to_string(),
        "spec.nodeName" => facts.settings.node_name.clone(),
        "spec.serviceAccountName" => intent.pod.spec.service_account_name.clone(),
        "status.hostIP" | "status.hostIPs" => host_ip(),
        "status.podIP" | "status.podIPs" => identity.address.map_or_else(host_ip, |ip| ip.to_string()),
        other => {
            return Err(config_error(
                &format!("{field}.fieldPath"),
                format!("{other:?} is no field that a variable can take"),
            ));
        }
    })
}

/// `key` of `prefix['key']`.
fn keyed<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")
}

/// What the running container has for a variable.
fn running_value(source: Source<'_>, name: &str) -> Option<String> {
    source.running?.env.iter().find(|v| v.name == name).map(|v| v.value.expose().clone())
}

/// `resourceFieldRef`: rounded up to a multiple of the divisor. Without a limit it is what the host has for pods.
fn amount(source: Source<'_>, name: &str, reference: &ResourceFieldRef, field: &str) -> Result<String, Notice> {
    let spec = &source.intent.pod.spec;
    let container = if reference.container_name.is_empty() {
        source.container
    } else {
        spec.containers.iter().chain(&spec.init_containers).find(|c| c.name == reference.container_name).ok_or_else(
            || config_error(&format!("{field}.containerName"), format!("no container {:?}", reference.container_name)),
        )?
    };
    let limits = &container.resources.limits;
    let requests = &container.resources.requests;
    let (own, of_host, cpu) = match reference.resource.as_str() {
        "limits.cpu" => (resources::cpu(limits), Some(source.facts.host.cpu_millis), true),
        "limits.memory" => (resources::memory(limits), Some(source.facts.host.memory_bytes), false),
        "requests.cpu" => (resources::cpu(requests).or_else(|| resources::cpu(limits)), None, true),
        "requests.memory" => (resources::memory(requests).or_else(|| resources::memory(limits)), None, false),
        other => {
            let message =
                format!("{other:?}: this version knows limits.cpu, limits.memory, requests.cpu, requests.memory");
            return Err(config_error(&format!("{field}.resource"), message));
        }
    };
    if own.is_none()
        && let Some(value) = running_value(source, name)
    {
        return Ok(value);
    }
    let value = own.or(of_host).unwrap_or(0);
    let divisor = reference.divisor.as_ref().map(|q| if cpu { q.millis() } else { q.units() });
    let divisor = divisor.and_then(|d| u64::try_from(d).ok()).filter(|d| *d > 0).unwrap_or(if cpu { 1000 } else { 1 });
    Ok(value.div_ceil(divisor).to_string())
}
