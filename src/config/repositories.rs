//! Which repositories a run uses: the configured ones, one of them by name, or one given by its location.
//!
//! A location that is not configured must not be less protected than the configured ones: it is encrypted
//! to all their recipients. Nor is it tidied up by a rule made for another place: unless it stands in for
//! the only `[repository]`, everything in it is kept.

use super::file::{Place, RepositoryEntry, parse_place};
use super::resolve::Merge;
use super::{Location, Repository, Source, value};

/// What a repository is put together from.
struct Draft<'e> {
    key: String,
    name: String,
    place: Place,
    source: Source,
    /// Whose recipients and identities apply.
    encryption: Vec<&'e RepositoryEntry>,
    /// Whose retention applies.
    retention: Option<&'e RepositoryEntry>,
    /// Whose S3 details apply.
    s3: Option<&'e RepositoryEntry>,
}

impl<'a> Merge<'a> {
    /// Returns the repositories that the run uses.
    pub(super) fn repositories(&mut self) -> Vec<Repository> {
        let environment = self.environment.get("OPSCTL_REPOSITORY");
        let drafts = match (&self.overrides.repository, environment) {
            (Some(text), _) => self.stated(text, &Source::flag("--repository")),
            (None, Some(text)) => self.stated(text, &Source::environment("OPSCTL_REPOSITORY")),
            (None, None) => self.configured(),
        };
        drafts.into_iter().map(|draft| self.repository(draft)).collect()
    }

    fn configured(&mut self) -> Vec<Draft<'a>> {
        let file = self.file;
        let mut drafts = Vec::new();
        for entry in &file.repositories {
            match &entry.location {
                Some(location) => {
                    let source = file.source(location.line);
                    drafts.push(Draft::of(entry, location.value.clone(), source));
                }
                None => self.problem(
                    file.source(entry.line),
                    format!("[{}] needs `location`, or set OPSCTL_REPOSITORY", entry.key),
                ),
            }
        }
        if file.repositories.is_empty() {
            let place = Place::Directory(self.working_directory.join("backups"));
            drafts.push(Draft::without_entry(place, Source::Default));
        }
        drafts
    }

    /// Understands `--repository` or its variable: a configured name, else a location.
    fn stated(&mut self, text: &str, source: &Source) -> Vec<Draft<'a>> {
        let entries = &self.file.repositories;
        let single = entries.iter().find(|entry| entry.key == "repository");
        let by_name = entries.iter().find(|entry| entry.name == text && entry.location.is_some());
        if let Some((entry, location)) = by_name.and_then(|e| Some((e, e.location.as_ref()?))) {
            return vec![Draft::of(entry, location.value.clone(), self.file.source(location.line))];
        }
        // A mistyped name must not become a new, empty directory.
        if single.is_none() && !entries.is_empty() && value::check_name(text).is_ok() {
            let known: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            let known = known.join(", ");
            let message = format!(
                "no repository `{text}` is configured, only {known}: write `./{text}` for a directory"
            );
            self.problem(source.clone(), message);
            return Vec::new();
        }
        let place = match parse_place(text, self.working_directory) {
            Ok(place) => place,
            Err(complaint) => {
                self.problem(source.clone(), complaint);
                return Vec::new();
            }
        };
        let is_there = |entry: &&RepositoryEntry| {
            entry.location.as_ref().is_some_and(|location| location.value == place)
        };
        if let Some(entry) = entries.iter().find(is_there).or(single) {
            return vec![Draft::of(entry, place, source.clone())];
        }
        let in_same_bucket = |entry: &&RepositoryEntry| match (&entry.location, &place) {
            (Some(location), Place::Bucket { bucket, .. }) => {
                matches!(&location.value, Place::Bucket { bucket: other, .. } if other == bucket)
            }
            _ => false,
        };
        let s3 = entries.iter().find(in_same_bucket);
        let encryption = entries.iter().collect();
        vec![Draft { encryption, s3, ..Draft::without_entry(place, source.clone()) }]
    }

    fn repository(&mut self, draft: Draft<'a>) -> Repository {
        let key = draft.key.as_str();
        self.sources.repositories.push(key.to_owned());
        self.note(format!("{key}.location"), draft.source);
        let retention = draft.retention.map(|entry| {
            for (name, line) in &entry.retention_lines {
                self.note(format!("{key}.retention.{name}"), self.file.source(*line));
            }
            entry.retention
        });
        let mut recipients = Vec::new();
        for entry in &draft.encryption {
            for recipient in self.recipients(key, entry) {
                if !recipients.contains(&recipient) {
                    recipients.push(recipient);
                }
            }
        }
        let identity_file = draft.encryption.iter().find_map(|entry| entry.identity_file.as_ref());
        if let Some(path) = identity_file {
            self.note(format!("{key}.identity_file"), self.file.source(path.line));
        }
        let location = match draft.place {
            Place::Directory(path) => Location::Directory(path),
            Place::Bucket { bucket, prefix } => {
                Location::S3(self.s3(key, bucket, prefix, draft.s3.map(|entry| &entry.s3)))
            }
        };
        Repository {
            name: draft.name,
            location,
            retention: retention.unwrap_or_default(),
            recipients,
            identity_file: identity_file.map(|path| path.value.clone()),
        }
    }

    fn recipients(&mut self, key: &str, entry: &RepositoryEntry) -> Vec<String> {
        let mut recipients = Vec::new();
        if let Some(stated) = &entry.recipients {
            self.note(format!("{key}.recipients"), self.file.source(stated.line));
            recipients.clone_from(&stated.value);
        }
        let Some(path) = &entry.recipients_file else { return recipients };
        let source = self.file.source(path.line);
        let Some(text) = self.read(&path.value, source.clone()) else { return recipients };
        let mut is_empty = true;
        for (number, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            is_empty = false;
            match value::parse_recipient(line) {
                Ok(recipient) => recipients.push(recipient),
                Err(complaint) => {
                    let place = Source::File { path: path.value.clone(), line: Some(number + 1) };
                    self.problem(place, complaint);
                }
            }
        }
        if is_empty {
            let message = format!("there are no recipients in `{}`", path.value.display());
            self.problem(source.clone(), message);
        }
        self.note(format!("{key}.recipients"), source);
        recipients
    }
}

impl<'e> Draft<'e> {
    fn of(entry: &'e RepositoryEntry, place: Place, source: Source) -> Draft<'e> {
        Draft {
            key: entry.key.clone(),
            name: entry.name.clone(),
            place,
            source,
            encryption: vec![entry],
            retention: Some(entry),
            s3: Some(entry),
        }
    }

    fn without_entry(place: Place, source: Source) -> Draft<'e> {
        Draft {
            key: "repository".to_owned(),
            name: "default".to_owned(),
            place,
            source,
            encryption: Vec::new(),
            retention: None,
            s3: None,
        }
    }
}
