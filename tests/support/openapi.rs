//! The description of the REST API that nodes serve, and what it says of an answer.

use std::collections::BTreeSet;

use serde_json::Value;

use super::http::Response;

/// The document as it is built into the server.
pub const DOCUMENT: &str = include_str!("../../src/api/rest/openapi.json");

const METHODS: [&str; 7] = ["get", "head", "put", "post", "delete", "patch", "options"];

/// The document, understood.
#[derive(Debug)]
pub struct OpenApi(pub Value);

impl OpenApi {
    /// Reads it.
    pub fn new() -> OpenApi {
        OpenApi(serde_json::from_str(DOCUMENT).expect("it is JSON"))
    }

    /// What a reference stands for, or what is no reference.
    pub fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
        let pointer = reference.strip_prefix('#').expect("references stay in the document");
        self.0.pointer(pointer).unwrap_or_else(|| panic!("there is no {reference}"))
    }

    /// Method and path of every operation, with the operation.
    pub fn operations(&self) -> Vec<(&'static str, &str, &Value)> {
        let paths = self.0["paths"].as_object().expect("paths").iter();
        let of_path = |(path, item)| {
            let path: &String = path;
            let item: &Value = item;
            METHODS
                .into_iter()
                .filter_map(|method| Some((method, path.as_str(), item.get(method)?)))
                .collect::<Vec<_>>()
        };
        paths.flat_map(of_path).collect()
    }

    /// The statuses of an operation.
    pub fn statuses(operation: &Value) -> BTreeSet<u16> {
        let responses = operation["responses"].as_object().expect("responses").keys();
        responses.map(|status| status.parse().expect("a number")).collect()
    }

    /// An answer has a status, a type and headers that the document promises.
    #[track_caller]
    pub fn check(&self, method: &str, path: &str, answer: &Response) {
        let operation = &self.0["paths"][path][method.to_ascii_lowercase()];
        let response = self.resolve(&operation["responses"][answer.status.to_string()]);
        assert!(response.is_object(), "{method} {path} is answered {}: {answer:?}", answer.status);
        let kind = answer.header("content-type").and_then(|kind| kind.split(';').next());
        let kinds: Vec<&String> =
            response["content"].as_object().into_iter().flat_map(|content| content.keys()).collect();
        if method != "HEAD" {
            let is_told = kind.map_or(kinds.is_empty(), |kind| kinds.iter().any(|known| *known == kind));
            assert!(is_told, "{method} {path} is answered {} with {kind:?}, not {kinds:?}", answer.status);
        }
        for (name, header) in response["headers"].as_object().into_iter().flatten() {
            let is_there = answer.header(&name.to_ascii_lowercase()).is_some();
            assert!(is_there || header["required"] != true, "{method} {path} is answered without {name}: {answer:?}");
        }
    }
}
