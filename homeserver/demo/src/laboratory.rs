//! A laboratory system that sends HL7 v2 over MLLP, as it sends to any other receiver.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::story::{Step, fail};

/// An ORU^R01 with one result.
pub(crate) fn report(control_id: &str, value: &str) -> String {
    [
        format!("MSH|^~\\&|PATHLAB|NORTHGATE|MATRON|NORTHGATE|20261121101500||ORU^R01^ORU_R01|{control_id}|P|2.5.1"),
        "PID|1||DEMO0001^^^NORTHGATE^MR||Test^Patient||19700101|F".to_owned(),
        "OBR|1||LAB-7781|U/E^Urea and electrolytes^L|||20261121100000|||||||||||||||20261121101000|||F".to_owned(),
        format!("OBX|1|NM|K^Potassium^L||{value}|mmol/L|3.5-5.3|HH|||F"),
        "OBX|2|NM|NA^Sodium^L||139|mmol/L|133-146|N|||F".to_owned(),
    ]
    .join("\r")
        + "\r"
}

/// The acknowledgement code (`AA`, `AE`, `AR`) that the receiver gives to the message.
pub(crate) async fn send(to: SocketAddr, message: &str) -> Step<String> {
    let mut stream = TcpStream::connect(to).await?;
    let mut framed = vec![0x0B];
    framed.extend_from_slice(message.as_bytes());
    framed.extend_from_slice(&[0x1C, 0x0D]);
    stream.write_all(&framed).await?;
    let mut answer = Vec::new();
    let mut buffer = [0_u8; 1024];
    while !answer.ends_with(&[0x1C, 0x0D]) {
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read(&mut buffer)).await??;
        if read == 0 {
            return fail("the feed closed the connection without an acknowledgement");
        }
        answer.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let code = text.split('\r').find(|segment| segment.starts_with("MSA|")).and_then(|msa| msa.split('|').nth(1));
    code.map(ToOwned::to_owned).map_or_else(|| fail("the acknowledgement has no MSA segment"), Ok)
}
