//! What every storage must do, as tests: `conformance!(storage)` runs all of them against one.
//!
//! Each test gets a fresh, empty storage. What only one kind of storage can do is tested beside it.

use std::ops::Deref;

use bytes::Bytes;

use crate::storage::{Error, Key, Overwrite, Storage};

/// A storage together with what must live as long as it does (its directory).
pub(crate) struct Guarded<S> {
    storage: S,
    _guard: Box<dyn std::any::Any + Send + Sync>,
}

impl<S> Guarded<S> {
    /// Keeps `guard` until the storage is dropped.
    pub(crate) fn new(storage: S, guard: impl std::any::Any + Send + Sync) -> Guarded<S> {
        Guarded { storage, _guard: Box::new(guard) }
    }
}

impl<S> Deref for Guarded<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.storage
    }
}

/// Makes one test of each function of this module. The expression is evaluated in a module below the caller's.
macro_rules! conformance {
    ($storage:expr) => {
        mod conformance {
            crate::storage::suite::conformance!(
                $storage =>
                stores_and_returns_bytes
                returns_exactly_the_range_asked_for
                tells_what_is_not_there
                refuses_to_overwrite
                overwrites_where_allowed
                keeps_an_empty_object
                takes_every_character_a_key_may_have
                lists_by_prefix_in_key_order
                lists_more_than_a_page
                lists_folders
                an_empty_place_has_an_empty_listing
                removing_twice_is_no_error
                returns_no_more_than_the_limit
                a_writer_shows_nothing_before_its_end
                a_dropped_writer_leaves_nothing
                of_many_writers_of_one_key_exactly_one_wins
                knows_when_an_object_was_written
            );
        }
    };
    ($storage:expr => $($name:ident)*) => {$(
        #[test]
        fn $name() {
            let storage = $storage;
            crate::storage::suite::$name(&*storage);
        }
    )*};
}
pub(crate) use conformance;

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

/// Bytes that differ from place to place.
pub(crate) fn content(length: usize) -> Bytes {
    (0..length).map(|n| u8::try_from(n * 31 / 7 % 251).unwrap()).collect::<Vec<_>>().into()
}

fn names(objects: &[crate::storage::Object]) -> Vec<&str> {
    objects.iter().map(|object| object.key.as_str()).collect()
}

pub(super) fn stores_and_returns_bytes(storage: &dyn Storage) {
    let bytes = content(300_000);
    storage.put(&key("a/b"), bytes.clone(), Overwrite::Refuse).unwrap();
    let object = storage.head(&key("a/b")).unwrap();
    assert_eq!((object.key.as_str(), object.size), ("a/b", 300_000));
    if let Some(md5) = object.md5 {
        use md5::{Digest as _, Md5};
        let expected =
            Md5::digest(&bytes).iter().fold(String::new(), |hex, b| format!("{hex}{b:02x}"));
        assert_eq!(md5, expected);
    }
    assert_eq!(storage.get(&key("a/b"), 300_000).unwrap(), bytes);
}

pub(super) fn returns_exactly_the_range_asked_for(storage: &dyn Storage) {
    let bytes = content(1000);
    storage.put(&key("a"), bytes.clone(), Overwrite::Refuse).unwrap();
    let check = |offset: usize, length: usize| {
        let got = storage.get_range(&key("a"), offset as u64, length as u64).unwrap();
        assert_eq!(got, bytes.slice(offset..offset + length), "{length} from {offset}");
    };
    check(0, 1000);
    check(0, 1);
    check(1, 1);
    check(999, 1);
    check(500, 500);
    check(1000, 0);
    assert_eq!(storage.get_range(&key("not-there"), 0, 0).unwrap(), Bytes::new());
    for (offset, length) in [(0, 1001), (999, 2), (1000, 1), (5000, 10), (1, u64::MAX)] {
        let got = storage.get_range(&key("a"), offset, length);
        assert!(matches!(got, Err(Error::Corrupt { .. })), "{length} from {offset}: {got:?}");
    }
}

pub(super) fn tells_what_is_not_there(storage: &dyn Storage) {
    storage.put(&key("a/b/c"), content(10), Overwrite::Refuse).unwrap();
    for path in ["x", "a", "a/b", "a/x", "a/b/c/d"] {
        let key = key(path);
        assert!(matches!(storage.head(&key), Err(Error::NotFound { .. })), "head {path}");
        let got = storage.get_range(&key, 0, 10);
        assert!(matches!(got, Err(Error::NotFound { .. })), "get_range {path}: {got:?}");
        let error = storage.get(&key, 10).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "get {path}");
        assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
    }
}

pub(super) fn refuses_to_overwrite(storage: &dyn Storage) {
    storage.put(&key("a/b"), content(10), Overwrite::Refuse).unwrap();
    let error = storage.put(&key("a/b"), content(20), Overwrite::Refuse).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error:?}");
    // The same bytes are no exception: who wrote them is not known.
    let error = storage.put(&key("a/b"), content(10), Overwrite::Refuse).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error:?}");
    assert_eq!(storage.get(&key("a/b"), 100).unwrap(), content(10));
    assert_eq!(names(&storage.list("").unwrap()), ["a/b"]);
}

pub(super) fn overwrites_where_allowed(storage: &dyn Storage) {
    for length in [10, 20, 5] {
        storage.put(&key("a/lease"), content(length), Overwrite::Allow).unwrap();
        assert_eq!(storage.get(&key("a/lease"), 100).unwrap(), content(length));
    }
    assert_eq!(names(&storage.list("").unwrap()), ["a/lease"]);
}

pub(super) fn keeps_an_empty_object(storage: &dyn Storage) {
    storage.put(&key("a/empty"), Bytes::new(), Overwrite::Refuse).unwrap();
    assert_eq!(storage.head(&key("a/empty")).unwrap().size, 0);
    assert_eq!(storage.get(&key("a/empty"), 0).unwrap(), Bytes::new());
    assert_eq!(names(&storage.list("a/").unwrap()), ["a/empty"]);
    let got = storage.get_range(&key("a/empty"), 0, 1);
    assert!(matches!(got, Err(Error::Corrupt { .. })), "{got:?}");
}

pub(super) fn takes_every_character_a_key_may_have(storage: &dyn Storage) {
    let odd =
        ["a+b@c=d%20e", "%2F/..x/.y/-z_", "x.dat.gz.000001", "A/a", "...", "%", "+", "=", "@"];
    for path in odd {
        storage.put(&key(path), Bytes::from(path), Overwrite::Refuse).unwrap();
    }
    for path in odd {
        assert_eq!(storage.get(&key(path), 100).unwrap(), path);
    }
    let mut sorted = odd.to_vec();
    sorted.sort_unstable();
    assert_eq!(names(&storage.list("").unwrap()), sorted);
    assert_eq!(names(&storage.list("a+b@c=d%").unwrap()), ["a+b@c=d%20e"]);
    assert_eq!(storage.list_folders("%2F/").unwrap(), ["..x"]);
    for path in odd {
        storage.remove(&key(path)).unwrap();
    }
    assert_eq!(storage.list("").unwrap(), []);
}

pub(super) fn lists_by_prefix_in_key_order(storage: &dyn Storage) {
    for path in ["b/2", "a/x/1", "b/10", "a-b", "a/y", "a.b", "b2"] {
        storage.put(&key(path), Bytes::from(path), Overwrite::Refuse).unwrap();
    }
    let check = |prefix: &str, expected: &[&str]| {
        let objects = storage.list(prefix).unwrap();
        assert_eq!(names(&objects), expected, "{prefix}");
        assert!(objects.iter().all(|o| o.size == o.key.as_str().len() as u64));
    };
    check("", &["a-b", "a.b", "a/x/1", "a/y", "b/10", "b/2", "b2"]);
    check("a", &["a-b", "a.b", "a/x/1", "a/y"]);
    check("a/", &["a/x/1", "a/y"]);
    check("a/x", &["a/x/1"]);
    check("a/x/1", &["a/x/1"]);
    check("b", &["b/10", "b/2", "b2"]);
    check("b/", &["b/10", "b/2"]);
    check("b/1", &["b/10"]);
    check("c", &[]);
    check("c/", &[]);
    check("b/2/", &[]);
}

/// S3 implementations are given a page size below this.
pub(super) fn lists_more_than_a_page(storage: &dyn Storage) {
    let expected: Vec<_> = (0..25).map(|n| format!("a/{n:03}/x")).collect();
    for path in expected.iter().rev() {
        storage.put(&key(path), Bytes::new(), Overwrite::Refuse).unwrap();
    }
    assert_eq!(names(&storage.list("").unwrap()), expected);
    assert_eq!(storage.list_folders("a/").unwrap().len(), 25);
}

pub(super) fn lists_folders(storage: &dyn Storage) {
    for path in ["b/x/1", "a/1", "a/2", "c", "b/y", "b-c/z"] {
        storage.put(&key(path), Bytes::new(), Overwrite::Refuse).unwrap();
    }
    assert_eq!(storage.list_folders("").unwrap(), ["a", "b", "b-c"]);
    assert_eq!(storage.list_folders("b/").unwrap(), ["x"]);
    assert_eq!(storage.list_folders("a/").unwrap(), Vec::<String>::new());
    assert_eq!(storage.list_folders("d/").unwrap(), Vec::<String>::new());
    storage.remove(&key("a/1")).unwrap();
    storage.remove(&key("a/2")).unwrap();
    assert_eq!(storage.list_folders("").unwrap(), ["b", "b-c"]);
}

pub(super) fn an_empty_place_has_an_empty_listing(storage: &dyn Storage) {
    assert_eq!(storage.list("").unwrap(), []);
    assert_eq!(storage.list("a/b").unwrap(), []);
    assert_eq!(storage.list_folders("").unwrap(), Vec::<String>::new());
    assert!(matches!(storage.head(&key("a")), Err(Error::NotFound { .. })));
    storage.remove(&key("a/b")).unwrap();
}

pub(super) fn removing_twice_is_no_error(storage: &dyn Storage) {
    storage.put(&key("a/b"), content(1), Overwrite::Refuse).unwrap();
    storage.put(&key("a/c"), content(1), Overwrite::Refuse).unwrap();
    storage.remove(&key("a/b")).unwrap();
    storage.remove(&key("a/b")).unwrap();
    storage.remove(&key("a")).unwrap();
    assert_eq!(names(&storage.list("").unwrap()), ["a/c"]);
    storage.put(&key("a/b"), content(2), Overwrite::Refuse).unwrap();
    assert_eq!(storage.head(&key("a/b")).unwrap().size, 2);
}

pub(super) fn returns_no_more_than_the_limit(storage: &dyn Storage) {
    storage.put(&key("a"), content(11), Overwrite::Refuse).unwrap();
    let got = storage.get(&key("a"), 10);
    assert!(matches!(got, Err(Error::Corrupt { .. })), "{got:?}");
    assert_eq!(storage.get(&key("a"), 11).unwrap(), content(11));
}

pub(super) fn a_writer_shows_nothing_before_its_end(storage: &dyn Storage) {
    let Some(mut writer) = storage.create(&key("a/b")).unwrap() else { return };
    let bytes = content(200_000);
    for piece in bytes.chunks(7001) {
        writer.append(piece).unwrap();
        assert!(matches!(storage.head(&key("a/b")), Err(Error::NotFound { .. })));
    }
    writer.finish().unwrap();
    assert_eq!(storage.get(&key("a/b"), 200_000).unwrap(), bytes);
    assert_eq!(names(&storage.list("").unwrap()), ["a/b"]);
    let again = storage.create(&key("a/b"));
    assert!(matches!(again.err(), Some(Error::Exists { .. })));
}

pub(super) fn a_dropped_writer_leaves_nothing(storage: &dyn Storage) {
    let Some(mut writer) = storage.create(&key("a/b")).unwrap() else { return };
    writer.append(&content(100)).unwrap();
    drop(writer);
    assert_eq!(storage.list("").unwrap(), []);
}

pub(super) fn of_many_writers_of_one_key_exactly_one_wins(storage: &dyn Storage) {
    for round in 0..3 {
        let key = key(&format!("a/{round}"));
        let results: Vec<_> = std::thread::scope(|scope| {
            let start = |n: usize| {
                let key = &key;
                scope.spawn(move || {
                    storage.put(key, content(1000 + n), Overwrite::Refuse).map(|()| n)
                })
            };
            let threads: Vec<_> = (0..8).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let lost = |r: &&Result<usize, Error>| matches!(r, Err(Error::Exists { .. }));
        assert_eq!(results.iter().filter(lost).count(), 7, "{results:?}");
        assert_eq!(storage.get(&key, 2000).unwrap(), content(1000 + winners[0]));
    }
}

pub(super) fn knows_when_an_object_was_written(storage: &dyn Storage) {
    storage.put(&key("a"), content(1), Overwrite::Refuse).unwrap();
    let now = crate::clock::now();
    for object in [storage.head(&key("a")).unwrap(), storage.list("").unwrap().remove(0)] {
        let age = now - object.modified_at;
        assert!(age.num_seconds().abs() < 60, "{age}");
    }
}
