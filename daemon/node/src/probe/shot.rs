//! One shot of a probe, and what its answer means, in the reference's words.

use super::exec::{self, Ended};
use super::spec::{Action, ProbeSpec};
use super::{go_seconds, grpc, http};
use reddwarf_host::spec::HookPort;
use reddwarf_host::{ContainerName, Host, HostErrorKind, SandboxId};
use std::net::IpAddr;
use tokio::time::timeout;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The container.
    pub container: ContainerName,
    /// The pod's address.
    pub address: IpAddr,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Good.
    Good,
    /// Good, with something to say.
    Warning(String),
    /// Bad; why.
    Bad(String),
    /// The question could not be asked: neither good nor bad.
    NotAsked(String),
    /// There is nobody to ask any more.
    Gone,
}

/// Asks once.
pub async fn shoot(host: &dyn Host, spec: &ProbeSpec, target: &Target) -> Outcome {
    match &spec.action {
        Action::Exec { argv } => command(host, spec, target, argv).await,
        Action::Http(get) => {
            let url = match http::url(get, target.address) {
                Ok(url) => url,
                Err(message) => return Outcome::NotAsked(message),
            };
            let late =
                format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
            match timeout(spec.timeout, http::get(host, get, url)).await {
                Err(_) => Outcome::Bad(late),
                Ok(Err(message)) => Outcome::Bad(message),
                Ok(Ok(answer)) => status(answer),
            }
        }
        Action::Tcp { host: other, port: HookPort::Number(port) } => {
            let to = other.clone().unwrap_or_else(|| target.address.to_string());
            match timeout(spec.timeout, host.dial(&to, *port)).await {
                Ok(Ok(_)) => Outcome::Good,
                Ok(Err(error)) => Outcome::Bad(error.message),
                Err(_) if to.contains(':') => Outcome::Bad(format!("dial tcp [{to}]:{port}: i/o timeout")),
                Err(_) => Outcome::Bad(format!("dial tcp {to}:{port}: i/o timeout")),
            }
        }
        Action::Tcp { port: HookPort::Missing(name), .. } => Outcome::NotAsked(format!("couldn't find port: {name}")),
        Action::Grpc { port, service } => match grpc::check(host, target.address, *port, service, spec.timeout).await {
            Ok(()) => Outcome::Good,
            Err(message) => Outcome::Bad(message),
        },
    }
}

async fn command(host: &dyn Host, spec: &ProbeSpec, target: &Target, argv: &[String]) -> Outcome {
    match exec::command(host, &target.sandbox, &target.container, argv, Some(spec.timeout)).await {
        Ended::Exit(0, _) => Outcome::Good,
        Ended::Exit(_, output) | Ended::Flood(output) => Outcome::Bad(output),
        Ended::Late => {
            let limit = go_seconds(spec.timeout);
            Outcome::Bad(format!("command timed out: {:?} timed out after {limit}", argv.join(" ")))
        }
        Ended::NotRun(error) => match error.kind {
            HostErrorKind::NotFound | HostErrorKind::InvalidState => Outcome::Gone,
            _ => Outcome::NotAsked(error.message),
        },
    }
}

/// The answer's body is not shown: it may hold what nobody but the pod's clients should see.
fn status(answer: http::Answer) -> Outcome {
    match answer.status {
        200..300 => Outcome::Good,
        300..400 => Outcome::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        status => Outcome::Bad(format!("HTTP probe failed with statuscode: {status}")),
    }
}
