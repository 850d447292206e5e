//! Which limit holds when: a limit for ever, and windows by weekday and time of day.
//!
//! A window is matched against the wall clock of its time zone at the instant asked for, so there is nothing to shift when
//! clocks change: in a window that an hour is skipped of, it is shorter; where an hour comes twice, both count.

use super::{BadRate, Limit};
use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use std::fmt;
use std::str::FromStr;

/// A limit and its exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What holds outside of all windows.
    pub usual: Limit,
    /// The first that matches counts.
    pub windows: Vec<(Window, Limit)>,
    /// Whose clock the windows mean.
    pub zone: TimeZone,
}

impl Default for Limits {
    fn default() -> Self {
        Self { usual: Limit::Unlimited, windows: Vec::new(), zone: TimeZone::UTC }
    }
}

impl Limits {
    /// From their texts: the usual limit (`None` is no limit), and windows as pairs of when and limit.
    pub fn parse<'a>(
        usual: Option<&str>,
        windows: impl IntoIterator<Item = (&'a str, &'a str)>,
        zone: TimeZone,
    ) -> Result<Self, BadWindow> {
        let usual = usual.map_or(Ok(Limit::Unlimited), str::parse)?;
        let windows = windows.into_iter().map(|(when, limit)| Ok((when.parse()?, limit.parse()?)));
        Ok(Self { usual, windows: windows.collect::<Result<_, BadWindow>>()?, zone })
    }

    /// The limit that holds at `now`.
    pub fn at(&self, now: Timestamp) -> Limit {
        let here = now.to_zoned(self.zone.clone()).datetime();
        let window = self.windows.iter().find(|(window, _)| window.holds(here.date().weekday(), here.time()));
        window.map_or(self.usual, |(_, limit)| *limit)
    }
}

/// A time of day on some days of the week, such as `Mon-Fri 08:00-18:00`; `22:00-06:00` reaches into the next day, and
/// belongs to the day that it begins on. Without days it is every day; without a time, the whole day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// By day from Monday.
    days: [bool; 7],
    /// Minutes since midnight.
    from: u16,
    /// The first minute behind it; up to 24:00.
    to: u16,
}

const MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

impl Window {
    fn holds(&self, day: Weekday, time: Time) -> bool {
        let today = day.to_monday_zero_offset().unsigned_abs() as usize;
        let yesterday = (today + 6) % 7;
        let minute = u16::from(time.hour().unsigned_abs()) * 60 + u16::from(time.minute().unsigned_abs());
        if self.from < self.to {
            self.days[today] && (self.from..self.to).contains(&minute)
        } else {
            (self.days[today] && minute >= self.from) || (self.days[yesterday] && minute < self.to)
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        let mut day = 0;
        while day < 7 && self.days != [true; 7] {
            let end = (day..7).find(|end| !self.days[*end]).unwrap_or(7);
            match end - day {
                0 => {}
                1 => write!(f, "{between}{}", DAYS[day])?,
                _ => write!(f, "{between}{}-{}", DAYS[day], DAYS[end - 1])?,
            }
            if end > day {
                between = ",";
            }
            day = end.max(day + 1);
        }
        let between = if between.is_empty() { "" } else { " " };
        let time = |minute: u16| (minute / 60, minute % 60);
        let ((h1, m1), (h2, m2)) = (time(self.from), time(self.to));
        write!(f, "{between}{h1:02}:{m1:02}-{h2:02}:{m2:02}")
    }
}

impl FromStr for Window {
    type Err = BadWindow;

    fn from_str(text: &str) -> Result<Self, BadWindow> {
        let bad = || BadWindow::Window(text.chars().take(60).collect());
        let mut parts = text.split_whitespace();
        let (days, times) = match (parts.next(), parts.next(), parts.next()) {
            (Some(days), Some(times), None) => (Some(days), Some(times)),
            (Some(one), None, None) if one.contains(':') => (None, Some(one)),
            (Some(one), None, None) => (Some(one), None),
            _ => return Err(bad()),
        };
        let days = days.map_or(Some([true; 7]), parse_days).ok_or_else(bad)?;
        let (from, to) = times.map_or(Some((0, MINUTES)), parse_times).ok_or_else(bad)?;
        Ok(Self { days, from, to })
    }
}

fn parse_days(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for i in 0..=(last + 7 - first) % 7 {
            days[(first + i) % 7] = true;
        }
    }
    Some(days)
}

fn parse_times(text: &str) -> Option<(u16, u16)> {
    let minutes = |time: &str| {
        let (hour, minute) = time.split_once(':')?;
        let two = |text: &str| match text.as_bytes() {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(u16::from(a - b'0') * 10 + u16::from(b - b'0')),
            _ => None,
        };
        let (hour, minute) = (two(hour)?, two(minute)?);
        (minute < 60 && hour * 60 + minute <= MINUTES).then_some(hour * 60 + minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minutes(from)?, minutes(to)?);
    (from < MINUTES && from != to).then_some((from, to))
}

/// The text is no window, or its limit is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadWindow {
    /// The time is not understood.
    #[error("{0:?} is no time of day: write Mon-Fri 08:00-18:00, Sat,Sun, or 22:00-06:00 for every night")]
    Window(String),
    /// The limit is not understood.
    #[error(transparent)]
    Rate(#[from] BadRate),
}
