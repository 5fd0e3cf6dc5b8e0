//! The arguments of `weir bench`, and what they mean.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::bench::{Effort, Load, Made, Process, Protocol, Report, Rules, Target};
use crate::cli::client::Address;
use crate::cli::options;

/// The port of a server's gRPC front end unless it is said.
const GRPC_PORT: u16 = 8001;

/// Requests at once from whose rate the search of a rate begins.
const SEARCH_CONCURRENCY: usize = 32;

/// Windows of one rate that is tried: what is on time settles sooner than a percentile.
pub const SEARCH_WINDOWS: usize = 3;

const EXAMPLES: &str = "Examples:
  weir bench digits
  weir bench digits --protocol grpc,json,binary --concurrency 1,32
  weir bench digits --rate 1000,5000 --arrivals bursty --objective 20
  weir bench digits --url triton:8001 --objective 50 --find-rate";

/// Put load on a server of the Open Inference Protocol; measure throughput and latency
///
/// Works against any such server: Weir, Triton, KServe and others. Requests are made up from the model's metadata, or
/// read from a file. A closed loop keeps so many requests under way; an open loop sends at a rate, whatever becomes
/// of the requests before, and counts a latency from the moment at which the request was due.
///
/// Each load is measured in windows until three in a row agree; the table says so if they never did. Ctrl-C prints
/// what there is.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArguments {
    /// Whose predictions are asked for
    #[arg(value_parser = name)]
    model: String,
    /// The version to ask for; without it the server decides
    #[arg(long, value_name = "V", value_parser = name)]
    version: Option<String>,
    /// How requests travel: grpc, json (HTTP, tensors as text) or binary (HTTP, tensors as bytes)
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "grpc", value_parser = protocol)]
    protocol: Vec<Protocol>,
    /// Address of the HTTP front end
    #[arg(long, env = "WEIR_SERVER", value_name = "URL", default_value = "http://127.0.0.1:8000")]
    server: Address,
    /// Address of the gRPC front end [default: port 8001 of --server]
    #[arg(long, value_name = "HOST:PORT", value_parser = host)]
    grpc: Option<String>,
    /// Address of the one front end that --protocol asks, instead of --server or --grpc
    #[arg(long, short = 'u', value_name = "HOST:PORT", value_parser = host, conflicts_with = "grpc")]
    url: Option<String>,
    #[command(flatten)]
    load: LoadArguments,
    #[command(flatten)]
    data: DataArguments,
    #[command(flatten)]
    measuring: MeasuringArguments,
    /// Write everything that was measured as JSON; - is standard output, without the table
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadArguments {
    /// Closed loop: so many requests under way at any time; a row for each number [default: 1,8,32 without --rate]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = count)]
    concurrency: Vec<usize>,
    /// Open loop: so many requests a second; a row for each number
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = rate)]
    rate: Vec<f64>,
    /// How an open loop's requests are spread: poisson, bursty (the peak is four times the trough) or constant
    #[arg(long, value_name = "NAME", default_value = "poisson", value_parser = process)]
    arrivals: Process,
    /// An answer is on time within so many milliseconds; the table tells the share
    #[arg(long, value_name = "MILLIS", value_parser = positive)]
    objective: Option<f64>,
    /// Search the highest rate of an open loop with 99 % on time
    #[arg(long, requires = "objective", conflicts_with = "rate")]
    find_rate: bool,
    /// Connections at the most [default: one per request under way; in an open loop 512 over HTTP, 8 over gRPC]. Over
    /// HTTP a closed loop has one per request always
    #[arg(long, value_name = "N", value_parser = count)]
    connections: Option<usize>,
    /// Threads that send and receive [default: half the processors]
    #[arg(long, value_name = "N", value_parser = count)]
    threads: Option<usize>,
    /// An answer that takes longer is an error
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive)]
    timeout: f64,
    /// Where random numbers begin: the same seed gives the same requests at the same moments
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
struct DataArguments {
    /// Rows of each request, for models whose first dimension is open
    #[arg(long, value_name = "N", value_parser = count)]
    batch: Option<usize>,
    /// Dimensions of an input whose own are open (they are 1 otherwise), with or without the first, such as
    /// image:3,224,224; may be repeated
    #[arg(long, value_name = "NAME:DIMS", value_parser = options::shape, conflicts_with = "data")]
    shape: Vec<(String, Vec<i64>)>,
    /// Send the requests of a JSON file: {"inputs": [...]} as the protocol has it, or a list of such, in turns
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    data: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Measuring")]
struct MeasuringArguments {
    /// Time before anything counts
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = options::amount)]
    warmup: f64,
    /// Length of a window
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = positive)]
    window: f64,
    /// Windows of a row at the most
    #[arg(long, value_name = "N", default_value = "10", value_parser = count)]
    windows: usize,
    /// How far rate and tail latency of the last three windows may lie from their mean
    #[arg(long, value_name = "PERCENT", default_value = "10", value_parser = positive)]
    stability: f64,
    /// The server's process on this machine: tells the processor time that a request costs it (Linux)
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

impl BenchArguments {
    /// Each once, in the order in which they were named.
    pub fn protocols(&self) -> Vec<Protocol> {
        let mut protocols: Vec<Protocol> = Vec::new();
        for protocol in &self.protocol {
            if !protocols.contains(protocol) {
                protocols.push(*protocol);
            }
        }
        protocols
    }

    /// Errors: `--url` for two front ends, or a server behind TLS.
    pub fn target(&self) -> anyhow::Result<Target> {
        if self.server.is_secure() {
            anyhow::bail!("load is put on servers in the clear alone: --server is http://HOST:PORT here");
        }
        let mut target = Target::new(&self.model, self.version.as_deref().unwrap_or_default());
        let (host, port) = self.server.host_and_port();
        target.http = format!("{host}:{port}");
        target.grpc = self.grpc.clone().unwrap_or_else(|| format!("{host}:{GRPC_PORT}"));
        if let Some(url) = &self.url {
            let over_grpc = self.protocol.contains(&Protocol::Grpc);
            if over_grpc && self.protocol.iter().any(|protocol| *protocol != Protocol::Grpc) {
                anyhow::bail!(
                    "--url is one front end, and --protocol names both; give --server and --grpc instead"
                );
            }
            *(if over_grpc { &mut target.grpc } else { &mut target.http }) = url.clone();
        }
        Ok(target)
    }

    /// The rows of a protocol, closed loops first.
    pub fn loads(&self) -> Vec<Load> {
        let load = &self.load;
        let default: &[usize] = match (load.find_rate, load.rate.is_empty()) {
            (true, _) => &[SEARCH_CONCURRENCY],
            (false, true) => &[1, 8, 32],
            (false, false) => &[],
        };
        let concurrency = if load.concurrency.is_empty() { default } else { &load.concurrency };
        let closed = concurrency.iter().map(|&concurrency| Load::Closed { concurrency });
        let open = load.rate.iter().map(|&rate| Load::Open { rate, process: load.arrivals });
        closed.chain(open).collect()
    }

    pub fn finds_rate(&self) -> bool {
        self.load.find_rate
    }

    pub fn process(&self) -> Process {
        self.load.arrivals
    }

    pub fn data(&self) -> Option<&PathBuf> {
        self.data.data.as_ref()
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.measuring.server_pid
    }

    pub fn made(&self) -> Made {
        Made { batch: self.data.batch, shapes: self.data.shape.clone(), seed: self.load.seed }
    }

    pub fn rules(&self) -> Rules {
        let measuring = &self.measuring;
        Rules {
            warmup: Duration::from_secs_f64(measuring.warmup),
            window: Duration::from_secs_f64(measuring.window),
            windows_max: measuring.windows,
            stability: measuring.stability / 100.0,
        }
    }

    pub fn effort(&self) -> Effort {
        let load = &self.load;
        Effort {
            threads: load.threads.unwrap_or(Effort::default().threads),
            connections: load.connections,
            timeout: Duration::from_secs_f64(load.timeout),
            seed: load.seed,
            objective: load.objective.map(|millis| Duration::from_secs_f64(millis / 1e3)),
        }
    }

    /// A report of nothing so far.
    pub fn report(&self) -> Report {
        Report {
            model: self.model.clone(),
            version: self.version.clone().unwrap_or_default(),
            seed: self.load.seed,
            threads: self.effort().threads,
            objective_ms: self.load.objective,
            rows: Vec::new(),
            found: Vec::new(),
            interrupted: false,
        }
    }
}

/// Other servers have other rules for names.
fn name(text: &str) -> Result<String, String> {
    let well = !text.is_empty() && !text.contains(char::is_control);
    if well { Ok(text.to_owned()) } else { Err("a name is not empty".to_owned()) }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    Protocol::from_name(text).ok_or_else(|| "a protocol is grpc, json or binary".to_owned())
}

fn process(text: &str) -> Result<Process, String> {
    Process::from_name(text).ok_or_else(|| "arrivals are poisson, bursty or constant".to_owned())
}

/// HOST:PORT, with brackets around an IPv6 address; what stands in a request's head has no spaces.
fn host(text: &str) -> Result<String, String> {
    let well = text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map_or(host, |_| "v6");
        port.parse::<u16>().is_ok()
            && !bare.is_empty()
            && bare.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
    });
    if well { Ok(text.to_owned()) } else { Err("an address is HOST:PORT, such as 127.0.0.1:8001".to_owned()) }
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1_000_000).contains(count));
    count.ok_or_else(|| format!("'{text}' is not a whole number from 1 to 1000000"))
}

/// An interval of the schedule must be a number of nanoseconds.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e7).contains(rate));
    rate.ok_or_else(|| format!("'{text}' is not a rate from 0.001 to 10000000 requests a second"))
}

/// Up to a million: no one measures longer than that many seconds.
fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| *number > 0.0 && *number <= 1e6);
    number.ok_or_else(|| format!("'{text}' is not a number over 0, a million at the most"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn parsed(line: &str) -> Result<BenchArguments, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.bench).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_come_from_the_server_unless_said() {
        for (line, http, grpc) in [
            ("m --server http://h:9", "h:9", "h:8001"),
            ("m --server http://h", "h:80", "h:8001"),
            ("m --server http://h:9 --grpc g:7", "h:9", "g:7"),
            ("m --server http://h:9 --url u:7", "h:9", "u:7"),
            ("m --server http://h:9 --protocol json,binary --url [::1]:7", "[::1]:7", "h:8001"),
        ] {
            let target = parsed(line).unwrap().target().unwrap();
            assert_eq!((target.http.as_str(), target.grpc.as_str()), (http, grpc), "{line}");
        }
        assert!(parsed("m --protocol grpc,json --url h:1").unwrap().target().is_err());
    }

    #[test]
    fn loads_are_those_that_are_named_or_three_closed_loops() {
        let shown = |line: &str| {
            let loads = parsed(line).unwrap().loads();
            loads.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(shown("m"), "1 at once | 8 at once | 32 at once");
        assert_eq!(shown("m --rate 10,20"), "10/s | 20/s");
        assert_eq!(shown("m --rate 10 --concurrency 4"), "4 at once | 10/s");
        assert_eq!(shown("m --objective 5 --find-rate"), "32 at once");
    }

    #[test]
    fn wrong_arguments_are_told_with_what_is_right() {
        for (line, part) in [
            ("m --protocol http", "grpc, json or binary"),
            ("m --arrivals even", "poisson, bursty or constant"),
            ("m --url 127.0.0.1", "HOST:PORT"),
            ("m --grpc h/x:1", "HOST:PORT"),
            ("m --concurrency 0", "from 1 to"),
            ("m --rate 0", "0.001"),
            ("m --window nan", "over 0"),
            ("m --shape x:-1", "NAME:DIMS"),
            ("m --shape 3", "NAME:DIMS"),
            ("m --find-rate", "--objective"),
            ("m --data f --batch 2", "cannot be used with"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(part), "{line}: {error}");
        }
        let shapes = parsed("m --shape a:b:3,4 --shape x:0").unwrap().made().shapes;
        assert_eq!(shapes, [("a:b".to_owned(), vec![3, 4]), ("x".to_owned(), vec![0])]);
    }
}
