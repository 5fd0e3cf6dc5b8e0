//! Finds the highest rate at which nearly all answers are on time.
//!
//! Not here: measuring. It says which rate to try and is told how it went.

/// The share of requests that must be on time.
pub const ON_TIME: f64 = 0.99;

/// Good and bad rates this close to each other, as a part, are told apart no further.
const RESOLUTION: f64 = 0.03;

/// Rates tried at the most: noise may keep the bounds apart.
const TRIALS_MAX: usize = 14;

/// How much further the search goes while nothing was too much, or nothing little enough.
const STRIDE: f64 = 1.5;

/// A search that is under way.
#[derive(Debug, Clone)]
pub struct Search {
    trial: f64,
    good: Option<f64>,
    bad: Option<f64>,
    trials: usize,
}

impl Search {
    /// Begins at a rate that is thought to be near.
    pub fn from(rate: f64) -> Self {
        Self { trial: rate.max(1.0), good: None, bad: None, trials: 0 }
    }

    /// The rate to try next; none when the search is over.
    pub fn next(&self) -> Option<f64> {
        let narrow =
            matches!((self.good, self.bad), (Some(good), Some(bad)) if bad <= good * (1.0 + RESOLUTION));
        let hopeless = self.bad.is_some_and(|bad| bad <= 1.0);
        (!narrow && !hopeless && self.trials < TRIALS_MAX).then_some(self.trial)
    }

    /// How the rate of [`Self::next`] went: whether enough was on time.
    pub fn note(&mut self, on_time: bool) {
        self.trials += 1;
        if on_time {
            self.good = Some(self.trial);
        } else {
            self.bad = Some(self.trial);
        }
        self.trial = match (self.good, self.bad) {
            (Some(good), Some(bad)) => (good + bad) / 2.0,
            (Some(good), None) => good * STRIDE,
            (None, Some(bad)) => bad / STRIDE,
            (None, None) => self.trial,
        };
    }

    /// The highest rate that went well.
    pub fn found(&self) -> Option<f64> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that keeps up to `limit`; gives what was found and the trials.
    fn search(start: f64, limit: f64) -> (Option<f64>, usize) {
        let mut search = Search::from(start);
        let mut trials = 0;
        while let Some(rate) = search.next() {
            search.note(rate <= limit);
            trials += 1;
        }
        (search.found(), trials)
    }

    #[test]
    fn the_limit_is_found_from_either_side() {
        for (start, limit) in [(1000.0, 700.0), (1000.0, 2500.0), (1000.0, 1000.0), (50.0, 3.0)] {
            let (found, trials) = search(start, limit);
            let found = found.expect("some rate goes well");
            assert!(found <= limit && found > limit * 0.95, "{start} {limit}: {found}");
            assert!(trials <= TRIALS_MAX);
        }
    }

    #[test]
    fn a_server_that_is_never_on_time_ends_the_search() {
        let (found, trials) = search(1000.0, 0.0);
        assert_eq!(found, None);
        assert!(trials <= TRIALS_MAX);
    }
}
