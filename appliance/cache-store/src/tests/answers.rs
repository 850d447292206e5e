//! What remote stores answer when they are at their limits, break off or refuse, on the wire.

use crate::{CacheStore, Retries, StoreErrorKind, StoreOptions, open};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Answers requests from a list, in turn, then with the last of it; one connection each.
fn answering(answers: &[String]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut answers: VecDeque<String> = answers.to_vec().into();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            read_request(&stream);
            let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
            // A client that is gone needs no answer.
            drop((&stream).write_all(answer.unwrap_or_default().as_bytes()));
        }
    });
    port
}

fn read_request(stream: &TcpStream) {
    let (mut reader, mut line, mut len) = (BufReader::new(stream), String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
        line.clear();
    }
    drop(reader.take(len).read_to_end(&mut Vec::new()));
}

/// An answer whose body is said to have `len` bytes; headers may stand behind its status.
fn answer(status: &str, body: &str, len: usize) -> String {
    let dated = "last-modified: Wed, 25 Nov 2026 00:00:00 GMT\r\netag: \"1\"";
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{dated}\r\ncontent-length: {len}\r\n\r\n{body}")
}

fn status(code: u16) -> String {
    answer(&format!("{code} Said"), "", 0)
}

fn done(body: &str, len: usize) -> String {
    answer("200 OK", body, len)
}

/// An S3 and an Azure store at what answers so; a failed request is made once more.
fn stores(answers: &[String]) -> [Arc<dyn CacheStore>; 2] {
    let store = |url: &str, settings: &[(&str, String)]| {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let retries = Retries { count_max: 1, wait_first: Duration::from_millis(1), ..Retries::default() };
        open(url, &StoreOptions { settings, retries, environment: false, ..StoreOptions::default() }).unwrap()
    };
    let at = || format!("http://127.0.0.1:{}", answering(answers));
    let s3 = [
        ("endpoint", at()),
        ("region", "here".to_owned()),
        ("access_key_id", "id".to_owned()),
        ("secret_access_key", "c2VjcmV0".to_owned()),
        ("allow_http", "true".to_owned()),
    ];
    let azure = [
        ("endpoint", at()),
        ("account_name", "account".to_owned()),
        ("access_key", "c2VjcmV0".to_owned()),
        ("allow_http", "true".to_owned()),
    ];
    [store("s3://bucket", &s3), store("az://container", &azure)]
}

#[tokio::test]
async fn what_a_store_refuses_with_is_told_apart() {
    let kinds = [
        (408, StoreErrorKind::Unavailable),
        (429, StoreErrorKind::Unavailable),
        (500, StoreErrorKind::Unavailable),
        (503, StoreErrorKind::Unavailable),
        (504, StoreErrorKind::Unavailable),
        (501, StoreErrorKind::Other),
        (507, StoreErrorKind::Full),
        (401, StoreErrorKind::Denied),
        (403, StoreErrorKind::Denied),
        (404, StoreErrorKind::NotFound),
    ];
    for (code, kind) in kinds {
        for store in stores(&[status(code)]) {
            let read = store.get("x", 9).await.unwrap_err();
            assert_eq!(read.kind(), kind, "{code} for a get from {}: {read:?}", store.describe());
            let put = store.put("x", Bytes::from_static(b"y")).await.unwrap_err();
            assert_eq!(put.kind(), kind, "{code} for a put to {}: {put:?}", store.describe());
        }
    }
}

#[tokio::test]
async fn what_passes_is_not_told() {
    for code in [429, 500, 503] {
        for store in stores(&[status(code), done("whole", 5)]) {
            assert_eq!(store.get("x", 9).await.unwrap(), "whole", "{code} from {}", store.describe());
        }
        for store in stores(&[status(code), done("", 0)]) {
            store.put("x", Bytes::from_static(b"y")).await.unwrap_or_else(|e| panic!("{code}: {e:?}"));
        }
    }
}

#[tokio::test]
async fn an_object_that_breaks_off_is_no_shorter_object() {
    let rest = answer("206 Partial Content\r\ncontent-range: bytes 4-8/9", "-rest", 5);
    for store in stores(&[done("half", 9), rest]) {
        assert_eq!(store.get("x", 9).await.unwrap(), "half-rest", "{}", store.describe());
    }
    for store in stores(&[done("half", 9), status(503)]) {
        let error = store.get("x", 9).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}: {error:?}", store.describe());
    }
}

/// What Azure wants in each request's address, where no other secret stands.
const SIGNATURE: &str = "bm90LXRvLWJlLXRvbGQ";

fn signing_store(port: u16) -> Arc<dyn CacheStore> {
    let settings = [
        ("endpoint", format!("http://127.0.0.1:{port}")),
        ("account_name", "account".to_owned()),
        ("sas_key", format!("sv=2024-01-01&sp=rw&sig={SIGNATURE}")),
        ("allow_http", "true".to_owned()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
    let retries = Retries { count_max: 1, wait_first: Duration::from_millis(1), ..Retries::default() };
    open("az://container", &StoreOptions { settings, retries, environment: false, ..StoreOptions::default() }).unwrap()
}

#[tokio::test]
async fn an_address_that_holds_a_signature_is_not_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().port();
    let asked = std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(listener.accept().unwrap().0).read_line(&mut line).unwrap();
        line
    });
    signing_store(nobody).get("x", 9).await.unwrap_err();
    assert!(asked.join().unwrap().contains(SIGNATURE), "it stands in the address");

    let answers: [&[String]; 3] = [&[status(403)], &[done("half", 9), status(503)], &["nonsense".to_owned()]];
    for port in answers.map(answering).into_iter().chain([nobody]) {
        let store = signing_store(port);
        let body = Bytes::from_static(b"y");
        let errors = [
            store.get("x", 9).await.unwrap_err(),
            store.put("x", body.clone()).await.unwrap_err(),
            store.put_new("x", body).await.unwrap_err(),
            store.head("x").await.unwrap_err(),
            store.list("").await.unwrap_err(),
            store.delete("x").await.unwrap_err(),
        ];
        for error in errors {
            assert!(!format!("{error} {error:?}").contains(SIGNATURE), "{error:?}");
        }
    }
}
