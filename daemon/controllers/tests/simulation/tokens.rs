//! Secrets with tokens of accounts.

use crate::world::{World, object};
use base64::{Engine, prelude::BASE64_STANDARD};
use reddwarf_objects::Object;
use reddwarf_registry::{ApplyOptions, Author, Declared, PruneScope};
use serde_json::{Value, json};

const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

fn secret(name: &str, account: &str, more: Value) -> Value {
    let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": name, "namespace": "default", "annotations": {NAME: account}}});
    secret.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    secret
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}})
}

fn kept(secret: &Object, key: &str) -> String {
    let encoded = secret.get_str(&format!("/data/{key}")).unwrap_or_default();
    String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn a_secret_of_an_account_gets_its_token_and_goes_with_it() {
    let mut world = World::new(1).await;
    world.settle(1).await;
    let bot = world.create(account("bot")).await;
    let (bot, made) = (bot.uid().unwrap().to_owned(), world.create(secret("t", "bot", json!({}))).await);
    world.create(secret("other", "default", json!({"data": {"token": "bWluZQ==", "namespace": "eA=="}}))).await;
    world.settle(1).await;
    let filled = world.get("secrets", "t");
    let first = kept(&filled, "token");
    assert!(first.starts_with(&format!("{bot} {}", made.uid().unwrap())), "{first}");
    assert_eq!((kept(&filled, "namespace"), filled.annotation(UID)), ("default".to_owned(), Some(bot.as_str())));
    let other = world.get("secrets", "other");
    assert_eq!(
        (kept(&other, "token"), kept(&other, "namespace")),
        ("mine".to_owned(), "x".to_owned()),
        "what is given stays"
    );
    world.writes_nothing_more().await;
    // Who takes the token out gets another one.
    world.patch("secrets", "t", json!({"data": {"token": null}})).await;
    world.settle(1).await;
    let second = kept(&world.get("secrets", "t"), "token");
    assert!(!second.is_empty() && second != first);
    world.delete("sa", "bot", None).await;
    world.create(account("bot")).await;
    world.settle(1).await;
    assert!(world.find("secrets", "t").is_none(), "it was of the account that is gone");
    world.create(secret("nobodys", "nobody", json!({}))).await;
    world.settle(1).await;
    assert!(world.find("secrets", "nobodys").is_none() && world.find("secrets", "other").is_some());
    world.writes_nothing_more().await;
}

#[tokio::test]
async fn a_secret_of_a_file_keeps_its_token_and_waits_for_its_account() {
    let mut world = World::new(2).await;
    let source = "/etc/reddwarf.d/t.yaml";
    let apply = async |world: &World, more: Value| {
        let declared = Declared { object: object(secret("t", "bot", more)), source: Some(source.into()) };
        let options =
            ApplyOptions { prune: PruneScope::FileOwned { keep_sources: [].into() }, ..ApplyOptions::default() };
        world.registry.apply_set(&Author::File(source.into()), vec![declared], options).await.unwrap();
    };
    apply(&world, json!({})).await;
    world.settle(1).await;
    assert_eq!(kept(&world.get("secrets", "t"), "token"), "", "it waits");
    assert!(world.list("events").iter().any(|event| event.get_str("/reason") == Some("NoServiceAccount")));
    world.create(account("bot")).await;
    world.settle(1).await;
    let token = kept(&world.get("secrets", "t"), "token");
    assert!(!token.is_empty());
    let revision = world.registry.revision();
    apply(&world, json!({})).await;
    assert_eq!((kept(&world.get("secrets", "t"), "token"), world.registry.revision()), (token.clone(), revision));
    apply(&world, json!({"data": {"more": "eA=="}})).await;
    world.settle(1).await;
    let secret = world.get("secrets", "t");
    assert_eq!((kept(&secret, "token"), kept(&secret, "more")), (token.clone(), "x".to_owned()));
    // Another account of the name: another token.
    world.delete("sa", "bot", None).await;
    let bot = world.create(account("bot")).await;
    world.settle(1).await;
    let secret = world.get("secrets", "t");
    assert_eq!(secret.annotation(UID), bot.uid());
    assert!(kept(&secret, "token").starts_with(bot.uid().unwrap()) && kept(&secret, "token") != token);
    world.writes_nothing_more().await;
}
