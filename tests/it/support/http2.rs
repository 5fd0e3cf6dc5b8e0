//! HTTP/2 as far as a client needs it that holds a connection open and asks nothing (RFC 9113).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use super::PATIENCE;

/// Frame types of section 6.
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

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

/// A frame of stream 0: length, type, flags, stream, payload.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames here are small").to_be_bytes();
    [&length[1..], &[kind, flags], &[0; 4], payload].concat()
}

fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], head[4], payload))
}
