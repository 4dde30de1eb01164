//! Redirects of servers that are shown a credential.
//!
//! `git` goes on sending `http.extraHeader` to whichever host a redirect led it to. So where there is a credential it
//! follows none itself; the address is asked for here, and the credential stays with scheme, host and port.

use std::fs;

use url::Url;

use super::program::{Failure, Git};
use super::server::GitServer;
use crate::context::ContextError;
use crate::text::without_credentials;

/// What git asks for first, below a repository's address.
const FIRST: &str = "/info/refs?service=git-upload-pack";

/// No server leads on more often, submodules included; git itself follows 20.
pub(super) const MOST_REDIRECTS: usize = 20;

/// Returns the address that a command failed at because it was redirected.
pub(super) fn redirected(failure: &Failure) -> Option<String> {
    let line = failure.output.lines().find(|line| {
        ["301", "302", "303", "307", "308"]
            .iter()
            .any(|status| line.trim_end().ends_with(&format!("The requested URL returned error: {status}")))
    })?;
    let url = line.split_once("unable to access '")?.1.split_once('\'')?.0;
    Some(url.trim_end_matches('/').to_owned())
}

impl Git<'_> {
    /// Asks where the repository `from` has moved to.
    pub(super) fn moved_to(&self, from: &str) -> Result<String, ContextError> {
        let shown = without_credentials(from);
        let failed = |output: String| ContextError::Git {
            url: shown.clone(),
            command: "ls-remote".to_owned(),
            output,
        };
        let trace = self.directory.with_extension("redirect");
        // Without the redirects that are known: one may begin as this address does.
        let mut command = self.command_with(&["ls-remote", "--quiet", "--", from, "HEAD"], &[]);
        // Headers only; git leaves the values of secret ones out.
        command.env("GIT_TRACE_CURL", &trace).env("GIT_TRACE_CURL_NO_DATA", "1");
        self.output(&mut command)?;
        let said = fs::read_to_string(&trace).map_err(ContextError::file("read", &trace));
        // Left behind in the build's own directory at worst.
        let _ = fs::remove_file(&trace);
        let said = said?;
        let location = said.lines().rev().find_map(|line| {
            let (name, value) = line.split_once("Recv header: ")?.1.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim())
        });
        let location = location.ok_or_else(|| failed("it redirects and does not say where to".to_owned()))?;
        let asked = Url::parse(&format!("{from}{FIRST}")).map_err(|error| failed(error.to_string()))?;
        let next =
            asked.join(location).map_err(|error| failed(format!("it redirects to no URL: {error}")))?;
        let next = without_credentials(next.as_str());
        match next.strip_suffix(FIRST) {
            Some(repository) if GitServer::over_http(repository).is_some() => Ok(repository.to_owned()),
            _ => Err(failed(format!("it redirects to `{next}`, which is no repository's address"))),
        }
    }
}
