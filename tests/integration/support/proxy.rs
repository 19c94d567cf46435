//! A small HTTP/1.1 proxy that stands before a real server and spoils what passes: the faults of a network.
//!
//! Requests pass unchanged except for `Connection`, so that signatures hold (they cover `Host`, which
//! names the proxy). Each connection serves one request. Used by the unit tests of the storage too.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the proxy sees of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// The header lines as sent, names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// The how-manieth request with this method it is, counted from 1.
    pub(crate) number: usize,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// It passes.
    Pass,
    /// The server never sees it; the client gets this status and body.
    Answer(u16, &'static str),
    /// The server never sees it; the connection is closed.
    Refuse,
    /// The server does it; the connection is closed instead of its answer.
    LoseAnswer,
    /// The server does it; the client gets this status and body instead of its answer.
    FalseAnswer(u16, &'static str),
    /// The client gets only so many bytes of the body, then the connection is closed.
    Cut(usize),
    /// The first byte of the body is another one.
    Flip,
    /// A header of the answer has another value; an empty value removes it.
    Header(&'static str, &'static str),
    /// Nothing happens for so long, then the connection is closed.
    Stall(Duration),
}

/// A running proxy. Its threads end with the process.
pub(crate) struct Proxy {
    scheme: &'static str,
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    /// Starts a proxy before the server at `upstream` (`host:port`); `rule` decides about each request.
    pub(crate) fn start(
        upstream: &str,
        rule: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Proxy {
        Proxy::listen(upstream, None, rule)
    }

    /// Starts a proxy that speaks TLS to its clients.
    pub(crate) fn start_tls(
        upstream: &str,
        tls: rustls::ServerConfig,
        rule: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Proxy {
        Proxy::listen(upstream, Some(Arc::new(tls)), rule)
    }

    fn listen(
        upstream: &str,
        tls: Option<Arc<rustls::ServerConfig>>,
        rule: impl Fn(&Request) -> Fate + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, rule, upstream) = (Arc::clone(&requests), Arc::new(rule), upstream.to_owned());
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let (seen, rule) = (Arc::clone(&seen), Arc::clone(&rule));
                let upstream = upstream.clone();
                let tls = tls.clone().map(|tls| rustls::ServerConnection::new(tls).unwrap());
                // A connection that breaks is the client's affair, and often what is wanted.
                std::thread::spawn(move || match tls {
                    None => serve(&mut client, &upstream, &seen, &*rule).ok(),
                    Some(tls) => {
                        let mut client = rustls::StreamOwned::new(tls, client);
                        let served = serve(&mut client, &upstream, &seen, &*rule).ok();
                        client.conn.send_close_notify();
                        served.and(client.flush().ok())
                    }
                });
            }
        });
        Proxy { scheme, address, requests }
    }

    /// Returns the address to give to the client.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Returns how many requests with this method came.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|request| request.method == method).count()
    }

    /// Returns the requests that came, in order.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    client: &mut (impl Read + Write),
    upstream: &str,
    seen: &Mutex<Vec<Request>>,
    rule: &(impl Fn(&Request) -> Fate + ?Sized),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut *client);
    let (first, lines) = read_head(&mut reader)?;
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let headers: HashMap<_, _> = lines
        .iter()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let request = {
        let mut seen = seen.lock().unwrap();
        let number = seen.iter().filter(|request| request.method == method).count() + 1;
        seen.push(Request { method, target, headers, number });
        seen.last().unwrap().clone()
    };
    let fate = rule(&request);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    match fate {
        Fate::Answer(status, body) => return answer(client, status, body),
        Fate::Refuse => return Ok(()),
        Fate::Stall(time) => {
            std::thread::park_timeout(time);
            return Ok(());
        }
        _ => {}
    }
    let mut server = TcpStream::connect(upstream)?;
    let mut head = format!("{first}\r\n");
    for line in lines.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        head.push_str(line);
        head.push_str("\r\n");
    }
    server.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
    server.write_all(&body)?;
    let mut reader = BufReader::new(server);
    let (first, mut lines) = read_head(&mut reader)?;
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    match fate {
        Fate::LoseAnswer => return Ok(()),
        Fate::FalseAnswer(status, body) => return answer(client, status, body),
        Fate::Cut(length) => body.truncate(length),
        Fate::Flip => body.iter_mut().take(1).for_each(|byte| *byte ^= 1),
        Fate::Header(name, value) => {
            let start = format!("{}:", name.to_ascii_lowercase());
            lines.retain(|line| !line.to_ascii_lowercase().starts_with(&start));
            if !value.is_empty() {
                lines.push(format!("{name}: {value}"));
            }
        }
        _ => {}
    }
    let head = [first].into_iter().chain(lines).map(|line| line + "\r\n").collect::<String>();
    client.write_all(head.as_bytes())?;
    client.write_all(b"\r\n")?;
    client.write_all(&body)
}

fn answer(client: &mut impl Write, status: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} Made up\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    client.write_all(head.as_bytes())?;
    client.write_all(body.as_bytes())
}

fn read_head(reader: &mut impl BufRead) -> std::io::Result<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if line.is_empty() {
            let first = if lines.is_empty() { String::new() } else { lines.remove(0) };
            return Ok((first, lines));
        }
        lines.push(line.to_owned());
    }
}
