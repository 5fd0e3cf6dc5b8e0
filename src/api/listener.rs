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
}

/// How long a connection that has brought no request may take to bring one when the drain begins.
pub const SILENCE_MAX: Duration = Duration::from_millis(200);

/// A connection that was accepted, and who is at its other end.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
}

/// A bound port.
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
    connections: Connections,
}

impl Port {
    /// Binds. Call it on a runtime. Errors: the address is taken or not this machine's.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(WAITING_MAX)?;
        Ok(Self { address: listener.local_addr()?, listener, connections: Connections::default() })
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
    /// flight. Connections above `connections_max` are closed at once. Dropping the future cuts off whatever is left.
    pub async fn accept<S, F>(self, workers: Arc<Workers>, connections_max: usize, drain: Drain, serve: S)
    where
        S: Fn(Accepted, Drain) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        let mut draining = drain.clone();
        let mut refusals = Refusals::default();
        let mut take = |tasks: &mut JoinSet<()>, stream: TcpStream, peer| {
            if self.connections.open() >= connections_max {
                // Closing tells a client at once; one that is not accepted would wait in the dark.
                drop(stream);
                return refusals.count(connections_max);
            }
            // Small answers must not wait for more.
            let _ = stream.set_nodelay(true);
            let open = self.connections.enter();
            let (serve, drain) = (serve.clone(), drain.clone());
            workers.serve(tasks, async move {
                if let Ok(stream) = moved(stream) {
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
                        tracing::warn!("a connection was not accepted: {error}");
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

/// Connections that were closed because there were too many, told of once in a while.
#[derive(Default)]
struct Refusals {
    count: u64,
    told: Option<Instant>,
}

impl Refusals {
    const TOLD_EVERY: Duration = Duration::from_secs(10);

    fn count(&mut self, connections_max: usize) {
        self.count += 1;
        let now = Instant::now();
        if self.told.is_none_or(|told| now - told >= Self::TOLD_EVERY) {
            let refused = std::mem::take(&mut self.count);
            self.told = Some(now);
            tracing::warn!(
                "closed {refused} new connections: there are {connections_max}, which is --max-connections"
            );
        }
    }
}

/// The same stream on the runtime of the caller, whichever accepted it.
fn moved(stream: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(stream.into_std()?)
}
