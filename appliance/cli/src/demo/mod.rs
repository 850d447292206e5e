//! `sluice demo`.
use crate::outcome::{Outcome, Refusal};
/// Shows it.
#[derive(Debug, clap::Args)]
pub struct Args {}
/// Runs it.
pub async fn run(_args: &Args) -> Result<Outcome, Refusal> {
    Ok(Outcome::Good)
}
