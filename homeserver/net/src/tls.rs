//! Whose certificates are believed.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::config::{NetConfig, NetError};

/// TLS towards homeservers, always verified, and towards other services.
#[derive(Clone, Debug)]
pub(crate) struct TlsConfigs {
    /// For homeservers.
    pub(crate) federation: Arc<ClientConfig>,
    /// For everything else; unverified only if the configuration says so.
    pub(crate) services: Arc<ClientConfig>,
}

impl TlsConfigs {
    /// TLS with the system's roots (or, on a machine without any, Mozilla's) and those of `ca_files`.
    ///
    /// # Errors
    /// [`NetError`] that names the file.
    pub(crate) fn new(config: &NetConfig) -> Result<Self, NetError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        for path in &config.ca_files {
            for certificate in read_certificates(path)? {
                roots.add(certificate).map_err(|_unusable| NetError::ParseCa { path: path.clone() })?;
            }
        }
        let provider = Arc::new(ring::default_provider());
        let verified = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let federation = Arc::new(verified);
        let services = if config.insecure_skip_tls_verify {
            tracing::warn!("insecure_skip_tls_verify is set: services other than homeservers are not authenticated");
            let mut unverified = ClientConfig::clone(&federation);
            unverified.dangerous().set_certificate_verifier(Arc::new(TrustAnyone { provider }));
            Arc::new(unverified)
        } else {
            Arc::clone(&federation)
        };
        Ok(Self { federation, services })
    }
}

/// The certificates of a PEM file.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetError> {
    let text = std::fs::read(path).map_err(|source| NetError::ReadCa { path: path.to_owned(), source })?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(NetError::ParseCa { path: path.to_owned() }),
    }
}

/// Believes every certificate; only test suites ask for it.
#[derive(Debug)]
struct TrustAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
