//! `grpc.reflection.v1.ServerReflection`, and `v1alpha` of it for older tools: what services there are and what their
//! messages look like, so that a client needs no `.proto` file.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::generated::reflection::server_reflection_request::MessageRequest;
use super::generated::reflection::server_reflection_response::MessageResponse;
use super::generated::reflection::server_reflection_server::ServerReflection;
use super::generated::reflection::{
    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};
use super::generated::reflection_alpha::server_reflection_server::ServerReflection as ServerReflectionAlpha;
use super::status;
use crate::api::node_handle::NodeHandle;
use crate::metrics::requests::Task;

/// What `tools/codegen` writes beside the code: a `FileDescriptorSet` of all `.proto` files.
const DESCRIPTORS: &[u8] = include_bytes!("generated/descriptors.bin");

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::new(DESCRIPTORS));

/// The files, and where what is in them.
#[derive(Debug, Default)]
struct Catalog {
    /// The names of services.
    services: Vec<String>,
    /// By name: encoded descriptions of files.
    files: BTreeMap<String, Bytes>,
    /// By full name: the file with the service, method, message, field or enumeration.
    symbols: BTreeMap<String, String>,
}

impl Catalog {
    fn new(descriptors: &[u8]) -> Catalog {
        let set = FileDescriptorSet::decode(descriptors).expect("what was generated can be decoded");
        let mut catalog = Catalog::default();
        set.file.iter().for_each(|file| catalog.add(file));
        catalog
    }

    fn add(&mut self, file: &FileDescriptorProto) {
        let package = file.package();
        for service in &file.service {
            let name = format!("{package}.{}", service.name());
            service.method.iter().for_each(|method| self.symbol(&name, method.name(), file));
            self.symbol(package, service.name(), file);
            self.services.push(name);
        }
        file.enum_type.iter().for_each(|enumeration| self.symbol(package, enumeration.name(), file));
        file.message_type.iter().for_each(|message| self.message(package, message, file));
        self.files.insert(file.name().to_owned(), file.encode_to_vec().into());
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto, file: &FileDescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.field.iter().for_each(|field| self.symbol(&name, field.name(), file));
        message.enum_type.iter().for_each(|enumeration| self.symbol(&name, enumeration.name(), file));
        message.nested_type.iter().for_each(|nested| self.message(&name, nested, file));
        self.symbol(scope, message.name(), file);
    }

    fn symbol(&mut self, scope: &str, name: &str, file: &FileDescriptorProto) {
        self.symbols.insert(format!("{scope}.{name}"), file.name().to_owned());
    }

    /// The file with this name.
    fn file(&self, name: &str) -> MessageResponse {
        match self.files.get(name) {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.clone()],
            }),
            None => not_found(format!("there is no file `{name}`")),
        }
    }

    fn answer(&self, request: Option<&MessageRequest>) -> MessageResponse {
        match request {
            Some(MessageRequest::FileByFilename(name)) => self.file(name),
            Some(MessageRequest::FileContainingSymbol(symbol)) => match self.symbols.get(symbol) {
                Some(file) => self.file(file),
                None => not_found(format!("there is no symbol `{symbol}`")),
            },
            Some(MessageRequest::FileContainingExtension(_)) => not_found("there are no extensions".to_owned()),
            Some(MessageRequest::AllExtensionNumbersOfType(kind)) if self.symbols.contains_key(kind) => {
                let none = ExtensionNumberResponse { base_type_name: kind.clone(), extension_number: Vec::new() };
                MessageResponse::AllExtensionNumbersResponse(none)
            }
            Some(MessageRequest::AllExtensionNumbersOfType(kind)) => not_found(format!("there is no type `{kind}`")),
            Some(MessageRequest::ListServices(_)) => {
                let services = self.services.iter().map(|name| ServiceResponse { name: name.clone() });
                MessageResponse::ListServicesResponse(ListServiceResponse { service: services.collect() })
            }
            None => error(Code::InvalidArgument, "nothing is asked".to_owned()),
        }
    }
}

fn not_found(message: String) -> MessageResponse {
    error(Code::NotFound, message)
}

fn error(code: Code, message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message: message })
}

/// Tells of all services.
#[derive(Debug)]
pub struct Reflector(pub Arc<NodeHandle>);

impl Reflector {
    fn answers(&self, requests: Request<Streaming<ServerReflectionRequest>>) -> Response<Answers> {
        Response::new(Answers { requests: requests.into_inner(), node: self.0.clone(), has_ended: false })
    }
}

#[tonic::async_trait]
impl ServerReflection for Reflector {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(self.answers(requests))
    }
}

#[tonic::async_trait]
impl ServerReflectionAlpha for Reflector {
    type ServerReflectionInfoStream = Answers;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(self.answers(requests))
    }
}

/// The answers to a stream of questions, in their order.
pub struct Answers {
    requests: Streaming<ServerReflectionRequest>,
    node: Arc<NodeHandle>,
    has_ended: bool,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl Stream for Answers {
    type Item = Result<ServerReflectionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.requests).poll_next(context) {
            Poll::Ready(Some(Ok(request))) => {
                let answer = CATALOG.answer(request.message_request.as_ref());
                Poll::Ready(Some(Ok(ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(answer),
                })))
            }
            Poll::Ready(Some(Err(status))) => {
                self.has_ended = true;
                Poll::Ready(Some(Err(status::own(status, &self.node, Task::Reflection))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending if self.node.health.is_stopping() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
