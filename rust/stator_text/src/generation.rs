//! `{% generation %}…{% endgeneration %}` marks, in training templates, what the assistant wrote. Transformers renders it
//! as a scope of its own and nothing more; `{% with %}…{% endwith %}` is that.

/// The template with generation tags written as `with` tags. Comments, expressions and raw blocks stay as they are.
pub fn tags_as_with(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    let mut raw = false;
    while let Some(open) = rest.find('{') {
        let (before, tail) = rest.split_at(open);
        out.push_str(before);
        let length = if tail.starts_with("{%") {
            let length = end_of(tail, "%}", !raw);
            let tag = &tail[..length];
            let word = keyword(tag);
            match word {
                "raw" => raw = true,
                "endraw" => raw = false,
                _ => {}
            }
            match word {
                "generation" if !raw => out.push_str(&tag.replacen("generation", "with", 1)),
                "endgeneration" if !raw => {
                    out.push_str(&tag.replacen("endgeneration", "endwith", 1))
                }
                _ => out.push_str(tag),
            }
            length
        } else {
            let length = match tail.as_bytes().get(1) {
                Some(b'#') if !raw => end_of(tail, "#}", false),
                Some(b'{') if !raw => end_of(tail, "}}", true),
                _ => 1,
            };
            out.push_str(&tail[..length]);
            length
        };
        rest = &tail[length..];
    }
    out.push_str(rest);
    out
}

/// Length of a tag from its opening braces to its closing ones, or of all the rest where it is not closed. `quotes`:
/// closing braces inside string literals don't count.
fn end_of(tail: &str, close: &str, quotes: bool) -> usize {
    let bytes = tail.as_bytes();
    let mut quote = None;
    let mut i = 2;
    while i < bytes.len() {
        match (quote, bytes[i]) {
            (Some(_), b'\\') => i += 1,
            (Some(q), b) if q == b => quote = None,
            (Some(_), _) => {}
            (None, b @ (b'"' | b'\'')) if quotes => quote = Some(b),
            (None, _) if bytes[i..].starts_with(close.as_bytes()) => return i + close.len(),
            (None, _) => {}
        }
        i += 1;
    }
    tail.len()
}

/// The word of a tag that has no other: "generation" of "{%- generation -%}".
fn keyword(tag: &str) -> &str {
    let inner = tag.trim_start_matches("{%").trim_end_matches("%}");
    inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace())
}
