//! `routes.toml`: routes as a file says them, from the start on and as it changes.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::control::{arms, ask_digits, control, eight, route, served_by, set_route};
use crate::support::eventually;
use crate::support::program::Program;
use crate::support::project;
use crate::support::repository::Repository;
use crate::support::weir::{FREE_PORTS, Weir};

/// The bundled `digits` in a folder that a test may write to, with this `routes.toml`, if any.
fn repository(file: Option<&str>) -> Repository {
    let repository = Repository::new();
    repository.digits(&[1, 2, 3], "all {}");
    file.iter().for_each(|text| _ = repository.write("routes.toml", text));
    repository
}

fn single(version: u64) -> String {
    format!("[models.digits]\narms = [{{version = {version}, weight = 1}}]\n")
}

#[track_caller]
fn until_served_by(weir: &Weir, version: u64) {
    eventually(&format!("version {version} answers"), || {
        (served_by(weir.infer("digits", &eight())) == version).then_some(())
    });
}

#[test]
fn the_file_governs_from_the_start_and_as_it_changes() {
    let text = format!("{}labels = {{stable = 3}}\n", single(2));
    let repository = repository(Some(&text));
    let weir = Weir::start(&repository, &[]);
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    assert_eq!(served_by(weir.post("/v2/models/digits/versions/stable/infer", &eight())), 3);
    let stands = route(&weir, "digits");
    assert_eq!((&stands["owner"], &stands["revision"]), (&json!("file"), &json!(1)));
    for (method, path, body) in [
        ("PUT", "models/digits/route", arms(&[(1, 1.0)])),
        ("DELETE", "models/digits/route", Value::Null),
        ("POST", "models/digits/rollback", Value::Null),
        ("POST", "models/digits/rollouts", json!({"target": 1})),
    ] {
        let refusal = control(&weir, method, path, &body).error(409);
        assert!(refusal.contains("routes file"), "{method} {path}: {refusal}");
    }
    repository.write("routes.toml", single(1));
    until_served_by(&weir, 1);
    // A model that the file no longer names is nobody's.
    repository.write("routes.toml", "");
    until_served_by(&weir, 3);
    set_route(&weir, "digits", &arms(&[(2, 1.0)]));
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
}

#[test]
fn a_file_that_becomes_wrong_changes_nothing_and_is_told() {
    let repository = repository(Some(&single(2)));
    let weir = Weir::start(&repository, &[]);
    for (text, part) in [
        ("[models.digits]\narms = [", "line 2"),
        ("[models.digits]\narms = [{version = 1, weight = -1}]\n", "0 or more"),
        ("[models.digits]\narm = []\n", "unknown field `arm`"),
        (&single(9), "no version 9"),
    ] {
        repository.write("routes.toml", text);
        eventually(&format!("'{part}' is told"), || weir.errors().contains(part).then_some(()));
        assert_eq!(served_by(weir.infer("digits", &eight())), 2, "{text}");
        assert_eq!(route(&weir, "digits")["revision"], 1, "{text}");
    }
    repository.write("routes.toml", single(1));
    until_served_by(&weir, 1);
}

#[test]
fn a_file_that_is_wrong_at_the_start_is_an_error_in_one_line() {
    let repository = repository(Some("[models.digits]\narm = []\n"));
    let models = repository.as_ref().to_str().unwrap();
    let serve =
        |more: &[&str]| Program::new(&[&["serve", "--models", models], &FREE_PORTS[..], more].concat()).run();
    for (outcome, part) in [(serve(&[]), "line 2"), (serve(&["--routes", "/nosuch.toml"]), "cannot be read")]
    {
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.starts_with("weir: the routes file "), "{outcome:?}");
        assert!(outcome.stderr.lines().count() == 1 && outcome.stderr.contains(part), "{outcome:?}");
    }
}

#[test]
fn one_file_makes_replicas_agree() {
    let text = "[models.digits]\nsticky = \"header:x-user-id\"\n\
                arms = [{version = 1, weight = 40}, {version = 2, weight = 30}, {version = 3, weight = 30}]\n\
                [[models.digits.rules]]\nheader = \"x-tier\"\nequals = \"gold\"\nversion = 3\n";
    let repository = repository(Some(text));
    let named = repository.path("routes.toml");
    let one = Weir::start(&repository, &[]);
    let other = Weir::start(project("models"), &["--routes", named.to_str().unwrap()]);
    let users = |weir: &Weir| -> Vec<u64> {
        let mut connection = weir.connect();
        (0..40).map(|user| ask_digits(&mut connection, &[("x-user-id", &format!("user-{user}"))])).collect()
    };
    assert_eq!(users(&one), users(&other));
    for weir in [&one, &other] {
        assert_eq!(ask_digits(&mut weir.connect(), &[("x-user-id", "user-1"), ("x-tier", "gold")]), 3);
    }
}

/// Writes a file as deployments do: whole, under its name at once.
fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, path).unwrap();
}

#[test]
fn a_file_that_appears_is_applied_and_one_that_goes_lets_the_routes_stand() {
    let repository = repository(None);
    let state = tempfile::tempdir().unwrap();
    let flags = ["--state", state.path().to_str().unwrap()];
    let mut weir = Weir::start(&repository, &flags);
    assert_eq!(served_by(weir.infer("digits", &eight())), 3);
    replace(&repository.path("routes.toml"), &single(1));
    until_served_by(&weir, 1);
    repository.remove("routes.toml");
    eventually("the route is anybody's", || (route(&weir, "digits")["owner"] == "api").then_some(()));
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
    // A restart without a file that governed is no other case.
    replace(&repository.path("routes.toml"), &single(2));
    until_served_by(&weir, 2);
    weir.signal("TERM");
    assert_eq!(weir.exit_code(crate::support::PATIENCE), Some(0));
    drop(weir);
    repository.remove("routes.toml");
    let weir = Weir::start(&repository, &flags);
    assert_eq!(served_by(weir.infer("digits", &eight())), 2);
    set_route(&weir, "digits", &arms(&[(1, 1.0)]));
    assert_eq!(served_by(weir.infer("digits", &eight())), 1);
}
