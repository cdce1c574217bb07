//! The checked-in OpenAPI document is what the routes generate.

const CHECKED_IN: &str = include_str!("../../openapi/openapi.json");

#[test]
fn a_route_that_changed_without_the_document_is_named() {
    let generated = drover::api::document_text();
    if generated == CHECKED_IN {
        return;
    }
    let different = generated.lines().zip(CHECKED_IN.lines()).position(|(new, old)| new != old);
    let line = different.unwrap_or_else(|| generated.lines().count().min(CHECKED_IN.lines().count()));
    panic!(
        "openapi/openapi.json differs from the routes at line {}:\n  routes: {}\n  file:   {}\nregenerate it with: cargo run -- openapi > openapi/openapi.json",
        line + 1,
        generated.lines().nth(line).unwrap_or("(ends)"),
        CHECKED_IN.lines().nth(line).unwrap_or("(ends)"),
    );
}
