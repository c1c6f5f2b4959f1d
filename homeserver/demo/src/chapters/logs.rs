//! Nothing secret is in any log.

use crate::{
    clinician::Clinician,
    story::{Step, Story, fail},
    world::{ELSEWHERE, NORTH, RIVER, World},
};

pub(crate) fn logs(story: &Story, world: &World, people: &[&Clinician]) -> Step {
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
