//! Names of time zones: those that the schedules of cron jobs are computed in (a test beside them compares).

/// The names, one on each line, in order.
pub const ZONES: &str = include_str!("zones.txt");

/// Is there a time zone of this name?
pub(super) fn is_known(name: &str) -> bool {
    ZONES.lines().any(|zone| zone == name)
}
