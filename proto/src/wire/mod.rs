//! What goes over the appliance's port, as JSON but for segments, manifests and digests, which go as they are stored. The few
//! requests without a JSON body name what they ask behind a question mark; that is here too.
//!
//! Every message that writes names the generation that the writer believes in; an older one is refused. PROTOCOL.md
//! lists paths and methods and says why each message exists.

mod agent;
mod error;
mod hydrator;
mod operator;

use std::num::NonZeroUsize;

pub use agent::{
    AskedDigests, CycleRef, DiskStatus, GiveUp, InGeneration, NextReply, NextRequest, OpenReply, OpenRequest,
    RegisterRequest, Start, StoredSegment, Verdict,
};
pub use error::{ErrorCode, WireError};
pub use hydrator::{AppliedRequest, ClaimReply, Lease, Outcome, VerdictRequest, Work, WorkReply, WorkRequest};
pub use operator::{CycleView, DiskView, FinalOrder, HowMany, PolicyView, WindowView};

/// The version of the API that this Sluice speaks; the first part of every path. Change log: 1, the first.
pub const API_VERSION: u16 = 1;
/// The largest JSON body that either end accepts, in bytes.
pub const JSON_BYTES_MAX: usize = 64 << 20;
/// Segments that one answer names at most: some 11 MiB of JSON. A first copy of a large disk has millions of them.
pub const SEGMENTS_TOLD_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).unwrap();
/// The longest that a request may ask to be held open, in milliseconds.
pub const WAIT_MS_MAX: u64 = 30_000;
