//! `weir route` and `weir rollback`: who gets which version of a model.

use std::io::Write;

use clap::{Args, Subcommand};

use super::client::Call;
use super::options::{self, ActorArguments, ServerArguments};
use super::text;
use crate::proto::control::{Arm, Route, Rule, Shadow};

/// Arguments of `weir route`.
#[derive(Debug, Args)]
pub struct RouteArguments {
    #[command(subcommand)]
    command: RouteCommand,
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Subcommand)]
enum RouteCommand {
    /// Show a model's route
    Show {
        /// Whose route
        #[arg(value_parser = options::model)]
        model: String,
    },
    /// Replace a model's route by this one, whole; versions that it names are loaded first
    ///
    /// For example: weir route set digits 1=90 2=10 --shadow 3 --sticky header:x-user-id
    Set(SetArguments),
    /// Remove a model's route: the highest version that is ready answers again
    Clear {
        /// Whose route
        #[arg(value_parser = options::model)]
        model: String,
        /// Only if the route's revision is this one
        #[arg(long, value_name = "N")]
        if_revision: Option<u64>,
        #[command(flatten)]
        actor: ActorArguments,
    },
}

#[derive(Debug, Args)]
struct SetArguments {
    /// Whose route
    #[arg(value_parser = options::model)]
    model: String,
    /// Versions that answer, with weights relative to each other
    #[arg(value_name = "VERSION=WEIGHT", value_parser = arm, required = true)]
    arms: Vec<Arm>,
    /// A version that gets a copy of that part of the requests, 0 to 1 [default share: 1]
    #[arg(long = "shadow", value_name = "VERSION[=SHARE]", value_parser = shadow)]
    shadows: Vec<Shadow>,
    /// What ties a client to its version: header:NAME, metadata:NAME, parameter:NAME or request_id
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    sticky: String,
    /// Requests whose header has that value go to that version, whatever the weights say
    #[arg(long = "rule", value_name = "header:NAME=VALUE->VERSION", value_parser = rule)]
    rules: Vec<Rule>,
    /// Only if the route's revision is this one
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    actor: ActorArguments,
}

/// Arguments of `weir rollback`.
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// Whose route
    #[arg(value_parser = options::model)]
    model: String,
    #[command(flatten)]
    actor: ActorArguments,
    #[command(flatten)]
    server: ServerArguments,
}

impl RouteArguments {
    /// Makes the change, if any, and prints the route that is in force.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let call = match self.command {
            RouteCommand::Show { model } => Call::get(&["models", &model, "route"]),
            RouteCommand::Set(set) => set.call(),
            RouteCommand::Clear { model, if_revision, actor } => {
                Call::delete(&["models", &model, "route"]).if_revision(if_revision).by(actor.name())
            }
        };
        self.server.show(out, &self.server.client()?.ask(call)?, render)
    }
}

impl SetArguments {
    fn call(self) -> Call {
        let call =
            Call::put(&["models", &self.model, "route"]).by(self.actor.name()).if_revision(self.if_revision);
        let Self { arms, shadows, sticky, rules, .. } = self;
        call.body(&Route { arms, shadows, sticky, rules, ..Route::default() })
    }
}

impl RollbackArguments {
    /// Goes back and prints the route that is in force then.
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let call = Call::post(&["models", &self.model, "rollback"]).by(self.actor.name());
        self.server.show(out, &self.server.client()?.ask(call)?, render)
    }
}

/// `1=90`.
fn arm(text: &str) -> Result<Arm, String> {
    let form = || format!("'{text}' is not VERSION=WEIGHT, such as 1=90");
    let (version, weight) = text.split_once('=').ok_or_else(form)?;
    Ok(Arm { version: options::version(version)?, weight: options::amount(weight)? })
}

/// `3` or `3=0.5`.
fn shadow(text: &str) -> Result<Shadow, String> {
    let (version, share) = text.split_once('=').unwrap_or((text, "1"));
    Ok(Shadow { version: options::version(version)?, share: options::part(share)? })
}

/// `header:x-tier=gold->2`. The value may hold '=' and '->': names of headers hold no '=', versions no '>'.
fn rule(text: &str) -> Result<Rule, String> {
    let parts = || {
        let (condition, version) = text.strip_prefix("header:")?.rsplit_once("->")?;
        let (header, equals) = condition.split_once('=')?;
        (!header.is_empty()).then_some((header, equals, version))
    };
    let form = || format!("'{text}' is not header:NAME=VALUE->VERSION, such as header:x-tier=gold->2");
    let (header, equals, version) = parts().ok_or_else(form)?;
    let version = options::version(version)?;
    Ok(Rule { header: header.to_owned(), equals: equals.to_owned(), version })
}

fn render(route: &Route) -> String {
    let owner = match route.owner.as_str() {
        "" | "latest" => "none is set: the highest ready version answers".to_owned(),
        owner => format!("set by {owner}"),
    };
    let mut page = format!("route of {}, revision {}, {owner}\n", route.model, route.revision);
    let weights: f64 = route.arms.iter().map(|arm| arm.weight).sum();
    for arm in &route.arms {
        let share = if weights > 0.0 { 100.0 * arm.weight / weights } else { 0.0 };
        let (weight, share) = (text::figure(arm.weight), text::percent(share));
        page.push_str(&format!("arm     version {}, weight {weight} ({share})\n", arm.version));
    }
    for shadow in &route.shadows {
        let share = text::percent(100.0 * shadow.share);
        page.push_str(&format!("shadow  version {}, copies of {share}\n", shadow.version));
    }
    for rule in &route.rules {
        let Rule { header, equals, version } = rule;
        page.push_str(&format!("rule    header {header} = '{equals}': version {version}\n"));
    }
    if !route.sticky.is_empty() {
        page.push_str(&format!("sticky  by {}\n", route.sticky));
    }
    page
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::client::canned::Canned;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        route: RouteArguments,
    }

    #[test]
    fn arms_are_a_version_and_a_weight() {
        assert_eq!(arm("1=90"), Ok(Arm { version: 1, weight: 90.0 }));
        assert_eq!(arm("2=0.5"), Ok(Arm { version: 2, weight: 0.5 }));
        for wrong in ["1", "1=", "=1", "a=1", "1=-1", "1=90%", "1=inf", "0=1", "1=1=1"] {
            assert!(arm(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_shadow_without_a_share_gets_everything() {
        assert_eq!(shadow("3"), Ok(Shadow { version: 3, share: 1.0 }));
        assert_eq!(shadow("3=0.25"), Ok(Shadow { version: 3, share: 0.25 }));
        for wrong in ["", "3=", "3=2", "x", "3=50%"] {
            assert!(shadow(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rules_value_may_hold_its_signs() {
        let rule_of = |header: &str, equals: &str, version| {
            Ok(Rule { header: header.to_owned(), equals: equals.to_owned(), version })
        };
        assert_eq!(rule("header:x-tier=gold->2"), rule_of("x-tier", "gold", 2));
        assert_eq!(rule("header:a=b=c->d->3"), rule_of("a", "b=c->d", 3));
        assert_eq!(rule("header:a=->3"), rule_of("a", "", 3));
        for wrong in
            ["x-tier=gold->2", "header:=x->2", "header:a->2", "header:a=b", "header:a=b->", "header:a=b->x"]
        {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_route_is_sent_as_it_was_written() {
        let server = Canned::new(&[(200, r#"{"model":"digits","revision":8,"owner":"api"}"#)]);
        let url = server.url();
        let run = |words: &[&str]| {
            let line = [&["route"], words, &["--server", &url]].concat();
            Line::parse_from(line).route.run(&mut Vec::new()).unwrap();
        };
        run(&[
            "set",
            "digits",
            "1=90",
            "2=10",
            "--shadow",
            "3",
            "--sticky",
            "header:x-user-id",
            "--rule",
            "header:x-tier=gold->2",
            "--if-revision",
            "7",
            "--actor",
            "ann",
        ]);
        run(&["clear", "digits", "--actor", "ann"]);
        run(&["show", "digits"]);
        let asked = server.asked();
        let expected = json!({
            "arms": [{"version": 1, "weight": 90.0}, {"version": 2, "weight": 10.0}],
            "shadows": [{"version": 3, "share": 1.0}],
            "rules": [{"header": "x-tier", "equals": "gold", "version": 2}],
            "sticky": "header:x-user-id",
            "revision": 0,
        });
        assert_eq!(asked[0].body, expected);
        assert_eq!((asked[0].if_match.as_deref(), asked[0].actor.as_deref()), (Some("\"7\""), Some("ann")));
        let lines: Vec<_> = asked.iter().map(|asked| asked.line.as_str()).collect();
        let path = "/control/v1/models/digits/route";
        assert_eq!(lines, [format!("PUT {path}"), format!("DELETE {path}"), format!("GET {path}")]);
        assert_eq!((&asked[1].if_match, &asked[2].actor), (&None, &None));
    }

    #[test]
    fn a_route_reads_as_who_gets_what() {
        let route = Route {
            arms: vec![Arm { version: 1, weight: 3.0 }, Arm { version: 2, weight: 1.0 }],
            shadows: vec![Shadow { version: 3, share: 0.5 }],
            sticky: "request_id".to_owned(),
            rules: vec![Rule { header: "a".to_owned(), equals: "b".to_owned(), version: 2 }],
            revision: 7,
            model: "digits".to_owned(),
            owner: "api".to_owned(),
        };
        let expected = "\
route of digits, revision 7, set by api
arm     version 1, weight 3 (75 %)
arm     version 2, weight 1 (25 %)
shadow  version 3, copies of 50 %
rule    header a = 'b': version 2
sticky  by request_id
";
        assert_eq!(render(&route), expected);
        let none = Route { model: "digits".to_owned(), owner: "latest".to_owned(), ..Route::default() };
        assert_eq!(
            render(&none),
            "route of digits, revision 0, none is set: the highest ready version answers\n"
        );
    }
}
