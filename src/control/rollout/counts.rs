//! What was seen in one step of a rollout.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Categories that are told apart; the rest counts as [`OTHER`].
pub const CATEGORIES_MAX: usize = 64;

/// The category of what is beyond [`CATEGORIES_MAX`].
pub const OTHER: &str = "other";

/// Which version answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    Current,
    New,
}

/// Of one arm. A unit is what the route draws for: a request, or under a sticky key the first request of each key in
/// the whole rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArmCounts {
    pub units: u64,
    /// Requests answered, successes and failures.
    pub requests: u64,
    /// Units with a failed request, each once.
    pub errors: u64,
    /// Units with a slow request, each once.
    pub slow: u64,
    /// What came back from earlier steps: draws no more, so no evidence of chance, but rates like any other.
    pub returning: Returning,
}

/// Keys that an earlier step counted, as this step sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Returning {
    pub units: u64,
    /// Keys with a failed request in this step and in an earlier one, each once.
    pub errors: u64,
    /// Keys with a slow request in this step and in an earlier one, each once.
    pub slow: u64,
}

/// Of the step that runs.
///
/// Only requests that were routed under this step's share belong here; one that began under another share would
/// be taken for a fault of the split. Units come before what is counted of them: failed and slow ones never exceed those seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    pub current: ArmCounts,
    pub new: ArmCounts,
    /// Per class or score bucket: units that the current version put there, and the new one. Filled by
    /// [`Self::add_category`], which keeps its limit.
    pub categories: BTreeMap<String, (u64, u64)>,
    /// Answers of the current version with which a shadow answer of the new one was compared.
    pub compared: u64,
    pub disagreements: u64,
}

impl Counts {
    /// Counts `units` more of a category; at the limit an unknown one counts as [`OTHER`].
    pub fn add_category(&mut self, label: &str, arm: Arm, units: u64) {
        let (current, new) = match arm {
            Arm::Current => (units, 0),
            Arm::New => (0, units),
        };
        self.add_to_category(label, current, new);
    }

    fn add_to_category(&mut self, label: &str, current: u64, new: u64) {
        if let Some(counts) = self.categories.get_mut(label) {
            counts.0 += current;
            counts.1 += new;
            return;
        }
        let told_apart = self.categories.len() - usize::from(self.categories.contains_key(OTHER));
        let label = if told_apart < CATEGORIES_MAX { label } else { OTHER };
        let counts = self.categories.entry(label.to_owned()).or_default();
        counts.0 += current;
        counts.1 += new;
    }

    /// Adds what was counted since.
    pub fn add(&mut self, more: &Counts) {
        self.current.add(&more.current);
        self.new.add(&more.new);
        for (label, (current, new)) in &more.categories {
            self.add_to_category(label, *current, *new);
        }
        self.compared += more.compared;
        self.disagreements += more.disagreements;
    }
}

impl ArmCounts {
    /// Units that this step saw, returning ones included, each once: what rates of this step are parts of.
    pub fn seen(&self) -> u64 {
        self.units + self.returning.units
    }

    /// Of [`Self::seen`], those with a failed request in this step.
    pub fn failed(&self) -> u64 {
        self.errors + self.returning.errors
    }

    /// Of [`Self::seen`], those with a slow request in this step.
    pub fn slowed(&self) -> u64 {
        self.slow + self.returning.slow
    }

    fn add(&mut self, more: &ArmCounts) {
        self.units += more.units;
        self.requests += more.requests;
        self.errors += more.errors;
        self.slow += more.slow;
        self.returning.units += more.returning.units;
        self.returning.errors += more.returning.errors;
        self.returning.slow += more.returning.slow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_beyond_the_limit_share_one_place() {
        let mut counts = Counts::default();
        for label in 0..100 {
            counts.add_category(&label.to_string(), Arm::New, 1);
            counts.add_category("0", Arm::Current, 2);
        }
        assert_eq!(counts.categories.len(), CATEGORIES_MAX + 1);
        assert_eq!(counts.categories["0"], (200, 1));
        assert_eq!(counts.categories[OTHER], (0, 36));
    }

    #[test]
    fn counts_add_up() {
        let mut one = Counts { compared: 3, disagreements: 1, ..Counts::default() };
        let returning = Returning { units: 3, errors: 2, slow: 1 };
        one.new = ArmCounts { units: 4, requests: 8, errors: 2, slow: 1, returning };
        one.add_category("a", Arm::New, 4);
        let mut sum = one.clone();
        sum.add(&one);
        assert_eq!((sum.compared, sum.disagreements, sum.categories["a"]), (6, 2, (0, 8)));
        let returning = Returning { units: 6, errors: 4, slow: 2 };
        assert_eq!(sum.new, ArmCounts { units: 8, requests: 16, errors: 4, slow: 2, returning });
        assert_eq!((sum.new.seen(), sum.new.failed(), sum.new.slowed()), (14, 8, 4));
        let text = serde_json::to_string(&sum).unwrap();
        assert_eq!(serde_json::from_str::<Counts>(&text).unwrap(), sum);
    }
}
