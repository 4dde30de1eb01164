//! Git repositories as contexts and as sources of `ADD`.

mod checkout;
mod fetch;
mod program;
mod source;
mod state;

pub use checkout::{Checkout, CheckoutOptions, checkout, checkout_with};
pub(super) use source::decoded;
pub use source::{GitSource, parse_git_context, parse_git_source};
pub use state::{GitState, git_state};

/// Takes the credentials out of a URL; the user of `ssh` is none.
pub(super) fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((credentials, host)) = authority.rsplit_once('@') else { return url.to_owned() };
    if scheme != "ssh" {
        return format!("{scheme}://{host}{path}");
    }
    let user = credentials.split_once(':').map_or(credentials, |(user, _)| user);
    format!("{scheme}://{user}@{host}{path}")
}
