//! The daemon's own routes: status, plan, apply, generations, images and the rest.

use crate::server::{Said, Server, program};
use serde_json::{Value, json};

#[test]
fn status_exits_3_when_degraded() {
    let server = Server::new();
    server.on("GET /reddwarf/v1/status", 200, json!({"version": "0.1.0", "node": "box", "host": "sim", "ready": true}));
    assert_eq!(server.ctl(&["status"]).code, 0);
    let server = Server::new();
    let notices = ["all objects would go: reddwarfctl reconcile --allow-prune"];
    server.on("GET /reddwarf/v1/status", 200, json!({"ready": false, "generation": 7, "notices": notices}));
    let said = server.ctl(&["status"]);
    assert!(said.code == 3 && said.out.contains("--allow-prune"), "{said:?}");
    let said = server.ctl(&["status", "-o", "json"]);
    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &report["generation"]), (3, &json!(7)));
}

#[test]
fn plan_sends_the_files_and_exits_2_when_there_is_something_to_do() {
    let server = Server::new();
    let file = server.file("web.yaml", "kind: Pod\n");
    server.on("POST /reddwarf/v1/plan", 200, json!({"steps": []}));
    let said = server.ctl(&["plan"]);
    assert_eq!((said.code, said.out.as_str()), (0, "Nothing to do; no command has been executed.\n"));
    assert_eq!(server.body("POST /reddwarf/v1/plan"), json!({"files": []}));
    let server2 = Server::new();
    server2.on("POST /reddwarf/v1/plan", 200, json!({"steps": [{"action": "create", "object": "pods/default/web"}]}));
    let said = server2.ctl(&["plan", &file]);
    assert!(said.code == 2 && said.out.contains("no command has been executed"), "{said:?}");
    assert_eq!(server2.body("POST /reddwarf/v1/plan"), json!({"files": [{"name": file, "text": "kind: Pod\n"}]}));
    let said = server2.ctl_with_input(&["plan", "-"], "kind: Pod");
    assert_eq!(said.code, 2);
    assert_eq!(server2.body("POST /reddwarf/v1/plan"), json!({"files": [{"name": "-", "text": "kind: Pod"}]}));
    let server3 = Server::new();
    let finding = json!({"severity": "error", "file": "web.yaml", "line": 1, "column": 2, "what": "no"});
    server3.on("POST /reddwarf/v1/plan", 200, json!({"steps": [], "diagnostics": [finding]}));
    let said = server3.ctl(&["plan", &file]);
    assert!(said.code == 1 && said.err.contains("web.yaml:1:2: no"), "{said:?}");
    assert_eq!(server3.ctl(&["plan", "/nonexistent.yaml"]).code, 1);
}

#[test]
fn apply_tells_each_verdict_and_refuses_what_files_own() {
    let server = Server::new();
    let file = server.file("a.yaml", "x");
    let object = |verdict: &str, message: &str, code: u16| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "resource": "configmaps", "namespace": "default", "name": "c",
            "verdict": verdict, "message": message, "code": code, "warnings": ["old"],
            "changes": [{"path": "data.v", "old": "1", "new": "2"}]})
    };
    let (real, dry) = ("POST /reddwarf/v1/apply", "POST /reddwarf/v1/apply?dryRun=true&namespace=shop");
    server.on(real, 200, json!({"objects": [object("configured", "", 0)]}));
    server.on(real, 200, json!({"objects": [object("unchanged", "", 0)]}));
    server.on(real, 200, json!({"objects": [object("refused", "it is declared by /etc/reddwarf.d/c.yaml", 409)]}));
    server.on(
        real,
        422,
        json!({"kind": "Status", "code": 422, "message": "nothing was applied: a.yaml:1:1: bad", "diagnostics":
            [{"severity": "error", "file": "a.yaml", "line": 1, "column": 1, "what": "bad", "rendered": "error: bad\n --> a.yaml:1:1\n"}]}),
    );
    server.on(dry, 200, json!({"objects": [object("configured", "", 0)], "dryRun": true}));
    let said = server.ctl(&["apply", "-f", &file]);
    assert_eq!((said.code, said.out.as_str()), (0, "configmap/c configured\n"));
    assert_eq!(said.err, "warning: configmap/c: old\n");
    let said = server.ctl(&["apply", "-f", &file]);
    assert_eq!((said.code, said.out.as_str()), (0, "configmap/c unchanged\n"));
    let said = server.ctl(&["apply", "-f", &file]);
    assert!(said.code == 5 && said.err.contains("/etc/reddwarf.d/c.yaml"), "{said:?}");
    let said = server.ctl(&["apply", "-f", &file]);
    assert_eq!(said.code, 1);
    assert_eq!(said.err, "error: bad\n --> a.yaml:1:1\nerror: nothing was applied: 1 finding\n");
    let said = server.ctl(&["apply", "-n", "shop", "--dry-run", "--diff", "-f", &file]);
    assert_eq!(said.code, 2);
    assert_eq!(said.out, "configmap/c configured (dry run)\n    ~ data.v: \"1\" → \"2\"\n");
}

/// `apply --wait` of one object: what the list of it says, then each event of the watch.
fn applied(server: &Server, (group, kind, plural): (&str, &str, &str), name: &str, states: &[Value]) {
    let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
    let at = format!("GET {root}/namespaces/default/{plural}?");
    let list = json!({"metadata": {"resourceVersion": "9"}, "items": [states[0]]});
    server.on(&format!("{at}fieldSelector=metadata.name%3D{name}&limit=500"), 200, list);
    let events: String =
        states[1..].iter().map(|s| format!("{}\n", json!({"type": "MODIFIED", "object": s}))).collect();
    server.on_text(&format!("{at}watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion=9"), 200, &events);
    let version = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
    let resource = format!("{plural}.{group}").trim_end_matches('.').to_owned();
    let object = json!({"apiVersion": version, "kind": kind, "resource": resource, "namespace": "default", "name": name, "verdict": "created"});
    server.on("POST /reddwarf/v1/apply", 200, json!({"objects": [object]}));
}

const DEPLOYMENT: (&str, &str, &str) = ("apps", "Deployment", "deployments");

fn deployment(seen: i64, updated: i64, available: i64) -> Value {
    json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"observedGeneration": seen, "replicas": 2, "updatedReplicas": updated, "availableReplicas": available}})
}

#[test]
fn apply_waits_for_what_makes_pods() {
    let server = Server::new();
    let file = server.file("a.yaml", "x");
    // As the earlier version left it, then step by step.
    let steps = [deployment(1, 2, 2), deployment(2, 1, 1), deployment(2, 2, 1), deployment(2, 2, 2)];
    applied(&server, DEPLOYMENT, "web", &steps);
    let said = server.ctl(&["apply", "--wait", "--timeout", "20s", "-f", &file]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.ends_with("deployment.apps/web is up\n"), "{said:?}");
    let asked = server.requests().iter().filter(|r| r.contains("watch=true")).count();
    assert_eq!(asked, 1, "up by the last event only");

    // A claim has no pods: nothing is waited for.
    let server = Server::new();
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "default", "name": "data", "verdict": "created"});
    server.on("POST /reddwarf/v1/apply", 200, json!({"objects": [claim]}));
    assert_eq!(server.ctl(&["apply", "--wait", "-f", &file]).code, 0);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn apply_names_what_is_not_up_in_time_and_why() {
    let server = Server::new();
    let file = server.file("a.yaml", "x");
    applied(&server, DEPLOYMENT, "web", &[deployment(2, 2, 0)]);
    let pod = crate::objects::pod("web-1-a", 3, false);
    let pods = json!({"metadata": {"resourceVersion": "9"}, "items": [pod]});
    server.on("GET /api/v1/namespaces/default/pods?labelSelector=app%3Dweb&limit=500", 200, pods);
    let said = server.ctl(&["apply", "--wait", "--timeout", "300ms", "-f", &file]);
    assert_eq!(said.code, 124, "{said:?}");
    let words = "timed out waiting for deployment.apps/web to be up: 0 of 2 pods are available; \
                 pod/web-1-a: main: exit code 3; back-off 10s\n";
    assert!(said.err.contains(words) && said.err.contains("`reddwarfctl why pod/web-1-a`"), "{}", said.err);
}

#[test]
fn a_job_that_fails_ends_the_waiting_at_once() {
    let job = |kind: &str| {
        json!({"metadata": {"name": "sum"}, "status": {"conditions": [
            {"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "it failed too often"}]}})
    };
    let begun = json!({"metadata": {"name": "sum"}, "status": {"active": 1}});
    for (kind, code, words) in [
        ("Complete", 0, "job.batch/sum is complete\n"),
        ("Failed", 1, "job.batch/sum has failed: BackoffLimitExceeded: it failed too often\n"),
    ] {
        let server = Server::new();
        let file = server.file("a.yaml", "x");
        applied(&server, ("batch", "Job", "jobs"), "sum", &[begun.clone(), job(kind)]);
        let said = server.ctl(&["apply", "--wait", "--timeout", "20s", "-f", &file]);
        assert_eq!(said.code, code, "{said:?}");
        assert!(format!("{}{}", said.out, said.err).contains(words), "{said:?}");
    }
}

#[test]
fn generations_diff_and_rollback() {
    let server = Server::new();
    server.on(
        "GET /reddwarf/v1/generations",
        200,
        json!({"items": [{"number": 2, "files": 1, "objects": 1, "message": "1 file changed", "current": true}, {"number": 1}]}),
    );
    let said = server.ctl(&["generations"]);
    assert!(said.out.lines().count() == 3 && said.out.contains("2 *"), "{}", said.out);
    server.on("GET /reddwarf/v1/generations/1/diff/1", 200, json!({"from": 1, "to": 1, "objects": [], "files": []}));
    assert_eq!(server.ctl(&["diff", "1", "1"]).code, 0);
    let changes = json!([{"path": "data.v", "old": "one", "new": "two"}]);
    let objects = json!([{"object": "configmaps/default/c", "action": "update", "changes": changes}]);
    server.on(
        "GET /reddwarf/v1/generations/1/diff/2",
        200,
        json!({"from": 1, "to": 2, "objects": objects, "files": []}),
    );
    let said = server.ctl(&["diff", "1", "2"]);
    assert!(said.code == 2 && said.out.contains("one") && said.out.contains("two"), "{said:?}");
    server.on(
        "POST /reddwarf/v1/generations/1/rollback?write=true",
        200,
        json!({"generation": 3, "filesWritten": ["/etc/c"]}),
    );
    let said = server.ctl(&["rollback", "1", "--write"]);
    assert_eq!((said.code, said.out.as_str()), (0, "wrote /etc/c\ngeneration 3 is in force\n"));
    server.on(
        "POST /reddwarf/v1/generations/99/rollback",
        404,
        json!({"code": 404, "message": "generation 99 is not retained"}),
    );
    assert_eq!(server.ctl(&["rollback", "99"]).code, 4);
}

#[test]
fn tokens_and_kubeconfigs_are_printed_to_be_used() {
    let server = Server::new();
    let token = json!({"id": "i1", "user": "alice", "groups": ["devs", "ops"], "expires": null, "created": null});
    let mut made = token.clone();
    made["token"] = json!("reddwarf.i1.secret");
    made["kubeconfig"] = json!("apiVersion: v1\n");
    server.on("POST /reddwarf/v1/tokens", 200, made);
    let create = ["token", "create", "alice", "--group", "devs", "--group", "ops", "--expires", "2h"];
    assert_eq!(server.ctl(&create).out, "reddwarf.i1.secret\n");
    let wanted = json!({"user": "alice", "groups": ["devs", "ops"], "description": "", "expirationSeconds": 7200});
    assert_eq!(server.body("POST /reddwarf/v1/tokens"), wanted);
    assert_eq!(server.ctl(&["token", "create", "alice", "--kubeconfig"]).out, "apiVersion: v1\n");
    server.on("GET /reddwarf/v1/tokens", 200, json!({"items": [token]}));
    let list = server.ctl(&["token", "list"]).out;
    assert!(list.contains("alice   devs,ops") && list.contains("never"), "{list}");
    server.on("DELETE /reddwarf/v1/tokens?id=i1", 200, json!({"message": "token i1 is revoked"}));
    assert_eq!(server.ctl(&["token", "revoke", "i1"]).out, "token i1 is revoked\n");
    server.on(
        "GET /reddwarf/v1/kubeconfig",
        200,
        json!({"path": "/state/admin.kubeconfig", "kubeconfig": "kind: Config\n"}),
    );
    assert_eq!(server.ctl(&["kubeconfig"]).out, "kind: Config\n");
    assert_eq!(server.ctl(&["kubeconfig", "--path"]).out, "/state/admin.kubeconfig\n");
    let off = json!({"code": 409, "reason": "Conflict", "message": "the API does not listen on TCP"});
    let server = Server::new();
    server.on("GET /reddwarf/v1/kubeconfig", 409, off);
    assert_eq!(server.ctl(&["kubeconfig"]).code, 5);
}

#[test]
fn images_backup_and_the_rest_send_absolute_paths() {
    let server = Server::new();
    server.on(
        "POST /reddwarf/v1/images",
        200,
        json!({"id": "sha256:0123456789abcdef", "names": ["a:1"], "sizeBytes": 2048}),
    );
    let mut command = server.command(&["image", "import", "root", "--name", "a:1"]);
    let said: Said = command.current_dir("/usr").output().unwrap().into();
    assert_eq!((said.code, said.out.as_str()), (0, "a:1 is sha256:0123456789abcdef (2.0 KiB)\n"));
    assert_eq!(server.body("POST /reddwarf/v1/images"), json!({"source": "/usr/root", "name": "a:1"}));
    server.on(
        "GET /reddwarf/v1/images",
        200,
        json!({"items": [{"id": "sha256:0123456789abcdef", "names": ["a:1"], "sizeBytes": 9}]}),
    );
    assert_eq!(server.ctl(&["image", "ls"]).out, "NAME   ID             SIZE   COMMAND\na:1    0123456789ab   9 B\n");
    server.on(
        "DELETE /reddwarf/v1/images?name=a%3A1",
        409,
        json!({"code": 409, "message": "a:1 is in use by pods/default/web"}),
    );
    assert_eq!(server.ctl(&["image", "rm", "a:1"]).code, 5);
    server.on("POST /reddwarf/v1/backup", 200, json!({"path": "/tmp/x", "revision": 4, "sizeBytes": 9}));
    assert_eq!(server.ctl(&["backup", "/tmp/x"]).code, 0);
    server.on("POST /reddwarf/v1/restore", 200, json!({"message": "restored"}));
    assert_eq!(server.ctl(&["restore", "/tmp/x"]).out, "restored\n");
    server.on("POST /reddwarf/v1/reconcile?allowPrune=true", 200, json!({"message": "pruned"}));
    assert_eq!(server.ctl(&["reconcile", "--allow-prune"]).out, "pruned\n");
    assert_eq!(server.ctl(&["-q", "reconcile", "--allow-prune"]).out, "");
    server.on("POST /reddwarf/v1/shutdown?stopPods=true", 200, json!({"message": "bye"}));
    assert_eq!(server.ctl(&["shutdown", "--stop-pods"]).out, "bye\n");
    server.on("POST /reddwarf/v1/restart/default/web?container=main", 200, json!({"message": "restarts"}));
    assert_eq!(server.ctl(&["restart", "pod/web", "-c", "main"]).out, "restarts\n");
    server.on("POST /reddwarf/v1/reload", 200, json!({"generation": 4, "changed": false}));
    assert_eq!(server.ctl(&["reload"]).out, "generation 4 stays\n");
    server.on(
        "GET /reddwarf/v1/why/pods/default/web",
        200,
        json!({"object": "pods/default/web", "ok": true, "summary": "it runs"}),
    );
    let said = server.ctl(&["why", "web"]);
    assert_eq!((said.code, said.out.as_str()), (0, "pods/default/web is as asked: it runs\n"));
    server.on(
        "GET /reddwarf/v1/why/pods/default/db",
        200,
        json!({"object": "pods/default/db", "ok": false, "summary": "it does not"}),
    );
    let said = server.ctl(&["why", "db"]);
    assert_eq!((said.code, said.out.as_str()), (3, "pods/default/db is not as asked: it does not\n"));
    assert_eq!(server.ctl(&["why", "db", "-o", "json"]).code, 3);
    server.on("GET /version", 200, json!({"gitVersion": "v1.36.0-reddwarf"}));
    assert!(server.ctl(&["version"]).out.contains("v1.36.0-reddwarf"));
}

#[test]
fn validate_needs_no_daemon() {
    let server = Server::new();
    let good = server.file("good.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n");
    let bad = server.file("bad.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndatas: {a: b}\n");
    let run = |args: &[&str]| -> Said { program().args(args).output().unwrap().into() };
    let said = run(&["validate", &good]);
    assert_eq!((said.code, said.out.as_str()), (0, "valid: 1 file, 1 object, 0 errors, 0 warnings\n"));
    let said = run(&["validate", &bad]);
    assert_eq!(said.code, 1);
    assert!(
        said.out.contains("did you mean") && said.out.contains("bad.yaml:4:1") && said.out.contains('^'),
        "{}",
        said.out
    );
    let report: Value = serde_json::from_str(&run(&["validate", "-o", "json", &good, &bad]).out).unwrap();
    assert_eq!((&report["valid"], &report["errors"]), (&json!(false), &json!(1)));
    let sarif: Value = serde_json::from_str(&run(&["validate", "-o", "sarif", &bad]).out).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    assert_eq!(run(&["validate", &good, &good]).code, 1, "declared twice");
    assert_eq!(
        server.ctl_with_input(&["validate", "-"], "apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n").code,
        0
    );
    let directory = server.dir.path().to_str().unwrap();
    let said = run(&["validate", directory]);
    assert!(said.code == 1 && said.out.contains("2 files"), "{said:?}");
    assert_eq!(run(&["validate", "/nonexistent.yaml"]).code, 1);
}

#[test]
fn completions_and_manual_pages_are_written() {
    let server = Server::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = server.ctl(&["completion", shell]);
        assert!(said.code == 0 && said.out.contains("reconcile"), "{shell}");
    }
    assert_eq!(server.ctl(&["man", server.dir.path().to_str().unwrap()]).code, 0);
    let page = std::fs::read_to_string(server.dir.path().join("reddwarfctl.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("Exit codes"), "{page}");
}

#[test]
fn top_shows_node_and_pods_most_first() {
    let server = Server::new();
    let usage = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let pod = |name: &str, cpu: &str| {
        json!({"metadata": {"name": name, "namespace": "default"},
            "containers": [{"name": "app", "usage": usage(cpu, "2048Ki")}, {"name": "side", "usage": usage("1m", "1Mi")}]})
    };
    let metrics = "GET /apis/metrics.k8s.io/v1beta1";
    let nodes = json!({"items": [{"metadata": {"name": "box"}, "usage": usage("500m", "512Mi")}]});
    let pods = json!({"items": [pod("idle", "1000000n"), pod("busy", "1500m")]});
    server.on(&format!("{metrics}/nodes?limit=500"), 200, nodes);
    server.on(&format!("{metrics}/pods?limit=500"), 200, pods.clone());
    server.on(&format!("{metrics}/namespaces/default/pods?limit=500"), 200, pods);
    server.on("GET /api/v1/nodes/box", 200, json!({"status": {"allocatable": usage("2", "1Gi")}}));
    let said = server.ctl(&["top"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (
            0,
            "NAME   CPU(cores)   CPU(%)   MEMORY(bytes)   MEMORY(%)\n\
             box    500m         25%      512Mi           50%\n\n\
             NAMESPACE   NAME   CPU(cores)   MEMORY(bytes)\n\
             default     busy   1501m        3Mi\n\
             default     idle   2m           3Mi\n"
        ),
        "{said:?}"
    );
    let said = server.ctl(&["top", "pod", "--containers", "--sort-by", "name", "--no-headers"]);
    assert_eq!(
        said.out,
        "busy   app    1500m        2Mi\nbusy   side   1m           1Mi\nidle   app    1m           2Mi\nidle   side   1m           1Mi\n"
    );
    let report: Value = serde_json::from_str(&server.ctl(&["top", "node", "-o", "json"]).out).unwrap();
    assert_eq!((report["nodes"][0]["usage"]["cpu"].as_str(), report.get("pods")), (Some("500m"), None));
}
