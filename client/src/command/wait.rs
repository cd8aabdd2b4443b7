//! `wait`: until objects are as asked, or gone.

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::kube::{self, Query};
use crate::output::jsonpath::{self, JsonPath};
use crate::pod_reason;
use crate::rollout::{self, Standing};
use crate::target::{self, Target};
use reddwarf_objects::Kind;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// How soon to ask again when the daemon does not answer, as while it is being restarted.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Kinds and names: `pod/web`, `pods web db`, or a kind with -l or --all
    #[arg(required = true, value_name = "KIND/NAME")]
    what: Vec<String>,
    /// `condition=TYPE[=VALUE]`, `delete`, `create`, or `jsonpath=TEMPLATE[=VALUE]`
    #[arg(long = "for", value_name = "WHAT", default_value = "condition=Ready", value_parser = Goal::parse)]
    goal: Goal,
    /// Give up after this: `30s`, `2m`; 0 looks once
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// All objects with these labels that are there now
    #[arg(short = 'l', long, value_name = "SELECTOR", default_value = "", hide_default_value = true)]
    selector: String,
    /// All objects of the kind that are there now
    #[arg(long)]
    all: bool,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Goal {
    /// A condition has this status.
    Condition(String, String),
    /// It does not exist.
    Gone,
    /// It exists.
    There,
    /// A template finds something, or this value.
    Path(JsonPath, Option<String>),
    /// Its pods are as they are to be: see [`rollout`].
    Up,
}

impl Goal {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "delete" => return Ok(Self::Gone),
            "create" => return Ok(Self::There),
            _ => {}
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
            return if kind.is_empty() {
                Err("name a condition: condition=Ready".into())
            } else {
                Ok(Self::Condition(kind.into(), status.into()))
            };
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            // The value stands behind the last brace; braces inside filters have their own `=`.
            let (template, value) = match path.rfind('}') {
                Some(end) => (&path[..=end], path[end + 1..].strip_prefix('=')),
                None => path.split_once('=').map_or((path, None), |(t, v)| (t, Some(v))),
            };
            let parsed = JsonPath::parse(template.trim_matches('\'')).map_err(|e| e.to_string())?;
            return Ok(Self::Path(parsed, value.map(|v| v.trim_matches('\'').to_owned())));
        }
        Err("wait for condition=TYPE[=VALUE], delete, create or jsonpath=TEMPLATE[=VALUE]".into())
    }

    /// Is it reached? `None`: the object is not there. The error: it won't be.
    fn met(&self, kind: &Kind, object: Option<&Value>) -> Result<bool, Error> {
        let Some(object) = object else { return Ok(*self == Self::Gone) };
        Ok(match self {
            Self::Gone => false,
            Self::There => true,
            Self::Condition(kind, wanted) => {
                kube::condition(object, kind).is_some_and(|c| kube::text(c, "/status").eq_ignore_ascii_case(wanted))
            }
            Self::Path(path, wanted) => {
                let found = path.find(object);
                match wanted {
                    Some(wanted) => found.iter().any(|value| jsonpath::text(value) == *wanted),
                    None => !found.is_empty(),
                }
            }
            Self::Up => match rollout::standing(kind, object) {
                Standing::Up(_) => true,
                Standing::Waiting(_) => false,
                Standing::Failed(why) => {
                    let short = Target::short(kind, kube::text(object, "/metadata/name"));
                    return Err(Error::Failed(format!("{short} has failed: {why}")));
                }
            },
        })
    }

    fn words(&self) -> String {
        match self {
            Self::Gone => "to be deleted".into(),
            Self::There => "to be created".into(),
            Self::Condition(kind, status) => format!("for condition {kind}={status}"),
            Self::Path(_, Some(value)) => format!("for the value {value:?}"),
            Self::Path(_, None) => "for a value".into(),
            Self::Up => "to be up".into(),
        }
    }
}

/// `90`, `90s`, `5m`, `2h30m`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let refusal = || format!("{text:?} is no duration: write 500ms, 30s, 5m or 2h");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refusal)?;
        let number: u64 = rest[..digits].parse().map_err(|_| refusal())?;
        rest = &rest[digits..];
        let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        let (unit, factor) = units.into_iter().find(|(unit, _)| rest.starts_with(unit)).ok_or_else(refusal)?;
        rest = &rest[unit.len()..];
        let part = number.checked_mul(factor).map(Duration::from_millis).ok_or_else(refusal)?;
        total = total.checked_add(part).ok_or_else(refusal)?;
    }
    if text.is_empty() { Err(refusal()) } else { Ok(total) }
}

pub(crate) async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Error> {
    let deadline = Instant::now() + arguments.timeout;
    let mut waited = Vec::new();
    for target in target::targets(&arguments.what)? {
        match target.name {
            Some(name) => waited.push((target.kind, name)),
            None if arguments.all || !arguments.selector.is_empty() => {
                let query = Query { labels: &arguments.selector, fields: "" };
                let list = kube::list(&context.daemon, target.kind, Some(context.namespace()), &query).await?;
                waited.extend(list.items.iter().map(|i| (target.kind, kube::text(i, "/metadata/name").to_owned())));
            }
            None => {
                let help = "name objects (pod/web), or give -l SELECTOR or --all";
                return Err(Error::usage(format!("which {} to wait for is not said", target.kind.plural), help));
            }
        }
    }
    for (kind, name) in waited {
        let namespace = context.namespace();
        let wish = Wish { kind, namespace, name: &name, goal: &arguments.goal };
        match wish.wait(context, deadline).await {
            Ok(_) => context.say(&format!("{} {}", Target::short(kind, &name), done(&arguments.goal)))?,
            // Looked at once, without waiting: not as asked rather than timed out.
            Err(e @ Error::TimedOut { .. }) if arguments.timeout.is_zero() => {
                context.fail(&e);
                return Ok(Exit::Degraded);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Exit::Ok)
}

fn done(goal: &Goal) -> &'static str {
    match goal {
        Goal::Gone => "deleted",
        Goal::There => "created",
        _ => "condition met",
    }
}

/// One object and what is waited for.
pub(crate) struct Wish<'a> {
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) goal: &'a Goal,
}

impl Wish<'_> {
    /// Until it is so, or the deadline has passed: the object then. A daemon that stops answering midway is waited for too.
    pub(crate) async fn wait(&self, context: &Context, deadline: Instant) -> Result<Option<Value>, Error> {
        let mut last = None;
        let mut answered = false;
        let watching = async {
            loop {
                match self.look(context, &mut last, &mut answered).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(e) if e.is_connection() && answered => tokio::time::sleep(RETRY).await,
                    Err(Error::Refused { status }) if status.code == 410 => {}
                    Err(Error::Refused { status }) if status.code == 503 => tokio::time::sleep(RETRY).await,
                    Err(e) => return Err(e),
                }
            }
        };
        // The first look is always finished: a timeout of 0 means to look once.
        let patience = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(250));
        match tokio::time::timeout(patience, watching).await {
            Ok(Ok(())) => Ok(last),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.timed_out(context, last.as_ref()).await),
        }
    }

    /// Looks, then watches. True when the goal is reached, false when the watch ended before.
    async fn look(&self, context: &Context, last: &mut Option<Value>, answered: &mut bool) -> Result<bool, Error> {
        let fields = format!("metadata.name={}", self.name);
        let query = Query { labels: "", fields: &fields };
        let mut list = kube::list(&context.daemon, self.kind, Some(self.namespace), &query).await?;
        *answered = true;
        *last = list.items.pop();
        if self.goal.met(self.kind, last.as_ref())? {
            return Ok(true);
        }
        let mut watch =
            kube::watch(&context.daemon, self.kind, Some(self.namespace), &query, &list.resource_version).await?;
        while let Some(event) = watch.next().await? {
            *last = (!event.is_deletion()).then_some(event.object);
            if self.goal.met(self.kind, last.as_ref())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn timed_out(&self, context: &Context, last: Option<&Value>) -> Error {
        let short = Target::short(self.kind, self.name);
        let mut pod = self.kind.is_core("Pod").then(|| self.name.to_owned());
        let seen = match (last, self.goal) {
            (None, _) => "it does not exist".to_owned(),
            (Some(object), Goal::Up) if !self.kind.is_core("Pod") => {
                let mut seen = match rollout::standing(self.kind, object) {
                    Standing::Waiting(why) | Standing::Failed(why) => why,
                    Standing::Up(words) => format!("it {words}"),
                };
                match rollout::trouble(context, self.namespace, object).await {
                    Some((Some(name), why)) => {
                        seen = format!("{seen}; pod/{name}: {why}");
                        pod = Some(name);
                    }
                    Some((None, why)) => seen = format!("{seen}; {why}"),
                    None => {}
                }
                seen
            }
            (Some(object), _) => pod_reason::seen(object),
        };
        let help = match pod {
            Some(pod) => format!("`reddwarfctl why pod/{pod}` tells more"),
            None if *self.goal == Goal::Up => format!("`reddwarfctl describe {short}` tells more"),
            None => String::new(),
        };
        Error::TimedOut { what: format!("timed out waiting for {short} {}: {seen}", self.goal.words()), help }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations() {
        for (text, ms) in
            [("30s", 30_000), ("2m", 120_000), ("1h30m", 5_400_000), ("250ms", 250), ("7", 7_000), ("0", 0)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "5x", "-1s", "soon", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn goals() {
        let kind = reddwarf_objects::kinds().by_gvk("v1", "Pod").unwrap();
        let met = |goal: &str, object: Option<Value>| Goal::parse(goal).unwrap().met(kind, object.as_ref()).unwrap();
        let pod = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(met("condition=Ready", Some(pod.clone())));
        assert!(met("condition=ready=true", Some(pod.clone())));
        assert!(!met("condition=Ready=False", Some(pod.clone())));
        assert!(!met("condition=Other", Some(pod.clone())));
        assert!(!met("condition=Ready", None));
        assert!(met("delete", None) && !met("delete", Some(pod.clone())));
        assert!(met("create", Some(pod.clone())) && !met("create", None));
        assert!(met("jsonpath={.status.phase}=Running", Some(pod.clone())));
        assert!(met("jsonpath='{.status.phase}'=Running", Some(pod.clone())));
        assert!(met("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True", Some(pod.clone())));
        assert!(met("jsonpath={.status.phase}", Some(pod.clone())) && !met("jsonpath={.status.podIP}", Some(pod)));
        assert!(Goal::parse("Ready").is_err() && Goal::parse("condition=").is_err());
    }
}
