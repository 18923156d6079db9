//! The diff of a mount, divided into the parts of its files.

/// See the module header.
#[derive(Default)]
pub(super) struct Diff {
    /// What is said in place of a diff, or about all of it.
    pub(super) remarks: Vec<String>,
    /// The lines about each file, from `diff --git` on.
    parts: Vec<Vec<String>>,
}

impl Diff {
    /// Divides the text. `whole`: nothing was left out at its end.
    pub(super) fn new(text: &str, whole: bool) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            match out.parts.last_mut() {
                _ if line.starts_with("diff --git ") => out.parts.push(vec![line.to_owned()]),
                Some(part) => part.push(line.to_owned()),
                None => out.remarks.push(line.trim_start_matches("# ").to_owned()),
            }
        }
        if !whole && let Some(last) = out.parts.last_mut() {
            last.push("# the rest of the diff is not shown here; see `pantheonfs diff`".to_owned());
        }
        out
    }

    /// The lines about a path.
    pub(super) fn part(&self, path: &str) -> Option<&[String]> {
        let plain = format!(" b/{path}");
        // Git puts names with special characters into quotes.
        let quoted = format!("\"b/{path}\"");
        let is_of = |part: &&Vec<String>| {
            part.first().is_some_and(|head| head.ends_with(&plain) || unquoted(head).ends_with(&quoted))
        };
        self.parts.iter().find(is_of).map(Vec::as_slice)
    }

    /// Added and removed lines of a part.
    pub(super) fn lines(part: &[String]) -> (usize, usize) {
        // The lines in front of the first hunk begin with the same marks.
        let hunks = part.iter().skip_while(|line| !line.starts_with("@@"));
        hunks.fold((0, 0), |(added, removed), line| match line.as_bytes().first() {
            Some(b'+') => (added + 1, removed),
            Some(b'-') => (added, removed + 1),
            _ => (added, removed),
        })
    }
}

/// The text with the escapes of git replaced: `\\`, `\"`, `\t`, `\n` and octal numbers.
fn unquoted(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(first @ b'0'..=b'7') => {
                let mut value = u32::from(first - b'0');
                for _ in 0..2 {
                    let digit = bytes.next_if(|b| (b'0'..=b'7').contains(b)).unwrap_or(b'0');
                    value = value * 8 + u32::from(digit - b'0');
                }
                out.push(u8::try_from(value).unwrap_or(b'?'));
            }
            Some(b't') => out.push(b'\t'),
            Some(b'n') => out.push(b'\n'),
            Some(other) => out.push(other),
            None => {}
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "diff --git a/index.php b/index.php\n--- a/index.php\n+++ b/index.php\n@@ -1 +1,2 @@\n-a\n+b\n+c\n\
                        diff --git \"a/\\303\\234ber.php\" \"b/\\303\\234ber.php\"\n@@ -1 +0,0 @@\n-x\n";

    #[test]
    fn each_file_has_its_part() {
        let diff = Diff::new(TEXT, true);
        let part = diff.part("index.php").expect("there");
        assert_eq!((part.len(), Diff::lines(part)), (7, (2, 1)));
        assert_eq!(Diff::lines(diff.part("Über.php").expect("there")), (0, 1));
        assert!(diff.part("other.php").is_none() && diff.remarks.is_empty());
    }

    #[test]
    fn what_is_said_in_place_of_a_diff_is_a_remark() {
        assert_eq!(Diff::new("# there is no diff: no repository\n", true).remarks, ["there is no diff: no repository"]);
        let cut = Diff::new(TEXT, false);
        assert!(cut.part("Über.php").and_then(<[String]>::last).is_some_and(|line| line.contains("not shown here")));
    }
}
