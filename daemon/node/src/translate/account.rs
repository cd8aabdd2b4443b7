//! The pod's account: where its tokens go, and the volume with one that a file's pod gets.
//!
//! Admission gives the pods of API clients and controllers a projected volume `kube-api-access-…`. What a file declares
//! is not admitted and stays as the file has it: its pods get the same volume here, without its showing in their spec.

use super::{ContainerRef, Facts, Identity};
use crate::desired::{ConfigData, PodIntent};
use crate::follow::account_of;
use crate::key::PodKey;
use crate::tokens::{TokenRequest, Tokens};
use reddwarf_host::VolumeName;
use reddwarf_host::spec::{ContainerRole, SandboxSpec};
use reddwarf_objects::admission::DEFAULT_SERVICE_ACCOUNT;
use reddwarf_objects::pod::{
    DownwardFile, DownwardProjection, FieldRef, KeyToPath, KeysProjection, ProjectedVolume, Projection, TokenProjection,
};

/// Where containers look for their account's token.
pub(super) const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The ConfigMap with the certificate of the authority behind the API's.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
/// The volume of a file's pod.
const VOLUME: &str = "kube-api-access";
/// As admission has it: renewed when it has been used for about an hour.
const TOKEN_SECONDS: i64 = 3607;

/// A file of a volume that holds a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenFile {
    pub(crate) volume: VolumeName,
    pub(crate) path: String,
    pub(crate) request: TokenRequest,
}

/// Every token that a pod's volumes hold. `sandbox` is what it has now.
pub(crate) fn token_files(
    intent: &PodIntent,
    config: &ConfigData,
    tokens: &Tokens,
    sandbox: Option<&SandboxSpec>,
) -> Vec<TokenFile> {
    let spec = &intent.pod.spec;
    let own = spec.volumes.iter().filter_map(|v| Some((VolumeName::new(&v.name).ok()?, v.projected.as_ref()?.clone())));
    let given = volume(intent, AccountVolume::of(sandbox), config, tokens);
    let all = own.chain(given.map(|name| (name, projected())));
    let files = all.flat_map(|(volume, projected)| {
        let sources = projected.sources.into_iter().filter_map(|source| source.service_account_token);
        sources.map(move |token| {
            let request = request(intent, &token);
            TokenFile { volume: volume.clone(), path: token.path, request }
        })
    });
    files.collect()
}

/// The request that a source makes.
pub(super) fn request(intent: &PodIntent, token: &TokenProjection) -> TokenRequest {
    TokenRequest {
        pod: PodKey::clone(&intent.key),
        uid: intent.uid.to_string(),
        audience: Some(token.audience.clone()).filter(|a| !a.is_empty()),
        seconds: token.expiration_seconds,
    }
}

/// What decides over the volume that a file's pod gets with a token of its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountVolume {
    /// There is no sandbox yet: pod and account say.
    ToDecide,
    /// The sandbox has it, and keeps it unless the pod no longer wants it: what becomes of the account restarts nothing.
    Kept,
    /// The sandbox was made without it, by an earlier version or because the account said so: it stays as it is.
    Absent,
}

impl AccountVolume {
    /// What holds for a pod with this sandbox.
    pub fn of(sandbox: Option<&SandboxSpec>) -> Self {
        match sandbox {
            None => Self::ToDecide,
            Some(spec) if spec.volumes.keys().any(|name| name.as_str() == VOLUME) => Self::Kept,
            Some(_) => Self::Absent,
        }
    }
}

/// The volume that a file's pod gets, unless it says otherwise: the pod itself, or its account.
pub(super) fn volume(
    intent: &PodIntent,
    state: AccountVolume,
    config: &ConfigData,
    tokens: &Tokens,
) -> Option<VolumeName> {
    let spec = &intent.pod.spec;
    let taken = spec.volumes.iter().any(|v| v.name == VOLUME);
    if !tokens.offered || intent.source.is_none() || taken || !super::containers(intent).iter().any(wants_mount) {
        return None;
    }
    let account = account_of(&intent.pod);
    let by_account = match (state, config.accounts.get(&(intent.key.namespace.clone(), account.to_owned()))) {
        (AccountVolume::Absent, _) => return None,
        (AccountVolume::Kept, _) => true,
        (AccountVolume::ToDecide, Some(automount)) => automount.unwrap_or(true),
        // The default account of a new namespace is made in a moment; that another one is missing keeps no pod from
        // running.
        (AccountVolume::ToDecide, None) => account == DEFAULT_SERVICE_ACCOUNT,
    };
    let wanted = spec.automount_service_account_token.unwrap_or(by_account);
    VolumeName::new(VOLUME).ok().filter(|_| wanted)
}

/// Ephemeral containers get none, and a mount of the pod's own at that place wins.
pub(super) fn wants_mount(which: &ContainerRef<'_>) -> bool {
    which.role != ContainerRole::Ephemeral && !which.container.volume_mounts.iter().any(|m| m.mount_path == TOKEN_PATH)
}

/// What the volume holds, as admission would have it: token, authority, namespace.
pub(super) fn projected() -> ProjectedVolume {
    let token = TokenProjection { expiration_seconds: TOKEN_SECONDS, path: "token".into(), ..Default::default() };
    let key = KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None };
    let authority = KeysProjection { name: ROOT_CA.into(), items: vec![key], optional: false };
    let namespace = DownwardFile {
        path: "namespace".into(),
        field_ref: Some(FieldRef { field_path: "metadata.namespace".into() }),
        ..Default::default()
    };
    ProjectedVolume {
        sources: vec![
            Projection { service_account_token: Some(token), ..Default::default() },
            Projection { config_map: Some(authority), ..Default::default() },
            Projection { downward_api: Some(DownwardProjection { items: vec![namespace] }), ..Default::default() },
        ],
        ..Default::default()
    }
}

/// The account's volume, where this pod has or gets it.
pub(super) fn given(
    intent: &PodIntent,
    identity: &Identity,
    facts: Facts<'_>,
) -> Option<(VolumeName, ProjectedVolume)> {
    volume(intent, identity.account_volume, facts.config, facts.tokens).map(|name| (name, projected()))
}
