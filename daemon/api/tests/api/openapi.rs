//! OpenAPI as kubectl asks for it.

use crate::*;

#[tokio::test]
async fn documents_are_named_by_their_content() {
    let world = World::new().await;
    let (code, headers, index) = finish(world.send("GET", "/openapi/v3", &[], "").await).await;
    assert_eq!(code, 200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");

    let (tag, since) = (headers["etag"].to_str().unwrap(), headers["last-modified"].to_str().unwrap());
    let again = finish(world.send("GET", "/openapi/v3", &[("if-none-match", tag)], "").await).await;
    assert_eq!(again.0, 304);
    let again = finish(world.send("GET", "/openapi/v3", &[("if-modified-since", since)], "").await).await;
    assert_eq!(again.0, 304);

    let (code, headers, document) = finish(world.send("GET", &url, &[("accept", "application/json")], "").await).await;
    assert_eq!((code, document["openapi"].clone()), (200, json!("3.0.0")));
    assert_eq!(headers["cache-control"], "public, immutable, max-age=31536000");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));

    let (code, headers, _) = finish(world.send("GET", "/openapi/v3/apis/apps/v1?hash=OLD", &[], "").await).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, url.as_str()));
    assert_eq!(world.get("/openapi/v3/apis/nope/v1").await.0, 404);
    assert_eq!(world.ask("POST", "/openapi/v3", "").await.0, 405);
}

#[tokio::test]
async fn the_second_version_comes_in_two_forms() {
    let world = World::new().await;
    let (code, headers, _) = {
        let accept = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
        let response = world.send("GET", "/openapi/v2?timeout=32s", &accept, "").await;
        (response.status().as_u16(), response.headers().clone(), ())
    };
    assert_eq!(code, 200);
    assert_eq!(headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let (code, _, document) = finish(world.send("GET", "/openapi/v2", &[], "").await).await;
    assert_eq!((code, document["swagger"].clone()), (200, json!("2.0")));
    let (code, _, body) = finish(world.send("GET", "/openapi/v2", &[("accept", "text/html")], "").await).await;
    assert_eq!((code, body["reason"].clone()), (406, json!("NotAcceptable")));
}

#[tokio::test]
async fn who_reads_gzip_gets_it() {
    let world = World::new().await;
    let response = world.send("GET", "/openapi/v3/api/v1", &[("accept-encoding", "gzip")], "").await;
    assert_eq!((response.status().as_u16(), response.headers()["content-encoding"].to_str().unwrap()), (200, "gzip"));
}
