//! Accepts connections on one port and ends them gently.
//!
//! Always: every connection's task is owned here; running out of descriptors neither ends nor spins the loop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::limits::WireLimits;
use super::stream::Stream;
use super::tls::{Spoken, Tls};
use super::workers::Workers;

/// Pause after a failed accept: long enough not to spin while descriptors are exhausted, short enough not to be
/// noticed after a passing fault.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Connections that the system keeps until they are accepted; it may lower it (`net.core.somaxconn`).
const WAITING_MAX: u32 = 4096;

/// Open connections of one port.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> OpenConnection {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(&self.0))
    }
}

/// Counts one connection for as long as it lives.
struct OpenConnection(Arc<AtomicUsize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells connections that the server is about to end.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

impl Drain {
    /// The sender begins the drain by sending true.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (begin, begun) = watch::channel(false);
        (begin, Self(begun))
    }

    /// Done once the drain has begun, or nobody is left to begin it.
    pub async fn begun(&mut self) {
        let _ = self.0.wait_for(|begun| *begun).await;
    }

    /// Done once the drain has begun and a connection that has brought no request has had its time to bring one.
    pub async fn silence_over(&mut self) {
        self.begun().await;
        tokio::time::sleep(SILENCE_MAX).await;
    }
}

/// How long a connection that has brought no request may take to bring one when the drain begins.
pub const SILENCE_MAX: Duration = Duration::from_millis(200);

/// A connection that was accepted, and who is at its other end.
pub struct Accepted {
    pub stream: Stream,
    pub peer: SocketAddr,
}

/// A bound port.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
    connections: Connections,
    /// `None`: in the clear.
    tls: Option<(Arc<Tls>, Spoken)>,
}

impl Port {
    /// Binds. Call it on a runtime. Errors: the address is taken or not this machine's.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(WAITING_MAX)?;
        Ok(Self { address: listener.local_addr()?, listener, connections: Connections::default(), tls: None })
    }

    /// The same port behind TLS, if there is any.
    #[must_use]
    pub fn behind(self, tls: Option<&Arc<Tls>>, spoken: Spoken) -> Self {
        Self { tls: tls.map(|tls| (Arc::clone(tls), spoken)), ..self }
    }

    /// Where it is bound; the port is a real one even if any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Accepts until the drain begins, then waits for the connections to end.
    ///
    /// `serve` answers on one connection, on one of `workers`; it watches `drain` too, and ends after the requests in
    /// flight. Connections above the limit are closed at once, and those whose TLS does not begin in time then. Dropping
    /// the future cuts off whatever is left.
    pub async fn accept<S, F>(self, workers: Arc<Workers>, limits: WireLimits, drain: Drain, serve: S)
    where
        S: Fn(Accepted, Drain) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (connections_max, handshake_max) = (limits.connections_max, limits.times.head);
        let mut tasks = JoinSet::new();
        let mut draining = drain.clone();
        let (mut refusals, mut failures) = (Told::default(), Told::default());
        let mut take = |tasks: &mut JoinSet<()>, stream: TcpStream, peer| {
            if self.connections.open() >= connections_max {
                // Closing tells a client at once; one that is not accepted would wait in the dark.
                drop(stream);
                return refusals.tell(|count| {
                    tracing::warn!(
                        "closed {count} new connections: there are {connections_max}, which is --max-connections"
                    );
                });
            }
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let open = self.connections.enter();
            let (serve, tls, drain) = (serve.clone(), self.tls.clone(), drain.clone());
            workers.serve(tasks, async move {
                if let Ok(stream) = moved(stream)
                    && let Some(stream) = opened(stream, tls, handshake_max, drain.clone()).await
                {
                    serve(Accepted { stream, peer }, drain).await;
                }
                drop(open);
            });
        };
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => take(&mut tasks, stream, peer),
                    Err(error) => {
                        failures.tell(|count| tracing::warn!("{count} connections were not accepted: {error}"));
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = draining.begun() => break,
            }
            while tasks.try_join_next().is_some() {}
        }
        // What the system has accepted for us already may hold requests, and would be reset with the port.
        for _ in 0..WAITING_MAX {
            match self.listener.accept().now_or_never() {
                Some(Ok((stream, peer))) => take(&mut tasks, stream, peer),
                Some(Err(_)) | None => break,
            }
        }
        drop(self.listener);
        while tasks.join_next().await.is_some() {}
    }
}

/// The connection once TLS, if any is asked for, has begun. `None`: it does not, or not in time.
async fn opened(
    stream: TcpStream,
    tls: Option<(Arc<Tls>, Spoken)>,
    handshake_max: Duration,
    mut drain: Drain,
) -> Option<Stream> {
    let Some((tls, spoken)) = tls else { return Some(Stream::Plain(stream.into())) };
    // In a box, so that a connection need not have room for it for as long as it lives.
    let opening = Box::pin(tokio::time::timeout(handshake_max, tls.open(stream, spoken)));
    tokio::select! {
        biased;
        opened = opening => match opened {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!("a connection did not come to TLS: {error}");
                None
            }
            Err(_) => None,
        },
        () = drain.silence_over() => None,
    }
}

/// What happens again and again, told of once in a while.
#[derive(Default)]
struct Told {
    count: u64,
    last: Option<Instant>,
}

impl Told {
    const EVERY: Duration = Duration::from_secs(10);

    /// It happened once more. `tell` is given how often since it was told last.
    fn tell(&mut self, tell: impl FnOnce(u64)) {
        self.count += 1;
        let now = Instant::now();
        if self.last.is_none_or(|last| now - last >= Self::EVERY) {
            self.last = Some(now);
            tell(std::mem::take(&mut self.count));
        }
    }
}

/// The same stream on the runtime of the caller, whichever accepted it.
fn moved(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}
