//! TLS settings: whom we trust and who we say we are, for each host.
//!
//! The public authorities are compiled in, so that an empty container can speak to Docker Hub; the user's
//! come on top. The cryptography is *ring*, named here and installed nowhere: no process-wide state.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::config::{ClientCertificate, HostConfig};
use super::error::RegistryError;

/// Whom we trust beside the public authorities and the host's own.
pub(super) struct Trust<'a> {
    /// For every host, PEM bundles.
    pub(super) extra_authorities: &'a [Vec<u8>],
    /// Whether whoever answers will do.
    pub(super) skip_tls_verify: bool,
}

/// Makes the TLS settings for connections to `host`.
pub(super) fn client_config(
    host: &str,
    settings: &HostConfig,
    trust: &Trust<'_>,
    http2: bool,
) -> Result<ClientConfig, RegistryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3");
    let builder = if trust.skip_tls_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny { provider }))
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        for bundle in trust.extra_authorities.iter().chain(&settings.authorities) {
            add_bundle(&mut roots, host, bundle)?;
        }
        builder.with_root_certificates(roots)
    };
    let mut config = match &settings.client_certificate {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(host, identity)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| bad_identity(host, error.to_string()))?
        }
    };
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

/// Makes TLS settings with which no handshake succeeds: for connections without TLS.
pub(super) fn trusting_nobody() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn add_bundle(roots: &mut RootCertStore, host: &str, bundle: &[u8]) -> Result<(), RegistryError> {
    let bad = |reason: String| RegistryError::Config {
        what: format!("the certificate authorities for `{host}`"),
        reason,
    };
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| bad(format!("not PEM: {error}")))?;
        // System bundles hold the odd certificate that is too old to parse; the rest still counts.
        if roots.add(certificate).is_ok() {
            found += 1;
        }
    }
    if found == 0 {
        return Err(bad("expected at least one PEM certificate, found none".to_owned()));
    }
    Ok(())
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_identity(host: &str, identity: &ClientCertificate) -> Result<Identity, RegistryError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_identity(host, format!("the certificate is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(bad_identity(host, "expected a PEM certificate, found none".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes())
        .map_err(|error| bad_identity(host, format!("the key can't be read: {error}")))?;
    Ok((chain, key))
}

fn bad_identity(host: &str, reason: String) -> RegistryError {
    RegistryError::Config { what: format!("the client certificate for `{host}`"), reason }
}

/// Accepts any certificate: `--skip-tls-verify`. Signatures are still checked: whoever shows the
/// certificate must hold its key.
#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Says in people's words why a handshake failed, and what to do about it.
pub(super) fn explain(host: &str, error: &rustls::Error) -> (String, Option<String>) {
    use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
    let trust = || Some(format!("pass the authority's certificate with `--registry-ca {host}=FILE`"));
    match error {
        // A bad signature: an authority of the same name with another key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            ("its certificate was signed by an unknown authority".to_owned(), trust())
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => (
            "its certificate has expired".to_owned(),
            Some("check the clock of this machine as well".to_owned()),
        ),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => (
            "its certificate is not valid yet".to_owned(),
            Some("check the clock of this machine".to_owned()),
        ),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => ("its certificate is for another name".to_owned(), Some("check the registry's name".to_owned())),
        Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            (
                "its certificate is a certificate authority's, not a server's".to_owned(),
                Some(format!(
                    "give the server a certificate of its own, or pass `--skip-tls-verify-registry {host}`"
                )),
            )
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
            "it does not speak TLS".to_owned(),
            Some(format!("if it serves plain HTTP, pass `--insecure-registry {host}`")),
        ),
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown,
        ) => client_certificate(host),
        other => (other.to_string(), None),
    }
}

fn client_certificate(host: &str) -> (String, Option<String>) {
    (
        "it does not accept our client certificate, or wants one".to_owned(),
        Some(format!("pass one with `--registry-client-cert {host}=CERT,KEY`")),
    )
}

/// The same for an alert that came so late (TLS 1.3 tells the client last) that only its text is left.
pub(super) fn explain_alert(host: &str, text: &str) -> Option<(String, Option<String>)> {
    let alert = text.split("received fatal alert: ").nth(1)?;
    let about_us = ["CertificateRequired", "BadCertificate", "UnknownCA", "CertificateUnknown"];
    Some(if about_us.iter().any(|known| alert.starts_with(known)) {
        client_certificate(host)
    } else {
        (format!("it ended the handshake: {alert}"), None)
    })
}

#[cfg(test)]
mod tests {
    use super::super::secret::Secret;
    use super::*;

    fn trust(extra_authorities: &[Vec<u8>]) -> Trust<'_> {
        Trust { extra_authorities, skip_tls_verify: false }
    }

    #[test]
    fn public_authorities_need_no_files() {
        let config = client_config("r.io", &HostConfig::default(), &trust(&[]), true).unwrap();
        assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
    }

    #[test]
    fn an_empty_bundle_is_an_error() {
        let error =
            client_config("r.io", &HostConfig::default(), &trust(&[b"hello".to_vec()]), true).unwrap_err();
        assert!(error.to_string().contains("found none"), "{error}");
    }

    #[test]
    fn a_bad_client_key_is_an_error_that_does_not_show_it() {
        let identity = ClientCertificate {
            certificate: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            key: Secret::new("not a key"),
        };
        let host = HostConfig { client_certificate: Some(identity), ..HostConfig::default() };
        let error = client_config("r.io", &host, &trust(&[]), true).unwrap_err();
        assert!(!format!("{error:?}{error}").contains("not a key"), "{error}");
    }
}
