//! What can go wrong with objects, told apart by what the user has to do.

use object_store::Error;

/// An object that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A name that no object can have.
    #[error("`{url}` names no object: {reason}")]
    Name {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No bucket or container of that name.
    #[error("cannot read `{url}`: there is no bucket or container `{bucket}`")]
    NoBucket {
        /// The object.
        url: String,
        /// The bucket.
        bucket: String,
    },
    /// Nothing of that name in the bucket.
    #[error("cannot read `{url}`: there is no `{key}` in `{bucket}`")]
    NoObject {
        /// The object.
        url: String,
        /// The bucket.
        bucket: String,
        /// Its name.
        key: String,
    },
    /// The store refuses.
    #[error("cannot read `{url}`: access denied: {reason}")]
    Denied {
        /// The object.
        url: String,
        /// The store's words.
        reason: String,
        /// What to look at.
        hint: &'static str,
    },
    /// Nobody to ask as.
    #[error("cannot read `{url}`: no usable credentials: {reason}")]
    Credentials {
        /// The object.
        url: String,
        /// Why.
        reason: String,
        /// What to set.
        hint: &'static str,
    },
    /// A bucket of another region.
    #[error("cannot read `{url}`: the bucket is not in the region `{region}`{found}")]
    Region {
        /// The object.
        url: String,
        /// The region that was asked.
        region: String,
        /// The region that the store names, with words before it.
        found: String,
    },
    /// Anything else.
    #[error("cannot read `{url}`: {reason}")]
    Other {
        /// The object.
        url: String,
        /// All causes in one line.
        reason: String,
    },
}

impl ObjectError {
    /// Says what the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Denied { hint, .. } | Self::Credentials { hint, .. } => hint,
            Self::NoBucket { .. } => {
                "check its name, the account, and that the endpoint is the one that has it"
            }
            Self::NoObject { .. } => "check its name; without one, the archive is `context.tar.gz`",
            Self::Region { .. } => "set AWS_REGION to the bucket's region",
            Self::Name { .. } | Self::Other { .. } => return None,
        })
    }
}

/// The parts of an answer that stores put into XML.
pub(super) struct Answer {
    pub(super) code: Option<String>,
    message: Option<String>,
    pub(super) region: Option<String>,
    text: String,
}

impl Answer {
    /// Finds the store's own words in an error.
    pub(super) fn of(error: &Error) -> Self {
        let text = one_line(&error.to_string());
        let element = |name: &str| {
            let rest = text.split_once(&format!("<{name}>"))?.1;
            Some(rest.split_once(&format!("</{name}>"))?.0.trim().to_owned())
        };
        Self { code: element("Code"), message: element("Message"), region: element("Region"), text }
    }

    /// Returns them for a message.
    pub(super) fn words(&self) -> String {
        match (&self.code, &self.message) {
            (Some(code), Some(message)) => format!("{code}: {}", message.trim_end_matches('.')),
            (Some(code), None) => code.clone(),
            _ => self.text.clone(),
        }
    }
}

/// Returns an error with its causes on one line of bounded length; a store's page may be long.
pub(super) fn one_line(text: &str) -> String {
    const LONGEST: usize = 600;
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
