//! The table of diagnostic codes. A code is never given another meaning; a new finding gets a new code.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A stable code, `RD0001` and up; the table is [`Code::all`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(Cow<'static, str>);

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The code, for example `RD0012`.
    pub code: &'static str,
    /// The finding in a few words.
    pub title: &'static str,
}

impl Code {
    pub(crate) fn new(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }

    /// The code as text, for example `RD0012`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Every code there is, in order.
    pub fn all() -> &'static [CodeInfo] {
        ALL
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal;)*) => {
        $(pub(crate) const $name: &str = $code;)*
        const ALL: &[CodeInfo] = &[$(CodeInfo { code: $code, title: $title }),*];
    };
}

codes! {
    // The directory.
    FILE_TOO_LARGE = "RD0001", "a file is larger than the limit";
    TOTAL_TOO_LARGE = "RD0002", "all files together are larger than the limit";
    TOO_MANY_FILES = "RD0003", "there are more files than the limit";
    NAME_NOT_UTF8 = "RD0004", "a file name is not UTF-8";
    UNREADABLE = "RD0005", "a file or directory can't be read";
    NOT_A_FILE = "RD0006", "something that is neither a file nor a directory bears a manifest's name";
    SYMLINK_OUT = "RD0007", "a symlink leads out of the manifest directory";
    SYMLINK_DANGLING = "RD0008", "a symlink leads nowhere";
    SYMLINK_LOOP = "RD0009", "symlinks lead in a circle";
    WRONG_OWNER = "RD0010", "a file or directory belongs to somebody who is not trusted";
    WRITABLE_BY_OTHERS = "RD0011", "a file or directory can be written by others";
    TOO_NESTED = "RD0012", "a manifest lies deeper than one subdirectory";
    LAYER_LOST = "RD0013", "a manifest directory vanished or can't be listed";
    DROP_IN_WITHOUT_BASE = "RD0014", "a drop-in changes a file or an object that is not there";
    CHANGED_WHILE_READ = "RD0015", "a file changed while it was read";
    LAYER_NOT_A_DIRECTORY = "RD0016", "a manifest directory is not a directory";
    // Bytes and text.
    NOT_UTF8 = "RD0020", "a file is not UTF-8";
    NUL_BYTE = "RD0021", "a file holds a NUL byte";
    EMPTY_FILE = "RD0022", "a file is empty";
    NO_DOCUMENTS = "RD0023", "a file declares nothing";
    UNKNOWN_FORMAT = "RD0024", "a file name has no extension that tells its format";
    // Syntax.
    YAML_SYNTAX = "RD0030", "the text is not YAML";
    JSON_SYNTAX = "RD0031", "the text is not JSON";
    TOML_SYNTAX = "RD0032", "the text is not TOML";
    TAB = "RD0033", "a tab is used for indentation";
    DUPLICATE_KEY = "RD0034", "a key is given twice";
    ALIAS_BOMB = "RD0035", "aliases expand to more than the limit";
    TOO_DEEP = "RD0036", "values are nested deeper than the limit";
    TOO_MANY_NODES = "RD0037", "a file holds more values than the limit";
    TOO_MANY_DOCUMENTS = "RD0038", "a file holds more documents than the limit";
    UNKNOWN_TAG = "RD0039", "a YAML tag is not known";
    BAD_KEY = "RD0040", "a mapping key is not a text";
    BAD_NUMBER = "RD0041", "a number can't be represented";
    OCTAL = "RD0042", "a number with a leading zero is read as octal";
    BAD_MERGE = "RD0043", "a merge key's value is not a mapping";
    PARSER_FAILED = "RD0044", "the parser failed";
    // Objects.
    NOT_AN_OBJECT = "RD0050", "a document is not an object";
    NO_API_VERSION = "RD0051", "an object has no apiVersion";
    NO_KIND = "RD0052", "an object has no kind";
    UNKNOWN_API_VERSION = "RD0053", "an apiVersion is not known";
    UNKNOWN_KIND = "RD0054", "a kind is not known";
    BAD_LIST = "RD0055", "a List's items are not a list";
    UNKNOWN_FIELD = "RD0060", "a field is not known";
    WRONG_TYPE = "RD0061", "a value has the wrong type";
    REQUIRED = "RD0062", "a required field is missing";
    INVALID = "RD0063", "a value is not valid";
    NOT_SUPPORTED = "RD0064", "a value is not one of those supported";
    FORBIDDEN = "RD0065", "a field may not be set";
    DUPLICATE_VALUE = "RD0066", "a list holds the same entry twice";
    TOO_LONG = "RD0067", "a value is too long";
    BOOLEAN_WORD = "RD0068", "a word stands where a boolean belongs";
    NO_EFFECT = "RD0069", "a field has no effect yet";
    DECLARED_TWICE = "RD0070", "an object is declared twice";
    GENERATED_NAME = "RD0071", "an object in a file has no fixed name";
    MORE_FINDINGS = "RD0079", "more findings are not shown";
    // Settings.
    UNKNOWN_SETTING = "RD0080", "a setting is not known";
    BAD_SETTING = "RD0081", "a setting's value is not valid";
    SETTINGS_CLASH = "RD0082", "two settings contradict each other";
    SETTINGS_UNREADABLE = "RD0083", "the settings file can't be read";
    SETTING_FILE = "RD0084", "a file that a setting names can't be used";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(Code::all().windows(2).all(|pair| pair[0].code < pair[1].code));
    }
}
