//! Runs rollouts: counts go in, routes come out.
//!
//! Always: each step, verdict and word of an operator is one change of the model's route and one record, made in one
//! write; the rollout as it stands is written with it, so that a restart goes on where it was. A verdict is acted
//! upon within [`TICK`].
//! Not here: what the verdict is (`rollout`, pure), what is counted (`tally`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::{Writing, entry};
use super::live::Live;
use super::rollout::{Decision, Rollout, Start, State, Verdict};
use super::rollout_forms;
use super::routes::{Past, RouteChange, owner};
use super::service::Control;
use super::stop::Stop;
use super::tally::{Counted, StepTally, Tallies};
use super::turns::Turns;
use super::{forms, now_ms};
use crate::error::{ErrorKind, ServeError};
use crate::id::{ModelName, Version};
use crate::proto::control as pb;

/// How often rollouts are judged.
const TICK: Duration = Duration::from_millis(200);

/// How often what was counted is saved, for a restart.
const SAVE_MS: u64 = 1000;

/// What a verdict asked for and could not have, for want of room on the disk, is tried again after this: five tries a
/// second would fill what is left with their log lines.
const RETRY_MS: u64 = 1000;

/// Rollouts of a model that are listed, the newest ones, and of those that have ended the ones that stay in memory. All
/// are kept in the state folder.
const LISTED_MAX: usize = 100;

/// The kind of document that holds a [`Kept`] rollout, by its id.
const ROLLOUT: &str = "rollout";

/// A rollout as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    rollout: Rollout,
    /// The route before: what a rollback brings back, and where the shadows, the key and the rules come from.
    baseline: pb::Route,
}

/// A rollout and what goes with it while it runs.
struct Course {
    kept: Kept,
    tally: Option<Arc<StepTally>>,
    verdict: Option<Verdict>,
    saved_ms: u64,
    /// Since when it waits to be tried again what a verdict asked for and could not have.
    failed_ms: u64,
}

impl Course {
    fn new(kept: Kept) -> Self {
        Self { kept, tally: None, verdict: None, saved_ms: 0, failed_ms: 0 }
    }

    /// Brings the rollout's counts up to what is counted by now.
    fn catch_up(&mut self) {
        if let Some(tally) = &self.tally {
            self.kept.rollout.step.counts = tally.counts();
        }
    }
}

/// Every rollout that is known.
pub struct Rollouts {
    live: Arc<Live>,
    tallies: Arc<Tallies>,
    courses: Mutex<BTreeMap<u64, Course>>,
    /// What is done to the rollouts of one model takes turns.
    turns: Turns<ModelName>,
}

impl Rollouts {
    /// Takes up the rollouts that were under way when the server ended.
    pub fn new(live: Arc<Live>, tallies: Arc<Tallies>) -> Self {
        let mut courses = BTreeMap::new();
        live.ledger.each_document::<Kept>(ROLLOUT, |key, kept| {
            let Ok(id) = key.parse() else { return };
            let model = kept.rollout.start.model.clone();
            courses.insert(id, Course::new(kept));
            forget_oldest(&mut courses, &model);
        });
        let rollouts = Self { live, tallies, courses: Mutex::new(courses), turns: Turns::default() };
        let under_way: Vec<u64> = rollouts.ids(|kept| !kept.rollout.state.is_over());
        under_way.into_iter().for_each(|id| rollouts.count(id));
        rollouts
    }

    fn courses(&self) -> MutexGuard<'_, BTreeMap<u64, Course>> {
        self.courses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ids(&self, which: impl Fn(&Kept) -> bool) -> Vec<u64> {
        self.courses().iter().filter(|(_, course)| which(&course.kept)).map(|(id, _)| *id).collect()
    }

    /// The rollout as it is now, with all that was counted of it.
    fn kept(&self, id: u64) -> Option<Kept> {
        if let Some(course) = self.courses().get_mut(&id) {
            course.catch_up();
            return Some(course.kept.clone());
        }
        self.ended_long_ago(id)
    }

    /// A rollout that is no longer in memory.
    fn ended_long_ago(&self, id: u64) -> Option<Kept> {
        self.live.ledger.document(ROLLOUT, &id.to_string())
    }

    /// The rollout of a model that is not over.
    fn under_way(&self, model: &ModelName) -> Option<u64> {
        let of_model = |kept: &Kept| kept.rollout.start.model == model.as_str();
        self.ids(|kept| of_model(kept) && !kept.rollout.state.is_over()).last().copied()
    }

    /// Judges until told to stop, then saves what was counted. Blocks.
    pub fn run(&self, stop: &Stop) {
        let under_way = || self.ids(|kept| !kept.rollout.state.is_over());
        while !stop.wait(TICK) {
            for id in under_way() {
                if self.rests(id) {
                    continue;
                }
                if let Err(error) = self.judge(id) {
                    tracing::error!(rollout = id, "what the verdict asks for cannot be done: {error}");
                    self.courses().entry(id).and_modify(|course| course.failed_ms = now_ms());
                }
            }
        }
        for id in under_way() {
            if let Err(error) = self.save_at_last(id) {
                tracing::warn!(rollout = id, "the last second's counts are lost: {error}");
            }
        }
    }

    fn save_at_last(&self, id: u64) -> Result<(), ServeError> {
        let Some(model) = self.kept(id).and_then(|kept| ModelName::parse(&kept.rollout.start.model)) else {
            return Ok(());
        };
        let _turn = self.turns.take(&model);
        match self.kept(id).filter(|kept| !kept.rollout.state.is_over()) {
            Some(kept) => self.write(id, &kept),
            None => Ok(()),
        }
    }

    /// Whether what failed a moment ago is not to be tried again yet.
    fn rests(&self, id: u64) -> bool {
        let failed_ms = self.courses().get(&id).map_or(0, |course| course.failed_ms);
        now_ms().saturating_sub(failed_ms) < RETRY_MS
    }

    /// Judges one rollout and does what the verdict says.
    fn judge(&self, id: u64) -> Result<(), ServeError> {
        let Some(model) = self.kept(id).and_then(|kept| ModelName::parse(&kept.rollout.start.model)) else {
            return Ok(());
        };
        let _turn = self.turns.take(&model);
        let Some(mut kept) = self.kept(id).filter(|kept| !kept.rollout.state.is_over()) else {
            return Ok(());
        };
        let now = now_ms();
        let verdict = kept.rollout.judge(now);
        let decision = verdict.decision.clone();
        if let Some(course) = self.courses().get_mut(&id) {
            course.verdict = Some(verdict);
        }
        match decision {
            Decision::Wait { .. } => self.save(id, now),
            Decision::Advance => {
                transition(kept.rollout.advance(now))?;
                self.enact(kept, "rollout.step", ROLLOUTS, "")
            }
            Decision::Complete => {
                transition(kept.rollout.advance(now))?;
                self.enact(kept, "rollout.complete", ROLLOUTS, "")
            }
            Decision::RollBack { reason } => {
                tracing::warn!(%model, rollout = id, "rolled back: {reason}");
                transition(kept.rollout.roll_back(&reason, now))?;
                self.enact(kept, "rollout.rollback", ROLLOUTS, &reason)
            }
            Decision::Pause { reason } => {
                tracing::warn!(%model, rollout = id, "paused: {reason}");
                transition(kept.rollout.pause(&reason, None))?;
                self.note(kept, "rollout.pause", ROLLOUTS, &reason)
            }
        }
    }

    /// Saves what was counted, now and then. What is lost between is counted anew.
    fn save(&self, id: u64, now: u64) -> Result<(), ServeError> {
        let kept = {
            let mut courses = self.courses();
            let Some(course) = courses.get_mut(&id) else { return Ok(()) };
            if now.saturating_sub(course.saved_ms) < SAVE_MS {
                return Ok(());
            }
            course.saved_ms = now;
            course.kept.clone()
        };
        self.write(id, &kept)
    }

    fn write(&self, id: u64, kept: &Kept) -> Result<(), ServeError> {
        self.live.ledger.write(Writing::default().with(ROLLOUT, &id.to_string(), kept)).map(drop)
    }

    /// Makes the model's route what the rollout now says, with the record and the rollout itself in one write.
    fn enact(&self, kept: Kept, action: &str, actor: &str, why: &str) -> Result<(), ServeError> {
        self.enact_at(kept, action, actor, why, None)
    }

    /// The same, if the route is still at that revision.
    fn enact_at(
        &self,
        kept: Kept,
        action: &str,
        actor: &str,
        why: &str,
        if_revision: Option<u64>,
    ) -> Result<(), ServeError> {
        let model = forms::model(&kept.rollout.start.model)?;
        let id = kept.rollout.start.id;
        let over = kept.rollout.state.is_over();
        let returns = matches!(kept.rollout.state, State::RolledBack { .. } | State::Aborted { .. });
        let began = action == START;
        self.live.change_route(
            &model,
            RouteChange {
                to: Some(route_of(&kept)),
                owner: if over { owner::API } else { owner::ROLLOUT },
                actor,
                action,
                if_revision,
                past: match (began, returns) {
                    (true, _) => Past::Remember,
                    (_, true) => Past::Return,
                    _ => Past::Forget,
                },
                of_rollout: true,
                why,
                along: Writing::default().with(ROLLOUT, &id.to_string(), &kept),
            },
        )?;
        self.put(kept);
        self.count(id);
        Ok(())
    }

    /// Writes a change that leaves the route as it is.
    fn note(&self, kept: Kept, action: &str, actor: &str, why: &str) -> Result<(), ServeError> {
        let model = forms::model(&kept.rollout.start.model)?;
        let key = kept.rollout.start.id.to_string();
        self.live.change(&model, |desired| {
            let to = serde_json::json!({ "rollout": key, "reason": why });
            let entry = entry(actor, action, &model, serde_json::Value::Null, to);
            Ok((desired.clone(), Writing::of(entry).with(ROLLOUT, &key, &kept), ()))
        })?;
        let id = kept.rollout.start.id;
        self.put(kept);
        self.count(id);
        Ok(())
    }

    fn put(&self, kept: Kept) {
        let mut courses = self.courses();
        let id = kept.rollout.start.id;
        match courses.get_mut(&id) {
            Some(course) => course.kept = kept,
            None => {
                let model = kept.rollout.start.model.clone();
                courses.insert(id, Course::new(kept));
                forget_oldest(&mut courses, &model);
            }
        }
    }

    /// Counts the step that runs, from what the rollout holds already; or nothing more, once it is over. A step that
    /// is being counted is counted on.
    fn count(&self, id: u64) {
        let mut courses = self.courses();
        let Some(course) = courses.get_mut(&id) else { return };
        let rollout = &course.kept.rollout;
        let (start, plan) = (&rollout.start, &rollout.plan);
        let Some(model) = ModelName::parse(&start.model) else { return };
        let versions = (Version::new(start.from), Version::new(plan.target));
        course.tally = match versions {
            (Some(from), Some(target)) if !rollout.state.is_over() => {
                let revision = self.live.desired(&model).revision;
                let guards = &plan.guards;
                let objective = guards.latency.as_ref();
                let counted = Counted {
                    revision,
                    step_began_ms: rollout.step.began_ms,
                    current: from,
                    new: target,
                    objective: objective.map(|guard| Duration::from_secs_f64(guard.objective_ms / 1e3)),
                    categories: guards.shift.is_some(),
                };
                if course.tally.as_ref().is_some_and(|tally| tally.is_of(&counted)) {
                    return;
                }
                let counts = rollout.step.counts.clone();
                Some(Arc::new(StepTally::begin(counted, counts, course.tally.as_deref())))
            }
            _ => None,
        };
        self.tallies.watch(&model, course.tally.clone());
    }

    fn told(&self, id: u64) -> Option<pb::Rollout> {
        if let Some(course) = self.courses().get(&id) {
            return Some(rollout_forms::told(&course.kept.rollout, course.verdict.as_ref()));
        }
        self.ended_long_ago(id).map(|kept| rollout_forms::told(&kept.rollout, None))
    }
}

/// Lets go of the oldest rollouts of a model that have ended, but for [`LISTED_MAX`].
fn forget_oldest(courses: &mut BTreeMap<u64, Course>, model: &str) {
    let ended = |course: &Course| {
        let rollout = &course.kept.rollout;
        rollout.start.model == model && rollout.state.is_over()
    };
    let surplus = courses.values().filter(|course| ended(course)).count().saturating_sub(LISTED_MAX);
    let oldest: Vec<u64> =
        courses.iter().filter(|(_, course)| ended(course)).map(|(id, _)| *id).take(surplus).collect();
    for id in oldest {
        courses.remove(&id);
    }
}

/// What the record calls the beginning of a rollout.
const START: &str = "rollout.start";

/// Who acts when a verdict does.
const ROLLOUTS: &str = "rollout";

fn transition(outcome: Result<(), String>) -> Result<(), ServeError> {
    outcome.map_err(|reason| ServeError::new(ErrorKind::Conflict, reason))
}

/// The model's route as a rollout has it.
fn route_of(kept: &Kept) -> pb::Route {
    let Kept { rollout, baseline } = kept;
    let (from, target) = (rollout.start.from, rollout.plan.target);
    let mut route = baseline.clone();
    let share = rollout.percent();
    match rollout.state {
        State::RolledBack { .. } | State::Aborted { .. } => return route,
        _ => {
            let idle = baseline.arms.iter().filter(|arm| arm.version != from && arm.version != target);
            let rest = idle.copied().collect::<Vec<_>>();
            route.arms = vec![
                pb::Arm { version: from, weight: 100.0 - share },
                pb::Arm { version: target, weight: share },
            ];
            route.arms.extend(rest);
        }
    }
    if share >= 100.0 {
        let ruled =
            |arm: &pb::Arm| arm.weight > 0.0 || route.rules.iter().any(|rule| rule.version == arm.version);
        route.arms = route.arms.iter().filter(|arm| ruled(arm)).copied().collect();
        route.shadows.retain(|shadow| shadow.version != target);
    }
    let copied = rollout.shadow_share();
    if copied > 0.0 {
        route.shadows.retain(|shadow| shadow.version != target);
        route.shadows.push(pb::Shadow { version: target, share: copied });
    }
    route
}

impl Control {
    pub(super) fn rollout_under_way(&self, model: &ModelName) -> Option<String> {
        self.rollouts.under_way(model).map(|id| id.to_string())
    }

    pub(super) fn rollout(&self, id: &str) -> Option<pb::Rollout> {
        self.rollouts.told(id.parse().ok()?)
    }

    pub fn start_rollout(&self, request: pb::StartRolloutRequest) -> Result<pb::Rollout, ServeError> {
        let model = self.known(&request.model)?;
        self.not_governed(&model)?;
        let rollouts = &self.rollouts;
        let _turn = rollouts.turns.take(&model);
        if let Some(id) = rollouts.under_way(&model) {
            return Err(ServeError::new(
                ErrorKind::Conflict,
                format!("rollout {id} of '{model}' is under way; promote or abort it first"),
            ));
        }
        let target = forms::version(request.target)?;
        let plan = rollout_forms::plan(&request);
        let before = self.live.desired(&model);
        let baseline = self.live.effective(&model, &before);
        let arms = baseline.iter().flat_map(|route| &route.arms).filter(|arm| arm.weight > 0.0);
        let from = match arms.map(|arm| arm.version).collect::<Vec<_>>().as_slice() {
            [from] => *from,
            [] => {
                return Err(ServeError::new(ErrorKind::Conflict, format!("no version of '{model}' is live")));
            }
            _ => {
                return Err(ServeError::new(
                    ErrorKind::Conflict,
                    format!("the route of '{model}' has several arms; set one of them first"),
                ));
            }
        };
        let id = rollouts.ids(|_| true).last().map_or(1, |last| last + 1);
        let start = Start { id, model: model.to_string(), from, by: request.actor.clone(), at_ms: now_ms() };
        let begun = Rollout::begin(start, plan)
            .map_err(|reason| ServeError::invalid(format!("rollout: {reason}")))?;
        // Loading takes its time; the first step's clock starts when the version can answer.
        let loaded = self.live.load_named(&model, [target].into_iter(), &request.actor)?;
        let mut rollout = begun;
        rollout.start.at_ms = now_ms();
        rollout.step.began_ms = rollout.start.at_ms;
        let kept = Kept { rollout, baseline: baseline.unwrap_or_default() };
        rollouts
            .enact_at(kept, START, &request.actor, "", Some(before.revision))
            .inspect_err(|_| self.live.let_go(&model, &loaded, &request.actor))?;
        rollouts.told(id).ok_or_else(|| ServeError::internal("the rollout was lost"))
    }

    /// The newest rollouts of a model, the newest first: 100 at most.
    pub fn list_rollouts(&self, request: pb::ModelRequest) -> Result<pb::ListRolloutsResponse, ServeError> {
        let model = self.known(&request.model)?;
        let mut ids = self.rollouts.ids(|kept| kept.rollout.start.model == model.as_str());
        ids.reverse();
        ids.truncate(LISTED_MAX);
        Ok(pb::ListRolloutsResponse {
            rollouts: ids.into_iter().filter_map(|id| self.rollouts.told(id)).collect(),
        })
    }

    pub fn get_rollout(&self, request: pb::RolloutRequest) -> Result<pb::Rollout, ServeError> {
        let (_, id) = self.named_rollout(&request)?;
        self.rollouts.told(id).ok_or_else(|| no_rollout(&request))
    }

    pub fn pause_rollout(&self, request: pb::RolloutRequest) -> Result<pb::Rollout, ServeError> {
        self.by_word(&request, |rollout, actor| rollout.pause("by hand", Some(actor)), "rollout.pause", false)
    }

    pub fn resume_rollout(&self, request: pb::RolloutRequest) -> Result<pb::Rollout, ServeError> {
        self.by_word(&request, |rollout, _| rollout.resume(now_ms()), "rollout.resume", false)
    }

    pub fn promote_rollout(&self, request: pb::RolloutRequest) -> Result<pb::Rollout, ServeError> {
        let ready = |number: u64| {
            let model = ModelName::parse(&request.model);
            model.is_some_and(|model| self.live.ready_versions(&model).iter().any(|v| v.number() == number))
        };
        self.by_word(
            &request,
            |rollout, actor| match ready(rollout.plan.target) {
                true => rollout.promote(Some(actor), now_ms()),
                false => Err(format!("version {} is not ready; load it, or abort", rollout.plan.target)),
            },
            "rollout.promote",
            true,
        )
    }

    pub fn abort_rollout(&self, request: pb::RolloutRequest) -> Result<pb::Rollout, ServeError> {
        self.by_word(&request, |rollout, actor| rollout.abort(Some(actor), now_ms()), "rollout.abort", true)
    }

    /// Does what an operator says to a rollout; `moves`: it changes the route.
    fn by_word(
        &self,
        request: &pb::RolloutRequest,
        change: impl FnOnce(&mut Rollout, &str) -> Result<(), String>,
        action: &str,
        moves: bool,
    ) -> Result<pb::Rollout, ServeError> {
        let (model, id) = self.named_rollout(request)?;
        let rollouts = &self.rollouts;
        let _turn = rollouts.turns.take(&model);
        let mut kept = rollouts.kept(id).ok_or_else(|| no_rollout(request))?;
        transition(change(&mut kept.rollout, &request.actor))?;
        match moves {
            true => rollouts.enact(kept, action, &request.actor, "by hand")?,
            false => rollouts.note(kept, action, &request.actor, "by hand")?,
        }
        rollouts.told(id).ok_or_else(|| no_rollout(request))
    }

    fn named_rollout(&self, request: &pb::RolloutRequest) -> Result<(ModelName, u64), ServeError> {
        let model = self.known(&request.model)?;
        let id: u64 = request.id.parse().map_err(|_| no_rollout(request))?;
        let of_model = |kept: Kept| kept.rollout.start.model == model.as_str();
        match self.rollouts.kept(id).is_some_and(of_model) {
            true => Ok((model, id)),
            false => Err(no_rollout(request)),
        }
    }
}

fn no_rollout(request: &pb::RolloutRequest) -> ServeError {
    let (model, id) = (crate::error::excerpt(&request.model), crate::error::excerpt(&request.id));
    ServeError::new(ErrorKind::NotFound, format!("model '{model}' has no rollout '{id}'"))
}
