//! Letters, to a mail server on loopback that speaks as the test says.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use matron_core::{
    ports::{Federation as _, Letter, PeerError},
    settings::{Email, MailTls},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::world::{PUBLIC, World};

/// How a mail server behaves.
#[derive(Clone, Copy, Debug, Default)]
struct Habits {
    /// It knows `EHLO`.
    extended: bool,
    /// It offers STARTTLS.
    starttls: bool,
    /// It has TLS from the first byte.
    implicit: bool,
    /// It refuses every recipient.
    refuses: bool,
}

/// What it was told, line by line.
type Heard = Arc<Mutex<Vec<String>>>;

async fn mail_server(world: &World, port: u16, habits: Habits) -> Heard {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.dns("smtp.example", &[&[PUBLIC]]);
    world.lead(&format!("{PUBLIC}:{port}"), listener.local_addr().unwrap());
    let acceptor = world.acceptor(&["smtp.example"]);
    let heard = Heard::default();
    let hearing = Arc::clone(&heard);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        if habits.implicit {
            let stream = acceptor.accept(stream).await.unwrap();
            talk(Box::new(stream), habits, true, None, &hearing).await;
        } else {
            talk(Box::new(stream), habits, true, Some(acceptor), &hearing).await;
        }
    });
    heard
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

async fn talk(stream: Box<dyn Wire>, habits: Habits, greets: bool, acceptor: Option<TlsAcceptor>, heard: &Heard) {
    let mut stream = BufReader::new(stream);
    if greets {
        stream.write_all(b"220-smtp.example\r\n220 at your service\r\n").await.unwrap();
    }
    let mut in_letter = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let line = line.strip_suffix("\r\n").unwrap().to_owned();
        heard.lock().unwrap().push(line.clone());
        let answer = match line.split([' ', ':']).next().unwrap() {
            _ if in_letter && line != "." => continue,
            "." => {
                in_letter = false;
                "250 taken"
            }
            "EHLO" if !habits.extended => "500 what?",
            "EHLO" if habits.starttls && acceptor.is_some() => "250-smtp.example\r\n250 STARTTLS",
            "EHLO" => "250-smtp.example\r\n250-SIZE 1000\r\n250 AUTH LOGIN PLAIN",
            "STARTTLS" => {
                // What follows in the clear is no answer under TLS.
                stream.write_all(b"220 go\r\n").await.unwrap();
                let Ok(stream) = acceptor.unwrap().accept(stream.into_inner()).await else { return };
                heard.lock().unwrap().push("(TLS)".to_owned());
                return Box::pin(talk(Box::new(stream), habits, false, None, heard)).await;
            }
            "AUTH" => "235 come in",
            "RCPT" if habits.refuses => "550 not here",
            "DATA" => {
                in_letter = true;
                "354 go on"
            }
            "QUIT" => "221 bye",
            _ => "250 good",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    }
}

fn letter(relay: Email) -> Letter {
    Letter {
        relay: Email { from: "Matron <matron@us.example>".to_owned(), ..relay },
        id: "unique".to_owned(),
        to: "amira@example.org".to_owned(),
        subject: "A test".to_owned(),
        text: "One line.\n\n.A line with a dot\nThe end.\n".to_owned(),
        timeout: Duration::from_secs(60),
    }
}

fn relay(tls: MailTls) -> Email {
    Email { server: Some("smtp.example".to_owned()), tls, ..Email::default() }
}

fn with_password(tls: MailTls) -> Email {
    Email { username: Some("matron".to_owned()), password: Some("secret".to_owned()), ..relay(tls) }
}

const LETTER: &[&str] = &[
    "MAIL FROM:<matron@us.example>",
    "RCPT TO:<amira@example.org>",
    "DATA",
    "From: Matron <matron@us.example>",
    "To: <amira@example.org>",
    "Subject: A test",
    "Date: Fri, 15 Jan 2027 08:00:00 +0000",
    "Message-ID: <unique@us.example>",
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 7bit",
    "Auto-Submitted: auto-generated",
    "",
    "One line.",
    "",
    "..A line with a dot",
    "The end.",
    ".",
];

/// What was heard, but for the farewell, which may come late.
fn said(heard: &Heard) -> Vec<String> {
    heard.lock().unwrap().iter().filter(|line| *line != "QUIT").cloned().collect()
}

#[tokio::test]
async fn a_letter_is_handed_over_whole() {
    for (extended, greeting) in [(true, &["EHLO us.example"][..]), (false, &["EHLO us.example", "HELO us.example"])] {
        let world = World::new();
        let heard = mail_server(&world, 25, Habits { extended, ..Habits::default() }).await;
        world.federation().mail(letter(relay(MailTls::None))).await.unwrap();
        assert_eq!(said(&heard), [greeting, LETTER].concat());
    }
}

#[tokio::test]
async fn name_and_password_go_over_tls_alone() {
    let proof = "AUTH PLAIN AG1hdHJvbgBzZWNyZXQ=";
    let world = World::new();
    let heard = mail_server(&world, 587, Habits { extended: true, starttls: true, ..Habits::default() }).await;
    world.federation().mail(letter(with_password(MailTls::Starttls))).await.unwrap();
    let begun = ["EHLO us.example", "STARTTLS", "(TLS)", "EHLO us.example", proof];
    assert_eq!(said(&heard), [&begun[..], LETTER].concat());

    let world = World::new();
    let heard = mail_server(&world, 465, Habits { extended: true, implicit: true, ..Habits::default() }).await;
    world.federation().mail(letter(with_password(MailTls::Implicit))).await.unwrap();
    assert_eq!(said(&heard), [&["EHLO us.example", proof][..], LETTER].concat());

    // Somebody in between takes the offer away.
    let world = World::new();
    let heard = mail_server(&world, 587, Habits { extended: true, ..Habits::default() }).await;
    let result = world.federation().mail(letter(with_password(MailTls::Starttls))).await;
    assert!(matches!(result, Err(PeerError::Connect(_))), "{result:?}");
    assert_eq!(said(&heard), ["EHLO us.example"]);
}

#[tokio::test]
async fn a_mail_server_with_anothers_certificate_gets_no_letter() {
    let mut world = World::new();
    world.config.ca_files.clear();
    let heard = mail_server(&world, 587, Habits { extended: true, starttls: true, ..Habits::default() }).await;
    let result = world.federation().mail(letter(with_password(MailTls::Starttls))).await;
    assert!(matches!(result, Err(PeerError::Connect(_))), "{result:?}");
    assert_eq!(said(&heard), ["EHLO us.example", "STARTTLS"]);
}

#[tokio::test]
async fn what_the_mail_server_refuses_is_told() {
    let world = World::new();
    let _heard = mail_server(&world, 2525, Habits { refuses: true, ..Habits::default() }).await;
    let relay = Email { server: Some("smtp.example:2525".to_owned()), ..relay(MailTls::None) };
    let result = world.federation().mail(letter(relay)).await;
    assert!(matches!(result, Err(PeerError::Status { status: 550, .. })), "{result:?}");
}

#[tokio::test]
async fn nothing_that_would_forge_a_letter_is_sent() {
    let world = World::new();
    let federation = world.federation();
    let good = letter(relay(MailTls::None));
    let bad = [
        Letter { to: "a@b\r\nRCPT TO:<c@d".to_owned(), ..good.clone() },
        Letter { to: "a@b> <c@d".to_owned(), ..good.clone() },
        Letter { subject: "x\r\nBcc: c@d".to_owned(), ..good.clone() },
        Letter { text: "a\r.\rQUIT".to_owned(), ..good.clone() },
        Letter { text: "x".repeat(999), ..good.clone() },
        Letter { text: "é".to_owned(), ..good },
    ];
    for letter in bad {
        let result = federation.mail(letter).await;
        assert!(matches!(result, Err(PeerError::Malformed(_))), "{result:?}");
    }
    assert!(world.dialled().is_empty());
}
