//! Values in the languages of the templates.

use minijinja::{Environment, Error, ErrorKind};

/// Adds a filter for each language.
pub(crate) fn add_filters(environment: &mut Environment<'_>) {
    environment.add_filter("sh", sh);
    environment.add_filter("qemu", |text: String| text.replace(',', ",,"));
    environment.add_filter("hcl", hcl);
    environment.add_filter("unit", unit);
    environment.add_filter("comment", comment);
    environment.add_filter("truncated", |text: String, most: usize| -> String {
        text.chars().take(most).collect()
    });
}

fn sh(text: String) -> Result<String, Error> {
    printable(&text)?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// A string of HCL, in which `${` and `%{` begin expressions.
fn hcl(text: String) -> Result<String, Error> {
    printable(&text)?;
    let text = text.replace('\\', r"\\").replace('"', "\\\"");
    Ok(format!("\"{}\"", text.replace("${", "$${").replace("%{", "%%{")))
}

/// A word of a unit file, in which `%` begins a specifier and `$` a variable.
fn unit(text: String) -> Result<String, Error> {
    printable(&text)?;
    let text = text.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    let text = text.replace('$', "$$");
    Ok(if text.contains([' ', '"', '\'', ';']) { format!("\"{text}\"") } else { text })
}

/// What stays on its line.
fn comment(text: String) -> Result<String, Error> {
    printable(&text)?;
    Ok(text)
}

fn printable(text: &str) -> Result<(), Error> {
    if text.chars().any(char::is_control) {
        let what = format!("`{}` has control characters", text.escape_debug());
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    Ok(())
}

/// Letters, digits and some others; anything else becomes a dash.
pub(crate) fn restricted(text: &str, others: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    text.chars().map(|c| if fits(c) { c } else { '-' }).collect()
}

/// A label of RFC 1123, which Kubernetes and the clouds have names in: at most 63 lower-case letters,
/// digits and dashes, beginning with a letter and ending with no dash.
pub(crate) fn label(text: &str) -> String {
    let text = restricted(&text.to_ascii_lowercase(), "");
    let mut text: String = text.trim_matches('-').chars().take(50).collect();
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        text = format!("vm-{text}");
    }
    text.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_quotes() {
        assert_eq!(sh("it's".into()).unwrap(), r"'it'\''s'");
        assert_eq!(hcl(r#"a"b\${c}"#.into()).unwrap(), r#""a\"b\\$${c}""#);
        assert_eq!(unit("a b%h$c".into()).unwrap(), "\"a b%%h$$c\"");
        for filter in [sh, hcl, unit, comment] {
            assert!(filter("a\nb".into()).is_err());
        }
    }

    #[test]
    fn names_become_labels() {
        assert_eq!(label("My_App.v2"), "my-app-v2");
        assert_eq!(label("7up-"), "vm-7up");
        assert_eq!(label("---"), "vm");
    }
}
