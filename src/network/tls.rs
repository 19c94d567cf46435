//! Which certificates does a server show, who stands behind them, and until when?
//!
//! The handshake is completed whatever the certificates are worth, and nothing is sent through it; only that the server
//! has the key of its certificate is insisted on. Revocation is not asked for.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
};

use super::{Deadline, Error, place, tcp};
use crate::certificate::{Certificate, Trust};
use crate::clock::Moment;
use crate::sync::lock;

/// Whom to ask, and what to compare the answer with.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The name that the certificate should have, and that the server is told.
    pub(crate) name: &'a str,
    /// Is PostgreSQL to be asked for TLS first?
    pub(crate) postgres: bool,
    /// Who is trusted; without it only the times are looked at.
    pub(crate) trust: Option<Arc<Trust>>,
    /// Does the name matter?
    pub(crate) verify_name: bool,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whom the server's own certificate is for, and who signed it.
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// When clients begin to refuse the chain (or began to), and the certificate that it is because of.
    pub(crate) expires: Moment,
    pub(crate) first_to_expire: String,
    /// When the youngest certificate becomes valid, if that is still to come.
    pub(crate) not_before: Option<Moment>,
    /// Why clients do not trust it, apart from its times.
    pub(crate) untrusted: Option<String>,
    /// What it is for, if not for the name.
    pub(crate) wrong_name: Option<String>,
}

/// Asks a server for its certificates.
pub(crate) fn look(
    question: &Question<'_>,
    now: Moment,
    deadline: &Deadline,
) -> Result<Seen, Error> {
    let at = place(question.host, question.port);
    let name = ServerName::try_from(question.name.to_owned())
        .map_err(|_| Error::Settings(format!("`{}` is not the name of a host", question.name)))?;
    let mut stream = tcp::connect(question.host, question.port, deadline)?.stream;
    if question.postgres {
        ask_postgres(&mut stream, &at, deadline)?;
    }
    let chain = handshake(stream, name.clone(), &at, question.trust.clone(), deadline)?;
    judge(&chain, question, &name, now).map_err(|reason| Error::Tls { at, reason })
}

/// PostgreSQL's negotiation: the request for TLS, and one byte as the answer.
fn ask_postgres(stream: &mut TcpStream, at: &str, deadline: &Deadline) -> Result<(), Error> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let failed = |error| deadline.failed(at, &error);
    bound(stream, at, deadline)?;
    stream.write_all(&SSL_REQUEST).map_err(failed)?;
    let mut answer = [0];
    stream.read_exact(&mut answer).map_err(failed)?;
    let at = at.to_owned();
    match answer[0] {
        b'S' => Ok(()),
        b'N' => Err(Error::NoTls { at }),
        _ => {
            Err(Error::Answer { at, reason: "it does not speak PostgreSQL's protocol".to_owned() })
        }
    }
}

fn bound(stream: &TcpStream, at: &str, deadline: &Deadline) -> Result<(), Error> {
    let left = deadline.left(at)?;
    let failed = |error| deadline.failed(at, &error);
    stream.set_read_timeout(Some(left)).map_err(failed)?;
    stream.set_write_timeout(Some(left)).map_err(failed)
}

/// Shakes hands and returns the certificates that were shown, the server's own first.
fn handshake(
    mut stream: TcpStream,
    name: ServerName<'static>,
    at: &str,
    trust: Option<Arc<Trust>>,
    deadline: &Deadline,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let tls = |error: rustls::Error| Error::Tls { at: at.to_owned(), reason: error.to_string() };
    let trust = trust.unwrap_or_else(|| Arc::new(Trust::nobody()));
    let recorder = Arc::new(Recorder { trust, chain: Mutex::default() });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let mut client = ClientConnection::new(Arc::new(config), name).map_err(tls)?;
    while client.is_handshaking() {
        bound(&stream, at, deadline)?;
        if client.wants_write() {
            client.write_tls(&mut stream).map_err(|error| deadline.failed(at, &error))?;
            continue;
        }
        let read = client.read_tls(&mut stream).map_err(|error| deadline.failed(at, &error))?;
        if read == 0 {
            let reason = "it closed the connection during the handshake".to_owned();
            return Err(Error::Answer { at: at.to_owned(), reason });
        }
        match client.process_new_packets() {
            Ok(_) => {}
            // Who insists on a certificate of ours has shown its own before it says so.
            Err(rustls::Error::AlertReceived(_)) if !lock(&recorder.chain).is_empty() => break,
            Err(error) => return Err(tls(error)),
        }
    }
    let chain = std::mem::take(&mut *lock(&recorder.chain));
    Ok(chain)
}

/// Takes every certificate, and keeps it.
#[derive(Debug)]
struct Recorder {
    trust: Arc<Trust>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(end_entity).chain(intermediates);
        *lock(&self.chain) = shown.map(|der| der.clone().into_owned()).collect();
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

/// Judges a chain. The times and the trust are told apart: what has expired may be trusted otherwise, and the other way
/// round.
fn judge(
    chain: &[CertificateDer<'static>],
    question: &Question<'_>,
    name: &ServerName<'_>,
    now: Moment,
) -> Result<Seen, String> {
    let parsed = chain.iter().map(|der| Certificate::parse(der)).collect::<Option<Vec<_>>>();
    let parsed = parsed.ok_or("one of its certificates cannot be read")?;
    let (Some(leaf), Some(der)) = (parsed.first(), chain.first()) else {
        return Err("it shows no certificate".to_owned());
    };
    let trust = question.trust.as_deref();
    let verify = |at: u64| {
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at));
        trust.map_or(Ok(()), |trust| trust.verify_chain(der, &chain[1..], time))
    };
    let youngest = parsed.iter().map(|c| c.validity().0).max().unwrap_or_default();
    let mut ends: Vec<(u64, &Certificate)> = parsed.iter().map(|c| (c.validity().1, c)).collect();
    ends.sort_by_key(|(end, _)| *end);
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    // It is trusted if there is a time at which it holds. What complains of the time alone says nothing of the trust.
    let times = std::iter::once(seconds).chain(ends.iter().map(|(end, _)| *end));
    let errors: Option<Vec<_>> = times.map(|at| verify(at).err()).collect();
    let telling = errors.and_then(|errors| errors.into_iter().find(|e| !is_about_time(e)));
    let untrusted = telling.map(|error| reason(&error, &parsed));
    // What is shown and not needed may expire: the chain ends where verifying it begins to fail.
    let matters = |end: u64| trust.is_none() || verify(end).is_ok() && verify(end + 1).is_err();
    let real: Vec<_> = ends.iter().filter(|(end, _)| matters(*end)).collect();
    let next = real.iter().find(|(end, _)| *end >= seconds).or(real.last());
    let (end, first) = next.copied().unwrap_or(&ends[0]);
    let wrong_name = trust.filter(|_| question.verify_name).and_then(|trust| {
        trust.verify_name(der, name, question.name).err()?;
        let names = leaf.names();
        Some(if names.is_empty() { leaf.subject() } else { names.join(", ") })
    });
    let not_before = moment(youngest)?;
    Ok(Seen {
        subject: leaf.subject(),
        issuer: leaf.issuer(),
        expires: moment(*end)?,
        first_to_expire: first.subject(),
        not_before: (not_before > now).then_some(not_before),
        untrusted,
        wrong_name,
    })
}

fn is_about_time(error: &rustls::Error) -> bool {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
        )
    )
}

fn moment(seconds: u64) -> Result<Moment, String> {
    let moment = i64::try_from(seconds).ok().and_then(|s| Moment::from_timestamp(s, 0));
    moment.ok_or_else(|| "one of its certificates has a time that cannot be".to_owned())
}

/// Says why a chain is not trusted, in words.
fn reason(error: &rustls::Error, chain: &[Certificate]) -> String {
    let last = chain.last().map(Certificate::issuer).unwrap_or_default();
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => match chain {
            [one] if one.is_self_issued() => "it signed itself".to_owned(),
            [_] => format!(
                "its issuer `{last}` is not trusted, or an intermediate certificate is missing"
            ),
            _ => format!("the authority `{last}` is not trusted"),
        },
        rustls::Error::InvalidCertificate(error) => error.to_string(),
        error => error.to_string(),
    }
}
