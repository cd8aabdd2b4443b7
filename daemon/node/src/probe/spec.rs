//! A container's probes and hooks, complete: ports by number, thresholds at least one.

use crate::translate::expand;
use reddwarf_host::spec::{Hook, HookPort, HttpGet, Lifecycle, Sensitive};
use reddwarf_objects::pod::{Container, Handler, HttpGetAction, PortRef, Probe};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a probe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Whether the container has started; the others wait for it.
    Startup,
    /// Whether it must be restarted.
    Liveness,
    /// Whether it takes requests.
    Readiness,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        })
    }
}

/// One probe of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// What it decides.
    pub kind: Kind,
    /// How it asks.
    pub action: Action,
    /// From the container's start to the first shot.
    pub delay: Duration,
    /// From one shot to the next.
    pub period: Duration,
    /// No answer after so long is a bad one.
    pub timeout: Duration,
    /// Good answers in a row that make a good verdict.
    pub success: u32,
    /// Bad answers in a row that make a bad verdict.
    pub failure: u32,
    /// The grace of a container that it ends; the pod's when `None`.
    pub grace: Option<Duration>,
}

/// How a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A command in the container.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// An HTTP GET.
    Http(HttpGet),
    /// A TCP connection.
    Tcp {
        /// Where; `None`: the pod's address.
        host: Option<String>,
        /// Which port.
        port: HookPort,
    },
    /// A gRPC health check.
    Grpc {
        /// Which port of the pod's address.
        port: u16,
        /// Which service; empty: the server.
        service: String,
    },
}

/// A container's probes, each kind at most once.
pub fn probes(container: &Container) -> Vec<ProbeSpec> {
    [
        (Kind::Startup, &container.startup_probe),
        (Kind::Liveness, &container.liveness_probe),
        (Kind::Readiness, &container.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| probe_spec(container, kind, probe.as_ref()?))
    .collect()
}

/// `None` when it asks nothing, which admission refuses.
fn probe_spec(container: &Container, kind: Kind, probe: &Probe) -> Option<ProbeSpec> {
    let Handler { exec, http_get, tcp_socket, grpc, sleep: _ } = &probe.handler;
    let action = if let Some(exec) = exec {
        Action::Exec { argv: argv(container, &exec.command) }
    } else if let Some(get) = http_get {
        Action::Http(http(container, get))
    } else if let Some(tcp) = tcp_socket {
        Action::Tcp { host: filled(&tcp.host), port: port(container, &tcp.port) }
    } else if let Some(grpc) = grpc {
        Action::Grpc { port: grpc.port, service: grpc.service.clone().unwrap_or_default() }
    } else {
        return None;
    };
    let seconds =
        |value: i64, default: u64| Duration::from_secs(u64::try_from(value).ok().filter(|s| *s > 0).unwrap_or(default));
    let times = |value: i64, default: u32| u32::try_from(value).ok().filter(|n| *n > 0).unwrap_or(default);
    Some(ProbeSpec {
        kind,
        action,
        delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success: times(probe.success_threshold, 1),
        failure: times(probe.failure_threshold, 3),
        grace: probe.termination_grace_period_seconds.map(|s| seconds(s, 1)),
    })
}

/// A container's hooks.
pub fn lifecycle(container: &Container) -> Lifecycle {
    let hook = |handler: &Option<Handler>| handler.as_ref().and_then(|h| hook(container, h));
    Lifecycle { post_start: hook(&container.lifecycle.post_start), pre_stop: hook(&container.lifecycle.pre_stop) }
}

fn hook(container: &Container, handler: &Handler) -> Option<Hook> {
    let Handler { exec, http_get, tcp_socket, grpc, sleep } = handler;
    if let Some(exec) = exec {
        Some(Hook::Exec { argv: exec.command.clone() })
    } else if let Some(get) = http_get {
        Some(Hook::HttpGet(http(container, get)))
    } else if let Some(sleep) = sleep {
        Some(Hook::Sleep { time: Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)) })
    } else if tcp_socket.is_some() {
        Some(Hook::Unsupported { kind: "tcpSocket".into() })
    } else {
        grpc.is_some().then(|| Hook::Unsupported { kind: "grpc".into() })
    }
}

/// `$(NAME)` stands for the variables that the container spells out, as in the reference: those with a source are not
/// known where probes are made.
fn argv(container: &Container, command: &[String]) -> Vec<String> {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    for variable in container.env.iter().filter(|v| v.value_from.is_none()) {
        let value = expand(variable.value.as_deref().unwrap_or_default(), |name| known.get(name).map(String::as_str));
        known.insert(&variable.name, value);
    }
    command.iter().map(|text| expand(text, |name| known.get(name).map(String::as_str))).collect()
}

fn http(container: &Container, get: &HttpGetAction) -> HttpGet {
    HttpGet {
        tls: get.scheme.eq_ignore_ascii_case("https"),
        host: filled(&get.host),
        port: port(container, &get.port),
        path: get.path.clone(),
        headers: get.http_headers.iter().map(|h| (h.name.clone(), Sensitive::new(h.value.clone()))).collect(),
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A name is one of the container's own ports, or a number in quotes.
fn port(container: &Container, port: &PortRef) -> HookPort {
    let number = match port {
        PortRef::Number(number) => Some(*number),
        PortRef::Name(name) => {
            let named = container.ports.iter().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    match (number.filter(|n| *n > 0), port) {
        (Some(number), _) => HookPort::Number(number),
        (None, PortRef::Name(name)) => HookPort::Missing(name.clone()),
        (None, PortRef::Number(number)) => HookPort::Missing(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    fn container(value: Value) -> Container {
        Container::deserialize(value).unwrap()
    }

    #[test]
    fn ports_are_found_by_name_and_defaults_filled_in() {
        let all = probes(&container(json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 8080}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}, {"name": "S", "valueFrom": {}}],
            "startupProbe": {"tcpSocket": {"port": "web"}, "failureThreshold": 30, "periodSeconds": 1},
            "livenessProbe": {"exec": {"command": ["x", "$(B)", "$(S)"]}, "terminationGracePeriodSeconds": 7},
            "readinessProbe": {"httpGet": {"port": "none", "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "h"}]}},
        })));
        let [startup, liveness, readiness] = &all[..] else { panic!("{all:?}") };
        assert_eq!(startup.action, Action::Tcp { host: None, port: HookPort::Number(8080) });
        assert_eq!((startup.period, startup.failure, startup.success), (Duration::from_secs(1), 30, 1));
        assert_eq!(liveness.action, Action::Exec { argv: vec!["x".into(), "12".into(), "$(S)".into()] });
        assert_eq!(liveness.grace, Some(Duration::from_secs(7)));
        assert_eq!(
            (liveness.period, liveness.timeout, liveness.failure),
            (Duration::from_secs(10), Duration::from_secs(1), 3)
        );
        let Action::Http(get) = &readiness.action else { panic!("{readiness:?}") };
        assert!(get.tls && get.port == HookPort::Missing("none".into()), "{get:?}");
        assert!(!format!("{get:?}").contains("\"h\""), "headers may hold credentials: {get:?}");
    }

    #[test]
    fn hooks_are_read() {
        let hooks = lifecycle(&container(json!({"lifecycle": {
            "postStart": {"tcpSocket": {"port": 80}}, "preStop": {"sleep": {"seconds": 3}}}})));
        assert_eq!(hooks.post_start, Some(Hook::Unsupported { kind: "tcpSocket".into() }));
        assert_eq!(hooks.pre_stop, Some(Hook::Sleep { time: Duration::from_secs(3) }));
        assert_eq!(lifecycle(&container(json!({}))), Lifecycle::default());
    }
}
