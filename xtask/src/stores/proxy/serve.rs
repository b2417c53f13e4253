//! One connection of a client, from its first request to its end.

use super::http::{Head, Incoming, Length, response};
use super::{Action, CONNECT, Request, Shared, Side};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A request in a black hole is held so long, unless the client leaves before.
const HOLE: Duration = Duration::from_secs(120);
/// All that a limited bandwidth may cost a request.
const TRICKLE: Duration = Duration::from_secs(120);
/// A limited bandwidth is served in so many pieces a second.
const PIECES: u64 = 20;

/// What one connection sends by the network before it is another one's turn.
const NETWORK_BYTES: usize = 256 << 10;

/// Headers that let a store refuse what comes too late.
const CONDITIONS: &[&str] = &[
    "if-match",
    "if-none-match",
    "x-amz-copy-source-if-none-match",
    "x-goog-if-generation-match",
];

/// What becomes of the connection after a request.
#[derive(PartialEq)]
enum Next {
    Request,
    Close,
    /// Closed with a byte unread, which resets it.
    Reset,
}

/// Serves requests until one of the three has enough: the client, the store, the rules.
pub fn connection(client: TcpStream, number: u64, shared: &Shared) {
    if shared.register(number, Side::Client, &client).is_err() {
        return;
    }
    let mut serving = Serving {
        client: &client,
        number,
        shared,
        store: None,
    };
    let mut incoming = Incoming::new(&client);
    // A client or a store that has gone is no failure of the proxy's.
    while matches!(serving.request(&mut incoming), Ok(Next::Request)) {}
    drop(serving);
    // Only the last handle closes the socket.
    shared.forget(number);
}

/// What the client gets, and what becomes of the connection then.
struct Answer {
    head: Vec<u8>,
    content: Vec<u8>,
    next: Next,
}

impl Answer {
    fn none(next: Next) -> Answer {
        Answer {
            head: Vec::new(),
            content: Vec::new(),
            next,
        }
    }
}

struct Serving<'a> {
    client: &'a TcpStream,
    number: u64,
    shared: &'a Shared,
    /// A connection to the store that can be used again.
    store: Option<BufReader<TcpStream>>,
}

/// What has been decided of a request.
struct Fate {
    actions: Vec<Action>,
    generation: u64,
    /// For the choice of a byte.
    dice: u64,
    /// When the patience with a limited bandwidth is over.
    trickle: Instant,
}

impl Fate {
    fn has(&self, action: Action) -> bool {
        self.actions.contains(&action)
    }

    fn status(&self) -> Option<(u16, Option<u32>)> {
        self.actions.iter().find_map(|action| match action {
            Action::Status(status, retry_after) => Some((*status, *retry_after)),
            _ => None,
        })
    }

    fn bandwidth(&self) -> Option<u64> {
        self.actions.iter().find_map(|action| match action {
            Action::Bandwidth(bytes) => Some((*bytes).max(PIECES)),
            _ => None,
        })
    }

    fn network(&self) -> Option<u64> {
        self.actions.iter().find_map(|action| match action {
            Action::Network(bytes) => Some((*bytes).max(1)),
            _ => None,
        })
    }

    fn flip(&self, body: &mut [u8]) {
        if self.has(Action::Flip) && !body.is_empty() {
            let at = self.dice as usize % body.len();
            body[at] ^= 1;
        }
    }
}

impl Serving<'_> {
    fn request(&mut self, incoming: &mut Incoming<'_>) -> io::Result<Next> {
        let Some(head) = incoming.head()? else {
            return Ok(Next::Close);
        };
        let (path, query) = head.word(1).split_once('?').unwrap_or((head.word(1), ""));
        let mut request = Request {
            method: head.word(0).to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            received: 0,
            sent: 0,
            status: None,
            actions: Vec::new(),
        };
        let fate = self.decide(&mut request);
        let answer = self.serve(incoming, head, &fate, &mut request);
        // Before the client can know of it.
        self.record(request);
        let answer = answer?;
        if answer.next != Next::Reset {
            incoming.settle()?;
        }
        self.client.write_all(&answer.head)?;
        self.write(&fate, &answer.content)?;
        Ok(answer.next)
    }

    fn decide(&self, request: &mut Request) -> Fate {
        let mut state = self.shared.state();
        let state = &mut *state;
        let actions: Vec<Action> = state
            .rules
            .iter_mut()
            .filter_map(|rule| {
                rule.decide(
                    &request.method,
                    &request.path,
                    &request.query,
                    &mut state.random,
                )
            })
            .collect();
        request.actions = actions.iter().map(|action| action.name()).collect();
        Fate {
            actions,
            generation: state.generation,
            dice: state.random.below(u64::MAX),
            trickle: Instant::now() + TRICKLE,
        }
    }

    fn record(&self, request: Request) {
        let mut state = self.shared.state();
        if request.method == "GET" && matches!(request.status, Some(200..=299)) {
            *state.read.entry(request.path.clone()).or_default() += request.sent;
        }
        if state.requests.len() == super::REQUESTS_MAX {
            state.requests.pop_front();
        }
        state.requests.push_back(request);
    }

    fn serve(
        &mut self,
        incoming: &mut Incoming<'_>,
        mut head: Head,
        fate: &Fate,
        request: &mut Request,
    ) -> io::Result<Answer> {
        for action in &fate.actions {
            match action {
                Action::Latency(time) => self.shared.pause(fate.generation, *time),
                Action::Reset => return Ok(Answer::none(Next::Reset)),
                Action::BlackHole => return self.hole(),
                _ => {}
            }
        }
        let length = head.request_length()?;
        if length != Length::None && head.has("expect", "100-continue") {
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = incoming.body(length, |read| self.trickle(fate, read))?;
        request.received = body.len() as u64;
        let next = if head.closes() {
            Next::Close
        } else {
            Next::Request
        };
        if let Some((status, retry_after)) = fate.status() {
            request.status = Some(status);
            return Ok(refusal(status, retry_after, &request.method, next));
        }
        if fate.has(Action::StripConditional) {
            for name in CONDITIONS {
                head.remove(name);
            }
        }
        let uploads = !body.is_empty();
        if uploads {
            fate.flip(&mut body);
        }
        let head = head.encode((length != Length::None).then_some(body.len()));
        if uploads && fate.has(Action::Truncate) {
            let mut store = self.connect()?;
            store.get_mut().write_all(&head)?;
            store.get_mut().write_all(&body[..body.len() / 2])?;
            return Ok(Answer::none(Next::Reset));
        }
        let Ok((mut answer, content)) = self.ask(&head, &body, &request.method) else {
            // The store has gone.
            return Ok(Answer::none(Next::Reset));
        };
        if fate.has(Action::LostReply) {
            return Ok(Answer::none(Next::Reset));
        }
        answer.line = answer.line.replacen("HTTP/1.0", "HTTP/1.1", 1);
        let head = answer.encode(content.as_ref().map(Vec::len));
        let mut content = content.unwrap_or_default();
        if !uploads {
            fate.flip(&mut content);
        }
        if !uploads && !content.is_empty() && fate.has(Action::Truncate) {
            content.truncate(content.len() / 2);
            let next = Next::Close;
            return Ok(Answer {
                head,
                content,
                next,
            });
        }
        request.sent = content.len() as u64;
        request.status = Some(answer.status());
        Ok(Answer {
            head,
            content,
            next,
        })
    }

    /// Takes what the client sends and says nothing.
    fn hole(&mut self) -> io::Result<Answer> {
        let deadline = Instant::now() + HOLE;
        self.client
            .set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut scratch = [0; 4096];
        while Instant::now() < deadline && !self.shared.stopping() {
            match self.client.read(&mut scratch) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Answer::none(Next::Close))
    }

    /// Lets the time pass that so many bytes take.
    fn trickle(&self, fate: &Fate, bytes: usize) {
        if let Some(bandwidth) = fate.bandwidth()
            && Instant::now() < fate.trickle
        {
            let time = Duration::from_micros(bytes as u64 * 1_000_000 / bandwidth);
            self.shared.pause(fate.generation, time);
        }
    }

    fn write(&mut self, fate: &Fate, content: &[u8]) -> io::Result<()> {
        if let Some(bandwidth) = fate.network() {
            for bytes in content.chunks(NETWORK_BYTES) {
                self.shared
                    .transmit(fate.generation, bandwidth, bytes.len());
                self.client.write_all(bytes)?;
            }
            return Ok(());
        }
        let piece = match fate.bandwidth() {
            Some(bandwidth) => (bandwidth / PIECES) as usize,
            None => content.len(),
        };
        for bytes in content.chunks(piece.max(1)) {
            self.client.write_all(bytes)?;
            self.trickle(fate, bytes.len());
        }
        Ok(())
    }

    /// One exchange with the store.
    fn ask(
        &mut self,
        head: &[u8],
        body: &[u8],
        method: &str,
    ) -> io::Result<(Head, Option<Vec<u8>>)> {
        let mut store = self.connect()?;
        let stream = store.get_mut();
        let sent = stream.write_all(head).and_then(|()| stream.write_all(body));
        // A store that refuses a request may not wait for all of it.
        let (answer, content) = response(&mut store, method)?;
        let ends = answer.response_length(method)? == Length::ToEnd;
        if sent.is_ok() && !ends && !answer.closes() {
            self.store = Some(store);
        }
        Ok((answer, content))
    }

    /// The connection that there is, unless the store has closed it, or a new one.
    fn connect(&mut self) -> io::Result<BufReader<TcpStream>> {
        if let Some(store) = self.store.take() {
            store.get_ref().set_nonblocking(true)?;
            let open = store
                .get_ref()
                .peek(&mut [0])
                .is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
            store.get_ref().set_nonblocking(false)?;
            if open {
                return Ok(store);
            }
        }
        let store = TcpStream::connect_timeout(&self.shared.store, CONNECT)?;
        self.shared.register(self.number, Side::Store, &store)?;
        Ok(BufReader::new(store))
    }
}

/// An error as stores write them.
fn refusal(status: u16, retry_after: Option<u32>, method: &str, next: Next) -> Answer {
    let (code, reason) = match status {
        403 => ("AccessDenied", "Forbidden"),
        503 => ("SlowDown", "Service Unavailable"),
        _ => ("InternalError", "Internal Server Error"),
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <Error><Code>{code}</Code><Message>injected</Message></Error>"
    );
    let retry =
        retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\n{retry}\
         Content-Length: {length}\r\n\r\n"
    );
    let content = if method == "HEAD" {
        Vec::new()
    } else {
        body.into_bytes()
    };
    Answer {
        head: head.into_bytes(),
        content,
        next,
    }
}
