//! What stands in a certificate, and what OpenSSL accepts in one that webpki does not.
//!
//! PostgreSQL's documentation has people make certificates that webpki refuses: with the host's name
//! only in the Common Name, of X.509 version 1, or self-signed and trusted as they are. libpq takes
//! them, so this does. It is asked only after webpki said no, and decides by libpq's rules; it never
//! skips a signature. Who is trusted, and by which rules, is the matter of `trust.rs`.

use std::net::IpAddr;

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::UnixTime;
use rustls::{DigitallySignedStruct, SignatureScheme};
use x509_cert::certificate::Version;
use x509_cert::der::asn1::{PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::db::rfc4519::CN;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

mod trust;

pub(crate) use trust::{Rules, Trust, of_file, of_the_system};

/// A parsed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate(x509_cert::Certificate);

impl Certificate {
    /// Parses a certificate in DER.
    pub(crate) fn parse(der: &[u8]) -> Option<Certificate> {
        x509_cert::Certificate::from_der(der).ok().map(Certificate)
    }

    /// Is it of the first version, which knows no extensions?
    pub(crate) fn is_version_1(&self) -> bool {
        self.0.tbs_certificate.version == Version::V1
    }

    /// Does it name itself as its issuer?
    pub(crate) fn is_self_issued(&self) -> bool {
        self.0.tbs_certificate.issuer == self.0.tbs_certificate.subject
    }

    /// Is `now` within its time of validity?
    pub(crate) fn is_valid_at(&self, now: UnixTime) -> bool {
        let (from, to) = self.validity();
        (from..=to).contains(&now.as_secs())
    }

    /// Returns its first and its last second, since 1970.
    pub(crate) fn validity(&self) -> (u64, u64) {
        let validity = &self.0.tbs_certificate.validity;
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        (seconds(validity.not_before), seconds(validity.not_after))
    }

    /// Returns whom it is for, as people know it: the Common Name, else all of the name.
    pub(crate) fn subject(&self) -> String {
        let name = &self.0.tbs_certificate.subject;
        common_name(name).unwrap_or_else(|| name.to_string())
    }

    /// Returns who signed it, likewise.
    pub(crate) fn issuer(&self) -> String {
        let name = &self.0.tbs_certificate.issuer;
        common_name(name).unwrap_or_else(|| name.to_string())
    }

    /// Returns the names of hosts that it is for, as they stand in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(Some((_, names))) = self.0.tbs_certificate.get::<SubjectAltName>() else {
            return Vec::new();
        };
        let shown = names.0.iter().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => match bytes.as_bytes().len() {
                4 => {
                    <[u8; 4]>::try_from(bytes.as_bytes()).ok().map(|b| IpAddr::from(b).to_string())
                }
                _ => {
                    <[u8; 16]>::try_from(bytes.as_bytes()).ok().map(|b| IpAddr::from(b).to_string())
                }
            },
            _ => None,
        });
        shown.collect()
    }

    /// Was it signed by `issuer`?
    pub(crate) fn is_signed_by(
        &self,
        issuer: &Certificate,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        let inner = &self.0;
        if inner.tbs_certificate.issuer != issuer.0.tbs_certificate.subject
            || inner.tbs_certificate.signature != inner.signature_algorithm
        {
            return false;
        }
        let (Ok(message), Some(signature), Some(signed_with)) = (
            inner.tbs_certificate.to_der(),
            inner.signature.as_bytes(),
            contents(&inner.signature_algorithm),
        ) else {
            return false;
        };
        algorithms.all.iter().any(|algorithm| {
            *algorithm.signature_alg_id() == *signed_with
                && issuer.verifies(*algorithm, &message, signature)
        })
    }

    /// Was the handshake signed with the key of this certificate?
    pub(crate) fn signed_handshake(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        let candidates = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signed.scheme);
        candidates
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| self.verifies(*algorithm, message, signed.signature()))
    }

    /// Verifies a signature with this certificate's key, which must suit the algorithm.
    fn verifies(
        &self,
        algorithm: &dyn rustls::pki_types::SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let key = &self.0.tbs_certificate.subject_public_key_info;
        let suits =
            contents(&key.algorithm).is_some_and(|id| *algorithm.public_key_alg_id() == *id);
        let Some(bits) = key.subject_public_key.as_bytes() else { return false };
        suits && algorithm.verify_signature(bits, message, signature).is_ok()
    }

    /// Is it for `host`? By libpq's rules: alternative names first, the Common Name only if they do
    /// not settle it.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let names = match self.0.tbs_certificate.get::<SubjectAltName>() {
            Ok(Some((_, names))) => names.0,
            Ok(None) => Vec::new(),
            Err(_) => return false,
        };
        let address = host.parse::<IpAddr>().ok();
        let (mut has_dns_names, mut has_addresses) = (false, false);
        for name in &names {
            match name {
                GeneralName::DnsName(pattern) => {
                    has_dns_names = true;
                    if matches_pattern(pattern.as_str(), host) {
                        return true;
                    }
                }
                GeneralName::IpAddress(bytes) => {
                    has_addresses = true;
                    let same = match address {
                        Some(IpAddr::V4(v4)) => bytes.as_bytes() == v4.octets(),
                        Some(IpAddr::V6(v6)) => bytes.as_bytes() == v6.octets(),
                        None => false,
                    };
                    if same {
                        return true;
                    }
                }
                _ => {}
            }
        }
        let settled = if address.is_some() { has_addresses } else { has_dns_names };
        let common_name = || common_name(&self.0.tbs_certificate.subject);
        !settled && common_name().is_some_and(|pattern| matches_pattern(&pattern, host))
    }
}

fn common_name(name: &Name) -> Option<String> {
    let value = &name.0.iter().flat_map(|part| part.0.iter()).find(|a| a.oid == CN)?.value;
    let text = Utf8StringRef::try_from(value).ok().map(|s| s.as_str().to_owned());
    let text = text.or_else(|| Some(PrintableStringRef::try_from(value).ok()?.to_string()));
    text.or_else(|| Some(TeletexStringRef::try_from(value).ok()?.to_string()))
}

/// Does `host` match a certificate's name? A leading `*.` stands for one label.
fn matches_pattern(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let Some(suffix) = pattern.strip_prefix('*').filter(|suffix| suffix.len() > 1) else {
        return false;
    };
    suffix.starts_with('.')
        && host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && rest.eq_ignore_ascii_case(&suffix[1..])
        })
}

/// Returns an algorithm identifier without its outer tag and length, as rustls writes them.
fn contents(algorithm: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let der = algorithm.to_der().ok()?;
    (*der.get(1)? < 0x80).then(|| der.get(2..).map(<[u8]>::to_vec))?
}

/// Is this scheme one that TLS 1.3 lets a server sign with?
fn is_for_tls13(scheme: SignatureScheme) -> bool {
    matches!(
        scheme,
        SignatureScheme::ECDSA_NISTP256_SHA256
            | SignatureScheme::ECDSA_NISTP384_SHA384
            | SignatureScheme::ECDSA_NISTP521_SHA512
            | SignatureScheme::RSA_PSS_SHA256
            | SignatureScheme::RSA_PSS_SHA384
            | SignatureScheme::RSA_PSS_SHA512
            | SignatureScheme::ED25519
    )
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn wildcards_stand_for_one_label() {
        let cases = [
            ("db.example.org", "DB.example.org", true),
            ("db.example.org", "db.example.com", false),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.db.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*", "db", false),
            ("*.", "db.", false),
            ("d*.example.org", "db.example.org", false),
            ("127.0.0.1", "127.0.0.1", true),
        ];
        for (pattern, host, expected) in cases {
            assert_eq!(matches_pattern(pattern, host), expected, "{pattern} {host}");
        }
    }
}
