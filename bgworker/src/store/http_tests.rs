//! A server that gives prepared answers to object_store's real clients.

use super::backend;
use super::credentials::{Credential, Secret};
use super::faulty;
use super::registry::Settings;
use super::remote::Remote;
use pg_lake_plan::message::{ErrorCode, Priority};
use pg_lake_plan::store::{Protocol, Store};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const LOCATION: &str = "s3://lake/k";
const BUSY: &str = "HTTP/1.1 503 Slow Down\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
const FOUND: &str =
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/4\r\nContent-Length: 4\r\n\r\nabcd";

/// The MD5 of `abcd`.
const DIGEST: &str = "e2fc714c4727ee9395f324cd2e7f331f";
const DIGEST_IN_HEADER: &str = "content-md5: 4vxxTEcn7pOV8yTNLn8zHw==";

/// Requests, without their bodies.
type Requests = Arc<Mutex<Vec<String>>>;

/// Gives one answer to each request; returns its endpoint.
async fn serve(answers: Vec<String>) -> String {
    serve_recorded(answers, Requests::default()).await
}

async fn serve_recorded(answers: Vec<String>, requests: Requests) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.expect("a connection");
            answer_one(stream, &answer, &requests).await;
        }
    });
    format!("http://127.0.0.1:{port}")
}

fn connect(store: Store, credential: &Credential, settings: &Settings) -> Remote {
    let backend = backend::build(&store, Some(credential), settings).expect("a client");
    Remote::new(store, backend, settings, credential.secrets())
}

/// One of S3.
async fn remote(answers: Vec<String>, settings: Settings) -> Remote {
    s3(serve(answers).await, settings)
}

fn s3(endpoint: String, settings: Settings) -> Remote {
    let store = Store {
        endpoint: Some(endpoint),
        credential: Some("key".into()),
        ..faulty::store()
    };
    let keys = Credential::S3Keys {
        id: Secret::new("AKIAHIDDEN"),
        secret: Secret::new("hush"),
        session_token: Some(Secret::new("tokenhush")),
    };
    connect(store, &keys, &settings)
}

async fn azure(answers: Vec<String>) -> Remote {
    azure_with(serve(answers).await, &sas())
}

fn sas() -> Credential {
    Credential::AzureSas(Secret::new("sv=2024&sp=rw&sig=hush%2Bhush"))
}

fn azure_with(endpoint: String, credential: &Credential) -> Remote {
    let store = Store {
        protocol: Protocol::Azure,
        account: Some("acme".into()),
        endpoint: Some(format!("{endpoint}/acme")),
        credential: Some("key".into()),
        ..faulty::store()
    };
    connect(store, credential, &faulty::settings())
}

async fn gcs(answers: Vec<String>) -> Remote {
    gcs_at(serve(answers).await)
}

fn gcs_at(endpoint: String) -> Remote {
    let store = Store {
        protocol: Protocol::Gcs,
        endpoint: Some(endpoint),
        credential: Some("key".into()),
        ..faulty::store()
    };
    let key = "{\"disable_oauth\": true, \"client_email\": \"\", \"private_key\": \"\", \"private_key_id\": \"\"}";
    let key = Credential::GcsKey(Secret::new(key));
    connect(store, &key, &faulty::settings())
}

async fn answer_one(mut stream: TcpStream, answer: &str, requests: &Requests) {
    let mut reader = BufReader::new(&mut stream);
    let mut length = 0;
    let mut head = String::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await.expect("a header");
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await.expect("the body");
    let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    requests.lock().expect("requests").push(head);
    stream.write_all(answer.as_bytes()).await.expect("answered");
}

/// To a request that writes an object.
fn written(e_tag: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nETag: \"{e_tag}\"\r\nContent-Length: 0\r\n\r\n")
}

fn failed(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn a_busy_store_is_left_alone_as_long_as_it_asks_for() {
    let settings = Settings {
        timeout: Duration::from_secs(10),
        ..faulty::settings()
    };
    let remote = remote(vec![BUSY.into(), FOUND.into()], settings).await;
    let start = Instant::now();
    let read = remote.get(LOCATION, 0..4, Priority::Interactive).await;
    assert_eq!(read.as_deref(), Ok(b"abcd".as_slice()));
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn a_store_that_asks_for_too_long_a_pause_is_given_up() {
    let busy = BUSY.replace("Retry-After: 1", "Retry-After: 100");
    let remote = remote(vec![busy], faulty::settings()).await;
    let start = Instant::now();
    let error = remote.get(LOCATION, 0..4, Priority::Interactive).await;
    let error = error.expect_err("given up");
    assert_eq!(error.code, ErrorCode::StoreUnavailable);
    assert!(error.detail.is_some_and(|detail| detail.contains("503")));
    assert!(start.elapsed() < faulty::settings().timeout);
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_fetched_again() {
    let cut =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/4\r\nContent-Length: 4\r\n\r\nab";
    let rest =
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-3/4\r\nContent-Length: 2\r\n\r\ncd";
    let remote = remote(vec![cut.into(), rest.into()], faulty::settings()).await;
    let read = remote.get(LOCATION, 0..4, Priority::Interactive).await;
    assert_eq!(read.as_deref(), Ok(b"abcd".as_slice()));
}

#[tokio::test]
async fn what_the_store_says_is_told_without_secrets() {
    let denied = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>Wrong key</Message>\
                  <AWSAccessKeyId>AKIAHIDDEN</AWSAccessKeyId>\
                  <CanonicalRequest>x-amz-security-token:tokenhush</CanonicalRequest></Error>";
    let no_bucket = "<Error><Code>NoSuchBucket</Code><Message>No such bucket</Message></Error>";
    let region = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>expecting 'eu-west-1'</Message></Error>";
    for (status, body, code, text) in [
        (
            "403 Forbidden",
            denied,
            ErrorCode::StoreDenied,
            "SignatureDoesNotMatch: Wrong key",
        ),
        (
            "404 Not Found",
            no_bucket,
            ErrorCode::InvalidConfiguration,
            "NoSuchBucket",
        ),
        (
            "400 Bad Request",
            region,
            ErrorCode::InvalidConfiguration,
            "eu-west-1",
        ),
        (
            "301 Moved Permanently",
            "",
            ErrorCode::InvalidConfiguration,
            "region",
        ),
        ("404 Not Found", "", ErrorCode::MissingFile, "404"),
        (
            "416 Range Not Satisfiable",
            "",
            ErrorCode::DataCorrupted,
            "416",
        ),
        ("200 OK", "abcd", ErrorCode::Io, "non-partial"),
    ] {
        let remote = remote(vec![failed(status, body)], faulty::settings()).await;
        let error = remote.get(LOCATION, 0..4, Priority::Interactive).await;
        let error = error.expect_err(status);
        assert_eq!(error.code, code, "{status}: {error:?}");
        let detail = error.detail.as_ref().expect("a detail");
        assert!(detail.contains(text), "{status}: {error:?}");
        let shown = format!("{error:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("HIDDEN"),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_write_that_crosses_another_one_is_looked_at() {
    let exists = "<Error><Code>PreconditionFailed</Code><Message>x</Message></Error>";
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let answers = vec![
        failed("412 Precondition Failed", exists),
        head(4),
        FOUND.into(),
    ];
    let same = remote(answers, faulty::settings()).await;
    assert_eq!(same.put(LOCATION, "abcd".into()).await, Ok(()));
    let answers = vec![failed("412 Precondition Failed", exists), head(5)];
    let other = remote(answers, faulty::settings()).await;
    let error = other.put(LOCATION, "abcd".into()).await.expect_err("taken");
    assert_eq!(error.code, ErrorCode::NameTaken);
    assert!(error.message.ends_with("already exists"), "{error}");
}

#[tokio::test]
async fn a_store_that_nobody_listens_for_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let settings = Settings {
        timeout: Duration::from_millis(300),
        ..faulty::settings()
    };
    let store = Store {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        ..faulty::store()
    };
    let keys = Credential::S3Keys {
        id: Secret::new("id"),
        secret: Secret::new("hush"),
        session_token: None,
    };
    let remote = connect(store, &keys, &settings);
    let error = remote.get_all(LOCATION).await.expect_err("nobody there");
    assert_eq!(error.code, ErrorCode::StoreUnavailable);
    assert!(
        error
            .hint
            .is_some_and(|hint| hint.contains("http://127.0.0.1"))
    );
    let role = Credential::S3WebIdentity {
        role_arn: "arn:aws:iam::1:role/x".into(),
        token_file: "/missing/token".into(),
    };
    let store = remote.store().clone();
    let remote = connect(store, &role, &settings);
    let error = remote.get_all(LOCATION).await.expect_err("no token");
    assert_eq!(error.code, ErrorCode::StoreDenied);
}

#[tokio::test]
async fn azure_does_not_get_its_token_into_errors() {
    let location = "abfss://lake@acme.dfs.core.windows.net/k";
    let denied = "<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Not you</Message>\
                  <AuthenticationErrorDetail>String to sign was hush</AuthenticationErrorDetail></Error>";
    let answers = vec![failed("403 Forbidden", denied); 2];
    let remote = azure(answers).await;
    let read = remote.get_all(location).await.expect_err("denied");
    let removed = remote.delete(&[location.into()]).await.expect_err("denied");
    for error in [read, removed] {
        assert_eq!(error.code, ErrorCode::StoreDenied);
        let detail = error.detail.as_ref().expect("a detail");
        assert!(
            detail.contains("AuthenticationFailed: Not you"),
            "{error:?}"
        );
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
    }
}

#[tokio::test]
async fn other_clouds_know_conditional_writes() {
    let headers =
        "Last-Modified: Wed, 21 Oct 2026 07:28:00 GMT\r\nETag: \"1\"\r\nContent-Length: 4\r\n\r\n";
    let head = format!("HTTP/1.1 200 OK\r\n{headers}");
    let found =
        format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/4\r\n{headers}abcd");
    let taken = "<Error><Code>Taken</Code><Message>x</Message></Error>";
    let conflict = failed("409 Conflict", taken);
    let azure = azure(vec![conflict.clone(), head.clone(), found.clone()]).await;
    let location = "abfss://lake@acme.dfs.core.windows.net/k";
    assert_eq!(azure.put(location, "abcd".into()).await, Ok(()));
    let refused = failed("412 Precondition Failed", taken);
    let gcs = gcs(vec![refused, head, found]).await;
    let error = gcs.put("gs://lake/k", "other".into()).await;
    assert_eq!(error.expect_err("taken").code, ErrorCode::NameTaken);
}

#[tokio::test]
async fn a_store_is_told_the_digest_of_what_it_gets() {
    let requests = Requests::default();
    let serve = async || serve_recorded(vec![written("1")], requests.clone()).await;
    let s3 = s3(serve().await, faulty::settings());
    assert_eq!(s3.put(LOCATION, "abcd".into()).await, Ok(()));
    let gcs = gcs_at(serve().await);
    assert_eq!(gcs.put("gs://lake/k", "abcd".into()).await, Ok(()));
    let key = Credential::AzureKey(Secret::new("aHVzaA=="));
    for credential in [sas(), key] {
        let azure = azure_with(serve().await, &credential);
        let location = "abfss://lake@acme.dfs.core.windows.net/k";
        assert_eq!(azure.put(location, "abcd".into()).await, Ok(()));
    }
    let requests = requests.lock().expect("requests").clone();
    let has = |index: usize, text: &str| requests[index].matches(text).count() == 1;
    // That of its signature: SHA-256.
    let of_body = "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589";
    assert!(has(0, of_body) && !has(0, "content-md5"), "{requests:?}");
    for index in 1..4 {
        assert!(has(index, DIGEST_IN_HEADER), "{requests:?}");
    }
    assert!(has(3, "authorization: SharedKey acme:"), "{requests:?}");
    assert!(has(3, "authorization:"), "{requests:?}");
}

#[tokio::test]
async fn a_store_that_has_got_something_else_is_sent_it_again() {
    let altered = "<Error><Code>BadDigest</Code><Message>x</Message></Error>";
    let refusing = vec![failed("400 Bad Request", altered), written(DIGEST)];
    let refusing = remote(refusing, faulty::settings()).await;
    assert_eq!(refusing.put(LOCATION, "abcd".into()).await, Ok(()));

    let other = "9a0364b9e99bb480dd25e1f0284c8555";
    let read_back = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabce";
    let answers = vec![written(other), read_back.into(), written(DIGEST)];
    let requests = Requests::default();
    let endpoint = serve_recorded(answers, requests.clone()).await;
    let accepting = s3(endpoint, faulty::settings());
    assert_eq!(accepting.put(LOCATION, "abcd".into()).await, Ok(()));
    let requests = requests.lock().expect("requests").clone();
    let is_conditional = |request: &String| request.contains("if-none-match: *");
    let conditional: Vec<bool> = requests.iter().map(is_conditional).collect();
    // What is there when it is sent again is ours.
    assert_eq!(conditional, [true, false, false], "{requests:?}");
}

#[tokio::test]
async fn each_object_is_removed_by_a_request_of_its_own() {
    let gone = "HTTP/1.1 204 No Content\r\n\r\n";
    let requests = Requests::default();
    // Which of the two is refused is chance.
    let answers = vec![failed("503 Slow Down", ""), gone.into(), gone.into()];
    let endpoint = serve_recorded(answers, requests.clone()).await;
    let remote = s3(endpoint, faulty::settings());
    let locations = ["s3://lake/p/1".to_owned(), "s3://lake/p/2".to_owned()];
    assert_eq!(remote.delete(&locations).await, Ok(2));
    let requests = requests.lock().expect("requests").clone();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for key in ["p/1", "p/2"] {
        let line = format!("DELETE /lake/{key} HTTP/1.1");
        let asked = requests.iter().filter(|request| request.starts_with(&line));
        assert!((1..=2).contains(&asked.count()), "{requests:?}");
    }
    for request in &requests {
        for header in [
            "authorization: AWS4-HMAC-SHA256 Credential=AKIAHIDDEN/",
            "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "x-amz-security-token: tokenhush",
        ] {
            assert!(request.contains(header), "{request}");
        }
    }
}

#[tokio::test]
async fn a_removal_that_is_refused_is_told_without_secrets() {
    let denied = "<Error><Code>SignatureDoesNotMatch</Code><Message>Wrong key</Message>\
                  <StringToSign>hush</StringToSign></Error>";
    let no_bucket = "<Error><Code>NoSuchBucket</Code><Message>No such bucket</Message></Error>";
    for (status, body, code) in [
        ("403 Forbidden", denied, ErrorCode::StoreDenied),
        ("404 Not Found", no_bucket, ErrorCode::InvalidConfiguration),
        ("400 Bad Request", "", ErrorCode::Io),
    ] {
        let remote = remote(vec![failed(status, body)], faulty::settings()).await;
        let error = remote.delete(&[LOCATION.into()]).await.expect_err(status);
        assert_eq!(error.code, code, "{status}: {error:?}");
        assert!(error.message.contains(LOCATION) || code == ErrorCode::InvalidConfiguration);
        let shown = format!("{error:?}");
        assert!(
            !shown.contains("hush") && !shown.contains("HIDDEN"),
            "{shown}"
        );
    }
}
