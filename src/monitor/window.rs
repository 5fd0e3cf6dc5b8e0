//! The last half minute of one version's requests: how many, and how long they took.
//!
//! Always: recording is two atomic additions; what is told covers at least the last 30 seconds and at most the
//! last 35, or all time since the version was loaded where that is shorter. Not here: a clock for turning;
//! [`Window::turn`] is called by whoever has one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Each slot collects for so long.
const SLOT: Duration = Duration::from_secs(5);

/// One that is being filled and six that are full: half a minute.
const SLOTS: usize = 7;

/// Buckets per doubling: the middle of one is at most 1/32 (3.1 %) away from anything in it.
const PER_OCTAVE: usize = 16;

/// Times are told apart from 2^10 ns (a microsecond) to 2^37 ns (137 s); what lies outside counts as at the edge.
const OCTAVES: std::ops::Range<u32> = 10..37;

const BUCKETS: usize = (OCTAVES.end - OCTAVES.start) as usize * PER_OCTAVE;

/// Less than this is too short to tell a rate from.
const SPAN_MIN: Duration = Duration::from_secs(1);

/// What the last half minute or so was like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recent {
    /// Requests that ended, one way or another.
    pub requests: u64,
    /// The time that they are counted over.
    pub span: Duration,
    /// Of requests that succeeded; zero when none did. At most 3.1 % off.
    pub p50: Duration,
    pub p99: Duration,
}

impl Recent {
    pub fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.span.max(SPAN_MIN).as_secs_f64()
    }
}

/// Counts of one stretch of time.
struct Slot {
    requests: AtomicU64,
    /// Requests that succeeded, by how long they took.
    buckets: [AtomicU32; BUCKETS],
}

impl Slot {
    fn new() -> Self {
        Self { requests: AtomicU64::new(0), buckets: std::array::from_fn(|_| AtomicU32::new(0)) }
    }

    fn clear(&self) {
        self.requests.store(0, Ordering::Relaxed);
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

/// A ring of slots.
///
/// A request that is recorded while the window turns may count in the slot before: nobody can tell.
pub struct Window {
    began: Instant,
    /// Slots begun since then, less one; the current one is this modulo [`SLOTS`].
    turns: AtomicU64,
    slots: Box<[Slot]>,
}

impl Default for Window {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl Window {
    pub fn new(now: Instant) -> Self {
        Self {
            began: now,
            turns: AtomicU64::new(0),
            slots: std::iter::repeat_with(Slot::new).take(SLOTS).collect(),
        }
    }

    /// Counts a request that ended; one that succeeded with the time that it took.
    pub fn record(&self, succeeded_in: Option<Duration>) {
        let slot = &self.slots[slot_of(self.turns.load(Ordering::Acquire))];
        slot.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(took) = succeeded_in {
            slot.buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets what is too old. Call it every second or so, from one thread at a time.
    pub fn turn(&self, now: Instant) {
        let turns = self.turns.load(Ordering::Relaxed);
        let due = now.saturating_duration_since(self.began).as_secs() / SLOT.as_secs();
        // After a long pause every slot is too old, and clearing each once is enough.
        let first = (turns + 1).max(due.saturating_sub(SLOTS as u64 - 1));
        for next in first..=due {
            self.slots[slot_of(next)].clear();
            self.turns.store(next, Ordering::Release);
        }
    }

    /// What is in the window at `now`.
    pub fn recent(&self, now: Instant) -> Recent {
        let turns = self.turns.load(Ordering::Acquire);
        let forgotten = SLOT * u32::try_from(turns.saturating_sub(SLOTS as u64 - 1)).unwrap_or(u32::MAX);
        let mut counts = [0u64; BUCKETS];
        for slot in &self.slots {
            for (count, bucket) in counts.iter_mut().zip(&slot.buckets) {
                *count += u64::from(bucket.load(Ordering::Relaxed));
            }
        }
        Recent {
            requests: self.slots.iter().map(|slot| slot.requests.load(Ordering::Relaxed)).sum(),
            span: now.saturating_duration_since(self.began).saturating_sub(forgotten),
            p50: quantile(&counts, 0.5),
            p99: quantile(&counts, 0.99),
        }
    }
}

fn slot_of(turns: u64) -> usize {
    (turns % SLOTS as u64) as usize
}

/// Log-linear: the power of two below, and the next four bits.
fn bucket_of(took: Duration) -> usize {
    let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let ns = ns.clamp(1 << OCTAVES.start, (1 << OCTAVES.end) - 1);
    let octave = ns.ilog2();
    let within = (ns >> (octave - PER_OCTAVE.ilog2())) as usize % PER_OCTAVE;
    (octave - OCTAVES.start) as usize * PER_OCTAVE + within
}

fn middle_of(bucket: usize) -> Duration {
    let octave = OCTAVES.start + (bucket / PER_OCTAVE) as u32;
    let width = 1u64 << (octave - PER_OCTAVE.ilog2());
    Duration::from_nanos((1 << octave) + (bucket % PER_OCTAVE) as u64 * width + width / 2)
}

/// The time that a part `q` of the requests, in 0..1, does not exceed: the smallest bucket that reaches
/// rank ⌈q·n⌉. Zero when there is none.
fn quantile(counts: &[u64; BUCKETS], q: f64) -> Duration {
    let all: u64 = counts.iter().sum();
    let rank = (q * all as f64).ceil().max(1.0) as u64;
    let mut below = 0;
    for (bucket, count) in counts.iter().enumerate() {
        below += count;
        if below >= rank {
            return middle_of(bucket);
        }
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_quantile_is_within_a_thirty_second_of_the_exact_one() {
        // Microseconds of very different sizes, so that each share of the requests lies in another octave.
        for scale in [1u64, 37, 1_000, 52_429, 900_000] {
            let began = Instant::now();
            let window = Window::new(began);
            let mut times: Vec<u64> = (1..=1000).map(|i| 1100 + i * i * scale / 10).collect();
            times.iter().for_each(|ns| window.record(Some(Duration::from_nanos(*ns))));
            times.sort_unstable();
            let recent = window.recent(began + seconds(2));
            for (told, rank) in [(recent.p50, 500), (recent.p99, 990)] {
                let exact = times[rank - 1] as f64;
                let off = (told.as_nanos() as f64 - exact).abs() / exact;
                assert!(off <= 1.0 / 32.0, "scale {scale}, rank {rank}: {told:?} for {exact} ns");
            }
        }
    }

    #[test]
    fn times_beyond_the_buckets_count_at_their_edge() {
        for (took, least, most) in [
            (Duration::ZERO, 1_000, 1_100),
            (Duration::MAX, 130_000_000_000, 140_000_000_000),
            (Duration::from_nanos(1024), 1_000, 1_100),
        ] {
            let ns = middle_of(bucket_of(took)).as_nanos();
            assert!((least..=most).contains(&ns), "{took:?}: {ns}");
        }
    }

    #[test]
    fn every_bucket_holds_its_own_middle() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
    }

    #[test]
    fn requests_are_forgotten_after_half_a_minute_and_not_before() {
        let began = Instant::now();
        let window = Window::new(began);
        window.record(Some(Duration::from_millis(7)));
        window.record(None);
        for second in 0..40 {
            let now = began + seconds(second);
            window.turn(now);
            let recent = window.recent(now);
            let expected = if second < 35 { 2 } else { 0 };
            assert_eq!(recent.requests, expected, "after {second} s");
            assert_eq!(recent.p99 > Duration::ZERO, second < 35, "after {second} s");
            assert!(recent.span <= seconds(35) && recent.span >= seconds(second.min(30)), "{recent:?}");
        }
    }

    #[test]
    fn a_rate_is_over_the_time_that_there_was() {
        let began = Instant::now();
        let window = Window::new(began);
        (0..50).for_each(|_| window.record(Some(Duration::from_millis(1))));
        for (after, rate) in [(Duration::ZERO, 50.0), (seconds(1), 50.0), (seconds(10), 5.0)] {
            let told = window.recent(began + after).requests_per_second();
            assert!((told - rate).abs() < 1e-9, "after {after:?}: {told}");
        }
    }

    #[test]
    fn a_long_pause_leaves_nothing() {
        let began = Instant::now();
        let window = Window::new(began);
        for pause in [35, 36, 3600, 1_000_000] {
            let now = began + seconds(pause);
            window.turn(now);
            window.record(None);
            assert_eq!(window.recent(now).requests, 1, "{pause} s");
            // Whatever comes next starts from an empty window.
            window.slots.iter().for_each(Slot::clear);
        }
    }

    #[test]
    fn failures_count_as_requests_and_have_no_time() {
        let began = Instant::now();
        let window = Window::new(began);
        window.record(None);
        let recent = window.recent(began);
        assert_eq!((recent.requests, recent.p50, recent.p99), (1, Duration::ZERO, Duration::ZERO));
    }
}
