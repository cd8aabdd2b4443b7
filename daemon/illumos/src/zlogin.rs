//! Commands in a zone (zlogin(1)). zlogin joins its arguments, quotes them differently on each system, and takes death by a
//! signal for success: so it gets exactly one argument, which says by itself how its command ended.

use reddwarf_command::{Invocation, Tool};
use std::fmt::Write;

/// What the one argument prints last, before the exit code.
const ENDED: &str = "reddwarf-ended:";

/// A run of `argv` in a running zone as its root, with further variables, without standard input. Read the end of its
/// standard output with [`exit_code`].
///
/// NUL bytes can't be passed to any program: such words are cut there.
pub fn run(zone: &str, argv: &[String], env: &[(String, String)]) -> Invocation {
    let mut script = String::from("(exec env");
    for (name, value) in env {
        let _ = write!(script, " {}", quoted(&format!("{name}={value}")));
    }
    // `env` would take a word with `=` for a variable, and one with a dash for an option.
    script.push_str(" /bin/sh -c 'exec \"$@\"' sh");
    for word in argv {
        let _ = write!(script, " {}", quoted(word));
    }
    let _ = write!(script, "); echo \"{ENDED}$?\"");
    Invocation::change(Tool::Zlogin, ["-n".to_owned(), zone.to_owned(), script])
}

/// One word of the POSIX shell that means exactly this text.
pub fn quoted(text: &str) -> String {
    let text = text.split('\0').next().unwrap_or_default();
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A command's output and its exit code (128 + n for death by signal n), from what zlogin printed; `None` when the end
/// is not there: how it ended is not known.
pub fn exit_code(stdout: &str) -> Option<(&str, i32)> {
    let at = stdout.rfind(ENDED)?;
    let code = stdout.get(at + ENDED.len()..)?.trim_end().parse().ok()?;
    Some((stdout.get(..at)?, code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// What zlogin does with its one argument, with the local shell for the zone's.
    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn locally(argv: &[&str], env: &[(&str, &str)]) -> (String, i32) {
        let argv: Vec<_> = argv.iter().map(ToString::to_string).collect();
        let env: Vec<_> = env.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let run = run("z", &argv, &env);
        let [_, _, script] = &run.args[..] else { panic!("{run}") };
        let output = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (said, code) = exit_code(&text).unwrap();
        (said.to_owned(), code)
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(locally(&["true"], &[]), (String::new(), 0));
        assert_eq!(locally(&["sh", "-c", "exit 7"], &[]).1, 7);
        assert_eq!(locally(&["no-such-program"], &[]).1, 127);
        // zlogin itself would say that all was well.
        assert_eq!(locally(&["sh", "-c", "kill -SEGV $$"], &[]).1, 139);
        assert_eq!(exit_code("half an ans"), None);
    }

    #[test]
    fn words_and_variables_arrive_as_they_are() {
        let words = ["-n", "a b", "'; echo \"x\"", "$(id)", "A=b", "*", ""];
        let argv: Vec<&str> = ["printf", "%s|"].into_iter().chain(words).collect();
        assert_eq!(locally(&argv, &[]).0, words.iter().map(|w| format!("{w}|")).collect::<String>());
        assert_eq!(locally(&["sh", "-c", "printf %s \"$V\""], &[("V", "it's\n$HOME")]).0, "it's\n$HOME");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_word_arrives_as_it_is(word in "[^\0]{0,40}") {
            prop_assert_eq!(locally(&["printf", "%s", &word], &[]).0, word);
        }
    }
}
