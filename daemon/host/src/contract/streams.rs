//! Rules of standard streams and of connections into sandboxes.

use super::lab::{Lab, holds, needs, refused, same};
use super::{Case, Outcome, Program, Stop, case};
use crate::error::HostErrorKind;
use crate::names::SandboxId;
use crate::spec::{ContainerSpec, SandboxNetwork, SandboxSpec, Signal};
use crate::traits::{AttachRequest, Connection, Host, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const PORT: u16 = 8080;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(attached_clients_see_output_and_write_input),
        case!(leaving_ends_nothing_but_an_input_that_is_for_one_client),
        case!(streams_outlive_a_restart_of_the_daemon),
        case!(what_does_not_run_can_not_be_attached),
        case!(connections_reach_a_port_inside),
        case!(many_connections_at_once_keep_apart),
        case!(a_port_without_a_listener_refuses),
        case!(the_host_reaches_a_pods_address),
    ]
}

const ALL: AttachRequest = AttachRequest { stdin: true, stdout: true, stderr: true };

/// A container that copies its input to its output.
async fn copier(lab: &Lab<'_>, once: bool) -> Result<(SandboxSpec, ContainerSpec), Stop> {
    let sandbox = lab.sandbox().await?;
    let container = ContainerSpec { stdin: true, stdin_once: once, ..lab.container(&sandbox, "app", Program::Copy) };
    let _ = lab.host.container_start(&sandbox.id, &container).await?;
    lab.pid(&sandbox.id, &container).await?;
    Ok((sandbox, container))
}

async fn write(session: &mut Session, text: &str) -> Outcome {
    let Some(stdin) = &mut session.stdin else { return holds(false, "no standard input") };
    let written = async {
        stdin.write_all(text.as_bytes()).await?;
        stdin.flush().await
    };
    written.await.map_err(|e| Stop::Broken(format!("writing to the container: {e}")))
}

async fn reads(lab: &Lab<'_>, session: &mut Session, text: &str) -> Outcome {
    let mut found = vec![0; text.len()];
    let read = timeout(lab.fixture.patience(), session.stdout.read_exact(&mut found)).await;
    let read = read.map_err(|_| Stop::Broken(format!("{text:?} does not come")))?;
    read.map_err(|e| Stop::Broken(format!("reading from the container: {e}")))?;
    same(&String::from_utf8_lossy(&found).as_ref(), &text, "the container's output")
}

async fn attached_clients_see_output_and_write_input(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = copier(lab, false).await?;
    let mut first = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    let quiet = AttachRequest { stdin: false, ..ALL };
    let mut second = lab.host.attach(&sandbox.id, &spec.name, quiet).await?;
    holds(second.stdin.is_none(), "standard input that was not asked for")?;
    write(&mut first, "one\n").await?;
    reads(lab, &mut first, "one\n").await?;
    reads(lab, &mut second, "one\n").await?;
    // Who comes later sees what comes later.
    let mut third = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    write(&mut third, "two\n").await?;
    for session in [&mut first, &mut second, &mut third] {
        reads(lab, session, "two\n").await?;
    }
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    let mut rest = Vec::new();
    let over = timeout(lab.fixture.patience(), second.stdout.read_to_end(&mut rest)).await;
    holds(over.is_ok(), "the output of a container that ended goes on")?;
    same(&rest, &Vec::new(), "output after the end")?;
    let exit = timeout(lab.fixture.patience(), &mut second.exit).await;
    holds(matches!(exit, Ok(Ok(exit)) if exit.code == 0), "the session does not tell the end")
}

async fn leaving_ends_nothing_but_an_input_that_is_for_one_client(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = copier(lab, false).await?;
    let mut session = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    write(&mut session, "one\n").await?;
    reads(lab, &mut session, "one\n").await?;
    session.stdin = None;
    drop(session);
    let mut session = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    write(&mut session, "two\n").await?;
    reads(lab, &mut session, "two\n").await?;
    lab.pid(&sandbox.id, &spec).await?;

    let (sandbox, spec) = copier(lab, true).await?;
    let mut session = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    write(&mut session, "last\n").await?;
    reads(lab, &mut session, "last\n").await?;
    session.stdin = None;
    same(&lab.end(&sandbox.id, &spec).await?.code, &0, "exit code after the end of its only input")
}

async fn streams_outlive_a_restart_of_the_daemon(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = copier(lab, false).await?;
    let mut session = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    write(&mut session, "before\n").await?;
    reads(lab, &mut session, "before\n").await?;
    drop(session);
    let host = lab.fixture.restart().await;
    let mut session = host.attach(&sandbox.id, &spec.name, ALL).await?;
    write(&mut session, "after\n").await?;
    reads(lab, &mut session, "after\n").await
}

async fn what_does_not_run_can_not_be_attached(lab: &Lab<'_>) -> Outcome {
    let (sandbox, spec) = lab.running(Program::Until(0)).await?;
    let absent = lab.fixture.sandbox().id;
    let mut session = lab.host.attach(&sandbox.id, &spec.name, ALL).await?;
    holds(session.stdin.take().is_none(), "a standard input that the container does not have")?;
    refused(lab.host.attach(&absent, &spec.name, ALL).await, HostErrorKind::NotFound, "in an unknown sandbox")?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    let late = lab.host.attach(&sandbox.id, &spec.name, ALL).await;
    refused(late, HostErrorKind::InvalidState, "to a container that ended")
}

/// Connects as soon as the program listens.
async fn connected(lab: &Lab<'_>, host: &dyn Host, id: &SandboxId) -> Result<Connection, Stop> {
    let until = tokio::time::Instant::now() + lab.fixture.patience();
    loop {
        match host.connect(id, PORT).await {
            Ok(connection) => return Ok(connection),
            Err(e) if e.kind == HostErrorKind::InvalidState && tokio::time::Instant::now() < until => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Sends a text, ends the sending side, and wants exactly that text back.
async fn echo(lab: &Lab<'_>, connection: Connection, text: &[u8]) -> Outcome {
    let (mut read, mut write) = tokio::io::split(connection);
    let mut back = Vec::new();
    let there = async {
        write.write_all(text).await?;
        write.shutdown().await
    };
    let both = async { tokio::try_join!(there, read.read_to_end(&mut back)) };
    let done = timeout(lab.fixture.patience(), both).await;
    let done = done.map_err(|_| Stop::Broken("what was sent does not come back".into()))?;
    done.map_err(|e| Stop::Broken(format!("talking to a port inside: {e}")))?;
    holds(back == text, format!("{} of {} bytes came back", back.len(), text.len()))
}

async fn connections_reach_a_port_inside(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().ports, "ports that can be connected to")?;
    let (sandbox, _) = lab.running(Program::Listen(PORT)).await?;
    let text = b"0123456789abcde\n".repeat(50_000);
    let connection = connected(lab, lab.host.as_ref(), &sandbox.id).await?;
    echo(lab, connection, &text).await
}

async fn many_connections_at_once_keep_apart(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().ports, "ports that can be connected to")?;
    let (sandbox, _) = lab.running(Program::Listen(PORT)).await?;
    drop(connected(lab, lab.host.as_ref(), &sandbox.id).await?);
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(lab.host.connect(&sandbox.id, PORT).await?);
    }
    for (number, connection) in open.into_iter().enumerate().rev() {
        echo(lab, connection, format!("I am {number}").as_bytes()).await?;
    }
    Ok(())
}

async fn a_port_without_a_listener_refuses(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().ports, "ports that can be connected to")?;
    let (sandbox, _) = lab.running(Program::Until(0)).await?;
    let absent = lab.fixture.sandbox().id;
    refused(lab.host.connect(&absent, PORT).await, HostErrorKind::NotFound, "in an unknown sandbox")?;
    refused(lab.host.connect(&sandbox.id, 81).await, HostErrorKind::InvalidState, "where nobody listens")
}

async fn the_host_reaches_a_pods_address(lab: &Lab<'_>) -> Outcome {
    needs(lab.fixture.abilities().packets, "packets that go somewhere")?;
    let (sandbox, spec) = lab.running(Program::Listen(PORT)).await?;
    let SandboxNetwork::Pod { address, .. } = &sandbox.network else {
        return holds(false, "the fixture's sandboxes are on the pod network");
    };
    let address = address.addr().to_string();
    drop(connected(lab, lab.host.as_ref(), &sandbox.id).await?);
    echo(lab, lab.host.dial(&address, PORT).await?, b"from outside").await?;
    refused(lab.host.dial(&address, 81).await, HostErrorKind::InvalidState, "where nobody listens")?;
    let Err(error) = lab.host.dial(&address, 81).await else { return holds(false, "now it listens") };
    same(&error.message, &format!("dial tcp {address}:81: connect: connection refused"), "the words")?;
    refused(lab.host.dial("no-such-host.invalid", 80).await, HostErrorKind::NotFound, "a name that there is not")?;
    let _ = lab.host.container_signal(&sandbox.id, &spec.name, 0, Signal::Sigkill).await?;
    lab.end(&sandbox.id, &spec).await?;
    refused(lab.host.dial(&address, PORT).await, HostErrorKind::InvalidState, "after its end")
}
