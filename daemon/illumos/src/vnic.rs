//! A pod's network link: a VNIC on our etherstub, or directly on a NIC. Its name and its MAC address both follow from the
//! sandbox, and together they are its mark: dladm(8) has no other place for one.

use crate::dladm::{self, MacAddress, Vnic, VnicObserved};
use crate::host::Shared;
use crate::network;
use reddwarf_command::Cause;
use reddwarf_host::spec::SandboxSpec;
use reddwarf_host::{HostError, HostErrorKind, HostResult, LinkName, SandboxId};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A zone that was halted just now may still give its link back.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(250);

/// The MAC address that follows from a name of ours: the same each time.
pub(crate) fn mac(instance: &str, name: &str) -> MacAddress {
    let digest = Sha256::digest(format!("{instance}/{name}").as_bytes());
    let mut bytes = [0; 5];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    MacAddress::of_digest(bytes)
}

/// The link of a sandbox.
pub(crate) fn of(shared: &Shared, id: &SandboxId, over: String) -> Vnic {
    let vlan = shared.options.vlan;
    Vnic { name: LinkName::for_sandbox(id), over, mac: mac(&shared.options.instance, id.as_str()), vlan }
}

/// Makes a sandbox's link.
pub(crate) async fn ensure(shared: &Shared, op: &'static str, spec: &SandboxSpec) -> HostResult<()> {
    let Some(applied) = network::applied(shared)? else {
        let message = "there is no pod network yet";
        return Err(HostError::new(HostErrorKind::InvalidState, op, spec.id.as_str(), message));
    };
    let over = network::over(shared, &applied).to_owned();
    ensure_vnic(shared, op, &of(shared, &spec.id, over)).await
}

/// Makes a VNIC, or finds that it is as it should be. One on another link is made anew.
pub(crate) async fn ensure_vnic(shared: &Shared, op: &'static str, wanted: &Vnic) -> HostResult<()> {
    let name = wanted.name.as_str();
    let error = match shared.tools().run(&wanted.create()).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if error.cause() != Cause::Exists {
        return Err(error.into_host(op, name));
    }
    let found = found(shared, op).await?;
    match found.get(name) {
        Some((over, mac, vlan)) if *mac == wanted.mac => {
            if *over == wanted.over && *vlan == wanted.vlan {
                return Ok(());
            }
            remove_named(shared, op, &wanted.name).await?;
            shared.run(op, name, &wanted.create()).await.map(drop)
        }
        Some(_) => Err(foreign(op, name)),
        // Another kind of link.
        None => Err(foreign(op, name)),
    }
}

fn foreign(op: &'static str, name: &str) -> HostError {
    let message = "a link of this name is there and its address is not the one that ours has: not ours";
    HostError::new(HostErrorKind::Foreign, op, name, message)
}

/// Removes a sandbox's link, if there is one and it is ours. That it is gone is seen, not believed.
pub(crate) async fn remove(shared: &Shared, op: &'static str, id: &SandboxId) -> HostResult<()> {
    let name = LinkName::for_sandbox(id);
    for _ in 0..3 {
        match found(shared, op).await?.get(name.as_str()) {
            Some((_, found, _)) if *found == mac(&shared.options.instance, id.as_str()) => {
                remove_named(shared, op, &name).await?;
            }
            // Left alone: it never was ours.
            Some(_) | None => return Ok(()),
        }
    }
    Err(HostError::new(HostErrorKind::Busy, op, name.as_str(), "dladm says that it is gone, and yet it is there"))
}

async fn found(shared: &Shared, op: &'static str) -> HostResult<BTreeMap<String, VnicObserved>> {
    let text = shared.run(op, "links", &dladm::show_vnics()).await?;
    dladm::vnics(&text).map_err(|e| HostError::new(HostErrorKind::Other, op, "links", e.to_string()))
}

/// Links on our own etherstub that no sandbox has and that are not the gateway's: nobody else puts any there. On a link of
/// the administrator's others do, so nothing there is known for ours.
pub(crate) fn strays(
    shared: &Shared,
    stub: &str,
    vnics: &BTreeMap<String, VnicObserved>,
    sandboxes: &BTreeSet<SandboxId>,
) -> Vec<String> {
    if shared.options.direct_link.is_some() {
        return Vec::new();
    }
    let known: BTreeSet<LinkName> = sandboxes.iter().map(LinkName::for_sandbox).collect();
    let is_stray = |name: &str| {
        name != shared.options.gateway_link
            && LinkName::new(name).is_ok_and(|n| !known.contains(&n))
            && name.starts_with("rw")
    };
    vnics.iter().filter(|(name, (over, ..))| over == stub && is_stray(name)).map(|(name, _)| name.clone()).collect()
}

/// Removes one of [`strays`]; whether it was there.
pub(crate) async fn remove_stray(shared: &Shared, op: &'static str, stub: &str, name: &str) -> HostResult<bool> {
    let Ok(link) = LinkName::new(name) else { return Ok(false) };
    match found(shared, op).await?.get(name) {
        Some((over, ..)) if over == stub => remove_named(shared, op, &link).await.map(|()| true),
        Some(_) => Err(foreign(op, name)),
        None => Ok(false),
    }
}

async fn remove_named(shared: &Shared, op: &'static str, name: &LinkName) -> HostResult<()> {
    for attempt in 1..=TRIES {
        match shared.tools().run(&dladm::delete_vnic(name)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.cause() == Cause::NotFound => return Ok(()),
            Err(error) if error.cause() == Cause::Busy && attempt < TRIES => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into_host(op, name.as_str())),
        }
    }
    Ok(())
}
