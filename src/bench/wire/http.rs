//! HTTP/1.1 by hand: a request is one write of bytes that stand ready, an answer is its head and the length of its
//! body. That costs the generator 6 to 7 µs of processor a request, most of it in the kernel.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CONNECT_TIME, FAILURE_BYTES};
use crate::bench::tally::Failure;

/// Room for what was received and not looked at. Larger answers are read in pieces of this size.
const BUFFER_BYTES: usize = 64 << 10;

/// Headers of an answer at the most.
const HEADERS_MAX: usize = 64;

/// One connection, with one request on it at a time.
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Box<[u8]>,
    /// Where in the buffer stands what was not looked at yet.
    unread: Range<usize>,
    opened: bool,
    reopened: u64,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// It ends with the connection.
    ToTheEnd,
}

/// What matters of an answer's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    closes: bool,
}

impl Connection {
    /// Opened by the first request.
    pub fn new(address: SocketAddr) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self { address, stream: None, buffer, unread: 0..0, opened: false, reopened: 0 }
    }

    /// Sends a request; an answer with status 200 is a success.
    pub async fn post(&mut self, request: &[u8]) -> Result<(), Failure> {
        self.exchange(request, 0).await.map(|_| ())
    }

    /// Sends a request and gives the body of an answer with status 200, the first `keep` bytes of it.
    pub async fn exchange(&mut self, request: &[u8], keep: usize) -> Result<Vec<u8>, Failure> {
        let outcome = self.try_exchange(request, keep).await;
        if outcome.is_err() {
            self.close();
        }
        let (status, body) = outcome.map_err(Failure::connection)?;
        if status == 200 { Ok(body) } else { Err(Failure::new(status.to_string(), &sentence(&body))) }
    }

    /// Forgets the connection.
    pub fn close(&mut self) {
        self.stream = None;
    }

    /// How often it was opened again since this was asked last.
    pub fn reopened(&mut self) -> u64 {
        std::mem::take(&mut self.reopened)
    }

    async fn try_exchange(&mut self, request: &[u8], keep: usize) -> io::Result<(u16, Vec<u8>)> {
        self.open().await?;
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(request).await?;
        let mut head = self.head().await?;
        // Interim answers, such as 100, announce the real one.
        while head.status < 200 {
            head = self.head().await?;
        }
        let mut body = Vec::new();
        let keep = if head.status == 200 { keep } else { FAILURE_BYTES };
        match head.framing {
            Framing::Length(length) => self.take(length, keep, &mut body).await?,
            Framing::Chunked => self.chunks(keep, &mut body).await?,
            Framing::ToTheEnd => self.rest(keep, &mut body).await?,
        }
        if head.closes {
            self.close();
        }
        Ok((head.status, body))
    }

    async fn open(&mut self) -> io::Result<()> {
        if self.stream.is_some() {
            return Ok(());
        }
        let stream = tokio::time::timeout(CONNECT_TIME, TcpStream::connect(self.address)).await??;
        stream.set_nodelay(true)?;
        self.stream = Some(stream);
        self.unread = 0..0;
        self.reopened += u64::from(self.opened);
        self.opened = true;
        Ok(())
    }

    /// Receives more; what was not looked at stays.
    async fn receive(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == self.buffer.len() {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        match stream.read(&mut self.buffer[self.unread.end..]).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            count => {
                self.unread.end += count;
                Ok(())
            }
        }
    }

    async fn head(&mut self) -> io::Result<Head> {
        loop {
            let bytes = &self.buffer[self.unread.clone()];
            if let Some((head, length)) = parse(bytes)? {
                self.unread.start += length;
                return Ok(head);
            }
            if bytes.len() == self.buffer.len() {
                return Err(invalid("the head of an answer has no end"));
            }
            self.receive().await?;
        }
    }

    /// Takes `length` bytes and keeps some.
    async fn take(&mut self, mut length: u64, keep: usize, body: &mut Vec<u8>) -> io::Result<()> {
        while length > 0 {
            if self.unread.is_empty() {
                self.receive().await?;
            }
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(self.unread.len());
            self.eat(count, keep, body);
            length -= count as u64;
        }
        Ok(())
    }

    fn eat(&mut self, count: usize, keep: usize, body: &mut Vec<u8>) {
        let kept = count.min(keep.saturating_sub(body.len()));
        body.extend_from_slice(&self.buffer[self.unread.start..][..kept]);
        self.unread.start += count;
    }

    async fn rest(&mut self, keep: usize, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            self.eat(self.unread.len(), keep, body);
            match self.receive().await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                outcome => outcome?,
            }
        }
    }

    async fn chunks(&mut self, keep: usize, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let size = self.line().await?;
            let digits = size.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| invalid("a chunk has no size"))?;
            if length == 0 {
                break;
            }
            self.take(length, keep, body).await?;
            self.line().await?;
        }
        // Trailers end with an empty line.
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    /// A short line, without its end.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            let bytes = &self.buffer[self.unread.clone()];
            if let Some(length) = bytes.iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned();
                self.unread.start += length + 1;
                return Ok(line);
            }
            if bytes.len() == self.buffer.len() {
                return Err(invalid("a line has no end"));
            }
            self.receive().await?;
        }
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The head that bytes begin with, and its length; none when more must come.
fn parse(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut headers);
    let length = match answer.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP/1.1: {error}")));
        }
    };
    let status = answer.code.unwrap_or_default();
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    let mut head = Head {
        status,
        framing: if bodiless { Framing::Length(0) } else { Framing::ToTheEnd },
        closes: answer.version == Some(0),
    };
    for header in answer.headers.iter() {
        let says =
            |word: &str| header.value.to_ascii_lowercase().windows(word.len()).any(|w| w == word.as_bytes());
        if header.name.eq_ignore_ascii_case("content-length") && head.framing != Framing::Chunked {
            let value = std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok());
            head.framing = Framing::Length(value.ok_or_else(|| invalid("content-length is no number"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") && says("chunked") {
            head.framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.closes = says("close") || (head.closes && !says("keep-alive"));
        }
    }
    head.closes |= head.framing == Framing::ToTheEnd;
    Ok(Some((head, length)))
}

/// The sentence of an error's body, `{"error": "…"}`, or the body itself.
fn sentence(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let error = json.as_ref().and_then(|json| json.get("error")?.as_str());
    error.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn check(head: &str, expected: Head) {
        let (parsed, length) = parse(head.as_bytes()).unwrap().expect("it is whole");
        assert_eq!((parsed, length), (expected, head.len()), "{head}");
    }

    #[test]
    fn heads_tell_how_long_bodies_are() {
        let (status, closes) = (200, false);
        let length = |n| Framing::Length(n);
        for (rest, framing, closes) in [
            ("Content-Length: 12\r\n", length(12), closes),
            ("content-length: 0\r\nConnection: Close\r\n", length(0), true),
            ("transfer-encoding: Chunked\r\ncontent-length: 4\r\n", Framing::Chunked, closes),
            ("", Framing::ToTheEnd, true),
        ] {
            check(&format!("HTTP/1.1 200 OK\r\n{rest}\r\n"), Head { status, framing, closes });
        }
        check("HTTP/1.1 204 \r\n\r\n", Head { status: 204, framing: length(0), closes });
        check(
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n",
            Head { status, framing: length(1), closes: true },
        );
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nx: y\r\n").unwrap(), None);
        assert!(parse(b"SSH-2.0-x\r\n\r\n").is_err());
    }

    /// Asks a server that sends these answers, one a request, in pieces of `piece` bytes.
    async fn ask(answers: &'static [&'static str], piece: usize) -> (Vec<Result<Vec<u8>, Failure>>, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut asked = [0; 1];
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                if stream.read(&mut asked).await.unwrap() == 0 {
                    stream = listener.accept().await.unwrap().0;
                    stream.read_exact(&mut asked).await.unwrap();
                }
                for piece in answer.as_bytes().chunks(piece) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                if answer.contains("close") {
                    stream = listener.accept().await.unwrap().0;
                }
            }
        });
        let mut connection = Connection::new(address);
        let mut outcomes = Vec::new();
        for _ in answers {
            outcomes.push(connection.exchange(b"?", 1 << 20).await);
        }
        server.abort();
        (outcomes, connection.reopened())
    }

    #[tokio::test]
    async fn bodies_of_every_framing_are_read_to_their_end() {
        const ANSWERS: &[&str] = &[
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4;x=y\r\nwell\r\n1\r\n!\r\n0\r\na: b\r\n\r\n",
            "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 16\r\n\r\n{\"error\":\"full\"}",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ];
        for piece in [1, 7, 1000] {
            let (outcomes, reopened) = ask(ANSWERS, piece).await;
            assert_eq!(outcomes[0].as_deref().unwrap(), b"hello");
            assert_eq!(outcomes[1].as_deref().unwrap(), b"well!");
            let failure = outcomes[2].as_ref().unwrap_err();
            assert_eq!((failure.status.as_ref(), failure.message.as_str()), ("429", "full"));
            assert_eq!(outcomes[3].as_deref().unwrap(), b"");
            assert_eq!(reopened, 0);
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_is_opened_again() {
        const ANSWERS: &[&str] = &[
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n1",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2",
        ];
        let (outcomes, reopened) = ask(ANSWERS, 1000).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(reopened, 1);
    }
}
