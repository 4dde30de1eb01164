//! "Did you mean": the known word nearest to an unknown one.

/// Returns the candidate nearest to `word`, if one is near enough to be meant.
pub fn nearest<'a>(
    _word: &str,
    _candidates: impl IntoIterator<Item = &'a str>,
    _case_sensitive: bool,
) -> Option<&'a str> {
    todo!()
}
