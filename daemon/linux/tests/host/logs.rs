//! Logs: exact, rotated, and with a terminal.

use crate::support::{as_root, code};
use reddwarf_host::{Attach, AttachRequest, Sandboxes};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_talkative_container_keeps_its_log_within_bounds() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let script = "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); done";
        let mut container = world.shell(&sandbox, "app", script);
        container.log.max_bytes = 20_000;
        container.log.max_files = 3;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 0);
        let dir = container.log.path.parent().unwrap();
        let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 3, "{files:?}");
        // Newest file last: app.log.2, app.log.1, app.log.
        files.reverse();
        let text: String = files.iter().map(|f| std::fs::read_to_string(f).unwrap()).collect();
        for file in &files {
            let size = std::fs::metadata(file).unwrap().len();
            assert!(size <= 20_000 + 40_000, "{file:?} has {size} bytes");
        }
        let numbers: Vec<u32> = text.lines().map(|l| l.rsplit("line-").next().unwrap().parse().unwrap()).collect();
        assert_eq!(*numbers.last().unwrap(), 2999);
        assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "no line lost or doubled at a rotation");
        world.destroy(&sandbox).await;
        assert!(container.log.path.exists(), "logs stay");
    });
}

#[test]
fn output_through_a_terminal_is_logged() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        let mut container = world.shell(&sandbox, "app", "tty; test -t 0 && echo in; test -t 2 && echo err; exit 5");
        container.tty = true;
        container.stdin = true;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let observed = world.until_exit(&sandbox.id, &container.name).await;
        assert_eq!(code(&observed), 5, "{observed:?}");
        let log = world.log(&container);
        assert_eq!(log, ["stdout F /dev/pts/0", "stdout F in", "stdout F err"]);
        world.destroy(&sandbox).await;
    });
}

#[test]
fn f45_a_client_that_takes_nothing_is_let_go_and_costs_others_nothing() {
    as_root(|world| async move {
        let sandbox = world.sandbox();
        let _ = world.host.sandbox_ensure(&sandbox).await.unwrap();
        // Far more than a pipe holds, once somebody is attached.
        let script = "read go; seq -f 'line-%.0f, and something behind it' 20000";
        let mut container = world.shell(&sandbox, "app", script);
        container.stdin = true;
        container.log.max_bytes = 10 << 20;
        let _ = world.host.container_start(&sandbox.id, &container).await.unwrap();
        let all = AttachRequest { stdin: true, stdout: true, stderr: true };
        let mut stuck = world.host.attach(&sandbox.id, &container.name, all).await.unwrap();
        let mut reader = world.host.attach(&sandbox.id, &container.name, all).await.unwrap();
        stuck.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
        let mut text = String::new();
        reader.stdout.read_to_string(&mut text).await.unwrap();
        let expected: String = (1..=20_000).map(|n| format!("line-{n}, and something behind it\n")).collect();
        assert!(text == expected, "{} of {} bytes came", text.len(), expected.len());
        assert_eq!(code(&world.until_exit(&sandbox.id, &container.name).await), 0);
        assert_eq!(world.log(&container).len(), 20_000);
        // What was given to the other one before is still there, and then nothing.
        let mut part = String::new();
        stuck.stdout.read_to_string(&mut part).await.unwrap();
        assert!(!part.is_empty() && part.len() < text.len() && text.starts_with(&part), "{} bytes", part.len());
        world.destroy(&sandbox).await;
    });
}
