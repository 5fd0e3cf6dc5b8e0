//! Texts: buckets of lengths as keys, and limits on the tokens of a batch.

use super::*;
use crate::batch::pad::bucket;

const ROWS_MAX: usize = 32;
const TOKENS_MAX: usize = 2048;

/// A text by its length alone.
#[derive(Debug, Clone)]
struct Text {
    length: usize,
    /// The longest text that it may share a batch with; 0 where all may.
    longest: usize,
    /// Batches that left before it came.
    came: usize,
}

impl Waiting for Text {
    type Key = usize;
    fn key(&self) -> &usize {
        &self.longest
    }
    fn rows(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        8 * self.length.max(self.longest)
    }
    fn cancelled(&self) -> bool {
        false
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn rows_max(&self) -> usize {
        (TOKENS_MAX / self.longest.max(1)).max(1)
    }
}

/// Lengths as texts have them: log-normal, half of them below 60, from 1 to 512.
struct Lengths(fastrand::Rng);

impl Lengths {
    fn next(&mut self) -> usize {
        // Box and Muller's way from two uniform numbers to a normal one.
        let (radius, angle) = (1.0 - self.0.f64(), self.0.f64());
        let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
        ((60.0 * (0.8 * normal).exp()) as usize).clamp(1, 512)
    }
}

/// What a saturated server made of texts.
#[derive(Debug, Default)]
struct Outcome {
    tokens: usize,
    /// With padding.
    places: usize,
    texts: usize,
    batches: usize,
    /// Batches that went before a text at the most, after it came.
    passed_over_max: usize,
}

impl Outcome {
    fn waste(&self) -> f64 {
        1.0 - self.tokens as f64 / self.places as f64
    }

    fn rows(&self) -> f64 {
        self.texts as f64 / self.batches as f64
    }
}

/// A server on which `backlog` texts wait all the time.
fn saturated(backlog: usize, longest: impl Fn(usize) -> usize) -> Outcome {
    let now = Instant::now();
    let mut lengths = Lengths(fastrand::Rng::with_seed(3));
    let mut queue = {
        let policy = BatchingPolicy { levels: vec![level(backlog)], ..policy(ROWS_MAX) };
        let costs = Arc::new(Costs::new(policy.rows_max));
        Queue::new(Batching { policy, costs }, 1)
    };
    let mut outcome = Outcome::default();
    while outcome.batches < 2000 {
        while queue.len() < backlog {
            let length = lengths.next();
            let text = Text { length, longest: longest(length), came: outcome.batches };
            queue.push(text, 0, None, now).unwrap();
        }
        let Taken::Batch(batch) = queue.take(now, &mut vec![]) else { panic!("a backlog is there") };
        let of_batch = batch.iter().map(|text| text.length);
        let places = batch.len() * of_batch.clone().max().unwrap();
        let passed_over = batch.iter().map(|text| outcome.batches - text.came).max();
        outcome.tokens += of_batch.sum::<usize>();
        outcome.places += places;
        outcome.texts += batch.len();
        outcome.batches += 1;
        outcome.passed_over_max = outcome.passed_over_max.max(passed_over.unwrap());
        assert!(places <= TOKENS_MAX || longest(1) == 0, "{batch:?}");
    }
    outcome
}

#[test]
fn buckets_waste_little_where_the_order_of_arrival_wastes_most() {
    for backlog in [64, 128, 512] {
        let (in_order, bucketed) = (saturated(backlog, |_| 0), saturated(backlog, bucket));
        println!(
            "{backlog} wait: in order {:.0} % of {:.1} rows are padding, in buckets {:.0} % of {:.1}",
            100.0 * in_order.waste(),
            in_order.rows(),
            100.0 * bucketed.waste(),
            bucketed.rows()
        );
        assert!((0.70..0.85).contains(&in_order.waste()), "{in_order:?}");
        assert!(bucketed.waste() < 0.25, "{bucketed:?}");
    }
}

/// However the others come, the oldest text goes next: no more batches go before a text than texts waited when it
/// came.
#[test]
fn no_text_starves() {
    for backlog in [1, 8, 64, 512] {
        let outcome = saturated(backlog, bucket);
        assert!(outcome.passed_over_max < backlog, "{outcome:?}");
    }
}

#[test]
fn batches_hold_as_many_texts_as_tokens_allow() {
    let now = Instant::now();
    let mut queue =
        Queue::new(Batching { policy: policy(ROWS_MAX), costs: Arc::new(Costs::new(ROWS_MAX)) }, 1);
    let lengths = [492, 480, 1000, 485, 490, 486, 2, 2, 3000];
    for (came, &length) in lengths.iter().enumerate() {
        queue.push(Text { length, longest: bucket(length), came }, 0, None, now).unwrap();
    }
    let batches = std::iter::from_fn(|| match queue.take(now, &mut vec![]) {
        Taken::Batch(batch) => Some(batch.iter().map(|text| text.length).collect()),
        _ => None,
    });
    let batches: Vec<Vec<usize>> = batches.collect();
    assert_eq!(batches, [vec![492, 480, 485, 490], vec![1000], vec![486], vec![2, 2], vec![3000]]);
}
