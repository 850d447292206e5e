use super::scheduler::piece_bytes;
use super::*;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

mod shared;

fn limit(text: &str) -> Limit {
    text.parse().unwrap()
}

/// More than 128 bits hold.
const BEYOND: &str = "99999999999999999999.999999999GiB/s";

#[test]
fn rates_read_and_print() {
    let bits = |text: &str| text.parse::<Rate>().unwrap().bits();
    assert_eq!(bits("200Mbit/s"), 200_000_000);
    assert_eq!(bits("50MB/s"), 400_000_000);
    assert_eq!(bits("1.5Gbit"), 1_500_000_000);
    assert_eq!(bits("0.5 kB/s"), 4_000);
    assert_eq!(bits("1MiB/s"), 8 << 20);
    assert_eq!(bits("7bit/s"), 7);
    assert_eq!(bits("0"), 0);
    for (text, printed) in [("1500kbit/s", "1500kbit/s"), ("50MB/s", "400Mbit/s"), ("1B/s", "8bit/s"), ("0", "0bit/s")]
    {
        assert_eq!(text.parse::<Rate>().unwrap().to_string(), printed);
    }
    assert_eq!(limit("unlimited"), Limit::Unlimited);
    let bad = [
        "",
        "200",
        "Mbit/s",
        "200Mb/s",
        "200mbit/s",
        "-1Mbit/s",
        "1e3bit/s",
        "1..5MB/s",
        "1.MB/s",
        ".5MB/s",
        "1 2MB/s",
    ];
    for text in bad.into_iter().chain(["99999999999999999999Gbit/s", "1.0000000001Gbit/s", BEYOND]) {
        let error = text.parse::<Limit>().unwrap_err().to_string();
        assert!(error.contains("200Mbit/s") && error.contains(&format!("{text:?}")), "{error}");
    }
}

proptest! {
    #[test]
    fn every_rate_reads_back_as_itself(bits in any::<u64>()) {
        let rate = Rate::bits_per_second(bits);
        prop_assert_eq!(rate.to_string().parse(), Ok(rate));
    }

    #[test]
    fn no_text_makes_the_parsers_fall_over(text in ".{0,40}") {
        let _ = text.parse::<Limit>();
        if let Ok(window) = text.parse::<Window>() {
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }
    }
}

#[test]
fn windows_read_and_print() {
    let same = |text: &str| assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
    same("Mon-Fri 08:00-18:00");
    same("Mon,Wed-Thu,Sun 22:00-06:30");
    same("00:00-24:00");
    let as_printed = |text: &str| text.parse::<Window>().unwrap().to_string();
    assert_eq!(as_printed("sat,SUN"), "Sat-Sun 00:00-24:00");
    assert_eq!(
        as_printed("Fri-Mon 1:00-2:00".replace("1:", "01:").replace("2:", "02:").as_str()),
        "Mon,Fri-Sun 01:00-02:00"
    );
    for text in ["", "Mon", "08:00-18:00"] {
        assert_eq!(text.parse::<Window>().is_ok(), !text.is_empty(), "{text}");
    }
    for bad in [
        "Mon-Fri 8-18",
        "Mo 08:00-18:00",
        "08:00-08:00",
        "24:00-06:00",
        "08:00-24:01",
        "08:60-09:00",
        "Mon 1:00-02:00",
        "Mon- 08:00-18:00",
        "Mon 08:00",
        "Mon 08:00-18:00 x",
        "+1:00-02:00",
    ] {
        assert!(bad.parse::<Window>().unwrap_err().to_string().contains("Mon-Fri 08:00-18:00"), "{bad}");
    }
}

/// Berlin 2026: clocks go forward on 29 March at 02:00 and back on 25 October at 03:00.
#[test]
fn the_limit_goes_by_the_wall_clock_of_the_zone() {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let windows = [("Mon-Fri 08:00-18:00", "20Mbit/s"), ("Sat 22:00-06:00", "0"), ("02:00-03:00", "1Mbit/s")];
    let limits = Limits::parse(Some("200Mbit/s"), windows, zone).unwrap();
    let at = |instant: &str| limits.at(instant.parse::<Timestamp>().unwrap()).to_string();
    // Summer, UTC+2. 2026-07-01 is a Wednesday.
    assert_eq!(at("2026-07-01T05:59:59Z"), "200Mbit/s");
    assert_eq!(at("2026-07-01T06:00:00Z"), "20Mbit/s");
    assert_eq!(at("2026-07-01T15:59:59Z"), "20Mbit/s");
    assert_eq!(at("2026-07-01T16:00:00Z"), "200Mbit/s");
    // Winter, UTC+1.
    assert_eq!(at("2026-01-07T06:30:00Z"), "200Mbit/s");
    assert_eq!(at("2026-01-07T07:00:00Z"), "20Mbit/s");
    // From Saturday night into Sunday, before the window that is named later; not from Friday or into Monday.
    assert_eq!(at("2026-07-04T21:00:00Z"), "0bit/s");
    assert_eq!(at("2026-07-05T00:30:00Z"), "0bit/s");
    assert_eq!(at("2026-07-05T04:00:00Z"), "200Mbit/s");
    assert_eq!(at("2026-07-03T21:00:00Z"), "200Mbit/s");
    assert_eq!(at("2026-07-05T21:00:00Z"), "200Mbit/s");
    // The hour from 02:00 is skipped in spring ...
    let spring = Limits::parse(None, [("02:00-03:00", "1Mbit/s")], TimeZone::get("Europe/Berlin").unwrap()).unwrap();
    let minutes = |from: &str| {
        let from: Timestamp = from.parse().unwrap();
        (0..24 * 60i64).filter(|m| spring.at(from + jiff::SignedDuration::from_mins(*m)) != Limit::Unlimited).count()
    };
    assert_eq!(minutes("2026-03-28T23:00:00Z"), 0);
    // ... and comes twice in autumn.
    assert_eq!(minutes("2026-10-24T22:00:00Z"), 120);
    assert_eq!(minutes("2026-07-01T22:00:00Z"), 60);
}

/// The burst that the tests grant: what the rate gives in 100 ms, at least 4 KiB.
fn burst_bits(rate: Rate) -> u128 {
    (u128::from(rate.bits()) / 10).max(8 * 4096)
}

#[derive(Clone, Debug)]
enum Step {
    Submit { disk: u8, bytes: u64 },
    Wait { ms: u64 },
    Cancel { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4u8, 0..300_000u64).prop_map(|(disk, bytes)| Step::Submit { disk, bytes }),
        3 => (0..3_000u64).prop_map(|ms| Step::Wait { ms }),
        1 => (0..20usize).prop_map(|nth| Step::Cancel { nth }),
    ]
}

proptest! {
    /// In every stretch of time, from any grant to any other, no more than rate times time plus the burst.
    #[test]
    fn never_more_than_the_rate_and_a_burst(
        rate in 1_000..1_000_000_000u64,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let rate = Rate::bits_per_second(rate);
        let mut scheduler = Scheduler::new(Limit::Rate(rate), Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut open = BTreeMap::new();
        let mut history: Vec<(Duration, u128)> = Vec::new();
        for step in steps {
            match step {
                Step::Submit { disk, bytes } => drop(open.insert(scheduler.submit(disk, bytes), bytes)),
                Step::Wait { ms } => now += Duration::from_millis(ms),
                Step::Cancel { nth } => {
                    if let Some(ticket) = open.keys().nth(nth).copied() {
                        scheduler.cancel(ticket);
                        open.remove(&ticket);
                    }
                }
            }
            let mut granted = Vec::new();
            scheduler.advance(now, Limit::Rate(rate), &mut granted);
            for ticket in granted {
                let bytes = open.remove(&ticket).expect("granted once, and only what was asked");
                history.push((now, u128::from(bytes) * 8));
            }
        }
        for (i, (begin, first)) in history.iter().enumerate() {
            // The first may have been granted in part before; whatever followed may not.
            let mut sum = 0;
            for (end, bits) in &history[i + 1..] {
                sum += bits;
                let allowed = u128::from(rate.bits()) * (*end - *begin).as_nanos() / 1_000_000_000;
                let begun = 4 * 300_000 * 8 + first;
                prop_assert!(sum <= allowed + burst_bits(rate) + begun, "{sum} bits from {begin:?} to {end:?}");
            }
        }
        let total: u128 = history.iter().map(|(_, bits)| bits).sum();
        let allowed = u128::from(rate.bits()) * now.as_nanos() / 1_000_000_000 + burst_bits(rate);
        prop_assert!(total <= allowed, "{total} bits in {now:?}, {allowed} allowed");
    }

    /// Disks that always have something open get the same within 2 %, however many requests they have open and however large.
    #[test]
    fn disks_share_evenly_and_none_starves(
        connections in prop::collection::vec((1..9usize, 1..10u64), 2..5),
        rate in 100_000..2_000_000_000u64,
    ) {
        let limit = Limit::Rate(Rate::bits_per_second(rate));
        let connections: Vec<_> = connections.into_iter().map(|(n, pieces)| (n, pieces * piece_bytes(limit))).collect();
        let served = saturate(&connections, |_| limit, Duration::from_secs(20));
        let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
        // A request that is served but in part counts as nothing here, hence the connections' worth of slack.
        let slack: u64 = connections.iter().map(|(count, bytes)| *count as u64 * bytes).max().unwrap();
        // The burst of the beginning goes to whoever comes first.
        let slack = slack + rate / 80 + 4 * QUANTUM_BYTES.max(piece_bytes(limit));
        prop_assert!(most - least <= slack + most / 50, "{served:?}");
        let total = served.iter().sum::<u64>();
        let possible = rate / 8 * 20;
        prop_assert!(total + 4 * slack + rate / 80 >= possible * 99 / 100, "{total} of {possible} used");
    }
}

/// Runs disks of so many connections, each of which asks again for so many bytes as soon as it was served.
fn saturate(connections: &[(usize, u64)], limit: impl Fn(Duration) -> Limit, time: Duration) -> Vec<u64> {
    let mut scheduler = Scheduler::new(limit(Duration::ZERO), Duration::ZERO);
    let mut served = vec![0; connections.len()];
    let mut owner = BTreeMap::new();
    for (disk, (count, bytes)) in connections.iter().enumerate() {
        for _ in 0..*count {
            owner.insert(scheduler.submit(disk, *bytes), disk);
        }
    }
    let mut now = Duration::ZERO;
    while now < time {
        now += scheduler.idle_time().expect("somebody always waits");
        let mut granted = Vec::new();
        scheduler.advance(now, limit(now), &mut granted);
        let mut next = 0;
        while let Some(ticket) = granted.get(next) {
            next += 1;
            let disk = owner.remove(ticket).unwrap();
            served[disk] += connections[disk].1;
            owner.insert(scheduler.submit(disk, connections[disk].1), disk);
            scheduler.advance(now, limit(now), &mut granted);
        }
    }
    served
}

#[test]
fn eight_connections_get_no_more_than_one() {
    let served = saturate(&[(8, 65_536), (1, 125_000)], |_| limit("100Mbit/s"), Duration::from_secs(30));
    let ratio = served[0] as f64 / served[1] as f64;
    assert!((0.99..1.01).contains(&ratio), "{served:?}");
}

#[test]
fn another_limit_holds_at_once() {
    let change = Duration::from_secs(10);
    let limits = |now| if now < change { limit("80Mbit/s") } else { limit("8Mbit/s") };
    let before = saturate(&[(2, 10_000)], limits, change)[0];
    let after = saturate(&[(2, 10_000)], limits, change * 2)[0] - before;
    assert!((99_000_000..=101_100_000).contains(&before), "{before}");
    assert!((9_900_000..=11_200_000).contains(&after), "{after}");
}

#[test]
fn a_pause_stops_and_its_end_goes_on() {
    let mut scheduler = Scheduler::new(limit("8Mbit/s"), Duration::ZERO);
    let mut granted = Vec::new();
    scheduler.submit('a', 10_000_000);
    scheduler.advance(Duration::from_secs(1), limit("0"), &mut granted);
    scheduler.advance(Duration::from_secs(3600), limit("0"), &mut granted);
    assert!(granted.is_empty());
    assert_eq!(scheduler.idle_time(), Some(Duration::from_secs(1)), "who waits looks whether the pause is over");
    scheduler.advance(Duration::from_secs(3601), Limit::Unlimited, &mut granted);
    assert_eq!(granted.len(), 1);
    assert_eq!(scheduler.idle_time(), None);
}

#[test]
fn what_was_taken_back_is_granted_to_others() {
    let mut scheduler = Scheduler::new(limit("8kbit/s"), Duration::ZERO);
    let mut granted = Vec::new();
    let first = scheduler.submit('a', 8_000);
    scheduler.advance(Duration::ZERO, limit("8kbit/s"), &mut granted);
    scheduler.cancel(first);
    let second = scheduler.submit('b', 4_000);
    scheduler.advance(Duration::ZERO, limit("8kbit/s"), &mut granted);
    assert_eq!(granted, [second], "the burst of 4096 bytes was given back");
    scheduler.cancel(second);
}
