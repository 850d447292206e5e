//! Just enough of SPDX licence expressions: `OR`, `AND`, `WITH`, brackets, and the old `/` for `OR`.

/// Whether an expression can be met with licences that `allowed` accepts; `None` if it makes no sense.
pub fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let met = parser.either()?;
    parser.words.is_empty().then_some(met)
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn either(&mut self) -> Option<bool> {
        let mut met = self.both()?;
        while self.skip("OR") {
            met |= self.both()?;
        }
        Some(met)
    }

    fn both(&mut self) -> Option<bool> {
        let mut met = self.single()?;
        while self.skip("AND") {
            met &= self.single()?;
        }
        Some(met)
    }

    fn single(&mut self) -> Option<bool> {
        if self.skip("(") {
            let met = self.either()?;
            return self.skip(")").then_some(met);
        }
        let licence = self.take()?;
        if self.skip("WITH") {
            return Some((self.allowed)(&format!("{licence} WITH {}", self.take()?)));
        }
        Some((self.allowed)(licence))
    }

    fn skip(&mut self, word: &str) -> bool {
        let there = self.words.first() == Some(&word);
        if there {
            self.words = &self.words[1..];
        }
        there
    }

    /// The next word, if it names something.
    fn take(&mut self) -> Option<&'a str> {
        let (word, rest) = self.words.split_first()?;
        if matches!(*word, "OR" | "AND" | "WITH" | "(" | ")") {
            return None;
        }
        self.words = rest;
        Some(word)
    }
}
