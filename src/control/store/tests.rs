//! What the store promises while nothing goes wrong.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rusqlite::Connection;
use serde_json::json;

use super::*;

pub(super) fn document(kind: &str, key: &str, body: Option<&str>) -> Document {
    Document { kind: kind.to_owned(), key: key.to_owned(), body: body.map(str::to_owned) }
}

pub(super) fn entry(n: u64) -> Entry {
    Entry {
        actor: "operator".to_owned(),
        action: "route".to_owned(),
        model: Some(format!("model-{}", n % 3)),
        version: Some(n + 1),
        from: json!(n.checked_sub(1)),
        to: json!(n),
        outcome: "done".to_owned(),
        digest: None,
    }
}

/// Commits entries numbered from 0, one transaction each, with a document that holds the last number.
pub(super) fn fill(store: &Store, count: u64) -> Vec<Record> {
    let one = |n: u64| Transaction {
        documents: vec![document("route", "a", Some(&n.to_string()))],
        entries: vec![entry(n)],
    };
    (0..count).flat_map(|n| store.commit(one(n)).unwrap()).collect()
}

pub(super) fn all(reader: &Reader) -> Result<Vec<Record>, StoreError> {
    let query = Query { order: Order::Oldest { after: 0 }, limit: RECORDS_MAX, model: None };
    reader.records(&query).map(|page| page.records)
}

/// A connection beside the store, as a tamperer has it.
pub(super) fn beside(dir: &Path) -> Connection {
    Connection::open(dir.join(files::DATABASE)).unwrap()
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.head().unwrap(), Head::genesis());
    let committed = fill(&store, 5);
    store.save(vec![document("rollout", "x", Some("{}")), document("route", "b", Some("\u{e9}\0"))]).unwrap();
    store.save(vec![document("rollout", "x", None), document("rollout", "absent", None)]).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let (a, b) = (("a".to_owned(), "4".to_owned()), ("b".to_owned(), "\u{e9}\0".to_owned()));
    assert_eq!(store.documents("route").unwrap(), [a, b]);
    assert_eq!(store.documents("rollout").unwrap(), []);
    assert_eq!(all(&store.reader()).unwrap(), committed);
    let head = store.head().unwrap();
    assert_eq!((head.seq, &head.hash), (5, &committed[4].hash));
    assert_eq!(verify(dir.path(), Some(&head)).unwrap(), Verified { records: 5, head });
}

#[test]
fn pages_run_both_ways_and_by_model() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    fill(&store, 10);
    let newest = |before| Order::Newest { before };
    let oldest = |after| Order::Oldest { after };
    let cases: [(Order, usize, Option<&str>, &[u64]); 9] = [
        (newest(None), 3, None, &[10, 9, 8]),
        (newest(Some(8)), 3, None, &[7, 6, 5]),
        (newest(Some(1)), 3, None, &[]),
        (newest(Some(u64::MAX)), 1, None, &[10]),
        (oldest(0), 2, None, &[1, 2]),
        (oldest(9), usize::MAX, None, &[10]),
        (oldest(u64::MAX), 2, None, &[]),
        (newest(None), 3, Some("model-1"), &[8, 5, 2]),
        (oldest(4), 3, Some("model-0"), &[7, 10]),
    ];
    for (order, limit, model, expected) in cases {
        let query = Query { order, limit, model: model.map(str::to_owned) };
        let page = store.records(&query).unwrap();
        let found: Vec<u64> = page.records.iter().map(|record| record.seq).collect();
        assert_eq!(found, expected, "{query:?}");
    }
}

#[test]
fn a_page_ends_where_its_bytes_do_and_the_next_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let sized = |n: u64, bytes: usize| Entry { to: json!("x".repeat(bytes)), ..entry(n) };
    let third = PAGE_BYTES_MAX / 3;
    let sizes = [9, third, third, third, BODY_BYTES_MAX - 1000, 9, 9];
    let entries = sizes.iter().zip(0..).map(|(bytes, n)| sized(n, *bytes)).collect();
    store.commit(Transaction { documents: Vec::new(), entries }).unwrap();
    let mut pages = Vec::new();
    let (mut before, mut more) = (None, true);
    while more {
        let query = Query { order: Order::Newest { before }, limit: 100, model: None };
        let page = store.records(&query).unwrap();
        let found: Vec<u64> = page.records.iter().map(|record| record.seq).collect();
        (before, more) = (found.last().copied(), page.more);
        pages.push(found);
    }
    assert_eq!(pages, [vec![7, 6], vec![5], vec![4, 3], vec![2, 1]]);
    let last = store.records(&Query { order: Order::Newest { before: None }, limit: 7, model: None });
    assert!(last.unwrap().more);
    let all = store.records(&Query { order: Order::Newest { before: Some(3) }, limit: 2, model: None });
    assert!(!all.unwrap().more);
}

#[test]
fn the_documents_with_the_highest_numbers_come_first_and_those_of_others_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let keys = ["m/r1", "m/r9", "m/r10", "m/r11", "m/r100", "m", "m.a/r7", "m-/r7", "m0/r7", "n/r7"];
    store.save(keys.map(|key| document("experiment", key, Some(key))).to_vec()).unwrap();
    let highest = |below: &str, limit: usize| {
        let found = store.highest("experiment", below, limit).unwrap();
        found.into_iter().map(|(key, _)| key).collect::<Vec<String>>()
    };
    assert_eq!(highest("m", 100), ["m/r100", "m/r11", "m/r10", "m/r9", "m/r1"]);
    assert_eq!(highest("m", 2), ["m/r100", "m/r11"]);
    assert_eq!(highest("m0", 2), ["m0/r7"]);
    assert_eq!(store.document("experiment", "m/r9").unwrap().as_deref(), Some("m/r9"));
    assert_eq!(store.document("experiment", "m/r2").unwrap(), None);
}

#[test]
fn records_of_one_model_are_found_by_the_index() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let sql = "EXPLAIN QUERY PLAN SELECT seq, body, hash FROM audit
               WHERE seq < ?1 AND json_extract(body, '$.model') = ?3 ORDER BY seq DESC LIMIT ?2";
    let plan: String = beside(dir.path()).query_row(sql, (9, 9, "a"), |row| row.get("detail")).unwrap();
    assert!(plan.contains("audit_by_model"), "{plan}");
}

#[test]
fn a_folder_serves_one_server_and_any_number_of_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/state");
    assert!(matches!(verify(&path, None), Err(StoreError::Absent(_))));
    let store = Store::open(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(path.join(files::DATABASE).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let error = Store::open(&path).err().unwrap();
    assert!(
        matches!(error, StoreError::InUse(_)) && error.to_string().contains("in use by another weir"),
        "{error}"
    );
    let before = Store::inspect(&path).unwrap();
    fill(&store, 3);
    let after = Store::inspect(&path).unwrap();
    drop(store);
    let again = Store::open(&path).unwrap();
    fill(&again, 1);
    assert_eq!(before.verify(None).unwrap().records, 0);
    assert_eq!(after.verify(None).unwrap().records, 3);
    assert_eq!(after.documents("route").unwrap().len(), 1);
    assert_eq!(verify(&path, None).unwrap().records, 4);
}

#[test]
fn what_is_looked_at_while_it_is_written_is_one_moment() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let committed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (store, committed) = (&store, &committed);
        scope.spawn(move || {
            // Far more than a log holds before it is folded into the database and begins anew.
            for n in 0..300 {
                let documents = vec![document("route", "a", Some(&format!("{n}{}", " ".repeat(50_000))))];
                let entries = vec![entry(n)];
                committed.store(
                    store.commit(Transaction { documents, entries }).unwrap()[0].seq,
                    Ordering::SeqCst,
                );
            }
        });
        while committed.load(Ordering::SeqCst) < 300 {
            let before = committed.load(Ordering::SeqCst);
            let reader = Store::inspect(dir.path()).unwrap();
            let records = reader.verify(None).unwrap().records;
            assert!(before <= records && records <= 300, "{before} {records}");
            let body = reader
                .documents("route")
                .unwrap()
                .pop()
                .map_or(0, |(_, body)| body.trim_end().parse::<u64>().unwrap() + 1);
            assert_eq!(body, records);
        }
    });
}

#[test]
fn nothing_of_a_store_is_mapped_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    fill(&store, 3);
    let mut names: Vec<_> =
        dir.path().read_dir().unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["lock", "weir.sqlite", "weir.sqlite-wal"]);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let dir = dir.path().to_str().unwrap();
    assert!(maps.lines().all(|line| !line.contains(dir)), "{maps}");
}

#[test]
fn changes_are_refused_while_a_restart_would_not_find_them() {
    type Harm = fn(&Path);
    let away: Harm = |state| std::fs::rename(state, state.with_extension("away")).unwrap();
    let back: Harm = |state| {
        let _ = std::fs::remove_dir_all(state);
        std::fs::rename(state.with_extension("away"), state).unwrap();
    };
    let cases: [(&str, Harm, Option<Harm>); 6] = [
        ("renamed", away, Some(back)),
        (
            "another",
            |state| {
                std::fs::rename(state, state.with_extension("away")).unwrap();
                drop(Store::open(state).unwrap());
            },
            Some(back),
        ),
        ("removed", |state| std::fs::remove_dir_all(state).unwrap(), None),
        ("without its database", |state| std::fs::remove_file(state.join("weir.sqlite")).unwrap(), None),
        ("without its log", |state| std::fs::remove_file(state.join("weir.sqlite-wal")).unwrap(), None),
        (
            "cut off",
            |state| {
                File::options().write(true).open(state.join("weir.sqlite-wal")).unwrap().set_len(0).unwrap();
            },
            None,
        ),
    ];
    for (what, harm, mend) in cases {
        let top = tempfile::tempdir().unwrap();
        let state = top.path().join("state");
        let store = Store::open(&state).unwrap();
        let committed = fill(&store, 2);
        harm(&state);
        for _ in 0..2 {
            let error =
                store.commit(Transaction { documents: Vec::new(), entries: vec![entry(9)] }).unwrap_err();
            assert!(matches!(error, StoreError::Lost), "{what}: {error}");
            assert!(!error.to_string().contains('/'), "{error}");
        }
        let Some(mend) = mend else { continue };
        mend(&state);
        assert_eq!(fill(&store, 1)[0].seq, 3, "{what}");
        drop(store);
        assert_eq!(all(&Store::open(&state).unwrap().reader()).unwrap()[..2], committed, "{what}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    for name in ["lock", "weir.sqlite", "weir.sqlite-wal", "weir.sqlite-journal"] {
        let dir = tempfile::tempdir().unwrap();
        fill(&Store::open(dir.path()).unwrap(), 1);
        let path = dir.path().join(name);
        let harms: [fn(&Path); 3] = [
            |path| assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success()),
            |path| std::fs::create_dir(path).unwrap(),
            |path| std::os::unix::fs::symlink("/dev/full", path).unwrap(),
        ];
        let _ = std::fs::rename(&path, dir.path().join("aside"));
        for harm in harms {
            harm(&path);
            let error = Store::open(dir.path()).err().unwrap().to_string();
            assert!(error.contains(&format!("'{name}' is no regular file: move it away")), "{error}");
            std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)).unwrap();
        }
        let _ = std::fs::rename(dir.path().join("aside"), &path);
        assert_eq!(Store::open(dir.path()).unwrap().head().unwrap().seq, 1);
    }
}

#[test]
fn transactions_of_many_threads_form_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let acknowledged = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (store, acknowledged) = (&store, &acknowledged);
            scope.spawn(move || {
                for n in 0..25 {
                    let entries = vec![entry(n), Entry { actor: format!("thread-{thread}"), ..entry(n) }];
                    let records = store.commit(Transaction { documents: Vec::new(), entries }).unwrap();
                    assert_eq!(records[0].seq + 1, records[1].seq);
                    assert_eq!(records[1].actor, format!("thread-{thread}"));
                    acknowledged.fetch_add(2, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(verify(dir.path(), None).unwrap().records, acknowledged.into_inner());
}

#[test]
fn what_is_no_state_of_this_form_is_refused_and_left_alone() {
    type Prepare = fn(&Connection);
    let cases: [(&str, Prepare); 3] = [
        ("is of form 2", |state| state.pragma_update(None, "user_version", 2).unwrap()),
        ("not one of weir's", |state| state.pragma_update(None, "application_id", 7).unwrap()),
        ("no such table", |state| state.execute_batch("DROP TABLE head").unwrap()),
    ];
    for (sentence, prepare) in cases {
        let dir = tempfile::tempdir().unwrap();
        fill(&Store::open(dir.path()).unwrap(), 2);
        prepare(&beside(dir.path()));
        for error in [Store::open(dir.path()).err(), verify(dir.path(), None).err()] {
            let error = error.unwrap().to_string();
            assert!(error.contains(sentence), "{error}");
        }
        let rows: i64 =
            beside(dir.path()).query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }
}

#[test]
fn what_is_too_large_is_refused_and_fails_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
    let error = store.save(vec![document("a", "b", Some(&large))]).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "a document", .. }), "{error}");
    let large = Entry { to: json!("x".repeat(BODY_BYTES_MAX)), ..entry(0) };
    let documents = vec![document("a", "b", Some("c"))];
    let error = store.commit(Transaction { documents, entries: vec![entry(0), large] }).unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { what: "a record", .. }), "{error}");
    assert_eq!((store.documents("a").unwrap().len(), store.head().unwrap().seq), (0, 0));
    assert_eq!(fill(&store, 1)[0].seq, 1);
}

/// `cargo test --lib -- --ignored --nocapture commits_per_second`
#[test]
#[ignore = "a measurement"]
fn commits_per_second_and_verification() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for threads in [1, 8, 32] {
        let (each, start) = (2000 / threads, Instant::now());
        std::thread::scope(|scope| {
            (0..threads).for_each(|_| drop(scope.spawn(|| fill(&store, each))));
        });
        let seconds = start.elapsed().as_secs_f64();
        println!("{threads} threads: {:.0} commits/s", (each * threads) as f64 / seconds);
    }
    let start = Instant::now();
    let entries: Vec<Entry> = (0..100_000).map(entry).collect();
    for entries in entries.chunks(1000) {
        store.commit(Transaction { documents: Vec::new(), entries: entries.to_vec() }).unwrap();
    }
    println!("100 000 records, 1000 to a commit: {:?}", start.elapsed());
    let start = Instant::now();
    let verified = verify(dir.path(), None).unwrap();
    println!("{} records verified in {:?}", verified.records, start.elapsed());
    let query =
        Query { order: Order::Newest { before: None }, limit: 100, model: Some("model-1".to_owned()) };
    let start = Instant::now();
    store.records(&query).unwrap();
    println!("a page of 100 of one model: {:?}", start.elapsed());
}
