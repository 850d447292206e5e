//! How kinds of cycles stand in a manifest's header: numbers for ever.

use crate::cycle::{Consistency, CycleKind, TrackerKind};

impl CycleKind {
    const CODES: [(Self, u64); 4] = [(Self::Initial, 1), (Self::Delta, 2), (Self::Resync, 3), (Self::Final, 4)];

    pub(crate) fn code(self) -> u64 {
        number(&Self::CODES, self)
    }
    pub(crate) fn from_code(code: u64) -> Option<Self> {
        value(&Self::CODES, code)
    }
}

impl Consistency {
    const CODES: [(Self, u64); 2] = [(Self::Crash, 1), (Self::Fuzzy, 2)];

    pub(crate) fn code(self) -> u64 {
        number(&Self::CODES, self)
    }
    pub(crate) fn from_code(code: u64) -> Option<Self> {
        value(&Self::CODES, code)
    }
}

impl TrackerKind {
    const CODES: [(Self, u64); 2] = [(Self::Ebpf, 1), (Self::Scan, 2)];

    pub(crate) fn code(self) -> u64 {
        number(&Self::CODES, self)
    }
    pub(crate) fn from_code(code: u64) -> Option<Self> {
        value(&Self::CODES, code)
    }
}

fn number<T: PartialEq>(codes: &[(T, u64)], value: T) -> u64 {
    codes.iter().find(|(v, _)| *v == value).map_or(0, |(_, code)| *code)
}

fn value<T: Copy>(codes: &[(T, u64)], code: u64) -> Option<T> {
    codes.iter().find(|(_, c)| *c == code).map(|(v, _)| *v)
}
