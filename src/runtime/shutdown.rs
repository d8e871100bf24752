//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once.
//!
//! It must not know what an orderly end consists of; whoever has something to finish waits for the
//! token.

use std::io;
use std::process;

use futures::{Stream, StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A signal that ends a process, as its number.
type Number = i32;

/// Listens for signals from now on. The token is cancelled by the first one.
///
/// Must be called inside the runtime.
pub fn on_signals() -> io::Result<CancellationToken> {
    let listen = |kind: SignalKind| {
        let received = signal(kind)?;
        let number = kind.as_raw_value();
        Ok::<_, io::Error>(stream::unfold(received, move |mut received| async move {
            received.recv().await?;
            Some((number, received))
        }))
    };
    let signals =
        stream::select(listen(SignalKind::terminate())?.boxed(), listen(SignalKind::interrupt())?.boxed());
    let token = CancellationToken::new();
    tokio::spawn(obey(signals, token.clone(), |number| {
        // What a shell reports for a process that a signal has killed.
        process::exit(128 + number);
    }));
    Ok(token)
}

async fn obey(signals: impl Stream<Item = Number>, token: CancellationToken, exit: impl Fn(Number)) {
    let mut signals = std::pin::pin!(signals);
    if let Some(signal) = signals.next().await {
        tracing::info!(signal, "shutting down; a second signal ends the process at once");
        token.cancel();
    }
    if let Some(signal) = signals.next().await {
        tracing::warn!(signal, "second signal: ending at once");
        exit(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_real_sigterm_cancels_the_token() {
        let token = on_signals().unwrap();
        assert!(!token.is_cancelled());
        let killed = tokio::process::Command::new("kill").arg(process::id().to_string()).status();
        assert!(killed.await.unwrap().success());
        token.cancelled().await;
    }

    #[tokio::test]
    async fn only_the_second_signal_exits() {
        for (signals, is_cancelled, exited_with) in
            [(vec![], false, None), (vec![15], true, None), (vec![2, 15], true, Some(15))]
        {
            let token = CancellationToken::new();
            let exited = Cell::new(None);
            obey(stream::iter(signals), token.clone(), |number| exited.set(Some(number))).await;
            assert_eq!((token.is_cancelled(), exited.get()), (is_cancelled, exited_with));
        }
    }
}
