//! Changes how a model runs on the CPU in the text of its `config.pbtxt`, and nothing else.
//!
//! Always: the rest of the text stays byte for byte, comments too, and the result means what the text meant but for
//! the change. A text of which that cannot be had is refused with the reason.
//! Not here: files.

use std::ops::Range;

use super::hardware::INTRA_OP_THREADS;
use super::pbtxt;
use crate::proto::inference as pb;

/// How many calls of a model's session run at once on the CPU, and on how many threads each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSetting {
    /// Threads inside one operator.
    pub threads: usize,
    pub instances: usize,
}

impl CpuSetting {
    /// The keys of a config that mean it, a line each.
    pub fn keys(self) -> String {
        format!("{}\n{}\n", self.instance_group(), self.parameter())
    }

    fn instance_group(self) -> String {
        format!("instance_group [ {{ kind: KIND_CPU count: {} }} ]", self.instances)
    }

    fn parameter(self) -> String {
        format!(
            "parameters {{ key: \"{INTRA_OP_THREADS}\" value: {{ string_value: \"{}\" }} }}",
            self.threads
        )
    }
}

/// The text with that setting in it: in the place of what it replaces, else at the end.
///
/// Errors: why it has to be done by hand.
pub fn with_cpu_setting(text: &str, setting: CpuSetting) -> Result<String, String> {
    let before = parsed(text)?;
    let tokens = tokens(text);
    let fields = fields(text, &tokens).ok_or("its keys cannot be told apart")?;
    let mut after = before.clone();
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut added = String::new();

    if !groups_mean(&before, setting.instances) {
        let groups = fields.iter().filter(|field| field.name == "instance_group");
        let places = groups.map(|field| replaceable(text, &tokens, field)).collect::<Result<Vec<_>, _>>()?;
        if before.instance_group.iter().any(|group| !is_plain(group)) {
            return Err("its instance_group has keys besides kind and count".to_owned());
        }
        after.instance_group = parsed(&setting.instance_group())?.instance_group;
        put(setting.instance_group(), places, &mut edits, &mut added);
    }
    let threads = setting.threads.to_string();
    if before.parameters.get(INTRA_OP_THREADS).is_none_or(|value| value.string_value != threads) {
        let mut places = Vec::new();
        for field in fields.iter().filter(|field| field.name == "parameters") {
            let own = parsed(&text[field.place.clone()])?.parameters;
            if own.contains_key(INTRA_OP_THREADS) {
                if own.len() > 1 {
                    return Err(format!("{INTRA_OP_THREADS} stands in a list with other parameters"));
                }
                places.push(replaceable(text, &tokens, field)?);
            }
        }
        after.parameters.extend(parsed(&setting.parameter())?.parameters);
        put(setting.parameter(), places, &mut edits, &mut added);
    }

    let edited = apply(text, edits, &added);
    if parsed(&edited)? == after { Ok(edited) } else { Err("its text is not understood".to_owned()) }
}

fn parsed(text: &str) -> Result<pb::ModelConfig, String> {
    let message = pbtxt::parse(text.trim_start_matches(super::BYTE_ORDER_MARK))?;
    message.transcode_to().map_err(|e| format!("config.pbtxt: {e}"))
}

fn groups_mean(config: &pb::ModelConfig, instances: usize) -> bool {
    let counts = config.instance_group.iter().map(|group| usize::try_from(group.count.max(1)).unwrap_or(0));
    !config.instance_group.is_empty() && counts.sum::<usize>() == instances
}

fn is_plain(group: &pb::ModelInstanceGroup) -> bool {
    *group == pb::ModelInstanceGroup { kind: group.kind, count: group.count, ..Default::default() }
}

/// Where a key with its value stands. Errors: a comment in it would be lost.
fn replaceable(text: &str, tokens: &[Token], field: &Field<'_>) -> Result<Range<usize>, String> {
    let place = field.place.clone();
    let inside = |token: &Token| place.start <= token.place.start && token.place.end <= place.end;
    if tokens.iter().any(|token| token.kind == Kind::Comment && inside(token)) {
        let line = 1 + text[..place.start].matches('\n').count();
        return Err(format!("a comment stands inside {}, line {line}", field.name));
    }
    Ok(place)
}

/// Puts a key where it stood first, drops the others of its name, or adds it.
fn put(key: String, places: Vec<Range<usize>>, edits: &mut Vec<(Range<usize>, String)>, added: &mut String) {
    let mut places = places.into_iter();
    match places.next() {
        None => added.extend([&key, "\n"]),
        Some(first) => edits.push((first, key)),
    }
    edits.extend(places.map(|place| (place, String::new())));
}

fn apply(text: &str, mut edits: Vec<(Range<usize>, String)>, added: &str) -> String {
    edits.sort_by_key(|(place, _)| std::cmp::Reverse(place.start));
    let mut text = text.to_owned();
    for (place, replacement) in edits {
        text.replace_range(place, &replacement);
    }
    if !added.is_empty() && !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + added
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Comment,
    String,
    /// A name, a number, or another value without quotes.
    Word,
    Open,
    Close,
    /// `:`, `,` or `;`.
    Sign(char),
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    place: Range<usize>,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let until = |end: fn(char) -> bool| rest.find(end).unwrap_or(rest.len());
        let (kind, length) = match c {
            '#' => (Kind::Comment, until(|c| c == '\n')),
            '"' | '\'' => (Kind::String, string_length(rest, c)),
            '{' | '[' | '<' => (Kind::Open, 1),
            '}' | ']' | '>' => (Kind::Close, 1),
            ':' | ',' | ';' => (Kind::Sign(c), 1),
            c if c.is_whitespace() || c == super::BYTE_ORDER_MARK => {
                at += c.len_utf8();
                continue;
            }
            _ => (Kind::Word, until(|c| c.is_whitespace() || "#\"'{}[]<>:,;".contains(c))),
        };
        tokens.push(Token { kind, place: at..at + length });
        at += length;
    }
    tokens
}

fn string_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A key of the outermost message with its value and the sign that may end it.
struct Field<'a> {
    name: &'a str,
    place: Range<usize>,
}

/// `None`: the text is not a sequence of keys and values.
fn fields<'a>(text: &'a str, tokens: &[Token]) -> Option<Vec<Field<'a>>> {
    let mut tokens = tokens.iter().filter(|token| token.kind != Kind::Comment).peekable();
    let mut fields = Vec::new();
    while let Some(name) = tokens.next() {
        if name.kind != Kind::Word {
            return None;
        }
        tokens.next_if(|token| token.kind == Kind::Sign(':'));
        let first = tokens.next()?;
        let mut end = first.place.end;
        let mut open = match first.kind {
            Kind::Open => 1,
            Kind::Word | Kind::String => 0,
            _ => return None,
        };
        while open > 0 {
            let token = tokens.next()?;
            match token.kind {
                Kind::Open => open += 1,
                Kind::Close => open -= 1,
                _ => {}
            }
            end = token.place.end;
        }
        // Strings that follow each other are one value.
        while first.kind == Kind::String
            && let Some(more) = tokens.next_if(|token| token.kind == Kind::String)
        {
            end = more.place.end;
        }
        if let Some(sign) = tokens.next_if(|token| matches!(token.kind, Kind::Sign(',' | ';'))) {
            end = sign.place.end;
        }
        fields.push(Field { name: &text[name.place.clone()], place: name.place.start..end });
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_BY_FOUR: CpuSetting = CpuSetting { threads: 2, instances: 4 };
    const GROUP: &str = "instance_group [ { kind: KIND_CPU count: 4 } ]";
    const PARAMETER: &str = "parameters { key: \"intra_op_thread_count\" value: { string_value: \"2\" } }";

    fn check(text: &str, expected: &str) {
        let expected = expected.replace("GROUP", GROUP).replace("PARAMETER", PARAMETER);
        assert_eq!(with_cpu_setting(text, TWO_BY_FOUR).as_deref(), Ok(expected.as_str()), "{text}");
        // It stands there now, so there is nothing left to do.
        assert_eq!(with_cpu_setting(&expected, TWO_BY_FOUR).as_deref(), Ok(expected.as_str()), "{text}");
    }

    #[test]
    fn absent_keys_are_added_at_the_end() {
        check("", "GROUP\nPARAMETER\n");
        check("name: \"m\" # mine", "name: \"m\" # mine\nGROUP\nPARAMETER\n");
        check(
            "# instance_group [ { count: 9 } ]\r\nmax_batch_size: 8;\r\ninput [ { name: \"a # }\" data_type: TYPE_FP32 dims: [ 1, ], }, ]\n",
            "# instance_group [ { count: 9 } ]\r\nmax_batch_size: 8;\r\ninput [ { name: \"a # }\" data_type: TYPE_FP32 dims: [ 1, ], }, ]\nGROUP\nPARAMETER\n",
        );
        check("\u{feff}max_batch_size: 8", "\u{feff}max_batch_size: 8\nGROUP\nPARAMETER\n");
    }

    #[test]
    fn present_keys_are_replaced_in_their_places() {
        check(
            "instance_group { count: 1 }, # one\nparameters: { key: \"intra_op_thread_count\", value { string_value: \"1\" } }\n# end",
            "GROUP # one\nPARAMETER\n# end",
        );
        check(
            "instance_group { count: 1 }\nmax_batch_size: 8\ninstance_group < kind: KIND_CPU count: 2 >\n",
            "GROUP\nmax_batch_size: 8\n\nPARAMETER\n",
        );
        check(
            "parameters { key: \"x\" value { string_value: \"intra_op_thread_count\" } }\n",
            "parameters { key: \"x\" value { string_value: \"intra_op_thread_count\" } }\nGROUP\nPARAMETER\n",
        );
        check("name: 'a' \"b\"\nmax_batch_size: 0", "name: 'a' \"b\"\nmax_batch_size: 0\nGROUP\nPARAMETER\n");
    }

    #[test]
    fn keys_that_mean_it_already_stay_as_they_are() {
        check(
            "instance_group [ { count: 3 }, { count: 1 } ]",
            "instance_group [ { count: 3 }, { count: 1 } ]\nPARAMETER\n",
        );
    }

    #[test]
    fn what_would_be_lost_is_left_to_people() {
        for (text, reason) in [
            ("instance_group [\n { count: 1 # one\n } ]", "a comment stands inside instance_group, line 1"),
            ("instance_group { count: 1 name: \"x\" }", "besides kind and count"),
            (
                "parameters [ { key: \"a\" value { string_value: \"b\" } }, { key: \"intra_op_thread_count\" value { string_value: \"1\" } } ]",
                "with other parameters",
            ),
            ("max_batch: 8", "max_batch"),
        ] {
            let error = with_cpu_setting(text, TWO_BY_FOUR).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
