//! The trunks, by a number that is never used twice: those that are there, and those that are leaving while calls of
//! theirs go on.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::clock::Now;

use super::UserAgent;
use super::trunk::Trunk;
use super::words::{Cidr, Found, TrunkSettings, TrunkView};

/// All trunks.
#[derive(Debug, Default)]
pub(crate) struct Trunks {
    trunks: BTreeMap<usize, Trunk>,
    numbered: usize,
}

impl Trunks {
    pub fn get(&self, number: usize) -> Option<&Trunk> {
        self.trunks.get(&number)
    }

    pub fn get_mut(&mut self, number: usize) -> Option<&mut Trunk> {
        self.trunks.get_mut(&number)
    }

    /// In the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Trunk> {
        self.trunks.values()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Trunk> {
        self.trunks.values_mut()
    }

    /// The trunk of that name that is not leaving.
    pub fn named(&self, name: &str) -> Option<&Trunk> {
        self.iter().find(|trunk| !trunk.removed && trunk.settings.name == name)
    }

    pub fn named_mut(&mut self, name: &str) -> Option<&mut Trunk> {
        self.iter_mut().find(|trunk| !trunk.removed && trunk.settings.name == name)
    }

    /// The number of the next trunk.
    fn number(&mut self) -> usize {
        self.numbered += 1;
        self.numbered
    }
}

impl UserAgent {
    /// Adds a trunk; registering or asking by OPTIONS begins as soon as its address is known. A second
    /// trunk of the same name is ignored.
    pub fn add_trunk(&mut self, trunk: TrunkSettings, now: Now) {
        if self.trunks.named(&trunk.name).is_some() {
            tracing::error!(trunk = %trunk.name, "a trunk of that name exists already");
            return;
        }
        let number = self.trunks.number();
        let mut trunk = Trunk::new(number, trunk, &mut self.core, now);
        trunk.start(&mut self.core, now);
        self.trunks.trunks.insert(number, trunk);
    }

    /// Takes a trunk away: it is unregistered and takes no more calls; those that it has go on to their end. Its name
    /// may be used again at once.
    pub fn remove_trunk(&mut self, name: &str, now: Now) {
        let Some(trunk) = self.trunks.named_mut(name) else { return };
        trunk.removed = true;
        if !trunk.stopped() {
            trunk.stop(&mut self.core, now);
        }
        self.sweep();
    }

    /// What the operator changed about a trunk, or a trunk that is new. What is only about the PBX's requests (who may send them,
    /// whether they are challenged) holds at once; another account or server begins anew, and the calls that the trunk has
    /// go on to their end as they are. Without places, those that are known are kept if the server is still the same.
    pub fn change_trunk(&mut self, mut settings: TrunkSettings, now: Now) {
        let Some(trunk) = self.trunks.named_mut(&settings.name) else { return self.add_trunk(settings, now) };
        let before = &trunk.settings;
        if settings.found.is_empty() && settings.server_uri == before.server_uri {
            settings.found.clone_from(&before.found);
        }
        if before.server_uri == settings.server_uri
            && before.username == settings.username
            && before.register == settings.register
            && !trunk.stopped()
        {
            return trunk.change(settings, &mut self.core, now);
        }
        let name = settings.name.clone();
        if let Some(trunk) = self.trunks.named_mut(&name) {
            trunk.replaced = true;
        }
        self.remove_trunk(&name, now);
        self.add_trunk(settings, now);
    }

    /// The trunk's name was resolved, or resolved anew. If only the order changed, or nothing was found, nothing happens.
    /// If the place that is spoken to is still among them, the trunk stays there.
    pub fn set_peers(&mut self, trunk: &str, found: Vec<Found>, now: Now) {
        if let Some(trunk) = self.trunks.named_mut(trunk) {
            trunk.moved(found, &mut self.core, now);
        }
        self.sweep_trunks();
    }

    /// The trunks, in the order they were added; those that were removed, until they have unregistered and their calls
    /// are over.
    pub fn trunks(&self) -> Vec<TrunkView> {
        self.trunks.iter().filter(|trunk| !trunk.replaced).map(Trunk::view).collect()
    }

    /// What we call ourselves towards that trunk, if it is known where it is.
    pub fn local(&self, trunk: &str) -> Option<SocketAddr> {
        let trunk = self.trunks.named(trunk)?;
        trunk.peer().map(|_| trunk.local())
    }

    /// At how many places that trunk is.
    pub fn places(&self, trunk: &str) -> usize {
        self.trunks.named(trunk).map_or(0, |trunk| trunk.places.iter().count())
    }

    /// Who may send us anything: the places of the trunks, and whom each of them allows.
    pub fn admitted(&self) -> Vec<Cidr> {
        let places =
            self.trunks.iter().flat_map(|trunk| trunk.places.iter()).map(|found| Cidr::from(found.way.ip()));
        let former = self.trunks.iter().flat_map(|trunk| trunk.former.iter().copied()).map(Cidr::from);
        let allowed = self.trunks.iter().flat_map(|trunk| trunk.settings.allow.iter().copied());
        places.chain(former).chain(allowed).collect()
    }

    /// Forgets trunks that are gone.
    pub(crate) fn sweep_trunks(&mut self) {
        let calls = &self.calls;
        let used = |number: usize| calls.values().any(|call| call.trunk == number);
        for trunk in self.trunks.iter_mut() {
            let index = trunk.index;
            trunk.former.retain(|left| calls.values().any(|call| call.trunk == index && call.is_with(*left)));
        }
        self.trunks.trunks.retain(|number, trunk| !trunk.removed || !trunk.gone() || used(*number));
    }
}
