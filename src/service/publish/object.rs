//! Results in an object store, by the crate `object_store`. The manifest is written last: a result
//! without one isn't there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use axum::body::Bytes;
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, PutPayload};
use reqwest::Url;
use tokio::runtime::{Builder, Runtime};

use super::{MANIFEST, Opened, Ready};
use crate::service::job::Outcome;
use crate::service::outgoing::Guard;
use crate::service::secret::Secret;

/// Bytes of a part. S3 takes ten thousand of them.
const PART: usize = 16 << 20;

/// What went wrong, and whether it may pass.
type Failed = (String, bool);

/// Requests through our own client, which knows where it may connect to.
#[derive(Debug)]
struct Guarded(Guard);

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.0.client().map_err(|text| object_store::Error::Generic {
            store: "object store",
            source: text.into(),
        })?;
        Ok(HttpClient::new(client))
    }
}

/// Whether there can be such a store.
pub(super) fn check(url: &str, settings: &BTreeMap<String, Secret>) -> Result<(), String> {
    open_store(url, settings, &Guard::default()).map(|_| ()).map_err(|(text, _)| text)
}

/// The store, and the prefix of everything in it.
fn open_store(
    url: &str,
    settings: &BTreeMap<String, Secret>,
    guard: &Guard,
) -> Result<(Arc<dyn ObjectStore>, Key), Failed> {
    let bad = |text: String| (text, false);
    let parsed: Url =
        url.parse().map_err(|error| bad(format!("`{url}` is no address: {error}")))?;
    let mut options = Vec::new();
    for (name, value) in settings {
        options.push((name.to_ascii_lowercase(), value.expose_text().map_err(bad)?.to_owned()));
    }
    if let Some((_, endpoint)) = options.iter().find(|(name, _)| name.ends_with("endpoint")) {
        let endpoint: Url = endpoint.parse().map_err(|_| bad("`endpoint` is no address".into()))?;
        if endpoint.scheme() == "http" {
            options.push(("allow_http".to_owned(), "true".to_owned()));
        }
    }
    let prefix = Key::from_url_path(parsed.path()).map_err(|error| bad(error.to_string()))?;
    let connector = Guarded(guard.clone());
    let failed = |error: object_store::Error| bad(error.to_string());
    macro_rules! build {
        ($builder:ty, $key:ty) => {{
            let mut builder = <$builder>::from_env().with_url(url).with_http_connector(connector);
            for (name, value) in options {
                let key: $key = name.parse().map_err(|_| bad(format!("there is no `{name}`")))?;
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build().map_err(failed)?)
        }};
    }
    let store: Arc<dyn ObjectStore> = match parsed.scheme() {
        "s3" | "s3a" => {
            build!(object_store::aws::AmazonS3Builder, object_store::aws::AmazonS3ConfigKey)
        }
        "gs" => {
            build!(object_store::gcp::GoogleCloudStorageBuilder, object_store::gcp::GoogleConfigKey)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            build!(object_store::azure::MicrosoftAzureBuilder, object_store::azure::AzureConfigKey)
        }
        other => {
            return Err(bad(format!(
                "`{other}:` is no object store; write s3://BUCKET/PREFIX, gs://... or az://..."
            )));
        }
    };
    Ok((store, prefix))
}

fn runtime() -> Result<Runtime, Failed> {
    Builder::new_current_thread().enable_all().build().map_err(|error| (error.to_string(), true))
}

/// Sorts failures: what the store denies, it will deny again.
fn failed(error: object_store::Error) -> Failed {
    use object_store::Error;
    let passes = !matches!(
        error,
        Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotFound { .. }
    );
    // Addresses of requests, which are in there, may hold signatures.
    let text = error.to_string();
    (text.split('?').next().unwrap_or(&text).to_owned(), passes)
}

pub(super) fn publish(
    url: &str,
    settings: &BTreeMap<String, Secret>,
    guard: &Guard,
    ready: &Ready<'_>,
) -> Result<String, Failed> {
    let (store, prefix) = open_store(url, settings, guard)?;
    let place = ready.place();
    let key = |name: &str| join(&prefix, &place, name);
    runtime()?.block_on(async {
        match store.head(&key(MANIFEST)).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        for file in &ready.outcome.files {
            let read = |error: io::Error| (format!("`{}`: {error}", file.name), true);
            let source = File::open(ready.files.join(&file.name)).map_err(read)?;
            upload(&*store, &key(&file.name), source).await?;
        }
        let manifest = serde_json::to_vec_pretty(ready.outcome).unwrap_or_default();
        store.put(&key(MANIFEST), manifest.into()).await.map_err(failed)?;
        Ok(())
    })?;
    Ok(place)
}

fn join(prefix: &Key, place: &str, name: &str) -> Key {
    let mut key = prefix.clone();
    for part in place.split('/').chain([name]) {
        key = key.join(part);
    }
    key
}

/// Uploads in parts, one after the other: memory holds one of them.
async fn upload(store: &dyn ObjectStore, key: &Key, mut file: File) -> Result<(), Failed> {
    let read = |error: io::Error| (error.to_string(), true);
    let part = |file: &mut File| {
        let mut bytes = Vec::new();
        file.take(PART as u64).read_to_end(&mut bytes).map(|_| bytes)
    };
    let first = part(&mut file).map_err(read)?;
    if first.len() < PART {
        store.put(key, PutPayload::from(first)).await.map_err(failed)?;
        return Ok(());
    }
    let mut upload = store.put_multipart(key).await.map_err(failed)?;
    let done = async {
        let mut bytes = first;
        while !bytes.is_empty() {
            upload.put_part(PutPayload::from(bytes)).await.map_err(failed)?;
            bytes = part(&mut file).map_err(read)?;
        }
        upload.complete().await.map_err(failed)?;
        Ok(())
    };
    let done: Result<(), Failed> = done.await;
    if done.is_err() {
        // What stays of it is cleared away by the bucket's rules; nobody sees it.
        let _ = upload.abort().await;
    }
    done
}

pub(super) fn open(
    url: &str,
    settings: &BTreeMap<String, Secret>,
    guard: &Guard,
    place: &str,
    name: &str,
) -> Result<Opened, Failed> {
    let (store, prefix) = open_store(url, settings, guard)?;
    let (runtime, key) = (runtime()?, join(&prefix, place, name));
    let size = runtime.block_on(store.head(&key)).map_err(failed)?.size;
    Ok(Opened {
        size,
        bytes: Box::new(Ranges { runtime, store, key, size, at: 0, rest: Bytes::new() }),
    })
}

/// An object, read range by range.
struct Ranges {
    runtime: Runtime,
    store: Arc<dyn ObjectStore>,
    key: Key,
    size: u64,
    at: u64,
    /// What of the last range is left.
    rest: Bytes,
}

impl Read for Ranges {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() && self.at < self.size {
            let end = self.size.min(self.at + (4 << 20));
            let range = self.store.get_range(&self.key, self.at..end);
            let bytes = self.runtime.block_on(range);
            let bytes = bytes.map_err(|error| io::Error::other(failed(error).0))?;
            self.at = end;
            self.rest = bytes;
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

pub(super) fn remove(
    url: &str,
    settings: &BTreeMap<String, Secret>,
    guard: &Guard,
    place: &str,
    outcome: &Outcome,
) -> Result<(), Failed> {
    let (store, prefix) = open_store(url, settings, guard)?;
    // The manifest first: without it there is no result.
    let names = [MANIFEST].into_iter().chain(outcome.files.iter().map(|file| file.name.as_str()));
    runtime()?.block_on(async {
        for name in names {
            match store.delete(&join(&prefix, place, name)).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    })
}
