//! Transfers that trickle: each byte shows that somebody is there, and the last one never comes.

use std::time::Duration;

/// A transfer below this rate for as long as kiln is patient is no transfer but a way to hold it up.
const SLOWEST_BYTES_PER_SECOND: u64 = 256;

/// How fast a transfer goes. Only time in which its bytes were waited for counts.
#[derive(Debug)]
pub struct Pace {
    patience: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Begins a transfer that is looked at again after each `patience`.
    pub fn new(patience: Duration) -> Self {
        Self { patience, waited: Duration::ZERO, bytes: 0 }
    }

    /// Counts `bytes` that came after a wait; `false` if the transfer goes nowhere.
    pub fn goes_on(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.patience {
            return true;
        }
        let least = self.waited.as_secs_f64() * SLOWEST_BYTES_PER_SECOND as f64;
        let goes_on = self.bytes as f64 >= least;
        *self = Self::new(self.patience);
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trickle_is_found() {
        let mut pace = Pace::new(Duration::from_secs(60));
        let mut transfer = |bytes: u64| (0..70).all(|_| pace.goes_on(Duration::from_secs(1), bytes));
        assert!(transfer(300));
        assert!(!transfer(200));
        // Each time anew: one that was slow goes on when it is fast.
        assert!(transfer(1000));
    }
}
