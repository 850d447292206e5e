//! What goes wrong on the way to the appliance.

/// What befalls a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request does not arrive.
    LostRequest,
    /// It is carried out, but the answer does not come.
    LostAnswer,
    /// The appliance is busy.
    Busy,
    /// The segments stored until then are gone before the call.
    SegmentsGone,
    /// It was put back, before the call, to where a comparison had begun: it knows of no plan of the open cycle.
    PlanForgotten,
    /// The disk is not known.
    Unknown,
    /// Its generation is not known.
    OfOld,
}
