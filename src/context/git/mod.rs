//! Git repositories as contexts and as sources of `ADD`.

mod borrowed;
mod checkout;
mod fetch;
mod program;
mod redirect;
mod server;
mod source;
mod state;

pub use checkout::{Checkout, CheckoutOptions, checkout, checkout_with};
pub use server::GitServer;
pub(super) use source::decoded;
pub use source::{GitSource, parse_git_context, parse_git_source};
pub use state::{GitState, git_state};
