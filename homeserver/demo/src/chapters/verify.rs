//! Clinicians get accounts, and all but one a credential.

use serde_json::Value;

use crate::{
    story::{Step, Story, fail},
    world::{NORTH, World},
};

/// Accounts, and credentials for all but one; gives the serial of the one that will be revoked.
pub(crate) fn verify_clinicians(story: &Story, world: &mut World) -> Step<String> {
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
