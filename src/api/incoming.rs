//! The body of a request as it arrives, by HTTP/1 or HTTP/2, from clients that may be slow.
//!
//! Always: a body that is there when it is asked for costs no timer. One that is waited for has to come at a pace
//! ([`BodyPace`]), unless it is a stream of messages, which may rest.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::time::{Sleep, sleep};

use super::limits::BodyPace;

/// A body that arrives.
pub struct Incoming {
    source: Source,
    pace: BodyPace,
    /// It may come at any pace.
    unhurried: bool,
    wait: Option<Box<Wait>>,
}

enum Source {
    Http1(hyper::body::Incoming),
    Http2(RecvStream),
}

/// Why a body does not go on.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("{0}")]
    Http1(#[from] hyper::Error),
    #[error("{0}")]
    Http2(#[from] h2::Error),
    #[error("the request's body comes too slowly: nothing for {0:?}, or too little in all")]
    TooSlow(Duration),
}

impl Incoming {
    pub fn http1(body: hyper::body::Incoming, pace: BodyPace) -> Self {
        Self { source: Source::Http1(body), pace, unhurried: false, wait: None }
    }

    pub fn http2(body: RecvStream, pace: BodyPace) -> Self {
        Self { source: Source::Http2(body), pace, unhurried: false, wait: None }
    }

    /// From now on it may come at any pace, or no longer may: the messages of a stream come when they come, but one
    /// that has begun is to go on.
    pub fn set_unhurried(&mut self, unhurried: bool) {
        self.unhurried = unhurried;
        self.wait = None;
    }
}

impl Source {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Http1(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
            Self::Http2(body) => poll_http2(body, context).map_err(BodyError::from),
        }
    }
}

fn poll_http2(
    body: &mut RecvStream,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
    match ready!(body.poll_data(context)) {
        Some(Ok(data)) => {
            // The client may send as much again. It fails only for more than was received.
            let _ = body.flow_control().release_capacity(data.len());
            Poll::Ready(Some(Ok(Frame::data(data))))
        }
        // The client has sent all that it wanted to.
        Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
        Some(Err(error)) => Poll::Ready(Some(Err(error))),
        None => {
            let trailers: Option<HeaderMap> = ready!(body.poll_trailers(context))?;
            Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = this.source.poll(context) {
            if let (Some(wait), Some(Ok(frame))) = (&mut this.wait, &frame) {
                wait.got(frame.data_ref().map_or(0, Bytes::len));
            }
            return Poll::Ready(frame);
        }
        if this.unhurried {
            return Poll::Pending;
        }
        let pace = this.pace;
        let wait = this.wait.get_or_insert_with(|| Box::new(Wait::begin(pace)));
        ready!(wait.poll_over(context));
        Poll::Ready(Some(Err(BodyError::TooSlow(pace.gap))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }
}

/// The timer of a body that was waited for once.
struct Wait {
    pace: BodyPace,
    began: Instant,
    /// When the latest piece came.
    last: Instant,
    bytes: u64,
    /// Looks at the pace when it fires; nothing that arrives sets it anew.
    timer: Pin<Box<Sleep>>,
}

impl Wait {
    fn begin(pace: BodyPace) -> Self {
        let now = Instant::now();
        Self { pace, began: now, last: now, bytes: 0, timer: Box::pin(sleep(pace.gap)) }
    }

    fn got(&mut self, bytes: usize) {
        self.last = Instant::now();
        self.bytes += bytes as u64;
    }

    /// Done when the body is too slow.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if self.too_slow(now) {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset((self.last + self.pace.gap).into());
        }
        Poll::Pending
    }

    fn too_slow(&self, now: Instant) -> bool {
        let taken = now - self.began;
        let due = self.pace.bytes_per_second as f64 * taken.as_secs_f64();
        now - self.last >= self.pace.gap || (taken > 2 * self.pace.gap && (self.bytes as f64) < due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(4);

    fn wait() -> Wait {
        Wait::begin(BodyPace { gap: GAP, bytes_per_second: 100 })
    }

    #[tokio::test]
    async fn a_gap_is_too_slow_and_so_is_a_drip() {
        let mut dripping = wait();
        let began = dripping.began;
        assert!(!dripping.too_slow(began + GAP / 2) && dripping.too_slow(began + GAP));
        // A byte every second: no gap, but no body either.
        dripping.bytes = 8;
        dripping.last = began + 2 * GAP;
        assert!(!dripping.too_slow(began + 2 * GAP), "it has two gaps' time to begin well");
        dripping.last = began + 3 * GAP;
        assert!(dripping.too_slow(began + 3 * GAP));
        dripping.bytes = 1300;
        assert!(!dripping.too_slow(began + 3 * GAP));
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_asks_again_after_a_piece() {
        // Time stands still for `std`, so that no gap has passed whenever the timer of a paused runtime fires.
        let mut wait = wait();
        let over = std::future::poll_fn(|context| wait.poll_over(context));
        assert!(tokio::time::timeout(100 * GAP, over).await.is_err());
    }
}
