//! Encryption of artifacts with age (age-encryption.org/v1), for recipients whose private key is not here.
//!
//! Each encrypted object is a valid age file by itself: `age -d -i key.txt` reads it. Whoever makes
//! backups needs only public keys; identities are needed to verify and to restore.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A recipient is not an age public key.
    #[error("`{0}` is not an age recipient (age1…): {1}")]
    Recipient(String, String),
    /// The identity file cannot be used.
    #[error("failed to read the age identities in `{0}`")]
    Identities(String, #[source] anyhow::Error),
    /// Encryption failed.
    #[error("failed to encrypt")]
    Encrypt(#[source] anyhow::Error),
    /// No identity fits any of the recipients.
    #[error("no identity that was given fits")]
    NoIdentity,
    /// The bytes are not what was encrypted.
    #[error("failed to decrypt")]
    Decrypt(#[source] anyhow::Error),
}

/// Public keys to encrypt for.
#[derive(Clone)]
pub(crate) struct Recipients(Vec<age::x25519::Recipient>);

impl Recipients {
    /// Parses `age1…` recipients; `None` if there are none.
    pub(crate) fn parse(recipients: &[String]) -> Result<Option<Recipients>, Error> {
        let parse = |text: &String| {
            text.parse::<age::x25519::Recipient>()
                .map_err(|e| Error::Recipient(text.clone(), e.to_owned()))
        };
        let parsed = recipients.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        Ok((!parsed.is_empty()).then_some(Recipients(parsed)))
    }

    /// Returns the recipients as text, for the manifest.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Adds a key that is made here, and returns what decrypts with it: what was just encrypted can be read back, until it is dropped.
    pub(crate) fn with_own(mut self) -> (Recipients, Identities) {
        let own = age::x25519::Identity::generate();
        self.0.push(own.to_public());
        (self, Identities(vec![Box::new(own)]))
    }

    /// Begins one age file whose content comes piece by piece.
    pub(crate) fn stream(&self) -> Result<Stream, Error> {
        let recipients = self.0.iter().map(|r| r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients);
        let encryptor = encryptor.map_err(|e| Error::Encrypt(e.into()))?;
        let sealed = Sealed::default();
        let writer = encryptor.wrap_output(sealed.clone()).map_err(|e| Error::Encrypt(e.into()))?;
        Ok(Stream { writer, sealed })
    }

    /// Encrypts `plain` into one age file.
    pub(crate) fn encrypt(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let recipients = self.0.iter().map(|r| r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients);
        let encryptor = encryptor.map_err(|e| Error::Encrypt(e.into()))?;
        let write = || -> std::io::Result<Vec<u8>> {
            let mut writer = encryptor
                .wrap_output(Vec::with_capacity(plain.len() + plain.len() / 1024 + 1024))?;
            writer.write_all(plain)?;
            writer.finish()
        };
        write().map_err(|e| Error::Encrypt(e.into()))
    }
}

/// One age file in the making.
pub(crate) struct Stream {
    writer: age::stream::StreamWriter<Sealed>,
    sealed: Sealed,
}

impl Stream {
    /// Encrypts some more; returns what is ready of the file.
    pub(crate) fn push(&mut self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        self.writer.write_all(plain).map_err(|e| Error::Encrypt(e.into()))?;
        Ok(self.sealed.take())
    }

    /// Returns the end of the file.
    pub(crate) fn end(self) -> Result<Vec<u8>, Error> {
        self.writer.finish().map_err(|e| Error::Encrypt(e.into()))?;
        Ok(self.sealed.take())
    }
}

/// What is ready, until it is taken.
#[derive(Clone, Default)]
struct Sealed(Arc<Mutex<Vec<u8>>>);

impl Sealed {
    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Private keys to decrypt with.
pub(crate) struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// Reads an identity file as `age-keygen` writes it.
    pub(crate) fn read(path: &Path) -> Result<Identities, Error> {
        let failed = |e: anyhow::Error| Error::Identities(path.display().to_string(), e);
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.into()))?;
        let mut identities: Vec<Box<dyn age::Identity + Send + Sync>> = Vec::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let identity = line.parse::<age::x25519::Identity>();
            // The line is a private key, or meant to be one: it must not be in the message.
            identities.push(Box::new(
                identity.map_err(|e| failed(anyhow::anyhow!("a line is no identity: {e}")))?,
            ));
        }
        if identities.is_empty() {
            return Err(failed(anyhow::anyhow!("there is none in it")));
        }
        Ok(Identities(identities))
    }

    /// Puts these and others together.
    pub(crate) fn and(mut self, more: Identities) -> Identities {
        self.0.extend(more.0);
        self
    }

    /// Decrypts an age file as it is read; a cut or changed one is an error of the reader.
    pub(crate) fn reader<R: Read>(&self, stored: R) -> Result<age::stream::StreamReader<R>, Error> {
        let decryptor = age::Decryptor::new(stored).map_err(|e| Error::Decrypt(e.into()))?;
        let identities = self.0.iter().map(|i| &**i as &dyn age::Identity);
        decryptor.decrypt(identities).map_err(|e| match e {
            age::DecryptError::NoMatchingKeys => Error::NoIdentity,
            other => Error::Decrypt(other.into()),
        })
    }

    /// Decrypts one whole age file; a cut or changed one is an error.
    pub(crate) fn decrypt(&self, stored: &[u8]) -> Result<Vec<u8>, Error> {
        let mut reader = self.reader(stored)?;
        let mut plain = Vec::with_capacity(stored.len());
        reader.read_to_end(&mut plain).map_err(|e| Error::Decrypt(e.into()))?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_identity_reads_it_and_only_whole() {
        let (key, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let recipients = Recipients::parse(&[key.to_public().to_string()]).unwrap().unwrap();
        let plain = vec![5; 200_000];
        let stored = recipients.encrypt(&plain).unwrap();
        let identities = |i: age::x25519::Identity| Identities(vec![Box::new(i)]);
        assert_eq!(identities(key.clone()).decrypt(&stored).unwrap(), plain);
        assert!(matches!(identities(other).decrypt(&stored), Err(Error::NoIdentity)));
        assert!(identities(key).decrypt(&stored[..stored.len() - 1]).is_err());
    }

    #[test]
    fn what_comes_piece_by_piece_is_one_file_and_the_own_key_reads_it_too() {
        let key = age::x25519::Identity::generate();
        let recipients = Recipients::parse(&[key.to_public().to_string()]).unwrap().unwrap();
        let (recipients, own) = recipients.with_own();
        let mut stream = recipients.stream().unwrap();
        let (mut stored, mut plain) = (Vec::new(), Vec::new());
        for n in 0..50_u8 {
            plain.extend_from_slice(&[n; 7777]);
            stored.extend(stream.push(&[n; 7777]).unwrap());
        }
        stored.extend(stream.end().unwrap());
        for identities in [own, Identities(vec![Box::new(key)])] {
            assert_eq!(identities.decrypt(&stored).unwrap(), plain);
        }
    }

    #[test]
    fn a_bad_recipient_is_named() {
        let error = Recipients::parse(&["age1nonsense".to_owned()]).err().unwrap();
        assert!(error.to_string().starts_with("`age1nonsense` is not an age recipient"), "{error}");
    }
}
