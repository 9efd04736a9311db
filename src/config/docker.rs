//! The configuration blob: the OCI fields and those that Docker adds.
//!
//! OCI image specification, "Image Configuration"; Docker image specification v1.2. Docker writes
//! `null` where OCI says "absent", so every field takes both.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::Error;

/// The `config` object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    #[serde(deserialize_with = "or_null")]
    pub user: String,
    #[serde(deserialize_with = "or_null")]
    pub exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "or_null")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub volumes: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "or_null")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_null")]
    pub labels: BTreeMap<String, String>,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<u32>,
    pub healthcheck: Option<Healthcheck>,
    #[serde(deserialize_with = "or_null")]
    pub shell: Vec<String>,
}

/// HEALTHCHECK; durations in nanoseconds, zero for the default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    #[serde(deserialize_with = "or_null")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    pub interval: i64,
    #[serde(deserialize_with = "or_null")]
    pub timeout: i64,
    #[serde(deserialize_with = "or_null")]
    pub start_period: i64,
    #[serde(deserialize_with = "or_null")]
    pub start_interval: i64,
    #[serde(deserialize_with = "or_null")]
    pub retries: i64,
}

/// Reads the blob.
pub fn parse(json: &[u8]) -> Result<Config, Error> {
    #[derive(Deserialize)]
    struct Blob {
        #[serde(default, deserialize_with = "or_null")]
        config: Config,
    }
    Ok(serde_json::from_slice::<Blob>(json).map_err(Error::Json)?.config)
}

fn or_null<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
