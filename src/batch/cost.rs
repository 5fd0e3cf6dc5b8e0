//! What session calls cost: their time by size, measured and kept up.
//!
//! Always: readers never wait, and neither do observers: an update that is lost is one sample lost. Times never
//! fall with the size and at most [`STEEPEST`] for each doubling; what was never measured is extrapolated.
//! Not here: clocks, and what follows from a prediction (`queue`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

/// Means are taken over about so many calls.
const CALLS: f64 = 16.0;

/// Distances from the mean are taken over so many, of which one may be far away.
const CALLS_OF_DEVIATION: f64 = 64.0;

/// What the start counts for, in calls. The first calls then weigh more than later ones: loading runs at a low
/// priority, and a few calls do not tell how they differ.
const START: f64 = 3.0;

/// One observation counts as this many times the prediction at the most: a call that the system interrupted says
/// little about the next one.
const OUTLIER: f64 = 4.0;

/// Mean distances above the mean that nine calls in ten stay below: so it is for normal and for uniform times.
const NINE_IN_TEN: f64 = 1.6;

/// What twice the rows take at the most, as a multiple. Twice the time is what no gain looks like; caches may add
/// something. The limit lets a time that was once measured too long come down with those of smaller calls, even
/// though predictions then keep such calls from being made.
const STEEPEST: f64 = 2.5;

/// Larger calls that cost at least this part less for each row are worth it.
const GAIN_MIN: f64 = 0.05;

/// Seconds that a call costs besides its session: the queue's lock, the waking of a thread, replies. Only its order
/// of magnitude matters; it keeps calls of a few microseconds from being made row by row.
const HANDOVER: f64 = 20e-6;

/// Seconds that no call is quicker than; 0 stands for what is not known.
const SHORTEST: f64 = 1e-9;

/// Predictions that something depends on add this for what the table does not know.
const SAFETY: f64 = 1.1;

/// The part of requests whose time in the front end is longer than what is allowed for.
const LONGER: f64 = 0.01;

/// By how much what is allowed for the front end may rise at once, as a part of it.
const RISE: f64 = 0.1;

/// Seconds in the front end: the least that is allowed for once anything was measured.
const FRONT_END_MIN: f64 = 10e-6;

/// How much a call is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u64,
    /// Of all inputs.
    pub bytes: u64,
}

impl std::ops::Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, bytes: self.bytes + other.bytes }
    }
}

impl std::ops::Sub for Size {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { rows: self.rows - other.rows, bytes: self.bytes - other.bytes }
    }
}

/// A number that several threads read and write.
#[derive(Default)]
struct Real(AtomicU64);

impl Real {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// Calls of one size.
#[derive(Default)]
struct Knot {
    /// Seconds; 0 until anything was measured.
    mean: Real,
    /// The mean distance from the mean, as a part of it.
    deviation: Real,
    /// Calls observed nearest to it.
    calls: Real,
}

/// The time of a servable's session calls by their size.
///
/// Sizes count in rows of the size first measured: a row with twice the bytes counts as two, so that longer texts
/// and larger pictures are predicted to take longer. Where time does not grow with the bytes, the deviation shows it.
pub struct Costs {
    /// For 1, 2, 4, … rows, at least two.
    knots: Box<[Knot]>,
    /// Bytes of one row of the size first measured; 0 until then, or where rows have none.
    unit: AtomicU64,
    /// See [`Self::worth`].
    worth: Real,
    /// See [`Self::front_end`]; seconds.
    front_end: Real,
}

impl Costs {
    /// A table of calls up to `rows_max` rows, of which nothing is known.
    pub fn new(rows_max: usize) -> Self {
        let doublings = rows_max.max(2).next_power_of_two().trailing_zeros() as usize;
        let costs = Self {
            knots: (0..=doublings).map(|_| Knot::default()).collect(),
            unit: AtomicU64::new(0),
            worth: Real::default(),
            front_end: Real::default(),
        };
        costs.worth.set(f64::INFINITY);
        costs
    }

    /// Starts the table from measured calls; larger sizes continue the line through the last two.
    ///
    /// Of a single call one half is taken not to grow with the size.
    pub fn seed(&self, measured: &[(Size, Duration)]) {
        let Some((first, _)) = measured.first() else { return };
        self.unit.store(first.bytes / first.rows.max(1), Ordering::Relaxed);
        let unit = self.unit();
        let mut points: Vec<(f64, f64)> =
            measured.iter().map(|(size, took)| (unit.work(*size), took.as_secs_f64())).collect();
        points.sort_by(|a, b| a.partial_cmp(b).expect("sizes and times are numbers"));
        points.dedup_by_key(|(work, _)| *work);
        let (anchor, _) = place(points[0].0, self.knots.len() - 1);
        if let [(_, time)] = points[..] {
            points.insert(0, (0.0, time / 2.0));
        }
        let mut times: SmallVec<[f64; 16]> =
            (0..self.knots.len()).map(|i| along(&points, size_of(i)).max(SHORTEST)).collect();
        straighten(&mut times, anchor);
        for (knot, time) in self.knots.iter().zip(&times) {
            knot.mean.set(*time);
            knot.deviation.set(0.0);
            knot.calls.set(0.0);
        }
        self.weigh(&times);
    }

    /// A call of that size took so long.
    pub fn observe(&self, size: Size, took: Duration) {
        let mut times = self.means();
        if times[0] == 0.0 {
            return self.seed(&[(size, took)]);
        }
        let last = times.len() - 1;
        let work = self.unit().work(size);
        let predicted = at(&times, work).max(SHORTEST);
        let ratio = (took.as_secs_f64() / predicted).clamp(1.0 / OUTLIER, OUTLIER);
        let (below, part) = place(work.clamp(1.0, size_of(last)), last);
        let nearest = below + usize::from(part > 0.5);
        let knot = &self.knots[nearest];
        let calls = knot.calls.get() + START;
        let weight = 1.0 / calls.min(CALLS);
        times[below] *= 1.0 + weight * (1.0 - part) * (ratio - 1.0);
        times[below + 1] *= 1.0 + weight * part * (ratio - 1.0);
        straighten(&mut times, nearest);
        for (knot, time) in self.knots.iter().zip(&times) {
            knot.mean.set(*time);
        }
        let distance = (ratio - 1.0).abs() - knot.deviation.get();
        knot.deviation.set(knot.deviation.get() + distance / calls.min(CALLS_OF_DEVIATION));
        knot.calls.set(knot.calls.get() + 1.0);
        self.weigh(&times);
    }

    /// A request took so long from its arrival to its answer, less its wait and its call. No more than `most` is ever
    /// allowed for.
    pub fn observe_front_end(&self, took: Duration, most: Duration) {
        let (known, took) = (self.front_end.get().max(FRONT_END_MIN), took.as_secs_f64());
        // Rises and falls are even where one request in a hundred takes longer: then it is that quantile.
        let factor = if took > known { 1.0 + RISE * (1.0 - LONGER) } else { 1.0 - RISE * LONGER };
        self.front_end.set((known * factor).max(FRONT_END_MIN).min(most.as_secs_f64()));
    }

    /// What a request takes besides its wait and its call, 99 times in a hundred: being read, and answered after
    /// others of its batch. Zero while nothing is known.
    pub fn front_end(&self) -> Duration {
        seconds(self.front_end.get())
    }

    /// The mean time of a call of that size; zero while nothing is known.
    pub fn predict(&self, size: Size) -> Duration {
        seconds(at(&self.means(), self.unit().work(size)))
    }

    /// What can be relied on: nine calls in ten take less than these times, by the table and something on top.
    pub fn cautious(&self) -> Table {
        let mut longest: f64 = 0.0;
        let times = self.knots.iter().map(|knot| {
            longest = longest.max(knot.mean.get() * (1.0 + NINE_IN_TEN * knot.deviation.get()) * SAFETY);
            longest
        });
        Table { times: times.collect(), unit: self.unit() }
    }

    /// The smallest call, in rows of the size first measured, beyond which calls of more rows cost less than a
    /// twentieth less for each of them. Infinite where larger calls pay to the end, or nothing is known.
    pub fn worth(&self) -> f64 {
        self.worth.get()
    }

    /// How sizes count.
    pub fn unit(&self) -> Unit {
        Unit(self.unit.load(Ordering::Relaxed))
    }

    fn means(&self) -> SmallVec<[f64; 16]> {
        self.knots.iter().map(|knot| knot.mean.get()).collect()
    }

    fn weigh(&self, times: &[f64]) {
        let mut worth = times.len() - 1;
        let mut cheapest = f64::INFINITY;
        for (index, time) in times.iter().enumerate().rev() {
            let each = (time + HANDOVER) / size_of(index);
            cheapest = cheapest.min(each);
            if each * (1.0 - GAIN_MIN) > cheapest {
                break;
            }
            worth = index;
        }
        self.worth.set(if worth + 1 == times.len() { f64::INFINITY } else { size_of(worth) });
    }
}

/// Bytes of a row that counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit(u64);

impl Unit {
    /// 0 where rows have none, or none was measured.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// A size in rows of the size first measured.
    pub fn work(self, size: Size) -> f64 {
        if self.0 == 0 { size.rows as f64 } else { size.bytes as f64 / self.0 as f64 }
    }
}

/// Times by size as of one moment.
#[derive(Debug, Clone)]
pub struct Table {
    /// Seconds for 1, 2, 4, … rows, ascending; all zero while nothing is known.
    times: SmallVec<[f64; 16]>,
    unit: Unit,
}

impl Table {
    /// The time of a call of that size; zero while nothing is known.
    pub fn time(&self, size: Size) -> Duration {
        seconds(at(&self.times, self.unit.work(size)))
    }

    /// The largest call, in rows of the size first measured, that takes no longer than that.
    pub fn within(&self, time: Duration) -> f64 {
        let time = time.as_secs_f64();
        let last = self.times.len() - 1;
        let slope = |from: usize| (self.times[from + 1] - self.times[from]) / size_of(from);
        match self.times.iter().rposition(|&t| t <= time) {
            // The first segment goes down to nothing at all along the line of the second.
            None if slope(0) <= 0.0 => 0.0,
            None => (1.0 - (self.times[0] - time) / slope(0)).max(0.0),
            Some(index) if slope(index.min(last - 1)) <= 0.0 => f64::INFINITY,
            Some(index) => size_of(index) + (time - self.times[index]) / slope(index.min(last - 1)),
        }
    }

    /// How sizes count.
    pub fn unit(&self) -> Unit {
        self.unit
    }
}

/// A year at the most, so that it can be added to any moment.
fn seconds(number: f64) -> Duration {
    const YEAR: f64 = 365.0 * 86_400.0;
    Duration::try_from_secs_f64(number.min(YEAR)).unwrap_or_default()
}

/// Rows of the knot at `index`.
fn size_of(index: usize) -> f64 {
    (1u64 << index) as f64
}

/// The segment of a size, and how far along it the size lies: below 0 or above 1 outside of the table.
fn place(work: f64, last: usize) -> (usize, f64) {
    let below = (work.max(1.0).log2() as usize).min(last - 1);
    (below, work / size_of(below) - 1.0)
}

/// The time of a size by the times at 1, 2, 4, … rows; 0 at the least.
fn at(times: &[f64], work: f64) -> f64 {
    let (below, part) = place(work, times.len() - 1);
    (times[below] + part * (times[below + 1] - times[below])).max(0.0)
}

/// The value at `x` of the lines through `points`, which ascend and are two at least.
fn along(points: &[(f64, f64)], x: f64) -> f64 {
    let above = points.iter().position(|(at, _)| *at >= x).unwrap_or(points.len());
    let ((x0, y0), (x1, y1)) = {
        let right = above.clamp(1, points.len() - 1);
        (points[right - 1], points[right])
    };
    y0 + (y1 - y0) * (x - x0) / (x1 - x0)
}

/// Puts the times around the one at `anchor`, which stays, between it and the steepest.
fn straighten(times: &mut [f64], anchor: usize) {
    for index in anchor + 1..times.len() {
        times[index] = times[index].clamp(times[index - 1], times[index - 1] * STEEPEST);
    }
    for index in (0..anchor).rev() {
        times[index] = times[index].clamp(times[index + 1] / STEEPEST, times[index + 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: u64) -> Size {
        Size { rows, bytes: 8 * rows }
    }

    const MS: Duration = Duration::from_millis(1);

    /// A table of L(b) = t0 + α·b, in milliseconds.
    fn line(t0: f64, alpha: f64, rows_max: usize) -> Costs {
        let costs = Costs::new(rows_max);
        let call = |b: u64| (rows(b), MS.mul_f64(t0 + alpha * b as f64));
        costs.seed(&[call(1), call(2)]);
        costs
    }

    fn millis(time: Duration) -> f64 {
        (time.as_secs_f64() * 1e6).round() / 1e3
    }

    #[test]
    fn what_was_not_measured_continues_the_line() {
        let costs = line(1.0, 0.1, 32);
        for (size, expected) in [(1, 1.1), (3, 1.3), (32, 4.2), (100, 11.0)] {
            assert_eq!(millis(costs.predict(rows(size))), expected, "{size} rows");
        }
        assert_eq!(Costs::new(32).predict(rows(8)), Duration::ZERO);
        assert_eq!(Costs::new(32).cautious().within(MS), f64::INFINITY);
    }

    #[test]
    fn of_one_call_half_is_fixed() {
        let costs = Costs::new(8);
        costs.observe(rows(2), 4 * MS);
        for (size, expected) in [(1, 3.0), (2, 4.0), (8, 10.0)] {
            assert_eq!(millis(costs.predict(rows(size))), expected, "{size} rows");
        }
    }

    #[test]
    fn cautious_times_and_their_sizes_are_each_others_inverse() {
        let table = line(1.0, 0.5, 16).cautious();
        assert_eq!(millis(table.time(rows(4))), 3.3);
        for size in [1, 2, 3, 5, 8, 15, 16, 40] {
            let work = table.within(table.time(rows(size)) + Duration::from_nanos(1));
            assert!((work - size as f64).abs() < 1e-3, "{size}: {work}");
        }
        assert_eq!(table.within(MS), 0.0);
        assert_eq!(line(1.0, 0.0, 16).cautious().within(2 * MS), f64::INFINITY);
    }

    #[test]
    fn rows_of_more_bytes_take_longer() {
        let costs = line(0.0, 1.0, 8);
        let long = Size { rows: 1, bytes: 80 };
        assert_eq!(millis(costs.predict(long)), 10.0);
    }

    #[test]
    fn large_calls_are_worth_it_where_each_row_gets_cheaper() {
        assert_eq!(line(1.0, 0.1, 32).worth(), f64::INFINITY);
        assert_eq!(line(0.0, 2.0, 32).worth(), 1.0);
        assert_eq!(line(0.3, 1.0, 32).worth(), 8.0);
        assert_eq!(Costs::new(32).worth(), f64::INFINITY);
    }

    #[test]
    fn calls_too_short_to_be_handed_over_alone_go_together() {
        // 2 µs a row and nothing fixed: handing them over costs more than they do.
        assert_eq!(line(0.0, 0.002, 32).worth(), f64::INFINITY);
    }

    #[test]
    fn one_request_in_a_hundred_takes_longer_in_the_front_end() {
        let costs = Costs::new(8);
        assert_eq!(costs.front_end(), Duration::ZERO);
        let mut random = fastrand::Rng::with_seed(1);
        let mut longer = 0;
        for request in 0..30_000 {
            let took = MS.mul_f64(random.f64());
            longer += u32::from(request >= 10_000 && took > costs.front_end());
            costs.observe_front_end(took, Duration::MAX);
        }
        assert!((100..400).contains(&longer), "{longer} of 20,000");
    }

    #[test]
    fn observations_win_over_what_was_measured_at_the_start() {
        let costs = line(3.0, 0.3, 32);
        for _ in 0..200 {
            costs.observe(rows(12), MS.mul_f64(2.2));
            costs.observe(rows(3), MS.mul_f64(1.3));
        }
        assert!((costs.predict(rows(12)).as_secs_f64() * 1e3 - 2.2).abs() < 0.05);
        assert!((costs.predict(rows(3)).as_secs_f64() * 1e3 - 1.3).abs() < 0.05);
    }

    #[test]
    fn one_interrupted_call_moves_the_mean_by_a_fifth_at_the_most() {
        let costs = line(1.0, 0.1, 32);
        (0..20).for_each(|_| costs.observe(rows(1), MS.mul_f64(1.1)));
        costs.observe(rows(1), 1000 * MS);
        assert!(costs.predict(rows(1)) < MS.mul_f64(1.1 * 1.2));
    }

    #[test]
    fn a_time_measured_too_long_comes_down_with_those_of_smaller_calls() {
        let costs = Costs::new(32);
        costs.seed(&[(rows(1), 100 * MS), (rows(2), 200 * MS)]);
        (0..200).for_each(|_| costs.observe(rows(1), MS));
        assert!(costs.predict(rows(4)) < 7 * MS, "{:?}", costs.predict(rows(4)));
    }

    #[test]
    fn nine_calls_in_ten_are_predicted_to_be_quicker() {
        let costs = line(1.0, 0.0, 4);
        let mut random = fastrand::Rng::with_seed(7);
        let mut below = 0;
        for call in 0..4000 {
            let took = MS.mul_f64(0.5 + random.f64());
            let high = costs.cautious().time(rows(1)).mul_f64(1.0 / SAFETY);
            below += usize::from(call >= 1000 && took < high);
            costs.observe(rows(1), took);
        }
        assert!((2550..2850).contains(&below), "{below} of 3000");
    }

    #[test]
    fn times_never_fall_with_the_size() {
        let costs = line(1.0, 0.1, 64);
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..1000 {
            costs.observe(rows(random.u64(1..=64)), MS.mul_f64(10.0 * random.f64()));
            let table = costs.cautious();
            let times: Vec<Duration> = (1..=64).map(|b| table.time(rows(b))).collect();
            assert!(times.is_sorted(), "{times:?}");
        }
    }
}
