//! `matron`: the homeserver and the operator's commands.
//!
//! - [`cli`]: what can be said on the command line; [`commands`]: what each of it does.
//! - [`config`]: the configuration, its example, its errors.
//! - [`data`]: the data directory: keys, store, server name, opened together or not at all.
//! - [`serve`]: the running server, from ready to stopped. [`listener`]: connections.
//! - [`operator`]: what operators ask of a running server, over a socket in its data directory.
//! - [`service`]: the application service, started in this process.
//! - [`monitor`]: `/health` and `/metrics`. [`logging`]: log lines.

mod cli;
mod commands;
mod config;
mod data;
mod failure;
mod listener;
mod logging;
mod monitor;
mod operator;
mod serve;
mod service;

use std::process::ExitCode;

use clap::Parser as _;

/// Gives memory back to the system once a burst (password hashing above all) is over.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::FAILURE
        }
    }
}
