//! The appliance's end of TLS: 1.3, or 1.2 for old clients, and nobody without a certificate of our authority.
//!
//! Sessions are never resumed: a resumed session skips the client's certificate, and with it expiry and revocation. A
//! kept-alive connection outlives a revocation too, so [`TlsServer::check`] is to be asked for every request.

use crate::identity::{BadIdentity, Fingerprint, Identity};
use revoked::Revoked;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as RustlsError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

mod revoked;
pub use revoked::parse as revoked_in;
#[cfg(test)]
mod tests;

/// The files that a [`TlsServer`] is made of, all PEM but the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The appliance's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates of the authorities whose clients are let in; more than one while an authority is replaced.
    pub authorities: PathBuf,
    /// Fingerprints of revoked certificates, one a line; `#` begins a comment. Read again whenever it changes.
    pub revoked: PathBuf,
}

/// Takes TLS connections and says whose they are.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    revoked: Arc<Revoked>,
}

impl TlsServer {
    /// Reads the files. A list of revoked certificates that can't be read is an error, never an empty list.
    pub fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let revoked = Arc::new(Revoked::open(&files.revoked)?);
        let verifier = Verifier { inner: verifier_of(&files.authorities, &provider)?, revoked: Arc::clone(&revoked) };
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(TlsError::pem(&files.key))?;
        let chain = certificates_in(&files.certificate)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .and_then(|builder| builder.with_client_cert_verifier(Arc::new(verifier)).with_single_cert(chain, key))
            .map_err(|source| TlsError::Unusable { file: files.certificate.clone(), source: source.into() })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), revoked })
    }

    /// Shakes hands with whoever connected. Has no time limit of its own.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Identity), Refusal>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor.accept(io).await.map_err(Refusal::of_handshake)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(|chain| chain.first()).ok_or(Refusal::NoCertificate)?;
        let identity = Identity::of_certificate(certificate)?;
        Ok((stream, identity))
    }

    /// Whether the peer's certificate still holds good; to be asked for every request of a connection.
    pub fn check(&self, identity: &Identity) -> Result<(), Refusal> {
        if self.revoked.holds(&identity.fingerprint) { Err(Refusal::Revoked) } else { Ok(()) }
    }
}

fn verifier_of(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(file)? {
        roots.add(certificate).map_err(|source| TlsError::Unusable { file: file.to_owned(), source: source.into() })?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| TlsError::Unusable { file: file.to_owned(), source: source.into() })
}

fn certificates_in(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(file).map_err(TlsError::pem(file))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(TlsError::pem(file))?;
    if found.is_empty() { Err(TlsError::pem(file)(rustls::pki_types::pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// WebPKI's verification, then the list of revoked certificates and that the certificate names somebody. Before the
/// handshake ends, so that the client hears the reason as a TLS alert.
#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    revoked: Arc<Revoked>,
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, RustlsError> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.revoked.holds(&Fingerprint::of(end_entity)) {
            return Err(CertificateError::Revoked.into());
        }
        if Identity::of_certificate(end_entity).is_err() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Why a peer was not let in, for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It showed no certificate.
    #[error("it showed no client certificate")]
    NoCertificate,
    /// Its certificate is over, by this host's clock.
    #[error("its certificate has expired; issue a new one with `sluice-appliance issue-cert`")]
    Expired,
    /// Its certificate begins later, by this host's clock.
    #[error("its certificate is not valid yet; compare the two hosts' clocks")]
    NotYetValid,
    /// Its certificate is on the list of revoked ones.
    #[error("its certificate is revoked")]
    Revoked,
    /// Another authority issued its certificate.
    #[error("its certificate was issued by an authority that this appliance does not know")]
    UnknownAuthority,
    /// Its certificate is one of ours but names no role, as the appliance's own does not.
    #[error("its certificate is not one for a client of Sluice")]
    NotAClient,
    /// Its certificate names nobody.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
    /// It speaks no TLS of ours, or the connection broke.
    #[error("no TLS handshake came about: {0}")]
    Handshake(io::Error),
}

impl Refusal {
    fn of_handshake(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<RustlsError>());
        match cause {
            Some(RustlsError::NoCertificatesPresented) => Self::NoCertificate,
            Some(RustlsError::InvalidCertificate(reason)) => match reason {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
                CertificateError::Revoked => Self::Revoked,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownAuthority,
                CertificateError::ApplicationVerificationFailure
                | CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. } => Self::NotAClient,
                _ => Self::Handshake(error),
            },
            _ => Self::Handshake(error),
        }
    }
}

/// Why the appliance's own TLS material can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file is missing, unreadable or holds nothing of use.
    #[error("{}: {source}; `sluice-appliance init` makes these files", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What the reader said.
        source: rustls::pki_types::pem::Error,
    },
    /// The list of revoked certificates is missing, unreadable or malformed.
    #[error("list of revoked certificates {}: {reason}", file.display())]
    Revoked {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// Certificate and key don't fit, or the certificate is not one that can be used so.
    #[error("{}: {source}", file.display())]
    Unusable {
        /// The certificate's file.
        file: PathBuf,
        /// What the TLS library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsError {
    fn pem(file: &Path) -> impl Fn(rustls::pki_types::pem::Error) -> Self {
        move |source| Self::Pem { file: file.to_owned(), source }
    }
}
