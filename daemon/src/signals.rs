//! Signals, caught before anything else runs so that none is lost.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use tokio::sync::mpsc;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Stop managing and leave pods running.
    Stop,
    /// Read settings and manifests again.
    Reload,
}

/// Catches SIGTERM, SIGINT and SIGHUP from now on.
///
/// # Errors
/// When the handlers can't be installed.
pub(crate) fn catch() -> io::Result<mpsc::Receiver<Asked>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let (send, receive) = mpsc::channel(8);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            let asked = if signal == SIGHUP { Asked::Reload } else { Asked::Stop };
            // A full queue already holds what this signal would ask for.
            if send.try_send(asked).is_err() && send.is_closed() {
                return;
            }
        }
    })?;
    Ok(receive)
}
