//! `RUN --mount`: what is written, as types.

use super::ast::Run;

/// A mount. Paths are as written, with variables expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: Kind,
    /// Where; `None` for the default of its kind.
    pub target: Option<String>,
    /// Whether it can't be written to.
    pub read_only: bool,
    /// Stage, image or context that it comes from.
    pub from: Option<String>,
    /// Path in that.
    pub source: Option<String>,
    /// Name of a cache, secret or agent.
    pub id: Option<String>,
    /// Whether a secret or agent must be there.
    pub required: bool,
    /// Variable that a secret goes to.
    pub env: Option<String>,
    /// Permissions of a new cache, or of a secret or socket.
    pub mode: Option<u32>,
    /// Owner of the same.
    pub uid: u32,
    /// Group of the same.
    pub gid: u32,
    /// Largest size of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// Who may use a cache at the same time.
    pub sharing: Sharing,
}

/// Kinds of mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Files of a context, stage or image.
    Bind,
    /// A directory that stays.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// The socket of an agent.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// One; others get another cache.
    Private,
    /// One; others wait.
    Locked,
}

impl Mount {
    /// Reads the value of `--mount`; `expand` replaces variables.
    ///
    /// # Errors
    /// In words.
    pub fn parse(
        text: &str,
        expand: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Mount, String> {
        let mut mount = Mount {
            kind: Kind::Bind,
            target: None,
            read_only: true,
            from: None,
            source: None,
            id: None,
            required: false,
            env: None,
            mode: None,
            uid: 0,
            gid: 0,
            size: None,
            sharing: Sharing::Shared,
        };
        let mut access = None;
        for field in fields(text) {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(expand(value)?)),
                None => (field.as_str(), None),
            };
            let needed = || {
                value
                    .clone()
                    .filter(|value| !value.is_empty())
                    .ok_or_else(|| format!("`--mount={text}`: `{name}` needs a value"))
            };
            let flag = || match value.as_deref() {
                None | Some("true" | "1") => Ok(true),
                Some("false" | "0") => Ok(false),
                Some(other) => {
                    Err(format!("`--mount={text}`: `{name}={other}` is neither true nor false"))
                }
            };
            let number = |radix| {
                let value = needed()?;
                u32::from_str_radix(&value, radix)
                    .map_err(|_| format!("`--mount={text}`: `{name}={value}` is no number"))
            };
            match name.to_ascii_lowercase().as_str() {
                "type" => {
                    mount.kind = match needed()?.as_str() {
                        "bind" => Kind::Bind,
                        "cache" => Kind::Cache,
                        "tmpfs" => Kind::Tmpfs,
                        "secret" => Kind::Secret,
                        "ssh" => Kind::Ssh,
                        other => return Err(format!("there is no mount type `{other}`")),
                    };
                }
                "target" | "dst" | "destination" => mount.target = Some(needed()?),
                "source" | "src" => mount.source = Some(needed()?),
                "from" => mount.from = Some(needed()?),
                "id" => mount.id = Some(needed()?),
                "env" => mount.env = Some(needed()?),
                "readonly" | "ro" => access = Some(flag()?),
                "readwrite" | "rw" => access = Some(!flag()?),
                "required" => mount.required = flag()?,
                "mode" => mount.mode = Some(number(8)?),
                "uid" => mount.uid = number(10)?,
                "gid" => mount.gid = number(10)?,
                "size" => {
                    mount.size = Some(size(&needed()?).ok_or_else(|| {
                        format!("`--mount={text}`: the size is a number, such as `64m`")
                    })?)
                }
                "sharing" => {
                    mount.sharing = match needed()?.as_str() {
                        "shared" => Sharing::Shared,
                        "private" => Sharing::Private,
                        "locked" => Sharing::Locked,
                        other => {
                            return Err(format!(
                                "`sharing={other}` is none of shared, private, locked"
                            ));
                        }
                    };
                }
                other => return Err(format!("a mount has no field `{other}`")),
            }
        }
        mount.read_only = access.unwrap_or(mount.kind == Kind::Bind);
        if matches!(mount.kind, Kind::Bind | Kind::Cache | Kind::Tmpfs) && mount.target.is_none() {
            return Err(format!("`--mount={text}` needs a target"));
        }
        if mount.kind != Kind::Tmpfs && mount.size.is_some() {
            return Err(format!("`--mount={text}`: only a tmpfs has a size"));
        }
        Ok(mount)
    }
}

/// Fields of a line of comma-separated values; quotes protect commas.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().into_iter().for_each(|field| field.push(c)),
        }
    }
    fields
}

/// `64m` in bytes.
fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = match text[digits..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

/// Names of what the mounts of a command come from.
pub fn origins(run: &Run) -> Vec<String> {
    let from = |text: &String| {
        fields(text).iter().find_map(|field| field.strip_prefix("from=").map(str::to_owned))
    };
    run.mounts.iter().filter_map(from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, &|value| Ok(value.replace("$HOME", "/root")))
    }

    #[test]
    fn fields_are_read() {
        let mount =
            parse("type=cache,target=$HOME/.cache,sharing=locked,id=x,mode=0700,uid=5").unwrap();
        assert_eq!((mount.kind, mount.sharing), (Kind::Cache, Sharing::Locked));
        assert_eq!(mount.target.as_deref(), Some("/root/.cache"));
        assert_eq!((mount.mode, mount.uid, mount.read_only), (Some(0o700), 5, false));
        let mount = parse("target=/x,from=b,src=/y,rw").unwrap();
        assert_eq!((mount.kind, mount.read_only), (Kind::Bind, false));
        assert!(parse("target=/x").unwrap().read_only);
        assert_eq!(parse("type=tmpfs,dst=/t,size=2m").unwrap().size, Some(2 << 20));
        assert!(parse("type=secret,id=a,required").unwrap().required);
        assert_eq!(fields("a,\"b,c\",d"), ["a", "b,c", "d"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("type=cache", "target"),
            ("type=x,target=/y", "type `x`"),
            ("target=/y,nope=1", "nope"),
            ("type=cache,target=/y,sharing=all", "sharing=all"),
            ("target=/y,ro=maybe", "maybe"),
            ("type=cache,target=/y,mode=9", "mode=9"),
            ("target=/y,size=1m", "size"),
        ] {
            assert!(parse(text).unwrap_err().contains(word), "{text}: {:?}", parse(text));
        }
    }
}
