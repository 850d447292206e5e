use super::*;
use crate::machine::print;

#[test]
fn the_table_and_its_picture() {
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("cycle_table", print(TABLE));
        insta::assert_snapshot!("cycle_picture", picture());
    });
}

#[test]
fn only_what_the_table_has_can_happen() {
    for state in State::ALL {
        for event in Event::ALL {
            let rows: Vec<_> = TABLE.iter().filter(|row| row.0 == *state && row.1 == *event).collect();
            assert!(rows.len() <= 1, "{state} has two rows for {event}");
            assert_eq!(state.on(*event).ok(), rows.first().map(|row| row.2));
        }
    }
    let refused = State::Verified.on(Event::Fail).unwrap_err();
    assert_eq!(refused.to_string(), "impossible: a cycle that is verified was told fail");
}

#[test]
fn an_end_is_an_end_and_all_else_can_fail() {
    for state in State::ALL {
        assert_eq!(state.is_end(), !TABLE.iter().any(|row| row.0 == *state));
        assert_eq!(state.on(Event::Fail).is_ok(), !state.is_end());
    }
}

#[test]
fn nothing_is_verified_but_what_was_committed_and_claimed() {
    let into = |state| TABLE.iter().filter(move |row| row.2 == state && row.0 != state).map(|row| (row.0, row.1));
    assert_eq!(into(State::Verified).collect::<Vec<_>>(), [(State::Applying, Event::Verify)]);
    assert_eq!(into(State::Applying).collect::<Vec<_>>(), [(State::Committed, Event::Claim)]);
    assert!(into(State::Committed).all(|(_, event)| event == Event::Commit));
}

#[test]
fn a_restart_moves_nothing() {
    for row in TABLE.iter().filter(|row| matches!(row.1, Event::Resume | Event::Reclaim)) {
        assert_eq!(row.0, row.2);
    }
}

#[test]
fn a_reason_belongs_to_failed_alone() {
    let open = Standing::PLANNED.on(Event::Open).unwrap();
    assert_eq!((open.state(), open.reason()), (State::Capturing, None));
    let failed = open.fail(FailReason::TargetFull).unwrap();
    assert_eq!((failed.state(), failed.reason()), (State::Failed, Some(FailReason::TargetFull)));
    assert!(failed.fail(FailReason::Other).is_err());
    let text = serde_json::to_string(&failed).unwrap();
    assert_eq!(text, r#"{"state":"failed","reason":"target_full"}"#);
    assert_eq!(serde_json::from_str::<Standing>(&text).unwrap(), failed);
    assert_eq!(serde_json::to_string(&open).unwrap(), r#"{"state":"capturing"}"#);
    for bad in [r#"{"state":"failed"}"#, r#"{"state":"verified","reason":"other"}"#, r#"{"state":"verified","x":1}"#] {
        assert!(serde_json::from_str::<Standing>(bad).is_err(), "{bad}");
    }
}

#[test]
fn every_word_is_the_same_everywhere() {
    for reason in FailReason::ALL {
        assert_eq!(serde_json::to_string(reason).unwrap(), format!("\"{reason}\""));
        assert_eq!(reason.as_str().parse(), Ok(*reason));
    }
    assert_eq!("delta".parse(), Ok(CycleKind::Delta));
    assert_eq!(format!("{} {}", Consistency::Crash, TrackerKind::Ebpf), "crash ebpf");
    assert_eq!("Delta".parse::<CycleKind>().unwrap_err().to_string(), "\"Delta\" is not a cycle kind");
}
