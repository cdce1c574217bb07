//! The pages of the lists of topics and tasks: their tags, and the pages that were written last.
//!
//! Guarantees that a tag names one content: it is made of the query and of the versions of the rows that the page shows ([`crate::status::versions`]), so that a page which looks different has
//! another tag, one that looks the same keeps it from snapshot to snapshot, and nothing needs to be written to know either; that a page is written once, however many ask for it; that what is kept is bounded. Owns
//! nothing but these pages: each can be written again, and one that two requests write at once is kept twice until it is old. No request waits for another.

use std::collections::VecDeque;

use arc_swap::ArcSwap;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use super::document;
use super::problem::ApiError;
use super::text::Form;
use crate::status::Snapshot;

/// Bytes of pages that are kept: ten of the longest, of a thousand tasks each.
const KEPT_BYTES: usize = 8 << 20;
/// How many are kept, long or short.
const KEPT_PAGES: usize = 64;

/// The weak tag of a page of rows of these versions.
pub(super) fn tag(instance: &str, snapshot: &Snapshot, uri: &Uri, form: Form, versions: impl Iterator<Item = u64>, has_more: bool) -> String {
    let mut hash = Sha256::new();
    // Versions begin anew with each run of the process.
    for part in [instance, snapshot.events.epoch(), uri.path(), uri.query().unwrap_or_default()] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.update([form as u8, u8::from(has_more)]);
    for version in versions {
        hash.update(version.to_le_bytes());
    }
    format!("W/\"{}\"", document::hexadecimal(&hash.finalize()))
}

/// The pages that were written last, by their tags.
#[derive(Debug, Default)]
pub struct Pages(ArcSwap<Kept>);

#[derive(Debug, Default, Clone)]
struct Kept {
    /// Oldest first.
    pages: VecDeque<(String, Bytes)>,
    bytes: usize,
}

impl Pages {
    /// The page with this tag, or 304 when the client has it; `write` is called when nobody has asked for it yet.
    pub(super) fn answer(
        &self,
        headers: &HeaderMap,
        form: Form,
        tag: String,
        write: impl FnOnce() -> Result<Vec<u8>, ApiError>,
    ) -> Result<Response, ApiError> {
        let mut response = if document::is_known(headers, &tag) {
            (StatusCode::NOT_MODIFIED, [(header::VARY, "accept")]).into_response()
        } else {
            document::answer(form, self.find_or_write(&tag, write)?)
        };
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Ok(value) = HeaderValue::try_from(tag) {
            response.headers_mut().insert(header::ETAG, value);
        }
        Ok(response)
    }

    fn find_or_write(&self, tag: &str, write: impl FnOnce() -> Result<Vec<u8>, ApiError>) -> Result<Bytes, ApiError> {
        if let Some(page) = self.0.load().find(tag) {
            return Ok(page);
        }
        let page = Bytes::from(write()?);
        self.0.rcu(|kept| kept.with(tag, page.clone()));
        Ok(page)
    }
}

impl Kept {
    fn find(&self, tag: &str) -> Option<Bytes> {
        self.pages.iter().rev().find(|(known, _)| known == tag).map(|(_, page)| page.clone())
    }

    /// With this page as the newest, and as many of the others as are kept beside it.
    fn with(&self, tag: &str, page: Bytes) -> Self {
        let mut kept = self.clone();
        kept.bytes += page.len();
        kept.pages.push_back((tag.to_owned(), page));
        while kept.bytes > KEPT_BYTES || kept.pages.len() > KEPT_PAGES {
            let Some((_, oldest)) = kept.pages.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_once_however_many_ask() {
        let pages = Pages::default();
        let mut written = 0;
        for _ in 0..3 {
            let page = pages.find_or_write("W/\"a\"", || {
                written += 1;
                Ok(b"page".to_vec())
            });
            assert_eq!(page.expect("a page"), Bytes::from_static(b"page"));
        }
        assert_eq!(written, 1);
    }

    fn held(pages: &Pages) -> (usize, usize) {
        let kept = pages.0.load();
        (kept.pages.len(), kept.bytes)
    }

    #[test]
    fn what_is_kept_stays_small() {
        let pages = Pages::default();
        let write = |tag: usize, bytes: usize| pages.find_or_write(&tag.to_string(), || Ok(vec![b'x'; bytes])).expect("a page").len();
        for tag in 0..2 * KEPT_PAGES {
            write(tag, 1);
        }
        assert_eq!(held(&pages), (KEPT_PAGES, KEPT_PAGES));
        for tag in 1000..1020 {
            assert_eq!(write(tag, 1 << 20), 1 << 20);
        }
        assert_eq!(held(&pages), (8, KEPT_BYTES));
        assert_eq!(write(5000, KEPT_BYTES + 1), KEPT_BYTES + 1, "a page that is too long to be kept is still an answer");
        assert_eq!(held(&pages), (0, 0));
    }
}
