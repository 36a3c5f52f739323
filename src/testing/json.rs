//! As much JSON as a conversation with QEMU takes.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number, as it was written.
    Number(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Json>),
    /// Members in their order.
    Object(Vec<(String, Json)>),
}

/// Deepest nesting that is read.
const DEEPEST: u32 = 64;

impl Json {
    /// Reads one value; `None` where the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.rest.trim_start().is_empty().then_some(value)
    }

    /// The member of this name.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The whole number that it is.
    pub fn number(&self) -> Option<i64> {
        if let Self::Number(text) = self { text.parse().ok() } else { None }
    }

    /// The elements that it has.
    pub fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn eat(&mut self, word: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: u32) -> Option<Json> {
        if depth > DEEPEST {
            return None;
        }
        let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
        for (word, value) in words {
            if self.eat(word) {
                return Some(value);
            }
        }
        if self.eat("[") {
            return self.members("]", |reader| reader.value(depth.saturating_add(1))).map(Json::List);
        }
        if self.eat("{") {
            let member = |reader: &mut Self| {
                let key = reader.eat("\"").then(|| reader.string())??;
                reader.eat(":").then(|| Some((key, reader.value(depth.saturating_add(1))?)))?
            };
            return self.members("}", member).map(Json::Object);
        }
        if self.eat("\"") {
            return self.string().map(Json::Text);
        }
        let end = self.rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!number.is_empty()).then(|| Json::Number(number.into()))
    }

    fn members<T>(&mut self, end: &str, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        if self.eat(end) {
            return Some(all);
        }
        loop {
            all.push(one(self)?);
            if self.eat(end) {
                return Some(all);
            }
            self.eat(",").then_some(())?;
        }
    }

    /// What follows an opening quotation mark, up to the closing one.
    fn string(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let at = self.rest.find(['"', '\\'])?;
            let (plain, rest) = self.rest.split_at(at);
            text.push_str(plain);
            if let Some(rest) = rest.strip_prefix('"') {
                self.rest = rest;
                return Some(text);
            }
            let mut escape = rest.strip_prefix('\\')?.chars();
            let c = escape.next()?;
            self.rest = escape.as_str();
            text.push(match c {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'u' => self.unicode()?,
                '"' | '\\' | '/' => c,
                _ => return None,
            });
        }
    }

    fn unicode(&mut self) -> Option<char> {
        let unit = |reader: &mut Self| {
            let (digits, rest) = reader.rest.split_at_checked(4)?;
            reader.rest = rest;
            u32::from_str_radix(digits, 16).ok()
        };
        let first = unit(self)?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first);
        }
        self.rest = self.rest.strip_prefix("\\u")?;
        let second = unit(self)?.checked_sub(0xDC00).filter(|second| *second < 0x400)?;
        char::from_u32(
            first.checked_sub(0xD800)?.checked_mul(0x400)?.checked_add(second)?.checked_add(0x1_0000)?,
        )
    }
}

/// Writes a text as JSON does, quotation marks included.
pub(super) fn quote(text: &str) -> String {
    alloc::format!("{}", Json::Text(text.into()))
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(text) => f.write_str(text),
            Self::Text(text) => {
                f.write_str("\"")?;
                for c in text.chars() {
                    match c {
                        '"' | '\\' => write!(f, "\\{c}")?,
                        c if u32::from(c) < 0x20 => write!(f, "\\u{:04x}", u32::from(c))?,
                        c => write!(f, "{c}")?,
                    }
                }
                f.write_str("\"")
            }
            Self::List(list) => {
                f.write_str("[")?;
                for (n, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if n == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (n, (key, value)) in members.iter().enumerate() {
                    write!(f, "{}{}:{value}", if n == 0 { "" } else { "," }, quote(key))?;
                }
                f.write_str("}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn what_qemu_says_is_read() {
        let text = r#"{"timestamp": {"seconds": 17, "x": -1.5e3}, "event": "A\"\u00e4\ud83d\ude00\n", "l": [1, null, true, {}], "e": []}"#;
        let json = Json::parse(text).unwrap();
        assert_eq!(json.get("timestamp").unwrap().get("seconds").unwrap().number(), Some(17));
        assert_eq!(json.get("event").unwrap().text(), Some("A\"ä😀\n"));
        assert_eq!(json.get("l").unwrap().list().len(), 4);
        assert_eq!(Json::parse(&json.to_string()), Some(json));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in
            ["", "{", "[1,]", "{\"a\"}", "{\"a\":}", "\"", "\"\\x\"", "\"\\ud800\"", "1 2", "nul", "[1 2]"]
        {
            assert_eq!(Json::parse(text), None, "{text}");
        }
        assert_eq!(Json::parse(&"[".repeat(100_000)), None);
    }

    proptest! {
        #[test]
        fn any_text_survives_and_no_input_panics(text in "\\PC{0,40}", noise in "[\\[\\]{}\",:\\\\u0-9a ]{0,40}") {
            prop_assert_eq!(Json::parse(&quote(&text)), Some(Json::Text(text)));
            let _ = Json::parse(&noise);
        }
    }
}
