//! HL7 v2 messages: segments, fields, repetitions, components, subcomponents.
//!
//! HL7 version 2.5.1, chapter 2, "Control".

use std::borrow::Cow;

use thiserror::Error;

use super::escape;

/// Most segments of one message.
const MAX_SEGMENTS: usize = 20_000;

/// Why bytes are not an HL7 message.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// Not in the character set that MSH-18 names, or in one that is not read.
    #[error("the character set is not UTF-8 or ISO 8859-1, or the text is not in it")]
    Charset,
    /// No MSH segment at the start.
    #[error("the message does not start with MSH")]
    NoHeader,
    /// MSH-1 and MSH-2 do not name five different separators.
    #[error("MSH-1 and MSH-2 do not name the separators")]
    Separators,
    /// A segment has no name of three letters or digits.
    #[error("segment {0} has no name")]
    SegmentName(usize),
    /// More segments than any report.
    #[error("there are too many segments")]
    TooManySegments,
}

/// The separators of a message, from MSH-1 and MSH-2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Separators {
    /// `|`
    pub field: char,
    /// `^`
    pub component: char,
    /// `~`
    pub repetition: char,
    /// `\`
    pub escape: char,
    /// `&`
    pub subcomponent: char,
}

impl Default for Separators {
    fn default() -> Self {
        Self { field: '|', component: '^', repetition: '~', escape: '\\', subcomponent: '&' }
    }
}

/// A message; its `Debug` shows only its shape.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    separators: Separators,
    segments: Vec<String>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("segments", &self.segments.len()).finish_non_exhaustive()
    }
}

/// One segment of a message.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    separators: Separators,
    text: &'a str,
}

impl std::fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Segment").field(&self.name()).finish()
    }
}

/// One field, or one of its repetitions.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    separators: Separators,
    text: &'a str,
}

impl std::fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Field(…)")
    }
}

impl Message {
    /// Reads a message; segments end with CR (LF and CR LF are taken too).
    ///
    /// # Errors
    /// [`ParseError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let text = decode(bytes)?;
        let text = text.trim_start_matches(['\r', '\n']);
        let separators = separators(text)?;
        let mut segments = Vec::new();
        for line in text.split(['\r', '\n']).filter(|line| !line.trim().is_empty()) {
            if segments.len() >= MAX_SEGMENTS {
                return Err(ParseError::TooManySegments);
            }
            let name = line.split(separators.field).next().unwrap_or_default();
            if name.len() != 3 || !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
                return Err(ParseError::SegmentName(segments.len() + 1));
            }
            segments.push(line.to_owned());
        }
        Ok(Self { separators, segments })
    }

    /// Its separators.
    #[must_use]
    pub fn separators(&self) -> Separators {
        self.separators
    }

    /// All segments in order.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.segments.iter().map(|text| Segment { separators: self.separators, text })
    }

    /// The first segment, MSH.
    #[must_use]
    pub fn header(&self) -> Segment<'_> {
        let text = self.segments.first().map_or("", String::as_str);
        Segment { separators: self.separators, text }
    }
}

/// Finds the separators of a message that starts with MSH.
pub(crate) fn separators(text: &str) -> Result<Separators, ParseError> {
    let rest = text.strip_prefix("MSH").ok_or(ParseError::NoHeader)?;
    let mut chars = rest.chars();
    let field = chars.next().ok_or(ParseError::Separators)?;
    let encoding: Vec<char> = chars.take_while(|c| *c != field && *c != '\r').take(6).collect();
    // HL7 2.7 adds a truncation character; it needs no treatment.
    let (component, repetition, escape, subcomponent) = match encoding.as_slice() {
        [component, repetition, escape, subcomponent] | [component, repetition, escape, subcomponent, _] => {
            (*component, *repetition, *escape, *subcomponent)
        }
        _ => return Err(ParseError::Separators),
    };
    let all = [field, component, repetition, escape, subcomponent];
    let distinct = all.iter().enumerate().all(|(at, c)| !all.iter().skip(at + 1).any(|d| c == d));
    let sound = all.iter().all(|c| c.is_ascii_punctuation());
    if !distinct || !sound {
        return Err(ParseError::Separators);
    }
    Ok(Separators { field, component, repetition, escape, subcomponent })
}

/// Reads the bytes in the character set that MSH-18 names.
fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, ParseError> {
    let header_end = bytes.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    let header = String::from_utf8_lossy(bytes.get(..header_end).unwrap_or_default());
    let field = header.chars().nth(3).unwrap_or('|');
    let named = header.split(field).nth(17).unwrap_or_default();
    let named = named.split('~').next().unwrap_or_default().trim().to_ascii_uppercase();
    match named.as_str() {
        "" | "ASCII" | "UNICODE UTF-8" | "UNICODE" | "UTF-8" | "UTF8" => {
            std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_invalid| ParseError::Charset)
        }
        "8859/1" | "ISO-8859-1" | "ISO8859-1" => Ok(Cow::Owned(bytes.iter().copied().map(char::from).collect())),
        _ => Err(ParseError::Charset),
    }
}

impl<'a> Segment<'a> {
    /// Its name of three letters.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.text.split(self.separators.field).next().unwrap_or_default()
    }

    /// Field by its HL7 number: 1 is the first after the name. An absent field is empty.
    #[must_use]
    pub fn field(&self, number: usize) -> Field<'a> {
        // MSH-1 is the separator itself, so MSH counts one less.
        let index = if self.name() == "MSH" { number.saturating_sub(1) } else { number };
        let text = self.text.split(self.separators.field).nth(index).unwrap_or_default();
        Field { separators: self.separators, text }
    }
}

impl<'a> Field<'a> {
    /// The text as it stands, escapes and all.
    #[must_use]
    pub fn raw(&self) -> &'a str {
        self.text
    }

    /// True where the field is absent, empty or the explicit null `""`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() || self.text == "\"\""
    }

    /// Its repetitions.
    pub fn repetitions(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let separators = self.separators;
        self.text.split(separators.repetition).map(move |text| Field { separators, text })
    }

    /// Component of the first repetition, from 1, unescaped; its subcomponents are joined by spaces.
    #[must_use]
    pub fn component(&self, number: usize) -> String {
        let first = self.text.split(self.separators.repetition).next().unwrap_or_default();
        let component = first.split(self.separators.component).nth(number.saturating_sub(1)).unwrap_or_default();
        if component == "\"\"" {
            return String::new();
        }
        component
            .split(self.separators.subcomponent)
            .map(|part| escape::unescape(part, self.separators))
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The whole first repetition as text, unescaped; for fields without components.
    #[must_use]
    pub fn text(&self) -> String {
        if self.is_empty() {
            return String::new();
        }
        escape::unescape(self.text, self.separators)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_components_repetitions_and_escapes_are_read() {
        let message = Message::parse(
            b"MSH|^~\\&|LAB|NORTH|EHR|WARD|20260101||ORU^R01|42|P|2.5.1\rPID|1||A1~B2||O\\S\\Neil&X^Ann\r",
        )
        .unwrap();
        assert_eq!(message.header().field(3).text(), "LAB");
        assert_eq!(message.header().field(10).text(), "42");
        assert_eq!(message.header().field(9).component(2), "R01");
        let patient = message.segments().nth(1).unwrap();
        assert_eq!(patient.name(), "PID");
        assert_eq!(patient.field(3).repetitions().map(|r| r.component(1)).collect::<Vec<_>>(), ["A1", "B2"]);
        assert_eq!(patient.field(5).component(1), "O^Neil X");
        assert_eq!(patient.field(5).component(2), "Ann");
        assert_eq!(patient.field(99).text(), "");
    }

    #[test]
    fn separators_of_the_header_are_obeyed() {
        let message = Message::parse(b"MSH#*!?%#L#N###2026##ORU*R01#7#P#2.3\rOBX#1#NM#K*Potassium\r").unwrap();
        assert_eq!(message.header().field(9).component(1), "ORU");
        assert_eq!(message.segments().nth(1).unwrap().field(3).component(2), "Potassium");
    }

    #[test]
    fn what_is_no_message_is_named() {
        let error = |bytes: &[u8]| Message::parse(bytes).unwrap_err();
        assert_eq!(error(b""), ParseError::NoHeader);
        assert_eq!(error(b"PID|1"), ParseError::NoHeader);
        assert_eq!(error(b"MSH"), ParseError::Separators);
        assert_eq!(error(b"MSH|^^\\&|"), ParseError::Separators);
        assert_eq!(error(b"MSH|^~\\&|\rP|1"), ParseError::SegmentName(2));
        assert_eq!(error(b"MSH|^~\\&|\xff"), ParseError::Charset);
        assert_eq!(error(b"MSH|^~\\&||||||||||||||||KOI8-R"), ParseError::Charset);
    }

    #[test]
    fn latin_1_is_read_where_it_is_named() {
        let message = Message::parse(b"MSH|^~\\&|L|N|||2026||ORU^R01|1|P|2.5||||||8859/1\rPID|||1||M\xfcller").unwrap();
        assert_eq!(message.segments().nth(1).unwrap().field(5).component(1), "Müller");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), headed in any::<bool>()) {
            if headed {
                bytes.splice(0..0, b"MSH|^~\\&|".iter().copied());
            }
            if let Ok(message) = Message::parse(&bytes) {
                for segment in message.segments() {
                    for number in 0..5 {
                        let _text = segment.field(number).component(2);
                    }
                }
            }
        }
    }
}
