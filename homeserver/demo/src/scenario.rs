//! The story: two trusts, one room, everything that should happen in it, and everything that should not.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use matrix_sdk::{
    reqwest,
    ruma::{OwnedEventId, OwnedRoomId, RoomId},
};
use matron_appservice::{AppService, ClinicalRoomSpec, Config, Registration, Running};
use serde_json::{Value, json};

use crate::{
    Options,
    authority::Authority,
    clinician::Clinician,
    laboratory,
    search::search,
    story::{DemoError, Step, Story, fail, line},
    trust::{Plan, Trust, operate},
};

const NORTH: &str = "northgate.example";
const RIVER: &str = "riverside.example";
const ELSEWHERE: &str = "elsewhere.example";

const BOT: &str = "governance";
const FEED: &str = "pathology";

/// How long messages live in the demo's room.
const LIFETIME: Duration = Duration::from_secs(25);

/// A sentence that must be nowhere once it has died.
const SECRET: &str = "Bed 7 potassium is climbing, can renal review tonight? marker-9f1c64d2";
/// What the laboratory says; must be nowhere either.
const LAB_VALUE: &str = "6.9";

/// The world of the story.
struct World {
    folder: PathBuf,
    north: Trust,
    river: Trust,
    elsewhere: Trust,
    service: Running,
    http: reqwest::Client,
    passwords: Vec<String>,
}

/// The story, from an empty folder to the last line.
pub(crate) async fn play(options: &Options) -> Result<(), DemoError> {
    let mut story = Story::new();
    line("Matron demo: two hospital trusts on this machine share one clinical room.");

    story.step("Two trusts, and one server that belongs to nobody, are set up");
    let mut world = story.held(found(&story, options).await)?;
    let outcome = tell(&mut story, &mut world).await;
    if outcome.is_ok() && !options.check {
        let stayed = stay(&mut story, &world).await;
        story.held(stayed)?;
    }
    story.step("Everything stops in order");
    world.service.stop().await;
    for trust in [&mut world.north, &mut world.river, &mut world.elsewhere] {
        let stopped = trust.stop().await;
        if outcome.is_ok() {
            story.held(stopped)?;
        }
    }
    outcome?;
    story.evidence("three processes ended with status 0");
    if options.check {
        let _ = std::fs::remove_dir_all(&world.folder);
    }
    line("\nEvery step held.");
    Ok(())
}

async fn tell(story: &mut Story, world: &mut World) -> Result<(), DemoError> {
    story.step("Clinicians are verified");
    let serial = story.held(verify_clinicians(story, world))?;

    story.step("The governance bot creates a bounded, encrypted room whose messages die");
    let room = story.held(create_room(story, world).await)?;

    story.step("Clinicians of both trusts join with ordinary Matrix clients");
    let amira =
        story.held(Clinician::arrive(&world.north.plan.url(), "amira", &world.passwords[0], "Ward tablet").await)?;
    let ben =
        story.held(Clinician::arrive(&world.river.plan.url(), "ben", &world.passwords[1], "Renal phone").await)?;
    let chidi = story.held(Clinician::arrive(&world.river.plan.url(), "chidi", &world.passwords[2], "Office").await)?;
    for person in [&amira, &ben, &chidi] {
        story.held(person.wait_for_invite(&room).await)?;
        story.held(person.join(&room).await)?;
        story.evidence(format!("{} joined; the client shows an encrypted room", person.user_id));
    }

    story.step("They talk, end-to-end encrypted, across the trusts");
    let said = story.held(talk(story, &room, &amira, &ben).await)?;

    story.step("A picture crosses, encrypted by the sender's client");
    story.held(picture(story, &room, &amira, &ben).await)?;

    story.step("The laboratory reports over HL7 v2 / MLLP; the bridged device speaks Megolm");
    story.held(lab_result(story, world, &amira, &ben).await)?;

    story.step("An outsider is refused");
    story.held(outsider(story, world, &room).await)?;

    story.step("A colleague without a credential is refused");
    story.held(unverified(story, world, &room).await)?;

    story.step("A revoked clinician is out, on both servers");
    story.held(revoke(story, world, &room, &serial, &amira, &chidi).await)?;

    story.step("Messages die on time, on both servers, on disk too");
    story.held(die(story, world, &room, &said, &amira, &chidi).await)?;

    story.step("The audit logs are whole");
    for trust in [&world.north, &world.river] {
        let verdict = story.held(trust.operate(&["audit", "verify"], None))?;
        story.evidence(format!("{}: {}", trust.plan.name, verdict.lines().next().unwrap_or_default()));
    }

    story.step("Nothing secret is in any log");
    story.held(logs(story, world, &[&amira, &ben, &chidi]))?;
    let memory: u64 = [&world.north, &world.river, &world.elsewhere].iter().filter_map(|trust| trust.memory_mb()).sum();
    story.tell(format!("Peak memory of the three servers together: {memory} MB."));
    Ok(())
}

async fn found(story: &Story, options: &Options) -> Step<World> {
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

/// Accounts, and credentials for all but one; gives the serial of the one that will be revoked.
fn verify_clinicians(story: &Story, world: &mut World) -> Step<String> {
    let mut revoked = String::new();
    for (index, (localpart, profession)) in [
        ("amira", Some("doctor")),
        ("ben", Some("nurse")),
        ("chidi", Some("pharmacist")),
        ("uma", None),
        ("oscar", None),
    ]
    .into_iter()
    .enumerate()
    {
        let password = format!("demo-{localpart}-{:016x}", rand::random::<u64>());
        let trust = match localpart {
            "amira" | "uma" => &world.north,
            "oscar" => &world.elsewhere,
            _ => &world.river,
        };
        trust.operate(&["user", "create", localpart], Some(&format!("{password}\n")))?;
        world.passwords.push(password);
        let user_id = format!("@{localpart}:{}", trust.plan.name);
        let Some(profession) = profession else {
            story.evidence(format!("{user_id} has an account, and no credential"));
            continue;
        };
        let organisation = if trust.plan.name == NORTH { "NGT" } else { "RVS" };
        let key = trust.plan.directory.join("credential.key").display().to_string();
        let credential = trust.operate_json(&[
            "credential",
            "issue",
            &user_id,
            "--organisation",
            organisation,
            "--key",
            &key,
            "--profession",
            profession,
            "--install",
        ])?;
        let serial = credential.get("serial").and_then(Value::as_str).unwrap_or_default().to_owned();
        story.evidence(format!("{user_id} holds credential {serial} of {organisation} as {profession}"));
        if index == 1 {
            revoked = serial;
        }
    }
    if revoked.is_empty() { fail("a credential has no serial number") } else { Ok(revoked) }
}

async fn create_room(story: &Story, world: &World) -> Step<OwnedRoomId> {
    let spec: ClinicalRoomSpec = serde_json::from_value(json!({
        "name": "Renal on call, Northgate and Riverside",
        "organisations": ["NGT", "RVS"],
        "invite": [format!("@amira:{NORTH}"), format!("@ben:{RIVER}"), format!("@chidi:{RIVER}")],
        "lifetime_ms": u64::try_from(LIFETIME.as_millis())?,
        "lab_feed": FEED,
        "clinicians_may_invite": true,
    }))?;
    let created = world.service.create_clinical_room(&spec).await?;
    let created = serde_json::to_value(&created)?;
    let Some(room) = created.get("room_id").and_then(Value::as_str) else { return fail("no room id was answered") };
    story
        .evidence(format!("{room}: organisations NGT and RVS only, encrypted, messages live {} s", LIFETIME.as_secs()));
    if let Some(failed) = created.get("failed_invites").and_then(Value::as_array).filter(|failed| !failed.is_empty()) {
        return fail(format!("some invites failed: {failed:?}"));
    }
    Ok(room.try_into()?)
}

async fn talk(story: &Story, room: &RoomId, amira: &Clinician, ben: &Clinician) -> Step<OwnedEventId> {
    let said = amira.say(room, SECRET).await?;
    let heard = ben.wait_for("the message from Northgate", |seen| seen.body == SECRET).await?;
    if !heard.encrypted {
        return fail("the message came in the clear");
    }
    story.evidence(format!("{} reads what {} wrote", ben.user_id, heard.sender));
    let reply = "On my way. Hold the supplements, repeat in 2 h.";
    ben.say(room, reply).await?;
    let heard = amira.wait_for("the answer from Riverside", |seen| seen.body == reply).await?;
    story.evidence(format!("{} reads the answer of {}", amira.user_id, heard.sender));
    Ok(said)
}

async fn picture(story: &Story, room: &RoomId, amira: &Clinician, ben: &Clinician) -> Step {
    let png = ecg()?;
    ben.show_picture(room, "ecg.png", png.clone()).await?;
    let shown = amira.wait_for("the picture", |seen| seen.media.is_some()).await?;
    let Some(source) = shown.media else { return fail("the picture has no source") };
    let opened = amira.open(source).await?;
    if opened != png {
        return fail("the picture came out different");
    }
    story.evidence(format!("{} opens the same {} bytes that {} sent", amira.user_id, png.len(), shown.sender));
    Ok(())
}

async fn lab_result(story: &Story, world: &World, amira: &Clinician, ben: &Clinician) -> Step {
    let Some(address) = world.service.lab_addr(FEED) else { return fail("the feed does not listen") };
    let acknowledged = laboratory::send(address, &laboratory::report("DEMO-1", LAB_VALUE)).await?;
    if acknowledged != "AA" {
        return fail(format!("the laboratory was answered {acknowledged}"));
    }
    story.evidence(format!("MLLP {address} acknowledged ORU^R01 DEMO-1 with AA"));
    for person in [amira, ben] {
        let seen = person
            .wait_for("the result", |seen| seen.sender.starts_with("@lab-") && seen.body.contains(LAB_VALUE))
            .await?;
        if !seen.encrypted {
            return fail("the result came in the clear");
        }
        story.evidence(format!("{} decrypts the result from {}", person.user_id, seen.sender));
    }
    Ok(())
}

async fn outsider(story: &Story, world: &World, room: &RoomId) -> Step {
    let oscar = world.log_in(&world.elsewhere, "oscar", 4).await?;
    let path = format!("/_matrix/client/v3/join/{}?via={NORTH}", encode(room.as_str()));
    let (status, answer) = world.post(&world.elsewhere, &path, &oscar, json!({})).await?;
    if status < 400 {
        return fail("the outsider got in");
    }
    story.evidence(format!("@oscar:{ELSEWHERE} asked to join: {status} {}", sentence(&answer)));
    let amira = world.log_in(&world.north, "amira", 0).await?;
    let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(room.as_str()));
    let (status, answer) =
        world.post(&world.north, &path, &amira, json!({"user_id": format!("@oscar:{ELSEWHERE}")})).await?;
    if status != 403 {
        return fail(format!("inviting the outsider was answered {status} {}", sentence(&answer)));
    }
    story.evidence(format!("@amira:{NORTH} tried to invite him: {status} {}", sentence(&answer)));
    if let Some(decision) = decision_of(&answer) {
        let explained = world.north.operate(&["policy", "explain", &decision], None)?;
        story.tell(format!("`matron policy explain {decision}`:"));
        for part in explained.lines().take(6) {
            story.tell(format!("  {part}"));
        }
    }
    Ok(())
}

async fn unverified(story: &Story, world: &World, room: &RoomId) -> Step {
    let amira = world.log_in(&world.north, "amira", 0).await?;
    let path = format!("/_matrix/client/v3/rooms/{}/invite", encode(room.as_str()));
    let (invited, answer) =
        world.post(&world.north, &path, &amira, json!({"user_id": format!("@uma:{NORTH}")})).await?;
    story.tell(format!("@amira:{NORTH} invites @uma:{NORTH}: {invited} {}", sentence(&answer)));
    let uma = world.log_in(&world.north, "uma", 3).await?;
    let path = format!("/_matrix/client/v3/join/{}", encode(room.as_str()));
    let (status, answer) = world.post(&world.north, &path, &uma, json!({})).await?;
    if status < 400 {
        return fail("the unverified colleague got in");
    }
    story.evidence(format!("@uma:{NORTH} asked to join: {status} {}", sentence(&answer)));
    Ok(())
}

async fn revoke(
    story: &Story,
    world: &World,
    room: &RoomId,
    serial: &str,
    amira: &Clinician,
    chidi: &Clinician,
) -> Step {
    let key = world.river.plan.directory.join("credential.key").display().to_string();
    let began = Instant::now();
    world.river.operate(&["credential", "revoke", serial, "--organisation", "RVS", "--key", &key], None)?;
    story.evidence(format!("Riverside revoked credential {serial}"));
    let path = format!("/_matrix/client/v3/rooms/{}/state/m.room.member/%40ben%3A{RIVER}", encode(room.as_str()));
    for (trust, person) in [(&world.river, chidi), (&world.north, amira)] {
        loop {
            let (status, member) = world.get(trust, &path, &person.token()).await?;
            let membership = member.get("membership").and_then(Value::as_str).unwrap_or_default();
            if status == 200 && membership != "join" {
                story.evidence(format!(
                    "{} holds @ben:{RIVER} as \"{membership}\" after {} ms",
                    trust.plan.name,
                    began.elapsed().as_millis()
                ));
                break;
            }
            if began.elapsed() > Duration::from_secs(20) {
                return fail(format!("@ben:{RIVER} is still \"{membership}\" at {}", trust.plan.name));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

async fn die(
    story: &Story,
    world: &World,
    room: &RoomId,
    said: &OwnedEventId,
    amira: &Clinician,
    chidi: &Clinician,
) -> Step {
    let began = Instant::now();
    let path = format!("/_matrix/client/v3/rooms/{}/event/{}", encode(room.as_str()), encode(said.as_str()));
    let mut ciphertext = String::new();
    for (trust, person) in [(&world.north, amira), (&world.river, chidi)] {
        loop {
            let (status, event) = world.get(trust, &path, &person.token()).await?;
            let text = event.pointer("/content/ciphertext").and_then(Value::as_str);
            if let Some(text) = text.filter(|_| ciphertext.is_empty()) {
                text.clone_into(&mut ciphertext);
            }
            if status == 404 || (status == 200 && text.is_none()) {
                let how = if status == 404 { "no longer shows it" } else { "shows it redacted" };
                story.evidence(format!("{} {how}", trust.plan.name));
                break;
            }
            if began.elapsed() > LIFETIME + Duration::from_secs(30) {
                return fail(format!("{} still shows the message", trust.plan.name));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    for trust in [&world.north, &world.river] {
        let needles: Vec<&[u8]> = [SECRET, &ciphertext, "marker-9f1c64d2"]
            .into_iter()
            .filter(|text| !text.is_empty())
            .map(str::as_bytes)
            .collect();
        loop {
            let found = search(&trust.plan.data_dir(), &needles)?;
            if found.hits.is_empty() {
                story.evidence(format!(
                    "{}: neither the sentence nor its ciphertext in {} files, {} KB",
                    trust.plan.name,
                    found.files,
                    found.bytes / 1024
                ));
                break;
            }
            if began.elapsed() > LIFETIME + Duration::from_secs(60) {
                return fail(format!("{}: still in {:?}", trust.plan.name, found.hits));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // The search can find what is there: the event's skeleton stays for the graph.
        let control = search(&trust.plan.data_dir(), &[said.as_str().as_bytes()])?;
        if control.hits.is_empty() {
            return fail(format!("{}: the search does not even find the event's id", trust.plan.name));
        }
    }
    story.evidence("the event's id is found on both (its skeleton stays), so the search works");
    Ok(())
}

fn logs(story: &Story, world: &World, people: &[&Clinician]) -> Step {
    let mut needles: Vec<String> =
        vec!["marker-9f1c64d2".to_owned(), "Hold the supplements".to_owned(), "Test^Patient".to_owned()];
    needles.extend(world.passwords.iter().cloned());
    needles.extend(people.iter().map(|person| person.token()).filter(|token| !token.is_empty()));
    for name in [NORTH, RIVER, ELSEWHERE] {
        let key = std::fs::read_to_string(world.folder.join(name).join("data").join("signing.key")).unwrap_or_default();
        needles.extend(key.split_whitespace().filter(|part| part.len() > 30).map(ToOwned::to_owned));
    }
    let mut bytes = 0;
    for trust in [&world.north, &world.river, &world.elsewhere] {
        let log = std::fs::read_to_string(trust.plan.log_file())?;
        bytes += log.len();
        if let Some(line) = log.lines().find(|line| needles.iter().any(|needle| line.contains(needle.as_str()))) {
            let shown: String = line.chars().take(120).collect();
            return fail(format!("{}'s log holds something secret: {shown}", trust.plan.name));
        }
    }
    story.evidence(format!("{} KB of debug logs hold none of {} secrets", bytes / 1024, needles.len()));
    Ok(())
}

async fn stay(story: &mut Story, world: &World) -> Step {
    story.step("Over to you");
    for (trust, who, index) in [(&world.north, "amira", 0), (&world.river, "chidi", 2)] {
        story.tell(format!(
            "{}: homeserver {}  user {who}  password {}",
            trust.plan.name,
            trust.plan.url(),
            world.passwords.get(index).map(String::as_str).unwrap_or_default()
        ));
    }
    story.tell("Use Element (Web or Desktop) with one of these homeserver addresses. Ctrl-C ends everything.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

impl World {
    async fn log_in(&self, trust: &Trust, localpart: &str, index: usize) -> Step<String> {
        let body = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": localpart},
            "password": self.passwords.get(index).cloned().unwrap_or_default(),
        });
        let (status, answer) = self.post(trust, "/_matrix/client/v3/login", "", body).await?;
        match answer.get("access_token").and_then(Value::as_str) {
            Some(token) => Ok(token.to_owned()),
            None => fail(format!("{localpart} cannot log in: {status} {}", sentence(&answer))),
        }
    }

    async fn post(&self, trust: &Trust, path: &str, token: &str, body: Value) -> Step<(u16, Value)> {
        let mut request = self
            .http
            .post(format!("{}{path}", trust.plan.url()))
            .header("content-type", "application/json")
            .body(body.to_string());
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&response.text().await?).unwrap_or(Value::Null)))
    }

    async fn get(&self, trust: &Trust, path: &str, token: &str) -> Step<(u16, Value)> {
        let response = self.http.get(format!("{}{path}", trust.plan.url())).bearer_auth(token).send().await?;
        let status = response.status().as_u16();
        Ok((status, serde_json::from_str(&response.text().await?).unwrap_or(Value::Null)))
    }
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

/// A drawing that looks like a heartbeat.
fn ecg() -> Step<Vec<u8>> {
    let mut drawing = image::RgbImage::from_pixel(320, 120, image::Rgb([255, 244, 244]));
    for x in 0..320_u32 {
        let beat = match x % 80 {
            30..34 => 20,
            34..38 => 95,
            38..42 => 40,
            55..65 => 52,
            _ => 60,
        };
        for thick in 0..3 {
            drawing.put_pixel(x, beat + thick, image::Rgb([150, 0, 30]));
        }
    }
    let mut png = std::io::Cursor::new(Vec::new());
    drawing.write_to(&mut png, image::ImageFormat::Png)?;
    Ok(png.into_inner())
}

fn sentence(answer: &Value) -> String {
    let part = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    format!("{}: {}", part("errcode"), part("error"))
}

/// The decision id in an error's sentence: "… (decision ID)".
fn decision_of(answer: &Value) -> Option<String> {
    let text = answer.get("error")?.as_str()?;
    let from = text.rfind("(decision ")? + "(decision ".len();
    text.get(from..)?.split(')').next().map(ToOwned::to_owned)
}

fn encode(part: &str) -> String {
    part.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
