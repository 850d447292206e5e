//! Rates as people write them: `200Mbit/s`, `50MB/s`.

use std::fmt;
use std::str::FromStr;

/// Bits per second. Zero is a pause: nothing moves while it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

/// Units by name, largest first, in bits. Decimal ones, as lines are sold by; `KiB` and so on for those who mean it.
const UNITS: [(&str, u64); 11] = [
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
    ("GiB", 8 << 30),
    ("MiB", 8 << 20),
    ("KiB", 8 << 10),
    ("GB", 8_000_000_000),
    ("MB", 8_000_000),
    ("kB", 8_000),
    ("B", 8),
];

impl Rate {
    /// So many bits per second.
    pub const fn bits_per_second(bits: u64) -> Self {
        Self(bits)
    }

    /// The rate in bits per second.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

/// The largest decimal unit of bits that gives a whole number, so that it reads back as the same rate.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| unit.1 == 1 || (self.0 > 0 && self.0.is_multiple_of(unit.1));
        let (name, bits) = UNITS.iter().take(4).find(fits).copied().unwrap_or(("bit", 1));
        write!(f, "{}{name}/s", self.0 / bits)
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let bad = || BadRate(text.chars().take(40).collect());
        let plain = text.trim();
        let plain = plain.strip_suffix("/s").unwrap_or(plain);
        let digits = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
        let (number, unit) = (&plain[..digits], plain[digits..].trim());
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if unit.is_empty() && whole.bytes().all(|b| b == b'0') && !whole.is_empty() && fraction == "0" {
            return Ok(Self(0));
        }
        let (_, bits) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
        if whole.is_empty() || whole.len() > 20 || fraction.is_empty() || fraction.len() > 9 {
            return Err(bad());
        }
        let parse = |digits: &str| digits.parse::<u128>().map_err(|_| bad());
        let scale = 10u128.pow(fraction.len() as u32);
        // Twenty digits before the point and nine behind it fit; times the unit they may not.
        let total = (parse(whole)? * scale + parse(fraction)?).checked_mul(u128::from(*bits)).ok_or_else(bad)? / scale;
        u64::try_from(total).map(Self).map_err(|_| bad())
    }
}

/// A rate, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limit {
    /// As fast as it goes.
    #[default]
    Unlimited,
    /// No faster than this.
    Rate(Rate),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Rate(rate) => rate.fmt(f),
        }
    }
}

impl FromStr for Limit {
    type Err = BadRate;
    fn from_str(text: &str) -> Result<Self, BadRate> {
        if text.trim() == "unlimited" { Ok(Self::Unlimited) } else { text.parse().map(Self::Rate) }
    }
}

/// The text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: write bits as 200Mbit/s, bytes as 50MB/s, a pause as 0, none at all as unlimited")]
pub struct BadRate(String);
