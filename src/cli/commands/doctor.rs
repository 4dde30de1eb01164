//! `kiln doctor`: what this machine or container allows.

use std::io::Write;

use serde_json::json;

use super::{print, print_json};
use crate::cli::args::{DoctorArgs, Format};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::sandbox::{Finding, doctor};

/// Shows every probe with its result and what it means.
pub(super) fn run(args: &DoctorArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let root = environment.store_root(args.store.root.as_ref());
    let findings = doctor(Some(&root));
    match args.format {
        Format::Json => {
            let value = json!({
                "version": env!("CARGO_PKG_VERSION"),
                "root": root,
                "findings": findings,
            });
            print_json(out, &value)
        }
        Format::Text => {
            print(out, &format!("kiln {}, store in {}", env!("CARGO_PKG_VERSION"), root.display()))?;
            findings.iter().try_for_each(|finding| text(finding, out))
        }
    }
}

fn text(finding: &Finding, out: &mut dyn Write) -> Result<(), Failure> {
    let mark = if finding.works { "yes" } else { "no " };
    let detail = if finding.detail.is_empty() { String::new() } else { format!(" ({})", finding.detail) };
    print(out, &format!("  {mark}  {}{detail}", finding.name))?;
    if finding.meaning.is_empty() { Ok(()) } else { print(out, &format!("       {}", finding.meaning)) }
}
