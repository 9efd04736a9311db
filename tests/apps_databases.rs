//! Relational databases in the shape of their official images, unmodified: made on the first
//! start by the entrypoint script, loaded by their own clients, crashed, recovered, and stopped.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::apps::{App, client};
use common::lab::{Lab, PATIENCE};
use common::vm::can_boot;

/// Making a database takes a hundred programs and many small files.
const FIRST_START: Duration = Duration::from_secs(400);

/// A client program of PostgreSQL: Debian has them in a directory for each major version.
fn postgres(program: &str, port: u16) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let programs = versions.map(|dir| dir.unwrap().path().join("bin").join(program));
    let found = programs.filter(|path| path.exists()).max().expect("it has its client programs");
    let mut command = Command::new(found);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"]);
    command.env("PGPASSWORD", "secret").env("PGCONNECT_TIMEOUT", "60");
    command
}

fn psql(port: u16) -> Command {
    let mut command = postgres("psql", port);
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
    command.args(["-v", "ON_ERROR_STOP=1", "shop"]);
    command
}

fn query(port: u16, sql: &str) -> String {
    client(&mut psql(port), sql).trim().to_owned()
}

/// What pgbench's transactions keep equal, whatever else happened.
const BALANCES: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts)
    = ALL (ARRAY[(SELECT sum(bbalance) FROM pgbench_branches),
        (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history)]),
    (SELECT count(*) FROM pgbench_history);";

#[test]
fn postgres_initialises_works_recovers_and_stops() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("postgres");
    for cpus in [2, 1, 4] {
        let options = ["-m", "384m", "-e", "POSTGRES_PASSWORD=secret", "-e", "POSTGRES_DB=shop"];
        let command = ["--", "-c", "autovacuum_naptime=1s", "-c", "log_autovacuum_min_duration=0"];
        let mut app = App::start(&lab, 5432, cpus, &options, &command);
        app.vm.wait_for("PostgreSQL init process complete", FIRST_START);
        app.vm.wait_for("database system is ready to accept connections", PATIENCE);
        let port = app.port;
        let version = app.until_ready(|| {
            let mut command = psql(port);
            command.args(["-c", "SHOW server_version"]);
            command
        });
        assert!(version.starts_with("15."), "{version}");
        client(postgres("pgbench", port).args(["--initialize", "--quiet", "shop"]), "");
        let transactions = if cpus == 2 { 100 } else { 20 };
        let each = (transactions / 2).to_string();
        client(
            postgres("pgbench", port).args(["-n", "-c", "2", "-j", "2", "-t", &each, "shop"]),
            "",
        );
        assert_eq!(query(port, BALANCES), format!("t|{transactions}"));
        if cpus == 2 {
            parallel_workers_and_timeouts(port);
            crash_of_a_backend(&mut app, transactions);
        }
        let text = app.stop(0);
        assert!(text.contains("received fast shutdown request"), "{text}");
        assert!(text.trim_end().ends_with("database system is shut down"), "{text}");
        // With the shorter check there is not always the time.
        assert!(
            cpus != 2 || text.contains("automatic vacuum of table \"shop.public.pgbench_"),
            "{text}"
        );
    }
}

fn parallel_workers_and_timeouts(port: u16) {
    let plan = query(
        port,
        "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0;
         SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
         EXPLAIN (ANALYZE, COSTS off) SELECT count(*), sum(abalance) FROM pgbench_accounts;",
    );
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    // A timer's signal ends a query that waits for a lock, and one that computes.
    for sql in ["SELECT pg_sleep(60);", "SELECT count(*) FROM generate_series(1, 1000000000);"] {
        let mut command = psql(port);
        command.args(["-c", "SET statement_timeout = '500ms'", "-c", sql]);
        let error = String::from_utf8(common::output(&mut command).stderr).unwrap();
        assert!(error.contains("canceling statement due to statement timeout"), "{error}");
    }
    // Latches and notifications between processes.
    let heard = query(port, "LISTEN news; NOTIFY news, 'hello'; SELECT pg_sleep(0.1);");
    assert!(heard.contains("\"news\" with payload \"hello\""), "{heard}");
}

/// A backend killed outright: the server ends the others, makes its shared memory anew, replays
/// its log, and has everything that was committed.
fn crash_of_a_backend(app: &mut App, transactions: u32) {
    let kill = "COPY (SELECT pg_backend_pid()) TO PROGRAM 'read pid; kill -9 $pid';";
    let output = common::output(psql(app.port).args(["-c", kill]));
    assert!(!output.status.success());
    app.vm.wait_for("was terminated by signal 9: Killed", PATIENCE);
    app.vm.wait_for("redo done at", PATIENCE);
    app.vm.wait_for("database system is ready to accept connections", PATIENCE);
    assert_eq!(query(app.port, BALANCES), format!("t|{transactions}"));
}

fn mariadb(port: u16) -> Command {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "-h", "127.0.0.1", "-P", &port.to_string(), "-u", "clerk"]);
    command.args(["-psecret", "--batch", "--skip-column-names", "shop"]);
    command
}

#[test]
fn mariadb_initialises_works_and_stops() {
    if !can_boot() {
        return;
    }
    let lab = Lab::new("mariadb");
    assert_eq!(lab.verdict(&[]), "wont-run", "without a password");
    assert_eq!(lab.verdict(&["-e", "MARIADB_ROOT_PASSWORD=root"]), "runs-with-notes");
    for cpus in [2, 1, 4] {
        let options = [
            ["-m", "512m"],
            ["-e", "MARIADB_ROOT_PASSWORD=root"],
            ["-e", "MARIADB_DATABASE=shop"],
            ["-e", "MARIADB_USER=clerk"],
            ["-e", "MARIADB_PASSWORD=secret"],
            // Two thousand time zones take the translator a minute.
            ["-e", "MARIADB_INITDB_SKIP_TZINFO=1"],
        ];
        let mut app = App::start(&lab, 3306, cpus, options.as_flattened(), &[]);
        app.vm.wait_for("MariaDB init process done. Ready for start up.", FIRST_START);
        app.vm.wait_for("mariadbd: ready for connections.", PATIENCE);
        let port = app.port;
        app.until_ready(|| {
            let mut command = mariadb(port);
            command.args(["-e", "SELECT 1"]);
            command
        });
        let rows = if cpus == 2 { 5000 } else { 500 };
        let sql = |text: &str| client(&mut mariadb(port), text).trim().to_owned();
        sql(&format!(
            "CREATE TABLE account (id INT PRIMARY KEY, balance BIGINT NOT NULL, note VARCHAR(200),
                 KEY (balance)) ENGINE=InnoDB;
             INSERT INTO account SELECT seq, 1000, REPEAT('x', seq % 200) FROM seq_1_to_{rows};
             CREATE TABLE log ENGINE=Aria AS SELECT * FROM account;"
        ));
        // Two clients move money both ways between the same rows; InnoDB locks them.
        let movers: Vec<_> = [(1, 2), (2, 1)]
            .map(|(from, to)| {
                let step = format!(
                    "START TRANSACTION;
                     UPDATE account SET balance = balance - 1 WHERE id = LEAST({from}, {to});
                     UPDATE account SET balance = balance + 1 WHERE id = GREATEST({from}, {to});
                     COMMIT;\n"
                );
                std::thread::spawn(move || client(&mut mariadb(port), &step.repeat(50)))
            })
            .into();
        movers.into_iter().for_each(|mover| drop(mover.join().unwrap()));
        let sums = sql("SELECT SUM(balance), COUNT(*), MIN(balance), MAX(balance) FROM account;");
        assert_eq!(sums, format!("{}\t{rows}\t900\t1100", rows * 1000));
        let check = sql("CHECK TABLE account, log EXTENDED;");
        assert_eq!(check.matches("\tOK").count(), 2, "{check}");
        let asked = Instant::now();
        let text = app.stop(0);
        assert!(text.contains("mariadbd: Shutdown complete"), "{text}");
        assert!(asked.elapsed() < Duration::from_secs(60));
    }
}
