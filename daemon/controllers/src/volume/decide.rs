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

/// Whether a volume may be bound to a claim. Labels and state don't count for one that was set aside for the claim, nor does
/// its size if it can be given more room: it is grown before it is bound.
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
    } else if volume.bytes < claim.bytes && !(own && volume.grows) {
        Fit::Small
    } else if !claim.modes.is_subset(&volume.modes) {
        Fit::Access
    } else if !own && !labelled() {
        Fit::Labels
    } else {
        Fit::Fits
    }
}

/// What there is for a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice<'v> {
    /// This volume.
    Take(&'v Volume),
    /// This one was set aside for it, and is not for it as it is. Nothing else will do: it holds the data that somebody
    /// meant this claim to have.
    Withheld(&'v Volume, Fit),
    /// Nothing.
    None,
}

/// The volume for a claim: the smallest that was set aside for it, and nothing else if there is such a one; else the
/// smallest that fits.
pub fn best<'v>(claim: &Claim, volumes: &'v [Volume]) -> Choice<'v> {
    let order = |volume: &&Volume| (volume.bytes, volume.name.clone());
    let fitting = |volume: &&Volume| fits(claim, volume) == Fit::Fits;
    let aside = || volumes.iter().filter(|volume| volume.is_for(claim));
    match (aside().filter(fitting).min_by_key(order), aside().min_by_key(order)) {
        (Some(volume), _) => Choice::Take(volume),
        (None, Some(volume)) => Choice::Withheld(volume, fits(claim, volume)),
        (None, None) => volumes.iter().filter(fitting).min_by_key(order).map_or(Choice::None, Choice::Take),
    }
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
            grows: false,
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
        assert_eq!(best(&claim(), &[big.clone(), small.clone()]), Choice::Take(&small));
        assert_eq!(best(&claim(), &[big, small, own.clone()]), Choice::Take(&own));
        assert_eq!(best(&claim(), &[]), Choice::None);
    }

    /// Whoever set a volume aside for a claim wants it to have that one's data: never an empty one in its place.
    #[test]
    fn where_one_is_set_aside_nothing_else_will_do() {
        let aside = Volume { bytes: 9, claim: of("c", ""), ..volume("aside") };
        let other = volume("other");
        let two = |aside: &Volume| [other.clone(), aside.clone()];
        assert_eq!(best(&claim(), &two(&aside)), Choice::Withheld(&aside, Fit::Small));
        let grows = Volume { grows: true, ..aside.clone() };
        assert_eq!(best(&claim(), &two(&grows)), Choice::Take(&grows));
        assert_eq!(fits(&claim(), &Volume { claim: None, ..grows }), Fit::Small, "nobody's is not grown");
        let fitting = Volume { bytes: 10, claim: of("c", ""), ..volume("fitting") };
        assert_eq!(
            best(&claim(), &[aside.clone(), fitting.clone()]),
            Choice::Take(&fitting),
            "of two, the one that fits"
        );
        for (change, why) in [
            ((|v| v.leaving = true) as fn(&mut Volume), Fit::Leaving),
            (|v| v.block = true, Fit::Mode),
            (|v| v.class = String::new(), Fit::Class),
            (|v| v.modes.clear(), Fit::Access),
        ] {
            let mut odd = Volume { bytes: 10, ..aside.clone() };
            change(&mut odd);
            assert_eq!(best(&claim(), &two(&odd)), Choice::Withheld(&odd, why));
        }
        let former = Volume { claim: of("c", "former"), ..aside };
        assert_eq!(best(&claim(), &two(&former)), Choice::Take(&other), "a namesake of yesterday had that one");
    }

    fn any_volume() -> impl Strategy<Value = Volume> {
        let claim = prop_oneof![
            Just(None),
            ("[co]", "[uv]?").prop_map(|(name, uid)| Some(Binding { namespace: "d".into(), name, uid }))
        ];
        let phase = prop_oneof![Just("Available"), Just("Released"), Just("Bound")];
        (claim, phase, 0_i64..20, any::<[bool; 4]>(), "[a-z]{3}").prop_map(
            |(claim, phase, bytes, [block, leaving, classed, grows], name)| Volume {
                claim,
                bytes,
                block,
                leaving,
                grows,
                phase: phase.into(),
                class: if classed { "fast".into() } else { String::new() },
                ..volume(&name)
            },
        )
    }

    proptest! {
        /// Whatever there is: what is chosen may be chosen, nothing that fits is smaller, nothing is taken past what was set
        /// aside, and the order does not matter.
        #[test]
        fn the_choice_is_sound(mut volumes in proptest::collection::vec(any_volume(), 0..8)) {
            let c = claim();
            let all = volumes.clone();
            let chosen = best(&c, &all);
            let aside = |v: &Volume| v.is_for(&c);
            let fitting = |v: &&Volume| fits(&c, v) == Fit::Fits;
            match chosen {
                Choice::Take(chosen) => {
                    prop_assert!(!chosen.leaving && !chosen.block && chosen.class == "fast");
                    prop_assert!(chosen.bytes >= c.bytes || (aside(chosen) && chosen.grows));
                    prop_assert!(chosen.claim.as_ref().is_none_or(|b| b.name == "c" && (b.uid.is_empty() || b.uid == "u")));
                    prop_assert!(aside(chosen) || !all.iter().any(aside));
                    for other in all.iter().filter(fitting).filter(|v| aside(v) == aside(chosen)) {
                        prop_assert!(chosen.bytes <= other.bytes);
                    }
                }
                Choice::Withheld(volume, why) => {
                    prop_assert!(aside(volume) && why != Fit::Fits && !why.text().is_empty());
                    prop_assert!(!all.iter().filter(fitting).any(aside));
                }
                Choice::None => prop_assert!(!all.iter().any(|v| aside(v) || fitting(&v))),
            }
            volumes.reverse();
            let key = |choice: Choice<'_>| match choice {
                Choice::Take(v) | Choice::Withheld(v, _) => Some((v.bytes, v.name.clone())),
                Choice::None => None,
            };
            prop_assert_eq!(key(best(&c, &volumes)), key(chosen));
        }
    }
}
