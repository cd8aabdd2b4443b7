//! Golden images: a base, files over it, and what commands change in it. Each command runs in a pod of its own, which
//! is like any other pod: network, limits, log, `kubectl get pods`. What it leaves in its root file system is the
//! image's next layer.
//!
//! Until it is done, an image has a name of its own; the wanted name moves to it in one step at the end. Names and pods
//! that a killed daemon left go when the next one starts.

use reddwarf_api::runtime::RuntimeError;
use reddwarf_api::types;
use reddwarf_host::{BuildContent, BuildFile, Clock, ImageBuild, ImageConfig, ImageId, ImageInfo, ImageReference};
use reddwarf_node::{NodeError, NodeHandle, PodKey, logs};
use reddwarf_objects::pod::{Phase, PodStatus};
use reddwarf_objects::selector::LabelSelector;
use reddwarf_objects::{Object, ObjectKey, kinds};
use reddwarf_registry::{Author, DeleteOptions, ListQuery, Registry, RegistryError, WriteOptions};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Builds at one time.
const PARALLEL: usize = 4;
/// Builds that came to their end and are still told of.
const REMEMBERED: usize = 16;
/// Most commands and files of one build.
const STEPS: usize = 100;
/// What is kept of what commands print.
const OUTPUT: usize = 256 << 10;
/// For one command.
const DEADLINE: Duration = Duration::from_secs(3600);
/// How often a pod is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a pod may wait for something that should be there.
const WAITING: Duration = Duration::from_secs(10);
/// How long to wait until a pod is gone.
const GOING: Duration = Duration::from_secs(60);
/// The container in a command's pod.
const CONTAINER: &str = "build";
/// Marks our pods; the value is the build's id.
const LABEL: &str = "reddwarf.io/image-build";
/// Names of images that are being made begin so.
const UNFINISHED: &str = "localhost/image-build:";
const AUTHOR: Author = Author::System("image-build");

/// All builds.
#[derive(Default)]
pub(crate) struct Builds(Mutex<Vec<Arc<Build>>>);

/// One build.
struct Build {
    request: types::ImageBuild,
    status: Mutex<types::ImageBuildStatus>,
}

impl Build {
    fn status(&self) -> MutexGuard<'_, types::ImageBuildStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self) -> bool {
        self.status().took_milliseconds.is_some()
    }

    fn tell(&self, state: &str, doing: String) {
        let mut status = self.status();
        state.clone_into(&mut status.state);
        status.doing = doing;
    }

    /// Keeps the newest of what commands print.
    fn print(&self, text: &str) {
        let mut status = self.status();
        status.output.push_str(text);
        if status.output.len() > OUTPUT {
            let mut cut = status.output.len() - OUTPUT / 2;
            while !status.output.is_char_boundary(cut) {
                cut += 1;
            }
            status.output.drain(..cut);
            status.output_from = status.output_from.saturating_add(cut as u64);
        }
    }
}

impl Builds {
    fn list(&self) -> MutexGuard<'_, Vec<Arc<Build>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a build.
    ///
    /// # Errors
    /// `BadRequest`, `Unavailable`.
    pub(crate) fn begin(
        &self,
        request: &types::ImageBuild,
        node: &NodeHandle,
        registry: &Registry,
        clock: &Arc<dyn Clock>,
    ) -> Result<types::ImageBuildStatus, RuntimeError> {
        check(request)?;
        let mut list = self.list();
        if list.iter().filter(|b| !b.has_ended()).count() >= PARALLEL {
            return Err(RuntimeError::Unavailable(format!("{PARALLEL} builds are running; wait for one to end")));
        }
        let id = loop {
            let id = format!("{:x}", clock.wall().timestamp_micros());
            if list.iter().all(|b| b.status().id != id) {
                break id;
            }
        };
        let status = types::ImageBuildStatus {
            id: id.clone(),
            name: request.name.clone(),
            state: "preparing".into(),
            ..types::ImageBuildStatus::default()
        };
        let build = Arc::new(Build { request: request.clone(), status: Mutex::new(status.clone()) });
        let ended = list.iter().filter(|b| b.has_ended()).count();
        if ended >= REMEMBERED
            && let Some(oldest) = list.iter().position(|b| b.has_ended())
        {
            list.remove(oldest);
        }
        list.push(build.clone());
        drop(list);
        let builder = Builder { build, id, node: node.clone(), registry: registry.clone(), clock: clock.clone() };
        tokio::spawn(builder.run());
        Ok(status)
    }

    /// How far a build is.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) fn status(&self, id: &str) -> Result<types::ImageBuildStatus, RuntimeError> {
        let found = self.list().iter().map(|b| b.status().clone()).find(|s| s.id == id);
        found.ok_or_else(|| RuntimeError::NotFound(format!("there is no build {id:?}")))
    }
}

fn check(request: &types::ImageBuild) -> Result<(), RuntimeError> {
    let bad = |text: &str| Err(RuntimeError::BadRequest(text.to_owned()));
    if request.name.starts_with(UNFINISHED) {
        return bad("names that begin with `localhost/image-build:` are for images that are being made");
    }
    if request.from.is_some() && request.rootfs.is_some() {
        return bad("`from` and `rootfs` both say what is below: give one of them");
    }
    if request.from.is_none() && request.rootfs.is_none() && request.files.is_empty() {
        return bad("it is made of nothing: give `from`, `rootfs` or `files`");
    }
    if request.run.iter().any(|argv| argv.first().is_none_or(String::is_empty)) {
        return bad("a command of `run` names no program");
    }
    if request.run.len() > STEPS || request.files.len() > STEPS {
        return bad("more than 100 commands or files: put several into one");
    }
    if let Some(bad) = request.env.iter().find(|v| !v.contains('=') || v.starts_with('=')) {
        return Err(RuntimeError::BadRequest(format!("variable {bad:?}: write NAME=value")));
    }
    Ok(())
}

/// Carries a build out.
struct Builder {
    build: Arc<Build>,
    id: String,
    node: NodeHandle,
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl Builder {
    async fn run(self) {
        let begun = self.clock.boot();
        tracing::info!(image = self.build.request.name, build = self.id, "building");
        let result = self.make().await;
        clear(&self.node, &self.registry, Some(&self.id)).await;
        let took = self.clock.boot().since(begun);
        let mut status = self.build.status();
        status.took_milliseconds = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        match result {
            Ok(info) => {
                tracing::info!(image = status.name, id = %info.id, ?took, "built");
                status.state = "built".into();
                status.image = Some(crate::node::image(&info));
            }
            Err(error) => {
                tracing::warn!(image = status.name, error, "not built");
                status.state = "failed".into();
                status.error = Some(error);
            }
        }
    }

    fn unfinished(&self) -> String {
        format!("{UNFINISHED}{}", self.id)
    }

    async fn make(&self) -> Result<ImageInfo, String> {
        let request = &self.build.request;
        let base = self.base().await?;
        let config = config(request, base.as_ref().map(|b| &b.config));
        let last = request.run.len();
        // The wanted name is given by the last step.
        let name = |step: usize| if step == last { request.name.clone() } else { self.unfinished() };
        self.build.tell("preparing", "putting files in place".to_owned());
        let mut image = self.files(base.map(|b| b.id), &config, name(0)).await?;
        for (index, argv) in request.run.iter().enumerate() {
            let step = index + 1;
            self.build.tell("running", format!("command {step} of {last}: {}", argv.join(" ")));
            let pod = self.start(step, argv).await?;
            self.until_it_ends(&pod).await.map_err(|e| format!("command {step} of {last} ({}) {e}", argv.join(" ")))?;
            let key = PodKey::new(&pod.namespace, &pod.name);
            let made = self.node.image_commit(&key, CONTAINER, config.clone(), &name(step)).await;
            image = made.map_err(words)?;
        }
        Ok(image)
    }

    /// The image below; `None`: there is none.
    async fn base(&self) -> Result<Option<ImageInfo>, String> {
        let request = &self.build.request;
        if let Some(path) = &request.rootfs {
            self.build.tell("preparing", format!("importing {path}"));
            return self.node.image_import(&PathBuf::from(path), &self.unfinished()).await.map(Some).map_err(words);
        }
        let Some(name) = &request.from else { return Ok(None) };
        if let Some(here) = self.find(name).await? {
            return Ok(Some(here));
        }
        self.build.tell("preparing", format!("pulling {name}"));
        let mut pull = self.node.image_pull(name).map_err(words)?;
        while !matches!(pull.state.as_str(), "pulled" | "failed") {
            tokio::time::sleep(LOOK).await;
            let newest = self.node.image_pulls().into_iter().rev().find(|p| p.image == pull.image);
            pull = newest.ok_or_else(|| format!("the pull of {name} was broken off"))?;
        }
        match pull.error {
            Some(error) => Err(format!("failed to pull {}: {error}", pull.image)),
            None => self.find(name).await?.map(Some).ok_or_else(|| format!("{name} is gone again")),
        }
    }

    /// An image that is here, by a name as pods give it.
    async fn find(&self, name: &str) -> Result<Option<ImageInfo>, String> {
        let full = ImageReference::parse(name).map(|r| r.to_string()).unwrap_or_default();
        let images = self.node.images().await.map_err(words)?;
        let called =
            |wanted: &str| images.iter().find(|i| i.id.as_str() == wanted || i.names.iter().any(|n| n == wanted));
        Ok(called(name).or_else(|| called(&full)).cloned())
    }

    async fn files(&self, base: Option<ImageId>, config: &ImageConfig, name: String) -> Result<ImageInfo, String> {
        let file = |f: &types::ImageBuildFile| BuildFile {
            source: PathBuf::from(&f.source),
            target: f.target.clone(),
            owner: f.owner.unwrap_or_default(),
        };
        let content = BuildContent::Files { base, files: self.build.request.files.iter().map(file).collect() };
        self.node.image_build(&ImageBuild { content, config: config.clone(), name }).await.map_err(words)
    }

    /// Makes the pod of one command.
    async fn start(&self, step: usize, argv: &[String]) -> Result<PodName, String> {
        let namespace = self.build.request.namespace.as_deref().unwrap_or("default");
        let name = format!("image-build-{}-{step}", self.id);
        let pod = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": { LABEL: self.id } },
            "spec": {
                "nodeName": self.node.name(),
                "restartPolicy": "Never",
                "activeDeadlineSeconds": DEADLINE.as_secs(),
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "containers": [{
                    "name": CONTAINER,
                    "image": self.unfinished(),
                    "imagePullPolicy": "Never",
                    "command": argv,
                    "securityContext": { "runAsUser": 0, "runAsGroup": 0 },
                }],
            },
        });
        let pod = Object::from_value(pod).map_err(|e| e.to_string())?;
        self.registry.create(&AUTHOR, pod, WriteOptions::default()).await.map_err(|e| e.to_string())?;
        Ok(PodName { namespace: namespace.to_owned(), name })
    }

    /// Waits for a command's end and passes on what it prints.
    async fn until_it_ends(&self, name: &PodName) -> Result<(), String> {
        let key = ObjectKey::pod(&name.namespace, &name.name);
        let mut log = None;
        let mut waited = Duration::ZERO;
        loop {
            let object = self.registry.find(&key).map_err(|e| e.to_string())?;
            let object = object.filter(|o| o.deletion_timestamp().is_none());
            let object = object.ok_or("was broken off: somebody removed its pod")?;
            let status = PodStatus::from_object(&object);
            let state = status.container_statuses.first().map(|c| &c.state);
            if log.is_none() && state.is_some_and(|s| s.waiting.is_none()) {
                log = self.log(name).await;
            }
            if let Some(lines) = &mut log {
                while let Ok(Ok(bytes)) = lines.try_recv() {
                    self.build.print(&String::from_utf8_lossy(&bytes));
                }
            }
            if matches!(status.phase, Phase::Succeeded | Phase::Failed) {
                self.rest_of(log).await;
                return verdict(&status);
            }
            if let Some(waiting) = state.and_then(|s| s.waiting.as_ref()) {
                waited += LOOK;
                if waited > WAITING && !matches!(waiting.reason.as_str(), "ContainerCreating" | "PodInitializing") {
                    return Err(format!("can't be started: {}: {}", waiting.reason, waiting.message));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn log(&self, name: &PodName) -> Option<mpsc::Receiver<std::io::Result<bytes::Bytes>>> {
        let options = logs::LogOptions { follow: true, ..logs::LogOptions::default() };
        self.node.logs(&PodKey::new(&name.namespace, &name.name), CONTAINER, options).await.ok()
    }

    /// What a command that has ended printed last.
    async fn rest_of(&self, log: Option<mpsc::Receiver<std::io::Result<bytes::Bytes>>>) {
        let Some(mut log) = log else { return };
        let all = async {
            while let Some(Ok(bytes)) = log.recv().await {
                self.build.print(&String::from_utf8_lossy(&bytes));
            }
        };
        // A log that does not end holds nothing up.
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
    }
}

struct PodName {
    namespace: String,
    name: String,
}

/// How a command ended.
fn verdict(status: &PodStatus) -> Result<(), String> {
    let ended = status.container_statuses.first().and_then(|c| c.state.terminated.as_ref());
    match ended {
        Some(end) if end.exit_code == 0 && status.phase == Phase::Succeeded => Ok(()),
        Some(end) if end.message.is_empty() => Err(format!("ended with exit code {}", end.exit_code)),
        Some(end) => Err(format!("ended with exit code {}: {}", end.exit_code, end.message)),
        None => Err(format!("failed: {} {}", status.reason, status.message)),
    }
}

fn words(error: NodeError) -> String {
    match error {
        NodeError::Host(host) => host.chain(),
        other => other.to_string(),
    }
}

/// How the image is run: as the one below, where the request does not say otherwise.
fn config(request: &types::ImageBuild, below: Option<&ImageConfig>) -> ImageConfig {
    let mut config = below.cloned().unwrap_or_default();
    if let Some(entrypoint) = &request.entrypoint {
        config.entrypoint.clone_from(entrypoint);
        // The words after another program's name mean nothing to this one.
        config.cmd.clear();
    }
    if let Some(cmd) = &request.cmd {
        config.cmd.clone_from(cmd);
    }
    for variable in &request.env {
        let name = |v: &str| v.split('=').next().unwrap_or_default().to_owned();
        config.env.retain(|v| name(v) != name(variable));
        config.env.push(variable.clone());
    }
    if let Some(workdir) = &request.workdir {
        config.working_dir.clone_from(workdir);
    }
    if let Some(user) = &request.user {
        config.user.clone_from(user);
    }
    if request.stop_signal.is_some() {
        config.stop_signal.clone_from(&request.stop_signal);
    }
    config
}

/// Removes pods and unfinished names of one build, or of all builds of daemons before this one.
pub(crate) async fn clear(node: &NodeHandle, registry: &Registry, id: Option<&str>) {
    let mut tries = 0;
    // A name stays while a container of its image is there.
    while !cleared(node, registry, id).await {
        tries += 1;
        if tries * LOOK > GOING {
            tracing::warn!("what a build left could not be removed; tried again at the next start");
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn cleared(node: &NodeHandle, registry: &Registry, id: Option<&str>) -> bool {
    let Some(kind) = kinds().by_alias("pods") else { return true };
    let selector = id.map_or_else(|| LABEL.to_owned(), |id| format!("{LABEL}={id}"));
    let Ok(labels) = LabelSelector::parse(&selector) else { return true };
    let Ok(pods) = registry.list(&ListQuery { labels, ..ListQuery::all(kind) }) else { return false };
    for pod in &pods.items {
        if pod.deletion_timestamp().is_none() {
            let gone = registry.delete(&AUTHOR, &pod.key(kind), &DeleteOptions::default()).await;
            if let Err(error) = gone.map(drop)
                && !matches!(error, RegistryError::NotFound(_))
            {
                tracing::warn!(%error, "a build's pod could not be removed");
            }
        }
    }
    let Ok(images) = node.images().await else { return false };
    let names = images.iter().flat_map(|i| &i.names).filter(|n| match id {
        Some(id) => n.strip_prefix(UNFINISHED) == Some(id),
        None => n.starts_with(UNFINISHED),
    });
    let mut all = pods.items.is_empty();
    for name in names {
        all &= node.image_remove(name).await.is_ok();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recipe_does_not_say_is_as_below() {
        let below = ImageConfig {
            entrypoint: vec!["/e".into()],
            cmd: vec!["c".into()],
            env: vec!["A=1".into(), "AB=2".into()],
            working_dir: "/w".into(),
            user: "u".into(),
            stop_signal: Some("SIGINT".into()),
        };
        let request = types::ImageBuild::default();
        assert_eq!(config(&request, Some(&below)), below);
        let request = types::ImageBuild {
            entrypoint: Some(vec!["/x".into()]),
            env: vec!["A=3".into()],
            user: Some(String::new()),
            ..request
        };
        let made = config(&request, Some(&below));
        assert_eq!((made.entrypoint, made.cmd), (vec!["/x".to_owned()], Vec::new()));
        assert_eq!((made.env, made.user.as_str()), (vec!["AB=2".to_owned(), "A=3".into()], ""));
    }

    #[test]
    fn recipes_that_make_no_sense_are_refused() {
        let ok = types::ImageBuild { from: Some("a".into()), ..types::ImageBuild::default() };
        assert!(check(&ok).is_ok());
        for bad in [
            types::ImageBuild { rootfs: Some("/r".into()), ..ok.clone() },
            types::ImageBuild { from: None, ..ok.clone() },
            types::ImageBuild { run: vec![Vec::new()], ..ok.clone() },
            types::ImageBuild { env: vec!["=x".into()], ..ok.clone() },
            types::ImageBuild { name: "localhost/image-build:1".into(), ..ok },
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_newest_of_what_is_printed_is_kept() {
        let build = Build { request: types::ImageBuild::default(), status: Mutex::default() };
        let line = "é".repeat(1000);
        (0..300).for_each(|_| build.print(&line));
        let status = build.status();
        assert!(status.output.len() <= OUTPUT);
        assert_eq!(status.output_from + status.output.len() as u64, 300 * 2000);
    }
}
