//! The story: two trusts, one room, everything that should happen in it, and everything that should not. A chapter a file.

mod create;
mod die;
mod found;
mod logs;
mod refuse;
mod revoke;
mod talk;
mod verify;

use crate::{
    Options,
    clinician::Clinician,
    story::{DemoError, Step, Story, line},
    world::World,
};

/// The story, from an empty folder to the last line.
pub(crate) async fn play(options: &Options) -> Result<(), DemoError> {
    let mut story = Story::new();
    line("Matron demo: two hospital trusts on this machine share one clinical room.");

    story.step("Two trusts, and one server that belongs to nobody, are set up");
    let mut world = story.held(found::found(&story, options).await)?;
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
    let serial = story.held(verify::verify_clinicians(story, world))?;

    story.step("The governance bot creates a bounded, encrypted room whose messages die");
    let room = story.held(create::create_room(story, world).await)?;

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
    let said = story.held(talk::talk(story, &room, &amira, &ben).await)?;

    story.step("A picture crosses, encrypted by the sender's client");
    story.held(talk::picture(story, &room, &amira, &ben).await)?;

    story.step("The laboratory reports over HL7 v2 / MLLP; the bridged device speaks Megolm");
    story.held(talk::lab_result(story, world, &amira, &ben).await)?;

    story.step("An outsider is refused");
    story.held(refuse::outsider(story, world, &room).await)?;

    story.step("A colleague without a credential is refused");
    story.held(refuse::unverified(story, world, &room).await)?;

    story.step("A revoked clinician is out, on both servers");
    story.held(revoke::revoke(story, world, &room, &serial, &amira, &chidi).await)?;

    story.step("Messages die on time, on both servers, on disk too");
    story.held(die::die(story, world, &room, &said, &amira, &chidi).await)?;

    story.step("The audit logs are whole");
    for trust in [&world.north, &world.river] {
        let verdict = story.held(trust.operate(&["audit", "verify"], None))?;
        story.evidence(format!("{}: {}", trust.plan.name, verdict.lines().next().unwrap_or_default()));
    }

    story.step("Nothing secret is in any log");
    story.held(logs::logs(story, world, &[&amira, &ben, &chidi]))?;
    let memory: u64 = [&world.north, &world.river, &world.elsewhere].iter().filter_map(|trust| trust.memory_mb()).sum();
    story.tell(format!("Peak memory of the three servers together: {memory} MB."));
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
