//! Images from a real registry (Debian's docker-registry, which `.ci/registry` fetches) with TLS of a test's own authority
//! and passwords.

use crate::harness::{World, run, skip};
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const REGISTRY: &str = "127.0.0.1:5000";
/// bcrypt of `abc`.
const HTPASSWD: &str = "user:$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i\n";

/// The registry's program; `None` where it was not fetched.
fn program() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools/docker-registry");
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "docker-registry is not at {}: .ci/registry fetches it", path.display());
    eprintln!("SKIPPED: there is no docker-registry (.ci/registry fetches it from Debian)");
    None
}

/// A registry on the world's own loopback.
struct Registry {
    process: Child,
    dir: PathBuf,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn put(path: &Path, text: &str, mode: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Registry {
    fn start(world: &World, program: &Path) -> Self {
        let dir = world.dir.join("registry");
        put(&dir.join("htpasswd"), HTPASSWD, 0o600);
        let at = |name: &str| dir.join(name).display().to_string();
        let subject = ["-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"];
        // What openssl makes by itself is an authority's, which is no server's.
        let server = ["-addext", "basicConstraints=critical,CA:FALSE"];
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let files = ["-keyout", &at("key.pem"), "-out", &at("cert.pem")];
        run("openssl", &[&["req", "-x509"][..], &key, &subject, &server, &files].concat()).ok();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{REGISTRY}\", tls: {{certificate: {}, key: {}}}}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            at("data"),
            at("cert.pem"),
            at("key.pem"),
            at("htpasswd")
        );
        put(&dir.join("registry.yml"), &config, 0o600);
        let mut command = world.inside(program.to_str().unwrap());
        let log = std::fs::File::create(dir.join("log")).unwrap();
        command.args(["serve", &at("registry.yml")]).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let registry = Self { process: command.spawn().unwrap(), dir };
        world.until("the registry to answer", |w| {
            let url = format!("https://{REGISTRY}/v2/");
            let mut curl = w.inside("curl");
            curl.args(["-sko", "/dev/null", "-w", "%{http_code}", &url]);
            (curl.output().unwrap().stdout == b"401").then_some(())
        });
        registry
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.process.id() as i32)
    }

    /// Pushes directories as layers; the manifest's digest.
    fn push(&self, world: &World, name: &str, tag: &str, compression: &str, layers: &[PathBuf]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/registry/push.py");
        let mut python = world.inside("python3");
        python.args([script, &format!("https://{REGISTRY}")]).arg(self.dir.join("cert.pem"));
        let out = python.args(["user:abc", name, tag, compression]).args(layers).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

/// A root file system of busybox; `version` lies in a layer of its own.
fn layers(world: &World, version: &str) -> Vec<PathBuf> {
    let base = world.dir.join("layers/base");
    if !base.exists() {
        std::fs::create_dir_all(base.join("bin")).unwrap();
        std::fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        for name in ["sh", "cat", "sleep", "echo", "ls"] {
            symlink("busybox", base.join("bin").join(name)).unwrap();
        }
    }
    let own = world.dir.join(format!("layers/{version}"));
    put(&own.join("version"), version, 0o644);
    vec![base, own]
}

fn secret(name: &str, password: &str) -> String {
    use base64::Engine;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let config = json!({ "auths": { REGISTRY: { "auth": encode(&format!("user:{password}")) } } });
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\ntype: kubernetes.io/dockerconfigjson\n\
         data: {{.dockerconfigjson: {}}}\n",
        encode(&config.to_string())
    )
}

fn pod(name: &str, image: &str, policy: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  terminationGracePeriodSeconds: 0\n{more}  \
         containers:\n  - {{name: app, image: \"{image}\", imagePullPolicy: {policy}}}\n"
    )
}

fn world(test: &str) -> World {
    let world = World::new(test);
    let (ca, auth) = (world.dir.join("registry/cert.pem"), world.dir.join("auth.json"));
    let (ca, auth) = (format!("--registry-ca={}", ca.display()), format!("--registry-auth={}", auth.display()));
    world.arg(&ca).arg(&auth)
}

fn reason(pod: &serde_json::Value) -> &str {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

#[test]
fn pods_run_from_a_registry_with_tls_and_passwords() {
    let Some(program) = program().filter(|_| !skip()) else { return };
    let mut world = world("registry");
    let registry = Registry::start(&world, &program);
    let first = registry.push(&world, "team/web", "1", "gzip", &layers(&world, "one"));
    world.start();
    let image = format!("{REGISTRY}/team/web:1");

    // Nobody is let in without a password, and is told where to put one.
    let refused = world.ctl(&["image", "pull", &image]).exits(1);
    assert!(refused.err.contains("imagePullSecret") && refused.err.contains("registry_auth"), "{}", refused.err);
    let missing = json!({ "auths": { REGISTRY: { "username": "user", "password": "abc" } } });
    put(&world.dir.join("auth.json"), &missing.to_string(), 0o600);
    let said = world.ctl(&["image", "pull", &format!("{REGISTRY}/team/web:none")]).exits(1);
    assert!(said.err.contains("404"), "{}", said.err);
    let said = world.ctl(&["image", "pull", &image]).ok();
    assert!(said.contains("pulled in") && said.contains(&format!("{REGISTRY}/team/web@{first}")), "{said}");
    assert!(world.ctl(&["image", "pull", &image]).ok().contains("is up to date"));
    let list = world.json(&["image", "ls", "-o", "json"]);
    assert_eq!(list["items"][0]["pulled"][&image], format!("{REGISTRY}/team/web@{first}"));
    let blobs = std::fs::read_dir(world.dir.join("state/images/pulls")).unwrap().count();
    assert_eq!(blobs, 0, "blobs are left of a pull that succeeded");
    assert!(world.ctl(&["image", "prune"]).ok().contains("1 images"));
    std::fs::remove_file(world.dir.join("auth.json")).unwrap();

    // A pod with a secret, first a wrong one.
    world.file("secret.yaml", &secret("pull", "wrong"));
    world.file("web.yaml", &pod("web", &image, "Always", "  imagePullSecrets: [{name: pull}]\n"));
    world.until("the failure to show", |w| w.pod("web").filter(|p| reason(p) == "ImagePullBackOff"));
    world.file("secret.yaml", &secret("pull", "abc"));
    let ready = world.ready("web");
    let status = &ready["status"]["containerStatuses"][0];
    assert_eq!(status["imageID"], format!("{REGISTRY}/team/web@{first}"));
    assert_eq!(world.exec("web", &["cat", "/version"]).ok(), "one");
    let events = world.ctl(&["events"]).ok();
    for words in ["Pulling image", "Successfully pulled image", "Failed to pull image", "Back-off pulling image"] {
        assert!(events.contains(words), "{words} is missing in\n{events}");
    }
    assert!(!world.log().contains("dXNlcjphYmM") && !events.contains("dXNlcjphYmM"), "a password shows");

    // The tag moves on: a restart takes the new content, zstd this time; the lower layer is not fetched again.
    let second = registry.push(&world, "team/web", "1", "zstd", &layers(&world, "two"));
    world.ctl(&["restart", "pod/web"]).ok();
    world.until("the new image", |w| {
        let pod = w.pod("web").filter(crate::harness::is_ready)?;
        let id = pod["status"]["containerStatuses"][0]["imageID"].as_str()?;
        (id == format!("{REGISTRY}/team/web@{second}")).then_some(())
    });
    assert_eq!(world.exec("web", &["cat", "/version"]).ok(), "two");

    // By its account's secret, and a bad version that leaves the good one alone.
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: puller, namespace: default}\nimagePullSecrets: [{name: pull}]\n";
    world.file("account.yaml", account);
    let by_digest = format!("{REGISTRY}/team/web@{first}");
    world.file("old.yaml", &pod("old", &by_digest, "IfNotPresent", "  serviceAccountName: puller\n"));
    world.ready("old");
    assert_eq!(world.exec("old", &["cat", "/version"]).ok(), "one");
    let (more, bad) = ("  imagePullSecrets: [{name: pull}]\n", format!("{REGISTRY}/team/web:bad"));
    world.file("web.yaml", &pod("web", &bad, "IfNotPresent", more));
    world.until("the reason to show", |w| {
        let pod = w.pod("web")?.to_string();
        (pod.contains("UpToDate") && pod.contains("team/web:bad")).then_some(())
    });
    assert_eq!(world.exec("web", &["cat", "/version"]).ok(), "two");
    // What runs is not pruned.
    world.ctl(&["image", "prune", "--all"]).ok();
    assert_eq!(world.exec("web", &["cat", "/version"]).ok(), "two");
    assert_eq!(world.json(&["image", "ls", "-o", "json"])["items"].as_array().unwrap().len(), 2);
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_pull_leaves_nothing_half_imported_and_goes_on() {
    let Some(program) = program().filter(|_| !skip()) else { return };
    let mut world = world("registry-crash");
    let registry = Registry::start(&world, &program);
    let mut layers = layers(&world, "one");
    let big = world.dir.join("layers/big");
    std::fs::create_dir_all(&big).unwrap();
    let mut noise = std::fs::File::open("/dev/urandom").map(|f| std::io::Read::take(f, 48 << 20)).unwrap();
    std::io::copy(&mut noise, &mut std::fs::File::create(big.join("noise")).unwrap()).unwrap();
    layers.push(big);
    registry.push(&world, "big", "1", "none", &layers);
    let login = json!({ "auths": { REGISTRY: { "username": "user", "password": "abc" } } });
    put(&world.dir.join("auth.json"), &login.to_string(), 0o600);
    world.start();
    let image = format!("{REGISTRY}/big:1");
    let pulls = world.dir.join("state/images/pulls");
    let parts = || -> u64 {
        let entries = std::fs::read_dir(&pulls).into_iter().flatten().flatten();
        entries
            .filter(|e| e.path().extension().is_some_and(|e| e == "part"))
            .map(|e| e.metadata().map_or(0, |m| m.len()))
            .sum()
    };
    let mut client = world.ctl_command();
    let mut client =
        client.args(["image", "pull", &image]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while parts() < 1 << 20 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_micros(200));
    }
    nix::sys::signal::kill(registry.pid(), nix::sys::signal::SIGSTOP).unwrap();
    world.kill9();
    let _ = client.wait();
    let here = parts();
    assert!(here > 0, "it was killed too late or too early");
    nix::sys::signal::kill(registry.pid(), nix::sys::signal::SIGCONT).unwrap();
    world.start();
    assert_eq!(world.json(&["image", "ls", "-o", "json"])["items"], json!([]));
    assert!(world.ctl(&["image", "pull", &image]).ok().contains("pulled in"));
    assert_eq!(world.json(&["image", "ls", "-o", "json"])["items"].as_array().unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(&pulls).unwrap().count(), 0);
}

#[test]
fn what_a_registry_or_a_disk_does_to_a_pull_is_said_and_leaves_nothing() {
    let Some(program) = program().filter(|_| !skip()) else { return };
    let mut world = world("registry-faults");
    let registry = Registry::start(&world, &program);
    registry.push(&world, "small", "1", "gzip", &layers(&world, "one"));
    // Packed it is small enough for the disk, unpacked it is not.
    let zeros = world.dir.join("layers/zeros");
    std::fs::create_dir_all(&zeros).unwrap();
    std::fs::File::create(zeros.join("zeros")).unwrap().set_len(64 << 20).unwrap();
    registry.push(&world, "big", "1", "gzip", &[zeros]);
    let login = json!({ "auths": { REGISTRY: { "username": "user", "password": "abc" } } });
    put(&world.dir.join("auth.json"), &login.to_string(), 0o600);
    let images = world.dir.join("state/images");
    std::fs::create_dir_all(&images).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=24m", "tmpfs", images.to_str().unwrap()]).ok();
    world.start();
    let of = |name: &str| format!("{REGISTRY}/{name}:1");
    let left = |dir: &str| std::fs::read_dir(images.join(dir)).unwrap().count();

    // F39: the disk is full in the middle.
    let full = world.ctl(&["image", "pull", &of("big")]).exits(1);
    assert!(full.err.contains("No space left on device"), "{}", full.err);
    assert_eq!((left("layers"), left("tmp"), left("pulls"), left("records")), (0, 0, 0, 0), "something is left");
    world.file("big.yaml", &pod("big", &of("big"), "IfNotPresent", ""));
    world.until("the reason to show", |w| {
        let pod = w.pod("big").filter(|p| reason(p) == "ErrImagePull" || reason(p) == "ImagePullBackOff")?;
        let seen = w.ctl(&["why", "pod/big"]).out;
        (seen.contains("No space left on device") && pod["status"]["phase"] == "Pending").then_some(())
    });
    world.remove("big.yaml");
    world.ctl(&["image", "pull", &of("small")]).ok();

    // The registry is down: what is here runs, what is not says so.
    drop(registry);
    world.file("here.yaml", &pod("here", &of("small"), "IfNotPresent", ""));
    world.until("it to start", |w| {
        let id = w.pod("here")?["status"]["containerStatuses"][0]["containerID"].as_str()?.to_owned();
        (!id.is_empty()).then_some(())
    });
    world.file("away.yaml", &pod("away", &format!("{REGISTRY}/small@sha256:{}", "0".repeat(64)), "IfNotPresent", ""));
    world.until("the reason to show", |w| {
        w.pod("away").filter(|p| matches!(reason(p), "RegistryUnavailable" | "ImagePullBackOff"))
    });
    let events = world.ctl(&["events"]).ok();
    assert!(events.contains("registry is unavailable") && events.contains("Connection refused"), "{events}");
    let down = world.ctl(&["image", "pull", &of("big")]).exits(1);
    assert!(down.err.contains("can't be reached"), "{}", down.err);
}

const RECIPE: &str = "name: local/web:1
from: local/base:1
files:
- {from: site, to: /srv/www, owner: '33:33'}
run:
- /bin/busybox mkdir /srv/state && echo built on $(cat /srv/www/version) > /srv/state/note
- [/bin/busybox, rm, /version]
cmd: [/bin/sh, -c, 'cat /srv/state/note; echo $GREETING; exec sleep 1000']
env: {GREETING: hello}
";

#[test]
fn a_golden_image_is_built_of_a_recipe_and_pods_start_from_it() {
    if skip() {
        return;
    }
    let world = World::started("golden");
    let root = world.dir.join("root");
    run("cp", &["-a", layers(&world, "one")[0].to_str().unwrap(), root.to_str().unwrap()]).ok();
    put(&root.join("version"), "base", 0o644);
    let root = root.display().to_string();
    let said = world.ctl(&["image", "build", &root, "--name", "local/base:1", "--cmd=/bin/sleep", "--cmd=1000"]).ok();
    assert!(said.contains("local/base:1 is sha256:") && said.contains("built in"), "{said}");
    put(&world.dir.join("recipe/site/version"), "site 7", 0o644);
    let recipe = world.dir.join("recipe/web.yaml");
    put(&recipe, RECIPE, 0o644);
    let recipe = recipe.display().to_string();
    let built = world.ctl(&["image", "build", &recipe]).exits(0);
    assert!(built.err.contains("command 2 of 2: /bin/busybox rm /version"), "{}", built.err);
    let list = world.json(&["image", "ls", "-o", "json"]);
    let mut names: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|i| i["names"][0].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["local/base:1", "local/web:1"], "nothing unfinished is left");
    assert_eq!(world.json(&["get", "pods", "-o", "json"])["items"], json!([]));

    world.file("web.yaml", &pod("web", "local/web:1", "Never", ""));
    world.ready("web");
    assert_eq!(world.exec("web", &["cat", "/srv/state/note"]).ok(), "built on site 7\n");
    assert_eq!(world.exec("web", &["/bin/busybox", "stat", "-c", "%u", "/srv/www/version"]).ok(), "33\n");
    assert_eq!(world.exec("web", &["/bin/busybox", "ls", "/"]).ok(), "bin\ndev\netc\nproc\nsrv\nsys\nvar\n");
    world.until("the log", |w| w.ctl(&["logs", "pod/web"]).out.contains("built on site 7\nhello\n").then_some(()));
    // The second one is a clone like the first: it shares all but what it writes itself.
    world.file("two.yaml", &pod("two", "local/web:1", "Never", ""));
    world.ready("two");
    world.exec("two", &["/bin/busybox", "rm", "/srv/state/note"]).ok();
    assert_eq!(world.exec("web", &["cat", "/srv/state/note"]).ok(), "built on site 7\n");

    // A command that fails: its words, its code, and nothing else changes.
    let bad = RECIPE.replace("name: local/web:1", "name: local/bad:1");
    let bad = bad.replace("/bin/busybox mkdir /srv/state &&", "echo oh dear; exit 7;");
    let path = world.dir.join("recipe/bad.yaml");
    put(&path, &bad, 0o644);
    let failed = world.ctl(&["image", "build", path.to_str().unwrap()]).exits(1);
    assert!(failed.err.contains("oh dear\n") && failed.err.contains("exit code 7"), "{}", failed.err);
    assert!(failed.err.contains("command 1 of 2"), "{}", failed.err);
    assert_eq!(world.json(&["image", "ls", "-o", "json"])["items"].as_array().unwrap().len(), 2);
    for (text, why) in [
        ("name: a\nfrom: 127.0.0.1:1/at/all:1\n", "failed to pull"),
        ("name: a\nfrom: local/base:1\nfiles: [{from: none, to: /}]\n", "no such file"),
        ("name: a\n", "made of nothing"),
        ("name: a\nform: x\n", "unknown field `form`"),
    ] {
        put(&path, text, 0o644);
        let refused = world.ctl(&["image", "build", path.to_str().unwrap()]).exits(1);
        assert!(refused.err.contains(why), "{text}: {}", refused.err);
    }
}

#[test]
fn a_build_that_a_kill_broke_off_leaves_nothing() {
    if skip() {
        return;
    }
    let mut world = World::started("golden-crash");
    let root = layers(&world, "one")[0].clone();
    let recipe = world.dir.join("recipe.yaml");
    put(&recipe, &format!("name: local/slow:1\nrootfs: {}\nrun: [echo begun; sleep 1000]\n", root.display()), 0o644);
    let mut client = world.ctl_command();
    let client = client.args(["image", "build"]).arg(&recipe).stdout(Stdio::null()).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    let pods = |w: &World| w.json(&["get", "pods", "-o", "json"])["items"].as_array().unwrap().clone();
    world.until("the command to run", |w| pods(w).iter().any(|p| p["status"]["phase"] == "Running").then_some(()));
    world.kill9();
    let _ = client.wait();
    world.start();
    world.until("what is left to go", |w| {
        let images = w.json(&["image", "ls", "-o", "json"])["items"].as_array().unwrap().len();
        (pods(w).is_empty() && images == 0).then_some(())
    });
    let layers = std::fs::read_dir(world.dir.join("state/images/layers")).unwrap().count();
    assert_eq!(layers, 0);
}

#[test]
fn an_archive_is_made_signed_verified_imported_and_run() {
    if skip() {
        return;
    }
    let mut world = World::new("zar");
    let at = |name: &str| world.dir.join(name).display().to_string();
    let (key, public, file) = (at("key"), at("key.pub"), at("box.zar"));
    world.ctl(&["image", "zar", "keygen", &key]).ok();
    world.ctl(&["image", "zar", "keygen", &at("other")]).ok();
    let layers: Vec<String> = layers(&world, "zar").iter().map(|l| l.display().to_string()).collect();
    let run = ["--cmd=/bin/sleep", "--cmd=1000", "--env=PATH=/bin", "-f", &file];
    let other = at("other");
    let parts: Vec<&str> = layers.iter().map(String::as_str).collect();
    world.ctl(&[&["image", "zar", "create"][..], &run, &["--sign", &other], &parts].concat()).ok();
    let refused = world.ctl(&["image", "zar", "verify", &file, "--key", &public]).exits(1);
    assert!(refused.err.contains("none of the keys"), "{}", refused.err);
    let keys = format!("--zar-keys={public}");
    world = world.arg(&keys);
    world.start();
    let refused = world.ctl(&["image", "import", &file, "--name", "local/zar:1"]).exits(1);
    assert!(refused.err.contains("none of the keys"), "{}", refused.err);
    std::fs::remove_file(&file).unwrap();
    world.ctl(&[&["image", "zar", "create"][..], &run, &["--sign", &key], &parts].concat()).ok();
    assert!(world.ctl(&["image", "zar", "verify", &file, "--key", &public]).ok().contains("signed by a key"));
    world.ctl(&["image", "import", &file, "--name", "local/zar:1"]).ok();
    world.file("zar.yaml", &pod("zar", "local/zar:1", "Always", ""));
    world.ready("zar");
    assert_eq!(world.exec("zar", &["cat", "/version"]).ok(), "zar");
    // One bit.
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::File::create(&file).unwrap().write_all(&bytes).unwrap();
    world.ctl(&["image", "zar", "verify", &file]).exits(1);
    // Layers that are here already are not read again: none may be.
    world.remove("zar.yaml");
    world.gone("zar");
    world.ctl(&["image", "rm", "local/zar:1"]).ok();
    world.ctl(&["image", "import", &file, "--name", "local/broken:1"]).exits(1);
    assert_eq!(world.json(&["image", "ls", "-o", "json"])["items"], json!([]));
}
