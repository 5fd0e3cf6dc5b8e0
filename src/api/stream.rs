//! What a connection is read from and written to: a socket, or TLS over one.
//!
//! Always: bytes are counted where they reach the system, so that a client that takes none is noticed whatever lies
//! between.

use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// One side of a connection.
pub enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// A socket that counts what it is given.
pub struct Socket {
    tcp: TcpStream,
    /// Bytes that the system took.
    written: u64,
    /// Whether it took none the last time, for want of room.
    waiting: bool,
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, written: 0, waiting: false }
    }
}

/// Bytes that are read at once, and times, of what is left when a connection ends.
const LEFT_BYTES: usize = 4096;
const LEFT_TIMES: usize = 64;

/// What a client has sent and nobody has read has the system tell it that the connection broke, instead of what it was
/// answered last. So it is read, as far as it is there.
impl Drop for Socket {
    fn drop(&mut self) {
        let mut left = [0; LEFT_BYTES];
        for _ in 0..LEFT_TIMES {
            if !matches!(self.tcp.try_read(&mut left), Ok(1..)) {
                return;
            }
        }
    }
}

impl Stream {
    /// Bytes that the system took, and whether it took none the last time, for want of room.
    pub fn progress(&self) -> (u64, bool) {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => tls.get_ref().0,
        };
        (socket.written, socket.waiting)
    }

    /// Sends a few last bytes, if the client has room for them.
    pub fn last_words(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(socket) => socket.last_words(bytes),
            Self::Tls(tls) => {
                let (socket, session) = tls.get_mut();
                // Nobody is left to be told if it fails.
                let _ = session.writer().write_all(bytes);
                session.send_close_notify();
                let mut sealed = Vec::new();
                while session.wants_write() && session.write_tls(&mut sealed).is_ok_and(|written| written > 0)
                {
                }
                socket.last_words(&sealed);
            }
        }
    }
}

impl Socket {
    /// Sends a few last bytes, if the client has room for them.
    pub fn last_words(&self, bytes: &[u8]) {
        let _ = self.tcp.try_write(bytes);
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.written += *bytes as u64;
                self.waiting = false;
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.waiting = true,
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(context, bytes),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
