//! `kiln cache`: what is in a cache of steps' results, and what of it may go.

use std::io::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{open_store, print, print_json, print_table};
use crate::cache::{Entry, Keep, Removed, SharedCache, size_bytes};
use crate::cli::args::{
    CacheCommand, CacheCommandArgs, CacheListArgs, CachePlaceArgs, CachePruneArgs, Format, KeepArgs,
};
use crate::cli::environment::Environment;
use crate::cli::fail::Failure;
use crate::cli::progress::bytes;
use crate::cli::request::{RequestError, registry_config};
use crate::cli::values::{CachePlace, CacheUse, parse_age, parse_cache, parse_size_bytes};
use crate::cli::wire;
use crate::event::Reporter;

/// Runs one of the commands.
pub(super) fn run(
    args: &CacheCommandArgs,
    environment: &Environment,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match &args.command {
        CacheCommand::Ls(args) => list(args, environment, out),
        CacheCommand::Du(args) => usage(args, environment, out),
        CacheCommand::Prune(args) => prune(args, environment, out),
    }
}

/// Opens the cache that is meant.
fn open(args: &CachePlaceArgs, environment: &Environment, writes: bool) -> Result<SharedCache, Failure> {
    let place = match args.cache.as_deref() {
        None => CachePlace::Own,
        Some(text) => match parse_cache(CacheUse::Look, text).map_err(RequestError::from)? {
            Some(option) => option.place,
            None => CachePlace::Own,
        },
    };
    let place = match place {
        CachePlace::Local(path) => CachePlace::Local(environment.directory.join(path)),
        place => place,
    };
    let store = open_store(&args.store, environment)?;
    let client = wire::open_client(registry_config(&args.registry, environment)?, Reporter::silent())?;
    let parts = wire::CacheParts { client: &client, store: &store, ground: &Arc::default() };
    // What is looked at must be there: an empty directory would be made where a name is mistyped.
    if let CachePlace::Local(path) = &place
        && writes
    {
        wire::open_cache(&CachePlace::Local(path.clone()), parts, &[], false)?;
    }
    Ok(wire::open_cache(&place, parts, &[], writes)?)
}

fn list(args: &CacheListArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let cache = open(&args.place, environment, false)?;
    let mut entries = cache.entries()?;
    entries.sort_by_key(|entry| (std::cmp::Reverse(entry.last_seconds()), entry.name.clone()));
    match args.format {
        Format::Json => print_json(out, &entries.iter().map(as_json).collect()),
        Format::Text => {
            let now = wire::now().seconds;
            let rows: Vec<Vec<String>> = entries.iter().map(|entry| as_row(entry, now)).collect();
            print_table(out, &["KEY", "MADE", "USED", "SIZE", "INSTRUCTION"], &rows)
        }
    }
}

/// How much of an instruction a line shows.
const INSTRUCTION_CHARACTERS: usize = 60;

fn as_row(entry: &Entry, now: i64) -> Vec<String> {
    let key = entry.key.map_or_else(|| entry.name.clone(), |key| key.to_string());
    let instruction: String = entry.instruction.replace('\n', " ");
    let shown: String = instruction.chars().take(INSTRUCTION_CHARACTERS).collect();
    let shown = if shown.len() < instruction.len() { format!("{shown}…") } else { shown };
    vec![
        key.chars().take(12).collect(),
        ago(now, Some(entry.created_seconds).filter(|_| entry.key.is_some())),
        ago(now, entry.used_seconds),
        bytes(size_bytes([entry])),
        shown,
    ]
}

/// Writes an age in its largest unit.
fn ago(now: i64, then: Option<i64>) -> String {
    let Some(then) = then else { return "-".to_owned() };
    let seconds = now.saturating_sub(then).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn as_json(entry: &Entry) -> Value {
    json!({
        "name": entry.name,
        "key": entry.key.map(|key| key.to_string()),
        "instruction": entry.instruction,
        "manifest": entry.manifest,
        "createdSeconds": entry.created_seconds,
        "usedSeconds": entry.used_seconds,
        "sizeBytes": size_bytes([entry]),
    })
}

fn usage(args: &CacheListArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let cache = open(&args.place, environment, false)?;
    let entries = cache.entries()?;
    let unreadable = entries.iter().filter(|entry| entry.key.is_none()).count();
    let total = size_bytes(&entries);
    if args.format == Format::Json {
        let value = json!({
            "cache": cache.describe(),
            "records": entries.len(),
            "unreadable": unreadable,
            "sizeBytes": total,
        });
        return print_json(out, &value);
    }
    print(out, &format!("{}: {} records, {}", cache.describe(), entries.len(), bytes(total)))?;
    if unreadable > 0 {
        print(out, &format!("{unreadable} of them cannot be read; `kiln cache ls` says why"))?;
    }
    Ok(())
}

fn prune(args: &CachePruneArgs, environment: &Environment, out: &mut dyn Write) -> Result<(), Failure> {
    let keep = keep(&args.limits)?;
    let cache = open(&args.place, environment, true)?;
    let entries = cache.entries()?;
    let going = keep.split(&entries);
    let removed = if args.dry_run {
        let bytes = size_bytes(&entries) - size_of_rest(&entries, &going);
        Removed { records: going.len() as u64, bytes, ..Removed::default() }
    } else {
        cache.remove(&going)?
    };
    if args.format == Format::Json {
        let value = json!({
            "cache": cache.describe(),
            "dryRun": args.dry_run,
            "removed": going.iter().map(as_json).collect::<Vec<_>>(),
            "records": removed.records,
            "freedBytes": removed.bytes,
        });
        return print_json(out, &value);
    }
    for entry in &going {
        print(out, &as_row(entry, wire::now().seconds)[..].join("  "))?;
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    print(out, &format!("{verb} {} records of {}", removed.records, cache.describe()))?;
    match removed.bytes {
        // A registry frees what nothing refers to when its own garbage collection runs.
        0 => Ok(()),
        freed => {
            print(out, &format!("{} {}", if args.dry_run { "would free" } else { "freed" }, bytes(freed)))
        }
    }
}

fn size_of_rest(entries: &[Entry], going: &[Entry]) -> u64 {
    size_bytes(entries.iter().filter(|entry| !going.iter().any(|gone| gone.name == entry.name)))
}

/// Reads the limits.
pub(super) fn keep(args: &KeepArgs) -> Result<Keep, RequestError> {
    let now = wire::now().seconds;
    let since = |option, text: &Option<String>| -> Result<Option<i64>, RequestError> {
        let Some(text) = text else { return Ok(None) };
        let age = parse_age(option, text)?.as_secs();
        Ok(Some(now.saturating_sub_unsigned(age)))
    };
    Ok(Keep {
        made_since_seconds: since("--older-than", &args.older_than)?,
        used_since_seconds: since("--unused-since", &args.unused_since)?,
        most_bytes: args
            .keep_storage
            .as_deref()
            .map(|text| parse_size_bytes("--keep-storage", text))
            .transpose()?,
    })
}
