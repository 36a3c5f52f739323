//! The lines of the qtest protocol, as the machine sends them.

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;

/// One line of the machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The answer to a command that was done, without its first word.
    Done(String),
    /// The answer to one that was not; the reason is in the transcript.
    Refused,
    /// An interrupt line changed; it comes between answers, at any time.
    Irq {
        /// Number of the line at the intercepted controller.
        line: u32,
        /// Whether it went up.
        up: bool,
    },
    /// No line of the protocol.
    Garbage,
}

impl Line {
    pub(super) fn parse(text: &[u8]) -> Self {
        let Ok(text) = core::str::from_utf8(text) else { return Self::Garbage };
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "OK" => Self::Done(rest.trim().to_owned()),
            "FAIL" | "ERR" => Self::Refused,
            "IRQ" => Self::irq(rest).unwrap_or(Self::Garbage),
            _ => Self::Garbage,
        }
    }

    fn irq(rest: &str) -> Option<Self> {
        let (change, line) = rest.split_once(' ')?;
        let up = match change {
            "raise" => true,
            "lower" => false,
            _ => return None,
        };
        Some(Self::Irq { line: line.trim().parse().ok()?, up })
    }
}

/// A number in an answer, decimal or with `0x`.
pub(super) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Lines that are kept for errors.
const KEPT: usize = 12;
/// Bytes of a line that are kept.
const KEPT_BYTES: usize = 80;

/// The last lines that went over the socket, both ways.
#[derive(Debug, Default)]
pub(super) struct Transcript(VecDeque<(char, String)>);

impl Transcript {
    pub(super) fn said(&mut self, command: &str) {
        self.push('>', command);
    }

    pub(super) fn heard(&mut self, line: &[u8]) {
        let shown = line.get(..KEPT_BYTES).unwrap_or(line);
        self.push('<', &String::from_utf8_lossy(shown));
    }

    fn push(&mut self, way: char, line: &str) {
        // The room of the line that goes is used again: this runs with every access to a register.
        let mut text = match self.0.len() {
            KEPT.. => self.0.pop_front().map(|(_, text)| text).unwrap_or_default(),
            _ => String::new(),
        };
        text.clear();
        text.extend(line.chars().take(KEPT_BYTES));
        self.0.push_back((way, text));
    }

    /// All lines in one, `>` before ours and `<` before the machine's.
    pub(super) fn text(&self) -> String {
        self.0.iter().fold(String::new(), |mut all, (way, line)| {
            if !all.is_empty() {
                all.push_str(" | ");
            }
            all.push_str(&format!("{way} {}", line.escape_default()));
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_line_is_told_apart() {
        assert_eq!(Line::parse(b"OK"), Line::Done(String::new()));
        assert_eq!(Line::parse(b"OK 0x12"), Line::Done("0x12".to_string()));
        assert_eq!(Line::parse(b"OK little\r"), Line::Done("little".to_string()));
        assert_eq!(Line::parse(b"FAIL Unknown command 'x'"), Line::Refused);
        assert_eq!(Line::parse(b"ERR"), Line::Refused);
        assert_eq!(Line::parse(b"IRQ raise 11"), Line::Irq { line: 11, up: true });
        assert_eq!(Line::parse(b"IRQ lower 0"), Line::Irq { line: 0, up: false });
        for garbage in
            [&b""[..], b"ok 0", b"IRQ", b"IRQ raise", b"IRQ up 1", b"IRQ raise x", b"\xff", b"OKAY"]
        {
            assert_eq!(Line::parse(garbage), Line::Garbage, "{garbage:?}");
        }
    }

    #[test]
    fn numbers_are_read_as_the_machine_writes_them() {
        assert_eq!(
            (number("0x1af4"), number("17"), number("0xffffffffffffffff")),
            (Some(0x1af4), Some(17), Some(u64::MAX))
        );
        assert_eq!(
            (number(""), number("0x"), number("0x10000000000000000"), number("-1")),
            (None, None, None, None)
        );
    }

    #[test]
    fn the_transcript_keeps_the_last_lines_short() {
        let mut transcript = Transcript::default();
        for n in 0..40 {
            transcript.said(&format!("readl {n}"));
        }
        transcript.heard(&[b'x'; 5000]);
        let text = transcript.text();
        assert!(text.starts_with("> readl 29 | ") && text.len() < 400 && text.contains("< xxx"), "{text}");
    }

    proptest! {
        #[test]
        fn v16_no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Line::parse(&bytes);
            let mut transcript = Transcript::default();
            transcript.heard(&bytes);
            prop_assert!(!transcript.text().contains('\n'));
        }
    }
}
