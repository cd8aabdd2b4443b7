//! The way in over TCP, with programs that know nothing of us: openssl, curl, and a reload.

use crate::clients::kubeconfig;
use crate::harness::{Said, World, skip};
use std::path::Path;
use std::time::Duration;

fn listening(name: &str) -> World {
    let mut world = World::new(name).arg("--listen").arg("127.0.0.1:6443");
    world.start();
    world
}

fn said(mut command: std::process::Command) -> Said {
    let out = command.output().unwrap();
    Said {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

fn openssl(world: &World, args: &[&str]) -> Said {
    let mut command = world.inside("timeout");
    command.args(["10", "openssl"]).args(args).stdin(std::process::Stdio::null());
    said(command)
}

/// curl's code and body.
fn curl(world: &World, args: &[&str], path: &str) -> (String, String) {
    let mut command = world.inside("curl");
    command.args(["-sS", "--max-time", "20", "-w", "\n%{http_version} %{http_code}"]);
    command.args(args).arg(format!("https://localhost:6443{path}"));
    let said = said(command);
    let (body, code) = said.out.rsplit_once('\n').unwrap_or(("", &said.err));
    (code.to_owned(), body.to_owned())
}

/// A field of the kubeconfig as a file of its own.
fn piece(world: &World, field: &str, file: &str) -> String {
    let text = std::fs::read_to_string(kubeconfig(world)).unwrap();
    let value = text.lines().find_map(|l| l.trim().strip_prefix(field)).unwrap().trim().to_owned();
    let path = world.dir.join(file);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "printf %s \"$0\" | base64 -d > \"$1\"", &value]).arg(&path);
    said(command).ok();
    path.to_str().unwrap().to_owned()
}

#[test]
fn c31_openssl_and_curl_get_in_by_certificate_and_token_and_after_a_restart() {
    if skip() {
        return;
    }
    let mut world = listening("tls");
    let authority = world.dir.join("state/pki/ca.crt").to_str().unwrap().to_owned();
    let verified = ["s_client", "-connect", "127.0.0.1:6443", "-verify_return_error", "-CAfile", &authority];
    for (extra, protocol) in [
        (&["-verify_ip", "127.0.0.1"][..], "TLSv1.3"),
        (&["-tls1_2", "-verify_hostname", "kubernetes.default.svc"], "TLSv1.2"),
    ] {
        let said = openssl(&world, &[&verified[..], extra].concat());
        assert!(said.out.contains("Verification: OK") && said.out.contains(protocol), "{}{}", said.out, said.err);
    }
    let old = openssl(&world, &["s_client", "-connect", "127.0.0.1:6443", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(!old.out.contains("Cipher is ECDHE"), "{}", old.out);
    let certificate = piece(&world, "client-certificate-data:", "admin.crt");
    let key = piece(&world, "client-key-data:", "admin.key");
    let mine = ["--cacert", &authority, "--cert", &certificate, "--key", &key];
    assert_eq!(curl(&world, &mine, "/api/v1/namespaces/default").0, "2 200");
    assert_eq!(curl(&world, &[&mine[..], &["--http1.1"]].concat(), "/metrics").0, "1.1 200");
    assert_eq!(curl(&world, &["--cacert", &authority], "/api/v1/pods").0, "2 401");
    assert_eq!(curl(&world, &["--cacert", &authority], "/livez"), ("2 200".into(), "ok".into()));
    let token = world.ctl(&["token", "create", "alice", "--group", "devs", "--expires", "1h"]).ok();
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let alice = ["--cacert", authority.as_str(), "-H", bearer.as_str()];
    let (code, body) = curl(&world, &alice, "/api/v1/namespaces/default/pods");
    assert_eq!(code, "2 403");
    assert!(body.contains(r#"pods is forbidden: User \"alice\" cannot list resource \"pods\""#), "{body}");
    let (code, body) = curl(&world, &[&mine[..], &["-H", "Authorization: Bearer nope"]].concat(), "/livez");
    assert_eq!(code, "2 401", "{body}");
    // Another authority's certificate.
    let other = world.dir.join("other");
    let (other_key, other_crt) = (format!("{}.key", other.display()), format!("{}.crt", other.display()));
    let subject = ["-subj", "/O=system:masters/CN=admin", "-days", "1", "-nodes", "-newkey", "rsa:2048"];
    openssl(&world, &[&["req", "-x509", "-keyout", &other_key, "-out", &other_crt], &subject[..]].concat()).ok();
    let stranger = ["--cacert", authority.as_str(), "--cert", &other_crt, "--key", &other_key];
    assert_eq!(curl(&world, &stranger, "/api/v1/pods").0, "2 401");

    let before = std::fs::read_to_string(kubeconfig(&world)).unwrap();
    world.kill9();
    world.start();
    assert_eq!(std::fs::read_to_string(kubeconfig(&world)).unwrap(), before, "clients need no new one");
    assert_eq!(curl(&world, &mine, "/api/v1/pods").0, "2 200");
    assert_eq!(curl(&world, &alice, "/apis").0, "2 200", "tokens outlive a crash");
    let log = std::fs::read_to_string(world.dir.join("state/audit.log")).unwrap();
    assert!(log.lines().all(|line| line.starts_with('{')) && log.contains("/reddwarf/v1/tokens"), "{log}");
    assert!(!log.contains(token.trim()), "no secret is in the audit log");
    let status = world.ctl(&["status"]).out;
    assert!(status.contains("Kubernetes API on 127.0.0.1:6443, kubeconfig "), "{status}");
    world.stop();
}

/// A certificate for localhost with its key in one file.
fn own_certificate(world: &World, file: &Path) {
    let path = world.dir.join("fresh.pem");
    let path = path.to_str().unwrap();
    let key = format!("{path}.key");
    let request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"];
    let about = ["-subj", "/CN=mine", "-addext", "subjectAltName=DNS:localhost", "-keyout", &key, "-out", path];
    openssl(world, &[&request[..], &about].concat()).ok();
    let both = std::fs::read_to_string(path).unwrap() + &std::fs::read_to_string(&key).unwrap();
    std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), both.as_bytes()).unwrap();
    std::fs::rename(path, file).unwrap();
}

#[test]
fn a08_a_users_certificate_is_taken_over_at_a_reload_and_a_bad_one_is_not() {
    if skip() {
        return;
    }
    let world = World::new("pem");
    let file = world.dir.join("tls.pem");
    own_certificate(&world, &file);
    let mut world = world.arg("--listen").arg("127.0.0.1:6443").arg("--tls-cert").arg(file.to_str().unwrap());
    world.start();
    let shown = |world: &World| {
        let said = openssl(world, &["s_client", "-connect", "127.0.0.1:6443", "-servername", "localhost"]);
        let from = said.out.find("-----BEGIN").unwrap_or_else(|| panic!("{}{}", said.out, said.err));
        said.out[from..said.out.find("-----END").unwrap()].to_owned()
    };
    let reload = |world: &World| {
        let pid = i32::try_from(world.pid()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    let first = shown(&world);
    let trusted = file.to_str().unwrap().to_owned();
    assert_eq!(curl(&world, &["--cacert", &trusted], "/livez").0, "2 200");
    std::io::Write::write_all(&mut std::fs::File::create(&file).unwrap(), b"nonsense").unwrap();
    reload(&world);
    world.until("the log says why", |w| w.log().contains("new certificates were not taken over").then_some(()));
    assert_eq!(shown(&world), first);
    own_certificate(&world, &file);
    reload(&world);
    world.within(Duration::from_secs(10), "the new one is shown", |w| (shown(w) != first).then_some(()));
    world.stop();
}
