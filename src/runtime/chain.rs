//! An error with all its causes in one line.
//!
//! kube and hyper say "client error (Connect)" and keep the reason, say a certificate for another
//! host, in the error's source; `Display` alone would hide it from the person who has to mend it.

use std::error::Error;
use std::fmt;

/// Causes that are printed at most. A chain that is longer has a loop.
const MAX_CAUSES: usize = 16;

/// Prints an error and its causes, separated by ": ". A cause that the text before it already ends
/// with is left out: many errors print their source themselves.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        f.write_str(&text)?;
        let mut cause = self.0.source();
        for _ in 0..MAX_CAUSES {
            let Some(error) = cause else { break };
            let next = error.to_string();
            if !text.contains(&next) {
                write!(f, ": {next}")?;
                text = next;
            }
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Plain(&'static str, #[source] Option<Box<dyn Error + Send + Sync>>);

    #[test]
    fn every_cause_is_told_once() {
        let root = io::Error::other("certificate not valid for localhost");
        let connect = Plain("client error (Connect)", Some(root.into()));
        let printing = Plain("ServiceError: client error (Connect)", Some(connect.into()));
        assert_eq!(
            Chain(&printing).to_string(),
            "ServiceError: client error (Connect): certificate not valid for localhost"
        );
        assert_eq!(Chain(&Plain("alone", None)).to_string(), "alone");
    }
}
