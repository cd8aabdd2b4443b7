//! Rules of commands in running containers.

use super::lab::{Lab, holds, needs, refused, same};
use super::{Case, Outcome, Program, Stop, case};
use crate::error::HostErrorKind;
use crate::spec::Signal;
use crate::traits::{ExecExit, ExecRequest, Session, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_command_answers_and_its_code_is_exact),
        case!(input_reaches_a_command_and_its_end_too),
        case!(a_terminal_has_one_stream),
        case!(what_can_not_run_is_refused),
        case!(a_command_ends_with_its_container),
        case!(a_dropped_session_ends_its_command),
        case!(a_contained_command_takes_all_that_it_started_with_it),
    ]
}

fn request(lab: &Lab<'_>, program: Program) -> ExecRequest {
    ExecRequest { argv: lab.fixture.argv(program), tty: false, stdin: false, contained: false }
}

struct Answer {
    stdout: String,
    stderr: String,
    exit: ExecExit,
}

/// Reads a session to its end.
async fn finish(lab: &Lab<'_>, mut session: Session) -> Result<Answer, Stop> {
    session.stdin = None;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let read = async {
        let err = async {
            match &mut session.stderr {
                Some(stream) => stream.read_to_end(&mut stderr).await.map(drop),
                None => Ok(()),
            }
        };
        let (out, err) = tokio::join!(session.stdout.read_to_end(&mut stdout), err);
        (out.map(drop), err, (&mut session.exit).await)
    };
    let (out, err, exit) =
        timeout(lab.fixture.patience(), read).await.map_err(|_| Stop::Broken("the command does not end".into()))?;
    out.and(err).map_err(|e| Stop::Broken(format!("reading its output: {e}")))?;
    let exit = exit.map_err(|_| Stop::Broken("the command's supervisor died".into()))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Answer { stdout: text(stdout), stderr: text(stderr), exit })
}

async fn a_command_answers_and_its_code_is_exact(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let session = lab.host.exec(&sandbox.id, &spec.name, request(lab, Program::Print)).await?;
    holds(session.stdin.is_none(), "standard input that was not asked for")?;
    let answer = finish(lab, session).await?;
    same(&answer.stdout.as_str(), &"hello\n", "standard output")?;
    same(&answer.stderr.as_str(), &"oops\n", "standard error")?;
    same(&answer.exit, &ExecExit { code: 0, message: String::new() }, "exit")?;
    for code in [1, 42, 255] {
        let session = lab.host.exec(&sandbox.id, &spec.name, request(lab, Program::Exit(code))).await?;
        same(&finish(lab, session).await?.exit.code, &i32::from(code), "exit code")?;
    }
    lab.pid(&sandbox.id, &spec).await.map(drop)
}

async fn input_reaches_a_command_and_its_end_too(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let wanted = ExecRequest { stdin: true, ..request(lab, Program::Copy) };
    let mut session = lab.host.exec(&sandbox.id, &spec.name, wanted).await?;
    let Some(mut stdin) = session.stdin.take() else { return holds(false, "no standard input") };
    // More than a pipe holds, so that a host that forgets to drain blocks here.
    let text = "0123456789abcde\n".repeat(20_000);
    let sent = text.clone();
    let writer = tokio::spawn(async move {
        let result = stdin.write_all(sent.as_bytes()).await;
        drop(stdin.shutdown().await);
        result
    });
    let answer = finish(lab, session).await?;
    let written = writer.await.map_err(|e| Stop::Broken(e.to_string()))?;
    written.map_err(|e| Stop::Broken(format!("writing to the command: {e}")))?;
    holds(answer.stdout == text, format!("{} of {} bytes came back", answer.stdout.len(), text.len()))?;
    same(&answer.exit.code, &0, "exit code after the end of its input")
}

async fn a_terminal_has_one_stream(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().terminals, "terminals")?;
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let wanted = ExecRequest { tty: true, stdin: false, ..request(lab, Program::Print) };
    let session = lab.host.exec(&sandbox.id, &spec.name, wanted).await?;
    holds(session.stderr.is_none(), "a terminal with a standard error of its own")?;
    // A size may come too late; it must not hurt.
    let _ = session.resize.try_send(TerminalSize { width: 132, height: 43 });
    let answer = finish(lab, session).await?;
    let lines: Vec<&str> = answer.stdout.lines().map(str::trim_end).collect();
    same(&lines, &vec!["hello", "oops"], "the terminal's text")?;
    same(&answer.exit.code, &0, "exit code")
}

async fn what_can_not_run_is_refused(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let absent = lab.fixture.sandbox().id;
    let host = &lab.host;
    let print = || request(lab, Program::Print);
    refused(host.exec(&absent, &spec.name, print()).await, HostErrorKind::NotFound, "in an unknown sandbox")?;
    let missing = request(lab, Program::Missing);
    refused(host.exec(&sandbox.id, &spec.name, missing).await, HostErrorKind::InvalidSpec, "a missing program")?;
    let _ = host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    refused(host.exec(&sandbox.id, &spec.name, print()).await, HostErrorKind::InvalidState, "in a container that ended")
}

async fn a_command_ends_with_its_container(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let session = lab.host.exec(&sandbox.id, &spec.name, request(lab, Program::IgnoreTerm)).await?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    same(&finish(lab, session).await?.exit.code, &137, "exit code of a command whose container was killed")
}

async fn a_dropped_session_ends_its_command(lab: &Lab<'_>) -> Outcome {
    dropped(lab, "sleep 424242", false).await
}

/// F47: what has left its session and its parent is found as well.
async fn a_contained_command_takes_all_that_it_started_with_it(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().contained, "commands that are contained")?;
    dropped(lab, "(setsid sleep 424242 &); sleep 100000", true).await?;
    // What a command leaves running when it ends by itself stays.
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let script = "setsid sleep 100000 >/dev/null 2>&1 & echo $!";
    let argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
    let wanted = ExecRequest { argv, contained: true, ..request(lab, Program::Print) };
    let left = finish(lab, lab.host.exec(&sandbox.id, &spec.name, wanted).await?).await?;
    same(&left.exit.code, &0, "exit code")?;
    let argv = vec!["/bin/sh".into(), "-c".into(), format!("kill -0 {}", left.stdout.trim())];
    let wanted = ExecRequest { argv, contained: true, ..request(lab, Program::Print) };
    let alive = finish(lab, lab.host.exec(&sandbox.id, &spec.name, wanted).await?).await?;
    same(&alive.exit.code, &0, "whether what it left runs on")
}

async fn dropped(lab: &Lab<'_>, script: &str, contained: bool) -> Outcome {
    needs(lab.fixture.abilities().files, "files")?;
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let shell = |script: &str| ExecRequest {
        argv: vec!["/bin/sh".into(), "-c".into(), script.into()],
        tty: false,
        stdin: false,
        contained,
    };
    let session = lab.host.exec(&sandbox.id, &spec.name, shell(script)).await?;
    // The pattern does not find the command that looks for it.
    let count = "n=0; for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f 2>/dev/null | grep -q '^sleep 42424[2]' && n=$((n+1)); done; echo $n";
    let running = async || -> Result<String, Stop> {
        let session = lab.host.exec(&sandbox.id, &spec.name, shell(count)).await?;
        Ok(finish(lab, session).await?.stdout.trim().to_owned())
    };
    let gone = |n: &String| n == "0";
    let until = tokio::time::Instant::now() + lab.fixture.patience();
    while gone(&running().await?) && tokio::time::Instant::now() < until {}
    drop(session);
    while !gone(&running().await?) {
        holds(tokio::time::Instant::now() < until, "the command outlives its session")?;
    }
    Ok(())
}
