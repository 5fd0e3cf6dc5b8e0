//! Limits on what comes over the wire: sizes, counts and times.
//!
//! Each is a setting; `config` has their defaults and the reasons for them.

use std::time::Duration;

use super::convert::RequestLimits;

/// Everything that bounds what a client can make the server do.
#[derive(Debug, Clone, Copy)]
pub struct WireLimits {
    /// Bytes of a body or message, before and after decompression.
    pub message_bytes_max: usize,
    /// Bytes that a compressed body may unpack to, for each of its own.
    pub unpacked_ratio_max: usize,
    /// Bytes of an answer as it is written.
    pub answer_bytes_max: usize,
    /// Connections of one port.
    pub connections_max: usize,
    /// Streams at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Requests of one inference stream that run at once.
    pub stream_requests_max: usize,
    pub head: HeadLimits,
    pub request: RequestLimits,
    pub times: Times,
}

/// Limits on the head of a request.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the request line and all headers; HTTP/2 adds 32 for each header.
    pub bytes_max: u32,
    /// Number of headers.
    pub count_max: usize,
}

/// How long a client may take over what.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From the first byte of a request's head to its last, and from a connection's beginning to its first request
    /// or, in HTTP/2, to the client's preface.
    pub head: Duration,
    pub body: BodyPace,
    /// While something waits to be sent and the client takes next to nothing of it.
    pub write: Duration,
    /// Without a request.
    pub idle: Duration,
    /// Of a connection's life, after which it ends with the requests in flight; `None` for no limit.
    pub age: Option<Duration>,
    /// Between the pings by which an HTTP/2 client shows that it is there.
    pub ping: Duration,
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
pub struct BodyPace {
    /// Between two pieces of it.
    pub gap: Duration,
    /// On the whole, once it has taken longer than two gaps.
    pub bytes_per_second: u64,
}

#[cfg(test)]
impl WireLimits {
    /// Limits that no well-meant test meets.
    pub fn ample() -> Self {
        let long = Duration::from_secs(3600);
        Self {
            message_bytes_max: 1 << 28,
            unpacked_ratio_max: 1 << 20,
            answer_bytes_max: 1 << 30,
            connections_max: 1 << 20,
            streams_max: 1 << 10,
            stream_requests_max: 64,
            head: HeadLimits { bytes_max: 1 << 14, count_max: 100 },
            request: RequestLimits::default(),
            times: Times {
                head: long,
                body: BodyPace { gap: long, bytes_per_second: 1 },
                write: long,
                idle: long,
                age: None,
                ping: long,
            },
        }
    }
}
