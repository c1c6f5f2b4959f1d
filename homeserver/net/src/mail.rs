//! One letter to the operator's mail server: SMTP over the same connections as everything else.
//!
//! Plain text in ASCII, one sender, one recipient. `EHLO` falls back to `HELO` where neither TLS nor a password is needed.
//!
//! SPEC: RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 4954 and 4616 (AUTH PLAIN), RFC 5322 (the letter).

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use matron_core::{
    ports::{Letter, PeerError},
    settings::MailTls,
};
use ruma::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::{
    dial::{Dialer, Host, Place, Proof, Route, Stream},
    plain,
};

/// The longest answer, bytes.
const MAX_REPLY_BYTES: usize = 16 * 1024;

/// The longest line of a letter. SPEC: RFC 5322, section 2.1.1.
const MAX_LINE_BYTES: usize = 998;

/// The letter is with the mail server.
///
/// # Errors
/// [`PeerError::Status`] with the mail server's code if it refuses; [`PeerError::Timeout`] and its kin.
pub(crate) async fn deliver(dialer: &Dialer, letter: &Letter, us: &ServerName, now_ms: u64) -> Result<(), PeerError> {
    let message = compose(letter, now_ms)?;
    tokio::time::timeout(letter.timeout, hand_over(dialer, letter, &greeting(us), &message))
        .await
        .unwrap_or(Err(PeerError::Timeout))
}

async fn hand_over(dialer: &Dialer, letter: &Letter, us: &str, message: &str) -> Result<(), PeerError> {
    let relay = &letter.relay;
    let (host, port) = place(relay.server.as_deref().unwrap_or_default(), relay.tls);
    let host = Host::parse(host);
    let name = host.certificate_name()?;
    let proof = if relay.tls == MailTls::Implicit { Proof::Service(name.clone()) } else { Proof::None };
    let route = Route { places: vec![Place { host, port }], proof, host_header: String::new(), trusted: true };
    let mut talk = Conversation { stream: dialer.dial(&route).await?, read: Vec::new() };
    talk.expect(220).await?;
    let mut offers = talk.greet(us, relay).await?;
    if relay.tls == MailTls::Starttls {
        if !offers.iter().any(|offer| offer.eq_ignore_ascii_case("STARTTLS")) {
            return Err(PeerError::Connect("TLS: the mail server does not offer STARTTLS".to_owned()));
        }
        talk.command("STARTTLS", 220).await?;
        // What came before TLS counts for nothing after it.
        talk.read.clear();
        let connector = TlsConnector::from(Arc::clone(&dialer.tls.services));
        let stream = connector.connect(name, talk.stream).await.map_err(|error| plain::tls(&error))?;
        talk.stream = Box::new(stream);
        offers = talk.greet(us, relay).await?;
    }
    if let (Some(user), Some(password)) = (&relay.username, &relay.password) {
        if !offers.iter().any(|offer| has_plain(offer)) {
            return Err(PeerError::Malformed("the mail server does not take a name and password".to_owned()));
        }
        let pair = STANDARD.encode(format!("\0{user}\0{password}"));
        talk.command(&format!("AUTH PLAIN {pair}"), 235).await?;
    }
    talk.command(&format!("MAIL FROM:<{}>", envelope(&relay.from)), 250).await?;
    talk.command(&format!("RCPT TO:<{}>", letter.to), 250).await?;
    talk.command("DATA", 354).await?;
    talk.send(message.as_bytes()).await?;
    talk.command("\r\n.", 250).await?;
    // It has the letter, whatever it says to this.
    let _ = talk.send(b"QUIT\r\n").await;
    Ok(())
}

/// A connection to a mail server, and what was read of it ahead.
struct Conversation {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

/// What a mail server says.
struct Reply {
    code: u16,
    lines: Vec<String>,
}

impl Conversation {
    /// Who we are; gives what the mail server offers.
    async fn greet(&mut self, us: &str, relay: &matron_core::settings::Email) -> Result<Vec<String>, PeerError> {
        self.send(format!("EHLO {us}\r\n").as_bytes()).await?;
        let reply = self.reply().await?;
        let needs_more = relay.tls == MailTls::Starttls || relay.username.is_some();
        if reply.code >= 500 && !needs_more {
            self.command(&format!("HELO {us}"), 250).await?;
            return Ok(Vec::new());
        }
        Ok(checked(reply, 250)?.lines)
    }

    async fn command(&mut self, line: &str, expected: u16) -> Result<(), PeerError> {
        self.send(line.as_bytes()).await?;
        self.send(b"\r\n").await?;
        self.expect(expected).await
    }

    async fn expect(&mut self, code: u16) -> Result<(), PeerError> {
        checked(self.reply().await?, code).map(drop)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|_broken| hung_up())
    }

    /// The next reply: lines of one code, the last one without a dash behind it.
    async fn reply(&mut self) -> Result<Reply, PeerError> {
        let mut lines = Vec::new();
        let mut size: usize = 0;
        loop {
            let line = self.line().await?;
            size = size.saturating_add(line.len()).saturating_add(2);
            if size > MAX_REPLY_BYTES {
                return Err(PeerError::TooLarge);
            }
            let (code, rest) = line.split_at_checked(3).ok_or_else(no_smtp)?;
            let code: u16 = code.parse().map_err(|_not_a_number| no_smtp())?;
            lines.push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                return Ok(Reply { code, lines });
            }
        }
    }

    async fn line(&mut self) -> Result<String, PeerError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.read.len() > MAX_REPLY_BYTES {
                return Err(PeerError::TooLarge);
            }
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return Err(hung_up()),
                Ok(_) => {}
            }
        }
    }
}

fn checked(reply: Reply, expected: u16) -> Result<Reply, PeerError> {
    if reply.code == expected {
        return Ok(reply);
    }
    Err(PeerError::Status { status: reply.code, body: Value::Null })
}

fn hung_up() -> PeerError {
    PeerError::Connect("the mail server closed the connection".to_owned())
}

fn no_smtp() -> PeerError {
    PeerError::Malformed("what answers there does not speak SMTP".to_owned())
}

/// This server as it names itself: addresses stand in brackets.
fn greeting(us: &ServerName) -> String {
    match Host::parse(us.host()) {
        Host::Name(name) => name,
        Host::Address(IpAddr::V4(address)) => format!("[{address}]"),
        Host::Address(IpAddr::V6(address)) => format!("[IPv6:{address}]"),
    }
}

/// Host and port of `host`, `host:port` or `[ipv6]:port`.
fn place(server: &str, tls: MailTls) -> (&str, u16) {
    let standard = match tls {
        MailTls::Starttls => 587,
        MailTls::Implicit => 465,
        MailTls::None => 25,
    };
    let given = server.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    given.filter(|_| !server.ends_with(']')).unwrap_or((server, standard))
}

/// Whether an offer such as `AUTH LOGIN PLAIN` has the one way that is spoken here.
fn has_plain(offer: &str) -> bool {
    let mut words = offer.split([' ', '=']);
    words.next().is_some_and(|word| word.eq_ignore_ascii_case("AUTH"))
        && words.any(|word| word.eq_ignore_ascii_case("PLAIN"))
}

/// The bare address of `Name <address>`.
fn envelope(from: &str) -> &str {
    from.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>')).unwrap_or(from)
}

/// The letter as it goes over the wire, but for the dot that ends it.
fn compose(letter: &Letter, now_ms: u64) -> Result<String, PeerError> {
    let is_line = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let from = &letter.relay.from;
    let heads = [from.as_str(), &letter.to, &letter.subject, &letter.id];
    let is_letter = heads.iter().all(|text| is_line(text) && text.len() <= 500)
        && !letter.to.contains([' ', '<', '>'])
        && letter.text.lines().all(|line| is_line(line) && line.len() <= MAX_LINE_BYTES);
    if !is_letter {
        return Err(PeerError::Malformed("the letter cannot be written in ASCII".to_owned()));
    }
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(now_ms)).replace("GMT", "+0000");
    let domain = envelope(from).rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let mut message = format!(
        "From: {from}\r\nTo: <{}>\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{}@{domain}>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\nAuto-Submitted: auto-generated\r\n",
        letter.to, letter.subject, letter.id
    );
    for line in letter.text.lines() {
        // SPEC: RFC 5321, section 4.5.2.
        let dot = if line.starts_with('.') { "." } else { "" };
        message.push_str("\r\n");
        message.push_str(dot);
        message.push_str(line);
    }
    Ok(message)
}
