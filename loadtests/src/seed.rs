//! The links that a scenario asks for: made before it begins, in batches.

use anyhow::{Context as _, Result, bail};
use reqwest::Client;
use serde_json::{Value, json};

/// The collection of links.
pub const API_LINKS: &str = "/api/v1/links";
/// What to do about 429 where nobody expected it.
pub const LIMITED: &str = "the server limits its callers: start it with TERSE_LIMITS=off, or ask for less";
/// Links of one request; the API takes up to 1,000.
const BATCH: u32 = 500;

/// A link and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The code.
    pub code: String,
    /// The target.
    pub target: String,
}

/// Makes `count` links on the server `url`; `run` tells their targets from those of other runs.
///
/// # Errors
/// When the server doesn't answer or makes fewer.
pub async fn make(client: &Client, url: &str, key: Option<&str>, run: &str, count: u32) -> Result<Vec<Known>> {
    let mut links = Vec::with_capacity(count as usize);
    for begin in (0..count).step_by(BATCH as usize) {
        let targets = (begin..count.min(begin + BATCH)).map(|number| target(run, &format!("known/{number}")));
        let targets: Vec<String> = targets.collect();
        let items: Vec<Value> = targets.iter().map(|target| json!({ "url": target })).collect();
        let mut request = client.post(format!("{url}{API_LINKS}/batch")).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.body(json!({ "items": items }).to_string()).send().await;
        let answer = answer.with_context(|| format!("making links on {url}"))?;
        let status = answer.status();
        let body = answer.bytes().await.context("reading what became of the links")?;
        if status != 200 {
            bail!("making links on {url}: {status}, it says {}", String::from_utf8_lossy(&body));
        }
        links.extend(read(&serde_json::from_slice(&body).context("reading what became of the links")?, targets)?);
    }
    Ok(links)
}

/// A target that no other run has.
#[must_use]
pub fn target(run: &str, what: &str) -> String {
    format!("https://example.com/load/{run}/{what}")
}

/// The links that were made to `targets`, in their order.
fn read(body: &Value, targets: Vec<String>) -> Result<Vec<Known>> {
    let items = body["items"].as_array().context("no items in the answer to a batch")?;
    if items.len() != targets.len() {
        bail!("{} items for {} links", items.len(), targets.len());
    }
    let read = |(item, target): (&Value, String)| {
        if item["status"] == 429 {
            bail!("no link to {target}: {LIMITED}");
        }
        let code = item["link"]["code"].as_str().with_context(|| format!("no link to {target}: {item}"))?;
        Ok(Known { code: code.to_owned(), target })
    };
    items.iter().zip(targets).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("https://example.com/{number}")).collect()
    }

    #[test]
    fn links_are_read_in_the_order_of_their_targets() {
        let item = |code: &str| json!({ "status": 201, "link": { "code": code } });
        let links = read(&json!({ "items": [item("a"), item("b")] }), targets(2)).unwrap();
        assert_eq!(links[1], Known { code: "b".into(), target: "https://example.com/1".into() });
        assert_eq!(links.len(), 2);
    }

    #[test]
    fn a_link_that_was_not_made_is_an_error() {
        let failed = |items: Value| read(&json!({ "items": items }), targets(1)).unwrap_err().to_string();
        assert!(failed(json!([])).contains("0 items for 1 links"));
        assert!(failed(json!([{ "status": 429 }])).contains("TERSE_LIMITS=off"));
        assert!(failed(json!([{ "status": 422, "error": {} }])).contains("422"));
        assert!(read(&json!([]), targets(1)).is_err());
    }
}
