//! A small HTTP/1.1 server that takes whatever is sent to it, remembers it, and answers as it was told: what stands behind a
//! ping URL or a webhook. Each connection serves one request. Used by the unit tests of `http`, too.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// What becomes of a request, once it was read.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answer(u16),
    /// Nothing happens until the client goes away.
    Hang,
    /// The same, behind the head of an answer.
    HangInTheAnswer,
    Close,
}

#[derive(Debug)]
struct State {
    received: Vec<Received>,
    /// What becomes of the next ones, before all others.
    next: VecDeque<Fate>,
    others: Fate,
    headers: Vec<(String, String)>,
    body: String,
}

/// A running receiver; it answers 200 until it is told otherwise. Its threads end with the process.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Receiver {
    /// Starts a receiver at a port of its own.
    pub(crate) fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            received: Vec::new(),
            next: VecDeque::new(),
            others: Fate::Answer(200),
            headers: Vec::new(),
            body: "made up".to_owned(),
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let receiver = Receiver { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A connection that breaks is the client's affair, and often what is wanted.
                std::thread::spawn(move || serve(client, &shared).ok());
            }
        });
        receiver
    }

    /// Returns host and port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of a path on it, which begins without a slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Returns the requests that came, in order.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.shared.0.lock().unwrap().received.clone()
    }

    /// Waits until so many requests came; a minute without them fails the test.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: usize) -> Vec<Received> {
        let (state, changed) = &*self.shared;
        let too_few = |state: &mut State| state.received.len() < count;
        let waited =
            changed.wait_timeout_while(state.lock().unwrap(), Duration::from_secs(60), too_few);
        let (state, _) = waited.unwrap();
        assert!(state.received.len() >= count, "not {count} requests: {:?}", state.received);
        state.received.clone()
    }

    /// Answers with a status from now on.
    pub(crate) fn answer(&self, status: u16) -> &Receiver {
        self.set(|state| state.others = Fate::Answer(status))
    }

    /// Answers the next requests with these statuses, one each.
    pub(crate) fn answer_next(&self, statuses: &[u16]) -> &Receiver {
        self.set(|state| state.next.extend(statuses.iter().copied().map(Fate::Answer)))
    }

    /// Reads requests from now on, and never answers.
    pub(crate) fn hang(&self) -> &Receiver {
        self.set(|state| state.others = Fate::Hang)
    }

    /// Begins to answer from now on, and never comes to an end of it.
    pub(crate) fn hang_in_the_answer(&self) -> &Receiver {
        self.set(|state| state.others = Fate::HangInTheAnswer)
    }

    /// Reads requests from now on, and closes the connection instead of an answer.
    pub(crate) fn close(&self) -> &Receiver {
        self.set(|state| state.others = Fate::Close)
    }

    /// Adds a header to all answers.
    pub(crate) fn with_header(&self, name: &str, value: &str) -> &Receiver {
        self.set(|state| state.headers.push((name.to_owned(), value.to_owned())))
    }

    /// Has all answers say something.
    pub(crate) fn say(&self, body: &str) -> &Receiver {
        self.set(|state| body.clone_into(&mut state.body))
    }

    fn set(&self, change: impl FnOnce(&mut State)) -> &Receiver {
        change(&mut self.shared.0.lock().unwrap());
        self
    }
}

fn serve(mut client: TcpStream, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let received = match read(&client) {
        // As real servers answer to TLS at a port that speaks none.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return client.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
        received => received?,
    };
    let (fate, head, body) = {
        let mut state = shared.0.lock().unwrap();
        state.received.push(received);
        shared.1.notify_all();
        let fate = state.next.pop_front().unwrap_or(state.others);
        let headers = state.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let length = state.body.len();
        let status = if let Fate::Answer(status) = fate { status } else { 200 };
        let head = format!(
            "HTTP/1.1 {status} Made up\r\nContent-Length: {length}\r\nConnection: close\r\n{}\r\n",
            headers.collect::<String>()
        );
        (fate, head, state.body.clone())
    };
    match fate {
        Fate::Answer(_) => {
            client.write_all(head.as_bytes())?;
            client.write_all(body.as_bytes())
        }
        Fate::Hang | Fate::HangInTheAnswer => {
            if matches!(fate, Fate::HangInTheAnswer) {
                client.write_all(head.as_bytes())?;
            }
            client.read(&mut [0]).map(|_| ())
        }
        Fate::Close => Ok(()),
    }
}

fn read(client: &TcpStream) -> std::io::Result<Received> {
    let mut reader = BufReader::new(client);
    let mut line = || -> std::io::Result<String> {
        let mut line = String::new();
        match reader.read_line(&mut line)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Received { method, target, headers, body: String::from_utf8_lossy(&body).into_owned() })
}
