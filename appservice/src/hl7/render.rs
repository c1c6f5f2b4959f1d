//! What a report looks like in a room.
//!
//! One event holds at most so many bytes; a long report becomes several, none of its results is left out.

use serde_json::{Value, json};

use super::oru::{LabReport, Observation, Order, Refusal};

/// Bytes at which the next result opens a new part.
const FULL_PART_BYTES: usize = 32 * 1024;
/// Most bytes of one part's content before encryption: 64 KiB less the growth by Megolm and the envelope.
const MAX_PART_BYTES: usize = 46 * 1024;

/// The contents of the `m.room.message` events that carry the report, in order.
///
/// # Errors
/// [`Refusal::ValueTooLarge`] where a single result does not fit one event.
pub fn render(report: &LabReport) -> Result<Vec<Value>, Refusal> {
    let mut parts: Vec<Vec<Order>> = vec![Vec::new()];
    let mut used = 0;
    for order in &report.orders {
        let heading = Order { observations: Vec::new(), ..order.clone() };
        let mut open = false;
        for observation in &order.observations {
            let cost = cost_bytes(observation);
            if used + cost > FULL_PART_BYTES && used > 0 {
                parts.push(Vec::new());
                (used, open) = (0, false);
            }
            used += cost;
            let Some(part) = parts.last_mut() else {
                continue;
            };
            if !open {
                used += heading.name.len() * 3 + heading.notes.iter().map(|n| n.len() * 3).sum::<usize>();
                part.push(heading.clone());
                open = true;
            }
            if let Some(order) = part.last_mut() {
                order.observations.push(observation.clone());
            }
        }
    }
    let total = parts.len();
    let contents: Vec<Value> =
        parts.iter().enumerate().map(|(at, orders)| content(report, orders, at + 1, total)).collect();
    let fits = contents.iter().all(|content| content.to_string().len() <= MAX_PART_BYTES);
    if fits { Ok(contents) } else { Err(Refusal::ValueTooLarge) }
}

/// About what an observation adds: it stands in the body, in the table and in the structured part, escaped.
fn cost_bytes(observation: &Observation) -> usize {
    let text: usize = [
        &observation.code,
        &observation.name,
        &observation.system,
        &observation.value,
        &observation.unit,
        &observation.range,
        &observation.flags,
    ]
    .iter()
    .map(|text| text.len() + text.bytes().filter(|b| b"<>&\"\\\n".contains(b)).count() * 4)
    .sum();
    let notes: usize = observation.notes.iter().map(|note| note.len() * 2).sum();
    (text + notes) * 3 / 2 * 2 + 300
}

fn content(report: &LabReport, orders: &[Order], part: usize, parts: usize) -> Value {
    let title = title(report, part, parts);
    let mut body = title.clone();
    let mut html = format!("<p><strong>{}</strong></p>", escape_html(&title));
    for order in orders {
        push_order(order, &mut body, &mut html);
    }
    json!({
        "msgtype": "m.text",
        "body": body,
        "format": "org.matrix.custom.html",
        "formatted_body": html,
        "org.matron.hl7": {
            "message_type": "ORU^R01",
            "control_id": report.control_id,
            "application": report.application,
            "facility": report.facility,
            "test": report.test,
            "part": part,
            "parts": parts,
            "patient": report.patient,
            "orders": orders,
        },
    })
}

fn title(report: &LabReport, part: usize, parts: usize) -> String {
    let patient = &report.patient;
    let mut title = String::new();
    if report.test {
        title.push_str("TEST, not a patient: ");
    }
    title.push_str("Laboratory report");
    if !patient.name.is_empty() {
        title.push_str(" for ");
        title.push_str(&patient.name);
    }
    if !patient.born.is_empty() {
        title.push_str(", born ");
        title.push_str(&patient.born);
    }
    if !patient.ids.is_empty() {
        title.push_str(" (");
        title.push_str(&patient.ids.join(", "));
        title.push(')');
    }
    if !report.facility.is_empty() {
        title.push_str(", from ");
        title.push_str(&report.facility);
    }
    if parts > 1 {
        title.push_str(&format!(", part {part} of {parts}"));
    }
    title
}

fn push_order(order: &Order, body: &mut String, html: &mut String) {
    let mut heading = order.name.clone();
    if !order.observed.is_empty() {
        heading.push_str(", ");
        heading.push_str(&order.observed);
    }
    body.push_str("\n\n");
    body.push_str(&heading);
    html.push_str(&format!("<p>{}</p><table><thead><tr>", escape_html(&heading)));
    for column in ["Test", "Result", "Unit", "Range", "Flag"] {
        html.push_str(&format!("<th>{column}</th>"));
    }
    html.push_str("</tr></thead><tbody>");
    for note in &order.notes {
        body.push_str("\n  ");
        body.push_str(note);
    }
    for observation in &order.observations {
        body.push_str(&line(observation));
        push_row(observation, html);
    }
    html.push_str("</tbody></table>");
    for note in &order.notes {
        html.push_str(&format!("<p>{}</p>", escape_html(note)));
    }
}

fn line(observation: &Observation) -> String {
    let mut line = format!("\n{}: {}", observation.name, observation.value);
    if !observation.unit.is_empty() {
        line.push(' ');
        line.push_str(&observation.unit);
    }
    if !observation.flags.is_empty() {
        line.push_str(&format!(" [{}]", flag_words(&observation.flags)));
    }
    if !observation.range.is_empty() {
        line.push_str(&format!(" (range {})", observation.range));
    }
    if let Some(word) = status_word(&observation.status) {
        line.push_str(&format!(" ({word})"));
    }
    for note in &observation.notes {
        line.push_str("\n  ");
        line.push_str(note);
    }
    line
}

fn push_row(observation: &Observation, html: &mut String) {
    let value = match status_word(&observation.status) {
        Some(word) => format!("{} ({word})", observation.value),
        None => observation.value.clone(),
    };
    let value = escape_html(&value);
    let value = if observation.flags.is_empty() { value } else { format!("<strong>{value}</strong>") };
    html.push_str(&format!(
        "<tr><td>{}</td><td>{value}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        escape_html(&observation.name),
        escape_html(&observation.unit),
        escape_html(&observation.range),
        escape_html(&flag_words(&observation.flags)),
    ));
    for note in &observation.notes {
        html.push_str(&format!("<tr><td></td><td colspan=\"4\">{}</td></tr>", escape_html(note)));
    }
}

/// HL7 table 0078 in words; other flags as they are.
fn flag_words(flags: &str) -> String {
    let word = |flag| match flag {
        "L" => "low",
        "H" => "high",
        "LL" => "critically low",
        "HH" => "critically high",
        "A" => "abnormal",
        "AA" => "critically abnormal",
        "N" => "normal",
        other => other,
    };
    flags.split(' ').map(word).collect::<Vec<_>>().join(", ")
}

/// HL7 table 0085, where it is not simply final.
fn status_word(status: &str) -> Option<&'static str> {
    match status {
        "P" => Some("preliminary"),
        "C" => Some("corrected"),
        "D" => Some("deleted"),
        "W" => Some("was wrong"),
        "X" => Some("not obtainable"),
        "I" => Some("pending"),
        _ => None,
    }
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("<br>"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    fn report(observations: &str) -> LabReport {
        let text = format!(
            "MSH|^~\\&|LIS|LAB|M|W|2026||ORU^R01|1|P|2.5\rPID|||77||Doe^Jane||19800102\rOBR|1|||U^Urea\r{observations}"
        );
        LabReport::read(&Message::parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_report_reads_as_text_table_and_structure() {
        let parts = render(&report("OBX|1|NM|K^Potassium||6.9|mmol/L|3.5-5.3|HH|||P\r")).unwrap();
        assert_eq!(parts.len(), 1);
        assert_eq!(
            parts[0]["body"],
            "Laboratory report for Doe, Jane, born 1980-01-02 (77), from LAB\n\nUrea\n\
             Potassium: 6.9 mmol/L [critically high] (range 3.5-5.3) (preliminary)"
        );
        assert!(parts[0]["formatted_body"].as_str().unwrap().contains("<td>Potassium</td>"));
        assert_eq!(parts[0]["org.matron.hl7"]["orders"][0]["observations"][0]["value"], "6.9");
    }

    #[test]
    fn markup_in_results_stays_text() {
        let parts = render(&report("OBX|1|TX|K||<script>&x\r")).unwrap();
        assert!(parts[0]["formatted_body"].as_str().unwrap().contains("&lt;script&gt;"));
    }

    #[test]
    fn a_long_report_is_split_and_complete() {
        let lines: String = (0..2000)
            .map(|n| format!("OBX|{n}|TX|C{n}^Test number {n}||<b>\\T\\{}|||H\r", "x".repeat(n % 90)))
            .collect();
        let report = report(&lines);
        let parts = render(&report).unwrap();
        assert!(parts.len() > 1);
        let mut seen = 0;
        for part in &parts {
            assert!(part.to_string().len() < 45_000, "{}", part.to_string().len());
            for order in part["org.matron.hl7"]["orders"].as_array().unwrap() {
                seen += order["observations"].as_array().unwrap().len();
            }
        }
        assert_eq!(seen, 2000);
    }

    #[test]
    fn a_value_fits_one_event_or_is_refused() {
        let observation = |value: String| report(&format!("OBX|1|TX|K||{value}\r"));
        assert_eq!(render(&observation("x".repeat(10_000))).unwrap().len(), 1);
        assert_eq!(render(&observation("\\T\\".repeat(12_000))), Err(Refusal::ValueTooLarge));
    }
}
