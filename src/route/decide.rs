//! One request, one choice.

use smallvec::SmallVec;

use super::spec::{Arm, Route, Sticky};
use super::split;
use crate::id::Version;
use crate::infer::{RequestKeys, RouteReason};

/// What a route needs to know of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Ready,
    /// Loading or unloading.
    InTransit,
    Failed,
}

/// Why a request gets no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoute {
    /// The version it names does not exist.
    UnknownVersion,
    /// The version it names exists and does not answer now.
    NotReady,
    /// The version it names could not be loaded.
    Failed,
    /// It names none, and none is ready.
    NoneAvailable,
}

/// The version that a request names, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    pub version: Version,
    pub by_label: bool,
}

/// Who answers, who gets a copy, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub primary: Version,
    /// By position in the route's shadows; never the primary itself.
    pub shadows: SmallVec<[usize; 2]>,
    pub reason: RouteReason,
    /// The sticky key's number, where one was used.
    pub unit: Option<u64>,
}

impl Choice {
    fn of(primary: Version, reason: RouteReason) -> Self {
        Self { primary, shadows: SmallVec::new(), reason, unit: None }
    }
}

/// Chooses. `versions` ascend; `draw` gives numbers that are uniform in [0, 1).
///
/// Without a route the highest version that is ready answers. An arm that is not ready is passed over: its share
/// goes to the others. Requests that name a version are not copied to shadows.
pub fn decide<I>(
    route: Option<&Route>,
    pin: Option<Pin>,
    keys: &dyn RequestKeys,
    versions: I,
    mut draw: impl FnMut() -> f64,
) -> Result<Choice, NoRoute>
where
    I: DoubleEndedIterator<Item = (Version, Standing)> + Clone,
{
    if let Some(pin) = pin {
        return pinned(pin, versions);
    }
    let Some(route) = route else { return latest(versions) };
    let ready = |version: Version| {
        versions.clone().any(|(other, standing)| other == version && standing == Standing::Ready)
    };
    let mut choice = match ruled(route, keys).filter(|version| ready(*version)) {
        Some(version) => Choice::of(version, RouteReason::Rule),
        None => split(route, keys, &ready, &mut draw).ok_or_else(|| none_ready(versions.clone()))?,
    };
    for (position, shadow) in route.spec().shadows.iter().enumerate() {
        // A draw is below 1, so that a share of 1 copies everything and a share of 0 nothing.
        if shadow.version != choice.primary && draw() < shadow.share {
            choice.shadows.push(position);
        }
    }
    Ok(choice)
}

fn pinned(pin: Pin, mut versions: impl Iterator<Item = (Version, Standing)>) -> Result<Choice, NoRoute> {
    let reason = if pin.by_label { RouteReason::Label } else { RouteReason::Pinned };
    match versions.find(|(version, _)| *version == pin.version) {
        Some((version, Standing::Ready)) => Ok(Choice::of(version, reason)),
        Some((_, Standing::InTransit)) => Err(NoRoute::NotReady),
        Some((_, Standing::Failed)) => Err(NoRoute::Failed),
        None => Err(NoRoute::UnknownVersion),
    }
}

fn latest(versions: impl DoubleEndedIterator<Item = (Version, Standing)> + Clone) -> Result<Choice, NoRoute> {
    match versions.clone().rev().find(|(_, standing)| *standing == Standing::Ready) {
        Some((version, _)) => Ok(Choice::of(version, RouteReason::Latest)),
        None => Err(none_ready(versions)),
    }
}

fn none_ready(mut versions: impl Iterator<Item = (Version, Standing)>) -> NoRoute {
    match versions.any(|(_, standing)| standing == Standing::InTransit) {
        true => NoRoute::NotReady,
        false => NoRoute::NoneAvailable,
    }
}

fn ruled(route: &Route, keys: &dyn RequestKeys) -> Option<Version> {
    let rules = route.spec().rules.iter();
    let mut met = rules.filter(|rule| keys.header(&rule.header) == Some(rule.equals.as_bytes()));
    met.next().map(|rule| rule.version)
}

/// The arm by the sticky key, or by a draw where the request has none.
fn split(
    route: &Route,
    keys: &dyn RequestKeys,
    ready: &dyn Fn(Version) -> bool,
    draw: &mut impl FnMut() -> f64,
) -> Option<Choice> {
    let arms = || route.seeded().filter(|(arm, _)| arm.weight > 0.0);
    let complete = arms().all(|(arm, _)| ready(arm.version));
    let key = |sticky: &Sticky| match sticky {
        Sticky::Header(name) => keys.header(name).map(|value| value.to_vec()),
        Sticky::Parameter(name) => keys.parameter(name).map(|value| value.into_owned().into_bytes()),
        Sticky::RequestId => keys.request_id().map(|id| id.as_bytes().to_vec()),
    };
    let key = route.spec().sticky.as_ref().and_then(key).filter(|key| !key.is_empty());
    let candidates = arms().filter(|(arm, _)| complete || ready(arm.version));
    let (version, reason) = match &key {
        Some(key) => {
            let scored = candidates.map(|(arm, seed)| (split::score(seed, key, arm.weight), arm.version));
            (scored.max_by(|a, b| a.0.total_cmp(&b.0))?.1, RouteReason::Sticky)
        }
        None => {
            let candidates: SmallVec<[&Arm; 8]> = candidates.map(|(arm, _)| arm).collect();
            let total: f64 = candidates.iter().map(|arm| arm.weight).sum();
            let mut left = draw() * total;
            let mut chosen = None;
            for arm in candidates {
                chosen = Some(arm.version);
                left -= arm.weight;
                if left < 0.0 {
                    break;
                }
            }
            (chosen?, RouteReason::Weighted)
        }
    };
    let reason = if complete { reason } else { RouteReason::Fallback };
    // A request's own id is no client's: each request is a draw of its own.
    let unit = key.filter(|_| route.spec().sticky != Some(Sticky::RequestId)).map(|key| split::unit(&key));
    Some(Choice { unit, ..Choice::of(version, reason) })
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::ModelName;
    use crate::route::{RouteSpec, Rule, Shadow};
    use Standing::{Failed, InTransit, Ready};

    #[derive(Default)]
    struct Keys(BTreeMap<&'static str, String>);

    impl RequestKeys for Keys {
        fn header(&self, name: &str) -> Option<&[u8]> {
            self.0.get(name).map(String::as_bytes)
        }
        fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
            self.0.get(name).map(|value| Cow::Borrowed(value.as_str()))
        }
        fn request_id(&self) -> Option<&str> {
            self.0.get("id").map(String::as_str)
        }
    }

    fn version(n: u64) -> Version {
        Version::parse(&n.to_string()).unwrap()
    }

    fn route(arms: &[(u64, f64)], sticky: Option<&str>) -> Route {
        let arms = arms.iter().map(|&(v, weight)| Arm { version: version(v), weight }).collect();
        let sticky = sticky.map(|text| Sticky::parse(text).unwrap());
        Route::new(&model(), RouteSpec { arms, sticky, ..RouteSpec::default() }).unwrap()
    }

    fn model() -> ModelName {
        ModelName::parse("m").unwrap()
    }

    fn ready(versions: &[u64]) -> Vec<(Version, Standing)> {
        versions.iter().map(|&n| (version(n), Ready)).collect()
    }

    fn check(pinned: Option<u64>, versions: &[(u64, Standing)], expected: Result<u64, NoRoute>) {
        let versions = versions.iter().map(|&(n, standing)| (version(n), standing));
        let pin = pinned.map(|n| Pin { version: version(n), by_label: false });
        let decided = decide(None, pin, &Keys::default(), versions, || 0.0);
        assert_eq!(decided.map(|choice| choice.primary.number()), expected);
    }

    #[test]
    fn a_pinned_version_is_honoured_and_the_highest_ready_one_is_the_default() {
        let versions = [(1, Ready), (2, Ready), (3, Failed), (4, InTransit)];
        check(None, &versions, Ok(2));
        check(Some(1), &versions, Ok(1));
        check(Some(3), &versions, Err(NoRoute::Failed));
        check(Some(4), &versions, Err(NoRoute::NotReady));
        check(Some(9), &versions, Err(NoRoute::UnknownVersion));
        check(None, &[(1, Failed), (2, InTransit)], Err(NoRoute::NotReady));
        check(None, &[(1, Failed)], Err(NoRoute::NoneAvailable));
        check(None, &[], Err(NoRoute::NoneAvailable));
    }

    fn arm_of(route: &Route, user: u64) -> u64 {
        let keys = Keys([("x-user", format!("user-{user}"))].into());
        let choice =
            decide(Some(route), None, &keys, ready(&[1, 2, 3]).into_iter(), || unreachable!()).unwrap();
        assert_eq!(choice.reason, RouteReason::Sticky);
        choice.primary.number()
    }

    #[test]
    fn raising_an_arm_moves_keys_to_it_and_none_between_the_others() {
        let before = route(&[(1, 60.0), (2, 30.0), (3, 10.0)], Some("header:X-User"));
        let after = route(&[(1, 60.0), (2, 30.0), (3, 40.0)], Some("header:x-user"));
        let mut moved = 0;
        for user in 0..20_000 {
            let (was, is) = (arm_of(&before, user), arm_of(&after, user));
            assert!(was == is || is == 3, "user {user} went from {was} to {is}");
            moved += u64::from(was != is);
        }
        assert!(moved > 0);
    }

    #[test]
    fn shares_lie_within_the_binomial_interval_with_and_without_keys() {
        let keyed = route(&[(1, 90.0), (2, 9.0), (3, 1.0)], Some("header:x-user"));
        let drawn = route(&[(1, 90.0), (2, 9.0), (3, 1.0)], None);
        let mut rng = fastrand::Rng::with_seed(7);
        let users = 100_000u64;
        let mut counts = [[0u64; 4]; 2];
        for user in 0..users {
            counts[0][arm_of(&keyed, user) as usize] += 1;
            let choice =
                decide(Some(&drawn), None, &Keys::default(), ready(&[1, 2, 3]).into_iter(), || rng.f64())
                    .unwrap();
            assert_eq!((choice.reason, choice.unit), (RouteReason::Weighted, None));
            counts[1][choice.primary.number() as usize] += 1;
        }
        for counts in counts {
            for (arm, share) in [(1, 0.9), (2, 0.09), (3, 0.01)] {
                let n = users as f64;
                let spread = (n * share * (1.0f64 - share)).sqrt();
                assert!((counts[arm] as f64 - n * share).abs() < 4.0 * spread, "{arm}: {counts:?}");
            }
        }
    }

    #[test]
    fn nothing_goes_to_a_weight_of_zero_and_everything_to_the_only_other() {
        for sticky in [None, Some("request_id"), Some("parameter:user")] {
            let route = route(&[(1, 0.0), (2, 100.0)], sticky);
            for n in 0..1000 {
                let keys = Keys([("id", n.to_string()), ("user", n.to_string())].into());
                let draw = || f64::from(n) / 1000.0;
                let choice = decide(Some(&route), None, &keys, ready(&[1, 2]).into_iter(), draw).unwrap();
                assert_eq!(choice.primary.number(), 2);
            }
        }
    }

    /// These very assignments must never change: replicas of different releases serve the same users.
    #[test]
    fn sticky_assignments_are_the_same_in_every_release() {
        let route = route(&[(1, 50.0), (2, 30.0), (3, 20.0)], Some("header:x-user"));
        let arms: Vec<u64> = (0..24).map(|user| arm_of(&route, user)).collect();
        assert_eq!(arms, [2, 1, 3, 1, 1, 1, 2, 2, 1, 2, 2, 2, 1, 3, 1, 2, 2, 1, 1, 2, 1, 2, 2, 1]);
    }

    #[test]
    fn rules_win_over_weights_and_pins_over_rules() {
        let rules = vec![Rule { header: "X-Beta".into(), equals: "yes".into(), version: version(2) }];
        let arms = vec![Arm { version: version(1), weight: 100.0 }, Arm { version: version(2), weight: 0.0 }];
        let shadows = vec![
            Shadow { version: version(3), share: 1.0 },
            Shadow { version: version(2), share: 0.5 },
            Shadow { version: version(1), share: 0.0 },
        ];
        let route = Route::new(&model(), RouteSpec { arms, rules, shadows, sticky: None }).unwrap();
        let beta = Keys([("x-beta", "yes".to_owned())].into());
        let choose = |pin: Option<u64>, keys: &Keys, draw: f64| {
            let pin = pin.map(|n| Pin { version: version(n), by_label: true });
            let choice = decide(Some(&route), pin, keys, ready(&[1, 2, 3]).into_iter(), || draw).unwrap();
            (choice.primary.number(), choice.reason, choice.shadows.to_vec())
        };
        assert_eq!(choose(None, &Keys::default(), 0.99), (1, RouteReason::Weighted, vec![0]));
        assert_eq!(choose(None, &Keys::default(), 0.49), (1, RouteReason::Weighted, vec![0, 1]));
        assert_eq!(choose(None, &beta, 0.0), (2, RouteReason::Rule, vec![0]));
        assert_eq!(choose(Some(1), &beta, 0.0), (1, RouteReason::Label, vec![]));
    }

    #[test]
    fn an_arm_that_is_not_ready_leaves_its_share_to_the_others() {
        let route = route(&[(1, 50.0), (2, 50.0)], None);
        let versions = [(version(1), InTransit), (version(2), Ready)];
        for draw in [0.0, 0.3, 0.9] {
            let choice = decide(Some(&route), None, &Keys::default(), versions.into_iter(), || draw).unwrap();
            assert_eq!((choice.primary.number(), choice.reason), (2, RouteReason::Fallback));
        }
        let none = decide(Some(&route), None, &Keys::default(), versions[..1].iter().copied(), || 0.0);
        assert_eq!(none, Err(NoRoute::NotReady));
    }

    #[test]
    fn routes_that_make_no_sense_are_refused_with_the_way_out() {
        let arm = |v: u64, weight: f64| Arm { version: version(v), weight };
        let refused = |spec: RouteSpec| Route::new(&model(), spec).unwrap_err();
        let arms = |arms: Vec<Arm>| RouteSpec { arms, ..RouteSpec::default() };
        assert!(refused(arms(vec![])).contains("needs an arm"));
        assert!(refused(arms(vec![arm(1, -1.0)])).contains("0 or more"));
        assert!(refused(arms(vec![arm(1, f64::NAN)])).contains("0 or more"));
        assert!(refused(arms(vec![arm(1, 0.0)])).contains("more than 0"));
        assert!(refused(arms(vec![arm(1, 1.0), arm(1, 2.0)])).contains("twice"));
        let shadows = vec![Shadow { version: version(2), share: 1.5 }];
        assert!(refused(RouteSpec { shadows, ..arms(vec![arm(1, 1.0)]) }).contains("between 0 and 1"));
        let rules = vec![Rule { header: "x".into(), equals: "y".into(), version: version(2) }];
        assert!(refused(RouteSpec { rules, ..arms(vec![arm(1, 1.0)]) }).contains("no arm"));
        for bad in ["", "header:", "header:a b", "cookie:x", "parameter:"] {
            assert!(Sticky::parse(bad).unwrap_err().contains("header:x-user-id"), "{bad}");
        }
    }
}
