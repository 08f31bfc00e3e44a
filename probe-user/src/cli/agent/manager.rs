//! What the service manager is told: ready, alive, reloading, stopping. Without one, nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::export::http::Shared;

/// Tells the service manager. Where there is none, or it is gone, there is nobody to tell.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::info!(%error, "the service manager was not told");
    }
}

/// The agent serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent reads its files again; [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The agent is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says twice in every interval that the agent is alive: that the engine can be had, which is what everything needs.
pub async fn watchdog(shared: Shared) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let pause = (interval / 2).max(Duration::from_millis(10));
    loop {
        if shared.engine.answer_first(|_| ()).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(pause).await;
    }
}
