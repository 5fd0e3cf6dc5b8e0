//! The command line: what it explains, what wins over what, and how it refuses to start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::support::program::{Outcome, Program};
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::tensors::simple;
use crate::support::weir::{FREE_PORTS, Weir};

/// What `check-config` prints as in force.
fn in_force(outcome: &Outcome) -> BTreeMap<String, String> {
    let table: toml::Table = outcome.stdout.parse().unwrap_or_else(|e| panic!("{e}: {outcome:?}"));
    let text = |value: toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    table.into_iter().map(|(key, value)| (key, text(value))).collect()
}

fn models() -> String {
    project("models").to_str().expect("paths of tests are UTF-8").to_owned()
}

/// Every setting with its default.
fn settings() -> BTreeMap<String, String> {
    // In the project's folder, so that `models` is there.
    in_force(&Program::new(&["check-config"]).folder(&project("")).run())
}

fn flag_of(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

fn variable_of(key: &str) -> String {
    format!("WEIR_{}", key.to_uppercase())
}

/// Each flag of `--help` with its explanation on one line.
fn explained_flags() -> BTreeMap<String, String> {
    let help = Program::new(&["--help"]).run();
    assert_eq!(help.code, Some(0), "{help:?}");
    let mut flags: BTreeMap<String, String> = BTreeMap::new();
    let mut current = None;
    for line in help.stdout.lines().map(str::trim) {
        let mut explanation = line;
        if line.starts_with('-') {
            // A short form may stand before the flag, and its value's name after it: `-h, --help`, `--http <ADDR>`.
            let (_, flag) = line.split_once("--").expect("every option has a long form");
            let (name, rest) = flag.split_once(' ').unwrap_or((flag, ""));
            explanation = rest.trim_start();
            if explanation.starts_with('<') {
                explanation = explanation.split_once('>').expect("the value's name ends").1.trim_start();
            }
            current = Some(format!("--{name}"));
        }
        if let Some(flag) = &current {
            let text = flags.entry(flag.clone()).or_default();
            text.push_str(explanation);
            text.push(' ');
        }
    }
    flags
}

#[test]
fn help_explains_every_flag_and_every_flag_is_a_variable_and_a_key() {
    let flags = explained_flags();
    let settings = settings();
    let of_settings: BTreeSet<String> = settings.keys().map(|key| flag_of(key)).collect();
    // Three are no settings; three have no default, so that nothing is in force unless somebody says so.
    let others = ["--config", "--help", "--version", "--tls-certificate", "--tls-key", "--tls-client-ca"]
        .map(str::to_owned);
    let documented: BTreeSet<String> = flags.keys().filter(|flag| !others.contains(flag)).cloned().collect();
    assert_eq!(documented, of_settings);
    for key in settings.keys() {
        let explanation = &flags[&flag_of(key)];
        let (sentence, rest) = explanation.split_once('[').unwrap_or_else(|| panic!("{key}: {explanation}"));
        assert!(sentence.split_whitespace().count() >= 3, "{key}: {sentence}");
        assert!(rest.contains(&format!("[env: {}=", variable_of(key))), "{key}: {rest}");
    }
}

#[test]
fn the_defaults_that_help_tells_are_in_force() {
    let flags = explained_flags();
    let cores = std::thread::available_parallelism().unwrap().get();
    for (key, value) in settings() {
        let explanation = &flags[&flag_of(&key)];
        let told = explanation.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
        let told = told.unwrap_or_else(|| panic!("{key} has no default: {explanation}")).0;
        let expected = match told {
            "one per core" => cores.to_string(),
            "one per core, at most 8" => cores.min(8).to_string(),
            "none" => "[]".to_owned(),
            "routes.toml of the models folder" => "models/routes.toml".to_owned(),
            "one for each models folder, in ~/.local/state/weir" => {
                let folder = Path::new(&value);
                assert!(folder.parent().is_some_and(|parent| parent.ends_with("weir")), "{value}");
                continue;
            }
            literal => literal.to_owned(),
        };
        assert_eq!(value, expected, "{key}");
    }
}

#[test]
fn version_is_that_of_the_package() {
    let version = Program::new(&["--version"]).run();
    assert_eq!(version.stdout, format!("weir {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.code, Some(0));
}

#[test]
fn without_a_command_it_serves_as_with_serve() {
    let models = models();
    let flags = [&["--models", models.as_str()], &FREE_PORTS[..]].concat();
    let mut plain = Weir::of(Program::new(&flags));
    let mut named = Weir::of(Program::new(&[&["serve"], &flags[..]].concat()));
    plain.ready();
    named.ready();
    assert_eq!(plain.index(), named.index());
    assert!(plain.index().iter().all(|[_, _, state, _]| state == "READY"), "{:?}", plain.index());
    let metadata = |weir: &Weir| weir.get("/v2").expect(200).json();
    assert_eq!(metadata(&plain), metadata(&named));
}

/// Three values for a setting, all unlike its default.
fn values(key: &str, default: &str) -> [String; 3] {
    // A worker takes more than these by itself.
    if ["load_memory_bytes", "worker_memory_bytes"].contains(&key) {
        return ["300000000", "300000001", "300000002"].map(str::to_owned);
    }
    if default.parse::<u64>().is_ok() {
        return ["11", "12", "13"].map(str::to_owned);
    }
    match key {
        "models" => ["models", "tests/models", "tests/models_broken"]
            .map(|folder| project(folder).to_str().unwrap().to_owned()),
        "http" | "grpc" | "metrics" => [1, 2, 3].map(|port| format!("127.0.0.1:{port}")),
        // There are two forms only; the second and the third check still differ from what is below them.
        "log_format" => ["json", "text", "json"].map(str::to_owned),
        "log" => ["error", "warn", "debug"].map(str::to_owned),
        "control" => ["watch", "explicit", "127.0.0.1:9"].map(str::to_owned),
        "state" => ["a", "b", "c"].map(str::to_owned),
        "routes" => ["a.toml", "b.toml", "c.toml"].map(str::to_owned),
        "isolation" => ["process", "none", "process"].map(str::to_owned),
        "ready_when" => ["all", "quorum", "models:a"].map(str::to_owned),
        "server_name" => ["one", "two", "three"].map(str::to_owned),
        _ => panic!("give the setting '{key}' three values"),
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file_and_the_file_over_defaults() {
    let folder = tempfile::tempdir().unwrap();
    // Which models to load is a question only where clients decide it.
    for (key, default) in settings().into_iter().filter(|(key, _)| key != "load") {
        let [in_file, in_variable, in_flag] = values(&key, &default);
        let file = folder.path().join("weir.toml");
        let quoted = if default.parse::<u64>().is_ok() { in_file.clone() } else { format!("{in_file:?}") };
        std::fs::write(&file, format!("{key} = {quoted}\n")).unwrap();
        let (flag, variable) = (flag_of(&key), variable_of(&key));
        let check = |program: Program, expected: &str| {
            let outcome = program.folder(&project("")).env("WEIR_CONFIG", &file).run();
            assert_eq!(in_force(&outcome)[&key], expected, "{outcome:?}");
        };
        check(Program::new(&["check-config"]), &in_file);
        check(Program::new(&["check-config"]).env(&variable, &in_variable), &in_variable);
        check(Program::new(&["check-config", &flag, &in_flag]).env(&variable, &in_variable), &in_flag);
    }
}

#[test]
fn a_setting_from_each_source_reaches_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    let settings = "http = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n";
    std::fs::write(&file, settings).unwrap();
    let config = file.to_str().unwrap();
    let program = Program::new(&["--config", config, "--server-name", "of-a-flag"])
        .env("WEIR_MODELS", project("models"))
        .env("WEIR_SERVER_NAME", "of-a-variable");
    let mut weir = Weir::of(program);
    weir.ready();
    assert_eq!(weir.get("/v2").expect(200).json()["name"], "of-a-flag");
    assert_eq!(weir.state("simple").0, "READY");
}

/// Regression: ONNX Runtime kept a database of telemetry under the user's cache folder.
#[test]
fn serving_leaves_nothing_in_the_users_home() {
    let home = tempfile::tempdir().unwrap();
    let program = Program::new(&[&["--models", models().as_str()], &FREE_PORTS[..]].concat())
        .env("HOME", home.path())
        .env("XDG_CACHE_HOME", home.path().join("cache"))
        .env("XDG_STATE_HOME", home.path().join("state"));
    let mut weir = Weir::of(program);
    weir.ready();
    weir.infer("simple", &simple(1)).expect(200);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(Duration::from_secs(20)), Some(0), "{}", weir.errors());
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [home.path().join("state")], "nothing but its own state");
}

/// Holds that the program ended with one line on stderr, having said and served nothing; gives the line.
#[track_caller]
fn one_line(outcome: Outcome) -> String {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(outcome.stdout, "", "{outcome:?}");
    let lines: Vec<&str> = outcome.stderr.lines().filter(|line| !line.is_empty()).collect();
    let [line] = lines.as_slice() else { panic!("not one line:\n{}", outcome.stderr) };
    assert!(line.starts_with("weir: "), "{line}");
    (*line).to_owned()
}

/// Starts a server that cannot start.
#[track_caller]
fn refused(flags: &[&str], environment: &[(&str, &Path)]) -> String {
    let models = models();
    // Of a flag that stands twice the last counts, so the ports here are free unless `flags` say otherwise.
    let defaults = [&["--models", models.as_str()], &FREE_PORTS[..]].concat();
    let given = |name: &&str| flags.contains(name);
    let kept = defaults.chunks(2).filter(|pair| !given(&pair[0])).flatten().copied();
    let arguments: Vec<&str> = kept.chain(flags.iter().copied()).collect();
    let program =
        environment.iter().fold(Program::new(&arguments), |program, (name, value)| program.env(name, value));
    one_line(program.run())
}

#[test]
fn a_port_that_is_taken_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--http", "--grpc", "--metrics"] {
        let line = refused(&[flag, &address], &[]);
        assert!(line.contains(&address) && line.contains(flag), "{line}");
    }
}

#[test]
fn what_stands_in_the_way_of_a_start_is_told_in_one_line() {
    let no_library = project("Cargo.toml");
    let nowhere = project("no/such/folder");
    let (file, missing) = (no_library.to_str().unwrap(), nowhere.to_str().unwrap());
    for (flags, environment, part) in [
        (&["--models", missing][..], &[][..], missing),
        (&["--models", file], &[], file),
        (&["--config", missing], &[], missing),
        (&["--http", "8000"], &[], "http = '8000'"),
        (&["--grpc", "127.0.0.1:99999"], &[], "grpc = '127.0.0.1:99999'"),
        (&["--metrics", "nowhere.invalid:1"], &[], "metrics = 'nowhere.invalid:1'"),
        (&["--log", "[["], &[], "log = '[['"),
        (&["--log", "weir=loud"], &[], "log = 'weir=loud'"),
        (&["--instances", "0"], &[], "instances = '0' must be between"),
        (&["--max-message-bytes", "99999999999"], &[], "max_message_bytes = '99999999999' must be between"),
        (&[], &[("ORT_DYLIB_PATH", nowhere.as_path())], "ORT_DYLIB_PATH"),
        (&[], &[("ORT_DYLIB_PATH", no_library.as_path())], "ORT_DYLIB_PATH"),
    ] {
        let line = refused(flags, environment);
        assert!(line.contains(part), "{flags:?}: {line}");
    }
}

#[test]
fn a_wrong_config_file_is_told_in_one_line_that_names_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    let path = file.to_str().unwrap();
    for (text, part) in [
        ("htpp = \"127.0.0.1:0\"\n", "htpp"),
        ("instances = \"two\"\n", "instances"),
        ("[http]\nport = 8000\n", "http"),
        ("log = \"info\n", "line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let line = refused(&["--config", path], &[]);
        assert!(line.contains(part) && line.contains(path), "{text}: {line}");
    }
}

#[test]
fn a_flag_that_is_wrong_is_a_mistake_in_usage() {
    for arguments in
        [&["--htpp", "127.0.0.1:0"][..], &["--instances", "two"], &["--log-format", "xml"], &["start"]]
    {
        let outcome = Program::new(arguments).run();
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains("--help") && outcome.stdout.is_empty(), "{outcome:?}");
    }
}

#[test]
fn check_config_prints_a_config_file_that_means_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    let models = models();
    let arguments = ["check-config", "--models", &models, "--instances", "3", "--server-name", "a \"b\""];
    let first = Program::new(&arguments).run();
    std::fs::write(&file, &first.stdout).unwrap();
    let second = Program::new(&["check-config", "--config", file.to_str().unwrap()]).run();
    assert_eq!((first.code, second.code), (Some(0), Some(0)), "{second:?}");
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(in_force(&first)["server_name"], "a \"b\"");
}

#[test]
fn check_config_names_the_key_of_each_broken_config() {
    let outcome =
        Program::new(&["check-config", "--models", "tests/models_broken"]).folder(&project("")).run();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for (model, part) in [
        ("unknown_key", "max_batchsize"),
        ("sequence_batching", "sequence_batching"),
        ("ensemble", "ensemble_scheduling"),
        ("empty", "no version folder"),
        ("ok", "config ok, versions 1"),
    ] {
        let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(&format!("# {model}: ")));
        assert!(line.is_some_and(|line| line.contains(part)), "{model}: {line:?}");
    }
}

#[test]
fn check_config_reports_a_folder_whose_name_cannot_be_a_models() {
    let repository = Repository::new();
    repository.copy("models/simple", "simple").copy("models/simple", "not a name");
    let models = repository.as_ref().to_str().unwrap();
    let outcome = Program::new(&["check-config", "--models", models]).run();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("# \"not a name\": "), "{outcome:?}");
    assert!(outcome.stdout.contains("# simple: config ok, versions 1"), "{outcome:?}");
}

#[test]
fn check_config_refuses_whatever_serve_would_refuse_in_the_settings() {
    for flags in [["--http", "8000"], ["--instances", "0"], ["--log", "weir=loud"]] {
        let outcome = Program::new(&["check-config", flags[0], flags[1]]).folder(&project("")).run();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(flags[1]), "{outcome:?}");
    }
}
