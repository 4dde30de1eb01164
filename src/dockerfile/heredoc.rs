//! Here-documents: finding `<<WORD` in a line and reading the bodies' tabs away.

use super::expand::{ExpandError, NoVariables};
use super::lexer::{Lexer, Mode};

/// What follows `<<` in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) name: String,
    pub(super) file_descriptor: Option<u32>,
    pub(super) expand: bool,
    pub(super) strip_tabs: bool,
}

/// Reads one word as `[n]<<[-]WORD`; `None` if it is something else.
pub(super) fn parse_opening(word: &str) -> Result<Option<Opening>, ExpandError> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let lex = |mode| Lexer::new(rest, &NoVariables, '\\', mode).run().map(|output| output.words);
    let (plain, quoted) = (lex(Mode::UNQUOTE)?, lex(Mode::KEEP_QUOTES)?);
    let ([name], [written]) = (plain.as_slice(), quoted.as_slice()) else { return Ok(None) };
    let quotes = |text: &str| text.chars().filter(|c| matches!(c, '\'' | '"')).count();
    Ok(Some(Opening {
        name: name.clone(),
        file_descriptor: if digits == 0 { None } else { word[..digits].parse().ok() },
        expand: quotes(name) == quotes(written),
        strip_tabs,
    }))
}

/// Finds the heredocs that a logical line opens, in order.
pub(super) fn openings(line: &str) -> Result<Vec<Opening>, ExpandError> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    // A line that does not fall into words (an open quote, say) opens none: the shell gets it as it is.
    let Ok(output) = Lexer::new(line, &NoVariables, '\\', Mode::VERBATIM).run() else {
        return Ok(Vec::new());
    };
    output.words.iter().filter_map(|word| parse_opening(word).transpose()).collect()
}

/// Removes the tabs at the start of every line.
pub(super) fn strip_tabs(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<String> {
        openings(line).unwrap().into_iter().map(|opening| opening.name).collect()
    }

    #[test]
    fn words_that_open_a_heredoc() {
        let opening = |word| parse_opening(word).unwrap();
        let plain = Opening { name: "EOF".into(), file_descriptor: None, expand: true, strip_tabs: false };
        assert_eq!(opening("<<EOF"), Some(plain.clone()));
        assert_eq!(opening("<< EOF"), Some(plain.clone()));
        assert_eq!(opening("<<-EOF"), Some(Opening { strip_tabs: true, ..plain.clone() }));
        assert_eq!(opening("3<<EOF"), Some(Opening { file_descriptor: Some(3), ..plain.clone() }));
        for quoted in ["<<\"EOF\"", "<<'EOF'", "<<E\"O\"F", "<<EOF''"] {
            assert_eq!(opening(quoted), Some(Opening { expand: false, ..plain.clone() }), "{quoted}");
        }
        for none in ["<EOF", "<<<EOF", "<<", "<<-", "EOF", "a<<EOF", "<<A<<B", "<<EOF x"] {
            assert_eq!(opening(none), None, "{none}");
        }
    }

    #[test]
    fn lines_that_open_heredocs() {
        assert_eq!(names("RUN <<A cat > f1 && <<B cat > f2"), ["A", "B"]);
        assert_eq!(names("RUN cat <<A 3<<-'B' - /dev/fd/3"), ["A", "B"]);
        assert_eq!(names("COPY << A /x"), ["A"]);
        assert_eq!(names("RUN echo '<<A'"), Vec::<String>::new());
        assert_eq!(names("RUN echo it's <<A"), Vec::<String>::new());
        assert_eq!(names("RUN cat <<<A"), Vec::<String>::new());
        assert_eq!(names("RUN cat $x${y:-z} <<A"), ["A"]);
    }

    #[test]
    fn only_leading_tabs_go() {
        assert_eq!(strip_tabs("\t\ta\tb\n  \tc\n\n\td"), "a\tb\n  \tc\n\nd");
    }
}
