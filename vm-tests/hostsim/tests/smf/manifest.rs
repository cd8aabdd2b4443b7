//! Manifest and profile by the rules of service_bundle.dtd.1.

use crate::smf;
use crate::xml::{Element, parse};
use std::process::Command;

/// An element's children in their order: name, at least, at most. Attributes: required, optional.
struct Rule {
    name: &'static str,
    children: &'static [(&'static str, usize, usize)],
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

const MANY: usize = usize::MAX;

const RULES: &[Rule] = &[
    Rule { name: "service_bundle", children: &[("service", 0, MANY)], required: &["type", "name"], optional: &[] },
    Rule {
        name: "service",
        children: &[
            ("create_default_instance", 0, 1),
            ("single_instance", 0, 1),
            ("restarter", 0, 1),
            ("dependency", 0, MANY),
            ("dependent", 0, MANY),
            ("method_context", 0, 1),
            ("exec_method", 0, MANY),
            ("notification_parameters", 0, MANY),
            ("property_group", 0, MANY),
            ("instance", 0, MANY),
            ("stability", 0, 1),
            ("template", 0, 1),
        ],
        required: &["name", "type", "version"],
        optional: &[],
    },
    Rule { name: "create_default_instance", children: &[], required: &["enabled"], optional: &[] },
    Rule { name: "single_instance", children: &[], required: &[], optional: &[] },
    Rule {
        name: "dependency",
        children: &[("service_fmri", 1, MANY)],
        required: &["name", "grouping", "restart_on", "type"],
        optional: &["delete"],
    },
    Rule { name: "service_fmri", children: &[], required: &["value"], optional: &[] },
    Rule {
        name: "method_context",
        children: &[("method_credential", 0, 1), ("method_environment", 0, 1)],
        required: &[],
        optional: &["working_directory", "project", "resource_pool"],
    },
    Rule {
        name: "method_credential",
        children: &[],
        required: &["user"],
        optional: &["group", "supp_groups", "privileges", "limit_privileges"],
    },
    Rule { name: "method_environment", children: &[("envvar", 1, MANY)], required: &[], optional: &[] },
    Rule { name: "envvar", children: &[], required: &["name", "value"], optional: &[] },
    Rule {
        name: "exec_method",
        children: &[],
        required: &["type", "name", "exec", "timeout_seconds"],
        optional: &["delete"],
    },
    Rule {
        name: "property_group",
        children: &[("propval", 0, MANY)],
        required: &["name", "type"],
        optional: &["delete"],
    },
    Rule { name: "propval", children: &[], required: &["name", "type", "value"], optional: &["override"] },
    Rule { name: "instance", children: &[("property_group", 0, MANY)], required: &["name", "enabled"], optional: &[] },
    Rule { name: "stability", children: &[], required: &["value"], optional: &[] },
    Rule {
        name: "template",
        children: &[("common_name", 1, 1), ("description", 0, 1), ("documentation", 0, 1)],
        required: &[],
        optional: &[],
    },
    Rule { name: "common_name", children: &[("loctext", 1, MANY)], required: &[], optional: &[] },
    Rule { name: "loctext", children: &[], required: &["xml:lang"], optional: &[] },
    Rule { name: "documentation", children: &[("manpage", 0, MANY)], required: &[], optional: &[] },
    Rule { name: "manpage", children: &[], required: &["title", "section"], optional: &["manpath"] },
];

fn check(element: &Element) {
    let rule = RULES.iter().find(|r| r.name == element.name).unwrap_or_else(|| panic!("element {}", element.name));
    for name in rule.required {
        assert!(!element.get(name).is_empty(), "{} without {name}", element.name);
    }
    for (name, _) in &element.attributes {
        assert!(
            [rule.required, rule.optional].iter().any(|l| l.contains(&name.as_str())),
            "{} with {name}",
            element.name
        );
    }
    let mut rest = element.children.as_slice();
    for (name, least, most) in rule.children {
        let count = rest.iter().take_while(|c| c.name == *name).count();
        assert!((*least..=*most).contains(&count), "{count} of {name} in {}", element.name);
        rest = &rest[count..];
    }
    assert!(rest.is_empty(), "{} in {} is out of order", rest[0].name, element.name);
    element.children.iter().for_each(check);
}

fn enumerated(element: &Element, attribute: &str, of: &[&str]) {
    assert!(of.contains(&element.get(attribute)), "{} {attribute}={}", element.name, element.get(attribute));
}

#[test]
fn the_manifest_is_valid_and_says_what_the_daemon_needs() {
    let bundle = parse(&std::fs::read_to_string(smf("reddwarf.xml")).unwrap());
    check(&bundle);
    assert_eq!(bundle.get("type"), "manifest");
    let service = &bundle.children[0];
    enumerated(service, "type", &["service"]);
    assert_eq!(service.all("create_default_instance").next().unwrap().get("enabled"), "false");
    let mut needed = Vec::new();
    for dependency in service.all("dependency") {
        enumerated(dependency, "grouping", &["require_all", "require_any", "exclude_all", "optional_all"]);
        enumerated(dependency, "restart_on", &["none", "error", "restart", "refresh"]);
        enumerated(dependency, "type", &["service", "path"]);
        // A restart of the network must not restart the daemon.
        assert_eq!(dependency.get("restart_on"), "none");
        needed.extend(dependency.children.iter().map(|f| (dependency.get("grouping"), f.get("value"))));
    }
    for fmri in [
        "svc:/system/filesystem/local",
        "svc:/milestone/network",
        "svc:/network/datalink-management",
        "svc:/network/ip-interface-management",
    ] {
        assert!(needed.contains(&("require_all", fmri)), "{fmri}");
    }
    for fmri in
        ["svc:/system/zones", "svc:/network/ipfilter", "svc:/network/routing-setup", "svc:/system/name-service-cache"]
    {
        assert!(needed.contains(&("optional_all", fmri)), "{fmri}");
    }
    let methods: Vec<_> =
        service.all("exec_method").map(|m| (m.get("name"), m.get("exec"), m.get("timeout_seconds"))).collect();
    // Never `:kill`: it hits zoneadm as well. The start never ends, as the method becomes the daemon.
    assert_eq!(
        methods,
        [
            ("start", "/lib/svc/method/reddwarfd start", "0"),
            ("stop", "/lib/svc/method/reddwarfd stop", "60"),
            ("refresh", "/lib/svc/method/reddwarfd refresh", "60"),
        ]
    );
    let context = service.all("method_context").next().unwrap();
    let credential = &context.children[0];
    // Less than all does not work with zoneadm and zlogin.
    assert_eq!((credential.get("user"), credential.get("privileges")), ("root", "all"));
    let environment: Vec<_> = context.children[1].children.iter().map(|v| (v.get("name"), v.get("value"))).collect();
    assert_eq!(environment, [("PATH", "/usr/sbin:/usr/bin:/sbin"), ("LC_ALL", "C")]);
    let startd = service.all("property_group").find(|g| g.get("name") == "startd").unwrap();
    assert_eq!(startd.all("propval").find(|p| p.get("name") == "duration").unwrap().get("value"), "child");
}

#[test]
fn the_profile_is_valid_and_names_settings_that_there_are() {
    let bundle = parse(&std::fs::read_to_string(smf("profile.xml")).unwrap());
    check(&bundle);
    assert_eq!((bundle.get("type"), bundle.children[0].get("name")), ("profile", "system/reddwarf"));
    let settings = std::fs::read_to_string(smf("../docs/settings.md")).unwrap();
    for property in bundle.children[0].all("property_group").flat_map(|g| &g.children) {
        assert!(settings.contains(&format!("| `{}` |", property.get("name"))), "{}", property.get("name"));
    }
}

/// Where xmllint is installed, it agrees that these are XML.
#[test]
fn xmllint_agrees() {
    for name in ["reddwarf.xml", "profile.xml", "brand/config.xml", "brand/platform.xml"] {
        let Ok(output) = Command::new("xmllint").args(["--noout", "--nonet"]).arg(smf(name)).output() else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
