//! Clients that mean harm or do it: each is refused with a reason and in time, and harms nobody beside it.

mod connections;
mod grpc;
mod http1;
mod http2;
mod json;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::support::project;
use crate::support::tensors::simple;
use crate::support::weir::Weir;

/// How long anything may take that the server alone decides about, with room for a machine that is busy.
const IN_TIME: Duration = Duration::from_secs(20);

/// A server with the small models, and clients' times cut to a second.
fn impatient(flags: &[&str]) -> Weir {
    let times =
        ["--header-seconds", "1", "--body-gap-seconds", "1", "--write-seconds", "1", "--ping-seconds", "1"];
    Weir::start(project("models"), &[&times, flags].concat())
}

/// Holds that a good request is answered.
#[track_caller]
fn still_well(weir: &Weir) {
    weir.infer("simple", &simple(3)).expect(200);
}

/// Sends bytes and reads what comes back until the server hangs up or `enough` says so.
#[track_caller]
fn told(address: SocketAddr, bytes: &[u8], enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(IN_TIME)).unwrap();
    // Whoever is refused early may not get rid of all that they have to say.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let begun = Instant::now();
    while !enough(&answer) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("after {:?}: {error}; so far {}", begun.elapsed(), show(&answer)),
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    answer
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned()
}
