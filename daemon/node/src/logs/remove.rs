//! Logs go with what they are of: those of a pod with the pod, those of old attempts when newer ones begin, so that a
//! container that ends again and again leaves a bounded number of files.

use crate::key::PodKey;
use crate::plan::Op;
use crate::run::Shared;
use reddwarf_host::PodUid;
use std::io;
use std::path::Path;

/// Attempts whose logs are kept: the one that runs and the one before it (`logs --previous`).
const KEPT: u32 = 2;

/// What is done about logs before a step: it is done again when the daemon dies in between.
pub(crate) async fn tidy(shared: &Shared, op: &Op) {
    match op {
        Op::ContainerStart { spec, .. } => forget_attempts(&spec.log.path, spec.attempt).await,
        Op::FinishDelete { pod, uid } => remove_pod(&shared.settings.log_dir, pod, uid).await,
        Op::SandboxDestroy(id) => {
            let gone = {
                let state = shared.state();
                let known = state.observed.as_ref().and_then(|o| o.sandboxes.known()).and_then(|all| all.get(id));
                let pod = known.and_then(|s| s.known()).map(|s| (PodKey::from(&s.spec.pod), s.spec.pod.uid.clone()));
                // A sandbox that is made anew keeps its pod's logs.
                pod.filter(|(key, uid)| state.desired.pods.get(key).is_none_or(|i| i.uid != *uid))
            };
            if let Some((pod, uid)) = gone {
                remove_pod(&shared.settings.log_dir, &pod, &uid).await;
            }
        }
        _ => {}
    }
}

/// Takes away the logs of attempts that are too old to be asked for when `attempt`, whose log is `path`, begins.
async fn forget_attempts(path: &Path, attempt: u32) {
    let (Some(dir), Some(oldest)) = (path.parent().map(Path::to_owned), (attempt + 1).checked_sub(KEPT)) else {
        return;
    };
    let result = tokio::task::spawn_blocking(move || forget(&dir, oldest)).await;
    if let Ok(Err(error)) = result {
        tracing::warn!(path = %path.display(), %error, "old logs could not be removed");
    }
}

/// Removes `N.log`, `N.log.1`, … for N below `oldest`.
fn forget(dir: &Path, oldest: u32) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let attempt = name.to_str().and_then(|n| n.split_once(".log")).and_then(|(n, _)| n.parse::<u32>().ok());
        if attempt.is_some_and(|n| n < oldest) {
            match std::fs::remove_file(entry.path()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Takes away all logs of a pod that is gone. Only its very own directory, which its uid names.
async fn remove_pod(log_dir: &Path, pod: &PodKey, uid: &PodUid) {
    let dir = log_dir.join(directory(pod, uid));
    match tokio::fs::remove_dir_all(&dir).await {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(dir = %dir.display(), %error, "a pod's logs could not be removed"),
    }
}

/// A pod's directory, as the kubelet names it.
pub(super) fn directory(pod: &PodKey, uid: &PodUid) -> String {
    format!("{}_{}_{uid}", pod.namespace, pod.name)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "log files of the tests' own")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_attempts_are_kept_and_a_pods_logs_go_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (key, uid) = (PodKey::new("default", "web"), PodUid::new("u-1").unwrap());
        let container = dir.path().join(directory(&key, &uid)).join("app");
        std::fs::create_dir_all(&container).unwrap();
        for name in ["8.log", "8.log.1", "9.log", "9.log.3", "10.log", "notes.txt"] {
            std::fs::write(container.join(name), "x").unwrap();
        }
        forget_attempts(&container.join("10.log"), 10).await;
        let mut left: Vec<_> =
            std::fs::read_dir(&container).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["10.log", "9.log", "9.log.3", "notes.txt"]);
        forget_attempts(&container.join("0.log"), 0).await;
        let other = dir.path().join("default_web_u-2");
        std::fs::create_dir(&other).unwrap();
        remove_pod(dir.path(), &key, &uid).await;
        remove_pod(dir.path(), &key, &uid).await;
        assert!(!container.exists() && other.exists());
    }
}
