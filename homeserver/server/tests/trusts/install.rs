//! Synapse from PyPI, in a virtual environment that later runs find again.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// The Synapse that the tests speak with; its dependencies are pinned beside it.
const REQUIREMENTS: &str = include_str!("requirements.txt");

/// The Python that has Synapse; none if this machine has no Python 3 that can make a virtual environment.
///
/// # Panics
/// Where Python is missing although it is required, or the packages cannot be installed.
pub(crate) fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    PYTHON
        .get_or_init(|| {
            let required = ["CI", "REQUIRE_SYNAPSE"].iter().any(|name| std::env::var_os(name).is_some());
            let missing = missing_part()?;
            if missing.is_empty() {
                return Some(install());
            }
            assert!(!required, "Synapse is required here, and {missing} is missing");
            tell(&format!("\n**** SKIPPED: the tests beside Synapse do not run, {missing} is missing ****\n"));
            None
        })
        .as_deref()
}

/// A line that is seen though the test passes: the harness keeps what the macros print.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// What this machine lacks; empty if nothing.
fn missing_part() -> Option<&'static str> {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    Some(if !works(&["-c", "import sys; sys.exit(sys.version_info < (3, 10))"]) {
        "Python 3.10 or later"
    } else if !works(&["-c", "import venv, ensurepip"]) {
        "Python's venv module (Debian: python3-venv)"
    } else {
        ""
    })
}

fn install() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let version = REQUIREMENTS.lines().find_map(|line| line.strip_prefix("matrix-synapse==")).unwrap();
    let folder = target.join(format!("synapse-{version}"));
    std::fs::create_dir_all(&folder).unwrap();
    // Two test runs at once share one installation.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (python, done, list) = (folder.join("venv/bin/python"), folder.join("installed"), folder.join("requirements"));
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == REQUIREMENTS) {
        return python;
    }
    std::fs::write(&list, REQUIREMENTS).unwrap();
    tell(&format!("installing Synapse {version} into {}", folder.display()));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]);
    run(pip.arg("-r").arg(&list));
    std::fs::write(&done, REQUIREMENTS).unwrap();
    python
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
