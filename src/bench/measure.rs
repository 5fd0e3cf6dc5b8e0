//! Measures one load: a warm-up, then windows until they agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::BenchError;
use super::driver::Driver;
use super::encode::Calls;
use super::plan::{Effort, Load, Rules};
use super::processor::Processor;
use super::report::Row;
use super::search::{ON_TIME, Search};
use super::statistics::Statistics;
use super::tally::Tally;
use super::target::Endpoint;
use super::windows::{AGREEING, Window, stable};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A wish to end early. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<(AtomicBool, Notify)>);

impl Stop {
    /// Ends whatever is being measured; what there is of it counts.
    pub fn now(&self) {
        self.0.0.store(true, Ordering::Relaxed);
        self.0.1.notify_one();
    }

    pub fn wished(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }
}

/// How far a measurement is.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// 0 to 1 of the time that it takes at most.
    pub part: f64,
    /// What the last window measured.
    pub requests_per_second: Option<f64>,
}

/// How a measurement ended.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    pub windows: usize,
    pub stable: bool,
}

/// Rules and means of all measurements of a run.
pub struct Bench<'a> {
    pub rules: Rules,
    pub effort: Effort,
    /// The server, if it is a process of this machine.
    pub server: Option<Processor>,
    pub stop: Stop,
    pub progress: &'a mut dyn FnMut(Moment),
}

/// Counts that only grow, at one moment.
struct Reading {
    statistics: Option<Statistics>,
    server: Option<Duration>,
    own: Option<Duration>,
}

impl Bench<'_> {
    /// Measures a load. What counts are the last three windows, or those that there were.
    ///
    /// Errors: no threads. A server that fails is no error: failures are counted.
    pub async fn measure(
        &mut self,
        endpoint: Endpoint<'_>,
        calls: &Calls,
        load: Load,
    ) -> Result<Row, BenchError> {
        let driver = Driver::start(endpoint, calls, load, &self.effort)?;
        let began = Instant::now();
        self.wait(began, self.rules.warmup, None).await;
        driver.take();
        let mut windows: Vec<Window> = Vec::new();
        let mut readings = vec![self.reading(endpoint).await];
        while windows.len() < self.rules.windows_max && !self.stop.wished() && !self.settled(&windows) {
            let opened = Instant::now();
            driver.take();
            self.wait(began, self.rules.window, windows.last().map(Window::rate)).await;
            windows.push(Window { tally: driver.take(), lasted: opened.elapsed() });
            readings.push(self.reading(endpoint).await);
        }
        // Waits for the last answers, which other tasks of this thread have no part in.
        drop(driver);
        let phase = Phase { windows: windows.len(), stable: self.settled(&windows) };
        let counted = &windows[windows.len().saturating_sub(AGREEING)..];
        let mut tally = Tally::default();
        counted.iter().for_each(|window| tally.add(&window.tally));
        let seconds = counted.iter().map(|window| window.lasted.as_secs_f64()).sum();
        let mut row = Row::new(endpoint.protocol, load, phase, &tally, seconds);
        row.on_time = self.effort.objective.map(|_| tally.on_time_share());
        let (before, after) = (&readings[readings.len() - 1 - counted.len()], &readings[readings.len() - 1]);
        account(&mut row, before, after);
        Ok(row)
    }

    /// Searches the highest rate at which nearly all answers are on time, from near `rate`. Gives what was measured
    /// on the way too.
    pub async fn find_rate(
        &mut self,
        endpoint: Endpoint<'_>,
        calls: &Calls,
        rate: f64,
        process: super::Process,
    ) -> Result<(Option<f64>, Vec<Row>), BenchError> {
        let mut search = Search::from(rate);
        let mut rows = Vec::new();
        while let Some(rate) = search.next().filter(|_| !self.stop.wished()) {
            let row = self.measure(endpoint, calls, Load::Open { rate, process }).await?;
            search.note(row.on_time.is_some_and(|share| share >= ON_TIME));
            rows.push(row);
        }
        Ok((search.found(), rows))
    }

    fn settled(&self, windows: &[Window]) -> bool {
        stable(windows, self.rules.stability)
    }

    /// Lets time pass, and tells how far the measurement is that began at `began`.
    async fn wait(&mut self, began: Instant, time: Duration, requests_per_second: Option<f64>) {
        let most = self.rules.warmup + self.rules.window * self.rules.windows_max as u32;
        let until = Instant::now() + time;
        while !self.stop.wished() {
            let part = began.elapsed().as_secs_f64() / most.as_secs_f64().max(f64::MIN_POSITIVE);
            (self.progress)(Moment { part: part.min(1.0), requests_per_second });
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(TELL_EVERY)) => {}
                () = self.stop.0.1.notified() => {}
            }
        }
    }

    async fn reading(&self, endpoint: Endpoint<'_>) -> Reading {
        Reading {
            statistics: endpoint.statistics().await,
            server: self.server.and_then(Processor::used),
            own: Processor::own().and_then(Processor::used),
        }
    }
}

/// Adds what grew between two readings, per request.
fn account(row: &mut Row, before: &Reading, after: &Reading) {
    let requests = (row.answered + row.errors) as f64;
    let per_request = |before: Option<Duration>, after: Option<Duration>| {
        let used = after?.checked_sub(before?)?;
        (requests > 0.0).then(|| used.as_secs_f64() * 1e6 / requests)
    };
    row.server_cpu_us = per_request(before.server, after.server);
    row.generator_cpu_us = per_request(before.own, after.own);
    row.server = after.statistics.as_ref().zip(before.statistics.as_ref()).and_then(|(a, b)| a.since(b));
}
