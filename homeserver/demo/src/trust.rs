//! One hospital trust: a server process of its own, its files, and its operator's commands.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::story::{Step, fail};

/// What a trust is made from.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The server's name.
    pub name: String,
    /// Its folder.
    pub directory: PathBuf,
    /// Where clients reach it, plain HTTP on loopback.
    pub client_port: u16,
    /// Where servers reach it, TLS on loopback.
    pub federation_port: u16,
}

/// A trust that runs. Its process ends with it.
#[derive(Debug)]
pub(crate) struct Trust {
    pub plan: Plan,
    matron: PathBuf,
    process: Option<Child>,
    /// How long it took to be ready.
    pub ready_after: Duration,
}

impl Plan {
    /// A plan with a folder of its own and free ports.
    pub(crate) fn new(name: &str, under: &Path) -> Step<Self> {
        let directory = under.join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(Self { name: name.to_owned(), directory, client_port: free_port()?, federation_port: free_port()? })
    }

    /// The base URL for clients.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Where other servers find it.
    pub(crate) fn federation_address(&self) -> String {
        format!("127.0.0.1:{}", self.federation_port)
    }

    /// The configuration file.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.join("matron.toml")
    }

    /// Where the server keeps its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Everything the server wrote about itself.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.directory.join("server.log")
    }
}

impl Trust {
    /// The server runs and answers `/health`.
    pub(crate) async fn start(plan: Plan, matron: &Path) -> Step<Self> {
        let log = std::fs::File::create(plan.log_file())?;
        let began = Instant::now();
        let process = Command::new(matron)
            .arg("--config")
            .arg(plan.config_file())
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut trust = Self { plan, matron: matron.to_owned(), process: Some(process), ready_after: Duration::ZERO };
        let address = format!("127.0.0.1:{}", trust.plan.client_port);
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            if let Some(status) = trust.process.as_mut().map(Child::try_wait).transpose()?.flatten() {
                return fail(format!("{} ended with {status}:\n{}", trust.plan.name, trust.log_tail()));
            }
            if began.elapsed() > Duration::from_secs(20) {
                return fail(format!("{} does not answer:\n{}", trust.plan.name, trust.log_tail()));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        trust.ready_after = began.elapsed();
        Ok(trust)
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.plan.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// What the operator's command prints.
    pub(crate) fn operate(&self, arguments: &[&str], input: Option<&str>) -> Step<String> {
        operate(&self.matron, Some(&self.plan.config_file()), arguments, input)
    }

    /// As [`Trust::operate`], read as JSON.
    pub(crate) fn operate_json(&self, arguments: &[&str]) -> Step<Value> {
        Ok(serde_json::from_str(&self.operate(arguments, None)?)?)
    }

    /// Resident memory of the server, MB.
    pub(crate) fn memory_mb(&self) -> Option<u64> {
        let pid = self.process.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb / 1024)
    }

    /// The server has ended in order.
    pub(crate) async fn stop(&mut self) -> Step {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let pid = process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait()? {
                return if status.success() { Ok(()) } else { fail(format!("{} ended with {status}", self.plan.name)) };
            }
            if began.elapsed() > Duration::from_secs(15) {
                process.kill()?;
                process.wait()?;
                return fail(format!("{} did not stop in 15 s", self.plan.name));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What a `matron` command prints; its error output is the reason if it fails.
pub(crate) fn operate(matron: &Path, config: Option<&Path>, arguments: &[&str], input: Option<&str>) -> Step<String> {
    let mut command = Command::new(matron);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.unwrap_or_default().as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return fail(format!("`matron {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn free_port() -> Step<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
