//! The wire, in process: requests in, answers out, over a store in memory.

mod appservices;
mod federated;
mod framework;
mod login;
mod network;
mod profile;
mod push;
mod register;
mod server;
mod user_data;
