//! The form of addresses: URLs and `host:port`. Pure.
//!
//! Guarantees that what is accepted has a host, a legal port and no credentials. Its complaints never quote the address, which may hold a password. Asks nobody whether the
//! address exists.

use std::net::Ipv6Addr;

/// What is wrong with an address, and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) detail: &'static str,
    pub(super) remedy: &'static str,
}

const URL_FORM: &str = "write it as http://HOST:PORT or https://HOST:PORT";
const HOST_PORT_FORM: &str = "write it as HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092";

const fn mistake<T>(detail: &'static str, remedy: &'static str) -> Result<T, Mistake> {
    Err(Mistake { detail, remedy })
}

/// An `http` or `https` URL without the slashes at its end. A path is allowed (a proxy may need one), credentials, query and fragment are not.
pub(super) fn url(text: &str) -> Result<String, Mistake> {
    if text.is_empty() {
        return mistake("this is empty", URL_FORM);
    }
    let Some((scheme, rest)) = text.split_once("://") else { return mistake("this URL has no scheme", URL_FORM) };
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return mistake("this URL's scheme is neither http nor https", URL_FORM);
    }
    // Everything before the last @, because a password may hold a slash that was not escaped.
    if rest.contains('@') {
        return mistake("this URL contains credentials", "take them out of the URL and write them under username and password");
    }
    if rest.contains(['?', '#']) {
        return mistake("this URL has a query or a fragment", URL_FORM);
    }
    if rest.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return mistake("this URL contains white space, a backslash or a control character", URL_FORM);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = split_port(authority)?;
    check_host(host)?;
    if let Some(port) = port {
        check_port(port)?;
    }
    let path = path.trim_end_matches('/');
    let separator = if path.is_empty() { "" } else { "/" };
    Ok(format!("{scheme}://{authority}{separator}{path}"))
}

/// Whether a URL that [`url`] accepted sends in the clear to another machine.
pub(super) fn is_plain_and_remote(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = split_port(authority).map_or("", |(host, _)| host);
    let is_local = host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    !is_local
}

/// A broker's `host:port`.
pub(super) fn host_port(text: &str) -> Result<String, Mistake> {
    if text.is_empty() {
        return mistake("this is empty", HOST_PORT_FORM);
    }
    if text.contains("://") {
        return mistake("this is a URL, not a broker's address", HOST_PORT_FORM);
    }
    if text.contains('@') {
        return mistake("this address contains credentials", "write them under kafka.properties as sasl.username and sasl.password");
    }
    let (host, port) = split_port(text)?;
    check_host(host)?;
    let Some(port) = port else { return mistake("this address has no port", HOST_PORT_FORM) };
    check_port(port)?;
    Ok(text.to_owned())
}

/// A host's name or address without a port, in lower case.
pub(super) fn host(text: &str) -> Result<String, Mistake> {
    const FORM: &str = "write a host name or an address without scheme and port, such as drover.example.org";
    let bracketed = if text.parse::<Ipv6Addr>().is_ok() { format!("[{text}]") } else { text.to_owned() };
    match check_host(&bracketed) {
        Ok(()) => Ok(text.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase()),
        Err(wrong) => Err(Mistake { remedy: FORM, ..wrong }),
    }
}

/// Host (in brackets if it is an IPv6 address) and the digits after the colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), Mistake> {
    if authority.starts_with('[') {
        let Some(end) = authority.find(']') else { return mistake("this address has '[' without ']'", "write an IPv6 address as [::1]:PORT") };
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => mistake("this address has something between ']' and the port", "write an IPv6 address as [::1]:PORT"),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            mistake("this address has more than one colon", "write one HOST:PORT an item; an IPv6 address as [::1]:PORT")
        }
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((authority, None)),
    }
}

fn check_host(host: &str) -> Result<(), Mistake> {
    const FORM: &str = "a host is letters, digits, '.', '-' and '_' (an international name in its xn-- form), or an address";
    if host.is_empty() {
        return mistake("the host is missing", FORM);
    }
    if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return if inside.parse::<Ipv6Addr>().is_ok() { Ok(()) } else { mistake("what is in brackets is no IPv6 address", FORM) };
    }
    // 253 is the longest name that DNS can carry (RFC 1035, 2.3.4).
    if host.len() > 253 {
        return mistake("the host is longer than 253 characters", FORM);
    }
    if !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        return mistake("the host contains a character that no host has", FORM);
    }
    Ok(())
}

fn check_port(port: &str) -> Result<(), Mistake> {
    let is_number = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(number) if is_number && number > 0 => Ok(()),
        _ => mistake("the port is not a number from 1 to 65535", "write the port after the host: HOST:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_with_credentials_or_without_a_host_are_refused() {
        for (text, detail) in [
            ("", "empty"),
            ("localhost:9200", "no scheme"),
            ("ftp://h:1", "neither http nor https"),
            ("http://user:s3cret@h:9200", "credentials"),
            ("http://user:s3/cret@h:9200", "credentials"),
            ("http://", "host is missing"),
            ("http://:9200", "host is missing"),
            ("http://h:0", "port"),
            ("http://h:70000", "port"),
            ("http://h:", "port"),
            ("http://h:+80", "port"),
            ("http://h:9200?pretty", "query"),
            ("http://h o:9200", "white space"),
            ("http://[::1:9200", "'['"),
            ("http://[::g]:9200", "IPv6"),
            ("http://[::1]9200", "between"),
            ("http://::1:9200", "more than one colon"),
            ("http://日志:9200", "character"),
        ] {
            let wrong = url(text).expect_err(text);
            assert!(wrong.detail.contains(detail), "{text}: {wrong:?}");
            assert!(!wrong.remedy.is_empty());
        }
    }

    #[test]
    fn the_slash_at_the_end_of_a_url_does_not_matter() {
        assert_eq!(url("HTTP://localhost:9200/").as_deref(), Ok("http://localhost:9200"));
        assert_eq!(url("https://[::1]:9200").as_deref(), Ok("https://[::1]:9200"));
        assert_eq!(url("https://proxy/search//").as_deref(), Ok("https://proxy/search"));
    }

    #[test]
    fn only_plain_http_to_another_machine_is_in_the_clear() {
        let answers = ["http://h:1", "https://h:1", "http://localhost:1", "http://127.0.0.2", "http://[::1]:1/x"].map(is_plain_and_remote);
        assert_eq!(answers, [true, false, false, false, false]);
    }

    #[test]
    fn a_broker_needs_host_and_port() {
        assert_eq!(host_port("127.0.0.1:9092").as_deref(), Ok("127.0.0.1:9092"));
        assert_eq!(host_port("[::1]:9092").as_deref(), Ok("[::1]:9092"));
        for text in ["", "h", "h:", "h:0", "h:65536", ":9092", "PLAINTEXT://h:9092", "user:pw@h:9092", "::1:9092", "h:1:2", "a b:1"] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_allowed_host_has_neither_scheme_nor_port() {
        assert_eq!(host("Drover.Example.ORG.").as_deref(), Ok("drover.example.org"));
        assert_eq!((host("::1").as_deref(), host("[::1]").as_deref()), (Ok("::1"), Ok("::1")));
        for text in ["", "http://h", "h:80", "*", "a/b"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_accepted_again(text in "(http|https)://[a-z0-9.:/\\[\\]-]{0,30}") {
            if let Ok(accepted) = url(&text) {
                prop_assert_eq!(url(&accepted), Ok(accepted.clone()));
                prop_assert!(!accepted.ends_with('/'));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (url(&text), host_port(&text), host(&text));
        }
    }
}
