use super::*;
use crate::machine::print;

#[test]
fn the_table_and_its_picture() {
    insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("disk_table", print(TABLE));
        insta::assert_snapshot!("disk_picture", picture());
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
    let refused = State::CutOver.on(Event::InitialStarted).unwrap_err();
    assert_eq!(refused.to_string(), "impossible: a disk that is cut_over was told initial_started");
}

#[test]
fn doubt_is_always_heard_and_a_delta_never_follows_it() {
    for state in State::ALL {
        let after = state.on(Event::Doubt).unwrap();
        assert_ne!(after.next_kind(), Some(CycleKind::Delta));
        assert_ne!(after.next_kind(), Some(CycleKind::Final));
    }
}

#[test]
fn only_a_comparison_without_new_doubt_settles_doubt() {
    // Every way out of resync that does not cut over leads through resyncing.
    let out: Vec<State> =
        TABLE.iter().filter(|row| row.0 == State::Resync && row.2 != row.0).map(|row| row.2).collect();
    assert_eq!(out, [State::CutOver, State::Resyncing]);
    let out: Vec<Event> =
        TABLE.iter().filter(|row| row.2 == State::InStep && row.0 == State::Resyncing).map(|row| row.1).collect();
    assert_eq!(out, [Event::ResyncVerified]);
    let late = [Event::ResyncStarted, Event::Doubt, Event::ResyncVerified];
    let after = late.iter().try_fold(State::Resync, |state, event| state.on(*event));
    assert_eq!(after, Ok(State::Resync));
}

#[test]
fn the_kind_that_is_due_can_be_started_and_verified() {
    for state in State::ALL {
        let Some(kind) = state.next_kind() else { continue };
        // A comparison that is running is not started a second time.
        let running = match Event::started(kind) {
            Some(event) if *state != State::Resyncing => state.on(event).unwrap(),
            _ => *state,
        };
        assert_eq!(running.next_kind(), Some(kind));
        let end = running.on(Event::verified(kind)).unwrap();
        assert!(matches!(end, State::InStep | State::CutOver), "{state}");
        if let Some(event) = Event::failed(kind) {
            assert!(running.on(event).is_ok());
        }
    }
}

#[test]
fn every_state_is_reached() {
    let mut reached = vec![State::Registered];
    while let Some(row) = TABLE.iter().find(|row| reached.contains(&row.0) && !reached.contains(&row.2)) {
        reached.push(row.2);
    }
    assert_eq!(reached.len(), State::ALL.len());
}
