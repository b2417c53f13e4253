//! S3 without its request that removes many objects at once.
//!
//! The keys of that are in its body, whose digest not every store looks at. If one is damaged on its way, the object
//! stays, or another one goes, and the answer doesn't tell. A request for a single object has the key in what is signed.

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

const STORE: &str = "S3";
const METHOD: &str = "DELETE";

/// Requests to remove objects that are under way for one batch of them.
const REMOVED_AT_ONCE: usize = 8;

/// The region of a store that has none, as object_store has it.
const DEFAULT_REGION: &str = "us-east-1";

/// Everything but removing is done by object_store's client; that, too, if requests aren't signed in the plain way.
#[derive(Clone, Debug)]
pub(super) struct S3 {
    inner: AmazonS3,
    client: HttpClient,
    region: String,
    request_payer: bool,
    signed: bool,
}

impl S3 {
    pub fn build(builder: AmazonS3Builder, client: HttpClient) -> Result<S3> {
        let is_on = |key: AmazonS3ConfigKey| {
            let value = builder.get_config_value(&key).unwrap_or_default();
            matches!(
                value.to_ascii_lowercase().as_str(),
                "1" | "true" | "on" | "yes" | "y"
            )
        };
        let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
        Ok(S3 {
            client,
            region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            request_payer: is_on(AmazonS3ConfigKey::RequestPayer),
            signed: !is_on(AmazonS3ConfigKey::SkipSignature)
                && !is_on(AmazonS3ConfigKey::S3Express),
            inner: builder.build()?,
        })
    }

    /// Removes one object. That it was missing isn't told.
    async fn remove(&self, path: &Path) -> Result<()> {
        let request = self.signed_removal(path).await?;
        let sent = self.client.execute(request).await;
        let response = sent.map_err(generic)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = response.into_body().bytes().await.map_err(generic)?;
        let refused = Refused {
            status: status.as_u16(),
            body: String::from_utf8_lossy(&body).into_owned(),
        };
        let path = path.to_string();
        Err(match refused.status {
            401 | 403 => Error::PermissionDenied {
                path,
                source: Box::new(refused),
            },
            404 => Error::NotFound {
                path,
                source: Box::new(refused),
            },
            _ => generic(refused),
        })
    }

    async fn signed_removal(&self, path: &Path) -> Result<HttpRequest> {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = METHOD.parse().map_err(generic)?;
        let method = request.method().clone();
        // Of this URL only what is before the query is of use.
        let url = self.inner.signed_url(method, path, Duration::ZERO);
        let mut url = url.await?;
        url.set_query(None);
        *request.uri_mut() = url.as_str().parse().map_err(generic)?;
        let credential = self.inner.credentials().get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region)
            .with_request_payer(self.request_payer)
            .authorize(&mut request, None);
        Ok(request)
    }
}

/// An answer that is no success, as object_store words it.
#[derive(Debug)]
struct Refused {
    status: u16,
    body: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { status, body } = self;
        write!(f, "Server returned non-2xx status code: {status}: {body}")
    }
}

impl StdError for Refused {}

fn generic(error: impl StdError + Send + Sync + 'static) -> Error {
    Error::Generic {
        store: STORE,
        source: Box::new(error),
    }
}

impl fmt::Display for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
impl ObjectStore for S3 {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    /// Has one result for each, in their order.
    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if !self.signed {
            return self.inner.delete_stream(paths);
        }
        let store = self.clone();
        paths
            .map(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    store.remove(&path).await?;
                    Ok(path)
                }
            })
            .buffered(REMOVED_AT_ONCE)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[async_trait]
impl MultipartStore for S3 {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.inner.create_multipart(path).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        index: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.inner.put_part(path, id, index, data).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        self.inner.complete_multipart(path, id, parts).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.inner.abort_multipart(path, id).await
    }
}

#[async_trait]
impl PaginatedListStore for S3 {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        self.inner.list_paginated(prefix, options).await
    }
}
