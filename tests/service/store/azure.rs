//! Azure Blob Storage: Azurite, Microsoft's own emulator, which checks signatures as Azure does, with
//! Microsoft's library for Python as a witness.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::common::run;
use super::super::common::vm::free_port;
use super::super::service::request;
use super::{Object, ObjectStore, listed, until};

const ACCOUNT: &str = "vmstore";

/// A store with a container. It ends when this is dropped.
pub struct Azurite {
    python: PathBuf,
    port: u16,
    child: Child,
}

impl Azurite {
    /// Starts what was installed in `dir`.
    pub fn start(dir: &Path, python: PathBuf) -> Azurite {
        let port = free_port();
        let own = dir.join("node/bin/node");
        let child = Command::new(if own.exists() { own } else { "node".into() })
            .arg(dir.join("node_modules/.bin/azurite-blob"))
            .args(["--blobPort", &port.to_string()])
            .args(["--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", key(true)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let azurite = Azurite { python, port, child };
        until("Azurite", || request(port, "GET", "/", "X: x", "").is_ok());
        azurite.ask("store.create_container('vms')\n");
        azurite
    }

    /// Runs a few lines of Python with `store`, a client.
    fn ask(&self, script: &str) -> Vec<u8> {
        let script = format!(
            "import hashlib, sys\n\
             from azure.storage.blob import BlobServiceClient\n\
             store = BlobServiceClient(sys.argv[1], credential=sys.argv[2],\n\
             \x20   api_version='2023-11-03')\n{script}"
        );
        let endpoint = format!("http://127.0.0.1:{}/{ACCOUNT}", self.port);
        run(Command::new(&self.python).args(["-c", &script, &endpoint, &key(true)])).stdout
    }
}

/// The account's key, or another.
fn key(right: bool) -> String {
    STANDARD.encode([if right { b'r' } else { b'w' }; 64])
}

impl ObjectStore for Azurite {
    fn destination(&self, name: &str, bucket: &str, right: bool) -> String {
        format!(
            "[[destination]]\nname = \"{name}\"\nobject_store = \"az://{bucket}/results/here\"\n\
             [destination.settings]\nendpoint = \"http://127.0.0.1:{}/{ACCOUNT}\"\n\
             account_name = \"{ACCOUNT}\"\naccount_key = \"{}\"\n",
            self.port,
            key(right)
        )
    }

    fn secrets(&self) -> [String; 2] {
        [key(true), key(false)]
    }

    fn objects(&self) -> Vec<Object> {
        let script = "vms = store.get_container_client('vms')\n\
            for name in vms.list_blob_names():\n\
            \x20   body = vms.download_blob(name).readall()\n\
            \x20   print(name, len(body), 'sha256:' + hashlib.sha256(body).hexdigest())\n";
        listed(&self.ask(script))
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
