//! Which image a container runs: the one that it runs already, the one that is here, or one that must be pulled first.

use super::Facts;
use super::container::ContainerRef;
use crate::desired::PodIntent;
use crate::plan::{Notice, TicketState};
use reddwarf_host::spec::{ContainerImage, ContainerSpec};
use reddwarf_host::{ImageConfig, ImageInfo, ImageReference};
use reddwarf_objects::pod::ImagePullPolicy;
use reddwarf_objects::{BRAND_BHYVE, BRAND_SPARSE, brings_programs};

/// Why a container has no image.
enum Lack {
    /// It must be pulled, or its registry asked.
    Pull,
    /// Anything else.
    Notice(Notice),
}

/// Where the root file system comes from, and how it wants to be run.
pub(super) fn image(
    intent: &PodIntent,
    which: &ContainerRef<'_>,
    facts: Facts<'_>,
    running: Option<&ContainerSpec>,
) -> Result<(ContainerImage, ImageConfig), Notice> {
    let field = format!("{}.image", which.field);
    match find(intent, which, facts, running) {
        Ok(None) => Ok((ContainerImage::Brand, ImageConfig::default())),
        Ok(Some(info)) => Ok((ContainerImage::Image { id: info.id.clone() }, info.config.clone())),
        Err(Lack::Notice(notice)) => Err(notice.at(field)),
        Err(Lack::Pull) => {
            let ticket = facts.pulls.get(&(intent.uid.clone(), which.name.clone()));
            let failure = ticket.filter(|t| t.image == which.container.image).and_then(|t| t.failure());
            Err(match failure {
                Some(failure) => Notice::new(&failure.reason, &failure.message),
                None => {
                    Notice::new("ContainerCreating", format!("image \"{}\" is not here yet", which.container.image))
                }
            }
            .at(field))
        }
    }
}

/// Whether the container can only be made once its image was pulled.
pub(crate) fn needs_pull(
    intent: &PodIntent,
    which: &ContainerRef<'_>,
    facts: Facts<'_>,
    running: Option<&ContainerSpec>,
) -> bool {
    matches!(find(intent, which, facts, running), Err(Lack::Pull))
}

/// `None`: the zone's brand brings it.
fn find<'a>(
    intent: &PodIntent,
    which: &ContainerRef<'_>,
    facts: Facts<'a>,
    running: Option<&ContainerSpec>,
) -> Result<Option<&'a ImageInfo>, Lack> {
    let name = &which.container.image;
    let brand = intent.pod.zone_brand();
    if brand == BRAND_SPARSE || brand == BRAND_BHYVE || (name.is_empty() && brings_programs(brand)) {
        return Ok(None);
    }
    let pinned = running.filter(|r| r.image_name == *name).and_then(|r| match &r.image {
        ContainerImage::Image { id } => facts.images.by_id(id),
        ContainerImage::Brand => None,
    });
    if pinned.is_some() {
        return Ok(pinned);
    }
    let refuse = |reason: &str, message: String| Err(Lack::Notice(Notice::new(reason, message)));
    if name.is_empty() {
        return refuse("InvalidImageName", "no image is named, and the zone brand brings none".into());
    }
    let found = match facts.images.by_name(name) {
        Ok(found) => found,
        Err(why) => return refuse("ImageInspectError", format!("the host's images are not known: {why}")),
    };
    let reference = match ImageReference::parse(name) {
        Ok(reference) => reference,
        // A person may have given it a name that no registry would.
        Err(_) if found.is_some() => return Ok(found),
        Err(error) => {
            return refuse("InvalidImageName", format!("Failed to apply default image tag \"{name}\": {error}"));
        }
    };
    match (which.container.image_pull_policy, found) {
        (Some(ImagePullPolicy::Never), None) => {
            refuse("ErrImageNeverPull", format!("Container image \"{name}\" is not present with pull policy of Never"))
        }
        (Some(ImagePullPolicy::Always), Some(info)) => {
            let ticket = facts.pulls.get(&(intent.uid.clone(), which.name.clone()));
            let asked = ticket.is_some_and(|t| t.image == *name && t.state == TicketState::Ready);
            // What a person imported under this name has no registry that could have another.
            let by_hand = !info.pulled.contains_key(&reference.to_string());
            if asked || by_hand { Ok(Some(info)) } else { Err(Lack::Pull) }
        }
        (_, Some(info)) => Ok(Some(info)),
        (_, None) => Err(Lack::Pull),
    }
}
