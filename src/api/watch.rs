//! Looks after one connection: clients that are slow, silent or gone are not waited for.
//!
//! Always: a request costs a few counters here and no timer of its own. One timer of the connection looks at the
//! counters every now and then, and rarely at those of a connection that rests.
//! Not here: how slowly a body may come; see `incoming`.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;

use super::frames::Frames;
use super::limits::Times;
use super::listener::{Drain, SILENCE_MAX};
use super::stream::Stream;

/// What a connection does, in numbers that only rise.
#[derive(Debug, Default)]
pub struct Vitals {
    /// Times that something was read.
    reads: AtomicU32,
    /// Bytes written.
    written: AtomicU64,
    /// Whether the client has no room for what is to be written.
    waiting: AtomicBool,
    /// Requests.
    begun: AtomicU32,
    ended: AtomicU32,
    /// `reads` when a request ended last.
    claimed: AtomicU32,
    /// Parts of answers that HTTP/2 keeps until the client has made room.
    unsent: AtomicU32,
    /// Pings that were answered.
    pongs: AtomicU32,
    /// Whether the protocol's own greeting is over.
    open: AtomicBool,
    /// Frames of HTTP/2 that have ended, and in the two lowest bits whether one of a body, or another, has begun since.
    frames: AtomicU32,
    /// Whether the client has said that it sends no more while a request of its is under way.
    silent: AtomicBool,
}

impl Vitals {
    /// A request has come; it ends with what is returned.
    pub fn call(self: &Arc<Self>) -> Call {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(self))
    }

    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    pub fn pong(&self) {
        self.pongs.fetch_add(1, Ordering::Relaxed);
    }

    /// The same bytes, known to wait until the last of them has gone.
    pub fn unsent(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        self.unsent.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Unsent { bytes, vitals: Arc::clone(self) })
    }

    fn counts(&self) -> Counts {
        Counts {
            reads: self.reads.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            begun: self.begun.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            claimed: self.claimed.load(Ordering::Relaxed),
            unsent: self.unsent.load(Ordering::Relaxed),
            pongs: self.pongs.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            silent: self.silent.load(Ordering::Relaxed),
        }
    }
}

/// A request, for as long as it lives.
pub struct Call(Arc<Vitals>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.claimed.store(self.0.reads.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

struct Unsent {
    bytes: Bytes,
    vitals: Arc<Vitals>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.vitals.unsent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection is read from and written to, which keeps its vitals.
pub struct WatchedIo {
    stream: Stream,
    vitals: Arc<Vitals>,
    /// What was read before, to find out the protocol.
    first: Bytes,
    /// Whether a client that sends no more may still wait for its answer.
    half_closes: bool,
    /// Of HTTP/2.
    frames: Option<Frames>,
}

impl WatchedIo {
    pub fn new(stream: Stream, vitals: Arc<Vitals>, first: Bytes) -> Self {
        Self { stream, vitals, first, half_closes: false, frames: None }
    }

    /// As one of HTTP/1, where a client may shut its side once it has sent its request. To hyper that is a client that
    /// has gone; it hears of it when the answer is on its way, or [`HALF_CLOSED_MAX`] later.
    #[must_use]
    pub fn half_closing(self) -> Self {
        Self { half_closes: true, ..self }
    }

    /// As one of HTTP/2, whose frames are followed.
    #[must_use]
    pub fn framed(self) -> Self {
        Self { frames: Some(Frames::new()), ..self }
    }

    /// Whether the client has not said anything yet.
    pub fn is_untouched(&self) -> bool {
        self.first.is_empty()
    }

    /// Sends a few last bytes, if the client has room for them.
    pub fn last_words(mut self, bytes: &[u8]) {
        self.stream.last_words(bytes);
    }

    /// Tells how far what was written has come.
    fn told<T>(&self, outcome: T) -> T {
        let (written, waiting) = self.stream.progress();
        self.vitals.written.store(written, Ordering::Relaxed);
        self.vitals.waiting.store(waiting, Ordering::Relaxed);
        outcome
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.first.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            let ended = buffer.filled().len() == before && buffer.remaining() > 0;
            if ended && self.half_closes {
                let counts = self.vitals.counts();
                if counts.busy() || counts.owes() {
                    // The connection's timer takes it from here.
                    self.vitals.silent.store(true, Ordering::Relaxed);
                    return Poll::Pending;
                }
            }
        } else {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..length]);
            self.first.advance(length);
        }
        if let Some(frames) = &mut self.frames {
            frames.take(&buffer.filled()[before..]);
            let bit = |set: bool, bit: u32| if set { bit } else { 0 };
            let begun = bit(frames.in_body(), IN_BODY) | bit(frames.partial(), PARTIAL);
            let told = (frames.ended() << 2) | begun;
            self.vitals.frames.store(told, Ordering::Relaxed);
        }
        self.vitals.reads.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.told(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.told(shut)
    }
}

/// [`Vitals`] at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    reads: u32,
    written: u64,
    waiting: bool,
    begun: u32,
    ended: u32,
    claimed: u32,
    unsent: u32,
    pongs: u32,
    open: bool,
    frames: u32,
    silent: bool,
}

/// Bits of [`Counts::frames`].
const PARTIAL: u32 = 1;
const IN_BODY: u32 = 2;

impl Counts {
    fn busy(&self) -> bool {
        self.begun != self.ended
    }

    /// A frame of HTTP/2 has begun that nobody else waits for.
    fn partial(&self) -> bool {
        self.frames & PARTIAL != 0 || (self.frames & IN_BODY != 0 && !self.busy())
    }

    /// Something waits for the client to take it.
    fn owes(&self) -> bool {
        self.waiting || self.unsent > 0
    }
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What is to be done about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Well,
    Ping,
    /// It is to end after the requests in flight.
    ShutDown,
    /// The head of a request does not come.
    SlowHead,
    /// Nobody is there any more, or nobody that is worth waiting for.
    Lost,
}

/// How long a connection that is to end, and has nothing in flight, may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long a client that sends no more is taken to wait for its answer: most that do so have gone.
const HALF_CLOSED_MAX: Duration = Duration::from_millis(400);

/// How long a ping may go unanswered at the most.
const PONG_MAX: Duration = Duration::from_secs(20);

/// A client that takes fewer bytes than this of what waits for it, in all the time it has, takes nothing.
const TAKEN_BYTES_MIN: u64 = 4096;

/// Bounds of the time between two looks at a connection that does something.
const LOOK_MIN: Duration = Duration::from_millis(25);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Judges a connection by its counts. No clock: `now` is an argument.
struct Watch {
    times: Times,
    protocol: Protocol,
    seen: Counts,
    /// Since when the head of a request or a frame is awaited, and after how many.
    head: Option<(Instant, u32)>,
    /// Since when the client takes next to nothing of what waits, and the bytes written by then.
    stall: Option<(Instant, u64)>,
    /// Since when there is no request.
    rests: Instant,
    ages: Option<Instant>,
    closing: Option<Instant>,
    /// Since when the client sends no more and waits.
    silent: Option<Instant>,
    /// A ping under way, and the counts when it was sent.
    ping: Option<(Instant, Counts)>,
    pinged: Instant,
}

impl Watch {
    fn new(times: Times, protocol: Protocol, now: Instant) -> Self {
        // A tenth more or less, so that connections that began together do not end together.
        let ages = times.age.map(|age| now + age.mul_f64(0.9 + 0.2 * fastrand::f64()));
        Self {
            times,
            protocol,
            seen: Counts::default(),
            head: Some((now, 0)),
            stall: None,
            rests: now,
            ages,
            closing: None,
            silent: None,
            ping: None,
            pinged: now,
        }
    }

    fn look(&mut self, now: Instant, counts: Counts) -> Finding {
        if counts.busy() || (counts.begun, counts.ended) != (self.seen.begun, self.seen.ended) {
            self.rests = now;
        }
        self.seen = counts;
        let heading = match self.protocol {
            Protocol::Http1 => !counts.busy() && (counts.begun == 0 || counts.reads != counts.claimed),
            Protocol::Http2 => !counts.open || counts.partial(),
        };
        let heads = match self.protocol {
            Protocol::Http1 => counts.begun,
            Protocol::Http2 => counts.frames,
        };
        match self.head {
            _ if !heading => self.head = None,
            Some((since, before)) if before == heads => {
                if now - since >= self.times.head {
                    return Finding::SlowHead;
                }
            }
            _ => self.head = Some((now, heads)),
        }
        match self.stall {
            _ if !counts.owes() => self.stall = None,
            Some((since, written)) if counts.written - written < TAKEN_BYTES_MIN => {
                if now - since >= self.times.write {
                    return Finding::Lost;
                }
            }
            _ => self.stall = Some((now, counts.written)),
        }
        match self.silent {
            _ if !counts.silent => {}
            Some(since) if now - since >= HALF_CLOSED_MAX && !counts.owes() => return Finding::Lost,
            since => self.silent = since.or(Some(now)),
        }
        if self.unanswered(now, counts) {
            return Finding::Lost;
        }
        let quiet = !counts.busy() && !counts.owes();
        match self.closing {
            Some(since) if quiet && now - since.max(self.rests) >= GOODBYE => return Finding::Lost,
            Some(_) => {}
            None => {
                let idle = quiet && self.head.is_none() && now - self.rests >= self.times.idle;
                if idle || self.ages.is_some_and(|at| now >= at) {
                    return Finding::ShutDown;
                }
            }
        }
        let may_ping = self.protocol == Protocol::Http2 && counts.open && self.ping.is_none();
        if may_ping && now - self.pinged >= self.times.ping {
            self.ping = Some((now, counts));
            return Finding::Ping;
        }
        Finding::Well
    }

    /// Whether a ping was not answered, by a client that shows no other sign of life either.
    fn unanswered(&mut self, now: Instant, counts: Counts) -> bool {
        let Some((sent, before)) = self.ping else { return false };
        if counts.pongs != before.pongs {
            self.ping = None;
            self.pinged = now;
            return false;
        }
        // A long body may stand before the answer.
        let silent = !counts.busy() || counts.reads == before.reads;
        silent && now - sent >= self.pong_max()
    }

    fn pong_max(&self) -> Duration {
        self.times.ping.min(PONG_MAX)
    }

    fn shut_down(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
    }

    /// Whether nothing happens that has to be looked at soon.
    fn resting(&self) -> bool {
        let counts = &self.seen;
        let awaited = self.head.is_some() || self.ping.is_some() || self.closing.is_some();
        !awaited && !counts.busy() && !counts.owes()
    }

    /// How long until the next look.
    fn pause(&self, now: Instant) -> Duration {
        if !self.resting() {
            return self.step();
        }
        let pings = (self.protocol == Protocol::Http2).then(|| self.pinged + self.times.ping);
        let next = [Some(self.rests + self.times.idle), self.ages, pings].into_iter().flatten().min();
        next.map_or(self.times.idle, |at| at.saturating_duration_since(now)).max(LOOK_MIN)
    }

    fn step(&self) -> Duration {
        let shortest = self.times.head.min(self.times.write).min(self.times.idle).min(self.pong_max());
        (shortest / 8).clamp(LOOK_MIN, LOOK_MAX)
    }
}

/// A connection that can be told things.
pub trait Connected: Future<Output = ()> + Unpin {
    /// It is to end after the requests in flight.
    fn shut_down(&mut self);

    /// Asks the client whether it is there; the answer shows in the vitals.
    fn ping(&mut self) {}

    /// Ends it, because the head of a request does not come.
    fn give_up(self);
}

/// Drives a connection to its end: its own, its client's, or that of our patience. Once the drain begins, it ends
/// after the requests in flight; one that never brought any has nothing to end after, and is dropped. `since`: when it could
/// first be read from.
pub async fn drive<C: Connected>(
    mut connection: C,
    vitals: &Vitals,
    protocol: Protocol,
    times: Times,
    mut drain: Drain,
    since: Instant,
) {
    let mut watch = Watch::new(times, protocol, since);
    let mut timer = pin!(sleep(watch.step()));
    let mut resting = false;
    let mut drained = pin!(drain.begun());
    let mut draining = None;
    loop {
        // A connection that breaks is the client's affair: its requests are dropped, which cancels them.
        let event = std::future::poll_fn(|context| {
            if Pin::new(&mut connection).poll(context).is_ready() {
                return Poll::Ready(Event::Over);
            }
            if resting && vitals.reads.load(Ordering::Relaxed) != watch.seen.reads {
                resting = false;
                timer.as_mut().reset(tokio::time::Instant::now() + watch.step());
            }
            if draining.is_none() && drained.as_mut().poll(context).is_ready() {
                return Poll::Ready(Event::Drain);
            }
            timer.as_mut().poll(context).map(|()| Event::Look)
        });
        let event = event.await;
        let now = Instant::now();
        match event {
            Event::Over => return,
            Event::Drain => {
                draining = Some(now);
                watch.shut_down(now);
                connection.shut_down();
                timer.as_mut().reset((now + SILENCE_MAX).into());
                continue;
            }
            Event::Look => {}
        }
        let counts = vitals.counts();
        if draining.is_some() && counts.begun == 0 {
            return;
        }
        match watch.look(now, counts) {
            Finding::Well => {}
            Finding::Ping => connection.ping(),
            Finding::ShutDown => {
                watch.shut_down(now);
                connection.shut_down();
            }
            Finding::SlowHead => return connection.give_up(),
            Finding::Lost => return,
        }
        resting = watch.resting();
        timer.as_mut().reset((now + watch.pause(now)).into());
    }
}

enum Event {
    Over,
    Drain,
    Look,
}

#[cfg(test)]
mod tests;
