//! Signing in at a CAS server, over the network.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use serde_json::json;

use crate::{
    support::{Home, PATIENCE},
    walk::{Walk, fetch, form},
};

const BASE: &str = "https://matrix.trust.test";

/// What the server says of a ticket.
#[derive(Clone, Copy, Debug)]
enum Says {
    Truth,
    Nonsense,
    TooMuch,
}

#[derive(Debug)]
struct State {
    says: Says,
    /// Tickets that were given out and not validated, with their service.
    tickets: BTreeMap<String, String>,
    given: u32,
}

/// A CAS server where everybody is `amira`; its thread ends when it is dropped.
struct CasServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CasServer {
    fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { says: Says::Truth, tickets: BTreeMap::new(), given: 0 }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (Arc::clone(&state), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    serve(stream, &shared);
                }
            }
        });
        Self { address, state, stop, thread: Some(thread) }
    }

    fn will_say(&self, says: Says) {
        self.state.lock().unwrap().says = says;
    }

    /// Signs in there; where the browser is sent with its ticket.
    fn sign_in(&self, path: &str) -> String {
        fetch(&self.address.to_string(), "GET", path, "", "").location(BASE)
    }
}

impl Drop for CasServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(count @ 1..) => head.extend_from_slice(&part[..count]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split_whitespace().nth(1).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parameter = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
        Some(percent_encoding::percent_decode_str(value).decode_utf8().unwrap().into_owned())
    };
    let service = parameter("service").unwrap_or_default();
    let answer = match path {
        "/cas/login" => {
            let mut state = state.lock().unwrap();
            state.given += 1;
            let ticket = format!("ST-{}", state.given);
            state.tickets.insert(ticket.clone(), service.clone());
            let glue = if service.contains('?') { '&' } else { '?' };
            format!(
                "HTTP/1.1 302 Found\r\nLocation: {service}{glue}ticket={ticket}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
        }
        "/cas/p3/serviceValidate" => {
            let body = said(&mut state.lock().unwrap(), &service, &parameter("ticket").unwrap_or_default());
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/xml;charset=UTF-8\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            )
        }
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
    };
    // Who has read enough hangs up.
    let _ = stream.write_all(answer.as_bytes());
}

fn said(state: &mut State, service: &str, ticket: &str) -> String {
    // A ticket is good once, whatever comes of it.
    let inside = match state.tickets.remove(ticket) {
        None => "<cas:authenticationFailure code=\"INVALID_TICKET\">not known</cas:authenticationFailure>",
        Some(known) if known != service => {
            "<cas:authenticationFailure code=\"INVALID_SERVICE\">for another</cas:authenticationFailure>"
        }
        Some(_) => {
            "<cas:authenticationSuccess><cas:user>amira</cas:user><cas:attributes>\
             <cas:displayName>Amira Khan</cas:displayName></cas:attributes></cas:authenticationSuccess>"
        }
    };
    let answer = |inside: &str| {
        format!("<cas:serviceResponse xmlns:cas=\"http://www.yale.edu/tp/cas\">{inside}</cas:serviceResponse>")
    };
    match state.says {
        Says::Truth => answer(inside),
        Says::Nonsense => answer(inside).replace("</cas:user>", "</cas:name>"),
        Says::TooMuch => answer(&format!("{}{inside}", " ".repeat(1024 * 1024))),
    }
}

#[test]
fn a_cas_server_signs_somebody_in_with_a_ticket_that_is_good_once_and_here() {
    let cas = CasServer::start();
    let home = Home::new();
    let url = format!("http://{}/cas", cas.address);
    home.configure(json!({
        "public_base_url": BASE,
        "oauth": {
            "enabled": true,
            "upstreams": [{
                "protocol": "cas", "id": "trust", "name": "The trust", "issuer": url, "display_name": "{displayName}",
            }],
        },
    }));
    let server = home.start();
    let mut browser = Walk::new(&server.address, BASE);
    let mut begin = || {
        let there = browser.go("GET", "/account/upstream/trust?next=/account/", &[]);
        there.at.strip_prefix(&format!("http://{}", cas.address)).unwrap().to_owned()
    };

    // A ticket for another service is none for this one.
    let own = cas.sign_in(&begin());
    let state = own.split("&ticket=").next().unwrap();
    let elsewhere = cas.sign_in(&format!("/cas/login?{}", form(&[("service", &format!("{BASE}/other"))])));
    let stolen = elsewhere.split("ticket=").nth(1).unwrap();
    let mixed = format!("{state}&ticket={stolen}");
    let (unknown, again) = (begin(), begin());
    let unknown = cas.sign_in(&unknown).replace("ticket=ST-", "ticket=ST-9");
    let mut rest = Vec::new();
    for says in [Says::Nonsense, Says::TooMuch] {
        rest.push((says, cas.sign_in(&begin())));
    }
    for (path, expected) in [(&mixed, 403), (&unknown, 403)] {
        let page = browser.go("GET", path, &[]);
        assert_eq!(page.status, expected, "{}", page.html);
    }
    for (says, path) in rest {
        cas.will_say(says);
        let page = browser.go("GET", &path, &[]);
        assert_eq!(page.status, 502, "{says:?} {}", page.html);
    }
    cas.will_say(Says::Truth);
    let good = cas.sign_in(&again);
    let page = browser.go("GET", &good, &[]);
    assert_eq!((page.status, page.at.as_str()), (200, "/account/"), "{}", page.html);
    assert!(page.html.contains("@amira:matron.test") && page.html.contains("Amira Khan"), "{}", page.html);
    assert_eq!(browser.go("GET", &good, &[]).status, 403);
}
