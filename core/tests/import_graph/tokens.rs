//! Just enough of Rust's syntax to find modules, `use` declarations and paths in a file.

/// What a file says of modules and paths.
#[derive(Debug, Default)]
pub(super) struct FileContent {
    /// Names of the modules declared by `mod name;`, those for tests excepted, each once.
    pub(super) modules: Vec<String>,
    /// Everything that `use` declarations import.
    pub(super) uses: Vec<Import>,
    /// Paths of two or more words outside `use` declarations.
    pub(super) paths: Vec<Vec<String>>,
}

/// One name that a `use` declaration imports.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The name that it is bound to in the file; `None` for `*`.
    pub(super) name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Other(char),
}

impl FileContent {
    pub(super) fn parse(text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        let mut content = Self::default();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at..] {
                [Token::Word(word), Token::Word(name), Token::Other(';'), ..] if word == "mod" => {
                    if !content.modules.contains(name) {
                        content.modules.push(name.clone());
                    }
                    at += 3;
                }
                [Token::Word(word), ..] if word == "use" => at = content.parse_use(&tokens, at + 1, &[]) + 1,
                [Token::Word(_), Token::Colons, Token::Word(_), ..] => {
                    let mut path = Vec::new();
                    while let Some(Token::Word(word)) = tokens.get(at) {
                        path.push(word.clone());
                        at += 1;
                        if tokens.get(at) != Some(&Token::Colons) {
                            break;
                        }
                        at += 1;
                    }
                    content.paths.push(path);
                }
                _ => at += 1,
            }
        }
        content
    }

    /// Reads one tree of a `use` declaration that begins at `at`, below the path `before`; returns where the
    /// token after it is.
    fn parse_use(&mut self, tokens: &[Token], mut at: usize, before: &[String]) -> usize {
        let mut path = before.to_vec();
        loop {
            match tokens.get(at) {
                Some(Token::Colons) => at += 1,
                Some(Token::Word(word)) if word == "as" => {
                    let Some(Token::Word(name)) = tokens.get(at + 1) else { return at + 1 };
                    self.uses.push(Import { path, name: Some(name.clone()) });
                    return at + 2;
                }
                Some(Token::Word(word)) if word == "self" && !path.is_empty() => at += 1,
                Some(Token::Word(word)) => {
                    path.push(word.clone());
                    at += 1;
                }
                Some(Token::Other('*')) => {
                    self.uses.push(Import { path, name: None });
                    return at + 1;
                }
                Some(Token::Other('{')) => {
                    at += 1;
                    while !matches!(tokens.get(at), None | Some(Token::Other('}'))) {
                        at = self.parse_use(tokens, at, &path);
                        if tokens.get(at) == Some(&Token::Other(',')) {
                            at += 1;
                        }
                    }
                    return at + 1;
                }
                _ => {
                    let name = path.last().cloned();
                    self.uses.push(Import { path, name });
                    return at;
                }
            }
        }
    }
}

/// Leaves out every item with an attribute `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(end) = attribute_end(tokens, at) {
            let words: Vec<&str> = tokens[at..end].iter().filter_map(word).collect();
            if words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not") {
                at = item_end(tokens, end);
            } else {
                at = end;
            }
            continue;
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

fn word(token: &Token) -> Option<&str> {
    match token {
        Token::Word(word) => Some(word),
        _ => None,
    }
}

/// Where the attribute that begins at `at` ends, if one does.
fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let inner = usize::from(tokens.get(at + 1) == Some(&Token::Other('!')));
    let opens = tokens[at] == Token::Other('#') && tokens.get(at + 1 + inner) == Some(&Token::Other('['));
    opens.then(|| closing(tokens, at + 1 + inner, '[', ']'))
}

/// Where the item that begins at `at`, perhaps with more attributes, ends: after its `;` or its body.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at] {
            Token::Other('(' | '[') => depth += 1,
            Token::Other(')' | ']') => depth -= 1,
            Token::Other('{') if depth == 0 => {
                let end = closing(tokens, at, '{', '}');
                // The braces of `use a::{b};` and of `let x = {};` are not the end of it.
                return end + usize::from(tokens.get(end) == Some(&Token::Other(';')));
            }
            Token::Other(';' | ',') if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    at
}

/// Where the bracket that opens at `at` has been closed.
fn closing(tokens: &[Token], mut at: usize, open: char, close: char) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        depth += i32::from(tokens[at] == Token::Other(open)) - i32::from(tokens[at] == Token::Other(close));
        at += 1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The tokens of a file without its comments, strings, characters and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let starts = |at: usize, with: &str| with.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if starts(at, "//") {
            at += chars[at..].iter().take_while(|c| **c != '\n').count();
        } else if starts(at, "/*") {
            at = block_comment_end(&chars, at);
        } else if c == '"' {
            at = string_end(&chars, at);
        } else if c == '\'' {
            at = character_end(&chars, at);
        } else if c.is_alphanumeric() || c == '_' {
            let word: String = chars[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').collect();
            at += word.chars().count();
            let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
            let raw = matches!(word.as_str(), "r" | "br" | "cr");
            if raw && chars.get(at + hashes) == Some(&'"') {
                at = raw_string_end(&chars, at + hashes + 1, hashes);
            } else if matches!(word.as_str(), "b" | "c") && chars.get(at) == Some(&'"') {
                at = string_end(&chars, at);
            } else if word == "b" && chars.get(at) == Some(&'\'') {
                at = character_end(&chars, at);
            } else {
                tokens.push(Token::Word(word));
            }
        } else if starts(at, "::") {
            tokens.push(Token::Colons);
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(Token::Other(c));
            }
            at += 1;
        }
    }
    tokens
}

/// Comments may stand inside each other.
fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string_end(chars: &[char], mut at: usize, hashes: usize) -> usize {
    while at < chars.len() {
        let closes = chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
        at += 1;
        if closes {
            return at + hashes;
        }
    }
    at
}

/// After a character, or after the quote of a lifetime.
fn character_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => at + 3 + chars[at + 3..].iter().take_while(|c| **c != '\'').count() + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}
