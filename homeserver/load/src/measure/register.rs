//! Registrations by user-interactive authentication (two requests with `m.login.dummy`), then log-ins by password.

use std::num::NonZeroUsize;

use clap::Args;
use serde_json::json;

use super::Measured;
use crate::client::RequestError;
use crate::drive::drive;
use crate::error::LoadError;
use crate::stage::Stage;

#[derive(Debug, Args)]
pub(crate) struct Sizes {
    #[arg(long, default_value = "40")]
    users: NonZeroUsize,
    #[arg(long, default_value_t = 40)]
    logins: usize,
    /// How many do so at once
    #[arg(long, default_value = "4")]
    concurrency: NonZeroUsize,
}

pub(super) async fn measure(stage: &Stage<'_>, sizes: &Sizes) -> Result<Measured, LoadError> {
    let (count, workers) = (sizes.users.get(), sizes.concurrency.get());
    let tail = stage.options.tail();
    let meter = stage.meter();
    let register = async |_, number| stage.a.register(&stage.unique("r", number)).await;
    let registered = drive(workers, count, register).await.any("registrations")?;
    let registration_cpu = meter.stop(registered.succeeded(), tail).await;

    let meter = stage.meter();
    let users = &registered.values;
    let log_in = async |_, number: usize| match users.get(number % users.len().max(1)) {
        Some(user) => stage.a.log_in(user).await.map(drop),
        None => Err(RequestError::missing("registered user")),
    };
    let logged_in = drive(workers, sizes.logins, log_in).await;
    let login_cpu = meter.stop(logged_in.succeeded(), tail).await;
    Ok(Measured {
        sizes: json!({"users": count, "logins": sizes.logins, "concurrency": workers}),
        summary: format!(
            "{:.1} registrations/s, {:.1} log-ins/s, CPU ms each {} and {}",
            registered.per_second(),
            logged_in.per_second(),
            registration_cpu.each(),
            login_cpu.each(),
        ),
        result: json!({
            "registrations_per_s": registered.per_second(),
            "registration": registered.latency(),
            "registration_cpu": registration_cpu.json(),
            "registration_errors": registered.errors,
            "logins_per_s": logged_in.per_second(),
            "login": logged_in.latency(),
            "login_cpu": login_cpu.json(),
            "login_errors": logged_in.errors,
            "first_error": registered.first_error().or(logged_in.first_error()),
        }),
    })
}
