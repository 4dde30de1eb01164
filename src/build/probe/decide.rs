//! Which records fit, and which stages have to be worked on at all. Pure.
//!
//! A record fits when the tree under its step, and the trees it read from, are the very ones it was made on. Several
//! caches may have records of different runs of the same step: a stage is followed along each of them, and the way
//! that comes farthest counts. A stage whose steps all have fitting records is complete: nothing of it is unpacked or
//! run. Where a stage is not complete and yet all that is taken from it is known, it is never touched; that holds only
//! while nobody needs it for anything else, for then its trees may come out differently, and what was taken on trust
//! has to be compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{Chain, Found};
use crate::oci::DiffId;

/// How many ways through a stage are followed. Each step of a record's own tree has but one way to it; only layers
/// that depend on nothing multiply.
const MOST_WAYS: usize = 16;

/// A stage as far as it is known before anything runs.
pub(super) struct StageView {
    pub(super) base: BaseView,
    /// The steps that make layers, in order.
    pub(super) steps: Vec<StepView>,
    /// Whether every step could be looked at.
    pub(super) is_known: bool,
}

/// What a stage starts from.
#[derive(Debug, Clone)]
pub(super) enum BaseView {
    /// These layers.
    Layers(Vec<DiffId>),
    /// Another stage.
    Stage(usize),
    /// Something that is only known when it is made.
    Unknown,
}

/// A step as far as it is known before anything runs.
#[derive(Clone)]
pub(super) struct StepView {
    /// The stages it reads from.
    pub(super) sources: Vec<usize>,
    /// Whether its layer depends on nothing below it.
    pub(super) is_independent: bool,
    /// Its records, in the order of preference.
    pub(super) found: Vec<FoundView>,
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
    /// For each stage, which record each of its steps takes, up to the first one that has to run.
    pub(super) picks: Vec<Vec<usize>>,
    /// The stages that have to be worked on, or whose layers are the image's.
    pub(super) needed: BTreeSet<usize>,
}

impl Decision {
    /// Tells whether a step has to run though there is a record of it: another cache may have one that fits.
    pub(super) fn is_held_up(&self, stages: &[Option<StageView>]) -> bool {
        self.needed.iter().any(|stage| {
            let next = stages[*stage].as_ref().and_then(|view| view.steps.get(self.picks[*stage].len()));
            next.is_some_and(|step| !step.found.is_empty())
        })
    }
}

/// Decides for `stages`, each after those it depends on.
pub(super) fn decide(stages: &[Option<StageView>], target: usize) -> Decision {
    let mut distrusted = BTreeSet::new();
    loop {
        let mut choice = Choice::new(stages, &distrusted);
        choice.follow_all();
        let picks = choice.choose();
        let is_complete = |index: usize| {
            stages[index]
                .as_ref()
                .is_some_and(|stage| stage.is_known && picks[index].len() == stage.steps.len())
                && !choice.ends[index].is_empty()
        };
        let needed = needed(stages, target, &picks, is_complete);
        let more: BTreeSet<usize> = needed.iter().copied().filter(|stage| !is_complete(*stage)).collect();
        if more.is_subset(&distrusted) {
            return Decision { picks, needed };
        }
        distrusted.extend(more);
    }
}

/// A way through a stage: the records it takes, the layers they lead to, and which trees it takes other stages for.
#[derive(Debug, Clone, Default)]
struct Way {
    layers: Vec<DiffId>,
    picks: Vec<usize>,
    assumed: BTreeMap<usize, Chain>,
}

/// The ways through all stages, and what is settled.
struct Choice<'a> {
    stages: &'a [Option<StageView>],
    distrusted: &'a BTreeSet<usize>,
    /// The ways to the end of each stage, the preferred ones first; none where a step has to run.
    ends: Vec<Vec<Way>>,
    /// What stages are taken for, whether they are complete or not: everybody must take them for the same.
    settled: BTreeMap<usize, Chain>,
    /// The records of stages that are not complete.
    parts: BTreeMap<usize, Vec<usize>>,
}

impl<'a> Choice<'a> {
    fn new(stages: &'a [Option<StageView>], distrusted: &'a BTreeSet<usize>) -> Self {
        let ends = vec![Vec::new(); stages.len()];
        Self { stages, distrusted, ends, settled: BTreeMap::new(), parts: BTreeMap::new() }
    }

    /// Follows each stage as far as its records lead.
    fn follow_all(&mut self) {
        for (index, stage) in self.stages.iter().enumerate() {
            let Some(stage) = stage else { continue };
            let ways = self.follow(stage);
            let Some(first) = ways.first() else { continue };
            if stage.is_known && first.picks.len() == stage.steps.len() {
                self.ends[index] = ways;
            } else {
                self.settled.extend(first.assumed.clone());
                self.parts.insert(index, first.picks.clone());
            }
        }
    }

    /// Returns the ways that come farthest in a stage.
    fn follow(&self, stage: &StageView) -> Vec<Way> {
        let mut ways = match &stage.base {
            BaseView::Layers(layers) => vec![Way { layers: layers.clone(), ..Way::default() }],
            BaseView::Stage(parent) => self.on_top_of(*parent),
            BaseView::Unknown => Vec::new(),
        };
        for step in &stage.steps {
            let mut longer: Vec<Way> = Vec::new();
            for way in &ways {
                for pick in 0..step.found.len() {
                    let Some(way) = self.extended(way, step, pick) else { continue };
                    let is_new =
                        !longer.iter().any(|o| (&o.layers, &o.assumed) == (&way.layers, &way.assumed));
                    if is_new && longer.len() < MOST_WAYS {
                        longer.push(way);
                    }
                }
            }
            if longer.is_empty() {
                break;
            }
            ways = longer;
        }
        ways
    }

    fn on_top_of(&self, parent: usize) -> Vec<Way> {
        let ways = self.ends[parent].iter().filter_map(|end| {
            let chain = Chain::of(&end.layers);
            let mut way = Way { layers: end.layers.clone(), ..Way::default() };
            self.takes(&mut way.assumed, parent, &chain).then_some(way)
        });
        ways.collect()
    }

    /// Goes one step further by one of its records, if that fits.
    fn extended(&self, way: &Way, step: &StepView, pick: usize) -> Option<Way> {
        let found = &step.found[pick];
        let is_on_it = step.is_independent || found.parent == Chain::of(&way.layers);
        if !is_on_it || found.sources.len() != step.sources.len() {
            return None;
        }
        let mut way = way.clone();
        for (source, chain) in step.sources.iter().zip(&found.sources) {
            if !self.takes(&mut way.assumed, *source, chain) {
                return None;
            }
        }
        way.layers.push(found.diff_id.clone());
        way.picks.push(pick);
        Some(way)
    }

    /// Takes a stage for the tree `chain`, with all that this implies; `false` if it cannot be that.
    fn takes(&self, assumed: &mut BTreeMap<usize, Chain>, stage: usize, chain: &Chain) -> bool {
        if let Some(known) = assumed.get(&stage).or_else(|| self.settled.get(&stage)) {
            return known == chain;
        }
        let ends = &self.ends[stage];
        if ends.is_empty() {
            if self.distrusted.contains(&stage) {
                return false;
            }
        } else {
            let agrees = |(other, tree): (&usize, &Chain)| {
                assumed.get(other).or_else(|| self.settled.get(other)).is_none_or(|known| known == tree)
            };
            let fits = |end: &&Way| Chain::of(&end.layers) == *chain && end.assumed.iter().all(agrees);
            let Some(end) = ends.iter().find(fits) else { return false };
            assumed.extend(end.assumed.clone());
        }
        assumed.insert(stage, chain.clone());
        true
    }

    /// Chooses one way through each stage, those that others were taken for first: from the last stage to the first.
    fn choose(&mut self) -> Vec<Vec<usize>> {
        let mut picks = vec![Vec::new(); self.stages.len()];
        for index in (0..self.stages.len()).rev() {
            if let Some(part) = self.parts.get(&index) {
                picks[index].clone_from(part);
                continue;
            }
            let agrees =
                |(other, tree): (&usize, &Chain)| self.settled.get(other).is_none_or(|known| known == tree);
            let fits =
                |end: &&Way| agrees((&index, &Chain::of(&end.layers))) && end.assumed.iter().all(agrees);
            let Some(way) = self.ends[index].iter().find(fits).cloned() else { continue };
            self.settled.extend(way.assumed);
            picks[index] = way.picks;
        }
        picks
    }
}

fn needed(
    stages: &[Option<StageView>],
    target: usize,
    picks: &[Vec<usize>],
    is_complete: impl Fn(usize) -> bool,
) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut waiting = vec![target];
    while let Some(index) = waiting.pop() {
        if !needed.insert(index) || is_complete(index) {
            continue;
        }
        let Some(stage) = &stages[index] else { continue };
        if let BaseView::Stage(parent) = stage.base {
            waiting.push(parent);
        }
        for step in &stage.steps[picks[index].len()..] {
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
            found: made.iter().map(|made| found(parent, sources, made)).collect(),
        }
    }

    fn found(parent: &[&str], sources: &[(usize, &[&str])], made: &str) -> FoundView {
        FoundView {
            parent: chain(parent),
            sources: sources.iter().map(|(_, names)| chain(names)).collect(),
            diff_id: layer(made),
        }
    }

    /// A step with records of two runs.
    fn either(one: FoundView, other: FoundView, sources: &[usize]) -> StepView {
        StepView { sources: sources.to_vec(), is_independent: false, found: vec![one, other] }
    }

    fn stage(base: BaseView, steps: Vec<StepView>) -> Option<StageView> {
        Some(StageView { base, steps, is_known: true })
    }

    fn image() -> BaseView {
        BaseView::Layers(vec![layer("base")])
    }

    fn decided(stages: &[Option<StageView>]) -> (Vec<usize>, Vec<usize>) {
        let decision = decide(stages, stages.len() - 1);
        (decision.picks.iter().map(Vec::len).collect(), decision.needed.into_iter().collect())
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

    #[test]
    fn of_two_runs_the_one_that_leads_farther_is_taken() {
        let first = either(found(&["base"], &[], "a"), found(&["base"], &[], "b"), &[]);
        let second = step(&["base", "b"], &[], Some("c"));
        let decision = decide(&[stage(image(), vec![first.clone(), second])], 0);
        assert_eq!(decision.picks, [vec![1, 0]]);
        // Where both lead as far, the preferred one.
        assert_eq!(decide(&[stage(image(), vec![first])], 0).picks, [vec![0]]);
    }

    #[test]
    fn a_record_that_does_not_fit_hides_none_that_does() {
        let second = either(found(&["base", "x"], &[], "c"), found(&["base", "a"], &[], "d"), &[]);
        let steps = vec![step(&["base"], &[], Some("a")), second];
        assert_eq!(decide(&[stage(image(), steps)], 0).picks, [vec![0, 1]]);
    }

    #[test]
    fn a_stage_is_one_run_for_all_who_read_from_it() {
        let source = || vec![either(found(&["base"], &[], "x"), found(&["base"], &[], "y"), &[])];
        let reads = |below: &[&str], from: &str, made: &str| step(below, &[(0, &["base", from])], Some(made));
        // The second run of the source is the one that its reader read.
        let reader = vec![reads(&["base"], "y", "c"), reads(&["base", "c"], "y", "d")];
        let decision = decide(&[stage(image(), source()), stage(image(), reader)], 1);
        assert_eq!((decision.picks, decision.needed), (vec![vec![1], vec![0, 0]], BTreeSet::from([1])));
        // Readers of different runs do not fit together.
        let reader = vec![reads(&["base"], "x", "c"), reads(&["base", "c"], "y", "d")];
        let decision = decide(&[stage(image(), source()), stage(image(), reader)], 1);
        assert_eq!(decision.picks, [vec![0], vec![0]]);
        assert!(decision.needed.contains(&0));
    }

    #[test]
    fn stages_on_top_of_a_stage_take_the_run_they_were_made_on() {
        let parent = vec![either(found(&["base"], &[], "x"), found(&["base"], &[], "y"), &[])];
        let child = vec![step(&["base", "y"], &[], Some("c"))];
        let stages = [stage(image(), parent), stage(BaseView::Stage(0), child)];
        let decision = decide(&stages, 1);
        assert_eq!((decision.picks, decision.needed), (vec![vec![1], vec![0]], BTreeSet::from([1])));
    }

    #[test]
    fn only_a_record_that_does_not_fit_is_a_reason_to_look_further() {
        let held_up = |steps: Vec<StepView>| {
            let stages = [stage(image(), steps)];
            decide(&stages, 0).is_held_up(&stages)
        };
        let first = || step(&["base"], &[], Some("a"));
        assert!(!held_up(vec![first(), step(&["base", "a"], &[], Some("b"))]));
        assert!(!held_up(vec![first(), step(&["base", "a"], &[], None)]));
        assert!(held_up(vec![first(), step(&["base", "x"], &[], Some("b"))]));
    }
}
