//! The rules that hold for every request (spec: http.md).

mod answers;
mod bodies;
mod cors;
mod headers;
mod identity;
mod methods;
mod paths;
mod queries;
