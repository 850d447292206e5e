//! What is said of a configuration that can't be read.

/// Where and why the text of a configuration can't be read, without the line itself and without the value, which the
/// parser's own words show: it may be a store's secret.
pub fn wrong_at(text: &str, error: &toml::de::Error) -> String {
    let words = without_value(error.message());
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return words };
    let line = before.matches('\n').count() + 1;
    let shown = before.rsplit('\n').next().unwrap_or_default();
    let column = shown.chars().count() + 1;
    format!("line {line}, column {column}: {}{words}", key_in(shown).map(|key| format!("{key}: ")).unwrap_or_default())
}

/// The key whose value comes next, where what stands before it is nothing else: a name as ours are, and no piece of a secret.
fn key_in(before: &str) -> Option<&str> {
    let key = before.trim_end().strip_suffix('=')?.trim();
    let is_name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    is_name.then_some(key)
}

/// serde's `invalid type: string "hush", expected a map` without what is quoted.
fn without_value(words: &str) -> String {
    let names_value = ["invalid type: ", "invalid value: "].iter().any(|begin| words.starts_with(begin));
    match (words.find(['"', '`']), words.rfind(", expected")) {
        (Some(value), Some(expected)) if names_value && value < expected => {
            format!("{}{}", words[..value].trim_end(), &words[expected..])
        }
        _ => words.to_owned(),
    }
}
