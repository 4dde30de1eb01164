use super::*;
use crate::dockerfile::parse;

fn request() -> PlanRequest {
    PlanRequest {
        build_args: BTreeMap::new(),
        target: None,
        build_platform: "linux/amd64".parse().unwrap(),
        target_platform: "linux/arm64".parse().unwrap(),
        contexts: BTreeSet::new(),
    }
}

fn with_args(args: &[(&str, &str)]) -> PlanRequest {
    let build_args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    PlanRequest { build_args, ..request() }
}

fn with_contexts(names: &[&str]) -> PlanRequest {
    PlanRequest { contexts: names.iter().map(|name| (*name).to_owned()).collect(), ..request() }
}

fn with_target(target: &str) -> PlanRequest {
    PlanRequest { target: Some(target.to_owned()), ..request() }
}

fn plan_of(text: &str, request: &PlanRequest) -> Plan {
    plan(&parse("Dockerfile", text.as_bytes()).unwrap(), request).unwrap()
}

fn error_of(text: &str, request: &PlanRequest) -> (String, Option<usize>) {
    let error = plan(&parse("Dockerfile", text.as_bytes()).unwrap(), request).unwrap_err();
    (error.message, error.span.map(|span| span.start_line))
}

fn image(text: &str) -> Base {
    Base::Image { text: text.to_owned() }
}

#[test]
fn global_arguments_reach_from() {
    let text = "ARG A=1\nARG B=x$A C\nFROM img:$B$C AS s\n";
    assert_eq!(plan_of(text, &request()).stages[0].base, image("img:x1"));
    let plan = plan_of(text, &with_args(&[("A", "2"), ("C", "c")]));
    assert_eq!(plan.stages[0].base, image("img:x2c"));
    assert_eq!(plan.global_args["B"], "x2");
    assert_eq!(plan.global_args["TARGETPLATFORM"], "linux/arm64");
    assert_eq!(plan.global_args["TARGETSTAGE"], "s");
    assert_eq!(plan.global_args["BUILDVARIANT"], "");
}

#[test]
fn an_overridden_default_is_not_evaluated() {
    let text = "ARG X=${Y:?no-Y}\nFROM scratch\n";
    assert_eq!(error_of(text, &request()), ("failed to process \"${Y:?no-Y}\": Y: no-Y".to_owned(), Some(1)));
    plan_of(text, &with_args(&[("X", "1")]));
}

#[test]
fn platform_arguments_can_be_overridden_but_not_the_platform() {
    let plan = plan_of("FROM busybox:$TARGETOS\n", &with_args(&[("TARGETOS", "plan9")]));
    assert_eq!(plan.stages[0].base, image("busybox:plan9"));
    assert_eq!(plan.stages[0].platform.to_string(), "linux/arm64");
    assert!(plan.unused_build_args.is_empty());
}

#[test]
fn stages_are_found_by_exact_lower_case_name() {
    let plan = plan_of(
        "FROM busybox AS Base\nFROM alpine AS base\nFROM base AS x\nFROM x\nCOPY --from=BASE a b\nCOPY --from=0 a b\n",
        &request(),
    );
    assert_eq!(plan.stages[2].base, Base::Stage(StageId(1)));
    assert_eq!(plan.target, StageId(3));
    assert_eq!(plan.stages[3].depends_on, [StageId(2), StageId(1), StageId(0)]);
    assert_eq!(plan.reachable, [StageId(1), StageId(2), StageId(0), StageId(3)]);
    assert_eq!(plan.stages[3].display, "stage-3");
    let (message, line) = error_of("FROM busybox AS base\nFROM Base\n", &request());
    assert!(
        message.starts_with("failed to parse stage name \"Base\": invalid reference format"),
        "{message}"
    );
    assert_eq!(line, Some(2));
}

#[test]
fn a_stage_masks_an_image_and_scratch() {
    let plan = plan_of("FROM busybox AS alpine\nFROM alpine\nFROM scratch\n", &request());
    assert_eq!(plan.stages[1].base, Base::Stage(StageId(0)));
    assert_eq!(plan.stages[2].base, Base::Scratch);
}

#[test]
fn platforms_follow_the_base() {
    let plan = plan_of(
        "FROM --platform=$BUILDPLATFORM busybox AS a\nFROM --platform=linux/s390x a\nFROM --platform=linux/s390x scratch\nFROM busybox\nFROM --platform=windows/amd64 x\n",
        &request(),
    );
    let platforms: Vec<_> = plan.stages.iter().map(|stage| stage.platform.to_string()).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/amd64", "linux/arm64", "linux/arm64", "windows/amd64"]);
    assert!(plan.stages[0].explicit_platform && !plan.stages[2].explicit_platform);
}

#[test]
fn targets() {
    let text = "FROM scratch AS build\nFROM scratch\nCOPY --from=build a b\nFROM nowhere\n";
    assert_eq!(plan_of(text, &with_target("BUILD")).reachable, [StageId(0)]);
    assert_eq!(plan_of(text, &with_target("1")).reachable, [StageId(0), StageId(1)]);
    assert_eq!(plan_of(text, &request()).reachable, [StageId(2)]);
    assert_eq!(
        error_of(text, &with_target("bulid")).0,
        "target stage \"bulid\" could not be found (did you mean build?)"
    );
    assert_eq!(error_of(text, &with_target("9")).0, "target stage \"9\" could not be found");
}

#[test]
fn errors_have_their_literal_text_and_line() {
    for (text, message, line) in [
        ("FROM ${BLANK} AS foo", "base name (${BLANK}) should not be blank", 1),
        ("FROM \"\"", "base name (\"\") should not be blank", 1),
        (
            "\nFROM --platform=$BULIDPLATFORM scratch",
            "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)",
            2,
        ),
        (
            "ARG MY_OS=linux\nARG MY_ARCH=amd64\nFROM --platform=linux/${MYARCH} busybox",
            "failed to parse platform linux/${MYARCH}: \"\" is an invalid component of \"linux/\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument (did you mean MY_ARCH?)",
            3,
        ),
        (
            "FROM a\nCOPY --from=$x a b",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
            2,
        ),
        ("FROM a\nFROM b\nCOPY --from=3 a b", "invalid stage index 3", 3),
        ("FROM a\nCOPY --from=-1 a b", "invalid stage index -1", 2),
        ("FROM a AS x\nCOPY --from=x a b", "circular dependency detected on stage: x", 2),
        (
            "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nRUN --mount=from=x,target=/x y\nFROM x",
            "circular dependency detected on stage: x",
            4,
        ),
        (
            "FROM a\nCOPY --from=y a b\nFROM a AS y\nFROM stage-0\nCOPY --from=0 a b",
            "cannot copy from stage \"y\", it needs to be defined before current stage \"stage-0\"",
            2,
        ),
        // What a name is for is asked before whether it is one, and a target before both.
        ("FROM Bad AS x\nCOPY --from=9 a b", "invalid stage index 9", 2),
        (
            "FROM a\nCOPY --from=Bad a b\nFROM scratch",
            "failed to parse stage name \"Bad\": invalid reference format: repository name (library/Bad) must be lowercase",
            2,
        ),
        (
            "FROM Bad",
            "failed to parse stage name \"Bad\": invalid reference format: repository name (library/Bad) must be lowercase",
            1,
        ),
        (
            "FROM a\nRUN --mount=from=y,target=/t true\nFROM a AS y\nFROM a\nCOPY --from=0 a b",
            "cannot mount from stage \"y\" to \"/t\", stage needs to be defined before current command",
            2,
        ),
        (
            "FROM a AS a\nONBUILD COPY --from=late x y\nFROM a\nFROM b AS late\nFROM b\nCOPY --from=1 x y",
            "cannot copy from stage \"late\", it needs to be defined before current stage \"stage-1\"",
            3,
        ),
    ] {
        assert_eq!(error_of(text, &request()), (message.to_owned(), Some(line)), "{text}");
    }
}

#[test]
fn unreachable_stages_may_refer_forward() {
    plan_of("FROM a\nCOPY --from=y a b\nFROM a AS y\n", &request());
    let dockerfile = parse("Dockerfile", b"FROM a\nCOPY --from=y a b\nFROM a AS y\n").unwrap();
    assert!(plan_scope(&dockerfile, &request(), Reach::All).is_err());
}

#[test]
fn contexts_replace_stages_and_images() {
    let text = "FROM busybox AS base\nRUN a\nFROM alpine AS two\nCOPY --from=busybox:latest a b\nCOPY --from=base a b\nCOPY --from=other a b\n";
    let plan = plan_of(text, &with_contexts(&["base", "docker.io/library/alpine", "busybox", "other"]));
    assert_eq!(plan.stages[0].base, Base::Context { name: "base".to_owned(), replaces_stage: true });
    assert!(plan.stages[0].steps.is_empty());
    assert_eq!(
        plan.stages[1].base,
        Base::Context { name: "docker.io/library/alpine".to_owned(), replaces_stage: false }
    );
    let from = |text| plan.resolve_from(text, StageId(1)).unwrap();
    assert_eq!(from("busybox:latest"), FromRef::Context("busybox".to_owned()));
    assert_eq!(from("base"), FromRef::Stage(StageId(0)));
    assert_eq!(from("other"), FromRef::Context("other".to_owned()));
    assert_eq!(from("third"), FromRef::Image("third".to_owned()));
    assert_eq!(from("scratch"), FromRef::Scratch);
    assert_eq!(plan.resolve_mount_from("0", "/x", StageId(1)).unwrap(), FromRef::Image("0".to_owned()));
    assert!(plan.resolve_from("two", StageId(1)).is_err());
}

#[test]
fn a_replaced_stage_may_come_later() {
    let text = "FROM a\nCOPY --from=late a b\nFROM b AS late\n";
    let request = PlanRequest { target: Some("0".to_owned()), ..with_contexts(&["late"]) };
    assert_eq!(plan_of(text, &request).reachable, [StageId(1), StageId(0)]);
}

#[test]
fn triggers_of_a_stage_count_for_its_child() {
    let plan = plan_of(
        "FROM busybox AS tool\nFROM busybox AS base\nONBUILD COPY --from=tool a b\nFROM base AS mid\nFROM mid\n",
        &request(),
    );
    assert_eq!(plan.stages[1].depends_on, []);
    assert_eq!(plan.stages[2].depends_on, [StageId(1), StageId(0)]);
    assert_eq!(plan.stages[3].depends_on, [StageId(2)]);
}

#[test]
fn unused_build_arguments_are_listed() {
    let plan = plan_of(
        "ARG A\nFROM x\nARG B\nONBUILD ARG C\n",
        &with_args(&[
            ("A", ""),
            ("B", ""),
            ("C", ""),
            ("D", ""),
            ("http_proxy", ""),
            ("BUILDKIT_SYNTAX", ""),
            ("TARGETARCH", ""),
        ]),
    );
    assert_eq!(plan.unused_build_args, ["D"]);
}

#[test]
fn source_date_epochs() {
    let text = "ARG SOURCE_DATE_EPOCH=5\nFROM scratch AS s\nARG V=1\nADD https://x/$V /\nFROM x\n";
    let plan = plan_of(text, &request());
    assert_eq!(plan.source_date_epoch, Some(EpochSource::Seconds(5)));
    assert_eq!(plan.global_args["SOURCE_DATE_EPOCH"], "5");
    let mut plan = plan_of(text, &with_args(&[("SOURCE_DATE_EPOCH", "S")]));
    assert_eq!(plan.source_date_epoch, Some(EpochSource::Stage(StageId(0))));
    plan.set_source_date_epoch(Some(7));
    assert_eq!(plan.build_args["SOURCE_DATE_EPOCH"], "7");
    let plan = plan_of(text, &with_args(&[("SOURCE_DATE_EPOCH", "")]));
    assert_eq!(plan.source_date_epoch, None);
    assert!(!plan.global_args.contains_key("SOURCE_DATE_EPOCH"));
    let plan = plan_of(text, &with_args(&[("SOURCE_DATE_EPOCH", "context")]));
    assert_eq!(plan.source_date_epoch, Some(EpochSource::MainContext));
    assert_eq!(plan_of("FROM x\n", &request()).source_date_epoch, None);
    for (stage, message) in [
        (
            "FROM scratch AS s\nCOPY a b",
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported COPY instruction",
        ),
        ("FROM x AS s\nADD http://x /", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        ("FROM scratch AS s", "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD"),
        (
            "FROM scratch AS s\nADD http://x http://y /",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source",
        ),
        ("FROM scratch AS s\nADD a /", "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD"),
        ("FROM scratch AS t", "invalid SOURCE_DATE_EPOCH: s"),
    ] {
        assert_eq!(error_of(&format!("ARG SOURCE_DATE_EPOCH=s\n{stage}\n"), &request()).0, message);
    }
}

/// BuildKit's: what nobody needs is not triggered, so it may be wrong; what triggers bring in is triggered in turn.
#[test]
fn triggers_are_looked_at_where_they_fire() {
    let wrong = "FROM a AS a\nONBUILD COPY --bogus x y\nONBUILD COPY --from=$x y z\nFROM a AS b\n";
    let plan = plan_of(&format!("{wrong}FROM scratch\n"), &request());
    assert_eq!(plan.reachable, [StageId(2)]);
    assert!(plan_of(wrong, &with_target("a")).reachable == [StageId(0)]);
    let (message, line) = error_of(wrong, &request());
    assert_eq!((message.as_str(), line), ("unknown flag: --bogus", Some(4)));
    let (message, _) = error_of("FROM Bad\n", &with_target("nope"));
    assert!(message.starts_with("target stage"), "{message}");

    let chain = "FROM a AS x\nONBUILD COPY --from=y a b\nFROM b AS z\nONBUILD COPY --from=w a b\nFROM c AS w\n\
                 FROM z AS y\nFROM x\n";
    assert_eq!(
        plan_of(chain, &request()).reachable,
        [StageId(0), StageId(1), StageId(2), StageId(3), StageId(4)]
    );
    // A stage whose trigger names the stage itself needs one that is not there yet; that is no cycle.
    let (message, _) = error_of("FROM scratch AS s\nONBUILD COPY --from=s / /o\nFROM s AS s\n", &request());
    assert_eq!(message, "cannot copy from stage \"s\", it needs to be defined before current stage \"s\"");
}
