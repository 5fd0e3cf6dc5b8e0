//! Follows a repository as it changes.
//!
//! Always: a folder is acted upon only after it has stood still for [`Watch::settle`], so that a version that is
//! still being copied is not loaded. What fails to load is tried again when its files change. A repository that
//! cannot be read changes nothing, and neither does one that has lost all its models at once: a volume that is
//! unmounted leaves an empty folder.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::live::Live;
use super::stop::Stop;
use crate::id::{ModelName, Version};
use crate::model::repository::could_be_model;

/// Who changes things when the repository does.
const WATCH: &str = "watch";

/// How often the repository is read.
const LOOK: Duration = Duration::from_millis(500);

/// Files and folders of one model or version that are looked at; more do not tell more.
const ENTRIES_MAX: usize = 4096;

/// Folders within each other that are looked into. Model files lie two deep.
const DEPTH_MAX: usize = 16;

/// Sizes and times of the files of a folder.
type Print = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// A model's folder at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelPrint {
    /// The folder is there.
    exists: bool,
    /// Files beside the versions: the config, labels, warm-up data.
    shared: Print,
    versions: BTreeMap<Version, Print>,
}

/// What is known of a model's folder.
struct Known {
    /// As it was when it was last acted upon; `None`: never.
    acted: Option<ModelPrint>,
    seen: ModelPrint,
    since: Instant,
}

/// Follows a repository.
pub struct Watch {
    live: Arc<Live>,
    /// How long a folder must stand still.
    settle: Duration,
    known: BTreeMap<ModelName, Known>,
    /// Models that have versions on their way out.
    fading: BTreeSet<ModelName>,
    /// Why the repository was not followed the last time; `None` if it was.
    blind: Option<Blind>,
}

/// Why a repository is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Blind {
    #[error("the models folder cannot be read: {0}; what is live stays")]
    Unreadable(String),
    /// It has no model, while versions are live of models that it had.
    #[error("the models folder is empty: what is live stays; put models there, or unload what is live")]
    Empty,
}

/// A repository at one moment.
pub type Prints = BTreeMap<ModelName, ModelPrint>;

impl Watch {
    /// Follows a repository that was loaded as it stood when `loaded` was taken.
    pub fn new(live: Arc<Live>, settle: Duration, loaded: Prints) -> Self {
        let since = Instant::now();
        let known = |print: ModelPrint| Known { acted: Some(print.clone()), seen: print, since };
        let known = loaded.into_iter().map(|(model, print)| (model, known(print))).collect();
        Self { live, settle, known, fading: BTreeSet::new(), blind: None }
    }

    /// Follows until told to stop. Blocks.
    pub fn run(mut self, stop: &Stop) {
        while !stop.wait(LOOK) {
            self.step(Instant::now());
        }
    }

    fn step(&mut self, now: Instant) {
        self.fading.retain(|model| self.live.forget_gone(model));
        let looked = match look(&self.live.config.models) {
            Ok(prints) if prints.is_empty() && self.has_live() => Err(Blind::Empty),
            Ok(prints) => Ok(prints),
            Err(error) => Err(Blind::Unreadable(error.to_string())),
        };
        let blind = looked.as_ref().err().cloned();
        if let Some(blind) = &blind
            && self.blind.as_ref() != Some(blind)
        {
            tracing::error!("{blind}");
        }
        self.blind = blind;
        let Ok(mut prints) = looked else { return };
        for (model, known) in &mut self.known {
            let print = prints.remove(model).unwrap_or_default();
            if print != known.seen {
                known.seen = print;
                known.since = now;
            }
        }
        for (model, print) in prints {
            self.known.insert(model, Known { acted: None, seen: print, since: now });
        }
        let settled: Vec<ModelName> = self
            .known
            .iter()
            .filter(|(_, known)| known.acted.as_ref() != Some(&known.seen))
            .filter(|(_, known)| now.saturating_duration_since(known.since) >= self.settle)
            .map(|(model, _)| model.clone())
            .collect();
        for model in settled {
            self.act(&model);
        }
        self.known.retain(|_, known| known.seen.exists || known.acted.as_ref() != Some(&known.seen));
    }

    /// Whether a version is live of a model that was in the folder.
    fn has_live(&self) -> bool {
        self.known.keys().any(|model| !self.live.ready_versions(model).is_empty())
    }

    fn act(&mut self, model: &ModelName) {
        let Some(known) = self.known.get_mut(model) else { return };
        let before = known.acted.replace(known.seen.clone()).unwrap_or_default();
        let seen = &known.seen;
        // Another config may change every version; other files change their own.
        let again: BTreeSet<Version> = match before.shared == seen.shared {
            false => seen.versions.keys().copied().collect(),
            true => {
                let changed =
                    |(version, print): &(&Version, &Print)| before.versions.get(version) != Some(*print);
                seen.versions.iter().filter(changed).map(|(version, _)| *version).collect()
            }
        };
        let outcome = match self.live.candidate(model) {
            Err(_) => self.live.take_down_all_but(model, &BTreeSet::new(), WATCH),
            Ok(candidate) => {
                let desired = self.live.desired(model);
                let refusal = desired.wanted(&candidate, true).err();
                self.live.note_refusal(&candidate, refusal.as_deref());
                self.live.reconcile(&candidate, &desired, &again, true, WATCH)
            }
        };
        if let Err(error) = outcome {
            tracing::warn!(%model, "the repository changed, and what is live did not wholly follow: {error}");
        }
        if self.live.forget_gone(model) {
            self.fading.insert(model.clone());
        }
    }
}

/// Takes the prints of every model's folder. Errors: the repository itself cannot be read.
///
/// Looks at names, sizes and times alone, and follows no link: a link is looked at itself.
pub fn look(models: &Path) -> io::Result<Prints> {
    let entries = std::fs::read_dir(models)?.filter_map(Result::ok);
    let folders = entries.filter_map(|entry| {
        let model = ModelName::parse(entry.file_name().to_str()?)?;
        could_be_model(&entry).then(|| (model, model_print(&entry.path())))
    });
    Ok(folders.collect())
}

fn model_print(folder: &Path) -> ModelPrint {
    let mut print = ModelPrint { exists: true, ..ModelPrint::default() };
    let is_folder = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    if !is_folder(folder) {
        collect(folder, &mut print.shared, &mut 1, 0);
        return print;
    }
    let (mut left, mut left_of_shared) = (ENTRIES_MAX, ENTRIES_MAX);
    for (name, path) in entries(folder, &mut left) {
        match Version::parse(&name).filter(|_| is_folder(&path)) {
            Some(version) => {
                let mut files = Print::new();
                collect(&path, &mut files, &mut ENTRIES_MAX.clone(), DEPTH_MAX);
                print.versions.insert(version, files);
            }
            None => collect(&path, &mut print.shared, &mut left_of_shared, DEPTH_MAX),
        }
    }
    print
}

/// Notes the files below `path`, as long as there are entries `left`, down to so many folders within each other.
fn collect(path: &Path, print: &mut Print, left: &mut usize, depth: usize) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    if metadata.is_dir() && depth > 0 {
        for (_, path) in entries(path, left) {
            collect(&path, print, left, depth - 1);
        }
    } else {
        print.insert(path.to_owned(), (metadata.len(), metadata.modified().ok()));
    }
}

/// Names and paths in a folder, at most `left`, which they are taken from.
fn entries(folder: &Path, left: &mut usize) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).take(*left);
    let entries: Vec<_> =
        entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect();
    *left -= entries.len();
    entries
}
