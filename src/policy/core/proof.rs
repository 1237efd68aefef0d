//! Who we are to Core, and how each request shows it (contract §1.5 to §1.7).
//!
//! The identity alone chooses the version of every route: v3 with a workload
//! key, as long as Core has a workload identity for us; else v2 as an Okta AI
//! agent; else v1, signed or not. A request is never repeated as another one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::domain::Timestamp;

use super::client::{Answered, NoAnswer};
use super::errand::Errands;
use super::flight::{Fetched, Flight};
use super::identity::Identity;
use super::okta::{self, Asserted, Okta, OktaNames};
use super::reasons;
use super::rsa::RsaKey;
use super::verify::Known;
use super::workload::{self, Account, Token};

/// What Core tells an Okta AI agent about itself.
pub(super) const BOOTSTRAP_V2: &str = "/api/v2/auth/bootstrap";

/// What Core tells a workload about itself.
pub(super) const BOOTSTRAP_V3: &str = "/api/v3/auth/bootstrap";

/// How long Core is believed that it has no workload identity for us.
const WITHOUT_FOR: Duration = Duration::from_secs(60);

/// As whom Core is asked.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    /// Shown where no workload identity is.
    pub own: Own,
    /// The key of the workload, tried first.
    pub workload: Option<RsaKey>,
}

/// An identity of the agent's own.
#[derive(Clone, Debug, Default)]
pub enum Own {
    /// None: the API key alone is shown.
    #[default]
    Unsigned,
    /// A DID, and its Ed25519 key.
    Did(Identity),
    /// An Okta AI agent, and its RSA key.
    Okta(Okta),
}

impl Identities {
    /// The DID, and its key, if that is what is shown.
    pub fn did(&self) -> Option<&Identity> {
        match &self.own {
            Own::Did(identity) => Some(identity),
            Own::Unsigned | Own::Okta(_) => None,
        }
    }

    /// What this agent's signatures are checked with.
    pub fn known(&self) -> Option<Known> {
        match &self.own {
            Own::Unsigned => None,
            Own::Did(identity) => identity.signer().map(Known::Did),
            Own::Okta(okta) => Some(Known::Okta(okta.known())),
        }
    }
}

/// Why we cannot show who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// Whoever has to say it gives no answer.
    Absent(Arc<str>),
    /// It was said that we are not who we say, or nothing that can be used.
    Rejected(Arc<str>),
}

impl Unproven {
    pub(super) fn absent(why: String) -> Self {
        Self::Absent(why.into())
    }

    pub(super) fn rejected(why: String) -> Self {
        Self::Rejected(why.into())
    }

    /// `who` gave no answer, or none that can be read.
    fn unanswered(who: &str, error: &NoAnswer) -> Self {
        let why = format!("{who} {error}");
        match error {
            NoAnswer::NotHttp(_) | NoAnswer::TooLong(_) => Self::rejected(why),
            NoAnswer::Unreachable(_)
            | NoAnswer::BrokeOff(_)
            | NoAnswer::TooSlow(_)
            | NoAnswer::Resting(_)
            | NoAnswer::Queued(_)
            | NoAnswer::Unproven(_) => Self::absent(why),
        }
    }

    /// `who` answered with another status than the one that was hoped for.
    fn refused(who: &str, answered: &Answered, meaning: &str) -> Self {
        let complaint = reasons::complaint(answered);
        let said = reasons::said(answered.status, &complaint);
        let meaning = reasons::meaning(&complaint).unwrap_or(meaning);
        let why = format!("{who} answered {said}: {meaning}");
        if answered.status == StatusCode::TOO_MANY_REQUESTS || answered.status.is_server_error() {
            Self::absent(why)
        } else {
            Self::rejected(why)
        }
    }
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) | Self::Rejected(why) => f.write_str(why),
        }
    }
}

/// A version of Core's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
    V3,
}

/// What one request shows.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    /// A signature by DID, or none.
    Own,
    /// An assertion that names this.
    Okta(Arc<OktaNames>),
    /// This token.
    Workload(Arc<Token>),
}

impl Shown {
    pub(super) fn version(&self) -> Version {
        match self {
            Self::Own => Version::V1,
            Self::Okta(_) => Version::V2,
            Self::Workload(_) => Version::V3,
        }
    }
}

/// Shows Core who we are.
#[derive(Debug)]
pub(super) struct Prover {
    identities: Identities,
    errands: Arc<Errands>,
    names: Arc<Flight<Arc<OktaNames>>>,
    tokens: Arc<Flight<Option<Arc<Token>>>>,
    accounts: Arc<Accounts>,
}

/// The account that tokens are fetched for.
#[derive(Debug, Default)]
struct Accounts {
    known: Mutex<Option<Account>>,
    /// Whether it was told that Core has none.
    told_without: AtomicBool,
}

impl Prover {
    pub(super) fn new(identities: Identities, errands: Errands) -> Self {
        let prover = Self {
            names: Arc::default(),
            tokens: Arc::default(),
            accounts: Arc::default(),
            errands: Arc::new(errands),
            identities,
        };
        if let Own::Okta(Okta {
            names: Some(names), ..
        }) = &prover.identities.own
        {
            prover.names.hold(Arc::clone(names));
        }
        prover
    }

    /// What the next request shows.
    ///
    /// # Errors
    ///
    /// Nothing can be shown. Then nothing is asked, least of all as somebody
    /// else.
    pub(super) async fn shown(&self) -> Result<Shown, Unproven> {
        if let Some(key) = &self.identities.workload {
            let (errands, accounts) = (Arc::clone(&self.errands), Arc::clone(&self.accounts));
            let key = key.clone();
            let fetch = move || async move { accounts.token(&errands, &key).await };
            if let Some(token) = self.tokens.get(fetch).await? {
                return Ok(Shown::Workload(token));
            }
        }
        match &self.identities.own {
            Own::Unsigned | Own::Did(_) => Ok(Shown::Own),
            Own::Okta(okta) => {
                let (errands, okta) = (Arc::clone(&self.errands), okta.clone());
                let fetch = move || async move { names(&errands, &okta).await };
                self.names.get(fetch).await.map(Shown::Okta)
            }
        }
    }

    /// Whether there is anything to show.
    pub(super) fn has_identity(&self) -> bool {
        self.identities.workload.is_some() || !matches!(self.identities.own, Own::Unsigned)
    }

    /// Adds what `shown` shows to one request, sent at `at`.
    pub(super) fn show(
        &self,
        shown: &Shown,
        headers: &mut HeaderMap,
        request: Asserted<'_>,
        at: Timestamp,
    ) {
        match (shown, &self.identities.own) {
            (Shown::Own, Own::Did(identity)) => {
                identity.sign(headers, request.method, request.path, request.body, at);
            }
            (Shown::Okta(names), Own::Okta(okta)) => {
                names.assert(headers, &okta.key, self.errands.key(), request, at);
            }
            (Shown::Workload(token), _) => {
                okta::insert(headers, workload::TOKEN, Some(token.value.expose()));
            }
            (Shown::Own, Own::Unsigned | Own::Okta(_))
            | (Shown::Okta(_), Own::Unsigned | Own::Did(_)) => {}
        }
    }

    /// Core did not take what was shown: before the next question it is asked
    /// anew who we are. The question itself stays refused.
    pub(super) fn doubt(&self, shown: &Shown) {
        match (shown, &self.identities.own) {
            (Shown::Workload(_), _) => {
                self.accounts.forget();
                self.tokens.doubt();
            }
            (Shown::Okta(_), Own::Okta(Okta { names: None, .. })) => self.names.doubt(),
            (Shown::Okta(_) | Shown::Own, _) => {}
        }
    }
}

/// What Core says that assertions of `okta` name.
async fn names(errands: &Errands, okta: &Okta) -> Result<Fetched<Arc<OktaNames>>, Unproven> {
    const WHO: &str = "its identity bootstrap";
    let answered = errands.bootstrap(BOOTSTRAP_V2).await;
    let answered = answered.map_err(|error| Unproven::unanswered(WHO, &error))?;
    if answered.status == StatusCode::NOT_FOUND {
        return Err(Unproven::rejected(format!(
            "{WHO} answered HTTP 404: this Core is too old to tell who an Okta AI agent is; update it, or set OPENBOX_OKTA_AGENT_ID and the other settings of the identity"
        )));
    }
    if answered.status != StatusCode::OK {
        let meaning = "check OPENBOX_API_KEY and the identity of this agent in OpenBox";
        return Err(Unproven::refused(WHO, &answered, meaning));
    }
    let names = Arc::new(okta::names(&answered.body, &okta.key)?);
    okta.told.keep(Arc::clone(&names), answered.body.into());
    tracing::info!(agent = %names.agent_id, key = %names.key_id, "OpenBox Core knows our key as the one of this Okta AI agent");
    Ok(Fetched {
        value: names,
        renew_at: None,
        ends_at: None,
    })
}

impl Accounts {
    /// A token; none where Core has no workload identity for us.
    async fn token(
        &self,
        errands: &Errands,
        key: &RsaKey,
    ) -> Result<Fetched<Option<Arc<Token>>>, Unproven> {
        let known = self.lock().clone();
        let account = match known {
            Some(account) => account,
            None => match account(errands).await? {
                Some(account) => account,
                None => return Ok(self.without()),
            },
        };
        let token = granted(errands, &account, key).await;
        let is_kept = !matches!(token, Err(Unproven::Rejected(_)));
        // One that gets no token may be another by now.
        *self.lock() = is_kept.then_some(account);
        let token = token?;
        self.told_without.store(false, Ordering::Relaxed);
        Ok(Fetched {
            renew_at: Some(token.renew_at),
            ends_at: Some(token.ends_at),
            value: Some(Arc::new(token)),
        })
    }

    fn without(&self) -> Fetched<Option<Arc<Token>>> {
        if !self.told_without.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "OpenBox Core has no workload identity for us: it is asked without one, and again for one every minute"
            );
        }
        Fetched {
            value: None,
            renew_at: None,
            ends_at: Instant::now().checked_add(WITHOUT_FOR),
        }
    }

    fn forget(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Account>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account that Core has for us; none where it says that it has none, or
/// does not know such accounts. Everything else ends the question: an identity
/// that may be there is not left out.
async fn account(errands: &Errands) -> Result<Option<Account>, Unproven> {
    const WHO: &str = "its workload bootstrap";
    let answered = errands.bootstrap(BOOTSTRAP_V3).await;
    let answered = answered.map_err(|error| Unproven::unanswered(WHO, &error))?;
    let code = "workload_identity_unavailable";
    match answered.status {
        StatusCode::OK => {
            let account = workload::account(&answered.body)?;
            tracing::info!(endpoint = %account.endpoint, "OpenBox Core has a workload identity for us");
            Ok(Some(account))
        }
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::CONFLICT if reasons::code(&answered).as_deref() == Some(code) => Ok(None),
        _ => {
            let meaning = "check OPENBOX_API_KEY and the identity of this agent in OpenBox";
            Err(Unproven::refused(WHO, &answered, meaning))
        }
    }
}

async fn granted(errands: &Errands, account: &Account, key: &RsaKey) -> Result<Token, Unproven> {
    let who = format!("the token endpoint {}", account.endpoint);
    let form = account
        .form(key, super::now())
        .ok_or_else(|| Unproven::absent("the system gives no random numbers".to_owned()))?;
    // Before it is asked: what it grants is counted from then.
    let now = Instant::now();
    let answered = errands.form(&account.endpoint, form).await;
    let answered = answered.map_err(|error| Unproven::unanswered(&who, &error))?;
    if answered.status != StatusCode::OK {
        let meaning = "it grants no token for this key; check OPENBOX_WORKLOAD_PRIVATE_KEY, the clock of this machine, and the workload identity of this agent in OpenBox";
        return Err(Unproven::refused(&who, &answered, meaning));
    }
    workload::token(&answered.body, now)
}
