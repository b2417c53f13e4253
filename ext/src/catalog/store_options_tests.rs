//! Tests of `store_options`.

use super::*;

fn options(list: &[(&str, &str)]) -> Result<Options, Invalid> {
    let mut options = Options::default();
    for (name, value) in list {
        let Known::Ours(name) = known(name) else {
            panic!("{name} is none of ours");
        };
        options.set(name, value)?;
    }
    Ok(options)
}

fn store(list: &[(&str, &str)]) -> Result<Option<Store>, Invalid> {
    options(list)?.store()
}

const S3: (&str, &str) = ("protocol", "s3");
const NAMED: (&str, &str) = ("bucket", "lake-one");

#[test]
fn options_make_a_store() {
    let made = store(&[
        ("protocol", "S3"),
        NAMED,
        ("prefix", "/a/b=1/"),
        ("region", "eu-central-1"),
        ("endpoint", "http://127.0.0.1:9000/"),
        ("credential", "backup_2"),
    ]);
    let expected = Store {
        protocol: Protocol::S3,
        bucket: "lake-one".into(),
        prefix: "a/b=1".into(),
        account: None,
        region: Some("eu-central-1".into()),
        endpoint: Some("http://127.0.0.1:9000".into()),
        credential: Some("backup_2".into()),
        conditional_put: true,
    };
    assert_eq!(made, Ok(Some(expected)));
    let azure = store(&[("protocol", "azure"), NAMED, ("account", "acme1")]);
    let root = azure.ok().flatten().map(|store| store.root());
    assert_eq!(
        root.as_deref(),
        Some("abfss://lake-one@acme1.dfs.core.windows.net")
    );
    assert_eq!(store(&[]), Ok(None));
}

#[test]
fn what_is_kept_is_read_back() {
    let mut set = options(&[NAMED, S3, ("prefix", "p"), ("conditional_put", "FALSE")])
        .expect("valid options");
    let kept: Vec<_> = set.kept().collect();
    let expected = [
        ("protocol", "'s3'"),
        ("bucket", "'lake-one'"),
        ("prefix", "'p'"),
        ("conditional_put", "'off'"),
    ];
    assert_eq!(kept, expected.map(|(name, value)| (name, value.to_owned())));
    let mut read = Options::default();
    for (name, value) in kept {
        read.keep(name, &value);
    }
    assert_eq!(read.store(), set.store());
    assert!(
        !read
            .store()
            .ok()
            .flatten()
            .is_some_and(|s| s.conditional_put)
    );
    // As somebody may have written them.
    read.keep("bucket", "other");
    assert_eq!(read.get(BUCKET), Some("other"));
    set.reset("conditional_put");
    assert!(
        set.store()
            .ok()
            .flatten()
            .is_some_and(|s| s.conditional_put)
    );
    set.forgo_conditional_put();
    assert_eq!(set.get(CONDITIONAL_PUT), Some("off"));
}

#[test]
fn what_makes_no_store_is_refused() {
    let azure = ("protocol", "azure");
    let cases: [(&[(&str, &str)], &str); 10] = [
        (&[NAMED], "option \"bucket\" needs"),
        (&[("endpoint", "http://h")], "option \"endpoint\" needs"),
        (
            &[("protocol", "ftp"), NAMED],
            "invalid value for option \"protocol\": ftp",
        ),
        (&[S3], "needs the option \"bucket\""),
        (
            &[S3, NAMED, ("account", "acme1")],
            "for protocol \"azure\" only",
        ),
        (&[azure, NAMED], "needs the option \"account\""),
        (
            &[azure, NAMED, ("account", "Acme")],
            "option \"account\": Acme",
        ),
        (
            &[azure, NAMED, ("account", "acme1"), ("region", "west")],
            "for protocol \"s3\" only",
        ),
        (&[S3, NAMED, ("region", "a b")], "option \"region\": a b"),
        (
            &[S3, NAMED, ("conditional_put", "maybe")],
            "\"conditional_put\": maybe",
        ),
    ];
    for (list, message) in cases {
        let error = store(list).expect_err(message).message;
        assert!(error.contains(message), "{error}");
    }
    for bucket in [
        "ab",
        "Lake",
        "-lake",
        "lake.",
        "a..b",
        "a/b",
        "a_b",
        "s3://lake",
        "lake'",
        "",
    ] {
        assert!(store(&[S3, ("bucket", bucket)]).is_err(), "{bucket}");
    }
    assert!(store(&[("protocol", "gcs"), ("bucket", "a_b")]).is_ok());
    assert!(store(&[azure, ("account", "acme1"), ("bucket", "a--b")]).is_err());
    for prefix in [
        "a//b",
        "../a",
        "a/./b",
        "a b",
        "a'b",
        "a?b",
        "é",
        "///",
        &"p".repeat(513),
    ] {
        assert!(store(&[S3, NAMED, ("prefix", prefix)]).is_err(), "{prefix}");
    }
    for prefix in ["", "/", "a", "/a/", "a/b"] {
        assert!(store(&[S3, NAMED, ("prefix", prefix)]).is_ok(), "{prefix}");
    }
}

#[test]
fn endpoints_are_plain_urls() {
    for endpoint in [
        "http://h",
        "https://h.example:9000",
        "http://[::1]:9000",
        "http://127.0.0.1:10000/dev",
    ] {
        assert!(options(&[("endpoint", endpoint)]).is_ok(), "{endpoint}");
    }
    for endpoint in [
        "",
        "h:9000",
        "ftp://h",
        "http://",
        "http:///a",
        "https://h'",
        "https://h/a b",
    ] {
        let error = options(&[("endpoint", endpoint)]).expect_err(endpoint);
        assert_eq!(error.message, "invalid value for option \"endpoint\"");
    }
}

#[test]
fn secrets_are_refused_and_not_shown() {
    for name in [
        "access_key_id",
        "secret_access_key",
        "AWS_SESSION_TOKEN",
        "account_key",
        "sas_token",
        "sas",
        "key",
        "apikey",
        "password",
        "client_secret",
        "service_account_file",
        "credentials",
    ] {
        assert_eq!(known(name), Known::Nobody);
        let error = Invalid::unknown(name);
        assert!(error.secret && error.hint == HINT_SECRET, "{name}");
    }
    for name in ["nonsense", "buckets", "keyspace", "toast"] {
        let error = Invalid::unknown(name);
        assert!(!error.secret, "{name}");
        assert_eq!(error.message, format!("unrecognized parameter \"{name}\""));
    }
    for (name, value) in [
        ("endpoint", "https://me:hunter2@h"),
        ("endpoint", "https://h/c?sig=hunter2"),
        ("credential", "hunter2/+"),
    ] {
        let error = options(&[(name, value)]).expect_err(value);
        assert!(error.secret && !format!("{error:?}").contains("hunter2"));
    }
}

#[test]
fn names_are_told_apart() {
    assert_eq!(known("bucket"), Known::Ours("bucket"));
    assert_eq!(known("random_page_cost"), Known::Postgres);
    for name in NAMES {
        assert!(!is_secret(name), "{name}");
    }
}

#[test]
fn roots_overlap_by_parts() {
    assert!(overlap("s3://lake", "s3://lake"));
    assert!(overlap("s3://lake/a", "s3://lake"));
    assert!(overlap("s3://lake", "s3://lake/a/b"));
    assert!(!overlap("s3://lake/a", "s3://lake/ab"));
    assert!(!overlap("s3://lake", "gs://lake"));
    assert!(is_below("s3://lake/a/1", "s3://lake/a") && !is_below("s3://lake", "s3://lake/a"));
}

#[test]
fn paths_say_where_they_are() {
    let path = "pg_tblspc/16400/PG_17_202406281/5/lake/c0/7/data/x.parquet";
    assert_eq!(place(path), Some((16400, "c0/7/data/x.parquet")));
    assert_eq!(place("pg_tblspc/1/PG/5/lake/c0/7/"), Some((1, "c0/7/")));
    for path in [
        "base/5/lake/c0/7/data/x.parquet",
        "pg_tblspc/16400/PG_17_202406281/5/16401",
        "pg_tblspc/x/PG/5/lake/c0",
        "pg_tblspc/1/PG/5/other/c0",
    ] {
        assert_eq!(place(path), None, "{path}");
    }
}
