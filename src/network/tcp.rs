//! Does a port answer?

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Deadline, Error, dns, place};

/// A connection, and how it came about.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// Where it leads.
    pub(crate) address: SocketAddr,
    /// What a client waits: for the name and for the connection.
    pub(crate) took: Duration,
}

/// Connects to the first address of `host` that answers.
///
/// Each address has its share of the time that is left, so that a dead one does not hide a living one.
pub(crate) fn connect(host: &str, port: u16, deadline: &Deadline) -> Result<Connected, Error> {
    let at = place(host, port);
    let before = deadline.elapsed();
    let addresses = dns::lookup(host, deadline)?;
    let mut last = deadline.over(&at);
    for (n, address) in addresses.iter().enumerate() {
        let address = SocketAddr::new(*address, port);
        let others = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(&address, deadline.left(&at)? / others) {
            Ok(stream) => {
                return Ok(Connected {
                    stream,
                    address,
                    took: deadline.elapsed().saturating_sub(before),
                });
            }
            Err(error) => last = deadline.failed(&at, &error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn an_open_port_answers_and_a_closed_one_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let deadline = Deadline::after(Duration::from_secs(60));
        // Where localhost is ::1 as well, the address that nobody listens at is passed over.
        let connected = connect("localhost", address.port(), &deadline).unwrap();
        assert_eq!(connected.address, address);
        assert_eq!(connected.stream.peer_addr().unwrap(), address);
        drop(listener);
        let error = connect("127.0.0.1", address.port(), &deadline).unwrap_err();
        let expected = format!("cannot connect to {address}: Connection refused (os error 111)");
        assert_eq!(error.to_string(), expected);
    }
}
