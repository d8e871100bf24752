//! Paths and queries of URLs, decoded. Pure.

/// `%2A` → `*`. What is no valid escape stays as it is; what is no UTF-8 afterwards is `None`.
pub(super) fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = text.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match (bytes[at], escape.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

/// Value of the first field of this name in a query; empty if it is absent.
pub(super) fn field(query: &str, name: &str) -> String {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('=').or(Some((pair, ""))))
        .filter(|(key, _)| decode(key).as_deref() == Some(name))
        .find_map(|(_, value)| decode(&value.replace('+', " ")))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        for (text, decoded) in
            [("github", "github"), ("%2A", "*"), ("a%2fb", "a/b"), ("100%", "100%"), ("%zz%4", "%zz%4")]
        {
            assert_eq!(decode(text).as_deref(), Some(decoded), "{text}");
        }
        assert_eq!(decode("%ff"), None);
        assert_eq!(decode("ü%41").as_deref(), Some("üA"));
    }

    #[test]
    fn fields() {
        let query = "x=1&labelSelector=app%3Da+b%2Ctier&labelSelector=late&flag";
        assert_eq!(field(query, "labelSelector"), "app=a b,tier");
        assert_eq!(field(query, "flag"), "");
        assert_eq!(field(query, "absent"), "");
    }
}
