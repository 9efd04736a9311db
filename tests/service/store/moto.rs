//! S3: moto's, which checks signatures and rights as Amazon does, with boto3 as a witness.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::super::common::run;
use super::super::common::vm::free_port;
use super::super::service::request;
use super::{Object, ObjectStore, listed, until};

/// A store with a bucket. It ends when this is dropped.
pub struct Bucket {
    python: PathBuf,
    pub port: u16,
    child: Child,
}

impl Bucket {
    /// Starts moto. So many requests need no rights, the first of which makes the bucket.
    pub fn start(python: PathBuf, free: &str) -> Bucket {
        let port = free_port();
        let child = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", free)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bucket = Bucket { python, port, child };
        until("moto", || bucket.send("PUT", "/vms", "X: x", "").is_some());
        bucket
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Option<String> {
        let (status, answer) = request(self.port, method, path, headers, body).ok()?;
        assert_eq!(status, 200, "{answer}");
        Some(answer)
    }

    /// What is in the bucket, by boto3.
    pub fn objects(&self, key: &str, secret: &str) -> Vec<Object> {
        let script = "import boto3, hashlib, sys\n\
            s3 = boto3.client('s3', endpoint_url=sys.argv[1], region_name='us-east-1',\n\
            \x20   aws_access_key_id=sys.argv[2], aws_secret_access_key=sys.argv[3])\n\
            for o in s3.list_objects_v2(Bucket='vms').get('Contents', []):\n\
            \x20   body = s3.get_object(Bucket='vms', Key=o['Key'])['Body'].read()\n\
            \x20   print(o['Key'], len(body), 'sha256:' + hashlib.sha256(body).hexdigest())\n";
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let arguments = ["-c", script, &endpoint, key, secret];
        listed(&run(Command::new(&self.python).args(arguments)).stdout)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store, and a user who may use it.
pub struct Moto {
    bucket: Bucket,
    key: String,
    secret: String,
}

impl Moto {
    pub fn start(python: PathBuf) -> Moto {
        // Those that make the bucket and the user.
        let bucket = Bucket::start(python, "4");
        let iam = |action: &str| {
            // The service is told by what a signature is for.
            let headers = "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/\
                           aws4_request, SignedHeaders=host, Signature=0\r\n\
                           Content-Type: application/x-www-form-urlencoded";
            bucket.send("POST", "/", headers, &format!("{action}&Version=2010-05-08")).unwrap()
        };
        iam("Action=CreateUser&UserName=d2u");
        let keys = iam("Action=CreateAccessKey&UserName=d2u");
        let within = |name: &str| {
            let (_, rest) = keys.split_once(&format!("<{name}>")).unwrap();
            rest.split('<').next().unwrap().to_owned()
        };
        let (key, secret) = (within("AccessKeyId"), within("SecretAccessKey"));
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A\
                      %22Allow%22%2C%22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        let put = "Action=PutUserPolicy&UserName=d2u&PolicyName=all&PolicyDocument=";
        iam(&format!("{put}{policy}"));
        Moto { bucket, key, secret }
    }
}

impl ObjectStore for Moto {
    fn destination(&self, name: &str, bucket: &str, right: bool) -> String {
        let [good, bad] = self.secrets();
        format!(
            "[[destination]]\nname = \"{name}\"\nobject_store = \"s3://{bucket}/results/here\"\n\
             [destination.settings]\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"{}\"\nsecret_access_key = \"{}\"\n",
            self.bucket.port,
            self.key,
            if right { good } else { bad }
        )
    }

    fn secrets(&self) -> [String; 2] {
        [self.secret.clone(), "another secret".to_owned()]
    }

    fn objects(&self) -> Vec<Object> {
        self.bucket.objects(&self.key, &self.secret)
    }
}
