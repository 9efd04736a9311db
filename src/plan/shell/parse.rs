//! A reader of shell scripts: the grammar of POSIX (XCU 2.10) with the parts of bash that container
//! entrypoints use.
//!
//! Written for planning, not for execution: of redirections only the files that they write to are
//! kept. It never recurses deeper than [`MAX_DEPTH`], whatever the input, since scripts come from
//! strangers; that is why no parser of a shell is used here, which would be trusted with its own
//! scripts.

use std::rc::Rc;

/// Nesting of compound commands and expansions that is read.
const MAX_DEPTH: usize = 48;

/// Commands one after the other.
pub type List = Vec<Item>;

/// One command of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What is run.
    pub first: Pipeline,
    /// What follows after `&&` (true) or `||` (false).
    pub rest: Vec<(bool, Pipeline)>,
    /// Whether `&` ends it.
    pub background: bool,
}

impl Item {
    /// All its pipelines.
    pub fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        std::iter::once(&self.first).chain(self.rest.iter().map(|(_, pipeline)| pipeline))
    }
}

/// Commands joined by `|`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Whether `!` negates it.
    pub negated: bool,
    /// The commands.
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `NAME=value command argument`
    Simple { assignments: Vec<(String, Word)>, words: Vec<Word> },
    /// `if`: conditions with what they guard, and `else`.
    If { arms: Vec<(List, List)>, otherwise: List },
    /// `while` and `until`.
    Loop { condition: List, body: List },
    /// `for NAME in ...`; without `in`, over the arguments.
    For { name: String, words: Option<Vec<Word>>, body: List },
    /// `case`.
    Case { word: Word, arms: Vec<(Vec<Word>, List)> },
    /// `{ ... }`
    Group(List),
    /// `( ... )`
    Subshell(List),
    /// A function's definition.
    Function { name: String, body: Rc<List> },
    /// `[[ ... ]]`
    Test(Vec<Word>),
    /// `(( ... ))`, and what else is not looked into.
    Opaque,
}

/// A word before expansion.
pub type Word = Vec<Part>;

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text. If not quoted it may hold patterns.
    Text { text: String, quoted: bool },
    /// `$name` or `${name op word}`.
    Variable { name: String, op: Option<(String, Word)>, quoted: bool },
    /// `$( ... )`
    Output { body: List, quoted: bool },
    /// `$(( ... ))`
    Arithmetic,
}

/// A script that has been read.
#[derive(Debug)]
pub struct Script {
    /// Its commands.
    pub list: List,
    /// Whether it was read to its end.
    pub complete: bool,
    /// Last components of the files that its redirections write to; `None` where one depends on a
    /// variable.
    pub writes: Vec<Option<String>>,
}

/// Reads a script. What cannot be read ends it early: the commands before count, and the result
/// says so.
pub fn parse(text: &str) -> Script {
    let text = text.as_bytes();
    let mut parser =
        Parser { text, at: 0, depth: 0, heredocs: Vec::new(), writes: Vec::new(), broken: false };
    let list = parser.list(&[]);
    parser.blanks();
    let complete = !parser.broken && parser.at >= parser.text.len();
    Script { list, complete, writes: parser.writes }
}

/// The last component of the path that a word becomes, if its text says it.
fn file_name(word: &Word) -> Option<String> {
    let (last, before) = word.split_last()?;
    let Part::Text { text, .. } = last else { return None };
    match text.rsplit_once('/') {
        Some((_, name)) => Some(name.to_owned()),
        None => before.is_empty().then(|| text.clone()),
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
    /// Ends of here-documents that start at the next line, and whether tabs before them count not.
    heredocs: Vec<(String, bool)>,
    /// As in [`Script`].
    writes: Vec<Option<String>>,
    broken: bool,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn starts(&self, what: &str) -> bool {
        self.text[self.at.min(self.text.len())..].starts_with(what.as_bytes())
    }

    fn ended(&self) -> bool {
        self.broken || self.at >= self.text.len()
    }

    /// Skips blanks, continued lines and comments.
    fn blanks(&mut self) {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.text.get(self.at + 1) == Some(&b'\n') => self.at += 2,
                b'#' => {
                    while self.at < self.text.len() && self.peek() != b'\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// Skips blanks and line ends, with the here-documents behind them.
    fn lines(&mut self) {
        loop {
            self.blanks();
            match self.peek() {
                b'\n' => {
                    self.at += 1;
                    self.skip_heredocs();
                }
                _ => return,
            }
        }
    }

    fn skip_heredocs(&mut self) {
        for (end, tabs) in std::mem::take(&mut self.heredocs) {
            while self.at < self.text.len() {
                let rest = &self.text[self.at..];
                let len = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
                let mut line = &rest[..len];
                self.at += (len + 1).min(rest.len());
                while tabs && line.first() == Some(&b'\t') {
                    line = &line[1..];
                }
                if line == end.as_bytes() {
                    break;
                }
            }
        }
    }

    /// The reserved word or name that comes next, without taking it.
    fn word_ahead(&self) -> &str {
        let rest = &self.text[self.at.min(self.text.len())..];
        let stop = |byte: &u8| b" \t\r\n;&|<>()\"'$`\\".contains(byte);
        let len = rest.iter().position(stop).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..len]).unwrap_or("")
    }

    fn take(&mut self, word: &str) -> bool {
        self.lines();
        let found = self.word_ahead() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    fn expect(&mut self, word: &str) {
        if !self.take(word) {
            self.broken = true;
        }
    }

    /// Commands up to one of these words, `)`, `;;` or the end.
    fn list(&mut self, until: &[&str]) -> List {
        let mut list = List::new();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.broken = true;
        }
        loop {
            self.lines();
            while self.peek() == b';' && !self.starts(";;") && !self.starts(";&") {
                self.at += 1;
                self.lines();
            }
            if self.ended() || self.peek() == b')' || self.starts(";;") || self.starts(";&") {
                break;
            }
            if until.contains(&self.word_ahead()) {
                break;
            }
            let before = self.at;
            let item = self.item();
            list.push(item);
            if self.at == before {
                self.broken = true;
            }
        }
        self.depth -= 1;
        list
    }

    fn item(&mut self) -> Item {
        let first = self.pipeline();
        let mut item = Item { first, rest: Vec::new(), background: false };
        loop {
            self.blanks();
            let and = self.starts("&&");
            if self.ended() || !(and || self.starts("||")) {
                break;
            }
            self.at += 2;
            self.lines();
            item.rest.push((and, self.pipeline()));
        }
        if self.peek() == b'&' {
            self.at += 1;
            item.background = true;
        }
        item
    }

    fn pipeline(&mut self) -> Pipeline {
        let mut pipeline = Pipeline { negated: false, commands: Vec::new() };
        while self.word_ahead() == "!" {
            self.at += 1;
            pipeline.negated = !pipeline.negated;
            self.blanks();
        }
        loop {
            pipeline.commands.push(self.command());
            self.blanks();
            if self.ended() || self.peek() != b'|' || self.starts("||") {
                return pipeline;
            }
            self.at += if self.starts("|&") { 2 } else { 1 };
            self.lines();
        }
    }

    fn command(&mut self) -> Command {
        self.blanks();
        if self.starts("((") {
            self.balanced();
            return Command::Opaque;
        }
        if self.peek() == b'(' {
            self.at += 1;
            let body = self.list(&[]);
            self.close(b')');
            self.redirections();
            return Command::Subshell(body);
        }
        let command = match self.word_ahead() {
            "if" => self.if_command(),
            "while" | "until" => {
                self.at += 5;
                let condition = self.list(&["do"]);
                let body = self.do_group();
                Command::Loop { condition, body }
            }
            "for" | "select" => self.for_command(),
            "case" => self.case_command(),
            "{" => {
                self.at += 1;
                let body = self.list(&["}"]);
                self.expect("}");
                Command::Group(body)
            }
            "[[" => self.test_command(),
            "function" => {
                self.at += 8;
                self.blanks();
                let name = self.word_ahead().to_owned();
                self.at += name.len();
                self.function(name)
            }
            _ => return self.simple(),
        };
        self.redirections();
        command
    }

    fn if_command(&mut self) -> Command {
        self.at += 2;
        let mut arms = Vec::new();
        let mut otherwise = List::new();
        loop {
            let condition = self.list(&["then"]);
            self.expect("then");
            let body = self.list(&["elif", "else", "fi"]);
            arms.push((condition, body));
            if self.take("elif") {
                continue;
            }
            if self.take("else") {
                otherwise = self.list(&["fi"]);
            }
            self.expect("fi");
            return Command::If { arms, otherwise };
        }
    }

    fn do_group(&mut self) -> List {
        self.expect("do");
        let body = self.list(&["done"]);
        self.expect("done");
        body
    }

    fn for_command(&mut self) -> Command {
        self.at += self.word_ahead().len();
        self.blanks();
        if self.starts("((") {
            self.balanced();
            self.separator();
            let body = self.do_group();
            return Command::Loop { condition: List::new(), body };
        }
        let name = self.word_ahead().to_owned();
        self.at += name.len();
        let words = self.take("in").then(|| {
            let mut words = Vec::new();
            loop {
                self.blanks();
                match self.peek() {
                    b'\n' | b';' | 0 => return words,
                    _ if self.ended() => return words,
                    _ => words.push(self.word()),
                }
            }
        });
        self.separator();
        let body = self.do_group();
        Command::For { name, words, body }
    }

    fn separator(&mut self) {
        self.blanks();
        if self.peek() == b';' {
            self.at += 1;
        }
    }

    fn case_command(&mut self) -> Command {
        self.at += 4;
        self.blanks();
        let word = self.word();
        self.expect("in");
        let mut arms = Vec::new();
        loop {
            self.lines();
            if self.ended() || self.word_ahead() == "esac" {
                break;
            }
            if self.peek() == b'(' {
                self.at += 1;
            }
            let mut patterns = Vec::new();
            loop {
                self.blanks();
                patterns.push(self.word());
                self.blanks();
                if self.peek() != b'|' || self.ended() {
                    break;
                }
                self.at += 1;
            }
            self.close(b')');
            let body = self.list(&["esac"]);
            arms.push((patterns, body));
            for end in [";;&", ";;", ";&"] {
                if self.starts(end) {
                    self.at += end.len();
                    break;
                }
            }
        }
        self.expect("esac");
        Command::Case { word, arms }
    }

    /// `[[ ... ]]`: the words between, operators among them.
    fn test_command(&mut self) -> Command {
        self.at += 2;
        let mut words = Vec::new();
        loop {
            self.lines();
            if self.ended() {
                self.broken = true;
                break;
            }
            if self.word_ahead() == "]]" {
                self.at += 2;
                break;
            }
            let operator = ["&&", "||", "(", ")", "<", ">"].into_iter().find(|op| self.starts(op));
            if let Some(operator) = operator {
                self.at += operator.len();
                words.push(vec![Part::Text { text: operator.to_owned(), quoted: false }]);
                continue;
            }
            let regular = words.last().is_some_and(|word| is_text(word, "=~"));
            words.push(if regular { self.regular_expression() } else { self.word() });
        }
        Command::Test(words)
    }

    /// After `=~`: anything up to a blank outside parentheses and quotes; not understood.
    fn regular_expression(&mut self) -> Word {
        let mut open = 0;
        while !self.ended() {
            match self.peek() {
                b'(' | b'[' => open += 1,
                b')' | b']' if self.starts("]]") && open == 0 => break,
                b')' | b']' => open -= 1,
                b' ' | b'\t' | b'\n' if open <= 0 => break,
                b'\\' => self.at += 1,
                _ => {}
            }
            self.at += 1;
        }
        vec![Part::Arithmetic]
    }

    fn function(&mut self, name: String) -> Command {
        self.blanks();
        if self.starts("(") {
            self.at += 1;
            self.blanks();
            self.close(b')');
        }
        self.lines();
        self.depth += 1;
        let body = if self.depth > MAX_DEPTH {
            self.broken = true;
            List::new()
        } else {
            match self.command() {
                Command::Group(list) => list,
                other => {
                    let first = Pipeline { negated: false, commands: vec![other] };
                    vec![Item { first, rest: Vec::new(), background: false }]
                }
            }
        };
        self.depth -= 1;
        Command::Function { name, body: Rc::new(body) }
    }

    fn simple(&mut self) -> Command {
        let (mut assignments, mut words): (Vec<(String, Word)>, Vec<Word>) = Default::default();
        loop {
            self.blanks();
            if self.ended() || self.redirection() {
                if self.ended() {
                    break;
                }
                continue;
            }
            match self.peek() {
                b'\n' | b';' | b'&' | b'|' | b')' => break,
                b'(' => {
                    // NAME () begins a function; an array's parenthesis is dealt with below.
                    let name = match (&words[..], &assignments[..]) {
                        ([word], []) => plain(word),
                        _ => None,
                    };
                    let Some(name) = name else {
                        self.balanced();
                        continue;
                    };
                    return self.function(name);
                }
                _ => {}
            }
            if words.is_empty()
                && let Some((name, append)) = self.assignment()
            {
                let value = if self.peek() == b'(' {
                    self.balanced();
                    vec![Part::Arithmetic]
                } else {
                    self.word()
                };
                let value = if append { vec![Part::Arithmetic] } else { value };
                assignments.push((name, value));
                continue;
            }
            let before = self.at;
            words.push(self.word());
            if self.at == before {
                self.broken = true;
            }
        }
        Command::Simple { assignments, words }
    }

    /// Takes `NAME=` or `NAME+=`, and an index that may be there.
    fn assignment(&mut self) -> Option<(String, bool)> {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'))?;
        let name = std::str::from_utf8(&rest[..len]).ok()?;
        if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
            return None;
        }
        let mut end = len;
        let mut indexed = false;
        if rest.get(end) == Some(&b'[') {
            end += rest[end..].iter().position(|&byte| byte == b']')? + 1;
            indexed = true;
        }
        let append = rest.get(end) == Some(&b'+');
        end += usize::from(append);
        if rest.get(end) != Some(&b'=') {
            return None;
        }
        let name = name.to_owned();
        self.at += end + 1;
        Some((name, append || indexed))
    }

    fn redirections(&mut self) {
        loop {
            self.blanks();
            if self.ended() || !self.redirection() {
                return;
            }
        }
    }

    /// Takes a redirection, if one comes next.
    fn redirection(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let mut len = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(0);
        if rest.get(len) == Some(&b'&') && rest.get(len + 1) == Some(&b'>') && len == 0 {
            len = 1;
        }
        if !matches!(rest.get(len), Some(b'<' | b'>')) {
            return false;
        }
        // Process substitution is a word.
        if len == 0 && rest.get(1) == Some(&b'(') {
            return false;
        }
        let operators = ["<<<", "<<-", "<<", "<>", "<&", ">>", ">&", ">|", "<", ">"];
        let found = operators.into_iter().find(|op| rest[len..].starts_with(op.as_bytes()));
        let Some(operator) = found else { return false };
        self.at += len + operator.len();
        self.blanks();
        let target = self.word();
        // `2>&1` and `>&-` name no file.
        let copy = operator == ">&"
            && matches!(&target[..], [Part::Text { text, .. }]
                if text == "-" || text.bytes().all(|byte| byte.is_ascii_digit()));
        if matches!(operator, ">" | ">>" | ">|" | "<>" | ">&") && !copy {
            self.writes.push(file_name(&target));
        }
        if operator == "<<" || operator == "<<-" {
            let end = target.iter().map(text_of).collect();
            self.heredocs.push((end, operator == "<<-"));
        }
        true
    }

    fn close(&mut self, byte: u8) {
        self.lines();
        if self.peek() == byte && !self.ended() {
            self.at += 1;
        } else {
            self.broken = true;
        }
    }

    /// Skips from an opening parenthesis to the one that closes it.
    fn balanced(&mut self) {
        let mut open = 0;
        while self.at < self.text.len() {
            match self.peek() {
                b'(' => open += 1,
                b')' => open -= 1,
                b'\\' => self.at += 1,
                quote @ (b'\'' | b'"') => {
                    let rest = &self.text[self.at + 1..];
                    let len = rest.iter().position(|&byte| byte == quote).unwrap_or(rest.len());
                    self.at += len + 1;
                }
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return;
            }
        }
        self.broken = true;
    }

    /// One word, which ends at a blank or an operator.
    fn word(&mut self) -> Word {
        let mut word = Word::new();
        while !self.ended() {
            match self.peek() {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b')' => break,
                b'<' | b'>' if self.text.get(self.at + 1) == Some(&b'(') => {
                    self.at += 1;
                    self.balanced();
                    word.push(Part::Arithmetic);
                }
                b'<' | b'>' => break,
                b'(' => {
                    // Extended patterns; otherwise it is no part of a word.
                    let before = self.text[..self.at].last();
                    if word.is_empty() || !before.is_some_and(|byte| b"@*+?!".contains(byte)) {
                        break;
                    }
                    self.balanced();
                    word.push(Part::Arithmetic);
                }
                _ => self.part(&mut word, false),
            }
        }
        word
    }

    /// One part of a word, inside double quotes or not.
    fn part(&mut self, word: &mut Word, quoted: bool) {
        match self.peek() {
            b'\\' => {
                let next = self.text.get(self.at + 1).copied().unwrap_or(b'\\');
                self.at = (self.at + 2).min(self.text.len());
                if next == b'\n' {
                    return;
                }
                // Within double quotes a backslash stands for itself before most characters.
                if quoted && !b"$`\"\\".contains(&next) {
                    push_text(word, "\\", true);
                }
                self.at -= 1;
                self.plain_character(word, true);
            }
            b'\'' if !quoted => {
                let start = self.at + 1;
                let rest = &self.text[start.min(self.text.len())..];
                let len = rest.iter().position(|&byte| byte == b'\'');
                self.broken |= len.is_none();
                let len = len.unwrap_or(rest.len());
                push_text(word, &String::from_utf8_lossy(&rest[..len]), true);
                self.at = (start + len + 1).min(self.text.len());
            }
            b'"' if !quoted => {
                self.at += 1;
                let before = word.len();
                while !self.ended() && self.peek() != b'"' {
                    self.part(word, true);
                }
                if word.len() == before {
                    // An empty word is a word.
                    push_text(word, "", true);
                }
                self.broken |= self.at >= self.text.len();
                self.at += 1;
            }
            b'$' => self.dollar(word, quoted),
            b'`' => {
                let start = self.at + 1;
                let rest = &self.text[start.min(self.text.len())..];
                let len = rest.iter().position(|&byte| byte == b'`');
                self.broken |= len.is_none();
                let inner = String::from_utf8_lossy(&rest[..len.unwrap_or(rest.len())]);
                self.at = (start + inner.len() + 1).min(self.text.len());
                let body = self.nested(&inner);
                word.push(Part::Output { body, quoted });
            }
            _ => self.plain_character(word, quoted),
        }
    }

    /// A list in a text of its own, counted as one level deeper.
    fn nested(&mut self, text: &str) -> List {
        let mut inner = Parser {
            text: text.as_bytes(),
            at: 0,
            depth: self.depth + 1,
            heredocs: Vec::new(),
            writes: Vec::new(),
            broken: self.depth >= MAX_DEPTH,
        };
        let list = inner.list(&[]);
        self.writes.append(&mut inner.writes);
        list
    }

    fn plain_character(&mut self, word: &mut Word, quoted: bool) {
        let rest = &self.text[self.at.min(self.text.len())..];
        // Whole characters, so that text stays text.
        let mut len = 1;
        while rest.get(len).is_some_and(|byte| byte & 0xc0 == 0x80) {
            len += 1;
        }
        let len = len.min(rest.len());
        push_text(word, &String::from_utf8_lossy(&rest[..len]), quoted);
        self.at += len.max(1);
    }

    fn dollar(&mut self, word: &mut Word, quoted: bool) {
        self.at += 1;
        let next = self.peek();
        match next {
            b'(' if self.starts("((") => {
                self.balanced();
                word.push(Part::Arithmetic);
            }
            b'(' => {
                self.at += 1;
                let heredocs = std::mem::take(&mut self.heredocs);
                let body = self.list(&[]);
                self.heredocs = heredocs;
                self.close(b')');
                word.push(Part::Output { body, quoted });
            }
            b'{' => self.braces(word, quoted),
            b'\'' if !quoted => {
                // $'...' with C escapes: taken as it stands.
                self.part(word, false);
            }
            _ => {
                let rest = &self.text[self.at.min(self.text.len())..];
                let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
                let len = match next {
                    b'0'..=b'9' | b'@' | b'*' | b'#' | b'?' | b'$' | b'!' | b'-' => 1,
                    _ => rest.iter().position(|byte| !name(byte)).unwrap_or(rest.len()),
                };
                if len == 0 || self.ended() {
                    push_text(word, "$", quoted);
                    return;
                }
                let name = String::from_utf8_lossy(&rest[..len]).into_owned();
                self.at += len;
                word.push(Part::Variable { name, op: None, quoted });
            }
        }
    }

    /// `${...}`
    fn braces(&mut self, word: &mut Word, quoted: bool) {
        self.at += 1;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            self.broken = true;
            return;
        }
        let mut name = String::new();
        if matches!(self.peek(), b'#' | b'!') && !self.starts("#}") && !self.starts("!}") {
            name.push(char::from(self.peek()));
            self.at += 1;
        }
        let special = b"@*#?$!-";
        while !self.ended() {
            let byte = self.peek();
            let first = name.trim_start_matches(['#', '!']).is_empty();
            if byte.is_ascii_alphanumeric() || byte == b'_' || first && special.contains(&byte) {
                name.push(char::from(byte));
                self.at += 1;
                if special.contains(&byte) {
                    break;
                }
            } else {
                break;
            }
        }
        if self.peek() == b'[' {
            let rest = &self.text[self.at..];
            let len = rest.iter().position(|&byte| byte == b']').unwrap_or(rest.len() - 1);
            name.push_str(&String::from_utf8_lossy(&rest[..=len]));
            self.at += len + 1;
        }
        let mut operator = String::new();
        if !self.ended() && b":-=?+#%/^,@".contains(&self.peek()) {
            let first = self.peek();
            operator.push(char::from(first));
            self.at += 1;
            let second = self.peek();
            let doubled = b"#%/^,".contains(&first) && second == first;
            if doubled || first == b':' && b"-=?+".contains(&second) {
                operator.push(char::from(second));
                self.at += 1;
            }
        }
        let mut argument = Word::new();
        while !self.ended() && self.peek() != b'}' {
            match self.peek() {
                b'"' if quoted => {
                    self.at += 1;
                    while !self.ended() && self.peek() != b'"' {
                        self.part(&mut argument, true);
                    }
                    self.at += 1;
                }
                _ => self.part(&mut argument, false),
            }
        }
        self.broken |= self.at >= self.text.len();
        self.at += 1;
        self.depth -= 1;
        let op = (!operator.is_empty()).then_some((operator, argument));
        word.push(Part::Variable { name, op, quoted });
    }
}

fn push_text(word: &mut Word, more: &str, is_quoted: bool) {
    if let Some(Part::Text { text, quoted }) = word.last_mut()
        && *quoted == is_quoted
    {
        text.push_str(more);
        return;
    }
    word.push(Part::Text { text: more.to_owned(), quoted: is_quoted });
}

fn text_of(part: &Part) -> String {
    match part {
        Part::Text { text, .. } => text.clone(),
        _ => String::new(),
    }
}

/// A word that is nothing but text.
pub fn plain(word: &Word) -> Option<String> {
    word.iter()
        .map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}

/// Whether a word is this unquoted text.
pub fn is_text(word: &Word, what: &str) -> bool {
    matches!(&word[..], [Part::Text { text, quoted: false }] if text == what)
}
