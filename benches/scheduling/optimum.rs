//! What could be done at best by one instance that knows all arrivals beforehand.

use super::simulation::Calls;

/// Whether requests can be served so that no more than `given_up` of them are late.
///
/// All have the same time, so their deadlines come in the order of their arrivals, and some best plan serves them
/// in that order: batches are runs of neighbours, and what is given up stands before a run. So it is enough to know,
/// for each request `i` and number `d`, the earliest moment by which all up to `i` can be done with but `d` of them:
/// the least of giving `i` up, and of each run that ends with it. Exact. Cost: requests × `given_up` × the longest
/// run that is ever on time.
pub fn can_serve(arrivals: &[f64], calls: &Calls, objective: f64, given_up: usize) -> bool {
    let width = given_up + 1;
    let mut done = vec![f64::INFINITY; (arrivals.len() + 1) * width];
    done[..width].fill(0.0);
    for (i, &arrived) in arrivals.iter().enumerate() {
        let (before, rest) = done.split_at_mut((i + 1) * width);
        let here = &mut rest[..width];
        here[1..].copy_from_slice(&before[i * width..(i + 1) * width - 1]);
        for rows in 1..=calls.rows_max().min(i + 1) {
            let first = i + 1 - rows;
            let (time, due) = (calls.time(rows), arrivals[first] + objective);
            // Longer runs start no earlier and are due no later.
            if arrived + time > due {
                break;
            }
            for (earliest, free) in here.iter_mut().zip(&before[first * width..]) {
                let end = free.max(arrived) + time;
                if end <= due && end < *earliest {
                    *earliest = end;
                }
            }
        }
    }
    done[arrivals.len() * width..].iter().any(|moment| moment.is_finite())
}

/// The highest rate that is good, to a `step`: rates are good up to some rate, which is below `max`, and not beyond.
pub fn highest(max: f64, step: f64, good: impl Fn(f64) -> bool) -> f64 {
    let (mut good_at, mut bad_at) = (0.0, max);
    while bad_at - good_at > step {
        let rate = f64::midpoint(good_at, bad_at);
        *(if good(rate) { &mut good_at } else { &mut bad_at }) = rate;
    }
    good_at
}
