//! What is answered to a head that is no request.
//!
//! Guarantees that such a head, too, is answered with a problem: hyper refuses it by itself, with a status and no body, before there is a request that the router could answer; its answer is held back and ours goes out
//! instead. Only when hyper writes it in one piece with the rest of an answer before, to a client that sends requests without reading, does it stay without a body. Owns nothing beyond the connection that it wraps.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use super::problem::ApiError;
use super::serve::MAX_HEAD_BYTES;
use super::{ProblemCode, context};

/// hyper's own answers are a status line, a date, and that there is no body.
const LONGEST_OF_HYPER: usize = 256;

/// A connection that keeps hyper's own refusals to itself.
pub(super) struct Holding<S> {
    stream: S,
    held: Option<StatusCode>,
}

impl<S> Holding<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: None }
    }

    /// The connection, and the refusal that was held back.
    pub(super) fn into_parts(self) -> (S, Option<StatusCode>) {
        (self.stream, self.held)
    }
}

/// The status of hyper's own refusal, if these bytes are one: each of the router's answers has a request's id, and no text of ours has a carriage return.
fn refusal(bytes: &[u8]) -> Option<StatusCode> {
    let has = |needle: &[u8]| memchr::memmem::find(bytes, needle).is_some();
    let status = bytes.strip_prefix(b"HTTP/1.1 ").or_else(|| bytes.strip_prefix(b"HTTP/1.0 ")).filter(|rest| rest.starts_with(b"4"))?.get(..3)?;
    let is_hypers = bytes.len() <= LONGEST_OF_HYPER && bytes.ends_with(b"\r\n\r\n") && has(b"\r\ncontent-length: 0\r\n") && !has(b"x-request-id");
    is_hypers.then(|| StatusCode::from_bytes(status).ok()).flatten()
}

/// Answers a head that hyper refuses with this status. The error is the connection's.
pub(super) async fn answer(stream: &mut (impl AsyncWrite + Unpin), status: StatusCode) -> io::Result<()> {
    let error = match status {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => ApiError::new(
            ProblemCode::RequestHeaderFieldsTooLarge,
            format!("the path and the headers together may have {} KiB, and there may be 100 headers", MAX_HEAD_BYTES >> 10),
        ),
        _ => ApiError::new(ProblemCode::InvalidRequest, "this is no head of an HTTP/1.1 request: see its method, path, version and headers"),
    };
    let (head, body) = context::complete(error.into_response(), &context::new_request_id()).into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(io::Error::other)?;
    // The one error of a date is a year without four figures.
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).map_err(io::Error::other)?;
    let mut bytes = format!("HTTP/1.1 {}\r\nconnection: close\r\ndate: {date}\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

impl<S: AsyncRead + Unpin> AsyncRead for Holding<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Holding<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(status) = refusal(buffer) {
            self.held = Some(status);
            return Poll::Ready(Ok(buffer.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next())
            && let Some(status) = refusal(only)
        {
            self.held = Some(status);
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Our answer has still to go out.
        if self.held.is_some() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(context) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;
    use crate::api::serve::tests::against;
    use crate::api::tests::state;

    #[tokio::test]
    async fn a_head_that_is_none_behind_a_request_is_a_problem_behind_its_answer() {
        let answers = against(state(), async |address| {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /a b HTTP/1.1\r\n\r\n").await.expect("sent");
            let mut answers = String::new();
            stream.read_to_string(&mut answers).await.expect("answers");
            answers
        })
        .await;
        let (first, second) = answers.split_once("HTTP/1.1 400 ").expect("two answers");
        assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && first.ends_with("ok\n"), "{answers}");
        assert!(second.contains("\r\ncontent-type: application/problem+json\r\n") && second.contains(r#""code":"invalid-request""#), "{answers}");
        assert!(second.contains("\r\ndate: ") && second.contains(" GMT\r\n"), "{answers}");
    }

    #[test]
    fn only_hypers_own_words_are_held_back() {
        let own = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: Thu, 26 Nov 2026 12:00:00 GMT\r\n\r\n";
        assert_eq!(refusal(own), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        for other in [
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-request-id: a\r\n\r\n".as_bytes(),
            b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore",
            b"HTTP/1.1 4",
            b"",
        ] {
            assert_eq!(refusal(other), None, "{}", String::from_utf8_lossy(other));
        }
        assert_eq!(refusal(&[b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n", [b'x'; 300].as_slice(), b"\r\n\r\n"].concat()), None);
    }
}
