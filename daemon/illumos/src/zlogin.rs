//! Commands in a zone (zlogin(1)). zlogin joins its arguments, quotes them differently on each system, and takes death by a
//! signal for success: so it gets exactly one argument, a shell's text, and what runs there says by itself how it ended.

/// One word of the POSIX shell that means exactly this text. NUL bytes can't be passed to any program: it is cut there.
pub fn quoted(text: &str) -> String {
    let text = text.split('\0').next().unwrap_or_default();
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A shell's text as words, by what POSIX says of quotes, for tests that hold what is made of names to its meaning.
#[cfg(test)]
pub(crate) mod words {
    /// One piece of a shell's text.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Word {
        /// Not quoted: the shell's own words and signs.
        Bare(String),
        /// Quoted, in whole or in part: means itself.
        Quoted(String),
    }

    /// `None`: a quote is left open.
    pub(crate) fn of(text: &str) -> Option<Vec<Word>> {
        let (mut words, mut chars) = (Vec::new(), text.chars().peekable());
        while let Some(first) = chars.next() {
            if first == ' ' {
                continue;
            }
            let (mut word, mut quoted, mut c) = (String::new(), false, Some(first));
            while let Some(next) = c {
                match next {
                    '\'' => {
                        quoted = true;
                        loop {
                            match chars.next()? {
                                '\'' => break,
                                inner => word.push(inner),
                            }
                        }
                    }
                    '\\' => {
                        quoted = true;
                        word.push(chars.next()?);
                    }
                    other => word.push(other),
                }
                c = chars.next_if(|c| *c != ' ');
            }
            words.push(if quoted { Word::Quoted(word) } else { Word::Bare(word) });
        }
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// What a shell takes the word for.
    #[expect(clippy::disallowed_methods, reason = "the shell itself is what is tested")]
    fn meant(word: &str) -> String {
        let script = format!("printf %s {}", quoted(word));
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn words_are_one_argument_as_they_are() {
        for word in ["-n", "a b", "'; echo \"x\"", "$(id)", "A=b", "*", "", "it's\n$HOME", &"a' ".repeat(10_000)] {
            assert_eq!(meant(word), *word);
        }
        assert_eq!(quoted("a\0b"), "'a'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_word_means_itself(word in "[^\0]{0,40}", many in 1_usize..300) {
            let word = word.repeat(many);
            prop_assert_eq!(meant(&word), word);
        }
    }
}
