//! Who may do what: tokens, the roles that requests need, and the file of tokens, read again while drover runs.
//!
//! Guarantees: with tokens, nothing of the instance is shown and nothing is changed without one, save what the configuration leaves open ([`needed`]); a path or method that is new needs
//! a token until someone decides otherwise; a token that is taken out of the file opens nothing from the next reading on, streams included; a file that is broken or gone while drover runs
//! changes nothing, and the instance's warnings say so. A token itself is never kept, shown or logged. Without tokens everybody may do everything, and the start has seen to it that
//! nobody else reaches the address.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::http::{HeaderMap, Method, header};
use tokio::sync::watch;

use super::problem::ApiError;
use super::reread::{Reading, Reread, View};
use super::{ProblemCode, guard, text};
use crate::causes::chain;
use crate::config::tokens::{self, Holder, LoadedTokens, Role, Tokens};
use crate::config::{self, HttpConfig, LoadError};

/// Files and texts that are the same for everybody: what a browser needs to ask for a token, and the document of the API.
const PUBLIC_PATHS: [&str; 2] = ["/", "/openapi.json"];
const PUBLIC_FOLDER: &str = "/assets/";
/// Whoever has no token.
pub(super) const NOBODY: &str = "anonymous";
/// What a refused client can do.
const REMEDY: &str = "send Authorization: Bearer TOKEN, with a token whose hash is in the file that auth.tokens_file names; `drover token` makes one";

/// Whose token the request carries, in its extensions and in those of its answer.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Holder);

/// The role that a request needs; `None` = it needs no token. Pure.
pub(super) fn needed(method: &Method, path: &str, http: &HttpConfig) -> Option<Role> {
    let is_open = match path {
        "/metrics" => http.open_metrics,
        probe if guard::is_open_path(probe) => http.open_probes,
        other => PUBLIC_PATHS.contains(&other) || other.starts_with(PUBLIC_FOLDER),
    };
    match (is_open, method.is_safe()) {
        (true, _) => None,
        (false, true) => Some(Role::Read),
        (false, false) => Some(Role::Write),
    }
}

/// Whose token the headers carry; `None` without a token and with one that opens nothing.
pub(super) fn caller(headers: &HeaderMap, tokens: &Tokens) -> Option<Caller> {
    let token = presented(headers).ok().flatten()?;
    tokens.holder(token).cloned().map(Caller)
}

/// Why this request is refused, if it is. Pure.
pub(super) fn refusal(needed: Option<Role>, caller: Option<&Caller>, headers: &HeaderMap) -> Option<ApiError> {
    let needed = needed?;
    let Some(Caller(holder)) = caller else {
        let why = match presented(headers) {
            Ok(None) => "there is no token",
            Ok(Some(_)) => "the token is not known; it may be mistyped, or not in force any more",
            Err(why) => why,
        };
        return Some(ApiError::new(ProblemCode::Unauthorized, format!("{why}; {REMEDY}")));
    };
    if holder.role >= needed {
        return None;
    }
    let name = text::bounded(&holder.name, 100);
    let (has, needs) = (holder.role.as_str(), needed.as_str());
    Some(ApiError::new(ProblemCode::Forbidden, format!("the token '{name}' has the role {has}, and this needs the role {needs}")))
}

/// The token of the headers (RFC 6750, 2.1); the error says why they hold none.
fn presented(headers: &HeaderMap) -> Result<Option<&[u8]>, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("Authorization is given more than once");
    }
    let bytes = value.as_bytes();
    let end = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
    let (scheme, rest) = bytes.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err("Authorization has another scheme than Bearer");
    }
    let token = rest.trim_ascii();
    if token.is_empty() { Err("Authorization holds no token") } else { Ok(Some(token)) }
}

/// Ends when the holder's token is not in force any more; never where there are no tokens.
pub(super) async fn revoked(tokens: &mut Option<watch::Receiver<TokensView>>, caller: Option<&Caller>) {
    if let (Some(views), Some(Caller(holder))) = (tokens, caller)
        && views.wait_for(|view| !view.value.has(holder)).await.is_ok()
    {
        return;
    }
    // Nobody takes tokens out any more, since the instance stops.
    std::future::pending().await
}

/// The tokens in force.
pub type TokensView = View<Tokens>;

/// Reads the file of tokens for the first time. What `variables` name wins over the process's environment. The error says why it cannot be used, for people.
pub fn tokens_file(path: PathBuf, variables: BTreeMap<String, String>) -> Result<(Reread<Tokens>, watch::Receiver<TokensView>), String> {
    let named = path.display().to_string();
    let read = move || tokens::load(&path, &config::environment(&variables)).map(reading).map_err(|error| told(&error));
    let first = read()?;
    if first.value.is_empty() {
        tracing::warn!(path = named, "the file of tokens has none: nobody gets in");
    }
    Ok(Reread::after(first, "the file of tokens", read))
}

fn reading(loaded: LoadedTokens) -> Reading<Tokens> {
    Reading { value: loaded.tokens, content_hash: loaded.content_hash }
}

/// The first problem with its place, and how many more there are.
fn told(error: &LoadError) -> String {
    let (LoadError::Invalid { path, problems }, Some(first)) = (error, error.problems().first()) else { return chain(error) };
    let separator = if first.path.is_empty() { "" } else { ": " };
    let more = problems.len().saturating_sub(1);
    let tail = if more == 0 { String::new() } else { format!(" (and {more} more; see `drover check-config`)") };
    format!("{}, line {}: {}{separator}{}{tail}", path.display(), first.line, first.path, first.detail)
}

#[cfg(test)]
pub(super) mod tests;
