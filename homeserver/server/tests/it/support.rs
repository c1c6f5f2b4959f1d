//! A real `matron` in a directory of its own, and a small HTTP client.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take on a loaded machine before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration for an open test server.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let home = Self { dir: tempfile::tempdir().unwrap() };
        home.configure(json!({}));
        home
    }

    /// Writes the test configuration, with `extra` keys laid over it.
    pub(crate) fn configure(&self, extra: Value) {
        let mut config = json!({
            "server_name": "matron.test",
            "data_dir": self.data(),
            "listen": {"address": "127.0.0.1:0"},
            "registration": {"mode": "open"},
            "insecure_fast_password_hash": true,
            "rate_limit": false,
        });
        for (key, value) in extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(self.config(), config.to_string()).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("matron.json")
    }

    /// Runs a command of the binary to its end.
    pub(crate) fn matron(&self, arguments: &[&str]) -> Output {
        self.matron_with_input(arguments, "")
    }

    pub(crate) fn matron_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = command()
            .arg("--config")
            .arg(self.config())
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Starts the server and waits until it says where it listens.
    pub(crate) fn start(&self) -> Server {
        Server::start(command(), &self.config(), self.path())
    }

    /// As [`Home::start`]; a file that may not grow any more is an error to the server and not its end.
    pub(crate) fn start_ignoring_file_limits(&self) -> Server {
        let mut shell = in_shell(r#"trap "" XFSZ; exec "$0" "$@""#);
        shell.arg(env!("CARGO_BIN_EXE_matron"));
        Server::start(shell, &self.config(), self.path())
    }
}

/// The binary, without this process's own settings.
pub(crate) fn command() -> Command {
    without_settings(Command::new(env!("CARGO_BIN_EXE_matron")))
}

/// A shell that runs `script`; what is added to the command are the script's arguments.
fn in_shell(script: &str) -> Command {
    let mut shell = without_settings(Command::new("sh"));
    shell.args(["-c", script]);
    shell
}

fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MATRON_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    // Locked only so that threads may share the server.
    log: Mutex<mpsc::Receiver<String>>,
    pub(crate) lines: Vec<String>,
    pub(crate) ready_after: Duration,
}

impl Server {
    fn start(mut command: Command, config: &Path, dir: &Path) -> Self {
        let began = Instant::now();
        let mut child = command
            .arg("--config")
            .arg(config)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut server = Self {
            child,
            address: String::new(),
            log: Mutex::new(log),
            lines: Vec::new(),
            ready_after: Duration::ZERO,
        };
        let line = server.wait_for_line("listening");
        let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
        server.address = address.unwrap_or_else(|| panic!("no address in: {line}")).to_owned();
        server.ready_after = began.elapsed();
        server
    }

    /// The first log line, from now on or already seen, with `text` in it.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        if let Some(line) = self.lines.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.log.get_mut().unwrap().recv_timeout(left) {
                Ok(line) => {
                    self.lines.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}):\n{}", self.lines.join("\n")),
            }
        }
    }

    /// All log lines until the process ended.
    pub(crate) fn rest_of_log(&mut self) -> String {
        while let Ok(line) = self.log.get_mut().unwrap().recv_timeout(PATIENCE) {
            self.lines.push(line);
        }
        self.lines.join("\n")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process at once, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let signalled = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(signalled.success());
        self.child.wait().unwrap()
    }

    pub(crate) fn get(&self, path: &str, token: Option<&str>) -> Reply {
        request(&self.address, "GET", path, token, None).unwrap()
    }

    pub(crate) fn post(&self, path: &str, token: Option<&str>, body: &Value) -> Reply {
        request(&self.address, "POST", path, token, Some(body)).unwrap()
    }

    pub(crate) fn put(&self, path: &str, token: Option<&str>, body: &Value) -> Reply {
        request(&self.address, "PUT", path, token, Some(body)).unwrap()
    }

    /// A new account's access token.
    pub(crate) fn register(&self, name: &str, password: &str) -> String {
        let body = json!({"username": name, "password": password, "auth": {"type": "m.login.dummy"}});
        let reply = self.post("/_matrix/client/v3/register", None, &body);
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// A new private room's id.
    pub(crate) fn create_room(&self, token: &str) -> String {
        let reply = self.post("/_matrix/client/v3/createRoom", Some(token), &json!({"preset": "private_chat"}));
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["room_id"].as_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request on a connection of its own.
pub(crate) fn request(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> std::io::Result<Reply> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: matron.test\r\nConnection: close\r\n");
    if let Some(token) = token {
        text.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    let body = body.map(Value::to_string);
    if let Some(body) = &body {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body.as_deref().unwrap_or_default());
    raw_request(address, text.as_bytes())
}

/// Bytes on a connection of their own, and what comes back until it closes.
pub(crate) fn raw_request(address: &str, bytes: &[u8]) -> std::io::Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let broken = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole answer");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body).ok_or_else(broken)?
    } else {
        body.to_owned()
    };
    Ok(Reply { status, body })
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "it never happened: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
