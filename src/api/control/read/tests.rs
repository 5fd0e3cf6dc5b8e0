use http::HeaderValue;

use super::*;

const ALICE: &str = "alice from 127.0.0.1:5123";

/// `request` is a method and a path below the root, with its query.
fn call(request: &str, if_matches: &[&str], body: &str) -> Result<Call, String> {
    let (method, target) = request.split_once(' ').expect("a method and a path");
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let path = Path::parse(&format!("/control/v1/{path}")).expect("a path of the API");
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("weir-actor", HeaderValue::from_static("alice"));
    for value in if_matches {
        headers.append(IF_MATCH, HeaderValue::from_str(value).unwrap());
    }
    let who = Who::of(&headers, "127.0.0.1:5123".parse().unwrap()).unwrap();
    let asked = Asked { method: &method, query, headers: &headers, body: body.as_bytes(), who: &who };
    asked.call(path).map_err(|error| error.message().to_owned())
}

#[track_caller]
fn refused(request: &str, if_matches: &[&str], body: &str, words: &str) {
    let message = call(request, if_matches, body).expect_err(request);
    assert!(message.contains(words), "{request} {if_matches:?} {body}: {message}");
}

fn text(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_route_that_was_read_can_be_sent_back() {
    let route = pb::Route {
        arms: vec![pb::Arm { version: 1, weight: 99.5 }, pb::Arm { version: 2, weight: 0.5 }],
        shadows: vec![pb::Shadow { version: 3, share: 0.1 }],
        sticky: text("header:user"),
        rules: vec![pb::Rule { header: text("beta"), equals: text("1"), version: 2 }],
        revision: 7,
        model: text("m"),
        owner: text("api"),
    };
    let json = serde_json::to_string(&route).unwrap();
    let expected = pb::SetRouteRequest {
        model: text("m"),
        route: Some(route),
        actor: text(ALICE),
        if_revision: Some(7),
    };
    assert_eq!(call("PUT models/m/route", &["\"7\""], &json), Ok(Call::SetRoute(expected)));
}

#[test]
fn what_a_route_leaves_out_is_its_default() {
    let Ok(Call::SetRoute(request)) =
        call("PUT models/m/route", &[], r#"{"arms":[{"version":2,"weight":1}]}"#)
    else {
        panic!("no route");
    };
    let arms = vec![pb::Arm { version: 2, weight: 1.0 }];
    assert_eq!(request.route, Some(pb::Route { arms, model: text("m"), ..Default::default() }));
    assert_eq!(request.if_revision, None);
}

#[test]
fn a_body_that_cannot_be_meant_is_refused_with_the_reason() {
    for (request, body, words) in [
        ("PUT models/m/route", r#"{"arm":[]}"#, "unknown field `arm`"),
        ("PUT models/m/route", r#"{"arms":[{"version":2,"wieght":1}]}"#, "unknown field `wieght`"),
        ("PUT models/m/route", r#"{"arms":[],"arms":[]}"#, "duplicate field `arms`"),
        ("PUT models/m/route", r#"{"arms":[{"version":-1}]}"#, "invalid value"),
        ("PUT models/m/route", r#"{"arms":"#, "EOF"),
        ("PUT models/m/route", r#"{} {}"#, "trailing characters"),
        ("PUT models/m/route", "", "EOF"),
        ("PUT models/m/route", "[[],[]]", "must be an object"),
        ("PUT models/m/route", r#"{"model":"other"}"#, "model is one thing"),
        ("PUT models/m/labels/stable", r#"{"version":2,"label":"canary"}"#, "label is one thing"),
        ("PUT models/m/labels/stable", r#"{"version":"2"}"#, "invalid type"),
        ("POST models/m/versions/2/load", r#"{"version":3}"#, "version is one thing"),
        ("POST models/m/rollouts/r1/pause", r#"{"id":"r2"}"#, "id is one thing"),
        ("POST models/m/rollouts", r#"{"target":2,"model":"other"}"#, "model is one thing"),
        ("POST models/m/rollouts", r#"{"target":2,"guard":{}}"#, "unknown field `guard`"),
        ("POST models/m/rollback", r#"{"actor":"bob"}"#, "'bob'"),
        ("POST models/m/feedback", r#"{"request_id":"a","outcome":true}"#, "a number or a string"),
        ("POST models/m/feedback", r#"{"request_id":"a","outcome":null}"#, "a number or a string"),
        ("POST models/m/feedback", r#"{"request_id":"a"}"#, "missing field `outcome`"),
        ("POST models/m/feedback", r#"{"outcome":1}"#, "missing field `request_id`"),
        ("POST models/m/feedback", r#"{"request_id":"a","outcome":1,"x":1}"#, "unknown field `x`"),
    ] {
        refused(request, &[], body, words);
    }
}

#[test]
fn an_outcome_is_a_number_or_a_label() {
    for (json, outcome) in [
        ("1", Outcome::Number(1.0)),
        ("-0.25", Outcome::Number(-0.25)),
        ("\"churned\"", Outcome::Label(text("churned"))),
        ("\"1\"", Outcome::Label(text("1"))),
    ] {
        let body = format!(r#"{{"request_id":"r-1","outcome":{json}}}"#);
        let expected =
            pb::FeedbackRequest { model: text("m"), request_id: text("r-1"), outcome: Some(outcome) };
        assert_eq!(call("POST models/m/feedback", &[], &body), Ok(Call::RecordFeedback(expected)));
    }
}

#[test]
fn a_condition_is_one_revision_in_quotes() {
    for (values, revision) in
        [(&["\"12\""][..], Some(12)), (&["*"], None), (&[], None), (&[" \"0\" "], Some(0))]
    {
        for (request, body) in
            [("PUT models/m/route", "{}"), ("DELETE models/m/route", ""), ("POST models/m/rollback", "")]
        {
            let revision_of = match call(request, values, body).unwrap() {
                Call::SetRoute(request) => request.if_revision,
                Call::ClearRoute(request) | Call::Rollback(request) => request.if_revision,
                other => panic!("{other:?}"),
            };
            assert_eq!(revision_of, revision, "{request} {values:?}");
        }
    }
    for values in [
        &["12"][..],
        &["W/\"12\""],
        &["\"1\", \"2\""],
        &["\"1\"", "\"2\""],
        &["\"\""],
        &["\"+1\""],
        &["\"abc\""],
        &["\"99999999999999999999\""],
        &[""],
    ] {
        refused("PUT models/m/route", values, "{}", "If-Match must be");
    }
}

#[test]
fn a_condition_that_would_have_no_effect_is_refused() {
    for request in ["PUT models/m/labels/stable", "POST models/m/rollouts", "POST models/m/versions/1/unload"]
    {
        refused(request, &["\"1\""], "{}", "has no effect");
    }
    refused("POST models/m/rollback", &["\"1\""], r#"{"if_revision":2}"#, "if_revision is one thing");
    assert!(call("GET models/m/route", &["\"1\""], "").is_ok());
}

#[test]
fn each_change_names_its_model_and_who_asks() {
    let (model, actor) = (text("m"), text(ALICE));
    let change = || pb::ChangeRequest { model: model.clone(), actor: actor.clone(), if_revision: None };
    let version = |version| pb::VersionRequest { model: model.clone(), version, actor: actor.clone() };
    let rollout = || pb::RolloutRequest { model: model.clone(), id: text("r1"), actor: actor.clone() };
    let set_label =
        pb::SetLabelRequest { model: model.clone(), label: text("stable"), version: 2, actor: actor.clone() };
    let delete_label =
        pb::DeleteLabelRequest { model: model.clone(), label: text("stable"), actor: actor.clone() };
    let start = pb::StartRolloutRequest {
        model: model.clone(),
        target: 3,
        steps: vec![10.0, 100.0],
        guards: Some(pb::Guards {
            errors: Some(pb::ErrorGuard::default()),
            latency: Some(pb::LatencyGuard { objective_ms: 20.0, margin: None }),
            ..Default::default()
        }),
        actor: actor.clone(),
        ..Default::default()
    };
    let guards = r#"{"errors":{},"latency":{"objective_ms":20}}"#;
    let rollout_body = format!(r#"{{"target":3,"steps":[10,100],"guards":{guards}}}"#);
    for (request, body, expected) in [
        ("DELETE models/m/route", "", Call::ClearRoute(change())),
        ("POST models/m/rollback", "{}", Call::Rollback(change())),
        ("POST models/m/rollback", r#"{"actor":"alice","model":"m"}"#, Call::Rollback(change())),
        ("PUT models/m/labels/stable", r#"{"version":2}"#, Call::SetLabel(set_label)),
        ("DELETE models/m/labels/stable", "", Call::DeleteLabel(delete_label)),
        ("POST models/m/versions/4/load", "", Call::LoadVersion(version(4))),
        ("POST models/m/versions/4/unload", " \n", Call::UnloadVersion(version(4))),
        ("POST models/m/rollouts", &rollout_body, Call::StartRollout(start)),
        ("POST models/m/rollouts/r1/pause", "", Call::PauseRollout(rollout())),
        ("POST models/m/rollouts/r1/resume", "", Call::ResumeRollout(rollout())),
        ("POST models/m/rollouts/r1/promote", "", Call::PromoteRollout(rollout())),
        ("POST models/m/rollouts/r1/abort", "{}", Call::AbortRollout(rollout())),
    ] {
        assert_eq!(call(request, &[], body), Ok(expected), "{request}");
    }
}

#[test]
fn each_question_names_its_model() {
    let model = || pb::ModelRequest { model: text("a.b") };
    for (request, expected) in [
        ("GET models", Call::ListModels),
        ("GET models/a.b", Call::GetModel(model())),
        ("GET models/a.b/route", Call::GetRoute(model())),
        ("HEAD models/a.b/route", Call::GetRoute(model())),
        ("GET models/a%2eb/rollouts", Call::ListRollouts(model())),
        ("GET models/a.b/shadows", Call::GetShadows(model())),
        ("GET models/a.b/experiments", Call::ListExperiments(model())),
    ] {
        assert_eq!(call(request, &[], ""), Ok(expected), "{request}");
    }
}

#[test]
fn the_record_is_asked_for_by_number_and_model() {
    for (query, before, limit, model) in [
        ("", 0, 0, ""),
        ("?", 0, 0, ""),
        ("?before=7&limit=20&model=a%2Eb", 7, 20, "a.b"),
        ("?limit=1", 0, 1, ""),
    ] {
        let expected = pb::ListAuditRequest { before, limit, model: text(model) };
        assert_eq!(call(&format!("GET audit{query}"), &[], ""), Ok(Call::ListAudit(expected)), "{query}");
    }
    for (query, words) in [
        ("before=x", "before in the query must be a number"),
        ("limit=-1", "limit in the query must be a number"),
        ("limit=", "'limit' in the query has no value"),
        ("since=1", "unknown key 'since'"),
    ] {
        refused(&format!("GET audit?{query}"), &[], "", words);
    }
    refused("PUT models/m/route?dry_run=true", &[], "{}", "takes no query");
}
