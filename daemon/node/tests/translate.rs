//! From pods to specs, in tables: variables (G25), commands, users and rights (G24), volumes, DNS, limits (G04, G05).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use reddwarf_host::spec::{ContainerSpec, PodIdentity, SandboxSpec, UserSpec, VolumeSpec};
use reddwarf_host::{Brand, ImageConfig, ImageId, ImageInfo, Observation, SandboxId};
use reddwarf_node::control_plane::ObjectChange;
use reddwarf_node::desired::{ConfigData, Desired, HostFacts};
use reddwarf_node::plan::Notice;
use reddwarf_node::translate::{self, Facts, Identity, Images};
use reddwarf_node::{NodeSettings, follow};
use reddwarf_objects::Object;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{config, key, pod, settings};

fn service(namespace: &str, name: &str, address: &str, port: &str, number: u16) -> Object {
    Object::from_value(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": address, "ports": [{"name": port, "port": number}]}}),
    )
    .unwrap()
}

/// Translates one pod; `image` is how `web:1` wants to be run.
struct Setup {
    objects: Vec<Object>,
    image: ImageConfig,
    settings: NodeSettings,
}

impl Setup {
    fn new() -> Self {
        let image =
            ImageConfig { entrypoint: vec!["/entry".into()], cmd: vec!["default".into()], ..ImageConfig::default() };
        let objects = vec![
            config("ConfigMap", "site", &[("greeting", "hello"), ("odd=key", "x"), ("n", "1")]),
            config("Secret", "key", &[("token", "s3cret")]),
            service("default", "web", "10.96.0.5", "http", 80),
            service("default", "headless", "None", "http", 80),
            service("other", "db", "10.96.0.6", "sql", 5432),
        ];
        Self { objects, image, settings: settings() }
    }

    fn translate<T>(&self, object: Object, with: impl FnOnce(&Desired, Facts<'_>, &Identity) -> T) -> T {
        let mut desired = Desired {
            complete: true,
            halted: false,
            pods: BTreeMap::new(),
            config: ConfigData::default(),
            tokens: Default::default(),
            settings: Arc::new(self.settings.clone()),
            host: HostFacts {
                ip: Some("192.0.2.10".parse().unwrap()),
                cpu_millis: 7500,
                memory_bytes: 16 << 30,
                storage_bytes: 100 << 30,
                brands: ["oci", "sparse"].map(|b| Brand::new(b).unwrap()).to_vec(),
            },
        };
        let mut object = object;
        object.set_uid("uid-1");
        for object in self.objects.iter().cloned().chain([object]) {
            follow::apply(&mut desired, ObjectChange::Put(Box::new(object)));
        }
        let id = ImageId::new(format!("sha256:{}", "a".repeat(64))).unwrap();
        let info = ImageInfo {
            id: id.clone(),
            names: vec!["web:1".into(), "short:latest".into()],
            size_bytes: 1,
            config: self.image.clone(),
            pulled: BTreeMap::new(),
            last_used: None,
        };
        let observed = Observation::Known(BTreeMap::from([(id, info)]));
        let images = Images::new(&observed);
        let facts = Facts {
            pods: &desired.pods,
            config: &desired.config,
            tokens: &desired.tokens,
            images: &images,
            settings: &desired.settings,
            host: &desired.host,
            pulls: &Default::default(),
        };
        let intent = desired.pods.values().next().unwrap();
        let pod = PodIdentity { namespace: "default".into(), name: intent.key.name.clone(), uid: intent.uid.clone() };
        let identity = Identity {
            id: SandboxId::for_pod(&pod),
            pod,
            addresses: vec!["10.88.0.9".parse().unwrap()],
            account_volume: translate::AccountVolume::ToDecide,
        };
        with(&desired, facts, &identity)
    }

    fn container(&self, container: Value) -> Result<ContainerSpec, Notice> {
        self.container_of(pod("web", json!({"containers": [container]})))
    }

    fn container_of(&self, object: Object) -> Result<ContainerSpec, Notice> {
        self.translate(object, |desired, facts, identity| {
            let intent = &desired.pods[&key("web")];
            let all = translate::containers(intent);
            translate::container(intent, all.last().unwrap(), identity, facts, None)
        })
    }

    fn sandbox(&self, spec: Value) -> Result<SandboxSpec, Vec<Notice>> {
        self.sandbox_of(pod("web", spec), None)
    }

    fn sandbox_of(&self, object: Object, running: Option<&SandboxSpec>) -> Result<SandboxSpec, Vec<Notice>> {
        self.translate(object, |desired, facts, identity| {
            translate::sandbox(&desired.pods[&key("web")], identity, facts, running)
        })
    }

    fn env(&self, env: Value, from: Value) -> Result<Vec<(String, String)>, Notice> {
        let spec = self.container(json!({
            "name": "app", "image": "web:1", "env": env, "envFrom": from,
            "resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}},
        }))?;
        let own = |n: &str| n != "PATH" && n != "HOSTNAME" && !n.starts_with("WEB_");
        Ok(spec.env.into_iter().filter(|v| own(&v.name)).map(|v| (v.name, v.value.expose().clone())).collect())
    }
}

#[test]
fn datasets_are_named_in_an_annotation() {
    let setup = Setup::new();
    let named = |annotation: Value| {
        let mut object = pod("web", json!({"containers": [{"name": "app", "image": "web:1"}]}));
        object.set("/metadata/annotations", annotation);
        setup.sandbox_of(object, None).unwrap().datasets
    };
    assert!(named(json!({})).is_empty());
    let both = named(json!({"reddwarf.io/zone-datasets": "rpool/b, rpool/a,"}));
    assert_eq!(both.iter().collect::<Vec<_>>(), ["rpool/a", "rpool/b"]);
}

#[test]
fn variables_as_kubernetes_has_them() {
    let setup = Setup::new();
    let from = |value: Value| json!([{"name": "X", "valueFrom": value}]);
    let field = |path: &str| from(json!({"fieldRef": {"fieldPath": path}}));
    let resource = |r: Value| from(json!({"resourceFieldRef": r}));
    for (env, expected) in [
        (json!([{"name": "X", "value": "1"}]), "1"),
        (json!([{"name": "X"}]), ""),
        (json!([{"name": "A", "value": "1"}, {"name": "X", "value": "$(A)$(B)$$(A)"}]), "1$(B)$(A)"),
        (json!([{"name": "X", "value": "$(A)"}, {"name": "A", "value": "late"}]), "$(A)"),
        (json!([{"name": "X", "value": "1"}, {"name": "X", "value": "2"}]), "2"),
        (from(json!({"configMapKeyRef": {"name": "site", "key": "greeting"}})), "hello"),
        (from(json!({"secretKeyRef": {"name": "key", "key": "token"}})), "s3cret"),
        (field("metadata.name"), "web"),
        (field("metadata.namespace"), "default"),
        (field("metadata.uid"), "uid-1"),
        (field("metadata.annotations['reddwarf.io/source']"), "/etc/reddwarf.d/web.yaml"),
        (field("metadata.labels['none']"), ""),
        (field("spec.nodeName"), "node-1"),
        (field("status.podIP"), "10.88.0.9"),
        (field("status.hostIP"), "192.0.2.10"),
        (resource(json!({"resource": "limits.cpu"})), "2"),
        (resource(json!({"resource": "limits.cpu", "divisor": "1m"})), "1500"),
        (resource(json!({"resource": "limits.memory", "divisor": "1Mi"})), "100"),
        (resource(json!({"resource": "limits.memory"})), "104857600"),
        (resource(json!({"resource": "requests.memory", "divisor": "1Gi"})), "1"),
        (resource(json!({"resource": "limits.ephemeral-storage", "divisor": "1Gi"})), "100"),
        (resource(json!({"resource": "requests.ephemeral-storage"})), "0"),
        (resource(json!({"resource": "limits.hugepages-2Mi"})), "0"),
        (field("status.podIPs"), "10.88.0.9"),
        (field("status.hostIPs"), "192.0.2.10"),
        (field("spec.serviceAccountName"), ""),
        (json!([{"name": "X", "value": "$(WEB_SERVICE_HOST):$(WEB_SERVICE_PORT_HTTP)"}]), "10.96.0.5:80"),
        (json!([{"name": "WEB_SERVICE_HOST", "value": "mine"}, {"name": "X", "value": "$(WEB_SERVICE_HOST)"}]), "mine"),
        (json!([{"name": "X", "value": "$(token)"}]), "$(token)"),
    ] {
        let vars = setup.env(env.clone(), json!([])).unwrap_or_else(|e| panic!("{env}: {e}"));
        let found = vars.iter().rfind(|(n, _)| n == "X").map(|(_, v)| v.as_str());
        assert_eq!(found, Some(expected), "{env}");
    }
}

#[test]
fn whole_config_maps_and_secrets_with_env_over_them() {
    let setup = Setup::new();
    let vars = setup
        .env(
            json!([{"name": "C_n", "value": "own"}, {"name": "SEEN", "value": "$(C_greeting)"}]),
            json!([{"prefix": "C_", "configMapRef": {"name": "site"}}, {"secretRef": {"name": "key"}}, {"secretRef": {"name": "no", "optional": true}}]),
        )
        .unwrap();
    let vars: Vec<_> = vars.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(
        vars,
        ["C_greeting=hello", "C_n=own", "token=s3cret", "SEEN=hello"],
        "a key that is no variable's name is left out"
    );
}

#[test]
fn what_is_missing_is_named_with_its_field() {
    let setup = Setup::new();
    let refusal = |env: Value, from: Value| setup.env(env, from).unwrap_err().to_string();
    let key_of =
        |kind: &str, name: &str, key: &str| json!([{"name": "X", "valueFrom": {kind: {"name": name, "key": key}}}]);
    for (text, expected) in [
        (
            refusal(key_of("configMapKeyRef", "no", "k"), json!([])),
            "CreateContainerConfigError: configmap \"no\" not found [spec.containers[0].env[0].valueFrom.configMapKeyRef]",
        ),
        (
            refusal(key_of("secretKeyRef", "key", "k"), json!([])),
            "CreateContainerConfigError: couldn't find key k in Secret default/key [spec.containers[0].env[0].valueFrom.secretKeyRef]",
        ),
        (
            refusal(json!([]), json!([{"configMapRef": {"name": "no"}}])),
            "CreateContainerConfigError: configmap \"no\" not found [spec.containers[0].envFrom[0].configMapRef]",
        ),
        (
            refusal(json!([{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]), json!([])),
            "CreateContainerConfigError: \"status.phase\" is no field that a variable can take [spec.containers[0].env[0].valueFrom.fieldRef.fieldPath]",
        ),
    ] {
        assert_eq!(text, expected);
    }
    let optional = json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": true}}}]);
    assert_eq!(setup.env(optional, json!([])).unwrap(), []);
}

/// U1, the table of "Define a Command and Arguments for a Container".
#[test]
fn u01_command_args_entrypoint_and_cmd() {
    let setup = Setup::new();
    let argv = |command: Value, args: Value| {
        setup.container(json!({"name": "app", "image": "web:1", "command": command, "args": args})).map(|c| c.argv)
    };
    assert_eq!(argv(json!([]), json!([])).unwrap(), ["/entry", "default"]);
    assert_eq!(argv(json!(["own"]), json!([])).unwrap(), ["own"]);
    assert_eq!(argv(json!([]), json!(["arg"])).unwrap(), ["/entry", "arg"]);
    assert_eq!(argv(json!(["own"]), json!(["arg"])).unwrap(), ["own", "arg"]);
    let setup = Setup { image: ImageConfig::default(), ..Setup::new() };
    let nothing = setup.container(json!({"name": "app", "image": "web:1"})).unwrap_err();
    assert!(nothing.message.starts_with("nothing to run"), "{nothing}");
}

#[test]
fn images_are_found_by_name_latest_or_not_at_all() {
    let setup = Setup::new();
    let image = |name: &str, policy: &str| {
        setup.container(json!({"name": "app", "image": name, "imagePullPolicy": policy, "command": ["x"]}))
    };
    assert!(image("web:1", "IfNotPresent").is_ok());
    assert!(image("short", "IfNotPresent").is_ok());
    assert!(image(&format!("web@sha256:{}", "a".repeat(64)), "IfNotPresent").is_ok());
    let missing = image("web", "IfNotPresent").unwrap_err();
    assert_eq!(
        (missing.reason.as_str(), missing.message.as_str()),
        ("ContainerCreating", "image \"web\" is not here yet")
    );
    // Imported by hand: no registry is asked for it.
    assert!(image("web:1", "Always").is_ok());
    let bad = image("Web:1", "IfNotPresent").unwrap_err();
    assert_eq!(bad.reason, "InvalidImageName");
    assert!(bad.message.contains("Failed to apply default image tag \"Web:1\": couldn't parse image name"), "{bad}");
    assert_eq!(image("nope:1", "Never").unwrap_err().reason, "ErrImageNeverPull");
    assert_eq!(image("", "Never").unwrap_err().reason, "InvalidImageName");
}

#[test]
fn who_runs_it() {
    let user = |image: &str, pod_context: Value, own: Value| {
        let setup = Setup {
            image: ImageConfig { user: image.into(), entrypoint: vec!["x".into()], ..ImageConfig::default() },
            ..Setup::new()
        };
        let containers = json!([{"name": "app", "image": "web:1", "securityContext": own}]);
        setup
            .container_of(pod("web", json!({"securityContext": pod_context, "containers": containers})))
            .map(|c| c.user)
    };
    let ids = |uid, gid, groups: &[u32]| UserSpec::Ids { uid, gid, groups: groups.to_vec() };
    let named = |user: &str| UserSpec::Named { user: user.into(), groups: Vec::new() };
    assert_eq!(user("", json!({}), json!({})).unwrap(), ids(0, 0, &[]));
    assert_eq!(user("web", json!({}), json!({})).unwrap(), named("web"));
    assert_eq!(user("web", json!({}), json!({"runAsUser": 7})).unwrap(), named("7"));
    assert_eq!(user("web", json!({"runAsUser": 5}), json!({"runAsUser": 7, "runAsGroup": 8})).unwrap(), ids(7, 8, &[]));
    assert_eq!(user("web:staff", json!({"runAsGroup": 8}), json!({})).unwrap(), named("web:8"));
    assert_eq!(user("", json!({"fsGroup": 9, "supplementalGroups": [4]}), json!({})).unwrap(), ids(0, 0, &[4, 9]));
    for (image, context) in [("", json!({})), ("0", json!({})), ("root", json!({})), ("web", json!({"runAsUser": 0}))] {
        let refused = user(image, json!({"runAsNonRoot": true}), context).unwrap_err();
        assert_eq!(refused.field.as_deref(), Some("spec.containers[0].securityContext.runAsNonRoot"), "{image}");
    }
    assert!(user("10001", json!({"runAsNonRoot": true}), json!({})).is_ok());
}

#[test]
fn only_files_of_this_host_may_ask_for_privileges() {
    let setup = Setup::new();
    let privileged = pod(
        "web",
        json!({"containers": [{"name": "app", "image": "web:1", "securityContext": {"privileged": true, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["all"]}}}]}),
    );
    let security = setup.container_of(privileged.clone()).unwrap().security;
    assert!(security.privileged);
    assert_eq!((security.cap_add, security.cap_drop), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    let mut by_api = privileged;
    by_api.remove_annotation("reddwarf.io/source");
    assert!(setup.container_of(by_api).unwrap_err().message.contains("only pods declared by a file"));
}

/// A claim that is bound to a volume of this host's storage.
fn bound(name: &str, mode: &str, options: Value) -> [Object; 2] {
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default", "uid": format!("{name}-uid")},
        "spec": {"accessModes": [mode], "volumeName": format!("{name}-volume")}, "status": {"phase": "Bound"}});
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{name}-volume")},
        "spec": {"csi": {"driver": "volumes.reddwarf.io", "volumeHandle": format!("{name}-volume")}, "mountOptions": options,
            "claimRef": {"namespace": "default", "name": name, "uid": format!("{name}-uid")}}});
    [claim, volume].map(|value| Object::from_value(value).unwrap())
}

#[test]
fn a_claim_for_one_pod_is_mounted_by_one_and_options_are_kept_or_refused() {
    let storage = reddwarf_node::NodeStorage { volume_root: "/storage".into(), about: String::new() };
    let mut setup = Setup { settings: NodeSettings { storage: Some(storage), ..settings() }, ..Setup::new() };
    setup.objects.extend(bound("one", "ReadWriteOncePod", json!([])));
    setup.objects.extend(bound("many", "ReadWriteOnce", json!([])));
    setup.objects.extend(bound("strict", "ReadWriteOnce", json!(["noexec", "nodev"])));
    let of = |name: &str, claim: &str, time: &str| {
        let mut pod = pod(name, mounting(json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}])));
        pod.set_creation_timestamp(time.parse().unwrap());
        pod.set("/spec/nodeName", settings().node_name);
        pod
    };
    let mine = |setup: &Setup, claim: &str| {
        let made = setup.sandbox_of(of("web", claim, "2026-01-02T03:04:05Z"), None);
        made.map(drop).map_err(|problems| problems[0].to_string())
    };
    assert_eq!(mine(&setup, "one"), Ok(()));
    let refused = mine(&setup, "strict").unwrap_err();
    assert!(refused.contains("mountOptions (noexec, nodev)"), "{refused}");
    let mut other = |claim: &str, time: &str, phase: &str| {
        let mut other = of("zeta", claim, time);
        other.set_uid("uid-2");
        other.set("/status/phase", phase);
        let of_all = setup.objects.iter().filter(|o| o.kind() != "Pod").cloned();
        setup.objects = of_all.chain([other]).collect();
        mine(&setup, claim)
    };
    assert_eq!(other("one", "2027-01-01T00:00:00Z", "Pending"), Ok(()), "a younger one gives way");
    assert_eq!(other("many", "2025-01-01T00:00:00Z", "Running"), Ok(()));
    assert_eq!(other("one", "2025-01-01T00:00:00Z", "Succeeded"), Ok(()), "it is over");
    assert_eq!(
        other("one", "2025-01-01T00:00:00Z", "Running").unwrap_err(),
        "FailedMount: MountVolume.SetUp failed for volume \"v\" : PVC default/one: volume uses the ReadWriteOncePod access mode \
         and is already in use by another pod: default/zeta [spec.volumes[0]]"
    );
}

/// A spec whose container mounts every volume.
fn mounting(volumes: Value) -> Value {
    let names = volumes.as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap());
    let mounts: Vec<_> = names.map(|n| json!({"name": n, "mountPath": format!("/mnt/{n}")})).collect();
    json!({"volumes": volumes, "containers": [{"name": "app", "image": "web:1", "volumeMounts": mounts}]})
}

#[test]
fn volumes() {
    let setup = Setup::new();
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        for (key, value) in source.as_object().unwrap() {
            volume[key] = value.clone();
        }
        let spec = setup.sandbox(mounting(json!([volume])));
        spec.map(|s| s.volumes.into_values().next().unwrap()).map_err(|e| e[0].to_string())
    };
    assert_eq!(
        volume(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})),
        Ok(VolumeSpec::EmptyDir { memory: true, size_limit_bytes: Some(1 << 20) })
    );
    let Ok(VolumeSpec::Files { files, secret }) = volume(
        json!({"secret": {"secretName": "key", "defaultMode": 256, "items": [{"key": "token", "path": "a/b"}]}}),
    ) else {
        panic!("files");
    };
    assert!(secret);
    assert_eq!(files["a/b"].mode, 0o400);
    assert_eq!(files["a/b"].bytes.expose(), b"s3cret");
    assert!(matches!(volume(json!({"hostPath": {"path": "/srv/data"}})), Ok(VolumeSpec::HostPath { .. })));
    for (source, expected) in [
        (
            json!({"configMap": {"name": "no"}}),
            "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"no\" not found [spec.volumes[0].configMap]",
        ),
        (
            json!({"configMap": {"name": "site", "items": [{"key": "n", "path": "../x"}]}}),
            "FailedMount: MountVolume.SetUp failed for volume \"v\" : \"../x\" must be a relative path without '..' [spec.volumes[0].configMap.items[0].path]",
        ),
        (
            json!({"hostPath": {"path": "/home"}}),
            "FailedMount: MountVolume.SetUp failed for volume \"v\" : \"/home\" is not below a path of host_path_allow in reddwarfd.toml [spec.volumes[0].hostPath.path]",
        ),
        (
            json!({"hostPath": {"path": "/srv/../etc"}}),
            "FailedMount: MountVolume.SetUp failed for volume \"v\" : \"/srv/../etc\" must be absolute and without '..' [spec.volumes[0].hostPath.path]",
        ),
        (
            json!({"nfs": {"server": "x"}}),
            "FailedMount: MountVolume.SetUp failed for volume \"v\" : this version mounts emptyDir, configMap, secret, downwardAPI, projected, hostPath and claims only [spec.volumes[0]]",
        ),
        (
            json!({"persistentVolumeClaim": {"claimName": "x"}}),
            "FailedMount: MountVolume.SetUp failed for volume \"v\" : persistentvolumeclaim \"x\" not found [spec.volumes[0]]",
        ),
    ] {
        assert_eq!(volume(source.clone()).unwrap_err(), expected, "{source}");
    }
    let all = Setup { settings: NodeSettings { host_path_allow: vec!["/".into()], ..settings() }, ..Setup::new() };
    for never in ["/", "/proc", "/sys/fs/cgroup", "/dev/sda"] {
        let refused = all.sandbox(mounting(json!([{"name": "v", "hostPath": {"path": never}}]))).unwrap_err();
        assert!(refused[0].message.contains("is never given to a pod"), "{never}: {}", refused[0]);
    }
}

#[test]
fn limits_of_the_pod_are_the_sum_and_missing_ones_lift_them() {
    let setup = Setup::new();
    let of = |containers: Value| setup.sandbox(json!({"containers": containers})).unwrap().resources;
    let one = |limits: Value| json!({"name": "a", "image": "web:1", "resources": {"limits": limits}});
    let both = of(json!([one(json!({"cpu": "500m", "memory": "64Mi"})), one(json!({"cpu": "1", "memory": "1M"}))]));
    assert_eq!(both.cpu_limit_millis, Some(1500));
    assert_eq!(both.memory_limit_bytes, Some((64 << 20) + 1_000_000));
    let open = of(json!([one(json!({"cpu": "500m"})), one(json!({}))]));
    assert_eq!((open.cpu_limit_millis, open.memory_limit_bytes), (None, None));
    let container = setup.container(one(json!({"memory": "64Mi"}))).unwrap().resources;
    assert_eq!(
        (container.memory_limit_bytes, container.pids_limit),
        (Some(64 << 20), Some(4096)),
        "processes are always limited"
    );
}

#[test]
fn a_change_of_the_hosts_dns_disturbs_no_running_pod() {
    let dns = |server: &str| {
        let host_dns =
            reddwarf_host::spec::ResolvConf { nameservers: vec![server.parse().unwrap()], ..Default::default() };
        Setup {
            settings: NodeSettings { host_dns, cluster_dns: Some("10.96.0.10".parse().unwrap()), ..settings() },
            ..Setup::new()
        }
    };
    let default = pod("web", json!({"dnsPolicy": "Default"}));
    let before = dns("192.0.2.1").sandbox_of(default.clone(), None).unwrap();
    let after = dns("192.0.2.2").sandbox_of(default, Some(&before)).unwrap();
    assert_eq!(after, before, "the host moved; the pod stays as it is");
    let cluster = dns("192.0.2.1").sandbox_of(pod("web", json!({"dnsPolicy": "ClusterFirst"})), None).unwrap();
    assert_eq!(cluster.dns.nameservers, ["10.96.0.10".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(cluster.dns.searches, ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    assert_eq!(cluster.dns.options, ["ndots:5"]);
    let kept = dns("192.0.2.1").sandbox_of(pod("web", json!({"dnsPolicy": "ClusterFirst"})), Some(&before)).unwrap();
    assert_eq!(kept, before, "a cluster DNS that is new in the settings restarts nothing");
    let edited = dns("192.0.2.1").sandbox_of(pod("web", json!({"dnsPolicy": "Default"})), Some(&cluster)).unwrap();
    assert_eq!(edited.dns, before.dns, "the pod asks for something else");
    let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.9"], "options": [{"name": "ndots", "value": "2"}]}});
    let own = dns("192.0.2.1").sandbox_of(pod("web", own), Some(&before)).unwrap();
    assert_eq!((own.dns.nameservers.len(), own.dns.options), (1, vec!["ndots:2".to_owned()]));
}

/// A moved image name disturbs nothing that runs; the next start takes it.
#[test]
fn a_running_container_keeps_its_image() {
    let setup = Setup::new();
    let object = pod("web", json!({}));
    let mut running = setup.container_of(object.clone()).unwrap();
    setup.translate(object, |desired, facts, identity| {
        let intent = &desired.pods[&key("web")];
        let all = translate::containers(intent);
        let again = translate::container(intent, &all[0], identity, facts, Some(&running)).unwrap();
        assert_eq!(again, running);
        // Its image is gone from the store: what the name means now is all there is.
        running.image = reddwarf_host::spec::ContainerImage::Image {
            id: ImageId::new(format!("sha256:{}", "b".repeat(64))).unwrap(),
        };
        let moved = translate::container(intent, &all[0], identity, facts, Some(&running)).unwrap();
        assert_ne!(moved.image, running.image);
    });
}

/// What a container hears of services at its start stays with it: a service that comes restarts nothing.
#[test]
fn services_are_told_of_at_the_start_only() {
    let setup = Setup::new();
    let env = |links: bool, running: Option<&ContainerSpec>, setup: &Setup| {
        let object = pod(
            "web",
            json!({"enableServiceLinks": links, "containers": [{"name": "app", "image": "web:1",
            "env": [{"name": "URL", "value": "http://$(NEW_SERVICE_HOST)"}]}]}),
        );
        setup.translate(object, |desired, facts, identity| {
            let intent = &desired.pods[&key("web")];
            translate::container(intent, &translate::containers(intent)[0], identity, facts, running).unwrap()
        })
    };
    let names = |spec: &ContainerSpec| spec.env.iter().filter(|v| v.name.ends_with("_HOST")).count();
    let before = env(true, None, &setup);
    assert_eq!((names(&before), names(&env(false, None, &setup))), (1, 0), "of its namespace, with an address");
    let mut later = Setup::new();
    later.objects.push(service("default", "new", "10.96.0.9", "", 1));
    assert_eq!(env(true, Some(&before), &later), before);
    let fresh = env(true, None, &later);
    assert_eq!(names(&fresh), 2);
    assert!(fresh.env.iter().any(|v| v.name == "URL" && v.value.expose() == "http://10.96.0.9"));
    assert!(reddwarf_node::compare::container(&before, &ContainerSpec { env: before.env.clone(), ..fresh }).is_empty());
}

/// What references led to when a container started stays with it, whatever becomes of their targets: in variables, in
/// arguments and in paths made of them. A reference that points elsewhere is a change of the pod.
#[test]
fn references_are_followed_at_the_start_only() {
    let object = |key: &str, colour: &str| {
        let mut object = pod(
            "web",
            json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "app", "image": "web:1",
            "args": ["$(X)", "$(C)"], "volumeMounts": [{"name": "v", "mountPath": "/v", "subPathExpr": "$(X)"}],
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "site"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "site", "key": key}}},
                {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['colour']"}}},
                {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}],
            "resources": {"limits": {"memory": if colour == "red" { "64Mi" } else { "128Mi" }}}}]}),
        );
        object.set_label("colour", colour);
        object
    };
    let spec = |setup: &Setup, object: Object, running: Option<&ContainerSpec>| {
        setup.translate(object, |desired, facts, identity| {
            let intent = &desired.pods[&key("web")];
            translate::container(intent, &translate::containers(intent)[0], identity, facts, running)
        })
    };
    let differs = |a: &ContainerSpec, b: &ContainerSpec| {
        let found = reddwarf_node::compare::container(a, b);
        found.into_iter().map(|d| d.field).collect::<Vec<_>>()
    };
    let before = spec(&Setup::new(), object("greeting", "red"), None).unwrap();
    assert_eq!(
        (before.argv.clone(), before.mounts[0].sub_path.as_str()),
        (vec!["/entry".into(), "hello".into(), "red".into()], "hello")
    );
    let kept: ContainerSpec = serde_json::from_value(serde_json::to_value(&before).unwrap()).unwrap();
    assert_eq!(kept, before);
    let mut later = Setup::new();
    later.objects[0] = config("ConfigMap", "site", &[("greeting", "bye"), ("n", "2"), ("more", "1")]);
    later.objects.push(config("Secret", "none", &[("late", "1")]));
    let after = spec(&later, object("greeting", "blue"), Some(&kept)).unwrap();
    assert_eq!(differs(&before, &after), ["resources"], "limits change in place");
    assert_eq!(ContainerSpec { resources: before.resources, oom_score_adj: before.oom_score_adj, ..after }, before);
    // Gone: what runs is none the worse for it.
    let mut without = Setup::new();
    without.objects.remove(0);
    assert_eq!(spec(&without, object("greeting", "red"), Some(&kept)).unwrap(), before);
    assert!(spec(&without, object("greeting", "red"), None).is_err());
    // The next start follows them anew, and so does one whose version kept nothing.
    let fresh = spec(&later, object("greeting", "blue"), None).unwrap();
    assert_eq!(fresh.argv, ["/entry", "bye", "blue"]);
    let legacy = ContainerSpec { references: None, ..kept.clone() };
    assert_eq!(differs(&legacy, &spec(&Setup::new(), object("greeting", "red"), Some(&legacy)).unwrap()), [""; 0]);
    // Another reference is another pod, even where it leads to the same.
    let mut same = Setup::new();
    same.objects[0] = config("ConfigMap", "site", &[("greeting", "hello"), ("n", "1"), ("other", "hello")]);
    assert_eq!(differs(&kept, &spec(&same, object("other", "red"), Some(&kept)).unwrap()), ["env"]);
}

#[test]
fn files_of_every_source() {
    let setup = Setup::new();
    let files = |source: Value, context: Value| {
        let mut spec = mounting(json!([source]));
        spec["securityContext"] = context;
        let mut object = pod("web", spec);
        object.set_label("tier", "a\"b");
        let sandbox = setup.sandbox_of(object, None).map_err(|e| e[0].message.clone())?;
        let Some(VolumeSpec::Files { files, secret }) = sandbox.volumes.into_values().next() else { panic!("files") };
        assert!(secret, "kept in memory");
        let line = |(n, f): (String, reddwarf_host::spec::FileContent)| {
            let owner = f.owner.map(|o| format!(" of {o}")).unwrap_or_default();
            format!("{n} {:o}{owner}: {}", f.mode, String::from_utf8_lossy(f.bytes.expose()))
        };
        Ok::<_, String>(files.into_iter().map(line).collect::<Vec<_>>())
    };
    let downward = json!({"name": "v", "downwardAPI": {"defaultMode": 256, "items": [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "a/uid", "mode": 438, "fieldRef": {"fieldPath": "metadata.uid"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu", "divisor": "1m"}}]}});
    assert_eq!(
        files(downward, json!({})).unwrap(),
        ["a/uid 666: uid-1", "cpu 400: 7500", "labels 400: tier=\"a\\\"b\""]
    );
    let projected = |sources: Value| json!({"name": "v", "projected": {"defaultMode": 292, "sources": sources}});
    let all = projected(json!([
        {"configMap": {"name": "site", "items": [{"key": "greeting", "path": "x/hello"}]}},
        {"secret": {"name": "key"}},
        {"secret": {"name": "none", "optional": true}},
        {"clusterTrustBundle": {"name": "b", "optional": true, "path": "trust.pem"}},
        {"downwardAPI": {"items": [{"path": "token", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]));
    assert_eq!(files(all, json!({})).unwrap(), ["token 444: web", "trust.pem 444: ", "x/hello 444: hello"]);
    let token = projected(json!([{"serviceAccountToken": {"path": "t"}}]));
    assert_eq!(files(token.clone(), json!({})).unwrap(), ["t 444: "]);
    assert_eq!(files(token.clone(), json!({"fsGroup": 5})).unwrap(), ["t 600: "]);
    assert_eq!(files(token, json!({"runAsUser": 7})).unwrap(), ["t 600 of 7: "]);
    for (source, expected) in [
        (json!({"configMap": {"name": "no"}}), "configmap \"no\" not found"),
        (
            json!({"secret": {"name": "key", "items": [{"key": "k", "path": "p"}]}}),
            "references non-existent secret key: k",
        ),
        (
            json!({"configMap": {"name": "site", "items": [{"key": "k", "path": "p"}]}}),
            "configmap references non-existent config key: k",
        ),
        (
            json!({"clusterTrustBundle": {"name": "b", "path": "p"}}),
            "clustertrustbundle.certificates.k8s.io \"b\" not found",
        ),
        (json!({"podCertificate": {}}), "names no source that this version knows"),
    ] {
        let message = files(projected(json!([source])), json!({})).unwrap_err();
        assert_eq!(message, format!("MountVolume.SetUp failed for volume \"v\" : {expected}"));
    }
    let both = projected(json!([{"configMap": {"name": "a"}}, {"secret": {"name": "b"}}]));
    let message = files(both, json!({})).unwrap_err();
    assert!(message.ends_with(" : [configmap \"a\" not found, secret \"b\" not found]"), "{message}");
}

/// As in the reference, what no container mounts keeps no pod from running.
#[test]
fn a_volume_that_nobody_mounts_is_not_made() {
    let setup = Setup::new();
    let spec = json!({"volumes": [{"name": "v", "configMap": {"name": "no"}}, {"name": "e", "emptyDir": {}}]});
    let sandbox = setup.sandbox(spec).unwrap();
    assert_eq!(sandbox.volumes.keys().map(|k| k.as_str()).collect::<Vec<_>>(), ["e"]);
}

#[test]
fn memory_volumes_have_the_pods_memory() {
    let setup = Setup::new();
    let limit = |dir: Value, container: Value, running: Option<&SandboxSpec>| {
        let mut spec = mounting(json!([{"name": "v", "emptyDir": dir}]));
        spec["containers"][0]["resources"] = container;
        let sandbox = setup.sandbox_of(pod("web", spec), running).unwrap();
        let Some(VolumeSpec::EmptyDir { memory: true, size_limit_bytes }) = sandbox.volumes.values().next() else {
            panic!("memory")
        };
        (*size_limit_bytes, sandbox)
    };
    let limits = json!({"limits": {"memory": "64Mi"}});
    assert_eq!(limit(json!({"medium": "Memory"}), json!({}), None).0, Some(16 << 30), "the host's");
    let (of_pod, before) = limit(json!({"medium": "Memory"}), limits.clone(), None);
    assert_eq!(of_pod, Some(64 << 20));
    assert_eq!(limit(json!({"medium": "Memory", "sizeLimit": "1Gi"}), limits, None).0, Some(64 << 20));
    assert_eq!(limit(json!({"medium": "Memory"}), json!({}), Some(&before)).0, Some(64 << 20), "stays as it was made");
}

#[test]
fn mounts_are_as_asked() {
    use reddwarf_host::spec::{Propagation, RecursiveReadOnly};
    let setup = Setup::new();
    let mount = |mount: Value| {
        let container = json!({"name": "app", "image": "web:1", "env": [{"name": "N", "value": "x/./y"}],
            "volumeMounts": [mount]});
        setup
            .container_of(pod("web", json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}}]})))
            .map(|c| c.mounts[0].clone())
            .map_err(|e| e.to_string())
    };
    let with = |extra: Value| {
        let mut all = json!({"name": "v", "mountPath": "/v"});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        mount(all)
    };
    let plain = with(json!({})).unwrap();
    assert_eq!(
        (plain.propagation, plain.recursive_read_only),
        (Some(Propagation::None), Some(RecursiveReadOnly::Disabled))
    );
    let through = with(json!({"mountPropagation": "HostToContainer"})).unwrap();
    assert_eq!(through.propagation, Some(Propagation::HostToContainer));
    let deep = with(json!({"readOnly": true, "recursiveReadOnly": "IfPossible"})).unwrap();
    assert_eq!(deep.recursive_read_only, Some(RecursiveReadOnly::IfPossible));
    assert_eq!(with(json!({"subPathExpr": "$(N)/z"})).unwrap().sub_path, "x/y/z");
    for (extra, expected) in [
        (json!({"subPathExpr": "$(NONE)"}), "missing value for \"$(NONE)\""),
        (json!({"subPath": "a/../b"}), "must not contain '..'"),
        (json!({"subPathExpr": "/$(N)"}), "must not be an absolute path"),
    ] {
        let error = with(extra).unwrap_err();
        assert!(error.starts_with("CreateContainerConfigError") && error.contains(expected), "{error}");
    }
}
