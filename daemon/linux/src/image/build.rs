//! Making an image of files or of an ended container: a layer is packed, then imported as any other is.

use super::import::{Import, KnownLayer, check_name, tidy_up};
use super::store::{Record, Store};
use crate::host::LinuxHost;
use crate::info::architecture;
use crate::oci;
use crate::record::{Launch, read_record};
use crate::rootfs;
use crate::sandbox;
use crate::unpack::{Job, LayerSource};
use reddwarf_host::spec::ContainerImage;
use reddwarf_host::{
    BuildContent, ContainerName, ContainerState, HostError, HostErrorKind, HostResult, ImageBuild, ImageConfig,
    ImageId, ImageInfo, SandboxId, UnpackLimits,
};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

const BUILD: &str = "build image";

/// Makes an image.
pub(super) async fn build(host: &LinuxHost, wanted: &ImageBuild) -> HostResult<ImageInfo> {
    check_name(&wanted.name)?;
    match &wanted.content {
        BuildContent::Files { base, files } => {
            let job = |scratch, limits| Job::Files { files: files.clone(), scratch, limits };
            make(host, wanted, base.as_ref(), job).await
        }
        BuildContent::Container { sandbox, name, attempt } => {
            // Nobody removes the container before we are done.
            let _turn = host.turn(sandbox).await;
            let left = what_is_left(host, sandbox, name, *attempt).await?;
            let Left { image, changed, origin, mount_points } = left;
            let job = |scratch, limits| Job::Changes { changed, origin, mount_points, scratch, limits };
            make(host, wanted, Some(&image), job).await
        }
    }
}

async fn make(
    host: &LinuxHost,
    wanted: &ImageBuild,
    base: Option<&ImageId>,
    job: impl FnOnce(PathBuf, UnpackLimits) -> Job,
) -> HostResult<ImageInfo> {
    let options = &host.shared.options;
    let store = Store::of(options);
    let locked = store.lock().await?;
    let import = Import::by_hand(options, &locked, &wanted.name);
    let result = async {
        let below = match base {
            Some(id) => layers_of(&store, id)?,
            None => Vec::new(),
        };
        let own = import.pack(job).await?;
        let layers = stacked(below, own);
        if layers.is_empty() {
            return Err(failed(HostErrorKind::InvalidSpec, &wanted.name, "there is nothing to put into it"));
        }
        let diff_ids: Vec<&str> = layers.iter().map(|l| l.diff_id.as_str()).collect();
        let config = document(&wanted.config, &diff_ids);
        import.take(&config, layers, &|_| ()).await
    }
    .await;
    tidy_up(&locked, &|| host.images_in_use());
    result.map_err(|e| HostError { op: BUILD, ..e })
}

fn stacked(mut below: Vec<KnownLayer>, own: Option<LayerSource>) -> Vec<KnownLayer> {
    below.extend(own.map(|own| KnownLayer { diff_id: own.diff_id.clone(), source: Some(own) }));
    below
}

fn layers_of(store: &Store, id: &ImageId) -> HostResult<Vec<KnownLayer>> {
    let record = store.record(id)?;
    let Record { diff_ids, layers, .. } =
        record.ok_or_else(|| failed(HostErrorKind::NotFound, id.as_str(), "there is no such image here"))?;
    if diff_ids.len() != layers.len() {
        let message = "it was taken in by an older version, which did not note what others can be built on: remove it, \
                       and import or pull it again";
        return Err(failed(HostErrorKind::Unsupported, id.as_str(), message));
    }
    Ok(diff_ids.into_iter().map(|diff_id| KnownLayer { diff_id, source: None }).collect())
}

/// What a container has left.
struct Left {
    image: ImageId,
    /// The upper directory of its overlay, or its root and what that was cloned from.
    changed: PathBuf,
    origin: Option<PathBuf>,
    mount_points: Vec<PathBuf>,
}

async fn what_is_left(host: &LinuxHost, id: &SandboxId, name: &ContainerName, attempt: u32) -> HostResult<Left> {
    let (id, name) = (id.clone(), name.clone());
    host.blocking(BUILD, move |shared| {
        let subject = format!("{id}/{name}");
        let dir = sandbox::instance_dir(shared, &id, &name, attempt);
        let Some(spec) = dir.spec()? else {
            return Err(failed(HostErrorKind::NotFound, &subject, &format!("it has no instance {attempt}")));
        };
        if !matches!(dir.observed(&shared.paths.run.lock(&id, &name, attempt))?, ContainerState::Exited { .. }) {
            return Err(failed(HostErrorKind::InvalidState, &subject, "it has not ended"));
        }
        let ContainerImage::Image { id: image } = spec.image else {
            return Err(failed(HostErrorKind::InvalidSpec, &subject, "it did not run from an image"));
        };
        let Some(launch) = read_record::<Launch>(BUILD, &dir.launch_file())? else {
            return Err(failed(HostErrorKind::NotFound, &subject, "nothing says how it was started"));
        };
        if launch.rootfs.users.is_some() {
            let message =
                "it has users of its own, who are others in an image: build in a pod without hostUsers: false";
            return Err(failed(HostErrorKind::Unsupported, &subject, message));
        }
        let mount_points = oci::mount_points(&launch);
        let (changed, origin) = match (launch.rootfs.cloned, &shared.roots) {
            (Some(cloned), Some(roots)) => (cloned, Some(roots.origin(&image)?)),
            (Some(cloned), None) => {
                let message = format!("its root lies at {}, on storage that is not in use any more", cloned.display());
                return Err(failed(HostErrorKind::Unsupported, &subject, &message));
            }
            (None, _) => (rootfs::changes_dir(&shared.paths.disk_container(&id, &name, attempt)), None),
        };
        Ok(Left { image, changed, origin, mount_points })
    })
    .await
}

fn failed(kind: HostErrorKind, subject: &str, message: &str) -> HostError {
    HostError::new(kind, BUILD, subject, message)
}

/// The image's config as a document (OCI image spec, config.md). Its digest is the image's id: the same parts give the
/// same document.
fn document(config: &ImageConfig, diff_ids: &[&str]) -> String {
    let ImageConfig { entrypoint, cmd, env, working_dir, user, stop_signal } = config;
    let mut run = Map::new();
    let lists = [("Entrypoint", entrypoint), ("Cmd", cmd), ("Env", env)];
    run.extend(lists.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), json!(v))));
    let texts = [("WorkingDir", Some(working_dir)), ("User", Some(user)), ("StopSignal", stop_signal.as_ref())];
    let texts = texts.into_iter().filter_map(|(k, v)| Some((k, v.filter(|v| !v.is_empty())?)));
    run.extend(texts.map(|(k, v)| (k.to_owned(), Value::String(v.clone()))));
    let config = json!({
        "architecture": architecture(std::env::consts::ARCH),
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    config.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_read_as_it_was_written() {
        let full = ImageConfig {
            entrypoint: vec!["/e".into()],
            cmd: vec!["c".into(), "d".into()],
            env: vec!["A=b".into()],
            working_dir: "/w".into(),
            user: "u:g".into(),
            stop_signal: Some("SIGINT".into()),
        };
        for config in [full, ImageConfig::default()] {
            let text = document(&config, &["sha256:x"]);
            assert_eq!(super::super::import::parse_config(&text).unwrap(), config);
            assert!(text.contains(r#""diff_ids":["sha256:x"]"#), "{text}");
        }
    }
}
