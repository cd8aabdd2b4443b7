//! crontab(5) schedules in a time zone. Pure.
//!
//! Five fields: minute, hour, day of the month, month, day of the week; `*`, `?`, lists, ranges, steps, English names of months and
//! days; `@hourly` and its kin; `@every 90m`. When both days are restricted, either one is enough.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Tz;

/// When something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At these minutes of these hours of these days.
    Calendar(Calendar),
    /// Again and again after this time.
    Every(TimeDelta),
}

/// Sets of numbers as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Neither `*` nor `?` stands for the days.
    both_days: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// A schedule that finds no day in so many years has none (29 February at the worst comes after 8).
const YEARS: u32 = 9;

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            return Err("a time zone belongs into timeZone".to_owned());
        }
        let text = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(every) = text.strip_prefix("@every ") {
            return duration(every.trim())
                .map(Self::Every)
                .ok_or_else(|| format!("failed to parse duration {every:?}"));
        }
        if text.starts_with('@') {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()));
        };
        let free = |field: &str| field.split(',').any(|part| matches!(part, "*" | "?" | "*/1"));
        let mut weekdays = bits(weekday, 0, 7, &WEEKDAYS, 0)?;
        if weekdays & (1 << 7) != 0 {
            weekdays |= 1;
        }
        Ok(Self::Calendar(Calendar {
            minutes: bits(minute, 0, 59, &[], 0)?,
            hours: bits(hour, 0, 23, &[], 0)?,
            days: bits(day, 1, 31, &[], 0)?,
            months: bits(month, 1, 12, &MONTHS, 1)?,
            weekdays,
            both_days: !free(day) && !free(weekday),
        }))
    }

    /// The first moment after this one; `None`: never.
    pub fn next(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        match self {
            Self::Every(wait) => {
                let seconds = wait.num_seconds().max(1);
                Some(DateTime::from_timestamp(after.timestamp().checked_add(seconds)?, 0)?)
            }
            Self::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

impl Calendar {
    fn next(&self, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&zone).naive_local();
        // An hour is repeated when summer ends: begin early enough not to miss its second round.
        let mut at = local.checked_sub_signed(TimeDelta::hours(2))?.with_second(0)?.with_nanosecond(0)?;
        let last = local.date().checked_add_months(Months::new(12 * YEARS))?;
        while at.date() <= last {
            if !has(self.months, at.month()) {
                at = start_of(first_of_next_month(at.date())?)?;
            } else if !self.has_day(at.date()) {
                at = start_of(at.date().checked_add_days(Days::new(1))?)?;
            } else if !has(self.hours, at.hour()) {
                at = at.with_minute(0)?.checked_add_signed(TimeDelta::hours(1))?;
            } else if !has(self.minutes, at.minute()) {
                at = at.checked_add_signed(TimeDelta::minutes(1))?;
            } else {
                // In the gap when summer begins there is no such moment.
                let moments = zone.from_local_datetime(&at);
                let all = [moments.earliest(), moments.latest()].into_iter().flatten().map(|m| m.to_utc());
                if let Some(found) = all.into_iter().find(|m| *m > after) {
                    return Some(found);
                }
                at = at.checked_add_signed(TimeDelta::minutes(1))?;
            }
        }
        None
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let (day, weekday) = (has(self.days, date.day()), has(self.weekdays, date.weekday().num_days_from_sunday()));
        if self.both_days { day || weekday } else { day && weekday }
    }
}

fn has(bits: u64, number: u32) -> bool {
    bits & (1_u64 << number.min(63)) != 0
}

fn start_of(date: NaiveDate) -> Option<NaiveDateTime> {
    date.and_hms_opt(0, 0, 0)
}

fn first_of_next_month(date: NaiveDate) -> Option<NaiveDate> {
    date.with_day(1)?.checked_add_months(Months::new(1))
}

/// `*/15`, `1-5`, `mon,wed`, `10-40/10`.
fn bits(field: &str, least: u32, most: u32, names: &[&str], first: usize) -> Result<u64, String> {
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                (range, step.parse::<u32>().map_err(|_| format!("failed to parse int from {step}"))?)
            }
            None => (part, 1),
        };
        if step == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        let number = |text: &str| number(text, names, first);
        let (from, to) = match range.split_once('-') {
            _ if matches!(range, "*" | "?") => (least, if names.len() == 7 { 6 } else { most }),
            Some((from, to)) => (number(from)?, number(to)?),
            // `5/15` goes on to the end.
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from < least || to > most {
            return Err(format!("{part} is not within {least} to {most}"));
        }
        if from > to {
            return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
        }
        let mut at = from;
        while at <= to {
            bits |= 1_u64 << at;
            at = at.saturating_add(step);
        }
    }
    Ok(bits)
}

fn number(text: &str, names: &[&str], first: usize) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let named = names.iter().position(|n| *n == lower).and_then(|at| u32::try_from(at + first).ok());
    named.or_else(|| text.parse().ok()).ok_or_else(|| format!("failed to parse int from {text}"))
}

/// `1h30m`, `90s`.
fn duration(text: &str) -> Option<TimeDelta> {
    let mut total = TimeDelta::zero();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest.get(..digits)?.parse().ok()?;
        let unit = rest.get(digits..)?;
        let length = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let part = match unit.get(..length)? {
            "h" => TimeDelta::try_hours(number)?,
            "m" => TimeDelta::try_minutes(number)?,
            "s" => TimeDelta::try_seconds(number)?,
            _ => return None,
        };
        total = total.checked_add(&part)?;
        rest = unit.get(length..)?;
    }
    (total >= TimeDelta::seconds(1)).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A cron job whose zone is accepted is run in it, and none is refused that could be run.
    #[test]
    fn the_zones_that_are_accepted_are_those_that_are_known() {
        let mut known: Vec<&str> = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()).collect();
        known.sort_unstable();
        assert_eq!(reddwarf_objects::validate::ZONES.lines().collect::<Vec<_>>(), known);
    }

    fn next(schedule: &str, after: &str, zone: Tz) -> String {
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), zone);
        next.map(|n| n.format("%Y-%m-%dT%H:%MZ").to_string()).unwrap_or_default()
    }

    #[test]
    fn the_next_moment() {
        for (schedule, after, expected) in [
            ("*/15 * * * *", "2026-01-01T00:07:30Z", "2026-01-01T00:15Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z", "2026-01-01T00:30Z"),
            ("0 3 * * *", "2026-01-01T03:00:00Z", "2026-01-02T03:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00Z"),
            ("0 0 31 4 *", "2026-01-01T00:00:00Z", ""),
            ("0 12 1 * mon", "2026-01-02T00:00:00Z", "2026-01-05T12:00Z"),
            ("0 12 * * mon-fri", "2026-01-03T00:00:00Z", "2026-01-05T12:00Z"),
            ("0 12 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T12:00Z"),
            ("5/20 * * JAN *", "2026-12-31T23:59:00Z", "2027-01-01T00:05Z"),
            ("@hourly", "2026-01-01T00:00:00Z", "2026-01-01T01:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30Z"),
        ] {
            assert_eq!(next(schedule, after, Tz::UTC), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn summer_time() {
        let berlin = Tz::Europe__Berlin;
        assert_eq!(next("30 8 * * *", "2026-07-01T00:00:00Z", berlin), "2026-07-01T06:30Z");
        assert_eq!(next("30 8 * * *", "2026-12-01T00:00:00Z", berlin), "2026-12-01T07:30Z");
        // 29 March 2026 has no 02:30 in Berlin.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", berlin), "2026-03-30T00:30Z");
        // 25 October 2026 has it twice.
        assert_eq!(next("30 2 * * *", "2026-10-24T12:00:00Z", berlin), "2026-10-25T00:30Z");
        assert_eq!(next("*/30 * * * *", "2026-10-25T00:30:00Z", berlin), "2026-10-25T01:00Z");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (schedule, error) in [
            ("* * * *", "expected exactly 5 fields, found 4: [\"*\", \"*\", \"*\", \"*\"]"),
            ("60 * * * *", "60 is not within 0 to 59"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("x * * * *", "failed to parse int from x"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("TZ=UTC 0 * * * *", "a time zone belongs into timeZone"),
        ] {
            assert_eq!(Schedule::parse(schedule).unwrap_err(), error);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_time_goes_on(text in "[0-9*/,-]{1,4} [0-9*/,-]{1,4} [0-9*/]{1,3} [0-9*]{1,2} [0-9*]", at in 0_i64..4_000_000_000) {
            if let Ok(schedule) = Schedule::parse(&text) {
                let after = DateTime::from_timestamp(at, 0).unwrap();
                let next = schedule.next(after, Tz::Europe__Berlin);
                prop_assert!(next.is_none_or(|n| n > after));
            }
        }
    }
}
