//! What object_store leaves out. Of the answers of a store: status, `Retry-After`, and whether it was the store that
//! answered at all. Of requests: the digest of what is sent.
//!
//! A request of object_store is sent by the task that waits for it, so that these find their way through values of
//! that task.

use super::digest::Md5;
use async_trait::async_trait;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

const AUTHORIZATION: &str = "authorization";

/// The last answer in an attempt, or the one that says most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// A request was sent, or was about to be.
    pub sent: bool,
    /// It wasn't one to the store, but one for a token to log in with.
    pub login: bool,
    /// Of an answer that is not a success.
    pub status: Option<u16>,
    pub retry_after: Option<Duration>,
}

tokio::task_local! {
    static LAST: Cell<Answer>;
    static DIGEST: Md5;
}

/// Runs `work`; what it sends has to go through a [`Connector`].
pub(super) async fn observe<T>(work: impl Future<Output = T>) -> (T, Answer) {
    LAST.scope(Cell::default(), async {
        let result = work.await;
        (result, LAST.with(Cell::get))
    })
    .await
}

/// Runs `work`, which writes an object or a part of one whose content has that digest.
pub(super) async fn with_digest<T>(md5: Md5, work: impl Future<Output = T>) -> T {
    DIGEST.scope(md5, work).await
}

fn note(answer: Answer) {
    // Not of an attempt: the abort of an upload.
    let _ = LAST.try_with(|last| last.set(worse(last.get(), answer)));
}

/// What counts of two answers. An attempt can have several requests at a time: that the store was busy for one of them
/// isn't forgotten for the next one.
fn worse(last: Answer, next: Answer) -> Answer {
    let is_busy = matches!(last.status, Some(408 | 429 | 500..));
    if is_busy && last.login == next.login && last.status > next.status {
        last
    } else {
        next
    }
}

/// Makes the HTTP clients of one store.
#[derive(Debug)]
pub(super) struct Connector {
    bucket: String,
    shared_key: Option<Arc<SharedKey>>,
}

impl Connector {
    pub fn new(bucket: &str) -> Connector {
        Connector {
            bucket: bucket.to_owned(),
            shared_key: None,
        }
    }

    /// For requests to Azure that are signed with the key of the account.
    pub fn with_shared_key(self, account: &str, key: &str) -> Connector {
        Connector {
            shared_key: SharedKey::new(account, key).map(Arc::new),
            ..self
        }
    }
}

/// What a digest in a request to Azure is signed with: the signature covers it.
struct SharedKey {
    account: String,
    credential: AzureCredential,
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey").finish_non_exhaustive()
    }
}

impl SharedKey {
    /// `None` if it is no key; object_store says so.
    fn new(account: &str, key: &str) -> Option<SharedKey> {
        let key = AzureAccessKey::try_new(key).ok()?;
        Some(SharedKey {
            account: account.to_owned(),
            credential: AzureCredential::AccessKey(key),
        })
    }

    fn sign_again(&self, request: &mut HttpRequest) {
        // Another signature would be added to the one that is there.
        request.headers_mut().remove(AUTHORIZATION);
        AzureAuthorizer::new(&self.credential, &self.account).authorize(request);
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Observed {
            client,
            bucket: self.bucket.clone(),
            shared_key: self.shared_key.clone(),
        }))
    }
}

#[derive(Debug)]
struct Observed {
    client: HttpClient,
    bucket: String,
    shared_key: Option<Arc<SharedKey>>,
}

impl Observed {
    /// Has the store compare what it gets with its digest.
    fn tell_digest(&self, request: &mut HttpRequest, md5: Md5) {
        let signature = request.headers().get(AUTHORIZATION);
        let starts_with = |scheme: &[u8]| {
            signature.is_some_and(|signature| signature.as_bytes().starts_with(scheme))
        };
        // S3 refuses the header unless the signature covers it. What that does cover is the SHA-256 of the body.
        if starts_with(b"AWS4-") {
            return;
        }
        let shared_key = match &self.shared_key {
            _ if !starts_with(b"SharedKey ") => None,
            Some(key) => Some(key),
            None => return,
        };
        let Ok(value) = HeaderValue::from_str(&md5.base64()) else {
            return;
        };
        request.headers_mut().insert("content-md5", value);
        if let Some(key) = shared_key {
            key.sign_again(request);
        }
    }
}

#[async_trait]
impl HttpService for Observed {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri();
        let sent = Answer {
            sent: true,
            login: !is_of_bucket(uri.host().unwrap_or_default(), uri.path(), &self.bucket),
            ..Answer::default()
        };
        note(sent);
        // A login may come first, and can be a PUT, too.
        if request.method().as_str() == "PUT"
            && !sent.login
            && let Ok(md5) = DIGEST.try_with(|md5| *md5)
        {
            self.tell_digest(&mut request, md5);
        }
        let response = self.client.execute(request).await?;
        let status = response.status();
        if !status.is_success() {
            let retry_after = response.headers().get("retry-after");
            note(Answer {
                status: Some(status.as_u16()),
                retry_after: retry_after
                    .and_then(|value| value.to_str().ok())
                    .and_then(seconds),
                ..sent
            });
        }
        Ok(response)
    }
}

/// Whether an object's URL, or the bucket's own, can look like that.
fn is_of_bucket(host: &str, path: &str, bucket: &str) -> bool {
    let virtual_host = host
        .strip_prefix(bucket)
        .is_some_and(|rest| rest.starts_with('.'));
    virtual_host || path.split('/').any(|part| is_encoded(part, bucket))
}

/// Whether that part of a URL is the name, some characters of which may be percent-encoded.
fn is_encoded(part: &str, name: &str) -> bool {
    let encoded: String = name.chars().fold(String::new(), |mut encoded, c| {
        if c.is_ascii_alphanumeric() {
            encoded.push(c);
        } else {
            encoded.push_str(&format!("%{:02X}", u32::from(c)));
        }
        encoded
    });
    part == name || part == encoded
}

/// The form that stores use; dates are taken for no header.
fn seconds(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_tokens_are_told_from_those_to_the_store() {
        for (host, path) in [
            ("my-lake.s3.eu-west-1.amazonaws.com", "/k"),
            ("127.0.0.1", "/my-lake"),
            ("127.0.0.1", "/devaccount/my-lake/k"),
            ("storage.googleapis.com", "/my%2Dlake/k"),
        ] {
            assert!(is_of_bucket(host, path, "my-lake"), "{host}{path}");
        }
        for (host, path) in [
            ("169.254.169.254", "/latest/api/token"),
            ("sts.eu-west-1.amazonaws.com", "/"),
            ("login.microsoftonline.com", "/t/oauth2/v2.0/token"),
        ] {
            assert!(!is_of_bucket(host, path, "my-lake"), "{host}{path}");
        }
    }

    #[test]
    fn waits_are_in_seconds() {
        assert_eq!(seconds(" 3 "), Some(Duration::from_secs(3)));
        assert_eq!(seconds("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn a_busy_store_is_not_forgotten_for_the_requests_beside_it() {
        let with = |status| Answer {
            sent: true,
            status,
            ..Answer::default()
        };
        let (busy, missing, none) = (with(Some(503)), with(Some(404)), with(None));
        assert_eq!(worse(busy, none), busy);
        assert_eq!(worse(busy, missing), busy);
        assert_eq!(worse(missing, busy), busy);
        assert_eq!(worse(missing, none), none);
        let login = Answer {
            login: true,
            ..busy
        };
        assert_eq!(worse(login, none), none);
    }

    #[tokio::test]
    async fn an_answer_belongs_to_its_attempt() {
        let answer = Answer {
            sent: true,
            status: Some(503),
            ..Answer::default()
        };
        note(answer);
        let inner = observe(async { note(answer) });
        let ((_, seen), outer) = observe(inner).await;
        assert_eq!(seen, answer);
        assert_eq!(outer, Answer::default());
    }
}
