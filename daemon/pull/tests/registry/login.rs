//! Who is let in, and who is told a password.

use super::server::{Reply, Request, Server};
use super::{World, contents, error};
use base64::Engine;
use reddwarf_host::PullSecret;
use reddwarf_host::spec::Sensitive;
use reddwarf_pull::PullErrorKind;
use serde_json::json;
use std::sync::{Arc, Mutex};

fn secret(registry: &str, user: &str, password: &str) -> PullSecret {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    let text = json!({ "auths": { registry: { "auth": auth } } }).to_string();
    PullSecret::DockerConfigJson(Sensitive::new(text.into_bytes()))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

fn shown(request: &Request) -> &str {
    request.headers.get("authorization").map(String::as_str).unwrap_or_default()
}

fn stock(server: &Server) {
    let image = server.image(&[b"layer"], json!({ "os": "linux", "architecture": "amd64" }));
    server.tag("1", &image);
}

#[tokio::test]
async fn basic_authentication_tries_what_matches_and_says_what_to_do() {
    let world = World::new();
    stock(&world.server);
    let right = basic("u", "right");
    world.server.fault(move |request| {
        (shown(request) != right).then(|| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let here = world.server.address.clone();
    let refused = error(world.pull("app:1").await);
    assert_eq!(refused.kind, PullErrorKind::Denied);
    assert!(refused.message.contains("imagePullSecret"), "{refused}");
    let elsewhere = secret("other.test", "u", "right");
    assert_eq!(error(world.pull_with("app:1", vec![elsewhere]).await).kind, PullErrorKind::Denied);
    let both = vec![secret(&here, "u", "wrong"), secret(&here, "u", "right")];
    assert_eq!(contents(world.pull_with("app:1", both).await.unwrap()), [Some(b"layer".to_vec())]);
}

#[tokio::test]
async fn the_hosts_credentials_are_a_file_that_others_can_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let mut world = World::new();
    stock(&world.server);
    let right = basic("u", "right");
    world.server.fault(move |request| {
        (shown(request) != right).then(|| Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let file = world.dir.path().join("auth.json");
    let text = json!({ "auths": { world.server.address.clone(): { "username": "u", "password": "right" } } });
    std::io::Write::write_all(&mut std::fs::File::create(&file).unwrap(), text.to_string().as_bytes()).unwrap();
    world.options.credentials = Some(file.clone());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = error(world.pull("app:1").await);
    assert!(refused.message.contains("chmod 600"), "{refused}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(contents(world.pull("app:1").await.unwrap()), [Some(b"layer".to_vec())]);
}

#[tokio::test]
async fn a_token_is_fetched_with_the_password_and_used_until_it_is_of_age() {
    let world = World::new();
    stock(&world.server);
    let realm = format!("http://{}/token", world.server.address);
    let tokens = Arc::new(Mutex::new(0));
    let (given, right) = (tokens.clone(), basic("u", "right"));
    world.server.fault(move |request| {
        let mut tokens = given.lock().unwrap();
        if request.path.starts_with("/token") {
            assert!(request.path.contains("scope=repository%3Aapp%3Apull") && request.path.contains("service=s"));
            if shown(request) != right {
                return Some(Reply::status(401));
            }
            *tokens += 1;
            return Some(Reply {
                body: json!({ "token": format!("t{tokens}") }).to_string().into(),
                ..Reply::status(200)
            });
        }
        // The first is of age when the blob is asked for.
        let good = match *tokens {
            1 => !request.path.contains("/blobs/"),
            n => n > 1,
        };
        let challenge = format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:app:pull\"");
        let wrong = shown(request) != format!("Bearer t{tokens}") || !good;
        wrong.then(|| Reply::status(401).with("WWW-Authenticate", challenge))
    });
    let here = world.server.address.clone();
    let secrets = vec![secret(&here, "u", "wrong"), secret(&here, "u", "right")];
    assert_eq!(contents(world.pull_with("app:1", secrets).await.unwrap()), [Some(b"layer".to_vec())]);
    assert_eq!(*tokens.lock().unwrap(), 2);
    assert_eq!(error(world.pull("app:1").await).kind, PullErrorKind::Denied);
}

#[tokio::test]
async fn where_a_registry_leads_nobody_is_shown_the_password() {
    let (world, other) = (World::new(), Server::start());
    stock(&world.server);
    stock(&other);
    let (elsewhere, right) = (other.address.clone(), basic("u", "right"));
    world.server.fault(move |request| {
        if shown(request) != right {
            return Some(Reply::status(401).with("WWW-Authenticate", "Basic realm=\"x\""));
        }
        let away = format!("http://{elsewhere}{}?signature=s", request.path.replace("?", ""));
        let away = away.split('?').next().unwrap_or_default().to_owned();
        request.path.contains("/blobs/").then(|| Reply::status(307).with("Location", away))
    });
    let secrets = vec![secret(&world.server.address, "u", "right")];
    assert_eq!(contents(world.pull_with("app:1", secrets).await.unwrap()), [Some(b"layer".to_vec())]);
    let asked = other.asked();
    assert!(!asked.is_empty() && asked.iter().all(|r| shown(r).is_empty()), "{asked:?}");
    // Round and round.
    let here = world.server.address.clone();
    world
        .server
        .fault(move |request| Some(Reply::status(302).with("Location", format!("http://{here}{}", request.path))));
    assert!(error(world.pull("app:1").await).message.contains("more than 5 times"));
}

#[tokio::test]
async fn a_refresh_token_is_posted_never_put_into_the_address() {
    let world = World::new();
    stock(&world.server);
    let realm = format!("http://{}/token", world.server.address);
    world.server.fault(move |request| {
        if request.path.starts_with("/token") {
            let good = request.method == "POST" && request.body.contains("grant_type=refresh_token&client_id=reddwarf");
            assert!(!request.path.contains("refresh"), "{}", request.path);
            let body = json!({ "access_token": "t" }).to_string().into();
            let status = if good && request.body.contains("refresh_token=r3fresh") { 200 } else { 401 };
            return Some(Reply { body, ..Reply::status(status) });
        }
        let challenge = format!("Bearer realm=\"{realm}\"");
        (shown(request) != "Bearer t").then(|| Reply::status(401).with("WWW-Authenticate", challenge))
    });
    let text = json!({ world.server.address.clone(): { "identitytoken": "r3fresh" } }).to_string();
    let secret = PullSecret::DockerCfg(Sensitive::new(text.into_bytes()));
    assert_eq!(contents(world.pull_with("app:1", vec![secret]).await.unwrap()), [Some(b"layer".to_vec())]);
}
