//! Writes of every kind, as clients send them.

use crate::*;
use reddwarf_objects::{Object, ObjectKey};
use reddwarf_registry::{Author, Declared, PruneScope};
use reddwarf_store::{FileContent, NewFile, NewGeneration};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

async fn patch(world: &World, media: &str, path: &str, body: Value) -> (u16, Value) {
    let (code, _, body) = finish(world.send("PATCH", path, &[("content-type", media)], &body.to_string()).await).await;
    (code, body)
}

async fn ask(world: &World, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (code, _, body) = world.ask(method, path, &body.to_string()).await;
    (code, body)
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "a"}]}})
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "a"}]}}}})
}

#[tokio::test]
async fn three_patches_change_the_same_object() {
    let world = World::new().await;
    let (_, made) = world.post(DEPLOYMENTS, deployment("web")).await;
    let one = format!("{DEPLOYMENTS}/web");
    let image = "/spec/template/spec/containers/0/image";
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "b"}]}}}});
    let (code, patched) = patch(&world, STRATEGIC, &one, strategic).await;
    assert_eq!((code, patched.pointer(image)), (200, Some(&json!("b"))), "{patched}");
    assert_eq!(
        patched.pointer("/spec/template/spec/containers/0/imagePullPolicy"),
        made.pointer("/spec/template/spec/containers/0/imagePullPolicy")
    );
    assert_eq!(patched["metadata"]["generation"], 2);
    let (code, patched) = patch(&world, JSON, &one, json!([{"op": "replace", "path": image, "value": "c"}])).await;
    assert_eq!((code, patched.pointer(image)), (200, Some(&json!("c"))));
    let (code, patched) = patch(&world, MERGE, &one, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((code, patched["metadata"]["generation"].clone()), (200, json!(3)), "labels are no spec");
    let (code, same) = patch(&world, STRATEGIC, &one, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((code, same), (200, patched), "nothing changes, not even a time");
}

#[tokio::test]
async fn patches_that_are_wrong_say_so_as_the_reference_does() {
    let world = World::new().await;
    world.post(DEPLOYMENTS, deployment("web")).await;
    let one = format!("{DEPLOYMENTS}/web");
    let (code, status) = patch(&world, MERGE, &one, json!([])).await;
    let text = "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}";
    assert_eq!((code, status["message"].as_str()), (400, Some(text)));
    let nameless = json!({"spec": {"template": {"spec": {"containers": [{"image": "y"}]}}}});
    let (code, status) = patch(&world, STRATEGIC, &one, nameless).await;
    let text = "map: map[image:y] does not contain declared merge key: name";
    assert_eq!((code, status["message"].as_str(), status.get("reason")), (500, Some(text), None));
    let strict = format!("{one}?fieldValidation=Strict");
    let (code, status) =
        patch(&world, JSON, &strict, json!([{"op": "test", "path": "/spec/replicas", "value": 2, "valeu": 1}])).await;
    let text = status["message"].as_str().unwrap_or_default();
    assert!(text.ends_with("strict decoding error: json patch unknown field \"[0].valeu\""), "{code} {text}");
    assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")));
}

#[tokio::test]
async fn a_patch_that_names_a_version_is_held_to_it() {
    let world = World::new().await;
    let (_, made) = world.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await;
    let one = format!("{MAPS}/a");
    let version = made["metadata"]["resourceVersion"].clone();
    let change = |value: &str| json!({"metadata": {"resourceVersion": version}, "data": {"k": value}});
    assert_eq!(patch(&world, MERGE, &one, change("2")).await.0, 200);
    let (code, refused) = patch(&world, MERGE, &one, change("3")).await;
    assert_eq!((code, refused["reason"].clone()), (409, json!("Conflict")));
    let (code, refused) =
        patch(&world, JSON, &one, json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": version}]))
            .await;
    assert_eq!((code, refused["reason"].clone()), (409, json!("Conflict")));
}

#[tokio::test]
async fn what_patches_make_must_fit_the_schema() {
    let world = World::new().await;
    world.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await;
    let strict = format!("{MAPS}/a?fieldValidation=Strict");
    let (code, refused) = patch(&world, STRATEGIC, &strict, json!({"bogus": {"x": 1}})).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (
            422,
            json!(
                " \"\" is invalid: patch: Invalid value: \"map[bogus:map[x:1]]\": strict decoding error: unknown field \"bogus\""
            )
        )
    );
    let (code, refused) = patch(&world, MERGE, &strict, json!({"bogus": 1})).await;
    assert_eq!((code, refused["details"]["causes"][0]["field"].clone()), (422, json!("patch")));
    let (code, _) = patch(&world, MERGE, &format!("{MAPS}/a?force=true"), json!({"data": {"k": "2"}})).await;
    assert_eq!(code, 422, "force is for apply");
    let (code, _) = patch(&world, MERGE, &format!("{MAPS}/a?fieldManager={}", "x".repeat(129)), json!({})).await;
    assert_eq!(code, 422);
    let (code, refused) = patch(&world, MERGE, &format!("{MAPS}/a"), json!([])).await;
    assert_eq!((code, refused["reason"].clone()), (400, json!("BadRequest")));
    assert_eq!(patch(&world, MERGE, &format!("{MAPS}/none"), json!({})).await.0, 404);
}

#[tokio::test]
async fn scale_is_read_put_and_patched() {
    let world = World::new().await;
    let (_, made) = world.post(DEPLOYMENTS, deployment("web")).await;
    let at = format!("{DEPLOYMENTS}/web/scale");
    let (code, scale) = world.get(&at).await;
    let metadata = &made["metadata"];
    let wanted = json!({"kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "default", "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"]},
        "spec": {"replicas": 2}, "status": {"replicas": 0, "selector": "app=web"}});
    assert_eq!((code, &scale), (200, &wanted));
    let (code, scaled) = patch(&world, MERGE, &at, json!({"spec": {"replicas": 3}})).await;
    assert_eq!((code, scaled["spec"]["replicas"].clone()), (200, json!(3)));
    let (_, deployment) = world.get(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(
        (deployment["spec"]["replicas"].clone(), deployment["metadata"]["generation"].clone()),
        (json!(3), json!(2))
    );
    let (code, refused) = ask(&world, "PUT", &at, scale).await;
    assert_eq!((code, refused["reason"].clone()), (409, json!("Conflict")), "that version is scaled away");
    let mut fresh = scaled;
    fresh["spec"]["replicas"] = json!(0);
    let (code, down) = ask(&world, "PUT", &at, fresh).await;
    assert_eq!((code, down["spec"].clone()), (200, json!({})));
    let (code, refused) = patch(&world, MERGE, &at, json!({"spec": {"replicas": -1}})).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (
            422,
            json!(
                "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
            )
        )
    );
    assert_eq!(world.get(&format!("{MAPS}/a/scale")).await.0, 404);
    assert_eq!(ask(&world, "DELETE", &at, json!({})).await.0, 405);
}

#[tokio::test]
async fn a_put_makes_only_what_the_reference_makes() {
    let world = World::new().await;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/leader";
    let body = json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a"}});
    assert_eq!(ask(&world, "PUT", lease, body.clone()).await.0, 201);
    let (code, refused) = ask(&world, "PUT", lease, body).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (
            422,
            json!(
                "Lease.coordination.k8s.io \"leader\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified for an update"
            )
        )
    );
    assert_eq!(ask(&world, "PUT", &format!("{MAPS}/new"), json!({"metadata": {"name": "new"}})).await.0, 404);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let world = World::new().await;
    world.post(PODS, pod("web")).await;
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}, "target": {"kind": "Node", "name": "box"}});
    let (code, done) = world.post(&format!("{PODS}/web/binding"), binding.clone()).await;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    assert_eq!((code, &done), (201, &success));
    let (_, bound) = world.get(&format!("{PODS}/web")).await;
    assert_eq!(bound["spec"]["nodeName"], "box");
    let (code, refused) = world.post("/api/v1/namespaces/default/bindings", binding).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (
            409,
            json!("Operation cannot be fulfilled on pods/binding \"web\": pod web is already assigned to node \"box\"")
        )
    );
    let nowhere = json!({"metadata": {"name": "web"}, "target": {}});
    let (code, refused) = world.post(&format!("{PODS}/web/binding"), nowhere).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (422, json!("Binding \"web\" is invalid: target.name: Required value"))
    );
    assert_eq!(world.get(&format!("{PODS}/web/binding")).await.0, 405);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let world = World::new().await;
    for name in ["web", "side"] {
        world.post(PODS, pod(name)).await;
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert_eq!(patch(&world, MERGE, &format!("{PODS}/{name}/status"), status).await.0, 200);
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(world.post(budgets, budget).await.0, 201);
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let evict = async |name: &str| world.post(&format!("{PODS}/{name}/eviction"), eviction(name)).await;
    let (code, refused) = evict("web").await;
    assert_eq!(
        (code, refused),
        (
            429,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "TooManyRequests",
            "message": "Cannot evict pod as it would violate the pod's disruption budget.", "code": 429,
            "details": {"retryAfterSeconds": 10, "causes": [{"reason": "DisruptionBudget",
                "message": "The disruption budget b is still being processed by the server."}]}})
        )
    );
    let counted = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1, "currentHealthy": 2, "expectedPods": 2}});
    assert_eq!(patch(&world, MERGE, &format!("{budgets}/b/status"), counted).await.0, 200);
    let mut rehearsal = eviction("web");
    rehearsal["deleteOptions"] = json!({"dryRun": ["All"]});
    assert_eq!(world.post(&format!("{PODS}/web/eviction"), rehearsal).await.0, 201);
    assert_eq!(world.get(&format!("{PODS}/web")).await.0, 200, "only rehearsed");
    assert_eq!(evict("web").await.0, 201);
    assert_eq!(world.get(&format!("{PODS}/web")).await.0, 404);
    let (_, budget) = world.get(&format!("{budgets}/b")).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["web"].is_string(), "{budget}");
    let (code, refused) = evict("side").await;
    let cause = &refused["details"]["causes"][0]["message"];
    assert_eq!((code, cause.clone()), (429, json!("The disruption budget b needs 1 healthy pods and has 2 currently")));
    assert_eq!(evict("nobody").await.0, 404);
}

#[tokio::test]
async fn ephemeral_containers_are_only_added() {
    let world = World::new().await;
    world.post(PODS, pod("web")).await;
    let at = format!("{PODS}/web/ephemeralcontainers");
    let add = |name: &str| json!({"spec": {"ephemeralContainers": [{"name": name, "image": "tools", "targetContainerName": "main"}]}});
    let (code, pod) = patch(&world, STRATEGIC, &at, add("debugger")).await;
    assert_eq!((code, pod["spec"]["ephemeralContainers"][0]["name"].clone()), (200, json!("debugger")), "{pod}");
    let (code, pod) = patch(&world, STRATEGIC, &at, add("second")).await;
    assert_eq!((code, pod["spec"]["ephemeralContainers"].as_array().unwrap().len()), (200, 2), "{pod}");
    let mut without = pod.clone();
    without["spec"]["ephemeralContainers"] = json!([]);
    let (code, refused) = ask(&world, "PUT", &at, without).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("may not be removed"), "{refused}");
    let mut other = pod.clone();
    other["spec"]["containers"][0]["image"] = "changed".into();
    other["spec"]["ephemeralContainers"][0]["image"] = "other".into();
    let (code, refused) = ask(&world, "PUT", &at, other).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("may not be changed"), "{refused}");
    assert_eq!(world.get(&at).await, (200, pod));
}

#[tokio::test]
async fn a_resize_changes_resources_and_nothing_else() {
    let world = World::new().await;
    let mut web = pod("web");
    web["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}});
    world.post(PODS, web).await;
    let at = format!("{PODS}/web/resize");
    let resize = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "200m"}}}]}});
    let (code, pod) = patch(&world, STRATEGIC, &at, resize).await;
    assert_eq!(
        (code, pod["spec"]["containers"][0]["resources"]["requests"].clone()),
        (200, json!({"cpu": "200m"})),
        "{pod}"
    );
    assert_eq!(pod["metadata"]["generation"], 2);
    let image = json!({"spec": {"containers": [{"name": "main", "image": "b"}]}});
    let (code, same) = patch(&world, STRATEGIC, &at, image).await;
    assert_eq!((code, same), (200, pod), "what is no resource is not heard, as in the reference");
}

#[tokio::test]
async fn deletes_say_what_becomes_of_the_rest() {
    let world = World::new().await;
    let one = format!("{DEPLOYMENTS}/web");
    world.post(DEPLOYMENTS, deployment("web")).await;
    let (code, marked) = ask(&world, "DELETE", &one, json!({"propagationPolicy": "Foreground"})).await;
    assert_eq!((code, marked["metadata"]["finalizers"].clone()), (200, json!(["foregroundDeletion"])));
    let (_, marked) = ask(&world, "DELETE", &one, json!({"propagationPolicy": "Orphan"})).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]), "changed their mind");
    let (code, gone) = ask(&world, "DELETE", &one, json!({"propagationPolicy": "Background"})).await;
    assert_eq!((code, gone["status"].clone()), (200, json!("Success")));
    world.post(DEPLOYMENTS, deployment("web")).await;
    let (code, _, _) = world.ask("DELETE", &format!("{one}?propagationPolicy=Orphan"), "").await;
    assert_eq!((code, world.get(&one).await.1["metadata"]["finalizers"].clone()), (200, json!(["orphan"])));
    for (options, field) in [
        (json!({"propagationPolicy": "Maybe"}), "Unsupported value"),
        (json!({"propagationPolicy": "Orphan", "orphanDependents": true}), "cannot be both set"),
    ] {
        let (code, refused) = ask(&world, "DELETE", &one, options).await;
        assert_eq!(code, 422);
        assert!(refused["message"].as_str().unwrap().contains(field), "{refused}");
    }
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}}});
    let (code, made) = world.post("/apis/batch/v1/namespaces/default/jobs", job).await;
    assert_eq!(code, 201, "{made}");
    let (code, headers, left) = world.ask("DELETE", "/apis/batch/v1/namespaces/default/jobs/j", "").await;
    assert_eq!((code, left["metadata"]["finalizers"].clone()), (200, json!(["orphan"])), "as the reference");
    assert!(headers["warning"].to_str().unwrap().contains("child pods are preserved"));
}

#[tokio::test]
async fn a_body_that_is_no_options_deletes_nothing() {
    let world = World::new().await;
    let (_, made) = world.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    let one = format!("{MAPS}/a");
    for body in [made.clone(), json!([1]), json!({"gracePeriodSeconds": "x"})] {
        assert_eq!(ask(&world, "DELETE", &one, body).await.0, 400);
    }
    assert_eq!(world.get(&one).await, (200, made));
}

#[tokio::test]
async fn the_seeds_finalize_ends_a_marked_pod() {
    let world = World::new().await;
    let mut web = pod("web");
    web["spec"]["nodeName"] = "box".into();
    world.post(PODS, web).await;
    let end = format!("{PODS}/web/finalize");
    assert_eq!(world.post(&end, json!({})).await.0, 409, "it is not being deleted");
    let (code, marked) = ask(&world, "DELETE", &format!("{PODS}/web"), json!({})).await;
    assert_eq!((code, marked["metadata"]["deletionGracePeriodSeconds"].clone()), (200, json!(30)));
    assert_eq!(world.post(&end, json!({})).await.0, 200);
    assert_eq!(world.get(&format!("{PODS}/web")).await.0, 404);
}

#[tokio::test]
async fn a_namespaces_own_finalizers_hold_it() {
    let world = World::new().await;
    world.namespace("team").await;
    let at = "/api/v1/namespaces/team";
    let (_, made) = world.get(at).await;
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let mut held = made.clone();
    held["spec"]["finalizers"] = json!(["kubernetes", "example.com/x"]);
    let (code, held) = ask(&world, "PUT", &format!("{at}/finalize"), held).await;
    assert_eq!((code, held["spec"]["finalizers"].clone()), (200, json!(["kubernetes", "example.com/x"])));
    let (code, closing) = ask(&world, "DELETE", at, json!({})).await;
    assert_eq!((code, closing["status"]["phase"].clone()), (200, json!("Terminating")));
    let (code, late) = world.post("/api/v1/namespaces/team/configmaps", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(
        (code, late),
        (
            403,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden", "code": 403,
            "message": "configmaps \"a\" is forbidden: unable to create new content in namespace team because it is being terminated",
            "details": {"name": "a", "kind": "configmaps", "causes": [{"reason": "NamespaceTerminating",
                "message": "namespace team is being terminated", "field": "metadata.namespace"}]}})
        )
    );
    let mut free = world.get(at).await.1;
    free["spec"]["finalizers"] = json!([]);
    assert_eq!(ask(&world, "PUT", &format!("{at}/finalize"), free).await.0, 200);
    assert_eq!(world.get(at).await.0, 404);
}

#[tokio::test]
async fn rehearsals_store_nothing() {
    let world = World::new().await;
    let revision = world.registry.revision();
    let (code, made) = world.post(&format!("{MAPS}?dryRun=All"), json!({"metadata": {"generateName": "g-"}})).await;
    assert_eq!((code, made["metadata"].get("resourceVersion")), (201, None));
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["name"].as_str().unwrap().len() == 7, "{made}");
    assert_eq!(world.registry.revision(), revision);
    world.post(DEPLOYMENTS, deployment("web")).await;
    let revision = world.registry.revision();
    let one = format!("{DEPLOYMENTS}/web");
    let change = json!({"spec": {"replicas": 9}});
    for at in [format!("{one}?dryRun=All"), format!("{one}/scale?dryRun=All")] {
        let (code, would) = patch(&world, MERGE, &at, change.clone()).await;
        assert_eq!((code, would["spec"]["replicas"].clone()), (200, json!(9)));
    }
    assert_eq!(ask(&world, "DELETE", &format!("{one}?dryRun=All"), json!({})).await.0, 200);
    assert_eq!(patch(&world, MERGE, &format!("{one}?dryRun=Some"), json!({})).await.0, 422);
    assert_eq!(world.registry.revision(), revision);
}

/// A ConfigMap that a file declares, on line 6 its only value.
async fn declared(world: &World) {
    let text =
        "# ours\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {mine: \"1\"}}\ndata:\n  k: \"1\"\n";
    let source = "/etc/reddwarf.d/a.yaml";
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "a", "namespace": "default", "labels": {"mine": "1"}}, "data": {"k": "1"}});
    let set = vec![Declared { object: Object::from_value(value).unwrap(), source: Some(source.to_owned()) }];
    let generation = NewGeneration {
        files: vec![NewFile { name: source.into(), content: FileContent::Bytes(text.as_bytes().to_vec().into()) }],
        declared: Vec::new(),
        diagnostics: Value::Null,
        note: String::new(),
        rolled_back_from: None,
    };
    let options = reddwarf_registry::ApplyOptions {
        prune: PruneScope::Nothing,
        dry_run: false,
        generation: Some(generation),
        message: String::new(),
    };
    world.registry.apply_set(&Author::File("x".into()), set, options).await.unwrap();
}

#[tokio::test]
async fn what_a_file_declares_is_refused_with_its_line_and_shown_in_a_rehearsal() {
    let world = World::new().await;
    declared(&world).await;
    let one = format!("{MAPS}/a");
    let (code, refused) = patch(&world, MERGE, &one, json!({"data": {"k": "2"}})).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (
            409,
            json!(
                "Operation cannot be fulfilled on configmaps \"a\": it is declared by /etc/reddwarf.d/a.yaml:6; change data[k] there"
            )
        )
    );
    assert_eq!(refused["details"]["causes"][0]["message"], "conflict with \"/etc/reddwarf.d/a.yaml:6\"");
    let (code, refused) = ask(&world, "DELETE", &one, json!({})).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (
            409,
            json!(
                "Operation cannot be fulfilled on configmaps \"a\": it is declared by /etc/reddwarf.d/a.yaml:2; remove it from that file and the daemon deletes it"
            )
        )
    );
    let (code, refused) = patch(&world, MERGE, &one, json!({"metadata": {"labels": {"mine": "2"}}})).await;
    assert_eq!(code, 409);
    assert!(refused["message"].as_str().unwrap().contains("/etc/reddwarf.d/a.yaml:4"), "{refused}");
    let dry = format!("{one}?dryRun=All");
    let response = world.send("PATCH", &dry, &[("content-type", STRATEGIC)], r#"{"data":{"k":"2"}}"#).await;
    let (code, headers, would) = finish(response).await;
    assert_eq!((code, would["data"].clone()), (200, json!({"k": "2"})));
    assert!(headers["warning"].to_str().unwrap().contains("/etc/reddwarf.d/a.yaml:6"), "{headers:?}");
    assert_eq!(world.get(&one).await.1["data"], json!({"k": "1"}));
    let theirs = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}, "labels": {"theirs": "1"}}});
    assert_eq!(patch(&world, MERGE, &one, theirs).await.0, 200, "what the file does not set may be written");
}

#[tokio::test]
async fn applying_to_what_a_file_declares_conflicts_with_the_file() {
    let world = World::new().await;
    declared(&world).await;
    let apply = async |query: &str, body: Value| {
        let mut config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        config.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let at = format!("{MAPS}/a?fieldManager=kubectl{query}");
        let headers = [("content-type", "application/apply-patch+yaml")];
        let (code, _, body) = finish(world.send("PATCH", &at, &headers, &config.to_string()).await).await;
        (code, body)
    };
    let (_, object) = world.get(&format!("{MAPS}/a")).await;
    let owner = &object["metadata"]["managedFields"][0];
    assert_eq!(
        (owner["manager"].clone(), owner["operation"].clone()),
        (json!("/etc/reddwarf.d/a.yaml"), json!("Apply"))
    );
    let (code, refused) = apply("", json!({"data": {"k": "2"}})).await;
    assert_eq!(
        (code, refused["message"].clone()),
        (409, json!("Apply failed with 1 conflict: conflict with \"/etc/reddwarf.d/a.yaml\": .data.k"))
    );
    let (code, refused) = apply("&force=true", json!({"data": {"k": "2"}})).await;
    assert_eq!(code, 409, "no force against a file");
    assert!(refused["message"].as_str().unwrap().contains("declared by /etc/reddwarf.d/a.yaml:6"), "{refused}");
    let (code, would) = apply("&dryRun=All", json!({"data": {"k": "2"}})).await;
    assert_eq!((code, would["data"].clone()), (200, json!({"k": "2"})), "a rehearsal shows the difference");
    let labels = json!({"metadata": {"name": "a", "labels": {"theirs": "1"}}});
    let (code, applied) = apply("", labels).await;
    assert_eq!((code, applied["metadata"]["labels"].clone()), (200, json!({"mine": "1", "theirs": "1"})));
    let (code, same) =
        apply("", json!({"metadata": {"name": "a", "labels": {"theirs": "1"}}, "data": {"k": "1"}})).await;
    assert_eq!((code, same["data"].clone()), (200, json!({"k": "1"})), "the same value is owned by both: {same}");
}

#[tokio::test]
async fn writers_are_known_by_their_agent_and_scale_by_its_subresource() {
    let world = World::new().await;
    let headers = [("content-type", "application/json"), ("user-agent", "my-operator/1.2 (linux)")];
    finish(world.send("POST", DEPLOYMENTS, &headers, &deployment("web").to_string()).await).await;
    let at = format!("{DEPLOYMENTS}/web/scale?fieldManager=scaler");
    assert_eq!(patch(&world, MERGE, &at, json!({"spec": {"replicas": 5}})).await.0, 200);
    let (_, object) = world.get(&format!("{DEPLOYMENTS}/web")).await;
    let owners = object["metadata"]["managedFields"].as_array().unwrap();
    let of = |name: &str| owners.iter().find(|o| o["manager"] == name).cloned().unwrap_or_default();
    assert_eq!(of("my-operator")["fieldsV1"]["f:spec"].get("f:replicas"), None, "{owners:?}");
    let scaler = of("scaler");
    assert_eq!(
        (scaler["subresource"].clone(), scaler["fieldsV1"].clone()),
        (json!("scale"), json!({"f:spec": {"f:replicas": {}}}))
    );
}

#[tokio::test]
async fn thirty_two_writers_count_right() {
    let world = std::sync::Arc::new(World::new().await);
    world.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"put": "0", "patch": "0"}})).await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let world = world.clone();
        writers.spawn(async move {
            put_once(&world).await;
            patch_once(&world).await;
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    assert_eq!(world.get(&format!("{MAPS}/a")).await.1["data"], json!({"put": "32", "patch": "32"}));
    let key = ObjectKey::core("configmaps", "default", "a");
    assert!(world.registry.get(&key).is_ok());
}

fn next(value: &Value) -> String {
    (value.as_str().unwrap().parse::<u32>().unwrap() + 1).to_string()
}

/// Reads, counts and puts until nobody was in between.
async fn put_once(world: &World) {
    let one = format!("{MAPS}/a");
    loop {
        let (_, mut object) = world.get(&one).await;
        object["data"]["put"] = next(&object["data"]["put"]).into();
        match ask(world, "PUT", &one, object).await {
            (200, _) => return,
            (code, refused) => assert_eq!((code, refused["reason"].clone()), (409, json!("Conflict"))),
        }
    }
}

/// The same with a JSON patch that tests what it replaces.
async fn patch_once(world: &World) {
    let one = format!("{MAPS}/a");
    loop {
        let (_, object) = world.get(&one).await;
        let was = &object["data"]["patch"];
        let operations = json!([
            {"op": "test", "path": "/data/patch", "value": was},
            {"op": "replace", "path": "/data/patch", "value": next(was)},
        ]);
        match patch(world, JSON, &one, operations).await {
            (200, _) => return,
            (code, refused) => assert_eq!((code, refused["reason"].clone()), (422, json!("Invalid"))),
        }
    }
}
