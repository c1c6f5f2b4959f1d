//! The real binary from outside, and the shape of the workspace.

mod bad_starts;
mod dependency_direction;
mod kill;
mod operator;
mod redaction;
mod serve;
mod support;
