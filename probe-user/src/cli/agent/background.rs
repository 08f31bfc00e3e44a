//! What goes on between requests: events are drained, the picture is refreshed, the cost of our programs is sampled.

use std::time::Duration;

use super::memory;
use crate::export::engine::Engine;
use crate::export::http::Shared;
use crate::kernel::events::IDLE_WAIT;

/// A snapshot this often even if nobody scrapes: it bounds what a lost exit event can cost.
const REFRESH_EVERY: Duration = Duration::from_secs(15);
/// Cost of our programs: a sample of this length …
const SAMPLE: Duration = Duration::from_secs(1);
/// … this often.
const SAMPLE_EVERY: Duration = Duration::from_secs(30);

const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);

/// Runs something with the engine on a thread that may block.
pub async fn with_engine<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&mut Engine) -> T + Send + 'static,
) -> Option<T> {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || work(&mut shared.engine()))
        .await
        .ok()
}

/// Books events as they come.
pub async fn drain(shared: Shared) {
    loop {
        let wait = with_engine(&shared, Engine::drain).await.unwrap_or(IDLE_WAIT);
        tokio::time::sleep(wait).await;
    }
}

/// Keeps the picture fresh.
pub async fn refresh(shared: Shared) {
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        if let Some(Err(error)) = with_engine(&shared, |engine| engine.refresh().map(|_| ())).await {
            tracing::warn!(%error, "periodic snapshot failed");
        }
    }
}

/// Gives memory back that nobody uses any more.
pub async fn give_back() {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        let _ = tokio::task::spawn_blocking(memory::give_back).await;
    }
}

/// Samples what our programs cost.
pub async fn sample_cost(shared: Shared) {
    loop {
        with_engine(&shared, Engine::begin_cost_sample).await;
        tokio::time::sleep(SAMPLE).await;
        with_engine(&shared, Engine::end_cost_sample).await;
        tokio::time::sleep(SAMPLE_EVERY.saturating_sub(SAMPLE)).await;
    }
}
