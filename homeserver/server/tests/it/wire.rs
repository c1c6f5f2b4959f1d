//! A connection that is kept and carries any bytes: requests that no HTTP library would send.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::Value;

use crate::support::PATIENCE;

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The JSON of the body, `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// What is wrong with this answer as the answer to a bad request, if anything: nobody may make the server fail,
    /// and every refusal has an errcode and a sentence.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.status >= 500 {
            return Some("the server failed");
        }
        if self.status < 400 {
            return None;
        }
        let body = self.json();
        let is_interactive = self.status == 401 && body["flows"].is_array() && body["session"].is_string();
        if is_interactive {
            return None;
        }
        // Pages say it to a person; OAuth 2.0 has words of its own.
        let is_page = self.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
        let is_oauth = body["error"].is_string() && body["error_description"].is_string();
        if (is_page && self.body.len() > 20) || is_oauth {
            return None;
        }
        match (body["errcode"].as_str(), body["error"].as_str()) {
            (Some(errcode), Some(error)) if !errcode.is_empty() && error.len() > 3 => None,
            _ => Some("the refusal is no Matrix error with errcode and sentence"),
        }
    }
}

/// A connection to a server, opened anew when the server closed it.
#[derive(Debug)]
pub(crate) struct Wire {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Wire {
    pub(crate) fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stream: None }
    }

    /// Sends the bytes of one request and gives the answer to it.
    ///
    /// # Errors
    /// When there is no answer on a fresh connection either.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> std::io::Result<Answer> {
        let was_open = self.stream.is_some();
        match self.attempt(bytes) {
            // The server closed the kept connection meanwhile.
            Err(_) if was_open => {
                self.stream = None;
                self.attempt(bytes)
            }
            answer => answer,
        }
    }

    fn attempt(&mut self, bytes: &[u8]) -> std::io::Result<Answer> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(open(&self.address)?),
        };
        // A server that refuses a body early may close before all of it was sent; the answer is there all the same.
        let sent = stream.get_mut().write_all(bytes);
        let answer = read_answer(stream).map_err(|error| sent.err().unwrap_or(error));
        let kept = answer.as_ref().is_ok_and(|(_, kept)| *kept);
        if !kept {
            self.stream = None;
        }
        answer.map(|(answer, _)| answer)
    }
}

fn open(address: &str) -> std::io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    Ok(BufReader::new(stream))
}

/// The next answer, and whether another may follow.
fn read_answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<(Answer, bool)> {
    let broken = |what: &str| std::io::Error::new(ErrorKind::UnexpectedEof, what.to_owned());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head)? == 0 {
            return Err(broken("no whole head"));
        }
    }
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let mut answer = Answer { status: status.ok_or_else(|| broken("no status"))?, head, body: Vec::new() };
    if answer.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| broken("no chunk"))?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk)?;
            chunk.truncate(size);
            answer.body.extend(chunk);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = answer.header("content-length").and_then(|length| length.parse().ok()) {
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body)?;
    } else {
        stream.read_to_end(&mut answer.body)?;
        return Ok((answer, false));
    }
    let kept = answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"));
    Ok((answer, kept))
}

/// A request's bytes: head as given, body with its length.
pub(crate) fn request(method: &str, target: &str, authorization: Option<&str>, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: matron.test\r\n").into_bytes();
    if let Some(authorization) = authorization {
        bytes.extend(format!("Authorization: {authorization}\r\n").into_bytes());
    }
    if let Some(body) = body {
        bytes.extend(format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body.unwrap_or_default());
    bytes
}

/// A path part or query value that stands for exactly this text.
pub(crate) fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
