//! The same bytes go to a registry once: what is on its way to one repository is waited for, and mounted into others.
//!
//! A build sends a layer to its destination and to its cache at about the same time, from different threads.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::oci::Digest;

/// Blobs that this process sends, or has sent, to registries.
#[derive(Default)]
pub(super) struct Flights {
    blobs: Mutex<HashMap<Name, Flight>>,
    landed: Condvar,
}

/// A registry and a blob.
type Name = (String, Digest);

#[derive(Default)]
struct Flight {
    is_under_way: bool,
    /// The repositories that a manifest says have it, which nobody has looked at.
    noted: Vec<String>,
    /// The repositories that have it.
    landed: Vec<String>,
}

/// The right to send a blob to a registry, until it is dropped.
pub(super) struct Ticket<'a> {
    flights: &'a Flights,
    name: Name,
}

impl Flights {
    /// Notes that a repository has a blob, if what its manifests say is true.
    pub(super) fn note(&self, registry: &str, digest: &Digest, repository: &str) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let flight = blobs.entry((registry.to_owned(), digest.clone())).or_default();
        if !flight.noted.iter().any(|other| other == repository) {
            flight.noted.push(repository.to_owned());
        }
    }

    /// Returns the repositories that a blob was noted of.
    pub(super) fn noted(&self, registry: &str, digest: &Digest) -> Vec<String> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs
            .get(&(registry.to_owned(), digest.clone()))
            .map(|flight| flight.noted.clone())
            .unwrap_or_default()
    }

    /// Waits until nobody else sends the blob to the registry. Returns the repositories that have it then.
    pub(super) fn board(&self, registry: &str, digest: &Digest) -> (Ticket<'_>, Vec<String>) {
        let name = (registry.to_owned(), digest.clone());
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        while blobs.get(&name).is_some_and(|flight| flight.is_under_way) {
            blobs = self.landed.wait(blobs).unwrap_or_else(PoisonError::into_inner);
        }
        let flight = blobs.entry(name.clone()).or_default();
        flight.is_under_way = true;
        let landed = flight.landed.clone();
        (Ticket { flights: self, name }, landed)
    }
}

impl Ticket<'_> {
    /// Says that the repository has the blob now.
    pub(super) fn landed(self, repository: &str) {
        let mut blobs = self.flights.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = blobs.get_mut(&self.name)
            && !flight.landed.iter().any(|other| other == repository)
        {
            flight.landed.push(repository.to_owned());
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut blobs = self.flights.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = blobs.get_mut(&self.name) {
            flight.is_under_way = false;
        }
        drop(blobs);
        self.flights.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_blob_is_sent_to_a_registry_by_one_at_a_time() {
        let flights = Arc::new(Flights::default());
        let digest = Digest::of(b"blob");
        let (first, seen) = flights.board("r.io", &digest);
        assert!(seen.is_empty());
        drop(flights.board("other.io", &digest));
        drop(flights.board("r.io", &Digest::of(b"another")));
        let (said, heard) = channel();
        let second = {
            let (flights, digest) = (flights.clone(), digest.clone());
            std::thread::spawn(move || {
                let (ticket, seen) = flights.board("r.io", &digest);
                said.send(seen).unwrap();
                drop(ticket);
            })
        };
        assert!(heard.recv_timeout(Duration::from_millis(100)).is_err());
        first.landed("app");
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)).unwrap(), ["app"]);
        second.join().unwrap();
        // One that failed leaves it to the next, without a place to mount it from.
        let other = Digest::of(b"failed");
        drop(flights.board("r.io", &other));
        assert!(flights.board("r.io", &other).1.is_empty());
    }
}
