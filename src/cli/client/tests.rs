//! The client against servers that answer well, badly, and not at all.

use super::canned::{Asked, Canned};
use super::*;
use crate::proto::control::{Arm, Labels, Route};

fn client(url: &str) -> Client {
    Client::new(url.parse().unwrap(), &TlsArguments::default()).unwrap()
}

#[test]
fn a_question_says_what_is_asked_and_nothing_else() {
    let server = Canned::new(&[(200, r#"{"labels":{"stable":3}}"#)]);
    let answer = client(&server.url()).ask(Call::get(&["models", "digits"])).unwrap();
    assert_eq!(answer.read::<Labels>().unwrap().labels["stable"], 3);
    let asked = Asked {
        line: "GET /control/v1/models/digits".to_owned(),
        actor: None,
        if_match: None,
        body: Value::Null,
    };
    assert_eq!(server.asked(), [asked]);
}

#[test]
fn a_change_carries_who_asks_and_the_revision_that_it_replaces() {
    let server = Canned::new(&[(200, "{}")]);
    let route = Route { arms: vec![Arm { version: 2, weight: 10.0 }], ..Route::default() };
    let call = Call::put(&["models", "a b/ü", "route"]).body(&route).by("ann@host".to_owned());
    client(&server.url()).ask(call.if_revision(Some(7))).unwrap();
    let asked = server.asked().remove(0);
    assert_eq!(asked.line, "PUT /control/v1/models/a%20b%2F%C3%BC/route");
    assert_eq!((asked.actor.as_deref(), asked.if_match.as_deref()), (Some("ann@host"), Some("\"7\"")));
    assert_eq!(asked.body["arms"], serde_json::json!([{"version": 2, "weight": 10.0}]));
    assert!(asked.body.get("sticky").is_none(), "{:?}", asked.body);
}

#[test]
fn a_query_is_escaped() {
    let call = Call::get(&["audit"]).query(&[("limit", "5".to_owned()), ("model", "a&b".to_owned())]);
    assert_eq!(call.path, "/control/v1/audit?limit=5&model=a%26b");
}

#[test]
fn a_refusal_is_the_servers_sentence() {
    let server = Canned::new(&[(412, r#"{"error":"the route's revision is 9"}"#)]);
    let error = client(&server.url()).ask(Call::get(&["models"])).unwrap_err();
    assert_eq!(error.to_string(), "the route's revision is 9");
    assert!(!error.passes());
}

#[test]
fn what_is_no_control_api_is_told_as_such() {
    for (status, body, part) in [
        (404, "not found", "404 Not Found without a reason"),
        (404, r#"{"message":"no"}"#, "404 Not Found"),
        (200, "<html>", "200 OK without JSON"),
    ] {
        let server = Canned::new(&[(status, body)]);
        let error = client(&server.url()).ask(Call::get(&["models"])).unwrap_err().to_string();
        assert!(error.contains(part) && error.ends_with("is --server right?"), "{error}");
        assert!(error.contains(&server.url()), "{error}");
    }
}

#[test]
fn nobody_at_the_address_is_told_with_the_address() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client(&format!("http://{free}")).ask(Call::get(&["models"])).unwrap_err();
    let expected = format!("no weir answers at http://{free}; is it running, and is --server right?");
    assert_eq!(error.to_string(), expected);
    assert!(error.passes());
}

#[test]
fn a_server_that_hangs_up_leaves_a_change_in_doubt() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        }
    });
    let client = client(&format!("http://{address}"));
    let change = client.ask(Call::post(&["models", "m", "rollback"])).unwrap_err().to_string();
    assert!(change.contains("whether the change was made is not known"), "{change}");
    let question = client.ask(Call::get(&["models"])).unwrap_err().to_string();
    assert!(question.contains("broke") && !question.contains("change"), "{question}");
    server.join().unwrap();
}

#[test]
fn calls_follow_each_other_over_one_client() {
    let server = Canned::new(&[(200, "{}"), (200, r#"{"labels":{"a":1}}"#)]);
    let client = client(&server.url());
    for expected in [0, 1, 1] {
        let labels: Labels = client.ask(Call::get(&["models"])).unwrap().read().unwrap();
        assert_eq!(labels.labels.len(), expected);
    }
    assert_eq!(server.asked().len(), 3);
}
