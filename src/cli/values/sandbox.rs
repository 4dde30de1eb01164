//! Options about the sandbox of `RUN`: `--add-host` and `--ulimit`.

use std::net::IpAddr;

use super::ValueError;
use crate::sandbox::Ulimit;

/// Reads `name:ip` or `name=ip`; an IPv6 address may stand in brackets.
pub fn parse_add_host(text: &str) -> Result<(String, IpAddr), ValueError> {
    let fail = |reason: &str| ValueError::new("--add-host", text, reason);
    // With `=` an address with colons needs no guessing, so it is looked for first.
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| fail("expected `name:ip` or `name=ip`"))?;
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(fail("the host name is empty or has blanks in it"));
    }
    if address == "host-gateway" {
        return Err(fail("`host-gateway` needs a docker daemon; give the address itself"));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address = bare.parse().map_err(|_| fail("expected an IPv4 or IPv6 address after the name"))?;
    Ok((name.to_owned(), address))
}

/// Names of limits docker knows.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads `name=soft[:hard]`; without a hard limit it is the soft one.
pub fn parse_ulimit(text: &str) -> Result<Ulimit, ValueError> {
    let fail = |reason: String| ValueError::new("--ulimit", text, reason);
    let (name, limits) =
        text.split_once('=').ok_or_else(|| fail("expected `name=soft[:hard]`".to_owned()))?;
    if !ULIMITS.contains(&name) {
        return Err(fail(format!("unknown limit `{name}`, expected one of {}", ULIMITS.join(", "))));
    }
    let number = |part: &str| match part {
        "unlimited" | "-1" => Ok(None),
        _ => part
            .parse::<u64>()
            .map(Some)
            .map_err(|_| fail(format!("`{part}` is no limit, expected a number or -1"))),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err(fail("the soft limit must not be above the hard one".to_owned()));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_with_colon_equals_sign_and_brackets() {
        for (text, name, address) in [
            ("db:10.0.0.1", "db", "10.0.0.1"),
            ("db=10.0.0.1", "db", "10.0.0.1"),
            ("db:::1", "db", "::1"),
            ("db=::1", "db", "::1"),
            ("db:[2001:db8::1]", "db", "2001:db8::1"),
        ] {
            let entry = parse_add_host(text).unwrap();
            assert_eq!((entry.0.as_str(), entry.1.to_string().as_str()), (name, address), "{text}");
        }
        for text in ["db", ":1.2.3.4", "db:", "db:1.2.3", "d b:1.2.3.4", "db:host-gateway", "a\n=1.2.3.4"] {
            assert!(parse_add_host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits_are_read_as_docker_reads_them() {
        let limit = |name: &str, soft, hard| Ulimit { name: name.to_owned(), soft, hard };
        assert_eq!(parse_ulimit("nofile=1024:2048").unwrap(), limit("nofile", Some(1024), Some(2048)));
        assert_eq!(parse_ulimit("nofile=1062").unwrap(), limit("nofile", Some(1062), Some(1062)));
        assert_eq!(parse_ulimit("core=-1").unwrap(), limit("core", None, None));
        assert_eq!(parse_ulimit("core=0:unlimited").unwrap(), limit("core", Some(0), None));
        for text in [
            "nofile",
            "nofile=",
            "nofile=a",
            "nofile=2:1",
            "nofile=-1:5",
            "files=1",
            "nofile=1:2:3",
            "core=-2",
        ] {
            assert!(parse_ulimit(text).is_err(), "{text}");
        }
    }
}
