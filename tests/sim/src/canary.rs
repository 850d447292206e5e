//! Canaries: builds with one check taken out, each of which the simulation must catch. One that is not caught means that
//! the simulation looks away, whatever it says of the real code.
//!
//! The tree is copied aside, one text is replaced, and the copy's simulation is built and run until a seed fails.

use anyhow::{Context, bail};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// One check taken out.
struct Mutation {
    /// What is broken.
    name: &'static str,
    /// The file, from the root.
    file: &'static str,
    /// The text that is there once.
    from: &'static str,
    /// What stands in its place.
    to: &'static str,
}

const MUTATIONS: &[Mutation] = &[
    Mutation {
        // The simulation's own tracker, so that it is the checker that is tried; `tracker_truth` tries the product's.
        name: "the tracker marks at issue only",
        file: "tests/sim/src/source.rs",
        from: "        inner.mark(extent, unmarked.as_ref());\n    }\n\n    /// The values are",
        to: "    }\n\n    /// The values are",
    },
    Mutation {
        name: "the sectors of a failed cycle are let go",
        file: "agent/src/journal.rs",
        from: "            self.add_carry(bitmap)?;\n        }\n        self.note_settled(cycle)",
        to: "            let _ = bitmap;\n        }\n        self.note_settled(cycle)",
    },
    Mutation {
        name: "dirty bits are released at upload, not at the proof",
        file: "agent/src/disk/ship.rs",
        from: "        self.committed = Some((cycle, Instant::now()));\n        Ok(())\n    }\n\n    pub(super) async fn check_size",
        to: "        self.committed = Some((cycle, Instant::now()));\n        self.journal.begin(self.journal.plan().map(|p| \
             p.0.clone()).expect(\"a plan\"), sluice_proto::SectorBitmap::new())?;\n        Ok(())\n    }\n\n    \
             pub(super) async fn check_size",
    },
    Mutation {
        name: "an interrupted tracking is trusted",
        file: "agent/src/disk.rs",
        from: "if let Some(doubt) = broken {",
        to: "if let Some(doubt) = broken.filter(|_| false) {",
    },
    Mutation {
        name: "an agent that was put back to an older state is trusted",
        file: "agent/src/disk.rs",
        from: "doubt.or_else(|| restored(identity, &*tracker))",
        to: "doubt.or_else(|| restored(identity, &*tracker).filter(|_| false))",
    },
    Mutation {
        name: "every image is called one instant",
        file: "agent/src/disk/seal.rs",
        from: "if one_instant { Consistency::Crash } else { Consistency::Fuzzy }",
        to: "if one_instant { Consistency::Crash } else { Consistency::Crash }",
    },
    Mutation {
        name: "the tracker forgets before the plan is durable",
        file: "agent/src/disk/plan.rs",
        from: "        let mut bitmap = swap.dirty;\n        bitmap.union_with(self.journal.carry());\n        bitmap.truncate",
        to: "        self.release()?;\n        let mut bitmap = swap.dirty;\n        bitmap.union_with(self.journal.carry());\n        bitmap.truncate",
    },
    Mutation {
        name: "the tracker forgets why it doubts before that is noted",
        file: "agent/src/disk/plan.rs",
        from: "        if doubt.is_some() && known_doubt.is_none() {\n            self.journal.update",
        to: "        self.release()?;\n        if doubt.is_some() && known_doubt.is_none() {\n            self.journal.update",
    },
    Mutation {
        name: "what is stored is shipped again",
        file: "agent/src/journal/stored.rs",
        from: "let kept = entry.first >= behind && keep(&entry.told(salts));",
        to: "let kept = entry.first >= behind && keep(&entry.told(salts)) && behind > u64::MAX - 1;",
    },
    Mutation {
        name: "a cycle is begun anew with each start of the agent",
        file: "agent/src/journal.rs",
        from: "            Some((plan, _)) if plan.cycle <= settled => journal.failed(settled)?,\n            Some(_) => {}\n",
        to: "            Some(_) => journal.failed(settled)?,\n",
    },
    Mutation {
        name: "of a list that is told in parts the first is taken for all",
        file: "agent/src/disk/ship.rs",
        from: "if !reply.more || last <= request.after {",
        to: "if !reply.more || last.is_some() {",
    },
    Mutation {
        name: "a comparison ships all that was planned before",
        file: "agent/src/disk/plan.rs",
        from: "self.journal.begin_compared(Plan { doubt, comparison, ..plan }, bitmap)?;",
        to: "self.journal.begin(Plan { doubt, comparison, ..plan }, bitmap)?;",
    },
    Mutation {
        name: "what is compared is not flushed before",
        file: "target-hydrator/src/digests.rs",
        from: "        target.sync().await?;\n        let before",
        to: "        let before",
    },
    Mutation {
        name: "a cycle is read back before it is flushed",
        file: "target-hydrator/src/apply/commit.rs",
        from: "                    Some(_) => Ok(cycle.pipeline.target.sync().await?),\n",
        to: "                    Some(_) => Ok(()),\n",
    },
    Mutation {
        name: "an initial cycle is read back before it is flushed",
        file: "target-hydrator/src/apply/commit.rs",
        from: "        if written.is_some() {\n            cycle.pipeline.target.sync().await?;\n        }\n",
        to: "",
    },
    Mutation {
        name: "what is applied of an initial cycle while it arrives is read back before it is flushed",
        file: "target-hydrator/src/apply/initial.rs",
        from: "        pipeline.target.sync().await?;\n        let target = Self::read_batch",
        to: "        let target = Self::read_batch",
    },
    Mutation {
        name: "what was read back is not compared",
        file: "target-hydrator/src/apply/commit.rs",
        from: "    if bitmaps_equal && digest == manifest.digest {",
        to: "    if bitmaps_equal || !bitmaps_equal {",
    },
    Mutation {
        name: "a target that somebody changed is taken as it is",
        file: "target-hydrator/src/apply/accept.rs",
        from: "        Some(noted) if !now.is_still(noted) => {",
        to: "        Some(noted) if !now.is_still(noted) && now.size == u64::MAX => {",
    },
    Mutation {
        name: "a hydrator writes on whosever the disk is",
        file: "target-hydrator/src/apply/claim.rs",
        from: "while let Err(error) = self.ask().await {",
        to: "while let Err(error) = self.ask().await.or_else(|_| ApiResult::Ok(())) {",
    },
];

/// Runs every canary; an error names those that lived.
pub fn run(seeds: u64, jobs: NonZeroUsize) -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let copy = root.join("target/canary");
    let mut lived = Vec::new();
    for mutation in MUTATIONS {
        copy_tree(&root, &copy)?;
        mutate(&copy, mutation)?;
        let caught = catches(&copy, seeds, jobs).with_context(|| mutation.name)?;
        println!("{}: {}", mutation.name, caught.as_deref().unwrap_or("NOT CAUGHT"));
        if caught.is_none() {
            lived.push(mutation.name);
        }
    }
    std::fs::remove_dir_all(&copy)?;
    println!("{} passed, {} failed", MUTATIONS.len() - lived.len(), lived.len());
    if !lived.is_empty() {
        bail!("the simulation does not notice: {}", lived.join("; "));
    }
    Ok(())
}

/// Brings the copy to what the tree holds; files that are the same keep their times, so little is built anew.
fn copy_tree(root: &Path, copy: &Path) -> anyhow::Result<()> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    for name in listed.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let name = std::str::from_utf8(name)?;
        let (from, to) = (root.join(name), copy.join(name));
        let Ok(bytes) = std::fs::read(&from) else { continue };
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a file has a folder")?)?;
        std::fs::write(&to, bytes)?;
    }
    Ok(())
}

fn mutate(copy: &Path, mutation: &Mutation) -> anyhow::Result<()> {
    let path = copy.join(mutation.file);
    let text = std::fs::read_to_string(&path)?;
    if text.matches(mutation.from).count() != 1 {
        bail!("{}: the text to be replaced is not in {} exactly once", mutation.name, mutation.file);
    }
    Ok(std::fs::write(&path, text.replacen(mutation.from, mutation.to, 1))?)
}

/// What the checker says of the first seed that fails in the mutated build; `None` where none does.
///
/// A panic is not counted: it tells of a check of the product's own, while a canary tries whether the simulation looks. The
/// product's debug assertions are off for the same reason, as they are in what is installed.
fn catches(copy: &Path, seeds: u64, jobs: NonZeroUsize) -> anyhow::Result<Option<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // A target folder of its own: cargo takes two copies of a tree for one, and would link mutated code into the other's.
    build.args(["build", "--quiet", "--workspace", "--bin", "sluice-sim", "--target-dir"]).arg(copy.join("target"));
    build.env("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false").current_dir(copy);
    if !build.status()?.success() {
        bail!("the mutated copy does not build");
    }
    let program = copy.join("target/debug/sluice-sim");
    let all: Vec<u64> = (1..=seeds).collect();
    for some in all.chunks(jobs.get()) {
        let running = some.iter().map(|seed| start(&program, *seed)).collect::<io::Result<Vec<_>>>()?;
        let mut caught = None;
        for (seed, one) in some.iter().zip(running) {
            let output = one.wait_with_output()?;
            if output.status.success() {
                continue;
            }
            let said = String::from_utf8_lossy(&output.stdout);
            let broken = broken_promise(&said);
            caught = caught.or_else(|| broken.map(|promise| format!("caught by seed {seed}: {promise}")));
        }
        if caught.is_some() {
            return Ok(caught);
        }
    }
    Ok(None)
}

fn start(program: &Path, seed: u64) -> io::Result<Child> {
    // Once, not twice: that two traces differ is no catch.
    let args = ["--seeds", "1", "--replay-every", "1000000", "--from", &seed.to_string()];
    Command::new(program).args(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// The first violation in a run's output that is not a panic.
fn broken_promise(said: &str) -> Option<&str> {
    let mut violations = said.lines().filter_map(|line| line.strip_prefix("    \"")?.strip_suffix("\","));
    violations.find(|violation| !violation.contains("panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_that_is_taken_out_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for mutation in MUTATIONS {
            let text = std::fs::read_to_string(root.join(mutation.file)).expect(mutation.file);
            assert_eq!(text.matches(mutation.from).count(), 1, "{}", mutation.name);
        }
    }

    #[test]
    fn a_panic_is_no_broken_promise() {
        let violations = vec!["agent panicked: it did".to_owned(), "12 sectors differ".to_owned()];
        assert_eq!(broken_promise(&format!("seed 3\nseed 3: {violations:#?}\n")), Some("12 sectors differ"));
        assert_eq!(broken_promise(&format!("seed 3: {:#?}", &violations[..1])), None);
    }
}
