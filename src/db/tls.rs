//! TLS in libpq's sense of `sslmode`, with rustls.
//!
//! rustls knows only full verification; libpq has six modes, from none to `verify-full`. The rule kept
//! here: what was asked for is the least that is done. `require` and above never fall back to
//! plaintext, and a certificate file that was named but cannot be read is an error and never a reason
//! to verify less.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::Error;
use super::parameters::Parameters;
use super::target::Target;
use crate::certificate::{self, Rules, Trust};
use crate::clock::Moment;
use crate::network::{self, Deadline};

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    const NAMES: [(&'static str, Mode); 6] = [
        ("disable", Mode::Disable),
        ("allow", Mode::Allow),
        ("prefer", Mode::Prefer),
        ("require", Mode::Require),
        ("verify-ca", Mode::VerifyCa),
        ("verify-full", Mode::VerifyFull),
    ];

    fn parse(text: &str) -> Option<Mode> {
        Mode::NAMES.iter().find_map(|(name, mode)| (*name == text).then_some(*mode))
    }

    /// Returns its name as libpq has it.
    pub(super) fn name(self) -> &'static str {
        Mode::NAMES.iter().find_map(|(name, mode)| (*mode == self).then_some(*name)).unwrap_or("")
    }
}

/// Where the trusted certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// There are none.
    None,
    /// A file of certificates in PEM.
    File(PathBuf),
    /// The certificates the operating system trusts.
    System,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

/// How to encrypt, whom to trust, and how to show who we are.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// What was asked for.
    pub(super) mode: Mode,
    /// Whom to trust.
    pub(super) roots: Roots,
    /// The client's certificate and key, if there are any.
    pub(super) client: Option<(PathBuf, PathBuf)>,
    /// Is the server told which host name is meant?
    pub(super) sni: bool,
    /// Does TLS begin at once, without PostgreSQL's own negotiation?
    pub(super) direct: bool,
    /// Bounds of the version, as written.
    pub(super) versions: (Option<Version>, Option<Version>),
}

impl Settings {
    /// Reads the `ssl…` parameters; `home` is where libpq's default files are.
    pub(super) fn resolve(parameters: &Parameters, home: Option<&Path>) -> Result<Settings, Error> {
        let default_file = |name: &str| {
            home.map(|home| home.join(".postgresql").join(name)).filter(|file| file.exists())
        };
        let roots = match parameters.non_empty("sslrootcert") {
            Some("system") => Roots::System,
            Some(file) => Roots::File(file.into()),
            None => default_file("root.crt").map_or(Roots::None, Roots::File),
        };
        let mode = match parameters.non_empty("sslmode") {
            Some(text) => Mode::parse(text).ok_or_else(|| invalid("sslmode", text))?,
            None if roots == Roots::System => Mode::VerifyFull,
            None => Mode::Prefer,
        };
        if roots == Roots::System && mode < Mode::VerifyFull {
            let name = mode.name();
            return Err(Error::Parameters(format!(
                "weak sslmode `{name}` may not be used with `sslrootcert=system` (use `verify-full`)"
            )));
        }
        if let (Some(crl), true) = (default_file("root.crl"), mode >= Mode::VerifyCa) {
            let crl = crl.display();
            tracing::warn!("certificate revocation list `{crl}` is not supported and not checked");
        }
        let certificate = match parameters.non_empty("sslcert") {
            _ if parameters.get("sslcertmode") == Some("disable") => None,
            Some(file) => Some(PathBuf::from(file)),
            None => default_file("postgresql.crt"),
        };
        let client = match certificate {
            None => None,
            Some(certificate) => {
                let key = match (parameters.non_empty("sslkey"), home) {
                    (Some(file), _) => PathBuf::from(file),
                    (None, Some(home)) => home.join(".postgresql/postgresql.key"),
                    (None, None) => {
                        return Err(Error::Parameters("`sslcert` needs `sslkey`".to_owned()));
                    }
                };
                Some((certificate, key))
            }
        };
        let direct = match parameters.non_empty("sslnegotiation") {
            None | Some("postgres") => false,
            Some("direct") if mode >= Mode::Require => true,
            Some("direct") => {
                return Err(Error::Parameters(format!(
                    "weak sslmode `{}` may not be used with `sslnegotiation=direct`",
                    mode.name()
                )));
            }
            Some(other) => return Err(invalid("sslnegotiation", other)),
        };
        let versions = (
            version(parameters, "ssl_min_protocol_version")?,
            version(parameters, "ssl_max_protocol_version")?,
        );
        if matches!(versions, (Some(least), Some(most)) if least > most) {
            return Err(Error::Parameters("invalid TLS protocol version range".to_owned()));
        }
        let sni = parameters.get("sslsni") != Some("0");
        Ok(Settings { mode, roots, client, sni, direct, versions })
    }

    /// Complains if certificates are to be verified and none are trusted.
    pub(super) fn check_roots(&self) -> Result<(), Error> {
        if self.roots != Roots::None || self.mode < Mode::VerifyCa {
            return Ok(());
        }
        Err(Error::Parameters(format!(
            "sslmode `{}` needs a root certificate: set `sslrootcert` to a file or to `system`",
            self.mode.name()
        )))
    }

    /// Builds the connector for `host`, as the user wrote it.
    ///
    /// With `require`, a root certificate that is there is used as for `verify-ca`, as libpq does.
    pub(super) fn connector(&self, host: &str) -> Result<MakeRustlsConnect, Error> {
        let failed = |what: &str, e: &dyn std::fmt::Display| {
            Error::Parameters(format!("failed to {what}: {e}"))
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verify = self.verify();
        let trusted = if verify == Verify::Nothing { Vec::new() } else { self.trusted()? };
        let trust = Trust::new(Rules::Libpq, trusted);
        let verifier = Verifier { verify, host: host.to_owned(), trust };
        let versions =
            [(Version::Tls12, &rustls::version::TLS12), (Version::Tls13, &rustls::version::TLS13)]
                .into_iter()
                .filter(|(version, _)| self.versions.0.is_none_or(|least| *version >= least))
                .filter(|(version, _)| self.versions.1.is_none_or(|most| *version <= most))
                .map(|(_, version)| version)
                .collect::<Vec<_>>();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|e| failed("set up TLS", &e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = read_certificates(certificate)?;
                let key = provider
                    .key_provider
                    .load_private_key(read_key(key)?)
                    .map_err(|e| failed(&format!("use private key `{}`", key.display()), &e))?;
                let certified = CertifiedKey::new(chain, key);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.enable_sni = self.sni;
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        // A resumed session would not be verified against the files as they are now.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(MakeRustlsConnect::new(config))
    }

    fn verify(&self) -> Verify {
        match self.mode {
            Mode::Disable | Mode::Allow | Mode::Prefer => Verify::Nothing,
            Mode::Require if self.roots == Roots::None => Verify::Nothing,
            Mode::Require | Mode::VerifyCa => Verify::Chain,
            Mode::VerifyFull => Verify::ChainAndName,
        }
    }

    fn trusted(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        match &self.roots {
            Roots::None => Ok(Vec::new()),
            Roots::File(file) => read_certificates(file),
            Roots::System => certificate::of_the_system().map_err(Error::Parameters),
        }
    }
}

impl Target {
    /// Looks at the certificates of the first of its servers that is reached over the network, and verifies them as far as
    /// a connection would.
    ///
    /// There are none to look at where connections go through a socket, or without TLS because `sslmode` allows it.
    pub(crate) fn certificates(
        &self,
        now: Moment,
        limit: Duration,
    ) -> Result<Option<network::tls::Seen>, network::Error> {
        let Some(host) = self.hosts.iter().find(|host| !host.is_local()) else { return Ok(None) };
        if self.tls.mode == Mode::Disable {
            return Ok(None);
        }
        let verify = self.tls.verify();
        let trusted = if verify == Verify::Nothing { Ok(Vec::new()) } else { self.tls.trusted() };
        let trusted = trusted.map_err(|error| network::Error::Settings(error.to_string()))?;
        let address = host.address.map(|address| address.to_string());
        let question = network::tls::Question {
            host: address.as_deref().unwrap_or(&host.name),
            port: host.port,
            name: if host.name.is_empty() { address.as_deref().unwrap_or("") } else { &host.name },
            postgres: true,
            trust: (verify != Verify::Nothing).then(|| Trust::new(Rules::Libpq, trusted).into()),
            verify_name: verify == Verify::ChainAndName,
        };
        match network::tls::look(&question, now, &Deadline::after(limit)) {
            Err(network::Error::NoTls { .. }) if self.tls.mode < Mode::Require => Ok(None),
            seen => seen.map(Some),
        }
    }
}

fn invalid(keyword: &str, value: &str) -> Error {
    Error::Parameters(format!("invalid value `{value}` for connection parameter `{keyword}`"))
}

fn version(parameters: &Parameters, keyword: &str) -> Result<Option<Version>, Error> {
    let upper = keyword == "ssl_max_protocol_version";
    match parameters.non_empty(keyword) {
        None => Ok(None),
        // As a lower bound, older ones are met by what rustls speaks.
        Some("TLSv1" | "TLSv1.1") if !upper => Ok(None),
        Some("TLSv1.2") => Ok(Some(Version::Tls12)),
        Some("TLSv1.3") => Ok(Some(Version::Tls13)),
        Some(other) => Err(invalid(keyword, other)),
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    certificate::of_file(file).map_err(Error::Parameters)
}

/// Reads a private key, which others must not be able to read: libpq's rule.
fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let shown = file.display();
    let failed =
        |why: String| Error::Parameters(format!("failed to read private key `{shown}`: {why}"));
    let metadata = std::fs::metadata(file).map_err(|e| failed(e.to_string()))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & forbidden != 0 {
        return Err(failed(format!("its mode {mode:04o} lets others read it; set it to 0600")));
    }
    let bytes = std::fs::read(file).map_err(|e| failed(e.to_string()))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|e| {
        let encrypted = bytes.windows(9).any(|w| w == b"ENCRYPTED");
        failed(if encrypted { "it has a passphrase".to_owned() } else { e.to_string() })
    })
}

/// How much of a server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndName,
}

/// Verifies server certificates as far as the mode asks for.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    host: String,
    trust: Trust,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.verify != Verify::Nothing {
            self.trust.verify_chain(end_entity, intermediates, now)?;
        }
        if self.verify == Verify::ChainAndName {
            self.trust.verify_name(end_entity, server_name, &self.host)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}
