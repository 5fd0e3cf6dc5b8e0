//! The metrics page, held against Prometheus' own linter.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::project;
use crate::support::tensors::{rows_of_four, simple, with_parameter};
use crate::support::weir::Weir;

/// Set where the linter must be there, so that its absence is a failure.
const REQUIRED: &str = "WEIR_REQUIRE_PROMTOOL";

/// The linter: the one on PATH, else one unpacked from Debian's package, which needs no root.
fn promtool() -> Result<PathBuf, String> {
    let works = |program: &Path| {
        let version =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    let installed = PathBuf::from("promtool");
    if works(&installed) {
        return Ok(installed);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("promtool");
    let unpacked = folder.join("usr/bin/promtool");
    if works(&unpacked) {
        return Ok(unpacked);
    }
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    for command in ["apt-get download prometheus", "dpkg -x prometheus_*.deb ."] {
        let output = Command::new("sh").args(["-c", command]).current_dir(&folder).output();
        let output = output.map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    works(&unpacked).then_some(unpacked).ok_or_else(|| "Debian's promtool does not run here".to_owned())
}

/// The page of a server that has served every kind of request.
fn page_after_traffic() -> String {
    let weir = Weir::start(project("models"), &[]);
    weir.infer("simple", &simple(1)).expect(200);
    weir.infer("simple", &rows_of_four(1)).expect(400);
    weir.infer("unknown", &simple(1)).expect(400);
    weir.infer("simple", &with_parameter(simple(1), "triton_unknown", 1)).expect(400);
    let ones = vec![1.0; 64];
    let image = json!({"name": "image", "datatype": "FP32", "shape": [1, 64], "data": ones});
    weir.infer("digits", &json!({"inputs": [image]})).expect(200);
    let text = json!({"name": "text", "datatype": "BYTES", "shape": [1, 1], "data": ["charged \"twice\"\n"]});
    weir.infer("tickets", &json!({"inputs": [text]})).expect(200);
    weir.until("all are counted", |page| page.sum("weir_requests_total", &[]) == 6.0).text
}

#[test]
fn promtool_finds_nothing_to_say_about_the_page() {
    let promtool = match promtool() {
        Ok(promtool) => promtool,
        Err(reason) => {
            assert!(std::env::var_os(REQUIRED).is_none_or(|v| v != "1"), "there is no promtool: {reason}");
            // Past the test's capture, so that it is seen.
            let _ = writeln!(std::io::stderr(), "\nNOT RUN: the metrics page was not linted: {reason}\n");
            return;
        }
    };
    let page = page_after_traffic();
    let mut linter = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it said its version");
    linter.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("it reads the page");
    let output = linter.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

#[test]
fn every_metric_has_a_unit_or_a_count_in_its_name_and_words_of_its_own() {
    let weir = Weir::start(project("models"), &[]);
    weir.infer("simple", &simple(1)).expect(200);
    let page = weir.page();
    for name in page.names().filter(|name| name.starts_with("weir_")) {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let described = [Some(name), family].into_iter().flatten().any(|name| {
            let help = page.text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
            help.is_some_and(|help| help.split(' ').count() >= 3)
        });
        assert!(described, "{name} has no help");
    }
    let types = page.text.lines().filter_map(|line| line.strip_prefix("# TYPE weir_"));
    for (name, kind) in types.filter_map(|line| line.split_once(' ')) {
        assert_eq!(kind == "counter", name.ends_with("_total"), "weir_{name} is a {kind}");
        let is_time = name.contains("duration");
        assert_eq!(is_time, name.ends_with("_seconds"), "weir_{name}");
    }
}

#[test]
fn nothing_is_measured_when_metrics_are_off() {
    let weir = Weir::start(project("models"), &["--metrics", "off"]);
    let features = json!({"name": "features", "shape": [1, 30], "datatype": "FP32", "data": vec![1.0; 30]});
    weir.post("/v2/models/breast_cancer/infer", &json!({"inputs": [features]})).expect(200);
    let refusal = weir.get("/v2/models/breast_cancer/stats").error(501);
    assert!(refusal.contains("--metrics off"), "{refusal}");
}
