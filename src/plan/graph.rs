//! What stages need of each other: `--from`, mounts, triggers; cycles; the order to build in.

use super::{Base, FromRef, Plan, PlanError, Reach, Stage, StageId, contexts, stages};
use crate::dockerfile::mount::{parse_mount, unexpanded_from};
use crate::dockerfile::{Instruction, InstructionKind, NoVariables, Span, expand, parse_trigger, quote};

/// A stage's need of something by `--from` or a mount.
struct Need {
    what: FromRef,
    /// The instruction's lines; the `FROM`'s for a trigger.
    span: Span,
    /// The message if the stage needed comes later in the file.
    too_early: String,
}

/// Fills in dependencies and the order to build in. What comes first is complained about first, in BuildKit's order: what
/// the instructions of all stages name, cycles, bases, then the triggers of the stages that are needed.
pub(super) fn connect(plan: &mut Plan, reach: Reach) -> Result<(), PlanError> {
    let mut needs = Vec::new();
    for stage in &plan.stages {
        needs.push(own_needs(plan, stage)?);
    }
    check_cycles(&plan.stages, &needs)?;
    for stage in &plan.stages {
        if let Base::Image { text } = &stage.base {
            stages::check_reference(text, stage.from_span)?;
        }
    }
    for need in needs.iter().flatten() {
        if let FromRef::Image(text) = &need.what {
            stages::check_reference(text, need.span)?;
        }
    }
    for (stage, needs) in plan.stages.iter_mut().zip(&needs) {
        if let Base::Stage(base) = stage.base {
            stage.depends_on.push(base);
        }
        add_needs(stage, needs);
    }
    let wanted: Vec<StageId> = match reach {
        Reach::Target => vec![plan.target],
        Reach::All => plan.stages.iter().map(|stage| stage.id).collect(),
    };
    plan.reachable = add_triggers(plan, &mut needs)?;
    let in_scope = closure(&plan.stages, &wanted);
    for stage in plan.stages.iter().filter(|stage| in_scope.contains(&stage.id)) {
        for need in &needs[stage.id.0] {
            check_order(plan, need, stage.id)?;
        }
    }
    Ok(())
}

fn add_needs(stage: &mut Stage, needs: &[Need]) {
    for need in needs {
        stage.reads.push((need.what.clone(), need.span));
        if let FromRef::Stage(id) = need.what
            && !stage.depends_on.contains(&id)
        {
            stage.depends_on.push(id);
        }
    }
}

/// Adds what the triggers of the stages need that the target needs, which may be more stages with triggers. Returns all
/// stages that the target needs.
fn add_triggers(plan: &mut Plan, needs: &mut [Vec<Need>]) -> Result<Vec<StageId>, PlanError> {
    let mut triggered = vec![false; plan.stages.len()];
    loop {
        let reachable = closure(&plan.stages, &[plan.target]);
        let Some(next) = reachable.iter().filter(|id| !triggered[id.0]).min() else { return Ok(reachable) };
        triggered[next.0] = true;
        let mut more = trigger_needs(plan, &plan.stages[next.0])?;
        let stage = &mut plan.stages[next.0];
        add_needs(stage, &more);
        // Triggers come before the stage's own steps.
        more.append(&mut needs[next.0]);
        needs[next.0] = more;
    }
}

/// Lists what a stage's own steps need.
fn own_needs(plan: &Plan, stage: &Stage) -> Result<Vec<Need>, PlanError> {
    let mut needs = Vec::new();
    for step in &stage.steps {
        needs.extend(needs_of_step(plan, stage, step, step.span)?);
    }
    Ok(needs)
}

/// Lists what the triggers of the stage that a stage is `FROM` need.
fn trigger_needs(plan: &Plan, stage: &Stage) -> Result<Vec<Need>, PlanError> {
    let mut needs = Vec::new();
    let Base::Stage(parent) = stage.base else { return Ok(needs) };
    for step in &plan.stages[parent.0].steps {
        let InstructionKind::OnBuild(on_build) = &step.kind else { continue };
        let trigger = parse_trigger(&on_build.text)
            .map_err(|error| PlanError { span: Some(stage.from_span), ..error.into() })?;
        needs.extend(needs_of_step(plan, stage, &trigger, stage.from_span)?);
    }
    Ok(needs)
}

fn needs_of_step(plan: &Plan, stage: &Stage, step: &Instruction, span: Span) -> Result<Vec<Need>, PlanError> {
    match &step.kind {
        InstructionKind::Copy(copy) => {
            let Some(from) = &copy.from else { return Ok(Vec::new()) };
            let what = find_copy(plan, from, stage).map_err(|message| PlanError::new(message, Some(span)))?;
            Ok(vec![Need { what, span, too_early: copy_too_early(from, stage) }])
        }
        InstructionKind::Run(run) => {
            let froms = run.mounts.iter().filter_map(|raw| Some((unexpanded_from(raw)?, raw)));
            let needs = froms.map(|(from, raw)| {
                // Variables are not known yet: the message shows the target as it is written.
                let target = parse_mount(raw, &mut |value| Ok(value.to_owned()))
                    .ok()
                    .and_then(|mount| mount.target)
                    .unwrap_or_default();
                let too_early = mount_too_early(&from, &target);
                Need { what: find_mount(plan, &from, stage), span, too_early }
            });
            Ok(needs.collect())
        }
        _ => Ok(Vec::new()),
    }
}

fn copy_too_early(from: &str, stage: &Stage) -> String {
    format!(
        "cannot copy from stage {}, it needs to be defined before current stage {}",
        quote::go(from),
        quote::go(&stage.display)
    )
}

fn mount_too_early(from: &str, target: &str) -> String {
    format!(
        "cannot mount from stage {} to {}, stage needs to be defined before current command",
        quote::go(from),
        quote::go(target)
    )
}

/// Finds what `--from` names.
fn find_copy(plan: &Plan, from: &str, stage: &Stage) -> Result<FromRef, String> {
    let plain = expand(from, &NoVariables, plan.escape).map_err(|error| error.to_string())?;
    if plain.text != from {
        return Err("variable expansion is not supported for --from, define a new stage with FROM using \
                    ARG from global scope as a workaround"
            .to_owned());
    }
    // Any integer is an index, never a name or an image.
    if let Ok(index) = from.parse::<i64>() {
        let id = usize::try_from(index).ok().filter(|index| *index < plan.stages.len());
        return id
            .map(|id| FromRef::Stage(StageId(id)))
            .ok_or_else(|| format!("invalid stage index {index}"));
    }
    Ok(find_mount(plan, from, stage))
}

/// Finds what `from=` of a mount names.
fn find_mount(plan: &Plan, from: &str, stage: &Stage) -> FromRef {
    if let Some(id) = stages::by_name(&plan.stages, from) {
        return FromRef::Stage(id);
    }
    if from == "scratch" {
        return FromRef::Scratch;
    }
    match contexts::find(&plan.contexts, from, &stage.platform) {
        Some(context) => FromRef::Context(context),
        None => FromRef::Image(from.to_owned()),
    }
}

/// Refuses a stage that comes later in the file, unless a named context stands for it.
fn check_order(plan: &Plan, need: &Need, current: StageId) -> Result<(), PlanError> {
    match need.what {
        FromRef::Stage(id) if id >= current && !is_replaced(&plan.stages[id.0]) => {
            Err(PlanError::new(need.too_early.clone(), Some(need.span)))
        }
        _ => Ok(()),
    }
}

fn is_replaced(stage: &Stage) -> bool {
    matches!(stage.base, Base::Context { replaces_stage: true, .. })
}

/// Resolves a `--from` once a plan stands.
pub(super) fn resolve_copy(plan: &Plan, from: &str, current: StageId) -> Result<FromRef, PlanError> {
    let stage = &plan.stages[current.0];
    let what = find_copy(plan, from, stage).map_err(|message| PlanError::new(message, None))?;
    resolved(plan, what, copy_too_early(from, stage), stage)
}

/// Resolves a mount's `from` once a plan stands.
pub(super) fn resolve_mount(
    plan: &Plan,
    from: &str,
    target: &str,
    current: StageId,
) -> Result<FromRef, PlanError> {
    let stage = &plan.stages[current.0];
    resolved(plan, find_mount(plan, from, stage), mount_too_early(from, target), stage)
}

fn resolved(plan: &Plan, what: FromRef, too_early: String, stage: &Stage) -> Result<FromRef, PlanError> {
    let need = Need { what, span: stage.from_span, too_early };
    check_order(plan, &need, stage.id).map_err(|error| PlanError { span: None, ..error })?;
    Ok(need.what)
}

/// Refuses stages that need themselves by `--from` or mounts, reachable or not.
fn check_cycles(stages: &[Stage], needs: &[Vec<Need>]) -> Result<(), PlanError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; stages.len()];
    for start in 0..stages.len() {
        // Each entry is a stage and how many of its needs were followed.
        let mut path = vec![(start, 0)];
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        while let Some((id, followed)) = path.last_mut() {
            let Some(need) = needs[*id].get(*followed) else {
                marks[*id] = Mark::Done;
                path.pop();
                continue;
            };
            *followed += 1;
            let FromRef::Stage(StageId(next)) = need.what else { continue };
            match marks[next] {
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, 0));
                }
                Mark::Open => {
                    let message = format!("circular dependency detected on stage: {}", stages[start].display);
                    return Err(PlanError::new(message, Some(need.span)));
                }
                Mark::Done => {}
            }
        }
    }
    Ok(())
}

/// Lists what stages need, themselves included: every stage after those it depends on.
pub(super) fn closure(stages: &[Stage], wanted: &[StageId]) -> Vec<StageId> {
    let mut order = Vec::new();
    let mut seen = vec![false; stages.len()];
    for root in wanted {
        let mut path = vec![(*root, 0)];
        if std::mem::replace(&mut seen[root.0], true) {
            continue;
        }
        while let Some((id, followed)) = path.last_mut() {
            match stages[id.0].depends_on.get(*followed) {
                Some(next) => {
                    *followed += 1;
                    if !std::mem::replace(&mut seen[next.0], true) {
                        path.push((*next, 0));
                    }
                }
                None => {
                    order.push(*id);
                    path.pop();
                }
            }
        }
    }
    order
}
