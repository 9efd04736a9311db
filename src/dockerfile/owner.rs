//! Users and groups by the files of the image itself.

use super::index::Kind;
use super::layer;
use super::tree::Tree;

/// Largest passwd or group file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// IDs of `USER[:GROUP]`. Without a group it is the user's own, or for a numeric user the user's
/// number, as in BuildKit.
///
/// # Errors
/// In words, if a name isn't known.
pub fn find(tree: &Tree, text: &str) -> Result<(u32, u32), String> {
    let (user, group) = text.split_once(':').map_or((text, None), |(u, g)| (u, Some(g)));
    let (uid, own) = match number(user) {
        Some(uid) => (uid, uid),
        None => {
            let fields = entry(tree, "etc/passwd", user)?;
            let id = |index: usize| fields.get(index).and_then(|text| number(text));
            match (id(2), id(3)) {
                (Some(uid), Some(gid)) => (uid, gid),
                _ => return Err(format!("the entry of `{user}` in /etc/passwd is malformed")),
            }
        }
    };
    let gid = match group {
        None | Some("") => own,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => {
                let fields = entry(tree, "etc/group", group)?;
                fields
                    .get(2)
                    .and_then(|text| number(text))
                    .ok_or_else(|| format!("the entry of `{group}` in /etc/group is malformed"))?
            }
        },
    };
    Ok((uid, gid))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

/// The fields of a name in a file of the image.
fn entry(tree: &Tree, file: &str, name: &str) -> Result<Vec<String>, String> {
    let what = if file.ends_with("passwd") { "user" } else { "group" };
    let unknown = |why: &str| {
        format!("there is no {what} `{name}` in the image{why}; use a number, or add it before")
    };
    let node =
        tree.lookup(file.as_bytes(), true).ok_or_else(|| unknown(": it has no such file"))?;
    let found = tree.file(node);
    if found.meta.kind != Kind::File || found.meta.size > MAX_BYTES {
        return Err(format!("`/{file}` of the image can't be read"));
    }
    let bytes = layer::read(&found.data, found.meta.size)
        .map_err(|error| format!("`/{file}` of the image can't be read: {error}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let line = line.ok_or_else(|| unknown(""))?;
    Ok(line.split(':').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::super::index::Meta;
    use super::super::tree::Data;
    use super::*;

    #[test]
    fn names_are_the_images() {
        let mut tree = Tree::default();
        let etc = tree.put(Tree::ROOT, b"etc", Meta::directory(0o755, (0, 0)), Data::None);
        let mut file = |name: &[u8], text: &str| {
            let meta = Meta::file(0o644, text.len() as u64, (0, 0));
            tree.put(etc, name, meta, Data::Bytes(text.as_bytes().into()));
        };
        file(b"passwd", "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:\nbad:x\n");
        file(b"group", "root:x:0:\nstaff:x:50:web\n");
        for (text, expected) in [
            ("web", Ok((33, 34))),
            ("web:staff", Ok((33, 50))),
            ("web:7", Ok((33, 7))),
            ("1000", Ok((1000, 1000))),
            ("1000:staff", Ok((1000, 50))),
            ("0:0", Ok((0, 0))),
        ] {
            assert_eq!(find(&tree, text), expected, "{text}");
        }
        for text in ["nobody", "web:nobody", "bad", "", "4294967295"] {
            assert!(find(&tree, text).is_err(), "{text}");
        }
        assert!(find(&Tree::default(), "web").unwrap_err().contains("no such file"));
    }
}
