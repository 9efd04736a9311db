use std::path::Path;

use serde_json::{Value, json};

use super::{PATH, Recipe, steps::Steps};
use crate::Result;

pub const FLASK: Recipe = Recipe {
    name: "python-flask",
    about: "a Flask application behind gunicorn with three workers, on Python without root",
    version: 1,
    make: |dir| {
        let command = ["gunicorn", "--workers", "3", "--bind", "0.0.0.0:8000", "app:app"];
        make(dir, &["gunicorn", "python3-flask"], "python/app.py", json!(command))
    },
};

pub const FASTAPI: Recipe = Recipe {
    name: "python-fastapi",
    about: "a FastAPI application on uvicorn with uvloop, on Python without root",
    version: 1,
    make: |dir| {
        let command = ["uvicorn", "--host", "0.0.0.0", "--port", "8000", "main:app"];
        let packages = ["uvicorn", "python3-fastapi", "python3-uvloop", "python3-httptools"];
        make(dir, &packages, "python/main.py", json!(command))
    },
};

pub const SHOP: Recipe = Recipe {
    name: "python-shop",
    about: "the application of examples/shop: Flask with clients of Redis and PostgreSQL",
    version: 1,
    make: |dir| {
        let command =
            ["gunicorn", "--workers", "2", "--timeout", "120", "--bind", "0.0.0.0:8000", "app:app"];
        let packages = ["gunicorn", "python3-flask", "python3-psycopg2", "python3-redis"];
        // Users see the same file, so it is known to work.
        make(dir, &packages, "../../../examples/shop/app/app.py", json!(command))
    },
};

fn make(dir: &Path, packages: &[&str], app: &str, command: Value) -> Result<()> {
    let mut image = Steps::on_debian()?;
    image.install(packages, &[], |step| {
        step.user("app", 1000, "/home/app", "/bin/sh");
        step.owned_dir("home/app", 1000, 0o755);
        step.layer.dir("app", 0o755);
        Ok(())
    })?;
    // As pip leaves them. Hashes instead of times keep the image the same.
    let compile = ["python3", "-m", "compileall", "-qq", "-x", "/tests?/|lib2to3/"];
    let what = ["--invalidation-mode", "unchecked-hash", "/usr/lib/python3.11", "/usr/lib/python3"];
    let keep = ["usr/lib/python3.11", "usr/lib/python3"];
    image.run_inside(&[&compile[..], &what].concat(), &keep, None)?;
    let name = app.rsplit('/').next().unwrap_or(app);
    image.copy(app, &format!("/app/{name}"), 0o644)?;
    let version = image.version("python3.11");
    let config = json!({
        "Env": [PATH, "LANG=C.UTF-8", format!("PYTHON_VERSION={version}")],
        "Cmd": command,
        "ExposedPorts": { "8000/tcp": {} },
        "User": "app",
        "WorkingDir": "/app",
    });
    image.write(dir, config)
}
