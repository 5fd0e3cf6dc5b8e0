//! gzip and deflate bodies, both ways.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Decompress, FlushDecompress, Status};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

use crate::error::{ErrorKind, ServeError, excerpt};
use crate::serve::Held;

/// Answers below this many bytes are sent as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: usize = 1024;

/// What a body may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Unpacking {
    pub bytes_max: usize,
    /// Bytes for each byte of the body.
    pub ratio_max: usize,
}

/// Bytes that any body may unpack to: small ones of one letter are no bombs.
const UNPACKED_BYTES_ANYHOW: usize = 1 << 20;

/// Bytes that are unpacked at a time.
const PIECE_BYTES: usize = 64 << 10;

impl Unpacking {
    /// Bytes that a body of so many may unpack to.
    fn most(self, packed: usize) -> usize {
        packed.saturating_mul(self.ratio_max).max(UNPACKED_BYTES_ANYHOW).min(self.bytes_max)
    }

    fn check(self, unpacked: usize, most: usize) -> Result<(), ServeError> {
        if unpacked <= most {
            return Ok(());
        }
        let why = if most == self.bytes_max { "" } else { ": it is packed too tightly" };
        let message = format!("the body unpacks to more than {most} bytes{why}");
        Err(ServeError::new(ErrorKind::TooLarge, message))
    }
}

/// How a body is coded. Deflate is zlib's format, as HTTP means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// The coding of a request's body. Errors: one that is not read here.
    pub fn of_request(headers: &HeaderMap) -> Result<Option<Self>, ServeError> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(ServeError::new(
                ErrorKind::UnsupportedEncoding,
                "content-encoding is given more than once; use gzip, deflate or none, once",
            ));
        }
        let name = value.to_str().unwrap_or_default().trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            other => Err(ServeError::new(
                ErrorKind::UnsupportedEncoding,
                format!("content-encoding '{}' is not supported; use gzip, deflate or none", excerpt(other)),
            )),
        }
    }

    /// The coding that a client prefers for its answer, if it takes one; gzip where it has no preference.
    pub fn of_answer(headers: &HeaderMap) -> Option<Self> {
        let lists = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
        let mut best: Option<(f32, Self)> = None;
        for item in lists.flat_map(|list| list.split(',')) {
            let (name, quality) = item.split_once(';').map_or((item, 1.0), |(name, parameter)| {
                let quality = parameter.trim().strip_prefix("q=").and_then(|q| q.trim().parse().ok());
                (name, quality.unwrap_or(1.0))
            });
            let coding = match name.trim().to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" | "*" => Self::Gzip,
                "deflate" => Self::Deflate,
                _ => continue,
            };
            let better = match best {
                None => true,
                Some((q, Self::Deflate)) if coding == Self::Gzip => quality >= q,
                Some((q, _)) => quality > q,
            };
            if quality > 0.0 && better {
                best = Some((quality, coding));
            }
        }
        best.map(|(_, coding)| coding)
    }

    /// Unpacks a body, piece by piece, so that one that grows too much is stopped early; `held` counts what it grows
    /// to. Errors: it is not in that coding, something follows it, or it grows beyond its bounds. Blocks.
    pub fn decode(self, body: &[u8], bounds: Unpacking, held: &mut Held) -> Result<Bytes, ServeError> {
        let malformed = || ServeError::invalid(format!("the body is not in the {} format", self.name()));
        let most = bounds.most(body.len());
        let mut out = Vec::new();
        let mut gzip = MultiGzDecoder::new(body);
        let mut zlib = Decompress::new(true);
        loop {
            let piece = (most - out.len()).min(PIECE_BYTES) + 1;
            held.cover(out.len() + piece)?;
            let ended = match self {
                Self::Gzip => {
                    let read = Read::by_ref(&mut gzip).take(piece as u64).read_to_end(&mut out);
                    read.map_err(|_| malformed())? < piece
                }
                Self::Deflate => {
                    out.reserve(piece);
                    let before = (zlib.total_in(), zlib.total_out());
                    let rest = &body[before.0 as usize..];
                    let status = zlib.decompress_vec(rest, &mut out, FlushDecompress::None);
                    let ended = status.map_err(|_| malformed())? == Status::StreamEnd;
                    let stuck = (zlib.total_in(), zlib.total_out()) == before;
                    let more_follows = ended && (zlib.total_in() as usize) < body.len();
                    if more_follows || (stuck && !ended) {
                        return Err(malformed());
                    }
                    ended
                }
            };
            bounds.check(out.len(), most)?;
            if ended {
                return Ok(out.into());
            }
        }
    }

    /// Whether an answer of so many bytes is worth packing.
    pub fn pays(bytes: usize) -> bool {
        bytes >= COMPRESSED_BYTES_MIN
    }

    /// Packs an answer; `None` when that is not worth it. Blocks.
    pub fn encode(self, body: &[u8]) -> Option<Bytes> {
        if !Self::pays(body.len()) {
            return None;
        }
        let packed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        packed.ok().map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::Admission;

    fn accepted(value: &'static str) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, value.parse().unwrap());
        Coding::of_answer(&headers)
    }

    #[test]
    fn the_client_chooses_the_coding_of_its_answer() {
        assert_eq!(accepted("gzip"), Some(Coding::Gzip));
        assert_eq!(accepted("deflate, gzip"), Some(Coding::Gzip));
        assert_eq!(accepted("gzip;q=0.2, deflate;q=0.8"), Some(Coding::Deflate));
        assert_eq!(accepted("gzip;q=0, br"), None);
        assert_eq!(accepted("*"), Some(Coding::Gzip));
        assert_eq!(accepted("identity"), None);
        assert_eq!(Coding::of_answer(&HeaderMap::new()), None);
    }

    fn decode(coding: Coding, body: &[u8], bytes_max: usize, ratio_max: usize) -> Result<Bytes, ServeError> {
        let admission = Admission::new(1, 64 << 20);
        let decoded = coding.decode(body, Unpacking { bytes_max, ratio_max }, &mut admission.hold());
        assert_eq!(admission.bytes_in_flight(), 0);
        decoded
    }

    #[test]
    fn bodies_come_back_and_bombs_do_not() {
        let body = vec![7u8; 100_000];
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = coding.encode(&body).unwrap();
            assert_eq!(decode(coding, &packed, body.len(), 1).unwrap(), body);
            let kind = |body: &[u8], bytes_max| decode(coding, body, bytes_max, 200).unwrap_err().kind();
            assert_eq!(kind(&packed, body.len() - 1), ErrorKind::TooLarge);
            assert_eq!(kind(&packed[..20], 1000), ErrorKind::InvalidArgument);
            assert_eq!(kind(&packed[..packed.len() - 1], 1 << 20), ErrorKind::InvalidArgument);
            assert_eq!(kind(&[&packed[..], b"and more"].concat(), 1 << 20), ErrorKind::InvalidArgument);
            assert_eq!(kind(b"", 1000), ErrorKind::InvalidArgument);
        }
        assert_eq!(Coding::Gzip.encode(b"small"), None);
    }

    #[test]
    fn what_unpacks_to_a_large_multiple_is_stopped_early() {
        let body = vec![7u8; 32 << 20];
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = coding.encode(&body).unwrap();
            let error = decode(coding, &packed, 1 << 30, 200).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert!(error.message().contains("too tightly"), "{error}");
            assert_eq!(decode(coding, &packed, 1 << 30, 2000).unwrap(), body);
            // More than may be in flight.
            let held = Admission::new(1, 16 << 20);
            let bounds = Unpacking { bytes_max: 1 << 30, ratio_max: 2000 };
            let error = coding.decode(&packed, bounds, &mut held.hold()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Overloaded);
        }
    }

    #[test]
    fn members_of_gzip_stand_one_after_the_other() {
        let parts = [vec![1u8; 2000], vec![2u8; 2000]];
        let packed = parts.each_ref().map(|part| Coding::Gzip.encode(part).unwrap()).concat();
        assert_eq!(decode(Coding::Gzip, &packed, 4000, 200).unwrap(), parts.concat());
    }

    #[test]
    fn a_request_has_one_coding_that_is_known() {
        let coding = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            Coding::of_request(&headers).map_err(|error| error.kind())
        };
        assert_eq!(coding(&["x-gzip"]), Ok(Some(Coding::Gzip)));
        assert_eq!(coding(&["identity"]), Ok(None));
        for wrong in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &["gzip", "identity"]] {
            assert_eq!(coding(wrong), Err(ErrorKind::UnsupportedEncoding), "{wrong:?}");
        }
    }
}
