//! One model whose versions differ in a known way, a server of it, and the calls that change what is live.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::eventually;
use super::http::{Answer, Connection};
use super::repository::Repository;
use super::tensors::fp32;
use super::weir::{Weir, infer_path};

/// The one model.
pub const MODEL: &str = "m";

/// The header that says why a version answered.
pub const WHY: &str = "weir-route";

/// All versions are loaded, and their requests may share batches.
const CONFIG: &str = "version_policy { all { } } dynamic_batching { }";

/// A server whose repository and state outlive it, so that it can be started again.
pub struct Served {
    pub repository: Repository,
    pub state: TempDir,
    pub weir: Weir,
}

/// What came back for one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// The version that answered; 0 for an error.
    pub version: u64,
}

impl Served {
    /// A server of [`MODEL`] with these files of `tests/versions`, by version; version 1 gets everything.
    #[track_caller]
    pub fn start(versions: &[(u64, &str)]) -> Self {
        let repository = Repository::new();
        for (version, file) in versions {
            repository.copy(&format!("tests/versions/{file}.onnx"), &format!("{MODEL}/{version}/model.onnx"));
        }
        repository.write(&format!("{MODEL}/config.pbtxt"), CONFIG);
        let state = tempfile::tempdir().expect("there is room for a folder");
        let weir = serve(&repository, state.path());
        let served = Self { repository, state, weir };
        served.put_route(&json!({"arms": [{"version": 1, "weight": 100}]})).expect(200);
        served
    }

    /// Ends the server by a signal, and starts another on the same repository and state.
    #[track_caller]
    pub fn restart(&mut self, signal: &str) {
        self.end(signal);
        self.start_again();
    }

    /// Starts a server on the same repository and state after one that has ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.weir = serve(&self.repository, self.state.path());
    }

    /// Ends the server by a signal.
    #[track_caller]
    pub fn end(&mut self, signal: &str) {
        self.weir.signal(signal);
        let code = self.weir.exit_code(super::PATIENCE);
        let expected = if signal == "TERM" { Some(0) } else { None };
        assert_eq!(code, expected, "{}", self.weir.errors());
    }

    pub fn state(&self) -> &str {
        self.state.path().to_str().expect("paths of tests are UTF-8")
    }

    #[track_caller]
    pub fn put_route(&self, route: &Value) -> Answer {
        self.change("PUT", "route", route)
    }

    /// A change of the model by its path below it.
    #[track_caller]
    pub fn change(&self, method: &str, path: &str, body: &Value) -> Answer {
        let path = format!("/control/v1/models/{MODEL}/{path}");
        self.weir.connect().ask(method, &path, &[("weir-actor", "tester")], body.to_string().as_bytes())
    }

    /// What the control API says below the model.
    #[track_caller]
    pub fn read(&self, path: &str) -> Value {
        self.weir.get(&format!("/control/v1/models/{MODEL}/{path}")).expect(200).json()
    }

    /// The weights of the route's arms, by version.
    #[track_caller]
    pub fn weights(&self) -> Vec<(u64, f64)> {
        let route = self.read("route");
        let arms = route["arms"].as_array().expect("a route has arms").iter();
        arms.map(|arm| (arm["version"].as_u64().unwrap(), arm["weight"].as_f64().unwrap())).collect()
    }

    /// The newest records, the newest first.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        let page = self.weir.get("/control/v1/audit?limit=500").expect(200).json();
        page["records"].as_array().expect("a list").clone()
    }

    pub fn client(&self) -> Client {
        Client::of(self.weir.http)
    }

    /// Starts a rollout; gives its id.
    #[track_caller]
    pub fn begin(&self, plan: &Value) -> String {
        let rollout = self.change("POST", "rollouts", plan).expect(200).json();
        rollout["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    pub fn rollout(&self, id: &str) -> Value {
        self.read(&format!("rollouts/{id}"))
    }

    /// Sends requests until the rollout satisfies `condition`; gives the rollout.
    #[track_caller]
    pub fn drive(
        &self,
        id: &str,
        what: &str,
        mut send: impl FnMut(),
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, || {
            send();
            let rollout = self.rollout(id);
            condition(&rollout).then_some(rollout)
        })
    }
}

fn serve(repository: &Repository, state: &Path) -> Weir {
    Weir::start(repository, &["--state", state.to_str().expect("paths of tests are UTF-8")])
}

/// One connection that asks [`MODEL`].
pub struct Client {
    connection: Connection,
}

impl Client {
    #[track_caller]
    pub fn of(http: SocketAddr) -> Self {
        Self { connection: Connection::open(http) }
    }

    #[track_caller]
    pub fn ask(&mut self, headers: &[(&str, &str)], body: &Value) -> Answer {
        self.connection.ask("POST", &infer_path(MODEL), headers, body.to_string().as_bytes())
    }

    /// Asks one version by its number.
    #[track_caller]
    pub fn ask_version(&mut self, version: u64, body: &Value) -> Answer {
        let path = format!("/v2/models/{MODEL}/versions/{version}/infer");
        self.connection.ask("POST", &path, &[], body.to_string().as_bytes())
    }

    #[track_caller]
    pub fn reply(&mut self, headers: &[(&str, &str)], body: &Value) -> Reply {
        let answer = self.ask(headers, body);
        let version = if answer.status == 200 { version_of(&answer) } else { 0 };
        Reply { status: answer.status, version }
    }

    /// Sends the same request `count` times.
    #[track_caller]
    pub fn send(&mut self, count: usize, body: &Value) -> Vec<Reply> {
        (0..count).map(|_| self.reply(&[], body)).collect()
    }
}

/// The version that gave an answer.
#[track_caller]
pub fn version_of(answer: &Answer) -> u64 {
    answer.json()["model_version"].as_str().and_then(|text| text.parse().ok()).expect("a version")
}

/// One row; the fourth number is what some versions look at.
pub fn row(fourth: f32) -> Value {
    fp32(&[1, 4], &[3.0, 1.0, 2.0, fourth])
}
