//! Several whole servers in one process, and what tests need around them.
//!
//! - [`TestNet`]: the network between the servers. The wire is the real one, from the signed request to the router of
//!   `matron-api`; only sockets, TLS and discovery (which `matron-net` has tests of its own for) are left out. It loses,
//!   delays, doubles and reorders requests as a [`Weather`] says, and falls apart and heals as the test says.
//! - [`TestServer`]: one server, in memory, with its workers, which can be killed and start again on what it stored;
//!   [`Person`]: somebody with a client.
//! - [`FakeClock`]: the time, for all servers of a network; it moves when the test moves it.
//! - [`Dice`]: choices that follow from a seed.
//! - [`Draft`]: events, made by hand, right or wrong.
//! - [`Adversary`]: a server with a valid key that keeps no rule.
//! - [`Crowd`]: a room with as many members as wanted, of an adversary's making.
//! - [`Governance`]: a signed register with its organisations, and credentials.
//!
//! A seed fixes every choice that a test and its network make. It does not fix the order in which threads run: a run that
//! fails is tried again with its seed, usually with the same end.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends here")]

mod adversary;
mod cable;
mod clock;
mod crowd;
mod dice;
mod events;
mod governance;
mod link;
mod net;
mod person;
mod server;
mod weather;

pub use adversary::{Adversary, Foothold, Question, Reply};
pub use clock::{FakeClock, START_MS};
pub use crowd::Crowd;
pub use dice::Dice;
pub use events::Draft;
pub use governance::Governance;
pub use net::TestNet;
pub use person::{Person, part};
pub use server::TestServer;
pub use weather::Weather;
