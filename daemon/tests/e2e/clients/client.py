"""What a program with Kubernetes' Python client does to a live daemon: every call is the client's own."""

import json
import sys
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

config.load_kube_config(sys.argv[1])
core, apps, batch, custom = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api(), client.CustomObjectsApi()


def check(what, good):
    if not good:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}", flush=True)


def refused(code, reason, call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiException as e:
        return e.status == code and json.loads(e.body)["reason"] == reason
    return False


def until(what, good, seconds=30):
    end = time.monotonic() + seconds
    while not good():
        if time.monotonic() > end:
            sys.exit(f"FAILED: {what} did not happen within {seconds} s")
        time.sleep(0.1)
    print(f"ok: {what}", flush=True)


check("version", client.VersionApi().get_code().major == "1")
check("discovery", any(r.name == "pods" and "po" in r.short_names for r in core.get_api_resources().resources))
check("groups", any(g.name == "apps" for g in client.ApisApi().get_api_versions().groups))

core.create_namespace({"metadata": {"name": "py"}})
made = core.create_namespaced_config_map("py", client.V1ConfigMap(metadata={"name": "a", "labels": {"n": "1"}}, data={"k": "1"}))
check("create", made.metadata.uid and made.metadata.resource_version)
check("create twice", refused(409, "AlreadyExists", core.create_namespaced_config_map, "py", {"metadata": {"name": "a"}}))
check("missing", refused(404, "NotFound", core.read_namespaced_config_map, "nope", "py"))
check("invalid", refused(422, "Invalid", core.create_namespaced_config_map, "py", {"metadata": {"name": "No"}}))

made.data["k"] = "2"
replaced = core.replace_namespaced_config_map("a", "py", made)
check("replace", replaced.data == {"k": "2"})
check("stale replace", refused(409, "Conflict", core.replace_namespaced_config_map, "a", "py", made))
check("patch", core.patch_namespaced_config_map("a", "py", {"data": {"l": "3"}}).data == {"k": "2", "l": "3"})
operations = [{"op": "remove", "path": "/data/l"}]
check("JSON patch", core.patch_namespaced_config_map("a", "py", operations).data == {"k": "2"})

for i in range(5):
    core.create_namespaced_config_map("py", {"metadata": {"name": f"p{i}", "labels": {"page": "y"}}})
seen, token = [], None
while True:
    page = core.list_namespaced_config_map("py", limit=2, label_selector="page=y", _continue=token)
    seen += [c.metadata.name for c in page.items]
    token = page.metadata._continue
    if not token:
        break
check("pages", seen == [f"p{i}" for i in range(5)])
check("field selector", len(core.list_namespaced_config_map("py", field_selector="metadata.name=p3").items) == 1)

watcher, events = watch.Watch(), []
listed = core.list_namespaced_config_map("py")
core.patch_namespaced_config_map("a", "py", {"metadata": {"labels": {"n": "2"}}})
core.delete_namespaced_config_map("p0", "py")
for event in watcher.stream(core.list_namespaced_config_map, "py", resource_version=listed.metadata.resource_version, timeout_seconds=10):
    events.append((event["type"], event["object"].metadata.name))
    if len(events) == 2:
        watcher.stop()
check("watch", events == [("MODIFIED", "a"), ("DELETED", "p0")])

pod = {
    "metadata": {"name": "box", "namespace": "py"},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": "main", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo started; mkdir /w; echo hello > /w/index.html; exec httpd -f -p 8080 -h /w"],
        }],
    },
}
core.create_namespaced_pod("py", pod)
ready = lambda: any(c.type == "Ready" and c.status == "True" for c in core.read_namespaced_pod("box", "py").status.conditions or [])
until("the pod is ready", ready)
check("log", core.read_namespaced_pod_log("box", "py") == "started\n")
said = stream(core.connect_get_namespaced_pod_exec, "box", "py", command=["echo", "hi"], stderr=True, stdin=False, stdout=True, tty=False)
check("exec", said == "hi\n")
session = stream(core.connect_get_namespaced_pod_exec, "box", "py", command=["sh", "-c", "exit 7"], stderr=True, stdin=False, stdout=True, tty=False, _preload_content=False)
session.run_forever(timeout=10)
check("exit code", session.returncode == 7)
forward = portforward(core.connect_get_namespaced_pod_portforward, "box", "py", ports="8080")
socket = forward.socket(8080)
socket.setblocking(True)
socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
answer = b""
while True:
    piece = socket.recv(4096)
    if not piece:
        break
    answer += piece
check("port-forward", answer.endswith(b"hello\n"))

body = {"spec": {"replicas": 2}}
deployment = {
    "metadata": {"name": "d"},
    "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "d"}}, "template": {"metadata": {"labels": {"a": "d"}}, "spec": {"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "docker.io/library/busybox:latest", "imagePullPolicy": "Never", "command": ["sleep", "1000"]}]}}},
}
apps.create_namespaced_deployment("py", deployment)
check("scale", apps.patch_namespaced_deployment_scale("d", "py", body).spec.replicas == 2)
until("the deployment is available", lambda: apps.read_namespaced_deployment_status("d", "py").status.available_replicas == 2)

dynamo = dynamic.DynamicClient(client.ApiClient())
maps = dynamo.resources.get(api_version="v1", kind="ConfigMap")
applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ssa", "namespace": "py"}, "data": {"a": "1"}}
first = maps.server_side_apply(body=json.dumps(applied), name="ssa", namespace="py", field_manager="one")
again = maps.server_side_apply(body=json.dumps(applied), name="ssa", namespace="py", field_manager="one")
check("apply without change", first.metadata.resourceVersion == again.metadata.resourceVersion)
applied["data"]["a"] = "2"
try:
    maps.server_side_apply(body=json.dumps(applied), name="ssa", namespace="py", field_manager="two")
    check("apply conflict", False)
except dynamic.exceptions.ConflictError as e:
    check("apply conflict", 'conflict with "one"' in json.loads(e.body)["message"])

review = client.AuthorizationV1Api().create_self_subject_access_review({"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}})
check("access review", review.status.allowed)
core.delete_namespace("py")
until("the namespace is gone", lambda: refused(404, "NotFound", core.read_namespace, "py"))
