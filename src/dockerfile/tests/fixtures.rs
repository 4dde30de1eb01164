//! Golden listings: `testdata/dockerfile/NAME.dockerfile` parses to `NAME.listing`.
//!
//! With `KILN_BLESS=1` the listings are written instead of compared: read the difference before committing.

use std::path::PathBuf;

use super::dump::dump;
use crate::dockerfile::parse;

/// Returns the names and texts of all fixtures.
pub(super) fn all() -> Vec<(String, Vec<u8>, PathBuf)> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/dockerfile");
    let mut fixtures = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "dockerfile") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            fixtures.push((name, std::fs::read(&path).unwrap(), path.with_extension("listing")));
        }
    }
    fixtures.sort();
    fixtures
}

#[test]
fn fixtures_parse_as_listed() {
    let fixtures = all();
    assert!(fixtures.len() >= 10, "the fixtures are gone");
    for (name, bytes, listing) in fixtures {
        let found = match parse(&name, &bytes) {
            Ok(dockerfile) => dump(&dockerfile),
            Err(error) => format!("error {:?}: {}\n", error.span, error.message),
        };
        if std::env::var_os("KILN_BLESS").is_some() {
            std::fs::write(&listing, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&listing).unwrap_or_default();
        assert_eq!(found, expected, "{name}: differs from {}", listing.display());
    }
}
