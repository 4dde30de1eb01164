//! A switch that ends a running step from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

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
    fn it_stays_thrown() {
        let cancel = Cancel::new().unwrap();
        assert!(!cancel.is_cancelled());
        cancel.cancel();
        cancel.cancel();
        assert!(cancel.is_cancelled());
        assert!(cancel.is_cancelled());
    }
}
