//! A certificate authority that lives as long as the demo.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::story::Step;

/// The authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) file: PathBuf,
}

impl Authority {
    /// A new authority whose certificate is in `directory`.
    pub(crate) fn found(directory: &Path) -> Step<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Matron demo authority");
        let certificate = params.self_signed(&key)?;
        let file = directory.join("authority.pem");
        std::fs::write(&file, certificate.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), file })
    }

    /// A certificate and key for a server, in its directory.
    pub(crate) fn certify(&self, server_name: &str, directory: &Path) -> Step<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![server_name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, server_name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = (directory.join("tls.crt"), directory.join("tls.key"));
        std::fs::write(&files.0, certificate.pem())?;
        std::fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }
}
