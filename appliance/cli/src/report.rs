//! A cycle as it is told to programs and to people.

use crate::units;
use serde::Serialize;
use sluice_proto::cycle::{Consistency, CycleKind, State, TrackerKind};
use sluice_proto::wire::CycleView;
use sluice_proto::{CycleNo, Digest, SectorCount};

/// What `--json` prints of a cycle: these fields, in this order.
#[derive(Clone, Debug, Serialize)]
pub struct CycleReport {
    /// Its number.
    pub cycle: CycleNo,
    /// What it shipped.
    pub kind: CycleKind,
    /// Who noted the dirty sectors; none where it did not come to that.
    pub tracker: Option<TrackerKind>,
    /// What its image is worth; none where it was never committed.
    pub consistency: Option<Consistency>,
    /// Sectors of 512 bytes that were planned.
    pub dirty_sectors: SectorCount,
    /// Bytes read from the source, comparisons included; in the run that reports it.
    pub bytes_read: u64,
    /// Bytes of sealed segments and manifest that came to the appliance.
    pub bytes_sent: u64,
    /// From its beginning to its verdict.
    pub seconds: f64,
    /// Whether the sectors that were written are those of the manifest; none where it was not compared.
    pub bitmaps_equal: Option<bool>,
    /// BLAKE3 of what was shipped, at the source.
    pub source_digest: Option<Digest>,
    /// BLAKE3 of the same, as read back from the target.
    pub target_digest: Option<Digest>,
    /// Whether all of it is proven.
    pub verified: bool,
    /// Why not, in words.
    pub error: Option<String>,
}

impl CycleReport {
    /// The report of a cycle that has ended.
    pub fn new(view: &CycleView, bytes_read: u64) -> Self {
        let verified = view.state == State::Verified;
        let why = || {
            let reason = view.reason.map_or("not ended", |reason| reason.as_str());
            view.detail.as_ref().map_or_else(|| reason.to_owned(), |detail| format!("{reason}: {detail}"))
        };
        Self {
            cycle: view.cycle,
            kind: view.kind,
            tracker: view.tracker,
            consistency: view.consistency,
            dirty_sectors: view.sectors,
            bytes_read,
            bytes_sent: view.bytes_sent.0,
            seconds: view.end_ms.map_or(0, |end| end.saturating_sub(view.start_ms)) as f64 / 1000.0,
            bitmaps_equal: view.bitmaps_equal,
            source_digest: view.source_digest,
            target_digest: view.target_digest,
            verified,
            error: (!verified).then(why),
        }
    }

    /// One JSON object.
    pub fn json(&self) -> String {
        // Plain values only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether both digests are there and equal.
    pub fn digests_equal(&self) -> Option<bool> {
        Some(self.source_digest? == self.target_digest?)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let word = |known: Option<&'static str>| known.unwrap_or("-");
        let head = format!(
            "cycle {} ({}, {}, {}): {} sectors, read {}, sent {}, {:.2} s",
            self.cycle,
            self.kind,
            word(self.tracker.map(TrackerKind::as_str)),
            word(self.consistency.map(Consistency::as_str)),
            self.dirty_sectors,
            units::bytes(self.bytes_read),
            units::bytes(self.bytes_sent),
            self.seconds
        );
        match (&self.error, self.target_digest) {
            (None, Some(digest)) => format!("{head}: verified, BLAKE3 {digest}"),
            (None, None) => format!("{head}: verified"),
            (Some(error), _) => format!("{head}: FAILED: {error}"),
        }
    }
}

/// A table of cycles, one line each.
pub fn table(cycles: &[CycleReport]) -> String {
    const HEAD: [&str; 9] = [
        "cycle",
        "kind",
        "dirty sectors",
        "bytes read",
        "bytes sent",
        "seconds",
        "consistency",
        "bitmaps equal",
        "digests equal",
    ];
    let yes_no = |known: Option<bool>| known.map_or("-", |yes| if yes { "yes" } else { "NO" }).to_owned();
    let row = |c: &CycleReport| {
        [
            c.cycle.to_string(),
            c.kind.to_string(),
            c.dirty_sectors.to_string(),
            c.bytes_read.to_string(),
            c.bytes_sent.to_string(),
            format!("{:.2}", c.seconds),
            c.consistency.map_or("-", Consistency::as_str).to_owned(),
            yes_no(c.bitmaps_equal),
            yes_no(c.digests_equal()),
        ]
    };
    let rows: Vec<[String; 9]> = std::iter::once(HEAD.map(str::to_owned)).chain(cycles.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| match column {
                1 | 6 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for failed in cycles.iter().filter_map(|c| Some((c.cycle, c.error.as_ref()?))) {
        text.push_str(&format!("cycle {} failed: {}\n", failed.0, failed.1));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_proto::ByteCount;
    use sluice_proto::cycle::FailReason;

    fn view(state: State) -> CycleView {
        CycleView {
            cycle: CycleNo(7),
            kind: CycleKind::Delta,
            state,
            tracker: Some(TrackerKind::Ebpf),
            consistency: Some(Consistency::Crash),
            sectors: SectorCount(16),
            sectors_stored: SectorCount(16),
            bytes_sent: ByteCount(900),
            start_ms: 1000,
            end_ms: Some(2500),
            source_digest: Some(Digest([1; 32])),
            target_digest: Some(Digest([1; 32])),
            bitmaps_equal: Some(true),
            reason: (state == State::Failed).then_some(FailReason::TargetFull),
            detail: Some("no room on /srv".into()),
        }
    }

    #[test]
    fn the_json_is_kept_to_the_letter() {
        let one = "01".repeat(32);
        assert_eq!(
            CycleReport::new(&view(State::Verified), 8192).json(),
            format!(
                "{{\"cycle\":7,\"kind\":\"delta\",\"tracker\":\"ebpf\",\"consistency\":\"crash\",\"dirty_sectors\":16,\
                 \"bytes_read\":8192,\"bytes_sent\":900,\"seconds\":1.5,\"bitmaps_equal\":true,\
                 \"source_digest\":\"{one}\",\"target_digest\":\"{one}\",\"verified\":true,\"error\":null}}"
            )
        );
    }

    #[test]
    fn a_failed_cycle_says_why_in_every_form() {
        let failed = CycleReport::new(&view(State::Failed), 0);
        assert_eq!(failed.error.as_deref(), Some("target_full: no room on /srv"));
        assert!(failed.json().contains("\"verified\":false,\"error\":\"target_full: no room on /srv\""));
        assert!(failed.line().contains("FAILED: target_full"));
        assert!(table(&[failed]).ends_with("cycle 7 failed: target_full: no room on /srv\n"));
    }

    #[test]
    fn the_table_has_a_line_a_cycle() {
        let mut unlike = CycleReport::new(&view(State::Verified), 8192);
        unlike.target_digest = Some(Digest([2; 32]));
        let text = table(&[CycleReport::new(&view(State::Verified), 8192), unlike]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("cycle  kind   dirty sectors"), "{text}");
        assert!(lines[1].ends_with("yes            yes") && lines[2].ends_with("NO"), "{text}");
    }
}
