//! Which trunk carries a call: of a group the first by priority and weight, and the next one where one fails.

use std::time::Duration;

use super::live::{FarState, Live};
use super::route::{Random, Settings, Trunk};
use super::{CallKey, Gateway};
use crate::call::leg::Why;
use crate::call::without_numbers;
use crate::clock::Now;
use crate::sip::{DialError, EndedBy, Ending, LegId};

/// How long a PBX may say nothing at all to an INVITE if there is another one to try. A lost INVITE is sent again
/// three times in it (RFC 3261 T1).
const PATIENCE: Duration = Duration::from_secs(4);

/// The trunks that are meant by a name, in the order in which they are tried: those with the lowest priority number
/// first, among equals by chance and weight (RFC 2782).
pub fn candidates(settings: &Settings, name: &str, random: &mut Random) -> Vec<String> {
    let mut left: Vec<&Trunk> =
        settings.trunks.iter().filter(|trunk| trunk.group.as_deref() == Some(name)).collect();
    if left.is_empty() {
        left.extend(settings.trunk(name));
    }
    let mut order = Vec::with_capacity(left.len());
    while let Some(lowest) = left.iter().map(|trunk| trunk.priority).min() {
        let equals: Vec<usize> = (0..left.len()).filter(|at| left[*at].priority == lowest).collect();
        let sum: u64 = equals.iter().map(|at| u64::from(left[*at].weight)).sum();
        let mut dice = random.next() % sum.max(1);
        // Those without weight only come when nobody else of their priority is left.
        let drawn = equals.iter().copied().find(|at| {
            let weight = u64::from(left[*at].weight);
            let hit = dice < weight;
            dice = dice.saturating_sub(weight);
            hit
        });
        let drawn = drawn.or(equals.first().copied()).unwrap_or(0);
        order.push(left.remove(drawn).sip.name.clone());
    }
    order
}

/// What a trunk has said about itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standing {
    /// It can take calls.
    pub up: bool,
    /// An operator has been told that it failed, since it was last up.
    pub told: bool,
}

impl Gateway {
    /// Whether any of the trunks that are meant by this name can take a call now.
    pub(super) fn can_carry(&self, name: &str) -> bool {
        let meant = |trunk: &&Trunk| trunk.answers_to(name);
        let mut meant = self.settings.trunks.iter().filter(meant);
        meant.any(|trunk| self.heard_of.get(&trunk.sip.name).is_some_and(|standing| standing.up))
    }

    /// The next trunk to be tried for this call, and how long it may say nothing at all.
    pub(super) fn next_trunk(&mut self, key: CallKey, name: &str) -> Option<(String, Option<Duration>)> {
        let begun = self.calls.get_mut(&key)?.hunt.take();
        let mut left = begun.unwrap_or_else(|| {
            // A trunk that says nothing has gone to its next place by the time it is tried again.
            let trunks = candidates(&self.settings, name, &mut self.random).into_iter();
            trunks.flat_map(|trunk| vec![trunk.clone(); self.agent.places(&trunk).max(1)]).collect()
        });
        let next = (!left.is_empty()).then(|| left.remove(0));
        let patience = (!left.is_empty()).then_some(PATIENCE);
        self.calls.get_mut(&key)?.hunt = Some(left);
        next.map(|trunk| (trunk, patience))
    }

    /// A trunk would not even take the INVITE: it is remembered in case that no other one does.
    pub(super) fn not_carried(&mut self, key: CallKey, trunk: &str, error: &DialError) {
        if let Some(live) = self.calls.get_mut(&key) {
            tracing::info!(call = %live.id, %trunk, %error, "this trunk does not take the call");
            live.unheard = Some((refused_by(error), format!("{trunk}: {error}")));
            live.pass_over(trunk);
        }
    }

    /// No trunk can even be asked, and why.
    pub(super) fn unroutable(&mut self, key: CallKey, why: &str) {
        if let Some(live) = self.calls.get_mut(&key) {
            live.unheard = Some((Why::NotRouted, why.to_owned()));
        }
    }

    /// No trunk takes the call. Whoever has handed it over has it again.
    pub(super) fn nobody_carries(&mut self, key: CallKey, now: Now) {
        let Some(live) = self.calls.get_mut(&key) else { return };
        let (why, said) = live.unheard.take().unwrap_or((Why::NotRouted, "no trunk of that name".to_owned()));
        let nowhere =
            Ending { by: EndedBy::Us, code: None, cause: None, answered: false, lost: true, text: said };
        if self.give_back(key, &nowhere, now) {
            return;
        }
        let Some(live) = self.calls.get_mut(&key) else { return };
        live.explain(&nowhere.text);
        self.far_ended(key, why, now);
    }

    /// A trunk has failed a call that nobody has answered: the next one is tried. False if there is none, or if it was
    /// not the trunk's fault.
    pub(super) fn hunt_on(&mut self, key: CallKey, ending: &Ending, now: Now) -> bool {
        if !ending.failed_over() {
            return false;
        }
        let Some(live) = self.calls.get_mut(&key) else { return false };
        // Whatever else went wrong was tried at each place already.
        if ending.by != EndedBy::Timeout
            && let Some(trunk) = live.trunk.clone()
        {
            live.pass_over(&trunk);
        }
        let more = live.hunt.as_ref().is_some_and(|left| !left.is_empty());
        if !more || live.call.ending() {
            return false;
        }
        let trunk = live.trunk.take().unwrap_or_default();
        tracing::warn!(call = %live.id, %trunk, said = %without_numbers(&ending.text),
            "the trunk failed, trying the next one");
        let said = format!("{trunk}: {}", ending.text);
        live.went_wrong(i64::from(ending.code.unwrap_or(0)), &said);
        live.unheard = Some((Why::FarUnreachable, said));
        live.far = FarState::Idle;
        self.dial_far(key, now);
        true
    }

    /// A trunk is down: calls that still ring there are tried elsewhere.
    pub(super) fn trunk_lost(&mut self, trunk: &str, now: Now) {
        for live in self.calls.values_mut().filter(|live| live.trunk.as_deref() == Some(trunk)) {
            live.pass_over(trunk);
        }
        let ringing: Vec<(CallKey, LegId)> = self
            .calls
            .iter()
            .filter(|(_, live)| live.trunk.as_deref() == Some(trunk) && !live.call.ending())
            .filter(|(_, live)| live.hunt.as_ref().is_some_and(|left| !left.is_empty()) && !live.far_answered)
            .filter_map(|(key, live)| match live.far {
                FarState::Up(leg) => Some((*key, leg)),
                FarState::Idle | FarState::Invited(_) | FarState::Agent { .. } | FarState::Ended => None,
            })
            .collect();
        for (key, leg) in ringing {
            // The one before may have brought other news.
            let rings = |live: &Live| live.far == FarState::Up(leg) && !live.call.ending();
            if !self.calls.get(&key).is_some_and(rings) {
                continue;
            }
            self.by_leg.remove(&leg);
            self.agent.hang_up(leg, crate::sip::Cause { code: Some(503), text: "the trunk is down" }, now);
            if let Some(live) = self.calls.get_mut(&key) {
                tracing::warn!(call = %live.id, %trunk, "the trunk went down while it rang, trying the next one");
                live.went_wrong(0, &format!("{trunk}: went down while it rang"));
                live.far = FarState::Idle;
            }
            self.dial_far(key, now);
        }
    }
}

fn refused_by(error: &DialError) -> Why {
    match error {
        DialError::TrunkDown { .. } => Why::TrunkDown,
        DialError::UnknownTrunk => Why::NotRouted,
        DialError::Full => Why::OverLimit,
        DialError::LegInUse => Why::Fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SystemSecrets, TrunkConfig};

    fn settings(trunks: &[(&str, Option<&str>, u16, u16)]) -> Settings {
        let trunk = |(name, group, priority, weight): &(&str, Option<&str>, u16, u16)| TrunkConfig {
            name: (*name).to_owned(),
            server: "sip:192.0.2.1".to_owned(),
            group: group.map(str::to_owned),
            priority: *priority,
            weight: *weight,
            ..TrunkConfig::default()
        };
        let text = include_str!("../config/example.toml");
        let (mut config, _) = Config::parse(text, &SystemSecrets::beside("/tmp")).unwrap();
        config.trunks = trunks.iter().map(trunk).collect();
        config.numbers.clear();
        Settings::from_config(&config)
    }

    #[test]
    fn the_lowest_priority_number_comes_first_and_a_name_means_one_trunk() {
        let settings = settings(&[("b", Some("all"), 20, 10), ("a", Some("all"), 10, 0), ("c", None, 1, 1)]);
        for seed in 0..50 {
            let mut random = Random::new(seed);
            assert_eq!(candidates(&settings, "all", &mut random), ["a", "b"]);
            assert_eq!(candidates(&settings, "c", &mut random), ["c"]);
            assert!(candidates(&settings, "d", &mut random).is_empty());
        }
    }

    #[test]
    fn equals_share_by_weight_and_each_is_tried_once() {
        let settings =
            settings(&[("a", Some("all"), 10, 30), ("b", Some("all"), 10, 10), ("c", Some("all"), 10, 0)]);
        let mut random = Random::new(7);
        let mut first = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let mut order = candidates(&settings, "all", &mut random);
            *first.entry(order[0].clone()).or_insert(0) += 1;
            order.sort();
            assert_eq!(order, ["a", "b", "c"]);
        }
        assert!((7_000..8_000).contains(&first["a"]), "{first:?}");
        assert!((2_000..3_000).contains(&first["b"]), "{first:?}");
        assert!(!first.contains_key("c"), "without weight it comes last: {first:?}");
    }
}
