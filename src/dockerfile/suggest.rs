//! "Did you mean": the known word nearest to an unknown one.

/// Candidates farther away than this many edits are not meant.
const MAX_DISTANCE: usize = 2;

/// Returns the candidate nearest to `word`, if one is near enough to be meant.
///
/// If a candidate *is* the word, the error was about something else and there is nothing to suggest.
/// Case-insensitively, the answer comes in the case of `word`.
pub fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> Option<String> {
    let fold = |text: &str| if case_sensitive { text.to_owned() } else { text.to_lowercase() };
    let wanted = fold(word);
    let mut best: Option<(usize, String)> = None;
    for candidate in candidates {
        let candidate = fold(candidate);
        if candidate == wanted {
            return None;
        }
        let distance = distance(&wanted, &candidate);
        if distance <= MAX_DISTANCE && best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, candidate));
        }
    }
    let (_, candidate) = best?;
    Some(if !case_sensitive && word == word.to_uppercase() && word != word.to_lowercase() {
        candidate.to_uppercase()
    } else {
        candidate
    })
}

/// Appends ` (did you mean x?)` to a message if there is something to suggest.
pub fn did_you_mean<'a>(
    message: impl Into<String>,
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    case_sensitive: bool,
) -> String {
    let message = message.into();
    match nearest(word, candidates, case_sensitive) {
        Some(candidate) => format!("{message} (did you mean {candidate}?)"),
        None => message,
    }
}

/// Counts the insertions, deletions and substitutions between two texts (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut current = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let substituted = previous[j] + usize::from(x != *y);
            current.push(substituted.min(previous[j + 1] + 1).min(current[j] + 1));
        }
        previous = current;
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("bulid", "build", 2), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(nearest("bulid", ["test", "build"], true).as_deref(), Some("build"));
        assert_eq!(nearest("RNU", ["RUN", "CMD"], false).as_deref(), Some("RUN"));
        assert_eq!(nearest("rnu", ["RUN", "CMD"], false).as_deref(), Some("run"));
        assert_eq!(nearest("mont", ["mount", "network"], true).as_deref(), Some("mount"));
        assert_eq!(nearest("build", ["build", "built"], true), None);
        assert_eq!(nearest("xyz", ["mount"], true), None);
        assert_eq!(did_you_mean("no", "typ", ["type"], true), "no (did you mean type?)");
    }
}
