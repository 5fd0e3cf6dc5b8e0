//! Sends requests at the times of a Poisson process, or as fast as they are answered, and notes what came of each.
//!
//! Always: a latency counts from the moment at which the request was due, not from when it could be sent, so that a
//! server that stands still is charged for everyone who would have come meanwhile (G. Tene, "How NOT to Measure
//! Latency", 2013). Two threads in all, one that sends and one that reads: on a machine with few cores the load must
//! leave them to the server. Latencies are kept one by one; percentiles are exact.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};

/// How long an answer may take before it is taken for lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// A prediction request, ready to be sent.
pub struct Request {
    /// Which model it is for, as the scenario counts them.
    pub model: usize,
    pub bytes: Vec<u8>,
}

impl Request {
    /// One row of FP32 for the input `INPUT0`, all outputs in binary.
    pub fn new(model: usize, path: &str, row: &[f32]) -> Self {
        let size = 4 * row.len();
        let json = format!(
            r#"{{"inputs":[{{"name":"INPUT0","datatype":"FP32","shape":[1,{}],"parameters":{{"binary_data_size":{size}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
            row.len()
        );
        let head = format!(
            "POST /v2/models/{path}/infer HTTP/1.1\r\nhost: weir\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
            json.len(),
            json.len() + size
        );
        let data = row.iter().flat_map(|v| v.to_le_bytes());
        Self { model, bytes: head.bytes().chain(json.bytes()).chain(data).collect() }
    }
}

/// What became of a request. Times are nanoseconds since the generator began.
#[derive(Clone, Copy)]
pub struct Sample {
    pub model: usize,
    pub due: u64,
    pub sent: u64,
    pub done: u64,
    /// The version that answered; 0 when the request failed, or the answer is not that version's.
    pub version: u64,
}

/// One connection, and the request on it that is not answered yet.
struct Line {
    stream: TcpStream,
    asked: Mutex<Option<(usize, u64, u64)>>,
}

struct Shared {
    epoch: Instant,
    requests: Vec<Request>,
    lines: Vec<Line>,
    idle: Mutex<Vec<usize>>,
    freed: Condvar,
    samples: Mutex<Vec<Sample>>,
    /// Until when an answer is followed by the next request at once.
    closed_until: AtomicU64,
    /// The first answer that is not as it should be is shown.
    shown: Once,
}

/// Connections to one server, and the requests that are sent over them, drawn with equal chance.
pub struct Generator(Arc<Shared>);

impl Generator {
    pub fn connect(address: SocketAddr, connections: usize, requests: Vec<Request>) -> Self {
        let line = |_| {
            let mut stream = TcpStream::connect(address).expect("the server listens");
            // Until it is accepted a connection may still be forgotten: many come at once here.
            stream
                .write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: weir\r\n\r\n")
                .expect("the server reads");
            let greeting = stream.read(&mut [0; 1024]).expect("the server answers");
            assert!(greeting > 0, "the server closed a connection");
            stream.set_nodelay(true).expect("a socket takes the option");
            stream.set_nonblocking(true).expect("a socket takes the option");
            Line { stream, asked: Mutex::default() }
        };
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            requests,
            lines: (0..connections).map(line).collect(),
            idle: Mutex::new((0..connections).collect()),
            freed: Condvar::new(),
            samples: Mutex::default(),
            closed_until: AtomicU64::new(0),
            shown: Once::new(),
        });
        let reading = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_io().build().expect("there is epoll");
            runtime.block_on(async {
                let tasks = (0..connections).map(|line| tokio::spawn(read(Arc::clone(&reading), line)));
                for task in tasks.collect::<Vec<_>>() {
                    let _ = task.await;
                }
            });
        });
        Self(shared)
    }

    /// Nanoseconds since the generator began.
    pub fn now(&self) -> u64 {
        self.0.now()
    }

    /// Sends `rate` requests a second for as long as `goes_on` says so; gives all of them once all are answered.
    pub fn open_loop(&self, rate: f64, goes_on: impl Fn() -> bool) -> Vec<Sample> {
        let shared = &self.0;
        let mut due = shared.now() as f64;
        while goes_on() {
            due += -fastrand::f64().max(f64::MIN_POSITIVE).ln() / rate * 1e9;
            let wait = (due as u64).saturating_sub(shared.now());
            if wait > 0 {
                std::thread::sleep(Duration::from_nanos(wait));
            }
            let line = shared.take_line();
            shared.ask(line, due as u64);
        }
        self.drain()
    }

    /// Keeps `connections` busy for `time`; gives all requests of that time.
    pub fn closed_loop(&self, connections: usize, time: Duration) -> Vec<Sample> {
        let shared = &self.0;
        let until = shared.now() + time.as_nanos() as u64;
        shared.closed_until.store(until, Ordering::Relaxed);
        for line in (0..connections).map(|_| shared.take_line()).collect::<Vec<_>>() {
            shared.ask(line, shared.now());
        }
        std::thread::sleep(time);
        self.drain()
    }

    /// Waits until every request is answered; gives them and forgets them.
    fn drain(&self) -> Vec<Sample> {
        let shared = &self.0;
        let idle = shared.idle.lock().expect("no thread panics");
        let busy = |idle: &mut Vec<usize>| idle.len() < shared.lines.len();
        let (idle, waited) = shared.freed.wait_timeout_while(idle, PATIENCE, busy).expect("no thread panics");
        assert!(!waited.timed_out(), "{} requests are never answered", shared.lines.len() - idle.len());
        drop(idle);
        std::mem::take(&mut *shared.samples.lock().expect("no thread panics"))
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The connection that was used last: few of them stay warm, the others are there for bad times.
    fn take_line(&self) -> usize {
        let idle = self.idle.lock().expect("no thread panics");
        let mut idle = self.freed.wait_while(idle, |idle| idle.is_empty()).expect("no thread panics");
        idle.pop().expect("it was waited for")
    }

    fn ask(&self, line: usize, due: u64) {
        let request = &self.requests[fastrand::usize(..self.requests.len())];
        let line = &self.lines[line];
        *line.asked.lock().expect("no thread panics") = Some((request.model, due, self.now()));
        if let Err(error) = (&line.stream).write_all(&request.bytes) {
            // Threads that wait for answers would wait for ever.
            eprintln!("the server has gone: {error}");
            std::process::exit(1);
        }
    }

    /// Notes an answer, and sends the next request if that is how it is done now.
    fn answered(&self, line: usize, version: Option<u64>) {
        let asked = self.lines[line].asked.lock().expect("no thread panics").take();
        let Some((model, due, sent)) = asked else { return };
        let done = self.now();
        let sample = Sample { model, due, sent, done, version: version.unwrap_or(0) };
        self.samples.lock().expect("no thread panics").push(sample);
        if done < self.closed_until.load(Ordering::Relaxed) {
            return self.ask(line, done);
        }
        self.idle.lock().expect("no thread panics").push(line);
        self.freed.notify_all();
    }
}

/// Reads the answers of one connection.
async fn read(shared: Arc<Shared>, line: usize) {
    let stream = shared.lines[line].stream.try_clone().expect("sockets can be shared");
    let mut stream = tokio::net::TcpStream::from_std(stream).expect("it does not block");
    let mut buffer = vec![0; 16 << 10];
    let mut filled = 0;
    loop {
        let mut space = ReadBuf::new(&mut buffer[filled..]);
        let read = std::future::poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut space)).await;
        let count = space.filled().len();
        if read.is_err() || count == 0 {
            // Whatever it was asked is not going to be answered; nothing can be sent on it any more.
            return shared.answered(line, None);
        }
        filled += count;
        if let Some(length) = answer_length(&buffer[..filled]).filter(|length| filled >= *length) {
            let version = version(&buffer[..length]);
            if version.is_none() {
                let show = || eprintln!("not as it should be: {}", buffer[..length].escape_ascii());
                shared.shown.call_once(show);
            }
            shared.answered(line, version);
            filled = 0;
        }
    }
}

fn after<'a>(bytes: &'a [u8], mark: &str) -> Option<&'a [u8]> {
    let at = bytes.windows(mark.len()).position(|w| w == mark.as_bytes())?;
    Some(&bytes[at + mark.len()..])
}

fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

/// Bytes of an answer whose head is complete.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let body = after(bytes, "\r\n\r\n")?;
    let head = bytes.len() - body.len();
    let length =
        after(&bytes[..head], "\r\ncontent-length: ").and_then(number).expect("answers say their length");
    Some(head + length as usize)
}

/// The version that an answer names, if it is a good one and its last output, which holds that number, says so too.
fn version(answer: &[u8]) -> Option<u64> {
    if !answer.starts_with(b"HTTP/1.1 200") {
        return None;
    }
    let named = number(after(answer, r#""model_version":""#)?)?;
    let last = f32::from_le_bytes(*answer.last_chunk()?);
    (last == named as f32).then_some(named)
}

/// The latency, in milliseconds, below which that part of the samples lies.
pub fn percentile(samples: impl Iterator<Item = Sample>, part: f64) -> f64 {
    let mut latencies: Vec<u64> = samples.map(|sample| sample.done - sample.due).collect();
    latencies.sort_unstable();
    let at = (latencies.len() as f64 * part) as usize;
    latencies.get(at.min(latencies.len().saturating_sub(1))).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
}

/// The middle of some numbers, and the quartiles around it.
pub fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|part| values[((values.len() - 1) as f64 * part).round() as usize])
}
