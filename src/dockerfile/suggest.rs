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
    let mut best: Option<((usize, usize), String)> = None;
    for candidate in candidates {
        let candidate = fold(candidate);
        if candidate == wanted {
            return None;
        }
        // Of two that are as near, the one with swapped letters is meant: `RNU` is `RUN`, not `ENV`.
        let rank = (distance(&wanted, &candidate, false), distance(&wanted, &candidate, true));
        if rank.0 <= MAX_DISTANCE && best.as_ref().is_none_or(|(least, _)| rank < *least) {
            best = Some((rank, candidate));
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

/// Counts the insertions, deletions and substitutions between two texts (Levenshtein), and if asked to
/// takes a swap of neighbours as one step too.
fn distance(a: &str, b: &str, swaps: bool) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let substituted = rows[i][j] + usize::from(x != y);
            let mut least = substituted.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if swaps && i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(rows[i - 1][j - 1] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("bulid", "build", 2), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b, false), expected, "{a} {b}");
            assert_eq!(distance(b, a, false), expected, "{b} {a}");
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(nearest("bulid", ["test", "build"], true).as_deref(), Some("build"));
        assert_eq!(distance("bulid", "build", true), 1);
        assert_eq!(nearest("RNU", ["ENV", "RUN", "CMD"], false).as_deref(), Some("RUN"));
        assert_eq!(nearest("rnu", ["RUN", "CMD"], false).as_deref(), Some("run"));
        assert_eq!(nearest("mont", ["mount", "network"], true).as_deref(), Some("mount"));
        assert_eq!(nearest("build", ["build", "built"], true), None);
        assert_eq!(nearest("xyz", ["mount"], true), None);
        assert_eq!(did_you_mean("no", "typ", ["type"], true), "no (did you mean type?)");
    }
}
