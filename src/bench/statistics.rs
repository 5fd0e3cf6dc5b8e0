//! What a server says of its own work, as the protocol's statistics extension counts it.

use serde::Deserialize;

use super::report::ServerSide;
use crate::proto::inference as pb;

/// A count and the time that it took in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
pub struct Total {
    #[serde(default)]
    pub count: u64,
    #[serde(default)]
    pub ns: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Durations {
    queue: Total,
    compute_input: Total,
    compute_infer: Total,
    compute_output: Total,
}

/// Session calls of one size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Batch {
    batch_size: u64,
    compute_infer: Total,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Item {
    inference_count: u64,
    execution_count: u64,
    inference_stats: Durations,
    batch_stats: Vec<Batch>,
}

impl Item {
    /// Session calls, and the rows in them. Totals of requests do not tell: a request counts after the call that it was in,
    /// which may be in another window. They have to do where a server does not tell its calls by size.
    fn calls_and_rows(&self) -> (u64, u64) {
        match self.batch_stats.is_empty() {
            true => (self.execution_count, self.inference_count),
            false => self.batch_stats.iter().fold((0, 0), |(calls, rows), batch| {
                let count = batch.compute_infer.count;
                (calls + count, rows + count * batch.batch_size)
            }),
        }
    }
}

/// The counts of a model since its server started, one item for each version.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Statistics {
    model_stats: Vec<Item>,
}

impl From<&pb::ModelStatisticsResponse> for Statistics {
    fn from(response: &pb::ModelStatisticsResponse) -> Self {
        let total = |total: Option<pb::StatisticDuration>| {
            total.map_or_else(Total::default, |total| Total { count: total.count, ns: total.ns })
        };
        let batch = |batch: &pb::InferBatchStatistics| Batch {
            batch_size: batch.batch_size,
            compute_infer: total(batch.compute_infer),
        };
        let item = |stats: &pb::ModelStatistics| {
            let durations = stats.inference_stats.unwrap_or_default();
            Item {
                inference_count: stats.inference_count,
                execution_count: stats.execution_count,
                inference_stats: Durations {
                    queue: total(durations.queue),
                    compute_input: total(durations.compute_input),
                    compute_infer: total(durations.compute_infer),
                    compute_output: total(durations.compute_output),
                },
                batch_stats: stats.batch_stats.iter().map(batch).collect(),
            }
        };
        Self { model_stats: response.model_stats.iter().map(item).collect() }
    }
}

impl Statistics {
    /// What happened since `before`, per request; none when nothing did, or when counts began anew in between.
    pub fn since(&self, before: &Self) -> Option<ServerSide> {
        let grown = |read: &dyn Fn(&Item) -> u64| {
            let sum = |statistics: &Self| statistics.model_stats.iter().map(read).sum::<u64>();
            sum(self).checked_sub(sum(before))
        };
        let micros = |read: &dyn Fn(&Durations) -> Total| {
            let count = grown(&|item| read(&item.inference_stats).count)?;
            let nanos = grown(&|item| read(&item.inference_stats).ns)?;
            (count > 0).then(|| nanos as f64 / count as f64 / 1e3)
        };
        let calls = grown(&|item| item.calls_and_rows().0).filter(|count| *count > 0)?;
        Some(ServerSide {
            queue_us: micros(&|durations| durations.queue)?,
            assembly_us: micros(&|durations| durations.compute_input)?,
            session_us: micros(&|durations| durations.compute_infer)?,
            split_us: micros(&|durations| durations.compute_output)?,
            batch_size: grown(&|item| item.calls_and_rows().1)? as f64 / calls as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(versions: &[(u64, u64, u64)]) -> Statistics {
        let items: Vec<String> = versions
            .iter()
            .map(|(rows, batches, ns)| {
                let total = format!(r#"{{"count":{rows},"ns":{ns}}}"#);
                format!(
                    r#"{{"name":"m","inference_count":{rows},"execution_count":{batches},"inference_stats":{{
                    "queue":{total},"compute_input":{total},"compute_infer":{total},"compute_output":{total}}}}}"#
                )
            })
            .collect();
        serde_json::from_str(&format!(r#"{{"model_stats":[{}]}}"#, items.join(","))).unwrap()
    }

    #[test]
    fn only_what_happened_in_between_counts() {
        let before = statistics(&[(10, 10, 1_000_000), (5, 5, 0)]);
        let after = statistics(&[(30, 15, 1_080_000), (5, 5, 0)]);
        let side = after.since(&before).unwrap();
        assert_eq!((side.session_us, side.batch_size), (4.0, 4.0));
        let grown = statistics(&[(10, 10, 1_000_000), (5, 5, 0), (20, 10, 20_000)]);
        assert_eq!(grown.since(&before).unwrap().queue_us, 1.0);
    }

    #[test]
    fn rows_count_with_their_calls() {
        // The last call of four is over, the requests in it are not.
        let told = |rows: u64, calls: u64| {
            let text = format!(
                r#"{{"model_stats":[{{"inference_count":{rows},"execution_count":{calls},"inference_stats":{{
                "queue":{{"count":{rows}}},"compute_input":{{"count":{rows}}},"compute_infer":{{"count":{rows}}},
                "compute_output":{{"count":{rows}}}}},"batch_stats":[
                {{"batch_size":1,"compute_infer":{{"count":2}}}},{{"batch_size":4,"compute_infer":{{"count":{}}}}}]}}]}}"#,
                calls - 2
            );
            serde_json::from_str::<Statistics>(&text).unwrap()
        };
        assert_eq!(told(3, 4).since(&told(2, 2)).unwrap().batch_size, 4.0);
    }

    #[test]
    fn nothing_is_told_when_nothing_ran_or_counts_began_anew() {
        let some = statistics(&[(10, 10, 1000)]);
        assert!(some.since(&some).is_none());
        assert!(statistics(&[(2, 2, 10)]).since(&some).is_none());
    }
}
