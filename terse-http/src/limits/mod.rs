//! Rate limits: which requests draw from which, and what is answered when one is used up.
//!
//! | group | what draws | how much |
//! |---|---|---|
//! | `create` | `POST` of a link, the form, each item of a batch | 1 each |
//! | `api` | all other requests below `/api/v1`, a batch among them | 1 |
//! | `redirect` | `/{code}` | 1 |
//! | `not_found` | a look-up of `/{code}` beyond this process's memory that finds no such link | 1 |
//!
//! A used up limit is answered with 429 and `Retry-After`. Only of `not_found`
//! otherwise: over it, what memory or the shared cache knows is served as ever,
//! and only what would have to be looked up in the store gets 429. So who tries
//! codes at random is stopped, and who follows links that people follow is not.
//! Look-ups that are under way when the limit is reached still count: it is
//! exceeded by as many as one client has at once.
//!
//! Who is known by an IPv6 address draws twice: from the quota of the /64, and
//! from that of the /48 around it, which is wider by a factor. Else whoever has
//! a /48 would have 65,536 quotas, more than there are places for. What the /64
//! refuses costs the /48 nothing, so it takes as many of them as the factor says
//! to use the /48 up. That one is counted by each process alone.
//!
//! What is created draws, once `create` has let it through, from the key's quota
//! of links a month too, if it has one ([`Quotas`]).
//!
//! An answer that drew from a limit tells so in `RateLimit-Policy` and
//! `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).

mod answer;
mod pace;
mod quota;
mod who;

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, web};
use terse_core::access::Caller;
use terse_core::metrics::{LimitCounts, Metrics};
use terse_resilience::limit::{Draw, Key, RateLimiter, SharedLimiter};

use crate::problem::Problem;
use crate::{State, auth};

pub(crate) use answer::{Told, tell};
pub(crate) use quota::KeyUse;
pub use quota::{Month, Quotas};
pub use who::LimitBy;
pub(crate) use who::Who;

/// The limits, one for each group of requests; `None` = none.
#[derive(Default)]
pub struct Limits {
    /// Creates.
    pub create: Option<Limit>,
    /// All other requests to the API.
    pub api: Option<Limit>,
    /// Redirects, whatever they find.
    pub redirect: Option<Limit>,
    /// Look-ups that find no such link.
    pub not_found: Option<Limit>,
    /// Links that a key may create in a month.
    pub quotas: Option<Quotas>,
}

impl Limits {
    /// Whether a redirect can be refused.
    pub(crate) fn limits_redirects(&self) -> bool {
        self.redirect.is_some() || self.not_found.is_some()
    }
}

/// One limit.
pub struct Limit {
    name: &'static str,
    by: LimitBy,
    local: Arc<dyn RateLimiter>,
    shared: Option<Arc<dyn SharedLimiter>>,
    networks: Option<Arc<dyn RateLimiter>>,
    counts: LimitCounts,
}

impl Limit {
    /// The limit `name` (lower-case letters and `_`): whoever `by` tells apart has the quota of `local`. Where
    /// there is a `shared` one with the same rule it decides, and `local` only while that can't.
    #[must_use]
    pub fn new(
        name: &'static str,
        by: LimitBy,
        local: Arc<dyn RateLimiter>,
        shared: Option<Arc<dyn SharedLimiter>>,
        metrics: &Metrics,
    ) -> Self {
        Self { name, by, local, shared, networks: None, counts: metrics.limit_counts(name) }
    }

    /// The same, and all in one /48 of IPv6 have the quota of `networks` together; its rule is to be a wider one.
    #[must_use]
    pub fn with_networks(self, networks: Arc<dyn RateLimiter>) -> Self {
        Self { networks: Some(networks), ..self }
    }

    /// Takes up to `wanted` units for `who`, and waits if the rule paces.
    pub(crate) async fn draw(&self, who: &Who, wanted: u32) -> Draw {
        let key = who.key(self.by);
        let draw = self.in_network(who, self.decide(&key, wanted).await);
        self.counts.refused(wanted - draw.granted);
        if !draw.wait.is_zero() {
            pace::until(Instant::now() + draw.wait).await;
        }
        draw
    }

    /// The local limiter draws along with the shared one, so that it knows what was used when it takes over.
    async fn decide(&self, key: &Key, wanted: u32) -> Draw {
        let here = self.local.draw(key, wanted);
        let Some(shared) = &self.shared else { return here };
        match shared.draw(key, wanted).await {
            Some(draw) => {
                if wanted > 0 && draw.granted == 0 {
                    // Used up by all together: nothing is left here either.
                    self.local.draw(key, here.remaining);
                }
                draw
            }
            None => {
                self.counts.decided_alone();
                here
            }
        }
    }

    /// What is left of `draw`, which `who` was granted, once the network around them has drawn the same.
    fn in_network(&self, who: &Who, draw: Draw) -> Draw {
        match self.networks.as_ref().zip(who.network(self.by)) {
            Some((networks, key)) => both(draw, networks.draw(&key, draw.granted)),
            None => draw,
        }
    }

    /// What this process knows of what `who` has left; nothing is taken.
    fn look(&self, who: &Who) -> Draw {
        self.in_network(who, self.local.draw(&who.key(self.by), 0))
    }

    /// Whether `who` has nothing left, as far as this process knows; and that it is refused, then.
    pub(crate) fn used_up(&self, who: &Who) -> Option<Draw> {
        let seen = self.look(who);
        (seen.remaining == 0).then(|| {
            self.counts.refused(1);
            seen
        })
    }
}

/// What two limits say together: the tighter of them decides.
fn both(one: Draw, other: Draw) -> Draw {
    let more_in = match one.remaining.cmp(&other.remaining) {
        Ordering::Less => one.more_in,
        Ordering::Equal => one.more_in.max(other.more_in),
        Ordering::Greater => other.more_in,
    };
    Draw {
        granted: one.granted.min(other.granted),
        remaining: one.remaining.min(other.remaining),
        more_in,
        wait: one.wait.max(other.wait),
    }
}

/// The layer around the resource of links, to which one posts to create one.
pub(crate) async fn creating(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if request.method() != Method::POST {
        return limited(state.limits.api.as_ref(), &state, request, next).await;
    }
    if let Some(refusal) = drawn(state.limits.create.as_ref(), &state, &request).await {
        return Ok(request.error_response(refusal));
    }
    // Who may not create is told so later.
    if let Ok(caller) = auth::writer(request.request(), &state)
        && let Some(refusal) = quota::draw(request.request(), &state, &caller, 1).await.refusal
    {
        return Ok(request.error_response(refusal));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// The layer around the other resources of the API.
pub(crate) async fn asking(
    state: web::Data<State>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    limited(state.limits.api.as_ref(), &state, request, next).await
}

/// Draws one unit of `limit` for `request`.
async fn limited(
    limit: Option<&Limit>,
    state: &State,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match drawn(limit, state, &request).await {
        Some(refusal) => Ok(request.error_response(refusal)),
        None => Ok(next.call(request).await?.map_into_boxed_body()),
    }
}

/// The answer to `request`, if it is refused the one unit of `limit` that it draws.
async fn drawn(limit: Option<&Limit>, state: &State, request: &ServiceRequest) -> Option<Problem> {
    let limit = limit?;
    // Who has no valid key is told so later, and has the limit of the address.
    let caller = limit.by.needs_key().then(|| auth::caller(request.request(), state).ok()).flatten();
    let drawn = limit.draw(&Who::of(request.request(), state, caller.as_ref()), 1).await;
    tell(request.request(), limit, &drawn);
    (drawn.granted == 0).then(|| limit.refusal(&drawn))
}

/// What came of drawing for creates.
pub(crate) struct Creates {
    /// How many may be made.
    pub(crate) granted: usize,
    /// What is answered to the others.
    pub(crate) refusal: Option<Problem>,
    /// When the turn of the first was, and the time from one to the next, if the rule paces.
    turns: Option<(Instant, Duration)>,
}

impl Creates {
    /// Waits for the turn of the create at `index`. That of the first has come.
    pub(crate) async fn turn(&self, index: usize) {
        if let Some((first, gap)) = self.turns {
            pace::until(first + gap.saturating_mul(u32::try_from(index).unwrap_or(u32::MAX))).await;
        }
    }
}

/// Draws for `units` creates by `caller`, and waits for the turn of the first if the rule paces. Who has no valid key
/// has the limit of the address, and is told of the key later.
pub(crate) async fn creates(request: &HttpRequest, state: &State, caller: Option<&Caller>, units: usize) -> Creates {
    let wanted = u32::try_from(units).unwrap_or(u32::MAX);
    let (mut granted, mut refusal, mut turns) = (wanted, None, None);
    if let Some(limit) = &state.limits.create {
        let drawn = limit.draw(&Who::of(request, state, caller), wanted).await;
        tell(request, limit, &drawn);
        turns = limit.local.rule().pace().map(|gap| (Instant::now(), gap));
        refusal = (drawn.granted < wanted).then(|| limit.refusal(&drawn));
        granted = drawn.granted;
    }
    if let Some(caller) = caller {
        let quota = quota::draw(request, state, caller, granted).await;
        // Where both refuse some, the quota refused the first of them.
        (granted, refusal) = (quota.granted, quota.refusal.or(refusal));
    }
    Creates { granted: granted as usize, refusal, turns }
}

impl Told {
    /// What was told of `request` so far.
    pub(crate) fn take(request: &HttpRequest) -> Option<Self> {
        request.extensions_mut().remove::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use terse_resilience::limit::{Rule, local};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Five units a minute for each /64, ten for each /48; and how many keys the latter knows.
    fn limit(by: LimitBy) -> (Limit, Arc<dyn RateLimiter>) {
        let rule = Rule::SlidingWindow { limit: 5, window: MINUTE };
        let limiter = |rule| local(rule, 64, Arc::new(|| 0_u64), 7).unwrap();
        let networks = limiter(rule.times(2));
        let limit = Limit::new("create", by, limiter(rule), None, &Metrics::new());
        (limit.with_networks(Arc::clone(&networks)), networks)
    }

    fn at(address: &str) -> Who {
        Who { key: None, address: Some(address.parse().unwrap()) }
    }

    #[tokio::test]
    async fn a_48_has_its_quota_together_and_the_next_one_another() {
        let (limit, _) = limit(LimitBy::Address);
        assert_eq!(limit.draw(&at("2001:db8:1:1::1"), 4).await.granted, 4);
        assert_eq!(limit.draw(&at("2001:db8:1:2::1"), 4).await.granted, 4);
        let third = at("2001:db8:1:3::1");
        let rest = limit.draw(&third, 4).await;
        assert_eq!((rest.granted, rest.remaining), (2, 0), "as much as the network has left");
        assert!(rest.more_in >= MINUTE, "{rest:?}");
        let seen = limit.used_up(&at("2001:db8:1:4::1")).unwrap();
        assert!(seen.more_in >= MINUTE, "{seen:?}");
        assert_eq!(limit.draw(&at("2001:db8:2:1::1"), 4).await.granted, 4);
    }

    #[tokio::test]
    async fn what_a_64_is_refused_costs_its_neighbours_nothing() {
        let (limit, _) = limit(LimitBy::Address);
        for _ in 0..100 {
            limit.draw(&at("2001:db8:1:1::1"), 1).await;
        }
        assert_eq!(limit.draw(&at("2001:db8:1:2::1"), 5).await.granted, 5);
    }

    #[tokio::test]
    async fn of_ipv4_and_of_keys_no_network_is_known() {
        let (limit, networks) = limit(LimitBy::Key);
        let key = terse_core::KeyId::parse("0123456789").ok();
        for n in 0..4 {
            let who = at(&format!("203.0.113.{n}"));
            assert_eq!(limit.draw(&who, 5).await.granted, 5);
        }
        let keyed = Who { key, ..at("2001:db8:1:1::1") };
        assert_eq!((limit.draw(&keyed, 5).await.granted, networks.usage().keys), (5, 0));
        assert_eq!((limit.draw(&at("2001:db8:1:1::1"), 5).await.granted, networks.usage().keys), (5, 1));
    }

    #[test]
    fn of_two_limits_the_tighter_decides_and_the_longer_wait() {
        let seconds = Duration::from_secs;
        let draw = |granted, remaining, more_in, wait| Draw {
            granted,
            remaining,
            more_in: seconds(more_in),
            wait: seconds(wait),
        };
        assert_eq!(both(draw(3, 1, 9, 2), draw(2, 0, 4, 1)), draw(2, 0, 4, 2));
        assert_eq!(both(draw(1, 0, 9, 0), draw(1, 8, 4, 1)), draw(1, 0, 9, 1));
        assert_eq!(both(draw(0, 0, 9, 0), draw(0, 0, 12, 0)), draw(0, 0, 12, 0));
    }
}
