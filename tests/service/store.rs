//! Results in an object store that speaks S3: moto's, which checks signatures and rights as Amazon does,
//! with boto3 as a witness for what is in it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use dock2uni::service::config::Config;
use dock2uni::service::job::Outcome;
use dock2uni::service::publish::Publisher;
use dock2uni::source::{Compression, Digest, Store};
use serde_json::{Value, json};

use super::common::layout::{ImageSpec, Layout, borrowed, noise, programs, tar};
use super::common::registry::Registry;
use super::common::run;
use super::common::vm::{can_boot, free_port};
use super::service::{PATIENCE, Service, config, request};

/// Where `scripts/setup` puts moto; `None`, and a word about it, if it isn't there.
fn python() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), Into::into);
    let python = cache.join("dock2uni-tests/moto/bin/python");
    if !python.exists() {
        eprintln!("SKIPPED: no moto in `{}` (scripts/setup installs it)", python.display());
        return None;
    }
    Some(python)
}

/// A store with a bucket, and a user who may use it. It ends when this is dropped.
struct Moto {
    python: PathBuf,
    port: u16,
    child: Child,
    key: String,
    secret: String,
}

impl Moto {
    fn start(python: PathBuf) -> Moto {
        let port = free_port();
        let child = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            // So many requests need no rights: those that make the bucket and the user.
            .env("INITIAL_NO_AUTH_ACTION_COUNT", "4")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Moto { python, port, child, key: String::new(), secret: String::new() };
        let end = Instant::now() + PATIENCE;
        while moto.send("PUT", "/vms", "X: x", "").is_none() {
            assert!(Instant::now() < end, "moto does not answer");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        moto.iam("Action=CreateUser&UserName=d2u");
        let keys = moto.iam("Action=CreateAccessKey&UserName=d2u");
        let within = |name: &str| {
            let (_, rest) = keys.split_once(&format!("<{name}>")).unwrap();
            rest.split('<').next().unwrap().to_owned()
        };
        (moto.key, moto.secret) = (within("AccessKeyId"), within("SecretAccessKey"));
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A\
                      %22Allow%22%2C%22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        let put = "Action=PutUserPolicy&UserName=d2u&PolicyName=all&PolicyDocument=";
        moto.iam(&format!("{put}{policy}"));
        moto
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<String> {
        let (status, answer) = request(self.port, method, path, headers, body).ok()?;
        assert_eq!(status, 200, "{answer}");
        Some(answer)
    }

    fn iam(&self, action: &str) -> String {
        // The service is told by what a signature is for.
        let headers = "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/\
                       aws4_request, SignedHeaders=host, Signature=0\r\n\
                       Content-Type: application/x-www-form-urlencoded";
        self.send("POST", "/", headers, &format!("{action}&Version=2010-05-08")).unwrap()
    }

    /// A destination of this name, with this secret.
    fn destination(&self, name: &str, bucket: &str, secret: &str) -> String {
        format!(
            "[[destination]]\nname = \"{name}\"\nobject_store = \"s3://{bucket}/results/here\"\n\
             [destination.settings]\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{secret}\"\n",
            self.port, self.key
        )
    }

    /// What is in the bucket, by boto3: key, size and SHA-256 of each object.
    fn objects(&self) -> Vec<(String, u64, String)> {
        let script = "import boto3, hashlib, sys\n\
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
            \x20   aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])\n\
            for o in s3.list_objects_v2(Bucket='vms').get('Contents', []):\n\
            \x20   body = s3.get_object(Bucket='vms', Key=o['Key'])['Body'].read()\n\
            \x20   print(o['Key'], len(body), 'sha256:' + hashlib.sha256(body).hexdigest())\n";
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let output = run(Command::new(&self.python).args([
            "-c",
            script,
            &endpoint,
            &self.key,
            &self.secret,
        ]));
        let text = String::from_utf8(output.stdout).unwrap();
        let words = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.map(|w| (w[0].to_owned(), w[1].parse().unwrap(), w[2].to_owned())).collect()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An image whose disk is uploaded in two parts.
fn large_image(registry: &Registry) -> String {
    let mut files = programs(&["busybox"]);
    files.push(("noise".to_owned(), noise(18 << 20, 2)));
    let mut layout = Layout::new();
    let image = layout.image(&ImageSpec {
        layers: vec![(tar(&borrowed(&files)), Compression::None)],
        config: json!({ "Cmd": ["/bin/busybox", "true"] }),
        ..ImageSpec::default()
    });
    layout.name(image, "large");
    registry.push(layout.path(), "large", "team/large:1")
}

#[test]
fn results_go_to_an_object_store_and_come_back_from_it() {
    let Some(python) = python().filter(|_| can_boot()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let moto = Moto::start(python);
    let registry = Registry::start();
    let image = large_image(&registry);
    let port = free_port();
    let text = config(dir.path(), port, 2)
        + &moto.destination("bucket", "vms", &moto.secret)
        + &moto.destination("elsewhere", "nowhere", &moto.secret)
        + &moto.destination("denied", "vms", "another secret");
    let service = Service::serve(dir.path(), port, &text);
    let submit = |destination: &str| {
        let body = json!({ "image": image, "destinations": [destination] });
        let (status, answer) = service.ask("POST", "/api/v1/jobs", Some(&body));
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_str().unwrap().to_owned()
    };
    let ids = ["bucket", "elsewhere", "denied"].map(submit);

    let job = service.over(&ids[0]);
    assert_eq!(job["state"], "done", "{job:#}");
    let result = &job["result"];
    let place = result["published"][0]["location"].as_str().unwrap();
    let disk = &result["files"][0];
    assert!(disk["size"].as_u64().unwrap() > 16 << 20, "{disk}");
    let objects = moto.objects();
    let at = |name: &str| {
        let key = format!("results/here/{place}/{name}");
        objects.iter().find(|(found, ..)| *found == key).unwrap_or_else(|| panic!("{objects:?}"))
    };
    assert_eq!(objects.len(), 2, "{objects:?}");
    let (_, size, digest) = at("disk.img");
    assert_eq!((json!(size), json!(digest)), (disk["size"].clone(), disk["digest"].clone()));
    at("result.json");

    // Through the API and back.
    let path = format!("/api/v1/jobs/{}/files/disk.img", ids[0]);
    let fetched = fetch(port, &path);
    assert_eq!(Digest::of(&fetched).to_string(), *digest);

    // What the store refuses is an end that names it, and shows no secret.
    for (id, name) in ids[1..].iter().zip(["elsewhere", "denied"]) {
        let job = service.over(id);
        assert_eq!(job["state"], "failed", "{job:#}");
        let error = job["error"].as_str().unwrap();
        assert!(error.starts_with(name) && !error.contains("Signature"), "{error}");
    }
    let log = service.log();
    assert!(!log.contains(&moto.secret) && !log.contains("another secret"), "{log}");

    // Retention takes the result away again.
    let config = Config::parse(&text, Path::new("service.toml")).unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let publisher = Publisher {
        destinations: &config.destinations,
        registries: &config.registries,
        guard: &config.guard,
        store: &store,
    };
    let outcome: Outcome =
        serde_json::from_value::<Value>(result.clone()).and_then(serde_json::from_value).unwrap();
    publisher.remove(&outcome).unwrap();
    assert_eq!(moto.objects(), []);
    publisher.remove(&outcome).unwrap();
}

/// A body of any bytes, by its length.
fn fetch(port: u16, path: &str) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\n\r\n",
        super::service::TOKEN
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..head]));
    answer.split_off(head + 4)
}
