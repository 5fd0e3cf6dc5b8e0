//! What became of the requests of some stretch of time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Kinds of failure that are told apart; the others are counted as one.
const STATUSES_MAX: usize = 32;

/// The status of requests that no answer came to.
const CONNECTION: &str = "connection";

/// A request that was not answered with success.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The status that the server gave, or what kept it from giving one: a closed set of words.
    pub status: Cow<'static, str>,
    pub message: String,
}

impl Failure {
    /// Control characters of a server's message do not reach the terminal.
    pub fn new(status: impl Into<Cow<'static, str>>, message: &str) -> Self {
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { status: status.into(), message }
    }

    /// The connection could not be made, or broke.
    pub fn connection(cause: impl ToString) -> Self {
        Self::new(CONNECTION, &cause.to_string())
    }

    /// Whether no answer came because of the connection.
    pub fn is_connection(&self) -> bool {
        self.status == CONNECTION
    }
}

/// Failures of one status.
#[derive(Debug, Clone)]
pub struct Failures {
    pub count: u64,
    /// The first message.
    pub message: String,
}

/// One request that is over. Times are nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When it was due; in a closed loop that is when it was sent.
    pub due: u64,
    pub sent: u64,
    pub done: u64,
    /// Whether it was due while every connection was busy, which is not the generator's fault.
    pub queued: bool,
}

/// Counts and distributions, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Of successful answers.
    pub latencies: Histogram<u64>,
    /// Of answers that were no success.
    pub refusals: Histogram<u64>,
    /// How late requests were sent although a connection was free.
    pub lag: Histogram<u64>,
    pub failures: BTreeMap<Cow<'static, str>, Failures>,
    /// Successful answers within the objective.
    pub on_time: u64,
    /// Requests of an open loop that became due.
    pub due: u64,
    /// Requests that waited for a connection.
    pub queued: u64,
    /// Connections that were opened again.
    pub reopened: u64,
}

impl Default for Tally {
    fn default() -> Self {
        // Three digits; it grows with what it is given.
        let empty = || Histogram::new(3).expect("three digits are possible");
        Self {
            latencies: empty(),
            refusals: empty(),
            lag: empty(),
            failures: BTreeMap::new(),
            on_time: 0,
            due: 0,
            queued: 0,
            reopened: 0,
        }
    }
}

fn record(histogram: &mut Histogram<u64>, nanos: u64) {
    histogram.record(nanos).expect("it grows with what it is given");
}

impl Tally {
    /// Takes in one request.
    pub fn note(&mut self, times: Times, outcome: Result<(), Failure>, objective: Option<Duration>) {
        if times.queued {
            self.queued += 1;
        } else {
            record(&mut self.lag, times.sent.saturating_sub(times.due));
        }
        let latency = times.done.saturating_sub(times.due);
        match outcome {
            Ok(()) => {
                record(&mut self.latencies, latency);
                let on_time = objective.is_none_or(|objective| u128::from(latency) <= objective.as_nanos());
                self.on_time += u64::from(on_time);
            }
            Err(failure) => {
                if !failure.is_connection() {
                    record(&mut self.refusals, latency);
                }
                self.fail(failure.status, Failures { count: 1, message: failure.message });
            }
        }
    }

    fn fail(&mut self, status: Cow<'static, str>, failures: Failures) {
        let known = self.failures.contains_key(&status) || self.failures.len() < STATUSES_MAX;
        let status = if known { status } else { "other".into() };
        let count = failures.count;
        self.failures.entry(status).or_insert(Failures { count: 0, ..failures }).count += count;
    }

    /// Takes in another stretch.
    pub fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("both grow");
        self.refusals.add(&other.refusals).expect("both grow");
        self.lag.add(&other.lag).expect("both grow");
        for (status, failures) in &other.failures {
            self.fail(status.clone(), failures.clone());
        }
        self.on_time += other.on_time;
        self.due += other.due;
        self.queued += other.queued;
        self.reopened += other.reopened;
    }

    /// Requests that failed.
    pub fn errors(&self) -> u64 {
        self.failures.values().map(|failures| failures.count).sum()
    }

    /// Requests that are over.
    pub fn done(&self) -> u64 {
        self.latencies.len() + self.errors()
    }

    /// The share of requests that were answered on time. Those that were due and are not answered yet are not.
    pub fn on_time_share(&self) -> f64 {
        let all = self.done().max(self.due);
        if all == 0 { 0.0 } else { self.on_time.min(all) as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(due: u64, sent: u64, done: u64) -> Times {
        Times { due, sent, done, queued: false }
    }

    fn overloaded() -> Result<(), Failure> {
        Err(Failure::new("429", "Exceeds maximum\nqueue size"))
    }

    #[test]
    fn a_latency_counts_from_when_the_request_was_due() {
        let mut tally = Tally::default();
        tally.note(times(100, 5_000, 9_000), Ok(()), None);
        assert_eq!((tally.latencies.max(), tally.lag.max()), (8_903, 4_899 + 4));
    }

    #[test]
    fn what_waited_for_a_connection_is_no_lag_of_the_generator() {
        let mut tally = Tally::default();
        tally.note(Times { queued: true, ..times(0, 900, 1000) }, Ok(()), None);
        assert_eq!((tally.queued, tally.lag.len(), tally.latencies.len()), (1, 0, 1));
    }

    #[test]
    fn failures_are_counted_by_status_and_keep_the_first_message() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.note(times(0, 0, 1), overloaded(), None);
        }
        tally.note(times(0, 0, 1), Ok(()), None);
        tally.note(times(0, 0, 700), Err(Failure::connection("reset")), None);
        assert_eq!((tally.refusals.len(), tally.refusals.max()), (3, 1), "only what was answered");
        let mut both = Tally::default();
        both.note(times(0, 0, 1), Err(Failure::new("429", "later")), None);
        both.add(&tally);
        assert_eq!((both.errors(), both.done(), both.refusals.len()), (5, 6, 4));
        assert_eq!(both.failures["429"].message, "later");
        assert_eq!(tally.failures["429"].message, "Exceeds maximum queue size");
    }

    #[test]
    fn statuses_without_end_are_counted_as_others() {
        let mut tally = Tally::default();
        for status in 0..100 {
            tally.note(times(0, 0, 1), Err(Failure::new(status.to_string(), "")), None);
        }
        assert_eq!((tally.errors(), tally.failures.len()), (100, STATUSES_MAX + 1));
    }

    #[test]
    fn failures_and_what_is_still_missing_are_not_on_time() {
        let objective = Some(Duration::from_nanos(1000));
        let mut tally = Tally::default();
        tally.note(times(0, 0, 1000), Ok(()), objective);
        tally.note(times(0, 0, 1001), Ok(()), objective);
        tally.note(times(0, 0, 1), overloaded(), objective);
        assert_eq!(tally.on_time_share(), 1.0 / 3.0);
        tally.due = 4;
        assert_eq!(tally.on_time_share(), 0.25);
        assert_eq!(Tally::default().on_time_share(), 0.0);
    }
}
