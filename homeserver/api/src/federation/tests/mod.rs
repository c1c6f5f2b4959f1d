//! Every endpoint through the whole router: by requests that are made by hand, and between several servers in one process.

mod directory;
mod history;
mod invites;
mod joins;
mod requests;
mod world;
