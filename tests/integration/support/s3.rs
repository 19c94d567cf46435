//! A real S3 server, and what tests do to its objects behind opsctl's back, by curl.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::{Guarded, Sandbox, python, start, stock, unique};

const ACCESS_KEY: &str = "opsctltestkey";
const SECRET_KEY: &str = "opsctl/test+secret";

/// An S3 server.
pub(crate) struct S3 {
    pub(crate) endpoint: String,
    access_key: String,
    secret_key: String,
    _server: Guarded,
}

impl S3 {
    /// Starts a server that has a Glacier.
    pub(crate) fn with_glacier() -> S3 {
        let server = start("moto.sh", &[python("moto").to_str().unwrap()], &[]);
        let [endpoint, access_key, secret_key] = server.ready.clone().try_into().unwrap();
        S3 { endpoint, access_key, secret_key, _server: server }
    }

    /// Returns the server that tests share, started by the first who asks.
    pub(crate) fn shared() -> &'static S3 {
        static SHARED: OnceLock<S3> = OnceLock::new();
        SHARED.get_or_init(|| {
            let dir = format!("/tmp/opsctl-rgw-{}-{}", std::process::id(), unique());
            let keys = [("RGW_ACCESS_KEY", ACCESS_KEY), ("RGW_SECRET_KEY", SECRET_KEY)];
            let server = start("rgw.sh", &[&dir], &keys);
            let (access_key, secret_key) = (ACCESS_KEY.to_owned(), SECRET_KEY.to_owned());
            S3 { endpoint: server.ready[0].clone(), access_key, secret_key, _server: server }
        })
    }

    /// Makes an empty bucket with a fresh name.
    pub(crate) fn bucket(&self) -> String {
        let name = format!("bucket-{}-{}", std::process::id(), unique());
        stock(self.curl(&format!("/{name}")).args(["-X", "PUT"]));
        name
    }

    /// Makes a bucket whose objects can be locked.
    pub(crate) fn bucket_with_lock(&self) -> String {
        let name = format!("locked-{}-{}", std::process::id(), unique());
        stock(self.curl(&format!("/{name}")).args([
            "-X",
            "PUT",
            "-H",
            "x-amz-bucket-object-lock-enabled: true",
        ]));
        name
    }

    /// Returns the environment by which any S3 client finds the server.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    /// Lets opsctl find the server.
    pub(crate) fn set_up(&self, sandbox: &mut Sandbox) {
        for (name, value) in self.environment() {
            sandbox.set(name, value);
        }
    }

    /// Returns a signed request that fails unless it is answered with success.
    pub(crate) fn curl(&self, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
        // Without it curl 7.88 signs another body than it sends.
        command.args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "--user"]);
        command.arg(format!("{}:{}", self.access_key, self.secret_key));
        command.arg(format!("{}{path}", self.endpoint));
        command
    }

    /// Returns the keys of all objects below a prefix.
    pub(crate) fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let query =
            format!("list-type=2&prefix={}", prefix.replace('/', "%2F").replace('=', "%3D"));
        let answer = stock(&mut self.curl(&format!("/{bucket}?{query}")));
        assert!(answer.contains("<IsTruncated>false"), "more objects than a test should make");
        answer
            .split("<Key>")
            .skip(1)
            .map(|rest| rest.split_once("</Key>").unwrap().0.to_owned())
            .collect()
    }

    /// Returns an object's content.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let output = self.curl(&format!("/{bucket}/{key}")).output().unwrap();
        assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stdout));
        output.stdout
    }

    /// Returns an object's headers, in lower case.
    pub(crate) fn head(&self, bucket: &str, key: &str) -> String {
        let key = key.replace('=', "%3D");
        stock(self.curl(&format!("/{bucket}/{key}")).arg("--head")).to_lowercase()
    }

    /// Moves an object to another storage class, as a lifecycle rule does.
    pub(crate) fn transition(&self, bucket: &str, key: &str, class: &str) {
        let content = self.get(bucket, key);
        self.put_as(bucket, key, &content, &["-H", &format!("x-amz-storage-class: {class}")]);
    }

    /// Writes an object.
    pub(crate) fn put(&self, bucket: &str, key: &str, content: &[u8]) {
        self.put_as(bucket, key, content, &[]);
    }

    fn put_as(&self, bucket: &str, key: &str, content: &[u8], more: &[&str]) {
        let mut command = self.curl(&format!("/{bucket}/{key}"));
        command.args(more);
        command.args([
            "-X",
            "PUT",
            "-H",
            "Content-Type: application/octet-stream",
            "--data-binary",
            "@-",
        ]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{key}: {}", String::from_utf8_lossy(&output.stdout));
    }

    /// Removes an object.
    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        stock(self.curl(&format!("/{bucket}/{key}")).args(["-X", "DELETE"]));
    }
}
