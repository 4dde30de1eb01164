use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Knows an image `known` with an environment, and an ignore file.
struct World {
    ignore: Vec<String>,
}

impl LintInputs for World {
    fn base_image(&self, reference: &str, platform: &Platform) -> Option<BaseImage> {
        match reference {
            "known" => Some(BaseImage {
                env: vec!["JAVA_HOME=/java".to_owned()],
                platform: Some(platform.clone()),
                ..BaseImage::default()
            }),
            "shelled" => Some(BaseImage {
                shell: vec!["/bin/bash".to_owned(), "-c".to_owned()],
                on_build: vec!["COPY $NOWHERE /".to_owned()],
                platform: "linux/s390x".parse().ok(),
                ..BaseImage::default()
            }),
            _ => None,
        }
    }

    fn context_image(&self, _name: &str, _platform: &Platform) -> Option<BaseImage> {
        None
    }

    fn ignore_patterns(&self) -> &[String] {
        &self.ignore
    }

    fn is_ignored(&self, path: &str) -> bool {
        self.ignore.iter().any(|pattern| pattern == path.trim_start_matches('/'))
    }
}

fn request(args: &[(&str, &str)]) -> PlanRequest {
    PlanRequest {
        build_args: args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        target: None,
        build_platform: "linux/amd64".parse().unwrap(),
        target_platform: "linux/amd64".parse().unwrap(),
        contexts: BTreeSet::new(),
    }
}

fn report_with(text: &str, request: &PlanRequest, scope: Scope, ignore: &[&str]) -> LintReport {
    let world = World { ignore: ignore.iter().map(|pattern| (*pattern).to_owned()).collect() };
    lint_text("Dockerfile", text.as_bytes(), request, scope, &world).1
}

fn report(text: &str) -> LintReport {
    report_with(text, &request(&[]), Scope::All, &[])
}

fn shown(report: &LintReport) -> Vec<String> {
    let lints = report.warnings.iter();
    lints.map(|lint| format!("{} {}: {}", lint.span.start_line, lint.rule.name, lint.detail)).collect()
}

/// Texts and all that is said about them.
const CASES: &[(&str, &[&str])] = &[
    ("FROM known AS Base\n", &["1 StageNameCasing: Stage name 'Base' should be lowercase"]),
    ("FROM known as base\n", &["1 FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]),
    ("from known AS base\n", &["1 FromAsCasing: 'AS' and 'from' keywords' casing do not match"]),
    ("FROM known\nCOPY a \\\n\n  /\n", &["4 NoEmptyContinuation: Empty continuation line"]),
    (
        "FROM known\ncopy a /\nUSER a\nWorkDir /\n",
        &[
            "2 ConsistentInstructionCasing: Command 'copy' should match the case of the command majority (uppercase)",
            "4 ConsistentInstructionCasing: Command 'WorkDir' should match the case of the command majority (uppercase)",
        ],
    ),
    (
        "FROM known AS scratch\nFROM known AS a\nFROM known AS A\n",
        &[
            "3 StageNameCasing: Stage name 'A' should be lowercase",
            "1 ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\"",
            "3 DuplicateStageName: Duplicate stage name \"a\", stage names should be unique",
        ],
    ),
    (
        "FROM known\nCMD a\nENTRYPOINT b\n",
        &[
            "2 JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
            "3 JSONArgsRecommended: JSON arguments recommended for ENTRYPOINT to prevent unintended behavior related to OS signals",
        ],
    ),
    ("FROM known AS x\nSHELL [\"a\"]\nFROM x\nCMD a\n", &[]),
    (
        "FROM known\nMAINTAINER x\n",
        &["2 MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"],
    ),
    (
        "ARG VERSION=1\nFROM known${VERSON:+x}\n",
        &["2 UndefinedArgInFrom: FROM argument 'VERSON' is not declared (did you mean VERSION?)"],
    ),
    ("ARG VERSION\nFROM known$VERSION\n", &[]),
    (
        "FROM known\nWORKDIR a\nWORKDIR b\n",
        &[
            "2 WorkdirRelativePath: Relative workdir \"a\" can have unexpected results if the base image changes",
        ],
    ),
    ("FROM known AS x\nWORKDIR /a\nFROM x\nWORKDIR b\n", &[]),
    (
        "FROM known\nARG DIR_ASSETS\nARG EMPTY\nCOPY $JAVA_HOME $PATH $EMPTY $DIR_ASSET /\n",
        &["4 UndefinedVar: Usage of undefined variable '$DIR_ASSET'"],
    ),
    (
        "FROM known\nARG DIR_ASSETS=x\nENV b=$DIR_ASSET\nCOPY <<E <<'F' /\n$a\nE\n$b\nF\n",
        &[
            "3 UndefinedVar: Usage of undefined variable '$DIR_ASSET' (did you mean $DIR_ASSETS?)",
            "4 UndefinedVar: Usage of undefined variable '$a' (did you mean $b?)",
        ],
    ),
    // What an unknown base sets is not known.
    ("FROM unknown\nCOPY $x /\n", &[]),
    ("FROM scratch\nCOPY $x /\n", &["2 UndefinedVar: Usage of undefined variable '$x'"]),
    (
        "FROM scratch\nRUN --mount=type=cache,target=$x y\n",
        &["2 UndefinedVar: Usage of undefined variable '$x'"],
    ),
    (
        "FROM known\nCMD [\"a\"]\nHEALTHCHECK NONE\ncmd [\"b\"]\nHEALTHCHECK NONE\n",
        &[
            "4 ConsistentInstructionCasing: Command 'cmd' should match the case of the command majority (uppercase)",
            "2 MultipleInstructionsDisallowed: Multiple cmd instructions should not be used in the same stage because only the last one will be used",
            "3 MultipleInstructionsDisallowed: Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
        ],
    ),
    (
        "FROM known\nENV a b\nLABEL c d\n",
        &[
            "2 LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "3 LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    ),
    (
        "FROM shelled\nCMD a\n",
        &[
            "1 InvalidBaseImagePlatform: Base image shelled was pulled with platform \"linux/s390x\", expected \"linux/amd64\" for current build",
            "1 UndefinedVar: Usage of undefined variable '$NOWHERE'",
        ],
    ),
    (
        "FROM --platform=${TARGETPLATFORM} known\n",
        &[
            "1 RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior",
        ],
    ),
    (
        "FROM --platform=linux/amd64 known AS x\nFROM --platform=linux/amd64 known AS build-amd64\nFROM --platform=$BUILDPLATFORM known\n",
        &[
            "1 FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
        ],
    ),
    (
        "FROM known\nARG API_KEY password_file PUBLIC_KEY\nENV x=1 MyToken=a GH_TOKEN=b\n",
        &[
            "2 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_KEY\")",
            "3 SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ENV \"GH_TOKEN\")",
        ],
    ),
    (
        "FROM known\nEXPOSE 80/TCP 127.0.0.1:81:82\n",
        &[
            "2 ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:81:82'",
            "2 ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
        ],
    ),
    (
        "# check=experimental=all\n# other text\nFROM known AS base\n# foo is it\nARG foo\n",
        &[
            "3 InvalidDefinitionDescription: Comment for FROM should follow the format: `# base <description>`",
        ],
    ),
    ("# other text\nFROM known AS base\n", &[]),
    ("# check=skip=StageNameCasing,FromAsCasing\nFROM known as Base\n", &[]),
    ("#check=skip=all\nFROM known as Base\ncopy $x y\n", &[]),
    (
        "FROM scratch\n# check=skip=UndefinedVar // reason\nCOPY $x y\nCOPY $x y\n",
        &["4 UndefinedVar: Usage of undefined variable '$x'"],
    ),
];

#[test]
fn rules_say_what_buildkits_say() {
    for (text, expected) in CASES {
        let report = report(text);
        assert_eq!(shown(&report), *expected, "{text}");
        assert_eq!(report.error, None, "{text}");
    }
}

#[test]
fn every_rule_is_tested() {
    let texts: String = CASES.iter().flat_map(|(_, lints)| lints.iter().copied()).collect();
    for rule in RULES.iter().filter(|r| !matches!(r.name, "CopyIgnoredFile" | "InvalidDefaultArgInFrom")) {
        assert!(texts.contains(rule.name), "{}", rule.name);
    }
    assert_eq!(RULES.len(), 22);
}

#[test]
fn default_values_must_make_a_name() {
    let text = "ARG VERSION\nFROM busybox:$VERSION\n";
    let report = report_with(text, &request(&[("VERSION", "1")]), Scope::All, &[]);
    assert_eq!(
        shown(&report),
        [
            "2 InvalidDefaultArgInFrom: Default value for ARG busybox:$VERSION results in empty or invalid base image name"
        ]
    );
    assert_eq!(report.error, None);
}

#[test]
fn ignored_files() {
    let text =
        "FROM scratch AS a\nCOPY ./x/ y /\nADD /x https://x/y /\nCOPY . /\nFROM scratch\nCOPY --from=a x /\n";
    let check = |ignore: &[&str]| shown(&report_with(text, &request(&[]), Scope::All, ignore));
    assert_eq!(
        check(&["x"]),
        [
            "2 CopyIgnoredFile: Attempting to Copy file \"x\" that is excluded by .dockerignore",
            "3 CopyIgnoredFile: Attempting to Add file \"/x\" that is excluded by .dockerignore",
        ]
    );
    assert_eq!(check(&["x", "!x/y"]), Vec::<String>::new());
    assert_eq!(
        check(&["**"]),
        ["4 CopyIgnoredFile: Attempting to Copy file \".\" that is excluded by .dockerignore"]
    );
    assert_eq!(check(&[]), Vec::<String>::new());
}

#[test]
fn a_build_hears_of_its_own_stages_only() {
    let text = "FROM scratch AS a\nCOPY $x /\nFROM scratch\nCOPY $y /\n";
    assert_eq!(report(text).warnings.len(), 2);
    let built = report_with(text, &request(&[]), Scope::Reachable, &[]);
    assert_eq!(shown(&built), ["4 UndefinedVar: Usage of undefined variable '$y'"]);
    let target = PlanRequest { target: Some("a".to_owned()), ..request(&[]) };
    assert_eq!(
        shown(&report_with(text, &target, Scope::All, &[])),
        ["2 UndefinedVar: Usage of undefined variable '$x'"]
    );
}

#[test]
fn errors_come_with_what_was_found_before() {
    for (text, lints, message, line) in [
        (
            "FROM known AS A\nFOOBAR x\n",
            1,
            "dockerfile parse error on line 2: unknown instruction: FOOBAR",
            Some(2),
        ),
        (
            "FROM known\nMAINTAINER a\nMAINTAINER\n",
            1,
            "dockerfile parse error on line 3: MAINTAINER requires exactly one argument",
            Some(3),
        ),
        (
            "FROM --platform=$BULIDPLATFORM known\n",
            1,
            "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)",
            Some(1),
        ),
        ("FROM known\nSTOPSIGNAL SIGFOO\n", 0, "invalid signal: SIGFOO", Some(2)),
        ("FROM known\nEXPOSE x\n", 0, "invalid containerPort: x", Some(2)),
        // What is not set is told also where the rest cannot be read.
        ("FROM known\nUSER ${x:?who}\n", 1, "failed to process \"${x:?who}\": x: who", Some(2)),
        (
            "FROM known\nCOPY --chmod=9 a b\n",
            0,
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
            Some(2),
        ),
        ("# check=x\nFROM known\n", 0, "failed to parse check options: invalid check option \"x\"", Some(1)),
        ("FROM scratch\nVOLUME $x\n", 1, "VOLUME specified can not be an empty string", Some(2)),
        // The epoch is asked for before any stage is looked at.
        ("ARG SOURCE_DATE_EPOCH=x\nFROM known$b\n", 0, "invalid SOURCE_DATE_EPOCH: x", None),
        ("# check=error=true\nFROM known AS A\n", 1, "lint violation found for rules: StageNameCasing", None),
    ] {
        let report = report(text);
        assert_eq!(report.warnings.len(), lints, "{text}: {:?}", shown(&report));
        let error = report.error.expect(text);
        assert_eq!(
            (error.message.as_str(), error.span.map(|span| span.start_line)),
            (message, line),
            "{text}"
        );
    }
}

#[test]
fn the_build_argument_counts_instead_of_the_directive() {
    let text = "# check=error=true\nFROM known AS A\n";
    let request = request(&[("BUILDKIT_DOCKERFILE_CHECK", "skip=all")]);
    let report = report_with(text, &request, Scope::All, &[]);
    assert!(report.warnings.is_empty() && report.error.is_none() && report.violation.is_none());
}

#[test]
fn json_has_buildkits_shape() {
    let written = |text: &str| {
        let world = World { ignore: Vec::new() };
        let (dockerfile, report) =
            lint_text("Dockerfile.x", text.as_bytes(), &request(&[]), Scope::All, &world);
        serde_json::to_string(&Report::new(&dockerfile, &report)).unwrap()
    };
    assert_eq!(
        written("# check=error=true\nFROM known \\\n  AS A\n"),
        concat!(
            r#"{"warnings":[{"ruleName":"StageNameCasing","description":"Stage names should be lowercase","#,
            r#""url":"https://docs.docker.com/go/dockerfile/rule/stage-name-casing/","#,
            r#""detail":"Stage name 'A' should be lowercase","location":{"ranges":["#,
            r#"{"start":{"line":2},"end":{"line":2}},{"start":{"line":3},"end":{"line":3}}]}}],"#,
            r#""sources":[{"filename":"Dockerfile.x","#,
            r#""data":"IyBjaGVjaz1lcnJvcj10cnVlCkZST00ga25vd24gXAogIEFTIEEK","language":"Dockerfile"}],"#,
            r#""buildError":{"message":"lint violation found for rules: StageNameCasing","location":{}}}"#,
        )
    );
    assert_eq!(
        written("FROM known\n"),
        r#"{"warnings":null,"sources":[{"filename":"Dockerfile.x","data":"RlJPTSBrbm93bgo=","language":"Dockerfile"}]}"#
    );
}

#[test]
fn triggers_fire_where_the_target_needs_the_stage() {
    let text = "FROM scratch AS a\nONBUILD COPY --from=$x y z\nONBUILD WORKDIR w\nFROM a AS b\nWORKDIR v\nFROM scratch\n";
    let report = report(text);
    assert!(report.error.is_none(), "{:?}", report.error);
    assert_eq!(report.warnings.iter().map(|lint| lint.span.start_line).collect::<Vec<_>>(), [5]);
    let report =
        report_with(&text.replace("COPY --from=$x y z", "USER u"), &request(&[]), Scope::Reachable, &[]);
    assert!(report.warnings.is_empty());
}
