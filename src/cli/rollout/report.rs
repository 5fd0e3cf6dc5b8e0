//! Rollouts as text: a list, one in full, one on a line. Pure.

use crate::cli::text::{self, counted, figure, moment, percent};
use crate::proto::control::{ArmCounts, GuardReading, ListRolloutsResponse, Rollout};

/// Characters of a reason in a list; the rollout itself shows all of it.
const REASON_CHARACTERS: usize = 60;

/// A row for each rollout.
pub fn list(list: &ListRolloutsResponse) -> String {
    if list.rollouts.is_empty() {
        return "no rollouts\n".to_owned();
    }
    let headings =
        ["ID", ">FROM", ">TO", "STATE", ">STEP", ">SHARE", "STARTED (UTC)", "ENDED (UTC)", "BY", "REASON"];
    let rows = list.rollouts.iter().map(|rollout| {
        vec![
            rollout.id.clone(),
            from(rollout),
            rollout.target.to_string(),
            rollout.state.clone(),
            step(rollout),
            percent(rollout.share),
            moment(rollout.started_ms),
            moment(rollout.ended_ms),
            text::or_dash(rollout.actor.clone()),
            text::cut(&rollout.reason, REASON_CHARACTERS),
        ]
    });
    text::table(&headings, rows)
}

/// One rollout in full.
pub fn rollout(rollout: &Rollout) -> String {
    let mut page = format!("{}\n", headline(rollout));
    let by = text::or_dash(rollout.actor.clone());
    page.push_str(&format!("started  {} UTC by {by}", moment(rollout.started_ms)));
    if rollout.ended_ms > 0 {
        page.push_str(&format!(", ended {} UTC", moment(rollout.ended_ms)));
    }
    let steps: Vec<String> = rollout.steps.iter().map(|step| figure(*step)).collect();
    page.push_str(&format!("\nsteps    {} %\n", steps.join(", ")));
    page.push_str(&format!(
        "         each at least {} to the target and {} s\n",
        counted(rollout.step_requests_min, "request"),
        figure(rollout.step_seconds_min)
    ));
    page.push_str(&evidence(rollout));
    page
}

/// What the step has counted and what it means: the part of a rollout that moves.
pub fn evidence(rollout: &Rollout) -> String {
    let mut page = format!("current  {}\n", arm(rollout.current.as_ref()));
    page.push_str(&format!("new      {}\n", arm(rollout.new.as_ref())));
    if !rollout.guards.is_empty() {
        let headings =
            ["GUARD", ">EVIDENCE", ">ACTS AT", ">CURRENT", ">NEW", ">DIFFERENCE AT MOST", "VERDICT"];
        page.push_str(&text::table(&headings, rollout.guards.iter().map(guard)));
    }
    for wait in &rollout.waiting {
        page.push_str(&format!("waiting  {wait}\n"));
    }
    if !rollout.reason.is_empty() {
        page.push_str(&format!("reason   {}\n", rollout.reason));
    }
    page
}

/// Which rollout it is and where it stands.
pub fn headline(rollout: &Rollout) -> String {
    format!(
        "rollout {} of {}, version {} to {}: {}, step {}, {}",
        rollout.id,
        rollout.model,
        from(rollout),
        rollout.target,
        rollout.state,
        step(rollout),
        percent(rollout.share)
    )
}

/// Everything that matters of a moment, on one line.
pub fn line(rollout: &Rollout) -> String {
    let mut parts = vec![
        headline(rollout),
        format!("current {}", arm(rollout.current.as_ref())),
        format!("new {}", arm(rollout.new.as_ref())),
    ];
    parts.extend(rollout.guards.iter().map(|reading| {
        format!(
            "{} {} (evidence {} of {})",
            reading.name,
            verdict(reading),
            figure(reading.evidence),
            figure(reading.threshold)
        )
    }));
    if !rollout.waiting.is_empty() {
        parts.push(format!("waiting: {}", rollout.waiting.join(" and ")));
    }
    if !rollout.reason.is_empty() {
        parts.push(rollout.reason.clone());
    }
    parts.join("; ") + "\n"
}

/// 0 stands for a route of several versions.
fn from(rollout: &Rollout) -> String {
    if rollout.from == 0 { "several".to_owned() } else { rollout.from.to_string() }
}

fn step(rollout: &Rollout) -> String {
    format!("{} of {}", rollout.step + 1, rollout.steps.len())
}

fn arm(counts: Option<&ArmCounts>) -> String {
    let counts = counts.copied().unwrap_or_default();
    let (requests, errors) = (counted(counts.requests, "request"), counted(counts.errors, "error"));
    format!("{requests}, {errors}, {} slow", text::grouped(counts.slow))
}

fn guard(reading: &GuardReading) -> Vec<String> {
    vec![
        reading.name.clone(),
        figure(reading.evidence),
        figure(reading.threshold),
        percent(100.0 * reading.current_rate),
        percent(100.0 * reading.new_rate),
        percent(100.0 * reading.difference_max),
        verdict(reading).to_owned(),
    ]
}

fn verdict(reading: &GuardReading) -> &'static str {
    match reading {
        GuardReading { evidence, threshold, .. } if *threshold > 0.0 && evidence >= threshold => "acts",
        GuardReading { passed: true, .. } => "passed",
        _ => "not yet",
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One in its second step.
    pub fn running() -> Rollout {
        let reading = GuardReading {
            name: "errors".to_owned(),
            evidence: 1.25,
            threshold: 100.0,
            current_rate: 0.001,
            new_rate: 0.0071,
            difference_max: 0.031,
            passed: false,
        };
        Rollout {
            id: "r4".to_owned(),
            model: "digits".to_owned(),
            from: 1,
            target: 2,
            state: "running".to_owned(),
            steps: vec![1.0, 5.0, 100.0],
            step: 1,
            share: 5.0,
            started_ms: 1_735_689_599_000,
            actor: "ann@host".to_owned(),
            current: Some(ArmCounts { requests: 12_000, errors: 12, slow: 3 }),
            new: Some(ArmCounts { requests: 140, errors: 1, slow: 0 }),
            guards: vec![
                GuardReading { name: "shift".to_owned(), passed: true, ..reading.clone() },
                GuardReading { name: "latency".to_owned(), evidence: 1e300, ..reading.clone() },
                reading,
            ],
            waiting: vec!["60 more requests".to_owned(), "12 s".to_owned()],
            step_requests_min: 200,
            step_seconds_min: 60.0,
            ..Rollout::default()
        }
    }

    #[test]
    fn a_rollout_shows_each_guards_evidence_against_its_threshold() {
        let expected = "\
rollout r4 of digits, version 1 to 2: running, step 2 of 3, 5 %
started  2024-12-31 23:59:59 UTC by ann@host
steps    1, 5, 100 %
         each at least 200 requests to the target and 60 s
current  12,000 requests, 12 errors, 3 slow
new      140 requests, 1 error, 0 slow
GUARD    EVIDENCE  ACTS AT  CURRENT     NEW  DIFFERENCE AT MOST  VERDICT
shift        1.25      100    0.1 %  0.71 %               3.1 %  passed
latency  infinite      100    0.1 %  0.71 %               3.1 %  acts
errors       1.25      100    0.1 %  0.71 %               3.1 %  not yet
waiting  60 more requests
waiting  12 s
";
        assert_eq!(rollout(&running()), expected);
    }

    #[test]
    fn a_line_holds_where_it_stands_and_why() {
        let ended = Rollout {
            state: "rolled_back".to_owned(),
            from: 0,
            guards: running().guards[2..].to_vec(),
            waiting: Vec::new(),
            reason: "errors: too many".to_owned(),
            ..running()
        };
        let expected = "rollout r4 of digits, version several to 2: rolled_back, step 2 of 3, 5 %; \
                        current 12,000 requests, 12 errors, 3 slow; new 140 requests, 1 error, 0 slow; \
                        errors not yet (evidence 1.25 of 100); errors: too many\n";
        assert_eq!(line(&ended), expected);
        assert!(line(&running()).ends_with("; waiting: 60 more requests and 12 s\n"));
    }

    #[test]
    fn the_list_has_a_row_for_each() {
        let response = ListRolloutsResponse { rollouts: vec![running()] };
        let expected = "\
ID  FROM  TO  STATE      STEP  SHARE  STARTED (UTC)        ENDED (UTC)  BY        REASON
r4     1   2  running  2 of 3    5 %  2024-12-31 23:59:59  -            ann@host
";
        assert_eq!(list(&response), expected);
        assert_eq!(list(&ListRolloutsResponse::default()), "no rollouts\n");
    }
}
