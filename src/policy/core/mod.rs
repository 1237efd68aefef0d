//! OpenBox Core over HTTP.
