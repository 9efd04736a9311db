//! Supervisors: the services that their configuration has them start.

use super::wrappers::words;
use crate::plan::root::{Root, show};
use crate::plan::shell::{Value, matches};

/// Services that are looked at, and files that hold them.
const MAX_SERVICES: usize = 64;
const MAX_FILE: usize = 256 << 10;

/// A service of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its command.
    pub argv: Vec<Value>,
    /// Who it runs as.
    pub user: Option<String>,
}

/// The services that a supervisor will start; `None` if the program is no supervisor that is
/// known.
pub fn of(name: &str, argv: &[Value], root: &Root<'_>) -> Option<Vec<Service>> {
    let word = |at: usize| argv.get(at).and_then(|word| word.as_deref());
    let after = |option: &str| {
        let at = argv.iter().position(|word| word.as_deref() == Some(option))?;
        word(at + 1)
    };
    match name {
        "supervisord" => {
            let given = after("-c").or_else(|| after("--configuration"));
            let places = ["/etc/supervisord.conf", "/etc/supervisor/supervisord.conf"];
            let path =
                given.or_else(|| places.into_iter().find(|path| root.exists(path.as_bytes())));
            Some(supervisord(root, path?))
        }
        "s6-svscan" | "runsvdir" | "svscan" => {
            let dir = argv[1..].iter().flatten().find(|word| word.starts_with('/'));
            Some(directories(root, dir.map_or("/etc/service", String::as_str)))
        }
        "my_init" => Some(directories(root, "/etc/service")),
        "init" if is_s6_overlay(root) => {
            let mut services = directories(root, "/etc/services.d");
            services.extend(directories(root, "/etc/s6-overlay/s6-rc.d"));
            // The image's command runs as well, as the main program.
            if argv.len() > 1 {
                let argv = argv[1..].to_vec();
                services.push(Service { name: "CMD".into(), argv, user: None });
            }
            Some(services)
        }
        _ => None,
    }
}

fn is_s6_overlay(root: &Root<'_>) -> bool {
    [&b"/etc/s6-overlay"[..], b"/etc/services.d", b"/etc/s6"].iter().any(|path| root.exists(path))
}

/// `DIR/*/run`
fn directories(root: &Root<'_>, dir: &str) -> Vec<Service> {
    let mut services = Vec::new();
    for (name, _) in root.list(dir.as_bytes()).into_iter().take(MAX_SERVICES) {
        let name = show(&name);
        let path = format!("{dir}/{name}/run");
        if root.file(path.as_bytes()).is_some() {
            services.push(Service { name, argv: vec![Some(path)], user: None });
        }
    }
    services
}

/// Sections `[program:NAME]` of the file and of those it includes.
fn supervisord(root: &Root<'_>, path: &str) -> Vec<Service> {
    let mut services = Vec::new();
    let mut files = vec![path.to_owned()];
    let mut read = 0;
    while let Some(path) = files.pop() {
        read += 1;
        let Some(text) = root.text(path.as_bytes(), MAX_FILE).filter(|_| read < MAX_SERVICES)
        else {
            continue;
        };
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
        for (section, values) in sections(&text) {
            let get = |key: &str| values.iter().find(|(found, _)| found == key).map(|(_, v)| v);
            if section == "include" {
                for pattern in get("files").map(|files| words(files)).unwrap_or_default() {
                    files.extend(glob(root, &dir, &pattern));
                }
            }
            let Some(name) = section.strip_prefix("program:") else { continue };
            let Some(command) = get("command").filter(|_| services.len() < MAX_SERVICES) else {
                continue;
            };
            let argv = words(&command.replace("%%", "%")).into_iter().map(Some).collect();
            services.push(Service { name: name.to_owned(), argv, user: get("user").cloned() });
        }
    }
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

/// A section's name, and its settings.
type Section = (String, Vec<(String, String)>);

/// Sections of an INI file, with continued lines and comments after ` ;`.
fn sections(text: &str) -> Vec<Section> {
    let mut out: Vec<Section> = Vec::new();
    for line in text.lines() {
        let continued = line.starts_with([' ', '\t']);
        let line = line.split(" ;").next().unwrap_or(line).trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            out.push((name.trim().to_owned(), Vec::new()));
            continue;
        }
        let Some((_, values)) = out.last_mut() else { continue };
        if continued && let Some((_, value)) = values.last_mut() {
            value.push(' ');
            value.push_str(line);
        } else if let Some((key, value)) = line.split_once('=') {
            values.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    out
}

/// Files that match a pattern in its last component.
fn glob(root: &Root<'_>, dir: &str, pattern: &str) -> Vec<String> {
    let pattern =
        if pattern.starts_with('/') { pattern.to_owned() } else { format!("{dir}/{pattern}") };
    let (dir, name) = pattern.rsplit_once('/').unwrap_or(("", &pattern));
    let entries = root.list(dir.as_bytes()).into_iter().map(|(entry, _)| show(&entry));
    entries.filter(|entry| matches(name, entry)).map(|entry| format!("{dir}/{entry}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ini_sections_are_read() {
        let text = "[supervisord]\nnodaemon=true\n; x\n[program:web]\n\
                    command=/usr/sbin/nginx -g \"daemon off;\" ; the server\n  -c x\nuser = www\n";
        let sections = sections(text);
        assert_eq!(sections[1].0, "program:web");
        assert_eq!(sections[1].1[0].1, "/usr/sbin/nginx -g \"daemon off;\" -c x");
        assert_eq!(sections[1].1[1], ("user".into(), "www".into()));
    }
}
