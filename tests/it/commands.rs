//! The commands that ask a server, as the README shows them, against a real one.

use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::control::{arms, ask_digits, eight, route, set_route};
use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::program::{Outcome, Program};
use crate::support::project;
use crate::support::tensors::with_parameter;
use crate::support::weir::Weir;

/// Runs `weir` with these words against a server.
fn run(weir: &Weir, line: &str) -> Outcome {
    let server = format!("http://{}", weir.http);
    let words: Vec<&str> = line.split_whitespace().collect();
    Program::new(&[&words[..], &["--server", &server]].concat()).run()
}

/// The same; it must end well. Gives what it printed.
#[track_caller]
fn well(weir: &Weir, line: &str) -> String {
    let outcome = run(weir, line);
    assert_eq!(outcome.code, Some(0), "{line}: {outcome:?}");
    assert_eq!(outcome.stderr, "", "{line}");
    outcome.stdout
}

/// The same; it must end with one line of an error.
#[track_caller]
fn badly(weir: &Weir, line: &str) -> String {
    let outcome = run(weir, line);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{line}: {outcome:?}");
    assert!(
        outcome.stderr.starts_with("weir: ") && outcome.stderr.lines().count() == 1,
        "{line}: {outcome:?}"
    );
    outcome.stderr
}

#[test]
fn routes_are_set_shown_cleared_and_rolled_back() {
    let weir = Weir::start(project("models"), &[]);
    let set = well(&weir, "route set digits 1=90 2=10 --shadow 3 --sticky header:x-user-id --actor ann");
    assert_eq!(set, well(&weir, "route show digits"));
    for part in [
        "revision 1, set by api",
        "version 1, weight 90 (90 %)",
        "version 3, copies of 100 %",
        "header:x-user-id",
    ] {
        assert!(set.contains(part), "{part}: {set}");
    }
    well(&weir, "route set digits 1=1 2=0 --rule header:x-tier=gold->2 --if-revision 1");
    assert_eq!(ask_digits(&mut weir.connect(), &[("x-tier", "gold")]), 2);
    assert!(badly(&weir, "route set digits 3=1 --if-revision 1").contains("revision 2"));
    assert!(badly(&weir, "route set digits 9=1").contains("no version 9"));
    assert!(badly(&weir, "route show nosuch").contains("'nosuch' is not found"));
    assert!(well(&weir, "rollback digits").contains("version 1, weight 90"));
    assert!(well(&weir, "route clear digits").contains("the highest ready version answers"));
    let shown: Value = serde_json::from_str(&well(&weir, "route show digits --json")).unwrap();
    assert_eq!(shown, route(&weir, "digits"));
    assert_eq!(run(&weir, "route set digits 1").code, Some(2));
}

#[test]
fn versions_are_labelled_loaded_and_unloaded() {
    let weir = Weir::start(project("models"), &[]);
    assert_eq!(well(&weir, "label set digits stable 2"), "LABEL   VERSION\nstable        2\n");
    assert!(badly(&weir, "unload digits 2").contains("in use"));
    assert_eq!(well(&weir, "label delete digits stable"), "no labels\n");
    let unloaded = well(&weir, "unload digits 2");
    assert!(unloaded.starts_with("digits/2 UN"), "{unloaded}");
    assert_eq!(well(&weir, "load digits 2"), "digits/2 READY\n");
    assert!(badly(&weir, "load digits 9").contains("no version 9"));
    well(&weir, "label set digits canary 3");
    let status = well(&weir, "status digits");
    assert_eq!(status.lines().filter(|line| line.starts_with("digits ")).count(), 3, "{status}");
    assert!(status.contains("canary"), "{status}");
    assert!(well(&weir, "status").contains("tickets"));
    let json: Value = serde_json::from_str(&well(&weir, "status digits --json")).unwrap();
    assert_eq!(json["versions"][2]["labels"][0], "canary");
}

#[test]
fn a_status_that_is_watched_shows_what_changes() {
    let weir = Weir::start(project("models"), &[]);
    let server = format!("http://{}", weir.http);
    let mut watching = Program::new(&["status", "digits", "--watch", "--server", &server]).spawn();
    let mut lines =
        BufReader::new(watching.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("digits") && line.contains("100 %")));
    set_route(&weir, "digits", &arms(&[(1, 75.0), (2, 25.0)]));
    assert!(lines.any(|line| line.starts_with("digits") && line.contains("25 %")));
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn rollouts_are_started_watched_and_ended() {
    let weir = Weir::start(project("models"), &[]);
    set_route(&weir, "digits", &arms(&[(1, 1.0)]));
    let slowly = "--min-requests 1000000 --min-seconds 3600";
    let started = well(&weir, &format!("rollout start digits 2 --steps 1,5,25,50,100 {slowly}"));
    assert!(started.contains("running"), "{started}");
    assert!(well(&weir, "rollout list digits").contains("running"));
    assert!(badly(&weir, "route set digits 1=1").contains("under way"));
    assert!(well(&weir, "rollout pause digits").contains("paused"));
    assert!(well(&weir, "rollout resume digits").contains("running"));
    assert!(well(&weir, "rollout show digits").contains("1 %"));
    assert!(well(&weir, "rollout abort digits").contains("aborted"));
    assert_eq!(route(&weir, "digits")["arms"], arms(&[(1, 1.0)])["arms"]);
    well(&weir, &format!("rollout start digits 2 {slowly}"));
    assert!(well(&weir, "rollout promote digits").contains("completed"));
    assert_eq!(ask_digits(&mut weir.connect(), &[]), 2);
    // One that nothing speaks against completes while it is watched.
    let stop = AtomicBool::new(false);
    let (stop, http) = (&stop, weir.http);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut connection = Connection::open(http);
            while !stop.load(Ordering::Relaxed) {
                ask_digits(&mut connection, &[]);
            }
        });
        let outcome = run(
            &weir,
            "rollout start digits 3 --steps 50,100 --min-requests 5 --min-seconds 0 --error-margin 0.9 --watch",
        );
        stop.store(true, Ordering::Relaxed);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    });
}

#[test]
fn outcomes_shadows_and_the_record_are_read() {
    let state = tempfile::tempdir().unwrap();
    let folder = state.path().to_str().unwrap();
    let weir = Weir::start(project("models"), &["--state", folder]);
    well(&weir, "route set digits 1=50 2=50 --shadow 3 --actor ann");
    let mut body = with_parameter(eight(), "user", "a");
    for request in 0..20 {
        body["id"] = format!("r{request}").into();
        weir.infer("digits", &body).expect(200);
    }
    eventually("the shadow was compared", || {
        well(&weir, "shadows digits").contains("compared").then_some(())
    });
    well(&weir, "feedback digits r1 1");
    well(&weir, "feedback digits r2 1 --label");
    well(&weir, "feedback digits r3 wrong");
    assert!(
        well(&weir, "experiments digits").contains("digits") || !well(&weir, "experiments digits").is_empty()
    );
    let list = well(&weir, "audit list --model digits");
    assert!(list.contains("ann from 127.0.0.1") && list.contains("route"), "{list}");
    let verified = Program::new(&["audit", "verify", "--state", folder]).run();
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_in_one_line() {
    let line = ["status", "--server", "http://127.0.0.1:9"];
    let outcome = Program::new(&line).run();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.starts_with("weir: ") && outcome.stderr.lines().count() == 1, "{outcome:?}");
    let by_variable = Program::new(&["status"]).env("WEIR_SERVER", "http://127.0.0.1:9").run();
    assert_eq!(by_variable.stderr, outcome.stderr);
}
