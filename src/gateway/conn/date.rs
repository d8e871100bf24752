//! What `Date` says, made once in a second for each thread.

use std::{
    cell::RefCell,
    time::{Duration, SystemTime},
};

use http::HeaderValue;

thread_local! {
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
}

/// Now, as RFC 9110 section 5.6.7 writes it.
pub(crate) fn now() -> HeaderValue {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    LAST.with_borrow_mut(|(second, value)| {
        if *second != since {
            let text = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(since));
            *value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
            *second = since;
        }
        value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_date_of_http() {
        let text = now();
        let parsed = httpdate::parse_http_date(text.to_str().unwrap()).unwrap();
        assert!(parsed.elapsed().unwrap() < Duration::from_secs(5), "{text:?}");
        assert_eq!(text.len(), 29);
    }
}
