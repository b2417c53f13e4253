//! Which stores there are, and what is particular to each.

use super::{BUCKET, Store, ports, secret_file};
use crate::process::Cmd;
use crate::{Result, os};
use std::fs;

pub const REGION: &str = "us-east-1";

/// Somebody whom SeaweedFS knows, with a secret that nothing else looks like.
struct Identity {
    key: &'static str,
    secret: &'static str,
    actions: &'static str,
}

const MAIN: Identity = Identity {
    key: "LAKEMAINKEY000000001",
    secret: "Xq7mainSecret+Vb3/Zr9kTgWn5LpYs2Jd8Hc4Fx",
    actions: "\"Admin\", \"Read\", \"Write\", \"List\", \"Tagging\"",
};
const READER: Identity = Identity {
    key: "LAKEREADKEY000000002",
    secret: "Rk2readSecret+Mw8/Qe6yUiOp1AsDf4Gh7Jk3Lz",
    actions: "\"Read\", \"List\"",
};
/// Nobody's.
const WRONG_SECRET: &str = "Wz5wrongSecret+Nb1/Cv9xKsTr7EqPl3Mo8Uy2Hg";

/// The account that azurite has built in.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    SeaweedFs,
    /// It checks no signatures, so that a proxy may change requests.
    OpenSeaweedFs,
    MiniStack,
    Azurite,
    FakeGcs,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::SeaweedFs => "seaweedfs",
            Kind::OpenSeaweedFs => "seaweedfs-open",
            Kind::MiniStack => "ministack",
            Kind::Azurite => "azurite",
            Kind::FakeGcs => "fake-gcs",
        }
    }

    /// As the tablespace's option has it.
    pub fn protocol(self) -> &'static str {
        match self {
            Kind::SeaweedFs | Kind::OpenSeaweedFs | Kind::MiniStack => "s3",
            Kind::Azurite => "azure",
            Kind::FakeGcs => "gcs",
        }
    }

    /// The first one is for clients.
    pub(super) fn ports(self) -> Result<Vec<u16>> {
        match self {
            Kind::SeaweedFs | Kind::OpenSeaweedFs => ports::free(5, true),
            Kind::MiniStack | Kind::Azurite => ports::free(1, false),
            Kind::FakeGcs => ports::free(2, false),
        }
    }
}

impl Store {
    /// Who may do everything, and the secret of it.
    pub(super) fn login(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::SeaweedFs | Kind::OpenSeaweedFs => (MAIN.key, MAIN.secret),
            Kind::MiniStack => ("test", "test"),
            Kind::Azurite => (ACCOUNT, ACCOUNT_KEY),
            Kind::FakeGcs => ("", ""),
        }
    }

    /// The URL for clients, or that of a proxy on another port.
    pub fn endpoint(&self, port: u16) -> String {
        match self.kind {
            Kind::Azurite => format!("http://127.0.0.1:{port}/{ACCOUNT}"),
            _ => format!("http://127.0.0.1:{port}"),
        }
    }

    /// What `CREATE TABLESPACE` says of it, with the port that the server is to connect to.
    pub fn options(&self, port: u16, prefix: &str, credential: &str) -> String {
        let protocol = self.kind.protocol();
        let endpoint = self.endpoint(port);
        let particular = match protocol {
            "s3" => format!(", region = '{REGION}'"),
            "azure" => format!(", account = '{ACCOUNT}'"),
            _ => String::new(),
        };
        format!(
            "protocol = '{protocol}', bucket = '{BUCKET}', endpoint = '{endpoint}', \
             prefix = '{prefix}', credential = '{credential}'{particular}"
        )
    }

    /// What the locations of objects begin with.
    pub fn root(&self) -> String {
        match self.kind.protocol() {
            "azure" => format!("abfss://{BUCKET}@{ACCOUNT}.dfs.core.windows.net/"),
            "gcs" => format!("gs://{BUCKET}/"),
            _ => format!("s3://{BUCKET}/"),
        }
    }

    /// Sections of a credentials file: `main`; with S3 also `wrong`, whose secret isn't that of its key,
    /// and where the store knows whom it serves also `reader`, who may not write.
    pub fn credentials(&self, port: u16) -> Result<String> {
        let section = |name: &str, key: &str, secret: &str| {
            format!("[{name}]\naccess_key_id = {key}\nsecret_access_key = {secret}\n\n")
        };
        let (user, secret) = self.login();
        match self.kind {
            Kind::Azurite => Ok(format!("[main]\naccount_key = {secret}\n")),
            Kind::FakeGcs => {
                let account = format!(
                    "{{\"gcs_base_url\": \"{}\", \"disable_oauth\": true, \"client_email\": \"\", \
                     \"private_key\": \"\", \"private_key_id\": \"\"}}\n",
                    self.endpoint(port)
                );
                let file = secret_file(self, self.dir.join("service-account.json"), &account)?;
                Ok(format!(
                    "[main]\nservice_account_file = {}\n",
                    file.display()
                ))
            }
            Kind::SeaweedFs => Ok(section("main", user, secret)
                + &section("wrong", user, WRONG_SECRET)
                + &section("reader", READER.key, READER.secret)),
            Kind::OpenSeaweedFs | Kind::MiniStack => {
                Ok(section("main", user, secret) + &section("wrong", user, WRONG_SECRET))
            }
        }
    }

    /// What must never be seen outside of the credentials file.
    pub fn secrets(&self) -> Vec<&'static str> {
        let (_, secret) = self.login();
        vec![secret, READER.secret, WRONG_SECRET]
    }

    /// DuckDB finds Google's and Azure's stores only where these are.
    pub fn is_known_to(&self, reader: &str) -> bool {
        reader != "duckdb" || self.kind.protocol() == "s3"
    }

    /// How readers that are no part of the server find it.
    pub fn reader_env(&self) -> Vec<(&'static str, String)> {
        let (user, secret) = self.login();
        vec![
            ("STORE_PROTOCOL", self.kind.protocol().to_owned()),
            ("STORE_ENDPOINT", self.endpoint(self.port())),
            ("STORE_REGION", REGION.to_owned()),
            ("STORE_USER", user.to_owned()),
            ("STORE_SECRET", secret.to_owned()),
        ]
    }
}

/// The processes of a store, in the order in which they are started.
pub fn commands(store: &Store) -> Result<Vec<Cmd>> {
    let data = store.dir.join("data");
    os::make_dir(&data, store.programs.user())?;
    let port = store.port().to_string();
    match store.kind {
        Kind::SeaweedFs | Kind::OpenSeaweedFs => seaweedfs(store).map(|command| vec![command]),
        Kind::MiniStack => Ok(vec![
            store
                .programs
                .program("ministack")
                .env("BIND_HOST", "127.0.0.1")
                .env("GATEWAY_PORT", port)
                .env("AUTH", "true")
                .env("S3_PERSIST", "1")
                .env("S3_DATA_DIR", data)
                .env("TMPDIR", &store.dir),
        ]),
        Kind::Azurite => Ok(vec![
            store
                .programs
                .azurite()?
                .args(["--blobHost", "127.0.0.1", "--blobPort", &port])
                .args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"])
                .arg("--location")
                .arg(data),
        ]),
        Kind::FakeGcs => {
            let [_, json] = store.ports[..] else {
                return Err("it takes two ports".to_owned());
            };
            let json = json.to_string();
            let here = format!("127.0.0.1:{json}");
            let server = store
                .programs
                .fake_gcs_server()?
                .args(["-scheme", "http", "-host", "127.0.0.1", "-port", &json])
                .args(["-public-host", &here, "-external-url"])
                .arg(format!("http://{here}"))
                .args(["-backend", "filesystem", "-filesystem-root"])
                .arg(data);
            let shim = store.programs.script("gcs_xml_shim.py");
            Ok(vec![server, shim.args([&port, &json])])
        }
    }
}

fn seaweedfs(store: &Store) -> Result<Cmd> {
    let [s3, master, volume, filer, admin] = store.ports[..] else {
        return Err("it takes five ports".to_owned());
    };
    let mut command = store
        .programs
        .program("weed")
        // They would become an identity.
        .unset("AWS_ACCESS_KEY_ID")
        .unset("AWS_SECRET_ACCESS_KEY")
        .unset("S3_BUCKET")
        .args(["-logtostderr=true", "mini"])
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .args(["-master.telemetry=false", "-webdav=false"])
        .args(["-admin.ui=false", "-s3.autoCreateBucket=false"])
        .args(["-s3.port.lance=0", "-s3.port.iceberg=0"])
        .arg(format!("-dir={}", store.dir.join("data").display()))
        .arg(format!("-s3.port={s3}"))
        .arg(format!("-master.port={master}"))
        .arg(format!("-volume.port={volume}"))
        .arg(format!("-filer.port={filer}"))
        .arg(format!("-admin.port={admin}"));
    if store.kind == Kind::SeaweedFs {
        let identity = |identity: &Identity| {
            format!(
                "{{\"name\": \"{0}\", \"actions\": [{2}],\n \
                  \"credentials\": [{{\"accessKey\": \"{0}\", \"secretKey\": \"{1}\"}}]}}",
                identity.key, identity.secret, identity.actions
            )
        };
        let identities = format!(
            "{{\"identities\": [\n{},\n{}\n]}}\n",
            identity(&MAIN),
            identity(&READER)
        );
        let file = secret_file(store, store.dir.join("identities.json"), &identities)?;
        command = command.arg(format!("-s3.config={}", file.display()));
    }
    Ok(command)
}

/// Removes what a store that was killed has left outside of its directory: SeaweedFS has sockets there,
/// which are named after its ports.
pub fn clean_up(store: &Store) {
    if store.kind.protocol() != "s3" {
        return;
    }
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = store.ports.iter().any(|port| {
            [*port, *port + ports::SECOND]
                .iter()
                .any(|port| name.ends_with(&format!("-{port}.sock")))
        });
        if name.starts_with("seaweedfs-") && ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}
