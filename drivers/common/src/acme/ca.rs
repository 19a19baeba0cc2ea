//! The steps of an order, each a request or a few to the authority.
//!
//! The client of the protocol has two functions that wait by themselves, on a runtime that is not here:
//! `poll_ready` and `poll_certificate`. They are not called (a lint refuses them): the core says when an
//! order is read again.

use std::time::{Duration, Instant};

use instant_acme::{
    Account, AuthorizationState, CertificateIdentifier, ChallengeStatus, ChallengeType, Error,
    ExternalAccountKey, Identifier, Key, NewAccount, NewOrder,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ruststrom_core::acme::{
    Authorization, AuthorizationStatus, Challenge, Order, OrderStatus, Outcome, Problem, ProblemKind,
    RenewalInfo, Settings, Step,
};
use ruststrom_core::config::{AcmeKeyType, ExternalAccount};

use super::account_file::{self, AccountFile};
use super::ca_http::CaHttp;
use super::certificate_file::{self, CertificateFile, Unusable};
use super::challenges::Answer;
use super::keeper::Keeper;
use super::problem::{self, LastAnswer};

/// Other processes that share the folder look for answers to challenges every second: the authority is told
/// to look when they have them.
const SHARED_AFTER: Duration = Duration::from_millis(1500);

type Done<T> = Result<T, Problem>;

/// What one manager has to do with an authority.
pub(super) struct Ca {
    http: CaHttp,
    eab: Option<ExternalAccount>,
    account: Option<Account>,
    order: Option<instant_acme::Order>,
    /// The order's authorizations have been read since the order was.
    authorizations_read: bool,
    /// When the answers to challenges were put into the folder.
    shared: Option<Instant>,
    /// What [`Step::Download`] has brought.
    pub(super) downloaded: Option<CertificateFile>,
}

impl Ca {
    pub(super) fn new(http: CaHttp, eab: Option<ExternalAccount>) -> Self {
        Self {
            http,
            eab,
            account: None,
            order: None,
            authorizations_read: false,
            shared: None,
            downloaded: None,
        }
    }

    /// Does a step.
    pub(super) async fn step(&mut self, step: &Step, settings: &Settings, keeper: &mut Keeper) -> Outcome {
        let done = match step {
            Step::Account { anew } => self.account(*anew, settings, keeper).await.map(|()| Outcome::Done),
            Step::RenewalInfo { ari_id } => self.renewal_info(ari_id).await.map(Outcome::RenewalInfo),
            Step::NewOrder { replaces } => {
                self.new_order(replaces.as_deref(), settings).await.map(Outcome::Order)
            }
            Step::Resume { url } => self.resume(url).await.map(Outcome::Order),
            Step::Authorizations => self.authorizations(settings, keeper).await.map(Outcome::Authorizations),
            Step::Validate { name, challenge } => {
                self.validate(name, *challenge).await.map(|()| Outcome::Done)
            }
            Step::Poll => self.poll().await.map(Outcome::Order),
            Step::Finalize => self.finalize(settings, keeper).await.map(Outcome::Order),
            Step::Download => self.download(keeper).await,
        };
        done.unwrap_or_else(Outcome::Failed)
    }

    fn problem(&self, error: &Error) -> Problem {
        problem::of(error, self.http.last())
    }

    fn known_account(&self) -> Done<&Account> {
        self.account.as_ref().ok_or_else(|| Problem::new(ProblemKind::NoAccount, "no account has been made"))
    }

    async fn account(&mut self, anew: bool, settings: &Settings, keeper: &mut Keeper) -> Done<()> {
        let kid = self.eab.as_ref().map(|eab| &*eab.kid);
        let name = account_file::file_name(settings);
        let stored = match anew {
            true => None,
            false => keeper.read(&name)?.and_then(|bytes| AccountFile::read(&bytes, settings, kid)),
        };
        let builder = || Account::builder_with_http(Box::new(self.http.clone()));
        let directory = settings.directory.to_string();
        if let Some(file) = &stored
            && let (Some(key), Some(url)) = (file.key(), file.url())
        {
            let account = builder().from_parts(url.to_owned(), key, directory).await;
            self.account = Some(account.map_err(|e| self.problem(&e))?);
            return Ok(());
        }
        let contact = format!("mailto:{}", settings.email);
        let (account, file) = match &self.eab {
            None => {
                let file = match stored {
                    Some(file) => file,
                    // The key comes first: after a kill it finds the account that it has made.
                    None => {
                        let key = KeyPair::generate().map_err(|e| made_none(&e))?.serialize_pem();
                        let file = AccountFile::new(settings, None, key);
                        keeper.write(&name, &file.text())?;
                        file
                    }
                };
                let damaged = || Problem::new(ProblemKind::Disk, format!("{name}: the key is damaged"));
                let der = file.key().ok_or_else(damaged)?;
                let key = Key::from_pkcs8_der(der.clone_key()).map_err(|_| damaged())?;
                let made = builder().create_from_key((key, der.into()), directory).await;
                let (account, _) = made.map_err(|e| self.problem(&e))?;
                account.update_contacts(&[&contact]).await.map_err(|e| self.problem(&e))?;
                (account, file)
            }
            // With an external account the client of the protocol makes the key itself.
            Some(eab) => {
                let key = ExternalAccountKey::new(eab.kid.to_string(), &eab.hmac_key);
                let new = NewAccount {
                    contact: &[&contact],
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let made = builder().create(&new, directory, Some(&key)).await;
                let (account, credentials) = made.map_err(|e| self.problem(&e))?;
                let key = KeyPair::try_from(credentials.private_key()).map_err(|e| made_none(&e))?;
                (account, AccountFile::new(settings, kid, key.serialize_pem()))
            }
        };
        let file = file.known_as(account.id());
        self.account = Some(account);
        keeper.write(&name, &file.text())
    }

    async fn renewal_info(&mut self, ari_id: &str) -> Done<Option<RenewalInfo>> {
        let id = identifier(ari_id)?;
        match self.known_account()?.renewal_info(&id).await {
            Ok((info, _)) => {
                let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
                Ok(Some(RenewalInfo {
                    start: seconds(info.suggested_window.start.unix_timestamp()),
                    end: seconds(info.suggested_window.end.unix_timestamp()),
                    retry_after: self.http.last().retry_after,
                    explanation: info.explanation_url.map(Into::into),
                }))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(e) => Err(self.problem(&e)),
        }
    }

    async fn new_order(&mut self, replaces: Option<&str>, settings: &Settings) -> Done<Order> {
        let names: Vec<_> = settings.names.iter().map(|name| Identifier::Dns(name.to_string())).collect();
        let plain = || match settings.profile.as_deref() {
            Some(profile) => NewOrder::new(&names).profile(profile),
            None => NewOrder::new(&names),
        };
        let account = self.known_account()?;
        let made = match replaces {
            None => account.new_order(&plain()).await,
            Some(ari_id) => match account.new_order(&plain().replaces(identifier(ari_id)?)).await {
                // The authority does not know of such orders, or has taken no notice.
                Err(Error::Unsupported(_)) => account.new_order(&plain()).await,
                Err(Error::Other(e)) if !e.is::<problem::NoAnswer>() => account.new_order(&plain()).await,
                made => made,
            },
        };
        let order = made.map_err(|e| self.problem(&e))?;
        Ok(self.begin(order))
    }

    async fn resume(&mut self, url: &str) -> Done<Order> {
        let found = self.known_account()?.order(url.to_owned()).await;
        let order = found.map_err(|e| self.order_problem(&e))?;
        Ok(self.begin(order))
    }

    /// A problem with an order that should be there.
    fn order_problem(&self, error: &Error) -> Problem {
        let mut problem = self.problem(error);
        if problem.kind == ProblemKind::Rejected && matches!(self.http.last().status, 403 | 404 | 410) {
            problem.kind = ProblemKind::NoOrder;
        }
        problem
    }

    fn begin(&mut self, order: instant_acme::Order) -> Order {
        let seen = seen(self.order.insert(order), self.http.last());
        (self.authorizations_read, self.shared, self.downloaded) = (false, None, None);
        seen
    }

    /// Runs a request with the order.
    async fn with_order<T>(
        &mut self,
        request: impl AsyncFnOnce(&mut instant_acme::Order) -> Result<T, Error>,
    ) -> Done<(T, Order)> {
        let gone = || Problem::new(ProblemKind::NoOrder, "there is no order");
        let order = self.order.as_mut().ok_or_else(gone)?;
        let done = request(order).await;
        let seen = seen(order, self.http.last());
        match done {
            Ok(value) => Ok((value, seen)),
            Err(e) => Err(self.order_problem(&e)),
        }
    }

    async fn poll(&mut self) -> Done<Order> {
        self.authorizations_read = false;
        let (_, seen) = self.with_order(async |order| order.refresh().await.map(drop)).await?;
        Ok(seen)
    }

    async fn authorizations(&mut self, settings: &Settings, keeper: &mut Keeper) -> Done<Vec<Authorization>> {
        if std::mem::replace(&mut self.authorizations_read, true) {
            self.poll().await?;
            self.authorizations_read = true;
        }
        let thumbprint = self.known_account()?.key_thumbprint().to_owned();
        let read = async |order: &mut instant_acme::Order| {
            let (mut list, mut answers) = (Vec::new(), Vec::new());
            let mut all = order.authorizations();
            while let Some(authorization) = all.next().await {
                let authorization = authorization?;
                let found = seen_authorization(&authorization);
                if found.status == AuthorizationStatus::Pending {
                    answers.extend(answers_of(&authorization, &found, settings, &thumbprint));
                }
                list.push(found);
            }
            Ok((list, answers))
        };
        let ((list, answers), _) = self.with_order(read).await?;
        if !answers.is_empty() {
            keeper.share(answers)?;
            self.shared = Some(Instant::now());
        }
        Ok(list)
    }

    async fn validate(&mut self, name: &str, challenge: Challenge) -> Done<()> {
        let Some(shared) = self.shared else {
            return Err(Problem::new(ProblemKind::BadAnswer, "the challenges of the order are not known"));
        };
        smol::Timer::at(shared + SHARED_AFTER).await;
        let wanted = acme_type(challenge);
        let told = async |order: &mut instant_acme::Order| {
            let mut all = order.authorizations();
            while let Some(authorization) = all.next().await {
                let mut authorization = authorization?;
                if authorization.identifier().to_string() != name {
                    continue;
                }
                let Some(mut challenge) = authorization.challenge(wanted) else { break };
                // One that has been asked for in an earlier run is not asked for again.
                return match challenge.status {
                    ChallengeStatus::Pending => challenge.set_ready().await,
                    _ => Ok(()),
                };
            }
            Err(Error::Str("the challenge is not offered any more"))
        };
        self.with_order(told).await.map(|_| ())
    }

    async fn finalize(&mut self, settings: &Settings, keeper: &mut Keeper) -> Done<Order> {
        let url = self.order.as_ref().map(|order| order.url().to_owned()).unwrap_or_default();
        let key = match keeper.order_key(&url)? {
            Some(key) => KeyPair::from_pem(&key).map_err(|e| made_none(&e))?,
            None => {
                let kind = settings.key_type;
                // That of RSA takes a while.
                let key = smol::unblock(move || new_key(kind)).await.map_err(|e| made_none(&e))?;
                keeper.set_order_key(&url, &key.serialize_pem())?;
                key
            }
        };
        let names: Vec<String> = settings.names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).map_err(|e| made_none(&e))?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(|e| made_none(&e))?;
        let (_, seen) = self.with_order(async |order| order.finalize_csr(request.der()).await).await?;
        Ok(seen)
    }

    async fn download(&mut self, keeper: &mut Keeper) -> Done<Outcome> {
        let url = self.order.as_ref().map(|order| order.url().to_owned()).unwrap_or_default();
        let Some(key) = keeper.order_key(&url)? else {
            let text = format!("{} has no key for this order", keeper.order_key_path().display());
            return Err(Problem::new(ProblemKind::NoKey, text));
        };
        let (chain, _) = self.with_order(async |order| order.certificate().await).await?;
        let busy = || Problem::new(ProblemKind::Busy, "the certificate is not there yet");
        let chain = chain.ok_or_else(busy)?;
        let bad = |text: String| Problem::new(ProblemKind::BadAnswer, text);
        match CertificateFile::new(&key, &chain) {
            Ok(file) => {
                let certificate = file.known.clone();
                self.downloaded = Some(file);
                Ok(Outcome::Certificate { certificate, key_fits: true })
            }
            Err(Unusable::OtherKey) => {
                let leaf = CertificateDer::from_pem_slice(chain.as_bytes()).ok();
                let known = leaf.and_then(|leaf| certificate_file::known(&leaf));
                let certificate = known.ok_or_else(|| bad("the certificate is damaged".into()))?;
                Ok(Outcome::Certificate { certificate, key_fits: false })
            }
            Err(Unusable::Damaged(how)) => Err(bad(format!("the chain that has come: {how}"))),
        }
    }
}

/// No key or request could be made, which no authority is to blame for.
fn made_none(error: &rcgen::Error) -> Problem {
    Problem::new(ProblemKind::BadAnswer, format!("no key or request can be made: {error}"))
}

fn new_key(kind: AcmeKeyType) -> Result<KeyPair, rcgen::Error> {
    match kind {
        AcmeKeyType::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        AcmeKeyType::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        AcmeKeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
    }
}

/// The two parts of RFC 9773 §4.1.
fn identifier(ari_id: &str) -> Done<CertificateIdentifier<'_>> {
    let bad = || Problem::new(ProblemKind::BadAnswer, format!("\"{ari_id}\" identifies no certificate"));
    let (authority_key_identifier, serial) = ari_id.split_once('.').ok_or_else(bad)?;
    Ok(CertificateIdentifier {
        authority_key_identifier: authority_key_identifier.into(),
        serial: serial.into(),
    })
}

fn acme_type(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

fn challenge_of(kind: &ChallengeType) -> Option<Challenge> {
    match kind {
        ChallengeType::Http01 => Some(Challenge::Http01),
        ChallengeType::TlsAlpn01 => Some(Challenge::TlsAlpn01),
        _ => None,
    }
}

fn seen(order: &mut instant_acme::Order, last: LastAnswer) -> Order {
    use instant_acme::OrderStatus as Status;
    let url = order.url().into();
    let state = order.state();
    Order {
        url,
        status: match state.status {
            Status::Pending => OrderStatus::Pending,
            Status::Ready => OrderStatus::Ready,
            Status::Processing => OrderStatus::Processing,
            Status::Valid => OrderStatus::Valid,
            Status::Invalid => OrderStatus::Invalid,
        },
        retry_after: last.retry_after,
        problem: state.error.as_ref().map(|found| problem::of_found(found, 0)),
    }
}

fn seen_authorization(state: &AuthorizationState) -> Authorization {
    use instant_acme::AuthorizationStatus as Status;
    let failed = state.challenges.iter().find(|c| c.status == ChallengeStatus::Invalid || c.error.is_some());
    Authorization {
        name: state.identifier().to_string().into(),
        status: match state.status {
            Status::Pending => AuthorizationStatus::Pending,
            Status::Valid => AuthorizationStatus::Valid,
            Status::Invalid | Status::Revoked | Status::Expired | Status::Deactivated => {
                AuthorizationStatus::Invalid
            }
        },
        offered: state.challenges.iter().filter_map(|c| challenge_of(&c.r#type)).collect(),
        failed: failed.and_then(|c| challenge_of(&c.r#type)),
        problem: failed.and_then(|c| c.error.as_ref()).map(|found| problem::of_found(found, 0)),
    }
}

/// An answer for every challenge that may be asked for.
fn answers_of<'a>(
    state: &'a AuthorizationState,
    seen: &'a Authorization,
    settings: &'a Settings,
    thumbprint: &'a str,
) -> impl Iterator<Item = Answer> + 'a {
    state.challenges.iter().filter_map(move |c| {
        let challenge = challenge_of(&c.r#type).filter(|kind| settings.challenges.contains(kind))?;
        Some(Answer {
            name: seen.name.clone(),
            challenge,
            token: c.token.as_str().into(),
            key_authorization: format!("{}.{thumbprint}", c.token).into(),
        })
    })
}
