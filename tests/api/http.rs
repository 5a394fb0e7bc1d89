//! The rules that hold for every request (spec: http.md).

mod admin_api;
mod answers;
mod base_path;
mod bodies;
mod cors;
mod headers;
mod identity;
mod methods;
mod paths;
mod queries;
