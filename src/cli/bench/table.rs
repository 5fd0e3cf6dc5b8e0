//! What was measured, as a table.

use crate::bench::{ON_TIME, Report, Row};
use crate::cli::text::{self, cut, figure, grouped, percent};

/// Characters shown of a server's message.
const MESSAGE_CHARACTERS: usize = 160;

/// The table, and below it what it cannot hold.
pub fn render(report: &Report) -> String {
    if report.rows.is_empty() {
        return "nothing was measured\n".to_owned();
    }
    let on_time = report.objective_ms.is_some();
    let cpu = report.rows.iter().any(|row| row.server_cpu_us.is_some());
    let mut headings =
        vec!["PROTOCOL", ">LOAD", ">REQUESTS/S", ">ERRORS", ">P50", ">P90", ">P99", ">P99.9", ">MAX"];
    headings.extend(on_time.then_some(">ON TIME"));
    headings.extend([">QUEUE", ">ASSEMBLY", ">SESSION", ">SPLIT", ">BATCH"]);
    headings.extend(cpu.then_some(">CPU"));
    headings.push("");
    let mut page = text::table(&headings, report.rows.iter().map(|row| cells(row, on_time, cpu)));
    page.push_str("Microseconds. Latencies are those of successful answers; queue to split is what the server says of\n");
    page.push_str("itself, per request, and batch the rows of a session call.\n");
    if let Some(objective) = report.objective_ms {
        page.push_str(&format!("On time is an answer within {} ms.\n", figure(objective)));
    }
    for (mark, meaning) in [
        (UNSTABLE, "the last three windows did not agree; try a longer --window"),
        (LATE, "the generator sent late: give it more --threads, or a machine of its own"),
        (WAITED, "requests waited for a connection: give more --connections"),
    ] {
        if report.rows.iter().any(|row| marks(row).contains(&mark)) {
            page.push_str(&format!("{mark}: {meaning}.\n"));
        }
    }
    report.rows.iter().for_each(|row| page.push_str(&failures(row)));
    for found in &report.found {
        let share = percent(100.0 * ON_TIME);
        page.push_str(&match found.requests_per_second {
            Some(rate) => {
                format!(
                    "{}: {} requests/s with {share} on time\n",
                    found.protocol,
                    grouped(rate.round() as u64)
                )
            }
            None => format!("{}: no rate had {share} on time\n", found.protocol),
        });
    }
    if report.interrupted {
        page.push_str("Ended before its time.\n");
    }
    page
}

const UNSTABLE: &str = "unstable";
const LATE: &str = "sent late";
const WAITED: &str = "waited";

fn marks(row: &Row) -> Vec<&'static str> {
    let marks = [(!row.stable, UNSTABLE), (row.lags(), LATE), (row.queued > 0, WAITED)];
    marks.into_iter().filter_map(|(applies, mark)| applies.then_some(mark)).collect()
}

fn cells(row: &Row, on_time: bool, cpu: bool) -> Vec<String> {
    let dash = || "-".to_owned();
    let latency = |part: fn(&crate::bench::LatencyMicros) -> f64| {
        row.latency_us.as_ref().map_or_else(dash, |latency| micros(part(latency)))
    };
    let server = |part: fn(&crate::bench::ServerSide) -> f64| {
        row.server.as_ref().map_or_else(dash, |server| figure(part(server)))
    };
    let mut cells = vec![
        row.protocol.to_owned(),
        load(row),
        grouped(row.requests_per_second.round() as u64),
        grouped(row.errors),
        latency(|l| l.p50),
        latency(|l| l.p90),
        latency(|l| l.p99),
        latency(|l| l.p999),
        latency(|l| l.max),
    ];
    if on_time {
        cells.push(row.on_time.map_or_else(dash, |share| percent(100.0 * share)));
    }
    cells.extend([
        server(|s| s.queue_us),
        server(|s| s.assembly_us),
        server(|s| s.session_us),
        server(|s| s.split_us),
        server(|s| s.batch_size),
    ]);
    if cpu {
        cells.push(row.server_cpu_us.map_or_else(dash, figure));
    }
    cells.push(marks(row).join(", "));
    cells
}

fn load(row: &Row) -> String {
    match (row.concurrency, row.rate) {
        (Some(concurrency), _) => format!("{} at once", grouped(concurrency as u64)),
        (None, Some(rate)) => format!("{}/s {}", figure(rate), row.arrivals.unwrap_or_default()),
        (None, None) => "-".to_owned(),
    }
}

fn micros(value: f64) -> String {
    if value >= 100.0 { grouped(value.round() as u64) } else { figure(value) }
}

/// A line for each kind of failure, and for connections that broke.
fn failures(row: &Row) -> String {
    let mut lines = String::new();
    for failed in &row.failures {
        let message = text::or_dash(cut(&failed.message, MESSAGE_CHARACTERS));
        let (count, status) = (grouped(failed.count), &failed.status);
        lines.push_str(&format!("{}, {}: {count} x {status}: {message}\n", row.protocol, load(row)));
    }
    if row.reopened > 0 {
        let reopened = text::counted(row.reopened, "connection");
        lines.push_str(&format!("{}, {}: {reopened} broke and opened again\n", row.protocol, load(row)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Failed, Found, LatencyMicros, ServerSide};

    fn report() -> Report {
        let latency = LatencyMicros { mean: 1.0, p50: 92.4, p90: 120.6, p99: 1500.0, p999: 2e4, max: 1.5e6 };
        let server =
            ServerSide { queue_us: 1.5, assembly_us: 2.0, session_us: 30.0, split_us: 0.0, batch_size: 3.25 };
        let row = Row {
            protocol: "grpc",
            concurrency: Some(32),
            rate: None,
            arrivals: None,
            windows: 3,
            stable: true,
            seconds: 6.0,
            requests_per_second: 12_345.6,
            answered: 74_073,
            errors: 0,
            failures: vec![],
            refusal_us: None,
            latency_us: Some(latency),
            on_time: None,
            lag_us_p99: None,
            queued: 0,
            reopened: 0,
            server: Some(server),
            server_cpu_us: None,
            generator_cpu_us: Some(9.0),
        };
        let failed = Failed { status: "429".to_owned(), count: 1200, message: "queue is full".to_owned() };
        let open = Row {
            protocol: "json",
            concurrency: None,
            rate: Some(5000.0),
            arrivals: Some("poisson"),
            stable: false,
            errors: 1200,
            failures: vec![failed],
            latency_us: None,
            lag_us_p99: Some(2000.0),
            queued: 3,
            reopened: 1,
            server: None,
            ..row.clone()
        };
        Report {
            model: "digits".to_owned(),
            version: String::new(),
            seed: 1,
            threads: 1,
            objective_ms: None,
            rows: vec![row, open],
            found: vec![],
            interrupted: false,
        }
    }

    #[test]
    fn a_row_for_each_load_and_below_what_went_wrong() {
        let page = render(&report());
        let lines: Vec<Vec<&str>> = page.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            [
                "grpc",
                "32",
                "at",
                "once",
                "12,346",
                "0",
                "92.4",
                "121",
                "1,500",
                "20,000",
                "1,500,000",
                "1.5",
                "2",
                "30",
                "0",
                "3.25"
            ]
        );
        let open = [
            "json",
            "5000/s",
            "poisson",
            "12,346",
            "1,200",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "-",
            "unstable,",
            "sent",
            "late,",
            "waited",
        ];
        assert_eq!(lines[2], open);
        for part in [
            "json, 5000/s poisson: 1,200 x 429: queue is full\n",
            "1 connection broke and opened again\n",
            "unstable: the last three",
            "sent late: the generator",
            "waited: requests waited",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("ON TIME") && !page.contains("CPU"), "{page}");
    }

    #[test]
    fn what_was_asked_for_has_its_column() {
        let mut report = report();
        report.objective_ms = Some(5.0);
        report.rows[0].on_time = Some(0.995);
        report.rows[0].server_cpu_us = Some(41.2);
        report.found.push(Found { protocol: "grpc", requests_per_second: Some(3400.2) });
        report.found.push(Found { protocol: "json", requests_per_second: None });
        report.interrupted = true;
        let page = render(&report);
        for part in [
            "ON TIME",
            "99.5 %",
            "41.2",
            "On time is an answer within 5 ms",
            "grpc: 3,400 requests/s with 99 % on time\n",
            "json: no rate had 99 % on time\n",
            "Ended before its time",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        report.rows.clear();
        assert_eq!(render(&report), "nothing was measured\n");
    }
}
