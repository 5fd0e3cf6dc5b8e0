//! Whom the client trusts where it speaks TLS, and who it says it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// What a server behind https:// is told and held against.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArguments {
    /// Authorities, in PEM, that an https:// server's certificate is held against [default: the system's]
    #[arg(long, env = "WEIR_CA", value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// Certificate, in PEM, that is shown to a server that asks for one
    #[arg(long, env = "WEIR_CLIENT_CERTIFICATE", value_name = "FILE", global = true)]
    client_certificate: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, env = "WEIR_CLIENT_KEY", value_name = "FILE", global = true)]
    client_key: Option<PathBuf>,
}

impl TlsArguments {
    /// Reads the files, unless the server is in the clear.
    ///
    /// Errors: one cannot be read or used, or there is no authority to trust.
    pub fn config(&self, secure: bool) -> anyhow::Result<ClientConfig> {
        let provider = rustls::crypto::ring::default_provider();
        let authorities = if secure { self.authorities()? } else { RootCertStore::empty() };
        let builder = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("the library's own algorithms suit its own versions")
            .with_root_certificates(authorities);
        match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) if secure => {
                let chain = certificates(certificate)?;
                let named = || format!("the key {}", key.display());
                let der = PrivateKeyDer::from_pem_file(key).with_context(named)?;
                builder.with_client_auth_cert(chain, der).with_context(named)
            }
            (Some(_), None) | (None, Some(_)) => bail!("--client-certificate and --client-key go together"),
            _ => Ok(builder.with_no_client_auth()),
        }
    }

    fn authorities(&self) -> anyhow::Result<RootCertStore> {
        let mut authorities = RootCertStore::empty();
        let Some(path) = &self.ca else {
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if authorities.is_empty() {
                bail!("this system trusts no authority; name the server's with --ca");
            }
            return Ok(authorities);
        };
        for certificate in certificates(path)? {
            authorities.add(certificate).with_context(|| format!("the authorities {}", path.display()))?;
        }
        Ok(authorities)
    }
}

/// The certificates in a file, at least one.
fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.with_context(|| format!("the certificates {}", path.display()))?;
    if certificates.is_empty() {
        bail!("{} holds no certificate in PEM", path.display());
    }
    Ok(certificates)
}
