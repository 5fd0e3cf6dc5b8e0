//! Whether the server as a whole takes requests.
//!
//! Always: what is told is true of the moment in which it is asked for: a model that becomes unavailable counts from
//! then on. Before every model was tried, and once the server drains, it is not ready whatever is asked of it.

use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::watch;

use super::snapshot::{ModelEntry, Snapshot, Table};
use crate::error::excerpt;
use crate::id::ModelName;

/// The server's phases, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Models are being loaded for the first time.
    Starting,
    /// Every model has been tried: each is ready or has a reason why not.
    Ready,
    /// The server is about to end; what was accepted is finished.
    Draining,
}

/// Which models must have a ready version for the server to be ready, once every model was tried. Models that nobody
/// asked for, where clients decide, do not count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ReadyWhen {
    /// None.
    #[default]
    Tried,
    All,
    /// More than half of them.
    Quorum,
    Models(Vec<ModelName>),
}

/// Models that one [`ReadyWhen`] may list.
const LISTED_MAX: usize = 1000;

impl FromStr for ReadyWhen {
    type Err = String;

    /// Errors: what it must be, to follow the setting's name and value.
    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("models:")) {
            ("tried", _) => Ok(Self::Tried),
            ("all", _) => Ok(Self::All),
            ("quorum", _) => Ok(Self::Quorum),
            (_, Some(list)) => {
                let parse = |name: &str| {
                    let wrong = || format!("lists '{}', which cannot be a model's name", excerpt(name));
                    ModelName::parse(name).ok_or_else(wrong)
                };
                let models: Vec<_> =
                    list.split(',').map(|name| parse(name.trim())).collect::<Result<_, _>>()?;
                match models.len() <= LISTED_MAX {
                    true => Ok(Self::Models(models)),
                    false => Err(format!("lists more than {LISTED_MAX} models")),
                }
            }
            _ => Err("must be tried, all, quorum, or models:NAME,NAME…".to_owned()),
        }
    }
}

/// Names that a reason tells.
const TOLD_MAX: usize = 10;

impl ReadyWhen {
    /// Why models that stand so are not enough, if they are not.
    fn reason(&self, snapshot: &Snapshot) -> Option<String> {
        let (total, unready): (usize, Vec<&str>) = match self {
            Self::Tried => return None,
            Self::All | Self::Quorum => {
                let asked = || snapshot.models.iter().filter(|(_, entry)| entry.is_asked_for());
                let unready = asked().filter(|(_, entry)| !entry.is_ready());
                (asked().count(), unready.map(|(name, _)| name.as_str()).collect())
            }
            Self::Models(models) => {
                let ready =
                    |name: &ModelName| snapshot.models.get(name).is_some_and(|entry| entry.is_ready());
                (models.len(), models.iter().filter(|name| !ready(name)).map(ModelName::as_str).collect())
            }
        };
        let enough = match self {
            Self::Quorum => total == 0 || (total - unready.len()) * 2 > total,
            _ => unready.is_empty(),
        };
        if enough {
            return None;
        }
        let named = unready.iter().take(TOLD_MAX).copied().collect::<Vec<_>>().join(", ");
        let more = match unready.len().saturating_sub(TOLD_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let of = if matches!(self, Self::Models(_)) { "required models" } else { "models" };
        Some(format!("not ready: {} of {total} {of} are unavailable: {named}{more}", unready.len()))
    }
}

/// Holds the phase and tells of its changes, and of those of the models.
pub struct Readiness {
    phase: watch::Sender<Phase>,
    when: ReadyWhen,
    table: Arc<Table>,
}

impl Readiness {
    pub fn new(when: ReadyWhen, table: Arc<Table>) -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), when, table }
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Whether the server is ready.
    pub fn is_ready(&self) -> bool {
        self.reason().is_none()
    }

    /// Why the server is not ready, if it is not.
    pub fn reason(&self) -> Option<String> {
        match self.phase() {
            Phase::Starting => Some("models are still being loaded".to_owned()),
            Phase::Ready => self.when.reason(&self.table.snapshot()),
            Phase::Draining => Some("the server is draining".to_owned()),
        }
    }

    /// Whether a model has a ready version, and the server takes requests. `None`: there is no such model.
    pub fn of_model(&self, model: &str) -> Option<bool> {
        let ready = self.table.snapshot().models.get(model).map(|entry| ModelEntry::is_ready(entry))?;
        Some(ready && self.phase() != Phase::Draining)
    }

    /// Enters a phase. The server never goes back from draining.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let changes = *current != phase && *current != Phase::Draining;
            if changes {
                *current = phase;
            }
            changes
        });
    }

    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Hears of whatever may change what this tells.
    pub fn changes(&self) -> Changes {
        Changes { phases: self.phase.subscribe(), tables: self.table.changes() }
    }
}

/// Changes of the phase and of the models.
pub struct Changes {
    phases: watch::Receiver<Phase>,
    tables: watch::Receiver<()>,
}

impl Changes {
    /// Waits for the next change; several may come as one. `None`: the server is gone.
    pub async fn next(&mut self) -> Option<()> {
        tokio::select! {
            changed = self.phases.changed() => changed.ok(),
            changed = self.tables.changed() => changed.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ServableId, Version};
    use crate::model::VersionState;

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).unwrap()
    }

    /// A table of models that are unavailable for this reason.
    fn table(models: &[(&str, &str)]) -> Arc<Table> {
        let table = Arc::new(Table::default());
        for (model, reason) in models {
            let id = ServableId { model: name(model), version: Version::new(1).unwrap() };
            table.publish_version(&id, VersionState::Unavailable { reason: (*reason).to_owned() });
        }
        table
    }

    #[test]
    fn conditions_are_read_and_wrong_ones_told() {
        for (text, when) in [
            ("tried", ReadyWhen::Tried),
            ("all", ReadyWhen::All),
            ("quorum", ReadyWhen::Quorum),
            ("models:a, b", ReadyWhen::Models(vec![name("a"), name("b")])),
        ] {
            assert_eq!(text.parse(), Ok(when));
        }
        for (text, part) in [
            ("", "must be tried"),
            ("All", "must be tried"),
            ("models:", "lists ''"),
            ("models:a,../b", "lists '../b'"),
            ("models", "must be tried"),
        ] {
            assert!(text.parse::<ReadyWhen>().unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_told_and_the_phase_goes_before() {
        let table = table(&[("a", "broken"), ("b", "unloaded"), ("c", "broken")]);
        for (when, reason) in [
            ("tried", None),
            ("all", Some("not ready: 2 of 2 models are unavailable: a, c")),
            ("quorum", Some("not ready: 2 of 2 models are unavailable: a, c")),
            ("models:b,z", Some("not ready: 2 of 2 required models are unavailable: b, z")),
        ] {
            let readiness = Readiness::new(when.parse().unwrap(), Arc::clone(&table));
            assert_eq!(readiness.reason().as_deref(), Some("models are still being loaded"));
            readiness.enter(Phase::Ready);
            assert_eq!(readiness.reason().as_deref(), reason, "{when}");
            assert_eq!((readiness.of_model("a"), readiness.of_model("z")), (Some(false), None));
            readiness.enter(Phase::Draining);
            assert_eq!(readiness.reason().as_deref(), Some("the server is draining"));
        }
    }

    #[test]
    fn a_server_without_models_is_ready_and_many_names_are_cut() {
        for when in ["all", "quorum"] {
            let readiness = Readiness::new(when.parse().unwrap(), table(&[]));
            readiness.enter(Phase::Ready);
            assert!(readiness.is_ready());
        }
        let many: Vec<String> = (0..500).map(|i| format!("m{i}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "broken")).collect();
        let readiness = Readiness::new(ReadyWhen::All, table(&many));
        readiness.enter(Phase::Ready);
        let reason = readiness.reason().unwrap();
        assert!(reason.contains("500 of 500") && reason.ends_with("and 490 more"), "{reason}");
    }
}
