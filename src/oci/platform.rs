//! Platforms: `os/architecture[/variant]`, normalised as containerd does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and CPU, in Go's names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, `linux`.
    pub os: String,
    /// CPU architecture, `amd64`.
    pub architecture: String,
    /// CPU variant, `v8`; absent where the architecture has a default one.
    pub variant: Option<String>,
    /// Operating system version (Windows).
    pub os_version: Option<String>,
}

/// A text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to parse platform {text}: {reason}")]
pub struct PlatformError {
    /// The offending text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Platform {
    /// Returns the platform kiln runs on: always Linux.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            "x86" => ("386", None),
            other => (other, None),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
        }
    }

    /// Converts to `oci-spec`'s type, for descriptors.
    pub fn to_spec(&self) -> oci_spec::image::Platform {
        let mut platform = oci_spec::image::Platform::default();
        platform.set_os(oci_spec::image::Os::from(self.os.as_str()));
        platform.set_architecture(oci_spec::image::Arch::from(self.architecture.as_str()));
        platform.set_variant(self.variant.clone());
        platform.set_os_version(self.os_version.clone());
        platform
    }

    /// Converts from `oci-spec`'s type, normalised.
    pub fn from_spec(platform: &oci_spec::image::Platform) -> Self {
        Self {
            os: platform.os().to_string(),
            architecture: platform.architecture().to_string(),
            variant: platform.variant().clone(),
            os_version: platform.os_version().clone(),
        }
        .normalised()
    }

    /// Maps aliases to Go's names and drops default variants (`x86_64` → `amd64`, `arm64/v8` → `arm64`,
    /// `arm` → `arm/v7`).
    pub fn normalised(mut self) -> Self {
        self.os = match self.os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let variant = self.variant.take().map(|v| v.to_ascii_lowercase()).filter(|v| !v.is_empty());
        let (architecture, variant) =
            match (self.architecture.to_ascii_lowercase().as_str(), variant.as_deref()) {
                ("i386" | "386", _) => ("386".to_owned(), None),
                ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64".to_owned(), None),
                ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64".to_owned(), Some(v.to_owned())),
                ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64".to_owned(), None),
                ("aarch64" | "arm64", Some(v)) => ("arm64".to_owned(), Some(v.to_owned())),
                ("armhf", _) => ("arm".to_owned(), Some("v7".to_owned())),
                ("armel", _) => ("arm".to_owned(), Some("v6".to_owned())),
                ("arm", None | Some("7")) => ("arm".to_owned(), Some("v7".to_owned())),
                ("arm", Some(v @ ("5" | "6" | "8"))) => ("arm".to_owned(), Some(format!("v{v}"))),
                (other, v) => (other.to_owned(), v.map(str::to_owned)),
            };
        self.architecture = architecture;
        self.variant = variant;
        self
    }

    /// Ranks how well an image for `offered` runs here: `None` not at all, else smaller is better
    /// (0 is an exact match; an older arm or amd64 variant runs on a newer CPU).
    pub fn accepts(&self, offered: &Self) -> Option<u32> {
        let (wanted, offered) = (self.clone().normalised(), offered.clone().normalised());
        if wanted.os != offered.os || wanted.architecture != offered.architecture {
            return None;
        }
        let number = |platform: &Self| {
            let default = match platform.architecture.as_str() {
                "amd64" => "v1",
                "arm64" => "v8",
                _ => "v0",
            };
            let text = platform.variant.as_deref().unwrap_or(default);
            text.strip_prefix('v').and_then(|n| n.split('.').next()).and_then(|n| n.parse::<u32>().ok())
        };
        match (number(&wanted), number(&offered)) {
            (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            _ => (wanted.variant == offered.variant).then_some(0),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let fail = |reason| PlatformError { text: format!("{text:?}"), reason };
        let valid = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        // `os(version)` is containerd's form for Windows.
        let (head, rest) = text.split_once('/').map_or((text, None), |(head, rest)| (head, Some(rest)));
        let (os, os_version) = match head.strip_suffix(')').and_then(|h| h.split_once('(')) {
            Some((os, version)) => (os, Some(version.to_owned())),
            None => (head, None),
        };
        let parts: Vec<&str> =
            std::iter::once(os).chain(rest.into_iter().flat_map(|r| r.split('/'))).collect();
        if !parts.iter().all(valid) {
            return Err(fail("expected `os/architecture[/variant]`: invalid component"));
        }
        let platform = |os: &str, architecture: &str, variant: Option<&str>| Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: os_version.clone(),
        };
        let platform = match parts[..] {
            [one] => {
                let lower = one.to_ascii_lowercase();
                if matches!(lower.as_str(), "linux" | "windows" | "darwin" | "macos" | "freebsd") {
                    let host = Self::host();
                    platform(&lower, &host.architecture, host.variant.as_deref())
                } else if KNOWN_ARCHITECTURES.contains(&lower.as_str()) {
                    platform("linux", &lower, None)
                } else {
                    return Err(fail("unknown operating system or architecture"));
                }
            }
            [os, architecture] => platform(os, architecture, None),
            [os, architecture, variant] => platform(os, architecture, Some(variant)),
            _ => return Err(fail("expected `os/architecture[/variant]`: too many components")),
        };
        Ok(platform.normalised())
    }
}

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386", "i386", "amd64", "x86_64", "x86-64", "arm", "armhf", "armel", "arm64", "aarch64", "loong64",
    "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x",
];

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn platforms_are_normalised_as_containerd_does() {
        for (text, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("arm64", "linux/arm64"),
            ("Windows/amd64", "windows/amd64"),
        ] {
            assert_eq!(parse(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn bad_platforms_are_refused() {
        for text in ["", "linux/", "/amd64", "linux/amd64/v1/x", "nonsense", "linux/am d64"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_older_arm_runs_on_a_newer_one() {
        assert_eq!(parse("linux/arm/v7").accepts(&parse("linux/arm/v6")), Some(1));
        assert_eq!(parse("linux/arm/v6").accepts(&parse("linux/arm/v7")), None);
        assert_eq!(parse("linux/amd64").accepts(&parse("linux/amd64")), Some(0));
        assert_eq!(parse("linux/amd64").accepts(&parse("linux/arm64")), None);
    }
}
