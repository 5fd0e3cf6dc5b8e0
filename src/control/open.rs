//! Makes the control plane, and runs it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ledger::Ledger;
use super::live::{ControlConfig, Live, Mode};
use super::outcomes::{Outcomes, OutcomesConfig};
use super::rollouts::Rollouts;
use super::routes_file::{self, Follower, RoutesPath};
use super::service::Control;
use super::store::Store;
use super::tally::Tallies;
use super::watch::Watch;
use crate::backend::{Loader, STACK_BYTES};
use crate::cache::ResponseCache;
use crate::event::EventSink;
use crate::serve::Table;

/// What the control plane stands on.
pub struct Foundations {
    pub loader: Arc<dyn Loader>,
    /// Hears of everything, the tallies included.
    pub sink: Arc<dyn EventSink>,
    pub tallies: Arc<Tallies>,
    pub cache: Arc<ResponseCache>,
    pub table: Arc<Table>,
    pub ledger: Ledger,
    pub outcomes: Option<Arc<Outcomes>>,
}

/// Opens the state folder. One that nobody named may be unusable: then nothing is recorded, and changes are refused.
///
/// Errors: a folder that was named cannot be used.
pub fn open_state(folder: &Path, named: bool) -> Result<(Ledger, Option<Arc<Outcomes>>), String> {
    match Store::open(folder) {
        Ok(store) => {
            let outcomes = Outcomes::open(folder, OutcomesConfig::default()).map(Arc::new).map_err(|error| {
                tracing::error!("outcomes of experiments are not kept: {error}");
            });
            Ok((Ledger::Kept(store), outcomes.ok()))
        }
        Err(error) if named => Err(format!("{error}; choose another with --state")),
        Err(error) => {
            tracing::warn!(
                "what is live cannot be changed: {error}; name a folder of its own with --state DIR"
            );
            Ok((Ledger::Unkept { reason: format!("{error}; start weir with --state DIR") }, None))
        }
    }
}

/// What follows the world beside the API.
#[derive(Debug, Clone)]
pub struct Following {
    pub settle: Duration,
    /// The routes file. It need not be there.
    pub routes: RoutesPath,
}

impl Control {
    pub fn new(config: ControlConfig, foundations: Foundations) -> Self {
        let (tallies, outcomes) = (Arc::clone(&foundations.tallies), foundations.outcomes.clone());
        if let Some(outcomes) = &outcomes {
            tallies.note_into(Arc::clone(outcomes));
        }
        let live = Arc::new(Live::new(config, foundations));
        let rollouts = Rollouts::new(Arc::clone(&live), tallies);
        Self { live, rollouts, outcomes, stop: Arc::default(), announced: Mutex::default() }
    }

    /// Starts what follows the repository, the routes file and the rollouts. Call it once everything was loaded.
    pub fn follow(self: &Arc<Self>, following: &Following) -> Followers {
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| match std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(work)
        {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::error!("the {name} thread cannot be started: {error}"),
        };
        let stop = || Arc::clone(&self.stop);
        let mut follower = Follower::new(Arc::clone(&self.live), following.routes.clone());
        follower.apply();
        let stop_following = stop();
        spawn("routes-file", Box::new(move || follower.run(&stop_following)));
        if self.live.config.mode == Mode::Watch {
            let loaded = std::mem::take(&mut *self.announced.lock().unwrap_or_else(PoisonError::into_inner));
            let (watch, stop) = (Watch::new(Arc::clone(&self.live), following.settle, loaded), stop());
            spawn("watch", Box::new(move || watch.run(&stop)));
        }
        let (control, stop) = (Arc::clone(self), stop());
        spawn("rollouts", Box::new(move || control.rollouts.run(&stop)));
        Followers { control: Arc::clone(self), threads }
    }
}

/// The threads of the control plane.
pub struct Followers {
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
}

impl Followers {
    /// Tells the threads to end and waits for it. Gives whether every version that was let go of is gone. Blocks.
    pub fn end(self) -> bool {
        self.control.stop.set();
        for thread in self.threads {
            let _ = thread.join();
        }
        self.control.live.reaper.stop()
    }
}

/// Errors: the file is there and wrong; or it is not there and was named.
pub fn check_routes(path: &Path, named: bool) -> Result<RoutesPath, String> {
    let file = RoutesPath { path: path.to_owned(), named };
    match routes_file::read(&file)? {
        None if named => Err(format!("the routes file {} cannot be read: it is not there", path.display())),
        _ => Ok(file),
    }
}
