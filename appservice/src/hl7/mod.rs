//! HL7 v2 from the wire to a readable message: framing, parsing, reports, acknowledgements. No input or output.

mod ack;
mod escape;
mod message;
pub mod mllp;
mod oru;
mod render;
mod time;

pub use ack::{Ack, AckCode};
pub use message::{Field, Message, ParseError, Segment, Separators};
pub use oru::{LabReport, Observation, Order, Patient, Refusal};
pub use render::render;
