//! What is worth trying. Pure.

use super::TuneError;
use crate::model::config::CpuSetting;

/// More instances a config cannot ask for.
const INSTANCES_MAX: usize = 256;

/// Threads and instances in doublings, each with as many of the others as the cores hold, and what is in force now
/// if that fits them. Ascending.
pub fn settings(cores: usize, now: CpuSetting) -> Vec<CpuSetting> {
    let mut settings: Vec<CpuSetting> = doublings(cores)
        .flat_map(|threads| {
            let instances = doublings((cores / threads).min(INSTANCES_MAX));
            instances.map(move |instances| CpuSetting { threads, instances })
        })
        .collect();
    if now.threads.saturating_mul(now.instances) <= cores {
        settings.push(now);
    }
    settings.sort_unstable();
    settings.dedup();
    settings
}

/// The sizes asked for, else 1, 2, 4, … and the model's maximum; only 1 for a model without a batch axis. Ascending.
///
/// Errors: a size that the model does not take.
pub fn batch_sizes(max_batch_size: usize, asked: &[usize]) -> Result<Vec<usize>, TuneError> {
    let max = max_batch_size.max(1);
    if let Some(wrong) = asked.iter().find(|&&size| !(1..=max).contains(&size)) {
        return Err(TuneError::Sizes(match max_batch_size {
            0 => format!("batches of {wrong}: the model has no batch axis"),
            _ => format!("batches of {wrong}: the model takes 1 to {max} rows"),
        }));
    }
    let mut sizes = if asked.is_empty() { doublings(max).collect() } else { asked.to_vec() };
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

/// 1, 2, 4, … up to `max`, and `max`.
fn doublings(max: usize) -> impl Iterator<Item = usize> {
    let powers = std::iter::successors(Some(1usize), |n| n.checked_mul(2));
    powers.take_while(move |&n| n < max).chain([max])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_times_instances_never_exceed_the_cores() {
        fn check(cores: usize, now: (usize, usize), expected: &[(usize, usize)]) {
            let now = CpuSetting { threads: now.0, instances: now.1 };
            let found: Vec<_> = settings(cores, now).iter().map(|s| (s.threads, s.instances)).collect();
            assert_eq!(found, expected, "{cores}");
        }
        check(1, (1, 1), &[(1, 1)]);
        check(2, (1, 2), &[(1, 1), (1, 2), (2, 1)]);
        check(2, (2, 2), &[(1, 1), (1, 2), (2, 1)]);
        check(6, (5, 1), &[(1, 1), (1, 2), (1, 4), (1, 6), (2, 1), (2, 2), (2, 3), (4, 1), (5, 1), (6, 1)]);
        for cores in 1..300 {
            let all = settings(cores, CpuSetting { threads: 3, instances: 7 });
            assert!(all.iter().all(|s| s.threads * s.instances <= cores && s.instances <= INSTANCES_MAX));
        }
    }

    #[test]
    fn sizes_are_doublings_and_the_maximum_or_those_asked_for() {
        for (max, asked, expected) in [
            (0, &[][..], Ok(&[1][..])),
            (1, &[], Ok(&[1])),
            (8, &[], Ok(&[1, 2, 4, 8])),
            (12, &[], Ok(&[1, 2, 4, 8, 12])),
            (12, &[12, 3, 3], Ok(&[3, 12])),
            (12, &[13], Err("1 to 12 rows")),
            (12, &[0], Err("1 to 12 rows")),
            (0, &[2], Err("no batch axis")),
        ] {
            match (batch_sizes(max, asked), expected) {
                (Ok(sizes), Ok(expected)) => assert_eq!(sizes, expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, expected) => panic!("{max} {asked:?}: {got:?}, not {expected:?}"),
            }
        }
    }
}
