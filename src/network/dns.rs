//! Does a name resolve, and to what? By the system's resolver, as every other program on this machine would see it.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::mpsc::{RecvTimeoutError, channel};

use super::{Deadline, Error};

/// Returns the addresses of a name, sorted; never none.
///
/// The system's resolver knows no timeout of ours. It is asked on a thread of its own, which ends when the resolver
/// gives up, after we did.
pub(crate) fn lookup(name: &str, deadline: &Deadline) -> Result<Vec<IpAddr>, Error> {
    let failed = |reason: String| Error::Lookup { name: name.to_owned(), reason };
    let (sender, receiver) = channel();
    let asked = name.to_owned();
    let resolve = move || {
        let found = (asked.as_str(), 0).to_socket_addrs();
        // Nobody listens any more after the deadline.
        sender.send(found.map(|found| found.map(|at| at.ip()).collect::<Vec<_>>())).ok();
    };
    std::thread::Builder::new()
        .name("lookup".to_owned())
        .spawn(resolve)
        .map_err(|error| failed(error.to_string()))?;
    match receiver.recv_timeout(deadline.left(name)?) {
        Ok(Ok(mut addresses)) if !addresses.is_empty() => {
            addresses.sort_unstable();
            addresses.dedup();
            Ok(addresses)
        }
        Ok(Ok(_)) => Err(failed("it has no address".to_owned())),
        Ok(Err(error)) => {
            let text = error.to_string();
            let reason = text.strip_prefix("failed to lookup address information: ");
            Err(failed(reason.unwrap_or(&text).to_owned()))
        }
        Err(RecvTimeoutError::Timeout) => Err(deadline.over(&format!("the resolver of `{name}`"))),
        Err(RecvTimeoutError::Disconnected) => Err(failed("the resolver broke off".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_name_resolves_or_the_reason_is_said() {
        let deadline = Deadline::after(Duration::from_secs(60));
        let local = lookup("localhost", &deadline).unwrap();
        assert!(local.iter().all(IpAddr::is_loopback), "{local:?}");
        assert_eq!(
            lookup("192.0.2.7", &deadline).unwrap(),
            ["192.0.2.7".parse::<IpAddr>().unwrap()]
        );
        // RFC 6761: no resolver knows it.
        let error = lookup("name.invalid", &deadline).unwrap_err();
        assert!(matches!(error, Error::Lookup { .. }), "{error}");
        assert!(error.to_string().starts_with("`name.invalid` does not resolve: "), "{error}");
    }

    #[test]
    fn nobody_waits_beyond_the_deadline() {
        let error = lookup("name.invalid", &Deadline::after(Duration::ZERO)).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }
}
