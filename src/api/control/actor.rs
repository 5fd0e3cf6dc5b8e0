//! Who asks for a change: by their own word, and by the address that they ask from.

use std::net::SocketAddr;

use http::HeaderMap;

use crate::error::ServeError;
use crate::proto::control as pb;

/// Header and metadata key by which callers tell their name.
const ACTOR: &str = "weir-actor";

/// Characters of a name.
const CHARACTERS_MAX: usize = 128;

/// The other end of an accepted socket, as an extension of a gRPC request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Whoever sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    word: Option<String>,
    peer: SocketAddr,
}

impl Who {
    /// Reads the header (metadata are headers too). Errors: it is there twice, or is no name.
    pub fn of(headers: &HeaderMap, peer: SocketAddr) -> Result<Self, ServeError> {
        let mut told = headers.get_all(ACTOR).iter();
        let word = match (told.next(), told.next()) {
            (None, _) => None,
            (Some(value), None) => Some(std::str::from_utf8(value.as_bytes()).map_err(|_| unfit())?),
            (Some(_), Some(_)) => {
                return Err(ServeError::invalid(format!("{ACTOR} is given more than once")));
            }
        };
        Ok(Self { word: word.map(name).transpose()?.flatten(), peer })
    }

    /// The name as it is recorded: `alice from 127.0.0.1:5123`, or `unnamed from …`.
    ///
    /// `field` is the name that the message itself tells, or empty. Errors: it is no name, or not the header's.
    pub fn signed(&self, field: &str) -> Result<String, ServeError> {
        let word = match (name(field)?, &self.word) {
            (Some(field), Some(word)) if field != *word => {
                return Err(ServeError::invalid(format!(
                    "the actor is '{field}' in the message and '{word}' in {ACTOR}"
                )));
            }
            (Some(field), _) => field,
            (None, Some(word)) => word.clone(),
            (None, None) => "unnamed".to_owned(),
        };
        // A socket that takes both families shows IPv4 peers as ::ffff:a.b.c.d.
        let peer = SocketAddr::new(self.peer.ip().to_canonical(), self.peer.port());
        Ok(format!("{word} from {peer}"))
    }
}

/// `None` for the empty text.
fn name(text: &str) -> Result<Option<String>, ServeError> {
    let text = text.trim();
    match text.chars().count() <= CHARACTERS_MAX && text.chars().all(printable) {
        true => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
        false => Err(unfit()),
    }
}

fn unfit() -> ServeError {
    ServeError::invalid(format!("an actor's name has at most {CHARACTERS_MAX} printable characters"))
}

/// Neither control characters nor those that hide, break or reverse the text around them (Unicode's general
/// categories Cc, Zl and Zp, and the marks of its bidirectional algorithm).
fn printable(c: char) -> bool {
    let hides =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !hides
}

/// A message that asks for a change of one model.
pub trait Change {
    fn model(&mut self) -> &mut String;
    fn actor(&mut self) -> &mut String;
}

macro_rules! change {
    ($($message:ident),*) => {$(
        impl Change for pb::$message {
            fn model(&mut self) -> &mut String {
                &mut self.model
            }
            fn actor(&mut self) -> &mut String {
                &mut self.actor
            }
        }
    )*};
}

change!(
    ChangeRequest,
    SetRouteRequest,
    SetLabelRequest,
    DeleteLabelRequest,
    VersionRequest,
    StartRolloutRequest,
    RolloutRequest
);

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn signed(headers: &[&[u8]], field: &str, peer: &str) -> Result<String, String> {
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(ACTOR, HeaderValue::from_bytes(value).unwrap());
        }
        let who = Who::of(&map, peer.parse().unwrap()).and_then(|who| who.signed(field));
        who.map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_change_is_signed_with_a_word_and_an_address() {
        for (headers, field, peer, expected) in [
            (&[b"alice" as &[u8]][..], "", "127.0.0.1:5123", "alice from 127.0.0.1:5123"),
            (&[], "", "127.0.0.1:5123", "unnamed from 127.0.0.1:5123"),
            (&[b""], "", "127.0.0.1:5123", "unnamed from 127.0.0.1:5123"),
            (&[], "ci job 7", "[2001:db8::1]:9", "ci job 7 from [2001:db8::1]:9"),
            (&[b"alice"], "alice", "[::ffff:10.1.2.3]:80", "alice from 10.1.2.3:80"),
            (&["Zoë".as_bytes()], "", "10.1.2.3:80", "Zoë from 10.1.2.3:80"),
        ] {
            assert_eq!(signed(headers, field, peer).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_name_that_could_deceive_a_reader_is_refused() {
        let long = "x".repeat(129);
        for (headers, field) in [
            (&[long.as_bytes()][..], ""),
            (&[], long.as_str()),
            (&[], "a\nb"),
            (&[b"a\tb"], ""),
            (&[], "a\u{202e}b"),
            (&[b"\xff\xfe"], ""),
            (&[b"alice", b"bob"], ""),
            (&[b"alice"], "bob"),
        ] {
            assert!(signed(headers, field, "127.0.0.1:1").is_err(), "{headers:?} {field:?}");
        }
        assert!(signed(&["é".repeat(128).as_bytes()], "", "127.0.0.1:1").is_ok());
    }
}
