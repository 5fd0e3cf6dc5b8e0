//! Changes of who gets which version.

use serde_json::{Value, json};

use super::desired::{Desired, LABELS_MAX};
use super::forms::{bare, single, spec};
use super::ledger::{Writing, entry};
use super::live::{Cause, Live};
use crate::error::{ErrorKind, ServeError};
use crate::id::{ModelName, Version};
use crate::proto::control as pb;
use crate::route::Route;

/// Who a route belongs to: the words of `Route.owner`.
pub mod owner {
    pub const LATEST: &str = "latest";
    pub const API: &str = "api";
    pub const FILE: &str = "file";
    pub const ROLLOUT: &str = "rollout";
}

/// A change of a model's route.
#[derive(Debug)]
pub struct RouteChange<'a> {
    /// `None`: the highest version that is ready answers again.
    pub to: Option<pb::Route>,
    pub owner: &'a str,
    pub actor: &'a str,
    /// What the record calls it.
    pub action: &'a str,
    /// The revision that the caller believes to be current.
    pub if_revision: Option<u64>,
    pub past: Past,
    /// The rollout that is under way makes it.
    pub of_rollout: bool,
    /// Why, for the record; empty where the change speaks for itself.
    pub why: &'a str,
    /// Written with the change, or not at all.
    pub along: Writing,
}

/// What becomes of the route that was live before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// It can be rolled back to.
    Remember,
    /// It was a step on the way.
    Forget,
    /// The newest remembered one is what is live now.
    Return,
}

impl Live {
    /// Changes a model's route. Versions that it names are loaded first. Blocks for as long as that takes.
    ///
    /// Errors: the route makes no sense, a version cannot be loaded, the revision is another by now, the record
    /// cannot be written. Then nothing has changed, but that versions may have been loaded.
    pub fn change_route(&self, model: &ModelName, change: RouteChange<'_>) -> Result<pb::Route, ServeError> {
        let to = change.to.as_ref().map(bare);
        let mut loaded = Vec::new();
        if let Some(to) = &to {
            let wrong = |reason| ServeError::invalid(format!("the route of '{model}': {reason}"));
            let route = spec(to).and_then(|spec| Route::new(model, spec)).map_err(wrong)?;
            // A rollout's way back must not depend on anything: an arm that is not ready is passed over.
            if !change.of_rollout {
                loaded = self.load_named(model, route.versions(), change.actor)?;
            }
        } else if !self.table.snapshot().models.contains_key(model) {
            return Err(unknown(model));
        }
        let actor = change.actor;
        let changed = self.change(model, |before| {
            may_change(model, before, &change)?;
            is_current(before, change.if_revision)?;
            if let (Some(to), false) = (&to, change.of_rollout) {
                self.still_ready(model, to)?;
            }
            let now = self.effective(model, before);
            let mut after = Desired { route: to.clone(), revision: before.revision + 1, ..before.clone() };
            if let Some(route) = &mut after.route {
                route.owner = change.owner.to_owned();
            }
            match (change.past, now) {
                (Past::Remember, Some(now)) if Some(&now) != to.as_ref() => after.remember(now),
                (Past::Return, _) => _ = after.history.pop(),
                _ => {}
            }
            let mut entry = entry(change.actor, change.action, model, shown(before), Value::Null);
            entry.to = shown(&after);
            if let (false, Some(to)) = (change.why.is_empty(), entry.to.as_object_mut()) {
                to.insert("reason".to_owned(), change.why.into());
            }
            let writing = Writing::of(entry).and(self.experiment_change(model, before, &mut after));
            let told = self.told(model, &after);
            Ok((after, writing.and(change.along), told))
        });
        if changed.is_err() {
            self.let_go(model, &loaded, actor);
        }
        changed
    }

    /// Lets a route that a file governed stand as one that operators set. Nothing where there is none.
    pub fn release_route(&self, model: &ModelName, actor: &str) -> Result<(), ServeError> {
        let governed = |desired: &Desired| desired.route.as_ref().is_some_and(|r| r.owner == owner::FILE);
        if !governed(&self.desired(model)) {
            return Ok(());
        }
        self.change(model, |before| {
            let mut after = before.clone();
            after.route.iter_mut().for_each(|route| route.owner = owner::API.to_owned());
            let entry = entry(actor, "route.release", model, shown(before), shown(&after));
            Ok((after, Writing::of(entry), ()))
        })
    }

    /// Loads the versions that a route or a label names, for those alone; gives the ones that were not ready before.
    ///
    /// Errors: the first that cannot be loaded; the others that were loaded are let go of.
    pub fn load_named(
        &self,
        model: &ModelName,
        versions: impl Iterator<Item = Version>,
        actor: &str,
    ) -> Result<Vec<Version>, ServeError> {
        let ready = self.ready_versions(model);
        let missing: Vec<Version> = versions.filter(|version| !ready.contains(version)).collect();
        if missing.is_empty() {
            return Ok(missing);
        }
        let candidate = self.candidate(model)?;
        if let Some(version) = missing.iter().find(|version| !candidate.versions.contains_key(version)) {
            return Err(ServeError::new(
                ErrorKind::NotFound,
                format!("model '{model}' has no version {version} in the repository"),
            ));
        }
        for (position, version) in missing.iter().enumerate() {
            let cause = Cause { actor, again: false, urgent: false, reserved: true };
            if let Err(error) = self.bring_up(&candidate, *version, cause) {
                self.let_go(model, &missing[..position], actor);
                return Err(error);
            }
        }
        Ok(missing)
    }

    /// Between the loading and the change a version may have gone.
    fn still_ready(&self, model: &ModelName, route: &pb::Route) -> Result<(), ServeError> {
        let ready = self.ready_versions(model);
        let named = route.arms.iter().map(|arm| arm.version);
        let mut named = named.chain(route.shadows.iter().map(|shadow| shadow.version));
        match named.find(|number| !ready.iter().any(|version| version.number() == *number)) {
            None => Ok(()),
            Some(version) => Err(ServeError::new(
                ErrorKind::Conflict,
                format!("version {version} of '{model}' was unloaded meanwhile; try again"),
            )),
        }
    }

    /// The route in force, spelt out: without one, the highest version that is ready has everything. `None`: no
    /// version is.
    pub fn effective(&self, model: &ModelName, desired: &Desired) -> Option<pb::Route> {
        match &desired.route {
            Some(route) => Some(bare(route)),
            None => {
                let snapshot = self.table.snapshot();
                snapshot.models.get(model).and_then(|entry| entry.latest()).map(single)
            }
        }
    }

    /// A model's route as the API tells it.
    pub fn told(&self, model: &ModelName, desired: &Desired) -> pb::Route {
        let mut told = self.effective(model, desired).unwrap_or_default();
        told.owner = desired.route.as_ref().map_or(owner::LATEST, |route| &route.owner).to_owned();
        told.revision = desired.revision;
        told.model = model.to_string();
        told
    }

    /// Sets or removes a label. Errors: it is none, or the version cannot be loaded.
    pub fn change_label(
        &self,
        model: &ModelName,
        label: &str,
        version: Option<Version>,
        actor: &str,
    ) -> Result<pb::Labels, ServeError> {
        let loaded = self.load_named(model, version.into_iter(), actor)?;
        let changed = self.change(model, |before| {
            let mut after = before.clone();
            let another = version.is_some() && !before.labels.contains_key(label);
            if another && before.labels.len() >= LABELS_MAX {
                return Err(ServeError::invalid(format!(
                    "'{label}' is one label too many: a model takes {LABELS_MAX}; delete another of '{model}' first"
                )));
            }
            let old = match version {
                Some(version) => after.labels.insert(label.to_owned(), version.number()),
                None => after.labels.remove(label),
            };
            if old.is_none() && version.is_none() {
                let message = format!("model '{model}' has no label '{label}'");
                return Err(ServeError::new(ErrorKind::NotFound, message));
            }
            let form = |version: Option<u64>| version.map_or(Value::Null, |v| json!({ label: v }));
            let entry = entry(actor, "label", model, form(old), form(version.map(Version::number)));
            let labels = pb::Labels { labels: after.labels.clone() };
            Ok((after, Writing::of(entry), labels))
        });
        if changed.is_err() {
            self.let_go(model, &loaded, actor);
        }
        changed
    }
}

pub fn unknown(model: &ModelName) -> ServeError {
    ServeError::new(ErrorKind::NotFound, format!("model '{model}' is not found"))
}

/// Errors: the route belongs to somebody else.
fn may_change(model: &ModelName, before: &Desired, change: &RouteChange<'_>) -> Result<(), ServeError> {
    let owned_by = |owner: &str| before.route.as_ref().is_some_and(|route| route.owner == owner);
    let refused = |message: String| Err(ServeError::new(ErrorKind::Conflict, message));
    if owned_by(owner::FILE) && change.owner != owner::FILE {
        return refused(format!("the route of '{model}' is what the routes file says; change the file"));
    }
    if owned_by(owner::ROLLOUT) && !change.of_rollout {
        return refused(format!("a rollout of '{model}' is under way; promote or abort it first"));
    }
    Ok(())
}

fn is_current(desired: &Desired, wanted: Option<u64>) -> Result<(), ServeError> {
    match wanted {
        Some(wanted) if wanted != desired.revision => Err(ServeError::new(
            ErrorKind::Stale,
            format!(
                "the route is at revision {}, not {wanted}; read it again and decide anew",
                desired.revision
            ),
        )),
        _ => Ok(()),
    }
}

/// A route as the record shows it.
fn shown(desired: &Desired) -> Value {
    match &desired.route {
        None => Value::Null,
        Some(route) => {
            let route = pb::Route { revision: desired.revision, ..route.clone() };
            let mut shown = serde_json::to_value(&route).expect("a route is plain JSON");
            if let Some(members) = shown.as_object_mut() {
                members.remove("model");
            }
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::desired::HISTORY_MAX;
    use crate::control::store::{BODY_BYTES_MAX, DOCUMENT_BYTES_MAX};
    use crate::route::{ARMS_MAX, RULES_MAX, SHADOWS_MAX, TEXT_BYTES_MAX};

    /// The longest route as JSON: numbers of most digits, and texts of which each byte becomes six.
    fn longest() -> pb::Route {
        let version = |n: usize| 100_000_000_000_000_000 + n as u64;
        let weight = 12_345.678_901_234_567;
        let rule =
            pb::Rule { header: "x".repeat(128), equals: "\u{1}".repeat(TEXT_BYTES_MAX), version: version(0) };
        pb::Route {
            arms: (0..ARMS_MAX).map(|n| pb::Arm { version: version(n), weight }).collect(),
            shadows: (0..SHADOWS_MAX).map(|n| pb::Shadow { version: version(n), share: 0.1 + 0.2 }).collect(),
            sticky: format!("parameter:{}", "\u{1}".repeat(TEXT_BYTES_MAX - "parameter:".len())),
            rules: vec![rule; RULES_MAX],
            revision: u64::MAX,
            model: "m".repeat(128),
            owner: owner::ROLLOUT.to_owned(),
        }
    }

    #[test]
    fn the_longest_route_has_room_in_the_record_and_in_what_a_restart_reads() {
        let route = longest();
        let spec = spec(&route).unwrap();
        spec.short().unwrap();
        Route::new(&ModelName::parse("m").unwrap(), spec).unwrap();
        let bytes = serde_json::to_string(&route).unwrap().len();
        assert!(2 * bytes < BODY_BYTES_MAX / 2, "{bytes}");
        assert!((1 + HISTORY_MAX) * bytes < DOCUMENT_BYTES_MAX / 2, "{bytes}");
    }

    #[test]
    fn a_text_that_is_too_long_is_named_with_its_limit() {
        let route = |change: fn(&mut pb::Route)| {
            let mut route = longest();
            change(&mut route);
            spec(&route).unwrap().short().unwrap_err()
        };
        for (reason, expected) in [
            (route(|r| r.rules[3].equals.push('a')), "rules[3].equals has 1025 bytes: a route takes 1024"),
            (route(|r| r.rules[0].header.push('a')), "rules[0].header has 129 bytes: a route takes 128"),
            (route(|r| r.sticky.push('a')), "sticky has 1025 bytes: a route takes 1024"),
        ] {
            assert_eq!(reason, expected);
        }
    }
}
