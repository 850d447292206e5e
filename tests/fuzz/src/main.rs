//! `sluice-fuzz`: the smoke run, replays, and what the corpus begins with. Needs no C++ and no coverage.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use sluice_fuzz::{
    CANARIES, LARGEST_MEMORY_BYTES_MAX, MEMORY_BYTES_MAX, TARGETS, Target, find, home, limit_memory, read_largest,
    smoke,
};
use std::fs;
use std::process::ExitCode;

const USAGE: &str = "\
sluice-fuzz COMMAND

  list                    name the targets
  smoke [TARGET...]       replay corpus and findings and seeded mutations of them (all targets but the canaries)
  replay TARGET FILE...   run a target on these inputs; what it does not bear ends the program
  largest                 read the largest manifest that is permitted, in little more than twice its size
  seeds [TARGET...]       write the inputs that a corpus begins with to tests/fuzz/corpus

Exit codes: 0 nothing was found, 1 something was, 2 wrong usage; by a signal where memory ran out.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = args.split_first() else {
        print!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command, rest) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sluice-fuzz: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &str, args: &[String]) -> Result<bool> {
    match command {
        "list" => {
            TARGETS.iter().for_each(|target| println!("{}", target.name));
            Ok(true)
        }
        "smoke" => smoke_all(args),
        "replay" => replay(args),
        "largest" => {
            read_largest(LARGEST_MEMORY_BYTES_MAX)?;
            Ok(true)
        }
        "seeds" => seeds(args),
        _ => bail!("there is no command {command:?}\n{USAGE}"),
    }
}

fn named(names: &[String]) -> Result<Vec<Target>> {
    let find = |name: &String| find(name).with_context(|| format!("there is no target {name:?}"));
    if names.is_empty() { Ok(TARGETS.to_vec()) } else { names.iter().map(find).collect() }
}

fn smoke_all(names: &[String]) -> Result<bool> {
    limit_memory(MEMORY_BYTES_MAX)?;
    let mut failed = 0;
    let targets = named(names)?;
    for target in &targets {
        // Said before it runs: a target that takes too much memory ends the program.
        println!("{}: begins", target.name);
        let tally = smoke::run(*target)?;
        println!("{}: {} files, {} mutations, {} failed", target.name, tally.files, tally.rounds, tally.failed);
        failed += usize::from(tally.failed > 0);
    }
    println!("{} passed, {failed} failed", targets.len() - failed);
    Ok(failed == 0)
}

fn replay(args: &[String]) -> Result<bool> {
    let (name, files) = args.split_first().context("a target is to be named")?;
    ensure!(!files.is_empty(), "a file is to be named");
    limit_memory(MEMORY_BYTES_MAX)?;
    for target in named(std::slice::from_ref(name))? {
        for file in files {
            let input = fs::read(file).with_context(|| format!("{file} can't be read"))?;
            println!("{file}: {} bytes", input.len());
            (target.run)(&input);
        }
    }
    Ok(true)
}

fn seeds(names: &[String]) -> Result<bool> {
    let mut targets = named(names)?;
    if names.is_empty() {
        targets.extend(CANARIES);
    }
    for target in targets {
        let folder = home().join("corpus").join(target.name);
        fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
        for seed in (target.seeds)() {
            let path = folder.join(&blake3::hash(&seed).to_hex()[..16]);
            fs::write(&path, seed).with_context(|| format!("{} can't be written", path.display()))?;
        }
    }
    Ok(true)
}
