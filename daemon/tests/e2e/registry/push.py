"""Pushes an image to a registry: push.py URL CA|- USER:PASSWORD|- NAME TAG COMPRESSION LAYER...

Each LAYER is a directory that becomes one layer. Prints the manifest's digest. COMPRESSION: none, gzip or zstd.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import urllib.request

url, ca, login, name, tag, compression = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca) if ca != "-" else None


def ask(method, target, body=b"", headers=None):
    target = target if target.startswith("http") else url + target
    request = urllib.request.Request(target, data=body or None, method=method, headers=headers or {})
    if login != "-":
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    return urllib.request.urlopen(request, context=context)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push_blob(data):
    place = ask("POST", f"/v2/{name}/blobs/uploads/").headers["Location"]
    joint = "&" if "?" in place else "?"
    ask("PUT", f"{place}{joint}digest={digest(data)}", data, {"Content-Type": "application/octet-stream"})
    return {"digest": digest(data), "size": len(data)}


def packed(directory):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for entry in sorted(os.listdir(directory)):
            tar.add(os.path.join(directory, entry), arcname=entry)
    return out.getvalue()


def compressed(data):
    if compression == "gzip":
        return gzip.compress(data, 1), "+gzip"
    if compression == "zstd":
        return subprocess.run(["zstd", "-q", "-1", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout, "+zstd"
    return data, ""


layers, diff_ids = [], []
for directory in sys.argv[7:]:
    tar = packed(directory)
    data, suffix = compressed(tar)
    diff_ids.append(digest(tar))
    layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar" + suffix, **push_blob(data)})
config = json.dumps({
    "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
    "os": "linux",
    "config": {"Cmd": ["/bin/sh", "-c", "echo $(cat /version); exec sleep 1000"], "Env": ["PATH=/bin"]},
    "rootfs": {"type": "layers", "diff_ids": diff_ids},
}).encode()
described = {"mediaType": "application/vnd.oci.image.config.v1+json", **push_blob(config)}
media = "application/vnd.oci.image.manifest.v1+json"
manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "config": described, "layers": layers}).encode()
ask("PUT", f"/v2/{name}/manifests/{tag}", manifest, {"Content-Type": media})
print(digest(manifest))
