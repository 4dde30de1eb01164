//! Output of steps, cut into lines.

/// A line longer than this is shown in pieces: memory stays bounded whatever a step prints.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Collects bytes into lines. A carriage return starts a line anew, as on a terminal: of a progress bar
/// only its last state is a line.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// Takes bytes and hands every line that is complete to `line`.
    pub fn push(&mut self, bytes: &[u8], line: &mut dyn FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.pending.pop();
                line(last_state(&self.pending));
                self.pending.clear();
            } else if self.pending.len() > LINE_BYTES_MAX {
                line(last_state(&self.pending));
                self.pending.clear();
            }
        }
    }

    /// Hands over what was not ended by a newline.
    pub fn finish(&mut self, line: &mut dyn FnMut(&[u8])) {
        if !self.pending.is_empty() {
            line(last_state(&self.pending));
            self.pending.clear();
        }
    }
}

/// Returns what a terminal would show of a line with carriage returns in it.
fn last_state(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().rposition(|byte| *byte == b'\r') {
        Some(at) => &line[at + 1..],
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        let mut collect = |line: &[u8]| found.push(String::from_utf8_lossy(line).into_owned());
        for chunk in chunks {
            lines.push(chunk.as_bytes(), &mut collect);
        }
        lines.finish(&mut collect);
        found
    }

    #[test]
    fn lines_are_cut_wherever_the_chunks_end() {
        assert_eq!(lines(&["a", "b\nc", "\n", "\nd"]), ["ab", "c", "", "d"]);
        assert_eq!(lines(&[]), [""; 0]);
    }

    #[test]
    fn carriage_returns_keep_the_last_state() {
        assert_eq!(lines(&["1%\r50%\r100%\n", "dos\r\n", "a\r", "b"]), ["100%", "dos", "b"]);
    }

    #[test]
    fn an_endless_line_comes_in_pieces() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        assert_eq!(lines(&[&long, "y\n"]), [long.as_str(), "y"]);
    }
}
