//! Answers of the API server about callers, kept for some seconds: bounded, one question at a time for equal keys,
//! and failures are never kept.

use std::{collections::HashMap, fmt, hash::Hash, time::Duration};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

/// Longest wait for one answer. The aggregator itself gives up after 5 s.
const PATIENCE: Duration = Duration::from_secs(4);

/// The API server gave no answer; nobody is let in for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoAnswer(pub(super) String);

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An answer, and the end of its life.
type Kept<V> = Result<(V, Instant), NoAnswer>;

/// Answers, and those under way, by question.
type Entries<K, V> = HashMap<K, Shared<BoxFuture<'static, Kept<V>>>>;

/// Answers by question.
pub(super) struct Cached<K, V: Clone> {
    entries: Mutex<Entries<K, V>>,
    capacity: usize,
}

impl<K, V> Cached<K, V>
where
    K: Clone + Eq + Hash,
    V: Clone + Send + Sync + 'static,
{
    /// For at most `capacity` questions.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Mutex::default(), capacity }
    }

    /// The kept answer, or a new one. `ask` says how long its answer may be kept.
    pub(super) async fn get<F>(&self, key: &K, ask: impl FnOnce() -> F) -> Result<V, NoAnswer>
    where
        F: Future<Output = Result<(V, Duration), NoAnswer>> + Send + 'static,
    {
        let answer = {
            let mut entries = self.entries.lock();
            if let Some(entry) = entries.get(key).filter(|entry| is_useful(entry)) {
                entry.clone()
            } else {
                self.make_room(&mut entries);
                let entry = limited(ask()).boxed().shared();
                entries.insert(key.clone(), entry.clone());
                entry
            }
        };
        answer.await.map(|(value, _)| value)
    }

    fn make_room(&self, entries: &mut Entries<K, V>) {
        if entries.len() >= self.capacity {
            entries.retain(|_, entry| is_useful(entry));
        }
        // All of them in use: one goes. It costs a question, and nothing else.
        if entries.len() >= self.capacity
            && let Some(any) = entries.keys().next().cloned()
        {
            entries.remove(&any);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}

/// Under way, or not over yet.
fn is_useful<V: Clone>(entry: &Shared<BoxFuture<'static, Kept<V>>>) -> bool {
    match entry.peek() {
        None => true,
        Some(Ok((_, end))) => Instant::now() < *end,
        Some(Err(_)) => false,
    }
}

async fn limited<V>(ask: impl Future<Output = Result<(V, Duration), NoAnswer>>) -> Kept<V> {
    match timeout(PATIENCE, ask).await {
        Ok(answer) => answer.map(|(value, life)| (value, Instant::now() + life)),
        Err(_) => Err(NoAnswer(format!("the API server gave no answer within {PATIENCE:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };
    use tokio::time::{advance, sleep};

    const SECOND: Duration = Duration::from_secs(1);

    struct Asked {
        cache: Cached<u32, u32>,
        n: Arc<AtomicU32>,
    }

    impl Asked {
        fn new() -> Self {
            Self { cache: Cached::new(4), n: Arc::default() }
        }

        async fn get(&self, key: u32) -> Result<u32, NoAnswer> {
            let n = Arc::clone(&self.n);
            let ask = move || async move {
                sleep(SECOND).await;
                match (key, n.fetch_add(1, SeqCst)) {
                    (0, _) => Err(NoAnswer("down".into())),
                    (_, n) => Ok((n, 10 * SECOND)),
                }
            };
            self.cache.get(&key, ask).await
        }

        fn n(&self) -> u32 {
            self.n.load(SeqCst)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn equal_questions_are_asked_once_and_kept_for_their_life() {
        let asked = Asked::new();
        let both = tokio::join!(asked.get(7), asked.get(7));
        assert_eq!(both, (Ok(0), Ok(0)));
        advance(9 * SECOND).await;
        assert_eq!(asked.get(7).await, Ok(0));
        advance(2 * SECOND).await;
        assert_eq!(asked.get(7).await, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_reaches_all_who_wait_and_is_not_kept() {
        let asked = Asked::new();
        let failed = Err(NoAnswer("down".into()));
        assert_eq!(tokio::join!(asked.get(0), asked.get(0)), (failed.clone(), failed.clone()));
        assert_eq!(asked.n(), 1);
        assert_eq!(asked.get(0).await, failed);
        assert_eq!(asked.n(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_asker_who_leaves_does_not_stop_the_others() {
        let asked = Asked::new();
        let gone = timeout(SECOND / 2, asked.get(7)).await;
        assert!(gone.is_err());
        assert_eq!(asked.get(7).await, Ok(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_without_an_answer_ends() {
        let cache = Cached::<u32, u32>::new(1);
        let never = || async {
            sleep(3600 * SECOND).await;
            Ok((1, SECOND))
        };
        let error = cache.get(&1, never).await.unwrap_err();
        assert_eq!(error.to_string(), "the API server gave no answer within 4s");
    }

    #[tokio::test(start_paused = true)]
    async fn it_stays_bounded() {
        let asked = Asked::new();
        for key in 1..100 {
            asked.get(key).await.unwrap();
            assert!(asked.cache.len() <= 4);
        }
    }
}
