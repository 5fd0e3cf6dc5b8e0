//! The floors of the source: a module imports lower floors and itself, nothing else.

use std::path::{Path, PathBuf};

use crate::support::project;

/// Top-level modules by floor, the lowest first; `lib.rs` says the same in words.
const FLOORS: &[&[&str]] = &[
    &["error", "event", "id", "infer", "proto", "reading", "tensor"],
    &["backend", "batch", "cache", "compare", "route"],
    &["model"],
    &["serve"],
    &["control", "monitor"],
    &["api"],
    &["app", "bench", "cli", "config", "main", "tune"],
];

/// Imports within one floor that are meant: (who, whom). Below the mechanisms all may import each other.
const SIDEWAYS: &[(&str, &str)] = &[
    ("batch", "backend"),
    ("app", "config"),
    ("cli", "app"),
    ("cli", "bench"),
    ("cli", "config"),
    ("cli", "tune"),
    ("main", "cli"),
];

/// Names that only one part of the source may use: the first part of a path, and the folders or files.
const CONFINED: &[(&str, &[&str])] = &[
    ("ort", &["backend/onnx"]),
    ("unsafe", &["backend/onnx"]),
    ("tonic", &["api", "proto.rs"]),
    ("tonic_health", &["api"]),
    ("tonic_reflection", &["api"]),
    ("tonic_prost", &["api", "proto.rs"]),
    ("hyper", &["api", "cli/client"]),
    ("hyper_util", &["api", "cli/client"]),
    ("http_body_util", &["api", "cli/client"]),
    ("h2", &["api", "bench/wire"]),
    ("httparse", &["bench/wire"]),
    ("rustls", &["api/tls.rs", "cli/client"]),
    ("tokio_rustls", &["api"]),
    ("hyper_rustls", &["cli/client"]),
    ("x509_parser", &["api/tls.rs"]),
    ("rustix", &["backend/folder.rs", "backend/onnx", "bench/alarm.rs", "cli/output.rs", "cli/serve.rs"]),
    ("clap", &["cli", "config"]),
    ("anyhow", &["cli", "main.rs"]),
    ("rusqlite", &["control/store", "control/outcomes"]),
    ("quick_cache", &["cache"]),
];

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn may_import(from: &str, to: &str) -> bool {
    let (Some(of_from), Some(of_to)) = (floor(from), floor(to)) else { return false };
    from == to || of_to < of_from || (of_from == 0 && of_to == 0) || SIDEWAYS.contains(&(from, to))
}

/// The source without comments, strings and characters: what is left are names and signs.
fn code(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_length(rest),
            '\'' => character_length(rest),
            'r' | 'b' if !out.ends_with(is_word) => raw_string_length(rest),
            _ => 0,
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.push(' ');
            rest = &rest[length..];
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// 0 for a lifetime, which begins as a character does.
fn character_length(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((at, _))) => text[at + 1..].find('\'').map_or(0, |end| at + 1 + end + 1),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// 0 for what only begins as a raw string does.
fn raw_string_length(text: &str) -> usize {
    let after = text.trim_start_matches('b').trim_start_matches('r');
    let hashes = after.len() - after.trim_start_matches('#').len();
    let prefix = text.len() - after.len();
    if !text[..prefix].contains('r') || !after[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix + hashes + 1;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// Words and single signs, in order; `::` is one sign.
fn tokens(source: &str) -> Vec<String> {
    let code = code(source);
    let mut tokens: Vec<String> = Vec::new();
    let mut in_word = false;
    for c in code.chars() {
        match tokens.last_mut() {
            Some(last) if in_word && is_word(c) => last.push(c),
            Some(last) if c == ':' && last == ":" => last.push(c),
            _ if !c.is_whitespace() => tokens.push(c.to_string()),
            _ => {}
        }
        in_word = is_word(c);
    }
    tokens
}

/// The top-level modules that a file names by a path from the root: `crate::a::b`, `crate::{a, b::{c}}`, and
/// `super::a` where that reaches the root. `depth` is how many modules deep the file is.
fn imports(source: &str, depth: usize) -> Vec<String> {
    let tokens = tokens(source);
    let word = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let root = match word(at) {
            "crate" | "weir" if word(at + 1) == "::" => Some(at + 2),
            "super" if at == 0 || word(at - 1) != "::" => {
                let hops =
                    (0..).take_while(|hop| word(at + 2 * hop) == "super" && word(at + 2 * hop + 1) == "::");
                let hops = hops.count();
                (hops >= depth).then_some(at + 2 * hops)
            }
            _ => None,
        };
        match root {
            Some(first) if word(first) == "{" => modules.extend(group(&tokens[first + 1..])),
            Some(first) => modules.push(word(first).to_owned()),
            None => {}
        }
        at += 1;
    }
    // `super::*` in a file's own tests names the file.
    modules.retain(|module| module != "*");
    modules
}

/// The first word of each item of a group whose bracket is open.
fn group(tokens: &[String]) -> Vec<String> {
    let mut open = 1;
    let mut first = true;
    let mut items = Vec::new();
    for token in tokens {
        match token.as_str() {
            "{" => open += 1,
            "}" => open -= 1,
            "," if open == 1 => first = true,
            word if open == 1 && first => {
                items.push(word.to_owned());
                first = false;
            }
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    items
}

/// What is wrong with one file, by its path below `src`.
fn faults(path: &str, source: &str) -> Vec<String> {
    let module = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    let folders = path.split('/').count();
    let depth = if path.ends_with("/mod.rs") { folders - 1 } else { folders };
    let mut faults = Vec::new();
    if floor(module).is_none() {
        faults.push(format!("{path}: the module '{module}' stands on no floor"));
    }
    for import in imports(source, depth).into_iter().filter(|import| !may_import(module, import)) {
        faults.push(format!("{path}: '{module}' may not import '{import}'"));
    }
    let tokens = tokens(source);
    for (name, places) in CONFINED {
        let inside = places.iter().any(|place| path == *place || path.starts_with(&format!("{place}/")));
        let starts_a_path = |(at, token): (usize, &String)| {
            let next = tokens.get(at + 1).map_or("", String::as_str);
            let before = at.checked_sub(1).map_or("", |before| tokens[before].as_str());
            token == name && (*name == "unsafe" || (before != "::" && (next == "::" || before == "use")))
        };
        if !inside && tokens.iter().enumerate().any(starts_a_path) {
            faults.push(format!("{path}: '{name}' belongs to {}", places.join(" and ")));
        }
    }
    faults
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn every_import_runs_downward_and_each_library_stays_in_its_place() {
    let root = project("src");
    let files = sources(&root);
    assert!(files.len() > 50, "{files:?}");
    let (mut found, mut imports_seen) = (Vec::new(), 0);
    for file in files {
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        // It names every module and imports none.
        if path != "lib.rs" {
            let source = std::fs::read_to_string(&file).unwrap();
            found.extend(faults(&path, &source));
            imports_seen += imports(&source, usize::MAX).len();
        }
    }
    assert!(imports_seen > 100, "{imports_seen} imports were read");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_module_stands_on_one_floor() {
    let mut modules: Vec<&str> = FLOORS.concat();
    modules.sort_unstable();
    let declared = std::fs::read_to_string(project("src/lib.rs")).unwrap();
    let declared = declared.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let mut declared: Vec<&str> = declared.chain(["main"]).collect();
    declared.sort_unstable();
    assert_eq!(declared, modules);
}

#[test]
fn an_import_that_runs_upward_is_caught() {
    for (path, source, fault) in [
        ("serve/x.rs", "use crate::monitor::Monitor;", "'serve' may not import 'monitor'"),
        ("serve/x.rs", "fn f() { crate::api::http::g() }", "'serve' may not import 'api'"),
        ("batch/mod.rs", "use crate::{tensor::{Shape, Tensor}, model};", "'batch' may not import 'model'"),
        ("tensor/x.rs", "use super::super::route;", "'tensor' may not import 'route'"),
        ("error.rs", "use super::api;", "'error' may not import 'api'"),
        ("route/mod.rs", "use crate::batch::Queue;", "'route' may not import 'batch'"),
        ("monitor/x.rs", "use crate::control;", "'monitor' may not import 'control'"),
        ("api/http/x.rs", "use crate::config::Config;", "'api' may not import 'config'"),
        ("config/mod.rs", "use crate::app::App;", "'config' may not import 'app'"),
        ("extra.rs", "", "stands on no floor"),
        ("model/x.rs", "use ort::session::Session;", "'ort' belongs to backend/onnx"),
        ("model/x.rs", "let f = || unsafe { g() };", "'unsafe' belongs to backend/onnx"),
        ("serve/x.rs", "fn f() -> tonic::Status {}", "'tonic' belongs to api"),
        ("serve/x.rs", "use hyper_util::rt;", "'hyper_util' belongs to api"),
        ("cli/status.rs", "use hyper_util::rt;", "'hyper_util' belongs to api and cli/client"),
        ("backend/onnx.rs", "use ort;", "'ort' belongs to backend/onnx"),
    ] {
        let found = faults(path, source);
        assert!(found.len() == 1 && found[0].contains(fault), "{source}: {found:?}");
    }
}

#[test]
fn what_only_looks_like_an_import_is_none() {
    for (path, source) in [
        ("serve/x.rs", "//! See crate::api::http.\n/* unsafe { ort::x } */ fn f() {}"),
        ("serve/x.rs", r####"const A: &str = "crate::api \" unsafe"; const B: &str = r#"" use ort; "#;"####),
        ("serve/x.rs", "fn f<'a>(c: &'a char) { let (a, b) = ('\"', '\\''); } use crate::batch::Answer;"),
        ("serve/mod.rs", "mod x; #[cfg(test)] mod tests { use super::*; use self::x::api; }"),
        ("api/http/x.rs", "use super::super::status; use crate::{monitor, serve::{Pipeline, Table}};"),
        ("cli/client/mod.rs", "use hyper_util::client::legacy::Client;"),
        ("cli/mod.rs", "#![deny(unsafe_code)] use crate::app::App; use crate::config::Config;"),
        ("backend/onnx/value.rs", "use ort::value; unsafe { ort::x() }"),
        ("model/x.rs", "fn ort() {} struct S { hyper: u8 }"),
    ] {
        let found = faults(path, source);
        assert!(found.is_empty(), "{source}: {found:?}");
    }
}
