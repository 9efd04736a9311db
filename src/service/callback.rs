//! Callbacks: whoever asked is told the end, signed by the Standard Webhooks specification
//! (<https://www.standardwebhooks.com>), at least once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use serde_json::json;

use super::config::Config;
use super::job::Job;
use super::queue::Callback;
use super::secret::Secret;
use super::webhook::verify::signed_content;
use super::worker::Shared;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// After how many failures nobody tries any more: about a day.
const MAX_ATTEMPTS: i64 = 14;

/// Whether something may be told there.
///
/// # Errors
/// If it is no HTTP address, or holds a password.
pub fn check(url: &str) -> Result<(), String> {
    let parsed: Url = url.parse().map_err(|error| format!("callback `{url}`: {error}"))?;
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Err("a callback is an address that begins with https:// or http://".to_owned());
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("a callback's address holds no user name and password".to_owned());
    }
    Ok(())
}

/// Tells all that is due.
pub fn tell_all(shared: &Shared, config: &Config) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    loop {
        // It is due again if this process ends before it is settled.
        let callback = match shared.queue.due_callback(TIMEOUT * 2) {
            Ok(Some(callback)) => callback,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "no looking for callbacks");
                return;
            }
        };
        // Not within the runtime: the queue blocks.
        let job = match shared.queue.job(&callback.job, None) {
            Ok(Some(job)) => job,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "no looking for callbacks");
                return;
            }
        };
        let told = runtime.block_on(tell(config, &callback, &job));
        let settled = match told {
            Ok(()) => {
                shared.metrics.callbacks.with_label_values(&["told"]).inc();
                let text = format!("told to {}", origin(&callback.url));
                shared.queue.settle_callback(&callback, &text)
            }
            Err(why) if callback.attempts >= MAX_ATTEMPTS => {
                shared.metrics.callbacks.with_label_values(&["given-up"]).inc();
                let text = format!("{} could not be told: {why}", origin(&callback.url));
                shared.queue.settle_callback(&callback, &text)
            }
            Err(why) => {
                shared.metrics.callbacks.with_label_values(&["failed"]).inc();
                tracing::warn!(job = %callback.job, %why, "a callback failed");
                shared.queue.delay_callback(&callback, wait(callback.attempts), &why)
            }
        };
        if let Err(error) = settled {
            tracing::warn!(%error, "a callback may be told twice");
        }
        if shared.is_draining() {
            return;
        }
    }
}

/// Five seconds, and twice as long each time, up to three hours.
fn wait(attempts: i64) -> Duration {
    let doubled = 1u64 << u32::try_from(attempts.clamp(1, 12) - 1).unwrap_or(0);
    Duration::from_secs((5 * doubled).min(3 * 3600))
}

/// An address without what may be secret in it.
fn origin(url: &str) -> String {
    url.parse::<Url>().map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

async fn tell(config: &Config, callback: &Callback, job: &Job) -> Result<(), String> {
    let url: Url = callback.url.parse().map_err(|_| "it is no address".to_owned())?;
    config.guard.check_url(&url)?;
    let body = json!({
        "type": format!("job.{}", job.state.name()),
        "timestamp": job.finished,
        "data": {
            "id": job.id,
            "state": job.state,
            "image": job.request.image,
            "digest": job.result.as_ref().map(|result| &result.digest),
            "result": job.result,
            "error": job.error,
        },
    });
    let body = body.to_string();
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = seconds.to_string();
    let mut request = config
        .guard
        .client()?
        .post(url)
        .timeout(TIMEOUT)
        .header("content-type", "application/json")
        .header("webhook-id", &callback.id)
        .header("webhook-timestamp", &time);
    if let Some(secret) = &config.callback_secret {
        request = request.header("webhook-signature", sign(secret, &callback.id, &time, &body));
    }
    let answer = request.body(body).send().await.map_err(|error| chain(&error.without_url()))?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answered {status}")),
    }
}

fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The signature of a message.
pub fn sign(secret: &Secret, id: &str, time: &str, body: &str) -> String {
    let key = secret.expose_text().ok().and_then(|text| text.strip_prefix("whsec_"));
    let key = key.and_then(|encoded| STANDARD.decode(encoded).ok()).map(Secret::new);
    let tag = key.as_ref().unwrap_or(secret).sign(&signed_content(id, time, body.as_bytes()));
    format!("v1,{}", STANDARD.encode(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        assert_eq!(check("https://ci.example/done?x=1"), Ok(()));
        for url in ["ftp://x/", "file:///etc/passwd", "https://u:p@x/", "x", ""] {
            assert!(check(url).is_err(), "{url}");
        }
        assert_eq!(origin("https://ci.example/secret/path?token=x"), "https://ci.example");
    }

    #[test]
    fn signatures_are_those_of_the_specification() {
        // The example of the specification's reference implementations.
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signature =
            sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
