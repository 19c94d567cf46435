//! Whom to trust, and whether a server's certificates hold: by the rules of the web, or by libpq's.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{Certificate, is_for_tls13};

/// By whose rules certificates are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// webpki's, which are those of browsers.
    Web,
    /// Those of libpq, which takes a little more: see [`Certificate`].
    Libpq,
}

/// The authorities that are trusted, and the rules.
#[derive(Debug)]
pub(crate) struct Trust {
    rules: Rules,
    roots: RootCertStore,
    trusted: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Trusts these authorities; what cannot be parsed among them is left out, as everybody does.
    pub(crate) fn new(rules: Rules, trusted: Vec<CertificateDer<'static>>) -> Trust {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Trust { rules, roots, trusted, provider }
    }

    /// Trusts nobody; signatures are verified as libpq does.
    pub(crate) fn nobody() -> Trust {
        Trust::new(Rules::Libpq, Vec::new())
    }

    /// Verifies that a trusted authority stands behind a certificate, and that all between are valid at `now`.
    pub(crate) fn verify_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let strict = ParsedCertificate::try_from(end_entity).and_then(|certificate| {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                &self.roots,
                intermediates,
                now,
                algorithms.all,
            )
        });
        let Err(strict) = strict else { return Ok(()) };
        let Some(certificate) = self.second_look(end_entity) else { return Err(strict) };
        if !certificate.is_valid_at(now) {
            return Err(strict);
        }
        let trusted_itself = certificate.is_self_issued() && self.trusted.contains(end_entity);
        let signed_by_root = || {
            let roots = self.trusted.iter().filter_map(|root| Certificate::parse(root));
            certificate.is_version_1()
                && roots
                    .filter(|root| root.is_valid_at(now))
                    .any(|root| certificate.is_signed_by(&root, algorithms))
        };
        if trusted_itself || signed_by_root() { Ok(()) } else { Err(strict) }
    }

    /// Verifies that a certificate is for a server; `host` is the name as the user wrote it.
    pub(crate) fn verify_name(
        &self,
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        host: &str,
    ) -> Result<(), rustls::Error> {
        let strict = ParsedCertificate::try_from(end_entity)
            .and_then(|certificate| verify_server_name(&certificate, server_name));
        let Err(strict) = strict else { return Ok(()) };
        match self.second_look(end_entity) {
            Some(certificate) if certificate.is_for(host) => Ok(()),
            Some(_) => Err(CertificateError::NotValidForName.into()),
            None => Err(strict),
        }
    }

    /// Verifies that the server has the key of its certificate, in TLS 1.2.
    pub(crate) fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let strict = verify_tls12_signature(message, certificate, signed, algorithms);
        strict.or_else(|e| self.verify_signature(message, certificate, signed, e))
    }

    /// Verifies that the server has the key of its certificate, in TLS 1.3.
    pub(crate) fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let strict = verify_tls13_signature(message, certificate, signed, algorithms);
        strict.or_else(|e| {
            if !is_for_tls13(signed.scheme) {
                return Err(e);
            }
            self.verify_signature(message, certificate, signed, e)
        })
    }

    /// Returns the signatures that can be verified.
    pub(crate) fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }

    /// Verifies the handshake's signature where webpki refused the certificate for its version.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        strict: rustls::Error,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match self.second_look(certificate) {
            Some(certificate)
                if certificate.is_version_1()
                    && certificate.signed_handshake(message, signed, algorithms) =>
            {
                Ok(HandshakeSignatureValid::assertion())
            }
            _ => Err(strict),
        }
    }

    /// Returns a certificate that webpki refused, if the rules allow more than webpki does.
    fn second_look(&self, der: &[u8]) -> Option<Certificate> {
        if self.rules == Rules::Libpq { Certificate::parse(der) } else { None }
    }
}

/// Reads certificates in PEM; a file without any is an error.
pub(crate) fn of_file(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let failed = |why: String| format!("failed to read certificates from `{shown}`: {why}");
    let bytes = std::fs::read(file).map_err(|e| failed(e.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| failed(e.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("there are none".to_owned()));
    }
    Ok(certificates)
}

/// Returns the authorities that the operating system trusts, or those of `SSL_CERT_FILE`.
pub(crate) fn of_the_system() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(format!("the system trusts no certificates{why}"));
    }
    Ok(found.certs)
}
