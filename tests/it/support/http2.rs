//! HTTP/2 as far as a client needs it that holds a connection open and asks nothing, or that breaks the rules
//! (RFC 9113).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::PATIENCE;

use kind::{GOAWAY, PING, SETTINGS};

/// Frame types of section 6.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of HEADERS and CONTINUATION.
pub mod flags {
    pub const END_HEADERS: u8 = 4;
}

/// The flag ACK of SETTINGS and PING.
const ACK: u8 = 1;

/// The setting of section 6.5.2 that says how many streams a client may open at once.
const MAX_CONCURRENT_STREAMS: u16 = 3;

/// A connection without a call, as a gRPC client keeps one open: it answers pings and nothing else.
pub struct IdleChannel {
    settings: Vec<u8>,
    /// Gives whether the server said goodbye before the connection ended.
    reader: JoinHandle<bool>,
}

impl IdleChannel {
    /// Open as soon as both sides have said hello.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        stream.write_all(&frame(SETTINGS, 0, b"")).unwrap();
        let Some((SETTINGS, 0, settings)) = read_frame(&mut stream) else { panic!("no settings came first") };
        stream.write_all(&frame(SETTINGS, ACK, b"")).unwrap();
        Self { settings, reader: std::thread::spawn(move || read_to_end(stream)) }
    }

    /// How many calls the server allows at once; `None` when it does not say, which means any number.
    pub fn streams_max(&self) -> Option<u32> {
        let mut settings = self.settings.chunks_exact(6);
        settings.find_map(|setting| {
            let (id, value) = (u16::from_be_bytes([setting[0], setting[1]]), &setting[2..]);
            (id == MAX_CONCURRENT_STREAMS).then(|| u32::from_be_bytes(value.try_into().expect("four bytes")))
        })
    }

    /// Waits for the connection to end; gives whether the server said goodbye before.
    pub fn told_to_go(self) -> bool {
        self.reader.join().expect("reading frames does not panic")
    }
}

fn read_to_end(mut stream: TcpStream) -> bool {
    let mut told = false;
    while let Some((kind, flags, payload)) = read_frame(&mut stream) {
        told |= kind == GOAWAY;
        if kind == PING && flags & ACK == 0 && stream.write_all(&frame(PING, ACK, &payload)).is_err() {
            break;
        }
    }
    told
}

/// A frame of stream 0.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    Raw::frame(kind, flags, 0, payload)
}

fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}

/// How a connection stood when nothing more came of it.
#[derive(Debug)]
pub enum End {
    /// It answers pings.
    Alive,
    /// With the code of its goodbye, if it said any.
    Closed(Option<u32>),
}

/// A connection on which frames are sent as they are.
pub struct Raw(TcpStream);

impl Raw {
    /// Connected, and no more.
    #[track_caller]
    pub fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// With a greeting that was sent.
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        let mut raw = Self::silent(address);
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        raw.0.write_all(&frame(SETTINGS, 0, b"")).unwrap();
        raw
    }

    /// A frame: length, type, flags, stream, payload.
    pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("frames here are small").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// A request's head (RFC 7541, 6.2.2: literals that are not indexed).
    pub fn head(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let own = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "weir")];
        Self::fields(&[&own, more].concat())
    }

    pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
        let text = |text: &str| [Self::length(text.len(), 7), text.as_bytes().to_vec()].concat();
        fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
    }

    /// A number after a prefix of zeros (RFC 7541, 5.1).
    pub fn length(number: usize, bits: u32) -> Vec<u8> {
        let most = (1 << bits) - 1;
        if number < most {
            return vec![number as u8];
        }
        let (mut rest, mut bytes) = (number - most, vec![most as u8]);
        while rest >= 128 {
            bytes.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        bytes.push(rest as u8);
        bytes
    }

    /// Sends frames, and reads until the connection ends or, at `patience` or after all was sent, answers a ping.
    pub fn end_after(mut self, frames: &[u8], patience: Duration) -> End {
        const MINE: [u8; 8] = *b"stillon?";
        let until = Instant::now() + patience;
        let idle = frames.is_empty();
        let mut writer = self.0.try_clone().unwrap();
        let frames = [frames, &frame(PING, 0, &MINE)].concat();
        let writing = std::thread::spawn(move || {
            if idle {
                std::thread::sleep(patience);
            }
            let _ = writer.write_all(&frames);
        });
        let mut goodbye = None;
        let end = loop {
            assert!(Instant::now() < until + PATIENCE, "the server neither answers nor hangs up");
            match read_frame(&mut self.0) {
                None => break End::Closed(goodbye),
                Some((GOAWAY, _, payload)) if payload.len() >= 8 => {
                    goodbye = Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")));
                }
                Some((PING, ACK, payload)) if payload == MINE => break End::Alive,
                Some((PING, 0, payload)) => _ = self.0.write_all(&frame(PING, ACK, &payload)),
                Some(_) => {}
            }
        };
        let _ = self.0.shutdown(std::net::Shutdown::Both);
        writing.join().expect("writing does not panic");
        end
    }

    /// Sends `bytes` again and again and reads nothing; tells whether the server hung up in time.
    pub fn write_until_refused(mut self, bytes: &[u8], patience: Duration) -> bool {
        let until = Instant::now() + patience;
        self.0.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        while Instant::now() < until {
            match self.0.write(bytes) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return true,
            }
        }
        false
    }

    /// Sends `bytes` and then nothing; tells whether the server hung up in time.
    pub fn sends_and_is_closed(mut self, bytes: &[u8], patience: Duration) -> bool {
        self.0.set_read_timeout(Some(patience)).unwrap();
        let until = Instant::now() + patience;
        self.0.write_all(bytes).unwrap();
        let mut buffer = [0; 1024];
        while Instant::now() < until {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::ConnectionReset,
            }
        }
        false
    }

    /// Sends a request; the number in HPACK's static table of its answer's status, `None` for one that has none.
    #[track_caller]
    pub fn status_index(mut self, frames: &[u8]) -> Option<u8> {
        self.0.write_all(frames).unwrap();
        loop {
            let (kind, _, payload) = read_frame(&mut self.0).expect("the request is answered");
            if kind == kind::HEADERS {
                return payload.first().filter(|byte| **byte & 0x80 != 0).map(|byte| byte & 0x7f);
            }
        }
    }
}
