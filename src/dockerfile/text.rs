//! The text of a Dockerfile: physical lines to logical ones, and here-documents out of the way.
//!
//! parse-dockerfile reads one here-document, and only where it comes first on its line; BuildKit
//! takes any number of them anywhere in the words of RUN, COPY and ADD. So here-documents are found
//! here, as BuildKit finds them, and *masked* for the parser: `<<` becomes two control characters
//! and every line of a body a comment of the same length. Offsets stay what they were.
//!
//! Reference: BuildKit `docs/reference.md`, "Format", "Here-Documents".

use std::ops::Range;

/// Stands for `<<` in masked text; a Dockerfile that contains it is refused.
pub const MARK: &str = "\u{1}\u{2}";
/// Largest Dockerfile that is read, in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heredoc {
    /// The delimiter, which names the file that COPY makes of it.
    pub name: String,
    /// The word as written, such as `<<-"EOF"`.
    pub word: String,
    /// Whether variables in it are expanded: the delimiter is not quoted.
    pub expand: bool,
    /// The lines, each with its newline; leading tabs are gone if the word says `<<-`.
    pub content: String,
    /// The same with its tabs and its terminator, for a shell to read.
    pub raw: String,
    /// Offsets of body and terminator in the text.
    pub span: Range<usize>,
}

/// A logical line: an instruction with its continuation lines joined.
#[derive(Clone, Debug)]
pub struct Logical {
    /// Offset of the first character that isn't white space.
    pub start: usize,
    /// Offset after the line and its here-documents.
    pub end: usize,
    /// Without continuation characters, newlines and comments.
    pub joined: String,
    /// For each byte of `joined`, its offset in the text.
    offsets: Vec<usize>,
    /// In the order of their words.
    pub heredocs: Vec<Heredoc>,
}

impl Logical {
    /// What follows the offset `at` of the text, on this line.
    pub fn rest(&self, at: usize) -> &str {
        let from = self.offsets.partition_point(|&offset| offset < at);
        self.joined.get(from..).unwrap_or_default().trim()
    }
}

/// A Dockerfile cut into lines.
#[derive(Clone, Debug)]
pub struct Text {
    /// As it was given, without a byte order mark.
    pub original: String,
    /// Of the same length, for the parser.
    pub masked: String,
    /// The character that continues lines and quotes others.
    pub escape: char,
    /// All instructions.
    pub lines: Vec<Logical>,
}

/// What is wrong with a text, and where: an offset.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Offset in the text.
    pub at: usize,
    /// In words.
    pub reason: String,
}

impl Text {
    /// Cuts `text` into lines.
    ///
    /// # Errors
    /// If a here-document has no end, or the text holds the control characters used for masking.
    pub fn new(text: &str) -> Result<Text, Fault> {
        let original = text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        if let Some(at) = original.find(['\u{0}', '\u{1}', '\u{2}']) {
            return Err(Fault { at, reason: "a control character".into() });
        }
        let escape = escape_directive(&original);
        let mut masked = original.clone().into_bytes();
        let mut lines = Vec::new();
        let mut at = 0;
        while at < original.len() {
            let Some(mut logical) = logical(&original, escape, &mut at) else { continue };
            if takes_heredocs(&logical.joined) {
                for word in heredoc_words(&logical.joined, escape) {
                    let heredoc = body(&original, &word, &mut at).ok_or_else(|| Fault {
                        at: logical.start,
                        reason: format!("the here-document `{}` has no end", word.text),
                    })?;
                    let mark = logical.offsets[word.mark];
                    masked[mark..mark + 2].copy_from_slice(MARK.as_bytes());
                    for byte in &mut masked[heredoc.span.clone()] {
                        if !matches!(byte, b'\n' | b'\r') {
                            *byte = b'#';
                        }
                    }
                    logical.heredocs.push(heredoc);
                }
                logical.end = at;
            }
            if let Some(brackets) = empty_list(&logical.joined) {
                for (bracket, mark) in brackets.into_iter().zip(MARK.bytes()) {
                    masked[logical.offsets[bracket]] = mark;
                }
            }
            lines.push(logical);
        }
        // Only whole lines were overwritten, and `<<` by ASCII.
        let masked = String::from_utf8_lossy(&masked).into_owned();
        Ok(Text { original, masked, escape, lines })
    }

    /// The logical line that `offset` is on.
    pub fn line_at(&self, offset: usize) -> Option<&Logical> {
        let after = self.lines.partition_point(|line| line.start <= offset);
        self.lines.get(after.checked_sub(1)?)
    }
}

/// Number of the line, from 1, that `offset` is on.
pub fn line_number(text: &str, offset: usize) -> usize {
    let upto = &text.as_bytes()[..offset.min(text.len())];
    upto.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The escape character that the directives at the top ask for.
fn escape_directive(text: &str) -> char {
    for line in text.lines() {
        let Some(comment) = line.trim_start().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        match (name.trim().to_ascii_lowercase().as_str(), value.trim()) {
            ("escape", "`") => return '`',
            ("escape", _) => return '\\',
            ("syntax" | "check", _) => {}
            _ => break,
        }
    }
    '\\'
}

/// The physical line at `at` without its end, which `at` moves behind.
fn physical<'t>(text: &'t str, at: &mut usize) -> (&'t str, usize) {
    let start = *at;
    let rest = &text[start..];
    let len = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
    *at += len;
    let line = rest[..len].strip_suffix('\n').unwrap_or(&rest[..len]);
    (line.strip_suffix('\r').unwrap_or(line), start)
}

/// The line without its continuation character, if it has one.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t']).strip_suffix(escape)
}

fn is_comment_or_blank(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// Reads one logical line; `None` where there is only a comment or nothing.
fn logical(text: &str, escape: char, at: &mut usize) -> Option<Logical> {
    let (first, start) = physical(text, at);
    if is_comment_or_blank(first) {
        return None;
    }
    let indent = first.len() - first.trim_start().len();
    let mut logical = Logical {
        start: start + indent,
        end: *at,
        joined: String::new(),
        offsets: Vec::new(),
        heredocs: Vec::new(),
    };
    let mut push = |part: &str, from: usize| {
        logical.joined.push_str(part);
        logical.offsets.extend(from..from + part.len());
    };
    let mut line = &first[indent..];
    let mut from = start + indent;
    loop {
        let Some(part) = continued(line, escape) else {
            push(line, from);
            break;
        };
        push(part, from);
        // Comments and empty lines between continued lines count for nothing.
        loop {
            if *at >= text.len() {
                logical.end = *at;
                return Some(logical);
            }
            (line, from) = physical(text, at);
            if !is_comment_or_blank(line) {
                break;
            }
        }
    }
    logical.end = *at;
    Some(logical)
}

fn takes_heredocs(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace().map(str::to_ascii_uppercase);
    let first = words.next().unwrap_or_default();
    let keyword = if first == "ONBUILD" { words.next().unwrap_or_default() } else { first };
    matches!(keyword.as_str(), "RUN" | "COPY" | "ADD")
}

/// Where the brackets of `ENTRYPOINT []` or `CMD []` are, which undo what the base image says. The
/// crate refuses them; masked they are a shell form.
fn empty_list(line: &str) -> Option<[usize; 2]> {
    let mut words = line.split_ascii_whitespace();
    let mut keyword = words.next()?;
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        keyword = words.next()?;
    }
    let takes = ["CMD", "ENTRYPOINT"].iter().any(|name| keyword.eq_ignore_ascii_case(name));
    if !takes || !is_empty_list(&words.collect::<String>()) {
        return None;
    }
    Some([line.find('[')?, line.rfind(']')?])
}

/// Whether a text is a list of JSON without anything in it.
pub fn is_empty_list(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

struct Word {
    text: String,
    name: String,
    /// Offset of `<<` in the line.
    mark: usize,
    expand: bool,
    strip_tabs: bool,
}

/// Words of the form `[N]<<[-]DELIMITER`, the delimiter possibly quoted.
fn heredoc_words(line: &str, escape: char) -> Vec<Word> {
    split(line, escape).into_iter().filter_map(|span| heredoc_word(line, span)).collect()
}

fn heredoc_word(line: &str, span: Range<usize>) -> Option<Word> {
    let text = &line[span.clone()];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text[digits..].strip_prefix("<<")?;
    let (rest, strip_tabs) = rest.strip_prefix('-').map_or((rest, false), |rest| (rest, true));
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let quoted = |quote| rest.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let name = quoted('"').or_else(|| quoted('\'')).unwrap_or(rest);
    if name.is_empty() || name.contains(['"', '\'']) {
        return None;
    }
    Some(Word {
        text: text.to_owned(),
        name: name.to_owned(),
        mark: span.start + digits,
        expand: name.len() == rest.len(),
        strip_tabs,
    })
}

/// Words as a shell sees them: white space splits unless it is quoted or escaped.
pub fn split(line: &str, escape: char) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                words.extend(start.take().map(|start| start..at));
                continue;
            }
            None if c == '"' || c == '\'' => quote = Some(c),
            Some(open) if c == open => quote = None,
            // Nothing is escaped within single quotes.
            _ if c == escape && quote != Some('\'') => {
                start.get_or_insert(at);
                chars.next();
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|start| start..line.len()));
    words
}

/// Reads a here-document's lines up to its delimiter.
fn body(text: &str, word: &Word, at: &mut usize) -> Option<Heredoc> {
    let start = *at;
    let mut content = String::new();
    while *at < text.len() {
        let (line, from) = physical(text, at);
        let stripped = if word.strip_tabs { line.trim_start_matches('\t') } else { line };
        if stripped == word.name {
            return Some(Heredoc {
                name: word.name.clone(),
                word: word.text.clone(),
                expand: word.expand,
                content,
                raw: text[start..from + line.len()].to_owned(),
                span: start..*at,
            });
        }
        content.push_str(stripped);
        // The line's own end, be it CR LF.
        content.push_str(&text[from + line.len()..*at]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> Vec<String> {
        Text::new(text).unwrap().lines.into_iter().map(|line| line.joined).collect()
    }

    #[test]
    fn continued_lines_are_joined_without_comments_between() {
        let text = "FROM a\n\n# c\nRUN one \\\n  # no\n\n  two \\ \nthree\nCMD x \\";
        assert_eq!(joined(text), ["FROM a", "RUN one   two three", "CMD x "]);
        assert_eq!(joined("# escape=`\nRUN a `\nb\\\n"), ["RUN a b\\"]);
        assert_eq!(joined("FROM a\r\nRUN x \\\r\n y\r\n"), ["FROM a", "RUN x  y"]);
    }

    #[test]
    fn heredocs_anywhere_on_the_line_are_taken_out_and_masked() {
        let text = "RUN cat <<A >x && 3<<-\"B B\" cat\na $1\nA\n\t\tb\n\tB B\nCMD y\n";
        let parsed = Text::new(text).unwrap();
        let [run, cmd] = parsed.lines.as_slice() else { panic!("{:?}", parsed.lines) };
        assert_eq!(run.heredocs.len(), 2);
        assert_eq!((run.heredocs[0].name.as_str(), run.heredocs[0].expand), ("A", true));
        assert_eq!(run.heredocs[0].content, "a $1\n");
        assert_eq!((run.heredocs[1].name.as_str(), run.heredocs[1].expand), ("B B", false));
        assert_eq!(run.heredocs[1].content, "b\n");
        assert_eq!(cmd.joined, "CMD y");
        assert_eq!(parsed.masked.len(), text.len());
        assert!(!parsed.masked.contains("a $1"), "{}", parsed.masked);
        assert_eq!(parsed.masked.matches(MARK).count(), 2);
    }

    #[test]
    fn what_only_looks_like_a_heredoc_is_left_alone() {
        for line in ["RUN echo \"<<A\"", "RUN cat <<<A", "CMD <<A", "RUN a << b", "RUN ((1<<2))"] {
            let text = Text::new(line).unwrap();
            assert!(text.lines[0].heredocs.is_empty(), "{line}");
        }
    }

    #[test]
    fn an_endless_heredoc_is_an_error_at_its_instruction() {
        let fault = Text::new("FROM a\nRUN <<EOF\nx\n").unwrap_err();
        assert_eq!(line_number("FROM a\nRUN <<EOF\nx\n", fault.at), 2);
        assert!(fault.reason.contains("<<EOF"), "{}", fault.reason);
    }
}
