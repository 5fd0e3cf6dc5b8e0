//! The record of changes on the real server: who, when, what, from what to what; and what happens to changes where it
//! cannot be written. INV-06 is here because it ends servers by the dozen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection as Database;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::http::Connection;
use crate::support::program::{Outcome, Program};
use crate::support::repository::Repository;
use crate::support::tensors::simple;
use crate::support::versions::{MODEL, Served, row};
use crate::support::weir::{FREE_PORTS, Weir};

/// Rounds of INV-06 unless `WEIR_KILLS` says how many.
const KILLS: u32 = 15;

fn verify(state: &str) -> Outcome {
    Program::new(&["audit", "verify", "--state", state]).run()
}

#[track_caller]
fn expect_whole(state: &str) {
    let outcome = verify(state);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with("the record is whole: "), "{outcome:?}");
}

fn only(version: u64) -> Value {
    json!({"arms": [{"version": version, "weight": 1}]})
}

fn digest(path: &Path) -> String {
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_change_is_listed_with_who_when_what_from_what_to_what() {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let served = Served::start(&[(1, "same"), (2, "double")]);
    let nothing = json!({});
    served.put_route(&only(2)).expect(200);
    served.change("PUT", "labels/stable", &json!({"version": 1})).expect(200);
    served.change("DELETE", "labels/stable", &nothing).expect(200);
    served.change("POST", "versions/1/load", &nothing).expect(200);
    served.change("POST", "versions/1/unload", &nothing).expect(200);
    served.change("POST", "rollback", &nothing).expect(200);
    served.change("DELETE", "route", &nothing).expect(200);
    // What is refused changes nothing and is no change.
    served.put_route(&only(9)).error(404);
    served.change("POST", "rollback", &json!({"if_revision": 1})).error(412);

    let records: Vec<Value> = served.audit().into_iter().rev().collect();
    let digests =
        [1, 2].map(|version| digest(&served.repository.path(&format!("{MODEL}/{version}/model.onnx"))));
    let expected: Vec<(&str, u64, Value, Value)> = vec![
        ("load", 1, Value::Null, json!({"digest": digests[0]})),
        ("load", 2, Value::Null, json!({"digest": digests[1]})),
        ("route", 0, Value::Null, json!([[1, 100.0]])),
        ("route", 0, json!([[1, 100.0]]), json!([[2, 1.0]])),
        ("label", 0, Value::Null, json!({"stable": 1})),
        ("label", 0, json!({"stable": 1}), Value::Null),
        ("load", 1, json!({"digest": digests[0]}), json!({"digest": digests[0]})),
        ("unload", 1, json!({"digest": digests[0]}), Value::Null),
        ("load", 1, Value::Null, json!({"digest": digests[0]})),
        ("rollback", 0, json!([[2, 1.0]]), json!([[1, 100.0]])),
        ("route.clear", 0, json!([[1, 100.0]]), Value::Null),
    ];
    // A route by its arms alone.
    let short = |side: &Value| match side["arms"].as_array() {
        Some(arms) => {
            json!(arms.iter().map(|arm| json!([arm["version"], arm["weight"]])).collect::<Vec<_>>())
        }
        None => side.clone(),
    };
    let mut found: Vec<(&str, u64, Value, Value)> = records
        .iter()
        .map(|record| {
            let version = record["version"].as_u64().unwrap();
            (record["action"].as_str().unwrap(), version, short(&record["from"]), short(&record["to"]))
        })
        .collect();
    // Versions are loaded at the same time when the server starts.
    found[..2].sort_by_key(|(_, version, ..)| *version);
    assert_eq!(found, expected);
    let mut before = began;
    for (record, seq) in records.iter().zip(1..) {
        assert_eq!(
            (&record["seq"], &record["model"], &record["outcome"]),
            (&json!(seq), &json!(MODEL), &json!("done"))
        );
        let at_ms = record["at_ms"].as_u64().unwrap();
        assert!(before <= at_ms, "{record}");
        before = at_ms;
        let actor = record["actor"].as_str().unwrap();
        let by_us = actor.starts_with("tester from 127.0.0.1:");
        assert!(if seq <= 2 { actor == "startup" } else { by_us }, "{record}");
        let artefact = record["digest"].as_str().unwrap();
        let of_version = matches!(record["action"].as_str(), Some("load" | "unload"));
        assert_eq!(digests.iter().any(|digest| digest == artefact), of_version, "{record}");
        assert_eq!(record["hash"].as_str().unwrap().len(), 64);
    }
    expect_whole(served.state());
    let head = served.weir.get("/control/v1/audit?limit=1").expect(200).json();
    let head = format!("{}:{}", head["head_seq"], head["head_hash"].as_str().unwrap());
    let expected = Program::new(&["audit", "verify", "--state", served.state(), "--expect", &head]).run();
    assert_eq!(expected.code, Some(0), "{expected:?}");
}

// ── INV-06: after any end the routes are those of the last record, and the chain verifies ───────────────────────────

/// What the server has acknowledged: the arms' weights by the revision of the route.
type Acknowledged = BTreeMap<u64, Value>;

/// Changes the route as fast as the server takes it, until it is gone.
fn change_until_killed(http: SocketAddr, seed: u64) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    let mut connection = Connection::open(http);
    for number in 1u64.. {
        let share = (seed * 1000 + number) % 100;
        let route = json!({
            "arms": [{"version": 1, "weight": 100 - share}, {"version": 2, "weight": share}],
            "sticky": if number % 3 == 0 { "header:x-user" } else { "" },
        });
        let path = format!("/control/v1/models/{MODEL}/route");
        let body = route.to_string();
        let head = format!("PUT {path} HTTP/1.1\r\nhost: weir\r\ncontent-length: {}\r\n\r\n", body.len());
        if connection.try_write(format!("{head}{body}").as_bytes()).is_err() {
            break;
        }
        let Ok(answer) = connection.receive() else { break };
        let route = answer.expect(200).json();
        acknowledged.insert(route["revision"].as_u64().unwrap(), route["arms"].clone());
    }
    acknowledged
}

#[test]
fn inv_06_after_a_kill_the_routes_are_those_of_the_last_record_and_nothing_acknowledged_is_lost() {
    let rounds =
        std::env::var("WEIR_KILLS").ok().map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    let mut changes = 0;
    for round in 0..rounds {
        let pause = Duration::from_micros(random.u64(1_000..80_000));
        let seeds = [random.u64(..1000), random.u64(..1000)];
        let acknowledged = std::thread::scope(|scope| {
            let clients = seeds.map(|seed| {
                let http = served.weir.http;
                scope.spawn(move || change_until_killed(http, seed))
            });
            std::thread::sleep(pause);
            served.weir.signal("KILL");
            let told = clients.map(|client| client.join().expect("a client does not panic"));
            told.into_iter().flatten().collect::<Acknowledged>()
        });
        let at = format!("round {round} of seed {seed}, after {pause:?}");
        expect_whole(served.state());
        served.restart("KILL");

        // Nothing that comes with the start changes a route.
        let records = served.audit();
        let of_route = |record: &&Value| record["action"] == "route";
        let last = records.iter().find(of_route).expect("there are routes");
        let route = served.read("route");
        for key in ["arms", "sticky", "revision", "rules", "shadows"] {
            assert_eq!(route[key], last["to"][key], "{at}: {key}");
        }
        let recorded: Acknowledged = records
            .iter()
            .filter(of_route)
            .map(|record| (record["to"]["revision"].as_u64().unwrap(), record["to"]["arms"].clone()))
            .collect();
        let oldest = *recorded.keys().next().expect("there are routes");
        for (revision, arms) in acknowledged.range(oldest..) {
            assert_eq!(recorded.get(revision), Some(arms), "{at}: revision {revision} is lost");
        }
        assert!(served.client().send(3, &row(1.0)).iter().all(|reply| reply.status == 200), "{at}");
        expect_whole(served.state());
        changes += acknowledged.len();
    }
    assert!(changes > rounds as usize, "{changes} changes in {rounds} rounds tell nothing");
}

/// The files of a state folder in which nobody writes right now.
/// A route of as many rules, with texts as long, as may be: some seventy kilobytes.
fn long(version: u64) -> Value {
    let rule = json!({"header": "x-user", "equals": "e".repeat(1024), "version": version});
    json!({"arms": [{"version": version, "weight": 1}], "rules": vec![rule; 64]})
}

#[test]
fn a_page_of_the_record_ends_where_its_bytes_do_and_the_next_goes_on_from_there() {
    let served = Served::start(&[(1, "same"), (2, "double")]);
    for version in [2, 1].repeat(6) {
        served.put_route(&long(version)).expect(200);
    }
    let (mut found, mut pages, mut before) = (Vec::new(), 0, String::new());
    loop {
        let answer = served.weir.get(&format!("/control/v1/audit?limit=500{before}")).expect(200);
        assert!(answer.body.len() < 1_100_000, "{} bytes", answer.body.len());
        let page = answer.json();
        let records = page["records"].as_array().unwrap().iter();
        found.extend(records.map(|record| record["seq"].as_u64().unwrap()));
        pages += 1;
        match page["next_before"].as_u64().unwrap() {
            0 => break,
            next => before = format!("&before={next}"),
        }
    }
    assert_eq!(found, (1..=15).rev().collect::<Vec<u64>>());
    assert_eq!(pages, 2);
}

#[test]
fn pages_of_the_record_count_as_bytes_in_flight() {
    let (repository, state) = (Repository::new(), tempfile::tempdir().unwrap());
    repository.copy("models/simple", "simple");
    let limit = (256 << 10).to_string();
    let folder = state.path().to_str().unwrap();
    let flags = ["--max-message-bytes", &limit, "--max-bytes-in-flight", &limit, "--state", folder];
    let weir = Weir::start(&repository, &flags);
    for _ in 0..3 {
        let body = long(1).to_string();
        weir.connect().ask("PUT", "/control/v1/models/simple/route", &[], body.as_bytes()).expect(200);
    }
    let refusal = weir.get("/control/v1/audit").error(429);
    assert!(refusal.contains("bytes in flight (262144)"), "{refusal}");
    weir.get("/control/v1/audit?limit=1").expect(200);
    weir.until("nothing is held", |page| page.sum("weir_bytes_in_flight", &[]) == 0.0);
}

#[test]
fn a_route_that_is_too_long_is_refused_and_one_from_before_the_limits_stands_and_can_be_changed() {
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    let mut route = json!({
        "arms": [{"version": 1, "weight": 1}, {"version": 2, "weight": 0}],
        "rules": [{"header": "x-user", "equals": "e".repeat(1025), "version": 2}]
    });
    let refusal = served.put_route(&route).error(400);
    assert!(refusal.contains("rules[0].equals has 1025 bytes: a route takes 1024"), "{refusal}");
    route["rules"][0]["equals"] = json!("e".repeat(1024));
    served.put_route(&route).expect(200);
    served.end("TERM");
    // As a server without limits could have left it: the record has room for it, but not twice.
    let database = Database::open(served.state.path().join("weir.sqlite")).unwrap();
    let sql = "UPDATE documents SET body = replace(body, ?1, ?2) WHERE kind = 'model'";
    database.execute(sql, ("e".repeat(1024), "e".repeat(1_500_000))).unwrap();
    drop(database);
    served.start_again();
    let rules = |route: &Value| route["rules"][0]["equals"].as_str().map_or(0, str::len);
    assert_eq!(rules(&served.read("route")), 1_500_000);
    served.put_route(&route).expect(200);
    let first = served.audit().remove(0);
    assert_eq!((rules(&first["from"]), rules(&first["to"])), (1_500_000, 1024));
    served.change("POST", "rollback", &json!({})).expect(200);
    assert_eq!(rules(&served.read("route")), 1_500_000);
    let id = served.begin(&json!({"target": 2}));
    served.change("POST", &format!("rollouts/{id}/abort"), &json!({})).expect(200);
    let first = served.audit().remove(0);
    assert_eq!((&first["action"], rules(&first["to"])), (&json!("rollout.abort"), 1_500_000));
    assert!(first["from"]["note"].as_str().unwrap().contains("left out"), "{}", first["from"]);
    served.change("DELETE", "route", &json!({})).expect(200);
    served.end("TERM");
    expect_whole(served.state());
    assert!(!served.weir.errors().contains("ERROR"), "{}", served.weir.errors());
}

fn copied(state: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in state.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

#[test]
fn tampering_with_a_stopped_servers_record_is_named() {
    let mut served = Served::start(&[(1, "same"), (2, "double")]);
    for version in [2, 1, 2, 1] {
        served.put_route(&only(version)).expect(200);
    }
    served.end("TERM");
    expect_whole(served.state());
    // Seven records: two loads and five routes.
    for (tampering, named) in [
        ("UPDATE audit SET body = replace(body, 'tester', 'nobody') WHERE seq = 4", "record 4"),
        ("UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'g') WHERE seq = 5", "record 5"),
        ("DELETE FROM audit WHERE seq = 3", "record 3"),
        ("DELETE FROM audit WHERE seq = 7", "record 7"),
        ("DELETE FROM audit", "record 1"),
        ("DELETE FROM head", "the head of the record is gone"),
        ("UPDATE head SET seq = 6", "record 7"),
        (
            "UPDATE audit SET seq = -1 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5;
             UPDATE audit SET seq = 5 WHERE seq = -1",
            "record 4",
        ),
        ("INSERT INTO audit SELECT 8, body, hash FROM audit WHERE seq = 7", "record 8"),
    ] {
        let copy = copied(served.state.path());
        let database = Database::open(copy.path().join("weir.sqlite")).unwrap();
        database.execute_batch(tampering).unwrap();
        drop(database);
        let outcome = verify(copy.path().to_str().unwrap());
        assert_eq!(outcome.code, Some(1), "{tampering}: {outcome:?}");
        assert!(outcome.stderr.contains(named), "{tampering}: {outcome:?}");
    }
    expect_whole(served.state());
}

#[test]
fn without_a_state_folder_changes_are_refused_and_a_named_one_must_be_usable() {
    let repository = Repository::new();
    repository.copy("models/simple", "simple").write("no_folder", "a file");
    let file = repository.path("no_folder");
    let below = file.join("state");
    let flags = ["serve", "--models", repository.as_ref().to_str().unwrap()];
    let named =
        Program::new(&[&flags[..], &FREE_PORTS, &["--state", below.to_str().unwrap()]].concat()).run();
    assert_eq!(named.code, Some(1), "{named:?}");
    assert!(named.stderr.contains("--state"), "{named:?}");

    let mut weir = Weir::of(Program::new(&[&flags[..], &FREE_PORTS].concat()).env("XDG_STATE_HOME", &file));
    weir.ready();
    weir.infer("simple", &simple(1)).expect(200);
    let path = "/control/v1/models/simple/route";
    let refusal = weir.connect().ask("PUT", path, &[], only(1).to_string().as_bytes()).error(503);
    assert!(refusal.contains("nothing was changed") && refusal.contains("--state"), "{refusal}");
    weir.infer("simple", &simple(1)).expect(200);
    let refusal = weir.post("/control/v1/models/simple/feedback", &json!({"request_id": "a", "outcome": 1}));
    assert!(refusal.error(503).contains("--state"));
}

/// A server whose state is on a file system of its own that holds a megabyte. `None` where nobody but an
/// administrator may make one.
fn on_a_small_disk(served: &mut Served) -> Option<std::path::PathBuf> {
    let disk = served.repository.path(".disk");
    std::fs::create_dir(&disk).unwrap();
    let disk_name = disk.to_str().unwrap();
    let mount = format!("mount -t tmpfs -o size=1m tmpfs '{disk_name}' && exec \"$@\"");
    let wrapper = ["unshare", "-rm", "sh", "-c", &mount, "sh"];
    let may = std::process::Command::new(wrapper[0])
        .args(&wrapper[1..])
        .args(["true"])
        .stderr(std::process::Stdio::null())
        .status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may make no file system to fill");
        return None;
    }
    let models = served.repository.as_ref().to_str().unwrap();
    let arguments = [&["serve", "--models", models, "--state", disk_name], &FREE_PORTS[..]].concat();
    served.weir = Weir::of(Program::within(&wrapper, &arguments));
    served.weir.ready();
    // Seen from outside, the server's own view of the folder.
    Some(Path::new(&format!("/proc/{}/root", served.weir.id())).join(disk.strip_prefix("/").unwrap()))
}

#[test]
fn on_a_full_disk_changes_are_refused_and_serving_goes_on_until_there_is_room() {
    let mut served = Served::start(&[(1, "same"), (2, "fails")]);
    let Some(disk) = on_a_small_disk(&mut served) else { return };
    served.put_route(&only(1)).expect(200);
    let id = served.begin(&json!({"target": 2, "steps": [50, 100], "step_seconds_min": 3600}));
    let mut client = served.client();

    // All that is left of it, in ever smaller pieces.
    let filler = disk.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    for bytes in [65_536, 4096, 512, 1] {
        while std::io::Write::write_all(&mut file, &vec![0; bytes]).is_ok() {}
    }
    let refusal = served.change("PUT", "labels/next", &json!({"version": 2})).error(503);
    assert!(refusal.contains("nothing was changed") && refusal.contains("no room is left"), "{refusal}");
    served.change("POST", &format!("rollouts/{id}/promote"), &json!({})).error(503);
    served.change("POST", "feedback", &json!({"request_id": "a", "outcome": 1})).error(503);
    assert_eq!(served.weights(), [(1, 50.0), (2, 50.0)]);

    // The new version fails for everybody, and the verdict cannot be recorded: nothing changes.
    for _ in 0..100 {
        client.reply(&[], &row(1000.0));
    }
    eventually("the server says so", || {
        served.weir.errors().contains("what the verdict asks for cannot be done").then_some(())
    });
    assert_eq!(served.rollout(&id)["state"], "running");
    assert!((0..20).all(|_| client.reply(&[], &row(1.0)).status == 200));

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    eventually("it is rolled back", || (served.rollout(&id)["state"] == "rolled_back").then_some(()));
    assert_eq!(served.weights(), [(1, 1.0)]);
    served.change("PUT", "labels/next", &json!({"version": 2})).expect(200);
    served.change("POST", "feedback", &json!({"request_id": "a", "outcome": 1})).expect(200);
    // SQLite would follow the way into the server's own view back out of it.
    expect_whole(copied(&disk).path().to_str().unwrap());
}
