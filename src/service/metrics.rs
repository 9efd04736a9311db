//! What is counted, in Prometheus' form.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use super::job::State;
use super::queue::Queue;

/// Counters of this process; the queue's own numbers are read when somebody asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Webhooks by name and what became of them.
    pub webhooks: IntCounterVec,
    /// Requests by route and status.
    pub requests: IntCounterVec,
    /// Jobs that were taken in, by where from; and those that were there already.
    pub submitted: IntCounterVec,
    /// Jobs that ended here, by state.
    pub finished: IntCounterVec,
    /// Seconds that jobs took here.
    pub seconds: Histogram,
    /// Jobs that another worker took over from here.
    pub lost: IntCounter,
    /// Jobs that were taken back from workers that are gone.
    pub taken_back: IntCounter,
    /// Callbacks by what became of them.
    pub callbacks: IntCounterVec,
    /// Results that were thrown away.
    pub retired: IntCounter,
    /// Readings of the configuration by outcome.
    pub reloads: IntCounterVec,
    jobs: IntGaugeVec,
    workers: IntGaugeVec,
    oldest: prometheus::IntGauge,
}

impl Metrics {
    /// Counters at zero.
    ///
    /// # Panics
    /// If two had one name, which a test would show.
    pub fn new() -> Metrics {
        let registry = Registry::new();
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("a name of its own");
            counter
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("a name of its own");
            gauge
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("a name of its own");
            counter
        };
        let seconds = Histogram::with_opts(
            HistogramOpts::new("dock2uni_job_seconds", "Time that jobs took on this worker")
                .buckets(vec![0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0]),
        )
        .expect("a valid name");
        registry.register(Box::new(seconds.clone())).expect("a name of its own");
        let oldest = prometheus::IntGauge::new(
            "dock2uni_queue_oldest_seconds",
            "Time that the job that is ready longest has waited",
        )
        .expect("a valid name");
        registry.register(Box::new(oldest.clone())).expect("a name of its own");
        Metrics {
            webhooks: vec("dock2uni_webhooks_total", "Webhooks received", &["webhook", "outcome"]),
            requests: vec("dock2uni_http_requests_total", "Requests", &["route", "status"]),
            submitted: vec("dock2uni_jobs_submitted_total", "Jobs asked for", &["origin", "new"]),
            finished: vec("dock2uni_jobs_finished_total", "Jobs that ended here", &["state"]),
            lost: counter("dock2uni_leases_lost_total", "Jobs that another worker took over"),
            taken_back: counter("dock2uni_jobs_taken_back_total", "Jobs of workers that are gone"),
            callbacks: vec("dock2uni_callbacks_total", "Callbacks", &["outcome"]),
            retired: counter("dock2uni_results_retired_total", "Results thrown away"),
            reloads: vec("dock2uni_config_reloads_total", "Configuration read", &["outcome"]),
            jobs: gauges("dock2uni_jobs", "Jobs in the queue's database", &["state"]),
            workers: gauges("dock2uni_workers", "Workers known to the queue", &["kind"]),
            oldest,
            seconds,
            registry,
        }
    }

    /// All of it as text.
    ///
    /// # Errors
    /// If the queue can't be reached.
    pub fn text(&self, queue: &Queue) -> Result<String, super::queue::Error> {
        let counts = queue.counts()?;
        for state in State::ALL {
            let count = counts.get(&state).copied().unwrap_or(0);
            self.jobs.with_label_values(&[state.name()]).set(count);
        }
        self.oldest.set(queue.oldest_wait()?);
        let workers = queue.workers(super::worker::SILENCE)?;
        self.workers.with_label_values(&["processes"]).set(workers.len() as i64);
        let sum = |of: fn(&super::queue::Worker) -> i64| workers.iter().map(of).sum();
        self.workers.with_label_values(&["slots"]).set(sum(|worker| worker.slots));
        self.workers.with_label_values(&["running"]).set(sum(|worker| worker.running));
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}
