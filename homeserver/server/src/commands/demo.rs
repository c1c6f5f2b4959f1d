//! `matron demo`: two trusts on this machine share a clinical room.

use crate::{cli::DemoArguments, failure::Failure};

/// # Errors
/// [`Failure::CheckFailed`] naming the first step that did not hold.
pub(super) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let matron = std::env::current_exe().map_err(Failure::io("cannot find this program"))?;
    let options = matron_demo::Options { matron, check: arguments.check };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::io("cannot start the runtime"))?;
    runtime.block_on(matron_demo::run(options)).map_err(|error| Failure::CheckFailed(error.to_string()))
}
