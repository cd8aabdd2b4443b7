//! The terminal: its size, and raw mode for `exec -t`.

use crate::error::Error;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io;

/// Columns and rows of the terminal.
pub(crate) fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size().map(|(width, height)| (width.0, height.0))
}

/// Raw mode of standard input: every key goes to the program at the other end. Put back when dropped.
pub(crate) struct RawMode(Termios);

impl RawMode {
    /// Switches standard input to raw mode.
    pub(crate) fn on() -> Result<Self, Error> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).map_err(|e| Error::Terminal(e.into()))?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw).map_err(|e| Error::Terminal(e.into()))?;
        Ok(Self(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no mending.
        let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.0);
    }
}
