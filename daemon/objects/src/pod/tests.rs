use super::*;
use serde_json::{Value, json};

fn pod(spec: Value) -> Pod {
    let mut object = Object::from_value(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n", "uid": "u",
        "annotations": {"reddwarf.io/zone-brand": "sparse"}, "creationTimestamp": null}, "spec": spec}),
    )
    .unwrap();
    let errors = crate::validate::admit(object.known_kind().unwrap(), &mut object);
    assert!(errors.is_empty(), "{errors:?}");
    Pod::from_object(&object).unwrap()
}

#[test]
fn the_view_reads_what_the_node_acts_on() {
    let pod = pod(json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always", "command": ["a"]}],
        "containers": [{"name": "c", "image": "i", "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "m"}}],
            "resources": {"limits": {"memory": "64Mi", "cpu": 0.5}},
            "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "a", "readOnly": true}],
            "securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsUser": 7},
            "livenessProbe": {"exec": {"command": ["true"]}}, "tty": true}],
        "volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "f", "mode": 256}]}}, {"name": "e"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
        "setHostnameAsFQDN": true, "restartPolicy": "OnFailure"}));
    assert_eq!(pod.zone_brand(), "sparse");
    let spec = &pod.spec;
    assert_eq!(
        (spec.restart_policy, spec.termination_grace_period_seconds, spec.dns_policy),
        (RestartPolicy::OnFailure, 30, DnsPolicy::ClusterFirst)
    );
    assert!(spec.set_hostname_as_fqdn && spec.enable_service_links && spec.init_containers[0].is_sidecar());
    let container = &spec.containers[0];
    assert_eq!(container.resources.limits["cpu"].millis(), 500);
    assert_eq!(container.resources.requests["memory"].units(), 64 << 20);
    assert_eq!(container.env[1].value_from.as_ref().unwrap().secret_key_ref.as_ref().unwrap().key, "k");
    assert_eq!(container.security_context.capabilities.drop, ["ALL"]);
    assert!(container.tty && container.volume_mounts[0].read_only);
    let secret = spec.volumes[0].secret.as_ref().unwrap();
    assert_eq!((secret.default_mode, secret.items[0].mode), (0o644, Some(0o400)));
    assert!(spec.volumes[1].empty_dir.is_some());
}

#[test]
fn quality_of_service() {
    let with = |resources: Value| pod(json!({"containers": [{"name": "c", "resources": resources}]})).qos_class();
    assert_eq!(with(json!({})), QosClass::BestEffort);
    assert_eq!(with(json!({"requests": {"cpu": "1"}})), QosClass::Burstable);
    assert_eq!(with(json!({"limits": {"cpu": "1"}})), QosClass::Burstable);
    assert_eq!(with(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), QosClass::Guaranteed);
    assert_eq!(
        with(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})),
        QosClass::Burstable
    );
}

#[test]
fn status_has_the_shape_that_kubectl_reads() {
    let at: DateTime<Utc> = "2026-11-20T21:09:24.5Z".parse().unwrap();
    let ended = Terminated { exit_code: 1, reason: "Error".to_owned(), finished_at: Some(at), ..Terminated::default() };
    let mut status = PodStatus {
        observed_generation: Some(2),
        phase: Phase::Running,
        pod_ip: "10.88.0.2".to_owned(),
        pod_ips: vec![Ip { ip: "10.88.0.2".to_owned() }],
        start_time: Some(at),
        container_statuses: vec![ContainerStatus {
            name: "c".to_owned(),
            state: ContainerState::running(at),
            last_state: ContainerState::terminated(ended),
            ready: true,
            restart_count: 1,
            image: "i".to_owned(),
            started: Some(true),
            ..ContainerStatus::default()
        }],
        qos_class: Some(QosClass::BestEffort),
        ..PodStatus::default()
    };
    status.set_condition(Condition::new("Ready", true, at));
    status.set_condition(Condition::new("Ready", true, at + chrono::TimeDelta::seconds(9)));
    let value = status.to_value();
    assert_eq!(
        value,
        json!({"observedGeneration": 2, "phase": "Running", "podIP": "10.88.0.2", "podIPs": [{"ip": "10.88.0.2"}],
            "startTime": "2026-11-20T21:09:24Z", "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-11-20T21:09:24Z"}],
            "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 1, "started": true,
                "state": {"running": {"startedAt": "2026-11-20T21:09:24Z"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": null, "finishedAt": "2026-11-20T21:09:24Z"}}}]})
    );
    // What we write is what the structure of the kind has.
    let object = Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "status": value})).unwrap();
    let errors = crate::schema::check(object.known_kind().unwrap(), &object);
    assert!(errors.iter().all(|error| !error.path.to_string().starts_with("status")), "{errors:?}");
    assert_eq!(PodStatus::from_object(&object).to_value(), value);
}
