//! get, describe, delete, wait, events.

use crate::server::{Server, program};
use serde_json::{Value, json};

const PODS: &str = "GET /api/v1/namespaces/default/pods?limit=500";

pub(crate) fn pod(name: &str, revision: u64, ready: bool) -> Value {
    let status = if ready { "True" } else { "False" };
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    json!({
        "metadata": {"name": name, "namespace": "default", "resourceVersion": revision.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u"},
        "spec": {"nodeName": "box", "containers": [{"name": "main", "image": "local/box:1"}]},
        "status": {"phase": "Running", "podIP": "10.88.0.2", "conditions": [{"type": "Ready", "status": status}],
            "containerStatuses": [{"name": "main", "ready": ready, "restartCount": 2, "image": "local/box:1",
                "state": if ready { running } else { waiting }, "lastState": {"terminated": {"exitCode": 3, "reason": "Error"}}}]},
    })
}

fn list(items: &[Value]) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}, "items": items})
}

fn not_found(name: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
        "message": format!("pods \"{name}\" not found")})
}

#[test]
fn pods_are_one_aligned_table_with_their_reason() {
    let server = Server::new();
    server.on(PODS, 200, list(&[pod("web", 1, true), pod("a-long-name", 2, false)]));
    let said = server.ctl(&["get", "po"]);
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", said.out);
    let at = |word: &str| lines[0].find(word).unwrap_or_else(|| panic!("{word} in {}", lines[0]));
    assert!(lines[0].starts_with("NAME") && lines[0].ends_with("REASON"), "{}", said.out);
    assert_eq!(&lines[1][at("STATUS")..at("STATUS") + 7], "Running");
    assert_eq!(&lines[2][at("STATUS")..at("STATUS") + 16], "CrashLoopBackOff");
    assert_eq!(&lines[2][at("REASON")..], "main: exit code 3; back-off 10s");
    assert!(!said.out.contains('\x1b') && lines.iter().all(|l| l.trim_end() == *l));
    assert!(server.ctl(&["get", "pods", "-o", "wide"]).out.contains("10.88.0.2"));
    assert_eq!(server.ctl(&["get", "pods", "-o", "name"]).out, "pod/web\npod/a-long-name\n");
    assert!(server.ctl(&["get", "pods", "--no-headers"]).out.starts_with("web"));
}

#[test]
fn json_of_several_is_a_list_and_of_one_the_object_itself() {
    let server = Server::new();
    server.on("GET /api/v1/pods?limit=500", 200, list(&[pod("web", 1, true)]));
    server.on("GET /api/v1/namespaces/default/pods/web", 200, pod("web", 1, true));
    let all: Value = serde_json::from_str(&server.ctl(&["get", "pods", "-A", "-o", "json"]).out).unwrap();
    assert_eq!((&all["apiVersion"], &all["kind"]), (&json!("v1"), &json!("List")));
    assert_eq!((&all["items"][0]["apiVersion"], &all["items"][0]["kind"]), (&json!("v1"), &json!("Pod")));
    let one: Value = serde_json::from_str(&server.ctl(&["get", "pod/web", "-o", "json"]).out).unwrap();
    assert_eq!(one["kind"], "Pod");
    assert_eq!(server.ctl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]).out, "10.88.0.2");
    assert_eq!(server.ctl(&["get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.name}"]).out, "web");
    let yaml = server.ctl(&["get", "pod", "web", "-o", "yaml"]).out;
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"), "{yaml}");
}

#[test]
fn a_long_list_comes_in_pages() {
    let server = Server::new();
    let mut first = list(&[pod("a", 1, true)]);
    first["metadata"]["continue"] = "t+/=".into();
    server.on(PODS, 200, first);
    server.on(&format!("{PODS}&continue=t%2B%2F%3D"), 200, list(&[pod("b", 2, true)]));
    assert_eq!(server.ctl(&["get", "pods", "-o", "name"]).out, "pod/a\npod/b\n");
}

#[test]
fn what_is_not_there_is_exit_4_and_an_empty_list_is_not() {
    let server = Server::new();
    server.on(PODS, 200, list(&[]));
    server.on("GET /api/v1/namespaces/default/pods/nobody", 404, not_found("nobody"));
    server.on("GET /api/v1/namespaces/default/pods/web", 200, pod("web", 1, true));
    let said = server.ctl(&["get", "pod", "nobody"]);
    assert_eq!((said.code, said.out.as_str()), (4, ""));
    assert_eq!(said.err, "error: pods \"nobody\" not found\n");
    let both = server.ctl(&["get", "pods", "nobody", "web", "-o", "name"]);
    assert_eq!((both.code, both.out.as_str()), (4, "pod/web\n"), "what there is is shown all the same");
    assert_eq!(server.ctl(&["get", "pod", "nobody", "--ignore-not-found"]).code, 0);
    let empty = server.ctl(&["get", "pods"]);
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert_eq!(empty.err, "No resources found in namespace default.\n");
    assert_eq!(server.ctl(&["--quiet", "get", "pods"]).err, "");
    let unknown = server.ctl(&["get", "podz"]);
    assert!(unknown.code == 1 && unknown.err.contains("did you mean pods?"), "{unknown:?}");
}

#[test]
fn selectors_and_namespaces_are_passed_on() {
    let server = Server::new();
    server.on(
        "GET /api/v1/namespaces/shop/pods?labelSelector=app%20in%20%28a%2Cb%29&fieldSelector=status.phase%3DRunning&limit=500",
        200,
        list(&[pod("web", 1, true)]),
    );
    let args =
        ["get", "pods", "-n", "shop", "-l", "app in (a,b)", "--field-selector", "status.phase=Running", "-o", "name"];
    assert_eq!(server.ctl(&args).out, "pod/web\n");
}

#[test]
fn errors_of_the_daemon_have_their_codes() {
    for (code, exit) in [(400, 1), (403, 6), (409, 5), (422, 1), (500, 1), (503, 1), (504, 124)] {
        let server = Server::new();
        server.on(PODS, code, json!({"kind": "Status", "code": code, "message": "no and why"}));
        let said = server.ctl(&["get", "pods"]);
        assert_eq!(said.code, exit, "{code}");
        assert!(said.err.starts_with("error: no and why\n"), "{}", said.err);
    }
    let said: crate::server::Said =
        program().args(["--socket", "/nonexistent/x", "get", "pods"]).output().unwrap().into();
    assert_eq!(said.code, 7);
    assert!(said.err.contains("/nonexistent/x") && said.err.contains("systemctl start reddwarfd"), "{}", said.err);
    let server = Server::new();
    server.on_text(PODS, 200, "<html>");
    let said = server.ctl(&["get", "pods"]);
    assert!(said.code == 1 && said.err.contains("can't be read"), "{}", said.err);
}

#[test]
fn a_bad_command_line_is_1_and_not_2() {
    for args in [&["stauts"][..], &["get"], &["get", "pods", "-o", "xml"], &["plan", "--what"], &[]] {
        let said: crate::server::Said = program().args(args).output().unwrap().into();
        assert_eq!(said.code, 1, "{args:?}");
        assert!(said.err.contains("Usage") || said.err.contains("error"), "{args:?}: {}", said.err);
    }
    let help: crate::server::Said = program().arg("--help").output().unwrap().into();
    assert!(help.code == 0 && help.out.contains("Exit codes:"), "{}", help.out);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let server = Server::new();
    let pods: Vec<Value> = (0..3000).map(|n| pod(&format!("pod-{n}"), n, false)).collect();
    server.on(PODS, 200, list(&pods));
    let mut child = server
        .command(&["get", "pods", "-o", "yaml"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let said: crate::server::Said = child.wait_with_output().unwrap().into();
    assert_eq!((said.code, said.err.as_str()), (0, ""));
}

#[test]
fn describe_shows_events_and_hides_secrets() {
    let server = Server::new();
    server.on("GET /api/v1/namespaces/default/pods/web", 200, pod("web", 1, false));
    server.on(
        "GET /api/v1/namespaces/default/events?fieldSelector=involvedObject.kind%3DPod%2CinvolvedObject.name%3Dweb&limit=500",
        200,
        json!({"items": [{"type": "Warning", "reason": "BackOff", "message": "it fails", "count": 4,
            "lastTimestamp": "2026-01-01T00:00:00Z", "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"}}]}),
    );
    let said = server.ctl(&["describe", "pod", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.contains("main: exit code 3") && said.out.contains("BackOff") && said.out.contains("(x4)"),
        "{}",
        said.out
    );
    server.on(
        "GET /api/v1/namespaces/default/secrets/key",
        200,
        json!({"metadata": {"name": "key", "namespace": "default"}, "data": {"word": "aHVzaA=="}}),
    );
    let said = server.ctl(&["describe", "secret", "key"]);
    assert!(said.out.contains("word: \"4 bytes\"") && !said.out.contains("aHVzaA"), "{}", said.out);
}

#[test]
fn delete_waits_until_gone_and_names_the_owner() {
    let server = Server::new();
    let one = "fieldSelector=metadata.name%3Dweb";
    server.on("DELETE /api/v1/namespaces/default/pods/web", 200, pod("web", 3, true));
    server.on(&format!("GET /api/v1/namespaces/default/pods?{one}&limit=500"), 200, list(&[pod("web", 3, true)]));
    let gone = json!({"type": "DELETED", "object": pod("web", 4, true)}).to_string() + "\n";
    server.on_text(&format!("GET /api/v1/namespaces/default/pods?watch=true&{one}&resourceVersion=9"), 200, &gone);
    let said = server.ctl(&["delete", "pod", "web", "--grace-period", "1"]);
    assert_eq!((said.code, said.out.as_str()), (0, "pod/web deleted\n"), "{said:?}");
    assert_eq!(server.body("DELETE /api/v1/namespaces/default/pods/web")["gracePeriodSeconds"], 1);
    server.on(
        "DELETE /api/v1/namespaces/default/configmaps/c",
        409,
        json!({"code": 409, "reason": "Conflict", "message": "it is declared by /etc/reddwarf.d/c.yaml"}),
    );
    let said = server.ctl(&["delete", "cm/c"]);
    assert!(said.code == 5 && said.err.contains("/etc/reddwarf.d/c.yaml"), "{said:?}");
    assert_eq!(server.ctl(&["delete", "pods"]).code, 1, "no name, no --all: nothing is deleted");
}

#[test]
fn wait_ends_when_the_condition_holds_times_out_or_finds_it_gone() {
    let server = Server::new();
    let at = |name: &str| format!("GET /api/v1/namespaces/default/pods?fieldSelector=metadata.name%3D{name}&limit=500");
    let watch = |name: &str| {
        format!("GET /api/v1/namespaces/default/pods?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion=9")
    };
    server.on(&at("web"), 200, list(&[pod("web", 1, false)]));
    let events =
        [json!({"type": "BOOKMARK", "object": {}}), json!({"type": "MODIFIED", "object": pod("web", 10, true)})];
    server.on_text(&watch("web"), 200, &events.iter().map(|e| format!("{e}\n")).collect::<String>());
    let said = server.ctl(&["wait", "pod/web", "--for=condition=Ready", "--timeout=20s"]);
    assert_eq!((said.code, said.out.as_str()), (0, "pod/web condition met\n"), "{said:?}");

    server.on(&at("gone"), 200, list(&[]));
    server.on_text(&watch("gone"), 200, "");
    let said = server.ctl(&["wait", "pod/gone", "--for=delete", "--timeout=5s"]);
    assert_eq!((said.code, said.out.as_str()), (0, "pod/gone deleted\n"));
    let said = server.ctl(&["wait", "pod/gone", "--for=condition=Ready", "--timeout=300ms"]);
    assert_eq!(said.code, 124);
    assert!(said.err.contains("it does not exist"), "{}", said.err);
    server.on(&at("bad"), 200, list(&[pod("bad", 1, false)]));
    server.on_text(&watch("bad"), 200, "");
    let said = server.ctl(&["wait", "pod/bad", "--timeout=0"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("exit code 3"), "{}", said.err);
}

#[test]
fn a_watch_shows_what_is_there_and_what_changes() {
    let server = Server::new();
    server.on(PODS, 200, list(&[pod("web", 1, false)]));
    // The second list, after the watch has ended, refuses: the program ends.
    server.on(PODS, 500, json!({"message": "the end"}));
    let event = json!({"type": "MODIFIED", "object": pod("web", 10, true)}).to_string() + "\n";
    server.on_text("GET /api/v1/namespaces/default/pods?watch=true&resourceVersion=9", 200, &event);
    let said = server.ctl(&["get", "pods", "-w"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{said:?}");
    assert!(lines[1].contains("CrashLoopBackOff") && lines[2].contains("Running"), "{}", said.out);
}

#[test]
fn events_are_in_order_of_time() {
    let server = Server::new();
    let event = |name: &str, time: &str| {
        json!({"type": "Normal", "reason": "Started", "message": "so", "lastTimestamp": time,
            "involvedObject": {"kind": "Pod", "name": name, "namespace": "default"}})
    };
    let items = [event("b", "2026-01-02T00:00:00Z"), event("a", "2026-01-01T00:00:00Z")];
    server.on("GET /api/v1/events?limit=500", 200, list(&items));
    let said = server.ctl(&["events"]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(
        lines[0].starts_with("LAST SEEN") && lines[1].contains("pod/a") && lines[2].contains("pod/b"),
        "{}",
        said.out
    );
}
