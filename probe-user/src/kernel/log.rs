//! aya-log: what the programs say about rare events, with `--bpf-log`.

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::load::Probe;

impl Probe {
    /// Starts forwarding the programs' log records to `tracing`. Needs a tokio runtime.
    ///
    /// # Errors
    /// aya-log's, as text, if the object has no log ring.
    pub fn forward_logs(&mut self) -> Result<(), String> {
        let logger = aya_log::EbpfLogger::init(&mut self.ebpf).map_err(|error| error.to_string())?;
        // SAFETY: the logger owns its descriptor and moves into the AsyncFd, so it stays open as long as that lives.
        let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
        let mut logger = registered.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            while let Ok(mut guard) = logger.readable_mut().await {
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
        });
        Ok(())
    }
}
