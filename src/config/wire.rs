//! The settings that bound what comes over the wire.

use std::time::Duration;

use super::resolve::at_least_one;
use super::{ConfigError, Settings};
use crate::api::{BodyPace, HeadLimits, RequestLimits, Times, WireLimits};

/// Requests of one inference stream that run at once: enough to fill a batch, few enough for one client.
const STREAM_REQUESTS_MAX: usize = 64;

/// JSON deeper than this is not read whatever is set: the parser itself ends at 128.
const JSON_DEPTH_MAX: usize = 120;

/// A year, in seconds: no time that is set need be longer, and sums of them do not overflow.
const SECONDS_MAX: usize = 365 * 24 * 3600;

/// The defaults of these settings.
pub fn defaults() -> Settings {
    let request = RequestLimits::default();
    Settings {
        max_message_bytes: Some(256 << 20),
        max_streams: Some(1024),
        max_decompression_ratio: Some(200),
        max_answer_bytes: Some(1 << 30),
        max_bytes_in_flight: Some(1 << 30),
        max_connections: Some(16_384),
        max_header_bytes: Some(32 << 10),
        max_headers: Some(100),
        max_json_depth: Some(request.json_depth_max),
        max_string_bytes: Some(request.string_bytes_max),
        max_tensors: Some(request.tensors_max),
        max_parameters: Some(request.parameters_max),
        max_rank: Some(request.rank_max),
        header_seconds: Some(3),
        body_gap_seconds: Some(3),
        body_bytes_per_second: Some(4096),
        write_seconds: Some(30),
        idle_seconds: Some(900),
        ping_seconds: Some(60),
        connection_seconds_max: Some(0),
        ..Settings::default()
    }
}

/// The limits out of settings whose defaults are filled in. Errors: one is out of range.
pub fn limits(set: &Settings) -> Result<WireLimits, ConfigError> {
    let number =
        |key, value: Option<usize>, max| at_least_one(key, value.expect("defaults are filled in"), max);
    let seconds = |key, value: Option<u64>| {
        let seconds = number(key, value.map(|n| usize::try_from(n).unwrap_or(usize::MAX)), SECONDS_MAX)?;
        Ok(Duration::from_secs(seconds as u64))
    };
    // Above it, lengths on the wire no longer fit: gRPC and the string format count in 32 bits.
    let message_bytes_max = number("max_message_bytes", set.max_message_bytes, i32::MAX as usize)?;
    let body_bytes_per_second =
        number("body_bytes_per_second", set.body_bytes_per_second.map(|n| n as usize), 1 << 30)?;
    Ok(WireLimits {
        message_bytes_max,
        unpacked_ratio_max: number("max_decompression_ratio", set.max_decompression_ratio, 1 << 30)?,
        answer_bytes_max: number("max_answer_bytes", set.max_answer_bytes, i32::MAX as usize)?,
        connections_max: number("max_connections", set.max_connections, 1 << 24)?,
        streams_max: number("max_streams", set.max_streams.map(|n| n as usize), 1 << 20)? as u32,
        stream_requests_max: STREAM_REQUESTS_MAX,
        head: HeadLimits {
            bytes_max: number("max_header_bytes", set.max_header_bytes, 1 << 20)? as u32,
            count_max: number("max_headers", set.max_headers, 1 << 14)?,
        },
        request: RequestLimits {
            json_depth_max: number("max_json_depth", set.max_json_depth, JSON_DEPTH_MAX)?,
            string_bytes_max: number("max_string_bytes", set.max_string_bytes, i32::MAX as usize)?,
            tensors_max: number("max_tensors", set.max_tensors, 1 << 16)?,
            parameters_max: number("max_parameters", set.max_parameters, 1 << 16)?,
            rank_max: number("max_rank", set.max_rank, 1 << 10)?,
        },
        times: Times {
            head: seconds("header_seconds", set.header_seconds)?,
            body: BodyPace {
                gap: seconds("body_gap_seconds", set.body_gap_seconds)?,
                bytes_per_second: body_bytes_per_second as u64,
            },
            write: seconds("write_seconds", set.write_seconds)?,
            idle: seconds("idle_seconds", set.idle_seconds)?,
            age: match set.connection_seconds_max.expect("defaults are filled in") {
                0 => None,
                age => Some(seconds("connection_seconds_max", Some(age))?),
            },
            ping: seconds("ping_seconds", set.ping_seconds)?,
        },
    })
}
