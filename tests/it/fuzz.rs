//! Inputs that fuzzing found worth keeping, and those that once broke something, each time the tests run.

use std::path::{Path, PathBuf};

use crate::support::project;

#[path = "../fuzz/properties.rs"]
mod properties;

/// What must hold of any bytes.
type Property = fn(&[u8]);

/// Every target's name and what must hold for its inputs.
const TARGETS: &[(&str, Property)] = &[
    ("answers", properties::answers),
    ("bytes", properties::bytes),
    ("config", properties::config),
    ("grpc", properties::grpc),
    ("gzip", properties::gzip),
    ("json", properties::json),
    ("onnx", properties::onnx),
    ("paths", properties::paths),
    ("routes", properties::routes),
];

/// The whole corpus stays small enough for everyone's checkout.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 1 << 20;

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn names(folder: &str) -> Vec<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries(&project(folder)).into_iter().map(name).collect()
}

#[test]
fn every_file_of_the_corpus_keeps_its_property() {
    for (target, property) in TARGETS {
        let files = entries(&project("tests/fuzz/corpus").join(target));
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let data = std::fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| property(&data));
            assert!(outcome.is_ok(), "{} breaks the property of {target}", file.display());
        }
    }
}

#[test]
fn every_target_is_replayed_and_the_corpus_stays_small() {
    let replayed: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names("tests/fuzz/fuzz_targets"), replayed);
    assert_eq!(names("tests/fuzz/corpus"), replayed);
    let files: Vec<PathBuf> =
        entries(&project("tests/fuzz/corpus")).iter().flat_map(|folder| entries(folder)).collect();
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(files.len() <= FILES_MAX, "{} files", files.len());
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
}
