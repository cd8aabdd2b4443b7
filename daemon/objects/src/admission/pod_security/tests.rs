use super::checks::CHECKS;
use super::*;
use crate::kinds;
use crate::patch::merge_patch;
use serde_json::{Value, json};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn kind_of(object: &Object) -> &'static Kind {
    object.known_kind().unwrap()
}

/// A pod that *restricted* takes, changed by a merge patch of its container `a` and one of the rest.
fn pod(container: Value, rest: Value) -> Object {
    let mut a = json!({"name": "a", "image": "i", "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    merge_patch(&mut a, &container);
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "t"}, "spec": {
        "containers": [a], "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}});
    merge_patch(&mut pod, &rest);
    object(pod)
}

/// Changes of the container's securityContext alone.
fn context(context: Value) -> Object {
    pod(json!({"securityContext": context}), json!({}))
}

/// Changes of the pod's spec alone.
fn spec(spec: Value) -> Object {
    pod(json!({}), json!({"spec": spec}))
}

fn found(level: Level, version: Version, pod: &Object) -> String {
    let template = Template::of(kind_of(pod), pod).unwrap();
    let texts: Vec<String> = violations(Profile { level, version }, template).iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// For every check and level a pod that fails and one that passes, with what is said of the former.
#[test]
fn e11_every_check_has_its_verdict_and_its_words() {
    use Level::{Baseline, Restricted};
    let guest = json!([{"name": "e", "image": "i"}]);
    let cases: Vec<(Level, Object, &str, Object)> = vec![
        (
            Baseline,
            context(json!({"appArmorProfile": {"type": "Unconfined"}})),
            r#"forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")"#,
            context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}})),
        ),
        (
            Baseline,
            pod(
                json!({}),
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}},
                    "spec": {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}}),
            ),
            r#"forbidden AppArmor profiles (pod and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
            pod(
                json!({}),
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "localhost/x"}}}),
            ),
        ),
        (
            Baseline,
            context(json!({"capabilities": {"add": ["SYS_ADMIN", "NET_RAW", "CHOWN"]}})),
            r#"non-default capabilities (container "a" must not include "NET_RAW", "SYS_ADMIN" in securityContext.capabilities.add)"#,
            context(json!({"capabilities": {"add": ["CHOWN"]}})),
        ),
        (
            Baseline,
            spec(json!({"hostPID": true, "hostNetwork": true, "hostIPC": true})),
            "host namespaces (hostIPC, hostNetwork, hostPID)",
            spec(json!({"hostPID": false})),
        ),
        (
            Baseline,
            spec(
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {"path": "/"}}]}),
            ),
            r#"hostPath volumes (volumes "v", "w")"#,
            spec(json!({"volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}]})),
        ),
        (
            Baseline,
            pod(json!({"ports": [{"hostPort": 80}, {"hostPort": 443}]}), json!({})),
            r#"hostPort (container "a" uses hostPorts 443, 80)"#,
            pod(json!({"ports": [{"containerPort": 80, "hostPort": 0}]}), json!({})),
        ),
        (
            Baseline,
            pod(
                json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 1}},
                    "lifecycle": {"preStop": {"tcpSocket": {"host": "b", "port": 1}}}}),
                json!({}),
            ),
            r#"probe or lifecycle host (container "a" uses probe or lifecycle hosts "10.0.0.1", "b")"#,
            pod(json!({"livenessProbe": {"httpGet": {"port": 1}}}), json!({})),
        ),
        (
            Baseline,
            pod(
                json!({"securityContext": {"privileged": true}}),
                json!({"spec": {"initContainers": [{"name": "z", "securityContext": {"privileged": true}}]}}),
            ),
            r#"privileged (containers "z", "a" must not set securityContext.privileged=true)"#,
            context(json!({"privileged": false})),
        ),
        (
            Baseline,
            context(json!({"procMount": "Unmasked"})),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
            pod(json!({"securityContext": {"procMount": "Unmasked"}}), json!({"spec": {"hostUsers": false}})),
        ),
        (
            Baseline,
            pod(
                json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "role": "r"}}}),
                json!({"spec": {"securityContext": {"seLinuxOptions": {"user": "u"}}}}),
            ),
            r#"seLinuxOptions (pod and container "a" set forbidden securityContext.seLinuxOptions: type "spc_t"; user may not be set; role may not be set)"#,
            context(json!({"seLinuxOptions": {"type": "container_engine_t", "level": "s0"}})),
        ),
        (
            Baseline,
            pod(
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                json!({"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}),
            ),
            r#"seccompProfile (pod and container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#,
            spec(json!({"securityContext": {"seccompProfile": null}})),
        ),
        (
            Baseline,
            spec(
                json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]}}),
            ),
            "forbidden sysctls (kernel.msgmax)",
            spec(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_wmem", "value": "1"}]}})),
        ),
        (
            Baseline,
            spec(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            context(json!({"windowsOptions": {"hostProcess": false}})),
        ),
        (
            Restricted,
            context(json!({"allowPrivilegeEscalation": null})),
            r#"allowPrivilegeEscalation != false (container "a" must set securityContext.allowPrivilegeEscalation=false)"#,
            pod(
                json!({"securityContext": {"allowPrivilegeEscalation": null}}),
                json!({"spec": {"os": {"name": "windows"}}}),
            ),
        ),
        (
            Restricted,
            context(json!({"capabilities": {"drop": ["KILL"], "add": ["CHOWN"]}})),
            r#"unrestricted capabilities (container "a" must set securityContext.capabilities.drop=["ALL"]; container "a" must not include "CHOWN" in securityContext.capabilities.add)"#,
            context(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}})),
        ),
        (
            Restricted,
            pod(json!({"securityContext": {"procMount": "Unmasked"}}), json!({"spec": {"hostUsers": false}})),
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
            context(json!({"procMount": "Default"})),
        ),
        (
            Restricted,
            spec(
                json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {}}, {"name": "x"}]}),
            ),
            r#"restricted volume types (volumes "h", "n", "x" use restricted volume types "hostPath", "nfs", "unknown")"#,
            spec(json!({"volumes": [{"name": "e", "emptyDir": {}}, {"name": "p", "projected": {}}]})),
        ),
        (
            Restricted,
            spec(json!({"securityContext": {"runAsNonRoot": null}})),
            r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#,
            spec(json!({"securityContext": {"runAsNonRoot": null}, "hostUsers": false})),
        ),
        (
            Restricted,
            context(json!({"runAsNonRoot": false})),
            r#"runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)"#,
            pod(
                json!({"securityContext": {"runAsNonRoot": true}}),
                json!({"spec": {"securityContext": {"runAsNonRoot": null}}}),
            ),
        ),
        (
            Restricted,
            context(json!({"runAsUser": 0})),
            r#"runAsUser=0 (container "a" must not set runAsUser=0)"#,
            context(json!({"runAsUser": 1})),
        ),
        (
            Restricted,
            spec(json!({"securityContext": {"seccompProfile": null}})),
            r#"seccompProfile (pod or container "a" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
            pod(
                json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
                json!({"spec": {"securityContext": {"seccompProfile": null}}}),
            ),
        ),
        (
            Restricted,
            spec(json!({"ephemeralContainers": guest})),
            r#"allowPrivilegeEscalation != false (container "e" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "e" must set securityContext.capabilities.drop=["ALL"])"#,
            spec(json!({})),
        ),
    ];
    for (level, bad, said, good) in cases {
        assert_eq!(found(level, Version::Latest, &bad), said);
        assert_eq!(found(level, Version::Latest, &good), "", "{}", good.to_json());
        assert_eq!(found(Level::Privileged, Version::Latest, &bad), "");
        if level == Baseline {
            assert_ne!(found(Restricted, Version::Latest, &bad), "", "what baseline forbids, restricted does: {said}");
        }
    }
}

#[test]
fn checks_are_those_of_their_version() {
    use Level::{Baseline, Restricted};
    let old = Version::Minor;
    let types = spec(json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}}));
    assert!(found(Baseline, old(30), &types).contains("container_engine_t"));
    assert_eq!(found(Baseline, old(31), &types), "");
    let sysctl = spec(json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}));
    assert_eq!(found(Baseline, old(31), &sysctl), "forbidden sysctls (net.ipv4.tcp_rmem)");
    assert_eq!(found(Baseline, old(32), &sysctl), "");
    let probe = pod(json!({"startupProbe": {"tcpSocket": {"host": "h"}}}), json!({}));
    assert_eq!(found(Baseline, old(33), &probe), "");
    assert_ne!(found(Baseline, old(34), &probe), "");
    let own = pod(json!({"securityContext": {"procMount": "Unmasked"}}), json!({"spec": {"hostUsers": false}}));
    assert_ne!(found(Baseline, old(34), &own), "");
    assert_eq!(found(Baseline, old(99), &own), "", "a version to come has what we know");
    let bare = pod(json!({"securityContext": null}), json!({"spec": {"securityContext": null}}));
    assert_eq!(
        found(Restricted, old(0), &bare),
        r#"runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)"#
    );
    let filter = "container.seccomp.security.alpha.kubernetes.io/a";
    let annotated = pod(json!({}), json!({"metadata": {"annotations": {filter: "unconfined"}}}));
    assert_eq!(
        found(Baseline, old(18), &annotated),
        format!("seccompProfile (forbidden annotation {filter}=\"unconfined\")")
    );
    assert_eq!(found(Baseline, old(19), &annotated), "");
}

#[test]
fn the_table_is_in_the_order_in_which_findings_are_told() {
    assert!(CHECKS.windows(2).all(|two| (two[0].level, two[0].name) < (two[1].level, two[1].name)));
    for check in CHECKS.iter().filter(|check| !check.instead_of.is_empty()) {
        let other = CHECKS.iter().find(|other| other.name == check.instead_of);
        assert_eq!(other.map(|other| other.level), Some(Level::Baseline), "{}", check.name);
    }
}

fn namespace(labels: &[(&str, &str)]) -> Object {
    let mut object = object(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t"}}));
    labels.iter().for_each(|(key, value)| object.set_label(&format!("pod-security.kubernetes.io/{key}"), value));
    object
}

#[test]
fn labels_say_what_becomes_of_pods() {
    let policy = |labels: &[(&str, &str)]| {
        let policy = Policy::of(&namespace(labels));
        format!("{} {} {}", policy.enforce, policy.audit, policy.warn)
    };
    let nothing = "privileged:latest privileged:latest privileged:latest";
    assert_eq!(policy(&[]), nothing);
    assert!(Policy::default().is_privileged());
    assert_eq!(policy(&[("enforce", "baseline")]), "baseline:latest privileged:latest baseline:latest");
    assert_eq!(
        policy(&[("enforce", "restricted"), ("enforce-version", "v1.30")]),
        "restricted:v1.30 privileged:latest restricted:v1.30"
    );
    assert_eq!(
        policy(&[("enforce", "baseline"), ("warn", "privileged"), ("audit", "restricted"), ("audit-version", "v1.9")]),
        "baseline:latest restricted:v1.9 privileged:latest"
    );
    assert_eq!(policy(&[("enforce", "foo")]), "restricted:latest privileged:latest privileged:latest");
    assert_eq!(policy(&[("warn", "foo"), ("audit", "foo")]), nothing);
    let wrong = |labels: &[(&str, &str)]| {
        let errors = check_labels(&namespace(labels));
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        wrong(&[("enforce", "foo"), ("warn-version", "1.30")]),
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"foo\": must be one of privileged, baseline, restricted; \
         metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\""
    );
    for version in ["v1.01", "v1.", "v2.1", "v1.x", "", "v1.99999999999999999999"] {
        assert_ne!(wrong(&[("audit-version", version)]), "", "{version}");
    }
    assert_eq!(wrong(&[("audit-version", "v1.0"), ("warn-version", "latest"), ("enforce-version", "v1.99")]), "");
}

#[test]
fn a_pod_is_refused_and_its_makers_are_warned() {
    let all = [("enforce", "restricted"), ("audit", "restricted"), ("warn", "restricted")];
    let policy = Policy::of(&namespace(&all));
    let bare = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let details = "PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"c\" must set \
        securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
        securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
        securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
        securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";
    let audit = (VIOLATIONS, format!("would violate {details}"));
    let told = review(&policy, kind_of(&bare), None, &bare);
    assert_eq!(
        told,
        Review {
            refusal: Some(Refusal(format!("violates {details}"))),
            warnings: vec![],
            notes: vec![(ENFORCED, "restricted:latest".to_owned()), audit.clone()],
        }
    );
    let template = json!({"spec": bare.spec().unwrap()});
    for (version, kind, spec) in [
        ("v1", "ReplicationController", json!({"template": template})),
        ("apps/v1", "Deployment", json!({"template": template})),
        ("apps/v1", "ReplicaSet", json!({"template": template})),
        ("apps/v1", "StatefulSet", json!({"template": template})),
        ("apps/v1", "DaemonSet", json!({"template": template})),
        ("batch/v1", "Job", json!({"template": template})),
        ("batch/v1", "CronJob", json!({"jobTemplate": {"spec": {"template": template}}})),
    ] {
        let maker = object(json!({"apiVersion": version, "kind": kind, "metadata": {"name": "m"}, "spec": spec}));
        let told = review(&policy, kind_of(&maker), Some(&maker), &maker);
        let warnings = vec![audit.1.clone()];
        assert_eq!(told, Review { refusal: None, warnings, notes: vec![audit.clone()] }, "{kind}");
    }
    let template =
        object(json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "m"}, "template": template}));
    assert_eq!(review(&policy, kind_of(&template), None, &template).warnings.len(), 1);
    let other = namespace(&[]);
    assert_eq!(review(&policy, kinds().by_gvk("v1", "Namespace").unwrap(), None, &other), Review::default());
    let good = spec(json!({}));
    let notes = vec![(ENFORCED, "restricted:latest".to_owned())];
    assert_eq!(review(&policy, kind_of(&good), None, &good), Review { notes, ..Review::default() });
}

#[test]
fn a_pod_that_is_there_is_looked_at_when_what_runs_in_it_changes() {
    let policy = Policy::of(&namespace(&[("enforce", "restricted")]));
    let old = pod(json!({"securityContext": null}), json!({}));
    let refused = |new: &Object| review(&policy, kind_of(new), Some(&old), new).refusal.is_some();
    assert!(!refused(&old));
    let mut new = old.clone();
    new.set_label("a", "b");
    new.set("/spec/activeDeadlineSeconds", 5);
    assert!(!refused(&new));
    new.set("/spec/containers/0/image", "other");
    assert!(refused(&new));
    let mut new = old.clone();
    new.set("/spec/ephemeralContainers", json!([{"name": "e", "image": "i"}]));
    assert!(refused(&new));
}

#[test]
fn pods_that_are_there_are_counted_by_what_is_wrong() {
    let tightened = |old: &[(&str, &str)], new: &[(&str, &str)]| {
        Policy::tightened(&namespace(old), &namespace(new)).map(|profile| profile.to_string())
    };
    let (baseline, restricted) = (("enforce", "baseline"), ("enforce", "restricted"));
    assert_eq!(tightened(&[], &[restricted]).as_deref(), Some("restricted:latest"));
    assert_eq!(tightened(&[restricted], &[baseline]), None);
    assert_eq!(tightened(&[restricted], &[restricted, ("warn", "baseline")]), None);
    assert_eq!(tightened(&[restricted], &[]), None);
    assert_eq!(
        tightened(&[restricted], &[baseline, ("enforce-version", "v1.5")]).as_deref(),
        Some("baseline:v1.5"),
        "another version may be stricter"
    );
    let named = |name: &str, context: Value| {
        let mut pod = pod(json!({"securityContext": context}), json!({}));
        pod.set_name(name);
        pod
    };
    let root = json!({"runAsUser": 0});
    let pods = vec![
        named("good", json!({})),
        named("c", root.clone()),
        named("b", root.clone()),
        named("a", root),
        named("x", json!({"privileged": true})),
        named("d", json!({"procMount": "Unmasked"})),
        named("e", json!({"procMount": "Unmasked"})),
    ];
    let enforce = Profile { level: Level::Restricted, version: Version::Latest };
    let kind = kinds().by_gvk("v1", "Pod").unwrap();
    assert_eq!(
        warnings_of_existing("t", enforce, kind, &pods),
        [
            "existing pods in namespace \"t\" violate the new PodSecurity enforce level \"restricted:latest\"",
            "a (and 2 other pods): runAsUser=0",
            "d (and 1 other pod): procMount",
            "x: privileged",
        ]
    );
    assert!(warnings_of_existing("t", enforce, kind, &pods[..1]).is_empty());
    let many: Vec<Object> = (0..3001).map(|_| pods[0].clone()).collect();
    assert_eq!(
        warnings_of_existing("t", enforce, kind, &many),
        ["new PodSecurity enforce level only checked against the first 3000 of 3001 existing pods"]
    );
}
