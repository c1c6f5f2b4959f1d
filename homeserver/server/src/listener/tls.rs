//! TLS for a listener, from PEM files.

use std::{fs::File, io::BufReader, path::Path, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::TlsAcceptor;

use super::ListenError;
use crate::config::Listen;

/// What accepts TLS on this listener, or `None` for plain HTTP.
///
/// # Errors
/// [`ListenError`] naming the file that is missing or no good.
pub(super) fn acceptor(listen: &Listen) -> Result<Option<TlsAcceptor>, ListenError> {
    let (Some(certificate), Some(key)) = (&listen.tls_certificate, &listen.tls_key) else { return Ok(None) };
    let chain = certificates(certificate)?;
    let key = private_key(key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = |source| ListenError::Tls { address: listen.address, source };
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(tls)?;
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// Every certificate of a PEM file, in its order.
///
/// # Errors
/// [`ListenError`] naming the file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let not_pem = || ListenError::NotPem { path: path.to_owned(), what: "certificate" };
    let chain: Vec<_> =
        CertificateDer::pem_reader_iter(open(path)?).collect::<Result<_, _>>().map_err(|_| not_pem())?;
    if chain.is_empty() { Err(not_pem()) } else { Ok(chain) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, ListenError> {
    PrivateKeyDer::from_pem_reader(open(path)?)
        .map_err(|_| ListenError::NotPem { path: path.to_owned(), what: "private key" })
}

fn open(path: &Path) -> Result<BufReader<File>, ListenError> {
    File::open(path).map(BufReader::new).map_err(|source| ListenError::ReadTls { path: path.to_owned(), source })
}
