//! Signatures as `ssh-keygen -Y sign` makes them and `ssh-keygen -Y verify` checks them (SSHSIG), with Ed25519.
//!
//! The key is an OpenSSH private key without passphrase: cron has nobody to ask.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Context as _;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey, SshSig};

/// The suffix of a signature's name.
pub(crate) const SUFFIX: &str = ".sig";
/// What is signed for: `-n` of ssh-keygen. A signature made for anything else does not count.
const NAMESPACE: &str = "opsctl-archive";
/// Who signs: `-I` of ssh-keygen.
const IDENTITY: &str = "opsctl";

/// A key that signs.
pub(crate) struct Signer(PrivateKey);

/// Who may have signed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signers(Vec<PublicKey>);

impl Signer {
    /// Reads the key, and refuses one that others can read, that has a passphrase, or that is of another kind.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Signer> {
        let read = || -> anyhow::Result<Signer> {
            let mode = std::fs::metadata(path)?.mode();
            // No bit for the group or others.
            anyhow::ensure!(mode.trailing_zeros() >= 6, "others can read it: chmod 600");
            let key = PrivateKey::from_openssh(std::fs::read(path)?)
                .context("it is no OpenSSH private key: `ssh-keygen -t ed25519 -N ''` makes one")?;
            anyhow::ensure!(
                !key.is_encrypted(),
                "it has a passphrase, and cron has nobody to ask: `ssh-keygen -p` takes it away"
            );
            let is_ed25519 = key.algorithm() == Algorithm::Ed25519;
            anyhow::ensure!(is_ed25519, "it is of type {}, not Ed25519", key.algorithm());
            Ok(Signer(key))
        };
        read().with_context(|| format!("the signing key `{}` cannot be used", path.display()))
    }

    /// Makes a key for tests.
    #[cfg(test)]
    pub(super) fn for_tests() -> Signer {
        Signer(ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]).into())
    }

    /// Signs a manifest; the result is what `ssh-keygen -Y sign` writes.
    pub(crate) fn sign(&self, manifest: &[u8]) -> anyhow::Result<String> {
        let signature = self.0.sign(NAMESPACE, HashAlg::Sha512, manifest);
        signature.and_then(|s| s.to_pem(LineEnding::LF)).context("failed to sign")
    }

    /// Returns the line that `allowed_signers` has for it.
    pub(crate) fn allowed(&self) -> anyhow::Result<String> {
        let mut key = self.0.public_key().clone();
        key.set_comment("");
        let key = key.to_openssh().context("failed to write the public key")?;
        Ok(format!("{IDENTITY} namespaces=\"{NAMESPACE}\" {}\n", key.trim_end()))
    }

    /// Trusts this key alone.
    #[cfg(test)]
    pub(super) fn signers(&self) -> Signers {
        Signers(vec![self.0.public_key().clone()])
    }
}

impl Signers {
    /// Trusts the key that signs, and those of a file as `ssh-keygen -Y verify -f` takes it. Where the private key is not, or is not ours to
    /// read, its public one beside it will do (`.pub`), or that file alone: whoever only reads an archive need not be able to sign.
    pub(crate) fn read(signing_key: &Path, allowed: Option<&Path>) -> anyhow::Result<Signers> {
        let mut keys = Vec::new();
        if File::open(signing_key).is_ok() {
            keys.push(Signer::read(signing_key)?.0.public_key().clone());
        } else {
            let mut public = signing_key.as_os_str().to_owned();
            public.push(".pub");
            if let Ok(text) = std::fs::read_to_string(&public) {
                keys.extend(public_keys(&text).with_context(|| format!("`{}`", public.display()))?);
            } else {
                anyhow::ensure!(
                    allowed.is_some(),
                    "neither the signing key `{}` can be read, nor its `.pub`, and there is no `allowed_signers`: who may have signed?",
                    signing_key.display()
                );
            }
        }
        if let Some(path) = allowed {
            let read = std::fs::read_to_string(path).context("it cannot be read");
            let more = read.and_then(|text| public_keys(&text));
            keys.extend(more.with_context(|| format!("`allowed_signers`: `{}`", path.display()))?);
        }
        Ok(Signers(keys))
    }

    /// Is this a signature of one of them over the manifest?
    pub(crate) fn accept(&self, manifest: &[u8], signature: &[u8]) -> bool {
        let Ok(signature) = SshSig::from_pem(signature) else { return false };
        self.0.iter().any(|key| key.verify(NAMESPACE, manifest, &signature).is_ok())
    }
}

/// Reads the keys of an `allowed_signers` file; options of a line, but for its key, are not looked at.
fn public_keys(text: &str) -> anyhow::Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let start = line.find("ssh-ed25519 ").context("a line has no key of type ssh-ed25519")?;
        keys.push(PublicKey::from_openssh(&line[start..]).context("a line has no key")?);
    }
    Ok(keys)
}
