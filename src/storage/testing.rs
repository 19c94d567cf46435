//! What tests of the storage need: one real S3 server for the process, a bucket for each test, a proxy.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::child::Spec;
use crate::config;
use crate::secret::Secret;
use crate::stop::Stop;

#[path = "../../tests/integration/support/proxy.rs"]
#[allow(dead_code, reason = "the integration tests, which have it too, use the rest")]
pub(crate) mod proxy;

/// The key and the secret of the server's user.
pub(crate) const ACCESS_KEY: &str = "AKOPSCTLTEST";
pub(crate) const SECRET_KEY: &str = "geheim-opsctl-test-secret";

/// A running RADOS Gateway.
struct Server {
    /// `host:port`.
    address: String,
    /// Lives as long as its stdin, which closes when this process ends.
    _process: Child,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static BUCKETS: AtomicU32 = AtomicU32::new(0);

/// Returns the server's `host:port`; the first caller starts it. A server that is not there fails the test.
pub(crate) fn address() -> &'static str {
    &SERVER.get_or_init(start).address
}

#[expect(clippy::disallowed_methods, reason = "a child of the tests, with a stdin that stays open")]
fn start() -> Server {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/support/rgw.sh");
    let folder = tempfile::Builder::new().prefix("opsctl-rgw-").tempdir().unwrap().keep();
    let mut process = Command::new(script)
        .arg(folder)
        .env("RGW_ACCESS_KEY", ACCESS_KEY)
        .env("RGW_SECRET_KEY", SECRET_KEY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("ready http://");
    let address =
        address.unwrap_or_else(|| panic!("the S3 server did not start: `{line}`")).to_owned();
    Server { address, _process: process }
}

/// Returns the settings for a new bucket.
pub(crate) fn bucket() -> config::S3 {
    create(false)
}

/// Returns the settings for a new bucket that can lock objects. They ask for no lock yet.
pub(crate) fn locking_bucket() -> config::S3 {
    create(true)
}

/// Returns settings for a bucket that may not exist.
pub(crate) fn settings(bucket: &str) -> config::S3 {
    settings_at(address(), bucket)
}

/// Returns settings for a server at another address.
pub(crate) fn settings_at(address: &str, bucket: &str) -> config::S3 {
    config::S3 {
        bucket: bucket.to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(format!("http://{address}")),
        region: "us-east-1".to_owned(),
        path_style: true,
        storage_class: None,
        object_lock: None,
        encryption: None,
        credentials: config::Credentials::Keys {
            access_key: ACCESS_KEY.to_owned(),
            secret_key: Secret::new(SECRET_KEY),
            session_token: None,
        },
    }
}

fn create(can_lock: bool) -> config::S3 {
    let settings = settings(&format!("test-{}", BUCKETS.fetch_add(1, Ordering::Relaxed)));
    super::s3::create_bucket(&settings, can_lock);
    settings
}

/// Stores an object outside of the prefix of `settings`, as somebody else would.
pub(crate) fn put_foreign(settings: &config::S3, path: &str) {
    super::s3::put_foreign(settings, path, &Bytes::from_static(b"foreign"));
}

/// Makes an authority and a certificate for 127.0.0.1 in `folder`; returns the authority's file.
pub(crate) fn tls(folder: &Path) -> (PathBuf, rustls::ServerConfig) {
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
    let (leaf, leaf_key) = (path("leaf.pem"), path("leaf.key"));
    let key = "req -x509 -days 2 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=test";
    let server = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
    for arguments in [
        format!("{key} -keyout {ca_key} -out {ca}"),
        format!("{key} -keyout {leaf_key} -out {leaf} -CA {ca} -CAkey {ca_key} {server}"),
    ] {
        Spec::new("openssl").args(arguments.split(' ')).output(&Stop::new(), 1 << 20).unwrap();
    }
    let chain = CertificateDer::pem_file_iter(&leaf).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&leaf_key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    (ca.into(), config.unwrap())
}
