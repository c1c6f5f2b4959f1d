//! `ORU^R01`: an unsolicited laboratory report, read from a message.

use serde::Serialize;

use super::ack::AckCode;
use super::message::{Message, ParseError, Segment};
use super::time;

/// Longest value that is shown in a room, in bytes; longer ones belong in a document.
const MAX_VALUE_BYTES: usize = 16 * 1024;
/// Longest control id.
const MAX_CONTROL_ID_BYTES: usize = 199;

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not HL7.
    Malformed(ParseError),
    /// MSH-9 is not `ORU^R01`.
    MessageType,
    /// MSH-12 is not version 2.
    Version,
    /// MSH-10 is empty or too long.
    ControlId,
    /// No OBX segment.
    NoObservation,
    /// OBX without OBX-3.
    NoObservationId,
    /// A document or an overlong value in OBX-5, or too much text around it.
    ValueTooLarge,
    /// No room is configured for its facility.
    NoRoom,
}

impl Refusal {
    /// MSA-1: what the sender did wrong in the envelope is rejected, what is wrong inside is an error.
    #[must_use]
    pub fn code(&self) -> AckCode {
        match self {
            Self::Malformed(_) | Self::MessageType | Self::Version => AckCode::Reject,
            Self::ControlId | Self::NoObservation | Self::NoObservationId | Self::ValueTooLarge | Self::NoRoom => {
                AckCode::Error
            }
        }
    }

    /// HL7 table 0357.
    #[must_use]
    pub fn table_0357(&self) -> u16 {
        match self {
            Self::Malformed(_) | Self::NoObservation => 100,
            Self::ControlId | Self::NoObservationId => 101,
            Self::ValueTooLarge => 102,
            Self::MessageType => 200,
            Self::Version => 203,
            Self::NoRoom => 204,
        }
    }

    /// What the sender's operator reads.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Malformed(ParseError::Charset) => {
                "The character set of MSH-18 is not supported, or the text is not in it."
            }
            Self::Malformed(ParseError::NoHeader) => "The message does not start with MSH.",
            Self::Malformed(ParseError::Separators) => "MSH-1 and MSH-2 do not name the separators.",
            Self::Malformed(ParseError::SegmentName(_)) => "A segment has no name of three letters.",
            Self::Malformed(ParseError::TooManySegments) => "There are too many segments.",
            Self::MessageType => "Only ORU^R01 is supported.",
            Self::Version => "Only HL7 version 2 is supported.",
            Self::ControlId => "MSH-10 must have 1 to 199 characters.",
            Self::NoObservation => "The report has no OBX segment.",
            Self::NoObservationId => "OBX-3 is required.",
            Self::ValueTooLarge => "OBX-5 holds a document or is too long for a message.",
            Self::NoRoom => "No room is configured for this facility.",
        }
    }
}

/// One result.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Observation {
    /// OBX-3.1.
    pub code: String,
    /// OBX-3.2, or the code.
    pub name: String,
    /// OBX-3.3, the coding system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// OBX-5.
    pub value: String,
    /// OBX-6.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// OBX-7.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub range: String,
    /// OBX-8, as sent: `H`, `LL`, `A`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub flags: String,
    /// OBX-11: `F` final, `P` preliminary, `C` corrected, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// NTE segments that follow it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One order and its results.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Order {
    /// OBR-4.
    pub name: String,
    /// OBR-7, readable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub observed: String,
    /// OBR-25.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Its results.
    pub observations: Vec<Observation>,
    /// NTE segments of the order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The patient, as far as a clinician needs to know whom a result belongs to.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Patient {
    /// PID-3.1, all of them.
    pub ids: Vec<String>,
    /// PID-5, family and given name.
    pub name: String,
    /// PID-7.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub born: String,
    /// PID-8.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sex: String,
}

/// A laboratory report; its `Debug` shows only its size.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct LabReport {
    /// MSH-10.
    pub control_id: String,
    /// MSH-3.
    pub application: String,
    /// MSH-4.
    pub facility: String,
    /// MSH-6.
    pub receiving_facility: String,
    /// MSH-11 other than `P`: training or debugging, not about a patient.
    pub test: bool,
    /// PID.
    pub patient: Patient,
    /// OBR groups.
    pub orders: Vec<Order>,
}

macro_rules! silent_debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
silent_debug!(LabReport, Patient, Order, Observation);

impl LabReport {
    /// Reads a report.
    ///
    /// # Errors
    /// [`Refusal`], for the acknowledgement.
    pub fn read(message: &Message) -> Result<Self, Refusal> {
        let header = message.header();
        let kind = header.field(9);
        if kind.component(1) != "ORU" || kind.component(2) != "R01" {
            return Err(Refusal::MessageType);
        }
        let version = header.field(12).component(1);
        if !version.is_empty() && version != "2" && !version.starts_with("2.") {
            return Err(Refusal::Version);
        }
        let control_id = header.field(10).text();
        if control_id.is_empty() || control_id.len() > MAX_CONTROL_ID_BYTES {
            return Err(Refusal::ControlId);
        }
        let mut report = Self {
            control_id,
            application: header.field(3).component(1),
            facility: header.field(4).component(1),
            receiving_facility: header.field(6).component(1),
            test: !matches!(header.field(11).component(1).as_str(), "" | "P"),
            patient: Patient::default(),
            orders: Vec::new(),
        };
        for segment in message.segments().skip(1) {
            report.take(segment)?;
        }
        if report.orders.iter().all(|order| order.observations.is_empty()) {
            return Err(Refusal::NoObservation);
        }
        Ok(report)
    }

    fn take(&mut self, segment: Segment<'_>) -> Result<(), Refusal> {
        match segment.name() {
            "PID" => self.patient = patient(segment),
            "OBR" => self.orders.push(order(segment)),
            "OBX" => {
                let observation = observation(segment)?;
                if let Some(order) = self.last_order() {
                    order.observations.push(observation);
                }
            }
            "NTE" if !self.orders.is_empty() => {
                let note = bounded(segment.field(3).repetitions().map(|line| line.text()))?;
                if let Some(order) = self.last_order() {
                    match order.observations.last_mut() {
                        Some(observation) => observation.notes.push(note),
                        None => order.notes.push(note),
                    }
                }
            }
            // Visits, orders' control data and the rest say nothing about results.
            _ => {}
        }
        Ok(())
    }

    /// Some senders leave OBR out.
    fn last_order(&mut self) -> Option<&mut Order> {
        if self.orders.is_empty() {
            self.orders.push(Order { name: "Report".to_owned(), ..Order::default() });
        }
        self.orders.last_mut()
    }
}

fn patient(segment: Segment<'_>) -> Patient {
    let name = segment.field(5);
    let parts = [name.component(1), name.component(2)];
    Patient {
        ids: segment.field(3).repetitions().map(|id| id.component(1)).filter(|id| !id.is_empty()).take(8).collect(),
        name: parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(", "),
        born: time::readable(&segment.field(7).component(1)),
        sex: segment.field(8).component(1),
    }
}

fn order(segment: Segment<'_>) -> Order {
    let service = segment.field(4);
    let name = match service.component(2) {
        name if name.is_empty() => service.component(1),
        name => name,
    };
    Order {
        name: if name.is_empty() { "Report".to_owned() } else { name },
        observed: time::readable(&segment.field(7).component(1)),
        status: segment.field(25).component(1),
        ..Order::default()
    }
}

fn observation(segment: Segment<'_>) -> Result<Observation, Refusal> {
    let id = segment.field(3);
    let (code, name) = (id.component(1), id.component(2));
    if code.is_empty() && name.is_empty() {
        return Err(Refusal::NoObservationId);
    }
    let kind = segment.field(2).component(1);
    if matches!(kind.as_str(), "ED" | "RP") {
        return Err(Refusal::ValueTooLarge);
    }
    let value = bounded(segment.field(5).repetitions().map(|value| match kind.as_str() {
        // Coded values: the text, or the code where there is none.
        "CE" | "CWE" | "CNE" => match value.component(2) {
            text if text.is_empty() => value.component(1),
            text => text,
        },
        // Structured numbers: comparator, number, separator, number.
        "SN" => (1..=4).map(|part| value.component(part)).collect(),
        "DT" | "TS" | "DTM" => time::readable(&value.component(1)),
        "NM" => value.component(1),
        _ => value.text(),
    }))?;
    let unit = segment.field(6);
    Ok(Observation {
        name: if name.is_empty() { code.clone() } else { name },
        code,
        system: id.component(3),
        value,
        unit: match unit.component(1) {
            code if code.is_empty() => unit.component(2),
            code => code,
        },
        range: segment.field(7).text(),
        flags: segment
            .field(8)
            .repetitions()
            .map(|flag| flag.component(1))
            .filter(|flag| !flag.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        status: segment.field(11).component(1),
        notes: Vec::new(),
    })
}

fn bounded(lines: impl Iterator<Item = String>) -> Result<String, Refusal> {
    let text = lines.collect::<Vec<_>>().join("\n");
    if text.len() > MAX_VALUE_BYTES { Err(Refusal::ValueTooLarge) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LabReport, Refusal> {
        LabReport::read(&Message::parse(text.as_bytes()).unwrap())
    }

    const HEADER: &str = "MSH|^~\\&|LIS|NORTH-LAB|MATRON|WARD3|20260105||ORU^R01^ORU_R01|MSG1|P|2.5.1\r";

    #[test]
    fn a_report_is_read_with_its_orders_results_and_notes() {
        let report = read(&format!(
            "{HEADER}PID|1||943 476 5919^^^NHS^NH~L77||Doe^Jane||19800102|F\r\
             OBR|1|||U^Urea and electrolytes^L|||202601051200\r\
             NTE|1||Sample haemolysed\r\
             OBX|1|NM|2823-3^Potassium^LN||6.9|mmol/L|3.5-5.3|HH|||F\r\
             NTE|1||Telephoned\r\
             OBX|2|CWE|X^Comment||S^Seen^L\r\
             OBR|2|||C^Culture\r\
             OBX|1|SN|Y^Titre||>^1^:^80\r\
             OBX|2|TX|Z||line one~line \\T\\ two\r"
        ))
        .unwrap();
        assert_eq!(report.patient.ids, ["943 476 5919", "L77"]);
        assert_eq!(report.patient.name, "Doe, Jane");
        assert_eq!(report.orders.len(), 2);
        assert_eq!(report.orders[0].notes, ["Sample haemolysed"]);
        let potassium = &report.orders[0].observations[0];
        assert_eq!((potassium.value.as_str(), potassium.flags.as_str()), ("6.9", "HH"));
        assert_eq!(potassium.notes, ["Telephoned"]);
        assert_eq!(report.orders[0].observations[1].value, "Seen");
        assert_eq!(report.orders[1].observations[0].value, ">1:80");
        assert_eq!(report.orders[1].observations[1].value, "line one\nline & two");
        assert!(!report.test);
        assert_eq!(format!("{report:?}"), "LabReport(…)");
    }

    #[test]
    fn what_is_no_report_is_refused_with_its_reason() {
        let with = |from: &str, to: &str| read(&format!("{}OBX|1|NM|K||1\r", HEADER.replace(from, to)));
        assert_eq!(with("ORU^R01^ORU_R01", "ADT^A01"), Err(Refusal::MessageType));
        assert_eq!(with("2.5.1", "3"), Err(Refusal::Version));
        assert_eq!(with("MSG1", ""), Err(Refusal::ControlId));
        assert_eq!(read(HEADER), Err(Refusal::NoObservation));
        assert_eq!(read(&format!("{HEADER}OBX|1|NM|||1\r")), Err(Refusal::NoObservationId));
        assert_eq!(read(&format!("{HEADER}OBX|1|ED|K||x\r")), Err(Refusal::ValueTooLarge));
        let long = "x".repeat(MAX_VALUE_BYTES + 1);
        assert_eq!(read(&format!("{HEADER}OBX|1|TX|K||{long}\r")), Err(Refusal::ValueTooLarge));
        assert!(with("|P|", "|T|").unwrap().test);
    }
}
