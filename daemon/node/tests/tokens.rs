//! Tokens of pods' accounts, on the fake host under virtual time: mounted, renewed without a restart, found again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reddwarf_host::Clock;
use reddwarf_host::spec::{Sensitive, VolumeSpec};
use reddwarf_node::{Token, TokenRequest, TokenSource};
use reddwarf_objects::Object;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use support::{World, config, pod};

/// Makes tokens that tell of themselves, as the API's do.
struct Mint {
    clock: Arc<dyn Clock>,
    made: AtomicU32,
    broken: AtomicBool,
}

#[async_trait]
impl TokenSource for Mint {
    async fn token(&self, wanted: &TokenRequest) -> Result<Token, String> {
        if self.broken.load(Ordering::SeqCst) {
            return Err("serviceaccounts \"default\" not found".into());
        }
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let issued = chrono::DateTime::from_timestamp(self.clock.wall().timestamp(), 0).unwrap();
        let expires = issued + chrono::TimeDelta::seconds(wanted.seconds);
        let claims = json!({"aud": [wanted.audience.clone().unwrap_or_else(|| "api".into())],
            "iat": issued.timestamp(), "exp": expires.timestamp(), "jti": number});
        let text = format!("h.{}.s{number}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        Ok(Token { text: Sensitive::new(text), issued, expires })
    }
}

async fn world() -> (World, Arc<Mint>) {
    with_tokens(World::new().await).await
}

/// A version that knows of tokens starts.
async fn with_tokens(mut world: World) -> (World, Arc<Mint>) {
    let mint = Arc::new(Mint { clock: world.clock.clone(), made: AtomicU32::new(0), broken: AtomicBool::new(false) });
    world.tokens = Some(mint.clone());
    world.plane.apply(config("ConfigMap", "kube-root-ca.crt", &[("ca.crt", "PEM")]));
    world.restart().await;
    (world, mint)
}

/// A file of a volume that a pod's sandbox has.
fn file(world: &World, pod: &str, volume: &str, name: &str) -> Option<String> {
    let sandbox = world.sandbox(pod)?;
    let (_, volume) = sandbox.spec.volumes.iter().find(|(key, _)| key.as_str() == volume)?;
    let VolumeSpec::Files { files, secret: true } = volume else { return None };
    files.get(name).map(|f| String::from_utf8(f.bytes.expose().clone()).unwrap())
}

fn account(name: &str, automount: Option<bool>) -> Object {
    let mut value =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}});
    if let Some(automount) = automount {
        value["automountServiceAccountToken"] = json!(automount);
    }
    Object::from_value(value).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_files_pod_has_a_token_that_is_renewed_without_a_restart() {
    let (mut world, mint) = world().await;
    world.plane.apply(pod("web", json!({})));
    world.until(10, "ready", |w| w.is_ready("web")).await;
    let read = |world: &World, name| file(world, "web", "kube-api-access", name);
    let first = read(&world, "token").unwrap();
    assert_eq!(
        (read(&world, "ca.crt").as_deref(), read(&world, "namespace").as_deref()),
        (Some("PEM"), Some("default"))
    );
    let mounts = world.sandbox("web").unwrap().containers.values().next().unwrap()[0].spec.mounts.clone();
    assert_eq!(mounts[0].target, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert!(mounts[0].read_only);
    // Another daemon takes it up.
    world.restart().await;
    world.sleep(60).await;
    assert_eq!((read(&world, "token").unwrap(), mint.made.load(Ordering::SeqCst)), (first.clone(), 1));
    // Four fifths of 3607 s.
    world.sleep(2885 - 70).await;
    assert_eq!(read(&world, "token").unwrap(), first);
    world.until(90, "another token", |w| read(w, "token").is_some_and(|t| t != first)).await;
    let status = world.status("web");
    assert_eq!(status.container_statuses[0].restart_count, 0);
    // While none can be made the old one stays; then there is a new one soon.
    mint.broken.store(true, Ordering::SeqCst);
    let second = read(&world, "token").unwrap();
    world.sleep(3000).await;
    assert_eq!(read(&world, "token").unwrap(), second);
    mint.broken.store(false, Ordering::SeqCst);
    world.until(70, "a third token", |w| read(w, "token").is_some_and(|t| t != second)).await;
    assert!(world.is_ready("web"));
    assert_eq!(world.status("web").container_statuses[0].restart_count, 0);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_a_token_from_being_made_is_said_and_heals_at_once() {
    let (world, mint) = world().await;
    mint.broken.store(true, Ordering::SeqCst);
    world.plane.apply(pod("web", json!({})));
    world.sleep(3).await;
    assert!(world.sandbox("web").is_none(), "nothing without its token");
    let why = world.why("web").await;
    let text = why.notices[0].to_string();
    assert!(
        text.contains(
            "MountVolume.SetUp failed for volume \"kube-api-access\" : failed to fetch token: serviceaccounts"
        ),
        "{text}"
    );
    mint.broken.store(false, Ordering::SeqCst);
    world.plane.apply(account("default", None));
    world.until(1, "ready", |w| w.is_ready("web")).await;
}

#[tokio::test(start_paused = true)]
async fn pod_and_account_say_whether_there_is_one_and_nothing_that_runs_is_disturbed() {
    let world = World::new().await;
    world.plane.apply(pod("old", json!({})));
    world.until(10, "ready", |w| w.is_ready("old")).await;
    let old = world.sandbox("old").unwrap();
    let (world, _) = with_tokens(world).await;
    world.plane.apply(account("shy", Some(false)));
    let volumes = |world: &World, name: &str| world.sandbox(name).unwrap().spec.volumes.len();
    world.plane.apply(pod("never", json!({"automountServiceAccountToken": false})));
    world.plane.apply(pod("shy", json!({"serviceAccountName": "shy"})));
    world.plane.apply(pod("bold", json!({"serviceAccountName": "shy", "automountServiceAccountToken": true})));
    world.plane.apply(pod("stranger", json!({"serviceAccountName": "nobody"})));
    let all = ["never", "shy", "bold", "stranger"];
    world.until(10, "ready", |w| all.iter().all(|name| w.is_ready(name))).await;
    assert_eq!(all.map(|name| volumes(&world, name)), [0, 0, 1, 0]);
    // An account that changes its mind, or goes, restarts nothing; nor does a version that knows of tokens.
    let before = all.map(|name| world.sandbox(name).unwrap());
    world.plane.apply(account("shy", None));
    world.plane.delete("ServiceAccount", "shy", None);
    world.sleep(60).await;
    assert!(all.map(|name| world.sandbox(name).unwrap()).iter().zip(&before).all(|(a, b)| a.started == b.started));
    assert_eq!(world.sandbox("old").unwrap(), old);
    assert!(all.iter().chain(&["old"]).all(|name| world.status(name).container_statuses[0].restart_count == 0));
}
