//! Webhooks: what registries say when something was pushed.
//!
//! Each kind is proved in its own way ([`verify`]) and read in its own way ([`payload`]); both are pure
//! functions of a request. Where an image is pulled from is never taken from a payload: each webhook
//! names its registry in the configuration.

pub mod oidc;
pub mod payload;
pub mod verify;

use serde::Deserialize;

use self::verify::Auth;
use super::secret::SecretSource;
use crate::source::{Digest, Name};

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// CNCF Distribution, which is Docker's `registry` as well.
    Distribution,
    /// Harbor, in either of its two formats.
    Harbor,
    /// Docker Hub.
    DockerHub,
    /// GitHub Packages.
    Github,
    /// GitLab's registry: Distribution's notifications with GitLab's ways to prove them.
    Gitlab,
    /// Quay and Red Hat Quay.
    Quay,
    /// Zot: CloudEvents.
    Zot,
    /// Amazon ECR by an EventBridge API destination.
    Ecr,
    /// Azure Container Registry.
    Acr,
    /// Google Artifact Registry by a Pub/Sub push subscription.
    ArtifactRegistry,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Distribution,
        Kind::Harbor,
        Kind::DockerHub,
        Kind::Github,
        Kind::Gitlab,
        Kind::Quay,
        Kind::Zot,
        Kind::Ecr,
        Kind::Acr,
        Kind::ArtifactRegistry,
    ];

    /// The only registry that there is, where there is only one.
    fn registry(self) -> Option<&'static str> {
        match self {
            Kind::DockerHub => Some("docker.io"),
            Kind::Github => Some("ghcr.io"),
            _ => None,
        }
    }
}

/// A webhook's table in the configuration. How it is proved depends on what is there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name: it is sent to `/hooks/NAME`.
    pub name: String,
    kind: Kind,
    registry: Option<String>,
    /// A secret that is sent along: as bearer token, or in `header`.
    token: Option<SecretSource>,
    /// The header that holds `token`.
    header: Option<String>,
    /// User name of basic authentication.
    username: Option<String>,
    /// Its password.
    password: Option<SecretSource>,
    /// The key of a signature.
    secret: Option<SecretSource>,
    /// A secret in the address: `?token=...`.
    url_token: Option<SecretSource>,
    /// Whom a Google token is for.
    audience: Option<String>,
    /// The account that a Google token was issued to.
    service_account: Option<String>,
    /// Where Google's keys are.
    keys: Option<String>,
}

/// A webhook that is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub name: String,
    /// Who sends it.
    pub kind: Kind,
    /// Where images are pulled from, `host` or `host:port`.
    pub registry: String,
    /// How it is proved.
    pub auth: Auth,
}

/// Something was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The registry as the configuration names it.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// Its tag, if it has one.
    pub tag: Option<String>,
    /// Digest of its manifest or index, if it is told.
    pub digest: Option<Digest>,
}

impl Push {
    /// A push, if its parts make a reference.
    ///
    /// # Errors
    /// Says which rule a part breaks.
    pub fn new(
        registry: &str,
        repository: &str,
        tag: Option<&str>,
        digest: Option<Digest>,
    ) -> Result<Push, String> {
        if tag.is_none() && digest.is_none() {
            return Err("it has neither tag nor digest".to_owned());
        }
        let tag = tag.map(str::to_owned);
        let repository = repository.to_owned();
        let push = Push { registry: registry.to_owned(), repository, tag, digest };
        let name: Name = push.reference().parse().map_err(str::to_owned)?;
        // A repository with a colon, say, would have been read as something else.
        let same = name.host == push.registry && name.tag == push.tag && name.digest == push.digest;
        if !same || !name.repository.ends_with(&push.repository) {
            return Err("repository or tag is malformed".to_owned());
        }
        Ok(push)
    }

    /// The reference of the image.
    pub fn reference(&self) -> String {
        let mut text = format!("{}/{}", self.registry, self.repository);
        if let Some(tag) = &self.tag {
            text += &format!(":{tag}");
        }
        if let Some(digest) = &self.digest {
            text += &format!("@{digest}");
        }
        text
    }
}

impl Webhook {
    /// Makes a webhook of its table.
    ///
    /// # Errors
    /// In words.
    pub fn resolve(table: Table) -> Result<Webhook, String> {
        let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if table.name.is_empty() || !table.name.chars().all(safe) {
            return Err("a name has letters, digits, `-`, `_` and `.`".to_owned());
        }
        let kind = table.kind;
        let registry = match (&table.registry, kind.registry()) {
            (Some(registry), _) => registry.clone(),
            (None, Some(only)) => only.to_owned(),
            (None, None) => {
                return Err("`registry` is missing: where images are pulled from".into());
            }
        };
        let name: Result<Name, _> = format!("{registry}/x/y").parse();
        match name {
            Ok(name) if name.host == registry => {}
            Ok(_) => return Err("`registry` is no host, or host and port".to_owned()),
            Err(reason) => return Err(format!("`registry`: {reason}")),
        }
        let name = table.name.clone();
        Ok(Webhook { name, kind, registry, auth: auth(table)? })
    }
}

/// How a webhook is proved: exactly one way must be given, and one that its sender has.
fn auth(table: Table) -> Result<Auth, String> {
    let kind = table.kind;
    let read = |secret: &SecretSource| secret.read();
    let mut ways = Vec::new();
    if let Some(token) = &table.token {
        let default = if kind == Kind::Gitlab { "x-gitlab-token" } else { "authorization" };
        let header = table.header.clone().unwrap_or_else(|| default.to_owned());
        let header = header.to_ascii_lowercase();
        if reqwest::header::HeaderName::from_bytes(header.as_bytes()).is_err() {
            return Err(format!("`{header}` is no name of a header"));
        }
        ways.push(Auth::Token { header, secret: read(token)? });
    }
    match (&table.username, &table.password) {
        (Some(user), Some(password)) => {
            ways.push(Auth::Basic { user: user.clone(), password: read(password)? });
        }
        (None, None) => {}
        _ => return Err("`username` and `password` belong together".to_owned()),
    }
    if let Some(secret) = &table.secret {
        ways.push(match kind {
            Kind::Github => Auth::HubSignature(read(secret)?),
            Kind::Gitlab => Auth::standard(&read(secret)?)?,
            _ => return Err("only `github` and `gitlab` sign by a `secret`".to_owned()),
        });
    }
    if let Some(token) = &table.url_token {
        ways.push(Auth::Url(read(token)?));
    }
    match (table.audience, table.service_account) {
        (Some(audience), Some(email)) => {
            let keys = table.keys.unwrap_or_else(|| oidc::GOOGLE_KEYS.to_owned());
            ways.push(Auth::Oidc { audience, email, keys });
        }
        (None, None) => {}
        _ => return Err("`audience` and `service_account` belong together".to_owned()),
    }
    let advice = match kind {
        Kind::DockerHub => "`url_token`",
        Kind::Github => "`secret`",
        Kind::Gitlab => "`token` or `secret`",
        Kind::Quay => "`url_token`, or `username` and `password`",
        Kind::ArtifactRegistry => "`audience` and `service_account`",
        _ => "`token`, or `username` and `password`",
    };
    let mut ways = ways.into_iter();
    let way = ways.next().ok_or(format!("nothing proves who sends it; give {advice}"))?;
    if ways.next().is_some() {
        return Err("it has several ways to be proved; one is enough".to_owned());
    }
    let possible = match kind {
        Kind::DockerHub => matches!(way, Auth::Url(_)),
        Kind::Github => matches!(way, Auth::HubSignature(_)),
        Kind::Gitlab => matches!(way, Auth::Token { .. } | Auth::Standard(_)),
        Kind::Quay => matches!(way, Auth::Url(_) | Auth::Basic { .. }),
        Kind::ArtifactRegistry => matches!(way, Auth::Oidc { .. }),
        _ => matches!(way, Auth::Token { .. } | Auth::Basic { .. }),
    };
    if possible {
        Ok(way)
    } else {
        Err(format!("its sender cannot prove itself so; give {advice}"))
    }
}
