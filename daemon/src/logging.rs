//! One line an event on standard error, for journald and SMF alike.

use reddwarf_config::settings::{LogFormat, Settings};
use std::sync::OnceLock;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging by the settings; `RUST_LOG` wins over them, unless it is empty.
pub(crate) fn start(settings: &Settings) {
    let filter = from_environment().unwrap_or_else(|| wanted(settings));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Takes over a changed `log_level`, unless `RUST_LOG` is set.
pub(crate) fn adjust(settings: &Settings) {
    if from_environment().is_some() {
        return;
    }
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(wanted(settings))
    {
        tracing::warn!(%error, "the log level could not be changed");
    }
}

/// What `RUST_LOG` says. An empty one says nothing; taken as a filter it would silence everything.
fn from_environment() -> Option<EnvFilter> {
    filter_of(&std::env::var(EnvFilter::DEFAULT_ENV).ok()?)
}

fn filter_of(text: &str) -> Option<EnvFilter> {
    let text = text.trim();
    if text.is_empty() { None } else { EnvFilter::try_new(text).ok() }
}

fn wanted(settings: &Settings) -> EnvFilter {
    EnvFilter::try_new(&settings.log_level).unwrap_or_else(|_| EnvFilter::new("info"))
}

#[cfg(test)]
mod tests {
    use super::filter_of;

    #[test]
    fn an_empty_filter_is_none() {
        for (text, expected) in [("", None), (" ", None), ("debug", Some("debug")), ("a=warn", Some("a=warn"))] {
            assert_eq!(filter_of(text).map(|f| f.to_string()).as_deref(), expected, "{text:?}");
        }
    }
}
