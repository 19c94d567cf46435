//! A message as a mail, over SMTP. The answer to a message has a header that names it, so that mail programs show both as
//! one thread.

use std::error::Error as _;
use std::time::Duration;

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport as _};

use super::NotTaken;
use super::message::Message;
use crate::config::{Email, SmtpTls};
use crate::secret::redact;

/// How long the server may be silent.
const SILENCE: Duration = Duration::from_secs(5);

/// Hands the message to the mail server; whether it takes it is all that is known.
///
/// Each step has a limit, but a server that answers slowly can make it last: the caller watches the clock.
pub(super) fn send(email: &Email, message: &Message) -> Result<(), NotTaken> {
    let mail = mail(email, message)?;
    let parameters = || {
        let parameters = TlsParameters::new(email.server.clone());
        parameters.map_err(|error| format!("TLS cannot be set up: {}", in_full(&error)))
    };
    let (tls, port) = match email.tls {
        SmtpTls::StartTls => (Tls::Required(parameters()?), 587),
        SmtpTls::Implicit => (Tls::Wrapper(parameters()?), 465),
        SmtpTls::None => (Tls::None, 25),
    };
    let port = email.port.unwrap_or(port);
    let mut transport = SmtpTransport::builder_dangerous(&email.server)
        .port(port)
        .tls(tls)
        .timeout(Some(SILENCE))
        .hello_name(ClientId::Domain(message.host.clone()));
    if let Some((user, password)) = &email.login {
        let password = password.read().map_err(|problem| problem.to_string())?;
        let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
        transport = transport.credentials(credentials);
    }
    let sent = transport.build().send(&mail);
    sent.map(drop).map_err(|error| NotTaken {
        why: format!("{}:{port}: {}", email.server, in_full(&error)),
        is_about_the_message: error.is_permanent(),
    })
}

fn mail(email: &Email, message: &Message) -> Result<lettre::Message, String> {
    let address = |text: &str| text.parse::<Mailbox>().map_err(|error| error.to_string());
    let from = address(&email.from)?;
    let (id, answered) = message.mail_ids(from.email.domain());
    let mut builder: MessageBuilder = lettre::Message::builder().from(from);
    for to in &email.to {
        builder = builder.to(address(to)?);
    }
    if let Some(first) = answered {
        builder = builder.in_reply_to(first.clone()).references(first);
    }
    // RFC 3834: whoever is on holiday need not say so to a machine.
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    builder
        .message_id(Some(id))
        .subject(message.title())
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN)
        .body(message.text())
        .map_err(|error| error.to_string())
}

fn in_full(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Its own message has its source's in it.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    redact(&text.replace(char::is_control, " "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::Event;

    #[test]
    fn the_end_of_an_incident_answers_its_beginning() {
        let email = Email {
            to: vec!["Ops <ops@example.com>".to_owned(), "kim@example.com".to_owned()],
            from: "opsctl <opsctl@db1.example.com>".to_owned(),
            server: "mail.example.com".to_owned(),
            port: None,
            tls: SmtpTls::StartTls,
            login: None,
        };
        let mut message = Message::test("20261121T021500Z-4f3a9c", crate::clock::Moment::default());
        let text = |message: &Message| {
            String::from_utf8(mail(&email, message).unwrap().formatted()).unwrap()
        };
        let first = text(&message);
        let id = "<20261121T021500Z-4f3a9c-test@db1.example.com>";
        for line in [
            format!("Message-ID: {id}\r\n"),
            "To: Ops <ops@example.com>, kim@example.com\r\n".to_owned(),
            "Auto-Submitted: auto-generated\r\n".to_owned(),
        ] {
            assert!(first.contains(&line), "{first}");
        }
        message.event = Event::Recovered;
        let end = text(&message);
        assert!(end.contains(&format!("In-Reply-To: {id}\r\n")), "{end}");
    }
}
