//! Lists and watches against a model: nothing twice, nothing missed, whatever happens meanwhile.

use crate::objects::map;
use crate::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn rv(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// What a writer did: the event that a watcher is to see.
async fn scribble(
    world: &World,
    dice: &mut fastrand::Rng,
    there: &mut BTreeMap<String, u64>,
) -> Option<(String, String, u64)> {
    let name = format!("c{:02}", dice.u8(..12));
    let one = format!("{MAPS}/{name}");
    if !there.contains_key(&name) {
        let (code, made) = world.post(MAPS, map(&name, &dice.u32(..).to_string())).await;
        assert_eq!(code, 201);
        there.insert(name.clone(), rv(&made));
        return Some(("ADDED".into(), name, rv(&made)));
    }
    if dice.u8(..3) == 0 {
        assert_eq!(world.ask("DELETE", &one, "").await.0, 200);
        there.remove(&name);
        return Some(("DELETED".into(), name, world.registry.revision().get()));
    }
    let patch = json!({"data": {"k": dice.u32(..).to_string()}}).to_string();
    let (_, _, changed) = world.ask("PATCH", &one, &patch).await;
    there.insert(name.clone(), rv(&changed));
    Some(("MODIFIED".into(), name, rv(&changed)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_broken_off_and_resumed_a_thousand_times_sees_each_event_once_and_in_order() {
    let world = Arc::new(World::new().await);
    let start = world.registry.revision().get();
    let writer = tokio::spawn({
        let world = world.clone();
        async move {
            let (mut dice, mut there, mut wanted) = (fastrand::Rng::with_seed(7), BTreeMap::new(), Vec::new());
            while wanted.len() < 1200 {
                wanted.extend(scribble(&world, &mut dice, &mut there).await);
            }
            wanted
        }
    });
    let mut dice = fastrand::Rng::with_seed(8);
    let (mut last, mut seen, mut times) = (start, Vec::new(), 0);
    while seen.len() < 1200 || times < 1000 {
        times += 1;
        let path = format!("{MAPS}?watch=1&resourceVersion={last}&allowWatchBookmarks=true");
        let mut stream = Lines::of(world.send("GET", &path, &[], "").await);
        // Some are broken off before anything came.
        for _ in 0..dice.u8(..4) {
            if seen.len() == 1200 {
                break;
            }
            let event = soon(stream.next()).await.unwrap();
            let object = &event["object"];
            last = rv(object);
            if event["type"] != "BOOKMARK" {
                let text = |v: &Value| v.as_str().unwrap().to_owned();
                seen.push((text(&event["type"]), text(&object["metadata"]["name"]), last));
            }
        }
    }
    assert_eq!(seen, writer.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_read_while_others_write_are_one_snapshot() {
    let world = Arc::new(World::new().await);
    for n in 0..40 {
        world.post(MAPS, map(&format!("base{n:02}"), "x")).await;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn({
        let (world, stop) = (world.clone(), stop.clone());
        async move {
            let (mut dice, mut there) = (fastrand::Rng::with_seed(3), BTreeMap::new());
            while !stop.is_cancelled() {
                scribble(&world, &mut dice, &mut there).await;
            }
        }
    });
    for limit in [1, 3, 7, 20, 3, 11, 5, 40] {
        let (mut items, mut version, mut token) = (Vec::new(), None, String::new());
        let mut left = None;
        loop {
            let (code, page) = world.get(&format!("{MAPS}?limit={limit}{token}")).await;
            assert_eq!(code, 200, "{page}");
            let of_page = page["items"].as_array().unwrap();
            items.extend(of_page.iter().cloned());
            assert_eq!(*version.get_or_insert(rv(&page)), rv(&page), "all pages are of one version");
            let remaining = page["metadata"]["remainingItemCount"].as_u64();
            if let (Some(before), Some(now)) = (left, remaining) {
                assert_eq!(before - of_page.len() as u64, now);
            }
            left = remaining;
            match page["metadata"]["continue"].as_str() {
                Some(next) => token = format!("&continue={next}"),
                None => break,
            }
        }
        let version = version.unwrap();
        let (code, whole) = world.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
        assert_eq!((code, rv(&whole)), (200, version));
        assert_eq!(whole["items"], Value::from(items), "limit {limit}");
    }
    stop.cancel();
    writer.await.unwrap();
}

#[tokio::test]
async fn an_outlived_token_comes_with_one_that_goes_on() {
    let world = World::new().await;
    for n in 0..6 {
        world.post(MAPS, map(&format!("c{n}"), "x")).await;
    }
    let (_, page) = world.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!(page["metadata"]["remainingItemCount"], 4);
    let token = page["metadata"]["continue"].as_str().unwrap();
    world.ask("DELETE", &format!("{MAPS}/c3"), "").await;
    world.registry.store().compact(world.registry.revision()).await.unwrap();
    let (code, expired) = world.get(&format!("{MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code, expired["reason"].clone()), (410, json!("Expired")));
    assert!(expired["message"].as_str().unwrap().starts_with("The provided continue parameter is too old"));
    let fresh = expired["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = world.get(&format!("{MAPS}?continue={fresh}")).await;
    let names: Vec<&str> =
        rest["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (200, vec!["c2", "c4", "c5"]));
}

#[tokio::test]
async fn versions_and_limits_as_the_reference_has_them() {
    let world = World::new().await;
    for n in 0..5 {
        world.post(MAPS, map(&format!("c{n}"), "x")).await;
    }
    let now = world.registry.revision().get();
    let count = async |query: &str| {
        let (code, list) = world.get(&format!("{MAPS}?{query}")).await;
        list["items"].as_array().map(Vec::len).ok_or((code, list["message"].as_str().unwrap_or_default().to_owned()))
    };
    world.ask("DELETE", &format!("{MAPS}/c0"), "").await;
    assert_eq!(count("resourceVersion=0&limit=1").await, Ok(4), "any version will do: the limit is ignored");
    assert_eq!(count(&format!("resourceVersion={now}&resourceVersionMatch=Exact")).await, Ok(5));
    assert_eq!(count(&format!("resourceVersion={now}&limit=9")).await, Ok(5), "with a limit a version is that version");
    assert_eq!(count(&format!("resourceVersion={now}")).await, Ok(4), "without, it is the least");
    assert_eq!(count("labelSelector=app&limit=1").await, Ok(0));
    assert_eq!(count("&limit=2").await, Ok(2));
    assert_eq!(count("").await, Ok(4));
    assert_eq!(count("limit=0").await, Ok(4));
    assert_eq!(count("fieldSelector=metadata.name%3Dc1").await, Ok(1));
    assert_eq!(count("fieldSelector=metadata.name%21%3Dc1%2Cmetadata.namespace%3Ddefault").await, Ok(3));
    let (_, page) = world.get(&format!("{MAPS}?limit=1")).await;
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(
        count(&format!("resourceVersion=7&continue={token}")).await,
        Err((400, "specifying resource version is not allowed when using continue".into()))
    );
    assert_eq!(count(&format!("resourceVersion=0&continue={token}")).await, Ok(3));
    for (query, code, message) in [
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        ("resourceVersion=1&resourceVersionMatch=No", 422, "Unsupported value: \"No\""),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("limit=x", 400, "limit"),
        (
            "continue=xx",
            400,
            "invalid continue token: continue key is not valid: invalid character 'Ç' looking for beginning of value",
        ),
    ] {
        let (got, text) = count(query).await.unwrap_err();
        assert!(got == code && text.contains(message), "{query}: {got} {text}");
    }
}
