//! Tests of the crate through its public interface.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod client;
#[cfg(test)]
mod draft;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod redaction;
#[cfg(test)]
mod resolution;
#[cfg(test)]
mod support;
#[cfg(test)]
mod untrusted;
#[cfg(test)]
mod vectors;
