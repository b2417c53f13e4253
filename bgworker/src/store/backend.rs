//! object_store's clients, set up as a tablespace says.

use super::credentials::{Credential, Secret};
use super::http::Connector;
use super::redact::{causes, redact};
use super::registry::Settings;
use super::s3::S3;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::HttpConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::list::PaginatedListStore;
use object_store::multipart::MultipartStore;
use object_store::{BackoffConfig, ClientOptions, HeaderValue, ObjectStore, RetryConfig};
use pg_lake_plan::message::{ErrorCode, WireError};
use pg_lake_plan::store::{Protocol, Store};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Stores and what is between them close connections that are idle; sooner than they do.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// What a store is asked to do.
pub trait Backend: ObjectStore + MultipartStore + PaginatedListStore {}

impl<T: ObjectStore + MultipartStore + PaginatedListStore> Backend for T {}

/// A client for a store. Sends nothing yet. `InvalidConfiguration` if the tablespace's options or the
/// credential make no sense.
pub(super) fn build(
    store: &Store,
    credential: Option<&Credential>,
    settings: &Settings,
) -> Result<Arc<dyn Backend>, WireError> {
    check(store)?;
    let connector = Connector::new(&store.bucket);
    let built = match store.protocol {
        Protocol::S3 => s3(store, credential, settings, connector),
        Protocol::Gcs => gcs(store, credential, settings, connector)?,
        Protocol::Azure => azure(store, credential, settings, connector),
    };
    built.map_err(|error| {
        let message = format!("could not set up store \"{}\"", store.root());
        let wire = invalid(message);
        match &store.credential {
            // What can't be read of a credential may be in the text.
            Some(name) => wire.hint(format!("Check entry \"{name}\" of lake.credentials_file.")),
            None => wire
                .detail(redact(&causes(&error), &[]))
                .hint("Check the tablespace's options and the server's environment."),
        }
    })
}

fn s3(
    store: &Store,
    credential: Option<&Credential>,
    settings: &Settings,
    connector: impl HttpConnector,
) -> object_store::Result<Arc<dyn Backend>> {
    let mut builder = match credential {
        Some(_) => AmazonS3Builder::new(),
        None => AmazonS3Builder::from_env(),
    };
    let endpoint = store
        .endpoint
        .clone()
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint))
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
    let options = client_options(endpoint.as_deref(), settings);
    let client = connector.connect(&options)?;
    builder = builder
        .with_bucket_name(&store.bucket)
        .with_client_options(options)
        .with_retry(no_retries(settings))
        .with_http_connector(connector)
        // The store compares what it gets with the digest in the signature.
        .with_unsigned_payload(false)
        // Whether to rely on it is decided at each write; the probe has to try it.
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(region) = &store.region {
        builder = builder.with_region(region);
    }
    let hosted = virtual_hosted(endpoint.as_deref(), &store.bucket);
    builder = builder.with_virtual_hosted_style_request(hosted.is_some());
    if let Some(endpoint) = hosted.flatten().or(endpoint) {
        let endpoint = endpoint.trim_end_matches('/');
        // Of the environment's endpoints this is the one that counts.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    builder = match credential {
        Some(Credential::S3Keys {
            id,
            secret,
            session_token,
        }) => {
            let keyed = builder
                .with_access_key_id(id.expose())
                .with_secret_access_key(secret.expose());
            match session_token {
                Some(token) => keyed.with_token(token.expose()),
                None => keyed,
            }
        }
        Some(Credential::S3WebIdentity {
            role_arn,
            token_file,
        }) => builder
            .with_config(AmazonS3ConfigKey::RoleArn, role_arn)
            .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, token_file)
            .with_config(AmazonS3ConfigKey::RoleSessionName, "pg_lake"),
        _ => builder,
    };
    Ok(Arc::new(S3::build(builder, client)?))
}

/// `Some` if buckets have hosts of their own at that endpoint: the endpoint of this one, or `None`
/// for the protocol's own. Not for names with dots, which certificates don't cover.
fn virtual_hosted(endpoint: Option<&str>, bucket: &str) -> Option<Option<String>> {
    if bucket.contains('.') {
        return None;
    }
    let Some(endpoint) = endpoint else {
        return Some(None);
    };
    let (scheme, rest) = endpoint.split_once("://")?;
    let host = rest.trim_end_matches('/');
    let of_amazon = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    if !of_amazon {
        return None;
    }
    let own = format!("{bucket}.");
    Some(Some(if host.starts_with(&own) {
        endpoint.to_owned()
    } else {
        format!("{scheme}://{own}{host}")
    }))
}

/// The outer error is that of the service account's file.
fn gcs(
    store: &Store,
    credential: Option<&Credential>,
    settings: &Settings,
    connector: impl HttpConnector,
) -> Result<object_store::Result<Arc<dyn Backend>>, WireError> {
    let mut builder = match credential {
        Some(_) => GoogleCloudStorageBuilder::new(),
        None => GoogleCloudStorageBuilder::from_env(),
    };
    builder = match credential {
        Some(Credential::GcsKey(key)) => builder.with_service_account_key(key.expose()),
        Some(Credential::GcsFile(path)) => {
            builder.with_service_account_key(read_service_account(path)?.expose())
        }
        _ => builder,
    };
    builder = builder
        .with_bucket_name(&store.bucket)
        .with_client_options(client_options(store.endpoint.as_deref(), settings))
        .with_retry(no_retries(settings))
        .with_http_connector(connector);
    if let Some(endpoint) = &store.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    Ok(builder.build().map(|built| Arc::new(built) as _))
}

/// The key in a service account's file.
pub(super) fn read_service_account(path: &str) -> Result<Secret, WireError> {
    std::fs::read_to_string(path)
        .map(Secret::new)
        .map_err(|error| {
            invalid(format!(
                "could not read service account file \"{path}\": {error}"
            ))
            .hint("Check service_account_file in lake.credentials_file.")
        })
}

fn azure(
    store: &Store,
    credential: Option<&Credential>,
    settings: &Settings,
    connector: Connector,
) -> object_store::Result<Arc<dyn Backend>> {
    let mut builder = match credential {
        Some(_) => MicrosoftAzureBuilder::new(),
        None => MicrosoftAzureBuilder::from_env(),
    };
    let endpoint = store
        .endpoint
        .clone()
        .or_else(|| builder.get_config_value(&AzureConfigKey::Endpoint));
    let key = match credential {
        Some(Credential::AzureKey(key)) => Some(key.expose().to_owned()),
        Some(_) => None,
        None => builder.get_config_value(&AzureConfigKey::AccessKey),
    };
    let connector = match (&store.account, key) {
        (Some(account), Some(key)) => connector.with_shared_key(account, &key),
        _ => connector,
    };
    builder = builder
        .with_container_name(&store.bucket)
        .with_client_options(client_options(endpoint.as_deref(), settings))
        .with_retry(no_retries(settings))
        .with_http_connector(connector);
    if let Some(account) = &store.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    builder = match credential {
        Some(Credential::AzureKey(key)) => builder.with_access_key(key.expose()),
        Some(Credential::AzureSas(token)) => {
            builder.with_config(AzureConfigKey::SasKey, token.expose())
        }
        Some(Credential::AzureClientSecret {
            client_id,
            tenant_id,
            secret,
        }) => builder.with_client_secret_authorization(client_id, secret.expose(), tenant_id),
        Some(Credential::AzureFederated {
            client_id,
            tenant_id,
            token_file,
        }) => builder
            .with_client_id(client_id)
            .with_tenant_id(tenant_id)
            .with_federated_token_file(token_file),
        _ => builder,
    };
    Ok(Arc::new(builder.build()?))
}

fn client_options(endpoint: Option<&str>, settings: &Settings) -> ClientOptions {
    ClientOptions::new()
        .with_user_agent(HeaderValue::from_static(concat!(
            "pg_lake/",
            env!("CARGO_PKG_VERSION")
        )))
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
        .with_connect_timeout(CONNECT_TIMEOUT.min(settings.timeout / 4))
        .with_timeout(settings.timeout)
        .with_pool_idle_timeout(POOL_IDLE)
        .with_pool_max_idle_per_host(settings.connections.max(1))
}

/// Attempts are ours to repeat.
fn no_retries(settings: &Settings) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: settings.timeout,
    }
}

/// Refuses names and endpoints that can't be parts of URLs; object_store takes for granted that they are.
fn check(store: &Store) -> Result<(), WireError> {
    let names = [
        ("bucket", Some(&store.bucket)),
        ("account", store.account.as_ref()),
        ("region", store.region.as_ref()),
    ];
    for (option, name) in names {
        let valid = |name: &String| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.$".contains(c))
        };
        if !name.is_none_or(valid) {
            return Err(
                invalid(format!("option {option} of the tablespace is not valid"))
                    .hint("It has letters, digits, dots, hyphens and underscores."),
            );
        }
    }
    if store.protocol == Protocol::Azure && store.account.is_none() {
        return Err(invalid("the tablespace has no option account".into())
            .hint("Set it to the name of the storage account."));
    }
    match &store.endpoint {
        Some(endpoint) if !is_endpoint(endpoint) => Err(invalid(
            "option endpoint of the tablespace is not the URL of a store".into(),
        )
        .hint("Write it as \"https://host:port\".")),
        _ => Ok(()),
    }
}

fn is_endpoint(url: &str) -> bool {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path_is_plain = path
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.~/".contains(c));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    path_is_plain && is_host(host) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// A host as URLs have it: one that ends in a number is an address.
fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let mut labels = host.split('.');
    let valid = labels.all(|label| {
        !label.is_empty()
            && label
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    });
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.starts_with(|c: char| c.is_ascii_digit());
    valid && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

fn invalid(message: String) -> WireError {
    WireError::new(ErrorCode::InvalidConfiguration, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty;

    fn build_with(store: &Store, credential: Option<&Credential>) -> Result<String, WireError> {
        build(store, credential, &faulty::settings()).map(|backend| backend.to_string())
    }

    #[test]
    fn amazon_has_a_host_for_each_bucket() {
        assert_eq!(virtual_hosted(None, "lake"), Some(None));
        assert_eq!(virtual_hosted(None, "my.lake"), None);
        assert_eq!(virtual_hosted(Some("http://127.0.0.1:8333"), "lake"), None);
        let hosted = "https://lake.s3.eu-west-1.amazonaws.com".to_owned();
        for endpoint in ["https://s3.eu-west-1.amazonaws.com/", hosted.as_str()] {
            let own = virtual_hosted(Some(endpoint), "lake");
            assert_eq!(own, Some(Some(hosted.clone())));
        }
    }

    #[test]
    fn endpoints_are_urls_of_hosts() {
        for url in [
            "https://s3.example.com",
            "http://localhost:9000/",
            "http://127.0.0.1:10000/devstoreaccount1",
            "http://[::1]:9000",
        ] {
            assert!(is_endpoint(url), "{url}");
        }
        for url in [
            "s3.example.com",
            "ftp://x",
            "http://",
            "http://999.1.1.1",
            "http://a b",
            "http://h:99999",
            "http://me:hush@h",
            "http://h?x=1",
            "http://[::1",
        ] {
            assert!(!is_endpoint(url), "{url}");
        }
    }

    #[test]
    fn a_client_is_built_for_each_protocol() {
        let keys = Credential::S3Keys {
            id: Secret::new("id"),
            secret: Secret::new("hush"),
            session_token: Some(Secret::new("token")),
        };
        let s3 = faulty::store();
        assert_eq!(build_with(&s3, Some(&keys)), Ok("AmazonS3(lake)".into()));
        let gcs = Store {
            protocol: Protocol::Gcs,
            ..s3.clone()
        };
        let key = Secret::new(
            "{\"gcs_base_url\": \"http://127.0.0.1:1\", \"disable_oauth\": true, \
              \"client_email\": \"\", \"private_key\": \"\", \"private_key_id\": \"\"}",
        );
        let built = build_with(&gcs, Some(&Credential::GcsKey(key)));
        assert_eq!(built, Ok("GoogleCloudStorage(lake)".into()));
        let azure = Store {
            protocol: Protocol::Azure,
            account: Some("acme".into()),
            ..s3.clone()
        };
        let sas = Credential::AzureSas(Secret::new("?sv=1&sig=hush"));
        assert!(build_with(&azure, Some(&sas)).is_ok());
        let error = build_with(
            &Store {
                account: None,
                ..azure
            },
            Some(&sas),
        );
        assert!(error.is_err_and(|e| e.message.contains("account")));
    }

    #[test]
    fn what_cannot_be_a_url_is_refused() {
        for broken in [
            Store {
                bucket: "a/b".into(),
                ..faulty::store()
            },
            Store {
                region: Some("x y".into()),
                ..faulty::store()
            },
            Store {
                endpoint: Some("nowhere".into()),
                ..faulty::store()
            },
        ] {
            let error = build_with(&broken, None).expect_err("refused");
            assert_eq!(error.code, ErrorCode::InvalidConfiguration);
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn a_malformed_credential_is_not_shown() {
        let store = Store {
            protocol: Protocol::Gcs,
            credential: Some("key".into()),
            ..faulty::store()
        };
        let key = Credential::GcsKey(Secret::new("{\"private_key\": hush"));
        let error = build_with(&store, Some(&key)).expect_err("malformed");
        assert_eq!(error.code, ErrorCode::InvalidConfiguration);
        assert!(!format!("{error:?}").contains("hush"), "{error:?}");
        let missing = Credential::GcsFile("/missing/key.json".into());
        let error = build_with(&store, Some(&missing)).expect_err("missing");
        assert!(error.message.contains("/missing/key.json"));
    }
}
