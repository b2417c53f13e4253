//! Failed attempts: whether another one may help, and what the user is told in the end.

use super::credentials::Secret;
use super::http::Answer;
use super::redact::{causes, redact};
use object_store::Error;
use object_store::client::HttpError;
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::Store;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// What is wrong with an answer that object_store is content with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The body ended before its length was reached.
    Truncated { received: u64, expected: u64 },
    /// The body doesn't end where it should.
    TooLong { expected: u64 },
    /// No byte came in that time.
    Stalled(Duration),
    /// The object has fewer bytes than it must have.
    Short { size: u64, expected: u64 },
    /// There is no memory for so many bytes.
    NoMemory(u64),
    /// The store has something else than was sent.
    Altered,
    /// What comes doesn't have the digest that the store names, and is another thing each time.
    Damaged,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Truncated { received, expected } => {
                write!(f, "only {received} of {expected} bytes were received")
            }
            Problem::TooLong { expected } => write!(f, "more than {expected} bytes were received"),
            Problem::Stalled(time) => write!(f, "nothing was received in {time:?}"),
            Problem::Short { size, expected } => {
                write!(
                    f,
                    "the object has {size} bytes, at least {expected} were expected"
                )
            }
            Problem::NoMemory(bytes) => write!(f, "there is no memory for {bytes} bytes"),
            Problem::Altered => write!(f, "the store has something else than was sent"),
            Problem::Damaged => write!(f, "it was damaged on its way, each time in another way"),
        }
    }
}

impl StdError for Problem {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        Error::Generic {
            store: "pg_lake",
            source: Box::new(problem),
        }
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    cause: Cause,
    answer: Answer,
}

#[derive(Debug)]
enum Cause {
    Store(Error),
    /// It was given up after that time.
    Late(Duration),
}

/// Codes of errors which S3 answers with a status that says something else, or with none: a 200, or
/// a part of the answer to a request for many objects.
const BUSY: &[&str] = &[
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "OperationAborted",
];
const DENIED: &[&str] = &[
    "AccessDenied",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
];
const NO_BUCKET: &[&str] = &["NoSuchBucket", "ContainerNotFound", "InvalidBucketName"];
const OTHER_REGION: &[&str] = &[
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "IllegalLocationConstraintException",
    "redirect without LOCATION",
];

/// Codes of errors which say that the body that has arrived doesn't have the digest or the length that the request says.
const ALTERED: &[&str] = &[
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "Md5Mismatch",
    "IncompleteBody",
];

impl Failure {
    pub fn new(error: Error, answer: Answer) -> Failure {
        Failure {
            cause: Cause::Store(error),
            answer,
        }
    }

    /// Given up after that time.
    pub fn late(time: Duration, answer: Answer) -> Failure {
        Failure {
            cause: Cause::Late(time),
            answer,
        }
    }

    /// How long the store wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.answer.retry_after
    }

    /// It was the request for a token that failed.
    pub fn is_of_login(&self) -> bool {
        self.answer.login
    }

    /// There is an object of that name.
    pub fn is_of_existing(&self) -> bool {
        matches!(
            self.error(),
            Some(Error::AlreadyExists { .. } | Error::Precondition { .. })
        )
    }

    pub fn is_of_missing(&self) -> bool {
        self.error().is_some_and(is_missing)
    }

    /// The store can't do that, or takes the request for a wrong one.
    pub fn is_of_unsupported(&self) -> bool {
        match self.kind() {
            Kind::Unsupported => true,
            Kind::Other => self.answer.status == Some(400),
            _ => false,
        }
    }

    /// The same request may succeed later.
    pub fn is_transient(&self) -> bool {
        let error = match &self.cause {
            Cause::Late(_) => return true,
            Cause::Store(error) => error,
        };
        if let Some(problem) = find::<Problem>(error) {
            return !matches!(problem, Problem::Short { .. } | Problem::NoMemory(_));
        }
        let Error::Generic { .. } = error else {
            return false;
        };
        // The answer may be that to a request beside the one whose connection broke.
        if find::<HttpError>(error).is_some() {
            return true;
        }
        match self.answer.status {
            Some(408 | 429) => true,
            Some(501 | 505) => false,
            Some(500..) => true,
            Some(_) => self.says(BUSY) || self.says(ALTERED),
            None => self.says(BUSY),
        }
    }

    fn error(&self) -> Option<&Error> {
        match &self.cause {
            Cause::Store(error) => Some(error),
            Cause::Late(_) => None,
        }
    }

    fn text(&self) -> String {
        match &self.cause {
            Cause::Store(error) => causes(error),
            Cause::Late(time) => format!("There was no answer in {time:?}."),
        }
    }

    fn says(&self, codes: &[&str]) -> bool {
        let text = self.text();
        codes.iter().any(|code| text.contains(code))
    }

    fn kind(&self) -> Kind {
        let status = self.answer.status;
        if self.says(NO_BUCKET) {
            return Kind::NoBucket;
        }
        if self.answer.login {
            return Kind::NoLogin;
        }
        let Some(error) = self.error() else {
            return Kind::Unavailable;
        };
        match error {
            Error::NotFound { .. } => Kind::Missing,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Kind::Denied,
            _ if matches!(status, Some(401 | 403)) || self.says(DENIED) => Kind::Denied,
            _ if matches!(status, Some(300..400)) || self.says(OTHER_REGION) => Kind::OtherRegion,
            _ if status == Some(416) => Kind::Short,
            _ if matches!(find(error), Some(Problem::Short { .. })) => Kind::Short,
            _ if matches!(find(error), Some(Problem::NoMemory(_))) => Kind::NoMemory,
            _ if matches!(find(error), Some(Problem::Altered | Problem::Damaged)) => Kind::Altered,
            _ if status == Some(400) && self.says(ALTERED) => Kind::Altered,
            _ if self.is_transient() => Kind::Unavailable,
            Error::NotSupported { .. } | Error::NotImplemented { .. } => Kind::Unsupported,
            _ if matches!(status, Some(405 | 501)) => Kind::Unsupported,
            // Nothing was sent: object_store had nothing to sign it with.
            Error::Generic { .. } if !self.answer.sent => Kind::NoLogin,
            _ => Kind::Other,
        }
    }
}

enum Kind {
    NoBucket,
    NoLogin,
    Missing,
    Denied,
    OtherRegion,
    Short,
    NoMemory,
    Altered,
    Unavailable,
    Unsupported,
    Other,
}

/// The error for the user. `doing` follows "could not" and has the object's location;
/// `secrets` are those of the store's credential.
pub(super) fn store_error(
    store: &Store,
    doing: &str,
    failure: &Failure,
    secrets: &[Secret],
) -> WireError {
    let (bucket, root) = (&store.bucket, store.root());
    let could_not = format!("could not {doing}");
    let (code, message, hint) = match failure.kind() {
        Kind::NoBucket => (
            ErrorCode::InvalidConfiguration,
            format!("there is no bucket \"{bucket}\""),
            Some("Create it, or correct the options bucket and endpoint of the tablespace.".into()),
        ),
        Kind::NoLogin => (
            ErrorCode::StoreDenied,
            format!("could not log in to store \"{root}\""),
            Some(credential_hint(store)),
        ),
        Kind::Missing => (ErrorCode::MissingFile, could_not, None),
        Kind::Denied => (
            ErrorCode::StoreDenied,
            could_not,
            Some(credential_hint(store)),
        ),
        Kind::OtherRegion => (
            ErrorCode::InvalidConfiguration,
            could_not,
            Some(format!(
                "Set the options region and endpoint of the tablespace to those of bucket \"{bucket}\"."
            )),
        ),
        Kind::Short => (ErrorCode::DataCorrupted, could_not, None),
        Kind::NoMemory => (ErrorCode::OutOfMemory, could_not, None),
        Kind::Altered => (
            ErrorCode::StoreUnavailable,
            could_not,
            Some(format!(
                "What goes to store \"{root}\", or comes from it, doesn't arrive as it was. Check the network, and proxies if there are any."
            )),
        ),
        Kind::Unavailable => (
            ErrorCode::StoreUnavailable,
            could_not,
            Some(format!(
                "Check that store \"{root}\" can be reached{}; lake.store_timeout says how long to try.",
                match &store.endpoint {
                    Some(endpoint) => format!(" at \"{endpoint}\""),
                    None => String::new(),
                }
            )),
        ),
        Kind::Unsupported => (
            ErrorCode::Unsupported,
            could_not,
            Some(format!("Store \"{root}\" lacks what is needed for it.")),
        ),
        Kind::Other => (ErrorCode::Io, could_not, None),
    };
    let error = WireError::new(code, message).detail(redact(&failure.text(), secrets));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn credential_hint(store: &Store) -> String {
    let root = store.root();
    match &store.credential {
        Some(name) => format!(
            "Check entry \"{name}\" of lake.credentials_file, and what it is allowed to do in \"{root}\"."
        ),
        None => format!(
            "The tablespace names no credential: what counts is what the identity of the server's environment or \
             machine is allowed to do in \"{root}\"."
        ),
    }
}

/// Whether the object is missing, not its bucket.
pub(super) fn is_missing(error: &Error) -> bool {
    let text = causes(error);
    matches!(error, Error::NotFound { .. }) && !NO_BUCKET.iter().any(|code| text.contains(code))
}

/// The first error of that type among the causes.
fn find<E: StdError + 'static>(error: &Error) -> Option<&E> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty;

    fn generic(text: &str) -> Error {
        Error::Generic {
            store: "S3",
            source: text.into(),
        }
    }

    fn answered(status: u16) -> Answer {
        Answer {
            sent: true,
            status: Some(status),
            ..Answer::default()
        }
    }

    fn wire(failure: &Failure) -> WireError {
        let store = Store {
            credential: Some("key".into()),
            ..faulty::store()
        };
        store_error(&store, "read object \"x\"", failure, &[Secret::new("hush")])
    }

    #[test]
    fn what_may_pass_is_told_from_what_stays() {
        for (failure, transient) in [
            (Failure::new(faulty::reset(), Answer::default()), true),
            (Failure::new(faulty::reset(), answered(404)), true),
            (Failure::new(generic("x"), answered(503)), true),
            (Failure::new(generic("x"), answered(429)), true),
            (
                Failure::new(generic("<Code>RequestTimeout</Code>"), answered(400)),
                true,
            ),
            (
                Failure::new(generic("x (code: SlowDown)"), Answer::default()),
                true,
            ),
            (
                Failure::late(Duration::from_secs(1), Answer::default()),
                true,
            ),
            (
                Failure::new(generic("<Code>BadDigest</Code>"), answered(400)),
                true,
            ),
            (
                Failure::new(Problem::Altered.into(), Answer::default()),
                true,
            ),
            (Failure::new(generic("x"), answered(501)), false),
            (Failure::new(generic("x"), answered(400)), false),
            (Failure::new(generic("x"), Answer::default()), false),
            (
                Failure::new(Problem::TooLong { expected: 1 }.into(), Answer::default()),
                true,
            ),
            (
                Failure::new(
                    Problem::Short {
                        size: 1,
                        expected: 2,
                    }
                    .into(),
                    Answer::default(),
                ),
                false,
            ),
        ] {
            assert_eq!(failure.is_transient(), transient, "{failure:?}");
        }
    }

    #[test]
    fn users_are_told_what_to_do() {
        let login = Answer {
            login: true,
            ..answered(400)
        };
        for (failure, code, hint) in [
            (
                Failure::new(
                    generic("<Error><Code>NoSuchBucket</Code></Error>"),
                    answered(404),
                ),
                ErrorCode::InvalidConfiguration,
                "bucket",
            ),
            (
                Failure::new(generic("x"), answered(403)),
                ErrorCode::StoreDenied,
                "entry \"key\"",
            ),
            (
                Failure::new(generic("x"), login),
                ErrorCode::StoreDenied,
                "entry \"key\"",
            ),
            (
                Failure::new(generic("no token file"), Answer::default()),
                ErrorCode::StoreDenied,
                "entry \"key\"",
            ),
            (
                Failure::new(generic("x"), answered(301)),
                ErrorCode::InvalidConfiguration,
                "region",
            ),
            (
                Failure::new(generic("x"), answered(503)),
                ErrorCode::StoreUnavailable,
                "timeout",
            ),
            (
                Failure::new(generic("<Code>Md5Mismatch</Code>"), answered(400)),
                ErrorCode::StoreUnavailable,
                "arrive",
            ),
            (
                Failure::new(Problem::Altered.into(), Answer::default()),
                ErrorCode::StoreUnavailable,
                "arrive",
            ),
            (
                Failure::new(generic("x"), answered(501)),
                ErrorCode::Unsupported,
                "s3://lake",
            ),
        ] {
            let error = wire(&failure);
            assert_eq!(error.code, code, "{error:?}");
            assert!(
                error.hint.as_ref().is_some_and(|h| h.contains(hint)),
                "{error:?}"
            );
        }
        let missing = Error::NotFound {
            path: "k".into(),
            source: "404".into(),
        };
        let error = wire(&Failure::new(missing, answered(404)));
        assert_eq!(error.code, ErrorCode::MissingFile);
        assert_eq!(error.message, "could not read object \"x\"");
    }

    #[test]
    fn no_secret_gets_into_an_error() {
        for text in [
            "GET https://host/k?X-Amz-Signature=hidden failed",
            "the key hush is wrong",
            "<Error><Code>C</Code><StringToSign>hidden</StringToSign></Error>",
        ] {
            let error = wire(&Failure::new(generic(text), answered(403)));
            let shown = format!("{error:?}");
            assert!(
                !shown.contains("hush") && !shown.contains("hidden"),
                "{shown}"
            );
        }
    }
}
