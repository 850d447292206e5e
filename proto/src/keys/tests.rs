use super::*;

fn envelope() -> (KeyEnvelope, HydratorKey, DataKey) {
    let hydrator = HydratorKey::generate().unwrap();
    let key = DataKey::new([7; 32]);
    let signer = SigningKey::from_seed(&[1; 32]);
    let envelope = KeyEnvelope::wrap(&key, DiskId([5; 16]), Generation(3), hydrator.public(), &signer).unwrap();
    (envelope, hydrator, key)
}

#[test]
fn a_wrapped_key_opens_only_for_its_hydrator() {
    let (envelope, hydrator, key) = envelope();
    let kept = HydratorKey::from_bytes(&hydrator.expose()).unwrap();
    assert_eq!(envelope.open(&kept, None).unwrap().expose(), key.expose());
    let other = HydratorKey::generate().unwrap();
    assert_eq!(envelope.open(&other, None).unwrap_err().kind, FormatErrorKind::Misplaced);
}

#[test]
fn an_envelope_that_was_signed_anew_is_refused() {
    let (envelope, hydrator, key) = envelope();
    let signer = SigningKey::from_seed(&[1; 32]);
    let other = HydratorKey::generate().unwrap();
    let sealed = [&envelope.sealed[..], &envelope.encapsulated, &envelope.signature].concat();
    assert!(!sealed.windows(8).any(|piece| key.expose().windows(8).any(|part| part == piece)));
    // As if by the agent itself, so that nothing but the wrapping can tell.
    let sign = |mut envelope: KeyEnvelope| {
        envelope.signature = signer.0.sign(&envelope.signed_bytes()).as_ref().to_vec();
        envelope
    };
    let for_other = sign(KeyEnvelope { hydrator: Digest::of(other.public()), ..envelope.clone() });
    assert_eq!(for_other.open(&other, None).unwrap_err().kind, FormatErrorKind::Forged);
    for moved in [
        KeyEnvelope { generation: Generation(4), ..envelope.clone() },
        KeyEnvelope { disk: DiskId([6; 16]), ..envelope.clone() },
        KeyEnvelope { sealed: key.expose().to_vec(), ..envelope.clone() },
    ] {
        assert_eq!(sign(moved).open(&hydrator, None).unwrap_err().kind, FormatErrorKind::Forged);
    }
    assert_eq!(sign(envelope).open(&hydrator, None).unwrap().expose(), key.expose());
}

#[test]
fn a_key_of_which_a_bit_flipped_is_refused() {
    let kept = HydratorKey::generate().unwrap().expose();
    // One in the private half, one in the public one.
    for at in [3, 40] {
        let mut damaged = kept.clone();
        damaged[at] ^= 1;
        assert_eq!(HydratorKey::from_bytes(&damaged).err().map(|e| e.kind), Some(FormatErrorKind::Forged));
    }
    assert!(HydratorKey::from_bytes(&kept).is_ok());
}

#[test]
fn a_moved_or_changed_envelope_is_refused() {
    let (envelope, hydrator, _) = envelope();
    let changes: [fn(&mut KeyEnvelope); 5] = [
        |e| e.generation = Generation(4),
        |e| e.disk = DiskId([6; 16]),
        |e| e.sealed[0] ^= 1,
        |e| e.encapsulated[0] ^= 1,
        |e| e.signature[0] ^= 1,
    ];
    for (i, change) in changes.into_iter().enumerate() {
        let mut changed = envelope.clone();
        change(&mut changed);
        assert_eq!(changed.open(&hydrator, None).unwrap_err().kind, FormatErrorKind::Forged, "change {i}");
    }
}

#[test]
fn a_key_from_another_agent_is_refused_once_the_first_is_pinned() {
    let (envelope, hydrator, key) = envelope();
    let pin = envelope.signer.clone();
    let thief = SigningKey::from_seed(&[2; 32]);
    let forged = KeyEnvelope::wrap(&key, DiskId([5; 16]), Generation(4), hydrator.public(), &thief).unwrap();
    assert!(forged.open(&hydrator, None).is_ok());
    assert_eq!(forged.open(&hydrator, Some(&pin)).unwrap_err().kind, FormatErrorKind::Misplaced);
}

#[test]
fn the_envelope_survives_json() {
    let (envelope, ..) = envelope();
    let text = serde_json::to_string(&envelope).unwrap();
    assert_eq!(serde_json::from_str::<KeyEnvelope>(&text).unwrap(), envelope);
}

#[test]
fn each_salt_cycle_and_kind_has_a_key_of_its_own() {
    let key = DataKey::new([9; 32]);
    let base = Header {
        kind: ObjectKind::Segment,
        suite: Suite::Aes256Gcm,
        disk: DiskId([1; 16]),
        generation: Generation(1),
        cycle: crate::CycleNo(1),
        salt: [0; 32],
        fields: [0; 3],
    };
    let seal = |h: &Header| {
        let mut buf = b"the same bytes".to_vec();
        key.object_key(h).seal(Part { block: 0, frame: 0 }, b"", &mut buf, 0);
        buf
    };
    let mut sealed = vec![seal(&base)];
    sealed.push(seal(&Header { salt: [1; 32], ..base.clone() }));
    sealed.push(seal(&Header { cycle: crate::CycleNo(2), ..base.clone() }));
    sealed.push(seal(&Header { kind: ObjectKind::Manifest, ..base.clone() }));
    sealed.push(seal(&Header { disk: DiskId([2; 16]), ..base }));
    let distinct: std::collections::BTreeSet<_> = sealed.iter().collect();
    assert_eq!(distinct.len(), sealed.len());
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", DataKey::new([0x41; 32])), "DataKey(..)");
}

#[test]
fn only_the_data_key_proves_a_verdict() {
    let (key, manifest) = (DataKey::new([7; 32]), Digest([1; 32]));
    let proof = key.proof(manifest);
    assert!(key.is_proof(manifest, proof));
    assert!(!key.is_proof(Digest([2; 32]), proof), "of another manifest");
    assert!(!DataKey::new([8; 32]).is_proof(manifest, proof), "by another key");
    assert!(!key.is_proof(manifest, manifest));
}
