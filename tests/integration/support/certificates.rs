//! Certificates of every kind, made by openssl, and a TLS server that shows them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::stock;

/// An authority in a directory of its own.
pub(crate) struct Authority {
    dir: PathBuf,
}

/// Whom a certificate is for, and from which day on to which, counted from now.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) name: &'a str,
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// May it sign others?
    pub(crate) authority: bool,
}

impl Authority {
    /// Makes one that is valid for ten years.
    pub(crate) fn new(dir: &Path, name: &str) -> Authority {
        let authority = Authority::at(dir, name);
        let (key, file) = (authority.path("ca.key"), authority.path("ca.pem"));
        let make = "req -x509 -days 3650 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
        let subject = format!("/CN={name}");
        openssl(&format!("{make} -keyout {key} -out {file} -subj {subject}"));
        authority
    }

    fn at(dir: &Path, name: &str) -> Authority {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let authority = Authority { dir };
        let place = authority.dir.display();
        let config = format!(
            "[ca]\ndefault_ca = it\n[it]\ndatabase = {place}/index\nnew_certs_dir = {place}\nrand_serial = yes\n\
             default_md = sha256\npolicy = any\nunique_subject = no\n[any]\ncommonName = supplied\n"
        );
        std::fs::write(authority.path("config"), config).unwrap();
        std::fs::write(authority.path("index"), "").unwrap();
        authority
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// Returns the file with its certificate.
    pub(crate) fn file(&self) -> String {
        self.path("ca.pem")
    }

    /// Signs a certificate for a host, and returns the files of it and of its key.
    pub(crate) fn sign(&self, request: Request<'_>) -> (String, String) {
        let Request { name, from, to, authority } = request;
        let stem = format!("{name}-{from}-{to}");
        let [key, csr, pem, extensions] =
            ["key", "csr", "pem", "ext"].map(|kind| self.path(&format!("{stem}.{kind}")));
        let what = if authority {
            "basicConstraints = critical,CA:TRUE\nkeyUsage = keyCertSign\n".to_owned()
        } else {
            format!("basicConstraints = critical,CA:FALSE\nsubjectAltName = DNS:{name}\n")
        };
        std::fs::write(&extensions, what).unwrap();
        let make = "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
        openssl(&format!("{make} -keyout {key} -out {csr} -subj /CN={name}"));
        let day = |days| {
            (chrono::Local::now().to_utc() + chrono::TimeDelta::days(days)).format("%Y%m%d%H%M%SZ")
        };
        let (ca, ca_key, config) = (self.file(), self.path("ca.key"), self.path("config"));
        openssl(&format!(
            "ca -batch -notext -config {config} -cert {ca} -keyfile {ca_key} -in {csr} -out {pem} -extfile {extensions} \
             -startdate {} -enddate {}",
            day(from),
            day(to),
        ));
        (pem, key)
    }

    /// Makes an authority below this one.
    pub(crate) fn intermediate(&self, request: Request<'_>) -> Authority {
        let (pem, key) = self.sign(Request { authority: true, ..request });
        let below = Authority::at(&self.dir, request.name);
        std::fs::copy(pem, below.file()).unwrap();
        std::fs::copy(key, below.path("ca.key")).unwrap();
        below
    }
}

fn openssl(arguments: &str) {
    stock(Command::new("openssl").args(arguments.split_whitespace()));
}

/// Starts a server that shows the certificates of these files, and returns where it is. It ends with the process.
pub(crate) fn serve(certificates: &[&str], key: &str) -> SocketAddr {
    let read = |file: &&str| {
        CertificateDer::pem_file_iter(file).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let chain: Vec<_> = certificates.iter().flat_map(read).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || {
                let mut tls = rustls::Stream::new(&mut connection, &mut stream);
                // The client goes away as soon as it has seen enough.
                tls.read(&mut [0; 1000])
                    .and_then(|_| tls.write_all(b"HTTP/1.1 200 OK\r\n\r\n"))
                    .ok();
            });
        }
    });
    address
}
