//! Mirrors that do not work: each is given up once, for as long as the client lives.
//!
//! Whatever a mirror has, another place has as well: waiting for one that is sick, at every request anew, costs more than it
//! can save.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::Inner;
use super::error::RegistryError;
use crate::oci::Reference;

/// Mirrors that are not asked any more, by host.
#[derive(Default)]
pub(super) struct LeftAlone(Mutex<BTreeSet<String>>);

/// A place to look for something, as a list of them has it.
pub(super) struct Turn {
    pub(super) place: Reference,
    /// Whether there are others behind it.
    is_mirror: bool,
}

impl Inner {
    /// Returns the places to look in. All but the last are mirrors; those that were given up are left out.
    pub(super) fn turns(&self, reference: &Reference) -> Result<Vec<Turn>, RegistryError> {
        let places = self.places(reference)?;
        let last = places.len().saturating_sub(1);
        let given_up = self.left_alone.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = places.into_iter().enumerate().map(|(at, place)| Turn { place, is_mirror: at < last });
        Ok(turns.filter(|turn| !(turn.is_mirror && given_up.contains(turn.place.registry()))).collect())
    }

    /// Returns the client for a place: mirrors are asked without patience.
    pub(super) fn asking(&self, turn: &Turn) -> Self {
        if turn.is_mirror { self.impatient() } else { self.clone() }
    }

    /// Notes how asking went wrong. A mirror whose request failed twice, for a reason that lies with it, is given up;
    /// tells whether it is.
    pub(super) fn failed(&self, turn: &Turn, error: &RegistryError) -> bool {
        if !turn.is_mirror || !error.last().is_transient() {
            return false;
        }
        let host = turn.place.registry();
        let is_new = self.left_alone.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned());
        if is_new {
            self.reporter
                .warning(format!("the mirror `{host}` is left alone from here on: {}", error.full()));
        }
        true
    }
}
