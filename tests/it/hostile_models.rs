//! Model folders that somebody made to do harm: links, devices, names and sizes. Each makes only itself unavailable, for a
//! reason that tells what is wrong, and the model beside it answers.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::eventually;
use crate::support::program::Program;
use crate::support::repository::Repository;
use crate::support::tensors::{fp32, output0};
use crate::support::weir::{FREE_PORTS, Weir};

/// What must never be read: the text of a file outside of the repository.
const SECRET: &str = "name: \"the secret\"";

/// A model that somebody made: how, in a repository and by its name there, and what its reason must say.
struct Hostile {
    name: &'static str,
    make: fn(&Outside, &str),
    reason: &'static str,
}

/// A models folder, and files beside it.
struct Outside {
    top: Repository,
    /// The folder that models are made in.
    folder: &'static str,
}

impl Outside {
    fn new() -> Self {
        let top = Repository::new();
        top.write("secret", SECRET).copy("tests/models/identity_fp32", "elsewhere/m");
        for folder in ["models", "staged"] {
            std::fs::create_dir(top.path(folder)).unwrap();
        }
        Self { top, folder: "models" }
    }

    /// A file of a model, by the model's name and its path there.
    fn path(&self, model: &str, file: &str) -> std::path::PathBuf {
        let path = self.models().join(model).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn models(&self) -> std::path::PathBuf {
        self.top.path(self.folder)
    }

    fn good(&self, model: &str) {
        self.top.copy("tests/models/identity_fp32", &format!("{}/{model}", self.folder));
    }

    /// A good model with this config.
    fn configured(&self, model: &str, config: &str) {
        self.good(model);
        std::fs::write(self.path(model, "config.pbtxt"), config).unwrap();
    }

    fn link(&self, to: &str, model: &str, file: &str) {
        symlink(to, self.path(model, file)).unwrap();
    }

    fn fifo(&self, model: &str, file: &str) {
        let made = Command::new("mkfifo").arg(self.path(model, file)).status().unwrap();
        assert!(made.success());
    }

    /// A file of that size without contents.
    fn sparse(&self, model: &str, file: &str, bytes: u64) {
        File::create(self.path(model, file)).unwrap().set_len(bytes).unwrap();
    }
}

const LABELS: &str =
    "max_batch_size: 4 output { name: \"OUTPUT0\" data_type: TYPE_FP32 dims: -1 label_filename: \"labels\" }";

const WARMUP: &str = "model_warmup { name: \"w\" inputs { key: \"INPUT0\" value { data_type: TYPE_FP32 dims: 4 input_data_file: \"data\" } } }";

const LINK: &str = "is a link; copy it into the repository";

const HOSTILE: &[Hostile] = &[
    // ── Links ────────────────────────────────────────────────────────────────────────────────────────────────────
    Hostile {
        name: "link_folder",
        make: |at, m| symlink("../elsewhere/m", at.models().join(m)).unwrap(),
        reason: LINK,
    },
    Hostile { name: "link_to_root", make: |at, m| symlink("/", at.models().join(m)).unwrap(), reason: LINK },
    Hostile {
        name: "link_to_nothing",
        make: |at, m| symlink("nowhere", at.models().join(m)).unwrap(),
        reason: LINK,
    },
    Hostile { name: "link_to_itself", make: |at, m| symlink(m, at.models().join(m)).unwrap(), reason: LINK },
    Hostile {
        name: "link_version",
        make: |at, m| at.link("../../elsewhere/m/1", m, "1"),
        reason: "the folder of version 1 is a link",
    },
    Hostile {
        name: "link_version_to_proc",
        make: |at, m| at.link("/proc/self/fd", m, "1"),
        reason: "the folder of version 1 is a link",
    },
    Hostile {
        name: "link_file",
        make: |at, m| at.link("../../../elsewhere/m/1/model.onnx", m, "1/model.onnx"),
        reason: "1/model.onnx is a link",
    },
    Hostile {
        name: "link_file_within",
        make: |at, m| {
            at.good(m);
            std::fs::rename(at.path(m, "1/model.onnx"), at.path(m, "1/real.onnx")).unwrap();
            at.link("real.onnx", m, "1/model.onnx");
        },
        reason: "1/model.onnx is a link",
    },
    Hostile {
        name: "link_file_loop",
        make: |at, m| at.link("model.onnx", m, "1/model.onnx"),
        reason: "1/model.onnx is a link",
    },
    Hostile {
        name: "link_file_endless",
        make: |at, m| at.link("/dev/zero", m, "1/model.onnx"),
        reason: "1/model.onnx is a link",
    },
    Hostile {
        name: "link_nested",
        make: |at, m| at.link("../../../../elsewhere/m/1/model.onnx", m, "1/model.onnx/model.onnx"),
        reason: "1/model.onnx/model.onnx is a link",
    },
    Hostile {
        name: "link_config",
        make: |at, m| {
            at.good(m);
            let _ = std::fs::remove_file(at.path(m, "config.pbtxt"));
            at.link("../../secret", m, "config.pbtxt");
        },
        reason: "config.pbtxt is a link",
    },
    Hostile {
        name: "link_labels",
        make: |at, m| {
            at.configured(m, LABELS);
            at.link("../../secret", m, "labels");
        },
        reason: "label_filename 'labels' is a link",
    },
    Hostile {
        name: "link_warmup",
        make: |at, m| {
            at.configured(m, WARMUP);
            at.link("../../elsewhere", m, "warmup");
        },
        reason: "input_data_file 'data' is a link",
    },
    Hostile {
        name: "hard_link_file",
        make: |at, m| {
            std::fs::hard_link(at.top.path("elsewhere/m/1/model.onnx"), at.path(m, "1/model.onnx")).unwrap()
        },
        reason: "1/model.onnx is a hard link",
    },
    Hostile {
        name: "hard_link_config",
        make: |at, m| {
            at.good(m);
            let _ = std::fs::remove_file(at.path(m, "config.pbtxt"));
            std::fs::hard_link(at.top.path("secret"), at.path(m, "config.pbtxt")).unwrap();
        },
        reason: "config.pbtxt is a hard link",
    },
    // ── What is no file ──────────────────────────────────────────────────────────────────────────────────────────
    Hostile {
        name: "fifo_file",
        make: |at, m| at.fifo(m, "1/model.onnx"),
        reason: "1/model.onnx is no regular file",
    },
    Hostile {
        name: "fifo_nested",
        make: |at, m| at.fifo(m, "1/model.onnx/model.onnx"),
        reason: "model.onnx is no regular file",
    },
    Hostile {
        name: "fifo_config",
        make: |at, m| at.fifo(m, "config.pbtxt"),
        reason: "config.pbtxt is no regular file",
    },
    Hostile {
        name: "fifo_labels",
        make: |at, m| {
            at.configured(m, LABELS);
            at.fifo(m, "labels");
        },
        reason: "label_filename 'labels' is no regular file",
    },
    Hostile {
        name: "fifo_warmup",
        make: |at, m| {
            at.configured(m, WARMUP);
            at.fifo(m, "warmup/data");
        },
        reason: "input_data_file 'data' is no regular file",
    },
    Hostile {
        name: "socket_file",
        make: |at, m| _ = std::os::unix::net::UnixListener::bind(at.path(m, "1/model.onnx")).unwrap(),
        reason: "1/model.onnx is no regular file",
    },
    Hostile {
        name: "folder_file",
        make: |at, m| _ = at.path(m, "1/model.onnx/x"),
        reason: "1/model.onnx is no regular file",
    },
    Hostile {
        name: "folder_config",
        make: |at, m| _ = at.path(m, "config.pbtxt/x"),
        reason: "config.pbtxt is no regular file",
    },
    // ── Sizes ────────────────────────────────────────────────────────────────────────────────────────────────────
    Hostile {
        name: "huge_file",
        make: |at, m| at.sparse(m, "1/model.onnx", 1 << 40),
        reason: "1/model.onnx is larger than",
    },
    Hostile {
        name: "huge_config",
        make: |at, m| at.sparse(m, "config.pbtxt", 1 << 40),
        reason: "config.pbtxt is larger than 1048576 bytes",
    },
    Hostile {
        name: "huge_labels",
        make: |at, m| {
            at.configured(m, LABELS);
            at.sparse(m, "labels", 1 << 40);
        },
        reason: "label_filename 'labels' is larger than 16777216 bytes",
    },
    Hostile {
        name: "many_labels",
        make: |at, m| {
            at.configured(m, LABELS);
            std::fs::write(at.path(m, "labels"), "\n".repeat(2_000_000)).unwrap();
        },
        reason: "more than 1000000 labels",
    },
    Hostile {
        name: "huge_warmup",
        make: |at, m| {
            at.configured(m, WARMUP);
            at.sparse(m, "warmup/data", 1 << 40);
        },
        reason: "input_data_file 'data' is larger than 67108864 bytes",
    },
    // ── Names and layout ─────────────────────────────────────────────────────────────────────────────────────────
    Hostile { name: "empty", make: |at, m| _ = at.path(m, "x"), reason: "no version folder" },
    Hostile {
        name: "empty_version",
        make: |at, m| _ = at.path(m, "1/x"),
        reason: "1/model.onnx is not there",
    },
    Hostile {
        name: "version_is_a_file",
        make: |at, m| std::fs::write(at.path(m, "1"), "x").unwrap(),
        reason: "no version folder",
    },
    Hostile { name: "version_is_a_fifo", make: |at, m| at.fifo(m, "1"), reason: "no version folder" },
    Hostile {
        name: "versions_that_are_none",
        make: |at, m| {
            ["0/x", "01/x", "-1/x", "1e3/x", "99999999999999999999/x"].iter().for_each(|v| _ = at.path(m, v))
        },
        reason: "no version folder",
    },
    Hostile {
        name: "many_versions",
        make: |at, m| (1..=1500).for_each(|v| _ = at.path(m, &format!("{v}/x"))),
        reason: "1500/model.onnx is not there",
    },
    Hostile {
        name: "labels_of_another",
        make: |at, m| at.configured(m, &LABELS.replace("\"labels\"", "\"../link_labels/labels\"")),
        reason: "leaves its folder",
    },
    Hostile {
        name: "labels_of_the_machine",
        make: |at, m| at.configured(m, &LABELS.replace("\"labels\"", "\"/etc/passwd\"")),
        reason: "leaves its folder",
    },
    Hostile {
        name: "labels_with_nul",
        make: |at, m| at.configured(m, &LABELS.replace("\"labels\"", "\"a\\000b\"")),
        reason: "cannot be read",
    },
    Hostile {
        name: "name_without_end",
        make: |at, m| {
            at.configured(m, &LABELS.replace("\"labels\"", &format!("\"{}\"", "a".repeat(100_000))))
        },
        reason: "cannot be read",
    },
];

/// Holds that the model is unavailable for its reason, and that no reason tells what is outside.
#[track_caller]
fn refused(weir: &Weir, hostile: &Hostile) {
    let (state, reason) = weir.state(hostile.name);
    assert_eq!(state, "UNAVAILABLE", "{}", hostile.name);
    assert!(
        reason.contains(hostile.reason),
        "{}: '{reason}' does not say '{}'",
        hostile.name,
        hostile.reason
    );
    assert!(
        reason.chars().count() <= 1001 && !reason.contains(char::is_control),
        "{}: {reason}",
        hostile.name
    );
    assert!(!reason.contains("the secret"), "{}: {reason}", hostile.name);
}

#[track_caller]
fn answers(weir: &Weir) {
    assert_eq!(output0(weir.infer("good", &fp32(&[1, 2], &[1.0, 2.0]))), (vec![1, 2], vec![1.0, 2.0]));
}

#[test]
fn hostile_models_harm_themselves_alone() {
    let outside = Outside::new();
    outside.good("good");
    HOSTILE.iter().for_each(|hostile| (hostile.make)(&outside, hostile.name));
    let weir = Weir::start(outside.models(), &[]);
    answers(&weir);
    HOSTILE.iter().for_each(|hostile| refused(&weir, hostile));
    let folder = outside.top.path("").to_str().unwrap().to_owned();
    for [model, _, _, reason] in weir.index() {
        assert!(!reason.contains(&folder), "{model}: {reason}");
    }
    // Nothing of a terabyte came into memory.
    assert!(weir.resident_bytes() < 1 << 30, "{} bytes", weir.resident_bytes());
    let models = outside.models();
    let checked = Program::new(&["check-config", "--models", models.to_str().unwrap()]).run();
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert!(checked.stdout.contains("# good: config ok") && !checked.stdout.contains("the secret"));
}

#[test]
fn hostile_models_that_come_while_the_server_runs_harm_themselves_alone() {
    let mut outside = Outside::new();
    outside.good("good");
    let weir = Weir::start(outside.models(), &["--control", "watch", "--settle-seconds", "0"]);
    // Made elsewhere and moved in whole: what is half made may be served, and stays.
    outside.folder = "staged";
    for hostile in HOSTILE {
        (hostile.make)(&outside, hostile.name);
        let (made, moved) =
            (outside.models().join(hostile.name), outside.top.path("models").join(hostile.name));
        std::fs::rename(made, moved).unwrap();
    }
    for hostile in HOSTILE {
        let known = |index: Vec<[String; 4]>| {
            index.iter().any(|[name, _, state, _]| name == hostile.name && state == "UNAVAILABLE")
        };
        eventually(hostile.name, || known(weir.index()).then_some(()));
        refused(&weir, hostile);
        answers(&weir);
    }
}

#[test]
fn devices_are_no_model_files() {
    let outside = Outside::new();
    outside.good("good");
    for (name, kind, numbers) in [("zero", "c", ["1", "5"]), ("disk", "b", ["259", "4095"])] {
        let made =
            Command::new("mknod").arg(outside.path(name, "1/model.onnx")).arg(kind).args(numbers).output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("devices are root's to make: not tested here");
            return;
        }
    }
    let weir = Weir::start(outside.models(), &[]);
    answers(&weir);
    for name in ["zero", "disk"] {
        assert_eq!(
            weir.state(name),
            ("UNAVAILABLE".to_owned(), "1/model.onnx is no regular file".to_owned())
        );
    }
}

#[test]
fn names_that_are_no_text_and_folders_without_end_stop_nothing() {
    let outside = Outside::new();
    outside.good("good");
    for name in [&b"caf\xe9"[..], b"a\nb", b"a\x1b[31mb", b"-rf", b"a b", "é".as_bytes(), &[b'a'; 255]] {
        std::fs::create_dir(outside.models().join(std::ffi::OsStr::from_bytes(name))).unwrap();
    }
    std::fs::write(outside.path("good", "1").join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
    deep(&outside.models().join("good"), 1000);
    (0..5000).for_each(|i| std::fs::write(outside.path("good", &format!("notes/{i}")), "").unwrap());
    for mode in ["static", "watch"] {
        let weir = Weir::start(outside.models(), &["--control", mode]);
        answers(&weir);
        let names: Vec<String> = weir.index().into_iter().map(|[name, ..]| name).collect();
        assert_eq!(names, ["good"]);
        assert!(!weir.errors().contains('\x1b'), "{}", weir.errors());
    }
}

/// Makes folders within each other, as far as the system goes.
fn deep(folder: &Path, depth: usize) {
    let mut path = folder.to_owned();
    for _ in 0..depth {
        path.push("d");
        if std::fs::create_dir(&path).is_err() {
            break;
        }
    }
}

#[test]
fn the_routes_file_of_the_models_folder_is_read_as_models_are() {
    let outside = Outside::new();
    outside.good("good");
    symlink("../secret", outside.models().join("routes.toml")).unwrap();
    let models = outside.models();
    let run =
        Program::new(&[&["serve", "--models", models.to_str().unwrap()], &FREE_PORTS[..]].concat()).run();
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("is a link; name the file itself by --routes"), "{run:?}");
    std::fs::remove_file(models.join("routes.toml")).unwrap();
    // One that is named is the operator's, and may be a link.
    outside.top.write("real.toml", "[models.good]\narms = [{version = 1, weight = 1}]\n");
    symlink("real.toml", outside.top.path("named.toml")).unwrap();
    let named = outside.top.path("named.toml");
    answers(&Weir::start(&models, &["--routes", named.to_str().unwrap()]));
}
