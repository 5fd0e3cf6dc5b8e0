//! How a model's requests wait and are put together, as its config says it.
//!
//! Always: every queue has a limit, and every time is one that can be added to a clock's.

use std::time::Duration;

use super::{Defaults, DynamicBatching};
use crate::batch::{LevelPolicy, TimeoutAction};
use crate::error::excerpt;
use crate::proto::inference as pb;

/// Requests that may wait for one version.
pub const QUEUE_SIZE_MAX: usize = 1 << 24;

/// How long a request may wait for company. It buys a larger batch, and none is worth more of a client's time.
const DELAY_MAX: Duration = Duration::from_secs(3);

/// How long a request may wait in a queue. Clients are gone by then.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// `None`: the config does not ask for it. Errors: the key and what it may be.
pub fn dynamic_batching(
    source: &pb::ModelConfig,
    max_batch_size: usize,
    defaults: &Defaults,
) -> Result<Option<DynamicBatching>, String> {
    use pb::model_config::SchedulingChoice;
    let Some(SchedulingChoice::DynamicBatching(batching)) = &source.scheduling_choice else {
        return Ok(None);
    };
    let mut preferred_rows = Vec::new();
    for &size in &batching.preferred_batch_size {
        match usize::try_from(size) {
            Ok(rows) if rows > 0 && (max_batch_size == 0 || rows <= max_batch_size) => {
                preferred_rows.push(rows)
            }
            _ => {
                return Err(format!(
                    "config.pbtxt: dynamic_batching.preferred_batch_size {size} must be between 1 and \
                     max_batch_size ({max_batch_size})"
                ));
            }
        }
    }
    preferred_rows.sort_unstable();
    let levels = batching.priority_levels.max(1);
    if levels > 1000 {
        return Err(format!("config.pbtxt: dynamic_batching.priority_levels {levels} is more than 1000"));
    }
    let default_level = batching.default_priority_level;
    if batching.priority_levels == 0 && default_level > 0 {
        return Err(format!(
            "config.pbtxt: dynamic_batching.default_priority_level {default_level} needs priority_levels"
        ));
    }
    if batching.priority_levels > 0 && !(1..=levels).contains(&default_level) {
        return Err(format!(
            "config.pbtxt: dynamic_batching.default_priority_level {default_level} must be between 1 and \
             priority_levels ({levels})"
        ));
    }
    if let Some(level) = batching.priority_queue_policy.keys().find(|level| !(1..=levels).contains(level)) {
        return Err(format!(
            "config.pbtxt: dynamic_batching.priority_queue_policy names level {level}; there are {levels}"
        ));
    }
    let policy_of = |level: u64| {
        let own = batching.priority_queue_policy.get(&level).or(batching.default_queue_policy.as_ref());
        checked_policy(own, defaults)
    };
    Ok(Some(DynamicBatching {
        delay_max: wait("max_queue_delay_microseconds", batching.max_queue_delay_microseconds, DELAY_MAX)?,
        preferred_rows,
        levels: (1..=levels).map(policy_of).collect::<Result<_, _>>()?,
        default_level: usize::try_from(default_level.max(1)).unwrap_or(1),
    }))
}

fn checked_policy(policy: Option<&pb::ModelQueuePolicy>, defaults: &Defaults) -> Result<LevelPolicy, String> {
    let level = level_policy(policy, defaults);
    if level.size_max > QUEUE_SIZE_MAX {
        return Err(format!(
            "config.pbtxt: dynamic_batching: max_queue_size {} must be at most {QUEUE_SIZE_MAX}",
            level.size_max
        ));
    }
    let timeout = policy.map_or(0, |policy| policy.default_timeout_microseconds);
    wait("default_timeout_microseconds", timeout, TIMEOUT_MAX)?;
    Ok(level)
}

/// A queue policy; what it leaves open comes from the server's defaults. Every queue has a limit: a size of 0,
/// "unlimited" in Triton, means the default here.
fn level_policy(policy: Option<&pb::ModelQueuePolicy>, defaults: &Defaults) -> LevelPolicy {
    let policy = policy.cloned().unwrap_or_default();
    LevelPolicy {
        size_max: match policy.max_queue_size {
            0 => defaults.max_queue_size,
            size => size as usize,
        },
        timeout: match policy.default_timeout_microseconds {
            0 => None,
            us => Some(Duration::from_micros(us)),
        },
        timeout_action: match policy.timeout_action() {
            pb::model_queue_policy::TimeoutAction::Reject => TimeoutAction::Reject,
            pb::model_queue_policy::TimeoutAction::Delay => TimeoutAction::Delay,
        },
        timeout_override: policy.allow_timeout_override,
    }
}

/// A time to wait. Errors: it is over the most.
fn wait(key: &str, microseconds: u64, most: Duration) -> Result<Duration, String> {
    let wait = Duration::from_micros(microseconds);
    if wait <= most {
        return Ok(wait);
    }
    Err(format!(
        "config.pbtxt: dynamic_batching.{key} {microseconds} must be at most {} ({} seconds)",
        most.as_micros(),
        most.as_secs()
    ))
}

/// The parameter that sets a model's latency objective.
pub const LATENCY_OBJECTIVE: &str = "latency_objective_ms";

/// The model's objective, else the server's. Errors: it is none.
pub fn latency_objective(source: &pb::ModelConfig, defaults: &Defaults) -> Result<Option<Duration>, String> {
    let Some(parameter) = source.parameters.get(LATENCY_OBJECTIVE) else {
        return Ok(defaults.latency_objective);
    };
    let value = parameter.string_value.as_str();
    value.parse().ok().and_then(objective).ok_or_else(|| {
        format!("config.pbtxt: parameters.{LATENCY_OBJECTIVE} '{}' must be {OBJECTIVE_RANGE}", excerpt(value))
    })
}

/// What [`objective`] takes, in words.
pub const OBJECTIVE_RANGE: &str = "milliseconds from 0.1 to 3600000, or 0 for none";

/// A latency objective given in milliseconds: `Some(None)` is none.
pub fn objective(milliseconds: f64) -> Option<Option<Duration>> {
    match milliseconds {
        0.0 => Some(None),
        0.1..=3_600_000.0 => Some(Some(Duration::from_secs_f64(milliseconds / 1e3))),
        _ => None,
    }
}
