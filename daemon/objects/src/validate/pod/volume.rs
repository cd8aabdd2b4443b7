//! Rules of a pod's volumes.

use super::{Scope, env, source};
use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules, storage,
    },
};
use serde_json::Value;

/// The volumes that containers can mount: those without a fault, and those that come from elsewhere.
pub(super) struct Volumes<'v> {
    own: Vec<(&'v str, &'v Value)>,
    claims: Vec<String>,
}

impl<'v> Volumes<'v> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.source(name).is_some() || self.claims.iter().any(|claim| claim == name)
    }

    /// Is it backed by a claim?
    pub(super) fn is_claim(&self, name: &str) -> bool {
        let claims = |source: &Value| source.get("persistentVolumeClaim").or(source.get("ephemeral")).is_some();
        self.source(name).map_or_else(|| self.has(name), claims)
    }

    pub(super) fn is_image(&self, name: &str) -> bool {
        self.source(name).is_some_and(|source| source.get("image").is_some())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.own.iter().map(|(name, _)| *name).chain(self.claims.iter().map(String::as_str))
    }

    fn source(&self, name: &str) -> Option<&'v Value> {
        self.own.iter().find(|(own, _)| *own == name).map(|(_, source)| *source)
    }
}

/// Checks all volumes of a pod's spec.
pub(super) fn check_all<'v>(spec: &At<'v, '_>, scope: Scope<'_>, errors: &mut Errors) -> Volumes<'v> {
    let claims = scope.claims.iter().map(|claim| (*claim).to_owned()).collect();
    let mut volumes = Volumes { own: Vec::new(), claims };
    let list = spec.child("volumes");
    for volume in list.items() {
        let before = errors.len();
        let name = volume.text("name");
        check_source(&volume, name, scope, errors);
        volume.require_name(errors, "name", names::dns1123_label);
        if volumes.source(name).is_some() {
            volume.child("name").duplicate(errors, name);
        }
        if errors.len() == before {
            volumes.own.push((name, volume.value));
        }
        let claim = volume.child("persistentVolumeClaim");
        let made = |other: &At<'_, '_>| {
            other.has("ephemeral") && claim.text("claimName") == format!("{}-{}", scope.pod_name, other.text("name"))
        };
        if claim.has("claimName") && !scope.pod_name.is_empty() && list.items().any(|other| made(&other)) {
            let message = "must not reference a PVC that gets created for an ephemeral volume";
            claim.child("claimName").invalid(errors, message);
        }
    }
    volumes
}

/// The sources in the order in which the reference looks at them.
const SOURCES: [&str; 29] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
];

fn check_source(volume: &At<'_, '_>, name: &str, scope: Scope<'_>, errors: &mut Errors) {
    let mut found = false;
    for kind in SOURCES.into_iter().chain(["image"]) {
        let Some(at) = volume.given(kind) else { continue };
        if found {
            // Two of the paths are misspelt in the reference.
            let at = match kind {
                "cephfs" => volume.child("cephFS"),
                "downwardAPI" => volume.child("downwarAPI"),
                _ => at,
            };
            at.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        check_one(kind, &at, volume, name, scope, errors);
    }
    if !found {
        volume.required(errors, "must specify a volume type");
    }
}

fn check_one(kind: &str, at: &At<'_, '_>, volume: &At<'_, '_>, name: &str, scope: Scope<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            let limit = at.child("sizeLimit");
            if rules::quantity(&limit).is_some_and(|limit| limit.is_negative()) {
                limit.forbidden(errors, "SizeLimit field must be a valid resource quantity");
            }
        }
        "gitRepo" => {
            at.require(errors, "repository");
            rules::relative_path(&at.child("directory"), at.text("directory"), errors);
        }
        "secret" => check_keys(at, "secretName", errors),
        "configMap" => check_keys(at, "name", errors),
        "persistentVolumeClaim" => {
            at.require(errors, "claimName");
        }
        "downwardAPI" => {
            check_mode(at, "defaultMode", errors);
            // The reference leaves the items out of their paths.
            at.child("items").items().for_each(|item| check_downward_file(&item, at, errors));
        }
        "projected" => check_projected(at, errors),
        "csi" => {
            rules::driver_name(&at.child("driver"), errors);
            if let Some(secret) = at.given("nodePublishSecretRef")
                && secret.require(errors, "name")
            {
                let name = secret.text("name");
                at.child("name").invalid_all(errors, name, names::dns1123_subdomain(name));
            }
        }
        "ephemeral" => check_ephemeral(at, volume, name, scope, errors),
        "image" => {
            if scope.is_pod {
                at.require(errors, "reference");
            }
            at.require_one_of(errors, "pullPolicy", &["Always", "IfNotPresent", "Never"]);
        }
        _ => source::check(kind, at, name, false, errors),
    }
}

fn check_ephemeral(at: &At<'_, '_>, volume: &At<'_, '_>, name: &str, scope: Scope<'_>, errors: &mut Errors) {
    match at.given("volumeClaimTemplate") {
        None => at.child("volumeClaimTemplate").required(errors, ""),
        Some(template) => storage::check_claim_template(&template, errors),
    }
    if !scope.pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{}-{name}", scope.pod_name);
        for problem in names::dns1123_subdomain(&claim) {
            volume.child("name").invalid_value(errors, name, format!("PVC name {claim:?}: {problem}"));
        }
    }
}

fn check_keys(source: &At<'_, '_>, name: &'static str, errors: &mut Errors) {
    source.require(errors, name);
    check_mode(source, "defaultMode", errors);
    source.child("items").items().for_each(|item| check_key(&item, errors));
}

fn check_key(item: &At<'_, '_>, errors: &mut Errors) {
    item.require(errors, "key");
    item.require(errors, "path");
    rules::local_path(&item.child("path"), item.text("path"), errors);
    check_mode(item, "mode", errors);
}

fn check_mode(at: &At<'_, '_>, key: &'static str, errors: &mut Errors) {
    if at.number(key).is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        at.child(key).invalid(errors, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// `shown` is the place that errors name.
fn check_downward_file(item: &At<'_, '_>, shown: &At<'_, '_>, errors: &mut Errors) {
    let mut found = Vec::new();
    let here = At::top("", item.value);
    here.require(&mut found, "path");
    rules::local_path(&here.child("path"), here.text("path"), &mut found);
    if let Some(field) = here.given("fieldRef") {
        env::check_field_ref(&field, VOLUME_FIELDS, &mut found);
        if here.has("resourceFieldRef") {
            let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
            here.invalid_value(&mut found, "resource", message);
        }
    } else if let Some(resource) = here.given("resourceFieldRef") {
        env::check_resource_ref(&resource, true, &mut found);
    } else {
        here.required(&mut found, "one of fieldRef and resourceFieldRef is required");
    }
    check_mode(&here, "mode", &mut found);
    let prefix = if found.is_empty() { return } else { shown.path() };
    errors.extend(found.into_iter().map(|mut error| {
        let own = error.path.segments().iter().skip(1);
        let segments = prefix.segments().iter().chain(own).cloned().collect();
        error.path = crate::field::FieldPath::from_segments(segments);
        error
    }));
}

fn check_projected(projected: &At<'_, '_>, errors: &mut Errors) {
    check_mode(projected, "defaultMode", errors);
    let mut paths: Vec<&str> = Vec::new();
    for part in projected.child("sources").items() {
        let mut kinds = 0;
        for kind in ["secret", "configMap"] {
            let Some(source) = part.given(kind) else { continue };
            kinds += 1;
            source.require(errors, "name");
            for item in source.child("items").items() {
                check_key(&item, errors);
                claim_path(projected, &mut paths, item.text("path"), source.text("name"), errors);
            }
        }
        if let Some(source) = part.given("downwardAPI") {
            kinds += 1;
            for item in source.child("items").items() {
                check_downward_file(&item, &source, errors);
                claim_path(projected, &mut paths, item.text("path"), item.text("path"), errors);
            }
        }
        if let Some(token) = part.given("serviceAccountToken") {
            kinds += 1;
            check_token(&token, projected, errors);
        }
        if let Some(bundle) = part.given("clusterTrustBundle") {
            kinds += 1;
            check_trust_bundle(&bundle, errors);
            claim_path(projected, &mut paths, bundle.text("path"), bundle.text("path"), errors);
        }
        if let Some(certificate) = part.given("podCertificate") {
            kinds += 1;
            check_certificate(&certificate, projected, &mut paths, errors);
        }
        if kinds > 1 {
            part.forbidden(errors, "may not specify more than 1 volume type per source");
        }
    }
}

fn claim_path<'v>(projected: &At<'_, '_>, paths: &mut Vec<&'v str>, path: &'v str, shown: &str, errors: &mut Errors) {
    if path.is_empty() {
        return;
    }
    if paths.contains(&path) {
        projected.invalid_value(errors, shown, "conflicting duplicate paths");
    } else {
        paths.push(path);
    }
}

/// The reference shows the volume's own path for the token's file.
fn check_token(token: &At<'_, '_>, projected: &At<'_, '_>, errors: &mut Errors) {
    let seconds = token.number("expirationSeconds").unwrap_or(0);
    let expiration = token.child("expirationSeconds");
    if seconds < 600 {
        expiration.invalid_value(errors, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        expiration.invalid_value(errors, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    match token.text("path") {
        "" => projected.child("path").required(errors, ""),
        path => rules::local_path(&projected.child("path"), path, errors),
    }
}

fn check_trust_bundle(bundle: &At<'_, '_>, errors: &mut Errors) {
    match (bundle.given("name"), bundle.given("signerName")) {
        (Some(_), Some(_)) => bundle.invalid(errors, "only one of name and signerName may be used"),
        (Some(name), None) => {
            if name.str().is_empty() {
                name.required(errors, "must be a valid object name");
            }
            if let Some(selector) = bundle.given("labelSelector") {
                selector.invalid(errors, "labelSelector must be unset if name is specified");
            }
        }
        (None, Some(signer)) => {
            if signer.str().is_empty() {
                signer.required(errors, "must be a valid signer name");
            }
            if let Some(selector) = bundle.given("labelSelector") {
                rules::label_selector(&selector, errors);
            }
        }
        (None, None) => bundle.required(errors, "either name or signerName must be specified"),
    }
    bundle.require(errors, "path");
    rules::local_path(&bundle.child("path"), bundle.text("path"), errors);
}

fn check_certificate<'v>(
    certificate: &At<'v, '_>,
    projected: &At<'_, '_>,
    paths: &mut Vec<&'v str>,
    errors: &mut Errors,
) {
    certificate.require(errors, "signerName");
    let kinds = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    let found = certificate.text("keyType");
    if !kinds.contains(&found) {
        certificate.child("keyType").not_supported(errors, found, &kinds);
    }
    let mut any = false;
    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = certificate.text(field);
        if !path.is_empty() {
            any = true;
            rules::local_path(&certificate.child(field), path, errors);
            claim_path(projected, paths, path, path, errors);
        }
    }
    if !any {
        let message = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        certificate.required(errors, message);
    }
}
