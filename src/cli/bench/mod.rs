//! `weir bench`: puts load on a server of the Open Inference Protocol and prints what came of it.

mod arguments;
mod table;

use std::io::Write;

use anyhow::Context;
use indicatif::ProgressBar;

pub use arguments::BenchArguments;

use super::options::{Verdict, print};
use super::{progress, text};
use crate::bench::{
    Bench, Calls, Endpoint, Found, Load, Metadata, Moment, Processor, Protocol, Report, Request, Row, Stop,
    Target, made, read,
};

/// How the shell tells that Ctrl-C ended a program.
const ENDED_BY_INTERRUPT: i32 = 130;

/// A run under way.
struct Run<'a> {
    arguments: &'a BenchArguments,
    target: Target,
    bar: ProgressBar,
    stop: Stop,
    report: Report,
}

impl BenchArguments {
    /// Measures, and prints a table or JSON. Wrong: not one request succeeded.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<Verdict> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the network cannot be used")?;
        let report = runtime.block_on(self.measure())?;
        let json = || serde_json::to_string_pretty(&report).map(|text| text + "\n");
        match self.json.as_deref() {
            Some("-") => print(out, &json()?)?,
            Some(file) => {
                std::fs::write(file, json()?).with_context(|| format!("{file} cannot be written"))?;
                print(out, &table::render(&report))?;
            }
            None => print(out, &table::render(&report))?,
        }
        let rows = &report.rows;
        let nothing = rows.iter().any(|row| row.errors > 0) && rows.iter().all(|row| row.answered == 0);
        Ok(if nothing { Verdict::Wrong } else { Verdict::Well })
    }

    async fn measure(&self) -> anyhow::Result<Report> {
        let mut run = Run {
            arguments: self,
            target: self.target()?,
            bar: progress::bar(),
            stop: Stop::default(),
            report: self.report(),
        };
        let interrupts = tokio::spawn(on_interrupt(run.stop.clone()));
        for protocol in self.protocols() {
            run.protocol(protocol).await?;
        }
        interrupts.abort();
        run.bar.finish_and_clear();
        run.report.interrupted = run.stop.wished();
        Ok(run.report)
    }

    fn requests(&self, metadata: &Metadata) -> anyhow::Result<Vec<Request>> {
        Ok(match self.data() {
            Some(file) => read(file, metadata)?,
            None => made(metadata, &self.made())?,
        })
    }
}

impl Run<'_> {
    async fn protocol(&mut self, protocol: Protocol) -> anyhow::Result<()> {
        if self.stop.wished() {
            return Ok(());
        }
        let target = self.target.clone();
        let endpoint = target.reach(protocol).await?;
        let requests = self.arguments.requests(&endpoint.metadata().await?)?;
        let calls = Calls::encode(protocol, &target, &requests)?;
        for load in self.arguments.loads() {
            if !self.stop.wished() {
                let row = self.row(endpoint, &calls, load).await?;
                self.report.rows.push(row);
            }
        }
        if self.arguments.finds_rate() {
            self.find(endpoint, &calls).await?;
        }
        Ok(())
    }

    async fn row(&mut self, endpoint: Endpoint<'_>, calls: &Calls, load: Load) -> anyhow::Result<Row> {
        self.bar.set_prefix(format!("{}, {load}", endpoint.protocol.name()));
        let bar = self.bar.clone();
        let mut progress = |moment| show(&bar, moment);
        Ok(self.bench(&mut progress)?.measure(endpoint, calls, load).await?)
    }

    /// The highest rate with enough on time, from the rate that the last closed loop had.
    async fn find(&mut self, endpoint: Endpoint<'_>, calls: &Calls) -> anyhow::Result<()> {
        let protocol = endpoint.protocol.name();
        let closed =
            self.report.rows.iter().rfind(|row| row.protocol == protocol && row.concurrency.is_some());
        let start = closed.map_or(1.0, |row| row.requests_per_second);
        self.bar.set_prefix(format!("{protocol}, searching a rate"));
        let bar = self.bar.clone();
        let mut progress = |moment| show(&bar, moment);
        let process = self.arguments.process();
        let mut bench = self.bench(&mut progress)?;
        bench.rules.windows_max = bench.rules.windows_max.min(arguments::SEARCH_WINDOWS);
        let (found, rows) = bench.find_rate(endpoint, calls, start, process).await?;
        self.report.rows.extend(rows);
        self.report.found.push(Found { protocol, requests_per_second: found });
        Ok(())
    }

    fn bench<'a>(&self, progress: &'a mut dyn FnMut(Moment)) -> anyhow::Result<Bench<'a>> {
        let server =
            self.arguments.server_pid().map(Processor::of).transpose().map_err(anyhow::Error::msg)?;
        Ok(Bench {
            rules: self.arguments.rules(),
            effort: self.arguments.effort(),
            server,
            stop: self.stop.clone(),
            progress,
        })
    }
}

/// The first interrupt ends the measurement, the second the program.
async fn on_interrupt(stop: Stop) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.now();
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(ENDED_BY_INTERRUPT);
        }
    }
}

fn show(bar: &ProgressBar, moment: Moment) {
    progress::fill(bar, moment.part);
    let rate = moment.requests_per_second.map(|rate| format!("{}/s", text::grouped(rate.round() as u64)));
    bar.set_message(rate.unwrap_or_else(|| "warming up".to_owned()));
}
