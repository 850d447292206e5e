//! Wrong URLs and settings are refused in words, and no secret is ever shown.

use crate::{StoreErrorKind, StoreOptions, open};
use std::collections::BTreeMap;
use std::error::Error;

const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";

fn refused(url: &str, settings: &[(&str, &str)]) -> String {
    let settings: BTreeMap<_, _> = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let options = StoreOptions { settings, environment: false, ..StoreOptions::default() };
    let error = open(url, &options).err().unwrap_or_else(|| panic!("{url} was taken"));
    assert_eq!(error.kind(), StoreErrorKind::BadSettings, "{error}");
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    assert!(!text.contains(SECRET), "{text}");
    text
}

#[test]
fn wrong_urls_are_refused_in_words() {
    assert!(refused("/var/cache", &[]).contains("file:///folder"));
    assert!(refused("ftp://host/x", &[]).contains("file:///, az:// and s3://"));
    assert!(refused("file://host/x", &[]).contains("this host"));
    assert!(refused("az:///x", &[]).contains("names no container"));
    assert!(refused("az://c:1/x", &[]).contains("endpoint"));
    assert!(refused("az://c/a/%2e%2e/b", &[]).contains("prefix") || refused("az://c/.hidden", &[]).contains("prefix"));
    assert!(refused("az://c/x", &[]).contains("Azure container c/x"));
    refused(&format!("az://account:{SECRET}@c/x"), &[]);
    refused(&format!("az://c/x?sig={SECRET}"), &[]);
    refused(&format!("not a url?sig={SECRET}"), &[]);
}

#[test]
fn unknown_settings_are_named_with_the_usual_ones() {
    let azure = refused("az://c", &[("acount_name", "a"), ("access_key", SECRET)]);
    assert!(azure.contains("\"acount_name\"") && azure.contains("account_name, access_key"), "{azure}");
    let s3 = refused("s3://b", &[("secret", SECRET)]);
    assert!(s3.contains("\"secret\"") && s3.contains("access_key_id"), "{s3}");
    let folder = refused("file:///tmp/x", &[("region", "r")]);
    assert!(folder.contains("\"region\""), "{folder}");
}

#[test]
fn descriptions_and_debug_output_hold_no_secret() {
    let settings = [("account_name", "acme"), ("access_key", SECRET)];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
    let options = StoreOptions { settings, environment: false, ..StoreOptions::default() };
    assert!(!format!("{options:?}").contains(SECRET));
    let store = open("az://box/deep/er", &options).unwrap();
    assert_eq!(store.describe(), "Azure container box/deep/er (account acme)");
    assert!(!store.is_local());
    let settings = [("access_key_id", "acme"), ("secret_access_key", SECRET), ("region", "eu-west-1")];
    let settings = settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
    let store = open("s3://box", &StoreOptions { settings, environment: false, ..StoreOptions::default() }).unwrap();
    assert_eq!(store.describe(), "S3 bucket box (region eu-west-1)");
}
