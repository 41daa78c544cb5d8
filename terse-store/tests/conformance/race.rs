//! Tasks that start at one moment.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Barrier;

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
        results.push(task.await.unwrap());
    }
    results
}
