//! A real mail server, and the mails that it took.

use std::path::{Path, PathBuf};

use super::{Guarded, start, unique};

/// The password of the login `opsctl`.
pub(crate) const PASSWORD: &str = "geheim-8f3a";

/// A mail server of the test's own.
pub(crate) struct Mail {
    dir: tempfile::TempDir,
    pub(crate) port: String,
    _server: Guarded,
}

impl Mail {
    /// Starts a server: `starttls`, `implicit` or `none`, with a certificate and its key where there is TLS.
    pub(crate) fn start(mode: &str, certificate: &[&Path]) -> Mail {
        let dir = tempfile::Builder::new().prefix(&format!("mail-{}-", unique())).tempdir();
        let dir = dir.unwrap();
        let mut args = vec![dir.path().to_str().unwrap(), mode];
        args.extend(certificate.iter().map(|path| path.to_str().unwrap()));
        let server = start("mail.py", &args, &[("MAILTEST_PASSWORD", PASSWORD)]);
        Mail { port: server.ready[0].clone(), dir, _server: server }
    }

    /// Returns the mails that came, in order: the envelope's recipients, then the mail.
    pub(crate) fn mails(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().path());
        let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_none()).collect();
        paths.sort();
        paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}
