//! Rules of containers.

use super::{Scope, env, mount, probe, resources, security, volume::Volumes};
use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};
use std::collections::BTreeSet;

/// The containers of a spec, of all three kinds, and what their rules depend on.
pub(super) struct Containers<'a, 'v, 'p> {
    spec: &'a At<'v, 'p>,
    volumes: &'a Volumes<'v>,
    resource_claims: &'a [&'v str],
    scope: Scope<'a>,
    grace: Option<i64>,
}

/// Fields that make no sense for a container that only looks.
const FORBIDDEN_IN_EPHEMERAL: [&str; 8] = [
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
];

impl<'a, 'v, 'p> Containers<'a, 'v, 'p> {
    pub(super) fn new(
        spec: &'a At<'v, 'p>,
        volumes: &'a Volumes<'v>,
        resource_claims: &'a [&'v str],
        scope: Scope<'a>,
    ) -> Self {
        Self { spec, volumes, resource_claims, scope, grace: spec.number("terminationGracePeriodSeconds") }
    }

    pub(super) fn check(&self, errors: &mut Errors) {
        self.check_regular(errors);
        self.check_init(errors);
        self.check_ephemeral(errors);
    }

    fn check_regular(&self, errors: &mut Errors) {
        let list = self.spec.child("containers");
        if list.list().is_empty() {
            list.required(errors, "");
            return;
        }
        let mut seen = Vec::new();
        for container in list.items() {
            self.check_common(&container, errors);
            let name = container.text("name");
            if seen.contains(&name) {
                container.child("name").duplicate(errors, name);
            } else {
                seen.push(name);
            }
            probe::check_all(&container, self.grace, errors);
            self.check_restart_policy(&container, errors);
        }
        check_host_ports(&list, &mut BTreeSet::new(), errors);
    }

    fn check_restart_policy(&self, container: &At<'_, '_>, errors: &mut Errors) {
        container.one_of(errors, "restartPolicy", &["Always", "OnFailure", "Never"]);
        let rules = container.child("restartPolicyRules");
        if rules.list().is_empty() {
            return;
        }
        if !container.has("restartPolicy") {
            container.child("restartPolicy").required(errors, "must specify restartPolicy when restart rules are used");
        }
        if rules.list().len() > 20 {
            errors.push(crate::field::FieldError::too_many(&rules.path(), rules.list().len(), 20));
        }
        for rule in rules.items() {
            rule.require_one_of(errors, "action", &["Restart"]);
            match rule.given("exitCodes") {
                None => rule.child("exitCodes").required(errors, "must be specified"),
                Some(codes) => {
                    codes.require_one_of(errors, "operator", &["In", "NotIn"]);
                    let values = codes.child("values");
                    if !codes.filled("values") {
                        values.required(errors, "");
                    } else if values.list().len() > 255 {
                        errors.push(crate::field::FieldError::too_many(&values.path(), values.list().len(), 255));
                    }
                }
            }
        }
    }

    fn check_init(&self, errors: &mut Errors) {
        let mut seen: Vec<&str> = self.names("containers");
        for container in self.spec.child("initContainers").items() {
            self.check_common(&container, errors);
            let sidecar = container.text("restartPolicy") == "Always";
            self.check_restart_policy(&container, errors);
            let name = container.text("name");
            if seen.contains(&name) {
                container.child("name").duplicate(errors, name);
            } else if !name.is_empty() {
                seen.push(name);
            }
            check_ports_of_one(&container, errors);
            if sidecar {
                probe::check_all(&container, self.grace, errors);
                continue;
            }
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(found) = container.given(field) {
                    found.forbidden(errors, "may not be set for init containers without restartPolicy=Always");
                }
            }
        }
    }

    fn check_ephemeral(&self, errors: &mut Errors) {
        let mut others: Vec<&str> = self.names("containers");
        others.extend(self.names("initContainers"));
        let mut seen = others.clone();
        for container in self.spec.child("ephemeralContainers").items() {
            self.check_common(&container, errors);
            check_only_one_for_pods(&container, errors);
            let name = container.text("name");
            if seen.contains(&name) {
                container.child("name").duplicate(errors, name);
            } else {
                seen.push(name);
            }
            let target = container.text("targetContainerName");
            if !target.is_empty() && !others.contains(&target) {
                errors
                    .push(crate::field::FieldError::not_found(&container.child("targetContainerName").path(), target));
            }
            const FORBIDDEN: &str = "cannot be set for an Ephemeral Container";
            for field in FORBIDDEN_IN_EPHEMERAL {
                let set = if field == "resources" {
                    ["limits", "requests", "claims"].iter().any(|part| container.child(field).filled(part))
                } else {
                    container.has(field)
                };
                if set {
                    container.child(field).forbidden(errors, FORBIDDEN);
                }
            }
            for mount in container.child("volumeMounts").items() {
                for field in ["subPath", "subPathExpr"] {
                    if !mount.text(field).is_empty() {
                        mount.child(field).forbidden(errors, FORBIDDEN);
                    }
                }
            }
        }
    }

    fn names(&self, list: &str) -> Vec<&'v str> {
        let containers = self.spec.value.get(list).and_then(serde_json::Value::as_array).into_iter().flatten();
        containers.filter_map(|container| container.get("name")?.as_str()).collect()
    }

    fn check_common(&self, container: &At<'v, '_>, errors: &mut Errors) {
        container.require_name(errors, "name", names::dns1123_label);
        if container.text("image").is_empty() && !self.scope.image_optional {
            let help = "name an image, or run the host's own programs with the annotation reddwarf.io/zone-brand: sparse or reddwarf";
            let at = container.child("image");
            errors.push(crate::field::FieldError::required(&at.path(), "").with_help(help));
        }
        container.require_one_of(errors, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
        check_ports(&container.child("ports"), errors);
        env::check(container, errors);
        mount::check(container, self.volumes, errors);
        if !(self.scope.image_optional && container.text("image").is_empty()) {
            container.require_one_of(errors, "imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
        }
        if let Some(found) = container.given("resources") {
            resources::check_container(&found, self.resource_claims, errors);
        }
        let never = self.spec.text("restartPolicy") == "Never";
        resources::check_resize_policy(&container.child("resizePolicy"), never, errors);
        if let Some(context) = container.given("securityContext") {
            let host_users = self.spec.value.get("hostUsers") != Some(&serde_json::Value::Bool(false));
            security::check_container(&context, host_users, errors);
        }
        if container.child("lifecycle").has("stopSignal") && self.spec.child("os").text("name").is_empty() {
            let message = "may not be set for containers with empty `spec.os.name`";
            container.child("lifecycle").child("stopSignal").forbidden(errors, message);
        }
    }
}

fn check_ports(ports: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for port in ports.items() {
        let name = port.text("name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if !problems.is_empty() {
                port.child("name").invalid_all(errors, name, problems);
            } else if seen.contains(&name) {
                port.child("name").duplicate(errors, name);
            } else {
                seen.push(name);
            }
        }
        match port.number("containerPort") {
            None | Some(0) => port.child("containerPort").required(errors, ""),
            Some(_) => rules::port(&port.child("containerPort"), errors),
        }
        if port.number("hostPort").unwrap_or(0) != 0 {
            rules::port(&port.child("hostPort"), errors);
        }
        port.require_one_of(errors, "protocol", rules::PROTOCOLS);
    }
}

/// A host's port leads to one container only.
fn check_host_ports(containers: &At<'_, '_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    containers.items().for_each(|container| claim_host_ports(&container, seen, errors));
}

fn check_ports_of_one(container: &At<'_, '_>, errors: &mut Errors) {
    claim_host_ports(container, &mut BTreeSet::new(), errors);
}

fn claim_host_ports(container: &At<'_, '_>, seen: &mut BTreeSet<String>, errors: &mut Errors) {
    for port in container.child("ports").items() {
        let number = port.number("hostPort").unwrap_or(0);
        if number == 0 {
            continue;
        }
        let claim = format!("{}/{}/{number}", port.text("protocol"), port.text("hostIP"));
        if !seen.insert(claim.clone()) {
            port.child("hostPort").duplicate(errors, claim);
        }
    }
}

/// On the host's network a container's port is the host's.
pub(super) fn check_host_network_ports(spec: &At<'_, '_>, is_pod: bool, errors: &mut Errors) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for container in spec.child("containers").items() {
        for port in container.child("ports").items() {
            let host = port.number("hostPort").unwrap_or(0);
            if (is_pod || host != 0) && Some(host) != port.number("containerPort") {
                let message = "must match `containerPort` when `hostNetwork` is true";
                port.child("hostPort").invalid_value(errors, host, message);
            }
        }
    }
}

/// What is asked of the containers of pods but not of templates'.
pub(super) fn check_only_for_pods(containers: &At<'_, '_>, errors: &mut Errors) {
    containers.items().for_each(|container| check_only_one_for_pods(&container, errors));
}

fn check_only_one_for_pods(container: &At<'_, '_>, errors: &mut Errors) {
    let image = container.text("image");
    if image.trim() != image {
        container.child("image").invalid(errors, "must not have leading or trailing whitespace");
    }
}
