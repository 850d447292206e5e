use super::*;

fn now() -> Timestamp {
    "2026-11-20T12:00:00Z".parse().unwrap()
}

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_client_certificate_names_its_holder_and_its_days() {
    let (authority, _) = Authority::create("test", now()).unwrap();
    let pair = authority.issue_client(Role::Agent, &name("web-1"), now(), 30).unwrap();
    let der = der(&pair.certificate_pem);
    let identity = Identity::of_certificate(&der).unwrap();
    assert_eq!((identity.role, identity.name.as_str()), (Role::Agent, "web-1"));
    assert_eq!(identity.fingerprint, pair.fingerprint);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    let day = 24 * 3600;
    let midnight = now().as_second() / day * day;
    assert_eq!(certificate.validity().not_before.timestamp(), midnight - day);
    assert_eq!(certificate.validity().not_after.timestamp(), midnight + 30 * day);
    assert_eq!(certificate.subject().to_string(), "CN=agent web-1");
}

#[test]
fn an_authority_that_was_saved_issues_under_the_same_name() {
    let (_, saved) = Authority::create("test", now()).unwrap();
    let loaded = Authority::load(&saved.certificate_pem, &saved.key_pem).unwrap();
    let pair = loaded.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()], now(), 30).unwrap();
    let (ca_der, der) = (der(&saved.certificate_pem), der(&pair.certificate_pem));
    let (_, ca) = x509_parser::parse_x509_certificate(&ca_der).unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(certificate.issuer(), ca.subject());
    assert_eq!(Identity::of_certificate(&der), Err(BadIdentity::Uri), "a server is nobody's client");
}

#[test]
fn another_authoritys_key_is_refused() {
    let (_, one) = Authority::create("one", now()).unwrap();
    let (_, two) = Authority::create("two", now()).unwrap();
    let mixed = Authority::load(&one.certificate_pem, &two.key_pem).err().unwrap();
    assert!(matches!(mixed, PkiError::OtherKey), "{mixed}");
    assert!(Authority::load("nonsense", &one.key_pem).is_err());
    assert!(Authority::load(&one.certificate_pem, "nonsense").is_err());
}

#[test]
fn impossible_wishes_are_refused() {
    let (authority, _) = Authority::create("test", now()).unwrap();
    assert!(matches!(authority.issue_server(&[], now(), 30), Err(PkiError::NoNames)));
    assert!(matches!(authority.issue_client(Role::Agent, &name("a"), now(), 0), Err(PkiError::Days)));
    assert!(matches!(authority.issue_client(Role::Agent, &name("a"), now(), DAYS_MAX + 1), Err(PkiError::Days)));
    assert!(authority.issue_server(&["smörgås".to_owned()], now(), 30).is_err());
}

#[test]
fn names_that_could_mislead_are_refused() {
    for bad in ["", "A", "a b", "a/b", "../x", "-a", ".a", "a\n", "ä", &"x".repeat(64)] {
        assert_eq!(bad.parse::<PeerName>(), Err(BadIdentity::Name), "{bad:?}");
    }
    for good in ["a", "0", "db-1.example.org", "x_y", &"x".repeat(63)] {
        assert_eq!(good.parse::<PeerName>().unwrap().as_str(), good);
    }
}

#[test]
fn fingerprints_are_read_as_openssl_writes_them() {
    let fingerprint = Fingerprint::of(b"x");
    let text = fingerprint.to_string();
    assert_eq!(text.len(), 64);
    assert_eq!(text.parse(), Ok(fingerprint));
    let pairs: Vec<_> =
        text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap().to_uppercase()).collect();
    assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
    for bad in ["", &text[..63], &format!("{text}0"), &text.replace(&text[..1], "g")] {
        assert_eq!(bad.parse::<Fingerprint>(), Err(BadIdentity::Fingerprint), "{bad:?}");
    }
}
