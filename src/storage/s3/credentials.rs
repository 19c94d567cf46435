//! Finding the credentials for a bucket: stated keys, a profile, or what the surroundings offer.
//!
//! An incomplete pair never goes further than this: rust-s3 would send its requests unsigned.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use s3::creds::Credentials;
use s3::creds::error::CredentialsError;

use crate::config;
use crate::secret::Secret;

/// How long one question to a metadata service may take; at most three are asked of one.
const PATIENCE: Duration = Duration::from_secs(4);

/// One way to find credentials without being told any.
type Source = (&'static str, fn() -> Result<Credentials, CredentialsError>);

/// The ways, in the order in which AWS' own tools try them.
const AMBIENT: [Source; 3] = [
    ("web identity", || Credentials::from_sts_env("opsctl")),
    ("container", Credentials::from_container_credentials_provider),
    ("instance metadata", || Credentials::from_instance_metadata_v2(false)),
];

/// Finds credentials. It may ask metadata services, and takes a bounded time for it.
pub(super) fn find(source: &config::Credentials) -> anyhow::Result<Credentials> {
    let credentials = match source {
        config::Credentials::Keys { access_key, secret_key, session_token } => {
            let session_token = session_token.as_ref().map(Secret::reveal);
            // With an access key given, this looks nowhere else.
            Credentials::new(
                Some(access_key),
                Some(secret_key.reveal()),
                None,
                session_token,
                None,
            )?
        }
        config::Credentials::Profile { file, profile } => {
            let found = Credentials::from_credentials_file(file, Some(profile));
            found.with_context(|| {
                format!("no keys of profile `{profile}` in `{}`", file.display())
            })?
        }
        config::Credentials::Ambient => ambient()?,
    };
    let is_missing = |value: &Option<String>| value.as_ref().is_none_or(|v| v.trim().is_empty());
    if is_missing(&credentials.access_key) {
        bail!("the access key is empty");
    }
    if is_missing(&credentials.secret_key) {
        bail!("the secret key is empty");
    }
    Ok(credentials)
}

fn ambient() -> anyhow::Result<Credentials> {
    s3::creds::set_request_timeout(Some(PATIENCE));
    let mut tried = Vec::new();
    for (name, ask) in AMBIENT {
        match ask() {
            Ok(credentials) => return Ok(credentials),
            Err(CredentialsError::Env(_)) => {
                tried.push(format!("{name}: AWS_ROLE_ARN or its token file is not set"));
            }
            Err(error) => tried.push(format!("{name}: {error}")),
        }
    }
    Err(anyhow!("no keys are set and none were found ({})", tried.join("; ")))
}
