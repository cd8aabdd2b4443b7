use super::{admit, validate_update};
use crate::{FieldError, Object};
use serde_json::{Value, json};

/// The problems of an object as they are printed, structure and rules together.
fn problems(value: Value) -> Vec<String> {
    let mut object = Object::from_value(value).unwrap();
    let kind = object.known_kind().unwrap();
    admit(kind, &mut object).iter().map(FieldError::to_string).collect()
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn container(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    crate::patch::merge_patch(&mut container, &extra);
    pod("p", json!({"containers": [container], "volumes": [{"name": "data"}]}))
}

#[test]
fn the_recorded_answer_word_for_word() {
    assert_eq!(
        problems(pod("Bad_Pod", json!({"containers": [{"name": "c"}]}))),
        [
            "metadata.name: Invalid value: \"Bad_Pod\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
         or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.containers[0].image: Required value",
        ]
    );
    assert_eq!(
        problems(json!({"apiVersion": "v1", "kind": "ConfigMap"})),
        ["metadata.name: Required value: name or generateName is required"]
    );
}

#[test]
fn a_good_pod_is_good() {
    assert!(problems(container(json!({
        "ports": [{"containerPort": 80, "name": "http"}], "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}],
        "resources": {"limits": {"cpu": 1, "memory": "64Mi"}}, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}))).is_empty());
}

#[test]
fn a_sparse_pod_needs_no_image() {
    let mut value = pod("p", json!({"containers": [{"name": "c", "command": ["/bin/sleep"]}]}));
    assert_eq!(problems(value.clone()), ["spec.containers[0].image: Required value"]);
    value["metadata"]["annotations"] = json!({"reddwarf.io/zone-brand": "sparse"});
    assert!(problems(value).is_empty());
}

#[test]
fn unknown_fields_say_what_was_meant() {
    let mut object = Object::from_value(pod(
        "p",
        json!({"contaners": [], "containers": [{"name": "a", "image": "b", "imagepullpolicy": "Always"}]}),
    ))
    .unwrap();
    let errors = admit(object.known_kind().unwrap(), &mut object);
    let texts: Vec<_> = errors.iter().map(|e| (e.to_string(), e.help.clone().unwrap_or_default())).collect();
    assert_eq!(
        texts,
        [
            (
                "spec.containers[0].imagepullpolicy: unknown field".to_owned(),
                "did you mean `imagePullPolicy`?".to_owned()
            ),
            ("spec.contaners: unknown field".to_owned(), "did you mean `containers`?".to_owned()),
        ]
    );
}

#[test]
fn wrong_types_and_missing_fields() {
    assert_eq!(
        problems(pod("p", json!({"containers": {"name": "x"}}))),
        ["spec.containers: Invalid value: {\"name\":\"x\"}: must be a list, found a map"]
    );
    assert_eq!(problems(pod("p", json!({}))), ["spec.containers: Required value"]);
    assert_eq!(
        problems(container(json!({"ports": [{"containerPort": "80"}]}))),
        [
            "spec.containers[0].ports[0].containerPort: Invalid value: \"80\": must be a whole number of 32 bits, found a string"
        ]
    );
    assert_eq!(
        problems(container(json!({"resources": {"limits": {"cpu": "1 core"}}}))),
        [
            "spec.containers[0].resources.limits[cpu]: Invalid value: \"1 core\": must be a quantity such as 100m, 2 or 64Mi, found a string"
        ]
    );
    assert_eq!(
        problems(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": true}})),
        ["data[a]: Invalid value: true: must be a string, found a boolean"]
    );
}

#[test]
fn rules_of_containers() {
    for (extra, expected) in [
        (
            json!({"name": "C_"}),
            "spec.containers[0].name: Invalid value: \"C_\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ),
        (
            json!({"imagePullPolicy": "Sometimes"}),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            json!({"ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"env": [{"name": "A=B"}]}),
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {}}]}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        (
            json!({"volumeMounts": [{"name": "dat", "mountPath": "/d"}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"dat\"",
        ),
        (
            json!({"volumeMounts": [{"name": "data", "mountPath": "/d", "subPath": "../x"}]}),
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1000m"}}}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"resources": {"limits": {"memory": "-1"}}}),
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (json!({"livenessProbe": {}}), "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
    ] {
        assert_eq!(problems(container(extra)).first().map(String::as_str), Some(expected));
    }
}

#[test]
fn rules_of_pods() {
    let one = json!([{"name": "c", "image": "i"}]);
    for (spec, expected) in [
        (
            json!({"containers": one, "restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            json!({"containers": one, "initContainers": [{"name": "c", "image": "i"}]}),
            "spec.initContainers[0].name: Duplicate value: \"c\"",
        ),
        (
            json!({"containers": one, "volumes": [{"name": "v"}, {"name": "v"}]}),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            json!({"containers": one, "volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]}),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"containers": one, "volumes": [{"name": "v", "hostPath": {"path": "/a/../b"}}]}),
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            json!({"containers": one, "dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            json!({"containers": one, "hostAliases": [{"ip": "1.2.3"}]}),
            "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        assert_eq!(problems(pod("p", spec)), [expected]);
    }
}

#[test]
fn rules_of_other_kinds() {
    for (value, expected) in [
        (
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a b": ""}}),
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "namespace": "b"}}),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {}}),
            "spec.ports: Required value",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80, "nodePort": 30000}]}}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"c\"}: `selector` does not match template `labels`",
        ),
        (
            json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "a"}, "spec": {"schedule": "61 * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}}),
            "spec.schedule: Invalid value: \"61 * * * *\": end of range (61) above maximum (59): 61",
        ),
    ] {
        assert_eq!(problems(value), [expected]);
    }
}

#[test]
fn a_running_pods_spec_is_fixed_but_for_its_image() {
    let mut old = Object::from_value(pod("p", json!({"containers": [{"name": "c", "image": "i:1"}]}))).unwrap();
    let kind = old.known_kind().unwrap();
    crate::default(kind, &mut old);
    let mut new = old.clone();
    new.set("/spec/containers/0/image", "i:2");
    assert_eq!(validate_update(kind, &old, &new), []);
    new.set("/spec/restartPolicy", "Never");
    let errors = validate_update(kind, &old, &new);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0]
            .to_string()
            .starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
    );
    assert!(
        errors[0]
            .message
            .ends_with("\n  core.PodSpec{\n- \trestartPolicy: \"Always\",\n+ \trestartPolicy: \"Never\",\n  }\n")
    );
    new.set("/metadata/uid", "x");
    let mut other = old.clone();
    other.set("/metadata/uid", "y");
    assert_eq!(
        validate_update(kind, &other, &new)[0].to_string(),
        "metadata.uid: Invalid value: \"x\": field is immutable"
    );
}

#[test]
fn nothing_panics_on_nonsense() {
    for kind in crate::kinds().iter() {
        for spec in
            [json!(null), json!(7), json!([1]), json!({"containers": 5, "volumes": [1], "ports": {}, "template": []})]
        {
            let object = Object::from_value(json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"labels": 4}, "spec": spec, "data": 7})).unwrap();
            super::validate(kind, &object);
            validate_update(kind, &object, &object);
        }
    }
}

#[test]
fn what_is_too_large_as_a_whole_is_named_as_the_reference_names_it() {
    let big = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"}, "data": {"a": "x".repeat((1 << 20) + 1)}});
    assert_eq!(problems(big), ["[]: Too long: may not be more than 1048576 bytes"]);
}
