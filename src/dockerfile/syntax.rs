//! The parser's two passes: text to nodes, nodes to instructions.
//!
//! The first pass finds every instruction, its flags, the shape of its arguments and its heredocs; its
//! errors come before those of the second, which gives the nodes their meaning. BuildKit works the same
//! way, so of several errors in a file the same one is shown.

use std::sync::Arc;

use super::heredoc;
use super::lines::{LogicalLine, Reader};
use super::words::{split_blanks, split_first, split_flags, split_quoted};
use super::{Directives, Dockerfile, Heredoc, Instruction, InstructionKind, KeyValue, KeyValues};
use super::{ParseError, Span, directives, instruction, quote};
use crate::text::without_password;

/// An instruction before its keyword's rules are applied.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    pub(super) args: Args,
    /// The logical line as it is.
    pub(super) line: String,
    pub(super) span: Span,
    pub(super) comments: Vec<String>,
    pub(super) heredocs: Vec<Heredoc>,
    /// Whether line or heredocs held bytes that are not UTF-8.
    pub(super) invalid_utf8: bool,
}

/// The arguments of an instruction, by the shape its keyword asks for.
#[derive(Debug)]
pub(super) enum Args {
    /// There are none.
    None,
    /// The rest of the line.
    Text(String),
    /// Words.
    Words(Vec<String>),
    /// A JSON array of strings.
    Json(Vec<String>),
    /// Keys and values.
    Pairs(KeyValues),
    /// The type of a `HEALTHCHECK`, and what follows it.
    Health(String, Box<Args>),
    /// The instruction in an `ONBUILD`.
    Trigger(Box<Node>),
    /// Not looked at: the keyword is unknown.
    Unknown,
}

/// A Dockerfile as far as it could be read.
pub(crate) struct Partial {
    /// What was read, up to the error.
    pub(crate) dockerfile: Dockerfile,
    /// Why the rest was not.
    pub(crate) error: Option<ParseError>,
}

/// Parses a whole file.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Dockerfile, ParseError> {
    let Partial { dockerfile, error } = parse_partial(name, bytes);
    error.map_or(Ok(dockerfile), Err)
}

/// Parses as much of a file as can be parsed.
pub(crate) fn parse_partial(name: &str, bytes: &[u8]) -> Partial {
    let text = String::from_utf8_lossy(bytes);
    let source = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut dockerfile = Dockerfile {
        name: name.to_owned(),
        source: Arc::from(source),
        directives: Directives {
            syntax: directives::find_syntax(source),
            escape: '\\',
            check: directives::find_check(source),
        },
        instructions: Vec::new(),
        empty_continuations: Vec::new(),
    };
    let error = fill(&mut dockerfile, bytes).err();
    Partial { dockerfile, error }
}

fn fill(dockerfile: &mut Dockerfile, bytes: &[u8]) -> Result<(), ParseError> {
    let whole = |message: &str| ParseError { message: message.to_owned(), span: None, hint: None };
    if bytes.is_empty() {
        return Err(whole("the Dockerfile cannot be empty"));
    }
    let Nodes { nodes, escape, empty_continuations, last_line } = read_nodes(bytes)?;
    dockerfile.directives.escape = escape;
    dockerfile.empty_continuations = empty_continuations;
    if nodes.is_empty() {
        return Err(ParseError {
            message: "file with no instructions".to_owned(),
            span: Some(Span::line(last_line.max(1))),
            hint: None,
        });
    }
    let mut has_stage = false;
    for node in nodes {
        let span = node.span;
        let instruction = understand(node).map_err(|instruction::Failure { message, hint }| ParseError {
            message: format!("dockerfile parse error on line {}: {message}", span.start_line),
            span: Some(span),
            hint,
        })?;
        match instruction.kind {
            InstructionKind::From(_) => has_stage = true,
            InstructionKind::Arg(_) => {}
            _ if !has_stage => {
                return Err(ParseError {
                    message: "no build stage in current context".to_owned(),
                    span: Some(span),
                    hint: Some("only ARG may stand before the first FROM".to_owned()),
                });
            }
            _ => {}
        }
        dockerfile.instructions.push(instruction);
    }
    if !has_stage {
        return Err(whole("dockerfile contains no stages to build"));
    }
    Ok(())
}

/// Parses an `ONBUILD` trigger's text.
pub(super) fn parse_trigger(text: &str) -> Result<Instruction, ParseError> {
    let nodes = read_nodes(text.as_bytes())?.nodes;
    let span = nodes.first().map(|node| node.span);
    let Ok([node]) = <[Node; 1]>::try_from(nodes) else {
        let message = "onbuild trigger should be a single expression".to_owned();
        return Err(ParseError { message, span, hint: None });
    };
    // BuildKit's text: the line would be one of the trigger.
    let instruction = understand(node).map_err(|instruction::Failure { message, hint }| ParseError {
        message,
        span,
        hint,
    })?;
    if let InstructionKind::From(_) = instruction.kind {
        let message = "FROM isn't allowed as an ONBUILD trigger".to_owned();
        return Err(ParseError { message, span, hint: None });
    }
    Ok(instruction)
}

/// What the first pass found.
struct Nodes {
    nodes: Vec<Node>,
    escape: char,
    empty_continuations: Vec<Span>,
    last_line: usize,
}

/// The first pass.
fn read_nodes(bytes: &[u8]) -> Result<Nodes, ParseError> {
    let mut reader = Reader::new(bytes);
    let mut nodes = Vec::new();
    let mut empty_continuations = Vec::new();
    while let Some(logical) = reader.logical()? {
        if logical.empty_continuation {
            empty_continuations.push(Span::line(logical.span.end_line));
        }
        let fail = |message: String, end_line: usize| ParseError {
            message,
            span: Some(Span { start_line: logical.span.start_line, end_line }),
            hint: None,
        };
        let end = logical.span.end_line;
        let mut node = read_node(&logical, reader.escape()).map_err(|message| fail(message, end))?;
        if can_have_heredocs(&node) {
            let openings = heredoc::openings(&node.line).map_err(|error| fail(error.to_string(), end))?;
            for opening in openings {
                let Some(body) = reader.heredoc_body(&opening.name, opening.strip_tabs)? else {
                    return Err(ParseError {
                        hint: Some(format!("no line consists of `{}` alone", opening.name)),
                        ..fail("unterminated heredoc".to_owned(), reader.line_number())
                    });
                };
                node.invalid_utf8 |= body.invalid_utf8;
                node.heredocs.push(opening.with_body(body.text));
            }
            node.span.end_line = reader.line_number();
        }
        nodes.push(node);
    }
    Ok(Nodes { nodes, escape: reader.escape(), empty_continuations, last_line: reader.line_number() })
}

/// `RUN`, `COPY` and `ADD` not in JSON form, also as a trigger.
fn can_have_heredocs(node: &Node) -> bool {
    let node = match &node.args {
        Args::Trigger(inner) => inner,
        _ => node,
    };
    matches!(node.keyword.to_ascii_lowercase().as_str(), "run" | "copy" | "add")
        && !matches!(node.args, Args::Json(_))
}

fn read_node(logical: &LogicalLine, escape: char) -> Result<Node, String> {
    let mut node = read_line(&logical.text, escape)?;
    node.span = logical.span;
    node.comments.clone_from(&logical.comments);
    node.invalid_utf8 = logical.invalid_utf8;
    Ok(node)
}

/// Splits a line into keyword, flags and arguments.
fn read_line(line: &str, escape: char) -> Result<Node, String> {
    let trimmed = line.trim();
    let (keyword, rest) = split_first(trimmed).unwrap_or((trimmed, ""));
    let (flags, rest) = split_flags(rest, escape);
    Ok(Node {
        keyword: keyword.to_owned(),
        flags,
        args: read_args(&keyword.to_ascii_lowercase(), rest.trim(), escape)?,
        line: line.to_owned(),
        span: Span::line(1),
        comments: Vec::new(),
        heredocs: Vec::new(),
        invalid_utf8: false,
    })
}

/// Reads the instruction in an `ONBUILD`. One more `ONBUILD` is not looked into: the second pass refuses it, and a
/// line of thousands would take all of the stack.
fn read_trigger(text: &str, escape: char) -> Result<Node, String> {
    let keyword = split_first(text).map_or(text, |(keyword, _)| keyword);
    let line = if keyword.eq_ignore_ascii_case("onbuild") { keyword } else { text };
    read_line(line, escape)
}

fn read_args(keyword: &str, rest: &str, escape: char) -> Result<Args, String> {
    if rest.is_empty() {
        return Ok(Args::None);
    }
    Ok(match keyword {
        "run" | "cmd" | "entrypoint" | "shell" => {
            json_array(rest)?.map_or_else(|| Args::Text(rest.to_owned()), Args::Json)
        }
        "add" | "copy" | "volume" => {
            json_array(rest)?.map_or_else(|| Args::Words(split_blanks(rest)), Args::Json)
        }
        "expose" | "from" => Args::Words(split_blanks(rest)),
        "arg" => Args::Words(split_quoted(rest, escape)),
        "env" => key_values(rest, "ENV", escape)?,
        "label" => key_values(rest, "LABEL", escape)?,
        "maintainer" | "stopsignal" | "user" | "workdir" => Args::Text(rest.to_owned()),
        "healthcheck" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let command = rest[end..].trim_start();
            Args::Health(rest[..end].to_owned(), Box::new(read_args("cmd", command, escape)?))
        }
        "onbuild" => Args::Trigger(Box::new(read_trigger(rest, escape)?)),
        _ => Args::Unknown,
    })
}

/// Reads `["a", "b"]`; `None` if the text is not a JSON array at all.
fn json_array(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err("when using JSON array syntax, arrays must be comprised of strings only".to_owned()),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// Reads the arguments of `ENV` or `LABEL`: `k=v …`, or `k rest of line`.
fn key_values(rest: &str, keyword: &str, escape: char) -> Result<Args, String> {
    let words = split_quoted(rest, escape);
    let Some(first) = words.first() else { return Ok(Args::None) };
    if !first.contains('=') {
        let Some((key, value)) = split_first(rest) else {
            return Err(format!("{keyword} must have two arguments"));
        };
        let pair = KeyValue { key: key.to_owned(), value: value.to_owned() };
        return Ok(Args::Pairs(KeyValues { pairs: vec![pair], legacy: true }));
    }
    let pairs = words.iter().map(|word| match word.split_once('=') {
        Some((key, value)) => Ok(KeyValue { key: key.to_owned(), value: value.to_owned() }),
        None => Err(format!(
            "Syntax error - can't find = in {}. Must be of the form: name=value",
            quote::go(word)
        )),
    });
    Ok(Args::Pairs(KeyValues { pairs: pairs.collect::<Result<_, _>>()?, legacy: false }))
}

/// The second pass, for one node.
fn understand(node: Node) -> Result<Instruction, instruction::Failure> {
    let span = node.span;
    let keyword = node.keyword.clone();
    let original = node.line.trim().to_owned();
    let comments = node.comments.clone();
    let kind = instruction::understand(node)?;
    let original = match kind {
        InstructionKind::Add(_) => without_password(&original),
        _ => original,
    };
    Ok(Instruction { span, keyword, original, kind, comments })
}
