//! Rules of custom resource definitions. What their schemas must be comes with custom resources themselves.

use super::at::{At, Errors};
use crate::names;
use serde_json::Value;

pub(super) fn check(definition: &At<'_, '_>, errors: &mut Errors) {
    let spec = definition.child("spec");
    let (group, resource) = (spec.text("group"), spec.child("names"));
    let metadata = definition.child("metadata");
    let wanted = format!("{}.{group}", resource.text("plural"));
    if metadata.text("name") != wanted {
        let message = "must be spec.names.plural+\".\"+spec.group";
        metadata.child("name").invalid(errors, message);
    }
    if spec.require(errors, "group") {
        let problems = names::dns1123_subdomain(group);
        if !problems.is_empty() {
            spec.child("group").invalid_value(errors, group, problems.join(","));
        } else if !group.contains('.') {
            spec.child("group").invalid(errors, "should be a domain with at least one dot");
        }
    }
    spec.require_one_of(errors, "scope", &["Cluster", "Namespaced"]);
    check_versions(&spec.child("versions"), errors);
    check_names(&resource, errors);
    check_conversion(&spec.child("conversion"), errors);
}

fn check_versions(versions: &At<'_, '_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    let mut storing = 0;
    for version in versions.items() {
        let name = version.text("name");
        storing += usize::from(version.flag("storage"));
        let problems = names::dns1035_label(name);
        if !problems.is_empty() {
            version.child("name").invalid_value(errors, name, problems.join(","));
        }
        if seen.contains(&name) {
            versions.invalid(errors, "must contain unique version names");
        }
        seen.push(name);
        let schema = version.child("schema");
        if !schema.has("openAPIV3Schema") {
            schema.child("openAPIV3Schema").required(errors, "schemas are required");
        } else {
            check_schema(&schema.child("openAPIV3Schema"), errors);
        }
        for column in version.child("additionalPrinterColumns").items() {
            column.require(errors, "name");
            let kinds = ["boolean", "date", "integer", "number", "string"];
            if column.require(errors, "type") && !kinds.contains(&column.text("type")) {
                let message = format!("must be one of {}", kinds.join(","));
                column.child("type").invalid(errors, message);
            }
            column.require(errors, "jsonPath");
        }
    }
    if storing != 1 {
        let message = "must have exactly one version marked as storage version";
        let shown = versions.items().map(|version| version.value.clone()).collect::<Vec<Value>>();
        versions.invalid_value(errors, shown, message);
    }
}

fn check_schema(schema: &At<'_, '_>, errors: &mut Errors) {
    match schema.text("type") {
        "object" => {}
        "" => schema.child("type").required(errors, "must not be empty at the root"),
        _ => schema.child("type").invalid(errors, "must be object at the root"),
    }
}

fn check_names(resource: &At<'_, '_>, errors: &mut Errors) {
    for (field, required) in [("plural", true), ("singular", false), ("kind", true), ("listKind", true)] {
        let name = resource.text(field);
        if name.is_empty() {
            if required {
                resource.child(field).required(errors, "");
            }
            continue;
        }
        let problems = names::dns1035_label(&name.to_lowercase());
        if !problems.is_empty() {
            let shown = if field.ends_with("ind") { "may have mixed case, but should otherwise match: " } else { "" };
            resource.child(field).invalid_value(errors, name, format!("{shown}{}", problems.join(",")));
        }
    }
    for list in ["shortNames", "categories"] {
        for name in resource.child(list).items() {
            let problems = names::dns1035_label(name.str());
            if !problems.is_empty() {
                name.invalid(errors, problems.join(","));
            }
        }
    }
    if !resource.text("kind").is_empty() && resource.text("kind") == resource.text("listKind") {
        resource.child("listKind").invalid(errors, "kind and listKind may not be the same");
    }
}

fn check_conversion(conversion: &At<'_, '_>, errors: &mut Errors) {
    if conversion.value.is_null() {
        return;
    }
    conversion.require_one_of(errors, "strategy", &["None", "Webhook"]);
    // Named as in the version in which the reference checks them.
    let (config, versions) = (conversion.child("webhookClientConfig"), conversion.child("conversionReviewVersions"));
    let webhook = conversion.child("webhook");
    let (configured, listed) = (webhook.has("clientConfig"), webhook.filled("conversionReviewVersions"));
    const UNUSED: &str = "should not be set when strategy is not set to Webhook";
    if conversion.text("strategy") == "Webhook" {
        if !configured {
            config.required(errors, "required when strategy is set to Webhook");
        }
        if !listed {
            versions.required(errors, "");
        }
    } else {
        if configured {
            config.forbidden(errors, UNUSED);
        }
        if listed {
            versions.forbidden(errors, UNUSED);
        }
    }
}
