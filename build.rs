//! Compiles the protocol, and fetches the ONNX Runtime library that this version of Weir is tested with.
//!
//! The library comes out of Microsoft's wheel on PyPI, through `pip`, pinned by version and sha256, into a cache
//! folder of the user's; every later build finds it there. A failed download does not fail the build: the binary
//! then says at start what is missing and how to name a library.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Wheel version; `ort`'s `api-NN` feature asks for at least that minor version.
const ORT_VERSION: &str = "1.31.1";

/// One wheel: cargo target prefix, pip platform tag, sha256 of the file, name of the library file inside.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
    file: &'static str,
}

const WHEELS: &[Wheel] = &[
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        file: "libonnxruntime.so.1.31.1",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        file: "libonnxruntime.so.1.31.1",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_14_0_arm64",
        sha256: "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c",
        file: "libonnxruntime.1.31.1.dylib",
    },
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    compile_protocol();
    provision_onnx_runtime();
}

fn compile_protocol() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compile = |file: &str| protox::compile([file], ["proto"]).expect("the files under proto/ compile");
    let generate = |descriptors| {
        tonic_prost_build::configure()
            .build_client(false)
            // Tensors stay slices of the message they came in.
            .bytes(".inference.ModelInferRequest.raw_input_contents")
            .bytes(".inference.ModelInferResponse.raw_output_contents")
            .bytes(".inference.InferTensorContents.bytes_contents")
            // Weights stay slices of the model file.
            .bytes(".onnx.TensorProto.raw_data")
            // The control API's messages are its JSON too: a misspelt key is an error, a missing one is its default.
            .btree_map(".weir.control.v1")
            .message_attribute(".weir.control.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
            .message_attribute(".weir.control.v1", "#[serde(default, deny_unknown_fields)]")
            .enum_attribute(".weir.control.v1", "#[derive(serde::Serialize, serde::Deserialize)]")
            .enum_attribute(".weir.control.v1", "#[serde(untagged)]")
            .compile_fds(descriptors)
            .expect("the generated code is written to OUT_DIR");
    };
    for (file, kept) in [
        ("proto/grpc_service.proto", Some("descriptors.bin")),
        ("proto/weir_control.proto", Some("control_descriptors.bin")),
        ("proto/onnx.proto", None),
    ] {
        let descriptors = compile(file);
        if let Some(kept) = kept {
            let encoded = prost::Message::encode_to_vec(&descriptors);
            std::fs::write(out.join(kept), encoded).expect("OUT_DIR is writable");
        }
        generate(descriptors);
    }
}

fn provision_onnx_runtime() {
    for name in ["WEIR_ORT_CACHE", "XDG_CACHE_HOME", "HOME", "LOCALAPPDATA"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let (os, arch) = (target("OS"), target("ARCH"));
    let Some(wheel) = WHEELS.iter().find(|w| w.os == os && w.arch == arch) else {
        println!(
            "cargo:warning=no ONNX Runtime wheel is pinned for {os}-{arch}: set ORT_DYLIB_PATH when running weir"
        );
        println!("cargo:rustc-env=WEIR_ORT_PROVISIONED=");
        return;
    };
    let folder = cache_folder().join(format!("{ORT_VERSION}-{}", wheel.platform));
    let library = folder.join(wheel.file);
    println!("cargo:rerun-if-changed={}", library.display());
    println!("cargo:rustc-env=WEIR_ORT_PROVISIONED={}", library.display());
    if library.is_file() {
        return;
    }
    if let Err(reason) = fetch(wheel, &folder) {
        println!("cargo:warning=ONNX Runtime {ORT_VERSION} could not be fetched: {reason}");
        println!(
            "cargo:warning=the build goes on; run weir with ORT_DYLIB_PATH=<path of libonnxruntime {ORT_VERSION}>, \
             or build again once `python3 -m pip download onnxruntime=={ORT_VERSION}` works"
        );
    }
}

fn target(what: &str) -> String {
    env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default()
}

/// `$WEIR_ORT_CACHE`, else the user's cache folder, else OUT_DIR.
fn cache_folder() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("WEIR_ORT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("weir/onnxruntime")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/weir/onnxruntime")))
        .or_else(|| set("LOCALAPPDATA").map(|p| p.join("weir/onnxruntime")))
        .unwrap_or_else(|| PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")))
}

/// Downloads, verifies and unpacks the wheel beside its final place, then renames it there in one step, so that
/// two builds at once cannot see half a library.
fn fetch(wheel: &Wheel, folder: &Path) -> Result<(), String> {
    let parent = folder.parent().ok_or("the cache folder has no parent")?;
    std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    let work = parent.join(format!(".fetch-{}-{}", wheel.platform, std::process::id()));
    let outcome = fetch_into(wheel, &work, folder);
    let _ = std::fs::remove_dir_all(&work);
    outcome
}

fn fetch_into(wheel: &Wheel, work: &Path, folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(work).map_err(|e| format!("{}: {e}", work.display()))?;
    let requirements = work.join("requirements.txt");
    std::fs::write(&requirements, format!("onnxruntime=={ORT_VERSION} --hash=sha256:{}\n", wheel.sha256))
        .map_err(|e| e.to_string())?;
    let python = if cfg!(windows) { "python" } else { "python3" };
    run(Command::new(python)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary=:all:", "--implementation", "cp", "--python-version", "3.12", "--abi", "cp312"])
        .args(["--platform", wheel.platform, "--require-hashes", "--dest"])
        .arg(work)
        .arg("-r")
        .arg(&requirements))?;
    let file = std::fs::read_dir(work)
        .map_err(|e| e.to_string())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or("pip downloaded no wheel")?;
    let unpacked = work.join("unpacked");
    run(Command::new(python).args(["-m", "zipfile", "-e"]).arg(&file).arg(&unpacked))?;
    let ready = work.join("ready");
    std::fs::create_dir_all(&ready).map_err(|e| e.to_string())?;
    let package = unpacked.join("onnxruntime");
    for (from, name) in [
        (package.join("capi").join(wheel.file), wheel.file),
        (package.join("LICENSE"), "LICENSE"),
        (package.join("ThirdPartyNotices.txt"), "ThirdPartyNotices.txt"),
    ] {
        std::fs::copy(&from, ready.join(name)).map_err(|e| format!("{} in the wheel: {e}", name))?;
    }
    match std::fs::rename(&ready, folder) {
        Ok(()) => Ok(()),
        // Another build was quicker; its copy has the same hash.
        Err(_) if folder.join(wheel.file).is_file() => Ok(()),
        Err(e) => Err(format!("{}: {e}", folder.display())),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program} did not start: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
    Err(format!("{program}: {last}"))
}
