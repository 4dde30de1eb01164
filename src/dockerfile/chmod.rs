//! `--chmod` of `COPY` and `ADD`: octal or symbolic modes (`chmod(1)`), with a umask of 0.

use std::str::FromStr;

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// Permission bits to set, `0..=0o7777`.
    Octal(u32),
    /// `u=rwX,go-w`: changes to the bits a file has, in order.
    Symbolic(Vec<Change>),
}

/// One change of a symbolic mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Clears these bits.
    Clear(u32),
    /// Sets these bits.
    Set(u32),
    /// Sets these bits if the file is a directory or somebody may execute it (`X`).
    SetIfExecutable(u32),
    /// Copies the `rwx` bits of a class to others (`g=u`).
    Copy {
        /// How far right the copied class's bits are shifted: 6, 3 or 0.
        from_shift: u32,
        /// The `rwx` bits of the classes copied to.
        to: u32,
        /// `+`, `-` or `=`.
        operator: char,
    },
}

/// A text that is not a mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")]
pub struct ChmodError {
    /// The text.
    pub text: String,
}

const SET_UID: u32 = 0o4000;
/// Set-group-id: what is made in a directory that has it gets the directory's group.
pub const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
/// What `a`, and no class at all, stand for.
const ALL: u32 = SET_UID | SET_GID | 0o777;

impl FromStr for Chmod {
    type Err = ChmodError;

    fn from_str(text: &str) -> Result<Self, ChmodError> {
        let invalid = || ChmodError { text: text.to_owned() };
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return match u32::from_str_radix(text, 8) {
                Ok(mode) if mode <= 0o7777 => Ok(Self::Octal(mode)),
                _ => Err(invalid()),
            };
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut changes).ok_or_else(invalid)?;
        }
        Ok(Self::Symbolic(changes))
    }
}

/// Parses `[ugoa]*([-+=]perms)+`.
fn parse_clause(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let classes = &clause[..clause.len() - actions.len()];
    let who = classes.chars().fold(0, |who, class| {
        who | match class {
            'u' => SET_UID | 0o700,
            'g' => SET_GID | 0o070,
            'o' => 0o007,
            _ => ALL,
        }
    });
    let mut rest = actions.strip_prefix(['+', '-', '=']).map(|_| actions)?;
    while !rest.is_empty() {
        let operator = rest.chars().next().filter(|c| matches!(c, '+' | '-' | '='))?;
        let body = &rest[1..];
        let end = body.find(['+', '-', '=']).unwrap_or(body.len());
        parse_action(who, operator, &body[..end], changes)?;
        rest = &body[end..];
    }
    Some(())
}

fn parse_action(who: u32, operator: char, permissions: &str, changes: &mut Vec<Change>) -> Option<()> {
    let mut scope = if who == 0 { ALL } else { who };
    let only_others = who != 0 && who & !0o007 == 0;
    let (mut bits, mut conditional) = (0, 0);
    let mut copies = Vec::new();
    for c in permissions.chars() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= 0o111,
            'X' if operator == '-' => bits |= 0o111,
            'X' => conditional |= 0o111,
            // Nothing but `o` means no set-id and no sticky bit either.
            's' | 't' if only_others => {}
            's' => bits |= SET_UID | SET_GID,
            't' => {
                scope |= STICKY;
                bits |= STICKY;
            }
            'u' => copies.push(6),
            'g' => copies.push(3),
            'o' => copies.push(0),
            _ => return None,
        }
    }
    // `g=u` replaces the rwx bits only; `g=` and `g=r` clear the set-group-id bit too.
    if operator == '=' && (copies.is_empty() || bits != 0) {
        changes.push(Change::Clear(scope));
    }
    match operator {
        '-' if bits != 0 => changes.push(Change::Clear(bits & scope)),
        '+' | '=' if bits != 0 => changes.push(Change::Set(bits & scope)),
        _ => {}
    }
    if conditional != 0 {
        changes.push(Change::SetIfExecutable(conditional & scope));
    }
    changes.extend(copies.into_iter().map(|from_shift| Change::Copy {
        from_shift,
        to: scope & 0o777,
        operator,
    }));
    Some(())
}

impl Chmod {
    /// Returns the permission bits (07777) that a file with the bits `mode` gets.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(changes) => changes,
        };
        let mut new = mode & 0o7777;
        for change in changes {
            match *change {
                Change::Clear(bits) => new &= !bits,
                Change::Set(bits) => new |= bits,
                Change::SetIfExecutable(bits) => {
                    if is_directory || mode & 0o111 != 0 {
                        new |= bits;
                    }
                }
                Change::Copy { from_shift, to, operator } => {
                    let class = (new >> from_shift) & 0o7;
                    let bits = (class * 0o111) & to;
                    new = match operator {
                        '+' => new | bits,
                        '-' => new & !bits,
                        _ => (new & !to) | bits,
                    };
                }
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_modes() {
        for (text, mode) in [("0", 0), ("644", 0o644), ("07777", 0o7777), ("0000755", 0o755)] {
            let chmod: Chmod = text.parse().unwrap();
            assert_eq!(chmod.apply(0o123, true), mode, "{text}");
        }
    }

    /// Checked against `chmod` of FreeBSD's rules: no special case for set-id bits of directories.
    #[test]
    fn symbolic_modes() {
        for (text, before, is_directory, after) in [
            ("u+x", 0o644, false, 0o744),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o644, true, 0o755),
            ("a+X", 0o744, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("u=rwX,go-w", 0o666, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("go=", 0o777, false, 0o700),
            ("g=u", 0o640, false, 0o660),
            ("go=u-w", 0o700, false, 0o755),
            ("o=g,g-r", 0o750, false, 0o715),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("o+s", 0o755, false, 0o755),
            ("a=rx", 0o7000, false, 0o1555),
            ("=", 0o7777, false, 0o1000),
            ("-X", 0o755, false, 0o644),
            ("ug+rw-x", 0o710, false, 0o660),
        ] {
            let chmod: Chmod = text.parse().unwrap();
            assert_eq!(
                format!("{:o}", chmod.apply(before, is_directory)),
                format!("{after:o}"),
                "{text} on {before:o}"
            );
        }
    }

    #[test]
    fn bad_modes_have_their_literal_text() {
        for text in ["64a", "10000", "8", "", "u", "u+q", "x", "u+r,", "7a7", "u+r 7", "99999999999999"] {
            let error = text.parse::<Chmod>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                )
            );
        }
    }
}
