//! The wire, in process: requests in, answers out, over a store in memory.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod appservices;
#[cfg(test)]
mod browser;
#[cfg(test)]
mod captcha;
#[cfg(test)]
mod cas;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod framework;
#[cfg(test)]
mod login;
#[cfg(test)]
mod oauth;
#[cfg(test)]
mod oauth_account;
#[cfg(test)]
mod oauth_device;
#[cfg(test)]
mod peeking;
#[cfg(test)]
mod profile;
#[cfg(test)]
mod push;
#[cfg(test)]
mod register;
#[cfg(test)]
mod rendezvous;
#[cfg(test)]
mod server;
#[cfg(test)]
mod sso;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod upstream;
#[cfg(test)]
mod user_data;
