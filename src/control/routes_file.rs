//! `routes.toml`: routes and labels as a file says them, so that replicas driven by one file agree.
//!
//! Always: a file that cannot be read whole changes nothing. A model that the file names is governed by it alone;
//! one that it no longer names follows its highest version again. Where the file goes, the routes stand and are anybody's to change.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::desired::LABELS_MAX;
use super::forms;
use super::ledger::Writing;
use super::live::Live;
use super::routes::{Past, RouteChange, owner};
use super::stop::Stop;
use crate::backend::{Outside, open};
use crate::error::excerpt;
use crate::id::{ModelName, Version, is_label};
use crate::proto::control as pb;
use crate::route::{Route, Rule};

/// How often the file is read.
const LOOK: Duration = Duration::from_secs(1);

/// Who changes things when the file does.
const FILE: &str = "routes file";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesFile {
    #[serde(default)]
    models: BTreeMap<String, FileModel>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileModel {
    arms: Vec<pb::Arm>,
    shadows: Vec<pb::Shadow>,
    sticky: Option<Spanned<String>>,
    rules: Vec<Spanned<pb::Rule>>,
    labels: BTreeMap<String, u64>,
}

/// What the file asks for.
#[derive(Debug, Default, PartialEq)]
pub struct Wish {
    models: BTreeMap<ModelName, FileModel>,
}

/// Where the routes file is, and whose it is.
#[derive(Debug, Clone)]
pub struct RoutesPath {
    pub path: PathBuf,
    /// An operator named it: then it may be a link. The one in the models folder is read as models are.
    pub named: bool,
}

/// Bytes of a routes file: a thousand models with ten arms each take less.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the file; `None` where there is none. Errors: the line and what is wrong with it.
pub fn read(file: &RoutesPath) -> Result<Option<Wish>, String> {
    let path = &file.path;
    let wrong = |reason: String| format!("the routes file {} {reason}", path.display());
    let Some(bytes) = bytes(file).map_err(wrong)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
    let wish =
        parse(&text).map_err(|reason| format!("the routes file {} is wrong: {reason}", path.display()))?;
    Ok(Some(wish))
}

/// All of the file; `None` where there is none. Errors: as text that goes after its name.
fn bytes(file: &RoutesPath) -> Result<Option<Vec<u8>>, String> {
    if file.named {
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(&file.path);
        return match opened.and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes)) {
            Ok(length) if length as u64 > BYTES_MAX => {
                Err(Outside::TooLarge { bytes_max: BYTES_MAX }.to_string())
            }
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
    }
    let (Some(folder), Some(name)) = (file.path.parent(), file.path.file_name()) else {
        return Err(Outside::Path.to_string());
    };
    match open(folder, Path::new(name), BYTES_MAX) {
        Err(Outside::Missing) => Ok(None),
        Err(Outside::Link) => Err("is a link; name the file itself by --routes".to_owned()),
        Err(outside) => Err(outside.in_full()),
        Ok(opened) => opened.read().map(Some).map_err(|error| format!("cannot be read: {error}")),
    }
}

/// Reads a file's text. Errors: the line or the model, and what is wrong with it.
pub fn parse(text: &str) -> Result<Wish, String> {
    let at_line = |position: usize, reason: &str| {
        format!("line {}: {reason}", text[..position].matches('\n').count() + 1)
    };
    let file: RoutesFile = toml::from_str(text)
        .map_err(|error| at_line(error.span().map_or(0, |span| span.start), error.message()))?;
    let mut wish = Wish::default();
    for (name, model) in file.models {
        let name = ModelName::parse(&name)
            .ok_or_else(|| format!("'{}' cannot be a model's name", excerpt(&name)))?;
        if !model.arms.is_empty() {
            forms::spec(&model.route())
                .and_then(|spec| Route::new(&name, spec))
                .map_err(|reason| format!("models.{name}: {reason}"))?;
            model
                .short()
                .map_err(|(position, reason)| at_line(position, &format!("models.{name}: {reason}")))?;
        } else if model.route() != pb::Route::default() {
            return Err(format!("models.{name}: shadows, sticky and rules need arms"));
        }
        if model.labels.len() > LABELS_MAX {
            let count = model.labels.len();
            return Err(format!("models.{name}: {count} labels are too many: a model takes {LABELS_MAX}"));
        }
        for (label, version) in &model.labels {
            if !is_label(label) || Version::new(*version).is_none() {
                return Err(format!("models.{name}: label '{}' = {version} is none", excerpt(label)));
            }
        }
        wish.models.insert(name, model);
    }
    Ok(wish)
}

impl FileModel {
    fn route(&self) -> pb::Route {
        pb::Route {
            arms: self.arms.clone(),
            shadows: self.shadows.clone(),
            sticky: self.sticky.as_ref().map(|sticky| sticky.get_ref().clone()).unwrap_or_default(),
            rules: self.rules.iter().map(|rule| rule.get_ref().clone()).collect(),
            ..pb::Route::default()
        }
    }

    /// Errors: where a text stands that is longer than a route takes, and what it is.
    fn short(&self) -> Result<(), (usize, String)> {
        let Ok(spec) = forms::spec(&self.route()) else { return Ok(()) };
        if let (Some(written), Some(sticky)) = (&self.sticky, &spec.sticky) {
            sticky.short().map_err(|reason| (written.span().start, reason))?;
        }
        let ruled = |(written, rule): (&Spanned<pb::Rule>, &Rule)| {
            rule.short().map_err(|reason| (written.span().start, format!("a rule's {reason}")))
        };
        self.rules.iter().zip(&spec.rules).try_for_each(ruled)
    }
}

/// Applies the file, at the start and whenever it changes.
pub struct Follower {
    live: Arc<Live>,
    path: RoutesPath,
    /// What was last said of trouble, so that it is said once.
    complaint: String,
}

impl Follower {
    pub fn new(live: Arc<Live>, path: RoutesPath) -> Self {
        Self { live, path, complaint: String::new() }
    }

    /// Applies the file until told to stop. What could not be applied is tried again. Blocks.
    pub fn run(mut self, stop: &Stop) {
        while !stop.wait(LOOK) {
            self.apply();
        }
    }

    /// Reads the file and brings the routes to what it says.
    pub fn apply(&mut self) {
        let applied = read(&self.path).and_then(|wish| match wish {
            Some(wish) => self.bring_about(&wish),
            None => self.release(),
        });
        let complaint = applied.err().unwrap_or_default();
        if complaint != self.complaint && !complaint.is_empty() {
            tracing::error!("{complaint}; what is live stays");
        }
        self.complaint = complaint;
    }

    fn bring_about(&self, wish: &Wish) -> Result<(), String> {
        let mut trouble = Vec::new();
        for (model, wanted) in &wish.models {
            if let Err(error) = self.bring_model_about(model, wanted) {
                trouble.push(format!("the routes file: {error}"));
            }
        }
        for model in self.live.governed() {
            let route = self.live.desired(&model).route;
            let ours = route.is_some_and(|route| route.owner == owner::FILE);
            let named = wish.models.get(&model).is_some_and(|wanted| !wanted.arms.is_empty());
            if ours
                && !named
                && let Err(error) = self.live.change_route(&model, change(None))
            {
                trouble.push(format!("the routes file: {error}"));
            }
        }
        if trouble.is_empty() { Ok(()) } else { Err(trouble.join("; ")) }
    }

    /// Without a file nothing governs: its routes stand, and are the operators' to change.
    fn release(&self) -> Result<(), String> {
        let told = |error| format!("the routes file is gone: {error}");
        self.live.governed().iter().try_for_each(|model| self.live.release_route(model, FILE)).map_err(told)
    }

    fn bring_model_about(
        &self,
        model: &ModelName,
        wanted: &FileModel,
    ) -> Result<(), crate::error::ServeError> {
        let stands = self.live.desired(model);
        let route = wanted.route();
        let differs = stands
            .route
            .as_ref()
            .is_none_or(|stands| forms::bare(stands) != route || stands.owner != owner::FILE);
        if !wanted.arms.is_empty() && differs {
            self.live.change_route(model, change(Some(route)))?;
        }
        for (label, version) in &wanted.labels {
            if stands.labels.get(label) != Some(version) {
                self.live.change_label(model, label, Version::new(*version), FILE)?;
            }
        }
        Ok(())
    }
}

fn change(to: Option<pb::Route>) -> RouteChange<'static> {
    RouteChange {
        to,
        owner: owner::FILE,
        actor: FILE,
        action: "route",
        if_revision: None,
        past: Past::Remember,
        of_rollout: false,
        why: "",
        along: Writing::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::TEXT_BYTES_MAX;

    #[test]
    fn a_file_says_routes_and_labels() {
        let wish = parse(
            "[models.digits]\nsticky = \"header:x-user-id\"\narms = [{version = 1, weight = 90}, {version = 2, weight = 10}]\n\
             shadows = [{version = 3, share = 1.0}]\nlabels = {stable = 1}\n",
        )
        .unwrap();
        let model = &wish.models[&ModelName::parse("digits").unwrap()];
        assert_eq!((model.arms.len(), model.shadows[0].version, model.labels["stable"]), (2, 3, 1));
    }

    #[test]
    fn a_text_or_a_list_that_is_too_long_is_named_with_its_line() {
        let file = |sticky: usize, equals: usize, labels: usize| {
            let (sticky, equals) = ("s".repeat(sticky), "e".repeat(equals));
            let labels: Vec<String> = (0..labels).map(|n| format!("l{n} = 1")).collect();
            format!(
                "[models.m]\narms = [{{version = 1, weight = 1}}]\nsticky = \"parameter:{sticky}\"\nrules = [\n  \
                 {{header = \"a\", equals = \"b\", version = 1}},\n  \
                 {{header = \"a\", equals = \"{equals}\", version = 1}}]\nlabels = {{{}}}\n",
                labels.join(", ")
            )
        };
        let longest = TEXT_BYTES_MAX - "parameter:".len();
        parse(&file(longest, TEXT_BYTES_MAX, LABELS_MAX)).unwrap();
        for (text, reason) in [
            (file(longest + 1, 1, 1), "line 3: models.m: sticky has 1025 bytes: a route takes 1024"),
            (
                file(1, TEXT_BYTES_MAX + 1, 1),
                "line 6: models.m: a rule's equals has 1025 bytes: a route takes 1024",
            ),
            (file(1, 1, LABELS_MAX + 1), "models.m: 257 labels are too many: a model takes 256"),
        ] {
            assert_eq!(parse(&text), Err(reason.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        for (text, part) in [
            ("[models.m]\nweight = 1\n", "line 2"),
            ("[models.m]\narms = [{version = 0, weight = 1}]\n", "versions are numbers from 1 up"),
            ("[models.m]\nsticky = \"header:x\"\n", "need arms"),
            ("[models.m]\nlabels = {\"1\" = 2}\n", "label '1'"),
            ("[models.\"a/b\"]\n", "cannot be a model's name"),
            ("[model.m]\n", "line 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
