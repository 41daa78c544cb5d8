//! Tasks that start at one moment.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

/// How long a race may take; a task that waits for a failed one must not wait for ever.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs `count` tasks that all begin when the last of them is ready; their results in their order.
pub(crate) async fn race<T, R>(count: usize, make: impl Fn(usize) -> R) -> Vec<T>
where
    T: Send + 'static,
    R: Future<Output = T> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(count));
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (barrier, work) = (Arc::clone(&barrier), make(number));
            tokio::spawn(async move {
                barrier.wait().await;
                work.await
            })
        })
        .collect();
    let mut results = Vec::with_capacity(count);
    for task in tasks {
        results.push(tokio::time::timeout(PATIENCE, task).await.expect("the race took too long").unwrap());
    }
    results
}
