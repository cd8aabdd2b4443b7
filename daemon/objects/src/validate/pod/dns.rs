//! Rules of a pod's resolver and hosts file.

use crate::{
    names,
    validate::{
        at::{At, Errors},
        rules,
    },
};

/// `dnsConfig`, also as `dnsPolicy` asks for it.
pub(super) fn check_config(spec: &At<'_, '_>, errors: &mut Errors) {
    let config = spec.child("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        if config.value.is_null() {
            config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if !config.filled("nameservers") {
            let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            config.child("nameservers").required(errors, message);
            return;
        }
    }
    let nameservers = config.child("nameservers");
    if nameservers.list().len() > 3 {
        nameservers.invalid(errors, "must not have more than 3 nameservers");
    }
    for server in nameservers.items() {
        rules::ip(&server, errors);
    }
    let searches = config.child("searches");
    if searches.list().len() > 32 {
        searches.invalid(errors, "must not have more than 32 search paths");
    }
    let length = searches.items().map(|search| search.str().len() + 1).sum::<usize>();
    if length > 2049 {
        let message = "must not have more than 2048 characters (including spaces) in the search list";
        searches.invalid(errors, message);
    }
    for search in searches.items().filter(|search| search.str() != ".") {
        let plain = search.str().strip_suffix('.').unwrap_or(search.str());
        search.invalid_all(errors, plain, names::dns1123_subdomain_with_underscore(plain));
    }
    for option in config.child("options").items().filter(|option| option.text("name").is_empty()) {
        option.required(errors, "must not be empty");
    }
}

/// Lines of the hosts file.
pub(super) fn check_host_aliases(aliases: &At<'_, '_>, errors: &mut Errors) {
    for alias in aliases.items() {
        rules::ip(&alias.child("ip"), errors);
        alias.child("hostnames").items().for_each(|name| name.check_text(errors, names::dns1123_subdomain));
    }
}
