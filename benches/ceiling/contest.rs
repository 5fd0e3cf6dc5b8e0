//! Who is asked, in turns, and what came of it.

use std::net::SocketAddr;
use std::time::Duration;

use weir::bench::{
    Bench, Calls, Effort, Load, Made, Metadata, Processor, Protocol, Row, Rules, Stop, Target,
    TensorMetadata, made,
};

use super::options::Options;
use super::support::weir::Weir;

/// Time before anything counts: connections are opened, caches fill.
const WARMUP: Duration = Duration::from_millis(300);

/// What one contender did in one round, per request or row.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub rate: f64,
    pub cpu_us: f64,
    pub p50_us: f64,
}

/// A server that is asked over one protocol.
pub struct Server {
    process: Processor,
    target: Target,
    calls: Calls,
}

impl Server {
    /// Something that listens at an address.
    pub fn new(process: u32, address: SocketAddr, protocol: Protocol, request: &Metadata) -> Self {
        let mut target = Target::new("m", "");
        (target.http, target.grpc) = (address.to_string(), address.to_string());
        let requests = made(request, &Made::default()).expect("every dimension is open or right");
        let calls = Calls::encode(protocol, &target, &requests).expect("floats are text");
        Self { process: Processor::of(process).expect("the process runs"), target, calls }
    }

    /// The model `m` of Weir.
    pub fn weir(weir: &Weir, protocol: Protocol, request: &Metadata) -> Self {
        let address = if protocol == Protocol::Grpc { weir.grpc } else { weir.http };
        Self::new(weir.id(), address, protocol, request)
    }

    /// Keeps so many requests under way for a while.
    pub fn closed(&self, options: &Options, concurrency: usize) -> Measured {
        let row = self.load(options, Load::Closed { concurrency }, options.time);
        let latency = row.latency_us.expect("some request succeeded");
        Measured {
            rate: row.requests_per_second,
            cpu_us: row.server_cpu_us.expect("Linux tells"),
            p50_us: latency.p50,
        }
    }

    /// Puts a load on it for a while. Panics when a request fails.
    pub fn load(&self, options: &Options, load: Load, time: Duration) -> Row {
        let row = self.any_load(options, load, time, None);
        assert_eq!(row.errors, 0, "{:?}", row.failures);
        row
    }

    /// Puts a load on it for a while, of which not all must succeed; says how much did within the objective.
    pub fn any_load(
        &self,
        options: &Options,
        load: Load,
        time: Duration,
        objective: Option<Duration>,
    ) -> Row {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is epoll");
        let threads = if options.pinned { 1 } else { Effort::default().threads };
        let mut bench = Bench {
            rules: Rules { warmup: WARMUP, window: time, windows_max: 1, ..Rules::default() },
            effort: Effort { threads, objective, ..Effort::default() },
            server: Some(self.process),
            stop: Stop::default(),
            progress: &mut |_| {},
        };
        let row = runtime.block_on(async {
            let endpoint = self.target.reach(self.calls.protocol).await?;
            bench.measure(endpoint, &self.calls, load).await
        });
        row.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A request of one tensor of floats.
pub fn floats(name: &str, width: i64) -> Metadata {
    let (name, datatype) = (name.to_owned(), "FP32".to_owned());
    Metadata { inputs: vec![TensorMetadata { name, datatype, shape: vec![-1, width] }] }
}

/// A contender by name, and how it is asked once.
pub type Turn<'a> = (&'static str, Box<dyn FnMut() -> Measured + 'a>);

/// What every contender did in every round.
#[derive(Default)]
pub struct Contest(Vec<(&'static str, Vec<Measured>)>);

impl Contest {
    /// Lets every contender have its turn in each round; the order moves on by one.
    pub fn hold(rounds: usize, mut contenders: Vec<Turn<'_>>) -> Self {
        let mut results: Vec<(&'static str, Vec<Measured>)> =
            contenders.iter().map(|(name, _)| (*name, Vec::new())).collect();
        let count = contenders.len();
        for round in 0..rounds {
            for turn in 0..count {
                let at = (turn + round) % count;
                results[at].1.push(contenders[at].1());
            }
        }
        Self(results)
    }

    /// The rounds of a contender.
    fn of(&self, name: &str) -> &[Measured] {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map_or_else(|| panic!("nobody is called '{name}'"), |(_, rounds)| rounds.as_slice())
    }

    /// A figure of one contender, round by round.
    pub fn values(&self, name: &str, figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.of(name).iter().map(figure).collect()
    }

    /// A figure of one contender by that of another, round by round.
    pub fn ratios(&self, name: &str, to: &str, figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
        self.of(name).iter().zip(self.of(to)).map(|(a, b)| figure(a) / figure(b)).collect()
    }

    /// What a figure of one contender exceeds those of others by, together, round by round.
    pub fn added(&self, name: &str, parts: [&str; 2], figure: impl Fn(&Measured) -> f64) -> Vec<f64> {
        let [one, other] = parts.map(|part| self.of(part));
        let sums = one.iter().zip(other).map(|(one, other)| figure(one) + figure(other));
        self.of(name).iter().zip(sums).map(|(measured, sum)| figure(measured) - sum).collect()
    }
}
