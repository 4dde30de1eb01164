//! The signals of `STOPSIGNAL`.

/// A text that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal: {text}")]
pub struct SignalError {
    /// The text.
    pub text: String,
}

/// Linux' names without `SIG`; the real-time ones are counted from both ends.
const NAMES: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Checks an expanded `STOPSIGNAL`: a Linux name with or without `SIG`, in any case, or a number.
pub fn validate_signal(text: &str) -> Result<(), SignalError> {
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let counted = |prefix: &str, sign: &str, most: u32| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(sign)
                    .filter(|n| !n.starts_with(['0', '+']))
                    .and_then(|n| n.parse().ok())
                    .is_some_and(|n: u32| n <= most)
        })
    };
    let valid = match text.parse::<i64>() {
        Ok(number) => number != 0,
        Err(_) => NAMES.contains(&name) || counted("RTMIN", "+", 15) || counted("RTMAX", "-", 14),
    };
    if valid { Ok(()) } else { Err(SignalError { text: text.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for text in
            ["SIGTERM", "term", "SigKill", "9", "RTMIN", "SIGRTMIN+3", "rtmin+15", "RTMAX-14", "RTMAX", "+9"]
        {
            assert_eq!(validate_signal(text), Ok(()), "{text}");
        }
        for text in
            ["SIGFOO", "0", "", "SIG", "RTMIN+16", "RTMIN+0", "RTMIN-1", "RTMAX-15", "RTMIN+03", "SIG9"]
        {
            assert_eq!(validate_signal(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
    }
}
