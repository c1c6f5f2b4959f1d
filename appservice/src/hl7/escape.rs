//! Escape sequences. HL7 version 2.5.1, section 2.7.

use super::message::Separators;

/// Longest sequence between two escape characters; a longer one is text.
const MAX_SEQUENCE_CHARS: usize = 64;

/// The text that an escaped text stands for. Unknown sequences are dropped, unfinished ones kept as they are.
pub(crate) fn unescape(text: &str, separators: Separators) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(separators.escape) {
        out.push_str(before);
        let end =
            after.char_indices().take(MAX_SEQUENCE_CHARS).find(|(_, c)| *c == separators.escape).map(|(at, _)| at);
        let Some((sequence, follows)) =
            end.and_then(|at| Some((after.get(..at)?, after.get(at + separators.escape.len_utf8()..)?)))
        else {
            out.push(separators.escape);
            rest = after;
            continue;
        };
        push_sequence(sequence, separators, &mut out);
        rest = follows;
    }
    out.push_str(rest);
    out.retain(|c| c == '\n' || !c.is_control());
    out
}

fn push_sequence(sequence: &str, separators: Separators, out: &mut String) {
    match sequence {
        "F" => out.push(separators.field),
        "S" => out.push(separators.component),
        "T" => out.push(separators.subcomponent),
        "R" => out.push(separators.repetition),
        "E" => out.push(separators.escape),
        ".br" | ".sp" => out.push('\n'),
        _ => {
            if let Some(hex) = sequence.strip_prefix('X') {
                let bytes: Vec<u8> = hex
                    .as_bytes()
                    .chunks_exact(2)
                    .filter_map(|pair| std::str::from_utf8(pair).ok())
                    .filter_map(|pair| u8::from_str_radix(pair, 16).ok())
                    .collect();
                out.push_str(&String::from_utf8_lossy(&bytes).replace('\r', "\n"));
            }
            // Highlighting (\H\, \N\), other formatting and local sequences carry no text.
        }
    }
}

/// The escaped form of a text, for a field that we send.
pub(crate) fn escape(text: &str, separators: Separators) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().filter(|c| !c.is_control()) {
        let letter = match c {
            c if c == separators.escape => 'E',
            c if c == separators.field => 'F',
            c if c == separators.component => 'S',
            c if c == separators.subcomponent => 'T',
            c if c == separators.repetition => 'R',
            c => {
                out.push(c);
                continue;
            }
        };
        out.extend([separators.escape, letter, separators.escape]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_sequences_stand_for_their_text() {
        let read = |text| unescape(text, Separators::default());
        assert_eq!(read(r"a\F\b\S\c\T\d\R\e\E\f"), r"a|b^c&d~e\f");
        assert_eq!(read(r"one\.br\two\X0D\three"), "one\ntwo\nthree");
        assert_eq!(read(r"\H\bold\N\ \Zx\end"), "bold end");
        assert_eq!(read(r"open \ end"), r"open \ end");
        assert_eq!(read(r"\Xzz\x"), "x");
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in "[ -~à-ü]{0,60}") {
            let separators = Separators::default();
            prop_assert_eq!(unescape(&escape(&text, separators), separators), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _any = unescape(&text, Separators::default());
        }
    }
}
