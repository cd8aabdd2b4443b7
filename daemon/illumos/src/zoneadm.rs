//! Zones' states, and the list of zones (zoneadm(8)).

use crate::parsable;
use std::fmt;
use std::path::PathBuf;

/// A zone's state as `zoneadm list` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ZoneState {
    /// Configuration only.
    Configured,
    /// An installation or its removal was cut off.
    Incomplete,
    /// Complete, not running.
    Installed,
    /// The virtual platform is up, no process runs yet.
    Ready,
    /// Mounted for administration.
    Mounted,
    /// Processes run.
    Running,
    /// Being halted.
    ShuttingDown,
    /// Halted, but something still holds the platform.
    Down,
    /// Configured, but its root can't be used on this system as it is.
    Unavailable,
    /// A state that this version does not know: left alone, shown.
    Other(String),
}

impl ZoneState {
    /// A state by the word that zoneadm(8) has for it; a word that is not known is no error.
    pub fn of(word: &str) -> Self {
        match word {
            "configured" => Self::Configured,
            "incomplete" => Self::Incomplete,
            "installed" => Self::Installed,
            "ready" => Self::Ready,
            "mounted" => Self::Mounted,
            "running" => Self::Running,
            "shutting_down" => Self::ShuttingDown,
            "down" => Self::Down,
            "unavailable" => Self::Unavailable,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for ZoneState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "configured",
            Self::Incomplete => "incomplete",
            Self::Installed => "installed",
            Self::Ready => "ready",
            Self::Mounted => "mounted",
            Self::Running => "running",
            Self::ShuttingDown => "shutting_down",
            Self::Down => "down",
            Self::Unavailable => "unavailable",
            Self::Other(word) => word,
        })
    }
}

/// One zone of `zoneadm list -cp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its number while its platform is up; another one after each boot.
    pub id: Option<u32>,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ZoneState,
    /// Its directory.
    pub zonepath: PathBuf,
    /// Its uuid; `None` while it is configured only.
    pub uuid: Option<String>,
    /// Its brand.
    pub brand: String,
    /// Whether its network stack is its own.
    pub exclusive_ip: bool,
}

/// A line of `zoneadm list -cp` that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("zoneadm list: line {line:?}: {what}")]
pub struct ListError {
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub what: &'static str,
}

/// Reads `zoneadm list -cp`, without the global zone. Fields after the seventh (OmniOS and SmartOS print a debug id)
/// are passed over; a state that is not known does not spoil the list.
///
/// # Errors
/// [`ListError`]: then nothing may be taken as absent.
pub fn list(text: &str) -> Result<Vec<Zone>, ListError> {
    let zones = text.lines().filter(|l| !l.is_empty()).map(zone).collect::<Result<Vec<_>, _>>()?;
    Ok(zones.into_iter().filter(|z| z.name != "global").collect())
}

fn zone(line: &str) -> Result<Zone, ListError> {
    let error = |what| ListError { line: line.to_owned(), what };
    let fields = parsable::fields(line);
    let [id, name, state, zonepath, uuid, brand, ip, ..] = &fields[..] else {
        return Err(error("fewer than seven fields"));
    };
    let id = match id.as_str() {
        "-" => None,
        number => Some(number.parse().map_err(|_| error("the zone id is no number"))?),
    };
    if name.is_empty() {
        return Err(error("a zone without a name"));
    }
    let exclusive_ip = match ip.as_str() {
        "excl" => true,
        "shared" => false,
        _ => return Err(error("the IP type is neither excl nor shared")),
    };
    Ok(Zone {
        id,
        name: name.clone(),
        state: ZoneState::of(state),
        zonepath: zonepath.into(),
        uuid: Some(uuid.clone()).filter(|u| !u.is_empty()),
        brand: brand.clone(),
        exclusive_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_list_of_every_distribution_is_read() {
        let text = "0:global:running:/::ipkg:shared:0\n-:rw-new:configured:/zones/rw-new::lipkg:excl:\n\
                    7:rw-db:running:/zones/a\\:b:91aa:lx:excl:4\n-:old:installed:/zones/old:77:ipkg:shared\n";
        let zones = list(text).unwrap();
        assert_eq!(zones.iter().map(|z| z.name.as_str()).collect::<Vec<_>>(), ["rw-new", "rw-db", "old"]);
        assert_eq!((zones[0].id, &zones[0].state, &zones[0].uuid), (None, &ZoneState::Configured, &None));
        assert_eq!((zones[1].id, zones[1].zonepath.to_str()), (Some(7), Some("/zones/a:b")));
        assert_eq!((zones[1].exclusive_ip, zones[2].exclusive_ip), (true, false));
    }

    /// The earlier reddwarf gave up on the whole list when one zone was `mounted`.
    #[test]
    fn a_state_that_is_not_known_does_not_spoil_the_list() {
        let zones = list("-:a:mounted:/a:1:ipkg:excl\n-:b:hibernating:/b:2:ipkg:excl\n").unwrap();
        assert_eq!(zones[0].state, ZoneState::Mounted);
        assert_eq!(zones[1].state, ZoneState::Other("hibernating".into()));
        assert_eq!(zones[1].state.to_string(), "hibernating");
    }

    #[test]
    fn a_cut_off_list_is_no_list() {
        for cut in ["-:rw-new:conf", "x:a:running:/a::b:excl", "-::running:/a::b:excl", "-:a:running:/a::b:e"] {
            assert!(list(cut).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9a-z:\\\\\\n/]{0,60}") {
            let _ = list(&text);
        }
    }
}
