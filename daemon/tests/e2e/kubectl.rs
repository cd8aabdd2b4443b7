//! What kubectl prints and how it ends, command by command, with each kubectl that `.ci/kubectl` fetched.
//!
//! The files in `kubectl/` are transcripts: a command after `$`, its exit code after `=>` when it is not 0, and below,
//! up to an empty line, everything it prints:
//!
//! ```text
//! $ kubectl get configmap nope => 1
//! Error from server (NotFound): configmaps "nope" not found
//! ```
//!
//! In what is printed, `*` stands for any text within a line, a line `...` for any lines, `\\` for an empty one, and `[1.32]` or `[1.36]` begins
//! a line that only this version prints. `$~` repeats a command until it ends and prints as written (at most 30 s).
//! Commands run in a copy of `kubectl/files/`, all of a transcript against one daemon.

use crate::clients::{kubeconfig, prepared};
use crate::harness::{World, skip};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// The versions that are there: `(1.36, path)`.
fn versions() -> Vec<(String, PathBuf)> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let named = |v: &str| (v.to_owned(), tools.join(format!("kubectl-{v}")));
    let found: Vec<_> = ["1.36", "1.32"].into_iter().map(named).filter(|(_, path)| path.exists()).collect();
    assert!(
        found.len() == 2 || std::env::var_os("CI").is_none(),
        "kubectl is not in {}: .ci/kubectl fetches it",
        tools.display()
    );
    if found.is_empty() {
        eprintln!("SKIPPED: no kubectl in {} (.ci/kubectl fetches it from Debian)", tools.display());
    }
    found
}

/// A command of a transcript and what it shall do.
struct Step<'a> {
    line: usize,
    command: &'a str,
    code: i32,
    patient: bool,
    printed: Vec<&'a str>,
}

fn steps(text: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let patient = line.starts_with("$~ ");
        if let Some(command) = line.strip_prefix("$~ ").or_else(|| line.strip_prefix("$ ")) {
            let (command, code) = match command.rsplit_once(" => ") {
                Some((command, code)) => (command, code.parse().expect("an exit code")),
                None => (command, 0),
            };
            steps.push(Step { line: index + 1, command, code, patient, printed: Vec::new() });
            open = true;
        } else if line.is_empty() {
            open = false;
        } else if open && let Some(step) = steps.last_mut() {
            step.printed.push(line);
        } else {
            assert!(line.starts_with('#'), "line {}: {line:?} belongs to no command", index + 1);
        }
    }
    steps
}

/// Does `text` look like `pattern`, in which `*` stands for anything?
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = &rest[at + str::len(middle)..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

fn lines_match(patterns: &[&str], lines: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((&"...", rest)) => (0..=lines.len()).any(|skip| lines_match(rest, &lines[skip..])),
        Some((pattern, rest)) => {
            lines.split_first().is_some_and(|(line, more)| matches(pattern, line) && lines_match(rest, more))
        }
    }
}

/// One daemon and one kubectl.
struct Session {
    world: World,
    version: String,
    work: PathBuf,
}

impl Session {
    fn new(name: &str, version: &str, kubectl: &Path) -> Self {
        let world = prepared(&format!("kubectl-{version}-{name}"));
        let work = world.dir.join("work");
        let bin = world.dir.join("bin");
        for dir in [&work, &bin] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::os::unix::fs::symlink(kubectl, bin.join("kubectl")).unwrap();
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/kubectl/files");
        for file in std::fs::read_dir(files).unwrap().flatten() {
            std::fs::copy(file.path(), work.join(file.file_name())).unwrap();
        }
        // A copy: commands change it.
        std::fs::copy(kubeconfig(&world), work.join("kubeconfig")).unwrap();
        Self { world, version: version.to_owned(), work }
    }

    fn run(&self, step: &Step<'_>) -> (i32, String) {
        let dir = &self.world.dir;
        let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        let script = format!("exec 2>&1; {}", step.command);
        let out = self
            .world
            .inside("timeout")
            .args(["-k", "5", "60", "bash", "-c", &script])
            .current_dir(&self.work)
            .env("PATH", path)
            .env("HOME", dir)
            .env("KUBECONFIG", self.work.join("kubeconfig"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (out.status.code().unwrap_or(-1), String::from_utf8_lossy(&out.stdout).replace('\r', ""))
    }

    /// What differs, if anything.
    fn check(&self, step: &Step<'_>) -> Option<String> {
        let expected: Vec<&str> = step
            .printed
            .iter()
            .filter_map(|line| match line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
                Some((version, line)) if version.starts_with("1.") => (version == self.version).then_some(line),
                _ if *line == "\\" => Some(""),
                _ => Some(line),
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let (code, said) = self.run(step);
            // kubectl 1.32 says so on stderr when an answer is quicker than its own streams are set up.
            let said = said.lines().filter(|line| !line.ends_with("] Unknown stream id 1, discarding message"));
            let lines: Vec<&str> = said.map(str::trim_end).collect();
            if code == step.code && lines_match(&expected, &lines) {
                return None;
            }
            if !step.patient || Instant::now() > until {
                let mut text = String::new();
                let _ = writeln!(text, "line {}: $ {}", step.line, step.command);
                let _ = writeln!(text, "  exit {code}, expected {}", step.code);
                for line in &lines {
                    let _ = writeln!(text, "  | {line}");
                }
                let _ = writeln!(text, "  expected:");
                for line in &expected {
                    let _ = writeln!(text, "  > {line}");
                }
                return Some(text);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn transcript(name: &str, text: &str) {
    if skip() {
        return;
    }
    for (version, kubectl) in versions() {
        let session = Session::new(name, &version, &kubectl);
        let wrong: Vec<String> = steps(text).iter().filter_map(|step| session.check(step)).collect();
        assert!(wrong.is_empty(), "kubectl {version}, {name}.txt: {} commands\n{}", wrong.len(), wrong.join("\n"));
    }
}

macro_rules! transcripts {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            transcript(stringify!($name), include_str!(concat!("kubectl/", stringify!($name), ".txt")));
        }
    )*};
}

transcripts! { discover read write apply patches workloads streams nodes access deletes top volumes }

#[test]
fn patterns_match_as_documented() {
    assert!(matches("a*c", "abbc") && matches("a*c*", "acc") && matches("*", "") && matches("a", "a"));
    assert!(!matches("a*c", "ab") && !matches("a", "ab") && !matches("*b", "abc"));
    assert!(lines_match(&["a", "...", "c"], &["a", "b", "b", "c"]) && !lines_match(&["a"], &["a", "b"]));
    let steps = steps("# about\n$ one => 3\nout\n\n$~ two\n");
    assert_eq!((steps[0].command, steps[0].code, steps[0].printed.as_slice()), ("one", 3, ["out"].as_slice()));
    assert!(steps[1].patient);
}
