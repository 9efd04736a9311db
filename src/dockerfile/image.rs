//! The configuration of an image while it is built.
//!
//! It is kept as JSON, so that whatever a base image's configuration holds beside the known fields
//! stays in it.

use serde_json::{Map, Value, json};

use super::ast::{Command, Healthcheck};
use crate::source::{Layer, Platform};

/// PATH of images that set none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The configuration of an image under construction.
#[derive(Clone, Debug)]
pub struct ImageConfig {
    document: Map<String, Value>,
    /// Whether CMD was given in this stage: ENTRYPOINT drops an inherited one.
    cmd_set: bool,
}

impl ImageConfig {
    /// That of `FROM scratch`.
    pub fn scratch(platform: &Platform) -> ImageConfig {
        let document = json!({
            "architecture": platform.architecture,
            "os": platform.os,
            "config": { "Env": [format!("PATH={DEFAULT_PATH}")], "WorkingDir": "/" },
        });
        // Just written as an object.
        let Value::Object(document) = document else { return ImageConfig::empty() };
        ImageConfig { document, cmd_set: false }
    }

    fn empty() -> ImageConfig {
        ImageConfig { document: Map::new(), cmd_set: false }
    }

    /// A base image's; its ONBUILD triggers are taken out and returned.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn of_base(json: &[u8]) -> Result<(ImageConfig, Vec<String>), String> {
        let document: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| format!("its configuration: {error}"))?;
        let mut config = ImageConfig { document, cmd_set: false };
        if !config.document.get("config").is_some_and(Value::is_object) {
            config.document.insert("config".into(), json!({}));
        }
        // Docker keeps how a layer's container was configured in old images.
        for old in ["container", "container_config", "docker_version"] {
            config.document.remove(old);
        }
        let triggers = config.texts("OnBuild");
        config.fields().remove("OnBuild");
        Ok((config, triggers))
    }

    /// The same for a further stage that starts from it.
    pub fn as_base(&self) -> (ImageConfig, Vec<String>) {
        let mut config = self.clone();
        let triggers = config.texts("OnBuild");
        config.fields().remove("OnBuild");
        config.cmd_set = false;
        (config, triggers)
    }

    fn fields(&mut self) -> &mut Map<String, Value> {
        let config = self.document.entry("config").or_insert_with(|| json!({}));
        if !config.is_object() {
            *config = json!({});
        }
        // Made an object just now if it was none.
        config.as_object_mut().unwrap()
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.document.get("config")?.get(name).filter(|value| !value.is_null())
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let list = self.field(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    }

    fn text(&self, name: &str) -> String {
        self.field(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn set(&mut self, name: &str, value: Value) {
        self.fields().insert(name.to_owned(), value);
    }

    /// The environment in order.
    pub fn env(&self) -> Vec<(String, String)> {
        let split = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        self.texts("Env").into_iter().map(split).collect()
    }

    /// ENV
    pub fn set_var(&mut self, name: &str, value: &str) {
        let mut env = self.texts("Env");
        let text = format!("{name}={value}");
        let prefix = format!("{name}=");
        match env.iter_mut().find(|old| old.starts_with(&prefix)) {
            Some(old) => *old = text,
            None => env.push(text),
        }
        self.set("Env", env.into());
    }

    /// LABEL
    pub fn set_label(&mut self, name: &str, value: &str) {
        self.insert("Labels", name, value.into());
    }

    fn insert(&mut self, field: &str, name: &str, value: Value) {
        let fields = self.fields();
        let object = fields.entry(field).or_insert_with(|| json!({}));
        if !object.is_object() {
            *object = json!({});
        }
        if let Some(object) = object.as_object_mut() {
            object.insert(name.to_owned(), value);
        }
    }

    /// USER
    pub fn set_user(&mut self, user: &str) {
        self.set("User", user.into());
    }

    /// Who runs commands; empty for root.
    pub fn user(&self) -> String {
        self.text("User")
    }

    /// WORKDIR, already absolute.
    pub fn set_workdir(&mut self, path: &str) {
        self.set("WorkingDir", path.into());
    }

    /// The working directory, always absolute.
    pub fn workdir(&self) -> String {
        absolute("/", &self.text("WorkingDir"))
    }

    /// SHELL
    pub fn set_shell(&mut self, shell: &[String]) {
        self.set("Shell", shell.into());
    }

    /// What runs shell forms.
    pub fn shell(&self) -> Vec<String> {
        let shell = self.texts("Shell");
        if shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { shell }
    }

    fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(argv) => argv.clone(),
            Command::Shell(line) => {
                let mut argv = self.shell();
                argv.push(line.clone());
                argv
            }
        }
    }

    /// CMD
    pub fn set_cmd(&mut self, command: &Command) {
        self.set_argv("Cmd", command);
        self.args_escaped(command);
        self.cmd_set = true;
    }

    /// ENTRYPOINT; drops a command that the base had.
    pub fn set_entrypoint(&mut self, command: &Command) {
        self.set_argv("Entrypoint", command);
        if !self.cmd_set {
            self.fields().remove("Cmd");
        }
    }

    /// An empty list is none.
    fn set_argv(&mut self, field: &str, command: &Command) {
        let argv = self.argv(command);
        if argv.is_empty() {
            self.fields().remove(field);
        } else {
            self.set(field, argv.into());
        }
    }

    /// A flag of Docker's for Windows that has no meaning here and is not carried on.
    fn args_escaped(&mut self, _: &Command) {
        self.fields().remove("ArgsEscaped");
    }

    /// EXPOSE
    ///
    /// # Errors
    /// In words, if it is no port.
    pub fn expose(&mut self, word: &str) -> Result<(), String> {
        for port in ports(word)? {
            self.insert("ExposedPorts", &port, json!({}));
        }
        Ok(())
    }

    /// VOLUME
    pub fn add_volume(&mut self, path: &str) {
        self.insert("Volumes", path, json!({}));
    }

    /// STOPSIGNAL
    pub fn set_stop_signal(&mut self, signal: &str) {
        self.set("StopSignal", signal.into());
    }

    /// MAINTAINER
    pub fn set_author(&mut self, name: &str) {
        self.document.insert("author".into(), name.into());
    }

    /// ONBUILD
    pub fn add_trigger(&mut self, trigger: &str) {
        let mut triggers = self.texts("OnBuild");
        triggers.push(trigger.to_owned());
        self.set("OnBuild", triggers.into());
    }

    /// HEALTHCHECK
    pub fn set_healthcheck(&mut self, check: &Healthcheck) {
        let Healthcheck::Check {
            command,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        } = check
        else {
            self.set("Healthcheck", json!({ "Test": ["NONE"] }));
            return;
        };
        let test = match command {
            Command::Exec(argv) => [&["CMD".to_owned()], argv.as_slice()].concat(),
            Command::Shell(line) => vec!["CMD-SHELL".to_owned(), line.clone()],
        };
        let mut value = json!({ "Test": test });
        let numbers = [
            ("Interval", interval),
            ("Timeout", timeout),
            ("StartPeriod", start_period),
            ("StartInterval", start_interval),
            ("Retries", retries),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                value[name] = (*number).into();
            }
        }
        self.set("Healthcheck", value);
    }

    /// Notes what made a layer, or changed the configuration.
    pub fn remember(&mut self, created_by: &str, created: &str, empty: bool) {
        let mut entry = json!({
            "created": created,
            "created_by": created_by,
            "comment": "dock2uni",
        });
        if empty {
            entry["empty_layer"] = true.into();
        }
        let history = self.document.entry("history").or_insert_with(|| json!([]));
        match history.as_array_mut() {
            Some(list) => list.push(entry),
            None => *history = json!([entry]),
        }
    }

    /// The document for these layers.
    pub fn document(&self, layers: &[Layer], created: &str) -> Vec<u8> {
        let mut document = self.document.clone();
        let ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        document.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": ids }));
        document.insert("created".into(), created.into());
        Value::Object(document).to_string().into_bytes()
    }
}

/// `path` as seen from `base`, without `.` and `..`; a slash at its end is gone.
pub fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp`, `8000-8010/tcp` as single ports.
fn ports(word: &str) -> Result<Vec<String>, String> {
    let malformed = || format!("`{word}` is no port; write `80`, `53/udp` or `8000-8010`");
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(malformed());
    }
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let number = |text: &str| text.parse::<u16>().map_err(|_| malformed());
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(malformed());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        Command::Shell(line.into())
    }

    #[test]
    fn entrypoints_drop_an_inherited_command_alone() {
        let json =
            br#"{"config":{"Cmd":["old"],"Env":["A=1","PATH=/p"],"OnBuild":["RUN x"],"Own":7}}"#;
        let (mut config, triggers) = ImageConfig::of_base(json).unwrap();
        assert_eq!(triggers, ["RUN x"]);
        config.set_entrypoint(&Command::Exec(vec!["/e".into()]));
        assert_eq!(config.field("Cmd"), None);
        config.set_cmd(&shell("c"));
        config.set_entrypoint(&shell("e"));
        assert_eq!(config.texts("Cmd"), ["/bin/sh", "-c", "c"]);
        config.set_var("A", "2");
        config.set_var("B", "3");
        assert_eq!(config.texts("Env"), ["A=2", "PATH=/p", "B=3"]);
        assert_eq!(config.field("Own"), Some(&json!(7)));
        assert_eq!(config.field("OnBuild"), None);
    }

    #[test]
    fn ports_and_paths() {
        assert_eq!(ports("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports("80-82/UDP").unwrap(), ["80/udp", "81/udp", "82/udp"]);
        for text in ["", "x", "80/xyz", "9-8", "70000"] {
            assert!(ports(text).is_err(), "{text}");
        }
        assert_eq!(absolute("/a/b", "c"), "/a/b/c");
        assert_eq!(absolute("/a/b", "../c/"), "/a/c");
        assert_eq!(absolute("/a", "/../x/./y"), "/x/y");
    }
}
