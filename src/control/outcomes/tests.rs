//! What experiments learn, in any order, with repetitions, damage and too much of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::time::Instant;

use rusqlite::Connection;

use super::*;
use crate::control::killed::{acknowledge, folder, write_and_kill};

fn open(dir: &Path) -> Outcomes {
    Outcomes::open(dir, OutcomesConfig::default()).unwrap()
}

fn assignment(request_id: impl ToString, version: u64, unit: Option<u64>) -> Assignment {
    let (model, experiment) = ("digits".to_owned(), "rollout-1".to_owned());
    Assignment { model, request_id: request_id.to_string(), experiment, version, unit }
}

fn label(text: &str) -> Outcome {
    Outcome::Label(text.to_owned())
}

fn tally_of(outcomes: &Outcomes) -> Vec<ArmTally> {
    outcomes.flush().unwrap();
    outcomes.tally("digits", "rollout-1").unwrap()
}

/// A connection beside the file, as something that gets in the way has it.
fn beside(dir: &Path) -> Connection {
    Connection::open(dir.join(file::DATABASE)).unwrap()
}

#[test]
fn the_first_outcome_stands_and_repetitions_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    outcomes.served(assignment("a", 1, None));
    let (new, again, other) = ((false, false), (true, false), (true, true));
    let cases = [
        ("a", Outcome::Number(1.5), new, true),
        ("a", Outcome::Number(1.5), again, true),
        ("a", Outcome::Number(1.25), other, true),
        ("a", label("1.5"), other, true),
        ("b", label("good"), new, false),
        ("b", label("good"), again, false),
        ("b", label("Good"), other, false),
        ("b", Outcome::Number(0.0), other, false),
        ("c", Outcome::Number(0.0), new, false),
        ("c", Outcome::Number(-0.0), again, false),
        ("d", label(""), new, false),
    ];
    for (id, outcome, (already, conflicting), joined) in cases {
        let taken = outcomes.feedback("digits", id, outcome.clone()).unwrap();
        assert_eq!(taken, Taken { already, conflicting, joined }, "{id} {outcome:?}");
    }
    // The same id of another model is another request.
    assert!(!outcomes.feedback("tickets", "a", label("x")).unwrap().already);
    outcomes.served(assignment("b", 2, None));
    assert!(outcomes.feedback("digits", "b", label("good")).unwrap().joined);
    let labels = BTreeMap::from([("good".to_owned(), 1)]);
    let numbers = Some(Numbers { n: 1, sum: 1.5, sum_of_squares: 2.25 });
    let expected = [
        ArmTally { version: 1, requests: 1, units: 1, outcomes: 1, numbers, labels: BTreeMap::new() },
        ArmTally { version: 2, requests: 1, units: 1, outcomes: 1, numbers: None, labels },
    ];
    assert_eq!(tally_of(&outcomes), expected);
}

#[test]
fn the_first_assignment_of_a_request_stands() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    outcomes.served(assignment("a", 1, Some(u64::MAX)));
    outcomes.served(assignment("a", 2, None));
    outcomes.served(Assignment { experiment: "rollout-2".to_owned(), ..assignment("a", 3, None) });
    let tally = tally_of(&outcomes);
    assert_eq!(tally, [ArmTally { version: 1, requests: 1, units: 1, ..ArmTally::default() }]);
    assert_eq!(outcomes.tally("digits", "rollout-2").unwrap(), []);
    assert_eq!(outcomes.tally("digits", "unknown").unwrap(), []);
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    let long = "x".repeat(257);
    let cases = [
        ("a", Outcome::Number(f64::NAN), OutcomesError::Number),
        ("a", Outcome::Number(f64::INFINITY), OutcomesError::Number),
        ("a", Outcome::Number(-1.1e100), OutcomesError::Number),
        ("a", label(&long), OutcomesError::Label(257)),
        ("", label("x"), OutcomesError::RequestId(0)),
        (&long, label("x"), OutcomesError::RequestId(257)),
    ];
    for (id, outcome, error) in cases {
        assert_eq!(outcomes.feedback("digits", id, outcome), Err(error));
    }
    assert!(outcomes.feedback("digits", "a", Outcome::Number(-1e100)).is_ok());
    assert!(outcomes.feedback("digits", &long[1..], label(&long[1..])).is_ok());
    outcomes.served(assignment("", 1, None));
    outcomes.served(assignment(&long, 1, None));
    assert_eq!((tally_of(&outcomes), outcomes.dropped()), (vec![], 2));
}

/// What a tally should be, from all that was told in its order.
#[derive(Default)]
struct Naive {
    assigned: HashMap<u64, (u64, Option<u64>)>,
    told: Vec<(u64, Outcome)>,
}

impl Naive {
    fn tally(&self) -> Vec<ArmTally> {
        let mut arms: BTreeMap<u64, ArmTally> = BTreeMap::new();
        let mut units = BTreeSet::new();
        for (version, unit) in self.assigned.values() {
            let arm = arms.entry(*version).or_insert(ArmTally { version: *version, ..ArmTally::default() });
            arm.requests += 1;
            arm.units += u64::from(unit.is_none_or(|unit| units.insert((*version, unit))));
        }
        let (mut ids, mut counted) = (BTreeSet::new(), BTreeSet::new());
        for (id, outcome) in &self.told {
            let Some((version, unit)) = self.assigned.get(id).filter(|_| ids.insert(*id)) else { continue };
            if unit.is_some_and(|unit| !counted.insert((*version, unit))) {
                continue;
            }
            let arm = arms.get_mut(version).unwrap();
            arm.outcomes += 1;
            match outcome {
                Outcome::Label(label) => *arm.labels.entry(label.clone()).or_default() += 1,
                Outcome::Number(number) => {
                    let numbers = arm.numbers.get_or_insert_default();
                    *numbers = Numbers {
                        n: numbers.n + 1,
                        sum: numbers.sum + number,
                        sum_of_squares: numbers.sum_of_squares + number * number,
                    };
                }
            }
        }
        arms.into_values().collect()
    }
}

#[test]
fn any_order_of_arrival_tallies_as_a_naive_count_does() {
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let (mut outcomes, mut naive) = (open(dir.path()), Naive::default());
        let sticky = seed % 3;
        for _ in 0..3000 {
            let id = random.u64(..900);
            match random.u8(..20) {
                0 if random.u8(..10) == 0 => {
                    drop(outcomes);
                    outcomes = open(dir.path());
                }
                0..12 => {
                    // Every request by itself, none by itself, or both in one experiment.
                    let unit = (sticky == 1 || (sticky == 2 && random.bool()))
                        .then(|| random.u64(..).rotate_left(3) % 40);
                    let version = random.u64(1..4);
                    outcomes.served(assignment(id, version, unit));
                    naive.assigned.entry(id).or_insert((version, unit));
                }
                _ => {
                    // Whole numbers have one sum in any order.
                    let number = Outcome::Number(f64::from(random.i32(-9..9)));
                    let outcome =
                        if random.bool() { number } else { label(["good", "bad"][random.usize(..2)]) };
                    let known = naive.told.iter().find(|(told, _)| *told == id).map(|(_, outcome)| outcome);
                    let taken = outcomes.feedback("digits", &id.to_string(), outcome.clone()).unwrap();
                    let expected = Taken {
                        already: known.is_some(),
                        conflicting: known.is_some_and(|known| *known != outcome),
                        joined: naive.assigned.contains_key(&id),
                    };
                    assert_eq!(taken, expected);
                    naive.told.push((id, outcome));
                }
            }
        }
        assert_eq!(tally_of(&outcomes), naive.tally(), "seed {seed}");
    }
}

#[test]
fn telling_of_an_assignment_never_waits() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    // The thread that writes stands still as long as somebody else holds the file.
    let holder = beside(dir.path());
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let told = WAITING_MAX as u64 + 20_000;
    let start = Instant::now();
    (0..told).for_each(|id| outcomes.served(assignment(id, 1, None)));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let dropped = outcomes.dropped();
    assert!((10_000..=20_000).contains(&dropped), "{dropped}");
    holder.execute_batch("COMMIT").unwrap();
    assert_eq!(tally_of(&outcomes)[0].requests, told - dropped);
    assert_eq!(outcomes.dropped(), dropped);
}

#[test]
fn what_a_failed_commit_loses_is_counted_and_later_ones_work() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    let sql = "CREATE TRIGGER fail AFTER INSERT ON requests BEGIN SELECT RAISE(ABORT, 'as asked'); END";
    beside(dir.path()).execute_batch(sql).unwrap();
    for _ in 0..2 {
        (0..10).for_each(|id| outcomes.served(assignment(id, 1, None)));
        let error = outcomes.feedback("digits", "0", label("good")).unwrap_err();
        assert!(error.to_string().contains("as asked"), "{error}");
        outcomes.flush().unwrap();
    }
    assert_eq!((tally_of(&outcomes), outcomes.dropped()), (vec![], 20));
    beside(dir.path()).execute_batch("DROP TRIGGER fail").unwrap();
    outcomes.served(assignment(0, 1, None));
    assert!(outcomes.feedback("digits", "0", label("good")).unwrap().joined);
    assert_eq!((tally_of(&outcomes)[0].outcomes, outcomes.dropped()), (1, 20));
}

#[test]
fn the_oldest_are_forgotten_in_steps() {
    let step = file::FORGET_STEP as u64;
    let day = Duration::from_hours(24);
    // Requests, how many may be, how long they are kept, their age; how many go with each step.
    let cases = [
        (25_000, 1_000_000, 30, 31, vec![step, step, 25_000 - 2 * step, 0]),
        (25_000, 1_000_000, 30, 29, vec![0]),
        (25_000, 12_000, 30, 1, vec![step, 3_000, 0]),
        (100, 0, 30, 1, vec![100, 0]),
    ];
    for (count, requests_max, keep, age, steps) in cases {
        let dir = tempfile::tempdir().unwrap();
        let connection = file::open(&dir.path().join(file::DATABASE)).unwrap();
        let sql = "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < ?1)
                   INSERT INTO requests (heard_ms, model, request_id) SELECT id / 100, 'digits', id FROM n";
        connection.execute(sql, [count]).unwrap();
        let config = OutcomesConfig { keep: keep * day, requests_max };
        let now_ms = (age * day).as_millis() as i64 + 250;
        for expected in steps {
            let gone = file::forget(&connection, &config, now_ms).unwrap();
            assert_eq!(gone as u64, expected, "{config:?}");
        }
    }
}

#[test]
fn no_more_than_the_limit_is_kept_while_more_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let config = OutcomesConfig { requests_max: 3000, ..OutcomesConfig::default() };
    let outcomes = Outcomes::open(dir.path(), config).unwrap();
    for id in 0..40_000 {
        outcomes.served(assignment(id, 1, None));
    }
    outcomes.flush().unwrap();
    // Forgetting follows the commit that was waited for; the next commit comes after it.
    outcomes.flush().unwrap();
    let kept = tally_of(&outcomes)[0].requests;
    assert!(kept <= 3000, "{kept}");
    assert!(!outcomes.feedback("digits", "1", label("late")).unwrap().joined);
    assert!(outcomes.feedback("digits", "39999", label("good")).unwrap().joined);
}

#[test]
fn a_damaged_file_is_moved_aside_and_outcomes_go_on() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 5] = [
        ("garbage", |path| std::fs::write(path, [b'x'; 9000]).unwrap()),
        ("cut off", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(8192).unwrap();
        }),
        ("another's", |path| {
            Connection::open(path).unwrap().pragma_update(None, "application_id", 7).unwrap()
        }),
        ("newer", |path| Connection::open(path).unwrap().pragma_update(None, "user_version", 2).unwrap()),
        ("zeroed", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[4096..].fill(0);
            std::fs::write(path, bytes).unwrap();
        }),
    ];
    for (what, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let outcomes = open(dir.path());
        (0..500).for_each(|id| outcomes.served(assignment(id, 1, None)));
        drop(outcomes);
        damage(&dir.path().join(file::DATABASE));
        for round in 0..2 {
            let outcomes = open(dir.path());
            outcomes.served(assignment(round, 1, None));
            assert_eq!(tally_of(&outcomes)[0].requests, round + 1, "{what}");
        }
        assert!(dir.path().join("outcomes.sqlite.damaged").exists(), "{what}");
    }
}

#[test]
fn a_file_that_is_damaged_while_it_is_used_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(file::DATABASE);
    let outcomes = open(dir.path());
    (0..20_000).for_each(|id| outcomes.served(assignment(id, 1, None)));
    outcomes.flush().unwrap();
    beside(dir.path()).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0x5a);
    // Over the same file, as a failing disk would.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    assert!(matches!(outcomes.tally("digits", "rollout-1"), Err(OutcomesError::Malformed(_))));
    outcomes.served(assignment("new", 2, None));
    assert!(outcomes.feedback("digits", "new", label("good")).unwrap().joined);
    assert_eq!(tally_of(&outcomes), outcomes.tally("digits", "rollout-1").unwrap());
    assert_eq!(tally_of(&outcomes).last().unwrap().version, 2);
    assert!(dir.path().join("outcomes.sqlite.damaged").exists());
}

#[test]
fn what_is_acknowledged_is_in_the_file_that_a_restart_opens() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("state");
    let mut outcomes = open(&dir);
    let harms: [fn(&Path); 4] = [
        |dir| std::fs::remove_file(dir.join(file::DATABASE)).unwrap(),
        |dir| std::fs::remove_file(dir.join("outcomes.sqlite-wal")).unwrap(),
        |dir| File::options().write(true).open(dir.join("outcomes.sqlite-wal")).unwrap().set_len(0).unwrap(),
        |dir| {
            std::fs::rename(dir, dir.with_extension("away")).unwrap();
            std::fs::create_dir(dir).unwrap();
        },
    ];
    for (round, harm) in harms.into_iter().enumerate() {
        outcomes.feedback("digits", "before", label("good")).unwrap();
        harm(&dir);
        let id = format!("after-{round}");
        outcomes.served(assignment(&id, 1, None));
        assert!(outcomes.feedback("digits", &id, label("good")).unwrap().joined, "{round}");
        drop(outcomes);
        outcomes = open(&dir);
        assert!(outcomes.feedback("digits", &id, label("good")).unwrap().already, "{round}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
    let error = outcomes.feedback("digits", "gone", label("good")).unwrap_err();
    assert!(matches!(error, OutcomesError::Unopened(_)) && !error.to_string().contains('/'), "{error}");
    let error = outcomes.tally("digits", "rollout-1").unwrap_err();
    assert!(!error.to_string().contains('/'), "{error}");
}

#[test]
fn nothing_of_outcomes_is_mapped_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    outcomes.served(assignment("a", 1, None));
    assert_eq!(tally_of(&outcomes)[0].requests, 1);
    assert!(!dir.path().join("outcomes.sqlite-shm").exists());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(dir.path().to_str().unwrap()), "{maps}");
}

#[test]
fn what_is_no_regular_file_is_no_file_of_outcomes_and_not_waited_for() {
    for name in ["outcomes.sqlite", "outcomes.sqlite-wal"] {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join(name)).status().unwrap();
        assert!(made.success());
        let error = Outcomes::open(dir.path(), OutcomesConfig::default()).err().unwrap().to_string();
        assert!(error.contains(&format!("'{name}' is no regular file: move it away")), "{error}");
    }
}

#[test]
fn a_file_that_is_sound_is_kept_whoever_suspects_it() {
    let dir = tempfile::tempdir().unwrap();
    let outcomes = open(dir.path());
    outcomes.served(assignment("a", 1, None));
    outcomes.send(Message::Suspect).unwrap();
    assert_eq!(tally_of(&outcomes)[0].requests, 1);
    assert!(!dir.path().join("outcomes.sqlite.damaged").exists());
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Some(folder) = folder() else { return };
    let outcomes = open(Path::new(&folder));
    for n in 0.. {
        let id = format!("{}-{n}", std::process::id());
        outcomes.served(assignment(&id, 1, None));
        outcomes.feedback("digits", &id, Outcome::Number(n as f64)).unwrap();
        acknowledge(n);
    }
}

#[test]
fn acknowledged_outcomes_survive_kill_9() {
    let rounds: u32 = std::env::var("WEIR_KILLS").map_or(10, |rounds| rounds.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(37);
    let dir = tempfile::tempdir().unwrap();
    let mut checked = 0;
    for _ in 0..rounds {
        let after = Duration::from_micros(random.u64(..80_000));
        let killed = write_and_kill("control::outcomes::tests::child", dir.path(), after);
        let outcomes = open(dir.path());
        for n in 0..killed.acknowledged.map_or(0, |last| last + 1) {
            let id = format!("{}-{n}", killed.process);
            let taken = outcomes.feedback("digits", &id, Outcome::Number(n as f64)).unwrap();
            assert_eq!(taken, Taken { already: true, conflicting: false, joined: true }, "{id}");
            checked += 1;
        }
    }
    println!("{rounds} kills, {checked} acknowledged outcomes");
    assert!(checked > rounds, "{checked} outcomes were acknowledged");
    assert!(!dir.path().join("outcomes.sqlite.damaged").exists());
}

/// `cargo test --lib -- --ignored --nocapture million`
#[test]
#[ignore = "a measurement"]
fn a_million_assignments_are_tallied() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, units) in [("by unit", Some(200_000)), ("by request", None)] {
        let dir = dir.path().join(kind);
        let outcomes = open(&dir);
        let mut random = fastrand::Rng::with_seed(1);
        let ids: Vec<String> = (0..1_000_000).map(|_| format!("{:032x}", random.u128(..))).collect();
        let start = Instant::now();
        for (n, id) in ids.iter().enumerate() {
            let unit = units.map(|units| random.u64(..units));
            outcomes.served(assignment(id, unit.unwrap_or(n as u64) % 2 + 1, unit));
            if n % 20_000 == 0 {
                outcomes.flush().unwrap();
            }
        }
        outcomes.flush().unwrap();
        let written = start.elapsed();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in ids[..100_000].chunks(12_500) {
                let outcomes = &outcomes;
                scope.spawn(move || {
                    for id in part {
                        assert!(outcomes.feedback("digits", id, label("good")).unwrap().joined);
                    }
                });
            }
        });
        let told = start.elapsed();
        let start = Instant::now();
        let tally = tally_of(&outcomes);
        let tallied = start.elapsed();
        let bytes = dir.join(file::DATABASE).metadata().unwrap().len();
        println!(
            "{kind}: written {written:?}, 100 000 outcomes by 8 threads {told:?}, tallied {tallied:?}, {bytes} bytes, dropped {}",
            outcomes.dropped()
        );
        println!("{tally:?}");
    }
}
