//! The texts of an image's history (`created_by`), as BuildKit writes them. All values come expanded.

use std::time::Duration;

use super::{Command, Healthcheck, KeyValue, duration, quote};

/// Writes `RUN |N name=value … argv… # buildkit`.
///
/// `arguments` are the declared `ARG`s with the values they have now, in order of declaration; a name
/// declared again counts once, with its last value, where it came first.
pub fn run(arguments: &[(String, String)], argv: &[String]) -> String {
    let mut distinct: Vec<&(String, String)> = Vec::new();
    for argument in arguments {
        match distinct.iter_mut().find(|known| known.0 == argument.0) {
            Some(known) => *known = argument,
            None => distinct.push(argument),
        }
    }
    let mut words = vec!["RUN".to_owned()];
    if !distinct.is_empty() {
        words.push(format!("|{}", distinct.len()));
    }
    words.extend(distinct.iter().map(|(name, value)| format!("{name}={value}")));
    words.extend_from_slice(argv);
    words.push("# buildkit".to_owned());
    words.join(" ")
}

/// What a `COPY` or `ADD` shows of itself.
#[derive(Debug, Clone, Default)]
pub struct CopyText<'a> {
    /// `COPY` or `ADD`.
    pub keyword: &'a str,
    /// `--parents` was given.
    pub parents: bool,
    /// `--chown`
    pub chown: Option<&'a str>,
    /// `--chmod`
    pub chmod: Option<&'a str>,
    /// Sources; a heredoc is `<<NAME`.
    pub sources: Vec<&'a str>,
    /// Destination.
    pub dest: &'a str,
}

/// Writes `COPY --parents --chown=… --chmod=… src… dest # buildkit`.
pub fn copy(text: &CopyText<'_>) -> String {
    let mut out = text.keyword.to_owned();
    if text.parents {
        out.push_str(" --parents");
    }
    for (flag, value) in [("chown", text.chown), ("chmod", text.chmod)] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push_str(&format!(" --{flag}={value}"));
        }
    }
    for word in text.sources.iter().copied().chain([text.dest]) {
        out.push(' ');
        out.push_str(word);
    }
    out.push_str(" # buildkit");
    out
}

fn pairs(keyword: &str, pairs: &[KeyValue]) -> String {
    let pairs = pairs.iter().map(|pair| format!(" {}={}", pair.key, pair.value));
    std::iter::once(keyword.to_owned()).chain(pairs).collect()
}

/// Writes `ENV a=b c=d`.
pub fn env(values: &[KeyValue]) -> String {
    pairs("ENV", values)
}

/// Writes `LABEL a=b c=d`.
pub fn label(values: &[KeyValue]) -> String {
    pairs("LABEL", values)
}

/// Writes `ARG a=b c`: each name with the value it got, if it got one.
pub fn arg(declarations: &[(String, Option<String>)]) -> String {
    let words = declarations.iter().map(|(name, value)| match value {
        Some(value) => format!(" {name}={value}"),
        None => format!(" {name}"),
    });
    std::iter::once("ARG".to_owned()).chain(words).collect()
}

/// Writes `CMD ["sh" "-c"]`, each argument as Go's `%q`.
pub fn cmd(argv: &[String]) -> String {
    format!("CMD {}", quote::go_list(argv))
}

/// Writes `ENTRYPOINT ["a"]`.
pub fn entrypoint(argv: &[String]) -> String {
    format!("ENTRYPOINT {}", quote::go_list(argv))
}

/// Writes `SHELL [a b]`.
pub fn shell(argv: &[String]) -> String {
    format!("SHELL [{}]", argv.join(" "))
}

/// Writes `WORKDIR /x`.
pub fn workdir(path: &str) -> String {
    format!("WORKDIR {path}")
}

/// Writes `USER u`.
pub fn user(user: &str) -> String {
    format!("USER {user}")
}

/// Writes `VOLUME [/a /b]`.
pub fn volume(paths: &[String]) -> String {
    format!("VOLUME [{}]", paths.join(" "))
}

/// Writes `EXPOSE [80/tcp 443/tcp]`.
pub fn expose(ports: &[String]) -> String {
    format!("EXPOSE [{}]", ports.join(" "))
}

/// Writes `STOPSIGNAL x`.
pub fn stop_signal(signal: &str) -> String {
    format!("STOPSIGNAL {signal}")
}

/// Writes `MAINTAINER x`.
pub fn maintainer(name: &str) -> String {
    format!("MAINTAINER {name}")
}

/// Writes `HEALTHCHECK {Test:[…] Interval:1s …}`.
pub fn healthcheck(check: &Healthcheck) -> String {
    let test = test(check).join(" ");
    let (interval, timeout, start_period, start_interval, retries) = match check {
        Healthcheck::None => (None, None, None, None, None),
        Healthcheck::Cmd { interval, timeout, start_period, start_interval, retries, .. } => {
            (*interval, *timeout, *start_period, *start_interval, *retries)
        }
    };
    let show = |value: Option<Duration>| duration::format(value.unwrap_or_default().as_nanos());
    format!(
        "HEALTHCHECK {{Test:[{test}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        show(interval),
        show(timeout),
        show(start_period),
        show(start_interval),
        retries.unwrap_or_default()
    )
}

/// Returns the `Test` of a health check, as the image config stores it.
pub fn test(check: &Healthcheck) -> Vec<String> {
    match check {
        Healthcheck::None => vec!["NONE".to_owned()],
        Healthcheck::Cmd { command: Command::Shell(text), .. } => vec!["CMD-SHELL".to_owned(), text.clone()],
        Healthcheck::Cmd { command: Command::Exec(argv), .. } => {
            std::iter::once("CMD".to_owned()).chain(argv.iter().cloned()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn run_shows_distinct_arguments() {
        let argv = strings(&["/bin/sh", "-c", "echo hi"]);
        assert_eq!(run(&[], &argv), "RUN /bin/sh -c echo hi # buildkit");
        let argument = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let arguments = [argument("a", "1"), argument("b", ""), argument("a", "2")];
        assert_eq!(run(&arguments, &argv), "RUN |2 a=2 b= /bin/sh -c echo hi # buildkit");
    }

    #[test]
    fn copy_shows_some_of_its_flags() {
        let text = CopyText {
            keyword: "COPY",
            parents: true,
            chown: Some("1:2"),
            chmod: Some("644"),
            sources: vec!["a", "<<EOF"],
            dest: "/b/",
        };
        assert_eq!(copy(&text), "COPY --parents --chown=1:2 --chmod=644 a <<EOF /b/ # buildkit");
    }

    #[test]
    fn metadata() {
        let pair = |key: &str, value: &str| KeyValue { key: key.to_owned(), value: value.to_owned() };
        assert_eq!(env(&[pair("a", "b c"), pair("d", "")]), "ENV a=b c d=");
        assert_eq!(label(&[pair("a", "b")]), "LABEL a=b");
        assert_eq!(arg(&[("a".to_owned(), None), ("b".to_owned(), Some("1".to_owned()))]), "ARG a b=1");
        assert_eq!(cmd(&strings(&["sh", "-c", "a \"b\""])), r#"CMD ["sh" "-c" "a \"b\""]"#);
        assert_eq!(entrypoint(&[]), "ENTRYPOINT []");
        assert_eq!(shell(&strings(&["sh", "-c"])), "SHELL [sh -c]");
        assert_eq!(volume(&strings(&["/a", "/b"])), "VOLUME [/a /b]");
        assert_eq!(expose(&strings(&["80/tcp"])), "EXPOSE [80/tcp]");
    }

    #[test]
    fn health_checks() {
        let check = Healthcheck::Cmd {
            interval: Some(Duration::from_secs(90)),
            timeout: None,
            start_period: None,
            start_interval: Some(Duration::from_millis(5)),
            retries: Some(3),
            command: Command::Shell("curl x".to_owned()),
        };
        assert_eq!(
            healthcheck(&check),
            "HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:5ms Retries:3}"
        );
        assert_eq!(
            healthcheck(&Healthcheck::None),
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}"
        );
    }
}
