//! TLS on the ports: whose certificate is shown, how it is renewed, and the handshake.
//!
//! Always: a renewal that is wrong changes nothing; connections that are open keep what they began with. Keys never
//! show in an error or the log.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::stream::{Socket, Stream};

/// Bytes of one file: chains of certificates take some kilobytes, and lists of authorities some hundreds.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A certificate that ends within this time is warned of: half of what the shortest usual ones live.
const ENDS_SOON_SECONDS: i64 = 14 * 24 * 3600;

/// The type of the record that a TLS client begins with (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// The answer to a client that begins without TLS.
const IN_THE_CLEAR: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 60\r\n\
    connection: close\r\n\r\n{\"error\":\"this port speaks TLS alone: use https, or grpcs\"}\n";

/// The settings that name the files.
const CERTIFICATE: &str = "tls_certificate";
const KEY: &str = "tls_key";
const CLIENT_CA: &str = "tls_client_ca";

/// Files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those that lead from it to its authority.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authorities of clients' certificates; `None`: clients need none.
    pub client_ca: Option<PathBuf>,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key} = '{}' cannot be read: {reason}", path.display())]
    Unreadable { key: &'static str, path: PathBuf, reason: io::Error },
    #[error("{key} = '{}' {reason}", path.display())]
    Unusable { key: &'static str, path: PathBuf, reason: String },
}

/// What ports speak, for clients that ask before they begin (ALPN, RFC 7301).
#[derive(Debug, Clone, Copy)]
pub enum Spoken {
    Http,
    Grpc,
}

/// TLS as it is in force.
pub struct Tls(ArcSwap<InForce>);

struct InForce {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// Of the files that this was made of.
    digest: [u8; 32],
    ends: i64,
}

impl Tls {
    /// Reads the files. Errors: one cannot be read or used, or the key is another certificate's.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(files)?;
        InForce::new(files, &contents).map(|in_force| Self(ArcSwap::from_pointee(in_force)))
    }

    /// Puts what is in the files now in force for new connections, and tells whether it is anything else than before.
    /// Errors: as [`Self::read`]; nothing changes.
    pub fn renew(&self, files: &TlsFiles) -> Result<bool, TlsError> {
        let contents = Contents::read(files)?;
        if contents.digest() == self.0.load().digest {
            return Ok(false);
        }
        self.0.store(Arc::new(InForce::new(files, &contents)?));
        Ok(true)
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn ends(&self) -> i64 {
        self.0.load().ends
    }

    /// Warns if the certificate in force, from that file, ends soon or has ended.
    pub fn warn_of_end(&self, path: &Path) {
        warn_of_end(path, self.ends());
    }

    /// Shakes hands with a client. Errors: it does not speak TLS, does not trust us, is not trusted, or has gone.
    pub async fn open(&self, tcp: TcpStream, spoken: Spoken) -> io::Result<Stream> {
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first != [HANDSHAKE] {
            Socket::from(tcp).last_words(IN_THE_CLEAR);
            return Err(io::Error::other("the client does not speak TLS"));
        }
        let in_force = self.0.load_full();
        let config = match spoken {
            Spoken::Http => &in_force.http,
            Spoken::Grpc => &in_force.grpc,
        };
        let opened = TlsAcceptor::from(Arc::clone(config)).accept(Socket::from(tcp)).await?;
        Ok(Stream::Tls(Box::new(opened)))
    }
}

/// What is in the files.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read_file(CERTIFICATE, &files.certificate)?,
            key: read_file(KEY, &files.key)?,
            client_ca: files.client_ca.as_ref().map(|path| read_file(CLIENT_CA, path)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()] {
            digest.update(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            digest.update(part.map_or(&[][..], Vec::as_slice));
        }
        digest.finalize().into()
    }
}

impl InForce {
    fn new(files: &TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let chain = certificates(CERTIFICATE, &files.certificate, &contents.certificate)?;
        let ends = end(&chain[0]).map_err(|reason| unusable(CERTIFICATE, &files.certificate, reason))?;
        let wrong_key = |reason| unusable(KEY, &files.key, reason);
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| match error {
            pem::Error::NoItemsFound => {
                wrong_key("holds no private key in PEM without a password".to_owned())
            }
            error => wrong_key(format!("is no PEM file: {error}")),
        })?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the library's own algorithms suit its own versions");
        let builder = match files.client_ca.as_ref().zip(contents.client_ca.as_ref()) {
            None => builder.with_no_client_auth(),
            Some((path, text)) => builder.with_client_cert_verifier(verifier(path, text, provider)?),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| wrong_key(format!("does not go with {CERTIFICATE}: {error}")))?;
        match files.client_ca {
            // Clients that come back need no second full handshake, whichever port they come to.
            None => {
                config.ticketer =
                    Ticketer::new().map_err(|error| wrong_key(format!("cannot be used: {error}")))?;
            }
            // Where they must show a certificate they show it each time: it may have ended.
            Some(_) => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut grpc = config.clone();
        grpc.alpn_protocols.truncate(1);
        warn_of_end(&files.certificate, ends);
        Ok(Self { http: Arc::new(config), grpc: Arc::new(grpc), digest: contents.digest(), ends })
    }
}

fn unusable(key: &'static str, path: &Path, reason: String) -> TlsError {
    TlsError::Unusable { key, path: path.to_owned(), reason }
}

fn verifier(
    path: &Path,
    text: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, path, text)? {
        authorities.add(certificate).map_err(|error| {
            unusable(CLIENT_CA, path, format!("holds a certificate that is no authority's: {error}"))
        })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
        .build()
        .map(|verifier| verifier as _)
        .map_err(|error| unusable(CLIENT_CA, path, format!("cannot be used: {error}")))
}

/// The certificates in a file, at least one.
fn certificates(
    key: &'static str,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(key, path, format!("is no PEM file: {error}")))?;
    match certificates.is_empty() {
        true => Err(unusable(key, path, "holds no certificate in PEM".to_owned())),
        false => Ok(certificates),
    }
}

fn read_file(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |reason| TlsError::Unreadable { key, path: path.to_owned(), reason };
    // One that is a pipe would be waited for. Links are followed: renewals are often put in place by them.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unusable(key, path, "is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(unusable(key, path, format!("has more than {FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// When a certificate ends, in seconds since 1970.
fn end(certificate: &CertificateDer<'_>) -> Result<i64, String> {
    let (_, read) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("holds no X.509 certificate: {error}"))?;
    Ok(read.validity().not_after.timestamp())
}

fn warn_of_end(path: &Path, ends: i64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let path = path.display();
    match ends - now {
        ..=0 => tracing::warn!("the certificate in {path} has ended: clients will not trust it"),
        left @ ..ENDS_SOON_SECONDS => {
            tracing::warn!("the certificate in {path} ends in {} hours", left / 3600);
        }
        _ => {}
    }
}
