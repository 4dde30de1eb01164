//! Numbers and names as people read them.

use std::time::Duration;

use crate::event::{StepId, TransferKind};

/// Writes a number of bytes: `532B`, `1.2kB`, `28.1MB`; powers of 1000, as docker does.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    match unit {
        "B" => format!("{count}B"),
        // 999.96 must not become 1000.0.
        _ if value < 99.95 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

/// Writes a duration: `0.3s`, `75.0s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Names a step: `[build 2/5]`.
pub(super) fn step(step: &StepId) -> String {
    match (step.stage.as_str(), step.total) {
        ("", 0) => "[internal]".to_owned(),
        (stage, 0) => format!("[{stage}]"),
        ("", total) => format!("[{}/{total}]", step.number),
        (stage, total) => format!("[{stage} {}/{total}]", step.number),
    }
}

/// Puts an instruction on one line: what stands below its first line is only hinted at.
pub(super) fn instruction(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default().replace('\t', " ");
    if lines.next().is_some() { format!("{first} ...") } else { first }
}

/// Names what a transfer does.
pub(super) fn verb(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::Pull => "pull",
        TransferKind::Push => "push",
        TransferKind::Extract => "extract",
        TransferKind::Fetch => "fetch",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (count, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (28_100_000, "28.1MB"),
            (532_000_000, "532MB"),
            (1_500_000_000, "1.5GB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }

    #[test]
    fn steps_and_instructions_have_one_line() {
        let id = |stage: &str, number, total| StepId { stage: stage.into(), number, total };
        assert_eq!(step(&id("build", 2, 5)), "[build 2/5]");
        assert_eq!(step(&id("", 2, 5)), "[2/5]");
        assert_eq!(step(&id("", 0, 0)), "[internal]");
        assert_eq!(instruction("RUN <<EOF\necho\nEOF\n"), "RUN <<EOF ...");
        assert_eq!(instruction("RUN a\tb"), "RUN a b");
    }
}
