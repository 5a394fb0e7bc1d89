//! The description of the API, from the types that it is made of.

use utoipa::OpenApi;

use super::problem::ErrorDocument;
use super::{claims, home, messages, queues};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Isimud",
        description = "The OpenStack Zaqar v2 messaging API. Every request but the one for `/` carries a `Client-ID` \
                       header (a UUID) and an `X-Project-Id` header. Errors are documents with `title` and, mostly, \
                       `description`."
    ),
    paths(
        home::versions,
        home::home,
        home::ping,
        home::ping_head,
        queues::list,
        queues::create,
        queues::show,
        queues::update,
        queues::delete,
        queues::stats,
        queues::purge,
        messages::post,
        messages::list,
        messages::delete_several,
        messages::get,
        messages::delete,
        claims::create,
        claims::show,
        claims::update,
        claims::delete,
    ),
    components(schemas(ErrorDocument)),
    tags(
        (name = "service", description = "What the service says of itself"),
        (name = "queues", description = "Queues and their metadata"),
        (name = "messages", description = "Posting, reading and deleting messages"),
        (name = "claims", description = "Taking messages out of circulation"),
    )
)]
struct Description;

/// The OpenAPI 3.1 document of everything that is served.
pub fn document() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let document = serde_json::to_value(document()).expect("a document");
        assert_eq!(document["openapi"], "3.1.0");
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<(String, String)> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("methods").keys();
                methods.map(|method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let served = crate::http::routes();
        let served: BTreeSet<(String, String)> = served
            .iter()
            .flat_map(super::super::route::Route::operations)
            .map(|(path, method)| (path.to_owned(), method.to_string()))
            .collect();
        assert_eq!(described, served);
    }
}
