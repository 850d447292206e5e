//! The appliance's own certificate authority: who may speak with it is who holds a certificate of it.
//!
//! One authority for one appliance, with no intermediates. Keys are ECDSA P-256, which every TLS library knows. The
//! authority's key is needed only to issue, so it may be kept away from the appliance.

use crate::identity::{BadIdentity, Fingerprint, Identity, PeerName, Role};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

#[cfg(test)]
mod tests;

/// How long an authority's own certificate is valid, in days.
pub const AUTHORITY_DAYS: u32 = 20 * 365;
/// How long the certificates that it issues are valid unless told otherwise, in days.
pub const ISSUED_DAYS: u32 = 5 * 365;
/// The longest that may be asked for, in days.
pub const DAYS_MAX: u32 = AUTHORITY_DAYS;

/// A certificate and its private key, as PEM. Shows the certificate only.
pub struct Pair {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key, PKCS #8.
    pub key_pem: String,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// An authority with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// Makes a new one. `label` appears in its name, for people.
    pub fn create(label: &str, now: Timestamp) -> Result<(Self, Pair), PkiError> {
        let mut params = params(&format!("Sluice CA {label}"), now, AUTHORITY_DAYS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        let pair = Pair {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            fingerprint: Fingerprint::of(certificate.der()),
        };
        let authority = Self { certificate_pem: pair.certificate_pem.clone(), issuer: Issuer::new(params, key) };
        Ok((authority, pair))
    }

    /// Loads one from its PEM texts; the key must be that of the certificate.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem)?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| PkiError::NotPem)?;
        let public = x509_parser::parse_x509_certificate(&der).map_err(|_| PkiError::NotPem)?.1;
        if public.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(PkiError::OtherKey);
        }
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned() })
    }

    /// The authority's certificate, which both ends need to verify the other.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues the appliance's own certificate for `names`: host names and IP addresses that clients connect to.
    pub fn issue_server(&self, names: &[String], now: Timestamp, days: u32) -> Result<Pair, PkiError> {
        let mut params = params("Sluice appliance", now, days)?;
        if names.is_empty() {
            return Err(PkiError::NoNames);
        }
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// Issues a client's certificate.
    pub fn issue_client(&self, role: Role, name: &PeerName, now: Timestamp, days: u32) -> Result<Pair, PkiError> {
        let mut params = params(&format!("{role} {name}"), now, days)?;
        params.subject_alt_names = vec![SanType::URI(Identity::uri(role, name).try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Pair, PkiError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            fingerprint: Fingerprint::of(certificate.der()),
        })
    }
}

fn params(common_name: &str, now: Timestamp, days: u32) -> Result<CertificateParams, PkiError> {
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(PkiError::Days);
    }
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    // From the day before: the clocks of two hosts need not agree.
    let day =
        |date: Date| rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs());
    let today = now.to_zoned(TimeZone::UTC).date();
    params.not_before = day(today.saturating_sub(1.day()));
    params.not_after = day(today.saturating_add(i64::from(days).days()));
    Ok(params)
}

/// What went wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PkiError {
    /// A name in it can't stand in a certificate, or a text is no certificate.
    #[error("certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
    /// The text holds no certificate.
    #[error("no PEM certificate found")]
    NotPem,
    /// Certificate and key don't belong together.
    #[error("the authority's key is not the key of its certificate")]
    OtherKey,
    /// A server certificate for nobody.
    #[error("a server certificate needs at least one host name or IP address")]
    NoNames,
    /// Outside of what is allowed.
    #[error("a certificate is valid for 1 to {DAYS_MAX} days")]
    Days,
    /// It names nobody.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
}
