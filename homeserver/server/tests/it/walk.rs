//! A browser without scripts, over plain HTTP on this machine.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use crate::support::PATIENCE;

/// Cookies of the server that is tested; where it lives, and what it calls itself.
pub(crate) struct Walk {
    address: String,
    base: String,
    cookies: BTreeMap<String, String>,
}

/// An answer to a browser.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    /// Where the browser is: a path of the tested server, or a whole URL elsewhere.
    pub(crate) at: String,
    location: Option<String>,
    cookies: Vec<String>,
    pub(crate) html: String,
}

impl Page {
    /// The path to which the answer leads, on the server with this base.
    pub(crate) fn location(&self, base: &str) -> String {
        let found = self.location.as_deref().and_then(|location| location.strip_prefix(base));
        found.unwrap_or_else(|| panic!("{} leads to {:?}: {}", self.at, self.location, self.html)).to_owned()
    }

    /// The value of a hidden field.
    pub(crate) fn field(&self, name: &str) -> String {
        let found = self.html.split(&format!("name=\"{name}\" value=\"")).nth(1);
        let value = found.and_then(|rest| rest.split('"').next());
        value.unwrap_or_else(|| panic!("no field {name} at {}: {}", self.at, self.html)).to_owned()
    }
}

/// One request; `path` is a path or a whole `http:` URL.
pub(crate) fn fetch(address: &str, method: &str, path: &str, cookies: &str, form: &str) -> Page {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nCookie: {cookies}\r\n");
    if method == "POST" {
        text.push_str("Content-Type: application/x-www-form-urlencoded\r\n");
        text.push_str(&format!("Content-Length: {}\r\n", form.len()));
    }
    text.push_str("\r\n");
    text.push_str(form);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, html) = answer.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    Page {
        status: head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap(),
        at: path.to_owned(),
        location: header("location").into_iter().next(),
        cookies: header("set-cookie"),
        html: html.to_owned(),
    }
}

/// A form, encoded.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    pairs.join("&")
}

impl Walk {
    pub(crate) fn new(address: &str, base: &str) -> Self {
        Self { address: address.to_owned(), base: base.to_owned(), cookies: BTreeMap::new() }
    }

    /// Goes there and follows redirects until a page is shown, or until they lead elsewhere.
    pub(crate) fn go(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let (mut method, mut path, mut body) = (method.to_owned(), path.to_owned(), form(fields));
        for _ in 0..10 {
            let jar: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let page = fetch(&self.address, &method, &path, &jar.join("; "), &body);
            for cookie in &page.cookies {
                let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
            let Some(location) = &page.location else { return page };
            let target = location.strip_prefix(&self.base).unwrap_or(location).to_owned();
            if !target.starts_with('/') {
                return Page { at: target, ..page };
            }
            (method, path, body) = ("GET".to_owned(), target, String::new());
        }
        panic!("the redirects do not end at {path}")
    }
}
