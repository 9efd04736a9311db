//! Google Cloud Storage. `object_store` speaks its XML API, which no emulator in the registries has (they
//! speak JSON); but that API is S3's, with bearer tokens in place of signatures. So moto keeps the
//! objects, and before it stands what Google does itself: it takes a request only with a token of a
//! service account (RFC 7519, self-signed: google.aip.dev/auth/4111).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::super::common::run;
use super::moto::Bucket;
use super::{Object, ObjectStore};

const ACCOUNT: &str = "d2u@project.iam.gserviceaccount.com";

/// A store with a service account that may use it.
pub struct Google {
    bucket: Bucket,
    port: u16,
    /// Private keys: the account's, and another.
    keys: [String; 2],
}

impl Google {
    pub fn start(python: PathBuf) -> Google {
        let bucket = Bucket::start(python, "inf");
        let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments)).stdout;
        let key = || {
            let arguments = ["genpkey", "-quiet", "-algorithm", "RSA"];
            String::from_utf8(openssl(&arguments)).unwrap()
        };
        let keys = [key(), key()];
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &keys[0]).unwrap();
        let path = file.path().to_str().unwrap();
        let public = openssl(&["rsa", "-in", path, "-RSAPublicKey_out", "-outform", "DER"]);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (public, behind) = (Arc::new(public), bucket.port);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let public = Arc::clone(&public);
                // A client that goes away is no failure of the test's.
                std::thread::spawn(move || drop(pass(stream, &public, behind)));
            }
        });
        Google { bucket, port, keys }
    }
}

/// One request: refused, or passed on with no token.
fn pass(stream: TcpStream, public: &[u8], behind: u16) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let (mut head, mut token, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        if client.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().trim() {
            "" => break,
            "authorization" => token = value.trim().to_owned(),
            "connection" => {}
            name => {
                if name == "content-length" {
                    length = value.trim().parse().unwrap_or(0);
                }
                head += &line;
            }
        }
    }
    let allowed = token.strip_prefix("Bearer ").is_some_and(|token| holds(token, public));
    if !allowed {
        std::io::copy(&mut client.by_ref().take(length), &mut std::io::sink())?;
        let body = "<Error><Code>AuthenticationRequired</Code></Error>";
        return write!(
            client.get_mut(),
            "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Type: application/xml\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
    }
    let mut store = TcpStream::connect(("127.0.0.1", behind))?;
    // moto lets somebody delete who is not nobody; signatures it doesn't check here.
    let own = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, \
               SignedHeaders=host, Signature=0";
    write!(store, "{head}Authorization: {own}\r\nConnection: close\r\n\r\n")?;
    std::io::copy(&mut client.by_ref().take(length), &mut store)?;
    std::io::copy(&mut store, client.get_mut())?;
    Ok(())
}

/// Whether a token is the account's, for now and for this API.
fn holds(token: &str, public: &[u8]) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    let Some((header, claims)) = message.split_once('.') else { return false };
    let parse = |text| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok();
    let (Some(header), Some(claims)) = (parse(header), parse(claims)) else { return false };
    let (header, claims): (Value, Value) = (header, claims);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let scope = claims["scope"].as_str().unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    header["alg"] == "RS256"
        && claims["iss"] == ACCOUNT
        && claims["exp"].as_u64().is_some_and(|end| end > now)
        && scope.starts_with("https://www.googleapis.com/auth/")
        && UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(message.as_bytes(), &signature)
            .is_ok()
}

impl ObjectStore for Google {
    fn destination(&self, name: &str, bucket: &str, right: bool) -> String {
        let key = json!({
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key_id": "1",
            "private_key": self.keys[usize::from(!right)],
        });
        format!(
            "[[destination]]\nname = \"{name}\"\nobject_store = \"gs://{bucket}/results/here\"\n\
             [destination.settings]\nbase_url = \"http://127.0.0.1:{}\"\n\
             service_account_key = '{key}'\n",
            self.port,
        )
    }

    fn secrets(&self) -> [String; 2] {
        // A line of each that no other has.
        self.keys.clone().map(|key| key.lines().nth(5).unwrap().to_owned())
    }

    fn objects(&self) -> Vec<Object> {
        self.bucket.objects("x", "x")
    }
}
