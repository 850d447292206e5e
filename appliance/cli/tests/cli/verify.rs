//! `sluice verify`: three answers, three exit codes.

use crate::support::{Scene, sluice, text};

#[test]
fn equal_disks_give_0() {
    let scene = Scene::new(8 << 20);
    let copy = scene.at("copy.raw");
    std::fs::copy(&scene.source, &copy).expect("a copy");
    let ended = sluice(&["verify", text(&scene.source), text(&copy)]);
    ended.must(0, &["equal", "BLAKE3"]);
    let json = sluice(&["verify", text(&scene.source), text(&copy), "--json"]);
    let json = json.must(0, &[]).json();
    assert_eq!((&json["equal"], &json["bytes"]), (&true.into(), &(8 << 20).into()));
    assert_eq!(json["source_digest"], json["target_digest"]);
}

#[test]
fn different_disks_give_1_and_the_extents() {
    let scene = Scene::new(8 << 20);
    let copy = scene.at("copy.raw");
    std::fs::copy(&scene.source, &copy).expect("a copy");
    scene.scribble(4096, 1024);
    scene.scribble(7 << 20, 512);
    sluice(&["verify", text(&scene.source), text(&copy)])
        .must(1, &["DIFFERENT: 3 sectors in 2 extents", "sectors 8..10", "sectors 14336..14337"]);
    let json = sluice(&["verify", text(&scene.source), text(&copy), "--json"]);
    let json = json.must(1, &[]).json();
    assert_eq!(json["equal"], false);
    assert_eq!(json["extents"], serde_json::json!([[8, 2], [14336, 1]]));
    assert_eq!(json["differing_sectors"], 3);
}

#[test]
fn what_cannot_be_compared_gives_2() {
    let scene = Scene::new(1 << 20);
    let missing = scene.at("missing.vhd");
    sluice(&["verify", text(&scene.source), text(&missing)]).must(2, &["missing.vhd"]);
    // What is said to be a VHD and is none can't be compared either.
    let ended = sluice(&["verify", text(&scene.source), text(&scene.source), "--target-format", "vhd"]);
    ended.must(2, &["source.img"]);
}
