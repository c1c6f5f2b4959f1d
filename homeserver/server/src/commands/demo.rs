//! `matron demo`: two trusts on this machine share a clinical room.

use crate::{cli::DemoArguments, failure::Failure};

/// # Errors
/// [`Failure::CheckFailed`] naming the first step that did not hold.
pub(super) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let _ = arguments;
    Err(Failure::CheckFailed("the demo is not built yet".to_owned()))
}
