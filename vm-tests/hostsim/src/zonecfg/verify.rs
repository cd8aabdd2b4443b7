//! What must be there before a configuration is kept.

use crate::state::Config;
use crate::system::{PRIVILEGES, System};

/// Whether a configuration may be kept.
pub(super) fn config(_system: System, zone: &str, config: &Config) -> Result<(), String> {
    for name in ["zonepath", "brand"] {
        if config.global(name).is_empty() {
            return Err(format!("{name} cannot be empty.\n{zone}: Required resource missing"));
        }
    }
    let exclusive = config.global("ip-type") == "exclusive";
    for net in config.all("net") {
        if exclusive && !net.get("address").is_empty() {
            return Err(format!("{zone}: net: address cannot be specified for an exclusive IP type"));
        }
        if !exclusive && (net.get("address").is_empty() || !net.get("allowed-address").is_empty()) {
            return Err(format!("{zone}: net: address must be specified for a shared IP type"));
        }
    }
    if config.global("brand") == "lx" && (!exclusive || !config.global("hostid").is_empty()) {
        return Err(format!("{zone}: lx zones need an exclusive IP type and no hostid"));
    }
    limitpriv(config.global("limitpriv"))
}

fn limitpriv(text: &str) -> Result<(), String> {
    let mut words = text.split(',');
    if text.is_empty() || text == "default" {
        return Ok(());
    }
    let first = words.next().unwrap_or_default();
    let is_set = |w: &str| matches!(w, "default" | "basic" | "all" | "none");
    for word in std::iter::once(first).filter(|w| !is_set(w)).chain(words) {
        let name = word.trim_start_matches(['+', '!', '-']).trim_start_matches("PRIV_").to_ascii_lowercase();
        if !PRIVILEGES.contains(&name.as_str()) {
            return Err(format!("privilege \"{word}\" is not known: the limit set is invalid"));
        }
    }
    Ok(())
}
