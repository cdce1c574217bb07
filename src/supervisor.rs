//! A keyed supervisor: keeps one life running for each wanted key, and notices every way a life can end.
