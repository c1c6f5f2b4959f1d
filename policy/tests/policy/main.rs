//! What the policy crate promises, from outside.
#![cfg(test)]

mod audit;
mod canonical;
mod credential;
mod explain;
mod fixtures;
mod hostile;
mod layers;
mod of_event;
mod register;
mod revocation;
mod room_policy;
mod rules_admission;
mod rules_content;
mod rules_credential;
mod rules_state;
mod verdict;
mod wire;
mod wording;
