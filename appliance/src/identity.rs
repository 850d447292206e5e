//! Who a peer is: what its certificate says, in the URI `sluice://ROLE/NAME`.

use std::fmt;
use std::str::FromStr;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a peer may do at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Ships the disks of a machine.
    Agent,
    /// Applies cycles to targets and judges them.
    Hydrator,
    /// Looks at everything and sets the policy.
    Operator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Hydrator, Self::Operator];

    /// The word for it in certificates, files and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Hydrator => "hydrator",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = BadIdentity;
    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(BadIdentity::Role)
    }
}

/// A peer's name: 1 to 63 of `a-z`, `0-9`, `-`, `_` and `.`, with a letter or digit first. Safe in file names and logs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(String);

impl PeerName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PeerName {
    type Err = BadIdentity;
    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = |b: u8| plain(b) || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=63).contains(&text.len()) && plain(text.as_bytes()[0]) && text.bytes().all(inner);
        if good { Ok(Self(text.to_owned())) } else { Err(BadIdentity::Name) }
    }
}

/// The SHA-256 of a certificate's DER: names a certificate where it is revoked or logged. Written as 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of the certificate `der`.
    pub fn of(der: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = BadIdentity;
    /// Takes capitals and colons too, as `openssl x509 -fingerprint -sha256` prints them.
    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let digits: Option<Vec<u32>> =
            text.chars().filter(|c| *c != ':').take(65).map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64).ok_or(BadIdentity::Fingerprint)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] * 16 + pair[1]) as u8;
        }
        Ok(Self(bytes))
    }
}

/// A peer whose certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// What it may do at all.
    pub role: Role,
    /// Which one of these it is.
    pub name: PeerName,
    /// The certificate that it showed.
    pub fingerprint: Fingerprint,
}

impl Identity {
    /// Reads it from a certificate, which must name exactly one identity of ours. Verifies nothing else.
    pub fn of_certificate(der: &[u8]) -> Result<Self, BadIdentity> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| BadIdentity::Certificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| BadIdentity::Certificate)?;
        let names = names.map(|extension| &extension.value.general_names[..]).unwrap_or_default();
        let mut ours = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(SCHEME),
            _ => None,
        });
        let (Some(path), None, true) = (ours.next(), ours.next(), rest.is_empty()) else {
            return Err(BadIdentity::Uri);
        };
        let (role, name) = path.split_once('/').ok_or(BadIdentity::Uri)?;
        Ok(Self { role: role.parse()?, name: name.parse()?, fingerprint: Fingerprint::of(der) })
    }

    /// The URI that stands in the certificate of this role and name.
    pub fn uri(role: Role, name: &PeerName) -> String {
        format!("{SCHEME}{role}/{name}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

const SCHEME: &str = "sluice://";

/// The text or certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadIdentity {
    /// It could not be read at all.
    #[error("not a readable X.509 certificate")]
    Certificate,
    /// It holds no URI of ours, or several.
    #[error("the certificate does not name exactly one sluice://ROLE/NAME")]
    Uri,
    /// The role is none of ours.
    #[error("the role must be agent, hydrator or operator")]
    Role,
    /// The name has other characters or a wrong length.
    #[error("a name has 1 to 63 of a-z, 0-9, '-', '_' and '.', and begins with a letter or digit")]
    Name,
    /// It is no SHA-256 in hexadecimal digits.
    #[error("a fingerprint is a SHA-256: 64 hexadecimal digits")]
    Fingerprint,
}
