//! What the state machines have in common: named words, a table, and a drawing of it.
//!
//! A machine is a table of (state, event, next state). What is not in the table is impossible: `step` refuses it with an
//! error that names both words, so that a doubled, late or forged message can never move a machine.

use std::fmt::{Display, Write};

/// A plain enum whose variants have one name each, in types, API, database, console and logs.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($what:literal) { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is stored, sent and shown.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::machine::UnknownWord;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|word| word.as_str() == text);
                found.copied().ok_or_else(|| $crate::machine::UnknownWord::new($what, text))
            }
        }
    };
}
pub(crate) use words;

/// A word that names nothing: the text came from a newer program or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct UnknownWord {
    what: &'static str,
    text: String,
}

impl UnknownWord {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(64).collect() }
    }
}

/// An event that cannot happen in the state that the machine is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("impossible: a {machine} that is {state} was told {event}")]
pub struct ImpossibleEvent {
    /// Which machine: a cycle or a disk.
    pub machine: &'static str,
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
}

/// The state after `event`; `None` where the table has no such row.
pub(crate) fn step<S: Copy + PartialEq, E: Copy + PartialEq>(table: &[(S, E, S)], from: S, event: E) -> Option<S> {
    table.iter().find(|row| row.0 == from && row.1 == event).map(|row| row.2)
}

/// The table as a Mermaid state diagram. Events between the same two states share an arrow; states that nothing leaves
/// are drawn as ends.
pub(crate) fn draw<S: Copy + PartialEq + Display, E: Display>(start: S, states: &[S], table: &[(S, E, S)]) -> String {
    let mut out = format!("stateDiagram-v2\n    [*] --> {start}\n");
    for from in states {
        for to in states {
            let rows = table.iter().filter(|row| row.0 == *from && row.2 == *to);
            let events: Vec<String> = rows.map(|row| row.1.to_string()).collect();
            if !events.is_empty() {
                let _ = writeln!(out, "    {from} --> {to}: {}", events.join(", "));
            }
        }
        if !table.iter().any(|row| row.0 == *from) {
            let _ = writeln!(out, "    {from} --> [*]");
        }
    }
    out
}

/// The table for a snapshot, one row a line.
#[cfg(test)]
pub(crate) fn print<S: Display, E: Display>(table: &[(S, E, S)]) -> String {
    table.iter().fold(String::new(), |mut out, (from, event, to)| {
        let _ = writeln!(out, "{from:<10} {event:<16} {to}");
        out
    })
}
