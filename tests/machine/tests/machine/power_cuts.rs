//! Power cuts: a machine on whose only disk everything lies is recorded from the first start of Sluice on, and comes up
//! again from what a cut leaves, at every flush and at random places between, where some of what was not flushed is there,
//! some is not, and some is torn. Each time it recovers: the next cycle is verified, ships only what was ever written
//! since the target was complete, and source and target are equal.
//!
//! `SLUICE_POWER_POINTS=N` takes every flush and N places between; without it a dozen are taken. `SLUICE_POWER_FORMAT` is the
//! target's format, by the words of the command line; without it the seed chooses one.

use sluice_crash::Noise;
use sluice_e2e::Format;
use sluice_machine::{Cut, Guest, Place, Recording, Recovery, Replay, SOURCE, STATE, Survivor};
use sluice_test_support::command::is_root;
use std::time::Instant;

/// Sectors in a grain of 64 KiB, which is what a comparison finds to differ.
const GRAIN_SECTORS: u64 = 128;
/// How many cycles are recorded, the initial one among them.
const CYCLES: usize = 3;
/// How many failures are shown.
const FAILURES_MAX: usize = 20;

#[test]
fn power_is_cut_anywhere() {
    if !is_root("power_is_cut_anywhere") || !Guest::can_boot("power_is_cut_anywhere") {
        return;
    }
    let mut noise = Noise::announced("power_is_cut_anywhere");
    let points = std::env::var("SLUICE_POWER_POINTS").ok().map(|text| text.parse().expect("a number of places"));
    let format = format(&mut noise);
    let place = Place::new(format);
    let recording = Recording::make(&place, CYCLES, &mut noise);
    let log = &recording.log;
    let all = log.cuts_at_flushes();
    eprintln!(
        "target {}: {} cycles, {} operations, {} flushes, {} of them with something before them",
        format.word(),
        recording.cycles,
        log.len(),
        log.flushes(),
        all.len()
    );
    assert!(all.len() >= 50, "so many cycles make durable records more often");
    let (mut cuts, between) = match points {
        Some(points) => (all, points),
        None => (all.iter().copied().skip(3).step_by(all.len() / 6).take(6).collect(), 6),
    };
    cuts.extend(log.cuts_between(between, &mut noise));
    cuts.sort_unstable();
    survive(&place, &recording, &cuts, &mut noise);
}

/// The format that the environment wants, else one by the seed.
fn format(noise: &mut Noise) -> Format {
    let Ok(wanted) = std::env::var("SLUICE_POWER_FORMAT") else {
        return Format::ALL[noise.below(Format::ALL.len() as u64) as usize];
    };
    let found = Format::ALL.into_iter().find(|format| format.word() == wanted);
    found.unwrap_or_else(|| panic!("SLUICE_POWER_FORMAT={wanted} is none of {:?}", Format::ALL.map(Format::word)))
}

/// Panics unless the machine recovers from every cut.
fn survive(place: &Place, recording: &Recording, cuts: &[Cut], noise: &mut Noise) {
    let mut replay = Replay::new(&recording.log, recording.base.clone()).with_ext4_at(STATE.start);
    let recovery = Recovery::new(place);
    let (mut failures, mut complete, mut resyncs) = (Vec::new(), false, 0_u32);
    let start = Instant::now();
    for (i, cut) in cuts.iter().enumerate() {
        if i > 0 && i % 50 == 0 {
            eprintln!("{i} cuts of {}, {} s", cuts.len(), start.elapsed().as_secs());
        }
        let result = recovery.after(&replay.cut(*cut, noise)).and_then(|survivor| {
            let kind = judge(&survivor, recording, *cut, complete)?;
            // A complete target stays so; a flush settles it, and what is between flushes may yet be lost.
            complete |= kind == "resync" && matches!(cut, Cut::AtFlush(_));
            resyncs += u32::from(kind == "resync");
            Ok(())
        });
        if let Err(why) = result {
            eprintln!("{cut:?}: {why}");
            failures.push(*cut);
            assert!(failures.len() < FAILURES_MAX, "and so on: {failures:?}");
        }
    }
    let flushes = cuts.iter().filter(|cut| matches!(cut, Cut::AtFlush(_))).count();
    eprintln!(
        "{flushes} flushes and {} places between: {} recovered, {resyncs} of them by a resync, in {:.0} s",
        cuts.len() - flushes,
        cuts.len() - failures.len(),
        start.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "not recovered: {failures:?}");
    assert!(resyncs > 0 && complete, "the last cuts are after the initial cycle");
}

/// The kind of the last cycle, if it is what it must be.
fn judge(survivor: &Survivor, recording: &Recording, cut: Cut, complete: bool) -> Result<String, String> {
    let Survivor { cycles } = survivor;
    let last = cycles.last().expect("there is one");
    let fresh = (last.kind == "initial" && !complete) || last.kind == "resync";
    if !fresh {
        return Err(format!("after a reboot nothing but a comparison can be trusted: {cycles:?}"));
    }
    let written = recording.log.grains_written(SOURCE, cut.entry()) as u64 * GRAIN_SECTORS;
    if last.kind == "resync" && last.dirty_sectors > written {
        return Err(format!("only {written} sectors can differ: {cycles:?}"));
    }
    Ok(last.kind.clone())
}
