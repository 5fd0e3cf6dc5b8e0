//! The Python that real clients run in: installed once for each list of requirements, outside the source tree.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::project;

/// tests/clients/requirements.txt says why.
const PYTHON_MINOR_MIN: u32 = 11;

/// Whether a balancer that is not installed is a failure. Variables of Weir do not reach the tests otherwise.
const BALANCERS_REQUIRED: &str = "WEIR_REQUIRE_BALANCERS";

/// Runs pytest on one file of `tests/clients`, against servers that it starts itself. Panics with its output.
#[track_caller]
pub fn pytest(file: &str) {
    let path = project("tests/clients").join(file);
    let output = python(&["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .arg(path)
        .current_dir(project(""))
        .env("PYTHONPATH", site())
        .env("WEIR_BIN", env!("CARGO_BIN_EXE_weir"))
        .envs(std::env::var_os(BALANCERS_REQUIRED).map(|required| (BALANCERS_REQUIRED, required)))
        .output()
        .expect("python3 was there a moment ago");
    assert!(output.status.success(), "{file}: {}\n{}", output.status, said(&output));
}

/// The folder with what tests/clients/requirements.txt lists.
fn site() -> &'static Path {
    static SITE: OnceLock<PathBuf> = OnceLock::new();
    SITE.get_or_init(install)
}

fn install() -> PathBuf {
    let version = version();
    let requirements = project("tests/clients/requirements.txt");
    // Compiled packages suit one version of Python alone.
    let mut hasher = Sha256::new_with_prefix(&version);
    hasher.update(std::fs::read(&requirements).expect("the requirements are in the source tree"));
    let hash: String = hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is inside the target folder");
    let site = target.join(format!("clients-{hash}"));
    // Another `cargo test` may be here at the same time. The lock goes with the file handle.
    let lock = std::fs::File::create(target.join("clients.lock")).expect("the target folder is writable");
    lock.lock().expect("files in the target folder can be locked");
    if site.is_dir() {
        return site;
    }
    eprintln!("installing the Python clients into {}: some minutes, once", site.display());
    let unfinished = site.with_extension("unfinished");
    let _ = std::fs::remove_dir_all(&unfinished);
    let output = python(&["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
        .arg("--target")
        .args([unfinished.as_os_str(), OsStr::new("-r"), requirements.as_os_str()])
        .output()
        .expect("python3 was there a moment ago");
    assert!(output.status.success(), "pip could not install {}:\n{}", requirements.display(), said(&output));
    std::fs::rename(&unfinished, &site).expect("both are in the target folder");
    site
}

/// The version of `python3`, once it is known to be good enough and to have pip.
fn version() -> String {
    let needs = format!("the tests with real clients need python3 3.{PYTHON_MINOR_MIN} or later with pip");
    let ask = |arguments: &[&str]| {
        let output = python(arguments).output().unwrap_or_else(|e| panic!("{needs}; python3: {e}"));
        assert!(output.status.success(), "{needs}; python3 {arguments:?}:\n{}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let version = ask(&["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]);
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    assert!(minor.is_some_and(|minor| minor >= PYTHON_MINOR_MIN), "{needs}; this python3 is {version}");
    ask(&["-m", "pip", "--version"]);
    version
}

/// `python3` in an environment that neither sends packages elsewhere nor brings others in. Where pip finds packages
/// is the user's business and stays.
fn python(arguments: &[&str]) -> Command {
    const PIP: [&str; 8] =
        ["TARGET", "PREFIX", "ROOT", "USER", "DRY_RUN", "NO_DEPS", "REQUIREMENT", "EDITABLE"];
    let mut command = Command::new("python3");
    command.args(arguments);
    let foreign = |name: &str| {
        let pip = name.strip_prefix("PIP_").is_some_and(|option| PIP.contains(&option));
        pip || ["PYTHON", "PYTEST", "WEIR_"].iter().any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| foreign(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONNOUSERSITE", "1");
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
