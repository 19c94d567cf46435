//! How a bucket is reached: the file's details, what the AWS variables add, and where credentials are.
//!
//! For the details the file goes before the AWS variables: these are for all that runs on the machine,
//! and several repositories may lie with several providers. Credentials go by AWS's own order: variables,
//! then a profile, then what the machine itself offers.

use std::path::PathBuf;

use super::resolve::Merge;
use super::section::{At, Section, absolute};
use super::{
    Credentials, ObjectLock, ObjectLockMode, S3, ServerSideEncryption, Source, find, value,
};
use crate::secret::Secret;

/// `[repository.s3]`.
#[derive(Clone, Debug, Default)]
pub(super) struct S3Entry {
    pub(super) endpoint: Option<At<String>>,
    pub(super) region: Option<At<String>>,
    pub(super) path_style: Option<At<bool>>,
    pub(super) storage_class: Option<At<String>>,
    pub(super) object_lock: Option<At<ObjectLockMode>>,
    pub(super) object_lock_days: Option<At<u32>>,
    pub(super) encryption: Option<At<Encryption>>,
    pub(super) kms_key_id: Option<At<String>>,
    pub(super) profile: Option<At<String>>,
    pub(super) credentials_file: Option<At<PathBuf>>,
}

/// The value of `encryption`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    Aes256,
    Kms,
}

impl S3Entry {
    /// Reads the section and says what in it does not go together.
    pub(super) fn read(section: &Section<'_>) -> S3Entry {
        let entry = S3Entry {
            endpoint: section.parsed("endpoint", value::parse_endpoint),
            region: section.parsed("region", value::parse_text),
            path_style: section.boolean("path_style"),
            storage_class: section.parsed("storage_class", value::parse_storage_class),
            object_lock: section.parsed("object_lock", value::parse_lock_mode),
            object_lock_days: section.number("object_lock_days", 1..=36_500),
            encryption: section.parsed("encryption", |text| match text {
                "AES256" => Ok(Encryption::Aes256),
                "aws:kms" => Ok(Encryption::Kms),
                _ => Err(format!("{} is not AES256 or aws:kms", value::quote(text))),
            }),
            kms_key_id: section.parsed("kms_key_id", value::parse_text),
            profile: section.parsed("profile", value::parse_text),
            credentials_file: section.path("credentials_file"),
        };
        let (lock, days) = (section.line_of("object_lock"), section.line_of("object_lock_days"));
        match (lock, days) {
            (Some(line), None) => {
                section.complain(
                    "object_lock",
                    line,
                    "says not for how long: add `object_lock_days`",
                );
            }
            (None, Some(line)) => section.complain(
                "object_lock_days",
                line,
                "says not how: add `object_lock`, governance or compliance",
            ),
            _ => {}
        }
        if let Some(key_id) = &entry.kms_key_id
            && entry.encryption.as_ref().map(|at| at.value) != Some(Encryption::Kms)
        {
            section.complain(
                "kms_key_id",
                key_id.line,
                "goes only with `encryption = \"aws:kms\"`",
            );
        }
        entry
    }
}

impl Merge<'_> {
    /// Puts together how to reach a bucket.
    pub(super) fn s3(
        &mut self,
        key: &str,
        bucket: String,
        prefix: String,
        entry: Option<&S3Entry>,
    ) -> S3 {
        let none = S3Entry::default();
        let entry = entry.unwrap_or(&none);
        let key = format!("{key}.s3");
        let endpoint = self.detail(
            format!("{key}.endpoint"),
            entry.endpoint.as_ref(),
            &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
            value::parse_endpoint,
        );
        let region = self.detail(
            format!("{key}.region"),
            entry.region.as_ref(),
            &["AWS_REGION", "AWS_DEFAULT_REGION"],
            value::parse_text,
        );
        let path_style =
            self.stated_in_file(format!("{key}.path_style"), entry.path_style.as_ref());
        let mode = self.stated_in_file(format!("{key}.object_lock"), entry.object_lock.as_ref());
        let days =
            self.stated_in_file(format!("{key}.object_lock_days"), entry.object_lock_days.as_ref());
        let kms_key_id =
            self.stated_in_file(format!("{key}.kms_key_id"), entry.kms_key_id.as_ref());
        let encryption =
            self.stated_in_file(format!("{key}.encryption"), entry.encryption.as_ref());
        S3 {
            bucket,
            prefix,
            path_style: path_style.unwrap_or(endpoint.is_some()),
            endpoint,
            region: region.unwrap_or_else(|| "us-east-1".to_owned()),
            storage_class: self
                .stated_in_file(format!("{key}.storage_class"), entry.storage_class.as_ref()),
            object_lock: mode.zip(days).map(|(mode, days)| ObjectLock { mode, days }),
            encryption: encryption.map(|encryption| match encryption {
                Encryption::Aes256 => ServerSideEncryption::Aes256,
                Encryption::Kms => ServerSideEncryption::Kms(kms_key_id),
            }),
            credentials: self.credentials(&key, entry),
        }
    }

    fn credentials(&mut self, key: &str, entry: &S3Entry) -> Credentials {
        let key = format!("{key}.credentials");
        let (id, secret) = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        match (self.environment.get(id), self.environment.get(secret)) {
            (Some(access_key), Some(secret_key)) => {
                self.note(key, Source::environment(id));
                Credentials::Keys {
                    access_key: access_key.to_owned(),
                    secret_key: Secret::new(secret_key),
                    session_token: self.environment.get("AWS_SESSION_TOKEN").map(Secret::new),
                }
            }
            (None, None) => self.profile(key, entry),
            (Some(_), None) => {
                self.problem(Source::environment(secret), format!("is missing, while {id} is set"));
                Credentials::Ambient
            }
            (None, Some(_)) => {
                self.problem(Source::environment(id), format!("is missing, while {secret} is set"));
                Credentials::Ambient
            }
        }
    }

    fn profile(&mut self, key: String, entry: &S3Entry) -> Credentials {
        let named = match (&entry.profile, self.environment.get("AWS_PROFILE")) {
            (Some(profile), _) => Some((profile.value.clone(), self.file.source(profile.line))),
            (None, Some(name)) => Some((name.to_owned(), Source::environment("AWS_PROFILE"))),
            (None, None) => None,
        };
        let stated_file = self.credentials_file(entry);
        let path = stated_file.as_ref().map(|(path, _)| path.clone());
        let path = path.or_else(|| Some(self.environment.home()?.join(".aws/credentials")));
        match (named, stated_file, path) {
            (Some((profile, source)), _, Some(file)) => {
                let text = self.read(&file, source.clone());
                if text.is_some_and(|text| !has_profile(&text, &profile)) {
                    let message = format!(
                        "there is no profile {} in `{}`",
                        value::quote(&profile),
                        file.display()
                    );
                    self.problem(source.clone(), message);
                }
                self.note(key, source);
                Credentials::Profile { file, profile }
            }
            (Some((_, source)), _, None) => {
                let message = "without HOME the credentials file is not known: set `credentials_file` or AWS_SHARED_CREDENTIALS_FILE";
                self.problem(source, message);
                Credentials::Ambient
            }
            (None, Some((_, source)), Some(file)) => {
                let profile = "default".to_owned();
                let text = self.read(&file, source.clone());
                if text.is_some_and(|text| !has_profile(&text, &profile)) {
                    let message = format!(
                        "there is no profile `default` in `{}`: set `profile` or AWS_PROFILE",
                        file.display()
                    );
                    self.problem(source.clone(), message);
                }
                self.note(key, source);
                Credentials::Profile { file, profile }
            }
            (None, _, Some(file)) => {
                let text = find::read_text(&file).unwrap_or_default();
                if !has_profile(&text, "default") {
                    return Credentials::Ambient;
                }
                self.note(key, Source::File { path: file.clone(), line: None });
                Credentials::Profile { file, profile: "default".to_owned() }
            }
            (None, _, None) => Credentials::Ambient,
        }
    }

    fn credentials_file(&mut self, entry: &S3Entry) -> Option<(PathBuf, Source)> {
        if let Some(path) = &entry.credentials_file {
            return Some((path.value.clone(), self.file.source(path.line)));
        }
        let variable = "AWS_SHARED_CREDENTIALS_FILE";
        let source = Source::environment(variable);
        match absolute(self.environment.get(variable)?, self.working_directory) {
            Ok(path) => Some((path, source)),
            Err(complaint) => {
                self.problem(source, complaint);
                None
            }
        }
    }

    /// Returns a detail from the file, else from the first of `variables` that is set.
    fn detail<T: Clone>(
        &mut self,
        key: String,
        file: Option<&At<T>>,
        variables: &[&str],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if file.is_some() {
            return self.stated_in_file(key, file);
        }
        let environment = self.environment;
        let (variable, text) =
            variables.iter().find_map(|name| Some((name, environment.get(name)?)))?;
        self.variable(&key, variable, text, parse)
    }

    fn stated_in_file<T: Clone>(&mut self, key: String, file: Option<&At<T>>) -> Option<T> {
        let at = file?;
        self.note(key, self.file.source(at.line));
        Some(at.value.clone())
    }
}

/// Tells whether a shared credentials file has a profile.
fn has_profile(text: &str, profile: &str) -> bool {
    let name =
        |line: &str| Some(line.trim().strip_prefix('[')?.split_once(']')?.0.trim().to_owned());
    text.lines().filter_map(name).any(|name| name == profile)
}
