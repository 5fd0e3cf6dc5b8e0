//! What server and worker tell each other beside calls: JSON in packets, files beside it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backend::onnx::inspect::Findings;
use crate::backend::{Device, Graph, SessionOptions};

/// From the server.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The model file is beside it; look through it, within these limits.
    Model(Limits),
    /// A data file is beside it.
    Data { location: String },
    /// Everything is there: open a session.
    Open { device: Device, options: SessionOptions },
    /// Opening is over: time counts no more, and this is what memory may be from now on.
    Serve { memory_bytes: u64 },
    /// The memory for a slot's calls is beside it; for a slot that is there, instead of what it had.
    Slot { number: usize },
    /// End this call of a slot, if it still runs.
    Stop { number: usize, call: u64 },
}

/// What a worker may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds of processor time until a session is open.
    pub seconds: u64,
    pub memory_bytes: u64,
}

/// From the worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToServer {
    /// What was found, and the memory that the worker had in use before it looked.
    Scanned(Findings, u64),
    Opened(Graph),
    Failed(String),
}

/// Bytes of a packet at the most; the system's own limit is above it.
const PACKET_BYTES: usize = 60 << 10;

/// Bytes of a message at the most: names of thousands of tensors. The server does not trust the worker.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The first byte of a packet: whether more of the message follows.
const MORE: u8 = 1;
const LAST: u8 = 0;

/// Sends a message. Errors: nobody is at the other end.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut file = file;
    let mut parts = text.chunks(PACKET_BYTES).peekable();
    while let Some(part) = parts.next() {
        let mark = [if parts.peek().is_some() { MORE } else { LAST }];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let files: Vec<BorrowedFd<'_>> = file.take().into_iter().collect();
        if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("there is no room for a file beside a message"));
        }
        sendmsg(socket, &[IoSlice::new(&mark), IoSlice::new(part)], &mut beside, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives a message, and the file beside it. `None`: the other end is gone.
///
/// Errors: a time-out of the socket; a message that is malformed or too long.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut text = Vec::new();
    let mut file = None;
    let mut packet = vec![0; PACKET_BYTES + 1];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                received => break received?,
            }
        };
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                file = files.last().or(file);
            }
        }
        let Some((mark, part)) = packet[..received.bytes].split_first() else { return Ok(None) };
        if received.flags.contains(ReturnFlags::TRUNC) || text.len() + part.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("a message is too long"));
        }
        text.extend_from_slice(part);
        if *mark == LAST {
            return Ok(Some((serde_json::from_slice(&text)?, file)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn long_messages_and_files_arrive_whole() {
        let (a, b) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let mut temporary = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut temporary, b"weights").unwrap();
        io::Seek::rewind(&mut temporary).unwrap();
        let long = ToWorker::Data { location: "x".repeat(200_000) };
        // More than the system keeps until it is received.
        let sending = std::thread::spawn(move || {
            send(a.as_fd(), &long, Some(temporary.as_fd())).unwrap();
            send(a.as_fd(), &ToWorker::Stop { number: 1, call: 2 }, None).unwrap();
        });
        let (message, file) = receive::<ToWorker>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(message, ToWorker::Data { location } if location.len() == 200_000));
        let mut text = String::new();
        std::fs::File::from(file.unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "weights");
        let (message, file) = receive::<ToWorker>(b.as_fd()).unwrap().unwrap();
        assert!(matches!(message, ToWorker::Stop { number: 1, call: 2 }) && file.is_none());
        sending.join().unwrap();
        assert!(receive::<ToWorker>(b.as_fd()).unwrap().is_none());
    }
}
