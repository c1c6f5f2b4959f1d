//! Acknowledgements: `ACK^R01` with `AA`, `AE` or `AR`.
//!
//! HL7 version 2.5.1, section 2.9.2, original mode.

use super::escape::escape;
use super::message::{Message, Separators};
use super::oru::Refusal;
use super::time;

/// Longest field of the message that is repeated in its acknowledgement, in characters.
const MAX_ECHO_CHARS: usize = 200;

/// The acknowledgement code of MSA-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckCode {
    /// Accepted: on disk here or in the room.
    Accept,
    /// The content is in error; the sender should look at it, or send again.
    Error,
    /// Rejected unread.
    Reject,
}

impl AckCode {
    fn letters(self) -> &'static str {
        match self {
            Self::Accept => "AA",
            Self::Error => "AE",
            Self::Reject => "AR",
        }
    }
}

/// What an acknowledgement says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// MSA-1.
    pub code: AckCode,
    /// Table 0357 code and the sentence for ERR; `None` for an acceptance.
    pub reason: Option<(u16, &'static str)>,
}

impl Ack {
    /// The message is safe.
    pub const ACCEPTED: Self = Self { code: AckCode::Accept, reason: None };
    /// The spool is full or its disk failed: send again.
    pub const TRY_AGAIN: Self =
        Self { code: AckCode::Error, reason: Some((207, "The message cannot be kept now. Send it again later.")) };
    /// The same control id came with another content.
    pub const REUSED_CONTROL_ID: Self = Self {
        code: AckCode::Error,
        reason: Some((205, "Another message with the same control id was accepted before.")),
    };

    /// The refusal of a message that was read.
    #[must_use]
    pub fn refused(refusal: &Refusal) -> Self {
        Self { code: refusal.code(), reason: Some((refusal.table_0357(), refusal.sentence())) }
    }

    /// The acknowledgement of `message`, or of unreadable bytes where there is none.
    #[must_use]
    pub fn write(&self, message: Option<&Message>, now_ms: u64) -> Vec<u8> {
        let separators = message.map_or_else(Separators::default, Message::separators);
        // What is echoed must not break the framing, nor make an acknowledgement as large as a message.
        let header = |number: usize| -> String {
            let raw = message.map_or("", |message| message.header().field(number).raw());
            raw.chars().filter(|c| !c.is_control()).take(MAX_ECHO_CHARS).collect()
        };
        let field = separators.field;
        let encoding: String =
            [separators.component, separators.repetition, separators.escape, separators.subcomponent].iter().collect();
        let component = separators.component;
        let control_id = header(10);
        let version = match header(12) {
            version if version.is_empty() => "2.5.1".to_owned(),
            version => version,
        };
        let processing = match header(11) {
            processing if processing.is_empty() => "P".to_owned(),
            processing => processing,
        };
        let stamp = time::format(now_ms);
        let mut out = [
            format!("MSH{field}{encoding}"),
            header(5),
            header(6),
            header(3),
            header(4),
            stamp,
            String::new(),
            format!("ACK{component}R01"),
            format!("A{control_id}"),
            processing,
            version,
        ]
        .join(&field.to_string());
        let sentence = self.reason.map_or("", |(_, sentence)| sentence);
        out.push('\r');
        out.push_str(
            &["MSA", self.code.letters(), &control_id, &escape(sentence, separators)].join(&field.to_string()),
        );
        out.push('\r');
        if let Some((code, sentence)) = self.reason {
            let code = code.to_string();
            out.push_str(
                &["ERR", "", "", &code, "E", "", "", "", &escape(sentence, separators)].join(&field.to_string()),
            );
            out.push('\r');
        }
        out.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_goes_back_to_its_sender_with_its_control_id() {
        let message = Message::parse(b"MSH|^~\\&|LAB|NORTH|EHR|WARD|2026||ORU^R01|42|P|2.4\r").unwrap();
        let ack = Ack::ACCEPTED.write(Some(&message), 0);
        assert_eq!(
            String::from_utf8(ack).unwrap(),
            "MSH|^~\\&|EHR|WARD|LAB|NORTH|19700101000000+0000||ACK^R01|A42|P|2.4\rMSA|AA|42|\r"
        );
    }

    #[test]
    fn nothing_of_a_message_breaks_the_framing_of_its_acknowledgement() {
        let header = format!("MSH|^~\\&|{}|N|||2026||ORU^R01|1|P|2.4\u{1c}\r", "x".repeat(5_000));
        let ack = Ack::ACCEPTED.write(Some(&Message::parse(header.as_bytes()).unwrap()), 0);
        assert!(!ack.contains(&0x1C) && ack.len() < 1_000);
    }

    #[test]
    fn a_refusal_says_why_even_to_nobody() {
        let ack = String::from_utf8(Ack::TRY_AGAIN.write(None, 0)).unwrap();
        assert!(ack.contains("\rMSA|AE||The message cannot be kept now."));
        assert!(ack.contains("\rERR|||207|E||||The message"));
        assert!(Message::parse(ack.as_bytes()).is_ok());
    }
}
