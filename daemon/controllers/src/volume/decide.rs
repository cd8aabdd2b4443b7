//! Which volume a claim gets. Pure.

use super::read::{Claim, Volume};

/// Why a volume is not for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Fits,
    /// It is on its way out.
    Leaving,
    /// It is somebody else's, or was used before.
    Taken,
    /// Files are asked for and it is a block device, or the other way round.
    Mode,
    /// It is of another class.
    Class,
    /// It holds too little.
    Small,
    /// It does not allow what is asked for.
    Access,
    /// It lacks labels that are asked for.
    Labels,
}

impl Fit {
    /// As the reference says it of a volume that a claim names.
    pub fn text(self) -> &'static str {
        match self {
            Self::Fits => "",
            Self::Leaving => "requested PV is being deleted",
            Self::Taken => "requested PV is already bound to a different claim",
            Self::Mode => "incompatible volumeMode",
            Self::Class => "storageClassName does not match",
            Self::Small => "requested PV is too small",
            Self::Access => "incompatible accessMode",
            Self::Labels => "selector does not match",
        }
    }
}

/// Whether a volume may be bound to a claim. Labels and state don't count for one that was set aside for the claim.
pub fn fits(claim: &Claim, volume: &Volume) -> Fit {
    let own = volume.is_for(claim);
    let labelled = || match &claim.selector {
        None => true,
        Some(Ok(selector)) => selector.matches_labels(|key| volume.labels.get(key).map(String::as_str)),
        Some(Err(())) => false,
    };
    if volume.leaving {
        Fit::Leaving
    } else if !own && (volume.claim.is_some() || volume.phase != "Available") {
        Fit::Taken
    } else if volume.block != claim.block {
        Fit::Mode
    } else if volume.class != claim.class.as_deref().unwrap_or_default() {
        Fit::Class
    } else if volume.bytes < claim.bytes {
        Fit::Small
    } else if !claim.modes.is_subset(&volume.modes) {
        Fit::Access
    } else if !own && !labelled() {
        Fit::Labels
    } else {
        Fit::Fits
    }
}

/// The volume for a claim: one that was set aside for it, else the smallest that fits.
pub fn best<'v>(claim: &Claim, volumes: &'v [Volume]) -> Option<&'v Volume> {
    let fitting = volumes.iter().filter(|volume| fits(claim, volume) == Fit::Fits);
    fitting.min_by_key(|volume| (!volume.is_for(claim), volume.bytes, &volume.name))
}

#[cfg(test)]
mod tests {
    use super::super::read::Binding;
    use super::*;
    use proptest::prelude::*;
    use reddwarf_objects::selector::LabelSelector;
    use std::collections::BTreeMap;

    fn claim() -> Claim {
        Claim {
            namespace: "d".into(),
            name: "c".into(),
            uid: "u".into(),
            class: Some("fast".into()),
            modes: ["ReadWriteOnce".to_owned()].into(),
            bytes: 10,
            block: false,
            selector: None,
            volume: String::new(),
            bound: false,
            node: None,
        }
    }

    fn volume(name: &str) -> Volume {
        Volume {
            name: name.into(),
            class: "fast".into(),
            modes: ["ReadWriteOnce".to_owned(), "ReadOnlyMany".to_owned()].into(),
            bytes: 10,
            block: false,
            labels: BTreeMap::new(),
            claim: None,
            phase: "Available".into(),
            leaving: false,
            policy: "Retain".into(),
            handle: None,
        }
    }

    fn of(name: &str, uid: &str) -> Option<Binding> {
        Some(Binding { namespace: "d".into(), name: name.into(), uid: uid.into() })
    }

    #[test]
    fn every_rule_keeps_a_volume_away() {
        let c = claim();
        assert_eq!(fits(&c, &volume("v")), Fit::Fits);
        let with = |change: fn(&mut Volume)| {
            let mut v = volume("v");
            change(&mut v);
            fits(&c, &v)
        };
        assert_eq!(with(|v| v.leaving = true), Fit::Leaving);
        assert_eq!(with(|v| v.phase = "Released".into()), Fit::Taken);
        assert_eq!(with(|v| v.phase = String::new()), Fit::Taken, "nobody has looked at it yet");
        assert_eq!(with(|v| v.claim = of("other", "")), Fit::Taken);
        assert_eq!(with(|v| v.claim = of("c", "former")), Fit::Taken, "of a namesake of yesterday");
        assert_eq!(with(|v| v.block = true), Fit::Mode);
        assert_eq!(with(|v| v.class = String::new()), Fit::Class);
        assert_eq!(with(|v| v.bytes = 9), Fit::Small);
        assert_eq!(with(|v| v.modes = ["ReadWriteOncePod".to_owned()].into()), Fit::Access);
        let mut picky = claim();
        picky.selector = Some(LabelSelector::from_value(&serde_json::json!({"matchLabels": {"a": "b"}})).map_err(drop));
        assert_eq!(fits(&picky, &volume("v")), Fit::Labels);
        assert_eq!(fits(&picky, &Volume { claim: of("c", ""), ..volume("v") }), Fit::Fits, "set aside for it");
        let none = Claim { class: Some(String::new()), ..claim() };
        assert_eq!(fits(&none, &Volume { class: String::new(), ..volume("v") }), Fit::Fits);
    }

    #[test]
    fn the_one_set_aside_wins_then_the_smallest() {
        let (big, small) = (Volume { bytes: 100, ..volume("a") }, volume("b"));
        let own = Volume { bytes: 1000, claim: of("c", "u"), ..volume("z") };
        assert_eq!(best(&claim(), &[big.clone(), small.clone()]).map(|v| &*v.name), Some("b"));
        assert_eq!(best(&claim(), &[big, small, own]).map(|v| &*v.name), Some("z"));
        assert_eq!(best(&claim(), &[]), None);
    }

    fn any_volume() -> impl Strategy<Value = Volume> {
        let claim = prop_oneof![
            Just(None),
            ("[co]", "[uv]?").prop_map(|(name, uid)| Some(Binding { namespace: "d".into(), name, uid }))
        ];
        let phase = prop_oneof![Just("Available"), Just("Released"), Just("Bound")];
        (claim, phase, 0_i64..20, any::<bool>(), any::<bool>(), any::<bool>(), "[a-z]{3}").prop_map(
            |(claim, phase, bytes, block, leaving, classed, name)| Volume {
                claim,
                bytes,
                block,
                leaving,
                phase: phase.into(),
                class: if classed { "fast".into() } else { String::new() },
                ..volume(&name)
            },
        )
    }

    proptest! {
        /// Whatever there is: what is chosen may be chosen, nothing that fits is smaller, and the order does not matter.
        #[test]
        fn the_choice_is_sound(mut volumes in proptest::collection::vec(any_volume(), 0..8)) {
            let c = claim();
            let chosen = best(&c, &volumes).cloned();
            match &chosen {
                Some(chosen) => {
                    prop_assert!(!chosen.leaving && chosen.bytes >= c.bytes && !chosen.block && chosen.class == "fast");
                    prop_assert!(chosen.claim.as_ref().is_none_or(|b| b.name == "c" && (b.uid.is_empty() || b.uid == "u")));
                    let own = |v: &Volume| v.is_for(&c);
                    for other in volumes.iter().filter(|v| fits(&c, v) == Fit::Fits && own(v) == own(chosen)) {
                        prop_assert!(chosen.bytes <= other.bytes);
                    }
                }
                None => prop_assert!(volumes.iter().all(|v| fits(&c, v) != Fit::Fits)),
            }
            volumes.reverse();
            prop_assert_eq!(best(&c, &volumes).map(|v| (&v.bytes, &v.name)), chosen.as_ref().map(|v| (&v.bytes, &v.name)));
        }
    }
}
