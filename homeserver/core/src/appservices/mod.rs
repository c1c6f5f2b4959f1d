//! Application services: registrations, and the transactions they receive.
//!
//! What an application service has received is a position in the stream, kept with its last transaction; what it has
//! not is read from the timelines. In memory a short queue saves that reading while all is well. An application
//! service that does not answer delays nobody else.

mod ask;
mod ephemeral;
mod interest;
mod outside;
mod ping;
mod queue;
mod registration;
mod third_party;
mod transaction;

pub use ping::PingError;
pub use registration::{Appservice, Namespace, Namespaces, Registration, RegistrationError};
pub use third_party::Lookup;

use std::sync::Arc;

use matron_storage::StreamPos;
use parking_lot::Mutex;
use ruma::{RoomAliasId, ServerName, UserId};

use crate::{Core, Error};

/// The registered application services, and what they have still to receive.
#[derive(Debug)]
pub struct State {
    /// All of them.
    pub services: Vec<Arc<Appservice>>,
    /// In the order of `services`.
    queues: Vec<queue::Queue>,
    /// Where the stream stood when this process began: a service that was never served begins here, however late its
    /// worker first runs.
    began: StreamPos,
    interest: Mutex<interest::InterestCache>,
    protocols: Mutex<third_party::ProtocolCache>,
}

impl State {
    /// Takes the registrations into service; `began` is where the stream stands.
    ///
    /// # Errors
    /// [`Error::Internal`] naming the registration that cannot be used.
    pub fn new(registrations: Vec<Registration>, server_name: &ServerName, began: StreamPos) -> Result<Self, Error> {
        let mut services: Vec<Arc<Appservice>> = Vec::with_capacity(registrations.len());
        for registration in registrations {
            let id = registration.id.clone();
            if services.iter().any(|other| other.registration.id == id) {
                return Err(Error::internal(format!("application service `{id}` is registered twice")));
            }
            if services.iter().any(|other| other.registration.as_token == registration.as_token) {
                return Err(Error::internal(format!("application service `{id}` has another's token")));
            }
            let service = Appservice::new(registration, server_name)
                .map_err(|error| Error::internal(format!("application service `{id}`: {error}")))?;
            services.push(Arc::new(service));
        }
        let queues = services.iter().map(|_| queue::Queue::default()).collect();
        Ok(Self { services, queues, began, interest: Mutex::default(), protocols: Mutex::default() })
    }
}

impl Core {
    /// The application service that shows this token. Every registration is compared, in constant time.
    #[must_use]
    pub fn appservice_for_token(&self, token: &str) -> Option<Arc<Appservice>> {
        let mut found = None;
        for service in &self.appservices.services {
            if service.knows_token(token) {
                found = Some(service);
            }
        }
        found.map(Arc::clone)
    }

    /// The application service with this id.
    #[must_use]
    pub fn appservice(&self, id: &str) -> Option<&Arc<Appservice>> {
        self.appservices.services.iter().find(|service| service.registration.id == id)
    }

    /// Passes if no application service, other than `own`, has reserved this user id.
    ///
    /// # Errors
    /// `M_EXCLUSIVE`.
    pub fn check_user_not_reserved(&self, user: &UserId, own: Option<&str>) -> Result<(), Error> {
        if self.is_reserved(own, |service| service.owns_user(user)) {
            return Err(Error::Exclusive("an application service has reserved this user name".into()));
        }
        Ok(())
    }

    /// Passes if no application service, other than `own`, has reserved this alias.
    ///
    /// # Errors
    /// `M_EXCLUSIVE`.
    pub fn check_alias_not_reserved(&self, alias: &RoomAliasId, own: Option<&str>) -> Result<(), Error> {
        if self.is_reserved(own, |service| service.owns_alias(alias)) {
            return Err(Error::Exclusive("an application service has reserved this alias".into()));
        }
        Ok(())
    }

    fn is_reserved(&self, own: Option<&str>, owns: impl Fn(&Appservice) -> bool) -> bool {
        self.appservices.services.iter().any(|service| Some(service.registration.id.as_str()) != own && owns(service))
    }
}
