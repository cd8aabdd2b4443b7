//! Tokens of ServiceAccounts: asked for, verified, void when what they are bound to is gone.

use crate::*;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const ACCOUNT: &str = "/api/v1/namespaces/a/serviceaccounts/bot";

async fn world() -> World {
    let world = World::new().await;
    world.namespace("a").await;
    let (code, body) = world.post("/api/v1/namespaces/a/serviceaccounts", json!({"metadata": {"name": "bot"}})).await;
    assert_eq!(code, 201, "{body}");
    world
}

async fn request(world: &World, spec: Value) -> (u16, Value) {
    world.post(&format!("{ACCOUNT}/token"), json!({"spec": spec})).await
}

async fn token(world: &World, spec: Value) -> String {
    let (code, body) = request(world, spec).await;
    assert_eq!(code, 201, "{body}");
    body["status"]["token"].as_str().unwrap().to_owned()
}

fn part(token: &str, index: usize) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap()).unwrap()
}

/// Who a token is, by the API's own word.
async fn whoami(world: &World, token: &str) -> (u16, Value) {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, _, body) = finish(world.send("POST", path, &headers, "{}").await).await;
    (code, body["status"]["userInfo"].clone())
}

async fn review(world: &World, spec: Value) -> Value {
    let (code, body) = world.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": spec})).await;
    assert_eq!(code, 201, "{body}");
    body["status"].clone()
}

#[tokio::test]
async fn c36_a_token_says_what_kubernetes_tokens_say() {
    let world = world().await;
    let (code, body) = request(&world, json!({"expirationSeconds": 7200})).await;
    assert_eq!(code, 201, "{body}");
    assert_eq!((body["kind"].clone(), body["metadata"]["name"].clone()), (json!("TokenRequest"), json!("bot")));
    let issuer = "https://kubernetes.default.svc.cluster.local";
    assert_eq!(body["spec"], json!({"audiences": [issuer], "expirationSeconds": 7200}));
    let token = body["status"]["token"].as_str().unwrap();
    let (header, claims) = (part(token, 0), part(token, 1));
    assert_eq!(header["alg"], "ES256");
    let (_, account) = world.get(ACCOUNT).await;
    let named = json!({"name": "bot", "uid": account["metadata"]["uid"]});
    assert_eq!(claims["kubernetes.io"], json!({"namespace": "a", "serviceaccount": named}));
    assert_eq!((claims["iss"].clone(), claims["aud"].clone()), (json!(issuer), json!([issuer])));
    assert_eq!(claims["sub"], "system:serviceaccount:a:bot");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 7200);
    let end = chrono::DateTime::parse_from_rfc3339(body["status"]["expirationTimestamp"].as_str().unwrap()).unwrap();
    assert_eq!(end.timestamp(), claims["exp"].as_i64().unwrap());
    let (code, who) = whoami(&world, token).await;
    assert_eq!((code, who["username"].clone()), (201, json!("system:serviceaccount:a:bot")));
    assert_eq!(who["groups"], json!(["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]));
    assert_eq!(who["uid"], account["metadata"]["uid"]);
    let id = format!("JTI={}", claims["jti"].as_str().unwrap());
    assert_eq!(who["extra"]["authentication.kubernetes.io/credential-id"], json!([id]));
}

#[tokio::test]
async fn c36_bad_token_requests_are_refused() {
    let world = world().await;
    let (code, body) = request(&world, json!({"expirationSeconds": 599})).await;
    assert_eq!(code, 422);
    assert_eq!(
        body["message"],
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes"
    );
    assert_eq!(request(&world, json!({"expirationSeconds": 1i64 << 33})).await.0, 422);
    for (reference, code) in [
        (json!({"kind": "Pod", "apiVersion": "v1", "name": "nope"}), 404),
        (json!({"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}), 400),
        (json!({"kind": "Pod", "apiVersion": "v2", "name": "x"}), 400),
    ] {
        assert_eq!(request(&world, json!({"boundObjectRef": reference.clone()})).await.0, code, "{reference}");
    }
    assert_eq!(world.post("/api/v1/namespaces/a/serviceaccounts/nope/token", json!({})).await.0, 404);
    assert_eq!(world.ask("GET", &format!("{ACCOUNT}/token"), "").await.0, 405);
    let (code, body) = world.post(&format!("{ACCOUNT}/token"), json!({"metadata": {"name": "other"}})).await;
    assert_eq!(code, 400, "{body}");
}

#[tokio::test]
async fn e08_audiences_are_checked() {
    let world = world().await;
    let vault = token(&world, json!({"audiences": ["vault"]})).await;
    assert_eq!(whoami(&world, &vault).await.0, 401, "it is not for us");
    let status = review(&world, json!({"token": vault, "audiences": ["vault", "other"]})).await;
    assert_eq!((status["authenticated"].clone(), status["audiences"].clone()), (json!(true), json!(["vault"])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:a:bot");
    let refused = review(&world, json!({"token": vault})).await;
    assert_eq!(refused["user"], json!({}));
    assert!(refused["error"].as_str().unwrap().starts_with("token audiences [vault] is invalid"), "{refused}");
    let refused = review(&world, json!({"token": "nonsense"})).await;
    assert_eq!(refused, json!({"user": {}, "error": "invalid bearer token"}));
    let (code, _) = world.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {}})).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn e08_tokens_end_with_what_they_are_bound_to() {
    let world = world().await;
    let pods = "/api/v1/namespaces/a/pods";
    let pod = |account: &str| json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}});
    let reference = json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}});
    world.post("/api/v1/namespaces/a/serviceaccounts", json!({"metadata": {"name": "other"}})).await;
    assert_eq!(world.post(pods, pod("other")).await.0, 201);
    let (code, body) = request(&world, reference.clone()).await;
    assert_eq!(code, 400);
    assert_eq!(
        body["message"],
        "cannot bind token for serviceaccount \"bot\" to pod running with different serviceaccount name."
    );
    let gone = format!("{pods}/p?gracePeriodSeconds=0");
    assert_eq!(world.ask("DELETE", &gone, "").await.0, 200);
    let (_, made) = world.post(pods, pod("bot")).await;
    let bound = token(&world, reference).await;
    let free = token(&world, json!({})).await;
    assert_eq!(part(&bound, 1)["kubernetes.io"]["pod"]["uid"], made["metadata"]["uid"]);
    let (code, who) = whoami(&world, &bound).await;
    assert_eq!((code, who["extra"]["authentication.kubernetes.io/pod-name"].clone()), (201, json!(["p"])));
    // What the node will mount.
    let wanted = reddwarf_api::PodTokenRequest {
        namespace: "a".into(),
        pod: "p".into(),
        pod_uid: made["metadata"]["uid"].as_str().unwrap().into(),
        audience: None,
        expiration_seconds: 3607,
    };
    let mounted = world.access.pod_token(&wanted).unwrap();
    assert_eq!(whoami(&world, &mounted.token).await.0, 201);
    assert_eq!((mounted.renew_at() - mounted.issued).num_seconds(), 3607 * 4 / 5);
    assert!(!format!("{mounted:?}").contains(&mounted.token));
    let stale = reddwarf_api::PodTokenRequest { pod_uid: "x".into(), ..wanted };
    assert!(world.access.pod_token(&stale).is_err());

    assert_eq!(world.ask("DELETE", &gone, "").await.0, 200);
    assert_eq!(world.post(pods, pod("bot")).await.0, 201, "one of the same name");
    for dead in [&bound, &mounted.token] {
        assert_eq!(whoami(&world, dead).await.0, 401);
    }
    assert_eq!(whoami(&world, &free).await.0, 201);
    assert_eq!(world.ask("DELETE", ACCOUNT, "").await.0, 200);
    world.post("/api/v1/namespaces/a/serviceaccounts", json!({"metadata": {"name": "bot"}})).await;
    assert_eq!(whoami(&world, &free).await.0, 401, "another account of that name");
}

#[tokio::test]
async fn e08_keys_rotate_and_old_tokens_stay_valid() {
    let world = world().await;
    let old = token(&world, json!({})).await;
    assert_eq!(world.post("/reddwarf/v1/service-account-keys/rotate", json!({})).await.0, 200);
    let new = token(&world, json!({})).await;
    assert_ne!(part(&old, 0)["kid"], part(&new, 0)["kid"]);
    for token in [&old, &new] {
        assert_eq!(whoami(&world, token).await.0, 201);
    }
    let (_, set) = world.get("/openid/v1/jwks").await;
    let ids: Vec<&Value> = set["keys"].as_array().unwrap().iter().map(|key| &key["kid"]).collect();
    assert_eq!(ids, [&part(&new, 0)["kid"], &part(&old, 0)["kid"]]);
}

#[tokio::test]
async fn a_secrets_token_is_good_for_as_long_as_the_secret_has_it() {
    let world = world().await;
    const SECRET: &str = "/api/v1/namespaces/a/secrets/t";
    const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
    let (_, account) = world.get(ACCOUNT).await;
    let make = async || {
        let secret = json!({"metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "bot"}},
            "type": "kubernetes.io/service-account-token"});
        let (code, made) = world.post("/api/v1/namespaces/a/secrets", secret).await;
        assert_eq!(code, 201, "{made}");
        reddwarf_api::SecretTokenRequest {
            namespace: "a".into(),
            account: "bot".into(),
            account_uid: account["metadata"]["uid"].as_str().unwrap().into(),
            secret: "t".into(),
            secret_uid: made["metadata"]["uid"].as_str().unwrap().into(),
        }
    };
    let keep = async |token: Option<&str>| {
        let token = token.map(|token| base64::prelude::BASE64_STANDARD.encode(token));
        let (code, _, body) = world.ask("PATCH", SECRET, &json!({"data": {"token": token}}).to_string()).await;
        assert_eq!(code, 200, "{body}");
    };
    let of = make().await;
    let token = world.access.secret_token(&of).unwrap();
    assert_eq!(whoami(&world, &token).await.0, 401, "the Secret does not have it yet");
    keep(Some(&token)).await;
    let (code, who) = whoami(&world, &token).await;
    assert_eq!((code, who["username"].clone()), (201, json!("system:serviceaccount:a:bot")));
    let status = review(&world, json!({"token": token})).await;
    assert_eq!(
        (status["authenticated"].clone(), status["user"]["uid"].clone()),
        (json!(true), account["metadata"]["uid"].clone())
    );
    let claims = part(&token, 1);
    assert!(claims.get("exp").is_none() && claims["kubernetes.io"]["secret"]["uid"] == *of.secret_uid, "{claims}");
    // The use goes on record, once a day.
    let uses = async |status: Option<&str>| {
        let (code, _, body) = world
            .ask(
                "PATCH",
                SECRET,
                &json!({"metadata": {"labels": {LAST_USED: "2020-01-01",
            "kubernetes.io/legacy-token-invalid-since": status}}})
                .to_string(),
            )
            .await;
        assert_eq!(code, 200, "{body}");
        let query = reddwarf_registry::ListQuery::all(reddwarf_objects::kinds().by_gvk("v1", "Secret").unwrap());
        world.registry.list_and_watch(&query).unwrap().1
    };
    let mut changes = uses(None).await;
    assert_eq!(whoami(&world, &token).await.0, 201);
    let marked = changes.next().await.unwrap().object;
    let today = marked.label(LAST_USED).unwrap().to_owned();
    assert!(today.len() == 10 && today.as_str() > "2026-01-01", "{today}");
    assert!(marked.get("/metadata/managedFields").unwrap().to_string().contains("kube-apiserver"));
    // Marked as invalid it is refused, and that somebody tried goes on record too.
    let mut changes = uses(Some("2026-01-01")).await;
    assert_eq!(whoami(&world, &token).await.0, 401);
    assert!(changes.next().await.unwrap().object.label(LAST_USED).unwrap() >= today.as_str());
    let refused = review(&world, json!({"token": token})).await;
    let why = "the token in secret a/t for service account a/bot has been marked invalid.";
    assert!(refused["error"].as_str().unwrap().contains(why), "{refused}");
    drop(uses(None).await);
    assert_eq!(whoami(&world, &token).await.0, 201, "the label is gone");
    // Two years and many keys later, with a daemon that was started anew.
    assert_eq!(world.post("/reddwarf/v1/service-account-keys/rotate", json!({})).await.0, 200);
    assert_eq!(whoami(&world, &token).await.0, 201);
    let state = world.state.clone();
    let again = reddwarf_api::Access::open(Default::default(), &state, world.registry.clone()).unwrap();
    assert!(!again.is_void_secret_token(&token, &of), "its key is kept");
    assert!(
        again.is_void_secret_token(&token, &reddwarf_api::SecretTokenRequest { secret_uid: "x".into(), ..of.clone() })
    );
    assert!(!again.is_void_secret_token("mine", &of), "not ours");
    let (_, set) = world.get("/openid/v1/jwks").await;
    assert!(set["keys"].as_array().unwrap().iter().any(|key| key["kid"] == part(&token, 0)["kid"]), "{set}");
    let second = world.access.secret_token(&of).unwrap();
    keep(Some(&second)).await;
    assert_eq!((whoami(&world, &token).await.0, whoami(&world, &second).await.0), (401, 201), "it has another one");
    keep(None).await;
    assert_eq!(whoami(&world, &second).await.0, 401);
    keep(Some(&second)).await;
    assert_eq!(whoami(&world, &second).await.0, 201);
    let held = |by: Value| json!({"metadata": {"finalizers": by}}).to_string();
    world.ask("PATCH", SECRET, &held(json!(["test.io/hold"]))).await;
    assert_eq!(world.ask("DELETE", SECRET, "").await.0, 200);
    assert_eq!(whoami(&world, &second).await.0, 401, "it is going");
    world.ask("PATCH", SECRET, &held(json!(null))).await;
    assert_eq!(whoami(&world, &second).await.0, 401);
    make().await;
    keep(Some(&second)).await;
    assert_eq!(whoami(&world, &second).await.0, 401, "it is of the Secret that is gone");
    assert_eq!(review(&world, json!({"token": second})).await["user"], json!({}));
    // The key is lost: what it signed is of no use.
    std::fs::remove_file(state.join("pki/service-account/secrets.key")).unwrap();
    let without = reddwarf_api::Access::open(Default::default(), &state, world.registry.clone()).unwrap();
    assert!(without.is_void_secret_token(&token, &of));
}

/// A DER element of less than 128 bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
}

/// An unsigned integer in DER.
fn integer(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len() - 1);
    let bytes = &bytes[start..];
    der(2, &if bytes[0] & 0x80 == 0 { bytes.to_vec() } else { [&[0], bytes].concat() })
}

#[tokio::test]
async fn e08_openssl_verifies_a_token_with_the_published_key() {
    if !std::path::Path::new("/usr/bin/openssl").exists() {
        return;
    }
    let world = world().await;
    let token = token(&world, json!({})).await;
    let (_, found) = world.get("/.well-known/openid-configuration").await;
    assert_eq!(found["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert_eq!(found["issuer"], part(&token, 1)["iss"]);
    let (_, headers, set) = world.ask("GET", "/openid/v1/jwks", "").await;
    assert_eq!(headers["content-type"], "application/jwk-set+json");
    let key = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == part(&token, 0)["kid"]).unwrap();
    let field = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
    let point = [&[0, 4][..], &field("x"), &field("y")].concat();
    // id-ecPublicKey, prime256v1 (RFC 5480).
    let algorithm = der(0x30, &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]);
    let public = der(0x30, &[algorithm, der(3, &point)].concat());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let signature = der(0x30, &[integer(&signature[..32]), integer(&signature[32..])].concat());
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("key", public.as_slice()), ("signature", &signature), ("message", message.as_bytes())] {
        std::io::Write::write_all(&mut std::fs::File::create(dir.path().join(name)).unwrap(), bytes).unwrap();
    }
    #[allow(clippy::disallowed_methods, reason = "an independent verifier")]
    let mut command = tokio::process::Command::new("/usr/bin/openssl");
    command.current_dir(&dir).args([
        "dgst",
        "-sha256",
        "-keyform",
        "DER",
        "-verify",
        "key",
        "-signature",
        "signature",
        "message",
    ]);
    let output = command.output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Verified OK\n", "{output:?}");
}
