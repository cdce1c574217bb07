//! The plain-text form: which form a client accepts. Aligned tables and the escaping of text from outside are [`crate::table`]'s, which the command line shares.

use axum::http::{HeaderMap, header};

use super::ProblemCode;
use super::problem::ApiError;
pub(super) use crate::table::{Table, bounded, cell, cut, escape};

/// The media type of tables and probes.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// A form that an answer can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`.
    Json,
    /// `text/plain`.
    Text,
}

/// What a client may choose from by `Accept`.
pub(super) trait Offer: Copy {
    /// Type and subtype, in lower case.
    fn media_type(self) -> (&'static str, &'static str);
}

impl Offer for Form {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("application", "json"),
            Self::Text => ("text", "plain"),
        }
    }
}

/// The form that the client likes best; the first offer without an `Accept`, 406 when it accepts none.
pub(super) fn negotiate<O: Offer>(headers: &HeaderMap, offers: &[O]) -> Result<O, ApiError> {
    preferred(headers, offers).ok_or_else(|| {
        let names: Vec<String> = offers.iter().map(|form| name_of(*form)).collect();
        ApiError::new(ProblemCode::NotAcceptable, format!("this path answers with {}", names.join(" or ")))
    })
}

/// The media type of a form, without parameters.
pub(super) fn name_of(form: impl Offer) -> String {
    let (kind, subtype) = form.media_type();
    format!("{kind}/{subtype}")
}

/// The form that the client likes best, by RFC 9110's rules: the most specific range decides an offer's weight; equal weights go by the order of the offers.
pub(super) fn preferred<O: Offer>(headers: &HeaderMap, offers: &[O]) -> Option<O> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or("unreadable")).collect();
    let accept = values.join(",");
    if accept.trim().is_empty() {
        return offers.first().copied();
    }
    let mut best: Option<(u16, O)> = None;
    for offer in offers {
        let weight = weight_of(&accept, *offer);
        if weight > 0 && best.is_none_or(|(highest, _)| weight > highest) {
            best = Some((weight, *offer));
        }
    }
    best.map(|(_, form)| form)
}

/// The weight, 0 to 1000, that an `Accept` gives to a form.
fn weight_of(accept: &str, form: impl Offer) -> u16 {
    let (kind, subtype) = form.media_type();
    let mut best = (0u8, 0u16);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_range = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specificity = match media_range.split_once('/') {
            Some((range_kind, range_subtype)) if range_kind == kind && range_subtype == subtype => 3,
            Some((range_kind, "*")) if range_kind == kind => 2,
            Some(("*", "*")) => 1,
            _ => continue,
        };
        let quality = parts.find_map(|parameter| parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))).map_or(1000, quality);
        if specificity > best.0 {
            best = (specificity, quality);
        }
    }
    best.1
}

/// A quality value in thousandths; what is none counts as not accepted.
fn quality(text: &str) -> u16 {
    match text.parse::<f32>() {
        // Between 0 and 1000, so the cast is exact.
        Ok(value) if (0.0..=1.0).contains(&value) => (value * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn accepting(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("a header"));
        preferred(&headers, &[Form::Json, Form::Text])
    }

    #[test]
    fn a_client_gets_the_form_it_prefers() {
        for (accept, form) in [
            ("*/*", Some(Form::Json)),
            ("", Some(Form::Json)),
            ("text/plain", Some(Form::Text)),
            ("TEXT/PLAIN; charset=utf-8", Some(Form::Text)),
            ("text/*", Some(Form::Text)),
            ("text/plain;q=0.5, application/json;q=0.4", Some(Form::Text)),
            ("application/json;q=0, */*", Some(Form::Text)),
            ("*/*, application/json;q=0", Some(Form::Text)),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Some(Form::Json)),
            ("image/png", None),
            ("garbage", None),
            ("application/json;q=2", None),
            ("application/json;q=0", None),
        ] {
            assert_eq!(accepting(accept), form, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn no_accept_header_panics(accept in "[ -~]{0,60}") {
            let _ = accepting(&accept);
        }
    }
}
