//! State files of agent, appliance and hydrator.

use super::{Findings, whole};
use crate::outcome::Refusal;
use crate::units;
use serde_json::Value;
use sluice_hydrator::ledger::{Ledger, State};
use sluice_proto::{DISK_SECTORS_MAX, Digest, SectorBitmap, SectorCount};
use std::path::Path;

/// Explains a state file; `None` where it is none.
pub fn look(path: &Path, head: &[u8]) -> Result<Option<Findings>, Refusal> {
    Ok(match head {
        head if head.starts_with(b"SLUICLED") => Some(ledger(&whole(path)?)),
        head if head.starts_with(b"SLUICLOG") => Some(log(&whole(path)?)),
        head if head.starts_with(b"SLBM") => Some(bitmap(&whole(path)?)),
        head if head.starts_with(b"SQLite format 3\0") => Some(database(path)),
        head if head.starts_with(b"sluice-hydrator-key-") => Some(key("the hydrator's own key")),
        head if head.starts_with(b"{") => record(&whole(path)?),
        _ if path.file_name().is_some_and(|name| name == "signing.key") => Some(key("the agent's signing key")),
        _ => None,
    })
}

fn ledger(bytes: &[u8]) -> Findings {
    let mut found = Findings::of("a hydrator's ledger");
    let ledger = match Ledger::decode(bytes) {
        Ok(ledger) => ledger,
        Err(text) => {
            found.wrong(text);
            return found;
        }
    };
    found.good("magic, version, checksum");
    found.fact("disk", ledger.disk);
    found.fact("source's size", format!("{} bytes ({})", ledger.source_size, units::bytes(ledger.source_size.0)));
    if let Some(target) = &ledger.target {
        let made = if target.made { "" } else { ", not made to its end" };
        found.fact("target", format!("{} ({}{made})", target.path, target.format));
    }
    found.fact("generation", ledger.generation);
    match &ledger.verified {
        Some(done) => found.fact("verified", format!("cycle {}, BLAKE3 {}", done.cycle.cycle, done.digest)),
        None => found.fact("verified", "nothing yet"),
    }
    found.fact(
        "now",
        match &ledger.state {
            State::Idle => "nothing is under way".to_owned(),
            State::Initial { cycle, applied, .. } => {
                format!(
                    "cycle {cycle}: an initial copy, {} blocks written",
                    applied.iter().map(|g| g.blocks).sum::<u64>()
                )
            }
            State::Applying { cycle } => {
                format!("cycle {} is being written; after a crash it is written again", cycle.cycle)
            }
            State::Torn { cycle } => format!("cycle {cycle} failed half-way; a later one brings its sectors again"),
        },
    );
    if let Some(doubt) = &ledger.doubt {
        found.note(format_args!("source and target will be compared: {doubt}"));
    }
    found
}

/// The header of a journal: magic, version, and four bytes of BLAKE3 over both.
const LOG_HEADER_BYTES: usize = 16;

/// Read here and not by `AppendLog`, which mends what it opens.
fn log(bytes: &[u8]) -> Findings {
    let mut found = Findings::of("a journal");
    found.fact("length", units::bytes(bytes.len() as u64));
    let Some(header) = bytes.get(..LOG_HEADER_BYTES) else {
        found.wrong("it is cut short within its header");
        return found;
    };
    match Digest::of(&header[..12]).0[..4] == header[12..] {
        true => found.good("header: magic, version, checksum"),
        false => found.wrong("header: the checksum does not fit"),
    }
    let (mut at, mut records) = (LOG_HEADER_BYTES, 0);
    while let Some(len) = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes) {
        let end = at.saturating_add(20).saturating_add(len as usize);
        if end > bytes.len() {
            found.note(format_args!("a torn tail of {} bytes, to be cut off at the next start", bytes.len() - at));
            break;
        }
        at = end;
        records += 1;
    }
    found.fact("records", records);
    found
}

fn bitmap(bytes: &[u8]) -> Findings {
    let mut found = Findings::of("a sector bitmap");
    match SectorBitmap::decode(bytes, SectorCount(DISK_SECTORS_MAX)) {
        Ok(bitmap) => {
            found.good("structure and checksum");
            let sectors = bitmap.count();
            found.fact("sectors", format!("{sectors} ({})", units::bytes(sectors.bytes().0)));
            found.fact("runs", bitmap.runs().count());
            if let (Some(first), Some(last)) = (bitmap.first(), bitmap.last()) {
                found.fact("between", format!("sector {first} and sector {last}"));
            }
            found.fact("BLAKE3", Digest(bitmap.digest()));
        }
        Err(error) => found.wrong(error),
    }
    found
}

fn database(path: &Path) -> Findings {
    let mut found = Findings::of("an SQLite database: the appliance's disks, cycles, policy and audit log");
    found.note(format_args!("sqlite3 {} '.schema' shows what is in it", path.display()));
    found
}

fn key(what: &str) -> Findings {
    let mut found = Findings::of(what);
    found.note("secret: it is not shown; keep a copy where it is safe");
    found
}

/// Fields that hold secrets, or long binary values of no use to people.
const HIDDEN: [&str; 4] = ["data_key", "sealed", "encapsulated", "signature"];

fn record(bytes: &[u8]) -> Option<Findings> {
    let fields = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return None,
        Err(error) => {
            let mut found = Findings::of("a damaged record");
            found.wrong(error);
            return Some(found);
        }
    };
    let has = |name| fields.contains_key(name);
    let mut found = Findings::of(match () {
        () if has("data_key") => "the agent's record of a disk",
        () if has("cycle") && has("tracker") => "the agent's plan of a running cycle",
        () if has("verified") && has("sectors") => "the tag of the agent's own table of digests",
        () if has("source") && has("cache") => "what `sluice replicate` was begun with",
        () => return None,
    });
    match fields.get("version").map(Value::as_u64) {
        Some(Some(1)) | None => found.good("it can be read"),
        Some(version) => found.wrong(format_args!("version {version:?}, this Sluice reads version 1")),
    }
    for (name, value) in &fields {
        show(&mut found, name, value);
    }
    Some(found)
}

fn show(found: &mut Findings, name: &str, value: &Value) {
    let last = name.rsplit('.').next().unwrap_or(name);
    match value {
        _ if HIDDEN.contains(&last) => found.fact(name, "(not shown)"),
        Value::Object(fields) => {
            fields.iter().for_each(|(inner, value)| show(found, &format!("{name}.{inner}"), value))
        }
        Value::Array(items) if items.iter().all(Value::is_number) => {
            let bytes: Option<Vec<u64>> = items.iter().map(Value::as_u64).collect();
            let hex: String = bytes.unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect();
            found.fact(name, hex);
        }
        Value::String(text) => found.fact(name, text),
        other => found.fact(name, other),
    }
}
