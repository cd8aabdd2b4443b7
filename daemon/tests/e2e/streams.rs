//! Streams with a stock kubectl and with reddwarfctl: exec, cp, attach, port-forward, logs, debug, proxy.

use crate::harness::{Said, World, skip};
use crate::pods::{FOREVER, pod, script};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A world that listens for kubectl; `None` (and says so) without root or kubectl.
fn world(test: &str) -> Option<World> {
    if skip() {
        return None;
    }
    if Command::new(program()).arg("version").arg("--client").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "there is no kubectl: .ci/kubectl fetches it");
        eprintln!("SKIPPED: there is no kubectl (.ci/kubectl fetches it)");
        return None;
    }
    let mut world = World::new(test).arg("--listen").arg("127.0.0.1:6443");
    world.start();
    Some(world)
}

/// The newest kubectl that `.ci/kubectl` fetched, or the machine's own.
fn program() -> String {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let fetched = ["kubectl-1.36", "kubectl-1.32"].map(|name| tools.join(name));
    let found = fetched.iter().find(|path| path.exists());
    found.map_or_else(|| "kubectl".to_owned(), |path| path.display().to_string())
}

fn kubectl(world: &World) -> Command {
    let mut command = world.inside(&program());
    command.arg("--kubeconfig").arg(world.dir.join("state/admin.kubeconfig"));
    command.arg("--cache-dir").arg(world.dir.join("kubectl-cache"));
    command
}

/// Runs a command to its end, with this input.
fn feed(mut command: Command, input: &[u8]) -> (Said, Vec<u8>) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that ends early reads no further.
        let _ = stdin.write_all(&input);
    });
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = Said {
        code: out.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&out.stdout).into_owned(),
        err: String::from_utf8_lossy(&out.stderr).into_owned(),
    };
    (said, out.stdout)
}

fn k(world: &World, line: &str) -> Said {
    k_with(world, line, b"")
}

fn k_with(world: &World, line: &str, input: &[u8]) -> Said {
    let mut command = kubectl(world);
    command.args(words(line));
    feed(command, input).0
}

/// Words of a line; single quotes keep together.
fn words(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    quoted
        .flat_map(
            |(n, part)| {
                if n % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
            },
        )
        .collect()
}

/// The same on a terminal of 111 columns and 33 rows; `keys` are typed one after another, each once the screen shows the
/// text before it.
fn on_terminal(world: &World, line: &str, keys: &[(&str, &str)]) -> (i32, String) {
    let mut whole = vec!["stty rows 33 cols 111;".to_owned()];
    let command = kubectl(world);
    whole.push(command.get_program().to_string_lossy().into_owned());
    whole.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    whole.extend(words(line).into_iter().map(|w| format!("'{w}'")));
    let mut child = Command::new("script")
        .args(["-qec", &whole.join(" "), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut screen, mut keys) = (String::new(), keys.iter());
    let mut next = keys.next();
    let mut buffer = [0; 1024];
    loop {
        let n = stdout.read(&mut buffer).unwrap();
        if n == 0 {
            break;
        }
        screen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        while let Some((_, text)) = next.filter(|(shown, _)| screen.contains(shown)) {
            stdin.write_all(text.as_bytes()).unwrap();
            next = keys.next();
        }
    }
    let code = child.wait().unwrap().code().unwrap_or(-1);
    assert!(next.is_none(), "never shown: {next:?}\n{screen}");
    (code, screen)
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

#[test]
fn commands_run_and_files_are_copied_byte_for_byte() {
    let Some(world) = world("exec") else { return };
    world.file("web.yaml", &script("web", FOREVER));
    world.ready("web");
    assert_eq!(k(&world, "exec web -- echo hi").ok(), "hi\n");
    let failed = k(&world, "exec web -- sh -c 'echo e >&2; exit 7'").exits(7);
    assert_eq!(failed.err, "e\ncommand terminated with exit code 7\n");
    let missing = k(&world, "exec web -- nosuch").exits(1);
    assert!(missing.err.contains("exec: \"nosuch\": executable file not found in $PATH"), "{missing:?}");
    // The size comes on a channel of its own, and may be later than the program.
    let sized = r#"until stty size | grep -v "^0 0"; do sleep 0.05; done"#;
    let (code, screen) = on_terminal(&world, &format!("exec -it web -- sh -c '{sized}; tty; exit 3'"), &[]);
    assert_eq!(code, 3);
    assert!(screen.contains("33 111") && screen.contains("/dev/pts/0"), "{screen}");

    // More than all buffers on the way, there and back, by every way there is.
    let big = noise(20 << 20);
    for protocol in ["true", "false"] {
        let mut command = kubectl(&world);
        command.args(["exec", "-i", "web", "--", "cat"]).env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", protocol);
        let (said, out) = feed(command, &big);
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(out == big, "{} of {} bytes (WebSocket: {protocol})", out.len(), big.len());
    }
    let mut command = world.ctl_command();
    command.args(["exec", "-i", "web", "--", "cat"]);
    assert!(feed(command, &big).1 == big, "reddwarfctl");

    let (there, back) = (world.dir.join("there"), world.dir.join("back"));
    std::fs::write(&there, &big).unwrap();
    k(&world, &format!("cp {} web:/tmp/there", there.display())).ok();
    k(&world, &format!("cp web:/tmp/there {}", back.display())).ok();
    assert!(std::fs::read(&back).unwrap() == big, "kubectl cp");

    // F45: nobody is there to read, so nothing runs on.
    // The pattern does not find the command that looks for it.
    let find = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 42424[2]' | wc -l";
    let count = || world.exec("web", &["sh", "-c", find]).ok();
    let mut gone = kubectl(&world).args(["exec", "web", "--", "sleep", "424242"]).spawn().unwrap();
    world.until("the command to run", |_| (count().trim() == "1").then_some(()));
    gone.kill().unwrap();
    gone.wait().unwrap();
    world.until("the command to end", |_| (count().trim() == "0").then_some(()));
}

#[test]
fn clients_attach_also_after_a_restart_and_run_answers_with_the_programs_code() {
    let Some(mut world) = world("attach") else { return };
    world.file("cat.yaml", &pod("cat", "", "[cat]", "stdin: true"));
    world.file("sh.yaml", &pod("sh", "", "[sh]", "stdin: true, tty: true"));
    world.ready("cat");
    world.ready("sh");
    let talk = |world: &World, mut command: Command, text: &str| {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut stdin = child.stdin.take().unwrap();
        // What is typed before it is attached counts as well; the container reads it when it is.
        writeln!(stdin, "{text}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), text, "{}", world.log());
        child.kill().unwrap();
        child.wait().unwrap();
    };
    let attach = |world: &World| {
        let mut command = kubectl(world);
        command.args(["attach", "-i", "-q", "cat"]);
        command
    };
    talk(&world, attach(&world), "one");
    world.stop();
    world.start();
    talk(&world, attach(&world), "two");
    let mut command = world.ctl_command();
    command.args(["attach", "-i", "cat"]);
    talk(&world, command, "three");
    assert_eq!(world.ctl(&["logs", "cat"]).ok(), "one\ntwo\nthree\n");
    assert_eq!(world.pod("cat").unwrap()["status"]["containerStatuses"][0]["restartCount"], 0);

    // kubectl sends the size on a stream of its own, so what is typed may be there first.
    let size = "until stty size | grep -v '^0'; do sleep 0.02; done; echo $((6*7))\r";
    let keys = [("prompt", size), ("42\r\n", "exit\r")];
    let (_, screen) = on_terminal(&world, "attach -it sh", &keys);
    assert!(screen.contains("33 111"), "{screen}");

    let sparse = "--image=none --annotations=reddwarf.io/zone-brand=sparse --restart=Never --rm";
    let ran =
        k_with(&world, &format!("run once -q -i {sparse} --command -- sh -c 'read x; echo got $x; exit 5'"), b"q\n");
    assert_eq!(ran.exits(5).out, "got q\n");
    world.gone("once");
    // All of standard input arrives, and so does its end.
    let text = "0123456789abcde\n".repeat(50_000);
    let ran = k_with(&world, &format!("run all -q -i {sparse} --command -- wc -c"), text.as_bytes());
    assert_eq!(ran.ok().trim(), text.len().to_string());
    let keys = [("prompt", "echo $((6*7))\r"), ("42\r\n", "exit 3\r")];
    let (code, screen) = on_terminal(&world, &format!("run tty -it {sparse} --command -- sh"), &keys);
    assert_eq!(code, 3, "{screen}");
}

/// A running `port-forward` and the port that it listens at.
struct Forward(Child, String);

impl Forward {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.split(" -> ").next().and_then(|s| s.rsplit(':').next()).unwrap_or_default();
        Self(child, port.to_owned())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn ports_are_forwarded_and_requests_proxied() {
    let Some(world) = world("forward") else { return };
    let serve =
        "head -c 3000000 /dev/zero > /tmp/big; echo hello > /tmp/index.html; exec busybox httpd -f -p 8080 -h /tmp";
    world.file(
        "web.yaml",
        &script("web", serve)
            .replace("annotations:", "labels: {app: web}\n  annotations:")
            .replace("command:", "ports: [{name: http, containerPort: 8080}], command:"),
    );
    world.file(
        "service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}\n",
    );
    world.ready("web");
    let curl = |url: &str| {
        let mut command = world.inside("curl");
        command.args(["-sS", "--max-time", "20", url]);
        feed(command, b"")
    };
    let forward = |line: &str, websocket: &str| {
        let mut command = kubectl(&world);
        command.arg("port-forward").args(words(line)).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websocket);
        Forward::start(command)
    };
    let mut ctl = world.inside(world.ctl_command().get_program().to_str().unwrap());
    ctl.arg("--socket").arg(&world.socket).args(["port-forward", "web", ":8080"]);
    let ways = [forward("web :8080", "true"), forward("svc/web :80", "false"), Forward::start(ctl)];
    for Forward(_, port) in &ways {
        world.until("the server to listen", |_| {
            (curl(&format!("http://127.0.0.1:{port}/")).0.out == "hello\n").then_some(())
        });
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let (said, out) = curl(&format!("http://127.0.0.1:{port}/big"));
                    assert_eq!((said.code, out.len()), (0, 3_000_000), "{}", said.err);
                });
            }
        });
    }
    let refused = forward("web :81", "true");
    assert_ne!(curl(&format!("http://127.0.0.1:{}/", refused.1)).0.code, 0);

    for path in ["pods/web:8080", "pods/web", "services/web:80", "services/http:web:80"] {
        let path = format!("/api/v1/namespaces/default/{path}/proxy/index.html");
        assert_eq!(k(&world, &format!("get --raw {path}")).ok(), "hello\n", "{path}");
    }
    let refused = k(&world, "get --raw /api/v1/namespaces/default/pods/web:81/proxy/").exits(1);
    assert!(refused.err.contains("connection refused"), "{refused:?}");
}

#[test]
fn logs_are_read_as_asked_and_debug_looks_inside() {
    let Some(world) = world("logs") else { return };
    let talk = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; trap 'exit 4' TERM; sleep 1000 & wait";
    world.file("talk.yaml", &script("talk", talk));
    world.ready("talk");
    world.until("the last line", |w| (w.ctl(&["logs", "talk"]).ok().lines().count() == 6).then_some(()));
    let sorted = |said: Said| {
        let text = said.ok();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join(",")
    };
    assert_eq!(sorted(k(&world, "logs talk")), "err 1,err 2,err 3,out 1,out 2,out 3");
    assert_eq!(k(&world, "logs talk --tail=2").ok().lines().count(), 2);
    assert_eq!(k(&world, "logs talk --limit-bytes=5").ok().len(), 5);
    assert_eq!(k(&world, "logs talk --since-time=2038-01-01T00:00:00Z").ok(), "");
    let stamped = k(&world, "logs talk --timestamps --tail=1").ok();
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    let raw = |query: &str| k(&world, &format!("get --raw /api/v1/namespaces/default/pods/talk/log?{query}"));
    assert_eq!(raw("stream=Stderr").ok(), "err 1\nerr 2\nerr 3\n");
    let none = k(&world, "logs talk --previous").exits(1);
    assert!(none.err.contains("previous terminated container \"main\" in pod \"talk\" not found"), "{none:?}");
    let waits = pod("waits", "initContainers: [{name: first, command: [sleep, \"1000\"]}],", "[sleep, \"1000\"]", "");
    world.file("waits.yaml", &waits);
    world.until("its init container", |w| {
        let said = k(w, "logs waits");
        (said.code == 1).then_some(said).filter(|s| s.err.contains("PodInitializing"))
    });
    assert_eq!(
        k(&world, "logs waits").err,
        "Defaulted container \"main\" out of: main, first (init)\nError from server (BadRequest): container \"main\" in pod \"waits\" is waiting to start: PodInitializing\n"
    );
    // The pod initialises before its first container runs.
    let first = world.until("its log", |w| Some(k(w, "logs waits -c first")).filter(|said| said.code == 0));
    assert_eq!(first.out, "");

    // A followed log ends with its container; the run before is kept.
    let mut follow = kubectl(&world).args(["logs", "-f", "talk", "--tail=1"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(follow.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    world.ctl(&["restart", "talk"]).ok();
    let began = Instant::now();
    assert!(follow.wait().unwrap().success() && began.elapsed() < Duration::from_secs(15));
    world.until("the next run", |w| (k(w, "logs talk --previous").code == 0).then_some(()));

    // Ephemeral containers, with the target's processes in sight.
    let name = "--image=none --annotations=reddwarf.io/zone-brand=sparse";
    k(&world, &format!("run aim {name} --command -- sleep 4242")).ok();
    world.ready("aim");
    let keys = [("prompt", "tr '\\0' ' ' </proc/1/cmdline; hostname\r"), ("aim\r\n", "exit 2\r")];
    let line = "debug -it aim --image=none --target=aim -c look --profile=general -- sh";
    let (_, screen) = on_terminal(&world, line, &keys);
    assert!(screen.contains("sleep 4242 "), "{screen}");
    let state = world.until("its end", |w| {
        let state = w.pod("aim")?["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"].clone();
        state.is_object().then_some(state)
    });
    assert_eq!(state["exitCode"], 2);
    assert!(k(&world, "logs aim -c look").ok().contains("sleep 4242"));
    let pod = world.pod("aim").unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["containerStatuses"][0]["restartCount"]),
        (&"Running".into(), &0.into())
    );
    k(&world, "delete pod aim --grace-period=1").ok();
}
