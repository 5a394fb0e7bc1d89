//! The description of the API, from the types that it is made of.

use utoipa::OpenApi;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{Object, RefOr, Required, Type};

use super::problem::ErrorDocument;
use super::{claims, flavors, health, home, messages, pools, queues, share, subscriptions, topics};

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
        home::show_version,
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
        share::share,
        topics::list,
        messages::post,
        messages::list,
        messages::delete_several,
        messages::get,
        messages::delete,
        claims::create,
        claims::show,
        claims::update,
        claims::delete,
        pools::list,
        pools::create,
        pools::show,
        pools::update,
        pools::delete,
        flavors::list,
        flavors::create,
        flavors::show,
        flavors::update,
        flavors::delete,
        health::health,
        subscriptions::create,
        subscriptions::list,
        subscriptions::show,
        subscriptions::update,
        subscriptions::delete,
        subscriptions::confirm,
    ),
    components(schemas(ErrorDocument)),
    tags(
        (name = "service", description = "What the service says of itself"),
        (name = "queues", description = "Queues and their metadata"),
        (name = "messages", description = "Posting, reading and deleting messages"),
        (name = "claims", description = "Taking messages out of circulation"),
        (name = "pools", description = "Stores that operators register"),
        (name = "flavors", description = "Sets of pools for the queues of a project"),
        (name = "subscriptions", description = "Who is told of what is posted"),
        (name = "topics", description = "Queues without claims, in a name space of their own"),
    )
)]
struct Description;

/// The OpenAPI 3.1 document of everything that is served.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Description::openapi();
    describe_topics(&mut document);
    for (path, item) in &mut document.paths.paths {
        let parameters = parameters(path);
        let operations = [
            &mut item.get,
            &mut item.head,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            let own = operation.parameters.take().unwrap_or_default();
            operation.parameters = Some(
                parameters
                    .iter()
                    .cloned()
                    .map(RefOr::T)
                    .chain(own)
                    .collect(),
            );
        }
    }
    document
}

/// A topic has what a queue has, apart from claims and pre-signed access, under a path of its own.
fn describe_topics(document: &mut utoipa::openapi::OpenApi) {
    const QUEUE: &str = "/v2/queues/{queue}";
    let paths = &mut document.paths.paths;
    let is_shared = |rest: &str| !rest.starts_with("/claims") && rest != "/share";
    let shared: Vec<_> = paths
        .iter()
        .filter_map(|(path, item)| Some((path.strip_prefix(QUEUE)?, item)))
        .filter(|(rest, _)| is_shared(rest))
        .map(|(rest, item)| (format!("/v2/topics/{{topic}}{rest}"), item.clone()))
        .collect();
    for (path, mut item) in shared {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            operation.tags = Some(vec!["topics".to_owned()]);
            let name = operation.operation_id.take();
            operation.operation_id = name.map(|name| format!("topic_{name}"));
        }
        paths.insert(path, item);
    }
}

/// What every operation of a path asks for: its variables, and who asks.
fn parameters(path: &str) -> Vec<Parameter> {
    let variables = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let variables = variables.map(|name| (name, ParameterIn::Path));
    let headers = ["Client-ID", "X-Project-Id"].map(|name| (name, ParameterIn::Header));
    let headers = headers.into_iter().filter(|_| path != "/");
    let required = |(name, place)| {
        let text = Object::with_type(Type::String);
        let parameter = ParameterBuilder::new().name(name).parameter_in(place);
        parameter
            .required(Required::True)
            .schema(Some(text))
            .build()
    };
    variables.chain(headers).map(required).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_variable_of_a_path_is_described() {
        let document = serde_json::to_value(document()).expect("a document");
        for (path, item) in document["paths"].as_object().expect("paths") {
            let named = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            let named: Vec<&str> = named.collect();
            for (method, operation) in item.as_object().expect("methods") {
                let parameters = operation["parameters"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let described = parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "path");
                let described: Vec<&str> = described
                    .filter_map(|parameter| parameter["name"].as_str())
                    .collect();
                assert_eq!(described, named, "{method} {path}");
            }
        }
    }

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
