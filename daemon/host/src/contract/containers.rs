//! Rules of containers.

use super::lab::{End, Lab, changed, holds, needs, refused, same, unchanged};
use super::{Case, Outcome, Program, Stop, case};
use crate::error::HostErrorKind;
use crate::names::{ContainerName, ImageId};
use crate::observe::{ContainerState, Note, SandboxState, StopOrder, StopRequest};
use crate::spec::{
    ContainerImage, ContainerSpec, EnvVar, Hook, Lifecycle, Resources, Sensitive, Signal, TerminationMessage, UserSpec,
};
use std::time::Duration;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_container_runs_and_bears_its_spec),
        case!(exit_codes_are_exact),
        case!(a_missing_program_ends_and_says_so),
        case!(what_can_not_start_is_refused),
        case!(attempts_follow_one_another),
        case!(the_stop_signal_is_delivered_and_recorded),
        case!(who_ignores_the_stop_signal_is_killed),
        case!(other_signals_are_no_stop_requests),
        case!(signals_to_the_dead_are_unchanged),
        case!(notes_are_kept_and_do_nothing),
        case!(limits_change_in_place),
        case!(limits_of_what_does_not_run_can_not_change),
        case!(removing_needs_an_end),
        case!(ends_are_told_by_events),
        case!(output_goes_to_the_log),
        case!(last_words_are_the_message_of_the_end),
        case!(containers_of_one_sandbox_are_apart),
    ]
}

async fn a_container_runs_and_bears_its_spec(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let mut spec = lab.container(&sandbox, "app", Program::Until(0));
    spec.argv.push("an argument with \"quotes\", 'more' and\na newline".into());
    spec.env.push(EnvVar { name: "AWKWARD".into(), value: Sensitive::new("a=b \"c\"\n$d \\ ü".into()) });
    spec.restart_token = "2026-01-01T00:00:00Z".into();
    spec.backoff = Duration::from_secs(20);
    let before = lab.observe().await?.at;
    changed(lab.host.container_start(&sandbox.id, &spec).await, "a new container")?;
    let seen = lab.instance(&sandbox.id, &spec.name, 0).await?;
    let Some(seen) = seen else { return holds(false, "it is not in the observation") };
    same(&*seen.spec, &spec, "its spec")?;
    same(&seen.spec.env, &spec.env, "its environment")?;
    same(&(seen.stop, seen.oom_killed), &(None, false), "stop request and oom")?;
    let ContainerState::Running { started, pid, .. } = seen.state else {
        return holds(false, format!("it should run, is {:?}", seen.state));
    };
    holds(pid > 0, "pid is 0")?;
    holds(before <= started && started <= lab.observe().await?.at, format!("started at {started:?}"))?;
    unchanged(lab.host.container_start(&sandbox.id, &spec).await, "the same again")?;
    same(&lab.pid(&sandbox.id, &spec).await?, &pid, "pid after the same again")
}

async fn exit_codes_are_exact(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    for (attempt, code) in (0u32..).zip([0u8, 1, 42, 137, 255]) {
        let spec = ContainerSpec { attempt, ..lab.container(&sandbox, "app", Program::Exit(code)) };
        changed(lab.host.container_start(&sandbox.id, &spec).await, "a container that ends")?;
        let end = lab.end(&sandbox.id, &spec).await?;
        same(&end.code, &i32::from(code), "exit code")?;
        holds(end.signal.is_none() || !lab.fixture.abilities().signals, format!("signal {:?}", end.signal))?;
        unchanged(lab.host.container_start(&sandbox.id, &spec).await, "starting an attempt that ended")?;
        same(&lab.end(&sandbox.id, &spec).await?.code, &i32::from(code), "exit code after the same again")?;
    }
    let seen = lab.see(&sandbox.id).await?;
    for instance in seen.containers.values().flatten() {
        let ContainerState::Exited { started, finished, .. } = &instance.state else { continue };
        let ordered = started.is_some_and(|s| s <= *finished) && *finished <= lab.observe().await?.at;
        holds(ordered, format!("times out of order: {:?}", instance.state))?;
    }
    let attempts: Vec<u32> = seen.containers.values().flatten().map(|c| c.spec.attempt).collect();
    same(&attempts, &vec![0, 1, 2, 3, 4], "attempts, newest last")
}

async fn a_missing_program_ends_and_says_so(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let spec = lab.container(&sandbox, "app", Program::Missing);
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    let End { code, message, .. } = lab.end(&sandbox.id, &spec).await?;
    holds((126..=128).contains(&code), format!("code {code}, wanted 126 to 128"))?;
    holds(!message.is_empty(), "no message")?;
    unchanged(lab.host.container_start(&sandbox.id, &spec).await, "the same again")?;
    same(&lab.see(&sandbox.id).await?.state, &SandboxState::Running, "the sandbox")
}

async fn what_can_not_start_is_refused(lab: &Lab<'_>) -> Outcome {
    let absent = lab.fixture.sandbox();
    let stray = lab.container(&absent, "app", Program::Until(0));
    refused(lab.host.container_start(&absent.id, &stray).await, HostErrorKind::NotFound, "in a sandbox that is not")?;
    let sandbox = lab.sandbox().await?;
    let good = lab.container(&sandbox, "app", Program::Until(0));
    let no_image = ContainerImage::Image { id: ImageId::of_digest([0xee; 32]) };
    let bad_user = UserSpec::Named { user: "no-such-user".into(), groups: Vec::new() };
    let mut bad_capability = good.clone();
    bad_capability.security.cap_add.push("NO_SUCH_CAPABILITY".into());
    for (spec, kind, what) in [
        (ContainerSpec { image: no_image, ..good.clone() }, HostErrorKind::NotFound, "an image that is not there"),
        (ContainerSpec { user: bad_user, ..good.clone() }, HostErrorKind::InvalidSpec, "an unknown user"),
        (bad_capability, HostErrorKind::InvalidSpec, "an unknown capability"),
    ] {
        refused(lab.host.container_start(&sandbox.id, &spec).await, kind, what)?;
        let seen = lab.instance(&sandbox.id, &good.name, 0).await?;
        let runs = seen.is_some_and(|c| matches!(c.state, ContainerState::Running { .. }));
        holds(!runs, format!("{what}: it runs nevertheless"))?;
    }
    // The same attempt, mended, starts.
    changed(lab.host.container_start(&sandbox.id, &good).await, "the same attempt, mended")
}

async fn attempts_follow_one_another(lab: &Lab<'_>) -> Outcome {
    let (sandbox, first) = lab.running(Program::Until(0)).await?;
    let second = ContainerSpec { attempt: 1, ..first.clone() };
    refused(
        lab.host.container_start(&sandbox.id, &second).await,
        HostErrorKind::InvalidState,
        "a second attempt while the first runs",
    )?;
    let _ = lab.host.container_signal(&sandbox.id, &first.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &first).await?;
    changed(lab.host.container_start(&sandbox.id, &second).await, "the second attempt")?;
    lab.pid(&sandbox.id, &second).await?;
    same(&lab.end(&sandbox.id, &first).await?.code, &137, "the first attempt's code, still known")
}

async fn the_stop_signal_is_delivered_and_recorded(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(42)).await?;
    let asked = lab.observe().await?.at;
    // The shell needs a moment to set its trap; until then the first process ignores the signal.
    let sent = async || lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigterm).await;
    changed(sent().await, "SIGTERM to a running container")?;
    let stop = lab.instance(&sandbox.id, &spec.name, 0).await?.and_then(|c| c.stop);
    let Some(stop) = stop else { return holds(false, "the stop request is not recorded") };
    holds(!stop.killed && stop.at >= asked, format!("{stop:?}, asked at {asked:?}"))?;
    let end = loop {
        let waiting = lab.end(&sandbox.id, &spec);
        match tokio::time::timeout(Duration::from_secs(1), waiting).await {
            Ok(end) => break end?,
            Err(_) => drop(sent().await?),
        }
    };
    same(&(end.code, end.signal), &(42, None), "how its handler ended it")?;
    let kept = lab.instance(&sandbox.id, &spec.name, 0).await?.and_then(|c| c.stop);
    same(&kept, &Some(stop), "the stop request, from when it was first made")
}

async fn who_ignores_the_stop_signal_is_killed(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::IgnoreTerm).await?;
    changed(lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigterm).await, "SIGTERM")?;
    let first = lab.instance(&sandbox.id, &spec.name, 0).await?.and_then(|c| c.stop).map(|s| s.at);
    lab.pid(&sandbox.id, &spec).await?;
    changed(lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await, "SIGKILL")?;
    let end = lab.end(&sandbox.id, &spec).await?;
    same(&(end.code, end.signal), &(137, Some(9)), "code and signal of a killed container")?;
    let stop = lab.instance(&sandbox.id, &spec.name, 0).await?.and_then(|c| c.stop);
    same(&stop.map(|s| (Some(s.at), s.killed)), &Some((first, true)), "the stop request")?;
    same(&lab.instance(&sandbox.id, &spec.name, 0).await?.map(|c| c.oom_killed), &Some(false), "oom_killed")
}

async fn other_signals_are_no_stop_requests(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    changed(lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigwinch).await, "SIGWINCH")?;
    lab.pid(&sandbox.id, &spec).await?;
    same(&lab.instance(&sandbox.id, &spec.name, 0).await?.and_then(|c| c.stop), &None, "the stop request")
}

async fn signals_to_the_dead_are_unchanged(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let spec = lab.container(&sandbox, "app", Program::Exit(0));
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    lab.end(&sandbox.id, &spec).await?;
    let absent = lab.fixture.sandbox().id;
    for signal in [Signal::Sigterm, Signal::Sigkill] {
        unchanged(lab.host.container_signal(&sandbox.id, &spec.name, 0, signal).await, "a signal to what ended")?;
        unchanged(lab.host.container_signal(&sandbox.id, &spec.name, 7, signal).await, "to an unknown attempt")?;
        unchanged(lab.host.container_signal(&absent, &spec.name, 0, signal).await, "in an unknown sandbox")?;
    }
    same(&lab.end(&sandbox.id, &spec).await?.code, &0, "its exit code")
}

async fn notes_are_kept_and_do_nothing(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let hook = Hook::Sleep { time: Duration::from_secs(1) };
    let lifecycle = Lifecycle { post_start: Some(hook.clone()), pre_stop: Some(hook) };
    let spec = ContainerSpec { lifecycle, ..lab.container(&sandbox, "app", Program::IgnoreTerm) };
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    let pid = lab.pid(&sandbox.id, &spec).await?;
    let noted = async || -> Result<(bool, Option<StopRequest>), Stop> {
        let seen = lab.instance(&sandbox.id, &spec.name, 0).await?;
        seen.map(|c| (c.post_started, c.stop)).ok_or_else(|| Stop::Broken("it is gone".into()))
    };
    same(&noted().await?, &(false, None), "notes that nobody made")?;
    let note = async |note| lab.host.container_note(&sandbox.id, &spec.name, 0, note).await;
    changed(note(Note::Started).await, "a note")?;
    unchanged(note(Note::Started).await, "the same note")?;
    same(&noted().await?, &(true, None), "the note of the start")?;
    let grace = Duration::from_secs(7);
    changed(note(Note::Stopping { grace, fault: true }).await, "the note of a stop")?;
    unchanged(note(Note::Stopping { grace: Duration::ZERO, fault: false }).await, "a second note of a stop")?;
    let (_, Some(stop)) = noted().await? else { return holds(false, "the stop is not noted") };
    same(&stop.order, &Some(StopOrder { grace, fault: true, signalled: None }), "how it is to stop")?;
    same(&lab.pid(&sandbox.id, &spec).await?, &pid, "pid: a note does nothing to it")?;
    // The signals that follow are recorded with it, the time of the note stays.
    changed(lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigterm).await, "SIGTERM")?;
    let (_, Some(sent)) = noted().await? else { return holds(false, "the stop is forgotten") };
    let signalled = sent.order.and_then(|o| o.signalled);
    holds(sent.at == stop.at && !sent.killed && signalled >= Some(stop.at), format!("{sent:?} after {stop:?}"))?;
    changed(lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await, "SIGKILL")?;
    lab.end(&sandbox.id, &spec).await?;
    let (_, Some(killed)) = noted().await? else { return holds(false, "the stop is forgotten with the end") };
    same(&killed, &StopRequest { killed: true, ..sent }, "the record after the kill")?;
    unchanged(note(Note::Started).await, "a note about what ended")?;
    let absent = lab.fixture.sandbox().id;
    unchanged(lab.host.container_note(&absent, &spec.name, 0, Note::Started).await, "in an unknown sandbox")
}

async fn limits_change_in_place(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().limits, "limits")?;
    let (sandbox, mut spec) = lab.running(Program::Until(0)).await?;
    let pid = lab.pid(&sandbox.id, &spec).await?;
    let resources = Resources {
        cpu_request_millis: Some(50),
        cpu_limit_millis: Some(250),
        memory_limit_bytes: Some(128 << 20),
        pids_limit: Some(100),
        ..Resources::default()
    };
    changed(lab.host.container_update(&sandbox.id, &spec.name, 0, &resources).await, "other limits")?;
    unchanged(lab.host.container_update(&sandbox.id, &spec.name, 0, &resources).await, "the same again")?;
    spec.resources = resources;
    same(
        &lab.instance(&sandbox.id, &spec.name, 0).await?.map(|c| (*c.spec).clone()),
        &Some(spec.clone()),
        "the recorded spec",
    )?;
    same(&lab.pid(&sandbox.id, &spec).await?, &pid, "pid")
}

async fn limits_of_what_does_not_run_can_not_change(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let spec = lab.container(&sandbox, "app", Program::Exit(0));
    let resources = Resources { cpu_limit_millis: Some(250), ..Resources::default() };
    let absent = lab.fixture.sandbox().id;
    let update = async |id| lab.host.container_update(id, &spec.name, 0, &resources).await;
    refused(update(&sandbox.id).await, HostErrorKind::NotFound, "limits of an unknown container")?;
    refused(update(&absent).await, HostErrorKind::NotFound, "limits in an unknown sandbox")?;
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    lab.end(&sandbox.id, &spec).await?;
    refused(update(&sandbox.id).await, HostErrorKind::InvalidState, "limits of a container that ended")
}

async fn removing_needs_an_end(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let absent = lab.fixture.sandbox().id;
    let remove = async |id| lab.host.container_remove(id, &spec.name, 0).await;
    refused(remove(&sandbox.id).await, HostErrorKind::InvalidState, "removing what runs")?;
    lab.pid(&sandbox.id, &spec).await?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    changed(remove(&sandbox.id).await, "removing what ended")?;
    same(&lab.instance(&sandbox.id, &spec.name, 0).await?, &None, "the instance")?;
    unchanged(remove(&sandbox.id).await, "removing it again")?;
    unchanged(remove(&absent).await, "removing in an unknown sandbox")?;
    // The sandbox is as before; the next attempt starts.
    let second = ContainerSpec { attempt: 1, ..spec };
    changed(lab.host.container_start(&sandbox.id, &second).await, "the next attempt")
}

async fn ends_are_told_by_events(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let mut events = lab.host.events();
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.event(&mut events, &sandbox.id, &spec.name).await?;
    lab.end(&sandbox.id, &spec).await.map(drop)
}

/// The CRI log format: time, stream, F or P, text.
async fn output_goes_to_the_log(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let spec = lab.container(&sandbox, "app", Program::Print);
    let _ = lab.host.container_start(&sandbox.id, &spec).await?;
    lab.end(&sandbox.id, &spec).await?;
    let log = std::fs::read_to_string(&spec.log.path).unwrap_or_default();
    for wanted in ["stdout F hello", "stderr F oops"] {
        let found = log.lines().any(|line| {
            let mut parts = line.splitn(2, ' ');
            let time = parts.next().is_some_and(|t| chrono::DateTime::parse_from_rfc3339(t).is_ok());
            time && parts.next() == Some(wanted)
        });
        holds(found, format!("no line {wanted:?} in {}:\n{log}", spec.log.path.display()))?;
    }
    let _ = lab.host.container_remove(&sandbox.id, &spec.name, 0).await?;
    holds(!spec.log.path.exists(), "the log of an instance that is forgotten stayed: restarts would fill the disk")
}

async fn last_words_are_the_message_of_the_end(lab: &Lab<'_>) -> Outcome {
    let sandbox = lab.sandbox().await?;
    let said = async |name: &str, script: &str, fall_back_to_log: bool| {
        let argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
        let message = TerminationMessage { path: "/dev/termination-log".into(), fall_back_to_log };
        let spec = ContainerSpec { termination_message: message, ..lab.fixture.container(&sandbox, name, argv) };
        let _ = lab.host.container_start(&sandbox.id, &spec).await?;
        Ok::<_, super::Stop>(lab.end(&sandbox.id, &spec).await?.message)
    };
    let left = said("left", "echo hello; echo last words > /dev/termination-log; exit 3", true).await?;
    same(&left, &"last words\n".to_owned(), "what it left in the file")?;
    let log = said("log", "echo hello; echo oops >&2; exit 3", true).await?;
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    same(&lines, &vec!["hello", "oops"], "the end of its log, after a failure")?;
    same(&said("well", "echo hello; exit 0", true).await?, &String::new(), "nothing, when all was well")?;
    same(&said("file-only", "echo hello; exit 3", false).await?, &String::new(), "nothing, when only the file counts")
}

async fn containers_of_one_sandbox_are_apart(lab: &Lab<'_>) -> Outcome {
    let (sandbox, one) = lab.running(Program::Until(0)).await?;
    let Ok(name) = ContainerName::new("other") else { return holds(false, "name") };
    let two = ContainerSpec { name, ..lab.container(&sandbox, "other", Program::Until(0)) };
    changed(lab.host.container_start(&sandbox.id, &two).await, "a second container")?;
    let pid = lab.pid(&sandbox.id, &two).await?;
    let _ = lab.host.container_signal(&sandbox.id, &one.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &one).await?;
    same(&lab.pid(&sandbox.id, &two).await?, &pid, "the other container's pid")
}
