//! What the YAML parser's messages mean to somebody who writes manifests.

use crate::diagnostic::{Diagnostic, codes};
use crate::source::{At, Source};

struct Explanation {
    /// Part of the parser's message.
    part: &'static str,
    code: &'static str,
    what: &'static str,
    why: &'static str,
    help: &'static str,
}

const fn syntax(part: &'static str, what: &'static str, why: &'static str, help: &'static str) -> Explanation {
    Explanation { part, code: codes::YAML_SYNTAX, what, why, help }
}

/// The first entry whose part is in the message counts.
const EXPLANATIONS: &[Explanation] = &[
    Explanation {
        part: "tab",
        code: codes::TAB,
        what: "a tab is used for indentation",
        why: "YAML allows only spaces there",
        help: "replace the tab by spaces",
    },
    Explanation {
        part: "recursion limit",
        code: codes::TOO_DEEP,
        what: "values are nested too deep",
        why: "no Kubernetes object needs that, and parsers can be exhausted by it",
        help: "flatten the value",
    },
    syntax(
        "mapping values are not allowed",
        "a `:` starts a value where none can stand",
        "the line is indented deeper than its neighbours, or a text without quotes holds `: `",
        "align the line with the key above, or put the text in quotes",
    ),
    syntax(
        "mapping keys are not allowed",
        "a key stands where none can stand",
        "the line is indented differently from its neighbours",
        "align the line with the key above",
    ),
    syntax(
        "did not find expected key",
        "this is not a key",
        "the line is indented differently from the keys of its mapping, or its `:` is missing",
        "align the line with the key above, or add the `:`",
    ),
    syntax(
        "did not find expected '-' indicator",
        "this is not a list item",
        "the line is indented like the items of a list, but does not start with `- `",
        "start it with `- `, or align it with the key that it belongs to",
    ),
    syntax(
        "block sequence entries are not allowed",
        "a list item can't start here",
        "a list starts on a line of its own",
        "put the `- ` on the next line",
    ),
    syntax(
        "expected ',' or ']'",
        "a list in brackets is not closed",
        "after an item comes `,` or `]`",
        "add the missing `,` or `]`",
    ),
    syntax(
        "expected ',' or '}'",
        "a mapping in braces is not closed",
        "after a value comes `,` or `}`",
        "add the missing `,` or `}`",
    ),
    syntax("misplaced bracket", "a bracket closes nothing", "no list or mapping is open here", "remove it"),
    syntax(
        "illegal placement of ':'",
        "a `:` stands where none can stand",
        "a `[`, `{` or quote before it is not closed, or a key goes over several lines",
        "close it",
    ),
    syntax(
        "invalid indentation in quoted",
        "a quoted text is not closed",
        "its lines would have to be indented deeper than its key",
        "add the quote at the end of the text",
    ),
    syntax(
        "unexpected end of stream",
        "a quoted text is not closed",
        "the file ends before the closing quote",
        "add the quote at the end of the text",
    ),
    syntax(
        "unexpected document indicator",
        "a quoted text is not closed",
        "a new document starts before the closing quote",
        "add the quote at the end of the text",
    ),
    syntax(
        "invalid trailing content",
        "something follows a quoted text",
        "a value ends with its closing quote",
        "quote the whole value, or remove what follows",
    ),
    syntax(
        "unknown escape",
        "an escape in a double-quoted text is not known",
        "after a backslash only a few characters mean something",
        "write `\\\\` for a backslash, or use single quotes",
    ),
    syntax(
        "unknown anchor",
        "an alias names an anchor that is not there",
        "`*name` repeats a value that was marked `&name` before, in the same document",
        "mark the value, or quote the text if the `*` is meant literally",
    ),
    syntax(
        "simple key",
        "this is not followed by `:`",
        "a mapping's lines are `key: value`",
        "add `: ` and a value, or indent the line as part of the text above",
    ),
    syntax(
        "unexpected character",
        "a text without quotes can't start with this character",
        "YAML reserves `@`, `` ` `` and `%`",
        "put the text in quotes",
    ),
    syntax(
        "must be followed by a valid YAML whitespace",
        "a space is missing",
        "`-` and `:` are followed by a space",
        "add the space",
    ),
    syntax(
        "indentation",
        "the line is indented wrongly",
        "a line belongs to what it is indented under",
        "align it with its neighbours",
    ),
    syntax(
        "unprintable",
        "a control character stands here",
        "YAML allows only printable characters, tabs and line ends",
        "remove it, or write it as an escape in double quotes",
    ),
    syntax(
        "byte order mark",
        "a byte order mark stands inside the text",
        "it may only be the first character of a file",
        "remove it: files were probably joined",
    ),
    syntax(
        "the handle wasn't declared",
        "a tag's handle is not declared",
        "manifests are plain data and need no tags",
        "remove the tag, or quote the text if the `!` is meant literally",
    ),
];

/// The finding for a message of the parser.
pub(crate) fn explain(source: &Source, at: At, info: &str) -> Diagnostic {
    let at = better_place(source, at, info);
    match EXPLANATIONS.iter().find(|e| info.contains(e.part)) {
        Some(e) => Diagnostic::error(e.code, source, at, e.what, e.why, e.help),
        None => Diagnostic::error(
            codes::YAML_SYNTAX,
            source,
            at,
            format!("the text is not YAML: {info}"),
            "nothing of a file that can't be parsed is applied",
            "compare it with https://yaml.org/spec/1.2.2/",
        ),
    }
}

/// Where a person would look for it, when that is not where the parser noticed.
fn better_place(source: &Source, at: At, info: &str) -> At {
    let lines = |count: u32| source.text.lines().take(count as usize);
    if info.contains("tab")
        && let Some(column) = lines(at.line).last().and_then(|line| line.chars().position(|c| c == '\t'))
    {
        return At { column: column as u32 + 1, length: 1, ..at };
    }
    // The line without a `:` is the last one before that is not blank.
    if info.contains("simple key")
        && let Some((index, line)) =
            lines(at.line.saturating_sub(1)).enumerate().filter(|(_, line)| !line.trim().is_empty()).last()
    {
        let indent = line.chars().take_while(|c| *c == ' ').count() as u32;
        return At { line: index as u32 + 1, column: indent + 1, length: line.trim().chars().count() as u32, ..at };
    }
    at
}
