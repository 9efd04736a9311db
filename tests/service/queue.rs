//! The queue's rules, over SQLite and PostgreSQL alike.

use std::time::Duration;

use dock2uni::service::job::{Options, Outcome, Request, State};
use dock2uni::service::queue::{Beat, Error, Lease, Limit, Progress, Queue, Submitted};
use dock2uni::source::Digest;

use super::postgres::Postgres;

const LONG: Duration = Duration::from_secs(60);

macro_rules! rules {
    ($($rule:ident),* $(,)?) => { &[$((stringify!($rule), $rule as fn(&Queue))),*] };
}

/// The rules; each is tried on an empty queue.
const RULES: &[(&str, fn(&Queue))] = rules![
    requests_for_one_digest_are_one_job_until_its_result_is_gone,
    a_tag_may_move_once_a_worker_has_looked_at_it,
    a_lost_lease_is_taken_over_and_its_holder_is_refused,
    what_kills_workers_fails_in_the_end,
    priorities_go_first_and_tenants_take_turns,
    tenants_have_limits,
    failures_that_pass_are_tried_again_and_then_not,
    jobs_are_called_off_and_queued_again,
    a_worker_that_goes_home_gives_its_jobs_back,
    callbacks_are_owed_until_they_are_settled,
    polls_see_a_digest_once,
    results_and_jobs_grow_old,
];

#[test]
fn sqlite_obeys_the_rules() {
    for (name, rule) in RULES {
        println!("{name}");
        let dir = tempfile::tempdir().unwrap();
        rule(&Queue::sqlite(&dir.path().join("queue.db")).unwrap());
    }
}

#[test]
fn postgres_obeys_the_rules() {
    let postgres = Postgres::start(&["fsync = off"]);
    for (name, rule) in RULES {
        println!("{name}");
        rule(&Queue::postgres(&postgres.database()).unwrap());
    }
}

fn request(tenant: &str, image: &str) -> Request {
    Request {
        image: image.to_owned(),
        options: Options::default(),
        destinations: vec!["files".into()],
        priority: 0,
        tenant: tenant.into(),
        callback: None,
        origin: "api:test".into(),
        rule: None,
    }
}

fn by_digest(tenant: &str, number: u32) -> Request {
    let digest = Digest::of(&number.to_le_bytes());
    request(tenant, &format!("r.io/app@{digest}"))
}

fn submit(queue: &Queue, request: &Request) -> Submitted {
    queue.submit(std::slice::from_ref(request), None).unwrap().remove(0)
}

fn outcome(key: &str) -> Outcome {
    Outcome { key: key.into(), digest: "sha256:x".into(), ..Outcome::default() }
}

fn done(queue: &Queue, lease: &Lease) {
    queue.complete(lease, &outcome(&lease.job.id)).unwrap().unwrap();
}

fn requests_for_one_digest_are_one_job_until_its_result_is_gone(queue: &Queue) {
    let first = submit(queue, &by_digest("a", 1));
    assert!(first.new);
    assert_eq!(submit(queue, &by_digest("a", 1)), Submitted { id: first.id.clone(), new: false });
    assert!(submit(queue, &by_digest("a", 2)).new);
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    assert_eq!(lease.job.id, first.id);
    assert!(!submit(queue, &by_digest("a", 1)).new, "while it runs");
    queue.complete(&lease, &outcome("k")).unwrap().unwrap();
    assert!(!submit(queue, &by_digest("a", 1)).new, "when it is done");
    queue.forget_result("k").unwrap();
    assert!(submit(queue, &by_digest("a", 1)).new, "when the result is gone");
}

fn a_tag_may_move_once_a_worker_has_looked_at_it(queue: &Queue) {
    let tag = request("a", "r.io/app:latest");
    let first = submit(queue, &tag);
    assert!(!submit(queue, &tag).new);
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    let second = submit(queue, &tag);
    assert!(second.new && second.id != first.id);
    // Both led to the same digest: one result.
    assert!(!queue.complete(&lease, &outcome("k")).unwrap().unwrap().reused);
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    assert!(queue.complete(&lease, &outcome("k")).unwrap().unwrap().reused);
}

fn a_lost_lease_is_taken_over_and_its_holder_is_refused(queue: &Queue) {
    submit(queue, &by_digest("a", 1));
    let lost = queue.lease("w1", Duration::ZERO).unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(queue.reap(9).unwrap(), 1);
    let lease = queue.lease("w2", LONG).unwrap().unwrap();
    assert_eq!((lease.job.id.as_str(), lease.job.lost), (lost.job.id.as_str(), 1));
    assert_eq!(queue.beat(&lost, LONG, &Progress::default()).unwrap(), Beat::Lost);
    assert_eq!(queue.complete(&lost, &outcome("k")).unwrap(), None);
    assert!(!queue.give_up(&lost, State::Failed, "x").unwrap());
    assert!(!queue.release(&lost).unwrap());
    assert_eq!(queue.result("k").unwrap(), None);
    assert_eq!(queue.beat(&lease, LONG, &Progress::default()).unwrap(), Beat::Held);
    done(queue, &lease);
    // The answer to this may get lost; asking again is no harm.
    assert!(queue.complete(&lease, &outcome("other")).unwrap().is_some());
    assert_eq!(queue.result("other").unwrap(), None);
}

fn what_kills_workers_fails_in_the_end(queue: &Queue) {
    let id = submit(queue, &by_digest("a", 1)).id;
    for _ in 0..3 {
        queue.lease("w", Duration::ZERO).unwrap().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        queue.reap(2).unwrap();
    }
    let job = queue.job(&id, None).unwrap().unwrap();
    assert_eq!((job.state, job.lost), (State::Failed, 3));
    assert!(submit(queue, &by_digest("a", 1)).new, "it may be asked for again");
}

fn priorities_go_first_and_tenants_take_turns(queue: &Queue) {
    for number in 0..4 {
        submit(queue, &by_digest("many", number));
    }
    submit(queue, &by_digest("few", 10));
    let mut urgent = by_digest("many", 11);
    urgent.priority = 5;
    submit(queue, &urgent);
    submit(queue, &by_digest("few", 12));
    let mut order = Vec::new();
    while let Some(lease) = queue.lease("w", LONG).unwrap() {
        order.push(lease.job.request.tenant.clone());
        done(queue, &lease);
    }
    assert_eq!(order, ["many", "many", "few", "many", "few", "many", "many"]);
}

fn tenants_have_limits(queue: &Queue) {
    let limit = Limit { running: Some(1), queued: Some(2) };
    queue.set_limits([("small".to_owned(), limit)].into());
    submit(queue, &by_digest("small", 1));
    submit(queue, &by_digest("small", 2));
    let third = queue.submit(&[by_digest("other", 4), by_digest("small", 3)], None);
    assert!(matches!(third, Err(Error::Full { limit: 2, .. })), "{third:?}");
    assert_eq!(queue.counts().unwrap()[&State::Queued], 2, "all or none");
    assert!(!submit(queue, &by_digest("small", 1)).new, "a duplicate is no more work");
    submit(queue, &by_digest("big", 5));
    let first = queue.lease("w", LONG).unwrap().unwrap();
    assert_eq!(first.job.request.tenant, "small");
    let second = queue.lease("w", LONG).unwrap().unwrap();
    assert_eq!(second.job.request.tenant, "big");
    assert!(queue.lease("w", LONG).unwrap().is_none());
    done(queue, &first);
    assert!(queue.lease("w", LONG).unwrap().is_some());
}

fn failures_that_pass_are_tried_again_and_then_not(queue: &Queue) {
    let id = submit(queue, &by_digest("a", 1)).id;
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    assert!(queue.retry_later(&lease, "503", LONG, 2).unwrap());
    assert!(queue.lease("w", LONG).unwrap().is_none(), "not yet");
    let other = submit(queue, &by_digest("a", 2)).id;
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    assert_eq!(lease.job.id, other);
    assert!(queue.retry_later(&lease, "503", Duration::ZERO, 2).unwrap());
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    assert_eq!(lease.job.attempts, 1);
    assert!(queue.retry_later(&lease, "503 again", Duration::ZERO, 2).unwrap());
    let job = queue.job(&other, None).unwrap().unwrap();
    assert_eq!((job.state, job.error.as_deref()), (State::Failed, Some("503 again")));
    assert_eq!(queue.job(&id, None).unwrap().unwrap().state, State::Queued);
}

fn jobs_are_called_off_and_queued_again(queue: &Queue) {
    let id = submit(queue, &by_digest("a", 1)).id;
    assert!(queue.cancel(&id, Some("b"), "x").unwrap().is_none(), "another tenant's");
    assert_eq!(queue.cancel(&id, Some("a"), "x").unwrap().unwrap().state, State::Cancelled);
    assert_eq!(queue.retry(&id, None, "x").unwrap().unwrap().state, State::Queued);
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    let job = queue.cancel(&id, None, "x").unwrap().unwrap();
    assert!(job.state == State::Running && job.cancelling);
    assert_eq!(queue.beat(&lease, LONG, &Progress::default()).unwrap(), Beat::Cancelled);
    assert!(queue.give_up(&lease, State::Cancelled, "called off").unwrap());
    let lines: Vec<String> = queue.log(&id, 0).unwrap().into_iter().map(|line| line.2).collect();
    assert!(lines.len() >= 5 && lines[0] == "queued by api:test", "{lines:?}");
}

fn a_worker_that_goes_home_gives_its_jobs_back(queue: &Queue) {
    submit(queue, &by_digest("a", 1));
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    assert!(queue.release(&lease).unwrap());
    let again = queue.lease("v", LONG).unwrap().unwrap();
    assert_eq!((again.job.lost, again.job.attempts), (0, 0));
    assert!(!queue.release(&lease).unwrap());
}

fn callbacks_are_owed_until_they_are_settled(queue: &Queue) {
    let mut request = by_digest("a", 1);
    request.callback = Some("https://ci.example/done".into());
    submit(queue, &request);
    assert!(queue.due_callback(LONG).unwrap().is_none());
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    done(queue, &lease);
    let callback = queue.due_callback(Duration::ZERO).unwrap().unwrap();
    assert_eq!((callback.attempts, callback.url.as_str()), (1, "https://ci.example/done"));
    std::thread::sleep(Duration::from_millis(5));
    let again = queue.due_callback(LONG).unwrap().unwrap();
    assert_eq!((again.id.as_str(), again.attempts), (callback.id.as_str(), 2));
    assert!(queue.due_callback(LONG).unwrap().is_none());
    queue.settle_callback(&again, "told").unwrap();
    // Who asks for what is there already is told at once.
    request.callback = Some("https://other.example/".into());
    assert!(!submit(queue, &request).new);
    let late = queue.due_callback(LONG).unwrap().unwrap();
    assert_eq!(late.url, "https://other.example/");
    queue.settle_callback(&late, "told").unwrap();
    assert_eq!(queue.forget_jobs(Duration::ZERO).unwrap(), 0, "its result is there");
}

fn polls_see_a_digest_once(queue: &Queue) {
    let seen = |digest: &str, number| {
        queue.submit_seen("nightly", "r.io/app:1", digest, &[by_digest("a", number)]).unwrap().len()
    };
    assert_eq!((seen("sha256:1", 1), seen("sha256:1", 1), seen("sha256:2", 2)), (1, 0, 1));
}

fn results_and_jobs_grow_old(queue: &Queue) {
    let id = submit(queue, &by_digest("a", 1)).id;
    let lease = queue.lease("w", LONG).unwrap().unwrap();
    queue.complete(&lease, &outcome("k")).unwrap().unwrap();
    assert!(queue.old_results(LONG).unwrap().is_empty());
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(queue.old_results(Duration::ZERO).unwrap()[0].key, "k");
    assert_eq!(queue.forget_jobs(Duration::ZERO).unwrap(), 0);
    queue.forget_result("k").unwrap();
    assert_eq!(queue.forget_jobs(Duration::ZERO).unwrap(), 1);
    assert!(queue.job(&id, None).unwrap().is_none());
    assert!(queue.log(&id, 0).unwrap().is_empty());
}

#[test]
fn a_queue_of_a_newer_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    drop(Queue::sqlite(&path).unwrap());
    let sql = "UPDATE schema SET version = 99";
    super::common::run(std::process::Command::new("sqlite3").arg(&path).arg(sql));
    let error = Queue::sqlite(&path).unwrap_err().to_string();
    assert!(error.contains("version 99"), "{error}");
}
