//! The plan of faults: `<dir>/faults`, one rule a line.
//!
//! ```text
//! TOOL[/WORD[+WORD]] WHICH ACTION
//! zoneadm/boot 1 fail-after          the first boot fails, having done it
//! zfs * slow 200                     every zfs takes 200 ms longer
//! changing 3 kill-caller             before the third call that changes something, its caller is killed
//! * 7 hang                           the seventh call of all never ends
//! zonecfg/-f 1 partial 5             the first file is carried out up to its fifth statement
//! ```
//!
//! TOOL is a tool's name, `*` for any, `changing` for any that changes the system, or a zone from inside. Each WORD has to be one of
//! the arguments, or part of one. WHICH counts the calls that fit the rule, from 1; `*` is each of them.

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It does nothing and fails with this code and message.
    FailBefore(i32, String),
    /// It does it, and fails with this code and message.
    FailAfter(i32, String),
    /// It does nothing and never ends.
    Hang,
    /// It does it, and never ends.
    HangAfter,
    /// Of what it prints these first bytes come; it says that all went well.
    Truncate(usize),
    /// It does nothing and says that all went well.
    Lie,
    /// It takes this many milliseconds longer.
    Slow(u64),
    /// Of the statements that it is given it carries out these first, and fails: of zonecfg's.
    Partial(usize),
    /// It dies by SIGABRT having done nothing.
    Crash,
    /// It does it and dies by SIGABRT.
    CrashAfter,
    /// It fails and prints this many bytes to standard error.
    Flood(usize),
    /// What called it dies by SIGKILL before anything is done; so does the call.
    KillCaller,
    /// What called it dies by SIGKILL after all is done.
    KillCallerAfter,
}

impl Action {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let number = |at: usize| words.get(at).and_then(|w| w.parse::<u64>().ok());
        let message = || {
            let text = words.get(2..).unwrap_or_default().join(" ");
            if text.is_empty() { "internal error".to_owned() } else { text }
        };
        let code = i32::try_from(number(1).unwrap_or(1)).unwrap_or(1);
        let size = |what: &str| {
            number(1).and_then(|n| usize::try_from(n).ok()).ok_or_else(|| format!("{what} wants a number"))
        };
        Ok(match words.first().copied().unwrap_or_default() {
            "fail-before" => Self::FailBefore(code, message()),
            "fail-after" => Self::FailAfter(code, message()),
            "hang" => Self::Hang,
            "hang-after" => Self::HangAfter,
            "truncate" => Self::Truncate(size("truncate")?),
            "lie" => Self::Lie,
            "slow" => Self::Slow(number(1).ok_or("slow wants milliseconds")?),
            "partial" => Self::Partial(size("partial")?),
            "crash" => Self::Crash,
            "crash-after" => Self::CrashAfter,
            "flood" => Self::Flood(size("flood")?),
            "kill-caller" => Self::KillCaller,
            "kill-caller-after" => Self::KillCallerAfter,
            other => return Err(format!("no fault is called {other:?}")),
        })
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    tool: String,
    words: Vec<String>,
    /// From 1; `None` is every call that fits.
    which: Option<u64>,
    action: Action,
}

/// The rules of a plan.
///
/// # Errors
/// The line that makes no sense: a plan that is misread proves nothing.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let rule = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [subject, which, ..] = words[..] else { return Err("wants TOOL WHICH ACTION".to_owned()) };
        let (tool, words_of) = subject.split_once('/').unwrap_or((subject, ""));
        let wanted = words_of.split('+').filter(|w| !w.is_empty()).map(ToOwned::to_owned).collect();
        let which = match which {
            "*" => None,
            number => Some(number.parse().map_err(|_| format!("{number:?} is no number"))?),
        };
        Ok(Rule { tool: tool.to_owned(), words: wanted, which, action: Action::parse(&words[2..])? })
    };
    let lines = text.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'));
    lines.map(|line| rule(line).map_err(|what| format!("faults: {line}: {what}"))).collect()
}

/// What goes wrong with this call; counts it for every rule that it fits.
pub fn choose(rules: &[Rule], counts: &mut Vec<u64>, tool: &str, args: &[String], changing: bool) -> Option<Action> {
    counts.resize(rules.len().max(counts.len()), 0);
    let mut chosen = None;
    for (rule, count) in rules.iter().zip(counts) {
        let named = rule.tool == "*" || rule.tool == tool || (rule.tool == "changing" && changing);
        // An option is a word of its own: names, some of them random, may hold the same letters.
        let fits = |arg: &String, word: &str| if word.starts_with('-') { arg == word } else { arg.contains(word) };
        let word = rule.words.iter().all(|w| args.iter().any(|a| fits(a, w)));
        if !(named && word) {
            continue;
        }
        *count += 1;
        if chosen.is_none() && rule.which.is_none_or(|n| n == *count) {
            chosen = Some(rule.action.clone());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_counts_what_fits() {
        let rules = parse("# a comment\nzoneadm/boot 2 fail-after 1 no luck\nchanging 3 kill-caller\n").unwrap();
        let mut counts = Vec::new();
        let boot = ["-z".to_owned(), "a".into(), "boot".into()];
        let mut next = |tool: &str, changing| choose(&rules, &mut counts, tool, &boot, changing);
        assert_eq!(next("zoneadm", true), None);
        assert_eq!(next("zfs", false), None);
        assert_eq!(next("zoneadm", true), Some(Action::FailAfter(1, "no luck".into())));
        assert_eq!(next("dladm", true), Some(Action::KillCaller));
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        for bad in ["zfs", "zfs x hang", "zfs 1 explode", "zfs 1 truncate", "zfs 1 slow soon", "zonecfg 1 partial"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
