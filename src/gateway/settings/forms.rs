//! The forms of names in settings. Pure.

/// Whether this can be a host name: lower-case DNS labels, the last of which starts with a letter, so that no
/// address is one. At most 253 characters (RFC 1035).
pub fn is_hostname(name: &str) -> bool {
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(inner)
    };
    let last_is_word =
        name.rsplit('.').next().is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase()));
    name.len() <= 253 && last_is_word && name.split('.').all(label)
}

/// Whether this can be an Origin as browsers write it (RFC 6454 section 6.2): scheme, host and a port that is
/// not the scheme's default one; lower case; no path.
pub fn is_origin(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
    let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_lowercase()) && scheme.bytes().all(inner);
    let (host, port) = match rest.rfind(':').filter(|colon| !rest[*colon..].contains(']')) {
        Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
        None => (rest, None),
    };
    let host_fits = if let Some(address) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        address.parse::<core::net::Ipv6Addr>().is_ok() && !address.contains(char::is_uppercase)
    } else {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(host.bytes().next())
            && edge(host.bytes().next_back())
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
    };
    let default = match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    };
    let port_fits = port.is_none_or(|p| {
        p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok() && port != default
    });
    origin.len() <= 300 && scheme_fits && host_fits && port_fits
}

/// Whether this can be the class of a gateway: a DNS label.
pub fn is_class(class: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&class.len())
        && class.bytes().all(inner)
        && !class.starts_with('-')
        && !class.ends_with('-')
}
