//! How a command ends.

use std::error::Error;
use std::process::ExitCode;

/// The exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: done, and all of it verified.
    Good,
    /// 1: done, and something is not as it should be: a cycle failed, two disks differ, a file is damaged.
    Bad,
    /// 3: interrupted before it was done; it can be taken up again.
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Good => 0,
            Outcome::Bad => 1,
            Outcome::Interrupted => 3,
        })
    }
}

/// Why a command could not do its work at all: exit code 2. The text says what happened, to which file, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(String);

impl Refusal {
    /// A refusal in these words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A refusal in the words of `error` and of what caused it.
    pub fn of(error: impl Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        Self(text)
    }

    /// The same, with what it was about in front.
    pub fn at(what: impl std::fmt::Display, error: impl Error) -> Self {
        Self(format!("{what}: {}", Self::of(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the target can't be opened")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_refusal_names_what_caused_it_once() {
        let error = Outer(std::io::Error::other("no such device"));
        assert_eq!(Refusal::of(error).to_string(), "the target can't be opened: no such device");
        let twice = Refusal::at("disk", std::io::Error::other("gone"));
        assert_eq!(twice.to_string(), "disk: gone");
    }
}
