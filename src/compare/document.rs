//! The documents of two images field by field: manifest, config, history.

use std::collections::BTreeMap;

use serde_json::Value;

use super::FieldChange;
use crate::oci::{History, Image};

/// What follows a list's name in the field that has the order of its entries.
const ORDER: &str = " (order)";

type Fields = BTreeMap<String, String>;

/// Compares the manifests but for config and layers.
pub(super) fn manifest(first: &Image, second: &Image) -> Vec<FieldChange> {
    let fields = |image: &Image| fields(&image.manifest, &["config", "layers"]);
    compare(&fields(first), &fields(second))
}

/// Compares the configs but for history and layers.
pub(super) fn config(first: &Image, second: &Image) -> Vec<FieldChange> {
    let fields = |image: &Image| fields(&image.config_bytes, &["history", "rootfs"]);
    compare(&fields(first), &fields(second))
}

/// Compares the histories: what is the same at the beginning and at the end, and between that line by line.
pub(super) fn history(first: &Image, second: &Image) -> Vec<FieldChange> {
    let (a, b) = (&first.config.history, &second.config.history);
    let same = |(a, b): &(&History, &History)| a == b;
    let start = a.iter().zip(b).take_while(same).count();
    let end = a[start..].iter().rev().zip(b[start..].iter().rev()).take_while(same).count();
    let (a, b) = (&a[start..a.len() - end], &b[start..b.len() - end]);
    let lines = (0..a.len().max(b.len())).map(|line| {
        let (before, after) = (a.get(line), b.get(line));
        let times_only = before.zip(after).is_some_and(|(a, b)| {
            History { created: None, ..a.clone() } == History { created: None, ..b.clone() }
        });
        let same_time = before.zip(after).is_some_and(|(a, b)| a.created == b.created);
        let shown = |entry: Option<&History>| {
            let entry = entry?;
            Some(match (times_only, same_time) {
                (true, _) => time(entry),
                (_, true) => text(entry),
                _ => format!("{} ({})", text(entry), time(entry)),
            })
        };
        FieldChange { name: format!("{}", start + line + 1), before: shown(before), after: shown(after) }
    });
    lines.filter(|change| change.before != change.after).collect()
}

fn time(entry: &History) -> String {
    entry.created.clone().unwrap_or_else(|| "no time".to_owned())
}

fn text(entry: &History) -> String {
    let mut text = entry.created_by.clone().unwrap_or_else(|| "no instruction".to_owned());
    if let Some(comment) = entry.comment.as_ref().filter(|comment| *comment != "buildkit.dockerfile.v0") {
        text += &format!(" # {comment}");
    }
    if entry.empty_layer {
        text += " (no layer)";
    }
    text
}

/// Reads a document as fields, but those of `except` at its top. Entries of `Env` are fields by their names.
fn fields(document: &[u8], except: &[&str]) -> Fields {
    let mut fields = Fields::new();
    if let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(document) {
        object.retain(|name, _| !except.contains(&name.as_str()));
        flatten("", &Value::Object(object), &mut fields);
    }
    fields
}

fn flatten(name: &str, value: &Value, fields: &mut Fields) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                flatten(&below(key), value, fields);
            }
        }
        Value::Array(entries) if name.ends_with(".Env") => {
            for entry in entries.iter().filter_map(Value::as_str) {
                let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
                fields.insert(below(key), value.to_owned());
            }
            // Their order counts as well where values refer to each other, and changes the digest in any case.
            let names = entries.iter().filter_map(Value::as_str);
            let names: Vec<&str> = names.map(|entry| entry.split('=').next().unwrap_or_default()).collect();
            fields.insert(format!("{name}{ORDER}"), names.join(" "));
        }
        Value::String(text) => drop(fields.insert(name.to_owned(), text.clone())),
        other => drop(fields.insert(name.to_owned(), other.to_string())),
    }
}

fn compare(before: &Fields, after: &Fields) -> Vec<FieldChange> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let change = |name: &String| FieldChange {
        name: name.clone(),
        before: before.get(name).cloned(),
        after: after.get(name).cloned(),
    };
    let changes = names.into_iter().map(change).filter(|change| change.before != change.after);
    changes.filter(|change| !change.name.ends_with(ORDER) || is_reordered(change)).collect()
}

/// Tells whether the same names come in another order; other names are told by themselves.
fn is_reordered(change: &FieldChange) -> bool {
    let sorted = |names: &Option<String>| {
        let mut names: Vec<String> =
            names.iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect();
        names.sort();
        names
    };
    sorted(&change.before) == sorted(&change.after)
}
