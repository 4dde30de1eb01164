//! What a server asks for before it answers: `WWW-Authenticate` (RFC 9110, section 11.6.1).
//!
//! One header may hold several challenges, and several headers one each; parameters are tokens or quoted
//! strings with escapes; a scheme may come with a token68 instead of parameters.

/// What a server wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password (RFC 7617).
    Basic,
    /// A token from a token service (docker's token authentication).
    Bearer(Bearer),
}

/// Where to get a token, and for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The token service's URL.
    pub(super) realm: String,
    /// The name the token service knows the registry by.
    pub(super) service: Option<String>,
    /// The scopes this request needs, as the registry sees it.
    pub(super) scopes: Vec<String>,
    /// Why the token that was sent did not do: `insufficient_scope`, `invalid_token`.
    pub(super) error: Option<String>,
}

/// Picks what to answer from all `WWW-Authenticate` headers of a response: bearer before basic, as docker
/// does.
pub(super) fn select<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = false;
    let mut bearer = None;
    for (scheme, parameters) in headers.flat_map(parse) {
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => basic = true,
            "bearer" if bearer.is_none() => bearer = read_bearer(&parameters),
            _ => {}
        }
    }
    bearer.map(Challenge::Bearer).or(basic.then_some(Challenge::Basic))
}

type Parameters = Vec<(String, String)>;

fn read_bearer(parameters: &Parameters) -> Option<Bearer> {
    let get = |name: &str| {
        parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    Some(Bearer {
        realm: get("realm").filter(|realm| !realm.is_empty())?,
        service: get("service").filter(|service| !service.is_empty()),
        // Several scopes are separated by spaces, or come as several parameters.
        scopes: parameters
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case("scope"))
            .flat_map(|(_, value)| value.split_ascii_whitespace().map(str::to_owned))
            .collect(),
        error: get("error").filter(|error| !error.is_empty()),
    })
}

/// Splits one header into its challenges. What can't be understood ends the list.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut rest = Scanner { text: header };
    let mut challenges = Vec::new();
    loop {
        rest.skip_separators();
        let Some(scheme) = rest.token() else { return challenges };
        let mut parameters = Vec::new();
        // A scheme is followed by one space; anything else after it means that it has no parameters.
        if rest.spaces() {
            while let Some(parameter) = rest.parameter() {
                parameters.push(parameter);
                if !rest.comma() {
                    break;
                }
            }
            if parameters.is_empty() {
                rest.token68();
            }
        }
        challenges.push((scheme.to_owned(), parameters));
    }
}

struct Scanner<'a> {
    text: &'a str,
}

impl<'a> Scanner<'a> {
    fn skip_separators(&mut self) {
        self.text = self.text.trim_start_matches([' ', '\t', ',']);
    }

    fn spaces(&mut self) -> bool {
        let rest = self.text.trim_start_matches([' ', '\t']);
        let any = rest.len() < self.text.len();
        self.text = rest;
        any
    }

    fn comma(&mut self) -> bool {
        let rest = self.text.trim_start_matches([' ', '\t']);
        let any = rest.starts_with(',');
        if any {
            self.text = rest.trim_start_matches([' ', '\t', ',']);
        }
        any
    }

    fn token(&mut self) -> Option<&'a str> {
        let length = self.text.bytes().take_while(|b| is_token_byte(*b)).count();
        if length == 0 {
            return None;
        }
        let (token, rest) = self.text.split_at(length);
        self.text = rest;
        Some(token)
    }

    fn token68(&mut self) {
        let length =
            self.text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b)).count();
        self.text = &self.text[length..];
    }

    /// Reads `name = value`; leaves everything as it was if this is something else: the next scheme.
    fn parameter(&mut self) -> Option<(String, String)> {
        let before = self.text;
        let parameter = self.try_parameter();
        if parameter.is_none() {
            self.text = before;
        }
        parameter
    }

    fn try_parameter(&mut self) -> Option<(String, String)> {
        let name = self.token()?;
        self.spaces();
        self.text = self.text.strip_prefix('=')?;
        self.spaces();
        let value = match self.text.strip_prefix('"') {
            Some(quoted) => self.quoted(quoted)?,
            // `a==` is a token68, not a parameter.
            None if self.text.starts_with('=') => return None,
            None => {
                // Some servers leave URLs unquoted.
                let length = self.text.find([',', ' ', '\t']).unwrap_or(self.text.len());
                let (value, rest) = self.text.split_at(length);
                self.text = rest;
                (!value.is_empty()).then(|| value.to_owned())?
            }
        };
        Some((name.to_owned(), value))
    }

    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut characters = text.char_indices();
        while let Some((at, c)) = characters.next() {
            match c {
                '"' => {
                    self.text = &text[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(characters.next()?.1),
                c => value.push(c),
            }
        }
        None
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(header: &str) -> Bearer {
        match select([header].into_iter()) {
            Some(Challenge::Bearer(bearer)) => bearer,
            other => panic!("{header}: {other:?}"),
        }
    }

    #[test]
    fn docker_hubs_challenge_is_read() {
        let challenge = bearer(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#,
        );
        assert_eq!(challenge.realm, "https://auth.docker.io/token");
        assert_eq!(challenge.service.as_deref(), Some("registry.docker.io"));
        assert_eq!(challenge.scopes, ["repository:library/debian:pull"]);
        assert_eq!(challenge.error, None);
    }

    #[test]
    fn spaces_cases_escapes_and_commas_in_quotes_are_read() {
        let challenge = bearer(
            r#"bEARER   Realm = "https://r/t?a=1,2" , SERVICE=plain ,scope="repository:a:pull,push repository:b:pull",error="x\"y""#,
        );
        assert_eq!(challenge.realm, "https://r/t?a=1,2");
        assert_eq!(challenge.service.as_deref(), Some("plain"));
        assert_eq!(challenge.scopes, ["repository:a:pull,push", "repository:b:pull"]);
        assert_eq!(challenge.error.as_deref(), Some("x\"y"));
    }

    #[test]
    fn several_challenges_in_one_header_or_in_several() {
        let one = r#"Negotiate abc==, Basic realm="x, y", Bearer realm="https://t",service="s""#;
        assert_eq!(bearer(one).service.as_deref(), Some("s"));
        let several = [r#"Basic realm="x""#, "NTLM", r#"Bearer realm="https://t""#];
        assert!(matches!(select(several.into_iter()), Some(Challenge::Bearer(_))));
        assert_eq!(select([r#"Digest qop="auth", Basic realm="r""#].into_iter()), Some(Challenge::Basic));
        assert_eq!(select(["Basic"].into_iter()), Some(Challenge::Basic));
    }

    #[test]
    fn an_unquoted_realm_is_read() {
        assert_eq!(bearer("Bearer realm=https://t/token,service=s").realm, "https://t/token");
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for header in [
            "",
            ",,,",
            "Bearer",
            "Bearer realm=",
            r#"Bearer realm="open"#,
            "\"",
            "Bearer service=x",
            "=",
            "é",
        ] {
            assert_eq!(select([header].into_iter()), None, "{header}");
        }
    }

    #[test]
    fn a_bearer_without_realm_leaves_basic() {
        let headers = [r#"Bearer service="s""#, r#"Basic realm="r""#];
        assert_eq!(select(headers.into_iter()), Some(Challenge::Basic));
    }
}
