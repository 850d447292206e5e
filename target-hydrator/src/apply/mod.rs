//! Applying a cycle: nothing of it is believed before it was checked, nothing of the target before it was read back.
//!
//! 1. Accept: the manifest is opened with the disk's key and must follow from what the ledger says of the target.
//! 2. Check: every segment's hash, seal, place and plaintext, all of them before the first byte is written; as far as they
//!    have arrived, before the commit. Segments of an initial cycle are checked one by one instead, as the target holds nothing
//!    yet that could be spoiled.
//! 3. Write, after the ledger says so, batch by batch, as long as the disk is ours; flush; read back from the medium and
//!    compare block by block.
//! 4. The ledger says verified. Only then the appliance is told.
//!
//! A source that has grown is compared with its target as that is; between steps 1 and 2 of the comparison the target grows.
//!
//! A crash anywhere before the last step means that the cycle is applied again.

mod accept;
mod ahead;
mod budget;
mod claim;
mod commit;
mod grow;
mod initial;
mod mark;
mod pipeline;
mod release;
mod segment;
mod session;
mod stop;

pub(crate) use accept::check_left_alone;
pub use budget::Budget;
pub use claim::Claim;
pub(crate) use pipeline::Holes;
pub use session::{Environment, Report, Session, TargetFactory};
pub use stop::{Failure, Stop};

#[cfg(test)]
mod tests;
