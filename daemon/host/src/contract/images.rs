//! Rules of the image store.

use super::lab::{Lab, changed, holds, refused, same, unchanged};
use super::{Case, Outcome, Program, case};
use crate::build::{BuildContent, BuildFile, ImageBuild};
use crate::error::HostErrorKind;
use crate::observe::{ImageConfig, ImageInfo, Observation};
use crate::spec::{ContainerImage, ContainerSpec, Signal};
use std::path::Path;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(the_same_content_is_one_image),
        case!(a_name_moves_to_new_content),
        case!(an_image_in_use_stays),
        case!(images_go_together_but_those_in_use),
        case!(what_is_no_image_is_refused),
        case!(an_image_is_made_of_files),
        case!(an_image_is_made_of_what_a_container_left),
    ]
}

async fn listed(lab: &Lab<'_>, name: &str) -> Result<Option<ImageInfo>, super::Stop> {
    let all = lab.host.image_list().await?;
    let seen = lab.observe().await?;
    for image in &all {
        let observed = seen.images.known().and_then(|images| images.get(&image.id));
        same(&observed, &Some(image), "an image as listed and as observed")?;
    }
    Ok(all.into_iter().find(|i| i.names.iter().any(|n| n == name)))
}

async fn the_same_content_is_one_image(lab: &Lab<'_>) -> Outcome {
    let (one, two) = ("contract.test/one:1", "contract.test/two:1");
    [one, two].iter().for_each(|n| lab.remember_image(n));
    let source = lab.fixture.image_source(1);
    let first = lab.host.image_import(&source, one).await?;
    holds(first.names.contains(&one.to_owned()), "the name is missing from the answer")?;
    same(&listed(lab, one).await?, &Some(first.clone()), "the image as listed")?;
    let again = lab.host.image_import(&source, one).await?;
    // It was used again.
    let again = ImageInfo { last_used: first.last_used, ..again };
    same(&again, &first, "the same content under the same name")?;
    let second = lab.host.image_import(&source, two).await?;
    same(&second.id, &first.id, "the same content's id")?;
    holds(second.names.len() > first.names.len(), "the second name was not added")?;
    changed(lab.host.image_remove(one).await, "removing one name")?;
    same(&listed(lab, two).await?.map(|i| i.id), &Some(first.id), "the image under its other name")?;
    changed(lab.host.image_remove(two).await, "removing the last name")?;
    same(&listed(lab, two).await?, &None, "the image")?;
    unchanged(lab.host.image_remove(two).await, "removing it again")
}

async fn a_name_moves_to_new_content(lab: &Lab<'_>) -> Outcome {
    let name = "contract.test/moves:latest";
    lab.remember_image(name);
    let old = lab.host.image_import(&lab.fixture.image_source(1), name).await?;
    let new = lab.host.image_import(&lab.fixture.image_source(2), name).await?;
    holds(old.id != new.id, "other content has the same id")?;
    same(&listed(lab, name).await?.map(|i| i.id), &Some(new.id), "what the name points to")?;
    let pointing = lab.host.image_list().await?.iter().filter(|i| i.names.iter().any(|n| n == name)).count();
    same(&pointing, &1, "images of that name")
}

async fn an_image_in_use_stays(lab: &Lab<'_>) -> Outcome {
    let name = "contract.test/used:1";
    let sandbox = lab.sandbox().await?;
    lab.remember_image(name);
    let image = lab.host.image_import(&lab.fixture.image_source(1), name).await?;
    let wanted = ContainerImage::Image { id: image.id.clone() };
    let spec = ContainerSpec { image: wanted, ..lab.container(&sandbox, "app", Program::Until(0)) };
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    refused(lab.host.image_remove(name).await, HostErrorKind::Busy, "removing an image in use")?;
    let seen = lab.observe().await?;
    let there = matches!(&seen.images, Observation::Known(all) if all.contains_key(&image.id));
    holds(there, "the image is gone after the refusal")?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    let _ = lab.host.container_remove(&sandbox.id, &spec.name, 0).await?;
    changed(lab.host.image_remove(name).await, "removing it once nobody uses it")
}

async fn images_go_together_but_those_in_use(lab: &Lab<'_>) -> Outcome {
    let (one, two) = ("contract.test/collect-one:1", "contract.test/collect-two:1");
    let sandbox = lab.sandbox().await?;
    lab.remember_image(one);
    lab.remember_image(two);
    let used = lab.host.image_import(&lab.fixture.image_source(1), one).await?;
    let free = lab.host.image_import(&lab.fixture.image_source(2), two).await?;
    holds(used.is_imported() && used.last_used.is_some(), "what was imported does not say so")?;
    let wanted = ContainerImage::Image { id: used.id.clone() };
    let spec = ContainerSpec { image: wanted, ..lab.container(&sandbox, "app", Program::Until(0)) };
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    let both = [used.id.clone(), free.id.clone()];
    same(&lab.host.image_collect(&both).await?, &vec![free.id.clone()], "what was collected")?;
    same(&listed(lab, two).await?, &None, "the image that nobody used")?;
    same(&listed(lab, one).await?.map(|i| i.id), &Some(used.id), "the image in use")?;
    same(&lab.host.image_collect(&[free.id]).await?, &Vec::new(), "what is collected a second time")?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    let _ = lab.host.container_remove(&sandbox.id, &spec.name, 0).await?;
    changed(lab.host.image_remove(one).await, "removing it once nobody uses it")
}

async fn what_is_no_image_is_refused(lab: &Lab<'_>) -> Outcome {
    let name = "contract.test/bad:1";
    let missing = lab.host.image_import(Path::new("/nonexistent/image"), name).await;
    refused(missing, HostErrorKind::NotFound, "a path that is not there")?;
    // A file that every system has and that is no archive.
    let text = lab.host.image_import(Path::new("/etc/passwd"), name).await;
    refused(text, HostErrorKind::InvalidSpec, "a text file")?;
    same(&listed(lab, name).await?, &None, "what a refused image left behind")
}

fn build(content: BuildContent, word: &str, name: &str) -> ImageBuild {
    let config = ImageConfig { cmd: vec![word.into()], ..ImageConfig::default() };
    ImageBuild { content, config, name: name.into() }
}

async fn an_image_is_made_of_files(lab: &Lab<'_>) -> Outcome {
    let (below, name) = ("contract.test/below:1", "contract.test/made:1");
    [below, name].iter().for_each(|n| lab.remember_image(n));
    let base = lab.host.image_import(&lab.fixture.image_source(1), below).await?.id;
    // A file that every system has.
    let file = |target: &str| BuildFile { source: "/etc/passwd".into(), target: target.into(), owner: (0, 0) };
    let over = |base, files| BuildContent::Files { base, files };
    let wanted = build(over(Some(base.clone()), vec![file("/srv/data/")]), "a", name);
    let made = lab.host.image_build(&wanted).await?;
    holds(made.id != base && made.is_imported(), "the image that was made")?;
    same(&made.config, &wanted.config, "its config")?;
    same(&listed(lab, name).await?, &Some(made.clone()), "the image as listed")?;
    same(&lab.host.image_build(&wanted).await?.id, &made.id, "the same again")?;
    let other = ImageBuild { config: ImageConfig::default(), ..wanted.clone() };
    let other = lab.host.image_build(&other).await?;
    holds(other.id != made.id, "another config is the same image")?;
    same(&listed(lab, name).await?.map(|i| i.id), &Some(other.id.clone()), "what the name points to")?;
    let alone = lab.host.image_build(&build(over(None, vec![file("/passwd")]), "a", name)).await?;
    holds(alone.id != other.id, "an image on nothing")?;

    let nobody = crate::names::ImageId::of_digest([7; 32]);
    let missing = build(over(Some(nobody), vec![file("/passwd")]), "a", name);
    refused(lab.host.image_build(&missing).await, HostErrorKind::NotFound, "an image below that is not there")?;
    let nothing = build(over(None, Vec::new()), "a", name);
    refused(lab.host.image_build(&nothing).await, HostErrorKind::InvalidSpec, "nothing at all")?;
    let relative = build(over(None, vec![file("passwd")]), "a", name);
    refused(lab.host.image_build(&relative).await, HostErrorKind::InvalidSpec, "a relative target")?;
    let absent = BuildFile { source: "/nonexistent/file".into(), ..file("/passwd") };
    let absent = build(over(None, vec![absent]), "a", name);
    refused(lab.host.image_build(&absent).await, HostErrorKind::NotFound, "a file that is not there")?;
    same(&listed(lab, name).await?.map(|i| i.id), &Some(alone.id), "what the name points to after refusals")?;
    changed(lab.host.image_remove(name).await, "removing it")?;
    changed(lab.host.image_remove(below).await, "removing the image below")
}

async fn an_image_is_made_of_what_a_container_left(lab: &Lab<'_>) -> Outcome {
    let (below, name) = ("contract.test/before:1", "contract.test/after:1");
    let sandbox = lab.sandbox().await?;
    [below, name].iter().for_each(|n| lab.remember_image(n));
    let base = lab.host.image_import(&lab.fixture.image_source(1), below).await?;
    let image = ContainerImage::Image { id: base.id.clone() };
    let spec = ContainerSpec { image, ..lab.container(&sandbox, "app", Program::Until(0)) };
    let of = |attempt| BuildContent::Container { sandbox: sandbox.id.clone(), name: spec.name.clone(), attempt };
    let wanted = build(of(0), "a", name);
    refused(lab.host.image_build(&wanted).await, HostErrorKind::NotFound, "a container that is not there")?;
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    refused(lab.host.image_build(&wanted).await, HostErrorKind::InvalidState, "a container that runs")?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    refused(lab.host.image_build(&build(of(1), "a", name)).await, HostErrorKind::NotFound, "another instance")?;
    let made = lab.host.image_build(&wanted).await?;
    holds(made.id != base.id, "the image that was made is the one below")?;
    same(&listed(lab, name).await?, &Some(made), "the image as listed")?;
    let _ = lab.host.container_remove(&sandbox.id, &spec.name, 0).await?;
    changed(lab.host.image_remove(below).await, "removing the image below")?;
    changed(lab.host.image_remove(name).await, "removing it")
}
