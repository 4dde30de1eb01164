//! Hostile input for everything that reads what others wrote.
//!
//! Each target gets valid samples that were mutated, texts pieced together from the words its grammar knows,
//! and noise. No input may make it panic, take more than [`TIME_LIMIT`] or grow the process by more than
//! [`MEMORY_LIMIT_KIB`]; beyond that each target states what must hold of what it read.
//!
//! A target runs for `CASES` inputs, new ones each time; with `KILN_FUZZ_SECONDS` set, for as long as that says
//! (`make fuzz`). What failed is shown shrunk. An input that hangs, or overflows the stack, is in
//! `target/tmp/fuzz/TARGET`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a test says how far it came")]

mod dockerfiles;
mod documents;
mod ignore_files;
mod input;
mod tars;
mod texts;

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use input::{Input, Samples};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// Inputs are small: what takes longer is not linear. Time of the processor, since the machine may be busy.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// How much the process may grow in a round, other tests of this binary included.
const MEMORY_LIMIT_KIB: u64 = 512 * 1024;

/// A target without an answer for this long ends the process.
const HANG_LIMIT: Duration = Duration::from_secs(60);

/// Runs `test` over inputs made from `samples`.
fn fuzz(target: &str, cases: u32, samples: &Samples, test: impl Fn(&Input)) {
    let watch = Watch::start(target);
    let memory = peak_kib();
    let until = std::env::var("KILN_FUZZ_SECONDS").ok().map(|seconds| {
        Instant::now() + Duration::from_secs(seconds.parse().expect("KILN_FUZZ_SECONDS is a number"))
    });
    let (begun, count) = (Instant::now(), Cell::new(0_u64));
    loop {
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&samples.inputs(), |input| {
            count.set(count.get() + 1);
            watch.note(&input);
            let before = processor_time();
            test(&input);
            let took = processor_time().saturating_sub(before);
            if took > TIME_LIMIT {
                return Err(TestCaseError::fail(format!("it took {took:?}")));
            }
            Ok(())
        });
        if let Err(failure) = outcome {
            panic!("{target}: {failure}");
        }
        let grown = peak_kib().saturating_sub(memory);
        assert!(grown < MEMORY_LIMIT_KIB, "{target}: the process grew by {grown} KiB");
        if until.is_none_or(|until| Instant::now() >= until) {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{target}: {} cases, {:.0} each second", count.get(), count.get() as f64 / seconds);
}

/// How long this thread has had a processor.
fn processor_time() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = statistics.split_whitespace().next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

/// The most memory this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Keeps the current input in a file, and ends the process if there is no next one for too long.
struct Watch {
    file: File,
    cases: &'static AtomicU64,
    done: &'static AtomicBool,
}

impl Watch {
    fn start(target: &str) -> Self {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(target);
        let file = File::create(&path).unwrap();
        let cases: &AtomicU64 = Box::leak(Box::default());
        let done: &AtomicBool = Box::leak(Box::default());
        std::thread::spawn(move || {
            let (mut last, mut since) = (0, Instant::now());
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(500));
                let now = cases.load(Ordering::Relaxed);
                if now != last {
                    (last, since) = (now, Instant::now());
                } else if since.elapsed() > HANG_LIMIT {
                    eprintln!("no answer for {HANG_LIMIT:?}: {}", path.display());
                    std::process::abort();
                }
            }
        });
        Self { file, cases, done }
    }

    fn note(&self, input: &Input) {
        self.cases.fetch_add(1, Ordering::Relaxed);
        self.file.set_len(input.0.len() as u64).unwrap();
        self.file.write_all_at(&input.0, 0).unwrap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}
