//! Schedules of cron jobs.
//!
//! Source: Kubernetes "CronJob", schedule syntax: five fields of lists of ranges with steps, or a macro.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A cron schedule.
///
/// # Errors
/// What is wrong with it, in the reference's words.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    // A time zone is reported by the caller.
    let schedule = match schedule.strip_prefix("TZ=").or_else(|| schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, rest)| rest.trim()),
        None => schedule,
    };
    if let Some(descriptor) = schedule.strip_prefix('@') {
        return check_descriptor(schedule, descriptor);
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let ranges: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
    for (field, (low, high, words)) in fields.iter().zip(ranges) {
        field.split(',').try_for_each(|part| check_part(part, low, high, words))?;
    }
    Ok(())
}

fn check_descriptor(schedule: &str, descriptor: &str) -> Result<(), String> {
    let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"];
    if let Some(every) = descriptor.strip_prefix("every ") {
        return if is_duration(every) {
            Ok(())
        } else {
            Err(format!("failed to parse duration {schedule}: time: invalid duration {every:?}"))
        };
    }
    if known.contains(&descriptor) { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) }
}

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit = ["ns", "us", "ms", "s", "m", "h"].iter().find(|unit| {
            rest[digits..]
                .strip_prefix(**unit)
                .is_some_and(|after| after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit()))
        });
        match unit {
            Some(unit) if digits > 0 => rest = &rest[digits + unit.len()..],
            _ => return false,
        }
    }
    !text.is_empty()
}

fn check_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let number = |text: &str| -> Result<u32, String> {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(text)).and_then(|p| u32::try_from(p).ok());
        match word {
            Some(position) => Ok(position + low),
            None => text.parse().map_err(|_| {
                format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
            }),
        }
    };
    let (start, end) = match range.split_once('-') {
        _ if range == "*" || range == "?" => (low, high),
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(range)?, if step.is_some() { high } else { number(range)? }),
    };
    if let Some(step) = step
        && number(step)? == 0
    {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if start < low {
        return Err(format!("beginning of range ({start}) below minimum ({low}): {part}"));
    }
    if end > high {
        return Err(format!("end of range ({end}) above maximum ({high}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use proptest::prelude::*;

    #[test]
    fn schedules() {
        for (schedule, problem) in [
            ("*/5 0 1-7 jan,feb mon-fri", ""),
            ("@every 1h30m", ""),
            ("@daily", ""),
            ("0 0 * * 7", "end of range (7) above maximum (6): 7"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(check(schedule).err().unwrap_or_default(), problem, "{schedule}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(schedule in "[@*?/,0-9a-z -]{0,40}") {
            let _ = check(&schedule);
        }
    }
}
