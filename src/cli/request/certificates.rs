//! Certificates for registries where docker and podman keep them: `certs.d/HOST[:PORT]/`, and what
//! `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
//!
//! As docker reads a host's directory: `*.crt` are authorities, `NAME.cert` with `NAME.key` is a client
//! certificate. Of several directories for a host the first counts alone, as for podman.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::RequestError;
use super::registry::pem;
use crate::cli::environment::Environment;
use crate::registry::{ClientCertificate, RegistryConfig, Secret};

/// How errors name these directories.
const CERTS_D: &str = "certs.d";
/// Where distributions keep the authorities that the administrator trusts.
const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What a certificate in PEM begins with.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Lists where `certs.d` directories are, the strongest first.
pub(super) fn directories(environment: &Environment) -> Vec<PathBuf> {
    vec![
        environment.in_config("containers/certs.d"),
        environment.in_config("docker/certs.d"),
        environment.own("/etc/containers/certs.d"),
        environment.own("/etc/docker/certs.d"),
    ]
}

/// Adds the certificates of all hosts that have a directory in one of `directories`.
pub(super) fn read(config: &mut RegistryConfig, directories: &[PathBuf]) -> Result<(), RequestError> {
    let mut done = BTreeSet::new();
    for directory in directories {
        for host in names(directory)? {
            let place = directory.join(&host);
            if place.is_dir() && done.insert(host.clone()) {
                read_host(config, &host, &place)?;
            }
        }
    }
    Ok(())
}

fn read_host(config: &mut RegistryConfig, host: &str, directory: &Path) -> Result<(), RequestError> {
    let names = names(directory)?;
    let missing = |name: &str, other: &str| RequestError::File {
        option: CERTS_D,
        path: directory.join(name),
        source: io::Error::new(
            io::ErrorKind::NotFound,
            format!("`{other}` is there, and is of no use alone"),
        ),
    };
    for name in &names {
        let path = directory.join(name);
        if name.ends_with(".crt") {
            config.host_mut(host).authorities.push(pem(CERTS_D, &path)?);
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key_name = format!("{stem}.key");
            if !names.contains(&key_name) {
                return Err(missing(&key_name, name));
            }
            let key_file = directory.join(key_name);
            let (certificate, key) = (pem(CERTS_D, &path)?, pem(CERTS_D, &key_file)?);
            config.key_files.push(key_file);
            let key = Secret::new(String::from_utf8_lossy(&key).into_owned());
            // Of several the first by name is shown.
            let own = &mut config.host_mut(host).client_certificate;
            own.get_or_insert(ClientCertificate { certificate, key });
        } else if let Some(stem) = name.strip_suffix(".key")
            && !names.contains(&format!("{stem}.cert"))
        {
            return Err(missing(&format!("{stem}.cert"), name));
        }
    }
    Ok(())
}

/// Lists a directory's names in byte order; one that is not there, or not for us, has none.
fn names(directory: &Path) -> Result<BTreeSet<String>, RequestError> {
    let fail = |source| RequestError::File { option: CERTS_D, path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if super::registry::is_not_for_us(&error) => return Ok(BTreeSet::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        // A name that is not text is no host's.
        names.extend(entry.map_err(fail)?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Reads the authorities that hold for every host, beside the built-in ones.
pub(super) fn authorities(environment: &Environment) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut found = Vec::new();
    if let Some(path) = environment.named("SSL_CERT_FILE") {
        found.push(pem("SSL_CERT_FILE", &path)?);
    }
    for directory in environment.set_var("SSL_CERT_DIR").unwrap_or_default().split(':') {
        if !directory.is_empty() {
            found.extend(bundle(&environment.own(directory))?);
        }
    }
    if found.is_empty() {
        // None of them need be there: the public authorities are built in.
        found.extend(SYSTEM_AUTHORITIES.iter().find_map(|path| fs::read(environment.own(path)).ok()));
    }
    Ok(found)
}

/// Reads all certificates of a directory, as OpenSSL and Go do: what is not one is passed over.
fn bundle(directory: &Path) -> Result<Option<Vec<u8>>, RequestError> {
    let fail = |source| RequestError::File { option: "SSL_CERT_DIR", path: directory.to_owned(), source };
    let entries: Result<Vec<PathBuf>, io::Error> =
        fs::read_dir(directory).map_err(fail)?.map(|entry| Ok(entry?.path())).collect();
    let mut paths = entries.map_err(fail)?;
    paths.sort();
    let mut all = Vec::new();
    // Distributions name each certificate twice, the second time by its hash.
    let mut seen = BTreeSet::new();
    for path in &paths {
        let Ok(metadata) = fs::metadata(path) else { continue };
        if !metadata.is_file() || !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let Ok(bytes) = fs::read(path) else { continue };
        if bytes.windows(BEGIN.len()).any(|window| window == BEGIN) {
            all.extend_from_slice(&bytes);
            all.push(b'\n');
        }
    }
    Ok((!all.is_empty()).then_some(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::environment::tests::environment;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn the_first_directory_of_a_host_counts() {
        let work = tempfile::tempdir().unwrap();
        let (first, second) = (work.path().join("first"), work.path().join("second"));
        write(
            &first,
            &[
                ("r.io:5000/ca.crt", PEM),
                ("r.io:5000/other.crt", PEM),
                ("r.io:5000/client.cert", PEM),
                ("r.io:5000/client.key", "-----BEGIN PRIVATE KEY-----\nkey\n"),
                ("r.io:5000/README", "hello"),
                ("stray.crt", "not a directory"),
            ],
        );
        write(&second, &[("r.io:5000/third.crt", PEM), ("q.io/ca.crt", PEM)]);
        let mut config = RegistryConfig::default();
        read(&mut config, &[first, second, work.path().join("none")]).unwrap();
        let host = config.host("r.io:5000");
        assert_eq!(host.authorities.len(), 2);
        assert_eq!(config.key_files.len(), 1, "{:?}", config.key_files);
        assert!(host.client_certificate.unwrap().key.reveal().contains("PRIVATE"));
        assert_eq!(config.host("q.io").authorities.len(), 1);
        assert!(config.host("r.io").authorities.is_empty());
    }

    #[test]
    fn half_a_client_certificate_is_an_error() {
        for (name, missing) in [("client.cert", "client.key"), ("client.key", "client.cert")] {
            let work = tempfile::tempdir().unwrap();
            write(work.path(), &[(&format!("r.io/{name}"), PEM)]);
            let error = read(&mut RegistryConfig::default(), &[work.path().to_owned()]).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
        let work = tempfile::tempdir().unwrap();
        write(work.path(), &[("r.io/ca.crt", "nonsense")]);
        let error = read(&mut RegistryConfig::default(), &[work.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("r.io/ca.crt"), "{error}");
    }

    #[test]
    fn the_variables_of_openssl_are_heard() {
        let work = tempfile::tempdir().unwrap();
        write(work.path(), &[("a.pem", PEM), ("one/b.pem", PEM), ("one/note", "x"), ("two/c.pem", PEM)]);
        let path = |name: &str| work.path().join(name).to_str().unwrap().to_owned();
        let file = path("a.pem");
        let directories = format!("{}:{}", path("one"), path("two"));
        std::os::unix::fs::symlink("b.pem", work.path().join("one/5ed36f99.0")).unwrap();
        let found = authorities(&environment(&[("SSL_CERT_FILE", &file), ("SSL_CERT_DIR", &directories)]));
        let found = found.unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1], [PEM.as_bytes(), b"\n"].concat(), "a certificate with two names counts once");
        assert!(authorities(&environment(&[("SSL_CERT_DIR", &path("none"))])).is_err());
        assert!(authorities(&environment(&[("SSL_CERT_FILE", &path("one/note"))])).is_err());
    }
}
