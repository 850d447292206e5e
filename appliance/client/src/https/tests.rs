//! What can be tested without an appliance; the rest is tested against a real one in its own crate.

use super::*;

fn files() -> ClientFiles {
    let none = |name: &str| std::path::PathBuf::from(format!("/nonexistent/{name}"));
    ClientFiles { authority: none("ca.pem"), certificate: none("cert.pem"), key: none("key.pem") }
}

#[test]
fn an_endpoint_is_an_https_address_and_nothing_else() {
    for wrong in ["", "appliance:8443", "http://appliance:1", "https://appliance", "https://a:1/v1", "https://a b:1"] {
        let error = HttpsClient::new(wrong, &files(), ClientOptions::default()).err().unwrap();
        assert!(matches!(error, ClientError::Endpoint { .. }), "{wrong}: {error}");
    }
    for right in ["https://appliance:8443", "https://127.0.0.1:1/", "https://[::1]:8443"] {
        let error = HttpsClient::new(right, &files(), ClientOptions::default()).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{right}: {error}");
    }
}

#[test]
fn a_name_cannot_leave_its_place_in_the_path() {
    assert!(part_of_path("s0000000001-0011223344556677.seg").is_ok());
    for wrong in ["", "a/b", "a?generation=9", "a#b", "a%2fb", "a b", "\u{fc}"] {
        assert_eq!(part_of_path(wrong).unwrap_err().code(), Some(ErrorCode::BadRequest), "{wrong}");
    }
}

#[tokio::test]
async fn a_body_says_how_far_it_has_come() {
    let (mut upload, progress) = Upload::new(Bytes::from(vec![1; 100 << 10]));
    assert!(!progress.last().1);
    assert_eq!(upload.frame().await.unwrap().unwrap().into_data().unwrap().len(), 64 << 10);
    assert!(!progress.last().1);
    assert_eq!(upload.frame().await.unwrap().unwrap().into_data().unwrap().len(), 36 << 10);
    assert!(progress.last().1);
    assert!(upload.frame().await.is_none());
}
