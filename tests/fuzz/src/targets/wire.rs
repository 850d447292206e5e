//! Every JSON body that goes over the appliance's port, in both directions, and what requests ask behind a question mark.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_appliance::http::asked;
use sluice_appliance::throttle::Limits;
use sluice_proto::DiskId;
use sluice_proto::wire::*;
use std::fmt::Debug;

/// Reads the body as one message; what can be read is written, and reads the same.
type Reader = fn(&[u8]);

/// By number: only ever added to at the end, as each file of the corpus begins with it.
const MESSAGES: &[Reader] = &[
    read::<RegisterRequest>,
    read::<NextRequest>,
    read::<OpenRequest>,
    read::<GiveUp>,
    read::<WorkRequest>,
    read::<VerdictRequest>,
    policy,
    read::<WireError>,
    read::<DiskStatus>,
    read::<NextReply>,
    read::<OpenReply>,
    read::<StoredSegment>,
    read::<ClaimReply>,
    read::<WorkReply>,
    read::<Vec<DiskView>>,
    read::<Vec<CycleView>>,
    read::<PolicyView>,
    disk_id,
    read::<AppliedRequest>,
    read::<FinalOrder>,
    query::<InGeneration>,
    query::<AskedDigests>,
    query::<HowMany>,
];
/// How many there were when the corpus was begun: higher numbers that name none go around these.
const FIRST_MESSAGES: usize = 19;

/// The first byte chooses the message.
pub fn run(input: &[u8]) {
    let Some((choice, body)) = input.split_first() else { return };
    let number = usize::from(*choice);
    MESSAGES.get(number).unwrap_or(&MESSAGES[number % FIRST_MESSAGES])(body);
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(body) else { return };
    let again = serde_json::to_vec(&value).expect("a message as JSON");
    assert_eq!(serde_json::from_slice::<T>(&again).expect("our own JSON"), value);
}

/// What stands behind the question mark of a request's target; what can be read is written, and reads the same.
fn query<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(target) = [b"/?", body].concat().as_slice().try_into() else { return };
    let Ok(value) = asked::<T>(&target) else { return };
    let serde_json::Value::Object(fields) = serde_json::to_value(&value).expect("a query as JSON") else {
        panic!("{value:?} has no named fields")
    };
    let again: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let again = format!("/?{}", again.join("&")).parse().expect("our own target");
    assert_eq!(asked::<T>(&again).expect("our own query"), value);
}

/// What the appliance makes of a policy: its limits are parsed, and a limit is asked for.
fn policy(body: &[u8]) {
    let Ok(policy) = serde_json::from_slice::<PolicyView>(body) else { return };
    let windows = policy.windows.iter().map(|window| (window.when.as_str(), window.limit.as_str()));
    let Ok(limits) = Limits::parse(policy.limit.as_deref(), windows, Limits::default().zone) else { return };
    for (window, limit) in &limits.windows {
        let (when, rate) = (window.to_string(), limit.to_string());
        let again = Limits::parse(None, [(when.as_str(), rate.as_str())], limits.zone.clone());
        let again = again.unwrap_or_else(|error| panic!("{when:?} {rate:?}: {error}"));
        assert_eq!(again.windows, [(*window, *limit)], "{when:?} {rate:?}");
    }
}

/// As it stands in paths.
fn disk_id(body: &[u8]) {
    let Ok(id) = String::from_utf8_lossy(body).parse::<DiskId>() else { return };
    assert_eq!(id.to_string().parse::<DiskId>(), Ok(id));
}

/// The samples, and one reply of each kind that has none.
pub fn seeds() -> Vec<Vec<u8>> {
    macro_rules! sample {
        ($number:literal, $name:literal) => {
            [&[$number][..], include_bytes!(concat!("../../../../proto/samples/v1-", $name, ".json"))].concat()
        };
    }
    let envelope = include_str!("../../../../proto/samples/v1-key-envelope.json");
    let id = "11111111-1111-1111-1111-111111111111";
    let work = format!(
        r#"{{"revision":3,"work":[{{"disk":"{id}","name":"a","size":4096,"generation":2,"envelope":{envelope},"cycle":7,
        "kind":"delta","state":"shipping","sectors":8,"stored":[],"manifest":null,"verified":null,"digests_wanted":true,
        "read_rate":1}}]}}"#
    );
    let cycle = r#"{"cycle":7,"kind":"resync","state":"failed","tracker":"scan","consistency":"fuzzy","sectors":8,
        "sectors_stored":4,"bytes_sent":9,"start_ms":1,"end_ms":2,"source_digest":null,"target_digest":null,
        "bitmaps_equal":true,"reason":"digest_mismatch","detail":"x"}"#;
    let disk = format!(
        r#"[{{"disk":"{id}","name":"a","agent":"b","size":512,"generation":1,"phase":"in_step","cycle":{cycle},
        "verified_start_ms":1,"due_ms":null}}]"#
    );
    let text = |number: u8, text: &str| [&[number][..], text.as_bytes()].concat();
    let hash = "06".repeat(32);
    vec![
        sample!(0, "register-request"),
        sample!(1, "next-request"),
        text(2, r#"{"generation":2,"kind":"delta","tracker":"ebpf","sectors":8,"doubt":"x"}"#),
        sample!(3, "give-up"),
        sample!(4, "work-request"),
        sample!(5, "verdict-verified"),
        sample!(5, "verdict-failed"),
        sample!(6, "policy"),
        sample!(7, "error"),
        sample!(8, "disk-status"),
        sample!(9, "next-reply-verified"),
        sample!(9, "next-reply-failed"),
        sample!(9, "next-reply-start"),
        sample!(10, "open-reply"),
        text(11, &format!(r#"{{"name":"s","first":0,"blocks":2,"len":3,"hash":"{hash}"}}"#)),
        sample!(12, "claim-reply"),
        text(13, &work),
        text(14, &disk),
        text(15, &format!("[{cycle}]")),
        sample!(16, "policy"),
        text(17, id),
        sample!(18, "applied-request"),
        sample!(19, "final-order"),
        text(20, "generation=2"),
        text(21, "generation=2&wait_ms=20000"),
        text(21, "generation=%32"),
        text(22, "limit=9"),
        text(22, ""),
    ]
}
