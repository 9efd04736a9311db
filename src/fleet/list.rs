//! Lists of references: one a line, `#` starts a comment.

use super::{Error, Image, Kind, Workload};
use crate::source::Reference;

/// The workloads of a list.
pub fn workloads(text: &str, name: &str) -> Result<Vec<Workload>, Error> {
    let mut found: Vec<Workload> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let reference = line.split('#').next().unwrap_or_default().trim();
        if reference.is_empty() {
            continue;
        }
        if let Err(error) = Reference::detect(reference) {
            return Err(Error::Value {
                name: name.to_owned(),
                place: format!("line {}", number + 1),
                text: error.to_string(),
            });
        }
        if !found.iter().any(|known| known.name == reference) {
            found.push(of_reference(reference, name));
        }
    }
    Ok(found)
}

/// A reference as a workload of its own.
pub fn of_reference(reference: &str, source: &str) -> Workload {
    let image = Image::Reference(reference.to_owned());
    Workload::new(reference.to_owned(), Kind::Reference, source.to_owned(), image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_empty_lines_and_repetitions() {
        let all = workloads("# mine\nnginx\n\nredis:7 # cache\nnginx\r\n", "l.txt").unwrap();
        assert_eq!(all.iter().map(|w| w.name.as_str()).collect::<Vec<_>>(), ["nginx", "redis:7"]);
        let error = workloads("nginx\nNot A Name\n", "l.txt").unwrap_err().to_string();
        assert!(error.contains("l.txt: line 2"), "{error}");
    }
}
