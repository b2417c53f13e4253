//! The proxy before a server that keeps what it is sent.

use super::http::{Head, Incoming, response};
use super::*;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;

/// Every test's requests must have an end before that.
const LIMIT: Duration = Duration::from_secs(10);

/// Keeps bodies by path, and requests' heads.
struct Server {
    port: u16,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    bodies: HashMap<String, Vec<u8>>,
    heads: Vec<Head>,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let shared = Arc::clone(&kept);
        // It goes with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let kept = Arc::clone(&shared);
                thread::spawn(move || {
                    client.set_read_timeout(Some(LIMIT)).expect("a time-out");
                    let mut incoming = Incoming::new(&client);
                    while let Ok(true) = Server::serve(&client, &mut incoming, &kept) {}
                });
            }
        });
        Server { port, kept }
    }

    fn serve(
        mut client: &TcpStream,
        incoming: &mut Incoming<'_>,
        kept: &Mutex<Kept>,
    ) -> io::Result<bool> {
        let Some(head) = incoming.head()? else {
            return Ok(false);
        };
        let body = incoming.body(head.request_length()?, |_| ())?;
        incoming.settle()?;
        let mut kept = kept.lock().expect("no test has panicked");
        let path = head.word(1).to_owned();
        let answer = match head.word(0) {
            "PUT" if head.get("if-none-match").is_some() && kept.bodies.contains_key(&path) => {
                b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
            "PUT" => {
                kept.bodies.insert(path, body);
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
            }
            method => {
                let body = kept.bodies.get(&path).cloned().unwrap_or_default();
                let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                if method == "GET" {
                    for piece in body.chunks(1000) {
                        answer.extend(format!("{:x}\r\n", piece.len()).bytes());
                        answer.extend(piece);
                        answer.extend(b"\r\n");
                    }
                    answer.extend(b"0\r\n\r\n");
                }
                answer
            }
        };
        kept.heads.push(head);
        client.write_all(&answer)?;
        Ok(true)
    }

    fn body(&self, path: &str) -> Option<Vec<u8>> {
        let kept = self.kept.lock().expect("no test has panicked");
        kept.bodies.get(path).cloned()
    }

    fn heads(&self) -> Vec<Head> {
        let kept = self.kept.lock().expect("no test has panicked");
        kept.heads.clone()
    }
}

/// A client's connection to the proxy.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(proxy: &Proxy) -> Client {
        let stream = TcpStream::connect(("127.0.0.1", proxy.port())).expect("the proxy listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a time-out");
        Client(BufReader::new(stream))
    }

    fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let length = match method {
            "PUT" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: store\r\n{length}{headers}\r\n");
        let stream = self.0.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        self.send(method, path, "", body)?;
        let (head, body) = response(&mut self.0, method)?;
        Ok((head.status(), body.unwrap_or_default()))
    }
}

fn start() -> (Server, Proxy) {
    let server = Server::start();
    let proxy = Proxy::start(server.port, 42).expect("a proxy");
    (server, proxy)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn is_reset(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionReset
}

#[test]
fn requests_pass_and_are_recorded() {
    let (server, proxy) = start();
    let mut client = Client::new(&proxy);
    let body = pattern(300_000);
    assert_eq!(
        client.ask("PUT", "/b/k%20?x=1", &body).expect("stored").0,
        200
    );
    assert_eq!(server.body("/b/k%20?x=1"), Some(body.clone()));
    let (status, found) = client.ask("GET", "/b/k%20?x=1", b"").expect("read");
    assert_eq!((status, found.len()), (200, body.len()));
    assert_eq!(found, body);
    assert_eq!(client.ask("HEAD", "/b/k", b"").expect("asked").0, 200);
    assert_eq!(client.ask("PUT", "/b/none", b"").expect("stored").0, 200);
    for head in server.heads() {
        assert_eq!(head.get("host"), Some("store"));
    }
    let requests = proxy.requests();
    let first = requests.first().expect("a request");
    assert_eq!(
        (first.path.as_str(), first.query.as_str()),
        ("/b/k%20", "x=1")
    );
    assert_eq!((first.received, first.status), (300_000, Some(200)));
    assert_eq!(
        proxy.read(),
        BTreeMap::from([("/b/k%20".to_owned(), 300_000)])
    );
    proxy.forget();
    assert!(proxy.requests().is_empty() && proxy.read().is_empty());
}

#[test]
fn chunks_and_continue_are_understood() {
    let (server, proxy) = start();
    let mut client = Client::new(&proxy);
    let stream = client.0.get_mut();
    stream
        .write_all(
            b"PUT /c HTTP/1.1\r\nHost: store\r\nTransfer-Encoding: chunked\r\n\
              Expect: 100-continue\r\n\r\n",
        )
        .expect("sent");
    let mut line = [0; 25];
    client.0.read_exact(&mut line).expect("an answer");
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    let stream = client.0.get_mut();
    stream
        .write_all(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
        .expect("sent");
    let (head, _) = response(&mut client.0, "PUT").expect("an answer");
    assert_eq!(head.status(), 200);
    assert_eq!(server.body("/c"), Some(b"abcde".to_vec()));
    assert!(server.heads()[0].get("expect").is_none());
    // The connection is still good.
    assert_eq!(client.ask("GET", "/c", b"").expect("read").1, b"abcde");
}

#[test]
fn errors_are_the_proxys_own() {
    let (server, proxy) = start();
    let slow_down = Rule::new(Action::Status(503, Some(1)))
        .method("PUT")
        .path("*.parquet")
        .skip(1)
        .times(1);
    proxy.set(vec![slow_down]);
    let mut client = Client::new(&proxy);
    let mut statuses = Vec::new();
    for n in 0..3 {
        let path = format!("/{n}.parquet");
        client.send("PUT", &path, "", b"x").expect("sent");
        let (head, body) = response(&mut client.0, "PUT").expect("an answer");
        if head.status() == 503 {
            assert_eq!(head.get("retry-after"), Some("1"));
            assert!(String::from_utf8_lossy(&body.unwrap_or_default()).contains("SlowDown"));
        }
        statuses.push(head.status());
    }
    assert_eq!(statuses, [200, 503, 200]);
    assert_eq!(proxy.hits(), 1);
    assert_eq!(server.body("/1.parquet"), None);
    proxy.set(vec![Rule::new(Action::Status(500, None))]);
    assert_eq!(client.ask("HEAD", "/0.parquet", b"").expect("asked").0, 500);
    assert_eq!(proxy.hits(), 1);
    proxy.clear();
    assert_eq!(
        (proxy.hits(), client.ask("GET", "/x", b"").expect("asked").0),
        (0, 200)
    );
}

#[test]
fn resets_are_resets_and_replies_get_lost() {
    let (server, proxy) = start();
    for (action, stored) in [(Action::Reset, false), (Action::LostReply, true)] {
        proxy.set(vec![Rule::new(action).times(3)]);
        for (n, body) in [pattern(1), pattern(100_000)].iter().enumerate() {
            let path = format!("/{}/{n}", action.name().len());
            let result = Client::new(&proxy).ask("PUT", &path, body);
            let error = result.expect_err("no answer");
            // What is still being written may notice first.
            assert!(
                is_reset(&error) || error.kind() == ErrorKind::BrokenPipe,
                "{error:?}"
            );
            assert_eq!(server.body(&path).is_some(), stored);
        }
        let error = Client::new(&proxy).ask("GET", "/x", b"").expect_err("none");
        assert!(is_reset(&error), "{error:?}");
    }
    assert_eq!(
        Client::new(&proxy).ask("GET", "/x", b"").expect("read").0,
        200
    );
}

#[test]
fn bodies_are_cut_and_damaged() {
    let (server, proxy) = start();
    let body = pattern(50_000);
    assert_eq!(
        Client::new(&proxy)
            .ask("PUT", "/k", &body)
            .expect("stored")
            .0,
        200
    );
    proxy.set(vec![Rule::new(Action::Truncate)]);
    let error = Client::new(&proxy).ask("GET", "/k", b"").expect_err("cut");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert!(Client::new(&proxy).ask("PUT", "/cut", &body).is_err());
    assert_eq!(server.body("/cut"), None);
    proxy.set(vec![Rule::new(Action::Flip)]);
    let differing = |other: &[u8]| body.iter().zip(other).filter(|(a, b)| a != b).count();
    let (_, found) = Client::new(&proxy).ask("GET", "/k", b"").expect("read");
    assert_eq!((found.len(), differing(&found)), (body.len(), 1));
    assert_eq!(
        Client::new(&proxy)
            .ask("PUT", "/flip", &body)
            .expect("stored")
            .0,
        200
    );
    let kept = server.body("/flip").expect("it was stored");
    assert_eq!((kept.len(), differing(&kept)), (body.len(), 1));
}

#[test]
fn connections_share_a_network() {
    const CONNECTIONS: u64 = 4;
    const BYTES: u64 = 1_000_000;
    const BANDWIDTH: u64 = 10_000_000;
    let (_server, proxy) = start();
    let body = pattern(BYTES as usize);
    let stored = Client::new(&proxy).ask("PUT", "/k", &body);
    assert_eq!(stored.expect("stored").0, 200);
    proxy.set(vec![Rule::new(Action::Network(BANDWIDTH))]);
    let started = Instant::now();
    thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let found = Client::new(&proxy).ask("GET", "/k", b"");
                assert_eq!(found.expect("read").1, body);
            });
        }
    });
    let least = Duration::from_secs_f64((CONNECTIONS * BYTES) as f64 / BANDWIDTH as f64);
    assert!(started.elapsed() + NETWORK_CATCHES_UP >= least);
    assert!(started.elapsed() < LIMIT);
}

#[test]
fn what_a_slow_network_has_not_sent_is_not_in_the_way_of_the_next_one() {
    let (_server, proxy) = start();
    let body = pattern(1_000_000);
    let stored = Client::new(&proxy).ask("PUT", "/k", &body);
    assert_eq!(stored.expect("stored").0, 200);
    proxy.set(vec![Rule::new(Action::Network(1000))]);
    let mut client = Client::new(&proxy);
    client.send("GET", "/k", "", b"").expect("sent");
    let deadline = Instant::now() + LIMIT;
    // It has begun to send.
    while *proxy.shared.network() < deadline {
        assert!(Instant::now() < deadline, "nothing is sent");
        thread::sleep(Duration::from_millis(1));
    }
    proxy.set(vec![Rule::new(Action::Network(100_000_000))]);
    let late = response(&mut client.0, "GET").expect("an answer").1;
    assert!(late.as_ref() == Some(&body));
    let started = Instant::now();
    let found = Client::new(&proxy).ask("GET", "/k", b"");
    assert_eq!(found.expect("read").1, body);
    assert!(started.elapsed() < LIMIT);
}

#[test]
fn time_passes_until_the_rules_go() {
    let (_server, proxy) = start();
    proxy.set(vec![Rule::new(Action::Latency(Duration::from_millis(200)))]);
    let started = Instant::now();
    assert_eq!(
        Client::new(&proxy).ask("GET", "/k", b"").expect("read").0,
        200
    );
    assert!(started.elapsed() >= Duration::from_millis(200));

    proxy.set(vec![Rule::new(Action::Bandwidth(100_000))]);
    let started = Instant::now();
    let body = pattern(30_000);
    assert_eq!(
        Client::new(&proxy)
            .ask("PUT", "/k", &body)
            .expect("stored")
            .0,
        200
    );
    assert!(started.elapsed() >= Duration::from_millis(250));
    let started = Instant::now();
    assert_eq!(
        Client::new(&proxy).ask("GET", "/k", b"").expect("read").1,
        body
    );
    assert!(started.elapsed() >= Duration::from_millis(250));

    proxy.set(vec![Rule::new(Action::Latency(LIMIT * 10))]);
    let mut client = Client::new(&proxy);
    client.send("GET", "/k", "", b"").expect("sent");
    let deadline = Instant::now() + LIMIT;
    while proxy.hits() == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    proxy.clear();
    assert_eq!(
        response(&mut client.0, "GET")
            .expect("an answer")
            .0
            .status(),
        200
    );
}

#[test]
fn a_black_hole_says_nothing_and_ends_with_its_client_or_the_proxy() {
    let (server, proxy) = start();
    proxy.set(vec![Rule::new(Action::BlackHole)]);
    let mut client = Client::new(&proxy);
    client
        .send("PUT", "/k", "", &pattern(100_000))
        .expect("sent");
    let stream = client.0.get_ref();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a time-out");
    let error = response(&mut client.0, "PUT").expect_err("no answer");
    assert!(matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut
    ));
    assert_eq!((proxy.hits(), server.heads().len()), (1, 0));
    drop(client);
    let deadline = Instant::now() + LIMIT;
    while proxy.requests().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(proxy.requests()[0].status, None);

    let mut client = Client::new(&proxy);
    client.send("GET", "/k", "", b"").expect("sent");
    let started = Instant::now();
    drop(proxy);
    assert!(started.elapsed() < LAST, "{:?}", started.elapsed());
    assert!(response(&mut client.0, "GET").is_err());
}

#[test]
fn conditions_are_stripped() {
    let (server, proxy) = start();
    let put = |body: &[u8]| {
        let mut client = Client::new(&proxy);
        client
            .send("PUT", "/k", "If-None-Match: *\r\n", body)
            .expect("sent");
        response(&mut client.0, "PUT")
            .expect("an answer")
            .0
            .status()
    };
    assert_eq!((put(b"first"), put(b"second")), (200, 412));
    proxy.set(vec![Rule::new(Action::StripConditional)]);
    assert_eq!(put(b"third"), 200);
    assert_eq!(server.body("/k"), Some(b"third".to_vec()));
}

#[test]
fn a_store_that_is_gone_is_a_reset() {
    let port = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let proxy = Proxy::start(port, 1).expect("a proxy");
    let error = Client::new(&proxy).ask("GET", "/k", b"").expect_err("none");
    assert!(is_reset(&error), "{error:?}");
}

#[test]
fn more_clients_than_threads_are_served_in_turn() {
    let (_server, proxy) = start();
    let clients: Vec<_> = (0..CONNECTIONS_MAX + 20)
        .map(|n| {
            let mut client = Client::new(&proxy);
            thread::spawn(move || {
                client
                    .ask("PUT", &format!("/{n}"), b"x")
                    .map(|(status, _)| status)
            })
        })
        .collect();
    for client in clients {
        assert_eq!(client.join().expect("no panic").expect("an answer"), 200);
    }
    assert!(matches!(
        proxy.requests().first(),
        Some(Request {
            status: Some(200),
            ..
        })
    ));
    assert_eq!(proxy.requests().len(), CONNECTIONS_MAX + 20);
}
