//! Signals by name, as images, pods and logs write them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! signals {
    ($($variant:ident $name:literal $number:literal),+ $(,)?) => {
        /// A signal by its POSIX name. Written and stored as text: `SIGTERM`, `SIGRTMIN+3`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[allow(missing_docs)]
        pub enum Signal {
            $($variant,)+
            /// A real-time signal: `SIGRTMIN` plus so many, at most [`Signal::REAL_TIME`].
            RealTime(u8),
        }

        /// Every signal that has a name of its own, with Linux' number (signal(7), x86 and ARM).
        const NAMED: &[(Signal, &str, i32)] = &[$((Signal::$variant, $name, $number)),+];
    };
}

signals! {
    Sighup "HUP" 1, Sigint "INT" 2, Sigquit "QUIT" 3, Sigill "ILL" 4, Sigtrap "TRAP" 5, Sigabrt "ABRT" 6,
    Sigbus "BUS" 7, Sigfpe "FPE" 8, Sigkill "KILL" 9, Sigusr1 "USR1" 10, Sigsegv "SEGV" 11, Sigusr2 "USR2" 12,
    Sigpipe "PIPE" 13, Sigalrm "ALRM" 14, Sigterm "TERM" 15, Sigstkflt "STKFLT" 16, Sigchld "CHLD" 17,
    Sigcont "CONT" 18, Sigstop "STOP" 19, Sigtstp "TSTP" 20, Sigttin "TTIN" 21, Sigttou "TTOU" 22, Sigurg "URG" 23,
    Sigxcpu "XCPU" 24, Sigxfsz "XFSZ" 25, Sigvtalrm "VTALRM" 26, Sigprof "PROF" 27, Sigwinch "WINCH" 28,
    Sigio "IO" 29, Sigpwr "PWR" 30, Sigsys "SYS" 31,
}

/// Linux' number of SIGRTMIN as programs see it; the two below are the C library's own.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A text that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signal: name it as in SIGTERM or SIGRTMIN+3, or by Linux' number")]
pub struct UnknownSignal(String);

impl Signal {
    /// The highest number above `SIGRTMIN`.
    pub const REAL_TIME: u8 = (RTMAX - RTMIN) as u8;

    /// Its number on Linux, which is also the one that images and exit codes count by.
    pub fn linux_number(self) -> i32 {
        match self {
            Self::RealTime(n) => RTMIN + i32::from(n.min(Self::REAL_TIME)),
            named => NAMED.iter().find(|(s, _, _)| *s == named).map_or(15, |(_, _, number)| *number),
        }
    }

    fn from_linux_number(number: i32) -> Option<Self> {
        if (RTMIN..=RTMAX).contains(&number) {
            return u8::try_from(number - RTMIN).ok().map(Self::RealTime);
        }
        NAMED.iter().find(|(_, _, n)| *n == number).map(|(signal, _, _)| *signal)
    }

    /// `SIGRTMIN`, `SIGRTMIN+n`, `SIGRTMAX`, `SIGRTMAX-n`, without `SIG`.
    fn real_time(name: &str) -> Option<Self> {
        let number = |text: &str, sign: char| match text.strip_prefix(sign) {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<u8>().ok(),
            Some(_) => None,
            None => text.is_empty().then_some(0),
        };
        let above = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(rest), _) => number(rest, '+')?,
            (None, Some(rest)) => Self::REAL_TIME.checked_sub(number(rest, '-')?)?,
            (None, None) => return None,
        };
        (above <= Self::REAL_TIME).then_some(Self::RealTime(above))
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// `SIGTERM`, `TERM`, `sigterm`, `15`, `SIGRTMIN+3`, `37`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownSignal(text.chars().take(32).collect());
        let upper = text.trim().to_ascii_uppercase();
        if let Ok(number) = upper.parse::<i32>() {
            return Self::from_linux_number(number).ok_or_else(unknown);
        }
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let name = match name {
            "CLD" => "CHLD",
            "IOT" => "ABRT",
            "POLL" => "IO",
            other => other,
        };
        let named = NAMED.iter().find(|(_, n, _)| *n == name).map(|(signal, _, _)| *signal);
        named.or_else(|| Self::real_time(name)).ok_or_else(unknown)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RealTime(0) => f.write_str("SIGRTMIN"),
            Self::RealTime(n) => write!(f, "SIGRTMIN+{n}"),
            named => {
                let name = NAMED.iter().find(|(s, _, _)| s == named).map_or("TERM", |(_, name, _)| name);
                write!(f, "SIG{name}")
            }
        }
    }
}

impl TryFrom<String> for Signal {
    type Error = UnknownSignal;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_signal_is_read_and_all_are_written_one_way() {
        for (text, written, number) in [
            ("SIGTERM", "SIGTERM", 15),
            ("term", "SIGTERM", 15),
            (" 15 ", "SIGTERM", 15),
            ("9", "SIGKILL", 9),
            ("SIGPOLL", "SIGIO", 29),
            ("SIGWINCH", "SIGWINCH", 28),
            ("SIGRTMIN", "SIGRTMIN", 34),
            ("SIGRTMIN+3", "SIGRTMIN+3", 37),
            ("37", "SIGRTMIN+3", 37),
            ("RTMAX-14", "SIGRTMIN+16", 50),
            ("SIGRTMAX", "SIGRTMIN+30", 64),
        ] {
            let signal: Signal = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((signal.to_string().as_str(), signal.linux_number()), (written, number), "{text}");
            let stored = serde_json::to_string(&signal).unwrap();
            assert_eq!(serde_json::from_str::<Signal>(&stored).unwrap(), signal);
        }
        for text in ["", "0", "32", "65", "-1", "SIG", "SIGNOPE", "SIGRTMIN+31", "SIGRTMIN3", "SIGRTMAX-31", "RTMIN+-1"]
        {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&Signal::Sigterm).unwrap(), "\"SIGTERM\"", "as earlier versions stored it");
    }
}
