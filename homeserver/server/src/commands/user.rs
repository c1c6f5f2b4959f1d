//! `matron user create|list|set-password|admin|deactivate|token`.

use std::io::Read as _;

use http::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{ask, say, segment, text};
use crate::{
    cli::{PasswordArguments, UserCommand},
    config::Config,
    failure::Failure,
};

/// The longest password that is read, bytes.
const MAX_PASSWORD: u64 = 4096;

/// # Errors
/// [`Failure::Operator`] with the server's refusal.
pub(super) fn run(command: UserCommand, config: &Config) -> Result<(), Failure> {
    match command {
        UserCommand::Create { localpart, password, admin } => {
            let password = read_password(&password)?;
            let body = json!({"localpart": localpart, "password": password.as_str(), "admin": admin});
            let answer = ask(config, Method::POST, "/users", Some(body))?;
            say(format!("{} exists.", text(&answer, "user_id")));
        }
        UserCommand::List { limit } => {
            let answer = ask(config, Method::GET, &format!("/users?limit={limit}"), None)?;
            for user in answer.get("users").and_then(Value::as_array).into_iter().flatten() {
                let marks: Vec<_> = ["admin", "guest", "deactivated", "locked", "suspended"]
                    .into_iter()
                    .filter(|mark| user.get(*mark) == Some(&Value::Bool(true)))
                    .collect();
                say(format!("{}  {}", text(user, "user_id"), marks.join(" ")).trim_end());
            }
        }
        UserCommand::SetPassword { user, password } => {
            let password = read_password(&password)?;
            let path = format!("/users/{}/password", segment(&user));
            ask(config, Method::PUT, &path, Some(json!({"password": password.as_str()})))?;
            say("The password is set; all devices are logged out.");
        }
        UserCommand::Admin { user, revoke } => {
            let path = format!("/users/{}/admin", segment(&user));
            ask(config, Method::PUT, &path, Some(json!({"admin": !revoke})))?;
            say(if revoke { "The account is an ordinary one." } else { "The account is an operator's." });
        }
        UserCommand::Deactivate { user, erase } => {
            let path = format!("/users/{}/deactivate", segment(&user));
            ask(config, Method::POST, &path, Some(json!({"erase": erase})))?;
            say("The account is deactivated.");
        }
        UserCommand::Token { uses, expires_at_ms } => {
            let body = json!({"uses_allowed": uses, "expiry_time": expires_at_ms});
            let answer = ask(config, Method::POST, "/registration_tokens", Some(body))?;
            say(text(&answer, "token"));
        }
    }
    Ok(())
}

/// The first line of the file or of standard input.
fn read_password(arguments: &PasswordArguments) -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    match &arguments.password_file {
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(MAX_PASSWORD).read_to_end(&mut bytes)),
        None => std::io::stdin().lock().take(MAX_PASSWORD).read_to_end(&mut bytes),
    }
    .map_err(Failure::io("cannot read the password"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Failure::Document("the password is not UTF-8".to_owned()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure::Document("the password is empty".to_owned()));
    }
    Ok(Zeroizing::new(line.to_owned()))
}
