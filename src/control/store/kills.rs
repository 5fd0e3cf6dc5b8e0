//! What was acknowledged survives `kill -9` at any moment.
//!
//! The test starts its own program again as a child that commits as fast as it can and says what was acknowledged;
//! then it kills the child and looks at what the folder holds.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::tests::document;
use super::*;
use crate::control::killed::{acknowledge, folder, write_and_kill};

const CHILD: &str = "control::store::kills::child";

/// Threads of the child that commit, so that transactions share syncs.
const THREADS: usize = 3;

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn child() {
    let Some(folder) = folder() else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || commit_for_ever(store, &format!("model-{thread}")));
        }
    });
}

/// Changes one model's route and says each acknowledged record's number.
fn commit_for_ever(store: &Store, model: &str) {
    let stands = store.documents("route").unwrap().into_iter().find(|(key, _)| key == model);
    let mut from: Value = stands.map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap());
    for n in 1_u64.. {
        // Now and then the route is taken away, and progress is saved without a record.
        let to = if n.is_multiple_of(5) {
            Value::Null
        } else {
            json!({"version": n, "pad": "x".repeat(n as usize % 900)})
        };
        let body = (!to.is_null()).then(|| to.to_string());
        let entry = Entry { model: Some(model.to_owned()), from, to: to.clone(), ..Entry::default() };
        let documents = vec![document("route", model, body.as_deref())];
        let records = store.commit(Transaction { documents, entries: vec![entry] }).unwrap();
        acknowledge(records[0].seq);
        store.save(vec![document("progress", model, Some(&records[0].seq.to_string()))]).unwrap();
        from = to;
    }
}

/// Every document is what the last record of its model says. Returns how many records there are.
fn check(dir: &Path, acknowledged: u64) -> u64 {
    let reader = match Store::inspect(dir) {
        // Killed before the database was made.
        Err(StoreError::Absent(_)) if acknowledged == 0 => return 0,
        reader => reader.unwrap(),
    };
    let verified = reader.verify(None).unwrap();
    assert!(verified.records >= acknowledged, "record {acknowledged} was acknowledged: {verified:?}");
    let mut routes: BTreeMap<String, Value> = BTreeMap::new();
    for (model, body) in reader.documents("route").unwrap() {
        routes.insert(model, serde_json::from_str(&body).unwrap());
    }
    for model in (0..THREADS).map(|thread| format!("model-{thread}")) {
        let query = Query { order: Order::Newest { before: None }, limit: 1, model: Some(model.clone()) };
        let said = reader.records(&query).unwrap().records.pop().map_or(Value::Null, |record| record.to);
        assert_eq!(routes.remove(&model).unwrap_or(Value::Null), said, "{model}");
    }
    for (model, seq) in reader.documents("progress").unwrap() {
        assert!(seq.parse::<u64>().unwrap() <= verified.records, "{model}");
    }
    verified.records
}

/// `WEIR_KILLS` sets the number of rounds; all but every eighth are in one folder.
#[test]
fn acknowledged_changes_survive_kill_9() {
    let rounds: u32 = std::env::var("WEIR_KILLS").map_or(40, |rounds| rounds.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(31);
    let dir = tempfile::tempdir().unwrap();
    let (mut acknowledged, mut records, mut unacknowledged) = (0, 0, 0);
    for round in 0..rounds {
        // Early moments too: while the child makes the database, or takes up the log that another left.
        let after = Duration::from_micros(random.u64(..60_000));
        let fresh = (round % 8 == 0).then(|| tempfile::tempdir().unwrap());
        if let Some(fresh) = fresh {
            let said = write_and_kill(CHILD, fresh.path(), after).acknowledged.unwrap_or(0);
            check(fresh.path(), said);
            continue;
        }
        let said = write_and_kill(CHILD, dir.path(), after).acknowledged.unwrap_or(0);
        assert!(said == 0 || said > acknowledged, "numbers go on where they ended");
        acknowledged = acknowledged.max(said);
        records = check(dir.path(), acknowledged.max(records));
        unacknowledged += u32::from(records > acknowledged);
    }
    println!(
        "{rounds} kills, {records} records, {unacknowledged} rounds with a record that was not yet acknowledged"
    );
    assert!(acknowledged > u64::from(rounds), "{acknowledged} records were acknowledged");
}
