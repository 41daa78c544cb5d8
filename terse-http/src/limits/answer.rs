//! What clients are told of limits.

use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::{HttpMessage, HttpRequest};
use terse_resilience::limit::Draw;

use super::Limit;
use crate::problem::{Kind, Problem};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What the answer to a request is to tell. It rests in the request's extensions.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<[HeaderValue; 2]>);

/// Whole seconds of `time`, rounded up.
pub(super) fn seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

impl Limit {
    /// The two fields: what the rule is, and what `drawn` has left of it.
    fn fields(&self, drawn: &Draw) -> Option<[HeaderValue; 2]> {
        let (name, rule) = (self.name, self.local.rule());
        let policy = format!("\"{name}\";q={};w={}", rule.quota(), seconds(rule.window()).max(1));
        let mut left = format!("\"{name}\";r={}", drawn.remaining);
        if !drawn.more_in.is_zero() {
            // No more than the window is allowed, though a sliding one, which counts in tenths, can take one more.
            left.push_str(&format!(";t={}", seconds(drawn.more_in.min(rule.window()))));
        }
        Some([HeaderValue::try_from(policy).ok()?, HeaderValue::try_from(left).ok()?])
    }

    /// 429 for who was refused. Who comes back when it says is let through, if nobody else was faster.
    pub(crate) fn refusal(&self, drawn: &Draw) -> Problem {
        let ms = u64::try_from(drawn.more_in.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Problem::unavailable(Kind::RateLimited, format!("the limit '{}' is used up", self.name), ms)
    }

    /// Tells of `drawn` in `headers`.
    pub(crate) fn write(&self, drawn: &Draw, headers: &mut HeaderMap) {
        Told(self.fields(drawn).into_iter().collect()).write(headers);
    }
}

/// Notes that the answer to `request` is to tell of `drawn`.
pub(crate) fn tell(request: &HttpRequest, limit: &Limit, drawn: &Draw) {
    add(request, limit.fields(drawn));
}

/// Notes that the answer to `request` is to tell of a limit in these `fields`.
pub(super) fn add(request: &HttpRequest, fields: Option<[HeaderValue; 2]>) {
    let mut told = Told::take(request).unwrap_or_default();
    told.0.extend(fields);
    request.extensions_mut().insert(told);
}

impl Told {
    /// Writes it into the headers of an answer.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        for [policy, left] in self.0 {
            headers.append(POLICY, policy);
            headers.append(LIMIT, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use terse_core::metrics::Metrics;
    use terse_resilience::limit::{Rule, local};

    use super::super::LimitBy;
    use super::*;

    fn limit(rule: Rule) -> Limit {
        let local = local(rule, 8, Arc::new(|| 0_u64), 0).unwrap();
        Limit::new("create", LimitBy::Key, local, None, &Metrics::new())
    }

    fn fields(rule: Rule, drawn: Draw) -> [String; 2] {
        limit(rule).fields(&drawn).unwrap().map(|value| value.to_str().unwrap().to_owned())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_policy_tells_quota_and_window_and_the_limit_what_is_left() {
        let rule = Rule::TokenBucket { burst: 100, refill: 10, per: SECOND };
        let drawn = Draw { granted: 1, remaining: 99, more_in: Duration::from_millis(100), ..Draw::default() };
        assert_eq!(fields(rule, drawn), ["\"create\";q=100;w=10", "\"create\";r=99;t=1"]);
        let rule = Rule::SlidingWindow { limit: 300, window: 60 * SECOND };
        let drawn = Draw { more_in: Duration::from_millis(5_001), ..Draw::default() };
        assert_eq!(fields(rule, drawn), ["\"create\";q=300;w=60", "\"create\";r=0;t=6"]);
    }

    #[test]
    fn a_window_below_a_second_is_told_as_one_and_a_whole_quota_without_time() {
        let rule = Rule::FixedWindow { limit: 5, window: Duration::from_millis(10) };
        assert_eq!(fields(rule, Draw { remaining: 5, ..Draw::default() }), ["\"create\";q=5;w=1", "\"create\";r=5"]);
    }

    #[test]
    fn nobody_is_told_to_come_back_before_the_window_ends() {
        let rule = Rule::FixedWindow { limit: 5, window: 60 * SECOND };
        for ns in [1, 999_999_999, 1_000_000_000, 1_000_000_001, 59_000_000_001] {
            let drawn = Draw { more_in: Duration::from_nanos(ns), ..Draw::default() };
            let [_, left] = fields(rule, drawn);
            let answer = limit(rule).refusal(&drawn).response(None);
            let after = answer.headers().get("retry-after").unwrap().to_str().unwrap().parse::<u64>().unwrap();
            let until: u64 = left.rsplit_once("t=").map_or(0, |(_, t)| t.parse().unwrap());
            assert!(after >= until && after >= 1 && after <= ns.div_ceil(1_000_000_000), "{left} {after}");
            assert_eq!(answer.status().as_u16(), 429);
        }
    }

    #[test]
    fn a_limit_tells_no_time_beyond_its_window_and_a_refusal_how_long_to_wait() {
        let rule = Rule::SlidingWindow { limit: 300, window: 60 * SECOND };
        let drawn = Draw { more_in: 66 * SECOND, ..Draw::default() };
        assert_eq!(fields(rule, drawn)[1], "\"create\";r=0;t=60");
        let answer = limit(rule).refusal(&drawn).response(None);
        assert_eq!(answer.headers().get("retry-after").unwrap(), "66");
    }

    #[test]
    fn several_limits_are_told_one_after_the_other() {
        let mut headers = HeaderMap::new();
        let limit = limit(Rule::FixedWindow { limit: 5, window: SECOND });
        limit.write(&Draw::default(), &mut headers);
        limit.write(&Draw::default(), &mut headers);
        assert_eq!(headers.get_all(POLICY).count(), 2);
        assert_eq!(headers.get_all(LIMIT).count(), 2);
    }
}
