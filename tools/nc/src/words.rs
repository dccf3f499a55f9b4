//! Words: how people type bytes, and how bytes are shown to people.
//!
//! Words are separated by spaces and tabs. A part in `"…"` may hold them. `\xNN` is any byte, `\n`, `\t`, `\r`, `\\` and
//! `\"` are what they are elsewhere. What is shown follows the same rules, so that it can be typed in again.

use std::fmt::Write;

/// Splits a line into words.
///
/// # Errors
/// An unknown or unfinished escape, or a quote without its end.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' | b'\t' if !quoted => words.extend(word.take()),
            b'\\' => {
                let (byte, after) = unescape_one(rest)?;
                rest = after;
                word.get_or_insert_default().push(byte);
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    if quoted {
        return Err("a quote \" without its end".into());
    }
    words.extend(word);
    Ok(words)
}

/// Reads the escapes of one word that somebody else split and unquoted, as a shell does.
///
/// # Errors
/// An unknown or unfinished escape.
pub fn unescape(word: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'\\' {
            let (byte, after) = unescape_one(rest)?;
            rest = after;
            bytes.push(byte);
        } else {
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

/// What stands behind a backslash, and what follows it.
fn unescape_one(rest: &[u8]) -> Result<(u8, &[u8]), String> {
    let (byte, length) = match rest {
        [b'n', ..] => (b'\n', 1),
        [b't', ..] => (b'\t', 1),
        [b'r', ..] => (b'\r', 1),
        [b'\\', ..] => (b'\\', 1),
        [b'"', ..] => (b'"', 1),
        [b'x', high, low, ..] => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => (high << 4 | low, 3),
            _ => return Err("\\x wants two hexadecimal digits, as in \\x0a".into()),
        },
        [b'x', ..] => return Err("\\x wants two hexadecimal digits, as in \\x0a".into()),
        [] => return Err("a backslash at the end; write \\\\ for a backslash".into()),
        [other, ..] => {
            let other = escape(&[*other]);
            return Err(format!("unknown escape \\{other}; write \\\\ for a backslash"));
        }
    };
    Ok((byte, &rest[length..]))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

/// Reads bytes written as hexadecimal digits; spaces between them do not matter.
///
/// # Errors
/// Anything else, or half a byte.
pub fn parse_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digits = text.iter().filter(|byte| !byte.is_ascii_whitespace()).map(|byte| digit(*byte));
    let digits: Vec<u8> = digits.collect::<Option<_>>().ok_or("raw wants hexadecimal digits, as in 0aff")?;
    if digits.len() % 2 == 1 {
        return Err(format!("{} hexadecimal digits are no whole number of bytes", digits.len()));
    }
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Shows bytes as text: printable characters as they are, everything else escaped.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                hidden if is_hidden(hidden) => push_hex(&mut text, hidden.encode_utf8(&mut [0; 4]).as_bytes()),
                shown => text.push(shown),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// Shows bytes as one word: escaped, and in quotes where that is needed to tell it from its surroundings.
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    let text = escape(bytes);
    if text.is_empty() || text.contains([' ', '"', '#']) || text.starts_with(['@', '-']) {
        format!("\"{}\"", text.replace('"', "\\\""))
    } else {
        text
    }
}

/// Characters that would not be seen, or would change how others are seen: a terminal is not to be steered by values.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}
