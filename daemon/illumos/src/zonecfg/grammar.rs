//! Text → statements, by the lexical rules of zonecfg(8): no escapes, strings between double quotes, statements between
//! newlines and semicolons. Stricter than the real one where it would be ambiguous, never more lenient.

/// The longest token in bytes, its quotes included; the real lexer ends the whole run beyond.
const TOKEN_MOST: usize = 1023;

/// A text that is no zonecfg input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct GrammarError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The line where it begins, from 1.
    pub line: usize,
    /// `set`, `add`, `end`, ….
    pub verb: String,
    /// What follows.
    pub arguments: Vec<Argument>,
}

/// What follows a verb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A word by itself: a resource, a property, an option such as `-F`, a value.
    Value(Value),
    /// `name=value`.
    Property(String, Value),
}

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A word or a string.
    Simple(String),
    /// `[a,b]`
    List(Vec<String>),
    /// `(name=value,…)`
    Complex(Vec<(String, String)>),
}

/// The statements of a command file.
///
/// # Errors
/// [`GrammarError`] for whatever the real parser would not take.
pub fn statements(text: &str) -> Result<Vec<Statement>, GrammarError> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable() };
    let mut list = Vec::new();
    while let Some(statement) = parser.statement()? {
        #[cfg(test)]
        super::work::READ.set(super::work::READ.get() + 1);
        list.push(statement);
    }
    Ok(list)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// An unquoted word or what stood between quotes.
    Word(String),
    /// `=`, `[`, `]`, `(`, `)`, or a comma between brackets or parentheses.
    Sign(char),
    /// The end of a statement.
    End,
}

struct Lexer<'t> {
    text: std::iter::Peekable<std::str::Chars<'t>>,
    line: usize,
    tokens: Vec<(usize, Token)>,
    /// The brackets and parentheses that are open.
    open: Vec<char>,
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, GrammarError> {
    let mut lexer = Lexer { text: text.chars().peekable(), line: 1, tokens: Vec::new(), open: Vec::new() };
    while let Some(c) = lexer.text.next() {
        lexer.token(c)?;
    }
    lexer.end();
    Ok(lexer.tokens)
}

impl Lexer<'_> {
    fn error(&self, what: impl Into<String>) -> GrammarError {
        GrammarError { line: self.line, what: what.into() }
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((self.line, token));
    }

    fn end(&mut self) {
        self.open.clear();
        self.push(Token::End);
    }

    fn token(&mut self, first: char) -> Result<(), GrammarError> {
        match first {
            ' ' | '\t' => {}
            '\n' => {
                self.end();
                self.line += 1;
            }
            ';' => self.end(),
            '#' if matches!(self.tokens.last(), None | Some((_, Token::End))) => {
                while self.text.next_if(|c| *c != '\n').is_some() {}
            }
            '"' => self.string()?,
            '=' => self.push(Token::Sign('=')),
            '[' | '(' if self.open.is_empty() => {
                self.open.push(first);
                self.push(Token::Sign(first));
            }
            ']' | ')' => {
                let opening = if first == ']' { '[' } else { '(' };
                if self.open.pop() != Some(opening) {
                    return Err(self.error(format!("{first:?} closes nothing")));
                }
                self.push(Token::Sign(first));
            }
            ',' if !self.open.is_empty() => self.push(Token::Sign(',')),
            other => self.word(other)?,
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), GrammarError> {
        if self.open.last() == Some(&'(') {
            // Known to OmniOS and SmartOS only.
            return Err(self.error("a string between parentheses"));
        }
        let mut text = String::new();
        loop {
            match self.text.next() {
                Some('"') => break,
                None | Some('\n') => return Err(self.error("a string without its end")),
                Some(c) => text.push(c),
            }
        }
        if text.len() + 2 > TOKEN_MOST {
            return Err(self.error("a string longer than 1023 bytes"));
        }
        if text.is_empty() {
            return Err(self.error("value not specified"));
        }
        self.push(Token::Word(text));
        Ok(())
    }

    fn word(&mut self, first: char) -> Result<(), GrammarError> {
        let open = self.open.last().copied();
        let ends = move |c: char| match open {
            // Brackets stand for themselves between parentheses.
            Some('(') => matches!(c, ' ' | '\t' | '\n' | '"' | ';' | '=' | '(' | ')' | ','),
            Some(_) => matches!(c, ' ' | '\t' | '\n' | '"' | ';' | '=' | '[' | ']' | '(' | ')' | ','),
            None => matches!(c, ' ' | '\t' | '\n' | '"' | ';' | '=' | '[' | ']' | '(' | ')'),
        };
        if ends(first) {
            return Err(self.error(format!("{first:?} can't stand here")));
        }
        let mut text = String::from(first);
        while let Some(c) = self.text.next_if(|c| !ends(*c)) {
            text.push(c);
        }
        if text.len() > TOKEN_MOST {
            return Err(self.error("a word longer than 1023 bytes"));
        }
        self.push(Token::Word(text));
        Ok(())
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<(usize, Token)>>,
}

impl Parser {
    fn statement(&mut self) -> Result<Option<Statement>, GrammarError> {
        while self.tokens.next_if(|(_, t)| *t == Token::End).is_some() {}
        let Some((line, first)) = self.tokens.next() else { return Ok(None) };
        let Token::Word(verb) = first else {
            return Err(GrammarError { line, what: "a statement begins with a word".into() });
        };
        let mut arguments = Vec::new();
        while self.tokens.next_if(|(_, t)| *t == Token::End).is_none() {
            if self.tokens.peek().is_none() {
                break;
            }
            arguments.push(self.argument(line)?);
        }
        Ok(Some(Statement { line, verb, arguments }))
    }

    fn argument(&mut self, line: usize) -> Result<Argument, GrammarError> {
        let value = self.value(line)?;
        if self.tokens.next_if(|(_, t)| *t == Token::Sign('=')).is_none() {
            return Ok(Argument::Value(value));
        }
        let Value::Simple(name) = value else {
            return Err(GrammarError { line, what: "a list or complex value has no value".into() });
        };
        Ok(Argument::Property(name, self.value(line)?))
    }

    fn value(&mut self, line: usize) -> Result<Value, GrammarError> {
        match self.next(line)? {
            Token::Word(word) => Ok(Value::Simple(word)),
            Token::Sign('[') => Ok(Value::List(self.list(line)?)),
            Token::Sign('(') => Ok(Value::Complex(self.complex(line)?)),
            Token::Sign(sign) => Err(GrammarError { line, what: format!("syntax error at {sign:?}") }),
            Token::End => Err(GrammarError { line, what: "value not specified".into() }),
        }
    }

    fn list(&mut self, line: usize) -> Result<Vec<String>, GrammarError> {
        let mut list = Vec::new();
        if self.tokens.next_if(|(_, t)| *t == Token::Sign(']')).is_some() {
            return Ok(list);
        }
        loop {
            list.push(self.word(line)?);
            match self.next(line)? {
                Token::Sign(',') => {}
                Token::Sign(']') => return Ok(list),
                _ => return Err(GrammarError { line, what: "a list goes on with ',' or ends with ']'".into() }),
            }
        }
    }

    fn complex(&mut self, line: usize) -> Result<Vec<(String, String)>, GrammarError> {
        let mut members = Vec::new();
        loop {
            let name = self.word(line)?;
            if self.next(line)? != Token::Sign('=') {
                return Err(GrammarError { line, what: format!("{name} has no value") });
            }
            members.push((name, self.word(line)?));
            match self.next(line)? {
                Token::Sign(',') => {}
                Token::Sign(')') => return Ok(members),
                _ => return Err(GrammarError { line, what: "a value goes on with ',' or ends with ')'".into() }),
            }
        }
    }

    fn word(&mut self, line: usize) -> Result<String, GrammarError> {
        match self.next(line)? {
            Token::Word(word) => Ok(word),
            Token::Sign(_) | Token::End => Err(GrammarError { line, what: "value not specified".into() }),
        }
    }

    fn next(&mut self, line: usize) -> Result<Token, GrammarError> {
        let token = self.tokens.next().map(|(_, token)| token);
        token.ok_or_else(|| GrammarError { line, what: "value not specified".into() })
    }
}
