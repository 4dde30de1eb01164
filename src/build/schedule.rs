//! Which stage runs when: all at once, each as soon as what it needs is there.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex};

use super::Build;
use super::error::{BuildError, Problem};
use super::stage::StageResult;
use crate::plan::StageId;
use crate::threads;

enum Progress {
    Waiting,
    Running,
    Done(Arc<StageResult>),
    Failed,
}

/// The state of every stage, and how many may work at once.
pub(super) struct Schedule {
    stages: Mutex<Vec<Progress>>,
    changed: Condvar,
    /// The first failure: the build's.
    failure: Mutex<Option<BuildError>>,
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to work; given back when dropped.
pub(super) struct Turn<'a>(&'a Schedule);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Ok(mut free) = self.0.free.lock() {
            *free += 1;
        }
        self.0.freed.notify_one();
    }
}

impl Schedule {
    pub(super) fn new(stages: usize, jobs: NonZeroUsize) -> Self {
        Self {
            stages: Mutex::new((0..stages).map(|_| Progress::Waiting).collect()),
            changed: Condvar::new(),
            failure: Mutex::default(),
            free: Mutex::new(jobs.get()),
            freed: Condvar::new(),
        }
    }

    /// Waits until this thread may work. Never hold it while waiting for another stage.
    pub(super) fn turn(&self) -> Turn<'_> {
        let mut free = self.free.lock().expect("no panic while taking turns");
        while *free == 0 {
            free = self.freed.wait(free).expect("no panic while taking turns");
        }
        *free -= 1;
        Turn(self)
    }

    /// Returns the stages that were run to their end.
    pub(super) fn finished(&self) -> Vec<Arc<StageResult>> {
        let stages = self.stages.lock().expect("no panic while stages change");
        let done = |progress: &Progress| match progress {
            Progress::Done(result) => Some(result.clone()),
            Progress::Waiting | Progress::Running | Progress::Failed => None,
        };
        stages.iter().filter_map(done).collect()
    }

    /// Tells whether nobody has begun a stage.
    pub(super) fn is_untouched(&self, id: StageId) -> bool {
        matches!(self.stages.lock().expect("no panic while stages change")[id.0], Progress::Waiting)
    }

    fn set(&self, id: StageId, progress: Progress) {
        self.stages.lock().expect("no panic while stages change")[id.0] = progress;
        self.changed.notify_all();
    }

    /// Returns whether the caller is to run the stage; else waits for who does.
    fn claim(&self, id: StageId) -> Result<Option<Arc<StageResult>>, Problem> {
        let mut stages = self.stages.lock().expect("no panic while stages change");
        loop {
            match &stages[id.0] {
                Progress::Waiting => {
                    stages[id.0] = Progress::Running;
                    return Ok(None);
                }
                Progress::Running => {
                    stages = self.changed.wait(stages).expect("no panic while stages change");
                }
                Progress::Done(result) => return Ok(Some(result.clone())),
                Progress::Failed => return Err(Problem::Elsewhere),
            }
        }
    }
}

/// Marks a stage as failed if its thread panics, so that nobody waits for ever.
struct Claim<'a>(&'a Schedule, StageId, bool);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.2 {
            self.0.set(self.1, Progress::Failed);
        }
    }
}

impl Build<'_> {
    /// Runs every stage the target needs and returns the target.
    pub(super) fn run_stages(&self) -> Result<Arc<StageResult>, BuildError> {
        // A stage that finds no thread runs when one is free, or in the thread of who needs it.
        let needed = self.probe.needed().unwrap_or(&self.plan.reachable);
        // A failure is kept by the schedule.
        threads::each("stage", needed, needed.len(), |id| self.stage(*id).map(drop).ok());
        let result = self.stage(self.plan.target);
        let failure = self.schedule.failure.lock().expect("no panic while failing").take();
        match failure {
            Some(failure) => Err(failure),
            None => result.map_err(BuildError::from),
        }
    }

    /// Returns a finished stage: runs it, or waits for the thread that does.
    pub(super) fn stage(&self, id: StageId) -> Result<Arc<StageResult>, Problem> {
        if let Some(done) = self.schedule.claim(id)? {
            return Ok(done);
        }
        let mut claim = Claim(&self.schedule, id, false);
        match self.run_stage(id) {
            Ok(result) => {
                let result = Arc::new(result);
                claim.2 = true;
                self.schedule.set(id, Progress::Done(result.clone()));
                Ok(result)
            }
            Err(failure) => {
                self.fail(failure);
                Err(Problem::Elsewhere)
            }
        }
    }

    /// Keeps the first real failure, and stops everything else.
    fn fail(&self, failure: BuildError) {
        let mut first = self.schedule.failure.lock().expect("no panic while failing");
        let replaces = match &*first {
            None => !matches!(failure.problem, Problem::Elsewhere),
            Some(_) => false,
        };
        if replaces {
            *first = Some(failure);
            self.services.cancel.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_than_allowed_work_at_once() {
        let schedule = Schedule::new(0, NonZeroUsize::new(2).unwrap());
        let (working, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let _turn = schedule.turn();
                    most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(10));
                    working.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn a_turn_is_given_back_by_a_panic() {
        let schedule = Schedule::new(0, NonZeroUsize::MIN);
        std::thread::scope(|scope| {
            let panicking = scope.spawn(|| {
                let _turn = schedule.turn();
                panic!("on purpose");
            });
            assert!(panicking.join().is_err());
        });
        drop(schedule.turn());
    }

    #[test]
    fn one_runs_a_stage_and_the_others_are_told_how_it_went() {
        let schedule = Schedule::new(2, NonZeroUsize::MIN);
        let id = StageId(1);
        assert!(matches!(schedule.claim(id), Ok(None)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| schedule.claim(id));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            // What a panic in the stage's thread comes to.
            drop(Claim(&schedule, id, false));
            assert!(matches!(waiting.join().unwrap(), Err(Problem::Elsewhere)));
        });
        assert!(matches!(schedule.claim(StageId(0)), Ok(None)));
    }
}
