//! What the store does when the disk is full or read-only, and what `verify` tells of damage and tampering.

use rusqlite::Connection;

use super::tests::{all, beside, document, entry, fill};
use super::*;

fn transaction(key: &str, body: &str) -> Transaction {
    Transaction { documents: vec![document("route", key, Some(body))], entries: vec![entry(0)] }
}

fn count(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// A state with a trigger that fails what is written under the key `bad`, in SQLite's way `how`.
fn with_trigger(dir: &Path, how: &str) -> Connection {
    let connection = files::open_for_writing(dir).unwrap();
    let sql = format!(
        "CREATE TRIGGER fail AFTER INSERT ON documents WHEN NEW.key = 'bad'
         BEGIN SELECT RAISE({how}, 'as asked'); END"
    );
    connection.execute_batch(&sql).unwrap();
    connection
}

#[test]
fn one_that_fails_fails_alone() {
    // ABORT takes back the statement; ROLLBACK takes back the whole group, as a full disk may.
    for how in ["ABORT", "FAIL", "ROLLBACK"] {
        let dir = tempfile::tempdir().unwrap();
        let connection = with_trigger(dir.path(), how);
        let group = ["a", "bad", "b", "bad", "c"].map(|key| transaction(key, "1"));
        let answers = writer::commit(&connection, &group);
        let seqs: Vec<_> =
            answers.iter().map(|answer| answer.as_ref().ok().map(|records| records[0].seq)).collect();
        assert_eq!(seqs, [Some(1), None, Some(2), None, Some(3)], "{how}");
        assert!(answers[1].as_ref().unwrap_err().to_string().contains("as asked"));
        assert_eq!((count(&connection, "documents"), count(&connection, "audit")), (3, 3));
        assert_eq!(verify(dir.path(), None).unwrap().records, 3);
    }
}

#[test]
fn a_full_database_changes_nothing_and_takes_more_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let connection = files::open_for_writing(dir.path()).unwrap();
    let pages =
        |count: u32| connection.pragma_update_and_check(None, "max_page_count", count, |_| Ok(())).unwrap();
    pages(20);
    let large = "x".repeat(200_000);
    for _ in 0..3 {
        let group = [transaction("a", "1"), transaction("b", &large), transaction("c", "1")];
        let answers = writer::commit(&connection, &group);
        assert!(answers[0].is_ok() && answers[2].is_ok());
        assert!(matches!(answers[1], Err(StoreError::Full)), "{:?}", answers[1]);
    }
    assert_eq!((count(&connection, "documents"), count(&connection, "audit")), (2, 6));
    pages(1_000_000);
    assert!(writer::commit(&connection, &[transaction("b", &large)])[0].is_ok());
    assert_eq!(verify(dir.path(), None).unwrap().records, 7);
}

#[test]
fn a_connection_that_may_not_write_says_so_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let connection = files::open_for_writing(dir.path()).unwrap();
    connection.pragma_update(None, "query_only", true).unwrap();
    for answer in writer::commit(&connection, &[transaction("a", "1"), transaction("b", "1")]) {
        assert!(matches!(answer, Err(StoreError::ReadOnly)), "{answer:?}");
    }
    connection.pragma_update(None, "query_only", false).unwrap();
    assert!(writer::commit(&connection, &[transaction("a", "1")])[0].is_ok());
}

/// Needs a folder on a file system of one to four megabytes of its own:
/// `mount -t tmpfs -o size=2m tmpfs /mnt/small && WEIR_SMALL_DISK=/mnt/small cargo test --lib -- --ignored small_disk`
#[test]
#[ignore = "needs a small file system"]
fn a_small_disk_fills_up_and_is_used_again() {
    let small = PathBuf::from(std::env::var_os("WEIR_SMALL_DISK").expect("WEIR_SMALL_DISK names a folder"));
    let dir = small.join("state");
    let store = Store::open(&dir).unwrap();
    let before = fill(&store, 10);
    for round in 0..5 {
        let ballast = small.join("ballast");
        // A disk takes what it can and says that it is full.
        assert!(std::fs::write(&ballast, vec![1; 8 << 20]).is_err());
        let mut refused = 0;
        for n in 0..50 {
            match store.commit(transaction(&format!("{round}-{n}"), &"x".repeat(20_000))) {
                Ok(_) => {}
                Err(StoreError::Full) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused > 0);
        let head = store.head().unwrap();
        assert_eq!(verify(&dir, None).unwrap().head, head);
        std::fs::remove_file(&ballast).unwrap();
        assert_eq!(store.commit(transaction("small", "1")).unwrap()[0].seq, head.seq + 1);
        let documents = store.documents("route").unwrap();
        store.save(documents.iter().map(|(key, _)| document("route", key, None)).collect()).unwrap();
    }
    drop(store);
    let verified = verify(&dir, None).unwrap();
    assert!(verified.records >= 15);
    assert_eq!(all(&Store::inspect(&dir).unwrap()).unwrap()[..10], before);
    assert!(Store::open(&dir).is_ok());
}

/// Needs a state folder on a file system that is mounted read-only, whole or with the log of a killed server:
/// `WEIR_READ_ONLY=/mnt/state cargo test --lib -- --ignored read_only_medium`
#[test]
#[ignore = "needs a read-only file system"]
fn a_read_only_medium_can_be_verified_and_not_served() {
    let dir = PathBuf::from(std::env::var_os("WEIR_READ_ONLY").expect("WEIR_READ_ONLY names a folder"));
    let verified = verify(&dir, None).unwrap();
    println!("{verified:?}");
    assert!(verified.records > 0);
    let error = Store::open(&dir).err().unwrap();
    println!("{error}");
    assert!(error.to_string().to_lowercase().contains("read-only"), "{error}");
}

#[test]
fn tampering_with_the_database_is_told_by_the_chain() {
    let cases = [
        (3, "UPDATE audit SET body = replace(body, 'operator', 'nobody') WHERE seq = 3"),
        (3, "UPDATE audit SET body = body || ' ' WHERE seq = 3"),
        (3, "UPDATE audit SET hash = upper(hash) WHERE seq = 3"),
        (1, "DELETE FROM audit WHERE seq = 1"),
        (4, "DELETE FROM audit WHERE seq = 4"),
        (8, "DELETE FROM audit WHERE seq = 8"),
        (1, "DELETE FROM audit"),
        (9, "UPDATE head SET seq = 9"),
        (8, "UPDATE head SET seq = 7"),
        (8, "DELETE FROM head"),
        (8, "UPDATE head SET hash = (SELECT hash FROM audit WHERE seq = 7)"),
        (5, "UPDATE audit SET seq = 50 WHERE seq = 5"),
        (1, "UPDATE audit SET seq = -1 WHERE seq = 5"),
        (1, "UPDATE audit SET seq = 0 WHERE seq = 1"),
        (9, "INSERT INTO audit SELECT 9, body, hash FROM audit WHERE seq = 8"),
        (2, "UPDATE audit SET body = (SELECT body FROM audit WHERE seq = 3) WHERE seq = 2"),
    ];
    for (seq, sql) in cases {
        let dir = tempfile::tempdir().unwrap();
        fill(&Store::open(dir.path()).unwrap(), 8);
        beside(dir.path()).execute_batch(sql).unwrap();
        match verify(dir.path(), None) {
            Err(StoreError::Broken(broken)) => assert_eq!(broken.seq, seq, "{sql}: {broken}"),
            other => panic!("{sql}: {other:?}"),
        }
        // What is wrong at the end is noticed when a server starts.
        if seq >= 8 {
            assert!(matches!(Store::open(dir.path()).err(), Some(StoreError::Broken(_))), "{sql}");
        }
    }
}

#[test]
fn damage_that_sqlite_notices_is_told_apart_from_a_broken_chain() {
    let dir = tempfile::tempdir().unwrap();
    fill(&Store::open(dir.path()).unwrap(), 50);
    let path = dir.path().join(files::DATABASE);
    let whole = std::fs::read(&path).unwrap();
    for damage in [&whole[..whole.len() / 2], &[b'x'; 8192], &[]] {
        std::fs::write(&path, damage).unwrap();
        let error = verify(dir.path(), None).unwrap_err();
        assert!(matches!(error, StoreError::Malformed(_)), "{error}");
        assert!(matches!(Store::open(dir.path()).err(), Some(StoreError::Malformed(_))));
    }
    // A log without its database must not be folded into a new one.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join("weir.sqlite-wal"), "x").unwrap();
    assert!(matches!(Store::open(dir.path()).err(), Some(StoreError::Malformed(_))));
    std::fs::remove_file(dir.path().join("weir.sqlite-wal")).unwrap();
    // An index that lost a record: the chain is whole, the database is not.
    std::fs::write(&path, &whole).unwrap();
    let connection = beside(dir.path());
    let sql = "PRAGMA writable_schema = ON;
               UPDATE sqlite_schema SET sql = replace(sql, '$.model', '$.actor') WHERE name = 'audit_by_model'";
    connection.execute_batch(sql).unwrap();
    drop(connection);
    let error = verify(dir.path(), None).unwrap_err();
    assert!(matches!(error, StoreError::Malformed(_)), "{error}");
}

#[test]
fn a_byte_changed_in_the_file_is_found_or_changes_no_record() {
    let rounds = std::env::var("WEIR_FLIPS").map_or(1500, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let original = fill(&store, 60);
    drop(store);
    let path = dir.path().join(files::DATABASE);
    let whole = std::fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(23);
    let (mut broken, mut malformed, mut other, mut harmless) = (0, 0, 0, 0);
    for round in 0..rounds {
        let mut bytes = whole.clone();
        // The first page holds little of the data, and most of what SQLite goes by.
        let end = if round % 4 == 0 { 4096 } else { bytes.len() };
        let at = random.usize(..end);
        bytes[at] ^= random.u8(1..);
        std::fs::write(&path, &bytes).unwrap();
        match Store::inspect(dir.path()).and_then(|reader| reader.verify(None).map(|_| reader)) {
            Err(StoreError::Broken(_)) => broken += 1,
            Err(StoreError::Malformed(_)) => malformed += 1,
            Err(_) => other += 1,
            Ok(reader) => {
                assert_eq!(all(&reader).unwrap(), original, "byte {at}");
                let model = original[7].model.clone();
                let query =
                    Query { order: Order::Oldest { after: 0 }, limit: RECORDS_MAX, model: model.clone() };
                let of_model: Vec<Record> =
                    original.iter().filter(|record| record.model == model).cloned().collect();
                assert_eq!(reader.records(&query).unwrap().records, of_model, "byte {at}");
                harmless += 1;
            }
        }
    }
    println!("broken {broken}, malformed {malformed}, refused otherwise {other}, harmless {harmless}");
    assert!(broken > rounds / 10 && malformed > rounds / 50, "{broken} {malformed} {other} {harmless}");
}
