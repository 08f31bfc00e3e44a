//! Basic authentication: who may see anything at all.
//!
//! bcrypt is slow on purpose, and a scraper comes every few seconds: what was right once is remembered, as a keyed digest.
//! What is wrong costs one run of bcrypt, whether the user exists or not, and one at a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use super::workers::Workers;

/// Digests that are remembered; users are few, so more than this is somebody who tries out what is remembered.
const REMEMBERED: usize = 256;

/// The users.
pub struct Users {
    hashes: BTreeMap<String, String>,
    /// What unknown users' passwords are held against: as slow as the slowest of the hashes.
    decoy: String,
    key: hmac::Key,
    right: Mutex<HashSet<[u8; 32]>>,
    turn: Arc<Semaphore>,
    workers: Workers,
}

impl Users {
    /// Users with the hashes of their passwords, and a thread to try passwords on.
    ///
    /// # Errors
    /// If there is no randomness, or no decoy for such hashes.
    pub fn new(hashes: BTreeMap<String, String>, workers: Workers) -> anyhow::Result<Arc<Self>> {
        let cost = hashes
            .values()
            .filter_map(|hash| Some(hash.parse::<bcrypt::HashParts>().ok()?.get_cost()))
            .max();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| anyhow::anyhow!("the kernel gives no random numbers"))?;
        Ok(Arc::new(Self {
            decoy: bcrypt::hash("nobody's", cost.unwrap_or(bcrypt::DEFAULT_COST))?,
            hashes,
            key,
            right: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            workers,
        }))
    }

    /// Whether there are none, so that nobody is asked.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether an `Authorization` header is that of a user. Without users everybody is welcome.
    pub async fn admit(self: &Arc<Self>, header: Option<&HeaderValue>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some((user, password)) = header.and_then(credentials) else {
            return false;
        };
        let digest = self.digest(&user, &password);
        if self
            .right
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&digest)
        {
            return true;
        }
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else {
            return false;
        };
        let users = Arc::clone(self);
        let verified = self.workers.run(move || {
            // Held until bcrypt is done, even if the client has left meanwhile.
            let _turn = turn;
            users.verify(&user, &password)
        });
        let is_right = verified.await.unwrap_or(false);
        if is_right {
            self.remember(digest);
        }
        is_right
    }

    fn verify(&self, user: &str, password: &[u8]) -> bool {
        let hash = self.hashes.get(user);
        let fits = bcrypt::verify(password, hash.unwrap_or(&self.decoy)).unwrap_or(false);
        fits && hash.is_some()
    }

    fn digest(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(user.len() as u64).to_le_bytes());
        context.update(user.as_bytes());
        context.update(password);
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(digest);
    }
}

/// User and password of a header `Basic BASE64`.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(text))).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_gets_in_each_time() {
        let hash = bcrypt::hash("se:cret", 4).unwrap();
        let users = Users::new(
            BTreeMap::from([("joe".to_owned(), hash)]),
            Workers::start(1).unwrap(),
        )
        .unwrap();
        for _ in 0..3 {
            assert!(users.admit(Some(&header("joe:se:cret"))).await);
            for wrong in ["joe:se:cre", "joe:", "jo:se:cret", "joe", "", "nobody:nobody's"] {
                assert!(!users.admit(Some(&header(wrong))).await, "{wrong}");
            }
            assert!(!users.admit(None).await);
            let other = HeaderValue::from_static("Bearer joe:se:cret");
            assert!(!users.admit(Some(&other)).await);
            let noise = HeaderValue::from_static("Basic !!!");
            assert!(!users.admit(Some(&noise)).await);
        }
        assert_eq!(users.right.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn without_users_everybody_is_welcome() {
        let users = Users::new(BTreeMap::new(), Workers::start(1).unwrap()).unwrap();
        assert!(users.admit(None).await);
    }

    #[test]
    fn the_decoy_is_as_slow_as_the_slowest_hash() {
        let hashes = [4, 6].map(|cost| (cost.to_string(), bcrypt::hash("x", cost).unwrap()));
        let users = Users::new(hashes.into(), Workers::start(1).unwrap()).unwrap();
        assert_eq!(users.decoy.parse::<bcrypt::HashParts>().unwrap().get_cost(), 6);
    }
}
