//! One line an event on standard error, for journald and SMF alike.

use reddwarf_config::settings::{LogFormat, Settings};
use tracing_subscriber::EnvFilter;

/// Starts logging by the settings; `RUST_LOG` wins over them.
pub fn start(settings: &Settings) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&settings.log_level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second start (in tests) keeps the first: nothing is lost by that.
    let _ = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
