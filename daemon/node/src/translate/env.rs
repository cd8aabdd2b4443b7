//! A container's environment.

use super::{Facts, Identity, RefKind, config_error, downward, expand, lookup, services, volumes};
use crate::desired::PodIntent;
use crate::plan::Notice;
use reddwarf_host::VolumeName;
use reddwarf_host::spec::{ContainerSpec, EnvFile, EnvVar as HostVar, References, Sensitive};
use reddwarf_objects::names;
use reddwarf_objects::pod::{Container, EnvFromRef, EnvSource, EnvVar, FileKeyRef, KeyRef, ResourceFieldRef};

/// PATH for images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in order; a name set again keeps its place and takes the new value.
#[derive(Default)]
pub(super) struct Environment {
    vars: Vec<(String, String)>,
    /// The pod's own variables and those of services: only they are seen by `$(NAME)`.
    own: Vec<usize>,
    /// Those of services, whether or not something else took their place.
    services: Vec<(String, String)>,
    /// Variables that the host reads from files.
    files: Vec<EnvFile>,
    /// What references led to.
    references: References,
}

/// A container's environment as the host takes it.
pub(super) struct HostEnvironment {
    pub(super) env: Vec<HostVar>,
    pub(super) service_env: Vec<HostVar>,
    pub(super) env_files: Vec<EnvFile>,
    pub(super) references: References,
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

    /// Sets what a reference leads to: where it led when the running container started, else where it leads `now`.
    /// What was absent then, and must not be absent any more, is looked for again.
    fn refer(
        &mut self,
        source: Source<'_>,
        declared: String,
        optional: bool,
        now: impl FnOnce() -> Result<Option<Vec<HostVar>>, Notice>,
    ) -> Result<(), Notice> {
        let kept = source.running.and_then(|r| r.references.as_ref()?.get(&declared));
        let found = match kept.filter(|found| found.is_some() || optional) {
            Some(found) => found.clone(),
            None => now()?,
        };
        for variable in found.iter().flatten() {
            self.set(&variable.name, variable.value.expose().clone(), true);
        }
        self.references.insert(declared, found);
        Ok(())
    }

    /// A variable of the pod's own.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.own.iter().filter_map(|at| self.vars.get(*at)).find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn into_host(self) -> HostEnvironment {
        let host = |(name, value)| host_var(name, value);
        HostEnvironment {
            env: self.vars.into_iter().map(host).collect(),
            service_env: self.services.into_iter().map(host).collect(),
            env_files: self.files,
            references: self.references,
        }
    }
}

fn host_var(name: String, value: String) -> HostVar {
    HostVar { name, value: Sensitive::new(value) }
}

/// What a container's variables are made from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) intent: &'a PodIntent,
    pub(super) identity: &'a Identity,
    pub(super) facts: Facts<'a>,
    pub(super) container: &'a Container,
    /// The container as it runs: what its references led to when it started, and values that come from the host and not
    /// from the pod, stay as they are there.
    pub(super) running: Option<&'a ContainerSpec>,
    /// `spec.containers[0]`.
    pub(super) field: &'a str,
}

/// The environment: defaults, the image's, services', `envFrom`, `env`, each over the ones before.
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
    env.services = service_variables(source);
    for (name, value) in env.services.clone() {
        env.set(&name, value, true);
    }
    for (i, from) in source.container.env_from.iter().enumerate() {
        let field = format!("{}.envFrom[{i}]", source.field);
        if let Some(reference) = &from.config_map_ref {
            let field = format!("{field}.configMapRef");
            whole(source, &mut env, &from.prefix, RefKind::ConfigMap, reference, &field)?;
        }
        if let Some(reference) = &from.secret_ref {
            whole(source, &mut env, &from.prefix, RefKind::Secret, reference, &format!("{field}.secretRef"))?;
        }
    }
    for (i, var) in source.container.env.iter().enumerate() {
        let field = format!("{}.env[{i}]", source.field);
        if let Some(reference) = var.value_from.as_ref().and_then(|from| from.file_key_ref.as_ref()) {
            env.files.push(file_key(source, &var.name, reference, &format!("{field}.valueFrom.fileKeyRef"))?);
            continue;
        }
        let Some(from) = &var.value_from else {
            let value = expand(var.value.as_deref().unwrap_or_default(), |name| env.get(name));
            env.set(&var.name, value, true);
            continue;
        };
        let optional = [&from.config_map_key_ref, &from.secret_key_ref].into_iter().flatten().any(|key| key.optional);
        env.refer(source, declared(&var.name, from), optional, || {
            let value = value_of(source, var, from, &field)?;
            Ok(value.map(|value| vec![host_var(var.name.clone(), value)]))
        })?;
    }
    Ok(env)
}

/// What a container hears of services: those that are there when it starts, for as long as it runs.
fn service_variables(source: Source<'_>) -> Vec<(String, String)> {
    if let Some(running) = source.running {
        return running.service_env.iter().map(|v| (v.name.clone(), v.value.expose().clone())).collect();
    }
    let Source { intent, facts, .. } = source;
    services::variables(facts.config, &intent.key.namespace, intent.pod.spec.enable_service_links)
}

fn file_key(source: Source<'_>, name: &str, reference: &FileKeyRef, field: &str) -> Result<EnvFile, Notice> {
    let volume = VolumeName::new(&reference.volume_name)
        .map_err(|e| config_error(&format!("{field}.volumeName"), e.to_string()))?;
    let mut volumes = source.intent.pod.spec.volumes.iter();
    if !volumes.any(|v| v.name == reference.volume_name && v.empty_dir.is_some()) {
        let message = format!("the pod has no emptyDir volume {:?}", reference.volume_name);
        return Err(config_error(&format!("{field}.volumeName"), message));
    }
    if !volumes::is_plain_relative(&reference.path) {
        let message = format!("{:?} must be a relative path without '..'", reference.path);
        return Err(config_error(&format!("{field}.path"), message));
    }
    let FileKeyRef { volume_name: _, path, key, optional } = reference.clone();
    Ok(EnvFile { name: name.to_owned(), volume, path, key, optional })
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
    let EnvFromRef { name, optional } = reference;
    env.refer(source, format!("{prefix}* from {} {name}", kind.word()), *optional, || {
        let Some(data) = lookup(source.intent, kind, source.facts.config, name) else {
            return if *optional { Ok(None) } else { Err(missing(kind, name, field)) };
        };
        // What can't be a variable's name or value is left out, as the reference does.
        let variable = |key: &str, bytes: &[u8]| {
            let name = format!("{prefix}{key}");
            let value = std::str::from_utf8(bytes).ok().filter(|_| names::env_name(&name).is_empty())?;
            Some(host_var(name, value.to_owned()))
        };
        Ok(Some(data.iter().filter_map(|(key, bytes)| variable(key, bytes.expose())).collect()))
    })
}

/// A reference as it is declared, by which what it led to is kept.
fn declared(name: &str, from: &EnvSource) -> String {
    let EnvSource { config_map_key_ref, secret_key_ref, field_ref, resource_field_ref, file_key_ref: _ } = from;
    let key = |kind: RefKind, key: &KeyRef| format!("{} {} key {}", kind.word(), key.name, key.key);
    let amount = |amount: &ResourceFieldRef| {
        let ResourceFieldRef { container_name, resource, divisor } = amount;
        let divisor = divisor.as_ref().map(ToString::to_string).unwrap_or_default();
        format!("resource {resource} of {container_name} by {divisor}")
    };
    let source = config_map_key_ref.as_ref().map(|k| key(RefKind::ConfigMap, k));
    let source = source.or_else(|| secret_key_ref.as_ref().map(|k| key(RefKind::Secret, k)));
    let source = source.or_else(|| field_ref.as_ref().map(|f| format!("field {}", f.field_path)));
    let source = source.or_else(|| resource_field_ref.as_ref().map(amount));
    format!("{name} from {}", source.unwrap_or_default())
}

fn missing(kind: RefKind, name: &str, field: &str) -> Notice {
    config_error(field, kind.not_found(name))
}

/// What a variable's source is now; `None` when it is optional and absent.
fn value_of(source: Source<'_>, var: &EnvVar, from: &EnvSource, field: &str) -> Result<Option<String>, Notice> {
    let EnvSource { config_map_key_ref, secret_key_ref, field_ref, resource_field_ref, file_key_ref: _ } = from;
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
            None => missing(kind, &key.name, field),
            Some(_) => {
                let (what, namespace) = (kind.kind(), &source.intent.key.namespace);
                config_error(field, format!("couldn't find key {} in {what} {namespace}/{}", key.key, key.name))
            }
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
    // All labels in one value are for files only.
    let plain = |path: &str| !matches!(path, "metadata.labels" | "metadata.annotations");
    if let Some(value) = downward::field(intent, identity, facts, path).filter(|_| plain(path)) {
        return Ok(value);
    }
    let host_ip =
        || running_value(source, name).unwrap_or_else(|| facts.host.ip.map_or(String::new(), |ip| ip.to_string()));
    match path {
        "status.hostIP" | "status.hostIPs" => Ok(host_ip()),
        "status.podIP" => Ok(identity.addresses.first().map_or_else(host_ip, ToString::to_string)),
        "status.podIPs" if identity.addresses.is_empty() => Ok(host_ip()),
        "status.podIPs" => Ok(identity.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        other => {
            let message = format!("{other:?} is no field that a variable can take");
            Err(config_error(&format!("{field}.fieldPath"), message))
        }
    }
}

/// What the running container has for a variable.
fn running_value(source: Source<'_>, name: &str) -> Option<String> {
    source.running?.env.iter().find(|v| v.name == name).map(|v| v.value.expose().clone())
}

/// `resourceFieldRef`; what the host decided over stays as it is in a running container.
fn amount(source: Source<'_>, name: &str, reference: &ResourceFieldRef, field: &str) -> Result<String, Notice> {
    let container = match reference.container_name.as_str() {
        "" => source.container,
        other => downward::container(&source.intent.pod.spec, other)
            .ok_or_else(|| config_error(&format!("{field}.containerName"), format!("no container {other:?}")))?,
    };
    let amount = downward::amount(container, reference, source.facts).ok_or_else(|| {
        let message = format!("{:?} is no resource that a variable can take", reference.resource);
        config_error(&format!("{field}.resource"), message)
    })?;
    match running_value(source, name).filter(|_| amount.of_host) {
        Some(value) => Ok(value),
        None => Ok(amount.value.to_string()),
    }
}
