//! Which records fit, and which stages have to be worked on at all. Pure.
//!
//! A record fits when the tree under its step, and the trees it read from, are the very ones it was made on. A
//! stage whose steps all have fitting records is complete: nothing of it is unpacked or run. Where a stage is not
//! complete and yet all that is taken from it is known, it is never touched; that holds only while nobody needs it
//! for anything else, for then its trees may come out differently, and what was taken on trust has to be compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{Chain, Found};
use crate::oci::DiffId;

/// A stage as far as it is known before anything runs.
pub(super) struct StageView {
    pub(super) base: BaseView,
    /// The steps that make layers, in order.
    pub(super) steps: Vec<StepView>,
    /// Whether every step could be looked at.
    pub(super) is_known: bool,
}

/// What a stage starts from.
pub(super) enum BaseView {
    /// These layers.
    Layers(Vec<DiffId>),
    /// Another stage.
    Stage(usize),
    /// Something that is only known when it is made.
    Unknown,
}

/// A step as far as it is known before anything runs.
pub(super) struct StepView {
    /// The stages it reads from.
    pub(super) sources: Vec<usize>,
    /// Whether its layer depends on nothing below it.
    pub(super) is_independent: bool,
    pub(super) found: Option<FoundView>,
}

/// What a record says of the trees it was made from.
#[derive(Clone)]
pub(super) struct FoundView {
    pub(super) parent: Chain,
    pub(super) sources: Vec<Chain>,
    pub(super) diff_id: DiffId,
}

impl FoundView {
    pub(super) fn of(found: &Found) -> Self {
        Self {
            parent: found.parent.clone(),
            sources: found.sources.iter().map(|(_, chain)| chain.clone()).collect(),
            diff_id: found.layer.diff_id.clone(),
        }
    }
}

/// What was decided.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// For each stage, how many of its steps have a layer already.
    pub(super) hits: Vec<usize>,
    /// The stages that have to be worked on, or whose layers are the image's.
    pub(super) needed: BTreeSet<usize>,
}

/// Decides for `stages`, each after those it depends on.
pub(super) fn decide(stages: &[Option<StageView>], target: usize) -> Decision {
    let mut distrusted = BTreeSet::new();
    loop {
        let (hits, complete) = hits(stages, &distrusted);
        let needed = needed(stages, target, &hits, &complete);
        let more: BTreeSet<usize> =
            needed.iter().copied().filter(|stage| complete[*stage].is_none()).collect();
        if more.is_subset(&distrusted) {
            return Decision { hits, needed };
        }
        distrusted.extend(more);
    }
}

/// Returns how many steps of each stage have fitting records, and the layers of those where all have.
fn hits(
    stages: &[Option<StageView>],
    distrusted: &BTreeSet<usize>,
) -> (Vec<usize>, Vec<Option<Vec<DiffId>>>) {
    let mut hits = vec![0; stages.len()];
    let mut complete: Vec<Option<Vec<DiffId>>> = vec![None; stages.len()];
    // What records say of stages that are not complete: all must say the same.
    let mut trusted: BTreeMap<usize, Chain> = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate() {
        let Some(stage) = stage else { continue };
        let mut layers = match &stage.base {
            BaseView::Layers(layers) => layers.clone(),
            BaseView::Stage(parent) => match &complete[*parent] {
                Some(layers) => layers.clone(),
                None => continue,
            },
            BaseView::Unknown => continue,
        };
        for step in &stage.steps {
            let Some(found) = &step.found else { break };
            let fits = (step.is_independent || found.parent == Chain::of(&layers))
                && found.sources.len() == step.sources.len()
                && step.sources.iter().zip(&found.sources).all(|(source, chain)| match &complete[*source] {
                    Some(layers) => *chain == Chain::of(layers),
                    None if distrusted.contains(source) => false,
                    None => trusted.entry(*source).or_insert_with(|| chain.clone()) == chain,
                });
            if !fits {
                break;
            }
            layers.push(found.diff_id.clone());
            hits[index] += 1;
        }
        if stage.is_known && hits[index] == stage.steps.len() {
            complete[index] = Some(layers);
        }
    }
    (hits, complete)
}

fn needed(
    stages: &[Option<StageView>],
    target: usize,
    hits: &[usize],
    complete: &[Option<Vec<DiffId>>],
) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut waiting = vec![target];
    while let Some(index) = waiting.pop() {
        if !needed.insert(index) || complete[index].is_some() {
            continue;
        }
        let Some(stage) = &stages[index] else { continue };
        if let BaseView::Stage(parent) = stage.base {
            waiting.push(parent);
        }
        for step in &stage.steps[hits[index]..] {
            waiting.extend(&step.sources);
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn layer(name: &str) -> DiffId {
        DiffId::new(Digest::of(name.as_bytes()))
    }

    fn chain(names: &[&str]) -> Chain {
        Chain::of(&names.iter().map(|name| layer(name)).collect::<Vec<_>>())
    }

    /// A step with a record: made on `parent`, of `sources`, and its layer's name.
    fn step(parent: &[&str], sources: &[(usize, &[&str])], made: Option<&str>) -> StepView {
        StepView {
            sources: sources.iter().map(|(stage, _)| *stage).collect(),
            is_independent: false,
            found: made.map(|made| FoundView {
                parent: chain(parent),
                sources: sources.iter().map(|(_, names)| chain(names)).collect(),
                diff_id: layer(made),
            }),
        }
    }

    fn stage(base: BaseView, steps: Vec<StepView>) -> Option<StageView> {
        Some(StageView { base, steps, is_known: true })
    }

    fn image() -> BaseView {
        BaseView::Layers(vec![layer("base")])
    }

    fn decided(stages: &[Option<StageView>]) -> (Vec<usize>, Vec<usize>) {
        let decision = decide(stages, stages.len() - 1);
        (decision.hits, decision.needed.into_iter().collect())
    }

    #[test]
    fn a_chain_of_records_that_fit_is_taken_to_its_end() {
        let steps = vec![step(&["base"], &[], Some("a")), step(&["base", "a"], &[], Some("b"))];
        assert_eq!(decided(&[stage(image(), steps)]), (vec![2], vec![0]));
    }

    #[test]
    fn a_record_made_on_another_result_does_not_fit() {
        let steps = vec![step(&["base"], &[], Some("a")), step(&["base", "other"], &[], Some("b"))];
        assert_eq!(decided(&[stage(image(), steps)]), (vec![1], vec![0]));
    }

    #[test]
    fn a_stage_whose_only_reader_has_a_record_is_not_touched() {
        let source = vec![step(&["base"], &[], None)];
        let reader = vec![step(&["base"], &[(0, &["base", "x"])], Some("c"))];
        assert_eq!(decided(&[stage(image(), source), stage(image(), reader)]), (vec![0, 1], vec![1]));
    }

    #[test]
    fn a_stage_that_somebody_needs_is_not_taken_on_trust_by_others() {
        let source = vec![step(&["base"], &[], None)];
        let reader = vec![
            step(&["base"], &[(0, &["base", "x"])], Some("c")),
            step(&["base", "c"], &[(0, &["base", "x"])], None),
        ];
        assert_eq!(decided(&[stage(image(), source), stage(image(), reader)]), (vec![0, 0], vec![0, 1]));
    }

    #[test]
    fn readers_must_agree_on_what_a_stage_was() {
        let source = vec![step(&["base"], &[], None)];
        let reader = vec![
            step(&["base"], &[(0, &["base", "x"])], Some("c")),
            step(&["base", "c"], &[(0, &["base", "y"])], Some("d")),
        ];
        let (hits, needed) = decided(&[stage(image(), source), stage(image(), reader)]);
        assert_eq!((hits, needed), (vec![0, 0], vec![0, 1]));
    }

    #[test]
    fn a_complete_source_is_compared_and_not_needed() {
        let source = || stage(image(), vec![step(&["base"], &[], Some("x"))]);
        let reader = |names: &[&str]| stage(image(), vec![step(&["base"], &[(0, names)], Some("c"))]);
        assert_eq!(decided(&[source(), reader(&["base", "x"])]), (vec![1, 1], vec![1]));
        assert_eq!(decided(&[source(), reader(&["base", "y"])]), (vec![1, 0], vec![0, 1]));
    }

    #[test]
    fn a_stage_on_one_that_is_not_complete_waits_for_it() {
        let parent = vec![step(&["base"], &[], None)];
        let child = vec![step(&["base", "x"], &[], Some("c"))];
        let stages = [stage(image(), parent), stage(BaseView::Stage(0), child)];
        assert_eq!(decided(&stages), (vec![0, 0], vec![0, 1]));
    }

    #[test]
    fn what_could_not_be_looked_at_is_needed() {
        assert_eq!(decided(&[None]), (vec![0], vec![0]));
        let unknown = Some(StageView { base: BaseView::Unknown, steps: Vec::new(), is_known: true });
        assert_eq!(decided(&[unknown]), (vec![0], vec![0]));
        let unfinished = Some(StageView { base: image(), steps: Vec::new(), is_known: false });
        assert_eq!(decide(&[unfinished], 0).needed, BTreeSet::from([0]));
    }

    #[test]
    fn an_independent_layer_fits_on_anything() {
        let mut link = step(&[], &[], Some("l"));
        link.is_independent = true;
        assert_eq!(decided(&[stage(image(), vec![link])]), (vec![1], vec![0]));
    }
}
