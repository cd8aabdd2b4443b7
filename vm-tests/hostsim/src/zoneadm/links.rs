//! What happens to data links as zones come up and go down.

use super::{Operation, Step};
use crate::state::{Config, State, ZoneState};

impl Operation<'_> {
    /// Moves a zone's links into it, and protects them where it has allowed addresses.
    pub(super) fn take_links(&self, state: &mut State, config: &Config) -> Step {
        for net in config.all("net") {
            let name = net.get("physical");
            let allowed = !net.get("allowed-address").is_empty();
            if state.interfaces.contains_key(name) {
                return Err(self.error(format!(
                    "WARNING: {name} is plumbed in the global zone\nzoneadm: zone '{}': failed to add network device {name}",
                    self.zone
                )));
            }
            let Some(link) = state.links.get_mut(name) else {
                return Err(self.error(format!("failed to add network device {name}: object not found")));
            };
            match &link.zone {
                Some(owner) if *owner != self.zone => {
                    return Err(self.error(format!("failed to add network device {name}: in use by zone {owner}")));
                }
                _ => link.zone = Some(self.zone.clone()),
            }
            if !allowed || link.protected_by_zone {
                continue;
            }
            if link.properties.contains_key("protection") {
                return Err(self.error(format!("Protection is already set on {name}")));
            }
            if link.properties.contains_key("allowed-ips") {
                return Err(self.error(format!("allowed-ips is already set on {name}")));
            }
            link.properties.insert("protection".into(), "ip-nospoof".into());
            link.protected_by_zone = true;
        }
        let addresses: Vec<_> = config.all("net").map(|n| (n.get("physical"), n.get("allowed-address"))).collect();
        for (name, address) in addresses.into_iter().filter(|(_, a)| !a.is_empty()) {
            if let Some(link) = state.links.get_mut(name) {
                let ips = link.properties.entry("allowed-ips".into()).or_default();
                let ip = address.split('/').next().unwrap_or_default();
                if !ips.split(',').any(|known| known == ip) {
                    *ips = if ips.is_empty() { ip.to_owned() } else { format!("{ips},{ip}") };
                }
            }
        }
        Ok(())
    }
}

/// Gives a zone's links back and notes that it is down, or gone from the kernel.
pub(crate) fn halted(state: &mut State, name: &str) {
    let Some(zone) = state.zones.get_mut(name) else { return };
    crate::platform::kill(zone.init.take());
    if zone.stuck > 0 {
        zone.stuck -= 1;
        zone.state = ZoneState::Down;
        return;
    }
    (zone.state, zone.id, zone.booted) = (ZoneState::Installed, None, None);
    give_back(state, name);
    crate::ipf::stack_gone(state, name);
}

/// Gives a zone's links back.
pub(crate) fn give_back(state: &mut State, name: &str) {
    for link in state.links.values_mut().filter(|l| l.zone.as_deref() == Some(name)) {
        link.zone = None;
        if std::mem::take(&mut link.protected_by_zone) {
            link.properties.remove("protection");
            link.properties.remove("allowed-ips");
        }
    }
}
