//! Model repositories that a test writes.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::project;

/// A repository in a temporary folder, gone when the test is.
pub struct Repository {
    // The models have a folder of their own, so that a test can put files outside of it.
    root: TempDir,
}

impl AsRef<Path> for Repository {
    fn as_ref(&self) -> &Path {
        self.root.path()
    }
}

impl Repository {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().expect("there is room for a folder") }
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.path().join(inside)
    }

    /// Copies a file or folder of the project, such as `tests/models/slow`, to `inside`.
    pub fn copy(&self, from: &str, inside: &str) -> &Self {
        copy(&project(from), &self.path(inside));
        self
    }

    pub fn write(&self, inside: &str, contents: impl AsRef<[u8]>) -> &Self {
        let path = self.path(inside);
        std::fs::create_dir_all(path.parent().expect("it is inside a folder")).unwrap();
        std::fs::write(path, contents).unwrap();
        self
    }

    /// A model of the project under another name, with this config. Its model file alone is taken.
    pub fn model(&self, name: &str, from: &str, config: &str) -> &Self {
        self.copy(&format!("{from}/1/model.onnx"), &format!("{name}/1/model.onnx"));
        self.write(&format!("{name}/config.pbtxt"), config)
    }

    /// `digits` with these of its versions and this version policy, such as `all {}`.
    pub fn digits(&self, versions: &[u64], policy: &str) -> &Self {
        self.copy("models/digits/digits_labels.txt", "digits/digits_labels.txt").digits_config(policy, 64);
        versions.iter().for_each(|version| _ = self.digits_version(*version));
        self
    }

    /// One more version of `digits`.
    pub fn digits_version(&self, version: u64) -> &Self {
        self.copy(&format!("models/digits/{version}"), &format!("digits/{version}"))
    }

    /// Another config for `digits`.
    pub fn digits_config(&self, policy: &str, max_batch_size: usize) -> &Self {
        let config = std::fs::read_to_string(project("models/digits/config.pbtxt")).unwrap();
        let edited = config
            .replace("version_policy: { all { } }", &format!("version_policy: {{ {policy} }}"))
            .replace("max_batch_size: 64", &format!("max_batch_size: {max_batch_size}"));
        self.write("digits/config.pbtxt", edited)
    }

    /// Removes a file or folder.
    pub fn remove(&self, inside: &str) -> &Self {
        let path = self.path(inside);
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        self
    }

    /// Removes a link, and not what it leads to.
    pub fn remove_link(&self, inside: &str) -> &Self {
        std::fs::remove_file(self.path(inside)).unwrap();
        self
    }

    /// A model `slow` whose session calls take `factor` times as long as those of `tests/models/slow`, about 30 ms,
    /// one call at a time. `keys` are the rest of its config.
    pub fn slow(&self, factor: u64, keys: &str) -> &Self {
        let model = std::fs::read(project("tests/models/slow/1/model.onnx")).unwrap();
        // One run before it is ready instead of the usual two, which take as long as requests do.
        let once = "model_warmup { name: \"once\" batch_size: 1 inputs { key: \"INPUT0\" \
                    value { data_type: TYPE_FP32 dims: 4 zero_data: true } } }";
        let config = format!("instance_group [ {{ count: 1 kind: KIND_CPU }} ]\n{once}\n{keys}\n");
        self.write("slow/1/model.onnx", with_steps(model, factor)).write("slow/config.pbtxt", config)
    }
}

/// How often the loop of `tests/models/slow` runs; `models/.train/fixtures.py` says so.
const SLOW_STEPS: u64 = 24_000;

/// The file of `slow` with another number of steps, which is an integer of eight bytes in it.
fn with_steps(mut model: Vec<u8>, factor: u64) -> Vec<u8> {
    let steps = SLOW_STEPS.to_le_bytes();
    let places: Vec<usize> =
        model.windows(steps.len()).enumerate().filter(|(_, w)| *w == steps).map(|(at, _)| at).collect();
    let [place] = places.as_slice() else { panic!("the number of steps stands {} times", places.len()) };
    model[*place..place + steps.len()].copy_from_slice(&(SLOW_STEPS * factor).to_le_bytes());
    model
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        std::fs::create_dir_all(to.parent().expect("it is inside a folder")).unwrap();
        std::fs::copy(from, to).unwrap();
        return;
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())) {
        let entry = entry.unwrap();
        copy(&entry.path(), &to.join(entry.file_name()));
    }
}
