//! The S3 storage against a real server, and against one whose answers are spoilt on the way.

use std::path::PathBuf;
use std::time::Instant;

use super::*;
use crate::config::{Credentials, ObjectLock};
use crate::secret::Secret;
use crate::storage::testing::proxy::{Fate, Proxy, Request};
use crate::storage::{suite, testing};

fn key(path: &str) -> Key {
    Key::new(path).unwrap()
}

fn open(settings: &config::S3) -> S3 {
    S3::open(settings, &Stop::new()).unwrap()
}

fn storage() -> suite::Guarded<S3> {
    let storage = S3 { page_size: Some(7), ..open(&testing::bucket()) };
    suite::Guarded::new(storage, ())
}

/// Opens a bucket through a proxy.
fn spoiled(rule: impl Fn(&Request) -> Fate + Send + Sync + 'static) -> (S3, Proxy) {
    let proxy = Proxy::start(testing::address(), rule);
    let settings = config::S3 { endpoint: Some(proxy.url()), ..testing::bucket() };
    (open(&settings), proxy)
}

/// Spoils the n-th request with this method.
fn nth(method: &'static str, n: usize, fate: Fate) -> impl Fn(&Request) -> Fate {
    move |request| {
        if request.method == method && request.number == n { fate.clone() } else { Fate::Pass }
    }
}

/// Spoils every request with this method.
fn every(method: &'static str, fate: Fate) -> impl Fn(&Request) -> Fate {
    move |request| if request.method == method { fate.clone() } else { Fate::Pass }
}

/// Says an error with all its causes on one line.
fn chain(error: Error) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

fn put(storage: &S3, path: &str) -> Result<()> {
    storage.put(&key(path), suite::content(5000), Overwrite::Refuse)
}

suite::conformance!(super::storage());

#[test]
fn many_small_pages_make_one_listing() {
    let storage = S3 { page_size: Some(100), ..open(&testing::bucket()) };
    let keys: Vec<_> = (0..1050).map(|n| key(&format!("a/{n:05}"))).collect();
    std::thread::scope(|scope| {
        for part in keys.chunks(132) {
            let storage = &storage;
            scope.spawn(move || {
                for key in part {
                    storage.put(key, Bytes::new(), Overwrite::Allow).unwrap();
                }
            });
        }
    });
    assert_eq!(storage.list("a/").unwrap().into_iter().map(|o| o.key).collect::<Vec<_>>(), keys);
    let storage = S3 { page_size: None, ..storage };
    assert_eq!(storage.list("").unwrap().len(), 1050);
}

#[test]
fn an_empty_prefix_is_the_whole_bucket_and_prefixes_are_apart() {
    let settings = testing::bucket();
    let whole = open(&config::S3 { prefix: String::new(), ..settings.clone() });
    let part = open(&config::S3 { prefix: "a/b".to_owned(), ..settings.clone() });
    let sibling = open(&config::S3 { prefix: "a/bc".to_owned(), ..settings });
    put(&part, "x/y").unwrap();
    put(&sibling, "z").unwrap();
    let names = |storage: &S3| {
        storage.list("").unwrap().into_iter().map(|o| o.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((names(&part), names(&sibling)), (vec!["x/y".to_owned()], vec!["z".to_owned()]));
    assert_eq!(names(&whole), ["a/b/x/y", "a/bc/z"]);
    assert_eq!(whole.list_folders("a/").unwrap(), ["b", "bc"]);
    assert_eq!(part.list_folders("").unwrap(), ["x"]);
}

#[test]
fn foreign_objects_are_ignored() {
    let settings = testing::bucket();
    let storage = open(&settings);
    put(&storage, "a/b").unwrap();
    for path in [
        "some/prefix/a/folder/",
        "some/prefix/a/with space & <ümlaut>",
        "some/prefix/o dd/x",
        "elsewhere",
    ] {
        testing::put_foreign(&settings, path);
    }
    assert_eq!(storage.list("").unwrap().len(), 1);
    assert_eq!(storage.list_folders("").unwrap(), ["a"]);
}

#[test]
fn a_wrong_secret_is_denied_and_not_shown() {
    let settings = testing::bucket();
    let wrong = |access_key: &str, secret_key: &str| {
        let credentials = Credentials::Keys {
            access_key: access_key.to_owned(),
            secret_key: Secret::new(secret_key),
            session_token: None,
        };
        open(&config::S3 { credentials, ..settings.clone() })
    };
    let storage = wrong(testing::ACCESS_KEY, "wrong-secret");
    let error = put(&storage, "a").unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    let text = format!("{error:?} ") + &chain(error);
    assert!(text.contains("put `a`") && text.contains("HTTP 403 SignatureDoesNotMatch"), "{text}");
    assert!(
        text.contains(&format!("bucket `{}/some/prefix` at `127.0.0.1:", settings.bucket)),
        "{text}"
    );
    assert!(!text.contains("wrong-secret") && !text.contains(testing::SECRET_KEY), "{text}");
    assert!(matches!(storage.list(""), Err(Error::Denied { .. })));
    assert!(matches!(storage.head(&key("a")), Err(Error::Denied { .. })));
    assert!(matches!(storage.get(&key("a"), 1), Err(Error::Denied { .. })));
    assert!(matches!(storage.remove(&key("a")), Err(Error::Denied { .. })));
    let unknown = wrong("AKNOBODY", "x").list("");
    assert!(matches!(unknown, Err(Error::Denied { .. })), "{unknown:?}");
}

#[test]
fn a_missing_bucket_is_told_from_a_missing_object() {
    let storage = open(&testing::settings("no-such-bucket"));
    let check = |error: Error| {
        assert!(matches!(error, Error::Failed { .. }), "{error:?}");
        let text = chain(error);
        assert!(text.contains("NoSuchBucket"), "{text}");
    };
    check(storage.head(&key("a")).unwrap_err());
    check(storage.get(&key("a"), 1).unwrap_err());
    check(storage.get_range(&key("a"), 0, 1).unwrap_err());
    check(put(&storage, "a").unwrap_err());
    check(storage.list("").unwrap_err());
    check(storage.list_folders("").unwrap_err());
    check(storage.remove(&key("a")).unwrap_err());
}

#[test]
fn incomplete_credentials_end_before_any_request() {
    let proxy = Proxy::start(testing::address(), |_| Fate::Pass);
    let open = |access_key: &str, secret_key: &str| {
        let credentials = Credentials::Keys {
            access_key: access_key.to_owned(),
            secret_key: Secret::new(secret_key),
            session_token: None,
        };
        let settings =
            config::S3 { endpoint: Some(proxy.url()), credentials, ..testing::settings("x") };
        chain(S3::open(&settings, &Stop::new()).err().unwrap())
    };
    assert!(open("AK", "").ends_with("the secret key is empty"));
    assert!(open("", "geheim").ends_with("the access key is empty"));
    assert!(!open("", "geheim").contains("geheim"));
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn credentials_come_from_a_profile() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[default]\naws_access_key_id = x\naws_secret_access_key = y\n\n# Ours.\n[backup]\n\
         aws_access_key_id = {}\naws_secret_access_key = {}\n[half]\naws_access_key_id = x\n",
        testing::ACCESS_KEY,
        testing::SECRET_KEY
    );
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let settings = testing::bucket();
    let open = |file: PathBuf, profile: &str| {
        let credentials = Credentials::Profile { file, profile: profile.to_owned() };
        S3::open(&config::S3 { credentials, ..settings.clone() }, &Stop::new())
    };
    put(&open(file.path().to_owned(), "backup").unwrap(), "a").unwrap();
    let error = |file: PathBuf, profile: &str| chain(open(file, profile).err().unwrap());
    let text = error(file.path().to_owned(), "other");
    assert!(text.contains("no keys of profile `other` in `/"), "{text}");
    error(file.path().to_owned(), "half");
    error(PathBuf::from("/not/there"), "backup");
}

#[test]
fn without_any_credentials_it_is_said_what_was_tried() {
    let settings = config::S3 { credentials: Credentials::Ambient, ..testing::settings("x") };
    let started = Instant::now();
    let text = chain(S3::open(&settings, &Stop::new()).err().unwrap());
    for way in ["web identity", "container", "instance metadata"] {
        assert!(text.contains(way), "{text}");
    }
    assert!(started.elapsed().as_secs() < 30);
}

#[test]
fn storage_class_and_lock_are_kept_and_shown() {
    let lock = ObjectLock { mode: ObjectLockMode::Governance, days: 3 };
    let settings = config::S3 {
        storage_class: Some("STANDARD_IA".to_owned()),
        object_lock: Some(lock),
        ..testing::locking_bucket()
    };
    let storage = open(&settings);
    put(&storage, "a").unwrap();
    let head = storage.ask(&key("a")).unwrap();
    assert_eq!(head.storage_class.as_deref(), Some("STANDARD_IA"));
    let left = storage.head(&key("a")).unwrap().locked_until.unwrap() - clock::now();
    assert!(left.num_minutes() > 3 * 24 * 60 - 5 && left.num_minutes() <= 3 * 24 * 60, "{left}");
    assert!(!storage.has_warned.load(Ordering::Relaxed));
    let plain = open(&config::S3 { object_lock: None, storage_class: None, ..settings });
    put(&plain, "b").unwrap();
    assert_eq!(plain.head(&key("b")).unwrap().locked_until, None);
    // A bucket that cannot lock refuses.
    let error =
        put(&open(&config::S3 { object_lock: Some(lock), ..testing::bucket() }), "a").unwrap_err();
    assert!(matches!(error, Error::Failed { .. }), "{error:?}");
    let settings =
        config::S3 { storage_class: Some("NO_SUCH_CLASS".to_owned()), ..testing::bucket() };
    let text = chain(put(&open(&settings), "a").unwrap_err());
    // Ceph says InvalidArgument, Amazon InvalidStorageClass.
    assert!(text.contains("HTTP 400 Invalid"), "{text}");
}

#[test]
fn a_put_that_was_turned_away_is_repeated() {
    let busy = Fate::Answer(503, "<Error><Code>SlowDown</Code><Message>slow</Message></Error>");
    let (storage, proxy) = spoiled(nth("PUT", 1, busy));
    put(&storage, "a").unwrap();
    assert_eq!(proxy.count("PUT"), 2);
    assert_eq!(storage.get(&key("a"), 5000).unwrap(), suite::content(5000));
}

#[test]
fn repeating_ends() {
    let busy =
        Fate::Answer(503, "<Error><Code>SlowDown</Code><Message>Please reduce</Message></Error>");
    let (storage, proxy) = spoiled(every("PUT", busy));
    let started = Instant::now();
    let text = chain(put(&storage, "a").unwrap_err());
    assert!(text.contains("HTTP 503 SlowDown Please reduce"), "{text}");
    assert_eq!(proxy.count("PUT"), 5);
    assert!(started.elapsed().as_secs() < 10);
}

#[test]
fn an_object_stored_while_its_answer_was_lost_is_a_success() {
    let (storage, proxy) = spoiled(nth("PUT", 1, Fate::LoseAnswer));
    put(&storage, "a").unwrap();
    assert_eq!(proxy.count("PUT"), 2);
    // The second one was refused, because the object is there: it is the same one.
    assert_eq!(storage.get(&key("a"), 5000).unwrap(), suite::content(5000));
    // Another one with the same name is not mistaken for it.
    let (storage, _proxy) = spoiled(nth("PUT", 2, Fate::Refuse));
    put(&storage, "a").unwrap();
    let error = storage.put(&key("a"), suite::content(5001), Overwrite::Refuse).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error:?}");
    assert_eq!(storage.head(&key("a")).unwrap().size, 5000);
}

#[test]
fn a_success_that_is_none_is_not_believed() {
    let error =
        "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>sorry</Message></Error>";
    let (storage, proxy) = spoiled(every("PUT", Fate::Answer(200, error)));
    let text = chain(put(&storage, "a").unwrap_err());
    assert!(text.contains("InternalError"), "{text}");
    assert_eq!(proxy.count("PUT"), 5);
    let (storage, _proxy) =
        spoiled(every("PUT", Fate::Answer(200, "<html>Welcome to our hotel</html>")));
    let text = chain(put(&storage, "a").unwrap_err());
    assert!(text.contains("ETag"), "{text}");
    let (storage, _proxy) = spoiled(nth("PUT", 1, Fate::Answer(200, error)));
    put(&storage, "a").unwrap();
}

#[test]
fn a_wrong_etag_is_corruption_and_the_object_is_taken_back() {
    let (storage, proxy) =
        spoiled(nth("PUT", 1, Fate::Header("ETag", "\"00000000000000000000000000000000\"")));
    let error = put(&storage, "a").unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(chain(error).contains("its MD5 is 0000"));
    assert_eq!(proxy.count("DELETE"), 1);
    assert_eq!(storage.list("").unwrap(), []);
    // A lease is replaced and not made: nothing is taken back.
    let (storage, proxy) =
        spoiled(nth("PUT", 1, Fate::Header("ETag", "\"00000000000000000000000000000000\"")));
    let result = storage.put(&key("a"), suite::content(10), Overwrite::Allow);
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    assert_eq!(proxy.count("DELETE"), 0);
}

#[test]
fn a_size_that_is_wrong_afterwards_is_corruption() {
    let (storage, _proxy) = spoiled(nth("HEAD", 1, Fate::Header("Content-Length", "4999")));
    let error = put(&storage, "a").unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert_eq!(storage.list("").unwrap(), []);
}

#[test]
fn an_etag_that_is_no_md5_is_not_compared() {
    let (storage, _proxy) = spoiled(|request: &Request| match request.method.as_str() {
        "PUT" if request.number == 1 => Fate::LoseAnswer,
        "PUT" | "HEAD" => Fate::Header("ETag", "\"something-else\""),
        _ => Fate::Pass,
    });
    put(&storage, "a").unwrap();
    assert_eq!(storage.head(&key("a")).unwrap().md5, None);
}

#[test]
fn a_server_without_conditions_is_asked_before() {
    let (storage, proxy) = spoiled(|request: &Request| {
        if request.headers.contains_key("if-none-match") {
            return Fate::Answer(501, "<Error><Code>NotImplemented</Code></Error>");
        }
        Fate::Pass
    });
    put(&storage, "a").unwrap();
    assert_eq!(proxy.count("PUT"), 2);
    put(&storage, "b").unwrap();
    assert_eq!(proxy.count("PUT"), 3);
    for path in ["a", "b"] {
        assert!(matches!(put(&storage, path), Err(Error::Exists { .. })));
    }
    assert_eq!(proxy.count("PUT"), 3);
}

#[test]
fn a_body_that_was_cut_is_read_again() {
    let (storage, proxy) = spoiled(nth("GET", 1, Fate::Cut(1000)));
    put(&storage, "a").unwrap();
    assert_eq!(storage.get_range(&key("a"), 1, 4000).unwrap(), suite::content(5000).slice(1..4001));
    assert_eq!(proxy.count("GET"), 2);
    let (storage, _proxy) = spoiled(every("GET", Fate::Cut(1000)));
    put(&storage, "a").unwrap();
    let error = storage.get_range(&key("a"), 1, 4000).unwrap_err();
    assert!(matches!(error, Error::Failed { .. } | Error::Corrupt { .. }), "{error:?}");
    let error = storage.get(&key("a"), 5000).unwrap_err();
    assert!(matches!(error, Error::Failed { .. } | Error::Corrupt { .. }), "{error:?}");
    let (storage, _proxy) = spoiled(every("GET", Fate::Cut(200)));
    put(&storage, "a").unwrap();
    assert!(storage.list("").is_err());
}

#[test]
fn a_byte_that_changed_on_the_way_is_noticed() {
    let (storage, proxy) = spoiled(nth("GET", 1, Fate::Flip));
    put(&storage, "a").unwrap();
    assert_eq!(storage.get(&key("a"), 5000).unwrap(), suite::content(5000));
    assert_eq!(proxy.count("GET"), 2);
    let (storage, _proxy) = spoiled(every("GET", Fate::Flip));
    put(&storage, "a").unwrap();
    assert!(matches!(storage.get(&key("a"), 5000), Err(Error::Corrupt { .. })));
}

#[test]
fn the_wrong_range_is_not_taken_for_the_right_one() {
    let (storage, _proxy) = spoiled(every("GET", Fate::Header("Content-Range", "bytes 0-9/5000")));
    put(&storage, "a").unwrap();
    let got = storage.get_range(&key("a"), 100, 10);
    assert!(matches!(got, Err(Error::Corrupt { .. })), "{got:?}");
    let (storage, _proxy) = spoiled(every("GET", Fate::Header("Content-Range", "")));
    put(&storage, "a").unwrap();
    assert!(matches!(storage.get_range(&key("a"), 100, 10), Err(Error::Corrupt { .. })));
}

#[test]
fn a_listing_that_fails_half_way_is_an_error() {
    let (storage, _proxy) = spoiled(|request: &Request| {
        if request.target.contains("continuation-token") {
            return Fate::Answer(500, "<Error><Code>InternalError</Code></Error>");
        }
        Fate::Pass
    });
    let storage = S3 { page_size: Some(2), ..storage };
    for path in ["a", "b", "c"] {
        put(&storage, path).unwrap();
    }
    assert!(storage.list("").is_err());
    let (storage, _proxy) =
        spoiled(every("GET", Fate::Answer(200, "<html>Welcome to our hotel</html>")));
    assert!(storage.list("").is_err());
    let (storage, _proxy) =
        spoiled(every("GET", Fate::Answer(200, "<Error><Code>InternalError</Code></Error>")));
    assert!(storage.list("").is_err());
}

#[test]
fn a_full_storage_is_told_from_a_denial() {
    let (storage, proxy) =
        spoiled(every("PUT", Fate::Answer(403, "<Error><Code>QuotaExceeded</Code></Error>")));
    assert!(matches!(put(&storage, "a"), Err(Error::Full { .. })));
    assert_eq!(proxy.count("PUT"), 1);
    let (storage, _proxy) = spoiled(every("PUT", Fate::Answer(507, "")));
    assert!(matches!(put(&storage, "a"), Err(Error::Full { .. })));
}

#[test]
fn how_far_thawing_is_is_read_off_the_headers() {
    let frost = |more: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        let always = [("content-length", "1"), ("last-modified", "Thu, 26 Nov 2026 10:00:00 GMT")];
        for (name, value) in always.iter().chain(more) {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        read_head(&key("a"), &headers).unwrap().frost()
    };
    let class = ("x-amz-storage-class", "DEEP_ARCHIVE");
    assert_eq!(frost(&[]), Frost::None);
    assert_eq!(frost(&[("x-amz-storage-class", "GLACIER_IR")]), Frost::None);
    assert_eq!(frost(&[class]), Frost::Frozen);
    assert_eq!(frost(&[class, ("x-amz-restore", "ongoing-request=\"true\"")]), Frost::Thawing);
    let done = "ongoing-request=\"false\", expiry-date=\"Fri, 04 Dec 2026 00:00:00 GMT\"";
    assert_eq!(frost(&[class, ("x-amz-restore", done)]), Frost::None);
}

#[test]
fn an_object_that_has_to_be_thawed_is_said_so() {
    let refusal =
        "<Error><Code>InvalidObjectState</Code><StorageClass>GLACIER</StorageClass></Error>";
    let (storage, proxy) = spoiled(every("GET", Fate::Answer(403, refusal)));
    put(&storage, "a").unwrap();
    assert!(matches!(storage.get(&key("a"), 100), Err(Error::Frozen { .. })));
    assert!(matches!(storage.get_range(&key("a"), 0, 1), Err(Error::Frozen { .. })));
    assert_eq!(proxy.count("GET"), 2);
}

#[test]
fn a_server_that_hangs_is_given_up() {
    let (storage, proxy) = spoiled(nth("PUT", 1, Fate::Stall(Duration::from_secs(30))));
    let storage = S3 { patience: Duration::from_millis(300), ..storage };
    put(&storage, "a").unwrap();
    assert_eq!(proxy.count("PUT"), 2);
}

#[test]
fn an_interruption_ends_every_wait() {
    let hang = || |_: &Request| Fate::Stall(Duration::from_secs(30));
    let check = |work: fn(&S3) -> Result<()>, rule: Box<dyn Fn(&Request) -> Fate + Send + Sync>| {
        let (storage, _proxy) = spoiled(rule);
        let stop = storage.stop.clone();
        let started = Instant::now();
        let result = std::thread::scope(|scope| {
            let thread = scope.spawn(|| work(&storage));
            Stop::new().sleep(Duration::from_millis(300)).unwrap();
            stop.request(crate::stop::Reason::Signal(2));
            thread.join().unwrap()
        });
        assert!(matches!(result, Err(Error::Stopped(_))), "{result:?}");
        assert!(started.elapsed().as_millis() < 1300, "{:?}", started.elapsed());
    };
    check(|storage| put(storage, "a"), Box::new(hang()));
    check(|storage| storage.list("").map(drop), Box::new(hang()));
    check(|storage| storage.get(&key("a"), 1).map(drop), Box::new(hang()));
    check(|storage| storage.head(&key("a")).map(drop), Box::new(hang()));
    check(|storage| put(storage, "a"), Box::new(|_: &Request| Fate::Answer(503, "")));
}

#[test]
fn an_unreachable_server_is_said_so() {
    let settings =
        config::S3 { endpoint: Some("http://127.0.0.1:1".to_owned()), ..testing::settings("x") };
    let text = chain(put(&open(&settings), "a").unwrap_err());
    assert!(
        text.starts_with(
            "failed to put `a` in bucket `x/some/prefix` at `127.0.0.1:1`: no connection"
        ),
        "{text}"
    );
    assert!(text.contains("refused"), "{text}");
}

/// Where the test below, started again as a child, finds its server.
const TLS_ENDPOINT: &str = "OPSCTL_TEST_TLS_ENDPOINT";

/// Which authorities are trusted is read from the environment, so the client is a process of its own.
#[test]
fn a_private_authority_is_trusted_through_ssl_cert_file() {
    let environment = crate::environment::Environment::capture();
    if let Some(endpoint) = environment.get(TLS_ENDPOINT) {
        let (endpoint, bucket) = endpoint.split_once(' ').unwrap();
        let endpoint = Some(endpoint.to_owned());
        let storage = open(&config::S3 { endpoint, ..testing::settings_at("", bucket) });
        put(&storage, "a").unwrap();
        assert_eq!(storage.list("").unwrap().len(), 1);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (authority, tls) = testing::tls(folder.path());
    let proxy = Proxy::start_tls(testing::address(), tls, |_| Fate::Pass);
    let bucket = testing::bucket().bucket;
    let run = |authority: &std::path::Path| {
        let name = "storage::s3::tests::a_private_authority_is_trusted_through_ssl_cert_file";
        let child = crate::child::Spec::new(std::env::current_exe().unwrap());
        let variables = [
            ("SSL_CERT_FILE", authority.to_str().unwrap().to_owned()),
            (TLS_ENDPOINT, format!("{} {bucket}", proxy.url())),
        ];
        let child = child.args(["--exact", name]).envs(variables.map(|(n, v)| (n.to_owned(), v)));
        child.output(&Stop::new(), 1 << 20)
    };
    run(&authority).unwrap();
    assert_eq!(proxy.count("PUT"), 1);
    run(&folder.path().join("nobody.pem")).unwrap_err();
    assert_eq!(proxy.count("PUT"), 1);
}
