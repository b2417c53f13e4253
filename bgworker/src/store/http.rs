//! What the answers of a store say that object_store's errors leave out: status, `Retry-After`, and
//! whether it was the store that answered at all.
//!
//! A request of object_store is sent by the task that waits for it, so that what is seen of the
//! answer finds its way through a value of that task.

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use std::cell::Cell;
use std::time::Duration;

/// The last answer in an attempt.
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
}

/// Runs `work`; what it sends has to go through a [`Connector`].
pub(super) async fn observe<T>(work: impl Future<Output = T>) -> (T, Answer) {
    LAST.scope(Cell::default(), async {
        let result = work.await;
        (result, LAST.with(Cell::get))
    })
    .await
}

fn note(answer: Answer) {
    // Not of an attempt: the abort of an upload.
    let _ = LAST.try_with(|last| last.set(answer));
}

/// Makes the HTTP clients of one store.
#[derive(Debug)]
pub(super) struct Connector {
    bucket: String,
}

impl Connector {
    pub fn new(bucket: &str) -> Connector {
        Connector {
            bucket: bucket.to_owned(),
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Observed {
            client,
            bucket: self.bucket.clone(),
        }))
    }
}

#[derive(Debug)]
struct Observed {
    client: HttpClient,
    bucket: String,
}

#[async_trait]
impl HttpService for Observed {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let uri = request.uri();
        let sent = Answer {
            sent: true,
            login: !is_of_bucket(uri.host().unwrap_or_default(), uri.path(), &self.bucket),
            ..Answer::default()
        };
        note(sent);
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
