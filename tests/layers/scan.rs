//! Just enough of Rust's grammar to find paths, attributes, test code and functions in a source file.

use std::ops::RangeInclusive;

/// A word, a literal or one mark of punctuation (`::` counts as one), and the line it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Cuts `source` into tokens. Comments go; string literals stay, quotes included, so that no word of theirs
/// is taken for code.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut at, mut line, mut found) = (0, 1, Vec::new());
    while at < chars.len() {
        let end = token_end(&chars, at);
        let text: String = chars[at..end].iter().collect();
        let trivia =
            text.starts_with(char::is_whitespace) || text.starts_with("//") || text.starts_with("/*");
        let lines = text.matches('\n').count();
        if !trivia {
            found.push(Token { text, line });
        }
        line += lines;
        at = end;
    }
    found
}

/// Where the token, comment or blank that begins at `at` ends.
fn token_end(chars: &[char], at: usize) -> usize {
    let peek = |n: usize| chars.get(at + n).copied().unwrap_or('\0');
    match peek(0) {
        c if c.is_whitespace() => at + 1,
        '/' if peek(1) == '/' => (at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()),
        '/' if peek(1) == '*' => comment_end(chars, at),
        '"' => string_end(chars, at),
        '\'' if peek(1) == '\\' => {
            (at + 3..chars.len()).find(|&i| chars[i] == '\'').map_or(chars.len(), |i| i + 1)
        }
        '\'' if peek(2) == '\'' => at + 3,
        '\'' => word_end(chars, at + 1),
        ':' if peek(1) == ':' => at + 2,
        c if c.is_alphanumeric() || c == '_' => {
            let end = word_end(chars, at);
            let word: String = chars[at..end].iter().collect();
            match (word.as_str(), chars.get(end)) {
                ("r" | "br" | "cr", Some('"' | '#')) => raw_string_end(chars, end),
                ("b" | "c", Some('"')) => string_end(chars, end),
                ("b", Some('\'')) => token_end(chars, end),
                _ => end,
            }
        }
        _ => at + 1,
    }
}

fn word_end(chars: &[char], at: usize) -> usize {
    (at..chars.len()).find(|&i| !(chars[i].is_alphanumeric() || chars[i] == '_')).unwrap_or(chars.len())
}

fn comment_end(chars: &[char], at: usize) -> usize {
    let (mut i, mut depth) = (at, 0);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => {
                (depth, i) = (depth - 1, i + 2);
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `at` is on the first `#` or quote after the prefix. A raw identifier (`r#type`) ends where its word does.
fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + hashes) != Some(&'"') {
        return word_end(chars, at + hashes);
    }
    (at + hashes + 1..chars.len())
        .find(|&i| {
            chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        })
        .map_or(chars.len(), |i| i + 1 + hashes)
}

/// A file's tokens without those of test code.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) tokens: Vec<Token>,
    /// Lines that only test builds see.
    pub(crate) test_lines: Vec<RangeInclusive<usize>>,
    /// Modules with files of their own that only test builds see.
    pub(crate) test_modules: Vec<String>,
}

/// Takes items under `#[cfg(test)]` or `#[cfg(all(test, …))]` out; a file that opens with
/// `#![cfg(test)]` is all test code.
pub(crate) fn without_tests(all: Vec<Token>) -> Code {
    let mut code = Code { tokens: Vec::new(), test_lines: Vec::new(), test_modules: Vec::new() };
    let mut at = 0;
    while at < all.len() {
        let Some(end) = attribute_end(&all, at) else {
            code.tokens.push(all[at].clone());
            at += 1;
            continue;
        };
        if !is_test_only(&all[at..end]) {
            code.tokens.extend_from_slice(&all[at..end]);
            at = end;
            continue;
        }
        let last = if all[at + 1].text == "!" { all.len() } else { item_end(&all, end) };
        code.test_lines.push(all[at].line..=all[last - 1].line);
        let item: Vec<&str> = all[end..last].iter().map(|t| t.text.as_str()).collect();
        if let Some([_, name, ";"]) = item.windows(3).find(|w| w[0] == "mod") {
            code.test_modules.push((*name).to_owned());
        }
        at = last;
    }
    code
}

fn is_test_only(attribute: &[Token]) -> bool {
    let text: String =
        attribute.iter().map(|t| t.text.as_str()).filter(|t| !["#", "!"].contains(t)).collect();
    text == "[cfg(test)]" || text.starts_with("[cfg(all(test,")
}

/// The index after the attribute that begins at `at`, if one does.
pub(crate) fn attribute_end(tokens: &[Token], at: usize) -> Option<usize> {
    let open = if is(tokens, at + 1, "!") { at + 2 } else { at + 1 };
    (is(tokens, at, "#") && is(tokens, open, "[")).then(|| group_end(tokens, open))
}

/// The index after the item that begins at `at`, its other attributes included.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while let Some(end) = attribute_end(tokens, at) {
        at = end;
    }
    while at < tokens.len() {
        match tokens[at].text.as_str() {
            ";" => return at + 1,
            // The parent's end: what was left out is its last field or variant.
            "}" => return at,
            "{" => {
                at = group_end(tokens, at);
                if !is(tokens, at, ";") {
                    return at;
                }
            }
            "(" | "[" => at = group_end(tokens, at),
            _ => at += 1,
        }
    }
    tokens.len()
}

/// The index after the bracket that closes the one at `open`.
pub(crate) fn group_end(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    tokens.len()
}

pub(crate) fn is(tokens: &[Token], at: usize, text: &str) -> bool {
    tokens.get(at).is_some_and(|t| t.text == text)
}

/// A path as it is written, group by group: `a::{b, c::d}` gives `a::b` and `a::c::d`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PathUse {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// All paths that begin with one of `roots`.
pub(crate) fn paths(tokens: &[Token], roots: &[&str]) -> Vec<PathUse> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let begins = at == 0 || !is(tokens, at - 1, "::");
        if begins && roots.contains(&token.text.as_str()) && is(tokens, at + 1, "::") {
            path_tree(tokens, at, &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one branch of a path or `use` tree at `at`; answers the index after it.
pub(crate) fn path_tree(
    tokens: &[Token],
    mut at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<PathUse>,
) -> usize {
    let depth = prefix.len();
    let line = tokens.get(at).map_or(0, |t| t.line);
    loop {
        if is(tokens, at, "{") {
            let end = group_end(tokens, at);
            at += 1;
            while at + 1 < end {
                at = path_tree(tokens, at, prefix, found);
                // To the comma: what stands between is an `as` and its name.
                while at + 1 < end && !is(tokens, at, ",") {
                    at += 1;
                }
                at += 1;
            }
            prefix.truncate(depth);
            return end;
        }
        if let Some(token) = tokens.get(at) {
            prefix.push(token.text.clone());
        }
        at += 1;
        // `crate::f::<T>()` goes on with generics, which hold paths of their own.
        if !is(tokens, at, "::") || is(tokens, at + 1, "<") {
            break;
        }
        at += 1;
    }
    found.push(PathUse { segments: prefix.clone(), line });
    prefix.truncate(depth);
    at
}

/// Functions with a body: name, first and last line.
pub(crate) fn functions(tokens: &[Token]) -> Vec<(String, RangeInclusive<usize>)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(at + 1) else { break };
        if token.text != "fn" || !name.text.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            continue;
        }
        let mut i = at + 2;
        while i < tokens.len() && !is(tokens, i, "{") && !is(tokens, i, ";") {
            i = if is(tokens, i, "(") || is(tokens, i, "[") { group_end(tokens, i) } else { i + 1 };
        }
        if is(tokens, i, "{") {
            found.push((name.text.clone(), token.line..=tokens[group_end(tokens, i) - 1].line));
        }
    }
    found
}
