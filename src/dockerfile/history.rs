//! The texts of an image's history (`created_by`), as BuildKit writes them. All values come expanded.

use super::{Healthcheck, KeyValue};

/// Writes `RUN |N name=value … argv… # buildkit`. `arguments` are the declared `ARG`s, in order of declaration.
pub fn run(_arguments: &[(String, String)], _argv: &[String]) -> String {
    todo!()
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
pub fn copy(_text: &CopyText<'_>) -> String {
    todo!()
}

/// Writes `ENV a=b c=d`.
pub fn env(_pairs: &[KeyValue]) -> String {
    todo!()
}

/// Writes `LABEL a=b c=d`.
pub fn label(_pairs: &[KeyValue]) -> String {
    todo!()
}

/// Writes `ARG a=b c`.
pub fn arg(_declarations: &[(String, Option<String>)]) -> String {
    todo!()
}

/// Writes `CMD ["sh" "-c"]`, each argument as Go's `%q`.
pub fn cmd(_argv: &[String]) -> String {
    todo!()
}

/// Writes `ENTRYPOINT ["a"]`.
pub fn entrypoint(_argv: &[String]) -> String {
    todo!()
}

/// Writes `SHELL [a b]`.
pub fn shell(_argv: &[String]) -> String {
    todo!()
}

/// Writes `WORKDIR /x`.
pub fn workdir(_path: &str) -> String {
    todo!()
}

/// Writes `USER u`.
pub fn user(_user: &str) -> String {
    todo!()
}

/// Writes `VOLUME [/a /b]`.
pub fn volume(_paths: &[String]) -> String {
    todo!()
}

/// Writes `EXPOSE [80/tcp 443/tcp]`.
pub fn expose(_ports: &[String]) -> String {
    todo!()
}

/// Writes `STOPSIGNAL x`.
pub fn stop_signal(_signal: &str) -> String {
    todo!()
}

/// Writes `MAINTAINER x`.
pub fn maintainer(_name: &str) -> String {
    todo!()
}

/// Writes `HEALTHCHECK {Test:[…] Interval:1s …}`.
pub fn healthcheck(_check: &Healthcheck) -> String {
    todo!()
}
