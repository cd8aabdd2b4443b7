//! The reference's texts, about what it has them.

use super::{warnings, warnings_of_update};
use crate::Object;
use serde_json::{Value, json};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn said(value: Value) -> Vec<String> {
    let object = object(value);
    warnings(object.known_kind().unwrap(), &object)
}

const DOTS: &str = "which can result in surprising behavior; a DNS label is recommended: [must not contain dots]";

#[test]
fn of_templates() {
    let spec = json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "containers": [
        {"name": "a", "image": "a", "env": [{"name": "A"}, {"name": "A"}, {"name": "A", "value": "$(A)b"}],
            "ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 80, "hostPort": 8080}],
            "resources": {"limits": {"memory": "100m"}}},
        {"name": "b", "image": "b", "ports": [{"containerPort": 80, "name": "x"}]}],
        "topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/arch"}]});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": {"spec": spec}}});
    let at = "spec.template.spec";
    assert_eq!(
        said(deployment),
        [
            format!(
                "{at}.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead"
            ),
            format!(
                "{at}.topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead"
            ),
            format!("{at}.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"),
            format!(
                "{at}.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer"
            ),
            format!(
                "{at}.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply"
            ),
            format!("{at}.containers[0].ports[1]: overlapping port definition with {at}.containers[0].ports[0]"),
            format!("{at}.containers[1].ports[0]: duplicate port definition with {at}.containers[0].ports[0]"),
            format!("{at}.containers[1].ports[0]: overlapping port definition with {at}.containers[0].ports[1]"),
            format!(
                "{at}.containers[1].ports[0]: duplicate port name \"x\" with {at}.containers[0].ports[0], services and probes that select ports by name will use {at}.containers[0].ports[0]"
            ),
        ]
    );
}

#[test]
fn of_names_of_ports_where_they_last() {
    let named = |number: i64| json!([{"containerPort": number, "name": "x"}]);
    let pod = |policy: &str| {
        let first = json!({"name": "i", "restartPolicy": policy, "ports": named(1)});
        let spec = json!({"initContainers": [first], "containers": [{"name": "a", "ports": named(2)}]});
        said(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}))
    };
    let expected = "spec.containers[0].ports[0]: duplicate port name \"x\" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]";
    assert_eq!(pod("Always"), [expected], "a sidecar");
    assert_eq!(pod(""), [""; 0]);
}

#[test]
fn of_names_that_pods_are_called_by() {
    let named = |version: &str, kind: &str| {
        said(json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a.b"}, "spec": {}}))
    };
    assert_eq!(named("v1", "Pod"), [format!("metadata.name: this is used in the Pod's hostname, {DOTS}")]);
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
    ] {
        assert_eq!(
            named(version, kind),
            [format!("metadata.name: this is used in Pod names and hostnames, {DOTS}")],
            "{kind}"
        );
    }
    assert_eq!(named("apps/v1", "StatefulSet"), [""; 0]);
    assert_eq!(named("apps/v1", "DaemonSet"), [""; 0]);
}

#[test]
fn of_services_and_ingresses() {
    let service =
        |spec: Value| said(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}));
    let external = json!(["1.1.1.1"]);
    assert_eq!(
        service(json!({"type": "ExternalName", "externalName": "a.example", "externalIPs": external})),
        ["spec.externalIPs is ignored when spec.type is \"ExternalName\""]
    );
    assert_eq!(
        service(
            json!({"type": "ClusterIP", "clusterIP": "None", "externalIPs": external, "loadBalancerIP": "1.1.1.1", "sessionAffinity": "ClientIP"})
        ),
        [
            "spec.loadBalancerIP is ignored for headless services",
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
        ]
    );
    assert_eq!(
        service(
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "FD00::1"], "sessionAffinity": "None",
            "externalIPs": external, "externalName": "a", "loadBalancerSourceRanges": ["10.0.0.1/8", "10.0.0.0/8"], "trafficDistribution": "PreferClose"})
        ),
        [
            "spec.clusterIPs[1]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ]
    );
    assert_eq!(service(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "sessionAffinity": "None"})), [""; 0]);
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i", "annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {}});
    assert_eq!(
        said(ingress.clone()),
        ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
    );
    let ingress = object(ingress);
    assert_eq!(warnings_of_update(ingress.known_kind().unwrap(), &ingress, &ingress), [""; 0]);
}

#[test]
fn of_storage() {
    let class = "volume.beta.kubernetes.io/storage-class";
    let annotation =
        format!("metadata.annotations[{class}]: deprecated since v1.8; use \"storageClassName\" attribute instead");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "annotations": {class: "x"}},
        "spec": {"resources": {"requests": {"storage": "1500m"}}}});
    let fraction = "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer";
    assert_eq!(said(claim.clone()), [annotation.as_str(), fraction]);
    let changed = object(claim);
    assert_eq!(
        warnings_of_update(changed.known_kind().unwrap(), &changed, &changed).len(),
        2,
        "said whenever it is written"
    );
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "annotations": {class: "x"}},
        "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}}});
    assert_eq!(
        said(volume),
        [
            annotation.as_str(),
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ]
    );
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "s"}, "spec": {"revisionHistoryLimit": -1,
        "volumeClaimTemplates": [{"spec": {"resources": {"limits": {"storage": "500m"}}}}]}});
    let fraction = |at: &str| {
        format!(
            "spec.volumeClaimTemplates[0]{at}.resources.limits[storage]: fractional byte value \"500m\" is invalid, must be an integer"
        )
    };
    let history =
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
            .to_owned();
    assert_eq!(said(set.clone()), [fraction(""), history.clone()]);
    let set = object(set);
    assert_eq!(warnings_of_update(set.known_kind().unwrap(), &set, &set), [fraction(".Spec"), history]);
}

#[test]
fn of_changes_only_where_the_spec_changed() {
    let of = |kind: (&str, &str), old: i64, new: i64| {
        let made = |generation: i64| {
            let spec = json!({"containers": [{"name": "a", "env": [{"name": "A"}, {"name": "A"}]}]});
            let spec = if kind.1 == "Pod" { spec } else { json!({"template": {"spec": spec}}) };
            object(
                json!({"apiVersion": kind.0, "kind": kind.1, "metadata": {"name": "a.b", "generation": generation}, "spec": spec}),
            )
        };
        warnings_of_update(made(1).known_kind().unwrap(), &made(old), &made(new)).len()
    };
    assert_eq!((of(("v1", "Pod"), 1, 1), of(("v1", "Pod"), 1, 2)), (0, 0));
    assert_eq!(
        (of(("apps/v1", "Deployment"), 1, 1), of(("apps/v1", "Deployment"), 1, 2)),
        (0, 1),
        "not of the name again"
    );
}

#[test]
fn of_files_in_each_others_way() {
    let items = |paths: &[&str]| paths.iter().map(|path| json!({"key": "k", "path": path})).collect::<Vec<_>>();
    let volumes = json!([
        {"name": "a", "configMap": {"name": "m", "items": items(&["x", "x/y", "xy", "x/"])}},
        {"name": "b", "secret": {"secretName": "s", "items": items(&["d/e", "d"])}},
        {"name": "c", "downwardAPI": {"items": items(&["f", "f"])}},
        {"name": "d", "projected": {"sources": [
            {"configMap": {"name": "m", "items": items(&["p/q"])}}, {"secret": {"name": "s"}}, {},
            {"serviceAccountToken": {"path": "p/q"}}, {"downwardAPI": {"items": items(&["p"])}},
            {"clusterTrustBundle": {"signerName": "x.io/s", "path": "p/q/r"}},
            {"podCertificate": {"keyPath": "k", "certificateChainPath": "k"}}]}}]);
    let spec = json!({"volumes": volumes, "containers": [{"name": "a"}]});
    let overlap = |of: &str, pairs: &[&str]| -> Vec<String> {
        pairs.iter().map(|pair| format!("volume {of}: overlapping paths: {pair}")).collect()
    };
    let expected = [
        overlap(r#""a" (ConfigMap "m")"#, &[r#""x/y" with "x""#, r#""x" with "x""#, r#""x" with "x/y""#]),
        overlap(r#""b" (Secret "s")"#, &[r#""d" with "d/e""#]),
        overlap(r#""c" (DownwardAPI)"#, &[r#""f" with "f""#]),
        vec![r#"volume "d" (Projected) has no sources provided"#.to_owned()],
        overlap(
            r#""d" (Projected)"#,
            &[
                r#""p/q" (ServiceAccountToken) with "p/q" (ConfigMap "m")"#,
                r#""p" (DownwardAPI) with "p/q" (ConfigMap "m")"#,
                r#""p" (DownwardAPI) with "p/q" (ServiceAccountToken)"#,
                r#""p/q/r" (ClusterTrustBundle "x.io/s") with "p/q" (ConfigMap "m")"#,
                r#""p/q/r" (ClusterTrustBundle "x.io/s") with "p/q" (ServiceAccountToken)"#,
                r#""p/q/r" (ClusterTrustBundle "x.io/s") with "p" (DownwardAPI)"#,
                r#""k" (PodCertificate key) with "k" (PodCertificate chain)"#,
            ],
        ),
    ];
    assert_eq!(
        said(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})),
        expected.concat()
    );
}

#[test]
fn of_a_pods_addresses_labels_and_empty_names() {
    let preferred = json!({"weight": 1, "preference": {"matchExpressions": [
        {"key": "node-role.kubernetes.io/master", "operator": "In", "values": ["a_", ""]}]}});
    let spec = json!({"containers": [{"name": "a"}], "imagePullSecrets": [{"name": ""}, {"name": ""}],
        "hostAliases": [{"ip": "::ffff:1.2.3.4"}], "dnsConfig": {"nameservers": ["1.1.1.1", "FD00::1"]}, "volumes": [{"name": "v", "storageos": {}}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}}});
    let at =
        "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0]";
    let found = said(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}));
    assert_eq!(
        found[0],
        format!(r#"{at}.key: node-role.kubernetes.io/master is use "node-role.kubernetes.io/control-plane" instead"#)
    );
    assert!(
        found[1].starts_with(&format!("{at}.values[0]: a_ is invalid, a valid label must be an empty string or")),
        "{found:?}"
    );
    assert_eq!(
        found[2..],
        [
            "spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+",
            r#"spec.imagePullSecrets[1].name: duplicate name """#,
            r#"spec.imagePullSecrets[0].name: invalid empty name """#,
            r#"spec.imagePullSecrets[1].name: invalid empty name """#,
            r#"spec.dnsConfig.nameservers[1]: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")"#,
            r#"spec.hostAliases[0].ip: non-standard IP address "::ffff:1.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
        ]
    );
}

#[test]
fn of_classes_and_accounts() {
    let (os, instead) = ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#);
    assert_eq!(
        said(json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "a"}, "handler": "h",
            "scheduling": {"nodeSelector": {os: "linux"}}})),
        [format!("scheduling.nodeSelector: {instead}")]
    );
    assert_eq!(
        said(
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "a"}, "provisioner": "p",
            "allowedTopologies": [{"matchLabelExpressions": [{"key": os, "values": ["linux"]}]}]})
        ),
        [format!("allowedTopologies[0].matchLabelExpressions[0].key: {instead}")]
    );
    assert_eq!(
        said(
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity", "metadata": {"name": "a"}, "storageClassName": "s",
            "nodeTopology": {"matchLabels": {os: "linux"}, "matchExpressions": [{"key": os, "operator": "Exists"}]}})
        ),
        [
            format!("nodeTopology.matchExpressions[0].key: {os} is {instead}"),
            format!("nodeTopology.matchLabels.{os}: {instead}")
        ]
    );
    let account = |annotations: Value| {
        object(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "annotations": annotations}}),
        )
    };
    let (plain, marked) = (account(json!({})), account(json!({"kubernetes.io/enforce-mountable-secrets": "true"})));
    let kind = marked.known_kind().unwrap();
    let expected = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    assert_eq!(warnings(kind, &marked), [expected]);
    assert_eq!(warnings_of_update(kind, &plain, &marked), [expected]);
    assert_eq!(warnings_of_update(kind, &marked, &marked), [""; 0], "said once");
}
