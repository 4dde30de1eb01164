//! The port specifications of `EXPOSE`: `[[ip:]host:]port[-port][/protocol]`.

use std::net::IpAddr;

use super::quote;

/// A port specification that is none; the text is BuildKit's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// The text.
    pub message: String,
}

/// What one word of an `EXPOSE` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Whether the protocol was written in other letters (lint `ExposeProtoCasing`).
    pub odd_casing: bool,
    /// Whether an IP address or a host port was given, which means nothing here (lint `ExposeInvalidFormat`).
    pub host_part: bool,
}

/// Parses expanded words into `port/protocol` texts, ranges written out, in the order of the words.
pub fn parse_ports(words: &[String]) -> Result<Vec<String>, PortError> {
    let mut ports = Vec::new();
    for word in words {
        let spec = parse_port(word)?;
        ports.extend((spec.first..=spec.last).map(|port| format!("{port}/{}", spec.protocol)));
    }
    Ok(ports)
}

/// Parses one expanded word.
pub fn parse_port(word: &str) -> Result<PortSpec, PortError> {
    let fail = |message: String| PortError { message };
    let mut parts = word.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();

    let (container, written) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(fail(format!("invalid port: {}: no port specified", quote::go(word))));
    }
    let lower = written.to_lowercase();
    let protocol = match lower.as_str() {
        "" => "tcp",
        "tcp" | "udp" | "sctp" => &lower,
        _ => return Err(fail(format!("invalid port: {}: invalid proto: {written}", quote::go(word)))),
    };
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(fail(format!("invalid IP address: {bare}")));
    }
    let (first, last) =
        parse_range(container).ok_or_else(|| fail(format!("invalid containerPort: {container}")))?;
    if !host.is_empty() {
        let (host_first, host_last) =
            parse_range(host).ok_or_else(|| fail(format!("invalid hostPort: {host}")))?;
        // A host range to choose from may stand for one container port.
        if first != last && last - first != host_last - host_first {
            return Err(fail(format!(
                "invalid ranges specified for container and host Ports: {container} and {host}"
            )));
        }
    }
    Ok(PortSpec {
        first,
        last,
        protocol: protocol.to_owned(),
        odd_casing: written != lower,
        host_part: !ip.is_empty() || !host.is_empty(),
    })
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (first.parse().ok()?, last.parse().ok()?),
        None => {
            let port = text.parse().ok()?;
            (port, port)
        }
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse_ports(&words).map_err(|error| error.message)
    }

    #[test]
    fn ports_are_written_out() {
        for (words, expected) in [
            (&["80"][..], &["80/tcp"][..]),
            (&["443/TCP", "53/Udp"], &["443/tcp", "53/udp"]),
            (&["8000-8002/sctp"], &["8000/sctp", "8001/sctp", "8002/sctp"]),
            (&["80-80"], &["80/tcp"]),
            (&["0", "65535"], &["0/tcp", "65535/tcp"]),
            (
                &["8080:80", "127.0.0.1:8080:81", "[::1]:8080:82", "::1:1:83"],
                &["80/tcp", "81/tcp", "82/tcp", "83/tcp"],
            ),
            (&["1000-1010:80"], &["80/tcp"]),
            (&["127.0.0.1::80"], &["80/tcp"]),
            (&[], &[]),
        ] {
            assert_eq!(ports(words).unwrap(), expected, "{words:?}");
        }
    }

    #[test]
    fn oddities_are_noted() {
        assert!(parse_port("80/TCP").unwrap().odd_casing);
        assert!(parse_port("1:80").unwrap().host_part);
        let plain = parse_port("80/tcp").unwrap();
        assert!(!plain.odd_casing && !plain.host_part);
    }

    #[test]
    fn errors_have_their_literal_text() {
        for (word, error) in [
            ("80-70", "invalid containerPort: 80-70"),
            ("x", "invalid containerPort: x"),
            ("65536", "invalid containerPort: 65536"),
            ("80/foo", "invalid port: \"80/foo\": invalid proto: foo"),
            ("", "invalid port: \"\": no port specified"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("localhost:1234:1234/tcp", "invalid IP address: localhost"),
            ("x:80", "invalid hostPort: x"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
        ] {
            assert_eq!(ports(&[word]).unwrap_err(), error, "{word}");
        }
    }
}
