//! What operators want of one model: the document that a restart starts from.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::forms;
use crate::id::{ModelName, Version};
use crate::model::repository::Candidate;
use crate::proto::control as pb;
use crate::route::Route;

/// The kind of document that holds a [`Desired`], by model.
pub const MODEL: &str = "model";

/// Routes that a model can be rolled back through.
pub const HISTORY_MAX: usize = 16;

/// Labels of one model at the most.
pub const LABELS_MAX: usize = 256;

/// What operators want of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Desired {
    /// `None`: the highest version that is ready answers.
    pub route: Option<pb::Route>,
    /// Changes of the route so far.
    pub revision: u64,
    /// Routes that were live before, the newest last.
    pub history: Vec<pb::Route>,
    pub labels: BTreeMap<String, u64>,
    /// Versions that were loaded (true) or unloaded (false) by hand, whatever the version policy says.
    pub by_hand: BTreeMap<u64, bool>,
    /// What was asked for through the inference protocol, where loading is the clients' business.
    pub explicit: Option<Explicit>,
    /// The experiment that is under way.
    pub experiment: Option<String>,
}

/// A model that a client loaded or unloaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Explicit {
    pub loaded: bool,
    /// A config as JSON, instead of the repository's.
    pub config: Option<String>,
    /// A folder of the state folder's uploads, instead of the model's.
    pub upload: Option<String>,
}

impl Desired {
    /// The route, valid. A route that was valid once and no longer is counts as none, loudly.
    pub fn valid_route(&self, model: &ModelName) -> Option<Route> {
        let route = self.route.as_ref()?;
        match forms::spec(route).and_then(|spec| Route::new(model, spec)) {
            Ok(route) => Some(route),
            Err(reason) => {
                tracing::error!(%model, "the route on record is passed over: {reason}");
                None
            }
        }
    }

    /// Remembers a route to roll back to.
    pub fn remember(&mut self, route: pb::Route) {
        if self.history.last() != Some(&route) {
            self.history.push(route);
        }
        let surplus = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..surplus);
    }

    /// Versions that the route or a label names: they stay, whatever the version policy says.
    pub fn named(&self) -> BTreeSet<Version> {
        let arms = self.route.iter().flat_map(|route| route.arms.iter().map(|arm| arm.version));
        let shadows = self.route.iter().flat_map(|route| route.shadows.iter().map(|shadow| shadow.version));
        arms.chain(shadows).chain(self.labels.values().copied()).filter_map(Version::new).collect()
    }

    /// Versions of [`Desired::wanted`] that are loaded for everybody: the version policy or an operator asks for
    /// them. The others are there for the route and the labels that name them.
    pub fn offered(&self, candidate: &Candidate, policy: bool) -> BTreeSet<Version> {
        let chosen = if policy { candidate.chosen().unwrap_or_default() } else { Vec::new() };
        let mut offered: BTreeSet<Version> = chosen.into_iter().collect();
        for (version, kept) in &self.by_hand {
            let Some(version) = Version::new(*version) else { continue };
            _ = if *kept { offered.insert(version) } else { offered.remove(&version) };
        }
        offered
    }

    /// The versions that should be loaded, ascending. `policy`: whether the version policy has a say.
    /// Errors: why there are none.
    pub fn wanted(&self, candidate: &Candidate, policy: bool) -> Result<BTreeSet<Version>, String> {
        let mut wanted = self.named();
        let by_hand = |kept: bool| {
            let numbers = self.by_hand.iter().filter(move |(_, keep)| **keep == kept);
            numbers.filter_map(|(number, _)| Version::new(*number))
        };
        wanted.extend(by_hand(true));
        wanted.retain(|version| candidate.versions.contains_key(version));
        if policy {
            match candidate.chosen() {
                Ok(chosen) => wanted.extend(chosen),
                Err(reason) if wanted.is_empty() || candidate.config.is_err() => return Err(reason),
                Err(_) => {}
            }
        }
        let named = self.named();
        by_hand(false).filter(|version| !named.contains(version)).for_each(|version| {
            wanted.remove(&version);
        });
        Ok(wanted)
    }
}
