//! Volumes whose files are given by content: configMap, secret, downwardAPI, projected.

use super::volumes::{Problem, is_plain_relative};
use super::{Facts, Identity, RefKind, account, downward, lookup};
use crate::desired::PodIntent;
use reddwarf_host::spec::{FileContent, Sensitive, VolumeSpec};
use reddwarf_objects::pod::{
    ConfigMapVolume, Container, DownwardFile, DownwardVolume, KeyToPath, ProjectedVolume, Projection, SecretVolume,
    TokenProjection, TrustProjection,
};
use std::collections::BTreeMap;

type Files = BTreeMap<String, FileContent>;

pub(super) fn config_map(intent: &PodIntent, facts: Facts<'_>, map: &ConfigMapVolume) -> Result<VolumeSpec, Problem> {
    let ConfigMapVolume { name, items, default_mode, optional } = map;
    let wanted = Wanted { kind: RefKind::ConfigMap, name, items, mode: *default_mode, optional: *optional };
    Ok(VolumeSpec::Files { files: keys(intent, facts, wanted, "configMap")?, secret: false })
}

pub(super) fn secret(intent: &PodIntent, facts: Facts<'_>, secret: &SecretVolume) -> Result<VolumeSpec, Problem> {
    let SecretVolume { secret_name: name, items, default_mode, optional } = secret;
    let wanted = Wanted { kind: RefKind::Secret, name, items, mode: *default_mode, optional: *optional };
    Ok(VolumeSpec::Files { files: keys(intent, facts, wanted, "secret")?, secret: true })
}

pub(super) fn downward(
    intent: &PodIntent,
    identity: &Identity,
    facts: Facts<'_>,
    volume: &DownwardVolume,
    now: Option<&VolumeSpec>,
) -> Result<VolumeSpec, Problem> {
    let pod = Pod { intent, identity, facts, now };
    Ok(VolumeSpec::Files { files: pod.fields(&volume.items, volume.default_mode, "downwardAPI")?, secret: true })
}

pub(super) fn projected(
    intent: &PodIntent,
    identity: &Identity,
    facts: Facts<'_>,
    volume: &ProjectedVolume,
    now: Option<&VolumeSpec>,
) -> Result<VolumeSpec, Problem> {
    let pod = Pod { intent, identity, facts, now };
    let mut files = Files::new();
    let mut problems: Vec<Problem> = Vec::new();
    for (i, source) in volume.sources.iter().enumerate() {
        match pod.source(source, volume.default_mode, &format!("projected.sources[{i}]")) {
            Ok(found) => files.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    let Some(first) = problems.first() else { return Ok(VolumeSpec::Files { files, secret: true }) };
    // The reference puts several in brackets.
    let message = match problems.as_slice() {
        [one] => one.message.clone(),
        many => format!("[{}]", many.iter().map(|p| p.message.as_str()).collect::<Vec<_>>().join(", ")),
    };
    Err(Problem::new(first.field.clone(), message))
}

/// What is asked of a ConfigMap or Secret.
struct Wanted<'a> {
    kind: RefKind,
    name: &'a str,
    items: &'a [KeyToPath],
    mode: u32,
    optional: bool,
}

fn keys(intent: &PodIntent, facts: Facts<'_>, wanted: Wanted<'_>, field: &str) -> Result<Files, Problem> {
    let Wanted { kind, name, items, mode, optional } = wanted;
    let Some(data) = lookup(intent, kind, facts.config, name) else {
        return if optional { Ok(Files::new()) } else { Err(Problem::new(field, kind.not_found(name))) };
    };
    let file = |bytes: &Sensitive<Vec<u8>>, mode| FileContent { bytes: bytes.clone(), mode, owner: None };
    if items.is_empty() {
        return Ok(data.iter().map(|(key, bytes)| (key.clone(), file(bytes, mode))).collect());
    }
    let mut files = Files::new();
    for (i, item) in items.iter().enumerate() {
        check_path(&item.path, &format!("{field}.items[{i}].path"))?;
        match data.get(&item.key) {
            Some(bytes) => drop(files.insert(item.path.clone(), file(bytes, item.mode.unwrap_or(mode)))),
            None if optional => {}
            None => {
                let text = match kind {
                    RefKind::ConfigMap => format!("configmap references non-existent config key: {}", item.key),
                    RefKind::Secret => format!("references non-existent secret key: {}", item.key),
                };
                return Err(Problem::new(format!("{field}.items[{i}].key"), text));
            }
        }
    }
    Ok(files)
}

/// Admission checks it as well; a host refuses the whole sandbox for one such name.
fn check_path(path: &str, field: &str) -> Result<(), Problem> {
    if is_plain_relative(path) && !path.starts_with("..") {
        return Ok(());
    }
    Err(Problem::new(field, format!("{path:?} must be a relative path without '..'")))
}

/// The pod that files tell of.
struct Pod<'a> {
    intent: &'a PodIntent,
    identity: &'a Identity,
    facts: Facts<'a>,
    /// The volume as it is now.
    now: Option<&'a VolumeSpec>,
}

impl Pod<'_> {
    fn source(&self, source: &Projection, mode: u32, field: &str) -> Result<Files, Problem> {
        let Projection { config_map, secret, downward_api, service_account_token, cluster_trust_bundle } = source;
        for (kind, word, keys_of) in
            [(RefKind::ConfigMap, "configMap", config_map), (RefKind::Secret, "secret", secret)]
        {
            if let Some(of) = keys_of {
                let wanted = Wanted { kind, name: &of.name, items: &of.items, mode, optional: of.optional };
                return keys(self.intent, self.facts, wanted, &format!("{field}.{word}"));
            }
        }
        if let Some(downward) = downward_api {
            return self.fields(&downward.items, mode, &format!("{field}.downwardAPI"));
        }
        if let Some(token) = service_account_token {
            return self.token(token, mode, &format!("{field}.serviceAccountToken"));
        }
        if let Some(trust) = cluster_trust_bundle {
            return self.trust(trust, mode, &format!("{field}.clusterTrustBundle"));
        }
        Err(Problem::new(field, "names no source that this version knows"))
    }

    fn fields(&self, items: &[DownwardFile], mode: u32, field: &str) -> Result<Files, Problem> {
        let mut files = Files::new();
        for (i, item) in items.iter().enumerate() {
            let field = format!("{field}.items[{i}]");
            check_path(&item.path, &format!("{field}.path"))?;
            let text = self.field(item, &field)?;
            let bytes = Sensitive::new(text.into_bytes());
            let content = FileContent { bytes, mode: item.mode.unwrap_or(mode), owner: None };
            files.insert(item.path.clone(), content);
        }
        Ok(files)
    }

    fn field(&self, item: &DownwardFile, field: &str) -> Result<String, Problem> {
        if let Some(reference) = &item.field_ref {
            let path = &reference.field_path;
            return downward::field(self.intent, self.identity, self.facts, path)
                .ok_or_else(|| Problem::new(format!("{field}.fieldRef"), format!("unsupported fieldPath: {path}")));
        }
        let Some(reference) = &item.resource_field_ref else {
            return Err(Problem::new(field, "names neither a field nor a resource"));
        };
        let at = format!("{field}.resourceFieldRef");
        let name = &reference.container_name;
        let container = downward::container(&self.intent.pod.spec, name)
            .ok_or_else(|| Problem::new(at.clone(), format!("container {name} not found")))?;
        let amount = downward::amount(container, reference, self.facts)
            .ok_or_else(|| Problem::new(at, format!("unsupported container resource : {}", reference.resource)))?;
        // What the host decides stays as the pod was told at first.
        let told = self.present(&item.path).filter(|_| amount.of_host);
        Ok(told.and_then(|bytes| String::from_utf8(bytes.clone()).ok()).unwrap_or_else(|| amount.value.to_string()))
    }

    /// What a file holds now.
    fn present(&self, path: &str) -> Option<&Vec<u8>> {
        match self.now? {
            VolumeSpec::Files { files, .. } => files.get(path).map(|f| f.bytes.expose()),
            VolumeSpec::EmptyDir { .. } | VolumeSpec::HostPath { .. } | VolumeSpec::Persistent { .. } => None,
        }
    }

    fn token(&self, token: &TokenProjection, mode: u32, field: &str) -> Result<Files, Problem> {
        check_path(&token.path, &format!("{field}.path"))?;
        let text = match self.facts.tokens.get(&account::request(self.intent, token)) {
            Some(answer) => match &answer.token {
                Ok(token) => token.text.expose().clone().into_bytes(),
                Err(why) => return Err(Problem::new(field, format!("failed to fetch token: {why}"))),
            },
            // A worker asks for it before it plans; a plan without a worker shows what is there.
            None => self.present(&token.path).cloned().unwrap_or_default(),
        };
        let owner = self.only_user();
        // For that user alone, or for the group that owns the volumes.
        let alone = owner.is_some() || self.intent.pod.spec.security_context.fs_group.is_some();
        let mode = if alone { 0o600 } else { mode };
        Ok(Files::from([(token.path.clone(), FileContent { bytes: Sensitive::new(text), mode, owner })]))
    }

    /// This version keeps no bundles: as in the reference when there is none.
    fn trust(&self, trust: &TrustProjection, mode: u32, field: &str) -> Result<Files, Problem> {
        check_path(&trust.path, &format!("{field}.path"))?;
        if !trust.optional {
            let message = match (&trust.name, &trust.signer_name) {
                (Some(name), _) => format!("clustertrustbundle.certificates.k8s.io {name:?} not found"),
                (None, signer) => {
                    format!("no ClusterTrustBundle of signer {:?} was found", signer.as_deref().unwrap_or_default())
                }
            };
            return Err(Problem::new(field, message));
        }
        let owner = self.only_user();
        let alone = owner.is_some() || self.intent.pod.spec.security_context.fs_group.is_some();
        let mode = if alone { 0o600 } else { mode };
        Ok(Files::from([(trust.path.clone(), FileContent { bytes: Sensitive::default(), mode, owner })]))
    }

    /// The user that every container says it runs as, where all say the same.
    fn only_user(&self) -> Option<u32> {
        let spec = &self.intent.pod.spec;
        let user = |c: &Container| c.security_context.run_as_user.or(spec.security_context.run_as_user);
        let mut all = spec.init_containers.iter().chain(&spec.containers).map(user);
        let first = all.next().flatten()?;
        all.all(|other| other == Some(first)).then(|| u32::try_from(first).ok()).flatten()
    }
}
