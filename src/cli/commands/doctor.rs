//! `kiln doctor`: what this machine or container allows.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::build::enter;
use super::{print, print_json};
use crate::cli::args::{DoctorArgs, Format};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::home::Site;
use crate::cli::wire;
use crate::event::Reporter;
use crate::rootfs::{self, StorageKind};
use crate::sandbox::{Finding, Isolation, doctor};

/// Shows every probe with its result and what it means.
pub(super) fn run(args: &DoctorArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let root = environment.store_root(args.store.root.as_ref());
    let mut findings = doctor(Some(&root));
    findings.push(storage(&root, environment)?);
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

/// Finds out where a build's files would live, in the namespaces that it would work in.
fn storage(root: &Path, environment: &Environment) -> Result<Finding, Failure> {
    let finding = |works, detail: String, meaning: &str| Finding {
        name: "storage".to_owned(),
        works,
        detail,
        meaning: meaning.to_owned(),
    };
    let Site { home, entered } = match enter(Isolation::Auto, false, root, environment) {
        Ok((site, _)) => site,
        Err(error) => return Ok(finding(false, error.to_string(), "")),
    };
    let work_dir = match wire::open_work_dir(&home, &Reporter::silent()) {
        Ok(work_dir) => work_dir,
        Err(error) => return Ok(finding(false, error.to_string(), "choose a writable place with `--root`")),
    };
    if let Some(reason) = entered.refusal(work_dir.path()) {
        return Ok(finding(false, String::new(), &reason));
    }
    Ok(match rootfs::choose(&entered, work_dir.path()) {
        (StorageKind::Overlay { .. }, _) => {
            finding(true, String::new(), "overlay: base layers are unpacked once and shared by builds")
        }
        (StorageKind::Directory, reason) => finding(
            true,
            reason,
            "directory: each stage is a tree of its own, compared before and after a step",
        ),
    })
}

fn text(finding: &Finding, out: &mut dyn Write) -> Result<(), Failure> {
    let mark = if finding.works { "yes" } else { "no " };
    let detail = if finding.detail.is_empty() { String::new() } else { format!(" ({})", finding.detail) };
    print(out, &format!("  {mark}  {}{detail}", finding.name))?;
    if finding.meaning.is_empty() { Ok(()) } else { print(out, &format!("       {}", finding.meaning)) }
}
