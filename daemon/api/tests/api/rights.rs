//! What users may do: roles, reviews, impersonation; 403 as the reference words it.

use crate::*;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

/// A world with the roles that are there from the start, and a user of each kind.
struct Rights {
    world: World,
}

impl Rights {
    async fn new() -> Self {
        let world = World::new().await;
        world.access.bootstrap().await.unwrap();
        world.namespace("a").await;
        world.namespace("b").await;
        Self { world }
    }

    /// A request as somebody else: the admin at the socket may be anybody.
    async fn ask(&self, user: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let headers = [("impersonate-user", user), ("content-type", kind)];
        let (code, _, body) = finish(self.world.send(method, path, &headers, &body.to_string()).await).await;
        (code, body)
    }

    async fn code(&self, user: &str, method: &str, path: &str, body: Value) -> u16 {
        self.ask(user, method, path, body).await.0
    }

    async fn bind(&self, namespace: &str, role: (&str, &str), user: &str) {
        let name = format!("{user}-{}", role.1).replace(':', "-");
        let subject = match user.split(':').collect::<Vec<_>>().as_slice() {
            ["system", "serviceaccount", namespace, name] => {
                json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
            }
            _ => json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}),
        };
        let binding = json!({"metadata": {"name": name}, "subjects": [subject],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1}});
        let path = match namespace {
            "" => format!("{RBAC}/clusterrolebindings"),
            namespace => format!("{RBAC}/namespaces/{namespace}/rolebindings"),
        };
        let (code, body) = self.world.post(&path, binding).await;
        assert_eq!(code, 201, "{body}");
    }
}

fn maps(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps")
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

#[tokio::test]
async fn c37_roles_open_what_they_say_at_once_and_bindings_end_at_their_namespace() {
    let rights = Rights::new().await;
    assert_eq!(rights.code("alice", "GET", &maps("a"), json!({})).await, 403);
    rights.bind("a", ("ClusterRole", "edit"), "alice").await;
    rights.bind("", ("ClusterRole", "view"), "vera").await;
    rights.bind("", ("ClusterRole", "cluster-admin"), "system:serviceaccount:a:boss").await;
    for (user, method, path, code) in [
        ("alice", "GET", maps("a"), 200),
        ("alice", "POST", maps("a"), 201),
        ("alice", "GET", maps("b"), 403),
        ("alice", "GET", "/api/v1/configmaps".into(), 403),
        ("alice", "GET", "/api/v1/namespaces/a/secrets".into(), 200),
        ("alice", "POST", format!("{RBAC}/namespaces/a/roles"), 403),
        ("alice", "DELETE", "/api/v1/namespaces/a".into(), 403),
        ("vera", "GET", maps("b"), 200),
        ("vera", "POST", maps("b"), 403),
        ("vera", "GET", "/api/v1/namespaces/a/secrets".into(), 403),
        ("vera", "GET", "/api/v1/namespaces/b/pods/x/exec?command=sh".into(), 403),
        ("vera", "GET", "/apis".into(), 200),
        ("vera", "GET", "/metrics".into(), 403),
        ("system:serviceaccount:a:boss", "GET", "/metrics".into(), 200),
        ("system:serviceaccount:a:boss", "GET", "/api/v1/secrets".into(), 200),
        ("system:serviceaccount:b:boss", "GET", "/api/v1/secrets".into(), 403),
        ("system:anonymous", "GET", "/version".into(), 200),
        ("system:anonymous", "GET", "/apis".into(), 403),
    ] {
        let (got, body) = rights.ask(user, method, &path, named("x")).await;
        assert_eq!(got, code, "{user} {method} {path}: {body}");
    }
    // Taken away, it is over with the next request.
    let at = format!("{RBAC}/namespaces/a/rolebindings/alice-edit");
    assert_eq!(rights.world.ask("DELETE", &at, "").await.0, 200);
    assert_eq!(rights.code("alice", "GET", &maps("a"), json!({})).await, 403);
    // Other roles add to the three that are sums.
    let mut role = named("widgets");
    role["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    role["rules"] = json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}]);
    assert_eq!(rights.world.post(&format!("{RBAC}/clusterroles"), role).await.0, 201);
    assert_eq!(rights.code("vera", "GET", "/metrics", json!({})).await, 200);
}

#[tokio::test]
async fn a_write_that_creates_needs_the_right_to_create() {
    let rights = Rights::new().await;
    let role = json!({"metadata": {"name": "patcher"},
        "rules": [{"verbs": ["patch", "update", "get"], "apiGroups": ["*"], "resources": ["*"]}]});
    assert_eq!(rights.world.post(&format!("{RBAC}/clusterroles"), role).await.0, 201);
    rights.bind("", ("ClusterRole", "patcher"), "pat").await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/a/leases";
    let (code, body) = rights.ask("pat", "PUT", &format!("{leases}/l"), named("l")).await;
    assert_eq!(code, 403, "{body}");
    assert!(body["message"].as_str().unwrap().contains("cannot create resource \"leases\""), "{body}");
    assert_eq!(rights.world.post(leases, named("l")).await.0, 201);
    assert_eq!(
        rights.code("pat", "PATCH", &format!("{leases}/l"), json!({"metadata": {"labels": {"a": "b"}}})).await,
        200
    );
}

#[tokio::test]
async fn nobody_gives_what_they_do_not_have() {
    let rights = Rights::new().await;
    rights.bind("a", ("ClusterRole", "admin"), "ada").await;
    let roles = format!("{RBAC}/namespaces/a/roles");
    let role = |name: &str, verb: &str, resource: &str| json!({"metadata": {"name": name}, "rules": [{"verbs": [verb], "apiGroups": [""], "resources": [resource]}]});
    assert_eq!(rights.code("ada", "POST", &roles, role("r", "get", "pods")).await, 201);
    let (code, body) = rights.ask("ada", "POST", &roles, role("w", "get", "nodes")).await;
    assert_eq!(code, 403);
    assert_eq!(
        body["message"],
        "roles.rbac.authorization.k8s.io \"w\" is forbidden: user \"ada\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    assert_eq!(rights.code("ada", "PUT", &format!("{roles}/r"), role("r", "*", "pods")).await, 403);
    let bindings = format!("{RBAC}/namespaces/a/rolebindings");
    let binding = |name: &str, role: &str| {
        json!({"metadata": {"name": name}, "subjects": [{"kind": "User", "name": "x", "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
    };
    assert_eq!(rights.code("ada", "POST", &bindings, binding("v", "view")).await, 201);
    assert_eq!(rights.code("ada", "POST", &bindings, binding("c", "cluster-admin")).await, 403);
    assert_eq!(rights.code("ada", "POST", &bindings, binding("n", "nope")).await, 404);
    // The host is not a namespace's admin's.
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"hostPID": true, "containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/a/pods";
    let (code, body) = rights.ask("ada", "POST", pods, pod.clone()).await;
    assert_eq!(code, 403, "{body}");
    assert!(body["message"].as_str().unwrap().contains("violates PodSecurity"), "{body}");
    rights.bind("a", ("ClusterRole", "cluster-admin"), "zoe").await;
    assert_eq!(rights.code("zoe", "POST", pods, pod).await, 201, "who has everything there has that too");
}

#[tokio::test]
async fn c36_reviews_answer_who_and_what() {
    let rights = Rights::new().await;
    rights.bind("a", ("ClusterRole", "view"), "vera").await;
    let me = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let (code, body) = rights.ask("vera", "POST", me, json!({})).await;
    assert_eq!(code, 201, "{body}");
    assert_eq!(body["status"], json!({"userInfo": {"username": "vera", "groups": ["system:authenticated"]}}));
    assert_eq!(body["kind"], "SelfSubjectReview");
    let may = async |user: &str, spec: Value| {
        let (code, body) =
            rights.ask(user, "POST", &format!("{REVIEWS}/selfsubjectaccessreviews"), json!({"spec": spec})).await;
        assert_eq!(code, 201, "{body}");
        body["status"].clone()
    };
    let pods = |verb: &str, namespace: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": namespace}});
    let allowed = json!({"allowed": true,
        "reason": "RBAC: allowed by RoleBinding \"vera-view/a\" of ClusterRole \"view\" to User \"vera\""});
    assert_eq!(may("vera", pods("get", "a")).await, allowed);
    assert_eq!(may("vera", pods("delete", "a")).await, json!({"allowed": false}));
    assert_eq!(may("vera", pods("get", "b")).await, json!({"allowed": false}));
    let (code, body) =
        rights.world.post(&format!("{REVIEWS}/selfsubjectaccessreviews"), json!({"spec": pods("get", "a")})).await;
    assert_eq!((code, body["status"].clone()), (201, json!({"allowed": true})), "as recorded");
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
    assert_eq!(may("vera", path).await["allowed"], false);
    for bad in [json!({}), json!({"resourceAttributes": {}, "nonResourceAttributes": {}})] {
        let (code, body) =
            rights.ask("vera", "POST", &format!("{REVIEWS}/selfsubjectaccessreviews"), json!({"spec": bad})).await;
        assert_eq!((code, body["reason"].clone()), (422, json!("Invalid")), "{body}");
    }
    // Of others.
    let of = |user: &str| {
        let mut spec = pods("list", "a");
        spec["user"] = json!(user);
        json!({"spec": spec})
    };
    let sar = format!("{REVIEWS}/subjectaccessreviews");
    assert_eq!(rights.world.post(&sar, of("vera")).await.1["status"]["allowed"], true);
    assert_eq!(rights.world.post(&sar, of("eve")).await.1["status"]["allowed"], false);
    assert_eq!(rights.world.post(&sar, of("")).await.0, 422);
    assert_eq!(rights.code("vera", "POST", &sar, of("eve")).await, 403);
    let local = |namespace: &str| format!("{REVIEWS}/namespaces/{namespace}/localsubjectaccessreviews");
    assert_eq!(rights.world.post(&local("a"), of("vera")).await.1["status"]["allowed"], true);
    assert_eq!(rights.world.post(&local("b"), of("vera")).await.0, 422, "another namespace than the path's");
    let rules = format!("{REVIEWS}/selfsubjectrulesreviews");
    let (code, body) = rights.ask("vera", "POST", &rules, json!({"spec": {"namespace": "a"}})).await;
    assert_eq!(code, 201);
    let listed = body["status"]["resourceRules"].as_array().unwrap();
    let secrets = listed.iter().any(|rule| rule["resources"].to_string().contains("secrets"));
    let viewed = listed.iter().any(|rule| rule["resources"].to_string().contains("\"pods\""));
    assert!(viewed && !secrets && body["status"]["incomplete"] == false, "{body}");
    assert_eq!(rights.code("vera", "POST", &rules, json!({"spec": {}})).await, 400);
    assert_eq!(rights.code("vera", "GET", &sar, json!({})).await, 403);
    assert_eq!(rights.world.ask("GET", &sar, "").await.0, 405);
}

#[tokio::test]
async fn impersonation_is_a_right_of_its_own() {
    let rights = Rights::new().await;
    rights.bind("a", ("ClusterRole", "edit"), "alice").await;
    // Of users, groups and extras; `edit` has it for service accounts of its namespace.
    let token = rights.world.post("/reddwarf/v1/tokens", json!({"user": "alice"})).await.1["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let bearer = format!("Bearer {token}");
    let as_user = async |user: &str| {
        let headers = [("authorization", bearer.as_str()), ("impersonate-user", user)];
        let (code, _, body) = finish(rights.world.send("GET", &maps("a"), &headers, "").await).await;
        (code, body)
    };
    let (code, body) = as_user("root").await;
    assert_eq!(code, 403);
    // Recorded text, with other names (kubectl-1.36.txt).
    assert_eq!(
        body["message"],
        "users \"root\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    assert_eq!(body["details"], json!({"name": "root", "kind": "users"}));
    assert_eq!(as_user("system:serviceaccount:b:bot").await.0, 403);
    let (code, body) = as_user("system:serviceaccount:a:bot").await;
    assert_eq!(code, 403);
    assert!(body["message"].as_str().unwrap().contains("User \"system:serviceaccount:a:bot\" cannot list"), "{body}");
}

#[tokio::test]
async fn e14_what_changes_something_leaves_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log/audit.log");
    let path = log.clone();
    let audit = reddwarf_api::AuditSettings { path, bytes: 1 << 20, files: 1 };
    let world = World::with_access(|_| {}, |access| access.audit = Some(audit)).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"metadata": {"generateName": "s-"}, "stringData": {"password": "hunter2hunter2"}});
    let (_, made) = world.post(secrets, secret).await;
    world.get(secrets).await;
    world.post(&format!("{REVIEWS}/selfsubjectaccessreviews"), json!({"spec": {}})).await;
    let headers = [("impersonate-user", "eve"), ("user-agent", "spy/1"), ("content-type", "application/json")];
    finish(world.send("DELETE", &format!("{secrets}/x"), &headers, "").await).await;
    world.send("GET", "/api/v1/namespaces/default/pods/p/exec?command=sh", &[], "").await;
    finish(world.send("POST", secrets, &[("authorization", "Bearer nope")], "{}").await).await;
    let token =
        world.post("/reddwarf/v1/tokens", json!({"user": "alice"})).await.1["token"].as_str().unwrap().to_owned();
    let lines: Vec<Value> = soon(async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.lines().count() >= 5 {
                assert!(!text.contains("hunter2") && !text.contains(&token), "secrets are in no line");
                return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let seen: Vec<(&str, u64, &str, &str)> = lines
        .iter()
        .map(|l| {
            let text = |pointer: &str| l.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let decision = text("/annotations/authorization.k8s.io~1decision");
            (text("/verb"), l["responseStatus"]["code"].as_u64().unwrap(), decision, text("/objectRef/resource"))
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("create", 201, "allow", "secrets"),
            ("delete", 403, "forbid", "secrets"),
            ("create", 404, "allow", "pods"),
            ("post", 401, "forbid", ""),
            ("post", 200, "allow", ""),
        ]
    );
    assert_eq!(lines[0]["objectRef"]["name"], made["metadata"]["name"], "the name that it was given");
    assert_eq!(lines[0]["user"]["groups"][0], "system:masters");
    assert_eq!(
        (lines[1]["impersonatedUser"]["username"].clone(), lines[1]["userAgent"].clone()),
        (json!("eve"), json!("spy/1"))
    );
    assert_eq!(lines[1]["user"]["username"], lines[0]["user"]["username"]);
    assert_eq!(lines[2]["objectRef"]["subresource"], "exec");
}

#[tokio::test]
async fn who_asks_for_a_certificate_is_the_servers_word_and_what_was_asked_for_stays() {
    const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let rights = Rights::new().await;
    let rule =
        json!({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["*"]});
    rights
        .world
        .post("/apis/rbac.authorization.k8s.io/v1/clusterroles", json!({"metadata": {"name": "csr"}, "rules": [rule]}))
        .await;
    rights.bind("", ("ClusterRole", "csr"), "alice").await;
    let request = |name: &str| {
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"request": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISE1HNENBUUF3RERFS01BZ0dBMVVFQXd3QllUQlpNQk1HQnlxR1NNNDlBZ0VHQ0NxR1NNNDlBd0VIQTBJQQpCQzhEK1YxdFVUWE9QYzloUjRPVkVEWmlQYTErcDY3RWZ6MEVWb3YrcFp3QzFKUVF5cW51a2x5TUtqSFgzeHozCnk2Q3JBMzRVZDIxbkRRYVd0ekc4Wk82Z0FEQUtCZ2dxaGtqT1BRUURBZ05KQURCR0FpRUF4Tk5VRVlKVGRaZHYKNm50dVd2blAvek1qdWRUU05Xb2hKZXRYdUg5VTJzZ0NJUURlK0p6cWxuSG9xNnJZdkE0YnoydTV2UGtwb1pVVgpBTkVVaXlHRVNmUWVNQT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=",
                "signerName": "example.com/s", "usages": ["client auth"], "username": "system:admin", "uid": "1",
                "groups": ["system:masters"], "extra": {"a": ["b"]}}})
    };
    let (code, made) = rights.ask("alice", "POST", REQUESTS, request("a")).await;
    assert_eq!(code, 201, "{made}");
    let headers = [("impersonate-user", "alice"), ("content-type", "application/apply-patch+yaml")];
    let path = format!("{REQUESTS}/b?fieldManager=m");
    let (code, _, applied) = finish(rights.world.send("PATCH", &path, &headers, request("b").to_string()).await).await;
    assert_eq!(code, 201, "{applied}");
    let files = json!({"files": [{"name": "c.json", "text": request("c").to_string()}]});
    for verdict in ["created", "unchanged"] {
        let (code, _, report) = rights.world.ask("POST", "/reddwarf/v1/apply", &files.to_string()).await;
        assert_eq!((code, &report["objects"][0]["verdict"]), (200, &json!(verdict)), "{report}");
    }
    for (name, who) in [("a", Some("alice")), ("b", Some("alice")), ("c", None)] {
        let (_, object) = rights.world.get(&format!("{REQUESTS}/{name}")).await;
        let spec = &object["spec"];
        assert_ne!(spec["username"], "system:admin", "{spec}");
        assert!(spec.get("uid").is_none_or(|uid| uid != "1") && spec.get("extra").is_none(), "{spec}");
        if let Some(who) = who {
            assert_eq!((&spec["username"], &spec["groups"]), (&json!(who), &json!(["system:authenticated"])));
        }
    }
    let change = json!({"spec": {"username": "system:admin", "request": "eA==", "groups": ["system:masters"]}});
    rights.world.ask("PATCH", &format!("{REQUESTS}/a"), &change.to_string()).await;
    assert_eq!(rights.world.get(&format!("{REQUESTS}/a")).await.1["spec"], made["spec"]);
}

/// Warnings for who writes, annotations for who reads the log, 403 for pods: as the labels of the namespace say.
#[tokio::test]
async fn e11_levels_of_a_namespace_refuse_warn_and_note() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log/audit.log");
    let path = log.clone();
    let audit = reddwarf_api::AuditSettings { path, bytes: 1 << 20, files: 1 };
    let world = World::with_access(|_| {}, |access| access.audit = Some(audit)).await;
    let labels = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), json!(value)));
        json!({"metadata": {"name": "t", "labels": Value::Object(labels.collect())}})
    };
    let (code, body) = world.post("/api/v1/namespaces", labels(&[("enforce", "foo")])).await;
    assert_eq!(code, 422, "{body}");
    let wrong = "Invalid value: \"foo\": must be one of privileged, baseline, restricted";
    let field = "metadata.labels[pod-security.kubernetes.io/enforce]";
    assert_eq!(body["message"], format!("Namespace \"t\" is invalid: {field}: {wrong}"));
    assert_eq!(
        body["details"],
        json!({"name": "t", "kind": "Namespace",
            "causes": [{"reason": "FieldValueInvalid", "message": wrong, "field": field}]})
    );
    let all = labels(&[("enforce", "baseline"), ("audit", "restricted"), ("warn", "restricted")]);
    assert_eq!(world.post("/api/v1/namespaces", all).await.0, 201);

    let ask = async |path: &str, body: Value| world.ask("POST", path, &body.to_string()).await;
    let pods = "/api/v1/namespaces/t/pods";
    let pod = |name: &str, context: Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": context}]}});
    let (code, _, body) = ask(pods, pod("bad", json!({"privileged": true}))).await;
    assert_eq!(code, 403, "{body}");
    assert_eq!(
        body["message"],
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": privileged (container \"c\" must not set securityContext.privileged=true)"
    );
    assert_eq!(body["details"], json!({"name": "bad", "kind": "pods"}));
    let beyond = "would violate PodSecurity \"restricted:latest\": runAsNonRoot != true (pod or container \"c\" must set \
        securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
        securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    let header = format!("299 - \"{}\"", beyond.replace('"', "\\\""));
    let context = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let told = |headers: &hyper::HeaderMap| {
        headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (code, headers, body) = ask(pods, pod("fair", context.clone())).await;
    assert_eq!((code, told(&headers)), (201, vec![header.clone()]), "{body}");
    let job = json!({"metadata": {"name": "job"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i", "securityContext": context}]}}}});
    let (code, headers, body) = ask("/apis/batch/v1/namespaces/t/jobs", job).await;
    assert_eq!((code, told(&headers)), (201, vec![header]), "{body}");
    let mut declared = pod("declared", context);
    declared["apiVersion"] = json!("v1");
    declared["kind"] = json!("Pod");
    declared["metadata"]["namespace"] = json!("t");
    let files = json!({"files": [{"name": "pod.json", "text": declared.to_string()}]});
    let (code, _, report) = ask("/reddwarf/v1/apply", files).await;
    assert_eq!((code, &report["objects"][0]["verdict"]), (200, &json!("created")), "{report}");

    let notes: Vec<Value> = soon(async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.lines().count() >= 6 {
                return text
                    .lines()
                    .map(|line| serde_json::from_str::<Value>(line).unwrap()["annotations"].clone())
                    .collect();
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let (enforced, violations) =
        ("pod-security.kubernetes.io/enforce-policy", "pod-security.kubernetes.io/audit-violations");
    assert_eq!(notes[1].get(enforced), None, "a namespace has none");
    assert_eq!(notes[2][enforced], "baseline:latest", "of what is refused, too");
    assert!(notes[2][violations].as_str().unwrap().contains("\"restricted:latest\": privileged"), "{}", notes[2]);
    assert_eq!((notes[3][enforced].clone(), notes[3][violations].clone()), (json!("baseline:latest"), json!(beyond)));
    assert_eq!((notes[4].get(enforced), notes[4][violations].clone()), (None, json!(beyond)));
    for kept in [enforced, violations] {
        assert_eq!(notes[5][kept], notes[3][kept], "of what is applied as files, too");
    }
}
