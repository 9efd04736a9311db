//! Interpreters of script languages and virtual machines, by the names they are installed under.

use crate::plan::shell::Value;

/// A language runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// CPython, PyPy.
    Python,
    /// Node.js.
    Node,
    /// Ruby.
    Ruby,
    /// Perl.
    Perl,
    /// PHP: command line, FPM, CGI.
    Php,
    /// A Java virtual machine.
    Java,
    /// Erlang and Elixir.
    Erlang,
    /// Lua.
    Lua,
    /// .NET.
    Dotnet,
    /// Deno, Bun.
    JavaScript,
}

/// The language that a program of this name runs.
pub fn language(name: &str) -> Option<Language> {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    Some(match stem {
        "python" | "pypy" => Language::Python,
        "node" | "nodejs" => Language::Node,
        "ruby" | "jruby" => Language::Ruby,
        "perl" => Language::Perl,
        "php" | "php-fpm" | "php-cgi" => Language::Php,
        "java" => Language::Java,
        "erl" | "beam.smp" | "beam" | "erlexec" | "escript" => Language::Erlang,
        "lua" | "luajit" => Language::Lua,
        "dotnet" => Language::Dotnet,
        "deno" | "bun" => Language::JavaScript,
        _ => return None,
    })
}

/// What a runtime was told to run: a file, or a module by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A script or archive.
    File(String),
    /// `python -m NAME` and the like.
    Module(String),
}

/// Finds the script among a runtime's arguments.
pub fn subject(language: Language, argv: &[Value]) -> Option<Subject> {
    let valued: &[&str] = match language {
        Language::Python => &["-W", "-X", "-Q"],
        Language::Node | Language::JavaScript => &["-r", "--require", "--import", "-C"],
        Language::Ruby => &["-I", "-r", "-C", "-E"],
        Language::Perl => &["-I", "-M"],
        Language::Php => &["-c", "-d", "-y"],
        Language::Java => &["-cp", "-classpath", "--class-path", "-p", "--module-path"],
        _ => &[],
    };
    let mut words = argv.iter().skip(1);
    while let Some(word) = words.next() {
        let word = word.as_deref()?;
        match (language, word) {
            (Language::Python, "-m") | (Language::Java, "-m" | "--module") => {
                return Some(Subject::Module(words.next()?.clone()?));
            }
            (Language::Java, "-jar") => return Some(Subject::File(words.next()?.clone()?)),
            (Language::Python, "-c") | (_, "-e" | "--eval") => return None,
            (_, "--") => return Some(Subject::File(words.next()?.clone()?)),
            (_, word) if valued.contains(&word) => drop(words.next()),
            (_, word) if word.starts_with('-') => {}
            (Language::Java, class) => return Some(Subject::Module(class.to_owned())),
            (Language::JavaScript, "run") => {}
            (_, file) => return Some(Subject::File(file.to_owned())),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_and_their_scripts_are_recognised() {
        for (name, expected) in [
            ("python3.11", Some(Language::Python)),
            ("node", Some(Language::Node)),
            ("php-fpm8.2", Some(Language::Php)),
            ("beam.smp", Some(Language::Erlang)),
            ("perl5.36.0", Some(Language::Perl)),
            ("nginx", None),
            ("nodetool", None),
        ] {
            assert_eq!(language(name), expected, "{name}");
        }
        let find = |language, text: &str| {
            let argv: Vec<Value> = text.split(' ').map(|word| Some(word.to_owned())).collect();
            subject(language, &argv)
        };
        assert_eq!(
            find(Language::Python, "python3 -u -X dev -m gunicorn app:app"),
            Some(Subject::Module("gunicorn".into()))
        );
        assert_eq!(
            find(Language::Python, "python3 -u /app/x.py"),
            Some(Subject::File("/app/x.py".into()))
        );
        assert_eq!(
            find(Language::Java, "java -Xmx1g -cp a:b -jar /app.jar"),
            Some(Subject::File("/app.jar".into()))
        );
        assert_eq!(
            find(Language::Node, "node --import x server.js"),
            Some(Subject::File("server.js".into()))
        );
    }
}
