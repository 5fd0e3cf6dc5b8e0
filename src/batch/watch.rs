//! Ends session calls that nobody waits for any more, or that take too long.
//!
//! Always: a call is first asked to end, which ONNX Runtime does between two operators, and forced half a second later, which
//! a worker process can be. So its place is free again within two seconds, unless it runs one long operator in this
//! process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::cost::{Costs, Size};
use crate::backend::Stop;

/// How often calls are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// A call that was asked to end and has not is forced after this long.
const FORCED_AFTER: Duration = Duration::from_millis(500);

/// A call may take this long whatever was measured, where nobody says otherwise: longer than any that is meant to be
/// waited for, shorter than people wait.
const CALL_MAX: Duration = Duration::from_secs(3);

/// The same of a call that runs again alone, because those that ran with it did not come to an end: most do in no time, and
/// the others are known well enough.
const AGAIN_MAX: Duration = Duration::from_millis(100);

/// Beyond these, a call may take so many times what calls of its size take: a machine may be that busy.
const CALL_FACTOR: u32 = 10;

/// How a request's client and the scheduler stand to each other.
#[derive(Debug, Default)]
pub struct Presence {
    picked: AtomicBool,
    gone: AtomicBool,
}

impl Presence {
    /// The request has left the queue for a session.
    pub fn pick(&self) {
        self.picked.store(true, Ordering::Relaxed);
    }

    pub fn is_picked(&self) -> bool {
        self.picked.load(Ordering::Relaxed)
    }

    /// Nobody waits for the answer any more.
    pub fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// The session calls of one scheduler.
pub struct Calls {
    calls: Mutex<Inner>,
    costs: Arc<Costs>,
    /// What a call may take; `None`: by what calls take.
    call_max: Option<Duration>,
}

#[derive(Default)]
struct Inner {
    running: Vec<Running>,
    /// To be used again: a session keeps what it needs in them.
    idle: Vec<Arc<Stop>>,
}

struct Running {
    stop: Arc<Stop>,
    since: Instant,
    waiting: SmallVec<[Arc<Presence>; 4]>,
    /// How long it may take.
    most: Duration,
    asked: Option<Instant>,
}

/// A call that runs, for as long as this lives.
pub struct Call<'a> {
    calls: &'a Calls,
    pub stop: Arc<Stop>,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let mut inner = self.calls.lock();
        inner.running.retain(|running| !Arc::ptr_eq(&running.stop, &self.stop));
        if !self.stop.is_asked() && self.stop.begun().is_none() {
            inner.idle.push(Arc::clone(&self.stop));
        }
    }
}

impl Calls {
    /// Calls that are watched from now on.
    pub fn watched(costs: Arc<Costs>, call_max: Option<Duration>) -> Arc<Self> {
        let calls = Arc::new(Self { calls: Mutex::default(), costs, call_max });
        watch(&calls);
        calls
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call begins that may take so long, for these requests.
    pub fn begin(
        &self,
        since: Instant,
        most: Duration,
        waiting: impl Iterator<Item = Arc<Presence>>,
    ) -> Call<'_> {
        let mut inner = self.lock();
        let stop = inner.idle.pop().unwrap_or_default();
        let running =
            Running { stop: Arc::clone(&stop), since, most, waiting: waiting.collect(), asked: None };
        inner.running.push(running);
        Call { calls: self, stop }
    }

    /// Calls that run now.
    pub fn running(&self) -> usize {
        self.lock().running.len()
    }

    /// How long a call of that size may take.
    pub fn call_max(&self, size: Size) -> Duration {
        self.call_max.unwrap_or_else(|| CALL_MAX.max(CALL_FACTOR * self.costs.predict(size)))
    }

    /// How long one may take that runs again alone after a call that did not come to an end.
    pub fn again_max(&self, size: Size) -> Duration {
        AGAIN_MAX.max(CALL_FACTOR * self.costs.predict(size)).min(self.call_max(size))
    }

    fn look(&self, now: Instant) {
        for running in &mut self.lock().running {
            let since = running.stop.begun().unwrap_or(running.since);
            let took = now.saturating_duration_since(since);
            match running.asked {
                Some(asked) if now.saturating_duration_since(asked) >= FORCED_AFTER => running.stop.force(),
                // A session may have made its means of interruption only since.
                Some(_) => running.stop.ask(),
                None => {
                    let wanted = running.waiting.iter().any(|presence| !presence.is_gone());
                    // One that began just now is left to end by itself.
                    if took >= LOOK && (!wanted || took >= running.most) {
                        running.stop.ask();
                        running.asked = Some(now);
                    }
                }
            }
        }
    }
}

/// Has one thread look at the calls of every scheduler, for as long as the process lives: a thread for each would be
/// thousands that do nothing.
fn watch(calls: &Arc<Calls>) {
    static WATCHED: Mutex<Vec<Weak<Calls>>> = Mutex::new(Vec::new());
    static STARTED: OnceLock<bool> = OnceLock::new();
    let lock = || WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    lock().push(Arc::downgrade(calls));
    STARTED.get_or_init(|| {
        let look = move || {
            loop {
                std::thread::sleep(LOOK);
                let now = Instant::now();
                let mut kept = Vec::new();
                lock().retain(|calls| calls.upgrade().map(|calls| kept.push(calls)).is_some());
                kept.iter().for_each(|calls| calls.look(now));
            }
        };
        let started = std::thread::Builder::new().name("call-watch".to_owned()).spawn(look);
        if let Err(error) = &started {
            tracing::error!("session calls are not watched: there is no thread for it: {error}");
        }
        started.is_ok()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { rows: 1, bytes: 4 };

    fn calls(call_max: Option<Duration>) -> Calls {
        Calls { calls: Mutex::default(), costs: Arc::new(Costs::new(8)), call_max }
    }

    #[test]
    fn a_call_that_nobody_waits_for_is_asked_then_forced_to_end() {
        let calls = calls(None);
        let (one, other) = (Arc::new(Presence::default()), Arc::new(Presence::default()));
        let now = Instant::now();
        let call = calls.begin(now, calls.call_max(SIZE), [Arc::clone(&one), Arc::clone(&other)].into_iter());
        one.leave();
        calls.look(now + Duration::from_secs(1));
        assert!(!call.stop.is_asked(), "one client still waits");
        other.leave();
        calls.look(now + Duration::from_secs(2));
        assert!(call.stop.is_asked() && !call.stop.is_forced());
        calls.look(now + Duration::from_secs(3));
        assert!(call.stop.is_forced());
        drop(call);
        assert!(calls.lock().running.is_empty() && calls.lock().idle.is_empty(), "it cannot be used again");
    }

    #[test]
    fn a_call_may_take_what_its_size_takes_ten_times_and_three_seconds_in_any_case() {
        let calls = calls(None);
        assert_eq!(calls.call_max(SIZE), Duration::from_secs(3));
        assert_eq!(calls.again_max(SIZE), AGAIN_MAX);
        calls.costs.seed(&[(SIZE, Duration::from_secs(1))]);
        assert_eq!(calls.call_max(SIZE), Duration::from_secs(10));
        let presence = || Arc::new(Presence::default());
        let now = Instant::now();
        let call = calls.begin(now, calls.call_max(SIZE), [presence()].into_iter());
        calls.look(now + Duration::from_secs(9));
        assert!(!call.stop.is_asked());
        calls.look(now + Duration::from_secs(11));
        assert!(call.stop.is_asked());
    }

    #[test]
    fn a_stop_serves_one_call_after_the_other() {
        let calls = calls(Some(Duration::from_secs(1)));
        let first = Arc::as_ptr(&calls.begin(Instant::now(), calls.call_max(SIZE), std::iter::empty()).stop);
        assert_eq!(
            Arc::as_ptr(&calls.begin(Instant::now(), calls.call_max(SIZE), std::iter::empty()).stop),
            first
        );
    }
}
