//! A switch that ends a running step from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// What [`Cancel::stop`] adds to the counter: more than anybody else ever will.
const STOPPED: u64 = 1 << 32;

/// A switch that can be thrown once; waiting code polls its descriptor.
#[derive(Debug)]
pub struct Cancel {
    event: OwnedFd,
}

impl Cancel {
    /// Makes a switch that is not thrown.
    pub fn new() -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// Throws the switch; async-signal-safe, more than once is the same as once.
    pub fn cancel(&self) {
        // The only failure is a counter at its maximum, and then the switch is thrown already.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Throws the switch for a reason that may pass, see [`Self::resume`].
    pub fn stop(&self) {
        let _ = rustix::io::write(&self.event, &STOPPED.to_ne_bytes());
    }

    /// Takes back what [`Self::stop`] did. `false` if the switch was thrown otherwise, too: then it stays thrown.
    pub fn resume(&self) -> bool {
        let mut count = [0; 8];
        // Nothing to read: it is not thrown.
        if rustix::io::read(&self.event, &mut count).is_err() {
            return true;
        }
        let is_only_stopped = u64::from_ne_bytes(count).is_multiple_of(STOPPED);
        if !is_only_stopped {
            self.cancel();
        }
        is_only_stopped
    }

    /// Tells whether the switch is thrown.
    pub fn is_cancelled(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.event, rustix::event::PollFlags::IN)];
        matches!(rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())), Ok(1..))
    }
}

impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stopped_can_go_on_and_what_was_cancelled_cannot() {
        let cancel = Cancel::new().unwrap();
        assert!(cancel.resume());
        cancel.stop();
        cancel.stop();
        assert!(cancel.is_cancelled());
        assert!(cancel.resume() && !cancel.is_cancelled());
        cancel.stop();
        cancel.cancel();
        assert!(!cancel.resume() && cancel.is_cancelled());
    }

    #[test]
    fn it_stays_thrown() {
        let cancel = Cancel::new().unwrap();
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        cancel.cancel();
        assert!(cancel.is_cancelled());
        assert!(cancel.is_cancelled());
    }
}
