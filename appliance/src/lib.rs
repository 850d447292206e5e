//! The appliance: admits, schedules, throttles and stores what agents ship; it cannot read it.
