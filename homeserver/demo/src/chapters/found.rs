//! Two trusts and a server that belongs to nobody are set up: authority, register, configuration, processes.

use std::path::{Path, PathBuf};

use matrix_sdk::reqwest;
use matron_appservice::{AppService, Config, Registration, Running};
use serde_json::{Value, json};

use crate::{
    Options,
    authority::Authority,
    story::{Step, Story, fail},
    trust::{Plan, Trust, operate},
    world::{BOT, ELSEWHERE, FEED, NORTH, RIVER, World},
};

pub(crate) async fn found(story: &Story, options: &Options) -> Step<World> {
    let folder = fresh_folder(options)?;
    let matron = options.matron.clone();
    let authority = Authority::found(&folder)?;
    let plans = [Plan::new(NORTH, &folder)?, Plan::new(RIVER, &folder)?, Plan::new(ELSEWHERE, &folder)?];
    story.evidence(format!("a throw-away certificate authority in {}", folder.display()));

    // The register, signed as a federation would sign it.
    let register = folder.join("register.json");
    let register_key = folder.join("register.key");
    let path = |path: &Path| path.display().to_string();
    let run = |arguments: &[&str]| operate(&matron, None, arguments, None);
    let made = run(&["register", "new", &path(&register), "--key", &path(&register_key), "--name", "Demo federation"])?;
    let public_key = made.lines().last().unwrap_or_default().trim().to_owned();
    for (code, name, server) in [("NGT", "Northgate Hospital Trust", NORTH), ("RVS", "Riverside Hospital Trust", RIVER)]
    {
        let key = folder.join(server).join("credential.key");
        run(&[
            "register",
            "add",
            &path(&register),
            "--code",
            code,
            "--name",
            name,
            "--server",
            server,
            "--jurisdiction",
            "GB-ENG",
            "--credential-key",
            &path(&key),
            "--governance",
            &format!("@{BOT}:{server}"),
            "--service",
            &format!("@lab-*:{server}"),
        ])?;
    }
    run(&["register", "sign", &path(&register), "--key", &path(&register_key)])?;
    let verified = run(&["register", "verify", &path(&register), "--public-key", &public_key])?;
    story.evidence(verified);

    let registration = folder.join(NORTH).join("appservice.yaml");
    let listen = free_address()?;
    let generated = Registration::generate(&mut rand::rng(), &format!("http://{listen}"), NORTH, BOT);
    std::fs::write(&registration, generated.to_yaml()?)?;

    let addresses: toml::Table =
        plans.iter().map(|plan| (plan.name.clone(), toml::Value::String(plan.federation_address()))).collect();
    let mut trusts = Vec::new();
    for (plan, organisation) in plans.into_iter().zip([Some("NGT"), Some("RVS"), None]) {
        let (certificate, key) = authority.certify(&plan.name, &plan.directory)?;
        let config = config_of(&ConfigParts {
            plan: &plan,
            organisation,
            authority: &authority.file,
            certificate: &certificate,
            key: &key,
            register: &register,
            register_key: &public_key,
            registration: (plan.name == NORTH).then_some(registration.as_path()),
            addresses: &addresses,
        });
        std::fs::write(plan.config_file(), toml::to_string(&config)?)?;
        let trust = Trust::start(plan, &matron).await?;
        story.evidence(format!(
            "{} is up after {} ms: clients {}, servers {}",
            trust.plan.name,
            trust.ready_after.as_millis(),
            trust.plan.url(),
            trust.plan.federation_address()
        ));
        trusts.push(trust);
    }
    let (Some(elsewhere), Some(river), Some(north)) = (trusts.pop(), trusts.pop(), trusts.pop()) else {
        return fail("a trust is missing");
    };
    let service = start_service(&folder, &north, listen, &registration, &register, &public_key).await?;
    story.evidence(format!("{} and the laboratory feed {FEED} are registered at {NORTH}", service.bot_user_id()));
    Ok(World { folder, north, river, elsewhere, service, http: reqwest::Client::new(), passwords: Vec::new() })
}

/// What a server's configuration is made from.
struct ConfigParts<'a> {
    plan: &'a Plan,
    organisation: Option<&'a str>,
    authority: &'a Path,
    certificate: &'a Path,
    key: &'a Path,
    register: &'a Path,
    register_key: &'a str,
    registration: Option<&'a Path>,
    addresses: &'a toml::Table,
}

fn config_of(parts: &ConfigParts<'_>) -> Value {
    let mut config = json!({
        "server_name": parts.plan.name,
        "data_dir": parts.plan.data_dir(),
        "appservices": parts.registration.into_iter().collect::<Vec<_>>(),
        "listen": {"address": format!("127.0.0.1:{}", parts.plan.client_port)},
        "listeners": [{
            "address": parts.plan.federation_address(),
            "tls_certificate": parts.certificate,
            "tls_key": parts.key,
            "resources": ["federation", "key"],
        }],
        "logging": {"level": "debug,hyper=info,rustls=info"},
        "federation": {"addresses": parts.addresses, "ca_files": [parts.authority]},
        "retention": {"interval_ms": 500, "grace_ms": 2000},
    });
    if let (Some(organisation), Value::Object(config)) = (parts.organisation, &mut config) {
        config.insert(
            "policy".to_owned(),
            json!({
                "register_file": parts.register,
                "register_keys": {"demo": parts.register_key},
                "organisation": organisation,
                "officers": [format!("@{BOT}:{}", parts.plan.name)],
            }),
        );
    }
    config
}

async fn start_service(
    folder: &Path,
    north: &Trust,
    listen: std::net::SocketAddr,
    registration: &Path,
    register: &Path,
    public_key: &str,
) -> Step<Running> {
    let config: Config = serde_json::from_value(json!({
        "homeserver_url": north.plan.url(),
        "server_name": NORTH,
        "listen": listen,
        "data_dir": folder.join(NORTH).join("appservice"),
        "registration": registration,
        "register_file": register,
        "register_keys": [public_key],
        "retention_poll_ms": 500,
        "lab_feeds": [{"name": FEED, "listen": "127.0.0.1:0", "display_name": "Pathology laboratory"}],
    }))?;
    let service = AppService::start(config).await?;
    service.wait_ready().await?;
    Ok(service)
}

/// A folder that did not exist, or that an earlier demo left.
fn fresh_folder(options: &Options) -> Step<PathBuf> {
    const MARK: &str = "made-by-matron-demo";
    let folder = if options.check {
        std::env::temp_dir().join(format!("matron-demo-{:016x}", rand::random::<u64>()))
    } else {
        std::env::current_dir()?.join("matron-demo-data")
    };
    if folder.exists() {
        if !folder.join(MARK).exists() {
            return fail(format!("{} is not a demo's folder; move it away", folder.display()));
        }
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(MARK), "")?;
    Ok(folder)
}

fn free_address() -> Step<std::net::SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
