//! Which layer stands in which one's place, and how the two compare.

use super::listing::{Listed, Listing, list};
use super::{CompareError, LayerChange, Likeness, PathChange, Side, Subject};
use crate::oci::{Image, Layer};

/// A place in the stacks, with what was listed for it.
pub(super) struct Pair {
    pub(super) change: LayerChange,
    /// What the layers hold, where they were read.
    pub(super) first: Option<Listing>,
    pub(super) second: Option<Listing>,
}

/// Pairs the layers: those that are the same at the bottom and at the top, and those in between by position.
pub(super) fn layers(first: &Subject, second: &Subject) -> Result<Vec<Pair>, CompareError> {
    let (a, b) = (&first.image.layers, &second.image.layers);
    let same = |(a, b): &(&Layer, &Layer)| a.diff_id == b.diff_id;
    let bottom = a.iter().zip(b).take_while(same).count();
    let top = a[bottom..].iter().rev().zip(b[bottom..].iter().rev()).take_while(same).count();
    let (a_end, b_end) = (a.len() - top, b.len() - top);
    let between = (a_end - bottom).max(b_end - bottom);
    let mut pairs = Vec::new();
    for step in 0..bottom + between + top {
        let at = |layers: &[Layer], end: usize| {
            let position = match step {
                step if step < bottom + between => Some(step).filter(|step| *step < end),
                step => Some(step - bottom - between + end),
            };
            position.map(|position| (position, layers[position].clone()))
        };
        pairs.push(pair(first, second, at(a, a_end), at(b, b_end))?);
    }
    Ok(pairs)
}

type Place = Option<(usize, Layer)>;

fn pair(first: &Subject, second: &Subject, before: Place, after: Place) -> Result<Pair, CompareError> {
    let created_by = match (&after, &before) {
        (Some((position, _)), _) => created_by(&second.image, *position),
        (None, Some((position, _))) => created_by(&first.image, *position),
        (None, None) => String::new(),
    };
    let likeness = match (&before, &after) {
        (Some((_, a)), Some((_, b))) if a.digest() == b.digest() => Some(Likeness::Same),
        (Some((_, a)), Some((_, b))) if a.diff_id == b.diff_id => Some(Likeness::Compression),
        _ => None,
    };
    if let Some(likeness) = likeness {
        let change = LayerChange { before, after, created_by, likeness, entries: Vec::new() };
        return Ok(Pair { change, first: None, second: None });
    }
    let read = |subject: &Subject, place: &Place| {
        place.as_ref().map(|(_, layer)| list(subject, layer, |_| true)).transpose()
    };
    let (a, b) = (read(first, &before)?, read(second, &after)?);
    let none = Listing::default();
    let entries = entries(a.as_ref().unwrap_or(&none), b.as_ref().unwrap_or(&none));
    let likeness = match (&a, &b) {
        (Some(_), None) => Likeness::Alone(Side::First),
        (None, _) => Likeness::Alone(Side::Second),
        _ if entries.is_empty() => Likeness::Form,
        _ => Likeness::Entries,
    };
    let change = LayerChange { before, after, created_by, likeness, entries };
    Ok(Pair { change, first: a, second: b })
}

fn entries(first: &Listing, second: &Listing) -> Vec<PathChange> {
    let (a, b) = (&first.entries, &second.entries);
    let mut paths: Vec<_> = a.keys().chain(b.keys().filter(|path| !a.contains_key(*path))).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| Listed::compare(path, a.get(path), b.get(path))).collect()
}

/// Finds the instruction that made the layer at `position`.
fn created_by(image: &Image, position: usize) -> String {
    let mut with_layer = image.config.history.iter().filter(|entry| !entry.empty_layer);
    with_layer.nth(position).and_then(|entry| entry.created_by.clone()).unwrap_or_default()
}
