//! Creating a link, once however often it is asked for.
//!
//! With an idempotency key the answer is a function of the request's body and
//! the key's record alone: the record is made durable before the link, names
//! its code, its attempt and its time, and every retry finishes just that
//! link, after a crash as well as beside a concurrent twin.

use super::{Draft, IDEMPOTENCY_MS, Idempotency, ServiceError, Shortener};
use super::{expired_fault, is_unknown, order_fault, overloaded, refuse};
use crate::access::Caller;
use crate::ports::{AttemptId, IdempotencyRecord, Insert, StoreError};
use crate::time::random_bytes;
use crate::{Link, LinkState, Owner, ShortCode, Timestamp, Version};

/// Codes tried for one link. A generated code is taken only if it was chosen as
/// an alias or the id counter lost its tail, so even one retry is rare.
const MAX_CODES: usize = 8;
/// Times that a write is tried whose outcome stays unknown.
const MAX_UNKNOWN: usize = 3;

/// How a try to finish an idempotent create ended.
enum Finish {
    Created(Link),
    /// The record is out of date: find it again.
    StartOver,
}

impl Shortener {
    /// Creates a link. With an idempotency key, a retry with the same body gets
    /// the same link, as it was when created.
    ///
    /// # Errors
    /// [`ServiceError`]: `Forbidden`, `Invalid`, `AliasTaken`, `KeyReused`, `Store`.
    pub async fn create(
        &self,
        caller: &Caller,
        draft: &Draft,
        key: Option<&Idempotency>,
    ) -> Result<Link, ServiceError> {
        if !caller.role.may_write() {
            return Err(ServiceError::Forbidden);
        }
        match key {
            None => self.create_new(&caller.owner, draft).await,
            Some(key) => self.create_idempotent(&caller.owner, draft, key).await,
        }
    }

    async fn create_new(&self, owner: &Owner, draft: &Draft) -> Result<Link, ServiceError> {
        let now = self.clock.now();
        check_times(draft, now)?;
        let attempt = self.new_attempt();
        for _ in 0..MAX_CODES {
            let link = draft.link(owner, self.choose_code(draft).await?, now);
            if self.place(&link, attempt).await? {
                return Ok(link);
            }
            if draft.alias.is_some() {
                return Err(ServiceError::AliasTaken);
            }
        }
        Err(overloaded("too many generated codes were taken"))
    }

    async fn create_idempotent(&self, owner: &Owner, draft: &Draft, key: &Idempotency) -> Result<Link, ServiceError> {
        for _ in 0..MAX_CODES {
            let record = self.record_of(owner, draft, key).await?;
            if record.body_hash != key.body_hash {
                return Err(ServiceError::KeyReused);
            }
            if let Finish::Created(link) = self.finish(owner, draft, key, &record).await? {
                return Ok(link);
            }
        }
        Err(overloaded("too many codes of an idempotency key were taken"))
    }

    /// The record that stands for `key`: an earlier one, or a new one if the request is valid.
    async fn record_of(
        &self,
        owner: &Owner,
        draft: &Draft,
        key: &Idempotency,
    ) -> Result<IdempotencyRecord, ServiceError> {
        let now = self.clock.now();
        let expired_before = now.plus_millis(-IDEMPOTENCY_MS);
        let found = self.idempotency.find_key(owner, &key.key).await?;
        if let Some(record) = found.filter(|record| record.created_at >= expired_before) {
            return Ok(record);
        }
        check_times(draft, now)?;
        let record = self.new_record(draft, key, now).await?;
        let mut unknown = None;
        for _ in 0..MAX_UNKNOWN {
            // If an earlier try of this loop did store the record, this one finds it.
            match self.idempotency.claim_key(owner, &key.key, &record, expired_before).await {
                Ok(None) => return Ok(record),
                Ok(Some(winner)) => return Ok(winner),
                Err(error) if is_unknown(&error) => unknown = Some(error),
                // Nothing is known of an earlier try, whatever a later one is refused for.
                Err(error) => return Err(unknown.unwrap_or(error).into()),
            }
        }
        Err(gave_up(unknown))
    }

    /// Creates the link of `record`, or finds that it was created by it.
    async fn finish(
        &self,
        owner: &Owner,
        draft: &Draft,
        key: &Idempotency,
        record: &IdempotencyRecord,
    ) -> Result<Finish, ServiceError> {
        check_times(draft, record.created_at)?;
        let link = draft.link(owner, record.code.clone(), record.created_at);
        if self.place(&link, record.attempt).await? {
            return Ok(Finish::Created(link));
        }
        if draft.alias.is_some() {
            return Err(ServiceError::AliasTaken);
        }
        let next = self.new_record(draft, key, record.created_at).await?;
        match self.idempotency.replace_key(owner, &key.key, record.attempt, &next).await {
            // Replaced by this call, by a twin, or perhaps: what stands now is found anew.
            Ok(_) => Ok(Finish::StartOver),
            Err(error) if is_unknown(&error) => Ok(Finish::StartOver),
            Err(error) => Err(error.into()),
        }
    }

    /// Inserts `link`; whether its code is its own (`false` = another link's).
    async fn place(&self, link: &Link, attempt: AttemptId) -> Result<bool, ServiceError> {
        let mut unknown = None;
        for _ in 0..MAX_UNKNOWN {
            match self.writer.insert_if_absent(link, attempt).await {
                Ok(Insert::Created) => {
                    self.metrics.link_created();
                    return Ok(true);
                }
                Ok(Insert::Taken { attempt: winner }) => {
                    // Created by a try of this very call, or by an earlier request, which counted it.
                    if winner == attempt && unknown.is_some() {
                        self.metrics.link_created();
                    }
                    return Ok(winner == attempt);
                }
                Err(error) if is_unknown(&error) => unknown = Some(error),
                // Nothing is known of an earlier try, whatever a later one is refused for.
                Err(error) => return Err(unknown.unwrap_or(error).into()),
            }
        }
        Err(gave_up(unknown))
    }

    async fn choose_code(&self, draft: &Draft) -> Result<ShortCode, ServiceError> {
        match &draft.alias {
            Some(alias) => Ok(alias.as_code().clone()),
            None => Ok(self.codes.next_code().await?),
        }
    }

    async fn new_record(
        &self,
        draft: &Draft,
        key: &Idempotency,
        created_at: Timestamp,
    ) -> Result<IdempotencyRecord, ServiceError> {
        let code = self.choose_code(draft).await?;
        Ok(IdempotencyRecord { body_hash: key.body_hash, code, attempt: self.new_attempt(), created_at })
    }

    fn new_attempt(&self) -> AttemptId {
        AttemptId(random_bytes(&*self.entropy))
    }
}

impl Draft {
    /// The link that this draft becomes.
    fn link(&self, owner: &Owner, code: ShortCode, created_at: Timestamp) -> Link {
        Link {
            code,
            target: self.target.clone(),
            title: self.title.clone(),
            tags: self.tags.clone(),
            state: LinkState::Active,
            owner: owner.clone(),
            created_at,
            updated_at: created_at,
            expires_at: self.expires_at,
            valid_from: self.valid_from,
            version: Version::FIRST,
        }
    }
}

fn check_times(draft: &Draft, now: Timestamp) -> Result<(), ServiceError> {
    let expired = expired_fault(draft.expires_at, now);
    refuse(expired.into_iter().chain(order_fault(draft.valid_from, draft.expires_at)))
}

/// The last of the failures that left the outcome unknown.
fn gave_up(last: Option<StoreError>) -> ServiceError {
    last.map_or_else(|| overloaded("a write was not tried"), ServiceError::Store)
}
