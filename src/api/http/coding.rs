//! gzip and deflate bodies, both ways.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

use crate::error::{ErrorKind, ServeError, excerpt};

/// Answers below this many bytes are sent as they are: compressing them costs more than it saves.
const COMPRESSED_BYTES_MIN: usize = 1024;

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
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
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

    /// Unpacks a body. Errors: it is not in that coding, or grows beyond `bytes_max`. Blocks.
    pub fn decode(self, body: &[u8], bytes_max: usize) -> Result<Bytes, ServeError> {
        let mut out = Vec::new();
        let limit = bytes_max as u64 + 1;
        let read = match self {
            Self::Gzip => MultiGzDecoder::new(body).take(limit).read_to_end(&mut out),
            Self::Deflate => ZlibDecoder::new(body).take(limit).read_to_end(&mut out),
        };
        if out.len() > bytes_max {
            return Err(ServeError::new(
                ErrorKind::TooLarge,
                format!("the body unpacks to more than {bytes_max} bytes"),
            ));
        }
        match read {
            Ok(_) => Ok(out.into()),
            Err(_) => Err(ServeError::invalid(format!("the body is not in the {} format", self.name()))),
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

    #[test]
    fn bodies_come_back_and_bombs_do_not() {
        let body = vec![7u8; 100_000];
        for coding in [Coding::Gzip, Coding::Deflate] {
            let packed = coding.encode(&body).unwrap();
            assert_eq!(coding.decode(&packed, body.len()).unwrap(), body);
            assert_eq!(coding.decode(&packed, body.len() - 1).unwrap_err().kind(), ErrorKind::TooLarge);
            assert_eq!(coding.decode(&packed[..20], 1000).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(Coding::Gzip.encode(b"small"), None);
    }
}
