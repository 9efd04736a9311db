//! How each image is made: a file for each, and what they share.

mod alpine_like;
mod busybox;
mod debian;
mod go;
mod haproxy;
mod hello;
mod httpd;
mod inside;
mod java;
mod mariadb;
mod memcached;
mod nginx;
mod node;
mod php;
mod postgres;
mod python;
mod rabbitmq;
mod redis;
mod ruby;
mod rust;
mod services;
mod steps;

use std::path::{Path, PathBuf};

use crate::Result;

/// One image.
pub struct Recipe {
    pub name: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Part of its path in the cache: raised when the recipe or its files change.
    pub version: u32,
    /// Makes it as an OCI layout in a directory.
    pub make: fn(&Path) -> Result<()>,
}

/// The images there are.
pub const ALL: &[Recipe] = &[
    nginx::RECIPE,
    debian::RECIPE,
    busybox::RECIPE,
    alpine_like::RECIPE,
    go::RECIPE,
    hello::STATIC,
    hello::DYNAMIC,
    redis::RECIPE,
    memcached::RECIPE,
    postgres::RECIPE,
    mariadb::RECIPE,
    httpd::RECIPE,
    haproxy::RECIPE,
    php::NGINX_FPM,
    php::APACHE,
    rust::RECIPE,
    services::RECIPE,
    python::FLASK,
    python::FASTAPI,
    python::SHOP,
    node::RECIPE,
    java::RECIPE,
    ruby::RECIPE,
    rabbitmq::RECIPE,
];

/// What images set when nobody says otherwise.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files that recipes copy into images.
fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("files")
}
