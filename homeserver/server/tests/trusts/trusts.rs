//! A Matron and a Synapse that know each other.

use tempfile::TempDir;

use crate::{
    authority::Authority,
    install,
    person::Person,
    trust::{Trust, new_folder},
};

/// Two trusts that run.
#[derive(Debug)]
pub(crate) struct Trusts {
    pub(crate) matron: Trust,
    pub(crate) synapse: Trust,
    // Last: the servers end before their folder goes.
    _folder: TempDir,
}

impl Trusts {
    /// Both run; none where this machine cannot run Synapse.
    pub(crate) fn start() -> Option<Self> {
        let python = install::python()?;
        let folder = new_folder();
        let authority = Authority::found(folder.path());
        let synapse = Trust::synapse(&authority, &folder.path().join("synapse"), python);
        let matron = Trust::matron(&authority, &folder.path().join("matron"));
        let trusts = Self { matron, synapse, _folder: folder };
        std::thread::scope(|scope| {
            scope.spawn(|| trusts.synapse.start());
            trusts.matron.start();
        });
        Some(trusts)
    }

    /// First with Matron as the host of what is tried and Synapse as the guest, then the other way round.
    pub(crate) fn both_ways(&self) -> [(&Trust, &Trust); 2] {
        [(&self.matron, &self.synapse), (&self.synapse, &self.matron)]
    }

    /// Somebody at the host, somebody at the guest, and a public room of the host in which both are.
    pub(crate) fn together(host: &Trust, guest: &Trust, version: &str) -> (Person, Person, String) {
        let (owner, visitor) = (Person::at(host, "owner"), Person::at(guest, "visitor"));
        let room = owner.create_public_room(version);
        visitor.join(&room, &host.name);
        owner.wait_for_membership(&room, &visitor.id, "join");
        (owner, visitor, room)
    }
}
