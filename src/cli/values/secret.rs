//! `--secret` and `--ssh`: what may be lent to a step without becoming part of the image.

use std::path::PathBuf;

use super::{ValueError, fields};

/// A secret as declared; nothing is read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretOption {
    /// The name steps ask for it by.
    pub id: String,
    /// Where it is.
    pub origin: SecretOrigin,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretOrigin {
    /// In a file.
    File(PathBuf),
    /// In an environment variable.
    Env(String),
    /// Neither was said: the variable called like the id if there is one, else the file.
    Unsaid,
}

/// An ssh agent or keys as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshOption {
    /// The name steps ask for it by, `default`.
    pub id: String,
    /// A socket or key files; empty means `SSH_AUTH_SOCK`.
    pub paths: Vec<PathBuf>,
}

/// Reads `id=X[,src=FILE|env=NAME][,type=file|env]`.
pub fn parse_secret(text: &str) -> Result<SecretOption, ValueError> {
    let fail = |reason: String| ValueError::new("--secret", text, reason);
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in fields(text).map_err(|reason| fail(reason.to_owned()))? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| fail(format!("invalid field `{field}`: expected `key=value`")))?;
        let slot = match key.to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut env,
            "type" => &mut kind,
            _ => {
                return Err(fail(format!("unknown key `{key}`, expected `id`, `src`, `env` or `type`")));
            }
        };
        if slot.replace(value.to_owned()).is_some() {
            return Err(fail(format!("`{key}` is given twice")));
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| fail("`id=` is missing".to_owned()))?;
    if let Some(kind) = kind.as_deref().filter(|kind| !matches!(*kind, "file" | "env")) {
        return Err(fail(format!("unsupported type `{kind}`, expected `file` or `env`")));
    }
    let origin = match (kind.as_deref(), file, env) {
        (None | Some("file"), Some(file), None) => SecretOrigin::File(file.into()),
        (None | Some("env"), None, Some(env)) => SecretOrigin::Env(env),
        // docker's older form: `type=env,src=NAME`.
        (Some("env"), Some(name), None) => SecretOrigin::Env(name),
        (Some("env"), None, None) => SecretOrigin::Env(id.clone()),
        (Some(_), None, None) => SecretOrigin::File(id.clone().into()),
        (None, None, None) => SecretOrigin::Unsaid,
        _ => return Err(fail("`src` and `env` exclude each other".to_owned())),
    };
    Ok(SecretOption { id, origin })
}

/// Reads `default`, `ID`, `ID=SOCKET` or `ID=KEY[,KEY…]`.
pub fn parse_ssh(text: &str) -> Result<SshOption, ValueError> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    if id.is_empty() {
        return Err(ValueError::new("--ssh", text, "expected `default` or `id[=socket|key,…]`"));
    }
    let paths = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    Ok(SshOption { id: id.to_owned(), paths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_name_their_origin() {
        for (text, origin) in [
            ("id=t,src=/x/y", SecretOrigin::File("/x/y".into())),
            ("id=t,source=y", SecretOrigin::File("y".into())),
            ("type=file,id=t,src=y", SecretOrigin::File("y".into())),
            ("id=t,env=TOKEN", SecretOrigin::Env("TOKEN".into())),
            ("id=t,type=env,src=TOKEN", SecretOrigin::Env("TOKEN".into())),
            ("id=t,type=env", SecretOrigin::Env("t".into())),
            ("id=t", SecretOrigin::Unsaid),
            (r#"id=t,"src=a,b""#, SecretOrigin::File("a,b".into())),
        ] {
            let secret = parse_secret(text).unwrap();
            assert_eq!((secret.id.as_str(), secret.origin), ("t", origin), "{text}");
        }
    }

    #[test]
    fn bad_secrets_are_refused() {
        for (text, reason) in [
            ("src=x", "`id=` is missing"),
            ("id=a,src=x,env=y", "exclude"),
            ("id=a,type=file,env=y", "exclude"),
            ("id=a,type=vault,src=y", "unsupported type `vault`"),
            ("id=a,id=b", "twice"),
            ("id=a,target=b", "unknown key `target`"),
            ("a", "expected `key=value`"),
        ] {
            let error = parse_secret(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn ssh_takes_an_id_and_paths() {
        assert_eq!(parse_ssh("default").unwrap(), SshOption { id: "default".into(), paths: vec![] });
        assert_eq!(
            parse_ssh("k=/a,/b").unwrap(),
            SshOption { id: "k".into(), paths: vec!["/a".into(), "/b".into()] }
        );
        assert!(parse_ssh("=x").is_err());
    }
}
