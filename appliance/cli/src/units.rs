//! Numbers as people write and read them.

use sluice_appliance::throttle::Limit;
use std::time::Duration;

/// Reads a duration such as `1s`, `90s`, `5m`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no duration: write 1s, 90s, 5m, 1h or 1h30m");
    let read: jiff::SignedDuration = text.trim().parse().map_err(|_| bad())?;
    Duration::try_from(read).map_err(|_| bad())
}

/// Reads a rate such as `200Mbit/s` or `50MB/s`; checked here, and kept as it was written.
pub fn rate(text: &str) -> Result<String, String> {
    match text.parse::<Limit>() {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(bad) => Err(bad.to_string()),
    }
}

/// Reads a size such as `512M`, `2G` or `1T`, in powers of 1024; plain digits are bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no size: write 512M, 2G or 1T");
    let plain = text.trim();
    let digits = plain.find(|c: char| !c.is_ascii_digit()).unwrap_or(plain.len());
    let (number, unit) = plain.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// Bytes in powers of 1024, with three digits: `1.50 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (count as f64, 0);
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let places = if unit == 0 || value >= 100.0 { 0 } else { 1 + usize::from(value < 10.0) };
    format!("{value:.places$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, ms) in [("1s", 1000), ("5m", 300_000), ("1h", 3_600_000), ("1h30m", 5_400_000), ("500ms", 500)] {
            assert_eq!(duration(text).map(|d| d.as_millis()), Ok(ms), "{text}");
        }
        for text in ["", "5", "soon", "-5s"] {
            assert!(duration(text).is_err_and(|e| e.contains("1h30m")), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(size("2G"), Ok(2 << 30));
        assert_eq!(size("512m"), Ok(512 << 20));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("2X").is_err() && size("G").is_err() && size("99999999999T").is_err());
    }

    #[test]
    fn rates_are_checked_and_kept_as_written() {
        assert_eq!(rate("200Mbit/s"), Ok("200Mbit/s".to_owned()));
        assert!(rate("fast").is_err_and(|e| e.contains("200Mbit/s")));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1 << 10), "1.00 KiB");
        assert_eq!(bytes(1536 << 20), "1.50 GiB");
        assert_eq!(bytes(999 << 20), "999 MiB");
        assert_eq!(bytes(1000 << 20), "0.98 GiB");
    }
}
